package deliver_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// only answers the one subscription that there is.
func (c *cluster) only() (eventhose.SubscriptionID, eventhose.TenantID) {
	c.t.Helper()
	if len(c.subs) != 1 {
		c.t.Fatalf("%d subscriptions", len(c.subs))
	}
	for sub, id := range c.subs {
		return sub, id
	}
	return "", ""
}

// What a node leaves when it stops is gone on with as soon as another has the shard, with no hint and no look in time.
func TestWhatIsLeftGoesOnAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.opts.Poll = time.Hour
		defer c.close()
		c.crowd(10)
		c.populate(10, quick(eventhose.OrderingKey))
		a := c.join("a")
		c.set(always(failed(500)))
		for i := range 10 {
			c.append(tenantID(i), 1) // is tried again
			if i%2 == 0 {
				c.append(tenantID(i), 100) // waits, and the log is matched
			}
		}
		pass(2 * time.Second)
		c.quiet.Store(true)
		c.set(nil)
		b := c.join("b")
		pass(4500 * time.Millisecond)
		c.balanced(a, b)
		within(t, 3*time.Second, "what was gained", c.drained)
		if len(c.arrivedAt(b)) == 0 {
			t.Error("nothing came from the node that was given half of the shards")
		}
		c.set(always(failed(500)))
		for i := range 10 {
			c.append(tenantID(i), 100)
		}
		for _, n := range []*node{a, b} {
			for i := range 10 {
				n.eng.Appended(tenantID(i))
			}
		}
		pass(time.Second)
		a.stop()
		c.set(nil)
		for i := range 10 {
			c.append(tenantID(i), 1) // the log is not matched
		}
		before := c.came()
		pass(9 * time.Second)
		c.drained()
		if n := c.came() - before; n < 5*100 {
			t.Errorf("%d came within a few seconds", n)
		}
		if again := c.audit(); again != 0 {
			t.Errorf("%d came again", again)
		}
	})
}

// Who waits for a node to record something is told when it loses its lease over that.
func TestWaitersAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(1, once)
		a := c.join("a")
		sub, id := c.only()
		c.set(always(failed(400)))
		c.append(id, 3)
		pass(time.Minute)
		a.mu.Lock()
		a.onCommit = a.cut
		a.mu.Unlock()
		within(t, 6*time.Second, "discarding", func() {
			if _, err := a.eng.Discard(t.Context(), id, sub, nil); eventhose.CodeOf(err) != eventhose.CodeUnavailable {
				t.Errorf("discarding while the store is away: %v", err)
			}
		})
		pass(5 * time.Second)
		a.thaw()
		pass(10 * time.Second)
		// It may have been recorded, and it was not: the commit was late.
		if n, err := a.eng.Discard(t.Context(), id, sub, nil); n != 3 || err != nil {
			t.Errorf("discarding again: %d, %v", n, err)
		}
	})
}

// Who waits for a change that no commit holds, because the lane left before one came to it, is not told that it was recorded.
func TestWaitersOfALaneThatHasLeft(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		deleted bool
		want    eventhose.Code
	}{{false, eventhose.CodeUnavailable}, {true, eventhose.CodeNotFound}} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			defer c.close()
			c.populate(1, once)
			a := c.join("a")
			sub, id := c.only()
			c.set(always(failed(400)))
			c.append(id, 1)
			pass(time.Minute)
			if err := a.eng.Gone(id, sub, tc.deleted); eventhose.CodeOf(err) != tc.want {
				t.Errorf("deleted %v: who waits is told %v", tc.deleted, err)
			}
		})
	}
}

// A shard is given after what remains of its lease, though an attempt hangs; what comes of it later is not recorded.
func TestAHangingAttemptKeepsNoShard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.crowd(2)
		c.populate(2, nil)
		a := c.join("a")
		c.set(func(_ context.Context, b *sink.Batch) sink.Result {
			<-time.After(25 * time.Second)
			return sink.Result{Outcome: eventhose.OutcomeGone, Status: 410}
		})
		c.append(tenantID(0), 1)
		c.append(tenantID(1), 1)
		pass(time.Second)
		c.set(nil)
		b := c.join("b")
		pass(9 * time.Second)
		c.balanced(a, b)
		pass(20 * time.Second)
		for sub, id := range c.subs {
			s, err := c.ctl.Subscription(t.Context(), id, sub)
			if err != nil {
				t.Fatal(err)
			}
			if moved := c.table.holder(id) == "b"; moved != (s.State == eventhose.StateActive) {
				t.Errorf("%s is %s, and %s delivers for it", sub, s.State, c.table.holder(id))
			}
			if _, err := c.ctl.SetState(t.Context(), id, sub, eventhose.StateActive); err != nil {
				t.Fatal(err)
			}
		}
		c.drained()
		if again := c.audit(); again != 0 {
			t.Errorf("%d were taken again", again)
		}
		if n := c.came(); n != 4 {
			t.Errorf("%d came, and two hung", n)
		}
	})
}

// A shard that was lost and comes back is another: what others did to its lanes in between is read.
func TestWhatComesBackIsLoadedAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(1, quick(eventhose.OrderingNone))
		a := c.join("a")
		sub, id := c.only()
		c.set(always(failed(500)))
		c.append(id, 1)
		pass(3500 * time.Millisecond) // it has been tried twice, and the next try is later than the next claim
		row, _, err := c.store.Lane(t.Context(), id, sub)
		if err != nil || row.Retrying != 1 {
			t.Fatalf("%+v, %v", row, err)
		}
		c.table.steal(id, 100*time.Millisecond)
		row.Retrying, row.Due = 0, time.Time{}
		if err := c.store.Commit(t.Context(), store.Progress{Lanes: []store.LaneChange{{Lane: row, Unpark: []eventhose.Sequence{1}}}}); err != nil {
			t.Fatal(err)
		}
		before := c.came()
		pass(time.Hour)
		if n := c.came() - before; n != 0 {
			t.Errorf("what another node had settled was sent %d times", n)
		}
		c.set(nil)
		c.append(id, 1)
		c.drained()
		c.balanced(a)
	})
}

// A commit that is late, but not too late, is waited for when its shard comes back under the same lease: what it writes
// must have been read.
func TestALateCommitIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(1, nil)
		a := c.join("a")
		_, id := c.only()
		pass(2050 * time.Millisecond) // it has claimed just before
		c.set(func(context.Context, *sink.Batch) sink.Result {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.onCommit = func() { <-time.After(5600 * time.Millisecond) } // with what came of this
			return taken()
		})
		c.append(id, 1)
		pass(50 * time.Millisecond)
		a.cut()
		pass(5400 * time.Millisecond)
		if n := len(a.eng.Held()); n != 0 {
			t.Errorf("it relies on %d leases", n)
		}
		a.thaw()
		synctest.Wait()
		c.balanced(a) // half a second before the leases would have ended
		c.drained()
		if again := c.audit(); again != 0 || c.refused() != 0 {
			t.Errorf("%d came again, %d commits were refused", again, c.refused())
		}
	})
}

// A subscription that a node made and did not tell of, because it died, is found when its death is noticed.
func TestANewSubscriptionIsFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(1, nil)
		_, id := c.only()
		a := c.join("a")
		c.append(id, 5)
		c.drained()
		pass(5 * time.Minute) // the tenant is not in memory
		b := c.join("b")
		pass(5 * time.Second)
		for c.table.holder(id) == "b" {
			c.table.steal(id, time.Second) // so that it is not gained when the other dies
			pass(5 * time.Second)
		}
		b.kill()
		c.quiet.Store(true)
		s, err := c.ctl.CreateSubscription(t.Context(), eventhose.Subscription{Tenant: id, Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook"}}, "start")
		if err != nil {
			t.Fatal(err)
		}
		c.subs[s.ID] = id
		pass(10 * time.Second)
		c.balanced(a)
		c.drained()
		if n := c.came(); n != 10 {
			t.Errorf("%d of 10 came", n)
		}
		b.stop()
	})
}

// A node that cannot start gives back what it was granted.
func TestANodeThatCannotStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		n := &node{Store: &noWork{c.store}, c: c, name: "a", thawed: make(chan struct{})}
		close(n.thawed)
		err := deliver.New(n, c.ctl, c.log, nil, deliver.Options{Node: "a"}).Start(t.Context())
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("start: %v", err)
		}
		c.balanced(c.join("b"))
	})
}

// noWork cannot list what there is to do.
type noWork struct{ deliver.Store }

func (*noWork) Work(context.Context, store.LaneRef, int) ([]store.Lane, error) {
	return nil, store.ErrUnavailable
}
