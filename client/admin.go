package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/eventhose/eventhose"
)

// PutTenant creates a tenant, or updates its retention. CodeInvalid, CodeConflict for another parent than before.
func (c *Client) PutTenant(ctx context.Context, t eventhose.Tenant) (eventhose.Tenant, error) {
	body := struct {
		Parent    eventhose.TenantID  `json:"parent,omitempty"`
		Retention eventhose.Retention `json:"retention,omitzero"`
	}{t.Parent, t.Retention}
	var answer eventhose.Tenant
	err := c.send(ctx, http.MethodPut, []string{"v1", "tenants", string(t.ID)}, body, &answer)
	return answer, err
}

// GetTenant answers one tenant. CodeNotFound.
func (c *Client) GetTenant(ctx context.Context, id eventhose.TenantID) (eventhose.Tenant, error) {
	var answer eventhose.Tenant
	err := c.send(ctx, http.MethodGet, []string{"v1", "tenants", string(id)}, nil, &answer)
	return answer, err
}

// Tenants lists by id.
func (c *Client) Tenants(ctx context.Context, o ListOptions) (List[eventhose.Tenant], error) {
	return list[eventhose.Tenant](ctx, c, []string{"v1", "tenants"}, o.query())
}

// NewKey is what an API key is made of. A zero Tenant is all tenants, a zero Expires never.
type NewKey struct {
	// Name is for people, at most eventhose.MaxKeyName bytes.
	Name    string             `json:"name,omitempty"`
	Tenant  eventhose.TenantID `json:"tenant,omitempty"`
	Scopes  []eventhose.Scope  `json:"scopes"`
	Expires time.Time          `json:"expires,omitzero"`
}

// CreatedKey is a new API key. Key is shown this once.
type CreatedKey struct {
	eventhose.APIKey
	Key eventhose.Secret `json:"key"`
}

// CreateKey makes an API key. CodeInvalid with the field, CodeForbidden if it would reach further than the caller's own.
func (c *Client) CreateKey(ctx context.Context, k NewKey) (CreatedKey, error) {
	var answer CreatedKey
	err := c.send(ctx, http.MethodPost, []string{"v1", "keys"}, k, &answer)
	return answer, err
}

// Keys lists the keys of one tenant, or with "" all that the caller may see, by id.
func (c *Client) Keys(ctx context.Context, tenant eventhose.TenantID, o ListOptions) (List[eventhose.APIKey], error) {
	q := o.query()
	if tenant != "" {
		q.Set("tenant", string(tenant))
	}
	return list[eventhose.APIKey](ctx, c, []string{"v1", "keys"}, q)
}

// RevokeKey ends a key. CodeNotFound.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.send(ctx, http.MethodDelete, []string{"v1", "keys", id}, nil, nil)
}

// Ready answers nil if the server takes work, and CodeUnavailable if it is starting or stopping.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, request{method: http.MethodGet, path: []string{"readyz"}, query: url.Values{}})
}

// Backup makes the server write a backup of its store into a directory of that name on its own machine, below the
// directory that its operator gave for backups, and answers the path. The server goes on working meanwhile.
func (c *Client) Backup(ctx context.Context, name string) (path string, err error) {
	var answer struct {
		Path string `json:"path"`
	}
	err = c.send(ctx, http.MethodPost, []string{"v1", "backup"}, struct {
		Dir string `json:"dir"`
	}{name}, &answer)
	return answer.Path, err
}
