package follow

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// maxKept is how many bytes of pages are kept for readers that come a little later, and keepFor how long.
	maxKept = 16 << 20
	keepFor = time.Second
)

// place is where readers stand that can share.
type place struct {
	tenant eventhose.TenantID
	after  eventhose.Cursor
	filter string
	form   string
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
	// more says that the log has more than the page.
	more bool

	// gates are where readers wait until it has landed, room where there may be room. through closes when all were let in.
	gates   []*gate
	room    int
	through chan struct{}
	// turn says that it has the turn to let many in. It is the flight's alone.
	turn bool
}

// next joins the flight from the stream's place, or starts one.
func (p *Pages[T]) next(ctx context.Context, s *Stream[T], idle time.Duration) (*flight[T], error) {
	f, gate, err := p.join(s)
	if err != nil {
		return nil, err
	}
	defer p.leave(f, gate)
	select {
	case <-f.done:
		return f, f.err
	default:
	}
	if s.timer == nil {
		s.timer = time.NewTimer(idle)
	} else {
		s.timer.Reset(idle)
	}
	defer s.timer.Stop()
	select {
	case <-gate.open:
		s.gate = gate
		return f, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.timer.C:
		empty := &flight[T]{page: Page[T]{Cursor: s.seen}}
		if c := f.moved.Load(); c != nil && (c.Incarnation != s.seen.Incarnation || c.Sequence > s.seen.Sequence) {
			empty.page.Cursor = *c
		}
		return empty, nil
	}
}

// join counts a reader of a flight, which waits at the gate that it answers, nil if the flight has landed.
func (p *Pages[T]) join(s *Stream[T]) (*flight[T], *gate, error) {
	before := s.gate
	if s.gate = nil; before != nil {
		before.back()
	}
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
		f = &flight[T]{place: s.at, done: make(chan struct{}), through: make(chan struct{})}
		var flying context.Context
		flying, f.cancel = context.WithCancel(p.flying)
		p.flights[s.at] = f
		way := way[T]{from: s.seen, filter: s.filter, encode: s.encode, behind: s.behind}
		if before != nil {
			way.others = before.through
		}
		p.crew.Go(func() { p.fly(flying, f, way) })
	}
	if f.readers++; f.landed {
		return f, nil, nil
	}
	for f.room < len(f.gates) && f.gates[f.room].readers >= atOnce() {
		f.room++
	}
	if f.room == len(f.gates) {
		f.gates = append(f.gates, newGate(f.room, f.through))
	}
	g := f.gates[f.room]
	g.readers++
	return f, g, nil
}

// leave ends a flight that nobody waits for.
func (p *Pages[T]) leave(f *flight[T], g *gate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.readers--; f.landed {
		return
	}
	if g.readers--; g.index < f.room {
		f.room = g.index
	}
	if f.readers == 0 {
		f.cancel()
		if p.flights[f.place] == f {
			delete(p.flights, f.place)
		}
	}
}

// way is how a flight finds its page.
type way[T any] struct {
	// from is where it begins to look: nothing that matches is between the flight's place and this.
	from   eventhose.Cursor
	filter eventhose.Filter
	encode Encode[T]
	// behind says that there is more in the log. Otherwise the page is waited for, and others, who have the page before, are let
	// in first, if not nil.
	behind bool
	others <-chan struct{}
}

func (p *Pages[T]) fly(ctx context.Context, f *flight[T], way way[T]) {
	defer f.cancel()
	defer p.passOn(f)
	page, err := p.find(ctx, f, way)
	if err != nil && p.flying.Err() != nil {
		err = Stopping()
	}
	if f.err = err; err == nil {
		f.page = Page[T]{Encoded: way.encode(page.Events, page.Cursor.Incarnation), Events: len(page.Events), Whole: true, Cursor: page.Cursor}
		if n := len(f.page.Each); n > 0 && n < len(page.Events) {
			page.Events = page.Events[:n]
			f.page.Events, f.page.Cursor.Sequence = n, page.Events[n-1].Sequence
			page.HasMore = true
		}
		f.more = page.HasMore
		f.sequences = make([]eventhose.Sequence, len(page.Events))
		for i := range page.Events {
			f.sequences[i] = page.Events[i].Sequence
		}
	}
	close(f.done)
	p.admit(f, p.land(f))
}

// land keeps what was found for those that come a little later.
func (p *Pages[T]) land(f *flight[T]) (gates []*gate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gates = slices.DeleteFunc(f.gates, func(g *gate) bool { return g.readers == 0 }) // whose readers have all left
	if f.landed, f.at = true, time.Now(); p.flights[f.place] != f {
		return gates
	}
	if f.err != nil {
		delete(p.flights, f.place)
		return gates
	}
	p.kept = append(p.kept, f)
	p.size += f.page.Size
	for len(p.kept) > 0 && (p.size > maxKept || f.at.Sub(p.kept[0].at) > keepFor) {
		p.drop(p.kept[0])
	}
	return gates
}

// find reads on until there are events.
func (p *Pages[T]) find(ctx context.Context, f *flight[T], way way[T]) (eventhose.Page, error) {
	if !way.behind && way.others != nil {
		select {
		case <-way.others:
		case <-ctx.Done():
			return eventhose.Page{}, ctx.Err()
		}
	}
	after := way.from
	for {
		if !way.behind && p.large(f) {
			p.takeTurn(ctx, f) // waited for first, so that the page has all that there is by then
			p.passOn(f)
		}
		page, err := p.log.Page(ctx, f.tenant, after, way.filter, Limit)
		if err != nil || len(page.Events) > 0 {
			return page, err
		}
		after = page.Cursor
		f.moved.Store(&page.Cursor)
		if way.behind = page.HasMore; !way.behind {
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
