package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

func zoom() Provider {
	return signed(Provider{
		Name: "zoom", Title: "Zoom", Source: "https://developers.zoom.us/docs/api/webhooks/#verify-webhook-events", Tolerance: defaultTolerance,
		naming: Naming{ID: []string{"json:event_ts+body:sha256"}, Type: []string{"json:event"}, Key: []string{"json:payload.object.uuid", "json:payload.object.id"}, Time: []string{"json:event_ts"}},
	}, Scheme{
		Header: "X-Zm-Signature", Prefix: "v0=", TimestampHeader: "X-Zm-Request-Timestamp", Content: "v0:{timestamp}:{body}",
	}).extended(func(c *configuration, s *scheme) error {
		// The validation that Zoom sends when an address is added, and every 72 hours after. It is signed as all else, and is
		// answered with the secret that is first in the list, which therefore is the new one in a rotation. The answer is no signature of a
		// webhook: what is signed there begins with "v0:", and no token does.
		secret := []byte(c.Secrets[0])
		s.reply = func(r *Request) *Answer {
			fields, rejection := bodyFields(r.Body, "event", "payload.plainToken")
			if rejection != nil || fields[0] != "endpoint.url_validation" || !challengeText(fields[1]) {
				return nil
			}
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(fields[1]))
			body, err := json.Marshal(map[string]string{"plainToken": fields[1], "encryptedToken": hex.EncodeToString(mac.Sum(nil))})
			if err != nil {
				return nil
			}
			a := jsonAnswer(body)
			return &a
		}
		return nil
	})
}
