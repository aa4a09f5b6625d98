package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
)

// x is X, once Twitter, and whoever took over its challenge-response check: GET with crc_token, answered with its HMAC. That is
// the signature of a webhook with the token for a body, and anybody may ask for it: such a body is refused. X's are JSON objects, which no
// token can be.
func x() Provider {
	return signed(Provider{
		Name: "x", Title: "X (Twitter)", Source: "https://docs.x.com/x-api/webhooks/introduction",
		// Everything that happens to an account has an id or a time, in milliseconds.
		naming: Naming{ID: []string{"json:for_user_id+body:sha256"}, Type: []string{"text:account_activity"}, Key: []string{"json:for_user_id"}},
	}, Scheme{Header: "X-Twitter-Webhooks-Signature", Prefix: "sha256=", Encoding: Base64}).extended(func(c *configuration, s *scheme) error {
		check, m := s.check, newMACs(SHA256, []byte(c.Secrets[0]))
		s.check = func(ctx context.Context, r *Request) *Rejection {
			if challengeText(string(r.Body)) {
				return reject(ReasonBody, "the body is what a challenge can be, whose signature anybody can ask for; X sends JSON objects")
			}
			return check(ctx, r)
		}
		s.probe = func(_ context.Context, r *Request, _ *Verifier) Verdict {
			if r.Method != http.MethodGet {
				return rejected(reject(ReasonMethod, "the method is %s, and should be POST, or GET with crc_token", quoted(r.Method)))
			}
			token, rejection := queried(r, "crc_token")
			if rejection != nil {
				return rejected(rejection)
			}
			sum := m.sum(0, []byte(token))
			body, err := json.Marshal(map[string]string{"response_token": "sha256=" + base64.StdEncoding.EncodeToString(sum)})
			if err != nil {
				return rejected(reject(ReasonBody, "the token cannot be answered"))
			}
			return handshake(jsonAnswer(body))
		}
		return nil
	})
}
