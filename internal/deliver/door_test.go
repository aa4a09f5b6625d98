package deliver_test

// A node, and its door to the store: what it asks of that, and what it sends.

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// node is one engine, its door to the store, and what it sends through.
type node struct {
	deliver.Store
	c      *cluster
	name   string
	eng    *deliver.Engine
	deaf   bool // planted: it takes no notice of what becomes of its leases
	leases store.Claimed

	mu       sync.Mutex
	onCommit func()        // called before the next commit
	thawed   chan struct{} // closed while it is not frozen
	cutOff   bool          // frozen is only what it asks of the store
	dead     atomic.Bool   // will never be thawed
}

func (n *node) freeze() { n.stopAt(false) }

// cut cuts a node off from the store.
func (n *node) cut() { n.stopAt(true) }

func (n *node) stopAt(store bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.thawed, n.cutOff = make(chan struct{}), store
}

func (n *node) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.thawed:
	default:
		close(n.thawed)
	}
}

// kill freezes a node for ever.
func (n *node) kill() { n.dead.Store(true); n.freeze() }

func (n *node) isFrozen() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.thawed:
		return false
	default:
		return true
	}
}

// awake waits while the node is frozen. A dead one is then told that the store is away.
func (n *node) awake() error {
	n.mu.Lock()
	thawed := n.thawed
	n.mu.Unlock()
	<-thawed
	if n.dead.Load() {
		return fmt.Errorf("%w: the node is dead", store.ErrUnavailable)
	}
	return nil
}

// runs waits while the process is frozen, and answers whether it ever goes on.
func (n *node) runs() bool {
	n.mu.Lock()
	cutOff := n.cutOff
	n.mu.Unlock()
	return cutOff || n.awake() == nil
}

// Claim implements store.Leases.
func (n *node) Claim(_ context.Context, name string, give []uint8, ttl time.Duration) (store.Claimed, error) {
	if err := n.awake(); err != nil {
		return store.Claimed{}, err
	}
	if !strings.HasPrefix(name, n.name+".") {
		n.c.bad("node %s claims as %s", n.name, name)
	}
	claimed := n.c.table.claim(n.name, give, ttl)
	if len(give) > 0 || ttl <= 0 {
		n.c.hint(func(e *deliver.Engine) {
			if e != n.eng {
				e.Freed()
			}
		})
	}
	if err := n.awake(); err != nil { // the answer may come late
		return store.Claimed{}, err
	}
	if n.deaf {
		if len(n.leases.Leases) == 0 {
			n.leases = claimed
		}
		for i := range n.leases.Leases {
			n.leases.Leases[i].Until = time.Now().Add(time.Hour)
		}
		return n.leases, nil
	}
	return claimed, nil
}

// Commit implements store.Lanes.
func (n *node) Commit(ctx context.Context, p store.Progress) error {
	n.mu.Lock()
	do := n.onCommit
	n.onCommit = nil
	n.mu.Unlock()
	if do != nil {
		do()
	}
	if err := n.awake(); err != nil {
		return err
	}
	if err := n.commit(ctx, p); err != nil {
		return err
	}
	return n.awake()
}

func (n *node) commit(ctx context.Context, p store.Progress) error {
	l := &n.c.table
	l.mu.Lock()
	defer l.mu.Unlock()
	var covered [store.Shards]bool
	for _, f := range p.Fence {
		covered[f.Shard] = true
		if s := &l.shards[f.Shard]; !n.deaf && (s.node != n.name || s.epoch != f.Epoch || !time.Now().Before(s.until)) {
			n.c.mu.Lock()
			n.c.fenced++
			n.c.mu.Unlock()
			return fmt.Errorf("%w: shard %d", store.ErrFenced, f.Shard)
		}
	}
	for i := range p.Lanes {
		if !covered[store.ShardOf(p.Lanes[i].Lane.Tenant)] {
			n.c.bad("node %s committed a lane of %s without its lease", n.name, p.Lanes[i].Lane.Tenant)
		}
		n.c.checkAttempts(&p.Lanes[i])
	}
	for _, t := range p.Matched {
		if !covered[store.ShardOf(t.Tenant)] {
			n.c.bad("node %s committed a position of %s without its lease", n.name, t.Tenant)
		}
	}
	p.Fence = nil
	return n.Store.Commit(ctx, p)
}

func (c *cluster) checkAttempts(l *store.LaneChange) {
	for _, a := range l.Attempts {
		c.mu.Lock()
		newest := c.newest[l.Lane.LaneRef]
		c.newest[l.Lane.LaneRef] = max(newest, a.ID)
		c.mu.Unlock()
		if a.ID <= newest {
			c.bad("%s: attempt %s comes after %s", l.Lane.Subscription, a.ID, newest)
		}
	}
}

// Read, Lane, Save and Record implement the seam; a frozen node does not get beyond them.
func (n *node) Read(ctx context.Context, id eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	if err := n.awake(); err != nil {
		return nil, err
	}
	return n.Store.Read(ctx, id, after, limit)
}

func (n *node) Lane(ctx context.Context, id eventhose.TenantID, sub eventhose.SubscriptionID) (store.Lane, []store.BlockedKey, error) {
	if err := n.awake(); err != nil {
		return store.Lane{}, nil, err
	}
	return n.Store.Lane(ctx, id, sub)
}

func (n *node) Save(ctx context.Context, records []store.RecordChange, lanes []store.LaneChange) error {
	if err := n.awake(); err != nil {
		return err
	}
	return n.Store.Save(ctx, records, lanes)
}

func (n *node) Record(ctx context.Context, id eventhose.TenantID, kind, key string) (store.Record, error) {
	if err := n.awake(); err != nil {
		return store.Record{}, err
	}
	return n.Store.Record(ctx, id, kind, key)
}

// Check implements sink.Sink.
func (n *node) Check(eventhose.Destination) error { return nil }

// Send implements sink.Sink.
func (n *node) Send(ctx context.Context, b *sink.Batch) sink.Result {
	c := n.c
	<-time.After(10 * time.Millisecond) // to connect
	if !n.runs() || b.Still != nil && !b.Still() {
		c.mu.Lock()
		c.unsent++
		c.mu.Unlock()
		return sink.Result{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStopping}
	}
	id := b.Subscription.Tenant
	if holder := c.table.holder(id); holder != n.name && b.Kind != eventhose.AttemptTest {
		c.bad("node %s sends %d of %s, and %q has its shard", n.name, b.Items[0].Event.Sequence, id, holder)
	}
	all := seen(b)
	c.mu.Lock()
	answer := c.answer
	c.mu.Unlock()
	r := taken()
	if answer != nil {
		r = answer(ctx, b)
	}
	answered(all, b, r)
	c.mu.Lock()
	for _, d := range all {
		c.arrivals = append(c.arrivals, arrived{d, id, n.name})
	}
	c.mu.Unlock()
	r.Started, r.Duration = all[0].at, time.Since(all[0].at)
	if !n.runs() {
		return sink.Result{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStopping}
	}
	return r
}
