package deliver

// How tenants change hands. One whose lease is gone leaves memory as it is: what came of the attempts under way is not
// recorded, and whoever has the shard now repeats them. One whose shard is to be given back begins nothing new, waits for
// what is under way, is committed, and leaves; then nothing is repeated.

import (
	"slices"
	"time"
)

// shed chooses shards to be given back, as many as are too many, those with the least under way first.
func (e *Engine) shed(surplus int) {
	e.mu.Lock()
	if e.stopping {
		surplus = 0 // all are given back before long
	}
	var stay []*term
	for _, m := range e.leases.held {
		switch {
		case m == nil:
		case m.leaving.Load():
			surplus--
		default:
			stay = append(stay, m)
		}
	}
	e.mu.Unlock()
	if surplus <= 0 {
		return
	}
	busy := map[*term]int{}
	for _, t := range e.tenantsOf(stay...) {
		t.mu.Lock()
		for _, l := range t.lanes {
			busy[t.term] += l.unsettled
		}
		t.mu.Unlock()
	}
	slices.SortStableFunc(stay, func(a, b *term) int { return busy[a] - busy[b] })
	leave := stay[:min(surplus, len(stay))]
	e.mu.Lock()
	for _, m := range leave {
		m.leaveBy = m.began.Add(time.Duration(m.until.Load()))
		m.leaving.Store(true)
	}
	e.mu.Unlock()
	for _, t := range e.tenantsOf(leave...) {
		t.leave()
	}
}

// tenantsOf are the tenants in memory that belong to some terms.
func (e *Engine) tenantsOf(terms ...*term) []*tenant {
	e.mu.Lock()
	defer e.mu.Unlock()
	there := 0
	for _, m := range terms {
		there += m.resident
	}
	if there == 0 {
		return nil
	}
	of := map[*term]bool{}
	for _, m := range terms {
		of[m] = true
	}
	tenants := make([]*tenant, 0, there)
	for _, t := range e.tenants {
		if of[t.term] {
			tenants = append(tenants, t)
		}
	}
	return tenants
}

// leave has all that the tenant knows committed, and lets it go as soon as that is done and nothing is under way.
func (t *tenant) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.evicted {
		return
	}
	for l := range t.unwritten {
		if l.loaded {
			l.change()
		}
	}
	for id := range t.wants {
		t.tellWants(id)
	}
	t.engine.queueCommit(t) // departs when it is done
}

// depart lets a tenant go that is to leave, if nothing of it is under way or uncommitted.
func (e *Engine) depart(t *tenant) {
	if t.term == nil || !t.term.leaving.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e.mu.Lock()
	busy := t.readState == running || t.readState == again || t.isChanged || t.inCommit || len(t.changed) > 0
	e.mu.Unlock()
	for _, l := range t.lanes {
		busy = busy || l.unsettled > 0
	}
	if !busy {
		t.abandon()
	}
}

// left answers the terms that are to be given back now: nothing of them is in memory, or their time is over.
func (e *Engine) left() []*term {
	var left, late []*term
	now := time.Now()
	e.mu.Lock()
	for _, m := range e.leases.held {
		switch {
		case m == nil || !m.leaving.Load():
		case m.resident == 0:
			left = append(left, m)
		case !now.Before(m.leaveBy):
			late = append(late, m)
		}
	}
	e.mu.Unlock()
	for _, t := range e.tenantsOf(late...) {
		t.mu.Lock()
		t.abandon()
		t.mu.Unlock()
	}
	return append(left, late...)
}

// nextClaim is how long the next claim has time.
func (e *Engine) nextClaim() time.Duration {
	next := e.opts.LeaseTTL / 3
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.leases.held {
		switch {
		case m == nil || !m.leaving.Load():
		case m.resident == 0:
			return 0
		default:
			next = min(next, max(0, m.leaveBy.Sub(now)))
		}
	}
	return next
}

// abandon ends terms: their tenants leave memory as they are.
func (e *Engine) abandon(terms ...*term) {
	if len(terms) == 0 {
		return
	}
	e.mu.Lock()
	for _, m := range terms {
		m.over.Store(true)
		if e.leases.held[m.shard] == m {
			e.leases.held[m.shard] = nil
		}
	}
	e.mu.Unlock()
	for _, t := range e.tenantsOf(terms...) {
		t.mu.Lock()
		t.abandon()
		t.mu.Unlock()
	}
}

// abandon takes the tenant out of memory. Attempts that are under way end without effect, and give their slots back; nobody
// waits any longer for what was to be recorded. t.mu is held.
func (t *tenant) abandon() {
	if t.evicted {
		return
	}
	for _, l := range t.lanes {
		l.drop()
	}
	close(t.left)
	t.reads, t.changes, t.lookAgain = nil, nil, false
	e := t.engine
	e.mu.Lock()
	e.remove(t)
	e.mu.Unlock()
	for id := range t.wants {
		t.tellWants(id)
	}
}

// remove takes a tenant out of the engine's books. Both mutexes are held.
func (e *Engine) remove(t *tenant) {
	t.evicted = true
	if e.tenants[t.id] == t {
		delete(e.tenants, t.id)
	}
	e.resident -= t.resident
	t.resident = 0
	if t.term == nil {
		return
	}
	if t.inCommit {
		e.leases.ending[t.id] = t
	}
	if t.term.resident--; t.term.resident == 0 && t.term.leaving.Load() {
		signal(e.leases.now)
	}
}

// ended notes that a commit with something of a tenant is over. A successor in memory has waited for that: what the commit
// wrote, it must have read. e.mu is held.
func (e *Engine) ended(t *tenant) {
	if t.inCommit = false; t.term == nil {
		return
	}
	if e.leases.ending[t.id] == t {
		delete(e.leases.ending, t.id)
		if next := e.tenants[t.id]; next != nil {
			e.queueRead(next)
		}
	}
}
