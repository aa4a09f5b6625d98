package gateway

// square takes the SHA-256 signature only; the SHA-1 one in X-Square-Signature is not looked at.
func square() Provider {
	return signed(Provider{
		Name: "square", Title: "Square", Source: "https://developer.squareup.com/docs/webhooks/step3validate",
		naming: Naming{ID: []string{"json:event_id"}, Type: []string{"json:type"}, Key: []string{"json:data.id"}, Time: []string{"json:created_at"},
			Keep: []string{"Square-Environment", "Square-Retry-Number"}},
	}, Scheme{Header: "X-Square-Hmacsha256-Signature", Encoding: Base64, Content: "{url}{body}"})
}
