package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// tried is the row of an attempt by event. It says when the attempt can go: with the last of its events, or, for a test,
// by its age.
type tried struct {
	last    sequence
	started int64 // Unix seconds
}

func (t tried) encode() []byte {
	var w writer
	w.uint(uint64(t.last))
	w.int(t.started)
	return w.b
}

func decodeTried(value []byte) (tried, error) {
	r := reader{b: value}
	t := tried{last: sequence(r.uint()), started: r.int()}
	return t, r.done()
}

func (w *laneWriter) putAttempt(ref store.LaneRef, a *eventhose.Attempt) {
	_ = w.b.Set(attemptKey(ref.Tenant, ref.Subscription, a.ID), encodeAttempt(a), nil)
	row := tried{started: a.Started.Unix()}
	for _, seq := range a.Sequences {
		row.last = max(row.last, seq)
	}
	value := row.encode()
	if len(a.Sequences) == 0 {
		_ = w.b.Set(triedKey(ref.Tenant, 0, ref.Subscription, a.ID), value, nil)
	}
	for _, seq := range a.Sequences {
		_ = w.b.Set(triedKey(ref.Tenant, seq, ref.Subscription, a.ID), value, nil)
	}
}

// Attempts implements store.Lanes.
func (s *Store) Attempts(ctx context.Context, tenant tenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if q.Limit <= 0 {
		return nil, nil
	}
	var found []eventhose.Attempt
	var err error
	switch {
	case q.Sequence == 0:
		found, err = s.attemptsOfLane(tenant, q)
	case q.Subscription != "":
		found, err = s.attemptsOfEvent(tenant, q)
	default:
		found, err = s.attemptsEverywhere(ctx, tenant, q)
	}
	if err != nil {
		return nil, err
	}
	return found, s.settled(lanes)
}

func (s *Store) attemptsOfLane(tenant tenantID, q store.AttemptQuery) (found []eventhose.Attempt, err error) {
	lower := lanePrefix(spaceAttempt, tenant, q.Subscription, 0)
	from := lower
	if q.Before != "" {
		from = append(attemptKey(tenant, q.Subscription, q.Before), 0)
	}
	err = s.scan(from, end(lower), func(key, value []byte) (bool, error) {
		id, ok := newestFirstID(key[len(lower):])
		a, err := decodeAttempt(tenant, q.Subscription, id, value)
		if err != nil || !ok {
			return false, corrupt(fmt.Sprintf("attempt of lane %s of %s", q.Subscription, tenant), errMalformed)
		}
		found = append(found, a)
		return len(found) < q.Limit, nil
	})
	return found, err
}

// attemptsOfEvent answers those of one event at one subscription.
func (s *Store) attemptsOfEvent(tenant tenantID, q store.AttemptQuery) (found []eventhose.Attempt, err error) {
	lower := triedPrefix(tenant, q.Sequence, q.Subscription)
	from := lower
	if q.Before != "" {
		from = append(triedKey(tenant, q.Sequence, q.Subscription, q.Before), 0)
	}
	err = s.scan(from, end(lower), func(key, _ []byte) (bool, error) {
		id, ok := newestFirstID(key[len(lower):])
		if !ok {
			return false, corrupt("attempts by event of "+string(tenant), errMalformed)
		}
		a, err := s.attempt(tenant, q.Subscription, id)
		if errors.Is(err, store.ErrNotFound) {
			return true, nil // the lane was deleted
		}
		if err == nil {
			found = append(found, a)
		}
		return len(found) < q.Limit, err
	})
	return found, err
}

// attemptsEverywhere answers those of one event at all subscriptions: it looks at all of that event's rows, and keeps
// the newest.
func (s *Store) attemptsEverywhere(ctx context.Context, tenant tenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	lower := triedPrefix(tenant, q.Sequence, "")
	type place struct {
		sub subscriptionID
		id  string
	}
	newer := func(a, b place) int {
		return -strings.Compare(a.id, b.id)
	}
	var places []place
	err := s.scan(lower, end(lower), func(key, _ []byte) (bool, error) {
		sub, rest, _ := bytes.Cut(key[len(lower):], []byte{0})
		id, ok := newestFirstID(rest)
		if !ok {
			return false, corrupt("attempts by event of "+string(tenant), errMalformed)
		}
		if q.Before == "" || id < q.Before {
			places = append(places, place{subscriptionID(sub), id})
		}
		return true, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(places, newer)
	var found []eventhose.Attempt
	for _, p := range places {
		a, err := s.attempt(tenant, p.sub, p.id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if found = append(found, a); len(found) == q.Limit {
			break
		}
	}
	return found, nil
}

func (s *Store) attempt(tenant tenantID, sub subscriptionID, id string) (eventhose.Attempt, error) {
	value, err := s.get(attemptKey(tenant, sub, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return eventhose.Attempt{}, store.ErrNotFound
	}
	if err != nil {
		return eventhose.Attempt{}, err
	}
	a, err := decodeAttempt(tenant, sub, id, value)
	if err != nil {
		return a, corrupt(fmt.Sprintf("attempt %s of lane %s of %s", id, sub, tenant), err)
	}
	return a, nil
}
