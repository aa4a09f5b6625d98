package deliver

// Windows hold their events in memory, within a bound, so that what is delivered soon after it was appended is not read again. What
// is hard is erasure: nothing that was erased may be sent, whoever was reading it at that moment. So beside letting go of what is erased,
// it is remembered for as long as an event from before may come, or be, in memory.

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// maxPinned bounds the data of events that windows hold in memory; others are read again when they are sent. Each
// counts at least minPinned, since it may hold on to a page.
const (
	maxPinned = 64 << 20
	minPinned = 4 << 10
)

const (
	// maxPinAge is how long an event in memory is believed not to have been erased by another node whose hint was lost.
	maxPinAge = 10 * time.Second
	// erasedFor is how long an erasure is remembered: as long as what was read before it may be believed.
	erasedFor = maxPinAge + doubtFor
	// doubtFor is how long nothing is believed that was read more than doubtAge ago, if erasures may be unknown.
	doubtFor = 5 * time.Second
	doubtAge = time.Second
	// maxErased bounds how many erasures are remembered.
	maxErased = 10_000
)

// pin lets an entry hold its event if there is room for it.
func (e *Engine) pin(n *entry, ev *eventhose.Event) *entry {
	n.size = len(ev.Data)
	size := int64(max(n.size, minPinned))
	if e.pinned.Add(size) > maxPinned {
		e.pinned.Add(-size)
		return n
	}
	n.event, n.pinned = ev, time.Now()
	return n
}

func (e *Engine) unpin(n *entry) {
	if n.event != nil {
		e.pinned.Add(-int64(max(len(n.event.Data), minPinned)))
		n.event = nil
	}
}

// pinnedEvent answers the event that an entry holds, nil if it is to be read again.
func (e *Engine) pinnedEvent(n *entry) *eventhose.Event {
	if n.event == nil || !e.erasures.spare(n.event, n.pinned, time.Now()) {
		return nil
	}
	return n.event
}

// Erased tells that the data of an event is gone: whoever holds it in memory reads it again. It does not block for long.
func (e *Engine) Erased(id eventhose.TenantID, seq eventhose.Sequence) {
	gone := eventhose.Origin{Tenant: id, Sequence: seq}
	e.erasures.add(gone, time.Now())
	e.mu.Lock()
	tenants := slices.Collect(maps.Values(e.tenants))
	e.mu.Unlock()
	for _, t := range tenants {
		t.mu.Lock()
		for _, l := range t.lanes {
			l.entries(func(n *entry) {
				if n.event != nil && (t.id == id && n.seq == seq || n.event.Origin == gone) {
					e.unpin(n)
				}
			})
		}
		t.mu.Unlock()
	}
}

// Unheard tells that erasures by other nodes may not have been told. It does not block.
func (e *Engine) Unheard() { e.erasures.unheard(time.Now()) }

// erasures are those of the last moments.
type erasures struct {
	mu    sync.Mutex
	at    map[eventhose.Origin]time.Time
	order []eventhose.Origin // oldest first
	doubt time.Time          // until then there may be others
}

func (x *erasures) add(gone eventhose.Origin, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := 0
	for old < len(x.order) && now.Sub(x.at[x.order[old]]) > erasedFor {
		delete(x.at, x.order[old])
		old++
	}
	x.order = x.order[old:]
	switch _, is := x.at[gone]; {
	case is: // it was erased for good the first time
		return
	case len(x.order) == maxErased:
		x.doubt = now.Add(erasedFor)
		return
	case x.at == nil:
		x.at = map[eventhose.Origin]time.Time{}
	}
	x.at[gone] = now
	x.order = append(x.order, gone)
}

func (x *erasures) unheard(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if until := now.Add(doubtFor); until.After(x.doubt) {
		x.doubt = until
	}
}

// spare reports whether an event that is in memory since a time is as it was.
func (x *erasures) spare(ev *eventhose.Event, since, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	limit := maxPinAge
	if now.Before(x.doubt) {
		limit = doubtAge
	}
	if now.Sub(since) > limit {
		return false
	}
	if len(x.at) == 0 {
		return true
	}
	_, own := x.at[eventhose.Origin{Tenant: ev.Tenant, Sequence: ev.Sequence}]
	_, first := x.at[ev.Origin]
	return !own && !first
}
