package gateway

func intercom() Provider {
	return signed(Provider{
		Name: "intercom", Title: "Intercom", Source: "https://developers.intercom.com/docs/webhooks/setting-up-webhooks",
		naming: Naming{ID: []string{"json:id"}, Type: []string{"json:topic"}, Key: []string{"json:data.item.id"}, Time: []string{"json:created_at"}},
	}, Scheme{Header: "X-Hub-Signature", Prefix: "sha1=", Hash: SHA1}).extended(probed)
}
