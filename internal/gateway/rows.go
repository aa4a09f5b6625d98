package gateway

import "time"

// checked is the code that rows were held against, where there is some.
var checked = map[string]string{
	"airwallex":      "the Java example of its document",
	"buildkite":      "receivers of other people",
	"calcom":         "createWebhookSignature in calcom/cal.com, packages/features/webhooks/lib/sendPayload.ts",
	"customerio":     "PyPI async-customerio 2.18.0, which is not Customer.io's own",
	"doppler":        "the example payload of its document, and receivers of other people for the prefix; its own packages (npm, PyPI) have no verification",
	"flutterwave-v4": "receivers of other people; its own packages (npm flutterwave-node-v3 1.4.1) have no verification",
	"frameio":        "computeSignature in Frameio/webhooks-example-app, main.go",
	"tally":          "receivers of other people; there is no code of Tally's own",
	"viber":          "npm viber-bot 1.0.18 and PyPI viberbot 1.0.12, both Viber's own",
}

// rows are the providers that are a Scheme and a Naming and nothing else.
func rows() []Provider {
	type row struct {
		name, title, source string
		tolerance           time.Duration
		scheme              Scheme
		naming              Naming
	}
	all := []row{
		{"airtable", "Airtable", "https://airtable.com/developers/web/api/webhooks-overview", 0,
			Scheme{Header: "X-Airtable-Content-MAC", Prefix: "hmac-sha256=", Key: Base64},
			Naming{ID: []string{"json:timestamp+body:sha256"}, Type: []string{"text:changed"}, Key: []string{"json:base.id"}, Time: []string{"json:timestamp"}}},
		{"airwallex", "Airwallex", "https://www.airwallex.com/docs/developer-tools__listen-for-webhook-events", defaultTolerance,
			Scheme{Header: "X-Signature", TimestampHeader: "X-Timestamp", Unit: Milliseconds, Content: "{timestamp}{body}"},
			Naming{ID: []string{"json:id"}, Type: []string{"json:name"}, Key: []string{"json:data.object.id", "json:source_id"}, Time: []string{"json:created_at"}}},
		{"box", "Box", "https://developer.box.com/guides/webhooks/v2/signatures-v2/", 10 * time.Minute,
			Scheme{Header: "Box-Signature-Primary", also: []string{"Box-Signature-Secondary"}, Encoding: Base64,
				TimestampHeader: "Box-Delivery-Timestamp", Unit: RFC3339, Content: "{body}{timestamp}"},
			Naming{ID: []string{"json:id"}, Type: []string{"json:trigger"}, Key: []string{"json:source.id"}, Time: []string{"json:created_at"}, Keep: []string{"Box-Delivery-Id"}}},
		{"buildkite", "Buildkite", "https://buildkite.com/docs/apis/webhooks/pipelines", defaultTolerance,
			Scheme{Header: "X-Buildkite-Signature", Separator: ",", SignatureName: "signature", TimestampName: "timestamp", Content: "{timestamp}.{body}"},
			Naming{Type: []string{"header:X-Buildkite-Event", "json:event"}, Key: []string{"json:build.id"}, Keep: []string{"X-Buildkite-Event"}}},
		{"calcom", "Cal.com", "https://cal.com/docs/developing/guides/automation/webhooks", 0,
			Scheme{Header: "X-Cal-Signature-256"},
			Naming{ID: []string{"json:createdAt+body:sha256"}, Type: []string{"json:triggerEvent"}, Key: []string{"json:payload.uid"}, Time: []string{"json:createdAt"}}},
		{"calendly", "Calendly", "https://developer.calendly.com/api-docs/ZG9jOjM2MzE2MDM4-webhook-signatures", 3 * time.Minute,
			Scheme{Header: "Calendly-Webhook-Signature", Separator: ",", SignatureName: "v1", TimestampName: "t", Content: "{timestamp}.{body}"},
			Naming{ID: []string{"json:created_at+body:sha256"}, Type: []string{"json:event"}, Key: []string{"json:payload.uri"}, Time: []string{"json:created_at"}}},
		{"checkout", "Checkout.com", "https://www.checkout.com/docs/developer-resources/webhooks/webhook-security", 0,
			Scheme{Header: "Cko-Signature"},
			Naming{ID: []string{"json:id"}, Type: []string{"json:type"}, Key: []string{"json:data.id"}, Time: []string{"json:created_on"}}},
		{"circleci", "CircleCI", "https://circleci.com/docs/outbound-webhooks/", 0,
			Scheme{Header: "Circleci-Signature", Prefix: "v1=", Separator: ","},
			Naming{ID: []string{"json:id"}, Type: []string{"json:type"}, Key: []string{"json:workflow.id"}, Time: []string{"json:happened_at"}}},
		{"clickup", "ClickUp", "https://developer.clickup.com/docs/webhooksignature", 0,
			Scheme{Header: "X-Signature"},
			Naming{ID: []string{"json:event+json:history_items.*.id"}, Type: []string{"json:event"}, Key: []string{"json:task_id"}}},
		{"coinbase-commerce", "Coinbase Commerce", "https://docs.cdp.coinbase.com/commerce-onchain/docs/webhooks-security", 0,
			Scheme{Header: "X-CC-Webhook-Signature"},
			Naming{ID: []string{"json:event.id"}, Type: []string{"json:event.type"}, Key: []string{"json:event.data.id", "json:event.data.code"}, Time: []string{"json:event.created_at"}}},
		{"customerio", "Customer.io", "https://docs.customer.io/journeys/webhooks/", defaultTolerance,
			Scheme{Header: "X-CIO-Signature", TimestampHeader: "X-CIO-Timestamp", Content: "v0:{timestamp}:{body}"},
			Naming{ID: []string{"json:event_id"}, Type: []string{"json:object_type+json:metric"}, Key: []string{"json:data.customer_id"}, Time: []string{"json:timestamp"}}},
		{"doppler", "Doppler", "https://docs.doppler.com/docs/webhooks", 0,
			Scheme{Header: "X-Doppler-Signature", Prefix: "sha256="},
			Naming{Type: []string{"json:type", "text:config.changed"}, Key: []string{"json:project.id"}}},
		{"dropbox", "Dropbox", "https://www.dropbox.com/developers/reference/webhooks", 0,
			Scheme{Header: "X-Dropbox-Signature", Challenge: "challenge"},
			Naming{Type: []string{"text:changed"}}},
		{"easypost", "EasyPost", "https://docs.easypost.com/guides/webhooks-guide", 0,
			Scheme{Header: "X-Hmac-Signature", Prefix: "hmac-sha256-hex="},
			Naming{ID: []string{"json:id"}, Type: []string{"json:description"}, Key: []string{"json:result.id"}, Time: []string{"json:created_at"}}},
		{"fastspring", "FastSpring", "https://developer.fastspring.com/reference/message-security", 0,
			Scheme{Header: "X-FS-Signature", Encoding: Base64},
			Naming{ID: []string{"json:events.*.id"}, Type: []string{"json:events.*.type"}, Key: []string{"json:events.*.data.id"}, Time: []string{"json:events.0.created"}}},
		{"flutterwave-v4", "Flutterwave v4", "https://developer.flutterwave.com/docs/webhooks", 0,
			Scheme{Header: "Flutterwave-Signature", Encoding: Base64},
			Naming{ID: []string{"json:type+json:data.id+json:data.status"}, Type: []string{"json:type"}, Key: []string{"json:data.reference", "json:data.id"}, Time: []string{"json:data.created_datetime"}}},
		{"forgejo", "Forgejo", "https://forgejo.org/docs/latest/user/webhooks/", 0,
			Scheme{Header: "X-Forgejo-Signature"},
			Naming{ID: []string{"header:X-Forgejo-Delivery"}, Type: []string{"header:X-Forgejo-Event"}, Key: []string{"json:repository.full_name"}, Keep: []string{"X-Forgejo-Event-Type"}}},
		{"frameio", "Frame.io", "https://next.developer.frame.io/platform/docs/guides/webhooks", defaultTolerance,
			Scheme{Header: "X-Frameio-Signature", Prefix: "v0=", TimestampHeader: "X-Frameio-Request-Timestamp", Content: "v0:{timestamp}:{body}"},
			Naming{Type: []string{"json:type"}, Key: []string{"json:resource.id"}}},
		{"gitea", "Gitea", "https://docs.gitea.com/usage/repository/webhooks", 0,
			Scheme{Header: "X-Gitea-Signature"},
			Naming{ID: []string{"header:X-Gitea-Delivery"}, Type: []string{"header:X-Gitea-Event"}, Key: []string{"json:repository.full_name"}, Keep: []string{"X-Gitea-Event-Type"}}},
		{"gocardless", "GoCardless", "https://developer.gocardless.com/getting-started/staying-up-to-date-with-webhooks/", 0,
			Scheme{Header: "Webhook-Signature"},
			Naming{ID: []string{"json:meta.webhook_id", "json:events.*.id"}, Type: []string{"json:events.*.resource_type+json:events.*.action"}, Time: []string{"json:events.0.created_at"}}},
		{"gogs", "Gogs", "https://github.com/gogs/gogs/blob/main/internal/database/webhook.go", 0,
			Scheme{Header: "X-Gogs-Signature"},
			Naming{ID: []string{"header:X-Gogs-Delivery"}, Type: []string{"header:X-Gogs-Event"}, Key: []string{"json:repository.full_name"}}},
		{"helpscout", "Help Scout", "https://developer.helpscout.com/webhooks/", 0,
			Scheme{Header: "X-HelpScout-Signature", Hash: SHA1, Encoding: Base64},
			Naming{Type: []string{"header:X-HelpScout-Event"}, Key: []string{"json:id"}, Keep: []string{"X-HelpScout-Event"}}},
		{"heroku", "Heroku", "https://devcenter.heroku.com/articles/app-webhooks", 0,
			Scheme{Header: "Heroku-Webhook-Hmac-SHA256", Encoding: Base64},
			Naming{ID: []string{"json:webhook_metadata.event.id", "json:id"}, Type: []string{"json:resource+json:action"}, Key: []string{"json:data.app.id"}, Time: []string{"json:created_at"}}},
		{"jira", "Jira", "https://developer.atlassian.com/cloud/jira/platform/webhooks/", 0,
			Scheme{Header: "X-Hub-Signature", Prefix: "sha256="},
			Naming{ID: []string{"header:X-Atlassian-Webhook-Identifier"}, Type: []string{"json:webhookEvent"}, Key: []string{"json:issue.key"}, Time: []string{"json:timestamp"}}},
		{"launchdarkly", "LaunchDarkly", "https://launchdarkly.com/docs/home/infrastructure/webhooks", 0,
			Scheme{Header: "X-LD-Signature"},
			Naming{ID: []string{"json:_id"}, Type: []string{"json:kind"}, Time: []string{"json:date"}}},
		{"lemonsqueezy", "Lemon Squeezy", "https://docs.lemonsqueezy.com/help/webhooks/signing-requests", 0,
			Scheme{Header: "X-Signature"},
			Naming{ID: []string{"json:data.attributes.updated_at+body:sha256"}, Type: []string{"header:X-Event-Name", "json:meta.event_name"}, Key: []string{"json:data.id"}, Time: []string{"json:data.attributes.updated_at"}}},
		{"line", "LINE", "https://developers.line.biz/en/docs/messaging-api/verify-webhook-signature/", 0,
			Scheme{Header: "X-Line-Signature", Encoding: Base64},
			Naming{ID: []string{"json:events.*.webhookEventId"}, Type: []string{"json:events.*.type"}, Key: []string{"json:events.*.source.userId"}, Time: []string{"json:events.0.timestamp"}}},
		{"mux", "Mux", "https://www.mux.com/docs/core/verify-webhook-signatures", defaultTolerance,
			Scheme{Header: "Mux-Signature", Separator: ",", SignatureName: "v1", TimestampName: "t", Content: "{timestamp}.{body}"},
			Naming{ID: []string{"json:id"}, Type: []string{"json:type"}, Key: []string{"json:object.id"}, Time: []string{"json:created_at"}}},
		{"notion", "Notion", "https://developers.notion.com/reference/webhooks", 0,
			Scheme{Header: "X-Notion-Signature", Prefix: "sha256="},
			Naming{ID: []string{"json:id"}, Type: []string{"json:type"}, Key: []string{"json:entity.id"}, Time: []string{"json:timestamp"}}},
		{"nylas", "Nylas", "https://developer.nylas.com/docs/v3/notifications/", 0,
			Scheme{Header: "X-Nylas-Signature", Challenge: "challenge"},
			Naming{ID: []string{"json:id"}, Type: []string{"json:type"}, Key: []string{"json:data.object.id"}, Time: []string{"json:time"}}},
		{"pagerduty", "PagerDuty", "https://developer.pagerduty.com/docs/verifying-webhook-signatures", 0,
			Scheme{Header: "X-PagerDuty-Signature", Prefix: "v1=", Separator: ","},
			Naming{ID: []string{"json:event.id"}, Type: []string{"json:event.event_type"}, Key: []string{"json:event.data.id"}, Time: []string{"json:event.occurred_at"}, Keep: []string{"X-Webhook-Subscription"}}},
		{"paystack", "Paystack", "https://paystack.com/docs/payments/webhooks/", 0,
			Scheme{Header: "X-Paystack-Signature", Hash: SHA512},
			Naming{ID: []string{"json:data.paid_at+body:sha256", "json:data.updated_at+body:sha256", "json:data.updatedAt+body:sha256"}, Type: []string{"json:event"}, Key: []string{"json:data.reference", "json:data.id"}, Time: []string{"json:data.created_at"}}},
		{"pusher", "Pusher Channels", "https://pusher.com/docs/channels/server_api/webhooks/", 0,
			Scheme{Header: "X-Pusher-Signature"},
			Naming{ID: []string{"json:time_ms+body:sha256"}, Type: []string{"json:events.*.name"}, Key: []string{"json:events.*.channel"}, Time: []string{"json:time_ms"}, Keep: []string{"X-Pusher-Key"}}},
		{"sanity", "Sanity", "https://www.sanity.io/docs/content-lake/webhooks", defaultTolerance,
			Scheme{Header: "Sanity-Webhook-Signature", Separator: ",", SignatureName: "v1", TimestampName: "t", Unit: Milliseconds, Encoding: Base64URL, Content: "{timestamp}.{body}"},
			Naming{ID: []string{"header:Idempotency-Key"}, Type: []string{"header:Sanity-Operation", "json:_type"}, Key: []string{"header:Sanity-Document-Id", "json:_id"}, Keep: []string{"Sanity-Dataset", "Sanity-Project-Id"}}},
		{"segment", "Segment", "https://segment.com/docs/connections/destinations/catalog/webhooks/", 0,
			Scheme{Header: "X-Signature", Hash: SHA1},
			Naming{ID: []string{"json:messageId"}, Type: []string{"json:type"}, Key: []string{"json:userId", "json:anonymousId"}, Time: []string{"json:timestamp"}}},
		{"sentry", "Sentry", "https://docs.sentry.io/organization/integrations/integration-platform/webhooks/", 0,
			Scheme{Header: "Sentry-Hook-Signature"},
			Naming{ID: []string{"header:Request-ID"}, Type: []string{"header:Sentry-Hook-Resource+json:action"}, Key: []string{"json:data.issue.id", "json:data.event.issue_id"},
				Time: []string{"header:Sentry-Hook-Timestamp"}, Keep: []string{"Sentry-Hook-Resource"}}},
		{"snyk", "Snyk", "https://docs.snyk.io/snyk-api/using-specific-snyk-apis/webhooks-apis/validating-payloads", 0,
			Scheme{Header: "X-Hub-Signature", Prefix: "sha256="},
			Naming{ID: []string{"header:X-Snyk-Transport-Id"}, Type: []string{"header:X-Snyk-Event"}, Key: []string{"json:project.id"}, Time: []string{"header:X-Snyk-Timestamp"}}},
		{"tally", "Tally", "https://tally.so/help/webhooks", 0,
			Scheme{Header: "Tally-Signature", Encoding: Base64},
			Naming{ID: []string{"json:eventId"}, Type: []string{"json:eventType"}, Key: []string{"json:data.responseId"}, Time: []string{"json:createdAt"}}},
		{"terraform", "HCP Terraform", "https://developer.hashicorp.com/terraform/cloud-docs/api-docs/notification-configurations", 0,
			Scheme{Header: "X-TFE-Notification-Signature", Hash: SHA512},
			Naming{ID: []string{"json:notifications.0.run_updated_at+body:sha256"}, Type: []string{"json:notifications.*.trigger"}, Key: []string{"json:run_id", "json:workspace_id"}, Time: []string{"json:notifications.0.run_updated_at"}}},
		{"trello", "Trello", "https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/", 0,
			Scheme{Header: "X-Trello-Webhook", Hash: SHA1, Encoding: Base64, Content: "{body}{url}"},
			Naming{ID: []string{"json:action.id"}, Type: []string{"json:action.type"}, Key: []string{"json:action.data.card.id", "json:model.id"}, Time: []string{"json:action.date"}}},
		{"typeform", "Typeform", "https://www.typeform.com/developers/webhooks/secure-your-webhooks/", 0,
			Scheme{Header: "Typeform-Signature", Prefix: "sha256=", Encoding: Base64},
			Naming{ID: []string{"json:event_id"}, Type: []string{"json:event_type"}, Key: []string{"json:form_response.form_id"}, Time: []string{"json:form_response.submitted_at"}}},
		{"vercel", "Vercel", "https://vercel.com/docs/webhooks/webhooks-api", 0,
			Scheme{Header: "X-Vercel-Signature", Hash: SHA1},
			Naming{ID: []string{"json:id"}, Type: []string{"json:type"}, Key: []string{"json:payload.deployment.id"}, Time: []string{"json:createdAt"}}},
		{"viber", "Viber", "https://developers.viber.com/docs/api/rest-bot-api/", 0,
			Scheme{Header: "X-Viber-Content-Signature"},
			// A broadcast has one token, and each who gets it is told of.
			Naming{ID: []string{"json:event+json:message_token+json:user_id", "json:event+json:message_token"}, Type: []string{"json:event"}, Key: []string{"json:sender.id", "json:user_id"}, Time: []string{"json:timestamp"}}},
		{"webflow", "Webflow", "https://developers.webflow.com/data/docs/working-with-webhooks", defaultTolerance,
			Scheme{Header: "X-Webflow-Signature", TimestampHeader: "X-Webflow-Timestamp", Unit: Milliseconds, Content: "{timestamp}:{body}"},
			Naming{Type: []string{"json:triggerType"}, Key: []string{"json:payload.id", "json:payload.orderId"}, Time: []string{"header:X-Webflow-Timestamp"}}},
		{"woocommerce", "WooCommerce", "https://developer.woocommerce.com/docs/best-practices/urls-and-routing/webhooks/", 0,
			Scheme{Header: "X-WC-Webhook-Signature", Encoding: Base64},
			// The header is made of the webhook and the second: all that is sent in one has the same.
			Naming{ID: []string{"header:X-WC-Webhook-Delivery-ID+body:sha256"}, Type: []string{"header:X-WC-Webhook-Topic"}, Key: []string{"json:id"}, Time: []string{"json:date_modified_gmt"},
				Keep: []string{"X-WC-Webhook-Source", "X-WC-Webhook-ID"}}},
		{"workos", "WorkOS", "https://workos.com/docs/events/data-syncing/webhooks", 3 * time.Minute,
			Scheme{Header: "WorkOS-Signature", Separator: ",", spaced: true, SignatureName: "v1", TimestampName: "t", Unit: Milliseconds, Content: "{timestamp}.{body}"},
			Naming{ID: []string{"json:id"}, Type: []string{"json:event"}, Key: []string{"json:data.id"}, Time: []string{"json:created_at"}}},
	}
	providers := make([]Provider, 0, len(all)+2)
	for _, r := range all {
		p := signed(Provider{Name: r.name, Title: r.title, Source: r.source, Checked: checked[r.name], Tolerance: r.tolerance, naming: r.naming}, r.scheme)
		if r.name == "trello" {
			p = p.extended(probed)
		}
		providers = append(providers, p)
	}
	return append(providers, twitch(), telegram(), flutterwave())
}

// twitch is Twitch EventSub, which signs its challenge as it signs events.
func twitch() Provider {
	return signed(Provider{
		Name: "twitch", Title: "Twitch EventSub", Source: "https://dev.twitch.tv/docs/eventsub/handling-webhook-events/", Tolerance: 10 * time.Minute, chosen: true,
		naming: Naming{ID: []string{"header:Twitch-Eventsub-Message-Id"}, Type: []string{"json:subscription.type"}, Key: []string{"json:event.broadcaster_user_id", "json:event.user_id"},
			Time: []string{"header:Twitch-Eventsub-Message-Timestamp"}, Keep: []string{"Twitch-Eventsub-Message-Type", "Twitch-Eventsub-Message-Retry"}},
	}, Scheme{
		Header: "Twitch-Eventsub-Message-Signature", Prefix: "sha256=", TimestampHeader: "Twitch-Eventsub-Message-Timestamp", Unit: RFC3339,
		IDHeader: "Twitch-Eventsub-Message-Id", Content: "{id}{timestamp}{body}",
	}).extended(func(_ *configuration, s *scheme) error {
		s.reply = func(r *Request) *Answer {
			// A notification has an event beside the subscription, a challenge has a challenge.
			fields, rejection := bodyFields(r.Body, "challenge", "subscription.id")
			if rejection != nil || fields[1] == "" || !challengeText(fields[0]) {
				return nil
			}
			a := text(fields[0])
			return &a
		}
		return nil
	})
}

func telegram() Provider {
	return tokenBased(Provider{
		Name: "telegram", Title: "Telegram", Source: "https://core.telegram.org/bots/api#setwebhook",
		Doc:    "No signature: X-Telegram-Bot-Api-Secret-Token holds the secret of setWebhook",
		naming: Naming{ID: []string{"json:update_id"}, Type: []string{"text:update"}, Key: []string{"json:message.chat.id", "json:callback_query.message.chat.id"}, Time: []string{"json:message.date"}},
		Needs:  []Need{{fieldSecrets, true, "the secret_token given to setWebhook"}},
	}, "X-Telegram-Bot-Api-Secret-Token")
}

func flutterwave() Provider {
	return tokenBased(Provider{
		Name: "flutterwave", Title: "Flutterwave v3", Source: "https://developer.flutterwave.com/v3.0.0/docs/webhooks",
		Checked: "receivers of other people; its own packages (npm flutterwave-node-v3 1.4.1) have no verification",
		Doc:     "No signature: verif-hash holds the secret hash",
		naming:  Naming{ID: []string{"json:event+json:data.id+json:data.status"}, Type: []string{"json:event", "json:event.type"}, Key: []string{"json:data.tx_ref", "json:txRef"}, Time: []string{"json:data.created_at"}},
		Needs:   []Need{{fieldSecrets, true, "the secret hash"}},
	}, "Verif-Hash")
}
