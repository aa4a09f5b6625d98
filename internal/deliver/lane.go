package deliver

import (
	"cmp"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

// windowSize is how many due events a lane looks at beyond its cursor.
const windowSize = 1024

// openWindow is the same while the circuit is open, and unprovenWindow while nothing was taken lately, or a batch twice: the
// backlog of a destination that takes nothing is the log, and a thousand of them must not cost memory.
const (
	openWindow     = 32
	unprovenWindow = 128
)

// subscription is what a lane needs of its subscription's present version.
type subscription struct {
	eventhose.Subscription
	filter *filter.Filter
}

func (s *subscription) active() bool { return s.State == eventhose.StateActive }

// lane is one subscription's delivery in memory. Everything in it is guarded by its tenant's mutex. A lane that has
// nothing to do is not in memory.
type lane struct {
	tenant *tenant
	id     eventhose.SubscriptionID
	sub    *subscription
	// ordering is what the lane goes by: its subscription's, once nothing is under way from before that was changed.
	ordering eventhose.Ordering
	// loaded says that the stored row, parked events and blocked keys are here. Before that only the window is filled.
	loaded bool

	began eventhose.Sequence // the lane is due nothing up to there

	// window holds the due events above the cursor, by sequence; its first is never done.
	window []*entry
	// examined is how far the log was looked at for this lane. A tailing lane has also seen all that its tenant has
	// matched, which after a crash, or when it was made, may be less.
	examined eventhose.Sequence
	tailing  bool
	lastDue  eventhose.Sequence // of all that was examined
	// settled are sequences above the cursor that were settled before the lane was loaded or rescanned, or while it reads
	// again from before them.
	settled map[eventhose.Sequence]bool

	ready  []*entry            // of the window, may be sent now
	behind map[string][]*entry // with OrderingKey: of the window, behind one of their key that is under way

	parked   map[eventhose.Sequence]*parked // retrying, or leased
	retries  retryHeap                      // those of them that may be tried when they are due
	leases   retryHeap                      // those of parked that workers have, by the end of their leases
	groups   map[groupKey]*group            // the last group that each key has
	dead     map[eventhose.Sequence]bool
	blocking map[eventhose.Sequence]string // parked events (retrying or dead) that hold their key or the lane
	// disordered are keys ("" is the lane, with strict order) whose parked events are to be put into order again.
	disordered map[string]bool
	keys       map[string]*blockedKey
	released   []*blockedKey // whose waiting events are being caught up
	sweep      sweep
	replays    []*replay
	lastRead   *replay // the one that a page was read for last
	turn       int

	sending   int // attempts under way
	under     int // their events
	trying    int // of those, parked ones
	unsettled int // attempts under way, or whose outcome is not durable yet
	circuit   circuit
	pace      pace
	hold      time.Time // what Retry-After asked for
	paced     time.Time // what the subscription's rate asks for
	wake      time.Time // when it is updated by itself, zero if it is not
	lastTaken time.Time

	writtenBehind bool // what the stored row says, or will say once the commit under way is durable
	changes       changes
	spare         []eventhose.Attempt // empty, for the next changes
	isReady       bool                // in the tenant's queue of ready lanes
	deficit       int                 // what is left of its turn
	isWaiting     bool                // in the engine's queue of suspects
	isChanged     bool                // in the tenant's list of changed lanes
	told          eventhose.Sequence  // the highest first sequence left that its owner was told of
	telling       chan struct{}       // closed when whoever tells at this moment is done, nil if nobody does
	committing    bool                // its changes are being written: what is stored is not what is here
	toRead        bool                // in the tenant's list of lanes to read for
	gone          bool                // the subscription was deleted
}

// entry is one due event on its way.
type entry struct {
	seq, prev eventhose.Sequence
	key       string
	size      int // of its data
	appended  time.Time
	event     *eventhose.Event // nil if it is to be read again
	pinned    time.Time        // when event was read
	tries     int              // not charged ones included
	sending   bool
	done      bool
}

// changes gathers what the next commit writes beside the lane's row.
type changes struct {
	park     map[eventhose.Sequence]store.Parked
	unpark   map[eventhose.Sequence]bool
	block    map[string]*blockedKey
	unblock  map[string]bool
	attempts []eventhose.Attempt
	slots    int // to give back when it is durable
	suspects int // of them
	waiters  []chan error
}

func newLane(t *tenant, sub *subscription) *lane {
	return &lane{tenant: t, id: sub.ID, sub: sub, parked: map[eventhose.Sequence]*parked{}, keys: map[string]*blockedKey{},
		behind: map[string][]*entry{}, blocking: map[eventhose.Sequence]string{}, dead: map[eventhose.Sequence]bool{}, settled: map[eventhose.Sequence]bool{}, pace: newPace()}
}

// room reports whether the window takes one more event. What is settled above it counts, since it is stored with it.
func (l *lane) room() bool {
	return len(l.window) == 0 || len(l.window)+len(l.settled) < l.windowLimit()
}

func (l *lane) windowLimit() int {
	switch {
	case l.circuit.open:
		return openWindow
	case !l.proven(time.Now()):
		return min(windowSize, max(unprovenWindow, 2*l.sub.Batch.MaxEvents))
	}
	return windowSize
}

// proven reports whether something was taken lately.
func (l *lane) proven(now time.Time) bool { return now.Sub(l.lastTaken) <= provenFor }

// push adds the next due event that was examined at its place in the window and routes it.
func (l *lane) push(e *eventhose.Event) {
	prev := l.lastDue
	l.lastDue = e.Sequence
	at := len(l.window)
	if at > 0 && l.window[at-1].seq >= e.Sequence {
		var found bool
		if at, found = slices.BinarySearchFunc(l.window, e.Sequence, func(w *entry, s eventhose.Sequence) int { return cmp.Compare(w.seq, s) }); found {
			return
		}
	}
	n := l.tenant.engine.pin(&entry{seq: e.Sequence, prev: prev, key: e.Key, appended: e.Appended}, e)
	l.window = slices.Insert(l.window, at, n)
	if l.loaded {
		l.route(n)
	}
}

// route says what becomes of a new entry of the window.
func (l *lane) route(n *entry) {
	if l.settled[n.seq] || l.parked[n.seq] != nil || l.dead[n.seq] {
		delete(l.settled, n.seq)
		l.finish(n)
		return
	}
	if n.key == "" || l.ordering == eventhose.OrderingStrict {
		l.ready = append(l.ready, n)
		return
	}
	if k := l.keys[n.key]; k != nil { // also one that is left from when the order was by key: its row stands for all that come
		l.wait(k, n)
		return
	}
	if l.ordering == eventhose.OrderingNone {
		l.ready = append(l.ready, n)
		return
	}
	queue, busy := l.behind[n.key]
	if busy {
		l.behind[n.key] = append(queue, n)
		return
	}
	l.behind[n.key] = nil
	l.ready = append(l.ready, n)
}

// finish takes an entry that is delivered or parked out of the window.
func (l *lane) finish(n *entry) {
	n.done = true
	l.tenant.engine.unpin(n)
	done := 0
	for done < len(l.window) && l.window[done].done {
		if seq := l.window[done].seq; seq > l.lastDue {
			l.settled[seq] = true // it will be read again
		}
		done++
	}
	if done > 0 {
		clear(l.window[:done])
		l.window = l.window[done:]
	}
}

// next lets the following event of a key go once a live one of it is settled, or with back puts that one back.
func (l *lane) next(n *entry, back bool) {
	key := n.key
	if back {
		l.ready = append([]*entry{n}, l.ready...)
		return
	}
	queue, busy := l.behind[key]
	if !busy {
		return
	}
	if len(queue) == 0 {
		delete(l.behind, key)
		return
	}
	l.behind[key] = queue[1:]
	l.ready = append(l.ready, queue[0])
}

// row is the lane as it is stored.
func (l *lane) row() store.Lane {
	r := store.Lane{LaneRef: store.LaneRef{Tenant: l.tenant.id, Subscription: l.id}, Began: l.began, Behind: l.unfinished(),
		Retrying: len(l.parked), Dead: len(l.dead), FailingSince: l.circuit.failingSince, Run: l.circuit.run, Open: l.circuit.open,
		Probes: l.circuit.probes, LastSuccess: l.lastTaken, Due: l.nextDue()}
	r.Cursor, r.Previous = l.position()
	for _, n := range l.window {
		if n.done {
			r.Settled = append(r.Settled, n.seq)
		}
	}
	for s := range l.settled {
		if s <= r.Cursor {
			delete(l.settled, s)
			continue
		}
		r.Settled = append(r.Settled, s)
	}
	slices.Sort(r.Settled)
	for _, k := range l.keys {
		r.Waiting += k.Count
	}
	for _, p := range l.replays {
		r.Replays = append(r.Replays, p.Replay)
	}
	return r
}

// position is the cursor, and the last due sequence up to it.
func (l *lane) position() (cursor, previous eventhose.Sequence) {
	cursor, previous = l.examinedTo(), l.lastDue
	if len(l.window) > 0 && l.window[0].seq <= cursor {
		return l.window[0].seq - 1, l.window[0].prev
	}
	return cursor, previous
}

// examinedTo is how far the log was looked at for this lane.
func (l *lane) examinedTo() eventhose.Sequence {
	if l.tailing {
		return max(l.examined, l.tenant.matched)
	}
	return l.examined
}

// unfinished reports whether there may be due events above the cursor, waiting events to catch up, or replays: whatever
// must be gone on with after a restart without a due time.
func (l *lane) unfinished() bool {
	return len(l.window) > 0 || !l.tailing || len(l.released) > 0 || len(l.replays) > 0
}

// idle reports whether the lane needs to be in memory no more.
func (l *lane) idle() bool {
	return l.loaded && !l.unfinished() && len(l.parked)+len(l.dead) == 0 && len(l.blocking) == 0 && len(l.keys) == 0 && l.unsettled == 0 && !l.isChanged && !l.committing &&
		!l.toRead && !l.isWaiting && !l.isReady && !l.circuit.open && l.hold.IsZero() && !l.paced.After(time.Now())
}

// leaveIfIdle takes the lane out of memory if it needs to be there no more, and reports whether it did.
func (l *lane) leaveIfIdle() bool {
	if l.tenant.lanes[l.id] != l || !l.idle() { // it may have left, and another have come, before it was woken
		return false
	}
	delete(l.tenant.lanes, l.id)
	delete(l.tenant.unwritten, l)
	l.wakeAt(time.Time{})
	return true
}

// nextDue is when the lane has something to do by itself, zero if never.
func (l *lane) nextDue() time.Time {
	var due time.Time
	if len(l.retries) > 0 {
		due = l.retries[0].Due
	}
	if l.sub.Pull() {
		if len(l.leases) > 0 && (due.IsZero() || l.leases[0].Due.Before(due)) {
			due = l.leases[0].Due
		}
		return due
	}
	now := time.Now()
	first := l.firstDue(now)
	switch {
	case l.circuit.open && due.IsZero() && !first.IsZero() && !l.circuit.nextProbe.After(now):
		due = first // there was nothing that could be probed
	case l.circuit.open:
		due = l.circuit.nextProbe
	case due.IsZero() || !first.IsZero() && first.Before(due):
		due = first
	}
	if !due.IsZero() && due.Before(l.hold) {
		due = l.hold
	}
	return due
}

// early reports whether the wait before an event's first attempt is still running.
func (l *lane) early(n *entry, now time.Time) bool {
	first := time.Duration(l.sub.Retry.Schedule[0])
	return first > 0 && n.tries == 0 && n.appended.Add(first).After(now)
}

// firstDue is when the first of the waits before first attempts, or for more events of a batch, ends; zero if none is
// running.
func (l *lane) firstDue(now time.Time) time.Time {
	var due time.Time
	if l.waitsForMore() {
		for _, from := range []int{fromKeys, fromLive} {
			if at := l.batchAt(from); at.After(now) && (due.IsZero() || at.Before(due)) {
				due = at
			}
		}
		return due
	}
	first := time.Duration(l.sub.Retry.Schedule[0])
	if first <= 0 {
		return time.Time{}
	}
	wait := func(n *entry) {
		if at := n.appended.Add(first); l.early(n, now) && (due.IsZero() || at.Before(due)) {
			due = at
		}
	}
	if len(l.ready) > 0 {
		wait(l.ready[0])
	}
	for _, k := range l.released {
		if k.under == 0 && len(k.pending) > 0 {
			wait(k.pending[0])
		}
	}
	return due
}

// load takes in what is stored.
func (l *lane) load(row store.Lane, rows []store.Parked, keys []store.BlockedKey, matched eventhose.Sequence) {
	l.loaded, l.ordering = true, l.sub.Ordering
	cursor := row.Cursor
	if !row.Behind {
		cursor = max(cursor, matched)
	}
	for _, s := range row.Settled {
		l.settled[s] = true
	}
	l.began, l.lastTaken = row.Began, row.LastSuccess
	l.writtenBehind = row.Behind
	l.circuit.restore(row)
	holders := map[string][]eventhose.Sequence{}
	for i := range rows {
		p := &rows[i]
		if p.State == eventhose.ParkedDead {
			l.dead[p.Sequence] = true
		}
		if p.Blocks {
			l.blocking[p.Sequence] = p.Key
			holders[p.Key] = append(holders[p.Key], p.Sequence)
		}
	}
	for _, k := range keys {
		l.restoreKey(k, holders[k.Key])
	}
	l.holdAnew() // the ordering may have been changed since
	for i := range rows {
		if s := rows[i].State; s == eventhose.ParkedRetrying || s == eventhose.ParkedLeased {
			l.hang(&parked{Parked: rows[i]})
		}
	}
	for _, p := range row.Replays {
		l.replays = append(l.replays, &replay{Replay: p, examined: p.At})
	}
	// What matching has put here meanwhile comes after the cursor, or is already settled; a lane that is behind reads it
	// again, in order.
	arrived := l.window
	l.window = nil
	l.lastDue = row.Previous
	if l.told > cursor+1 {
		l.lastDue = 0 // retention has overtaken it since the row was written
	}
	switch {
	case row.Behind:
		for _, n := range arrived {
			l.tenant.engine.unpin(n)
		}
		arrived, l.tailing, l.examined = nil, false, cursor
	default:
		l.examined = max(l.examined, cursor)
	}
	for _, n := range arrived {
		if n.seq <= cursor {
			l.tenant.engine.unpin(n)
			continue
		}
		n.prev = l.lastDue
		l.lastDue = n.seq
		l.window = append(l.window, n)
	}
	for _, n := range slices.Clone(l.window) {
		l.route(n)
	}
}

// rescan forgets what was read and not yet sent, and reads again from the cursor: the subscription's filter or state
// has changed.
func (l *lane) rescan() {
	cursor, previous := l.position()
	var kept []*entry
	for _, n := range l.window {
		switch {
		case n.sending:
			kept = append(kept, n)
		case n.done:
			l.settled[n.seq] = true
		default:
			l.tenant.engine.unpin(n)
		}
	}
	l.window, l.ready = kept, nil
	clear(l.behind)
	for _, n := range kept {
		if l.ordering == eventhose.OrderingKey && n.key != "" {
			l.behind[n.key] = nil
		}
	}
	l.examined, l.lastDue, l.tailing = cursor, previous, false
	l.restartSweep()
	for _, p := range l.replays {
		p.restart(l.tenant.engine)
	}
}
