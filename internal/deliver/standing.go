package deliver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// standingReaders is how many lanes are looked at at once when many are.
const standingReaders = 8

// Status tells where a subscription's delivery stands.
func (e *Engine) Status(ctx context.Context, s eventhose.Subscription) (eventhose.LaneStatus, error) {
	list, err := e.Statuses(ctx, s.Tenant, []eventhose.Subscription{s})
	if err != nil {
		return eventhose.LaneStatus{}, err
	}
	if list[0] == nil {
		return eventhose.LaneStatus{}, eventhose.NotFound("subscription")
	}
	return *list[0], nil
}

// Statuses tells where delivery of several subscriptions of one tenant stands, in their order; nil for one that is there no more.
func (e *Engine) Statuses(ctx context.Context, tenant eventhose.TenantID, subs []eventhose.Subscription) ([]*eventhose.LaneStatus, error) {
	head, err := e.store.Head(ctx, tenant)
	if err != nil {
		return nil, err
	}
	matched, err := e.matchedTo(ctx, tenant)
	if err != nil {
		return nil, err
	}
	list := make([]*eventhose.LaneStatus, len(subs))
	err = eachOf(len(subs), func(i int) error {
		st, err := e.status(ctx, subs[i], head, matched)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		list[i] = st
		return err
	})
	return list, err
}

func (e *Engine) status(ctx context.Context, s eventhose.Subscription, head eventhose.Head, matched eventhose.Sequence) (*eventhose.LaneStatus, error) {
	row, sending, blocked, err := e.standingAt(ctx, s.Tenant, s.ID, matched)
	if err != nil {
		return nil, err
	}
	leased, err := e.countLeased(ctx, s, row)
	if err != nil {
		return nil, err
	}
	st := &eventhose.LaneStatus{Cursor: head.Cursor(row.Cursor), InFlight: sending, Retrying: max(0, row.Retrying-leased), Leased: leased, BlockedKeys: blocked,
		Waiting: row.Waiting, Dead: row.Dead, Circuit: "closed", FailingSince: row.FailingSince, LastSuccess: row.LastSuccess, Next: row.Due, Replays: row.Replays}
	if row.Cursor < head.Last {
		st.Lag = uint64(head.Last - row.Cursor)
	}
	if row.Open {
		st.Circuit = "open"
	}
	if st.Next.Equal(store.LongDue) { // nothing is tried then
		st.Next = time.Time{}
	}
	return st, nil
}

// matchedTo is how far a log is matched by what is stored. It is read before the rows of lanes: one that is not behind after
// that was settled so far.
func (e *Engine) matchedTo(ctx context.Context, tenant eventhose.TenantID) (eventhose.Sequence, error) {
	matcher, _, err := e.store.Lane(ctx, tenant, "")
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return matcher.Cursor, err
}

// standing is a lane's row as it is at this moment. CodeNotFound.
func (e *Engine) standing(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (store.Lane, error) {
	matched, err := e.matchedTo(ctx, tenant)
	if err != nil {
		return store.Lane{}, err
	}
	row, _, _, err := e.standingAt(ctx, tenant, sub, matched)
	if errors.Is(err, store.ErrNotFound) {
		return row, eventhose.NotFound("subscription")
	}
	return row, err
}

// standingAt is a lane's row as it is at this moment, with how many attempts are under way and how many keys are blocked: as
// it is in memory, or as it is stored if it is not here. matched is how far the log was matched before.
func (e *Engine) standingAt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, matched eventhose.Sequence) (row store.Lane, sending, blocked int, err error) {
	row, keys, err := e.store.Lane(ctx, tenant, sub)
	if err != nil {
		return row, 0, 0, err
	}
	e.mu.Lock()
	t := e.tenants[tenant]
	e.mu.Unlock()
	if t != nil && t.term.lasts(time.Now()) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if l := t.lanes[sub]; l != nil && l.loaded {
			return l.row(), l.sending, len(l.keys), nil
		}
		matched = max(matched, t.matched)
	}
	if !row.Behind {
		row.Cursor = max(row.Cursor, matched)
	}
	return row, 0, len(keys), nil
}

// Oldest finds the event that has waited longest to be delivered to one of some subscriptions of a tenant, whose statuses are given:
// the first behind a cursor or the first that is tried again, and when it was appended. Held subscriptions are left out, and
// what waits behind dead events. The time is zero if nothing waits.
func (e *Engine) Oldest(ctx context.Context, tenant eventhose.TenantID, subs []eventhose.Subscription, statuses []*eventhose.LaneStatus) (eventhose.SubscriptionID, time.Time, error) {
	head, err := e.store.Head(ctx, tenant)
	if err != nil {
		return "", time.Time{}, err
	}
	first := make([]eventhose.Sequence, len(subs)) // 0: nothing waits
	err = eachOf(len(subs), func(i int) error {
		st := statuses[i]
		if st == nil || subs[i].State != eventhose.StateActive {
			return nil
		}
		if st.Lag > 0 {
			first[i] = max(st.Cursor.Sequence+1, head.First)
		}
		if st.Retrying == 0 {
			return nil
		}
		rows, err := e.store.Parked(ctx, tenant, subs[i].ID, store.ParkedQuery{State: eventhose.ParkedRetrying, Limit: 1})
		if err == nil && len(rows) > 0 && (first[i] == 0 || rows[0].Sequence < first[i]) {
			first[i] = rows[0].Sequence
		}
		return err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	oldest := -1
	for i, seq := range first {
		if seq > 0 && (oldest < 0 || seq < first[oldest]) {
			oldest = i
		}
	}
	if oldest < 0 {
		return "", time.Time{}, nil
	}
	event, err := e.store.Lookup(ctx, tenant, store.Ref{Sequence: first[oldest]})
	if errors.Is(err, store.ErrNotFound) { // retention has taken it meanwhile
		return "", time.Time{}, nil
	}
	if err != nil {
		return "", time.Time{}, err
	}
	return subs[oldest].ID, event.Appended, nil
}

// eachOf calls do for each of n, several at once, and answers one of the errors; after the first no more are begun.
func eachOf(n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Bool
	var workers sync.WaitGroup
	errs := make([]error, min(n, standingReaders))
	for w := range errs {
		workers.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					errs[w] = err
					failed.Store(true)
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}
