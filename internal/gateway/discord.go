package gateway

import (
	"context"
	"crypto/ed25519"
	"net/http"

	"github.com/eventhose/eventhose"
)

// discord sends interactions and webhook events. It signs some requests wrongly on purpose, and takes away an address that
// does not answer those with 401.
func discord() Provider {
	const signature, timestamp = "X-Signature-Ed25519", "X-Signature-Timestamp"
	return Provider{
		Name: "discord", Title: "Discord", Source: "https://discord.com/developers/docs/events/webhook-events", Tolerance: defaultTolerance,
		Doc:    "X-Signature-Ed25519: hex of Ed25519 over {timestamp}{body}",
		Needs:  []Need{{fieldPublicKeys, true, "the application's public key, 64 hex digits"}},
		naming: Naming{ID: []string{"json:id", "json:event.timestamp+body:sha256"}, Type: []string{"json:event.type", "text:interaction"}, Key: []string{"json:channel_id", "json:guild_id"}, Time: []string{"json:event.timestamp"}},
		open: func(c *configuration) (scheme, error) {
			keys, err := discordKeys(c)
			if err != nil {
				return scheme{}, err
			}
			tolerance := c.tolerance(defaultTolerance)
			stamp := func(r *Request) [][]byte { return [][]byte{[]byte(r.Header.Get(timestamp)), r.Body} }
			return scheme{reply: discordReply, answer: Answer{Status: http.StatusNoContent}, stamp: stamp, check: func(_ context.Context, r *Request) *Rejection {
				hex, rejection := one(r.Header, signature)
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
				sum, ok := Hex.decode(hex)
				if !ok || len(sum) != ed25519.SignatureSize {
					return malformed(signature, hex, "128 hex digits")
				}
				message := append([]byte(at), r.Body...)
				for _, k := range keys {
					if ed25519.Verify(k, message, sum) {
						return nil
					}
				}
				return noMatch(len(keys))
			}}, nil
		},
	}
}

func discordKeys(c *configuration) (keys []ed25519.PublicKey, err error) {
	for i, text := range c.PublicKeys {
		b, ok := Hex.decode(text)
		if !ok || len(b) != ed25519.PublicKeySize {
			return nil, eventhose.Invalid(element(fieldPublicKeys, i), "must be 64 hex digits")
		}
		keys = append(keys, b)
	}
	return keys, nil
}

// discordReply answers the pings: type 0 of webhook events with 204, type 1 of interactions (which have no event) in kind.
func discordReply(r *Request) *Answer {
	fields, rejection := bodyFields(r.Body, "type", "event.type")
	switch {
	case rejection != nil || fields[1] != "":
		return nil
	case fields[0] == "0":
		return &Answer{Status: http.StatusNoContent}
	case fields[0] == "1":
		a := jsonAnswer([]byte(`{"type":1}`))
		return &a
	}
	return nil
}
