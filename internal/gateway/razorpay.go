package gateway

func razorpay() Provider {
	return signed(Provider{
		Name: "razorpay", Title: "Razorpay", Source: "https://razorpay.com/docs/webhooks/validate-test/", chosen: true,
		naming: Naming{ID: []string{"header:X-Razorpay-Event-Id"}, Type: []string{"json:event"}, Time: []string{"json:created_at"},
			Key: []string{"json:payload.order.entity.id", "json:payload.payment.entity.order_id", "json:payload.payment.entity.id", "json:payload.refund.entity.payment_id", "json:payload.subscription.entity.id"}},
	}, Scheme{Header: "X-Razorpay-Signature"})
}
