package client

import (
	"context"
	"net/http"
	"time"

	"github.com/eventhose/eventhose"
)

// Me is who a client's requests come from.
type Me struct {
	Kind eventhose.PrincipalKind `json:"kind"`
	// Subject is what people call it: a name, an e-mail address, or an id.
	Subject string `json:"subject"`
	// Tenant is the only one that it may touch; "" is all.
	Tenant eventhose.TenantID `json:"tenant"`
	Scopes []eventhose.Scope  `json:"scopes"`
	// Capabilities and Subscriptions are a portal link's.
	Capabilities  []eventhose.Capability     `json:"capabilities"`
	Subscriptions []eventhose.SubscriptionID `json:"subscriptions"`
	Expires       time.Time                  `json:"expires"`
	OIDC          bool                       `json:"oidc"`
}

// Me answers who the client's key makes it.
func (c *Client) Me(ctx context.Context) (Me, error) {
	var answer Me
	err := c.send(ctx, http.MethodGet, []string{"v1", "sessions", "current"}, nil, &answer)
	return answer, err
}

// SignInMethods are the ways to sign in at a server. OIDC is the name of an identity provider, "" if there is none.
type SignInMethods struct {
	Key  bool
	OIDC string
}

// SignInMethods answers how people may sign in.
func (c *Client) SignInMethods(ctx context.Context) (SignInMethods, error) {
	var answer struct {
		Key  bool `json:"key"`
		OIDC *struct {
			Name string `json:"name"`
		} `json:"oidc"`
	}
	err := c.send(ctx, http.MethodGet, []string{"v1", "sessions", "methods"}, nil, &answer)
	m := SignInMethods{Key: answer.Key}
	if answer.OIDC != nil {
		m.OIDC = answer.OIDC.Name
	}
	return m, err
}

// SignIn begins a session with a key and answers the cookie for requests of a browser: its Name and Value. A program has no use for one:
// it sends its key.
func (c *Client) SignIn(ctx context.Context, key eventhose.Secret) (*http.Cookie, error) {
	body := struct {
		Key string `json:"key"`
	}{string(key)} // an eventhose.Secret would write ***
	var cookies []*http.Cookie
	encoded, err := jsonBody(body)
	if err == nil {
		err = c.do(ctx, request{method: http.MethodPost, path: []string{"v1", "sessions"}, body: encoded, contentType: "application/json", cookies: &cookies})
	}
	if err != nil {
		return nil, err
	}
	if len(cookies) != 1 {
		return nil, &eventhose.Error{Code: eventhose.CodeInternal, Message: "the server has set no cookie"}
	}
	return cookies[0], nil
}

// SignOut ends the session of a cookie that SignIn has answered. One that is over already is no error.
func (c *Client) SignOut(ctx context.Context, session *http.Cookie) error {
	return c.do(ctx, request{method: http.MethodDelete, path: []string{"v1", "sessions", "current"}, cookie: session})
}

// Sessions lists who has signed in, by the session's id.
func (c *Client) Sessions(ctx context.Context, o ListOptions) (List[eventhose.Session], error) {
	return list[eventhose.Session](ctx, c, []string{"v1", "sessions"}, o.query())
}

// EndSession ends somebody's session. CodeNotFound.
func (c *Client) EndSession(ctx context.Context, id string) error {
	return c.send(ctx, http.MethodDelete, []string{"v1", "sessions", id}, nil, nil)
}

// NewPortalLink is what a portal link is made of.
type NewPortalLink struct {
	Name         string                 `json:"name,omitempty"`
	Capabilities []eventhose.Capability `json:"capabilities,omitempty"`
	// ExpiresIn is eventhose.DefaultLinkTime if 0.
	ExpiresIn eventhose.Duration `json:"expires_in,omitempty"`
	// Subscriptions are the only ones that it shows; nil is all, and an empty list is refused.
	Subscriptions []eventhose.SubscriptionID `json:"subscriptions,omitzero"`
}

// CreatedPortalLink is a new portal link. URL and Token are shown this once; the URL holds the token.
type CreatedPortalLink struct {
	eventhose.PortalLink
	URL   eventhose.Secret `json:"url"`
	Token eventhose.Secret `json:"token"`
}

// CreatePortalLink makes a link to the portal of the tenant. CodeInvalid with the field, CodeLimit.
func (t *Tenant) CreatePortalLink(ctx context.Context, l NewPortalLink) (CreatedPortalLink, error) {
	var answer CreatedPortalLink
	err := t.c.send(ctx, http.MethodPost, t.path("portal-links"), l, &answer)
	return answer, err
}

// PortalLinks lists those that are good, by id.
func (t *Tenant) PortalLinks(ctx context.Context, o ListOptions) (List[eventhose.PortalLink], error) {
	return list[eventhose.PortalLink](ctx, t.c, t.path("portal-links"), o.query())
}

// RevokePortalLink ends a link at once. CodeNotFound.
func (t *Tenant) RevokePortalLink(ctx context.Context, id string) error {
	return t.c.send(ctx, http.MethodDelete, t.path("portal-links", id), nil, nil)
}

// AuditOptions say which audit entries: a page, and what narrows it, as eventhose.AuditQuery has it.
type AuditOptions struct {
	ListOptions
	Actor, Action, Target string
}

// Audit answers who has changed what on the whole platform, newest first. With a filter a page may be empty and yet have a Next.
func (c *Client) Audit(ctx context.Context, o AuditOptions) (List[eventhose.AuditEntry], error) {
	return audit(ctx, c, []string{"v1", "audit"}, o)
}

// Audit answers who has changed what of the tenant, newest first. With a filter a page may be empty and yet have a Next.
func (t *Tenant) Audit(ctx context.Context, o AuditOptions) (List[eventhose.AuditEntry], error) {
	return audit(ctx, t.c, t.path("audit"), o)
}

func audit(ctx context.Context, c *Client, path []string, o AuditOptions) (List[eventhose.AuditEntry], error) {
	q := o.query()
	for name, value := range map[string]string{"actor": o.Actor, "action": o.Action, "target": o.Target} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return list[eventhose.AuditEntry](ctx, c, path, q)
}
