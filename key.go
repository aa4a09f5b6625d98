package eventhose

import (
	"slices"
	"time"
)

// Scope is what an API key may do.
type Scope string

const (
	// ScopePublish: append events.
	ScopePublish Scope = "publish"
	// ScopeRead: read events, subscriptions, attempts and parked events.
	ScopeRead Scope = "read"
	// ScopeManage: create, change and delete subscriptions; redrive, discard, replay; erase data.
	ScopeManage Scope = "manage"
	// ScopeAdmin: everything, API keys included; without a tenant also tenants.
	ScopeAdmin Scope = "admin"
)

// Scopes lists every scope.
func Scopes() []Scope { return []Scope{ScopePublish, ScopeRead, ScopeManage, ScopeAdmin} }

// APIKey describes a credential. The key itself is shown once, when it is made.
type APIKey struct {
	ID string `json:"id"`
	// Tenant is the only tenant it may touch; empty means all.
	Tenant  TenantID  `json:"tenant,omitempty"`
	Scopes  []Scope   `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// Principal is who a request comes from, as its credential says.
type Principal struct {
	KeyID string
	// Tenant is the only tenant it may touch; empty means all.
	Tenant TenantID
	Scopes []Scope
}

// May reports whether the principal may touch the tenant at all. What it may not touch it is told does not exist.
func (p Principal) May(tenant TenantID) bool { return p.Tenant == "" || p.Tenant == tenant }

// Has reports whether the principal holds a scope; ScopeAdmin holds every one.
func (p Principal) Has(s Scope) bool {
	return slices.Contains(p.Scopes, ScopeAdmin) || slices.Contains(p.Scopes, s)
}

// StoredAnswer is what a request with an Idempotency-Key was answered, kept for 24 h.
type StoredAnswer struct {
	Status      int    `json:"status"`
	ContentType string `json:"content_type"`
	Body        []byte `json:"body"`
}
