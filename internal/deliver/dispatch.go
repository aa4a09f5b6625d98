package deliver

import (
	"container/heap"
	"time"

	"github.com/eventhose/eventhose"
)

// job is one attempt to be made.
type job struct {
	lane *lane
	kind eventhose.AttemptKind
	// One of these says where the event came from: the window, a key that is catching up (its first pending entry), the
	// retrying events, or a replay.
	entry  *entry
	key    *blockedKey
	parked *parked
	replay *replay

	event     *eventhose.Event // nil if it is to be read
	seq, prev eventhose.Sequence
	number    int
	sub       *subscription
	suspect   bool // takes a slot of the budget for retries and failing lanes
}

// takeSuspect takes one of the slots for retries and for lanes that fail, or has the lane wait for one.
func (e *Engine) takeSuspect(l *lane) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.suspect < e.maxSuspects() {
		e.suspect++
		return true
	}
	if !l.isWaiting {
		l.isWaiting = true
		e.waiting = append(e.waiting, l)
	}
	return false
}

func (e *Engine) maxSuspects() int { return max(1, e.opts.MaxInFlight/2) }

// pick takes the next attempt of the tenant's lanes by turns, and reports whether others are ready.
func (t *tenant) pick() (*job, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for len(t.ready) > 0 {
		l := t.ready[0]
		t.ready = t.ready[1:]
		l.isReady = false
		j := l.choose(now)
		if j == nil {
			l.leaveIfIdle()
			continue
		}
		if j.suspect = l.circuit.run > 0 || j.parked != nil; j.suspect && !t.engine.takeSuspect(l) {
			continue
		}
		l.begin(j)
		if l.maySend(now) {
			l.isReady = true
			t.ready = append(t.ready, l)
		}
		return j, len(t.ready) > 0
	}
	return nil, false
}

func (l *lane) maySend(now time.Time) bool { return l.choose(now) != nil }

// choose answers the attempt that the lane would make next, nil if none. It changes nothing.
func (l *lane) choose(now time.Time) *job {
	if !l.loaded || l.gone || !l.sub.active() || l.hold.After(now) || l.full() {
		return nil
	}
	strict := l.sub.Ordering == eventhose.OrderingStrict
	if l.circuit.open {
		if l.sending > 0 || l.circuit.nextProbe.After(now) {
			return nil
		}
		return l.probe(strict, now)
	}
	if strict && l.sending > 0 {
		return nil
	}
	if len(l.retries) > 0 && !l.retries[0].Due.After(now) {
		return l.retryJob(l.retries[0], eventhose.AttemptRetry)
	}
	if strict && len(l.blocking) > 0 || len(l.parked)+len(l.dead)+len(l.keys)+l.sending >= eventhose.MaxParked {
		return nil
	}
	for i := range 3 {
		if j := l.source((l.turn+i)%3, eventhose.AttemptFirst, now); j != nil {
			return j
		}
	}
	return nil
}

// full reports whether the lane has as many requests under way as it may, or as many again whose outcome is not durable
// yet: a crash repeats all of these.
func (l *lane) full() bool {
	allowed := l.pace.allowed(l.sub.MaxInFlight)
	return l.sending >= allowed || l.unsettled >= 2*allowed
}

// probe chooses what is sent while the circuit is open: in turns what has waited longest, and what was not tried yet,
// since what was may be refused for its own sake.
func (l *lane) probe(strict bool, now time.Time) *job {
	var retry *job
	if len(l.retries) > 0 {
		retry = l.retryJob(l.retries[0], eventhose.AttemptProbe)
	}
	if strict && len(l.blocking) > 0 || retry != nil && l.circuit.probes%2 == 0 {
		return retry
	}
	for i := range 3 {
		if j := l.source(i, eventhose.AttemptProbe, now); j != nil {
			return j
		}
	}
	return retry
}

// source answers the next of one kind of events that were not tried before: keys that catch up, live ones, replays.
func (l *lane) source(i int, kind eventhose.AttemptKind, now time.Time) *job {
	switch i {
	case 0:
		for _, k := range l.released {
			if !k.sending && len(k.pending) > 0 && !l.early(k.pending[0], now) {
				j := l.entryJob(k.pending[0], kind)
				j.entry, j.key = nil, k
				return j
			}
		}
	case 1:
		if len(l.ready) > 0 && !l.early(l.ready[0], now) {
			return l.entryJob(l.ready[0], kind)
		}
	case 2:
		for _, r := range l.replays {
			if n := r.next(l.sub.Ordering); n != nil {
				j := l.entryJob(n, kind)
				if j.replay = r; kind == eventhose.AttemptFirst {
					j.kind = eventhose.AttemptReplay
				}
				return j
			}
		}
	}
	return nil
}

func (l *lane) entryJob(n *entry, kind eventhose.AttemptKind) *job {
	if n.tries > 0 && kind == eventhose.AttemptFirst {
		kind = eventhose.AttemptRetry
	}
	event := n.event
	if event != nil && time.Since(n.pinned) > maxPinAge {
		event = nil
	}
	return &job{lane: l, kind: kind, entry: n, event: event, seq: n.seq, prev: n.prev, number: n.tries + 1, sub: l.sub}
}

func (l *lane) retryJob(p *parked, kind eventhose.AttemptKind) *job {
	switch {
	case kind == eventhose.AttemptProbe:
	case p.Redriven:
		kind = eventhose.AttemptRedrive
	case p.Tries == 0:
		kind = eventhose.AttemptFirst
	}
	return &job{lane: l, kind: kind, parked: p, seq: p.Sequence, prev: p.Previous, number: p.Tries + 1, sub: l.sub}
}

// begin takes the chosen attempt out of where it waits.
func (l *lane) begin(j *job) {
	switch {
	case j.parked != nil:
		heap.Remove(&l.retries, j.parked.index)
		j.parked.sending = true
	case j.key != nil:
		j.key.sending = true
		l.turn = 1
	case j.replay != nil:
		j.entry.sending = true
		l.turn = 0
	default:
		l.ready = l.ready[1:]
		j.entry.sending = true
		l.turn = 2
	}
	l.sending++
	l.unsettled++
}
