package gateway

import (
	"context"
	"net/http"

	"github.com/eventhose/eventhose"
)

func meta() Provider {
	return metaBased(Provider{
		Name: "meta", Title: "Meta (Facebook, Instagram, Messenger)", Source: "https://developers.facebook.com/docs/graph-api/webhooks/getting-started",
		naming: Naming{ID: []string{"json:entry.0.time+body:sha256"}, Type: []string{"json:object+json:entry.*.changes.*.field", "json:object"}, Key: []string{"json:entry.*.id"}, Time: []string{"json:entry.0.time"}},
	})
}

func whatsapp() Provider {
	return metaBased(Provider{
		Name: "whatsapp", Title: "WhatsApp Business", Source: "https://developers.facebook.com/docs/whatsapp/cloud-api/guides/set-up-webhooks",
		naming: Naming{
			ID:   []string{"json:entry.0.changes.0.value.messages.0.id+body:sha256", "json:entry.0.changes.0.value.statuses.0.id+body:sha256", "json:entry.0.time+body:sha256"},
			Type: []string{"json:entry.*.changes.*.field"}, Time: []string{"json:entry.0.changes.0.value.messages.0.timestamp", "json:entry.0.changes.0.value.statuses.0.timestamp"},
			Key: []string{"json:entry.*.changes.*.value.messages.*.from", "json:entry.*.changes.*.value.statuses.*.recipient_id"},
		},
	})
}

func metaBased(p Provider) Provider {
	p.Needs = []Need{{fieldSecrets, true, "the app secret"}, {fieldVerifyToken, true, "the verify token that you chose for the subscription"}}
	return signed(p, Scheme{Header: "X-Hub-Signature-256", Prefix: "sha256="}).extended(func(c *configuration, s *scheme) error {
		shown := c.parameterShows("hub.verify_token", []eventhose.Secret{c.VerifyToken})
		s.probe = func(_ context.Context, r *Request, _ *Verifier) Verdict {
			if r.Method != http.MethodGet {
				return rejected(reject(ReasonMethod, "the method is %s, and should be POST, or GET to subscribe", quoted(r.Method)))
			}
			mode, rejection := queried(r, "hub.mode")
			if rejection != nil {
				return rejected(rejection)
			}
			parameters, _ := parseForm(r.Query)
			if mode != "subscribe" || !shown(parameters.values) {
				return rejected(reject(ReasonNoMatch, "the verify token of the subscription is not the source's"))
			}
			value, rejection := queried(r, "hub.challenge")
			if rejection != nil {
				return rejected(rejection)
			}
			return handshake(text(value))
		}
		return nil
	})
}
