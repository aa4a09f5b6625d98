package store

import (
	"context"

	"github.com/eventhose/eventhose"
)

// A store is copied to one of another driver in parts. What a driver gives of itself for that is in these types; nothing
// is left out that a client, a receiver or an operator could miss afterwards.

// Reading is what can be asked of a store without changing it: what a copy is compared by.
type Reading interface {
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
	Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit ReadLimit) ([]*eventhose.Event, error)
	Lookup(ctx context.Context, tenant eventhose.TenantID, ref Ref) (*eventhose.Event, error)
	Lane(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (Lane, []BlockedKey, error)
	Parked(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, q ParkedQuery) ([]Parked, error)
	Attempts(ctx context.Context, tenant eventhose.TenantID, q AttemptQuery) ([]eventhose.Attempt, error)
}

// Source tells a store that is copied, and the state that it is in, from every other.
type Source struct {
	// ID is of the store; it stays for as long as its logs keep their incarnations.
	ID string
	// Commits counts its changes: as long as it is the same, so is everything in the store.
	Commits uint64
}

// Extent is how much there is to be copied.
type Extent struct {
	Logs, Events int
	// Bytes of data.
	Bytes int64
}

// PartLimit bounds a part: it ends with the row that reaches one of them.
type PartLimit struct{ Rows, Bytes int }

// Part is what one step of a copy carries over.
type Part struct {
	// Position says how far the copy has come with this part. Only the store that it is from knows what it means.
	Position []byte
	Logs     []LogHead
	// Events are in the order of their tenants and sequences. They come after their logs.
	Events []StoredEvent
	// Kept are events of parked sequences that their logs no longer hold.
	Kept []StoredEvent
	// IDs come after the events that they are of.
	IDs     []RememberedID
	Matched []Tail // Last is not set
	// Lanes come first by themselves and then, in any number of parts, with what hangs on them: parked rows, blocked keys,
	// attempts, newest first. Each has its whole row and is to be made; a part has each once. They come after all events.
	Lanes []LaneChange
	// Records have the versions that they have, and may have expired.
	Records []Record
}

// LogHead is a log without its events.
type LogHead struct {
	Tenant eventhose.TenantID
	Head   eventhose.Head
	// Bytes of data between First and Last.
	Bytes int64
}

// StoredEvent is an event with what only its store knew about it.
type StoredEvent struct {
	// Event, if it is a place in a parent's log (Origin is set), has no data of its own but for a kept one.
	Event *eventhose.Event
	// Made says that its id was made of its sequence and Random, and is not remembered.
	Made   bool
	Random uint64
}

// RememberedID is a client's id that an append may not use again for something else.
type RememberedID struct {
	Tenant   eventhose.TenantID
	Scope    string
	ID       string
	Sequence eventhose.Sequence
	Digest   [16]byte
}
