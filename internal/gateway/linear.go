package gateway

import (
	"context"
	"time"
)

// linear signs the body, in which its time stands; the same time in a header is not signed and counts only if the body has none.
func linear() Provider {
	p := signed(Provider{
		Name: "linear", Title: "Linear", Source: "https://linear.app/developers/webhooks", Tolerance: time.Minute,
		Doc: "Linear-Signature: hex of HMAC-SHA256 over {body}, which has webhookTimestamp in milliseconds",
		naming: Naming{ID: []string{"header:Linear-Delivery", "json:webhookTimestamp+body:sha256"}, Type: []string{"json:type+json:action", "header:Linear-Event"}, Key: []string{"json:data.id"},
			Time: []string{"json:createdAt", "json:webhookTimestamp"}, Keep: []string{"Linear-Event"}},
	}, Scheme{Header: "Linear-Signature"}).extended(func(c *configuration, s *scheme) error {
		check, tolerance := s.check, c.tolerance(time.Minute)
		s.check = func(ctx context.Context, r *Request) *Rejection {
			if rejection := check(ctx, r); rejection != nil {
				return rejection
			}
			fields, rejection := bodyFields(r.Body, "webhookTimestamp")
			if rejection != nil {
				return rejection
			}
			where, at := "webhookTimestamp", fields[0]
			if at == "" && len(r.Header.Values("Linear-Timestamp")) > 0 {
				if at, rejection = one(r.Header, "Linear-Timestamp"); rejection != nil {
					return rejection
				}
				where = "header Linear-Timestamp"
			}
			if at == "" {
				return nil
			}
			return checkClock(where, at, Milliseconds, r.Received, tolerance)
		}
		return nil
	})
	p.timed = true
	return p
}
