package deliver

// What a person asks of a lane: redrive, discard, replay, test. Any node can be asked. What changes the lane is done by the
// node that delivers for it (orders.go).

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// decided is the state of the parked events that a person decides about.
func decided(op string) eventhose.ParkedState {
	if op == opRetry {
		return eventhose.ParkedRetrying
	}
	return eventhose.ParkedDead
}

// rowsFor finds by sequence the parked rows that an operation is about: those with the given event ids and those at the given places, or
// with neither all.
func (e *Engine) rowsFor(ctx context.Context, op string, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at []eventhose.Sequence) ([]store.Parked, error) {
	state := decided(op)
	rows, err := e.rowsAt(ctx, state, tenant, sub, at)
	if err != nil || len(at) > 0 && len(events) == 0 {
		return rows, err
	}
	places := map[string]int{}
	for i, id := range events {
		places[id] = i
	}
	for after := eventhose.Sequence(0); ; {
		page, err := e.store.Parked(ctx, tenant, sub, store.ParkedQuery{State: state, After: after, Limit: 1000})
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			after = p.Sequence
			if _, asked := places[p.Event]; asked || len(events) == 0 {
				rows = append(rows, p)
				delete(places, p.Event)
			}
		}
		if len(page) < 1000 {
			break
		}
	}
	missing := -1
	for _, i := range places {
		if missing < 0 || i < missing {
			missing = i
		}
	}
	if missing >= 0 {
		return nil, notParked(state, "events", missing)
	}
	if len(at) > 0 { // one may be named in both ways
		slices.SortFunc(rows, func(a, b store.Parked) int { return cmp.Compare(a.Sequence, b.Sequence) })
		rows = slices.CompactFunc(rows, func(a, b store.Parked) bool { return a.Sequence == b.Sequence })
	}
	return rows, nil
}

// rowsAt finds by sequence the parked rows at places.
func (e *Engine) rowsAt(ctx context.Context, state eventhose.ParkedState, tenant eventhose.TenantID, sub eventhose.SubscriptionID, at []eventhose.Sequence) (rows []store.Parked, err error) {
	left := slices.Compact(slices.Sorted(slices.Values(at)))
	for len(left) > 0 {
		var page []store.Parked
		if left[0] > 0 {
			if page, err = e.store.Parked(ctx, tenant, sub, store.ParkedQuery{After: left[0] - 1, Limit: len(left)}); err != nil {
				return nil, err
			}
		}
		if len(page) == 0 || page[0].Sequence > left[0] {
			return nil, notParked(state, "sequences", slices.Index(at, left[0]))
		}
		for _, p := range page {
			if len(left) == 0 || p.Sequence < left[0] {
				continue
			}
			if p.Sequence > left[0] || p.State != state {
				return nil, notParked(state, "sequences", slices.Index(at, left[0]))
			}
			rows = append(rows, p)
			left = left[1:]
		}
	}
	return rows, nil
}

func notParked(state eventhose.ParkedState, field string, i int) error {
	err := eventhose.NotFound(string(state) + " event")
	err.Field = fmt.Sprintf("%s[%d]", field, i)
	return err
}

// Redrive tries dead events of a subscription again at once, with a new schedule: those with the given ids and those at the
// given places, or with neither all. An id that several sources have in use is the first dead event that has it. It answers
// how many. CodeNotFound with the field ("events[2]", "sequences[0]") if one is not dead there; then nothing is changed.
func (e *Engine) Redrive(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at ...eventhose.Sequence) (int, error) {
	return e.decide(ctx, opRedrive, tenant, sub, events, at)
}

// Discard gives up dead events of a subscription, in the same way.
func (e *Engine) Discard(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at ...eventhose.Sequence) (int, error) {
	return e.decide(ctx, opDiscard, tenant, sub, events, at)
}

// Retry has retrying events of a subscription due at once, in the same way. Their schedule goes on from where it was; what is
// under way at this moment is left alone.
func (e *Engine) Retry(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at ...eventhose.Sequence) (int, error) {
	return e.decide(ctx, opRetry, tenant, sub, events, at)
}

func (e *Engine) decide(ctx context.Context, op string, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at []eventhose.Sequence) (n int, err error) {
	rows, err := e.rowsFor(ctx, op, tenant, sub, events, at)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	if !e.elsewhere(tenant) {
		return e.decideHere(ctx, op, tenant, sub, rows)
	}
	var named []eventhose.Sequence // none are all
	if len(events)+len(at) > 0 {
		for _, p := range rows {
			named = append(named, p.Sequence)
		}
	}
	err = e.ask(ctx, op, tenant, sub, named, &n)
	return n, err
}

// decideNamed is decide on the node that delivers, for the events at some places, or all.
func (e *Engine) decideNamed(ctx context.Context, op string, tenant eventhose.TenantID, sub eventhose.SubscriptionID, named []eventhose.Sequence) (int, error) {
	rows, err := e.rowsFor(ctx, op, tenant, sub, nil, nil)
	if err != nil {
		return 0, err
	}
	if len(named) > 0 {
		rows = slices.DeleteFunc(rows, func(p store.Parked) bool {
			_, is := slices.BinarySearch(named, p.Sequence)
			return !is
		})
	}
	return e.decideHere(ctx, op, tenant, sub, rows)
}

func (e *Engine) decideHere(ctx context.Context, op string, tenant eventhose.TenantID, sub eventhose.SubscriptionID, rows []store.Parked) (n int, err error) {
	err = e.withLane(ctx, tenant, sub, func(l *lane) error {
		now := time.Now().UTC()
		for _, p := range rows {
			switch {
			case op == opRetry:
				if !l.hasten(p.Sequence, now) {
					continue
				}
			case !l.dead[p.Sequence]:
				continue
			case op == opDiscard:
				delete(l.dead, p.Sequence)
				l.unparkRow(p.Sequence)
				l.unblock(p.Sequence)
			default:
				delete(l.dead, p.Sequence)
				p.State, p.Attempts, p.Due, p.Redriven = eventhose.ParkedRetrying, 0, now, true
				l.hang(&parked{Parked: p})
				l.parkRow(p)
			}
			n++
		}
		if op != opDiscard && n > 0 { // a person wants it at once
			if l.hold = (time.Time{}); l.circuit.open {
				l.circuit.nextProbe = now
			}
		}
		return nil
	})
	return n, err
}

// hasten has a retrying event due at a time that is sooner, and reports whether it did: not if it is under way.
func (l *lane) hasten(seq eventhose.Sequence, now time.Time) bool {
	p := l.parked[seq]
	if p == nil || p.sending || p.leased() {
		return false
	}
	if p.Due.After(now) {
		l.takeDown(p)
		p.Due = now
		l.hang(p)
		l.parkRow(p.Parked)
	}
	return true
}

// Replay sends a range of what a subscription was due once more; dry only counts, and for a long range up to the replay's At, which
// is before To then. CodeLimit when MaxReplays are
// running, CodeCursorGone when retention has taken the beginning of the range, CodeInvalid with the field.
func (e *Engine) Replay(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, spec eventhose.ReplaySpec, dry bool) (eventhose.Replay, int, error) {
	switch spec.Status {
	case "", "delivered", "failed", "dead":
	default:
		return eventhose.Replay{}, 0, eventhose.Invalid("status", "must be delivered, failed or dead")
	}
	if len(spec.Types) > eventhose.MaxFilterTypes {
		return eventhose.Replay{}, 0, eventhose.Invalid("types", "must be at most %d", eventhose.MaxFilterTypes)
	}
	for i, t := range spec.Types {
		if !eventhose.ValidTypePattern(t) {
			return eventhose.Replay{}, 0, eventhose.Invalid(fmt.Sprintf("types[%d]", i), "is not a type pattern")
		}
	}
	head, err := e.store.Head(ctx, tenant)
	if err != nil {
		return eventhose.Replay{}, 0, err
	}
	if spec.From == 0 {
		spec.From = head.First
	}
	if spec.From < head.First {
		return eventhose.Replay{}, 0, &eventhose.Error{Code: eventhose.CodeCursorGone, Field: "from", Message: "retention has removed the beginning of this range", First: head.First}
	}
	r := eventhose.Replay{From: spec.From, To: spec.To, Types: spec.Types, Status: spec.Status, At: spec.From - 1, Created: time.Now().UTC()}
	switch {
	case dry:
		if !e.elsewhere(tenant) { // what has happened here is to be counted, recorded or not yet
			if err := e.withLane(ctx, tenant, sub, func(*lane) error { return nil }); err != nil {
				return r, 0, err
			}
		}
		return e.countReplay(ctx, tenant, sub, r)
	case e.elsewhere(tenant):
		err = e.ask(ctx, opReplay, tenant, sub, r, &r)
	default:
		r, err = e.replayHere(ctx, tenant, sub, r)
	}
	return r, 0, err
}

// upTo bounds a replay by the cursor.
func upTo(r *eventhose.Replay, cursor eventhose.Sequence) {
	if r.To == 0 || r.To > cursor {
		r.To = cursor
	}
}

func (e *Engine) replayHere(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, r eventhose.Replay) (eventhose.Replay, error) {
	err := e.withLane(ctx, tenant, sub, func(l *lane) error {
		cursor, _ := l.position()
		if upTo(&r, cursor); r.To < r.From {
			return nil
		}
		return l.startReplay(&r)
	})
	return r, err
}

// startReplay begins a replay and gives it its id.
func (l *lane) startReplay(r *eventhose.Replay) error {
	if len(l.replays) >= eventhose.MaxReplays {
		return &eventhose.Error{Code: eventhose.CodeLimit, Message: fmt.Sprintf("%d replays are running", eventhose.MaxReplays), Fix: "wait for one to end"}
	}
	r.ID = "rpl_" + idAt(uint64(r.Created.UnixMicro()), l.tenant.engine.opts.Random())
	l.replays = append(l.replays, &replay{Replay: *r, examined: r.At})
	return nil
}

// countReplay counts what a replay would send. It looks at no more than about eventhose.MaxExamined events and for about
// eventhose.SearchTime; At is how far it has come.
func (e *Engine) countReplay(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, r eventhose.Replay) (eventhose.Replay, int, error) {
	until := time.Now().Add(eventhose.SearchTime)
	s, err := e.lanes.Subscription(ctx, tenant, sub)
	if err != nil {
		return r, 0, err
	}
	row, err := e.standing(ctx, tenant, sub)
	if err != nil {
		return r, 0, err
	}
	upTo(&r, row.Cursor)
	_, keys, err := e.store.Lane(ctx, tenant, sub)
	if errors.Is(err, store.ErrNotFound) {
		err = eventhose.NotFound("subscription")
	}
	if err != nil {
		return r, 0, err
	}
	t := newTenant(e, tenant)
	compiled := t.use(s).filter
	held, limit := byKey(keys), readLimit
	if r.Status != "" {
		limit.Events = statusPage
	}
	n, examined := 0, 0
	for r.At < r.To && examined < eventhose.MaxExamined && (examined == 0 || time.Now().Before(until)) {
		events, err := e.store.Read(ctx, tenant, r.At, limit)
		if errors.Is(err, store.ErrTrimmed) {
			return r, n, eventhose.Errorf(eventhose.CodeCursorGone, "retention has removed the beginning of this range meanwhile")
		}
		if err != nil {
			return r, n, err
		}
		if len(events) == 0 {
			r.At = r.To
			break
		}
		examined += len(events)
		due := t.matches(compiled, events)
		rows, err := e.store.Parked(ctx, tenant, sub, store.ParkedQuery{After: r.At, Limit: len(events)})
		if err != nil {
			return r, n, err
		}
		for i, ev := range events { // what a replay leaves out, since it comes by itself
			for len(rows) > 0 && rows[0].Sequence < ev.Sequence {
				rows = rows[1:]
			}
			if held.hold(ev) || len(rows) > 0 && rows[0].Sequence == ev.Sequence && rows[0].State != eventhose.ParkedDead {
				due[i] = false
			}
		}
		wanted, err := t.replayWants(ctx, sub, r, events, due)
		if err != nil {
			return r, n, err
		}
		for i := range events {
			if wanted[i] {
				n++
			}
		}
		r.At = min(r.To, events[len(events)-1].Sequence)
	}
	return r, n, nil
}

// Test sends a test event at once and answers what happened. It is not in the log, and not charged to anything.
func (e *Engine) Test(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (eventhose.Attempt, error) {
	s, err := e.lanes.Subscription(ctx, tenant, sub)
	if err != nil {
		return eventhose.Attempt{}, err
	}
	if s.Pull() {
		return eventhose.Attempt{}, &eventhose.Error{Code: eventhose.CodeConflict, Message: "the subscription has no destination to send a test to: workers pull from it", Fix: "append an event of a type that it wants"}
	}
	now := time.Now().UTC()
	event, _ := testEvent(tenant, e.newTestID(now))
	b := &sink.Batch{ID: event.WebhookID(), Subscription: &s, Kind: eventhose.AttemptTest, Number: 1, Items: []sink.Item{{Event: event}}}
	if s.Batch.Batched() {
		b.ID = batchID(b)
	}
	a := e.record(b, e.send(ctx, b))
	if e.elsewhere(tenant) {
		err = e.ask(ctx, opRecord, tenant, sub, a, &a.ID)
	} else {
		a.ID, err = e.recordHere(ctx, tenant, sub, a)
	}
	e.opts.Observe(a, now)
	return a, err
}

// recordHere keeps a test's attempt and answers its id.
func (e *Engine) recordHere(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, a eventhose.Attempt) (string, error) {
	err := e.withLane(ctx, tenant, sub, func(l *lane) error {
		a.ID = e.lastID.next(time.Now())
		l.changes.attempts = append(l.changes.attempts, a)
		if a.Outcome == eventhose.OutcomeTaken && l.circuit.open {
			l.circuit.nextProbe = time.Now()
		}
		return nil
	})
	return a.ID, err
}
