package deliver_test

// Several engines over one store, as nodes over a database: each has its own door to a real embedded store, and the doors
// share a table of leases in memory that their commits are fenced by. Nodes can be frozen, as by SIGSTOP: nothing that one
// asks of the store or sends goes on until it is thawed. Or they can be cut off from the store alone.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// cluster is what the nodes share.
type cluster struct {
	t     *testing.T
	opts  deliver.Options
	store *embedded.Store
	ctl   *control.Control
	log   *eventlog.Log
	table leaseTable
	quiet atomic.Bool // hints are lost

	mu       sync.Mutex
	nodes    map[string]*node
	subs     map[eventhose.SubscriptionID]eventhose.TenantID
	ordering map[eventhose.SubscriptionID]eventhose.Ordering
	arrivals []arrived
	newest   map[store.LaneRef]string // attempt
	fenced   int                      // commits that were refused
	unsent   int                      // requests that were held back at the last moment
	wrong    []string
	answer   func(context.Context, *sink.Batch) sink.Result
}

// arrived is one event that came to a receiver.
type arrived struct {
	delivery
	tenant eventhose.TenantID
	node   string
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, table: leaseTable{live: map[string]time.Time{}, told: map[string][]string{}}, nodes: map[string]*node{},
		subs: map[eventhose.SubscriptionID]eventhose.TenantID{}, newest: map[store.LaneRef]string{}, ordering: map[eventhose.SubscriptionID]eventhose.Ordering{}}
	var err error
	if c.store, err = embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1}); err != nil {
		t.Fatal(err)
	}
	if c.ctl, err = control.New(c.store, control.Options{SecretKey: make([]byte, 32), Sinks: map[string]sink.Sink{eventhose.DestinationWebhook: &node{c: c}}}); err != nil {
		t.Fatal(err)
	}
	c.log = eventlog.New(c.store, c.ctl, eventlog.Options{Appended: func(id eventhose.TenantID) { c.hint(func(e *deliver.Engine) { e.Appended(id) }) }})
	c.ctl.Announce(func(id eventhose.TenantID, sub eventhose.SubscriptionID) {
		c.hint(func(e *deliver.Engine) { e.Changed(id, sub) })
	})
	return c
}

// hint tells every node, unless hints are lost.
func (c *cluster) hint(tell func(*deliver.Engine)) {
	for _, n := range c.running() {
		if !c.quiet.Load() && !n.isFrozen() {
			tell(n.eng)
		}
	}
}

func (c *cluster) running() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.nodes))
}

// join starts a node.
func (c *cluster) join(name string, change ...func(*node)) *node {
	c.t.Helper()
	n := &node{Store: c.store, c: c, name: name, thawed: make(chan struct{})}
	close(n.thawed)
	for _, f := range change {
		f(n)
	}
	opts := c.opts
	opts.Node = name
	opts.Fatal = func(err error) { c.bad("node %s gave up: %v", name, err) }
	opts.Logger = slog.New(slog.DiscardHandler)
	opts.Ordered = func() { c.hint((*deliver.Engine).Ordered) }
	opts.OrderDone = func(id string) { c.hint(func(e *deliver.Engine) { e.OrderDone(id) }) }
	n.eng = deliver.New(n, c.ctl, c.log, map[string]sink.Sink{eventhose.DestinationWebhook: n}, opts)
	if err := n.eng.Start(context.Background()); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.nodes[name] = n
	c.mu.Unlock()
	return n
}

// stop ends a node cleanly; one that is dead only ends.
func (n *node) stop() {
	n.c.t.Helper()
	n.c.mu.Lock()
	delete(n.c.nodes, n.name)
	n.c.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if n.dead.Load() {
		n.thaw()
		cancel()
	}
	if err := n.eng.Stop(ctx); err != nil && !n.dead.Load() {
		n.c.t.Error(err)
	}
}

// close stops all nodes, and says what was wrong.
func (c *cluster) close() {
	c.t.Helper()
	for _, n := range c.running() {
		n.stop()
	}
	if err := errors.Join(c.log.Close(), c.store.Close()); err != nil {
		c.t.Error(err)
	}
	for _, w := range c.wrong {
		c.t.Error(w)
	}
}

// came counts the events that came to receivers, refused the commits without their leases, heldBack the requests.
func (c *cluster) came() int     { return c.read(func() int { return len(c.arrivals) }) }
func (c *cluster) refused() int  { return c.read(func() int { return c.fenced }) }
func (c *cluster) heldBack() int { return c.read(func() int { return c.unsent }) }

// forgive forgets what was wrong, and answers how much it was.
func (c *cluster) forgive() int {
	return c.read(func() int { n := len(c.wrong); c.wrong = nil; return n })
}

func (c *cluster) read(what func() int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return what()
}

// arrivedAt are the events that one node has sent.
func (c *cluster) arrivedAt(n *node) []arrived {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.arrivals), func(a arrived) bool { return a.node != n.name })
}

func (c *cluster) set(answer func(context.Context, *sink.Batch) sink.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

func (c *cluster) bad(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wrong) < 20 {
		c.wrong = append(c.wrong, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// tenantID names tenants.
func tenantID(i int) eventhose.TenantID { return eventhose.TenantID(fmt.Sprintf("t%d", i)) }

// crowd has no other shards than those of the first tenants, so that each that changes hands is at work.
func (c *cluster) crowd(tenants int) {
	c.table.only = map[uint8]bool{}
	for i := range tenants {
		c.table.only[store.ShardOf(tenantID(i))] = true
	}
}

// populate makes tenants with a subscription each.
func (c *cluster) populate(tenants int, change func(*eventhose.Subscription)) {
	c.t.Helper()
	for i := range tenants {
		if _, _, err := c.ctl.PutTenant(context.Background(), eventhose.Tenant{ID: tenantID(i)}); err != nil {
			c.t.Fatal(err)
		}
		c.subscribe(tenantID(i), change)
	}
}

func (c *cluster) subscribe(id eventhose.TenantID, change func(*eventhose.Subscription)) eventhose.SubscriptionID {
	c.t.Helper()
	s := eventhose.Subscription{Tenant: id, Ordering: eventhose.OrderingKey, Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook"}}
	if change != nil {
		change(&s)
	}
	s, err := c.ctl.CreateSubscription(context.Background(), s, "now")
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.subs[s.ID], c.ordering[s.ID] = id, s.Ordering
	c.mu.Unlock()
	return s.ID
}

// append appends n events over three keys to a tenant's log.
func (c *cluster) append(id eventhose.TenantID, n int) {
	c.t.Helper()
	if _, err := c.log.Append(context.Background(), id, some(n, 3)...); err != nil {
		c.t.Fatal(err)
	}
}

// drained waits in virtual time until every lane has nothing left to do, as any node tells it.
func (c *cluster) drained() {
	c.t.Helper()
	var left []string
	for range 2000 {
		synctest.Wait()
		left = nil
		for sub, id := range c.subs {
			row, keys, err := c.store.Lane(context.Background(), id, sub)
			if err != nil {
				c.t.Fatal(err)
			}
			if row.Behind || row.Retrying+row.Waiting+len(keys) > 0 {
				left = append(left, fmt.Sprintf("%s of %s (%s has it): %+v", sub, id, c.table.holder(id), row))
			}
		}
		tails, err := c.store.Tails(context.Background(), "", 1000)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, t := range tails {
			left = append(left, fmt.Sprintf("the log of %s is matched to %d of %d", t.Tenant, t.Matched, t.Last))
		}
		if left == nil {
			return
		}
		pass(time.Second)
	}
	c.t.Fatalf("never drained: %q", left)
}

// audit holds what arrived against what was appended: all of it, in order where that is asked for. It answers how many
// requests there were of which something came again.
func (c *cluster) audit() int {
	c.t.Helper()
	c.mu.Lock()
	arrivals := slices.Clone(c.arrivals)
	c.mu.Unlock()
	// What comes twice is counted by request.
	times, repeated := map[eventhose.SubscriptionID]map[eventhose.Sequence]int64{}, map[int64]bool{}
	bySub := map[eventhose.SubscriptionID][]delivery{}
	for _, a := range arrivals {
		if times[a.sub] == nil {
			times[a.sub] = map[eventhose.Sequence]int64{}
		}
		if a.seq == 0 || a.replay != "" {
			continue
		}
		if bySub[a.sub] = append(bySub[a.sub], a.delivery); !a.taken {
			continue
		}
		if before := times[a.sub][a.seq]; before > 0 {
			repeated[before] = true
		}
		times[a.sub][a.seq] = a.request
	}
	for sub, id := range c.subs {
		for e, err := range c.log.Read(context.Background(), id, 0, eventhose.Filter{}) {
			if err != nil {
				c.t.Fatal(err)
			}
			if times[sub][e.Sequence] == 0 {
				c.bad("%s of %s: sequence %d never came", sub, id, e.Sequence)
			}
		}
		slices.SortStableFunc(bySub[sub], func(a, b delivery) int { return a.at.Compare(b.at) })
		ordering := c.ordering[sub]
		if n := inversions(bySub[sub], ordering == eventhose.OrderingStrict); n > 0 && ordering != eventhose.OrderingNone {
			c.bad("%s of %s: %d inversions", sub, id, n)
		}
	}
	return len(repeated)
}
