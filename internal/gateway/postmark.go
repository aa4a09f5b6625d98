package gateway

// postmark has no signature: Basic authentication in the URL, or a header of one's own.
func postmark() Provider {
	return tokenBased(Provider{
		Name: "postmark", Title: "Postmark", Source: "https://postmarkapp.com/developer/webhooks/webhooks-overview#protecting-your-webhook",
		Doc: "No signature: Basic authentication, or a header of one's own (options.header)",
		Needs: []Need{{fieldSecrets, true, "user:password of the URL, or the value of the header"},
			{optionHeader, false, "the header that holds the secret, in place of Basic authentication"}},
		naming: Naming{
			// A message goes to several, has several links, and the times are in seconds.
			ID: []string{"json:RecordType+json:ID", "json:RecordType+json:MessageID+json:ReceivedAt+body:sha256", "json:RecordType+json:MessageID+json:DeliveredAt+body:sha256",
				"json:RecordType+json:MessageID+json:ChangedAt+body:sha256", "json:MessageID"},
			Type: []string{"json:RecordType", "text:Inbound"}, Key: []string{"json:MessageID"},
			Time: []string{"json:ReceivedAt", "json:DeliveredAt", "json:BouncedAt", "json:ChangedAt", "json:Date"},
		},
	}, "Authorization")
}
