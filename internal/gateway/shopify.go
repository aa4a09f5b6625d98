package gateway

import "context"

// shopify takes both families of headers: X-Shopify-… of webhooks, and Shopify-… of events. A request has one of them.
func shopify() Provider {
	const header, other = "X-Shopify-Hmac-Sha256", "Shopify-Hmac-Sha256"
	return signed(Provider{
		Name: "shopify", Title: "Shopify", Source: "https://shopify.dev/docs/apps/build/webhooks/subscribe/https",
		naming: Naming{
			ID:   []string{"header:X-Shopify-Webhook-Id", "header:Shopify-Webhook-Id"},
			Type: []string{"header:X-Shopify-Topic", "header:Shopify-Topic"},
			Key:  []string{"json:admin_graphql_api_id", "json:id"},
			Time: []string{"header:X-Shopify-Triggered-At", "header:Shopify-Triggered-At"},
			Keep: []string{"X-Shopify-Shop-Domain", "X-Shopify-Event-Id", "X-Shopify-Api-Version", "Shopify-Shop-Domain", "Shopify-Event-Id", "Shopify-Api-Version"},
		},
	}, Scheme{Header: header, also: []string{other}, Encoding: Base64}).extended(func(_ *configuration, s *scheme) error {
		check := s.check
		s.check = func(ctx context.Context, r *Request) *Rejection {
			if len(r.Header.Values(header)) > 0 && len(r.Header.Values(other)) > 0 {
				return reject(ReasonHeaderRepeated, "headers %s and %s are both there", header, other)
			}
			return check(ctx, r)
		}
		return nil
	})
}
