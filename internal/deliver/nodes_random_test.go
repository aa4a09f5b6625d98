package deliver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

// shift is a random time in the life of a cluster.
type shift struct {
	*cluster
	rng     *rand.Rand
	names   int
	away    []*node // frozen or cut off
	allowed int     // events that may come again
	failing int     // one attempt in so many fails, 0 is none
}

const tenantsInShift = 25

func (s *shift) join() {
	s.names++
	s.cluster.join(fmt.Sprintf("n%d", s.names))
}

// up are the nodes that are not away, by name.
func (s *shift) up() []*node {
	up := slices.DeleteFunc(s.running(), func(n *node) bool { return slices.Contains(s.away, n) })
	slices.SortFunc(up, func(a, b *node) int { return slices.Compare([]byte(a.name), []byte(b.name)) })
	return up
}

func (s *shift) step() {
	up := s.up()
	n := up[s.rng.IntN(len(up))]
	id := tenantID(s.rng.IntN(tenantsInShift))
	switch k := s.rng.IntN(100); {
	case k < 40:
		for range 1 + s.rng.IntN(8) {
			s.append(tenantID(s.rng.IntN(tenantsInShift)), 1+s.rng.IntN(40))
		}
	case k < 65:
		pass([]time.Duration{3 * time.Millisecond, 300 * time.Millisecond, time.Second, 4 * time.Second, 15 * time.Second}[s.rng.IntN(5)])
	case k < 68:
		for sub, of := range s.subs {
			if of == id {
				state := []eventhose.SubscriptionState{eventhose.StatePaused, eventhose.StateActive}[s.rng.IntN(2)]
				if _, err := s.ctl.SetState(context.Background(), id, sub, state); err != nil {
					s.bad("set the state: %v", err)
				}
			}
		}
	case k < 72:
		s.failing = []int{0, 0, 2, 5, 20}[s.rng.IntN(5)]
		s.set(s.receive(s.failing))
	case k < 75:
		if len(up)+len(s.away) < 5 {
			s.join()
		}
	case k < 79:
		if len(up) > 1 {
			n.stop()
		}
	case k < 86:
		if len(up) > 1 {
			n.freeze()
			s.gone(n)
		}
	case k < 89:
		if len(up) > 1 {
			n.cut()
			s.gone(n)
			s.allowed += slotsInAll
		}
	case k < 91:
		if len(up) > 1 {
			s.gone(n)
			n.kill()
		}
	case k < 95:
		if len(s.away) > 0 {
			s.back(s.rng.IntN(len(s.away)))
		}
	default:
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for sub, of := range s.subs {
			if of != id {
				continue
			}
			var err error
			if s.rng.IntN(2) == 0 {
				_, err = n.eng.Redrive(ctx, id, sub, nil)
			} else {
				_, _, err = n.eng.Replay(ctx, id, sub, eventhose.ReplaySpec{}, s.rng.IntN(2) == 0)
			}
			switch eventhose.CodeOf(err) {
			case "", eventhose.CodeTimeout, eventhose.CodeUnavailable, eventhose.CodeLimit:
			default:
				s.bad("asked %s: %v", n.name, err)
			}
		}
	}
}

// gone notes that a node is away, and that what it has under way may come again.
func (s *shift) gone(n *node) {
	taken, _, _ := n.eng.Slots()
	s.allowed += taken
	s.away = append(s.away, n)
}

// back thaws a node, or buries a dead one.
func (s *shift) back(i int) {
	n := s.away[i]
	s.away = slices.Delete(s.away, i, i+1)
	if n.dead.Load() {
		n.stop()
		return
	}
	n.thaw()
}

// receive takes all but one in so many.
func (s *shift) receive(failing int) func(context.Context, *sink.Batch) sink.Result {
	return func(_ context.Context, b *sink.Batch) sink.Result {
		<-time.After(rand.N(800 * time.Millisecond))
		switch {
		case failing == 0 || rand.N(failing) > 0:
			return taken()
		case b.Subscription.Batch.Batched() && rand.N(2) == 0:
			return partly(b, func(e *eventhose.Event) bool { return rand.N(3) == 0 })
		}
		return failed(500)
	}
}

func liveOnNodes(t *testing.T, seed uint64, steps int) {
	synctest.Test(t, func(t *testing.T) {
		s := &shift{cluster: newCluster(t), rng: rand.New(rand.NewPCG(seed, 3))}
		s.opts = deliver.Options{MaxInFlight: slotsInAll}
		s.set(s.receive(0))
		if seed%3 > 0 {
			s.crowd(tenantsInShift)
		}
		kinds := 0
		s.populate(tenantsInShift, func(sub *eventhose.Subscription) {
			quick([]eventhose.Ordering{eventhose.OrderingKey, eventhose.OrderingStrict, eventhose.OrderingKey, eventhose.OrderingNone}[kinds%4])(sub)
			if kinds%3 == 0 {
				sub.Batch = eventhose.BatchPolicy{MaxEvents: 2 + s.rng.IntN(20), MaxBytes: 1 << 20}
			}
			kinds++
		})
		s.join()
		for range steps {
			s.step()
		}
		for len(s.away) > 0 {
			s.back(0)
		}
		s.set(s.receive(0))
		for sub, id := range s.subs {
			if _, err := s.ctl.SetState(t.Context(), id, sub, eventhose.StateActive); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			for range 10 {
				if _, err := s.up()[0].eng.Redrive(t.Context(), id, sub, nil); eventhose.CodeOf(err) != eventhose.CodeUnavailable {
					break
				}
			}
		}
		pass(time.Minute)
		s.drained()
		pass(30 * time.Second)
		s.balanced(s.running()...)
		for _, n := range s.running() {
			if taken, suspect, waiting := n.eng.Slots(); taken+suspect+waiting > 0 || n.eng.Pinned() != 0 {
				s.bad("node %s has nothing to do, and %d slots are taken, %d by suspects, %d lanes wait for one; %d bytes are held", n.name, taken, suspect, waiting, n.eng.Pinned())
			}
		}
		again := s.audit()
		if again > s.allowed {
			s.bad("%d events came again, and %d might", again, s.allowed)
		}
		if orders := s.orders(); len(orders) > 0 {
			s.bad("%d orders are left", len(orders))
		}
		t.Logf("%d nodes, %d arrivals, %d again of %d that might, %d commits refused, %d requests held back", s.names, s.came(), again, s.allowed, s.refused(), s.heldBack())
		s.close()
	})
}

// Nodes come, stop, freeze, wake, are cut off, and die, and every promise is kept: all comes, in order, and nothing again
// but what was under way on a node that went without a word. EVENTHOSE_SEED is the first seed, EVENTHOSE_LIVES how many.
func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	seed := number(t, "EVENTHOSE_SEED", rand.Uint64()>>1)
	for i := range number(t, "EVENTHOSE_LIVES", 3) {
		t.Run(fmt.Sprintf("EVENTHOSE_SEED=%d", seed+i), func(t *testing.T) { liveOnNodes(t, seed+i, 150) })
	}
}
