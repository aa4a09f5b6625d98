package deliver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

// readLimit is one page of a log.
var readLimit = store.ReadLimit{Events: 500, Bytes: 1 << 20}

// tenant is one tenant's matcher and its lanes. read is called by one goroutine at a time, which alone uses index,
// loaded and stored; the rest is guarded by mu.
type tenant struct {
	engine *Engine
	id     eventhose.TenantID
	term   *term         // that it is delivered for under
	left   chan struct{} // closed when that is over, nil if it never is

	index  *filter.Index // of the active subscriptions
	loaded bool
	stored eventhose.Sequence // how far matching had come when the tenant was loaded
	fails  int                // readings that failed in a row
	// notBefore is when what failed is tried again; until then hints are left alone.
	notBefore time.Time

	mu      sync.Mutex
	subs    map[eventhose.SubscriptionID]*subscription
	lanes   map[eventhose.SubscriptionID]*lane
	matched eventhose.Sequence
	changes []eventhose.SubscriptionID // subscriptions to look at again
	reads   []*lane                    // lanes to read for
	ready   turns[*lane]               // lanes that may send
	chosen  job                        // what choose answered last
	changed []*lane                    // lanes to commit
	// unwritten are the lanes that were given events while their stored rows do not say that they are behind: matching
	// must not be committed beyond those events before the rows say so. wants is who waits for a lane to be in memory.
	unwritten map[*lane]bool
	wants     map[eventhose.SubscriptionID][]chan struct{}
	losses    int  // how often retention has taken parked events
	lookAgain bool // at all subscriptions
	// committed is the matching position that is durable.
	committed eventhose.Sequence

	// The engine's mutex guards these.
	readState int
	isReady   bool
	deficit   int // what is left of its turn
	isChanged bool
	isLazy    bool
	inCommit  bool // a commit with something of it is under way
	isResting bool // it is in the engine's queue of those that may leave memory
	rested    time.Time
	resident  int // subscriptions that the engine counts for it
	// evicted says that it has left memory; set with both mutexes held.
	evicted bool
}

func newTenant(e *Engine, id eventhose.TenantID) *tenant {
	return &tenant{engine: e, id: id, index: filter.NewIndex(), subs: map[eventhose.SubscriptionID]*subscription{},
		lanes: map[eventhose.SubscriptionID]*lane{}, unwritten: map[*lane]bool{}, wants: map[eventhose.SubscriptionID][]chan struct{}{}}
}

// stand has a lane that is not in memory, and that nothing is matched for from here on, begin at a place when it goes on.
// t.mu is held.
func (l *lane) stand(at eventhose.Sequence) {
	l.tailing, l.examined = false, max(l.examined, at)
	l.tenant.unwritten[l] = true
}

// read does a bounded piece of what is to be read for the tenant and reports whether there is more.
func (t *tenant) read(ctx context.Context) bool {
	if now := time.Now(); now.Before(t.notBefore) || !t.term.sends(now) {
		return false
	}
	more, err := t.readOnce(ctx)
	if err == nil {
		t.fails = 0
		return more
	}
	if ctx.Err() != nil || !t.term.sends(time.Now()) {
		return false
	}
	if errors.Is(err, store.ErrFailed) {
		t.engine.opts.Fatal(err)
		return false
	}
	t.engine.logger.Error("cannot read for deliveries, trying again", "tenant", t.id, "error", err)
	t.fails = min(t.fails+1, 6)
	wait := t.engine.jittered(100 * time.Millisecond << t.fails)
	t.notBefore = time.Now().Add(wait)
	time.AfterFunc(wait, func() { t.engine.Appended(t.id) }) // the reader is for other tenants meanwhile
	return false
}

func (t *tenant) readOnce(ctx context.Context) (bool, error) {
	if !t.loaded {
		if err := t.load(ctx); err != nil || !t.loaded {
			return false, err
		}
	}
	if err := t.refresh(ctx); err != nil {
		return false, err
	}
	more, err := t.match(ctx)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	reads := t.reads
	t.reads = nil
	t.mu.Unlock()
	var failed error
	for _, l := range reads {
		t.mu.Lock()
		l.toRead = false
		t.mu.Unlock()
		if err := t.readLane(ctx, l); err != nil {
			failed = err
			t.mu.Lock()
			l.needRead() // and the others are read for meanwhile
			t.mu.Unlock()
		}
	}
	if failed != nil {
		return false, failed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count()
	return more || len(t.reads) > 0 || len(t.changes) > 0 || t.lookAgain, nil
}

// count keeps the engine's count of subscriptions in memory right. t.mu is held.
func (t *tenant) count() {
	e := t.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.evicted {
		return
	}
	e.resident += len(t.subs) - t.resident
	t.resident = len(t.subs)
}

// load learns the tenant's subscriptions, how far its log is matched, and which lanes have something to do. It does not
// while a commit of before the tenant was lost and came back is under way, whose end queues it again.
func (t *tenant) load(ctx context.Context) error {
	e := t.engine
	e.mu.Lock()
	ending := e.leases.ending[t.id]
	e.mu.Unlock()
	if ending != nil {
		return nil
	}
	subs, err := e.lanes.All(ctx, t.id)
	if eventhose.CodeOf(err) == eventhose.CodeNotFound {
		subs, err = nil, nil
	}
	if err != nil {
		return err
	}
	matcher, _, err := e.store.Lane(ctx, t.id, "")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var work []store.Lane
	for after := (store.LaneRef{Tenant: t.id}); ; {
		page, err := e.store.Work(ctx, after, 1000)
		if err != nil {
			return err
		}
		for _, l := range page {
			if after = l.LaneRef; after.Tenant == t.id {
				work = append(work, l)
			}
		}
		if len(page) < 1000 || after.Tenant != t.id {
			break
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.evicted {
		return nil
	}
	t.stored, t.matched, t.committed = matcher.Cursor, matcher.Cursor, matcher.Cursor
	for _, s := range subs {
		t.use(s)
	}
	for _, w := range work {
		if sub := t.subs[w.Subscription]; sub != nil {
			l := t.lane(sub)
			l.tailing = !w.Behind
			l.needRead()
		}
	}
	for id, sub := range t.subs {
		if l := t.lanes[id]; !sub.active() && (l == nil || l.tailing) {
			// It was paused, and a crash came before its row said that it is behind.
			l = t.lane(sub)
			l.stand(t.matched)
			l.needRead()
		}
	}
	t.loaded = true
	return nil
}

// lane answers a subscription's lane, made if it is not in memory; a new one is at the tail until its row says otherwise.
// t.mu is held.
func (t *tenant) lane(sub *subscription) *lane {
	l := t.lanes[sub.ID]
	if l == nil {
		l = newLane(t, sub)
		l.tailing = true
		t.lanes[sub.ID] = l
	}
	return l
}

// match reads one page of new events and gives each to the lanes at the tail that it concerns.
func (t *tenant) match(ctx context.Context) (bool, error) {
	t.mu.Lock()
	after := t.matched
	t.mu.Unlock()
	events, err := t.engine.store.Read(ctx, t.id, after, readLimit)
	if errors.Is(err, store.ErrTrimmed) {
		return true, t.overtakenTail(ctx)
	}
	if err != nil || len(events) == 0 {
		return false, err
	}
	type hits struct {
		event *eventhose.Event
		subs  []eventhose.SubscriptionID
	}
	var page []hits
	for _, e := range events {
		h := hits{event: e}
		t.index.Match(filter.NewView(e), func(id eventhose.SubscriptionID, err error) {
			if err != nil {
				t.engine.logger.Warn("filter is undecided, handing the event over", "tenant", t.id, "subscription", id, "sequence", e.Sequence, "error", err)
			}
			h.subs = append(h.subs, id)
		})
		if len(h.subs) > 0 {
			page = append(page, h)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.evicted {
		return false, nil
	}
	if len(t.changes) > 0 {
		return true, nil // a subscription was changed, perhaps before these events came: what it is now counts for them
	}
	touched := map[*lane]bool{}
	for _, h := range page {
		for _, id := range h.subs {
			l := t.lane(t.subs[id])
			if !l.tailing || h.event.Sequence <= l.examined {
				continue
			}
			if !l.room() {
				// From here on it reads for itself.
				l.tailing, l.examined = false, h.event.Sequence-1
				continue
			}
			l.push(h.event)
			touched[l] = true
		}
	}
	t.matched = events[len(events)-1].Sequence
	for l := range touched {
		if !l.writtenBehind {
			t.unwritten[l] = true
		}
		if !l.loaded {
			l.needRead()
			continue
		}
		l.update()
	}
	t.engine.changedLazily(t)
	return true, nil
}

// matches says which events of a page a filter wants; what it cannot decide it wants.
func (t *tenant) matches(f *filter.Filter, events []*eventhose.Event) []bool {
	due := make([]bool, len(events))
	for i, e := range events {
		ok, err := f.Match(e)
		due[i] = ok || err != nil
	}
	return due
}

// readLane does one piece of what a lane wants to be read.
func (t *tenant) readLane(ctx context.Context, l *lane) error {
	if err := t.loadLane(ctx, l); err != nil {
		return err
	}
	if err := t.scan(ctx, l); err != nil {
		return err
	}
	if err := t.readSweep(ctx, l); err != nil {
		return err
	}
	if err := t.readReplays(ctx, l); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l.leaveIfIdle()
	return nil
}

func (t *tenant) loadLane(ctx context.Context, l *lane) error {
	t.mu.Lock()
	loaded := l.loaded || l.gone
	t.mu.Unlock()
	if loaded {
		return nil
	}
	t.mu.Lock()
	losses := t.losses
	t.mu.Unlock()
	row, keys, err := t.engine.store.Lane(ctx, t.id, l.id)
	if errors.Is(err, store.ErrNotFound) {
		// Deleted: the hint is on its way.
		t.forget(l.id)
		return nil
	}
	if err != nil {
		return err
	}
	var rows []store.Parked
	for after := eventhose.Sequence(0); row.Retrying+row.Dead > 0; {
		page, err := t.engine.store.Parked(ctx, t.id, l.id, store.ParkedQuery{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		rows = append(rows, page...)
		if len(page) < 1000 {
			break
		}
		after = page[len(page)-1].Sequence
	}
	newest, err := t.newestAttempt(ctx, l.id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.gone {
		return nil
	}
	if t.losses != losses {
		l.needRead() // what was read may be gone meanwhile
		return nil
	}
	t.engine.lastID.raise(newest)
	l.load(row, rows, keys, t.stored)
	t.tellWants(l.id)
	l.change()
	l.update()
	return nil
}

// newestAttempt is the id of a lane's newest attempt, which another node may have made by another clock; "" if there is none.
func (t *tenant) newestAttempt(ctx context.Context, sub eventhose.SubscriptionID) (string, error) {
	if t.term == nil {
		return "", nil
	}
	attempts, err := t.engine.store.Attempts(ctx, t.id, store.AttemptQuery{Subscription: sub, Limit: 1})
	if err != nil || len(attempts) == 0 {
		return "", err
	}
	return attempts[0].ID, nil
}

// scan reads one page for a lane that is behind.
func (t *tenant) scan(ctx context.Context, l *lane) error {
	t.mu.Lock()
	if !l.wantsScan() {
		t.mu.Unlock()
		return nil
	}
	after, f, matched := l.examined, l.sub.filter, t.matched
	t.mu.Unlock()

	var events []*eventhose.Event
	if after < matched {
		var err error
		events, err = t.engine.store.Read(ctx, t.id, after, readLimit)
		if errors.Is(err, store.ErrTrimmed) {
			return t.overtaken(ctx, l)
		}
		if err != nil {
			return err
		}
	}
	due := t.matches(f, events)

	t.mu.Lock()
	defer t.mu.Unlock()
	if l.gone || l.tailing || !l.sub.active() || l.examined != after || l.sub.filter != f {
		return nil
	}
	if slices.Contains(t.changes, l.id) {
		l.needRead()
		return nil
	}
	for i, e := range events {
		if e.Sequence > t.matched || due[i] && !l.room() && !l.settled[e.Sequence] {
			break
		}
		if due[i] {
			l.push(e)
		}
		l.examined = e.Sequence
	}
	l.tailing = l.examined >= t.matched
	l.change()
	l.update()
	return nil
}
