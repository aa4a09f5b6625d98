package embedded

import (
	"context"
	"fmt"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// leases are kept in memory: one process has the store, so whoever asks gets what it asks for. They are of use to tell
// apart the engines of one process, and to run the same engine here and on a database.
type leases struct {
	shards [store.Shards]struct {
		node  string
		epoch uint64
	}
}

// Claim implements store.Leases.
func (s *Store) Claim(ctx context.Context, node string, want int, ttl time.Duration) ([]store.Lease, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	until := time.Now().Add(ttl)
	var held []store.Lease
	for i := range s.leases.shards {
		sh := &s.leases.shards[i]
		switch {
		case len(held) >= want:
			if sh.node == node {
				sh.node = ""
			}
			continue
		case sh.node != node:
			// Epochs of this run lie above those of the runs before it.
			sh.node, sh.epoch = node, max(sh.epoch+1, s.epoch<<32)
		}
		held = append(held, store.Lease{Shard: uint8(i), Epoch: sh.epoch, Until: until})
	}
	return held, nil
}

// check answers ErrFenced if one of the leases is not held.
func (l *leases) check(fence []store.Lease) error {
	for _, f := range fence {
		if sh := &l.shards[f.Shard]; sh.node == "" || sh.epoch != f.Epoch {
			return fmt.Errorf("%w: shard %d", store.ErrFenced, f.Shard)
		}
	}
	return nil
}
