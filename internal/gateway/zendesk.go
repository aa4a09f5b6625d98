package gateway

func zendesk() Provider {
	return signed(Provider{
		Name: "zendesk", Title: "Zendesk", Source: "https://developer.zendesk.com/documentation/webhooks/verifying/", Tolerance: defaultTolerance,
		// Zendesk's own events have an id. The body of a trigger is what somebody wrote, and an id in it anything's.
		naming: Naming{ID: []string{"json:zendesk_event_version+json:id", "header:X-Zendesk-Webhook-Invocation-Id", "json:id"}, Type: []string{"json:type"}, Key: []string{"json:detail.id", "json:subject"},
			Time: []string{"json:time", "header:X-Zendesk-Webhook-Signature-Timestamp"}, Keep: []string{"X-Zendesk-Webhook-Id", "X-Zendesk-Account-Id"}},
	}, Scheme{
		Header: "X-Zendesk-Webhook-Signature", Encoding: Base64,
		TimestampHeader: "X-Zendesk-Webhook-Signature-Timestamp", Unit: RFC3339, Content: "{timestamp}{body}",
	})
}
