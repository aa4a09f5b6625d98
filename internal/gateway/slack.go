package gateway

func slack() Provider {
	return signed(Provider{
		Name: "slack", Title: "Slack", Source: "https://docs.slack.dev/authentication/verifying-requests-from-slack", Tolerance: defaultTolerance,
		naming: Naming{
			ID: []string{"json:event_id", "form:trigger_id"}, Type: []string{"json:event.type", "json:type", "form:command"},
			Key: []string{"json:event.channel", "form:channel_id"}, Time: []string{"json:event_time"}, Keep: []string{"X-Slack-Retry-Num", "X-Slack-Retry-Reason"},
		},
	}, Scheme{
		Header: "X-Slack-Signature", Prefix: "v0=", TimestampHeader: "X-Slack-Request-Timestamp", Content: "v0:{timestamp}:{body}",
	}).extended(func(_ *configuration, s *scheme) error {
		s.reply = func(r *Request) *Answer {
			fields, rejection := bodyFields(r.Body, "type", "challenge")
			if rejection != nil || fields[0] != "url_verification" || !challengeText(fields[1]) {
				return nil
			}
			a := text(fields[1])
			return &a
		}
		return nil
	})
}
