package gateway

import (
	"context"
	"time"
)

// mailgun signs a time and a token, and not the body: whoever has seen one signature can put any body beside it. So the
// token that was verified is the event's id, which the log takes once.
func mailgun() Provider {
	const tolerance = 15 * time.Minute
	return Provider{
		Name: "mailgun", Title: "Mailgun", Source: "https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks", Tolerance: tolerance,
		Doc:     "signature in the body: hex of HMAC-SHA256 over {timestamp}{token}; the rest of the body is not signed",
		Repeats: "the token",
		Needs:   []Need{{fieldSecrets, true, "the HTTP webhook signing key, which is not the API key"}},
		naming: Naming{
			Type: []string{"json:event-data.event", "form:event", "text:inbound"},
			Key:  []string{"json:event-data.message.headers.message-id", "form:Message-Id"}, Time: []string{"json:event-data.timestamp", "form:timestamp"},
		},
		open: func(c *configuration) (scheme, error) {
			keys, err := c.keys(Text, "")
			m, tolerance := newMACs(SHA256, keys...), c.tolerance(tolerance)
			return scheme{asForm: isForm, id: mailgunToken, check: func(_ context.Context, r *Request) *Rejection {
				at, token, signature, rejection := mailgunSignature(r)
				if rejection != nil {
					return rejection
				}
				if rejection := checkClock("the signature's timestamp", at, Seconds, r.Received, tolerance); rejection != nil {
					return rejection
				}
				sum, ok := Hex.decode(signature)
				if !ok || len(sum) != m.size {
					return reject(ReasonBody, "the signature is %s, and should be 64 hex digits", quoted(signature))
				}
				if !m.match([][]byte{sum}, []byte(at), []byte(token)) {
					return noMatch(len(keys))
				}
				return nil
			}}, err
		},
	}
}

func mailgunToken(r *Request) string {
	_, token, _, _ := mailgunSignature(r)
	return token
}

// mailgunSignature reads the three parts, each of which must be there once.
func mailgunSignature(r *Request) (at, token, signature string, rejection *Rejection) {
	if f, rejection := readForm(r); rejection == nil {
		var parts [3]string
		for i, name := range []string{"timestamp", "token", "signature"} {
			if len(f.values[name]) != 1 || f.get(name) == "" {
				return "", "", "", reject(ReasonBody, "the parameter %s must be there once", name)
			}
			parts[i] = f.get(name)
		}
		return parts[0], parts[1], parts[2], nil
	}
	fields, rejection := bodyFields(r.Body, "signature.timestamp", "signature.token", "signature.signature")
	if rejection != nil {
		return "", "", "", rejection
	}
	for i, name := range []string{"timestamp", "token", "signature"} {
		if fields[i] == "" {
			return "", "", "", reject(ReasonBody, "the body has no signature.%s", name)
		}
	}
	return fields[0], fields[1], fields[2], nil
}
