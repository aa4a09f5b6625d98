package gateway

func github() Provider {
	return signed(Provider{
		Name: "github", Title: "GitHub", chosen: true,
		Source: "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
		naming: Naming{ID: []string{"header:X-GitHub-Delivery"}, Type: []string{"header:X-GitHub-Event"}, Key: []string{"json:repository.full_name", "json:organization.login"},
			Keep: []string{"X-GitHub-Event", "X-GitHub-Hook-ID", "X-GitHub-Hook-Installation-Target-Type", "X-GitHub-Hook-Installation-Target-ID"}},
	}, Scheme{Header: "X-Hub-Signature-256", Prefix: "sha256="})
}
