package deliver_test

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// leaseTable is the leases of all nodes.
type leaseTable struct {
	mu     sync.Mutex // held over a commit, so that no lease changes hands within one
	shards [store.Shards]struct {
		node  string
		epoch uint64
		until time.Time
	}
	only map[uint8]bool // if set, there are no other shards
	live map[string]time.Time
	told map[string][]string // the nodes that were live at each one's last claim
}

func (l *leaseTable) claim(node string, give []uint8, ttl time.Duration) (c store.Claimed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Shared = true
	now := time.Now()
	maps.DeleteFunc(l.live, func(_ string, until time.Time) bool { return !now.Before(until) })
	if l.live[node] = now.Add(ttl); ttl <= 0 {
		delete(l.live, node)
	}
	names := slices.Sorted(maps.Keys(l.live))
	c.Changed = !slices.Equal(names, l.told[node])
	l.told[node] = names
	shards := store.Shards
	if l.only != nil {
		shards = len(l.only)
	}
	share := (shards + len(names) - 1) / max(1, len(names))
	held := 0
	for i := range l.shards {
		s := &l.shards[i]
		if s.node != "" && !now.Before(s.until) || s.node == node && (ttl <= 0 || slices.Contains(give, uint8(i))) {
			s.node = "" // expired or given; who takes it again has another epoch
		}
		if s.node == node {
			s.until = now.Add(ttl)
			held++
		}
	}
	for i := range l.shards {
		if s := &l.shards[i]; s.node == "" && held < share && ttl > 0 && !slices.Contains(give, uint8(i)) && (l.only == nil || l.only[uint8(i)]) {
			s.node, s.until = node, now.Add(ttl)
			s.epoch++
			held++
		}
	}
	for i, s := range l.shards {
		if s.node == node {
			c.Leases = append(c.Leases, store.Lease{Shard: uint8(i), Epoch: s.epoch, Until: s.until})
		}
	}
	c.Surplus = max(0, held-share)
	return c
}

// holder is who has a tenant's shard at this moment, "" if nobody.
func (l *leaseTable) holder(id eventhose.TenantID) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := &l.shards[store.ShardOf(id)]; time.Now().Before(s.until) {
		return s.node
	}
	return ""
}

// steal gives a tenant's shard to nobody for a while.
func (l *leaseTable) steal(id eventhose.TenantID, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.shards[store.ShardOf(id)]
	s.node, s.until = "thief", time.Now().Add(d)
	s.epoch++
}
