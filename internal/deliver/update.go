package deliver

import (
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// change notes that the lane's row, or what hangs on it, is to be committed. The tenant's mutex is held.
func (l *lane) change() {
	if l.isChanged {
		return
	}
	l.isChanged = true
	l.tenant.changed = append(l.tenant.changed, l)
	l.tenant.engine.queueCommit(l.tenant)
}

// update sees to it that whatever the lane can do next is done: reading, sending, waking. The tenant's mutex is held.
func (l *lane) update() {
	if l.gone || !l.loaded {
		return
	}
	if l.ordering != l.sub.Ordering && l.sending == 0 {
		l.reorder()
	}
	now := time.Now()
	l.expire(now)
	l.order()
	if !l.hold.After(now) {
		l.hold = time.Time{}
	}
	if l.wantsScan() || l.wantsSweep() || l.wantsReplayRead() {
		l.needRead()
	}
	switch {
	case l.sub.Pull():
		l.wakeAt(l.nextChange(now))
		if l.offer(now) != nil {
			l.tenant.engine.pulls.tell(l.ref())
		}
		return
	case l.sub.active():
		due := l.nextDue()
		if held := l.held(); held.After(now) {
			due = held
		}
		if !due.After(now) {
			due = time.Time{} // it is now, and whatever stands in the way calls update when it is gone
		}
		l.wakeAt(due)
	default:
		l.wakeAt(time.Time{})
	}
	if l.maySend(now) {
		l.makeReady()
	}
}

// wakeAt has the lane updated at a time, and not at the one that was set before; zero means never.
func (l *lane) wakeAt(at time.Time) {
	if !l.wake.Equal(at) {
		l.wake = at
		l.tenant.engine.timer.set(l, at)
	}
}

// wantsScan reports whether the lane is behind and has room to look further.
func (l *lane) wantsScan() bool {
	return l.loaded && !l.gone && !l.tailing && l.sub.active() && (len(l.window) == 0 || len(l.window)+len(l.settled) <= l.windowLimit()/2)
}

func (l *lane) needRead() {
	if l.toRead || l.gone {
		return
	}
	l.toRead = true
	t := l.tenant
	t.reads = append(t.reads, l)
	t.engine.mu.Lock()
	t.engine.queueRead(t)
	t.engine.mu.Unlock()
}

func (l *lane) makeReady() {
	if l.isReady || l.isWaiting {
		return
	}
	l.isReady = true
	t := l.tenant
	t.ready.push(l)
	e := t.engine
	e.mu.Lock()
	if !t.isReady {
		t.isReady = true
		e.ready.push(t)
		e.wakeAttempter()
	}
	e.mu.Unlock()
}

// drop forgets a lane that was deleted, or is another node's; attempts that are under way end without effect.
func (l *lane) drop() {
	l.gone = true
	t := l.tenant
	delete(t.lanes, l.id)
	l.wakeAt(time.Time{})
	l.entries(t.engine.unpin)
	delete(t.unwritten, l)
	l.change() // so that its slots come back
}

// due wakes lanes whose time has come, and lets go of those that only a rate has kept in memory.
func (e *Engine) due(lanes []*lane) {
	for _, l := range lanes {
		t := l.tenant
		t.mu.Lock()
		l.wake = time.Time{}
		l.update()
		if l.leaveIfIdle() {
			e.mu.Lock()
			e.rest(t)
			e.mu.Unlock()
		}
		t.mu.Unlock()
	}
}

// Lost tells that parked events are gone, because retention has taken them and there was no room to keep them aside: what
// they held up goes on. It does not block for long.
func (e *Engine) Lost(id eventhose.TenantID, lost []store.LostParked) {
	e.mu.Lock()
	t := e.tenant(id)
	e.mu.Unlock()
	if t == nil {
		return
	}
	asleep := map[eventhose.SubscriptionID]bool{} // keys of theirs may be held by what is gone, with nothing to wake them
	t.mu.Lock()
	t.losses++
	for _, p := range lost {
		if l := t.lanes[p.Subscription]; l != nil && l.loaded {
			l.lose(p.Sequence)
		} else {
			asleep[p.Subscription] = true
		}
	}
	t.mu.Unlock()
	for sub := range asleep {
		e.Changed(id, sub)
	}
}

// lose forgets a parked event, unless it is being sent at this moment.
func (l *lane) lose(seq eventhose.Sequence) {
	switch p := l.parked[seq]; {
	case l.dead[seq]:
		delete(l.dead, seq)
	case p != nil && !p.sending:
		l.takeDown(p)
		delete(l.parked, seq)
	default:
		return
	}
	l.unparkRow(seq)
	l.unblock(seq)
	l.update()
}

// entries calls each for every entry in memory.
func (l *lane) entries(each func(*entry)) {
	for _, n := range l.window {
		each(n)
	}
	for _, k := range l.released {
		for _, n := range k.pending {
			each(n)
		}
	}
	for _, r := range l.replays {
		for _, n := range r.window {
			each(n)
		}
	}
}
