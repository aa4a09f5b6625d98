package deliver

import (
	"time"

	"github.com/eventhose/eventhose"
)

// Evaluated counts the filters that matching has looked at for a tenant.
func (e *Engine) Evaluated(id eventhose.TenantID) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tenant(id).index.Evaluated()
}

// Held are the shards that the engine holds and is not about to give.
func (e *Engine) Held() (held []uint8) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.leases.held {
		if m != nil && m.sends(time.Now()) {
			held = append(held, m.shard)
		}
	}
	return held
}

// InMemory counts a tenant's lanes in memory.
func (e *Engine) InMemory(id eventhose.TenantID) int {
	e.mu.Lock()
	t := e.tenant(id)
	e.mu.Unlock()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.lanes)
}

// Pinned is how many bytes of events lanes hold in memory.
func (e *Engine) Pinned() int64 { return e.pinned.Load() }

// Slots counts the slots that are taken, those of retries and failing lanes among them, and the lanes that wait for one.
func (e *Engine) Slots() (taken, suspect, waiting int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inFlight, e.suspect, len(e.waiting)
}

// Resident answers how many tenants are in memory, and the subscriptions that the engine counts for them.
func (e *Engine) Resident() (tenants, subscriptions int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.tenants), e.resident
}

// Gone answers what who waits for a change of a lane is told, if the lane leaves before the committer comes to it: with its tenant,
// whose term is over, or because its subscription was deleted.
func (e *Engine) Gone(id eventhose.TenantID, sub eventhose.SubscriptionID, deleted bool) error {
	t := e.lock(id)
	l := t.lanes[sub]
	told := make(chan error, 1)
	l.changes.waiters = append(l.changes.waiters, told)
	l.change()
	if deleted {
		l.drop()
	} else {
		t.abandon()
	}
	t.mu.Unlock()
	return <-told
}
