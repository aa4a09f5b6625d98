package deliver_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/store"
)

// apart starts two nodes and answers a tenant, its subscription, and the nodes that deliver for it and do not.
func apart(c *cluster, tenants int, change func(*eventhose.Subscription)) (id eventhose.TenantID, sub eventhose.SubscriptionID, owner, other *node) {
	c.t.Helper()
	owner, other = c.join("a"), c.join("b")
	c.populate(tenants, change)
	pass(5 * time.Second)
	for sub, id = range c.subs {
		if id == tenantID(0) {
			break
		}
	}
	if c.table.holder(id) == "b" {
		owner, other = other, owner
	}
	return id, sub, owner, other
}

// once has everything tried once.
func once(s *eventhose.Subscription) {
	s.Ordering, s.Retry.Schedule = eventhose.OrderingNone, []eventhose.Duration{0}
}

// orders lists what nodes were asked and is still there.
func (c *cluster) orders() []store.Record {
	c.t.Helper()
	all, err := c.store.List(context.Background(), "", "order", "", 1000)
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

func within(t *testing.T, d time.Duration, what string, do func()) {
	t.Helper()
	began := time.Now()
	if do(); time.Since(began) > d {
		t.Errorf("%s took %v", what, time.Since(began))
	}
}

// What a person wants can be asked of any node, with hints at once and without before long.
func TestAskingAnotherNode(t *testing.T) {
	t.Parallel()
	for name, quiet := range map[string]bool{"hints": false, "no hints": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				defer c.close()
				id, sub, owner, other := apart(c, 1, once)
				c.set(always(failed(400)))
				c.append(id, 10)
				pass(time.Hour)
				rows, err := other.eng.Parked(t.Context(), id, sub, eventhose.ParkedDead, 0, 100)
				if err != nil || len(rows) != 10 {
					t.Fatalf("%d dead, %v", len(rows), err)
				}
				c.quiet.Store(quiet)
				longest := time.Duration(0)
				if quiet {
					longest = 2 * time.Second
				}
				c.set(nil)
				before := c.came()
				within(t, longest+20*time.Millisecond, "redrive", func() {
					if n, err := other.eng.Redrive(t.Context(), id, sub, []string{rows[1].Event, rows[4].Event}); n != 2 || err != nil {
						t.Errorf("redrive: %d, %v", n, err)
					}
				})
				within(t, longest+20*time.Millisecond, "discard", func() {
					if n, err := other.eng.Discard(t.Context(), id, sub, []string{rows[0].Event}); n != 1 || err != nil {
						t.Errorf("discard: %d, %v", n, err)
					}
				})
				_, err = other.eng.Redrive(t.Context(), id, sub, []string{rows[0].Event})
				var e *eventhose.Error
				if !errors.As(err, &e) || e.Code != eventhose.CodeNotFound || e.Field != "events[0]" {
					t.Errorf("redriving what is not dead: %v", err)
				}
				if n, err := other.eng.Redrive(t.Context(), id, sub, nil, rows[7].Sequence); n != 1 || err != nil {
					t.Errorf("redrive by place: %d, %v", n, err)
				}
				pass(time.Second)
				if n := c.came() - before; n != 3 {
					t.Errorf("%d came, and 3 were redriven", n)
				}
				if n, err := other.eng.Redrive(t.Context(), id, sub, nil); n != 6 || err != nil {
					t.Errorf("redrive of all: %d, %v", n, err)
				}
				c.drained()

				// A replay is counted by any node, and made by the one that delivers.
				_, n, err := other.eng.Replay(t.Context(), id, sub, eventhose.ReplaySpec{From: 3}, true)
				if n != 8 || err != nil {
					t.Errorf("a dry run counts %d, %v", n, err)
				}
				before = c.came()
				r, _, err := other.eng.Replay(t.Context(), id, sub, eventhose.ReplaySpec{From: 3, To: 1000}, false)
				if err != nil || r.ID == "" || r.To != 10 {
					t.Errorf("replay: %+v, %v", r, err)
				}
				c.drained()
				if n := c.came() - before; n != 8 {
					t.Errorf("%d came, and 8 were replayed", n)
				}
				a, err := other.eng.Test(t.Context(), id, sub)
				if err != nil || a.ID == "" {
					t.Errorf("test: %+v, %v", a, err)
				}
				as, err := other.eng.Attempts(t.Context(), id, sub, "", 1)
				if err != nil || len(as) != 1 || as[0].ID != a.ID || as[0].Kind != eventhose.AttemptTest || !as[0].Started.Equal(a.Started) || as[0].Duration != a.Duration {
					t.Errorf("the newest attempt is %+v, and the test was %+v; %v", as, a, err)
				}
				if orders := c.orders(); len(orders) != 0 {
					t.Errorf("%d orders are left", len(orders))
				}
				s, err := c.ctl.Subscription(t.Context(), id, sub)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range []*node{owner, other} {
					if st, err := n.eng.Status(t.Context(), s); err != nil || st.Lag != 0 || st.Dead != 0 {
						t.Errorf("node %s says: %+v, %v", n.name, st, err)
					}
				}
				if n := other.eng.InMemory(id); n != 0 {
					t.Errorf("%d lanes are in memory where they do not belong", n)
				}
			})
		})
	}
}

// What the node that delivers refuses, whoever was asked is refused.
func TestAskingForTooMuch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		id, sub, owner, other := apart(c, 1, once)
		c.append(id, 10)
		c.drained()
		if _, err := c.ctl.SetState(t.Context(), id, sub, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		for i := range eventhose.MaxReplays {
			if _, _, err := []*node{owner, other}[i%2].eng.Replay(t.Context(), id, sub, eventhose.ReplaySpec{}, false); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := other.eng.Replay(t.Context(), id, sub, eventhose.ReplaySpec{}, false)
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeLimit || e.Fix == "" {
			t.Errorf("one replay more: %v", err)
		}
		_, _, err = other.eng.Replay(t.Context(), id, "sub_none", eventhose.ReplaySpec{}, false)
		if eventhose.CodeOf(err) != eventhose.CodeNotFound {
			t.Errorf("a replay of no subscription: %v", err)
		}
		_, _, err = other.eng.Replay(t.Context(), id, "sub_none", eventhose.ReplaySpec{}, true)
		if eventhose.CodeOf(err) != eventhose.CodeNotFound {
			t.Errorf("a dry run of no subscription: %v", err)
		}
	})
}

// When the node that delivers is gone, who asks is told in time: that nothing was done, or that nobody knows. What was not
// taken is never done.
func TestAskingNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.opts.LeaseTTL = 2 * time.Minute
		defer c.close()
		id, sub, owner, other := apart(c, 1, once)
		pass(2 * time.Minute)
		if c.table.holder(id) == other.name {
			owner, other = other, owner
		}
		c.set(always(failed(400)))
		c.append(id, 10)
		pass(time.Hour)

		owner.freeze()
		within(t, 31*time.Second, "asking", func() {
			_, err := other.eng.Redrive(t.Context(), id, sub, nil)
			var e *eventhose.Error
			if !errors.As(err, &e) || e.Code != eventhose.CodeUnavailable || e.RetryAfter == 0 {
				t.Errorf("asking a node that is away: %v", err)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		within(t, 2*time.Second, "asking for a second", func() {
			if _, err := other.eng.Redrive(ctx, id, sub, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("asking for a second: %v", err)
			}
		})
		if orders := c.orders(); len(orders) != 0 {
			t.Errorf("%d orders are left", len(orders))
		}
		owner.thaw()
		pass(10 * time.Second)
		s, err := c.ctl.Subscription(t.Context(), id, sub)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := other.eng.Status(t.Context(), s); err != nil || st.Dead != 10 {
			t.Errorf("what was not taken was done: %+v, %v", st, err)
		}

		// It takes the order, and dies before it says what came of it.
		owner.mu.Lock()
		owner.onCommit = owner.freeze
		owner.mu.Unlock()
		_, err = other.eng.Redrive(t.Context(), id, sub, nil)
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeUnavailable || e.Fix == "" {
			t.Errorf("asking a node that dies over it: %v", err)
		}
		owner.thaw()
		pass(time.Minute)
		if orders := c.orders(); len(orders) != 0 {
			t.Errorf("%d orders are left", len(orders))
		}
	})
}

// An order that takes long is taken once, and an idle lane has nothing left to do whichever node is asked.
func TestALongOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		id, sub, owner, other := apart(c, 1, func(s *eventhose.Subscription) { s.Filter.Types = []string{"order.*"} })
		c.append(id, 5)
		c.drained()
		if _, err := c.ctl.SetState(t.Context(), id, sub, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		owner.mu.Lock()
		owner.onCommit = func() { <-time.After(4 * time.Second) }
		owner.mu.Unlock()
		if _, _, err := other.eng.Replay(t.Context(), id, sub, eventhose.ReplaySpec{}, false); err != nil {
			t.Error(err)
		}
		pass(time.Second)
		s, err := c.ctl.SetState(t.Context(), id, sub, eventhose.StateActive)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := other.eng.Status(t.Context(), s); err != nil || len(st.Replays) != 1 {
			t.Errorf("%d replays, %v", len(st.Replays), err)
		}
		c.drained()
		for range 3 {
			if _, err := c.log.Append(t.Context(), id, eventhose.Event{Type: "other", Data: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
		pass(2 * time.Second)
		for _, n := range []*node{owner, other} {
			if st, err := n.eng.Status(t.Context(), s); err != nil || st.Lag != 0 {
				t.Errorf("node %s says that %d are left, %v", n.name, st.Lag, err)
			}
		}
		pass(2 * time.Minute) // the tenant leaves memory
		for _, n := range []*node{owner, other} {
			if st, err := n.eng.Status(t.Context(), s); err != nil || st.Lag != 0 {
				t.Errorf("later node %s says that %d are left, %v", n.name, st.Lag, err)
			}
		}
	})
}

// An order is carried out once, though many are asked at once while the shards change hands.
func TestOrdersAreCarriedOutOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		apart(c, 20, once)
		c.set(always(failed(400)))
		for i := range 20 {
			c.append(tenantID(i), 10)
		}
		pass(time.Minute)
		c.set(nil)
		before := c.came()
		var asking sync.WaitGroup
		var mu sync.Mutex
		redriven, away := 0, 0
		for sub, id := range c.subs {
			for _, n := range c.running() {
				for range 2 {
					asking.Go(func() {
						k, err := n.eng.Redrive(t.Context(), id, sub, nil)
						mu.Lock()
						defer mu.Unlock()
						if redriven += k; eventhose.CodeOf(err) == eventhose.CodeUnavailable {
							away++
						} else if err != nil {
							t.Errorf("redrive: %v", err)
						}
					})
				}
			}
		}
		c.join("d")
		asking.Wait()
		pass(10 * time.Second)
		// One that was told that nobody knows may have been done.
		if came := c.came() - before; redriven > 200 || came > 200 || away == 0 && (redriven != 200 || came != 200) {
			t.Errorf("%d came and %d were redriven, of 200; %d were told to try again", came, redriven, away)
		}
		if orders := c.orders(); len(orders) != 0 {
			t.Errorf("%d orders are left", len(orders))
		}
	})
}

// A store of one process is asked for no lease but the first, and relied on without one.
func TestOneProcessHasNoLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		w.stop()
		alone := &counted{}
		w.wrap = func(s deliver.Store) deliver.Store { alone.Store = s; return alone }
		w.start()
		id := w.subscribe(nil)
		w.append(some(10, 0)...)
		w.drained(id)
		pass(time.Hour)
		w.stop()
		if alone.claims != 1 || alone.fences != 0 || alone.lists != 0 {
			t.Errorf("%d claims, %d commits with a fence, %d looks for orders", alone.claims, alone.fences, alone.lists)
		}
	})
}

// counted counts what only a shared store is asked for.
type counted struct {
	deliver.Store
	mu                    sync.Mutex
	claims, fences, lists int
}

func (c *counted) count(n *int, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n += by
}

func (c *counted) Claim(ctx context.Context, node string, give []uint8, ttl time.Duration) (store.Claimed, error) {
	c.count(&c.claims, 1)
	return c.Store.Claim(ctx, node, give, ttl)
}

func (c *counted) Commit(ctx context.Context, p store.Progress) error {
	c.count(&c.fences, len(p.Fence))
	return c.Store.Commit(ctx, p)
}

func (c *counted) List(ctx context.Context, id eventhose.TenantID, kind, after string, limit int) ([]store.Record, error) {
	c.count(&c.lists, 1)
	return c.Store.List(ctx, id, kind, after, limit)
}

// blind cannot look events up while it is so.
type blind struct {
	deliver.Store
	is atomic.Bool
}

func (b *blind) Lookup(ctx context.Context, id eventhose.TenantID, ref store.Ref) (*eventhose.Event, error) {
	if b.is.Load() {
		return nil, errors.New("planted")
	}
	return b.Store.Lookup(ctx, id, ref)
}

// A worker at a node that cannot read what the one that delivers has leased for it gets an error, and has taken nothing.
func TestPullFromAnotherNodeThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		id, sub, owner, other := apart(c, 1, func(s *eventhose.Subscription) { s.Destination = eventhose.Destination{} })
		other.stop()
		eyes := &blind{}
		other = c.join(other.name, func(n *node) { eyes.Store, n.Store = n.Store, eyes })
		pass(5 * time.Second)
		if holder := c.table.holder(id); holder != owner.name {
			t.Fatalf("%s delivers, and %s did", holder, owner.name)
		}
		c.append(id, 1)
		synctest.Wait()
		p := eventhose.Pull{Max: 10, Lease: time.Hour}
		eyes.is.Store(true)
		if list, err := other.eng.Pull(t.Context(), id, sub, p); err == nil {
			t.Errorf("got %+v", list)
		}
		eyes.is.Store(false)
		list, err := other.eng.Pull(t.Context(), id, sub, p)
		if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
			t.Errorf("the next worker got %+v, %v", list, err)
		}
	})
}

// What was leased for a worker whose node has left before it knew of it is the next worker's.
func TestPullFromANodeThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		id, sub, owner, other := apart(c, 1, func(s *eventhose.Subscription) { s.Destination = eventhose.Destination{} })
		c.append(id, 1)
		pass(5 * time.Second)
		owner.mu.Lock()
		owner.onCommit = func() { <-time.After(4 * time.Second) }
		owner.mu.Unlock()
		p := eventhose.Pull{Max: 10, Lease: time.Hour}
		told := make(chan error)
		go func() {
			_, err := other.eng.Pull(t.Context(), id, sub, p)
			told <- err
		}()
		pass(time.Second)
		go other.stop()
		if err := <-told; err == nil {
			t.Error("the worker got what is not stored yet")
		}
		pass(10 * time.Second)
		list, err := owner.eng.Pull(t.Context(), id, sub, p)
		if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
			t.Errorf("the next worker got %+v, %v", list, err)
		}
	})
}

// A worker at a node that does not deliver releases an event as one at the node that does: it costs nothing.
func TestReleaseAtAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		id, sub, owner, other := apart(c, 1, func(s *eventhose.Subscription) {
			s.Destination, s.Retry.Schedule = eventhose.Destination{}, []eventhose.Duration{0, 0}
		})
		c.append(id, 1)
		synctest.Wait()
		var last string
		for _, n := range []*node{other, other, owner, other} {
			list, err := n.eng.Pull(t.Context(), id, sub, eventhose.Pull{Max: 10, Lease: time.Hour})
			if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
				t.Fatalf("%+v, %v", list, err)
			}
			release := eventhose.Answer{Verdict: eventhose.AnswerRelease, Leases: []string{list[0].Lease}}
			want := 0
			if last != "" {
				release.Leases, want = append(release.Leases, last), 1
			}
			if lost, err := other.eng.Answer(t.Context(), id, sub, release); err != nil || len(lost) != want {
				t.Errorf("%v is lost, %v", lost, err)
			}
			last = list[0].Lease
		}
	})
}
