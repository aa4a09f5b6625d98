package embedded

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// tried is the row of an attempt by event. It says when the attempt can go: with the last of its events, or, for a test,
// by its age.
type tried struct {
	last    sequence
	started int64 // Unix seconds
}

func (t tried) encode() []byte {
	var w row.Writer
	w.Uint(uint64(t.last))
	w.Int(t.started)
	return w.B
}

func decodeTried(value []byte) (tried, error) {
	r := row.Reader{B: value}
	t := tried{last: sequence(r.Uint()), started: r.Int()}
	return t, r.Done()
}

func (w *laneWriter) putAttempt(ref store.LaneRef, a *eventhose.Attempt) {
	_ = w.b.Set(attemptKey(ref.Tenant, ref.Subscription, a.ID), row.EncodeAttempt(a), nil)
	_ = w.b.Set(recentKey(ref.Tenant, a.ID, ref.Subscription), nil, nil)
	when := tried{started: a.Started.Unix()}
	for _, seq := range a.Sequences {
		when.last = max(when.last, seq)
	}
	value := when.encode()
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
	case q.Sequence != 0:
		found, err = s.attemptsOfEvents(ctx, tenant, q)
	case q.Subscription == "":
		found, err = s.attemptsOfAll(ctx, tenant, q)
	default:
		found, err = s.attemptsOfLane(tenant, q)
	}
	if err != nil {
		return nil, err
	}
	return found, s.settled(lanes)
}

func (s *Store) attemptsOfLane(tenant tenantID, q store.AttemptQuery) (found []eventhose.Attempt, err error) {
	first, err := s.firstOf(tenant)
	if err != nil {
		return nil, err
	}
	lower := lanePrefix(spaceAttempt, tenant, q.Subscription, 0)
	from := append(lower[:len(lower):len(lower)], 0)
	if q.Before != "" {
		from = attemptKey(tenant, q.Subscription, q.Before)
	}
	err = s.scanFrom(lower, from, end(lower), func(key, value []byte) (bool, error) {
		id, ok := newestFirstID(key[len(lower):])
		attempts, err := row.DecodeRun(tenant, q.Subscription, id, value)
		if err != nil || !ok {
			return false, corrupt(fmt.Sprintf("attempt of lane %s of %s", q.Subscription, tenant), row.ErrMalformed)
		}
		for i := range attempts {
			if a := &attempts[i]; (q.Before == "" || a.ID < q.Before) && !trimmed(a, first) {
				if found = append(found, *a); len(found) == q.Limit {
					return false, nil
				}
			}
		}
		return true, nil
	})
	return found, err
}

// trimmed reports whether an attempt in a run went with the last of its events, while others of the run stay.
func trimmed(a *eventhose.Attempt, first sequence) bool {
	return len(a.Sequences) > 0 && slices.Max(a.Sequences) < first
}

func (s *Store) firstOf(tenant tenantID) (sequence, error) {
	st, err := s.state(tenant)
	if err != nil {
		return 0, err
	}
	defer s.release(st)
	first, _ := s.span(st)
	return first, nil
}

// tryOf is one attempt of an event, which is read, or the row that it is in.
type tryOf struct {
	sub subscriptionID
	id  string
	a   *eventhose.Attempt // of a run, else nil
}

// attemptsOfEvents answers those of one event, or of some in a row, at one subscription, or at all: it looks at all of these events'
// rows, and keeps the newest.
func (s *Store) attemptsOfEvents(ctx context.Context, tenant tenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	tries, err := s.triesOf(ctx, tenant, q)
	if err != nil {
		return nil, err
	}
	runs, err := s.runsOf(ctx, tenant, q)
	if err != nil {
		return nil, err
	}
	tries = append(tries, runs...)
	slices.SortFunc(tries, func(a, b tryOf) int {
		return cmp.Or(strings.Compare(b.id, a.id), cmp.Compare(a.sub, b.sub))
	})
	tries = slices.CompactFunc(tries, func(a, b tryOf) bool { return a.id == b.id && a.sub == b.sub }) // of several of the events
	var found []eventhose.Attempt
	for _, t := range tries {
		if t.a == nil {
			attempts, err := s.rowOf(tenant, t.sub, t.id)
			if errors.Is(err, pebble.ErrNotFound) {
				continue // the lane was deleted
			}
			if err != nil {
				return nil, err
			}
			t.a = &attempts[0]
		}
		if found = append(found, *t.a); len(found) == q.Limit {
			break
		}
	}
	return found, nil
}

// triesOf finds the attempts of events that have rows of their own.
func (s *Store) triesOf(ctx context.Context, tenant tenantID, q store.AttemptQuery) (tries []tryOf, err error) {
	for seq := q.Sequence; seq <= max(q.Sequence, q.Through) && err == nil; seq++ {
		lower := triedPrefix(tenant, seq, q.Subscription)
		err = s.scan(lower, end(lower), func(key, _ []byte) (bool, error) {
			sub, id, ok := lastOf(key[len(lower):], q.Subscription)
			if !ok {
				return false, corrupt("attempts by event of "+string(tenant), row.ErrMalformed)
			}
			if q.Before == "" || id < q.Before {
				tries = append(tries, tryOf{sub: sub, id: id})
			}
			return true, ctx.Err()
		})
	}
	return tries, err
}

// runsOf finds the attempts of events that are in runs. It reads each run once, which may have events of several blocks.
func (s *Store) runsOf(ctx context.Context, tenant tenantID, q store.AttemptQuery) (tries []tryOf, err error) {
	first, err := s.firstOf(tenant)
	if err != nil {
		return nil, err
	}
	last := max(q.Sequence, q.Through)
	seen := map[tryOf]bool{}
	for block := uint64(q.Sequence) >> runBlock; block <= uint64(last)>>runBlock && err == nil; block++ {
		lower := runPrefix(tenant, block, q.Subscription)
		err = s.scan(lower, end(lower), func(key, value []byte) (bool, error) {
			sub, newest, ok := lastOf(key[len(lower):], q.Subscription)
			run, err := decodeTriedRun(value)
			if err != nil || !ok {
				return false, corrupt("attempts by event of "+string(tenant), row.ErrMalformed)
			}
			if last < run.from || q.Sequence > run.to || seen[tryOf{sub: sub, id: newest}] {
				return true, ctx.Err()
			}
			seen[tryOf{sub: sub, id: newest}] = true
			attempts, err := s.rowOf(tenant, sub, newest)
			if errors.Is(err, pebble.ErrNotFound) {
				return true, nil // the lane was deleted
			}
			for i := range attempts {
				if a := &attempts[i]; q.About(a.Sequences) && (q.Before == "" || a.ID < q.Before) && !trimmed(a, first) {
					tries = append(tries, tryOf{sub: sub, id: a.ID, a: a})
				}
			}
			return true, err
		})
	}
	return tries, err
}

// lastOf reads the end of a key by event: a subscription, unless it is known, and the id of an attempt.
func lastOf(rest []byte, known subscriptionID) (sub subscriptionID, id string, ok bool) {
	sub = known
	if known == "" {
		var name []byte
		if name, rest, ok = bytes.Cut(rest, []byte{0}); !ok {
			return "", "", false
		}
		sub = subscriptionID(name)
	}
	id, ok = newestFirstID(rest)
	return sub, id, ok
}
