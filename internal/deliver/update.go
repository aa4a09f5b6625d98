package deliver

import (
	"time"

	"github.com/eventhose/eventhose"
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
	now := time.Now()
	if !l.hold.After(now) {
		l.hold = time.Time{}
	}
	if l.wantsScan() || l.wantsSweep() || l.wantsReplayRead() {
		l.needRead()
	}
	if l.sub.active() {
		due := l.nextDue()
		if l.hold.After(now) {
			due = l.hold
		}
		if !due.After(now) {
			due = time.Time{} // it is now, and whatever stands in the way calls update when it is gone
		}
		l.tenant.engine.timer.set(l, due)
	} else {
		l.tenant.engine.timer.set(l, time.Time{})
	}
	if l.maySend(now) {
		l.makeReady()
	}
}

// wantsScan reports whether the lane is behind and has room to look further.
func (l *lane) wantsScan() bool {
	return l.loaded && !l.gone && !l.tailing && l.sub.active() && len(l.window) <= windowSize/2
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
	t.ready = append(t.ready, l)
	e := t.engine
	e.mu.Lock()
	if !t.isReady {
		t.isReady = true
		e.ready = append(e.ready, t)
		e.canSend.Signal()
	}
	e.mu.Unlock()
}

// drop forgets a deleted lane; attempts that are under way end without effect.
func (l *lane) drop() {
	l.gone = true
	t := l.tenant
	delete(t.lanes, l.id)
	t.engine.timer.set(l, time.Time{})
	for _, n := range l.window {
		t.engine.unpin(n)
	}
	delete(t.unwritten, l)
	l.change() // so that its slots come back
}

// due wakes lanes whose time has come.
func (e *Engine) due(lanes []*lane) {
	for _, l := range lanes {
		l.tenant.mu.Lock()
		l.update()
		l.tenant.mu.Unlock()
	}
}

// maxPinned bounds the data of events that windows hold in memory; others are read again when they are sent. Each
// counts at least minPinned, since it may hold on to a page.
const (
	maxPinned = 64 << 20
	minPinned = 4 << 10
)

// pin answers the event if there is room to hold it, else nil.
func (e *Engine) pin(ev *eventhose.Event) *eventhose.Event {
	size := int64(max(len(ev.Data), minPinned))
	if e.pinned.Add(size) > maxPinned {
		e.pinned.Add(-size)
		return nil
	}
	return ev
}

func (e *Engine) unpin(n *entry) {
	if n.event != nil {
		e.pinned.Add(-int64(max(len(n.event.Data), minPinned)))
		n.event = nil
	}
}
