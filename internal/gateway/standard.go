package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/sign"
)

// standard is Standard Webhooks, as anybody may send it.
func standard() Provider {
	return standardBased("standard", "Standard Webhooks", "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md", Naming{
		Type: []string{"json:type"}, Key: []string{"json:data.id"}, Time: []string{"json:timestamp"},
	})
}

func svix() Provider {
	return standardBased("svix", "Svix", "https://docs.svix.com/receiving/verifying-payloads/how-manual", Naming{
		Type: []string{"json:type", "json:event_type", "json:eventType"}, Time: []string{"json:timestamp"},
	})
}

func clerk() Provider {
	return standardBased("clerk", "Clerk", "https://clerk.com/docs/webhooks/sync-data", Naming{
		Type: []string{"json:type"}, Key: []string{"json:data.id"}, Time: []string{"json:timestamp"},
	})
}

func resend() Provider {
	return standardBased("resend", "Resend", "https://resend.com/docs/dashboard/webhooks/verify-webhooks-requests", Naming{
		Type: []string{"json:type"}, Key: []string{"json:data.email_id"}, Time: []string{"json:created_at"},
	})
}

func openAI() Provider {
	return standardBased("openai", "OpenAI", "https://platform.openai.com/docs/guides/webhooks", Naming{
		Type: []string{"json:type"}, Key: []string{"json:data.id"}, Time: []string{"json:created_at"},
	})
}

// svixPrefix begins the headers of Svix in the place of "webhook-".
const svixPrefix = "svix-"

func standardBased(name, title, source string, naming Naming) Provider {
	naming.ID = []string{"header:" + sign.HeaderID, "header:svix-id"}
	return Provider{
		Name: name, Title: title, Source: source, naming: naming, Tolerance: sign.DefaultTolerance,
		Doc: "Standard Webhooks: webhook-signature (or svix-signature): v1, base64 of HMAC-SHA256 over {id}.{timestamp}.{body}, or v1a with a public key",
		Needs: []Need{{fieldSecrets, false, "the signing secret, whsec_ and base64; this or a public key"},
			{fieldPublicKeys, false, "the public key, whpk_ and base64"}},
		open: func(c *configuration) (scheme, error) {
			check, err := standardCheck(c)
			return scheme{check: check, stamp: standardStamp}, err
		},
	}
}

func standardCheck(c *configuration) (func(context.Context, *Request) *Rejection, error) {
	var keys []sign.Verifier
	for i, s := range c.Secrets {
		k, err := sign.ParseSecret(string(s))
		if err != nil {
			return nil, invalidKey(element(fieldSecrets, i), err)
		}
		keys = append(keys, k)
	}
	for i, s := range c.PublicKeys {
		k, err := sign.ParsePublicKey(s)
		if err != nil {
			return nil, invalidKey(element(fieldPublicKeys, i), err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, eventhose.Invalid(fieldSecrets, "is required: the signing secret, or a public key")
	}
	tolerance := c.tolerance(sign.DefaultTolerance)
	return func(_ context.Context, r *Request) *Rejection {
		h, rejection := standardHeaders(r.Header)
		if rejection != nil {
			return rejection
		}
		return standardRejection(sign.Verify(h, r.Body, r.Received, tolerance, keys...), len(keys), h, r.Received)
	}, nil
}

// standardStamp is the id, which is the same for all tries of a message.
func standardStamp(r *Request) [][]byte {
	h, rejection := standardHeaders(r.Header)
	if rejection != nil {
		return nil
	}
	return [][]byte{[]byte(h.Get(sign.HeaderID))}
}

// standardHeaders answers one whole set of headers under the names of Standard Webhooks: theirs, or else Svix's. The two
// are never mixed.
func standardHeaders(h http.Header) (http.Header, *Rejection) {
	ours := []string{sign.HeaderID, sign.HeaderTimestamp, sign.HeaderSignature}
	if slices.ContainsFunc(ours, func(name string) bool { return len(h.Values(name)) > 0 }) {
		for _, name := range ours {
			if _, rejection := one(h, name); rejection != nil {
				return nil, rejection
			}
		}
		return h, nil
	}
	set := http.Header{}
	for _, name := range ours {
		value, rejection := one(h, svixPrefix+strings.TrimPrefix(name, "webhook-"))
		if rejection != nil && rejection.Reason == ReasonHeaderMissing && len(set) == 0 {
			return nil, reject(ReasonHeaderMissing, "header %s is missing", name)
		}
		if rejection != nil {
			return nil, rejection
		}
		set.Set(name, value)
	}
	return set, nil
}

func standardRejection(err error, keys int, h http.Header, now time.Time) *Rejection {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sign.ErrTooOld), errors.Is(err, sign.ErrTooNew):
		at, _ := Seconds.read(h.Get(sign.HeaderTimestamp))
		return reject(ReasonClock, "clock %s s off: %s", seconds(now.Sub(at).Abs().Round(time.Millisecond)), strings.TrimPrefix(err.Error(), "sign: "))
	case errors.Is(err, sign.ErrNoMatch):
		return noMatch(keys)
	}
	return reject(ReasonHeaderMalformed, "%s", strings.TrimPrefix(err.Error(), "sign: "))
}

func invalidKey(field string, err error) error {
	return eventhose.Invalid(field, "%s", strings.TrimPrefix(err.Error(), sign.ErrKey.Error()+": "))
}
