package gateway

// sparkpost has no signature: Basic authentication, an OAuth 2.0 token, or a header of one's own. It sends batches, and
// one without events when the webhook is made.
func sparkpost() Provider {
	return tokenBased(Provider{
		Name: "sparkpost", Title: "SparkPost", Source: "https://developers.sparkpost.com/api/webhooks/",
		Doc: "No signature: Basic authentication, a bearer token, or a header of one's own (options.header)",
		Needs: []Need{{fieldSecrets, true, "user:password, the token, or the value of the header"},
			{optionHeader, false, "the header that holds the secret, in place of Authorization"}},
		naming: Naming{
			ID:   []string{"header:X-MessageSystems-Batch-ID", "json:*.msys.message_event.event_id", "json:*.msys.track_event.event_id"},
			Type: []string{"json:*.msys.message_event.type", "json:*.msys.track_event.type", "json:*.msys.gen_event.type", "json:*.msys.unsubscribe_event.type", "json:*.msys.relay_event.type"},
			Key:  []string{"json:*.msys.message_event.message_id", "json:*.msys.track_event.message_id"}, Time: []string{"json:0.msys.message_event.timestamp", "json:0.msys.track_event.timestamp"},
			Keep: []string{"X-MessageSystems-Batch-ID"},
		},
	}, "Authorization")
}
