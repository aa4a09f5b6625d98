package postgres

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose/internal/store"
)

// liveNodes remembers which nodes each node's last claim found alive.
type liveNodes struct {
	mu sync.Mutex
	of map[string][]string
}

// changed reports whether the nodes differ from those of the last call, and remembers them.
func (l *liveNodes) changed(node string, live []string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string][]string{}
	}
	before, known := l.of[node]
	l.of[node] = live
	return known && !slices.Equal(before, live)
}

// Claim implements store.Leases.
func (s *Store) Claim(ctx context.Context, node string, give []uint8, ttl time.Duration) (store.Claimed, error) {
	if err := s.begin(ctx); err != nil {
		return store.Claimed{}, err
	}
	defer s.end()
	shards := make([]int16, len(give))
	for i, shard := range give {
		shards[i] = int16(shard)
	}
	began := time.Now()
	c := store.Claimed{Shared: true}
	share := 0
	var live []string
	err := queryOn(ctx, s.claims, "claim leases", "SELECT o_shard, o_epoch, o_share, o_nodes FROM eventhose._claim($1, $2, $3)", []any{node, shards, ttl},
		func() { c.Leases = nil }, func(r pgx.Rows) error {
			var shard *int16
			var epoch *int64
			if err := r.Scan(&shard, &epoch, &share, &live); err != nil || shard == nil {
				return err
			}
			c.Leases = append(c.Leases, store.Lease{Shard: uint8(*shard), Epoch: uint64(*epoch), Until: began.Add(ttl)})
			return nil
		})
	if err != nil {
		return store.Claimed{}, err
	}
	if len(give) > 0 || ttl <= 0 {
		s.notify(ctx, hint{kind: hintFreed}.text(s.hints.node)) // not by and by: a node that stops has no later
	}
	c.Surplus = max(0, len(c.Leases)-share)
	c.Changed = s.nodes.changed(node, live)
	s.several.Store(len(live) > 1)
	return c, nil
}
