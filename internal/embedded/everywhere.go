package embedded

// Lists over all lanes of a tenant. Attempts lie by lane, so there is a row by time for each attempt, or run, that names its
// lane. A run stands there by its newest attempt, and those of different lanes overlap, by no more than the time that a run may
// take: what is newer than the next row is known.

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

// newest is a heap of attempts, the newest first.
type newest []eventhose.Attempt

func (n newest) Len() int           { return len(n) }
func (n newest) Less(i, j int) bool { return n[i].ID > n[j].ID }
func (n newest) Swap(i, j int)      { n[i], n[j] = n[j], n[i] }
func (n *newest) Push(x any)        { *n = append(*n, x.(eventhose.Attempt)) }
func (n *newest) Pop() any {
	old := *n
	a := old[len(old)-1]
	*n = old[:len(old)-1]
	return a
}

// attemptsOfAll answers too, as an attempt without a subscription, each row whose lane was deleted: its rows stay until
// the events go, there may be very many, and whoever pages over them wants to come back from time to time.
func (s *Store) attemptsOfAll(ctx context.Context, tenant tenantID, q store.AttemptQuery) (found []eventhose.Attempt, err error) {
	first, err := s.firstOf(tenant)
	if err != nil {
		return nil, err
	}
	var read newest
	// take answers what is newer than all that is still to be read.
	take := func(than string) (full bool) {
		for len(read) > 0 && read[0].ID > than && len(found) < q.Limit {
			found = append(found, heap.Pop(&read).(eventhose.Attempt))
		}
		return len(found) == q.Limit
	}
	space := prefix(spaceRecent, tenant, 0)
	lower := space
	if q.Before != "" {
		lower = appendNewestFirst(prefix(spaceRecent, tenant, len(q.Before)+1), row.EndOfRun(q.Before))
	}
	err = s.scan(lower, end(space), func(key, _ []byte) (bool, error) {
		at := bytes.IndexByte(key[len(space):], 0xff) + len(space) + 1
		id, ok := newestFirstID(key[len(space):at])
		if !ok {
			return false, corrupt("attempts by time of "+string(tenant), row.ErrMalformed)
		}
		if take(id) {
			return false, nil
		}
		attempts, err := s.rowOf(tenant, subscriptionID(key[at:]), id)
		if errors.Is(err, pebble.ErrNotFound) {
			attempts, err = []eventhose.Attempt{{ID: id, Tenant: tenant}}, nil
		}
		for i := range attempts {
			if a := &attempts[i]; (q.Before == "" || a.ID < q.Before) && !trimmed(a, first) {
				heap.Push(&read, *a)
			}
		}
		if err == nil {
			err = ctx.Err()
		}
		return true, err
	})
	take("")
	return found, err
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
