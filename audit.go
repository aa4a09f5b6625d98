package eventhose

import "time"

// AuditEntry says who has changed what. Entries are written once and vanish by themselves.
type AuditEntry struct {
	// ID is "aud_" and 26 characters; a later entry has a smaller one.
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	Actor Actor     `json:"actor"`
	// Action is the id of an operation of the HTTP API, such as "updateSubscription".
	Action string `json:"action"`
	// Tenant is whose the target is; "" if it belongs to none.
	Tenant TenantID `json:"tenant,omitempty"`
	// Target is the id of what was changed.
	Target string `json:"target,omitempty"`
	// Address is where the request came from.
	Address string `json:"address,omitempty"`
	// RequestID is X-Request-Id, as the access log has it.
	RequestID string `json:"request_id"`
	// Changes are the fields that became another, each with what it was before and after; null is nothing, and a secret "***".
	Changes map[string][]any `json:"changes,omitempty"`
}

// Actor is who has done something.
type Actor struct {
	Kind PrincipalKind `json:"kind"`
	// ID is the credential's, Name what people call who has it.
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	// Tenant is the only tenant that the actor may touch; "" is all.
	Tenant TenantID `json:"tenant,omitempty"`
}

// AuditQuery asks for entries, newest first.
type AuditQuery struct {
	// After is what the page before has answered as its next, "" for the newest.
	After string
	// Limit is how many at most.
	Limit int
	// Actor is an actor's id or name, Action and Target what an entry has; "" is any.
	Actor, Action, Target string
}

// AuditKept is how long entries are kept unless the operator says otherwise.
const AuditKept = 90 * 24 * time.Hour
