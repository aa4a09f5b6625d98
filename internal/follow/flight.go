package follow

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// maxKept is how many bytes of pages are kept for readers that come a little later, and keepFor how long.
	maxKept  = 16 << 20
	keepFor  = time.Second
	gateSize = 32
)

// place is where readers stand that can share.
type place struct {
	tenant eventhose.TenantID
	after  eventhose.Cursor
	filter string
}

// flight is the way to the next page after one place. It is alone in changing its page, and does so before done is closed;
// the rest is guarded by the mutex of Pages.
type flight[T any] struct {
	place
	cancel    context.CancelFunc
	done      chan struct{}
	page      Page[T]
	sequences []eventhose.Sequence
	err       error
	// moved is how far it has looked without finding anything.
	moved atomic.Pointer[eventhose.Cursor]

	readers int
	landed  bool
	at      time.Time
	// gates are where readers wait, gateSize at each. They are opened one after the other, so that whatever else the server has
	// to do, appending first of all, does not stand in line behind a thousand readers that woke at once.
	gates []chan struct{}
}

// next joins the flight from the stream's place, or starts one.
func (p *Pages[T]) next(ctx context.Context, s *Stream[T], idle time.Duration) (*flight[T], error) {
	f, gate, err := p.join(s)
	if err != nil {
		return nil, err
	}
	defer p.leave(f)
	select {
	case <-f.done:
		return f, f.err
	default:
	}
	timer := time.NewTimer(idle)
	defer timer.Stop()
	select {
	case <-gate:
		return f, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		empty := &flight[T]{page: Page[T]{Cursor: s.at.after}}
		if c := f.moved.Load(); c != nil {
			empty.page.Cursor = *c
		}
		return empty, nil
	}
}

func (p *Pages[T]) join(s *Stream[T]) (*flight[T], <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, Stopping()
	}
	f := p.flights[s.at]
	if f != nil && f.landed && time.Since(f.at) > keepFor {
		p.drop(f)
		f = nil
	}
	if f == nil {
		f = &flight[T]{place: s.at, done: make(chan struct{})}
		var flying context.Context
		flying, f.cancel = context.WithCancel(p.flying)
		p.flights[s.at] = f
		p.crew.Go(func() { p.fly(flying, f, s.filter) })
	}
	at := f.readers / gateSize
	if f.readers++; f.landed {
		return f, f.done, nil
	}
	if at == len(f.gates) {
		f.gates = append(f.gates, make(chan struct{}))
	}
	return f, f.gates[at], nil
}

// leave ends a flight that nobody waits for.
func (p *Pages[T]) leave(f *flight[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.readers--; f.readers == 0 && !f.landed {
		f.cancel()
		if p.flights[f.place] == f {
			delete(p.flights, f.place)
		}
	}
}

func (p *Pages[T]) fly(ctx context.Context, f *flight[T], filter eventhose.Filter) {
	defer f.cancel()
	page, err := p.find(ctx, f, filter)
	if err != nil && p.flying.Err() != nil {
		err = Stopping()
	}
	if f.err = err; err == nil {
		f.page = Page[T]{Encoded: p.encode(page.Events, page.Cursor.Incarnation), Events: len(page.Events), Whole: true, Cursor: page.Cursor}
		f.sequences = make([]eventhose.Sequence, len(page.Events))
		for i := range page.Events {
			f.sequences[i] = page.Events[i].Sequence
		}
	}
	close(f.done)
	for i, gate := range p.land(f) {
		if i > 0 {
			runtime.Gosched()
		}
		close(gate)
	}
}

// land keeps what was found for those that come a little later.
func (p *Pages[T]) land(f *flight[T]) (gates []chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.landed, f.at = true, time.Now(); p.flights[f.place] != f {
		return f.gates
	}
	if f.err != nil {
		delete(p.flights, f.place)
		return f.gates
	}
	p.kept = append(p.kept, f)
	p.size += f.page.Size
	for len(p.kept) > 0 && (p.size > maxKept || f.at.Sub(p.kept[0].at) > keepFor) {
		p.drop(p.kept[0])
	}
	return f.gates
}

// find reads on until there are events.
func (p *Pages[T]) find(ctx context.Context, f *flight[T], filter eventhose.Filter) (eventhose.Page, error) {
	after := f.after
	for {
		page, err := p.log.Page(ctx, f.tenant, after, filter, Limit)
		if err != nil || len(page.Events) > 0 {
			return page, err
		}
		after = page.Cursor
		f.moved.Store(&page.Cursor)
		if !page.HasMore {
			err = p.log.Wait(ctx, f.tenant, after.Sequence)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return page, err
		}
	}
}

// drop forgets a page that is kept. p.mu is held.
func (p *Pages[T]) drop(f *flight[T]) {
	if p.flights[f.place] == f {
		delete(p.flights, f.place)
	}
	if at := slices.Index(p.kept, f); at >= 0 {
		p.kept = slices.Delete(p.kept, at, at+1)
		p.size -= f.page.Size
	}
}

// Stopping is what ends a stream when the server stops: CodeUnavailable, with RetryAfter.
func Stopping() error {
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the server is stopping", Fix: "connect again, with the last cursor", RetryAfter: time.Second}
}
