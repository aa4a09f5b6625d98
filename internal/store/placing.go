package store

import (
	"context"

	"github.com/eventhose/eventhose"
)

// Placing is what a store has, beside Store, in which applications append events within their own transactions. Such an event is durable and has
// no place in its log until somebody gives it one. All methods are safe for concurrent use.
type Placing interface {
	// UnplacedTenants lists tenants that have events without a place, those after one.
	UnplacedTenants(ctx context.Context, after eventhose.TenantID, limit int) ([]eventhose.TenantID, error)
	// Unplaced answers a tenant's events without a place, in the order in which they get theirs: at most limit, and about 4 MiB of data.
	Unplaced(ctx context.Context, tenant eventhose.TenantID, limit int) ([]Unplaced, error)
	// Place appends entries of one tenant and removes the rows that they were made of, one each, all or nothing. Rows of entries that are refused stay,
	// until an entry that says so is placed for them. It reports false, and nothing was done, if somebody else has placed one of the others. ErrBusy if
	// somebody else holds the log, and the entries say Skip.
	Place(ctx context.Context, entries []Append, rows []int64) ([]AppendResult, bool, error)
}

// Unplaced is an event without a place.
type Unplaced struct {
	// Row names it to Place.
	Row   int64
	Event eventhose.Event
}
