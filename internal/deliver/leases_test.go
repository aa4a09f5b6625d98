package deliver_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// balanced checks that the shards are spread evenly over the nodes, and all held.
func (c *cluster) balanced(nodes ...*node) {
	c.t.Helper()
	shards := store.Shards
	if c.table.only != nil {
		shards = len(c.table.only)
	}
	share, sum := (shards+len(nodes)-1)/len(nodes), 0
	for _, n := range nodes {
		held := len(n.eng.Held())
		if sum += held; held > share {
			c.t.Errorf("node %s of %d holds %d shards, and %d are its share", n.name, len(nodes), held, share)
		}
	}
	if sum != shards {
		c.t.Errorf("%d nodes hold %d shards of %d", len(nodes), sum, shards)
	}
}

// Shards are balanced within a few claims as nodes come, stop and die.
func TestShardsAreBalanced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(50, nil)
		a := c.join("a")
		c.balanced(a)
		for i := range 50 {
			c.append(tenantID(i), 1)
		}
		pass(500 * time.Millisecond)
		b := c.join("b")
		pass(3 * time.Second) // one claim of each
		c.balanced(a, b)
		d := c.join("d")
		pass(7 * time.Second)
		c.balanced(a, b, d)
		b.stop()
		pass(3 * time.Second)
		c.balanced(a, d)
		d.kill()
		pass(9 * time.Second)
		c.balanced(a)
		c.drained()
		if n := c.audit(); n > 0 {
			t.Errorf("%d came again", n)
		}
	})
}

// What a node gives back, because another has come or it stops itself, is taken at once and not at the next claim in time.
func TestFreedShardsAreTakenAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(50, nil)
		a := c.join("a")
		pass(500 * time.Millisecond)
		b := c.join("b")
		pass(1600 * time.Millisecond) // a has claimed and learned of b, whose own next claim is half a second later
		c.balanced(a, b)
		pass(time.Second)
		b.stop()
		pass(100 * time.Millisecond)
		c.balanced(a)
	})
}

// While shards change hands because nodes come and stop, nothing is sent twice.
func TestNothingIsRepeatedInAnOrderlyHandover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.set(func(_ context.Context, b *sink.Batch) sink.Result {
			<-time.After(time.Duration(1+b.Items[0].Event.Sequence%7) * 100 * time.Millisecond)
			return taken()
		})
		c.crowd(40)
		c.populate(40, nil)
		a := c.join("a")
		work := func(d time.Duration) {
			for range d / (500 * time.Millisecond) {
				for i := range 40 {
					c.append(tenantID(i), 5)
				}
				pass(500 * time.Millisecond)
			}
		}
		work(3 * time.Second)
		b := c.join("b")
		work(10 * time.Second)
		d := c.join("d")
		work(10 * time.Second)
		a.stop()
		work(10 * time.Second)
		c.balanced(b, d)
		a = c.join("a")
		work(10 * time.Second)
		b.stop()
		d.stop()
		work(5 * time.Second)
		c.balanced(a)
		c.drained()
		if n := c.audit(); n > 0 {
			t.Errorf("%d came again", n)
		}
		if n := c.refused(); n > 0 {
			t.Errorf("%d commits were refused", n)
		}
	})
}

// slow takes everything after a moment.
func slow(context.Context, *sink.Batch) sink.Result {
	<-time.After(rand.N(100 * time.Millisecond))
	return taken()
}

// away lets a node be away for half a minute while it is at work and another takes over, and answers how many events came
// again and how many might: those that were under way or not recorded when it went.
func away(c *cluster, a *node, leave func(*node)) (again, might int) {
	c.set(slow)
	for i := range 30 {
		c.append(tenantID(i), 200)
	}
	pass(450 * time.Millisecond)
	leave(a)
	synctest.Wait()
	might, _, _ = a.eng.Slots()
	c.join("b")
	for range 30 {
		for i := range 30 {
			c.append(tenantID(i), 2)
		}
		pass(time.Second)
	}
	a.thaw()
	for i := range 30 {
		c.append(tenantID(i), 20)
	}
	pass(30 * time.Second)
	c.drained()
	return c.audit(), might
}

// A node that was frozen while another took over changes nothing and sends nothing of what it remembers when it wakes.
func TestAFrozenNodeWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(30, nil)
		again, might := away(c, c.join("a"), (*node).freeze)
		if again > might || might < 30 {
			t.Errorf("%d events came again, and %d were under way", again, might)
		}
		if c.heldBack() == 0 {
			t.Error("no request was held back: it does not try what it is for")
		}
		c.balanced(c.running()...)
	})
}

// A node that is cut off from the store goes on until its leases end and no longer. What it has not recorded by then it
// never does, and it is done again.
func TestANodeIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(30, nil)
		again, might := away(c, c.join("a"), (*node).cut)
		// It goes on until all slots are taken by what it cannot record.
		if again > 1024 || again < might {
			t.Errorf("%d events came again, and %d were under way when it was cut off", again, might)
		}
		if c.refused() == 0 {
			t.Error("no commit was refused: it does not try what it is for")
		}
		c.balanced(c.running()...)
	})
}

// The audit sees a node that takes no notice of what becomes of its leases.
func TestAuditSeesDeafNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.populate(30, nil)
		again, might := away(c, c.join("a", func(n *node) { n.deaf = true }), (*node).freeze)
		if again <= might {
			t.Errorf("%d events came again, %d were under way, and nothing is noticed", again, might)
		}
		if c.forgive() == 0 {
			t.Error("what it sends without leases is not noticed")
		}
		c.close()
	})
}

// A lease that is lost holds up nobody but its own tenants, whose deliveries go on when it comes back.
func TestAFencedTenantHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(30, nil)
		c.join("a")
		for i := range 30 {
			c.append(tenantID(i), 3)
		}
		c.drained()
		// It learns that it has lost the shard by its commit, long before its next claim.
		pass(100 * time.Millisecond)
		c.table.steal(tenantID(7), time.Minute)
		before := c.came()
		for i := range 30 {
			c.append(tenantID(i), 30)
		}
		pass(900 * time.Millisecond)
		recorded := 0
		for sub, id := range c.subs {
			row, _, err := c.store.Lane(t.Context(), id, sub)
			if err != nil {
				t.Fatal(err)
			}
			switch at := store.ShardOf(id) == store.ShardOf(tenantID(7)); {
			case !at && row.Cursor != 33:
				t.Errorf("%s is at %d of 33", id, row.Cursor)
			case at && row.Cursor != 3:
				t.Errorf("%s is at %d without a lease", id, row.Cursor)
			case !at:
				recorded++
			}
		}
		if recorded < 20 || c.refused() == 0 || c.came() == before {
			t.Errorf("%d tenants went on, %d commits were refused", recorded, c.refused())
		}
		c.forgive() // that the node sent before it learned of it
		pass(2 * time.Minute)
		c.drained()
		if again := c.audit(); again > 30 {
			t.Errorf("%d came again", again)
		}
	})
}

// Without hints, work is found by looking: events, also those of a node that died before it told, and new subscriptions.
func TestHintsMayBeLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		a := c.join("a")
		c.populate(1, nil)
		c.append(tenantID(0), 1)
		c.drained()
		c.quiet.Store(true)
		c.append(tenantID(0), 1)
		pass(6 * time.Second)
		if n := c.came(); n != 2 {
			t.Errorf("%d of 2 events came within the time between two looks", n)
		}

		// What becomes of subscriptions is not looked for, unless it is said that hints may have been lost.
		sub := c.subscribe(tenantID(0), nil)
		delete(c.subs, sub)
		a.eng.ChangedAll()
		c.append(tenantID(0), 1)
		pass(6 * time.Second)
		if n := c.came(); n != 4 {
			t.Errorf("%d of 4 events came, two of them to the new subscription", n)
		}
		if _, err := c.ctl.SetState(t.Context(), tenantID(0), sub, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		a.eng.ChangedAll()
		c.append(tenantID(0), 1)
		pass(6 * time.Second)
		if n := c.came(); n != 5 {
			t.Errorf("%d of 5 events came, none to the paused subscription", n)
		}
		if err := c.ctl.DeleteSubscription(t.Context(), tenantID(0), sub); err != nil {
			t.Fatal(err)
		}
		a.eng.ChangedAll()
		synctest.Wait()
		if n := a.eng.Stats().Subscriptions[string(eventhose.StatePaused)]; n != 0 {
			t.Errorf("%d subscriptions are paused, and it was deleted", n)
		}

		// Another node's coming or going is such a sign.
		b := c.join("b")
		pass(5 * time.Second)
		b.kill()
		delete(c.subs, c.subscribe(tenantID(0), nil))
		pass(10 * time.Second)
		c.append(tenantID(0), 1)
		pass(6 * time.Second)
		c.balanced(a)
		if n := c.came(); n != 7 {
			t.Errorf("%d of 7 events came", n)
		}
		b.stop()
	})
}

// The ids of a lane's attempts grow also when another node's clock was ahead.
func TestAttemptIDsGrowOverNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.populate(1, nil)
		a := c.join("a")
		c.append(tenantID(0), 3)
		c.drained()
		a.stop()
		var sub eventhose.SubscriptionID
		for sub = range c.subs {
		}
		row, _, err := c.store.Lane(t.Context(), tenantID(0), sub)
		if err != nil {
			t.Fatal(err)
		}
		as, err := c.store.Attempts(t.Context(), tenantID(0), store.AttemptQuery{Subscription: sub, Limit: 1})
		if err != nil || len(as) != 1 {
			t.Fatalf("%d attempts, %v", len(as), err)
		}
		ahead := as[0]
		var id [16]byte
		binary.BigEndian.PutUint64(id[:], uint64(time.Now().Add(time.Hour).UnixMicro()))
		ahead.ID = "att_" + eventhose.IDText(id)
		c.checkAttempts(&store.LaneChange{Lane: row, Attempts: []eventhose.Attempt{ahead}})
		if err := c.store.Commit(t.Context(), store.Progress{Lanes: []store.LaneChange{{Lane: row, Attempts: []eventhose.Attempt{ahead}}}}); err != nil {
			t.Fatal(err)
		}
		b := c.join("b")
		c.append(tenantID(0), 3)
		c.drained()
		if _, err := b.eng.Test(t.Context(), tenantID(0), sub); err != nil {
			t.Error(err)
		}
		if n := c.came(); n != 7 {
			t.Errorf("%d arrivals, want 7", n)
		}
	})
}
