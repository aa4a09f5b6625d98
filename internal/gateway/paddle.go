package gateway

import "time"

func paddle() Provider {
	return signed(Provider{
		Name: "paddle", Title: "Paddle Billing", Source: "https://developer.paddle.com/webhooks/signature-verification", Tolerance: 5 * time.Second,
		naming: Naming{ID: []string{"json:event_id", "json:notification_id"}, Type: []string{"json:event_type"}, Key: []string{"json:data.id"}, Time: []string{"json:occurred_at"}},
	}, Scheme{Header: "Paddle-Signature", Separator: ";", SignatureName: "h1", TimestampName: "ts", Content: "{timestamp}:{body}"})
}
