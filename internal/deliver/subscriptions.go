package deliver

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"maps"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
)

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

// refresh looks again at the subscriptions that were changed.
func (t *tenant) refresh(ctx context.Context) error {
	t.mu.Lock()
	changes, all := t.changes, t.lookAgain
	t.changes, t.lookAgain = nil, false
	t.mu.Unlock()
	if all {
		differing, err := t.differing(ctx)
		if err != nil {
			t.mu.Lock()
			t.changes, t.lookAgain = append(t.changes, changes...), true
			t.mu.Unlock()
			return err
		}
		changes = append(changes, differing...)
	}
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

// differing are the subscriptions of which another version is here than is stored.
func (t *tenant) differing(ctx context.Context) ([]eventhose.SubscriptionID, error) {
	subs, err := t.engine.lanes.All(ctx, t.id)
	if err != nil && eventhose.CodeOf(err) != eventhose.CodeNotFound {
		return nil, err
	}
	var differing []eventhose.SubscriptionID
	stored := make(map[eventhose.SubscriptionID]bool, len(subs))
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range subs {
		id := subs[i].ID
		stored[id] = true
		if known := t.subs[id]; known == nil || known.Version != subs[i].Version {
			differing = append(differing, id)
		}
	}
	for id := range t.subs {
		if !stored[id] {
			differing = append(differing, id)
		}
	}
	return differing, nil
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
	if t.evicted {
		return
	}
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
	if was.active() != l.sub.active() || !sameFilter(was.Filter, s.Filter) {
		l.rescan()
		l.change()
	}
	if was.MaxRate != l.sub.MaxRate {
		l.paced = time.Time{}
	}
	if was.Batch != l.sub.Batch {
		l.regroup()
	}
	t.tellWants(s.ID)
	if l.sub.active() && (!was.active() || !sameDestination(&was.Destination, &l.sub.Destination)) {
		// A person wants it to go on, or to go elsewhere, of which nothing is known yet: try at once.
		l.circuit.nextProbe, l.hold, l.circuit.failingSince = time.Now(), time.Time{}, time.Time{}
		l.change()
	}
	l.update()
}

func sameDestination(a, b *eventhose.Destination) bool {
	return a.Type == b.Type && a.URL == b.URL && a.Signature == b.Signature && a.Format == b.Format && a.Compression == b.Compression &&
		maps.EqualFunc(a.Headers, b.Headers, func(x, y eventhose.Secret) bool {
			return subtle.ConstantTimeCompare([]byte(x), []byte(y)) == 1
		})
}

func sameFilter(a, b eventhose.Filter) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}
