package deliver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// errNothing is what a change answers that has changed nothing: there is nothing to wait for.
var errNothing = errors.New("nothing was changed")

// withLane calls change with a lane in memory, its tenant's mutex held, and waits until the outcome is durable.
// CodeNotFound if there is no such subscription, CodeUnavailable if another node delivers for it.
func (e *Engine) withLane(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, change func(*lane) error) error {
	for range 100 { // a lane may leave memory again before we are back
		t := e.lock(tenant)
		if t == nil {
			return errElsewhere
		}
		if !t.term.sends(time.Now()) {
			t.mu.Unlock()
			return errElsewhere
		}
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
		known := t.subs[sub] != nil || t.evicted || !t.term.sends(time.Now())
		t.mu.Unlock()
		if !known {
			return eventhose.NotFound("subscription")
		}
	}
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the subscription is too busy", RetryAfter: time.Second}
}

// Attempts lists a subscription's attempts newest first, those before an attempt id.
func (e *Engine) Attempts(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, before string, limit int) ([]eventhose.Attempt, error) {
	return e.store.Attempts(ctx, tenant, store.AttemptQuery{Subscription: sub, Before: before, Limit: limit})
}

// AttemptsAt lists a subscription's attempts at the event at one place, newest first.
func (e *Engine) AttemptsAt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, seq eventhose.Sequence, limit int) ([]eventhose.Attempt, error) {
	return e.store.Attempts(ctx, tenant, store.AttemptQuery{Subscription: sub, Sequence: seq, Limit: limit})
}

// Parked lists a subscription's parked events by sequence, those after one, in one state or with "" in any; but not waiting
// ones, which Waiting lists.
func (e *Engine) Parked(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, state eventhose.ParkedState, after eventhose.Sequence, limit int) ([]eventhose.Parked, error) {
	rows, err := e.store.Parked(ctx, tenant, sub, store.ParkedQuery{State: state, After: after, Limit: limit})
	parked := make([]eventhose.Parked, len(rows))
	for i, p := range rows {
		parked[i] = p.Parked
	}
	return parked, err
}

// waitingKeys are the blocked keys of a lane, by key.
type waitingKeys map[string]store.BlockedKey

func byKey(keys []store.BlockedKey) waitingKeys {
	w := make(waitingKeys, len(keys))
	for _, k := range keys {
		w[k.Key] = k
	}
	return w
}

// hold reports whether an event that is due waits behind an earlier one of its key.
func (w waitingKeys) hold(e *eventhose.Event) bool {
	k := w[e.Key]
	return k.First > 0 && e.Sequence >= k.First && e.Sequence <= k.Last
}

// Waiting lists the events that wait behind a parked one of their key by sequence, those after one. They are read again from
// the log. It looks at no more than about eventhose.MaxExamined events and for about eventhose.SearchTime; next is the place to
// go on from, 0 if nothing is left.
func (e *Engine) Waiting(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, after eventhose.Sequence, limit int) (list []eventhose.Parked, next eventhose.Sequence, err error) {
	until := time.Now().Add(eventhose.SearchTime)
	_, keys, err := e.store.Lane(ctx, tenant, sub)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, eventhose.NotFound("subscription")
	}
	s, subErr := e.lanes.Subscription(ctx, tenant, sub)
	if err = errors.Join(err, subErr); err != nil {
		return nil, 0, err
	}
	t := newTenant(e, tenant)
	compiled := t.use(s).filter
	held := byKey(keys)
	first, last := eventhose.Sequence(0), eventhose.Sequence(0)
	for _, k := range keys {
		if k.First > 0 && (first == 0 || k.First < first) {
			first = k.First
		}
		last = max(last, k.Last)
	}
	head, err := e.store.Head(ctx, tenant)
	if err != nil {
		return nil, 0, err
	}
	examined := 0
	for at := max(after, first-min(first, 1), head.First-1); at < last; {
		if examined >= eventhose.MaxExamined || examined > 0 && !time.Now().Before(until) {
			return list, at, nil
		}
		events, err := e.store.Read(ctx, tenant, at, readLimit)
		if errors.Is(err, store.ErrTrimmed) { // retention has gone on meanwhile
			if head, err = e.store.Head(ctx, tenant); err == nil && head.First-1 > at {
				at = head.First - 1
				continue
			}
		}
		if err != nil {
			return nil, 0, err
		}
		if len(events) == 0 {
			break
		}
		examined += len(events)
		for i, due := range t.matches(compiled, events) {
			ev := events[i]
			if due && held.hold(ev) {
				if len(list) == limit {
					return list, at, nil
				}
				list = append(list, eventhose.Parked{Event: ev.ID, Sequence: ev.Sequence, Type: ev.Type, Key: ev.Key,
					State: eventhose.ParkedWaiting, Since: ev.Appended})
			}
			at = ev.Sequence
		}
	}
	return list, 0, nil
}

// Deliveries tells what became of an event at each subscription that it concerns, at most 1,000. Attempts are told as long as they have
// about eventhose.MaxPageBytes together, and of each subscription the newest.
func (e *Engine) Deliveries(ctx context.Context, event eventhose.Event) ([]eventhose.Delivery, error) {
	subs, err := e.lanes.All(ctx, event.Tenant)
	if err != nil {
		return nil, err
	}
	t := newTenant(e, event.Tenant)
	deliveries, room := []eventhose.Delivery{}, eventhose.MaxPageBytes
	for _, s := range subs {
		if due := t.matches(t.use(s).filter, []*eventhose.Event{&event}); !due[0] {
			continue
		}
		d, concerned, err := e.delivery(ctx, event, s.ID)
		if err != nil {
			return nil, err
		}
		if concerned {
			d.Attempts, room = within(d.Attempts, room)
			deliveries = append(deliveries, d)
		}
		if len(deliveries) == 1000 {
			break
		}
	}
	return deliveries, nil
}

// within answers those of some attempts, newest first, that there is room for, and how much is left. The newest is always among them, if
// there is no room for it without what the receiver answered.
func within(list []eventhose.Attempt, room int) (fit []eventhose.Attempt, left int) {
	for i := range list {
		size := list[i].Size()
		if i > 0 && size > room {
			return slices.Clone(list[:i]), room
		}
		if size > room {
			newest := list[0]
			newest.ResponseHeaders, newest.ResponseBody = nil, ""
			return []eventhose.Attempt{newest}, room
		}
		room -= size
	}
	return list, room
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
	// What is parked is read before the attempts, so that the one that parked it is among them, and again if one took it: that may have been meanwhile.
	parked := store.ParkedQuery{After: event.Sequence - 1, Limit: 1}
	rows, err := e.store.Parked(ctx, event.Tenant, sub, parked)
	if err != nil {
		return d, false, err
	}
	if d.Attempts, err = e.store.Attempts(ctx, event.Tenant, store.AttemptQuery{Subscription: sub, Sequence: event.Sequence, Limit: 100}); err != nil {
		return d, false, err
	}
	if slices.ContainsFunc(d.Attempts, func(a eventhose.Attempt) bool { return a.Took(event.Sequence) }) {
		d.State = eventhose.DeliveryDelivered
		if len(rows) > 0 {
			if rows, err = e.store.Parked(ctx, event.Tenant, sub, parked); err != nil {
				return d, false, err
			}
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
