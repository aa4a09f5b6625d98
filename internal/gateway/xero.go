package gateway

import "net/http"

// xero tries an address with several requests, some of them signed wrongly on purpose: 200 without a body for the right
// ones, 401 for the others. Those without events want the answer only. The key looks like base64 and is text.
func xero() Provider {
	return signed(Provider{
		Name: "xero", Title: "Xero", Source: "https://developer.xero.com/documentation/guides/webhooks/configuring-your-server/",
		naming: Naming{
			ID:   []string{"json:events.*.resourceId+json:events.*.eventDateUtc+json:events.*.eventType"},
			Type: []string{"json:events.*.eventCategory+json:events.*.eventType"},
			Key:  []string{"json:events.*.resourceId"}, Time: []string{"json:events.0.eventDateUtc"},
		},
	}, Scheme{Header: "X-Xero-Signature", Encoding: Base64}).extended(func(_ *configuration, s *scheme) error {
		s.reply = func(r *Request) *Answer {
			fields, rejection := bodyFields(r.Body, "events.0.resourceId", "events.0.eventType", "entropy")
			if rejection != nil || fields[0] != "" || fields[1] != "" || fields[2] == "" {
				return nil
			}
			return &Answer{Status: http.StatusOK}
		}
		return nil
	})
}
