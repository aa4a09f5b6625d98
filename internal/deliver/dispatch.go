package deliver

import (
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
)

// job is one attempt to be made.
type job struct {
	lane *lane
	kind eventhose.AttemptKind
	// items are the events, by sequence: one[:], or those of a batch.
	items []item
	one   [1]item
	// All events come from one source: live ones, keys that are catching up, this replay, or the retrying events.
	from    int
	replay  *replay
	sub     *subscription
	suspect bool // takes a slot of the budget for retries and failing lanes

	batch sink.Batch // what is sent
	send1 [1]sink.Item
}

// The sources of events that were not tried before, in the order of their turns.
const (
	fromKeys = iota
	fromLive
	fromReplays
)

// item is one event of a job. parked or entry says where it waits; with key, entry is one of that key's pending ones.
type item struct {
	entry     *entry
	key       *blockedKey
	parked    *parked
	event     *eventhose.Event // nil if it is to be read
	seq, prev eventhose.Sequence
	verdict   verdict
	blocks    bool // it was parked and holds its key
}

// verdict says what is to become of an event when its job has ended.
type verdict uint8

const (
	sent    verdict = iota // it shares the outcome of the request
	refused                // it was sent, and the receiver took others and not this one
	nothing                // it is erased, or gone with retention: nothing was sent for it
	kept                   // it was not sent, and waits again where it was
)

// provenFor is how long a lane is taken to be well after something of it was taken. Until then it shares the slots of those that
// fail: a thousand destinations that never answer must not hold all slots before it is known of them.
const provenFor = time.Minute

// takeSuspect takes one of the slots for retries and for lanes that fail or are not proven, or has the lane wait for one.
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
	for t.ready.len() > 0 {
		l := t.ready.pop()
		if l.deficit <= 0 {
			l.deficit += quantum
			t.ready.push(l)
			continue
		}
		l.isReady = false
		chosen := l.choose(now)
		if chosen == nil {
			l.leaveIfIdle()
			continue
		}
		j := new(job)
		*j = *chosen
		j.items = j.one[:]
		if j.suspect = l.circuit.run > 0 || j.items[0].parked != nil || !l.proven(now); j.suspect && !t.engine.takeSuspect(l) {
			continue
		}
		l.fill(j, now)
		l.begin(j)
		l.deficit -= j.cost()
		switch l.isReady = l.maySend(now); {
		case !l.isReady:
			l.deficit = min(l.deficit, 0) // nothing is saved up while there is nothing to do
		case l.deficit > 0:
			t.ready.again(l)
		default:
			t.ready.push(l)
		}
		return j, t.ready.len() > 0
	}
	return nil, false
}

func (l *lane) maySend(now time.Time) bool { return l.choose(now) != nil }

// choose answers the attempt that the lane would make next, nil if none. It changes nothing. What it answers is the tenant's and
// good until the next call: most times it is only asked whether there is one.
func (l *lane) choose(now time.Time) *job {
	if l.sub.Pull() || !l.delivers(now) || l.held().After(now) || l.full() {
		return nil
	}
	strict := l.ordering == eventhose.OrderingStrict
	if l.circuit.open {
		if l.sending > 0 || l.circuit.nextProbe.After(now) {
			return nil
		}
		return l.probe(strict, now)
	}
	return l.following(now)
}

// delivers reports whether anything of the lane may be handed over at all.
func (l *lane) delivers(now time.Time) bool {
	return l.loaded && !l.gone && l.sub.active() && l.ordering == l.sub.Ordering && l.tenant.term.sends(now)
}

// following answers what comes next, whoever it is for: what is tried again first, then by turns what was not tried before.
func (l *lane) following(now time.Time) *job {
	strict := l.ordering == eventhose.OrderingStrict
	if strict && l.sending > 0 {
		return nil
	}
	if len(l.retries) > 0 && !l.retries[0].Due.After(now) {
		return l.retryJob(l.retries[0], eventhose.AttemptRetry)
	}
	if strict && len(l.blocking) > 0 {
		return nil
	}
	for i := range 3 {
		from := (l.turn + i) % 3
		if l.mayPark(from) <= 0 {
			continue
		}
		if j := l.source(from, eventhose.AttemptFirst, now); j != nil {
			return j
		}
	}
	return nil
}

// unrecorded is how many requests of a lane may be under way or answered and not recorded yet, as a multiple of how many may be
// under way. A crash repeats all of these; but with fewer a fast destination would wait for our disk.
const unrecorded = 8

// full reports whether the lane has as many requests under way or unrecorded as it may.
func (l *lane) full() bool {
	allowed := l.pace.allowed(l.sub.MaxInFlight)
	return l.sending >= allowed || l.unsettled >= unrecorded*allowed
}

// mayPark is how many more events of a source may be under way: each may come to be parked, and a live one to block a key as
// well. A key that catches up is counted already, and that it goes on is what makes room: at the bound there may be nothing but
// such keys, as when workers pull a backlog with several events of each key.
func (l *lane) mayPark(from int) int {
	aside := len(l.parked) + len(l.dead) + l.under
	if from != fromKeys && l.ordering == eventhose.OrderingKey {
		aside += len(l.keys)
	}
	return eventhose.MaxParked - aside
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
	if (i == fromLive || i == fromKeys) && !l.batchDue(i, now) {
		return nil
	}
	switch i {
	case fromKeys:
		if k := l.nextKey(now); k != nil {
			j := l.entryJob(k.pending[0], i, kind)
			j.items[0].key = k
			return j
		}
	case fromLive:
		if len(l.ready) > 0 && l.ready[0].seq < l.before(fromLive) && !l.early(l.ready[0], now) {
			return l.entryJob(l.ready[0], i, kind)
		}
	case fromReplays:
		for _, r := range l.replays {
			if n := r.next(l.ordering); n != nil {
				j := l.entryJob(n, i, kind)
				if j.replay = r; kind == eventhose.AttemptFirst {
					j.kind = eventhose.AttemptReplay
				}
				return j
			}
		}
	}
	return nil
}

func (l *lane) entryJob(n *entry, from int, kind eventhose.AttemptKind) *job {
	if n.tries > 0 && kind == eventhose.AttemptFirst {
		kind = eventhose.AttemptRetry
	}
	j := &l.tenant.chosen
	*j = job{lane: l, kind: kind, from: from, sub: l.sub}
	j.one[0] = l.tenant.engine.entryItem(n)
	j.items = j.one[:]
	return j
}

func (e *Engine) entryItem(n *entry) item {
	return item{entry: n, event: e.pinnedEvent(n), seq: n.seq, prev: n.prev}
}

func (l *lane) retryJob(p *parked, kind eventhose.AttemptKind) *job {
	switch {
	case kind == eventhose.AttemptProbe:
	case p.Redriven:
		kind = eventhose.AttemptRedrive
	case p.Tries+p.Attempts == 0:
		kind = eventhose.AttemptFirst
	}
	j := &l.tenant.chosen
	*j = job{lane: l, kind: kind, sub: l.sub}
	j.one[0] = parkedItem(p)
	j.items = j.one[:]
	return j
}

func parkedItem(p *parked) item { return item{parked: p, seq: p.Sequence, prev: p.Previous} }

// begin takes the chosen attempt out of where it waits.
func (l *lane) begin(j *job) {
	for i := range j.items {
		switch it := &j.items[i]; {
		case it.parked != nil:
			l.takeDown(it.parked)
			it.parked.sending = true
			l.trying++
		case it.key != nil:
			it.key.under++
		default:
			it.entry.sending = true
		}
	}
	if j.items[0].parked == nil {
		l.turn = (j.from + 1) % 3
		if j.from == fromLive {
			l.takeReady(j)
		}
	}
	l.sending++
	l.under += len(j.items)
	l.unsettled++
	l.spend(len(j.items))
}
