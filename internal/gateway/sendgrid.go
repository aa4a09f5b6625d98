package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"

	"github.com/eventhose/eventhose"
)

// sendgrid signs its event webhook. Whether it signs again when it tries again is not told, so the time is checked only if
// the source gives a tolerance.
func sendgrid() Provider {
	const header, timestamp = "X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"
	return Provider{
		Name: "sendgrid", Title: "SendGrid event webhook", Source: "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features", timed: true,
		Doc:   "X-Twilio-Email-Event-Webhook-Signature: base64 of ECDSA P-256 with SHA-256 over {timestamp}{body}",
		Needs: []Need{{fieldPublicKeys, true, "the verification key, base64"}},
		naming: Naming{ID: []string{"json:*.sg_event_id"}, Type: []string{"json:*.event"}, Key: []string{"json:*.sg_message_id"},
			Time: []string{"json:0.timestamp"}},
		open: func(c *configuration) (scheme, error) {
			var keys []*ecdsa.PublicKey
			for i, text := range c.PublicKeys {
				k, err := ecdsaKey(text)
				if err != nil {
					return scheme{}, eventhose.Invalid(element(fieldPublicKeys, i), "%s", err)
				}
				keys = append(keys, k)
			}
			tolerance := c.tolerance(0)
			stamp := func(r *Request) [][]byte { return [][]byte{[]byte(r.Header.Get(timestamp)), r.Body} }
			return scheme{stamp: stamp, check: func(_ context.Context, r *Request) *Rejection {
				value, rejection := one(r.Header, header)
				if rejection != nil {
					return rejection
				}
				at, rejection := one(r.Header, timestamp)
				if rejection != nil {
					return rejection
				}
				if rejection := checkClock("header "+timestamp, at, Seconds, r.Received, tolerance); rejection != nil {
					return rejection
				}
				if len(at) < 10 { // the others would stand before the body, where they are signed as well
					return malformed(timestamp, at, "Unix seconds of ten digits")
				}
				signature, ok := Base64.decode(value)
				if !ok {
					return malformed(header, value, "base64")
				}
				h := sha256.New()
				h.Write([]byte(at))
				h.Write(r.Body)
				sum := h.Sum(nil)
				for _, k := range keys {
					if ecdsa.VerifyASN1(k, sum, signature) {
						return nil
					}
				}
				return noMatch(len(keys))
			}}, nil
		},
	}
}

var (
	errNotBase64 = errors.New("is not base64")
	errNotP256   = errors.New("is not an ECDSA key of the curve P-256")
)

// ecdsaKey reads the base64 of a P-256 key as SubjectPublicKeyInfo.
func ecdsaKey(text string) (*ecdsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errNotBase64
	}
	key, err := x509.ParsePKIXPublicKey(der)
	k, ok := key.(*ecdsa.PublicKey)
	if err != nil || !ok || k.Curve != elliptic.P256() {
		return nil, errNotP256
	}
	return k, nil
}
