package deliver

// A tenant in memory holds all of its subscriptions, a kilobyte or two each, so that matching need not look for them. There
// may be a million subscriptions and few that have anything to do, so a tenant that has had nothing to do for a while
// leaves, and sooner when too many are here. What it knew is in the store, and is read again when its log grows.

import (
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// residentFor is how long a tenant stays that has nothing to do.
	residentFor = time.Minute
	// maxResident is how many subscriptions there may be in memory before tenants that have nothing to do leave at once.
	maxResident = 50_000
)

// rest notes that a tenant may have nothing left to do. e.mu is held.
func (e *Engine) rest(t *tenant) {
	t.rested = time.Now()
	if t.isResting || t.evicted || e.stopping {
		return
	}
	t.isResting = true
	e.resting = append(e.resting, t)
	if e.restTimer == nil {
		e.restTimer = time.AfterFunc(residentFor, e.evict)
	}
}

// evict lets tenants leave whose time is over, those that have rested longest first.
func (e *Engine) evict() {
	for {
		e.mu.Lock()
		if e.restTimer != nil {
			e.restTimer.Stop()
			e.restTimer = nil
		}
		if len(e.resting) == 0 || e.stopping {
			e.mu.Unlock()
			return
		}
		t := e.resting[0]
		if left := residentFor - time.Since(t.rested); left > 0 && (e.resident <= maxResident || left > residentFor-time.Second) {
			if e.resident > maxResident {
				left -= residentFor - time.Second
			}
			e.restTimer = time.AfterFunc(left, e.evict)
			e.mu.Unlock()
			return
		}
		e.resting[0] = nil
		e.resting = e.resting[1:]
		t.isResting = false
		e.mu.Unlock()

		t.mu.Lock()
		e.mu.Lock()
		if !t.evicted && t.restful() {
			e.remove(t)
		}
		e.mu.Unlock()
		t.mu.Unlock()
	}
}

// restful reports whether a tenant has nothing to do, and nothing that is not in the store. Both mutexes are held.
func (t *tenant) restful() bool {
	busy := t.readState != idle || t.isReady || t.isChanged || t.isLazy || t.inCommit || t.lookAgain
	return !busy && len(t.lanes)+len(t.changes)+len(t.reads)+t.ready.len()+len(t.changed)+len(t.unwritten)+len(t.wants) == 0 && t.matched == t.committed
}

// lock answers a tenant with its mutex held, made if need be; nil if another node delivers for it.
func (e *Engine) lock(id eventhose.TenantID) *tenant {
	for {
		e.mu.Lock()
		t := e.tenant(id)
		e.mu.Unlock()
		if t == nil {
			return nil
		}
		t.mu.Lock()
		if !t.evicted {
			return t
		}
		t.mu.Unlock() // it has left in between
	}
}
