// Package eventlog is the log: it checks what comes in, gathers groups for the store, reads pages out, wakes who
// waits, and applies retention and erasure.
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

// Tenants tells who may have a log. Tenant answers CodeNotFound for who may not.
type Tenants interface {
	Tenant(ctx context.Context, id eventhose.TenantID) (eventhose.Tenant, error)
	Tenants(ctx context.Context, after eventhose.TenantID, limit int) ([]eventhose.Tenant, error)
}

// maxExamined is how many events one Page looks at, so that no filter turns a request into a scan of the log. One that has found
// nothing, or evaluates an expression, answers after eventhose.SearchTime.
const maxExamined = eventhose.MaxExamined

// A page read from the store.
const (
	readEvents = 500
	readBytes  = 1 << 20
)

// Log implements eventhose.Appender and eventhose.Reader over a store. It is safe for concurrent use.
type Log struct {
	store   store.Log
	tenants Tenants
	logger  *slog.Logger
	commits *committer
	heads   heads
	erased  func(eventhose.TenantID, eventhose.Sequence)
	lost    func(eventhose.TenantID, []store.LostParked)
	owns    func(eventhose.TenantID) bool
	counted func(tenant, parent eventhose.TenantID, events, bytes int)
	place   chan struct{} // there may be something to place
	small   smallLogs
}

// Options of a Log.
type Options struct {
	Logger *slog.Logger
	// Appended is called after events became durable, once per tenant and group; it must not block. It is a hint only.
	Appended func(eventhose.TenantID)
	// Counted is called after the events of one request became durable, with how many were new, the bytes of their data, and the
	// parent in whose log they have a place too, "" if none; it must not block.
	Counted func(tenant, parent eventhose.TenantID, events, bytes int)
	// Erased is called after an event's data was removed; it must not block for long.
	Erased func(eventhose.TenantID, eventhose.Sequence)
	// Lost is called after retention has taken parked events that there was no room to keep; it must not block for long.
	Lost func(eventhose.TenantID, []store.LostParked)
	// Owns says which tenants' logs this node keeps up: retention, and the places of what applications appended. Nil is all of them.
	Owns func(eventhose.TenantID) bool
}

// New starts a log over a store, which it does not close. Close must be called.
func New(st store.Log, tenants Tenants, o Options) *Log {
	l := &Log{store: st, tenants: tenants, logger: o.Logger, erased: o.Erased, lost: o.Lost, owns: o.Owns, counted: o.Counted, place: make(chan struct{}, 1), small: newSmallLogs()}
	if l.owns == nil {
		l.owns = func(eventhose.TenantID) bool { return true }
	}
	if l.counted == nil {
		l.counted = func(_, _ eventhose.TenantID, _, _ int) {}
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	l.commits = newCommitter(st, func(tenant eventhose.TenantID) {
		l.heads.wake(tenant)
		if o.Appended != nil {
			o.Appended(tenant)
		}
	})
	return l
}

// Grown hints that another node has appended to a log. It does not block.
func (l *Log) Grown(tenant eventhose.TenantID) { l.heads.wake(tenant) }

// RunPoll has everybody who waits look again every interval, until ctx ends: hints of other nodes may be lost.
func (l *Log) RunPoll(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.heads.wakeAll()
		}
	}
}

// Close takes no more appends, commits those that were taken, and waits. Waiters are woken by their own contexts.
func (l *Log) Close() error {
	l.commits.close()
	return nil
}

// Append implements eventhose.Appender.
func (l *Log) Append(ctx context.Context, tenant eventhose.TenantID, events ...eventhose.Event) ([]eventhose.Placement, error) {
	for i := range events {
		if events[i].Reserved() {
			return nil, at(i, len(events), eventhose.Invalid("type", "must not begin with %q, which is for system events", eventhose.SystemPrefix))
		}
		if err := notThrough(&events[i]); err != nil {
			return nil, at(i, len(events), err)
		}
	}
	return l.append(ctx, tenant, events)
}

// notThrough refuses what looks as if it had come through an inbound source and did not: workers rely on its having been verified, and
// whoever took an id of a source would have the provider's own request with that id taken for a repeat. The door of sources gives
// an event the source's id both as its scope and as its attribute, and no other door lets a client set both.
func notThrough(e *eventhose.Event) error {
	source := e.Attributes[eventhose.SourceAttribute]
	switch {
	case source == e.Scope:
		return nil
	case eventhose.ValidSourceID(source):
		return eventhose.Invalid("attributes."+eventhose.SourceAttribute, "must not be the id of an inbound source")
	case eventhose.ValidSourceID(e.Scope):
		return eventhose.Invalid("source", "must not be the id of an inbound source")
	}
	return nil
}

// AppendSystem appends an event of Eventhose's own. data is JSON.
func (l *Log) AppendSystem(ctx context.Context, tenant eventhose.TenantID, typ string, data []byte) error {
	_, err := l.append(ctx, tenant, []eventhose.Event{{Type: typ, Data: data}})
	return err
}

func (l *Log) append(ctx context.Context, tenant eventhose.TenantID, events []eventhose.Event) ([]eventhose.Placement, error) {
	if len(events) == 0 {
		return nil, eventhose.Invalid("events", "must not be empty")
	}
	if len(events) > eventhose.MaxAppend {
		return nil, &eventhose.Error{Code: eventhose.CodeTooLarge, Field: "events", Message: fmt.Sprintf("must be at most %d", eventhose.MaxAppend), Fix: "append in several requests"}
	}
	t, err := l.tenants.Tenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	entry := store.Append{Tenant: tenant, Parent: t.Parent, Events: make([]store.NewEvent, len(events))}
	size, data := 0, 0
	for i, e := range events {
		if err := e.Validate(); err != nil {
			return nil, at(i, len(events), err)
		}
		size += e.Size()
		data += len(e.Data)
		var digest [16]byte
		if e.ID != "" {
			digest = digestOf(&e)
		}
		e.Tenant, e.Sequence, e.Appended = tenant, 0, now
		if e.Time.IsZero() {
			e.Time = now
		}
		e.Time = e.Time.UTC()
		entry.Events[i] = store.NewEvent{Event: e, Digest: digest}
	}
	if data > eventhose.MaxAppendBytes {
		return nil, &eventhose.Error{Code: eventhose.CodeTooLarge, Field: "events", Message: fmt.Sprintf("hold more than %d bytes of data", eventhose.MaxAppendBytes), Fix: "append in several requests"}
	}
	res, err := l.commits.append(ctx, entry, size)
	if err != nil {
		return nil, wrap(err, "append")
	}
	if res.Err != nil {
		if errors.Is(res.Err, store.ErrDifferent) {
			return nil, at(res.Index, len(events), &eventhose.Error{Code: eventhose.CodeConflict, Field: "id",
				Message: "an event with this id and other content is in the log", Fix: "use a new id, or send the same content"})
		}
		return nil, wrap(res.Err, "append")
	}
	l.count(&entry, res)
	return res.Placements, nil
}

// count tells of the events of an entry that are new.
func (l *Log) count(entry *store.Append, res store.AppendResult) {
	events, bytes := 0, 0
	for i := range res.Placements {
		if !res.Placements[i].Duplicate {
			events++
			bytes += len(entry.Events[i].Event.Data)
		}
	}
	l.counted(entry.Tenant, entry.Parent, events, bytes)
}

// at moves an error's field below the event that it is about, when there are several.
func at(i, n int, err error) error {
	var e *eventhose.Error
	if n == 1 || !errors.As(err, &e) {
		return err
	}
	moved := *e
	moved.Field = fmt.Sprintf("events[%d].%s", i, e.Field)
	return &moved
}

// Head answers how far a log reaches. CodeNotFound for an unknown tenant.
func (l *Log) Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error) {
	if _, err := l.tenants.Tenant(ctx, tenant); err != nil {
		return eventhose.Head{}, err
	}
	h, err := l.store.Head(ctx, tenant)
	return h, wrap(err, "read the head")
}

// Read implements eventhose.Reader.
func (l *Log) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, f eventhose.Filter) iter.Seq2[eventhose.Event, error] {
	return func(yield func(eventhose.Event, error) bool) {
		if _, err := l.tenants.Tenant(ctx, tenant); err != nil {
			yield(eventhose.Event{}, err)
			return
		}
		compiled, err := filter.Compile(f)
		if err != nil {
			yield(eventhose.Event{}, err)
			return
		}
		for {
			events, err := l.read(ctx, tenant, after)
			if err != nil {
				yield(eventhose.Event{}, err)
				return
			}
			if len(events) == 0 {
				return
			}
			for _, e := range events {
				if wants(compiled, e) && !yield(*e, nil) {
					return
				}
				after = e.Sequence
			}
		}
	}
}

// Page reads matching events after a cursor, examining at most 10,000, and with an expression for about eventhose.SearchTime. Errors are Read's, and CodeCursorGone.
func (l *Log) Page(ctx context.Context, tenant eventhose.TenantID, after eventhose.Cursor, f eventhose.Filter, limit eventhose.PageLimit) (eventhose.Page, error) {
	if limit.Bytes <= 0 {
		limit.Bytes = eventhose.MaxPageBytes
	}
	compiled, err := filter.Compile(f)
	if err != nil {
		return eventhose.Page{}, err
	}
	head, err := l.Head(ctx, tenant)
	if err != nil {
		return eventhose.Page{}, err
	}
	seq, err := head.Resolve(after)
	if err != nil {
		return eventhose.Page{}, err
	}
	var page eventhose.Page
	size, evaluates := 0, f.Expression != ""
	var until time.Time
	late := func() bool { return !time.Now().Before(until) }
	for examined := 0; examined < maxExamined && len(page.Events) < limit.Events && size < limit.Bytes; {
		if examined > 0 && (evaluates || len(page.Events) == 0) && late() {
			break
		}
		events, err := l.read(ctx, tenant, seq)
		if eventhose.CodeOf(err) == eventhose.CodeCursorGone { // retention has gone on since the head was read
			if examined > 0 {
				break // what was read is answered; whoever goes on is told
			}
			if head, err = l.Head(ctx, tenant); err == nil {
				seq, err = head.Resolve(after) // the beginning is further on now
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return eventhose.Page{}, err
		}
		if len(events) == 0 {
			break
		}
		if examined == 0 { // a store that was slow is no reason to throw away what it has read
			until = time.Now().Add(eventhose.SearchTime)
		}
		for _, e := range events {
			match := wants(compiled, e)
			if match && len(page.Events) > 0 && size+e.Size() > limit.Bytes {
				size = limit.Bytes
				break
			}
			seq = e.Sequence
			examined++
			if match {
				page.Events = append(page.Events, *e)
				size += e.Size()
			}
			if len(page.Events) == limit.Events || examined == maxExamined || evaluates && late() {
				break
			}
		}
	}
	page.Cursor = head.Cursor(seq)
	page.HasMore = seq < head.Last
	return page, nil
}

// wants reports whether a reader is handed an event. What its filter cannot decide it is: one event too many is less than none ever
// again, and subscriptions are, too.
func wants(f *filter.Filter, e *eventhose.Event) bool {
	matches, err := f.Match(e)
	return matches || err != nil
}

func (l *Log) read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence) ([]*eventhose.Event, error) {
	events, err := l.store.Read(ctx, tenant, after, store.ReadLimit{Events: readEvents, Bytes: readBytes})
	if errors.Is(err, store.ErrTrimmed) {
		gone := &eventhose.Error{Code: eventhose.CodeCursorGone, Message: "retention has removed events that this cursor has not read"}
		if h, err := l.store.Head(ctx, tenant); err == nil {
			gone.First = h.First
		}
		return nil, gone
	}
	return events, wrap(err, "read the log")
}

// Wait implements eventhose.Reader.
func (l *Log) Wait(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence) error {
	for {
		moved, done := l.heads.watch(tenant)
		h, err := l.Head(ctx, tenant)
		if err != nil || h.Last > after {
			done()
			return err
		}
		select {
		case <-moved:
			done()
		case <-ctx.Done():
			done()
			return ctx.Err()
		}
	}
}

// Event finds an event by its id within a scope. CodeNotFound.
func (l *Log) Event(ctx context.Context, tenant eventhose.TenantID, scope, id string) (eventhose.Event, error) {
	if _, err := l.tenants.Tenant(ctx, tenant); err != nil {
		return eventhose.Event{}, err
	}
	if id == "" {
		return eventhose.Event{}, eventhose.NotFound("event")
	}
	e, err := l.store.Lookup(ctx, tenant, store.Ref{Scope: scope, ID: id})
	if errors.Is(err, store.ErrNotFound) {
		return eventhose.Event{}, eventhose.NotFound("event")
	}
	if err != nil {
		return eventhose.Event{}, wrap(err, "look up the event")
	}
	return *e, nil
}

// Erase removes an event's data; its place, id and sequence stay. Erasing again is no error. CodeNotFound. A connected
// tenant's event loses its data in the parent's log too; erased in the parent's log it stays in its own, which belongs to others.
func (l *Log) Erase(ctx context.Context, tenant eventhose.TenantID, scope, id string) error {
	e, err := l.Event(ctx, tenant, scope, id)
	if err != nil {
		return err
	}
	if err := l.store.Erase(ctx, tenant, e.Sequence); errors.Is(err, store.ErrNotFound) {
		return eventhose.NotFound("event")
	} else if err != nil {
		return wrap(err, "erase the data")
	}
	if l.erased != nil {
		l.erased(tenant, e.Sequence)
	}
	return nil
}

// wrap gives a store's error its code and says what was being done. Errors that have a code keep it.
func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	code, message, fix, retry := eventhose.CodeInternal, "cannot "+doing, "", time.Duration(0)
	var coded *eventhose.Error
	switch {
	case errors.As(err, &coded):
		return err
	case errors.Is(err, store.ErrUnavailable): // also if it was too late with its answer
		code, message, retry = eventhose.CodeUnavailable, "the store cannot be reached now", time.Second
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, store.ErrFull):
		code, message, fix = eventhose.CodeStorageFull, "there is no room for more events", "free disk space or shorten retention; reads and deliveries go on"
		retry = 5 * time.Second
	case errors.Is(err, store.ErrFailed):
		code, message, retry = eventhose.CodeUnavailable, "the store cannot be reached now", time.Second
	}
	return &eventhose.Error{Code: code, Message: message, Fix: fix, RetryAfter: retry, Err: err}
}
