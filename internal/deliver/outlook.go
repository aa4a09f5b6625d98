package deliver

// What became of many events, for lists. It is told from where each lane stands and from what is parked; attempts are not
// read. Of a lane in memory everything is known at once. A tenant that is in memory keeps only lanes that have something to do, so
// of the others only parked rows are asked for, and blocked keys where there can be any.

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// maxOutlook is how many of a tenant's subscriptions are looked at, the first by id.
	maxOutlook = 1000
	// outlooks is how many lanes are read at once.
	outlooks = 16
)

// outlook is where a tenant's deliveries stand. It is used by one goroutine.
type outlook struct {
	engine *Engine
	tenant eventhose.TenantID
	subs   map[eventhose.SubscriptionID]*subscription
	index  *filter.Index
	// matched is how far the log is matched, as the store has it; it was read before any lane.
	matched eventhose.Sequence
	// rests is, of lanes that have nothing to do, how far the log was matched when that was so.
	rests map[eventhose.SubscriptionID]eventhose.Sequence
	// stored are the lanes that were read from the store, nil for one that there is not.
	stored map[eventhose.SubscriptionID]*storedLane
}

type storedLane struct {
	row  store.Lane
	keys []store.BlockedKey
}

// aside is one event at one subscription.
type aside struct {
	sequence     eventhose.Sequence
	subscription eventhose.SubscriptionID
}

// Outlook answers what counts, for events of a tenant's log, at how many subscriptions which of the states is theirs; whole is
// false if the tenant has more subscriptions than are looked at. count may be called several times, for what belongs to one
// answer, by one goroutine.
func (e *Engine) Outlook(ctx context.Context, tenant eventhose.TenantID) (count func(context.Context, []eventhose.Event) ([]eventhose.DeliveryCounts, error), whole bool, err error) {
	subs, err := e.subscriptionsOf(ctx, tenant)
	if err != nil {
		return nil, false, err
	}
	if whole = len(subs) <= maxOutlook; !whole {
		slices.SortFunc(subs, func(a, b *subscription) int { return cmp.Compare(a.ID, b.ID) })
		subs = subs[:maxOutlook]
	}
	matcher, _, err := e.store.Lane(ctx, tenant, "")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, false, err
	}
	o := &outlook{engine: e, tenant: tenant, index: filter.NewIndex(), matched: matcher.Cursor,
		subs: make(map[eventhose.SubscriptionID]*subscription, len(subs)), rests: map[eventhose.SubscriptionID]eventhose.Sequence{}, stored: map[eventhose.SubscriptionID]*storedLane{}}
	for _, s := range subs {
		o.subs[s.ID] = s
		o.index.Add(s.ID, s.filter)
	}
	return o.count, whole, nil
}

// subscriptionsOf answers a tenant's subscriptions with their filters: those in memory, if it is there and none was changed.
func (e *Engine) subscriptionsOf(ctx context.Context, id eventhose.TenantID) ([]*subscription, error) {
	if t := e.here(id); t != nil {
		fresh := len(t.changes) == 0 && !t.lookAgain
		subs := make([]*subscription, 0, len(t.subs))
		for _, s := range t.subs {
			subs = append(subs, s)
		}
		t.mu.Unlock()
		if fresh {
			return subs, nil
		}
	}
	all, err := e.lanes.All(ctx, id)
	if err != nil {
		return nil, err
	}
	t := newTenant(e, id)
	subs := make([]*subscription, len(all))
	for i := range all {
		subs[i] = t.use(all[i])
	}
	return subs, nil
}

// here answers a tenant that is in memory, knows its subscriptions, and is this node's, with its mutex held; else nil.
func (e *Engine) here(id eventhose.TenantID) *tenant {
	e.mu.Lock()
	t := e.tenants[id]
	e.mu.Unlock()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	if t.evicted || !t.loaded || !t.term.lasts(time.Now()) {
		t.mu.Unlock()
		return nil
	}
	return t
}

func (o *outlook) count(ctx context.Context, events []eventhose.Event) ([]eventhose.DeliveryCounts, error) {
	counts := make([]eventhose.DeliveryCounts, len(events))
	var due []at
	for i := range events {
		o.index.Match(filter.NewView(&events[i]), func(sub eventhose.SubscriptionID, _ error) { // what cannot be decided is handed over
			due = append(due, at{&events[i], &counts[i], sub})
		})
	}
	due, unread := o.inMemory(due)
	if len(due) == 0 {
		return counts, nil
	}
	// Where a lane stands is read before what is parked: what is parked later was not settled then.
	if err := o.read(ctx, unread); err != nil {
		return nil, err
	}
	parked, err := o.parked(ctx, due)
	if err != nil {
		return nil, err
	}
	for _, d := range due {
		if state, is := parked[aside{d.event.Sequence, d.sub}]; is {
			d.add(string(state))
		} else {
			d.add(o.settled(d))
		}
	}
	return counts, nil
}

// at is an event, its counts, and a subscription that wants it.
type at struct {
	event  *eventhose.Event
	counts *eventhose.DeliveryCounts
	sub    eventhose.SubscriptionID
}

// add counts a state: a ParkedState, DeliveryPending, DeliveryDelivered, or "" for one that does not concern the subscription.
func (d at) add(state string) {
	c := d.counts
	switch state {
	case eventhose.DeliveryDelivered:
		c.Taken++
	case eventhose.DeliveryPending, string(eventhose.ParkedLeased):
		c.Pending++
	case string(eventhose.ParkedRetrying):
		c.Retrying++
	case string(eventhose.ParkedWaiting):
		c.Waiting++
	case string(eventhose.ParkedDead):
		c.Dead++
	}
}

// inMemory counts what is known in memory, and answers the rest, and of which lanes the rows are to be read for that.
func (o *outlook) inMemory(due []at) (rest []at, unread map[eventhose.SubscriptionID]bool) {
	unread = map[eventhose.SubscriptionID]bool{}
	t := o.engine.here(o.tenant)
	if t != nil {
		defer t.mu.Unlock()
	}
	for _, d := range due {
		if t != nil {
			l, s := t.lanes[d.sub], t.subs[d.sub]
			switch {
			case l != nil && l.loaded && !l.gone:
				d.add(l.became(d.event))
				continue
			case l == nil && s != nil && d.event.Sequence > t.matched:
				d.add(eventhose.DeliveryPending)
				continue
			case l == nil && s != nil:
				o.rests[d.sub] = t.matched
				if !o.maybeWaits(d) && !o.maybeBefore(d) {
					rest = append(rest, d)
					continue
				}
			}
		}
		rest = append(rest, d)
		if _, is := o.stored[d.sub]; !is {
			unread[d.sub] = true
		}
	}
	return rest, unread
}

// maybeWaits reports whether an event can be waiting behind a parked one of its key.
func (o *outlook) maybeWaits(d at) bool {
	return d.event.Key != "" && o.subs[d.sub].Ordering == eventhose.OrderingKey
}

// maybeBefore reports whether an event may be from before the subscription's beginning, by clocks that may differ.
func (o *outlook) maybeBefore(d at) bool {
	return d.event.Appended.Before(o.subs[d.sub].Created.Add(time.Minute))
}

// read reads lanes from the store.
func (o *outlook) read(ctx context.Context, unread map[eventhose.SubscriptionID]bool) error {
	if len(unread) == 0 {
		return nil
	}
	next := make(chan eventhose.SubscriptionID)
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for range min(outlooks, len(unread)) {
		all.Go(func() {
			for sub := range next {
				row, keys, err := o.engine.store.Lane(ctx, o.tenant, sub)
				mu.Lock()
				switch {
				case err == nil:
					o.stored[sub] = &storedLane{row, keys}
				case errors.Is(err, store.ErrNotFound):
					o.stored[sub] = nil
				default:
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	for sub := range unread {
		next <- sub
	}
	close(next)
	all.Wait()
	return failed
}

// parkedStep is how many rows are read at once.
const parkedStep = 256

// parked answers the states of those events that are parked.
func (o *outlook) parked(ctx context.Context, due []at) (map[aside]eventhose.ParkedState, error) {
	places := make([]eventhose.Sequence, len(due))
	for i, d := range due {
		places[i] = d.event.Sequence
	}
	slices.Sort(places)
	states := map[aside]eventhose.ParkedState{}
	for places = slices.Compact(places); len(places) > 0; {
		q := store.ParkedQuery{After: places[0] - 1, Limit: parkedStep}
		for {
			rows, err := o.engine.store.Parked(ctx, o.tenant, "", q)
			if err != nil {
				return nil, err
			}
			for _, p := range rows {
				states[aside{p.Sequence, p.Subscription}] = p.State
				q.After, q.AfterSubscription = p.Sequence, p.Subscription
			}
			if len(rows) < parkedStep {
				return states, nil
			}
			for len(places) > 0 && places[0] < q.After {
				places = places[1:]
			}
			if len(places) == 0 || places[0] > q.After {
				break // there may be much in between that nobody asks for
			}
		}
	}
	return states, nil
}

// settled is the state of an event that is not parked.
func (o *outlook) settled(d at) string {
	seq := d.event.Sequence
	l, read := o.stored[d.sub]
	switch {
	case !read: // it rests, and began before the event
		return eventhose.DeliveryDelivered
	case l == nil || seq <= l.row.Began:
		return ""
	}
	for i := range l.keys {
		if k := &l.keys[i]; k.Key == d.event.Key && d.event.Key != "" && k.First > 0 && seq >= k.First && seq <= k.Last {
			return string(eventhose.ParkedWaiting)
		}
	}
	cursor := l.row.Cursor
	if !l.row.Behind {
		cursor = max(cursor, o.matched)
	}
	if seq <= max(cursor, o.rests[d.sub]) {
		return eventhose.DeliveryDelivered
	}
	if _, is := slices.BinarySearch(l.row.Settled, seq); is {
		return eventhose.DeliveryDelivered
	}
	return eventhose.DeliveryPending
}

// became is the state of an event that the lane's filter wants. t.mu is held.
func (l *lane) became(e *eventhose.Event) string {
	seq := e.Sequence
	if p := l.parked[seq]; p != nil {
		return string(p.State)
	}
	cursor, _ := l.position()
	switch {
	case l.dead[seq]:
		return string(eventhose.ParkedDead)
	case seq <= l.began:
		return ""
	case e.Key != "" && l.waits(e):
		return string(eventhose.ParkedWaiting)
	case seq <= cursor || l.settled[seq]:
		return eventhose.DeliveryDelivered
	}
	if i, is := slices.BinarySearchFunc(l.window, seq, func(n *entry, seq eventhose.Sequence) int { return cmp.Compare(n.seq, seq) }); is && l.window[i].done {
		return eventhose.DeliveryDelivered
	}
	return eventhose.DeliveryPending
}
