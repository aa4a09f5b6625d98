package eventhose

import (
	"context"
	"iter"
)

// Appender is the way in. Implementations are safe for concurrent use.
type Appender interface {
	// Append puts events at the end of a tenant's log, all of them or none, and answers one placement for each, in
	// order, once they are durable. Events with an id that the log has are answered as duplicates if they are
	// the same and refused with CodeConflict if they differ. Other errors: CodeInvalid and CodeTooLarge with the field,
	// CodeNotFound (tenant), CodeStorageFull, CodeLimit and CodeUnavailable with RetryAfter. It does not keep the
	// events' slices after it returns.
	Append(ctx context.Context, tenant TenantID, events ...Event) ([]Placement, error)
}

// Reader is the way out. Implementations are safe for concurrent use.
type Reader interface {
	// Read yields the events after a sequence that the filter matches, in order, and ends at the durable head. It yields
	// one error and ends if it cannot go on: CodeNotFound, CodeCursorGone if retention has overtaken after, CodeInvalid
	// for a filter. Events are shared; do not change them.
	Read(ctx context.Context, tenant TenantID, after Sequence, f Filter) iter.Seq2[Event, error]
	// Wait returns nil once the tenant's durable head is beyond after, at the latest when ctx ends, with its error.
	Wait(ctx context.Context, tenant TenantID, after Sequence) error
}

// Page is a piece of a log as a reader sees it.
type Page struct {
	Events []Event
	// Cursor stands after the last event that was examined, whether it matched or not.
	Cursor Cursor
	// HasMore says that the log goes on after Cursor.
	HasMore bool
}

// PageLimit bounds a page.
type PageLimit struct {
	// Events is how many it holds at most.
	Events int
	// Bytes is what their sizes are together at most, unless the first alone has more; 0 is MaxPageBytes.
	Bytes int
}

// MaxPageBytes is the size of the events that one page holds at most, and the data of those of one pull, but for a single one that is larger.
const MaxPageBytes = 4 << 20
