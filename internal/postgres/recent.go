package postgres

import (
	"maps"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// recent holds what this node has appended in the last moments, so that what delivers it, or waits for it, need not ask the database for what
// was just sent there. Everything in it is committed. It is short-lived, since another node may trim or erase; what this
// node trims or erases leaves it at once.
type recent struct {
	mu   sync.Mutex
	logs map[tenantID]*tail
	// order are the tails' pieces, oldest first, to be forgotten by age and size.
	order []piece
	bytes int
}

// tail is the newest end of a log, without a gap.
type tail struct {
	events []*eventhose.Event
}

type piece struct {
	tenant tenantID
	last   sequence
	bytes  int
	at     time.Time
}

const (
	recentFor   = 2 * time.Second
	recentBytes = 64 << 20
	// recentEvent is what an event costs beside its size.
	recentEvent = 256
)

// add takes in events that were committed, one log's, in order and without gap.
func (r *recent) add(events []*eventhose.Event, now time.Time) {
	if len(events) == 0 {
		return
	}
	tenant, last := events[0].Tenant, events[len(events)-1].Sequence
	size := 0
	for _, e := range events {
		size += e.Size() + recentEvent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	if r.logs == nil {
		r.logs = map[tenantID]*tail{}
	}
	t := r.logs[tenant]
	switch {
	case t == nil:
		t = &tail{}
		r.logs[tenant] = t
	case len(t.events) > 0 && t.events[len(t.events)-1].Sequence >= last:
		return // two appends were answered out of order; the later one is here
	case len(t.events) > 0 && t.events[len(t.events)-1].Sequence+1 != events[0].Sequence:
		t.events = nil // another node has appended in between
	}
	t.events = append(t.events, events...)
	r.order = append(r.order, piece{tenant, last, size, now})
	r.bytes += size
}

// forget drops what is too old or too much. r.mu is held.
func (r *recent) forget(now time.Time) {
	n := 0
	for n < len(r.order) && (r.bytes > recentBytes || now.Sub(r.order[n].at) > recentFor) {
		p := r.order[n]
		r.bytes -= p.bytes
		r.drop(p.tenant, p.last)
		n++
	}
	clear(r.order[:n])
	r.order = r.order[n:]
}

// drop forgets a log's events up to a sequence. r.mu is held.
func (r *recent) drop(tenant tenantID, last sequence) {
	t := r.logs[tenant]
	if t == nil {
		return
	}
	n := 0
	for n < len(t.events) && t.events[n].Sequence <= last {
		n++
	}
	clear(t.events[:n])
	if t.events = t.events[n:]; len(t.events) == 0 {
		delete(r.logs, tenant)
	}
}

// leave forgets all of one log.
func (r *recent) leave(tenant tenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.logs, tenant)
}

// read answers a page, or nothing if it does not have the event after a sequence.
func (r *recent) read(tenant tenantID, after sequence, limit store.ReadLimit, now time.Time) []*eventhose.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	t := r.logs[tenant]
	if t == nil || t.events[0].Sequence > after+1 {
		return nil
	}
	from := after + 1 - t.events[0].Sequence
	if from >= sequence(len(t.events)) {
		return nil
	}
	n, size := 0, 0
	events := t.events[from:]
	for n < len(events) && n < limit.Events {
		if size += events[n].Size(); n > 0 && size > limit.Bytes {
			break
		}
		n++
	}
	return append([]*eventhose.Event(nil), events[:n]...)
}

// keep takes in what a plan has appended, as copies: what it was made of is its caller's.
func (s *Store) keep(p *plan, lasts map[tenantID]sequence) {
	now := time.Now()
	of := map[tenantID][]*eventhose.Event{}
	size := 0
	for n, i := range p.entries {
		for j, x := range p.planned[n] {
			if !x.again {
				size += len(p.group[i].Events[j].Event.Data)
			}
		}
	}
	data := make([]byte, 0, size)
	for n, i := range p.entries {
		tenant := p.group[i].Tenant
		for j, x := range p.planned[n] {
			if x.again {
				continue
			}
			e := p.group[i].Events[j].Event
			e.Tenant, e.Sequence = tenant, lasts[tenant]+sequence(x.off)
			if e.ID == "" {
				e.ID = eventhose.EventID(e.Sequence, x.random)
			}
			from := len(data)
			data = append(data, e.Data...)
			e.Data = data[from:len(data):len(data)]
			e.Attributes = maps.Clone(e.Attributes)
			e.Time, e.Appended = e.Time.UTC(), e.Appended.UTC().Truncate(time.Microsecond)
			of[tenant] = append(of[tenant], &e)
		}
	}
	for _, events := range of {
		// A log that is a parent's, too, has gaps here: places of its children's events.
		whole := events[:1]
		for _, e := range events[1:] {
			if e.Sequence != whole[len(whole)-1].Sequence+1 {
				whole = whole[:0:0]
			}
			whole = append(whole, e)
		}
		s.recent.add(whole, now)
	}
}
