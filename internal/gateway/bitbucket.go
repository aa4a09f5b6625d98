package gateway

// bitbucket writes SHA-256 into the header in which others write SHA-1. The test ping of Bitbucket Server may come
// unsigned, and is rejected then like everything unsigned.
func bitbucket() Provider {
	return signed(Provider{
		Name: "bitbucket", Title: "Bitbucket", chosen: true, Source: "https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/",
		naming: Naming{ID: []string{"header:X-Request-UUID", "header:X-Request-Id"}, Type: []string{"header:X-Event-Key"},
			Key: []string{"json:repository.full_name", "json:repository.id"}, Time: []string{"header:X-Event-Time", "json:date"}, Keep: []string{"X-Hook-UUID", "X-Attempt-Number"}},
	}, Scheme{Header: "X-Hub-Signature", Prefix: "sha256="})
}
