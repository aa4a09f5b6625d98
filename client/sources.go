package client

import (
	"context"
	"net/http"

	"github.com/eventhose/eventhose"
)

// Source is an inbound source as the server tells it: its secrets read "***".
type Source struct {
	eventhose.Source
	// URL is where the provider sends to.
	URL string `json:"url"`
}

// texts writes secrets in clear: with wireDestination this is the one place where they travel to the server.
func texts(secrets []eventhose.Secret) []string {
	list := make([]string, len(secrets))
	for i, s := range secrets {
		list[i] = string(s)
	}
	return list
}

func (t *Tenant) source(id eventhose.SourceID, segments ...string) []string {
	return t.path(append([]string{"sources", string(id)}, segments...)...)
}

// Providers lists by name whose webhooks can be received, and what a source needs for it.
func (c *Client) Providers(ctx context.Context) ([]eventhose.Provider, error) {
	l, err := list[eventhose.Provider](ctx, c, []string{"v1", "providers"}, nil)
	return l.Data, err
}

// CreateSource makes an address for a provider's webhooks, and an inbox for them. Of s the ID, tenant, subscription, times and
// version are ignored. CodeInvalid with the field, CodeLimit.
func (t *Tenant) CreateSource(ctx context.Context, s eventhose.Source) (Source, error) {
	body := struct {
		Provider    string                   `json:"provider"`
		Name        string                   `json:"name,omitempty"`
		Secrets     []string                 `json:"secrets,omitempty"`
		PublicKeys  []string                 `json:"public_keys,omitempty"`
		VerifyToken string                   `json:"verify_token,omitempty"`
		PublicURL   string                   `json:"public_url,omitempty"`
		Tolerance   eventhose.Duration       `json:"tolerance,omitempty"`
		Options     map[string]string        `json:"options,omitempty"`
		TypePrefix  string                   `json:"type_prefix,omitempty"`
		Scheme      *eventhose.SourceScheme  `json:"scheme,omitempty"`
		Naming      *eventhose.SourceNaming  `json:"naming,omitempty"`
		Answer      *eventhose.InspectAnswer `json:"answer,omitempty"`
	}{s.Provider, s.Name, texts(s.Secrets), s.PublicKeys, string(s.VerifyToken), s.PublicURL, s.Tolerance, s.Options, s.TypePrefix, s.Scheme, s.Naming, s.Answer}
	var answer Source
	err := t.c.send(ctx, http.MethodPost, t.path("sources"), body, &answer)
	return answer, err
}

// Source answers one source. CodeNotFound.
func (t *Tenant) Source(ctx context.Context, id eventhose.SourceID) (Source, error) {
	var answer Source
	err := t.c.send(ctx, http.MethodGet, t.source(id), nil, &answer)
	return answer, err
}

// Sources lists by id.
func (t *Tenant) Sources(ctx context.Context, o ListOptions) (List[Source], error) {
	return list[Source](ctx, t.c, t.path("sources"), o.query())
}

// UpdateSource changes what p names. CodeNotFound, CodeInvalid with the field, CodeVersion.
func (t *Tenant) UpdateSource(ctx context.Context, id eventhose.SourceID, p eventhose.SourcePatch) (Source, error) {
	body := struct {
		eventhose.SourcePatch
		Secrets     *[]string `json:"secrets,omitempty"` // these shadow the redacted ones
		VerifyToken *string   `json:"verify_token,omitempty"`
	}{SourcePatch: p, VerifyToken: (*string)(p.VerifyToken)}
	if p.Secrets != nil {
		secrets := texts(*p.Secrets)
		body.Secrets = &secrets
	}
	var answer Source
	err := t.c.send(ctx, http.MethodPatch, t.source(id), body, &answer)
	return answer, err
}

// DeleteSource removes a source with its inbox; its events stay in the log. CodeNotFound.
func (t *Tenant) DeleteSource(ctx context.Context, id eventhose.SourceID) error {
	return t.c.send(ctx, http.MethodDelete, t.source(id), nil, nil)
}

// Rejections lists the requests that a source did not take in the last day, newest first, at most eventhose.MaxRejections,
// without the requests themselves. CodeNotFound.
func (t *Tenant) Rejections(ctx context.Context, id eventhose.SourceID) (List[eventhose.Rejection], error) {
	return list[eventhose.Rejection](ctx, t.c, t.source(id, "rejections"), nil)
}

// Rejection answers one of them with headers and body; what may be a credential reads "***". CodeNotFound.
func (t *Tenant) Rejection(ctx context.Context, id eventhose.SourceID, rejection string) (eventhose.Rejection, error) {
	var answer eventhose.Rejection
	err := t.c.send(ctx, http.MethodGet, t.source(id, "rejections", rejection), nil, &answer)
	return answer, err
}

// RetryRejection verifies a rejected request again, as of when it came, with the settings that its source has now, and
// appends it. CodeNotFound, CodeConflict if it is rejected again, or if an event with its id and other content is in the log.
func (t *Tenant) RetryRejection(ctx context.Context, id eventhose.SourceID, rejection string) (eventhose.Placement, error) {
	var answer eventhose.Placement
	err := t.c.send(ctx, http.MethodPost, t.source(id, "rejections", rejection, "retry"), nil, &answer)
	return answer, err
}

// Inbox lists what came in through sources and what became of it, oldest first. Of q the After and Limit are ignored. A page
// may hold fewer than asked for, or none, and still have a next one.
func (t *Tenant) Inbox(ctx context.Context, q eventhose.InboxQuery, o ListOptions) (List[eventhose.InboxItem], error) {
	values := o.query()
	for name, value := range map[string]string{"provider": q.Provider, "source": string(q.Source), "status": string(q.Status)} {
		if value != "" {
			values.Set(name, value)
		}
	}
	return list[eventhose.InboxItem](ctx, t.c, t.path("inbox"), values)
}
