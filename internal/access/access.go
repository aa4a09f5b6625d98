// Package access decides, for every door, whether a credential may touch a tenant. The order is the promise that a tenant
// sees its own: who asks, whether the tenant is within reach (if not, the answer is the one for an absent tenant), whether
// the scopes suffice, whether the tenant exists.
package access

import (
	"context"
	"strings"

	"github.com/eventhose/eventhose"
)

// MaxKeyLength bounds what is looked up as a credential, in bytes.
const MaxKeyLength = 512

// Directory knows keys and tenants. It is safe for concurrent use.
type Directory interface {
	// Authenticate answers who holds a key or a portal link. CodeUnauthenticated if it is unknown, expired or revoked.
	Authenticate(ctx context.Context, key eventhose.Secret) (eventhose.Principal, error)
	// Tenant: CodeNotFound.
	Tenant(ctx context.Context, id eventhose.TenantID) (eventhose.Tenant, error)
}

// Wish is what a request wants to touch.
type Wish struct {
	// Tenant is whose; "" for what belongs to none.
	Tenant eventhose.TenantID
	// Scope is what the key must hold.
	Scope eventhose.Scope
	// Known says that any good credential will do.
	Known bool
	// Capability is what a portal link must open; with "" none does.
	Capability eventhose.Capability
	// Platform says that the key must not be bound to a tenant.
	Platform bool
	// Creates says that the tenant need not exist.
	Creates bool
}

// Allow answers who holds a key that may do what is wished. CodeUnauthenticated, CodeNotFound ("tenant": absent and not
// yours are the same), CodeForbidden. The principal is answered beside an error too, as far as it is known.
func Allow(ctx context.Context, d Directory, key eventhose.Secret, w Wish) (eventhose.Principal, error) {
	p, err := d.Authenticate(ctx, key)
	if err != nil {
		return p, err
	}
	return p, Permit(ctx, d, p, w)
}

// Permit is Allow for one who was authenticated before.
func Permit(ctx context.Context, d Directory, p eventhose.Principal, w Wish) error {
	if w.Tenant != "" && !p.May(w.Tenant) {
		return eventhose.NotFound("tenant")
	}
	switch {
	case w.Known:
	case p.Kind == eventhose.PrincipalPortal && (w.Capability == "" || !p.Can(w.Capability)):
		return &eventhose.Error{Code: eventhose.CodeForbidden, Message: "the portal link does not open this", Fix: "make a link with the capability, if there is one for it"}
	case p.Kind != eventhose.PrincipalPortal && !p.Has(w.Scope):
		return &eventhose.Error{Code: eventhose.CodeForbidden, Message: "the API key does not have the scope " + string(w.Scope), Fix: "use a key with the scope " + string(w.Scope)}
	}
	if w.Platform && p.Tenant != "" {
		return &eventhose.Error{Code: eventhose.CodeForbidden, Message: "the API key is bound to one tenant", Fix: "use an admin key that is not"}
	}
	if w.Tenant == "" || w.Creates {
		return nil
	}
	_, err := d.Tenant(ctx, w.Tenant)
	if eventhose.CodeOf(err) == eventhose.CodeNotFound {
		return eventhose.NotFound("tenant")
	}
	return err
}

// Bearer reads Authorization headers (RFC 6750, section 2.1). CodeUnauthenticated.
func Bearer(headers []string) (eventhose.Secret, error) {
	if len(headers) == 0 {
		return "", &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: "no API key was given", Fix: "send the header Authorization: Bearer KEY"}
	}
	scheme, key, ok := strings.Cut(headers[0], " ")
	key = strings.TrimSpace(key)
	if len(headers) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || key == "" || len(key) > MaxKeyLength {
		return "", &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: "the Authorization header holds no API key", Fix: "send the header Authorization: Bearer KEY"}
	}
	return eventhose.Secret(key), nil
}
