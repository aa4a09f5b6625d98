package embedded

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// leases are kept in memory: one process has the store, so whoever asks gets all of them. They are of use to tell apart
// the engines of one process, and to run the same engine here and on a database.
type leases struct {
	shards [store.Shards]struct {
		node  string
		epoch uint64
	}
}

// Claim implements store.Leases.
func (s *Store) Claim(ctx context.Context, node string, give []uint8, ttl time.Duration) (store.Claimed, error) {
	if err := s.begin(ctx); err != nil {
		return store.Claimed{}, err
	}
	defer s.end()
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	until := time.Now().Add(ttl)
	var claimed store.Claimed
	for i := range s.leases.shards {
		sh := &s.leases.shards[i]
		if sh.node == node && (ttl <= 0 || slices.Contains(give, uint8(i))) {
			sh.node = ""
		}
		if ttl <= 0 {
			continue
		}
		if sh.node != node {
			// Epochs of this run lie above those of the runs before it.
			sh.node, sh.epoch = node, max(sh.epoch+1, s.epoch<<32)
		}
		claimed.Leases = append(claimed.Leases, store.Lease{Shard: uint8(i), Epoch: sh.epoch, Until: until})
	}
	return claimed, nil
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
