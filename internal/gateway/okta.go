package gateway

import (
	"context"
	"encoding/json"
	"net/http"
)

// okta has no signature: a header that one chooses holds a secret. It tries the address once with GET.
func okta() Provider {
	return tokenBased(Provider{
		Name: "okta", Title: "Okta", Source: "https://developer.okta.com/docs/concepts/event-hooks/",
		Doc: "No signature: the authentication field and secret of the event hook",
		Needs: []Need{{fieldSecrets, true, "the authentication secret of the event hook"},
			{optionHeader, false, "the authentication field of the event hook, Authorization if not given"}},
		naming: Naming{ID: []string{"json:eventId", "json:data.events.*.uuid"}, Type: []string{"json:data.events.*.eventType", "json:eventType"},
			Key: []string{"json:data.events.*.actor.id"}, Time: []string{"json:eventTime"}},
	}, "Authorization").extended(func(c *configuration, s *scheme) error {
		const header = "X-Okta-Verification-Challenge"
		s.probe = func(_ context.Context, r *Request, _ *Verifier) Verdict {
			if r.Method != http.MethodGet {
				return rejected(reject(ReasonMethod, "the method is %s, and should be POST, or GET with a challenge", quoted(r.Method)))
			}
			value, rejection := one(r.Header, header)
			if rejection != nil {
				return rejected(rejection)
			}
			if !challengeText(value) {
				return rejected(malformed(header, value, "1 to 256 letters, digits and _ . - = + /"))
			}
			body, err := json.Marshal(map[string]string{"verification": value})
			if err != nil {
				return rejected(reject(ReasonBody, "the challenge cannot be answered"))
			}
			return handshake(jsonAnswer(body))
		}
		return nil
	})
}
