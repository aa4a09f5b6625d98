package deliver

import (
	"context"
	"encoding/json"
	"errors"
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
	losses    int // how often retention has taken parked events
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
	// evicted says that it has left memory; guarded by mu.
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
	if time.Now().Before(t.notBefore) {
		return false
	}
	more, err := t.readOnce(ctx)
	if err == nil {
		t.fails = 0
		return more
	}
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(err, store.ErrFailed) {
		t.engine.opts.Fatal(err)
		return false
	}
	t.engine.logger.Error("cannot read for deliveries, trying again", "tenant", t.id, "error", err)
	t.fails = min(t.fails+1, 6)
	wait := jittered(100 * time.Millisecond << t.fails)
	t.notBefore = time.Now().Add(wait)
	time.AfterFunc(wait, func() { t.engine.Appended(t.id) }) // the reader is for other tenants meanwhile
	return false
}

func (t *tenant) readOnce(ctx context.Context) (bool, error) {
	if !t.loaded {
		if err := t.load(ctx); err != nil {
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
	return more || len(t.reads) > 0 || len(t.changes) > 0, nil
}

// count keeps the engine's count of subscriptions in memory right. t.mu is held.
func (t *tenant) count() {
	e := t.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resident += len(t.subs) - t.resident
	t.resident = len(t.subs)
}

// load learns the tenant's subscriptions, how far its log is matched, and which lanes have something to do.
func (t *tenant) load(ctx context.Context) error {
	e := t.engine
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

// use takes in a subscription's present version. t.mu is held.
func (t *tenant) use(s eventhose.Subscription) *subscription {
	f, err := filter.Compile(s.Filter)
	if err != nil {
		// It was compiled when it was saved. Matching everything loses nothing.
		t.engine.logger.Error("stored filter does not compile, handing over everything", "tenant", t.id, "subscription", s.ID, "error", err)
		f, _ = filter.Compile(eventhose.Filter{})
	}
	sub := &subscription{Subscription: s, filter: f}
	t.subs[s.ID] = sub
	if sub.active() {
		t.index.Add(s.ID, f)
	} else {
		t.index.Remove(s.ID)
	}
	return sub
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

// refresh looks again at the subscriptions that were changed.
func (t *tenant) refresh(ctx context.Context) error {
	t.mu.Lock()
	changes := t.changes
	t.changes = nil
	t.mu.Unlock()
	seen := map[eventhose.SubscriptionID]bool{}
	for i, id := range changes {
		if seen[id] {
			continue
		}
		seen[id] = true
		s, err := t.engine.lanes.Subscription(ctx, t.id, id)
		switch {
		case eventhose.CodeOf(err) == eventhose.CodeNotFound:
			t.forget(id)
		case err != nil:
			t.mu.Lock()
			t.changes = append(t.changes, changes[i:]...)
			t.mu.Unlock()
			return err
		default:
			t.change(s)
		}
	}
	return nil
}

// forget drops a deleted subscription; its rows were deleted with its record.
func (t *tenant) forget(id eventhose.SubscriptionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.index.Remove(id)
	delete(t.subs, id)
	if l := t.lanes[id]; l != nil {
		l.drop()
	}
	t.tellWants(id)
}

// tellWants tells those who wait for a lane that it is in memory, or gone. t.mu is held.
func (t *tenant) tellWants(id eventhose.SubscriptionID) {
	for _, done := range t.wants[id] {
		close(done)
	}
	delete(t.wants, id)
}

// change takes in a new version of a subscription. Whatever its lane had read and not sent is read again, with the new
// filter; what is under way goes on with the old one.
func (t *tenant) change(s eventhose.Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.subs[s.ID] != nil
	l := t.lane(t.use(s))
	was := l.sub
	l.sub = t.subs[s.ID]
	if !l.loaded {
		switch {
		case !known:
			l.tailing = false // a new lane's row says where it begins
		case !l.sub.active() && l.tailing:
			l.stand(t.matched)
		}
		l.needRead()
		return
	}
	if was.active() != l.sub.active() || was.Ordering != l.sub.Ordering || !sameFilter(was.Filter, s.Filter) {
		l.rescan()
		l.change()
	}
	if was.Ordering != l.sub.Ordering || was.Batch != l.sub.Batch {
		l.regroup()
	}
	t.tellWants(s.ID)
	if l.sub.active() && !was.active() {
		// A person wants it to go on: try at once.
		l.circuit.nextProbe, l.hold, l.circuit.failingSince = time.Now(), time.Time{}, time.Time{}
		l.change()
	}
	l.update()
}

func sameFilter(a, b eventhose.Filter) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
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
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.gone {
		return nil
	}
	if t.losses != losses {
		l.needRead() // what was read may be gone meanwhile
		return nil
	}
	l.load(row, rows, keys, t.stored)
	t.tellWants(l.id)
	l.change()
	l.update()
	return nil
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

// overtaken moves a lane that retention has overtaken to the first event left, and tells.
func (t *tenant) overtaken(ctx context.Context, l *lane) error {
	head, err := t.engine.store.Head(ctx, t.id)
	if err != nil {
		return err
	}
	if err := l.tellOvertaken(ctx, head.First); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !l.tailing {
		l.examined = max(l.examined, head.First-1)
	}
	l.change()
	l.update()
	return nil
}

// tellOvertaken tells a lane's owner of the first event left, once for each such place.
func (l *lane) tellOvertaken(ctx context.Context, first eventhose.Sequence) error {
	t := l.tenant
	t.mu.Lock()
	before := l.told
	l.told = max(before, first)
	t.mu.Unlock()
	if before >= first {
		return nil
	}
	err := t.engine.tellOvertaken(ctx, t.id, l.id, first)
	if err != nil {
		t.mu.Lock()
		l.told = before
		t.mu.Unlock()
	}
	return err
}

// overtakenTail moves the matcher to the first event left and tells every active subscription's owner.
func (t *tenant) overtakenTail(ctx context.Context) error {
	head, err := t.engine.store.Head(ctx, t.id)
	if err != nil {
		return err
	}
	var told []eventhose.SubscriptionID
	t.mu.Lock()
	for id, sub := range t.subs {
		if l := t.lanes[id]; sub.active() && (l == nil || l.tailing && l.examined+1 < head.First) {
			told = append(told, id)
		}
	}
	t.mu.Unlock()
	for _, id := range told {
		if err := t.engine.tellOvertaken(ctx, t.id, id, head.First); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.matched = max(t.matched, head.First-1)
	for _, id := range told {
		if l := t.lanes[id]; l != nil {
			l.told = max(l.told, head.First)
		}
	}
	return nil
}

func (e *Engine) tellOvertaken(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, first eventhose.Sequence) error {
	e.logger.Warn("retention has overtaken a subscription", "tenant", tenant, "subscription", sub, "first", first)
	body, err := json.Marshal(map[string]any{"subscription": sub, "first": first})
	if err != nil {
		return err
	}
	return e.system.AppendSystem(ctx, tenant, Overtaken, body)
}
