// Package follow is the loop of every stream: a page after a cursor, then wait for the log to grow, and again.
//
// Readers pull. One that does not ask has nothing kept for it, so a slow reader holds no memory but the page in its hands,
// and nothing needs to be dropped. What many readers ask for at once is read, and encoded for their door, once: those that
// stand at the same place of one log with the same filter share one flight (flight.go), which ends when nobody waits for
// it any more.
package follow

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// Log is what is followed. It is safe for concurrent use.
type Log interface {
	// Page reads matching events after a cursor, examining a bounded number. CodeCursorGone, CodeInvalid (field "filter.…").
	Page(ctx context.Context, tenant eventhose.TenantID, after eventhose.Cursor, f eventhose.Filter, limit eventhose.PageLimit) (eventhose.Page, error)
	// Wait returns nil once the log reaches beyond a sequence, at the latest when ctx ends, with its error.
	Wait(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence) error
}

// Limit is how much a stream is handed at once: what a slow reader holds.
var Limit = eventhose.PageLimit{Events: 500, Bytes: 256 << 10}

// Encoded is a page as a door writes it. It is shared: nobody changes it.
type Encoded[T any] struct {
	// All are all of the events together, Each is one by one. A door fills what it uses.
	All T
	// Each may be shorter than the events it was made of: the others come with the next page.
	Each []T
	// Size is about how many bytes of memory they take.
	Size int
}

// Page is what a stream is handed. With Events 0 there is nothing but a cursor that has moved, or not even that.
type Page[T any] struct {
	Encoded[T]
	Events int
	// Whole says that All is what is handed out; otherwise it is Each.
	Whole bool
	// Cursor stands after the last event that was looked at.
	Cursor eventhose.Cursor
}

// Encode turns events of one tenant, in order, into what a door writes. It is called by several goroutines.
type Encode[T any] func(events []eventhose.Event, incarnation eventhose.Incarnation) Encoded[T]

// Pages hands out pages of logs, encoded for one door. It is safe for concurrent use.
type Pages[T any] struct {
	log    Log
	turn   *turns
	encode Encode[T]

	flying context.Context
	ground context.CancelFunc
	crew   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	flights map[place]*flight[T]
	// kept are those that have landed, oldest first, and size is what they take.
	kept []*flight[T]
	size int
}

// New makes what Close must be called of. The streams are those of all doors. encode may be nil if each stream has its own.
func New[T any](log Log, streams *Streams, encode Encode[T]) *Pages[T] {
	p := &Pages[T]{log: log, turn: streams.turn, encode: encode, flights: map[place]*flight[T]{}}
	p.flying, p.ground = context.WithCancel(context.Background())
	return p
}

// Close ends all streams, whose Next answers CodeUnavailable from now on, and waits for what is under way.
func (p *Pages[T]) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.ground()
	p.crew.Wait()
}

// Forget drops what is kept of a tenant's log: data of it was erased.
func (p *Pages[T]) Forget(tenant eventhose.TenantID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, f := range p.flights {
		if at.tenant == tenant { // also one that is under way with what it has read
			p.drop(f)
		}
	}
}

// Stream is one reader's way through a log. It is used by one goroutine at a time, and needs no end.
type Stream[T any] struct {
	pages *Pages[T]
	// at is where it shares with others: after the last event that it got. seen is how far nothing more for it is.
	at     place
	seen   eventhose.Cursor
	filter eventhose.Filter
	encode Encode[T]
	// behind says that the log had more when it was read last, gate where the stream was let in.
	behind bool
	gate   *gate
	timer  *time.Timer
}

// Open begins a stream after a cursor. It reads nothing yet: what is wrong with the cursor or the filter Next tells.
func (p *Pages[T]) Open(tenant eventhose.TenantID, after eventhose.Cursor, f eventhose.Filter) *Stream[T] {
	return &Stream[T]{pages: p, seen: after, filter: f, encode: p.encode, at: place{tenant: tenant, after: after,
		filter: strings.Join(f.Types, "\x00") + "\x01" + strings.Join(f.Keys, "\x00") + "\x01" + f.Expression}}
}

// As has the stream's events encoded in another way than the door's others. Streams whose form is the same share what it makes.
func (s *Stream[T]) As(form string, encode Encode[T]) *Stream[T] {
	s.at.form, s.encode = form, encode
	return s
}

// Cursor is where the stream stands: after what Next has handed out.
func (s *Stream[T]) Cursor() eventhose.Cursor { return s.seen }

// Next waits for events after the stream's cursor and moves it on over those that it hands out: at least one, at most max
// and Limit. If there are none for as long as idle, it answers a page without events, whose cursor may yet have moved: over
// events that the filter does not match. Errors are those of the log and of ctx, and CodeUnavailable when the server stops.
func (s *Stream[T]) Next(ctx context.Context, max int, idle time.Duration) (Page[T], error) {
	f, err := s.pages.next(ctx, s, idle)
	if err != nil {
		return Page[T]{}, err
	}
	page := f.page
	if page.Events > max {
		var none T
		page.All, page.Whole = none, false
		page.Each, page.Events = page.Each[:max], max
		page.Cursor.Sequence = f.sequences[max-1]
	}
	if s.seen = page.Cursor; page.Events > 0 {
		s.at.after, s.behind = page.Cursor, f.more || page.Events < f.page.Events
	}
	return page, nil
}
