package embedded

// Lists over all lanes of a tenant. Attempts lie by lane, newest first, so those of all are merged: a look at where each lane
// goes on, two steps of one iterator, and from there only what is answered is read. An index would cost each
// commit a row more for a list that only people ask for.

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// lanesAttempts is one lane in the merge, at its newest row that is not answered yet.
type lanesAttempts struct {
	lower []byte // what its keys begin with
	key   []byte // of the row
	// newest is the id of the next attempt, or, of a row that is not read yet, one that is no less.
	newest string
	read   bool
	rest   []eventhose.Attempt // of the row
}

// merge orders lanes by their newest attempts.
type merge []*lanesAttempts

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return m[i].newest > m[j].newest }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)        { *m = append(*m, x.(*lanesAttempts)) }
func (m *merge) Pop() any {
	old := *m
	l := old[len(old)-1]
	*m = old[:len(old)-1]
	return l
}

func (s *Store) attemptsOfAll(ctx context.Context, tenant tenantID, q store.AttemptQuery) (found []eventhose.Attempt, err error) {
	first, err := s.firstOf(tenant)
	if err != nil {
		return nil, err
	}
	space := prefix(spaceAttempt, tenant, 0)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: space, UpperBound: end(space)})
	if err != nil {
		return nil, s.readError(err)
	}
	defer func() {
		if closing := it.Close(); err == nil && closing != nil {
			err = s.readError(closing)
		}
	}()
	m, err := s.attemptLanes(ctx, it, space, tenant, q.Before)
	if err != nil {
		return nil, err
	}
	for len(m) > 0 && len(found) < q.Limit {
		l := m[0]
		switch {
		case !l.read:
			if err := s.readRow(it, tenant, l, q.Before, first); err != nil {
				return nil, err
			}
		case len(l.rest) > 0:
			found, l.rest = append(found, l.rest[0]), l.rest[1:]
		}
		more := true
		if l.read && len(l.rest) == 0 {
			l.read = false
			more, err = l.stand(it, it.SeekGE(append(l.key[:len(l.key):len(l.key)], 0)))
		} else {
			l.newest = l.rest[0].ID
		}
		switch {
		case err != nil:
			return nil, err
		case more:
			heap.Fix(&m, 0)
		default:
			heap.Pop(&m)
		}
	}
	return found, nil
}

// attemptLanes answers a tenant's lanes that have attempts before an id ("" is all), ordered for the merge.
func (s *Store) attemptLanes(ctx context.Context, it *pebble.Iterator, space []byte, tenant tenantID, before string) (merge, error) {
	var m merge
	for ok := it.SeekGE(space); ok; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sub, _, split := bytes.Cut(it.Key()[len(space):], []byte{0})
		if !split {
			return nil, corrupt("attempts of "+string(tenant), row.ErrMalformed)
		}
		l := &lanesAttempts{lower: lanePrefix(spaceAttempt, tenant, subscriptionID(sub), 0)}
		if before != "" {
			// The row before the place may hold older attempts too: a run stands where its newest one does.
			if ok = it.SeekLT(append(attemptKey(tenant, subscriptionID(sub), before), 0)); !ok || bytes.Compare(it.Key(), l.lower) < 0 {
				ok = it.SeekGE(l.lower)
			}
		}
		more, err := l.stand(it, ok)
		if err != nil {
			return nil, err
		}
		if more {
			m = append(m, l)
		}
		ok = it.SeekGE(end(l.lower))
	}
	if err := it.Error(); err != nil {
		return nil, s.readError(err)
	}
	heap.Init(&m)
	return m, nil
}

// stand takes note of the row that the iterator is at, and reports whether it is one of the lane's.
func (l *lanesAttempts) stand(it *pebble.Iterator, ok bool) (bool, error) {
	if !ok || !bytes.HasPrefix(it.Key(), l.lower) {
		return false, nil
	}
	l.key = append(l.key[:0], it.Key()...)
	if l.newest, ok = newestFirstID(l.key[len(l.lower):]); !ok {
		return false, corrupt("the key of an attempt", row.ErrMalformed)
	}
	return true, nil
}

// readRow reads the lane's row, what of it is before an id and not trimmed.
func (s *Store) readRow(it *pebble.Iterator, tenant tenantID, l *lanesAttempts, before string, first sequence) error {
	if l.read = true; !it.SeekGE(l.key) {
		l.rest = nil // Close tells why
		return nil
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return s.readError(err)
	}
	sub := subscriptionID(l.lower[len(prefix(spaceAttempt, tenant, 0)) : len(l.lower)-1])
	attempts, err := row.DecodeRun(tenant, sub, l.newest, value)
	if err != nil {
		return corrupt(fmt.Sprintf("attempt %s of lane %s of %s", l.newest, sub, tenant), err)
	}
	l.rest = attempts[:0]
	for i := range attempts {
		if a := &attempts[i]; (before == "" || a.ID < before) && !trimmed(a, first) {
			l.rest = append(l.rest, *a)
		}
	}
	return nil
}

// parkedOfAll goes through the rows by event, which say who has parked what.
func (s *Store) parkedOfAll(ctx context.Context, tenant tenantID, q store.ParkedQuery) ([]store.Parked, error) {
	space := prefix(spaceParkedAt, tenant, 0)
	lower := seqKey(spaceParkedAt, tenant, q.After+1)
	if q.AfterSubscription != "" {
		lower = append(parkedAtKey(tenant, q.After, q.AfterSubscription), 0)
	}
	var rows []store.Parked
	err := s.scan(lower, end(space), func(key, _ []byte) (bool, error) {
		seq, ok := seqAt(key, len(space))
		if !ok {
			return false, corrupt("parked rows by event of "+string(tenant), row.ErrMalformed)
		}
		sub := subscriptionID(key[len(space)+8:])
		value, err := s.get(parkedKey(tenant, sub, seq))
		if errors.Is(err, pebble.ErrNotFound) {
			return true, ctx.Err() // it was settled since this began
		}
		if err != nil {
			return false, err
		}
		p, err := row.DecodeParked(seq, value)
		if err != nil {
			return false, corrupt(fmt.Sprintf("parked row of lane %s of %s", sub, tenant), row.ErrMalformed)
		}
		if p.Subscription = sub; q.State == "" || p.State == q.State {
			rows = append(rows, p)
		}
		return len(rows) < q.Limit, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return rows, s.settled(lanes)
}
