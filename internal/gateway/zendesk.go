package gateway

func zendesk() Provider {
	return signed(Provider{
		Name: "zendesk", Title: "Zendesk", Source: "https://developer.zendesk.com/documentation/webhooks/verifying/", Tolerance: defaultTolerance,
		naming: Naming{ID: []string{"header:X-Zendesk-Webhook-Invocation-Id", "json:id"}, Type: []string{"json:type"}, Key: []string{"json:detail.id", "json:subject"},
			Time: []string{"json:time", "header:X-Zendesk-Webhook-Signature-Timestamp"}, Keep: []string{"X-Zendesk-Webhook-Id", "X-Zendesk-Account-Id"}},
	}, Scheme{
		Header: "X-Zendesk-Webhook-Signature", Encoding: Base64,
		TimestampHeader: "X-Zendesk-Webhook-Signature-Timestamp", Unit: RFC3339, Content: "{timestamp}{body}",
	})
}
