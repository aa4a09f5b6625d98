package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// withLane calls change with a lane in memory, its tenant's mutex held, and waits until the outcome is durable.
// CodeNotFound if there is no such subscription.
func (e *Engine) withLane(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, change func(*lane) error) error {
	for range 100 { // a lane may leave memory again before we are back
		t := e.lock(tenant)
		if l := t.lanes[sub]; l != nil && l.loaded {
			if err := change(l); err != nil {
				t.mu.Unlock()
				return err
			}
			return l.commitAnd(ctx)
		}
		there := make(chan struct{})
		t.wants[sub] = append(t.wants[sub], there)
		t.mu.Unlock()
		e.Changed(tenant, sub)
		select {
		case <-there:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.reading.Done():
			return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "this node is stopping", RetryAfter: time.Second}
		}
		t.mu.Lock()
		known := t.subs[sub] != nil
		t.mu.Unlock()
		if !known {
			return eventhose.NotFound("subscription")
		}
	}
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the subscription is too busy", RetryAfter: time.Second}
}

// deadRows finds the dead rows with the given event ids, or all.
func (e *Engine) deadRows(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string) ([]store.Parked, error) {
	places := map[string]int{}
	for i, id := range events {
		places[id] = i
	}
	var rows []store.Parked
	for after := eventhose.Sequence(0); ; {
		page, err := e.store.Parked(ctx, tenant, sub, store.ParkedQuery{State: eventhose.ParkedDead, After: after, Limit: 1000})
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
		err := eventhose.NotFound("dead event")
		err.Field = fmt.Sprintf("events[%d]", missing)
		return nil, err
	}
	return rows, nil
}

// Redrive tries dead events of a subscription again at once, with a new schedule: those with the given ids, or all. It
// answers how many. CodeNotFound with the field if one is not dead there; then nothing is changed.
func (e *Engine) Redrive(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string) (int, error) {
	rows, err := e.deadRows(ctx, tenant, sub, events)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	n := 0
	err = e.withLane(ctx, tenant, sub, func(l *lane) error {
		now := time.Now().UTC()
		for _, p := range rows {
			if !l.dead[p.Sequence] {
				continue
			}
			delete(l.dead, p.Sequence)
			p.State, p.Attempts, p.Due, p.Redriven = eventhose.ParkedRetrying, 0, now, true
			l.hang(&parked{Parked: p})
			l.parkRow(p)
			n++
		}
		if l.circuit.open {
			l.circuit.nextProbe = now
		}
		return nil
	})
	return n, err
}

// Discard gives up dead events of a subscription, in the same way.
func (e *Engine) Discard(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string) (int, error) {
	rows, err := e.deadRows(ctx, tenant, sub, events)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	n := 0
	err = e.withLane(ctx, tenant, sub, func(l *lane) error {
		for _, p := range rows {
			if !l.dead[p.Sequence] {
				continue
			}
			delete(l.dead, p.Sequence)
			l.unparkRow(p.Sequence)
			l.unblock(p.Sequence)
			n++
		}
		return nil
	})
	return n, err
}

// Replay sends a range of what a subscription was due once more; dry only counts. CodeLimit when MaxReplays are
// running, CodeCursorGone when retention has taken the beginning of the range, CodeInvalid with the field.
func (e *Engine) Replay(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, spec eventhose.ReplaySpec, dry bool) (eventhose.Replay, int, error) {
	switch spec.Status {
	case "", "delivered", "failed", "dead":
	default:
		return eventhose.Replay{}, 0, eventhose.Invalid("status", "must be delivered, failed or dead")
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
	var count *lane
	err = e.withLane(ctx, tenant, sub, func(l *lane) error {
		cursor, _ := l.position()
		if r.To == 0 || r.To > cursor {
			r.To = cursor
		}
		if dry || r.To < r.From {
			count = l
			return nil
		}
		if len(l.replays) >= eventhose.MaxReplays {
			return &eventhose.Error{Code: eventhose.CodeLimit, Message: fmt.Sprintf("%d replays are running", eventhose.MaxReplays), Fix: "wait for one to end"}
		}
		r.ID = "rpl_" + idAt(uint64(r.Created.UnixMicro()))
		l.replays = append(l.replays, &replay{Replay: r, examined: r.At})
		return nil
	})
	if err != nil || count == nil || r.To < r.From {
		return r, 0, err
	}
	n, err := e.countReplay(ctx, count, r)
	return r, n, err
}

func (e *Engine) countReplay(ctx context.Context, l *lane, r eventhose.Replay) (int, error) {
	t := l.tenant
	t.mu.Lock()
	f := l.sub.filter
	t.mu.Unlock()
	n := 0
	for after := r.At; after < r.To; {
		events, err := e.store.Read(ctx, t.id, after, readLimit)
		if errors.Is(err, store.ErrTrimmed) {
			return n, eventhose.Errorf(eventhose.CodeCursorGone, "retention has removed the beginning of this range meanwhile")
		}
		if err != nil || len(events) == 0 {
			return n, err
		}
		wanted, err := t.replayWants(ctx, l, r, events, t.matches(f, events))
		if err != nil {
			return n, err
		}
		for i := range events {
			if wanted[i] {
				n++
			}
		}
		after = events[len(events)-1].Sequence
	}
	return n, nil
}

// Test sends a test event at once and answers what happened. It is not in the log, and not charged to anything.
func (e *Engine) Test(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (eventhose.Attempt, error) {
	s, err := e.lanes.Subscription(ctx, tenant, sub)
	if err != nil {
		return eventhose.Attempt{}, err
	}
	now := time.Now().UTC()
	event := &eventhose.Event{ID: "test_" + idAt(uint64(now.UnixMicro())), Tenant: tenant, Type: eventhose.SystemPrefix + "test", Time: now, Appended: now,
		Data: []byte(`{"message":"a test event from Eventhose"}`)}
	b := &sink.Batch{ID: event.WebhookID(), Subscription: &s, Kind: eventhose.AttemptTest, Number: 1, Items: []sink.Item{{Event: event}}}
	if s.Batch.Batched() {
		b.ID = batchID(b)
	}
	a := e.record(b, e.send(ctx, b))
	err = e.withLane(ctx, tenant, sub, func(l *lane) error {
		a.ID = e.lastID.next(time.Now())
		l.changes.attempts = append(l.changes.attempts, a)
		if a.Outcome == eventhose.OutcomeTaken && l.circuit.open {
			l.circuit.nextProbe = time.Now()
		}
		return nil
	})
	e.opts.Observe(a, now)
	return a, err
}

// Attempts lists a subscription's attempts newest first, those before an attempt id.
func (e *Engine) Attempts(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, before string, limit int) ([]eventhose.Attempt, error) {
	return e.store.Attempts(ctx, tenant, store.AttemptQuery{Subscription: sub, Before: before, Limit: limit})
}

// AttemptsAt lists a subscription's attempts at the event at one place, newest first.
func (e *Engine) AttemptsAt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, seq eventhose.Sequence, limit int) ([]eventhose.Attempt, error) {
	return e.store.Attempts(ctx, tenant, store.AttemptQuery{Subscription: sub, Sequence: seq, Limit: limit})
}

// Parked lists a subscription's parked events by sequence, those after one. Waiting ones are read again from the log.
func (e *Engine) Parked(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, state eventhose.ParkedState, after eventhose.Sequence, limit int) ([]eventhose.Parked, error) {
	if state == eventhose.ParkedWaiting {
		return e.waitingRows(ctx, tenant, sub, after, limit)
	}
	rows, err := e.store.Parked(ctx, tenant, sub, store.ParkedQuery{State: state, After: after, Limit: limit})
	parked := make([]eventhose.Parked, len(rows))
	for i, p := range rows {
		parked[i] = p.Parked
	}
	return parked, err
}

func (e *Engine) waitingRows(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, after eventhose.Sequence, limit int) ([]eventhose.Parked, error) {
	_, keys, err := e.store.Lane(ctx, tenant, sub)
	if errors.Is(err, store.ErrNotFound) {
		return nil, eventhose.NotFound("subscription")
	}
	s, subErr := e.lanes.Subscription(ctx, tenant, sub)
	if err = errors.Join(err, subErr); err != nil {
		return nil, err
	}
	t := newTenant(e, tenant)
	compiled := t.use(s).filter
	byKey := map[string]store.BlockedKey{}
	first, last := eventhose.Sequence(0), eventhose.Sequence(0)
	for _, k := range keys {
		byKey[k.Key] = k
		if k.First > 0 && (first == 0 || k.First < first) {
			first = k.First
		}
		last = max(last, k.Last)
	}
	parked := []eventhose.Parked{}
	for at := max(after, first-min(first, 1)); at < last && len(parked) < limit; {
		events, err := e.store.Read(ctx, tenant, at, readLimit)
		if errors.Is(err, store.ErrTrimmed) || err == nil && len(events) == 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		for i, due := range t.matches(compiled, events) {
			ev := events[i]
			at = ev.Sequence
			if k, blocked := byKey[ev.Key]; due && blocked && ev.Sequence >= k.First && ev.Sequence <= k.Last && len(parked) < limit {
				parked = append(parked, eventhose.Parked{Event: ev.ID, Sequence: ev.Sequence, Type: ev.Type, Key: ev.Key,
					State: eventhose.ParkedWaiting, Since: ev.Appended})
			}
		}
	}
	return parked, nil
}

// Status tells where a subscription's delivery stands.
func (e *Engine) Status(ctx context.Context, s eventhose.Subscription) (eventhose.LaneStatus, error) {
	head, err := e.store.Head(ctx, s.Tenant)
	if err != nil {
		return eventhose.LaneStatus{}, err
	}
	row, keys, err := e.store.Lane(ctx, s.Tenant, s.ID)
	if errors.Is(err, store.ErrNotFound) {
		return eventhose.LaneStatus{}, eventhose.NotFound("subscription")
	}
	if err != nil {
		return eventhose.LaneStatus{}, err
	}
	sending, blocked := 0, len(keys)
	e.mu.Lock()
	t := e.tenants[s.Tenant]
	e.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		if l := t.lanes[s.ID]; l != nil && l.loaded {
			row, sending, blocked = l.row(), l.sending, len(l.keys)
		} else if !row.Behind {
			row.Cursor = max(row.Cursor, t.matched)
		}
		t.mu.Unlock()
	}
	st := eventhose.LaneStatus{Cursor: head.Cursor(row.Cursor), InFlight: sending, Retrying: row.Retrying, BlockedKeys: blocked,
		Waiting: row.Waiting, Dead: row.Dead, Circuit: "closed", FailingSince: row.FailingSince, LastSuccess: row.LastSuccess, Next: row.Due, Replays: row.Replays}
	if row.Cursor < head.Last {
		st.Lag = uint64(head.Last - row.Cursor)
	}
	if row.Open {
		st.Circuit = "open"
	}
	return st, nil
}

// Deliveries tells what became of an event at each subscription that it concerns, at most 1,000.
func (e *Engine) Deliveries(ctx context.Context, event eventhose.Event) ([]eventhose.Delivery, error) {
	subs, err := e.lanes.All(ctx, event.Tenant)
	if err != nil {
		return nil, err
	}
	t := newTenant(e, event.Tenant)
	deliveries := []eventhose.Delivery{}
	for _, s := range subs {
		if due := t.matches(t.use(s).filter, []*eventhose.Event{&event}); !due[0] {
			continue
		}
		d, concerned, err := e.delivery(ctx, event, s.ID)
		if err != nil {
			return nil, err
		}
		if concerned {
			deliveries = append(deliveries, d)
		}
		if len(deliveries) == 1000 {
			break
		}
	}
	return deliveries, nil
}

func (e *Engine) delivery(ctx context.Context, event eventhose.Event, sub eventhose.SubscriptionID) (eventhose.Delivery, bool, error) {
	d := eventhose.Delivery{Subscription: sub, State: eventhose.DeliveryPending}
	row, keys, err := e.store.Lane(ctx, event.Tenant, sub)
	if errors.Is(err, store.ErrNotFound) {
		return d, false, nil
	}
	if err != nil {
		return d, false, err
	}
	if d.Attempts, err = e.store.Attempts(ctx, event.Tenant, store.AttemptQuery{Subscription: sub, Sequence: event.Sequence, Limit: 100}); err != nil {
		return d, false, err
	}
	rows, err := e.store.Parked(ctx, event.Tenant, sub, store.ParkedQuery{After: event.Sequence - 1, Limit: 1})
	if err != nil {
		return d, false, err
	}
	for _, a := range d.Attempts {
		if a.Took(event.Sequence) {
			d.State = eventhose.DeliveryDelivered
		}
	}
	if len(rows) > 0 && rows[0].Sequence == event.Sequence {
		d.State = string(rows[0].State)
	}
	if d.State != eventhose.DeliveryPending {
		return d, true, nil
	}
	for _, k := range keys {
		if k.Key == event.Key && event.Key != "" && event.Sequence >= k.First && event.Sequence <= k.Last {
			d.State = string(eventhose.ParkedWaiting)
			return d, true, nil
		}
	}
	// Settled without an attempt: it was before this subscription's beginning, or erased before its turn.
	return d, event.Sequence > row.Cursor || len(d.Attempts) > 0, nil
}
