package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Refused is the type of the system event that names an event which an application appended in its own transaction and
// which could not have a place, since its id has another event in the log.
const Refused = "eventhose.append.refused"

// placeEvents is how many events get their places at once. Of fewer there may be more if they have placeBytes of data.
const (
	placeEvents = 500
	placeBytes  = 1 << 20
)

// placeTries is how often in a row a log is found held before others have their turns.
const placeTries = 5

// Unplaced hints that there may be events to place. It does not block.
func (l *Log) Unplaced() {
	select {
	case l.place <- struct{}{}:
	default:
	}
}

// RunPlacing gives the events that applications append in their own transactions their places, each time that Unplaced was called and
// every interval, for the tenants that this node owns, until ctx ends. Failures are logged and tried again.
func (l *Log) RunPlacing(ctx context.Context, st store.Placing, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		more, err := l.placeAll(ctx, st)
		if err != nil && ctx.Err() == nil {
			l.logger.Error("events of applications' transactions wait for their places", "error", err)
		}
		if more && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-l.place:
		case <-tick.C:
		}
	}
}

// placeAll gives every tenant one turn, and reports whether one of them has more: an application that appends very much, or all the time, to one
// log keeps no other's events from their places.
func (l *Log) placeAll(ctx context.Context, st store.Placing) (more bool, err error) {
	var failed []error // nor does one tenant's trouble
	for after := eventhose.TenantID(""); ; {
		tenants, err := st.UnplacedTenants(ctx, after, 1000)
		if err != nil {
			return more, err
		}
		for _, t := range tenants {
			if after = t; !l.owns(t) {
				continue
			}
			left, err := l.placeOf(ctx, st, t)
			if err != nil && len(failed) < 10 {
				failed = append(failed, err)
			}
			more = more || left
		}
		if len(tenants) < 1000 {
			return more, errors.Join(failed...)
		}
	}
}

// placeOf places what one tenant has waiting, at most placeEvents, and reports whether there may be more.
func (l *Log) placeOf(ctx context.Context, st store.Placing, tenant eventhose.TenantID) (more bool, err error) {
	t, err := l.tenants.Tenant(ctx, tenant)
	if err != nil {
		return false, err
	}
	list, err := st.Unplaced(ctx, tenant, placeEvents)
	if err != nil || len(list) == 0 {
		return false, err
	}
	entries, rows := make([]store.Append, len(list)), make([]int64, len(list))
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i, u := range list {
		e := u.Event
		var digest [16]byte
		if e.ID != "" {
			digest = digestOf(&e)
		}
		if e.Time.IsZero() {
			e.Time = e.Appended.UTC()
		}
		e.Appended = now
		entries[i] = store.Append{Tenant: tenant, Parent: t.Parent, Events: []store.NewEvent{{Event: e, Digest: digest}}}
		rows[i] = u.Row
	}
	results, done, err := placeNow(ctx, st, entries, rows)
	if err != nil {
		return false, wrap(err, "place events of applications' transactions")
	}
	if !done { // another node has been here; what is left is read again
		return true, nil
	}
	l.commits.appended(tenant)
	if t.Parent != "" {
		l.commits.appended(t.Parent)
	}
	var refused []store.Unplaced
	bytes := 0
	for i, r := range results {
		bytes += len(list[i].Event.Data)
		switch {
		case r.Err == nil:
			l.count(&entries[i], r)
		case errors.Is(r.Err, store.ErrDifferent):
			refused = append(refused, list[i])
		default:
			err = r.Err
		}
	}
	if err != nil {
		return false, wrap(err, "place events of applications' transactions")
	}
	if len(refused) > 0 {
		if done, err := l.refuse(ctx, st, t, refused); err != nil || !done {
			return !done && err == nil, err
		}
	}
	return len(list) >= placeEvents/10 || bytes >= placeBytes, nil // else more may have come, but then a hint did, too
}

// placeNow places entries unless somebody holds their log for long: then they have their next turn, and hold up no others.
func placeNow(ctx context.Context, st store.Placing, entries []store.Append, rows []int64) (results []store.AppendResult, done bool, err error) {
	for i := range entries {
		entries[i].Skip = true
	}
	for range placeTries {
		if results, done, err = st.Place(ctx, entries, rows); !errors.Is(err, store.ErrBusy) {
			break
		}
	}
	return results, done, err
}

// refuse puts system events into the places of rows that cannot have one. As the rows go in the same commit, whoever appended
// them is told, and once. It reports false if another node has done so.
func (l *Log) refuse(ctx context.Context, st store.Placing, t eventhose.Tenant, refused []store.Unplaced) (bool, error) {
	entries, rows := make([]store.Append, len(refused)), make([]int64, len(refused))
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i, u := range refused {
		body, err := json.Marshal(map[string]string{"id": u.Event.ID, "type": u.Event.Type,
			"reason": "an event with this id and other content is in the log"})
		if err != nil {
			return false, err
		}
		e := eventhose.Event{Tenant: t.ID, Type: Refused, Data: body, Time: now, Appended: now}
		entries[i] = store.Append{Tenant: t.ID, Parent: t.Parent, Events: []store.NewEvent{{Event: e}}}
		rows[i] = u.Row
	}
	results, done, err := placeNow(ctx, st, entries, rows)
	if err != nil {
		return false, wrap(err, "tell of refused events of applications' transactions")
	}
	if !done {
		return false, nil
	}
	l.commits.appended(t.ID)
	if t.Parent != "" {
		l.commits.appended(t.Parent)
	}
	for i, r := range results {
		l.count(&entries[i], r)
	}
	return true, nil
}
