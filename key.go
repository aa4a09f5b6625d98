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
	// Name is for people, at most MaxKeyName bytes.
	Name string `json:"name,omitempty"`
	// Tenant is the only tenant it may touch; empty means all.
	Tenant  TenantID  `json:"tenant,omitempty"`
	Scopes  []Scope   `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
	// LastUsed is when it was used last, to within a few minutes; zero if it never was, or not since that is written down.
	LastUsed time.Time `json:"last_used,omitzero"`
}

// MaxKeyName bounds the name of an API key or of a portal link, in bytes.
const MaxKeyName = 100

// ValidKeyName checks the name of an API key or of a portal link. CodeInvalid, field "name".
func ValidKeyName(name string) error {
	if len(name) > MaxKeyName || name != "" && !printable(name) {
		return Invalid("name", "must be at most %d bytes of printable UTF-8", MaxKeyName)
	}
	return nil
}

// PrincipalKind is what sort of credential a request came with.
type PrincipalKind string

const (
	PrincipalKey     PrincipalKind = "key"
	PrincipalSession PrincipalKind = "session"
	PrincipalPortal  PrincipalKind = "portal"
)

// Principal is who a request comes from, as its credential says.
type Principal struct {
	// KeyID is the id of the credential: of an API key, a session or a portal link.
	KeyID string
	Kind  PrincipalKind
	// Name is what people call who it is, "" if there is nothing.
	Name string
	// Tenant is the only tenant it may touch; empty means all.
	Tenant TenantID
	// Scopes are those of a key, or of the key that a session stands for. A portal link has none.
	Scopes []Scope
	// Capabilities are what a portal link opens, and Subscriptions, if there are any, the only ones that it shows.
	Capabilities  []Capability
	Subscriptions []SubscriptionID
	// Expires is when the credential ends by itself; zero if it does not.
	Expires time.Time
	// OIDC says that an identity provider vouches for who has the session.
	OIDC bool
}

// May reports whether the principal may touch the tenant at all. What it may not touch it is told does not exist.
func (p Principal) May(tenant TenantID) bool { return p.Tenant == "" || p.Tenant == tenant }

// Has reports whether the principal holds a scope; ScopeAdmin holds every one.
func (p Principal) Has(s Scope) bool {
	return slices.Contains(p.Scopes, ScopeAdmin) || slices.Contains(p.Scopes, s)
}

// Can reports whether the principal's capabilities allow something. Only portal links are bound by them.
func (p Principal) Can(c Capability) bool {
	return p.Kind != PrincipalPortal || slices.Contains(p.Capabilities, c)
}

// Shows reports whether the principal may know of a subscription of its tenant. Only portal links may be limited.
func (p Principal) Shows(id SubscriptionID) bool {
	return !p.Limited() || slices.Contains(p.Subscriptions, id)
}

// Limited reports whether the principal may know of some subscriptions only.
func (p Principal) Limited() bool { return p.Kind == PrincipalPortal && len(p.Subscriptions) > 0 }

// StoredAnswer is what a request with an Idempotency-Key was answered.
type StoredAnswer struct {
	// Good is how long it can be given again, 24 h at most and if 0.
	Good        Duration `json:"-"`
	Status      int      `json:"status"`
	ContentType string   `json:"content_type"`
	Body        []byte   `json:"body"`
}
