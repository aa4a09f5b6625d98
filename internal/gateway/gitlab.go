package gateway

import (
	"strings"

	"github.com/eventhose/eventhose"
)

// gitlab signs as Standard Webhooks says if the webhook has a signing token, and shows a secret token otherwise. A source
// has secrets of one kind, so that nobody can choose the weaker.
func gitlab() Provider {
	return Provider{
		Name: "gitlab", Title: "GitLab", Source: "https://docs.gitlab.com/user/project/integrations/webhooks/", Tolerance: defaultTolerance, chosen: true,
		Doc:     "Standard Webhooks with a signing token (whsec_…), or else X-Gitlab-Token: the secret token",
		Repeats: "`header:webhook-id` with a signing token, or else `header:Idempotency-Key`, or `header:X-Gitlab-Event-UUID+body:sha256` (both headers not signed), or nothing",
		Needs:   []Need{{fieldSecrets, true, "the signing token, whsec_…; or, if the webhook has none, the secret token"}},
		naming: Naming{
			// Those first that a signing token signs, under either name that it verifies. What a webhook brings about within GitLab has its UUID.
			ID:   []string{"header:webhook-id", "header:svix-id", "header:Idempotency-Key", "header:X-Gitlab-Event-UUID+body:sha256"},
			Type: []string{"json:object_kind", "json:event_name", "header:X-Gitlab-Event"}, Key: []string{"json:project.path_with_namespace", "json:project_id", "json:group_id"},
			Keep: []string{"X-Gitlab-Event", "X-Gitlab-Instance", "X-Gitlab-Webhook-UUID", "X-Gitlab-Event-UUID"},
		},
		open: func(c *configuration) (scheme, error) {
			signing := 0
			for _, s := range c.Secrets {
				if strings.HasPrefix(string(s), "whsec_") {
					signing++
				}
			}
			switch {
			case signing == len(c.Secrets):
				check, err := standardCheck(c)
				return scheme{check: check, stamp: standardStamp}, err
			case signing > 0:
				return scheme{}, eventhose.Invalid(fieldSecrets, "must all be signing tokens (whsec_…), or all secret tokens")
			case c.Tolerance != 0:
				return scheme{}, eventhose.Invalid(fieldTolerance, "is not used with a secret token, which signs no time")
			}
			return scheme{check: c.headerShows("X-Gitlab-Token", c.Secrets)}, nil
		},
	}
}
