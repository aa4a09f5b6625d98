package deliver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// maxCommit is how many lanes one commit holds.
	maxCommit = 2000
	// lazyCommit is how long a matching position that concerns no lane may stay uncommitted: a crash matches so much again.
	lazyCommit = time.Second
	// commitEvery is how long after the beginning of a commit the next one begins at the earliest, so that what is settled in
	// the meantime shares it. Deliveries do not wait for that: a lane may have as much unrecorded as it has under way. Workers' pulls
	// and answers do. A store that is slow is left alone for three times as long as it has taken, up to commitRest: it has appends to
	// take, of other nodes too.
	commitEvery = 5 * time.Millisecond
	commitRest  = 20 * time.Millisecond
	// maxSpare is how much room for attempts a lane keeps from one commit for the next.
	maxSpare = 256
)

// queueCommit wakes the committer for a tenant with changed lanes. The tenant's mutex may be held.
func (e *Engine) queueCommit(t *tenant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !t.isChanged {
		t.isChanged = true
		e.changed = append(e.changed, t)
		e.wakeCommit()
	}
}

// changedLazily has the tenant's matching position committed before long.
func (e *Engine) changedLazily(t *tenant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.isLazy || t.isChanged || e.stopping {
		return
	}
	t.isLazy = true
	if e.lazy = append(e.lazy, t); len(e.lazy) == 1 {
		e.lazyTimer = time.AfterFunc(lazyCommit, e.commitLazy)
	}
}

func (e *Engine) commitLazy() {
	e.mu.Lock()
	tenants := e.lazy
	e.lazy = nil
	for _, t := range tenants {
		t.isLazy = false
	}
	e.mu.Unlock()
	for _, t := range tenants {
		t.mu.Lock()
		for l := range t.unwritten {
			if l.loaded {
				l.change()
			}
		}
		e.queueCommit(t)
		t.mu.Unlock()
	}
}

func (e *Engine) wakeCommit() {
	select {
	case e.commitC <- struct{}{}:
	default:
	}
}

// commitLoop writes what has changed, one commit after another, until commitEnd is closed and nothing is left, or a commit is
// given up: what comes after it would be written beyond what it held.
func (e *Engine) commitLoop() {
	defer close(e.committed)
	timer := time.NewTimer(commitEvery)
	defer timer.Stop()
	for {
		began := time.Now()
		more, err := e.commit()
		if err != nil {
			return
		}
		took := time.Since(began)
		timer.Reset(max(commitEvery-took, min(3*took, commitRest)))
		select {
		case <-timer.C:
		case <-e.commitEnd:
		}
		if more {
			continue
		}
		select {
		case <-e.commitC:
		case <-e.commitEnd:
			e.commitLazy()
			for more = true; more && err == nil; {
				more, err = e.commit()
			}
			return
		}
	}
}

// committed is what one lane has in a commit.
type committed struct {
	lane  *lane
	taken changes
	gone  bool // the lane had left: nothing of it is written
}

// commit writes one group and reports whether there was one. With an error it was given up, and nothing may be written any more:
// all that it held stays as it is, so that nothing of it leaves memory and its slots are not free for more that is not recorded.
func (e *Engine) commit() (bool, error) {
	e.mu.Lock()
	tenants := e.changed
	e.changed = nil
	for _, t := range tenants {
		t.isChanged, t.inCommit = false, true
	}
	e.mu.Unlock()
	if len(tenants) == 0 {
		return false, nil
	}
	var p progress
	var lanes []committed
	for i, t := range tenants {
		lanes = t.collect(&p, lanes)
		if len(lanes) >= maxCommit {
			for _, t := range tenants[i+1:] {
				e.queueCommit(t)
			}
			break
		}
	}
	failed := e.write(p, p.terms())
	for _, err := range failed {
		if !errors.Is(err, errElsewhere) {
			return false, err
		}
	}
	e.giveBack(lanes)
	for _, c := range lanes {
		c.lane.committed(c, failed[c.lane.tenant.term])
	}
	e.mu.Lock()
	for _, t := range tenants {
		e.ended(t)
		e.rest(t)
	}
	e.mu.Unlock()
	for _, t := range tenants {
		e.depart(t)
	}
	return true, nil
}

// collect adds the tenant's changed lanes and its matching position to a commit.
func (t *tenant) collect(p *progress, lanes []committed) []committed {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.changed {
		l.isChanged, l.committing = false, true
		c := committed{lane: l, taken: l.changes, gone: l.gone}
		l.changes = changes{attempts: l.spare}
		l.spare = nil
		if !l.gone && l.loaded {
			row := l.row()
			if row.Due.IsZero() && l.trying > 0 {
				row.Due = time.Now().UTC() // a crash must not leave what is being retried with nobody to go on with it
			}
			// Said now and not when the commit is durable: what is matched meanwhile is committed after it.
			l.writtenBehind = row.Behind
			delete(t.unwritten, l)
			p.Lanes = append(p.Lanes, c.taken.laneChange(row))
			if t.term != nil {
				p.lanesOf = append(p.lanesOf, t.term)
			}
		}
		lanes = append(lanes, c)
	}
	t.changed = nil
	if t.evicted {
		return lanes
	}
	matched := t.matched
	for l := range t.unwritten {
		switch {
		case len(l.window) > 0:
			matched = min(matched, l.window[0].seq-1)
		case !l.tailing:
			matched = min(matched, l.examined)
		}
	}
	if matched > t.committed {
		t.committed = matched
		p.Matched = append(p.Matched, store.Tail{Tenant: t.id, Matched: matched})
		if t.term != nil {
			p.matchedOf = append(p.matchedOf, t.term)
		}
	}
	if matched < t.matched {
		t.engine.changedLazily(t)
	}
	return lanes
}

func (c *changes) laneChange(row store.Lane) store.LaneChange {
	change := store.LaneChange{Lane: row, Attempts: c.attempts}
	for _, p := range c.park {
		change.Park = append(change.Park, p)
	}
	slices.SortFunc(change.Park, func(a, b store.Parked) int { return int(a.Sequence) - int(b.Sequence) })
	for s := range c.unpark {
		change.Unpark = append(change.Unpark, s)
	}
	for _, k := range c.block {
		change.Block = append(change.Block, k.BlockedKey)
	}
	for k := range c.unblock {
		change.Unblock = append(change.Unblock, k)
	}
	return change
}

// giveBack frees the slots of attempts whose outcome is recorded.
func (e *Engine) giveBack(lanes []committed) {
	e.mu.Lock()
	for _, c := range lanes {
		e.inFlight -= c.taken.slots
		e.suspect -= c.taken.suspects
	}
	free := e.maxSuspects() - e.suspect
	e.wakeAttempter()
	e.mu.Unlock()
	// A lane that has nothing to send any more passes its turn on.
	for free > 0 {
		e.mu.Lock()
		if len(e.waiting) == 0 {
			e.mu.Unlock()
			return
		}
		l := e.waiting[0]
		e.waiting = e.waiting[1:]
		e.mu.Unlock()
		l.tenant.mu.Lock()
		l.isWaiting = false
		if l.update(); l.isReady {
			free--
		}
		l.tenant.mu.Unlock()
	}
}

// committed goes on with a lane whose changes are durable, or were not written because of err, which is errElsewhere.
func (l *lane) committed(c committed, err error) {
	t := l.tenant
	t.mu.Lock()
	defer t.mu.Unlock()
	l.committing = false
	if n := cap(c.taken.attempts); n > 0 && n <= maxSpare && err == nil {
		clear(c.taken.attempts)
		l.spare = c.taken.attempts[:0]
	}
	l.unsettled -= c.taken.slots
	switch {
	case c.gone && t.evicted:
		err = errElsewhere
	case c.gone:
		err = eventhose.NotFound("subscription")
	case err != nil:
		err = errLost
	}
	for _, w := range c.taken.waiters {
		w <- err
	}
	if l.gone {
		return
	}
	if !l.leaveIfIdle() {
		l.update()
	}
}

// commitAnd waits until the lane's present changes are durable. The tenant's mutex is held on entry and not on return.
func (l *lane) commitAnd(ctx context.Context) error {
	done := make(chan error, 1)
	l.changes.waiters = append(l.changes.waiters, done)
	l.change()
	l.update()
	l.tenant.mu.Unlock()
	var unknown error
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.tenant.left:
		unknown = errLost
	case <-l.tenant.engine.committed:
		unknown = &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "this node is stopping, and nobody knows whether this was recorded",
			Fix: "see whether it was done before you ask again", RetryAfter: time.Second}
	}
	select {
	case err := <-done:
		return err
	default:
		return unknown
	}
}
