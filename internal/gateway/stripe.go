package gateway

func stripe() Provider {
	return signed(Provider{
		Name: "stripe", Title: "Stripe", Source: "https://docs.stripe.com/webhooks/signature", Tolerance: defaultTolerance,
		naming: Naming{ID: []string{"json:id"}, Type: []string{"json:type"}, Key: []string{"json:data.object.id", "json:related_object.id"},
			Time: []string{"json:created"}},
	}, Scheme{
		// The secret is the whole text, "whsec_" included: it is not decoded, unlike Standard Webhooks'.
		Header: "Stripe-Signature", Separator: ",", SignatureName: "v1", TimestampName: "t", Content: "{timestamp}.{body}",
	})
}
