package deliver_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
)

// mostIn answers how many of some moments lie within any window of a length.
func mostIn(at []time.Time, window time.Duration) (most int) {
	for first, i := 0, 0; i < len(at); i++ {
		for at[i].Sub(at[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// A flood drains at the rate that a subscription is limited to, in order and without a burst, alone or in batches, with and
// without failures; another rate counts at once.
func TestRateOfSending(t *testing.T) {
	for name, batch := range map[string]int{"alone": 1, "in batches": 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				defer w.stop()
				id := w.subscribe(func(s *eventhose.Subscription) {
					s.MaxRate, s.Ordering, s.Batch.MaxEvents = 200, eventhose.OrderingKey, batch
				})
				begun := time.Now()
				w.append(some(4000, 100)...)
				pass(10 * time.Second)
				if n := len(w.sink.sent); n < 1980 || n > 2000+batch+10 {
					t.Errorf("%d events in ten seconds at 200 a second", n)
				}
				w.drained(id)
				if took := time.Since(begun); took < 19*time.Second || took > 22*time.Second {
					t.Errorf("4000 events took %v", took)
				}
				var at []time.Time
				for _, d := range w.sink.sent {
					at = append(at, d.at)
				}
				slices.SortFunc(at, time.Time.Compare)
				if most := mostIn(at, time.Second); most > 200+10+batch {
					t.Errorf("%d events in one second", most)
				}
				slow := 1
				if _, err := w.ctl.UpdateSubscription(t.Context(), tenant, id, eventhose.SubscriptionPatch{MaxRate: &slow}, nil); err != nil {
					t.Fatal(err)
				}
				w.append(some(2*batch+100, 0)...)
				synctest.Wait()
				fast := 0
				if _, err := w.ctl.UpdateSubscription(t.Context(), tenant, id, eventhose.SubscriptionPatch{MaxRate: &fast}, nil); err != nil {
					t.Fatal(err)
				}
				begun = time.Now()
				w.drained(id)
				if took := time.Since(begun); took > 2*time.Second {
					t.Errorf("without a limit the rest took %v", took)
				}
			})
		})
	}
}

// Workers together are handed no more than the rate, and one that waits gets its event as soon as there is room.
func TestRateOfWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(func(s *eventhose.Subscription) { s.MaxRate = 100 })
		begun := time.Now()
		w.append(some(1000, 0)...)
		var at []time.Time
		for len(at) < 1000 {
			list, err := w.tryPull(context.Background(), id, eventhose.Pull{Max: 50, Wait: time.Minute})
			if err != nil || len(list) == 0 {
				t.Fatal(list, err)
			}
			for range list {
				at = append(at, time.Now())
			}
			w.answer(id, ack, 0, list...)
		}
		if took := time.Since(begun); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("1000 events took %v", took)
		}
		if most := mostIn(at, time.Second); most > 107 {
			t.Errorf("%d events in one second", most)
		}
	})
}

// The rate holds for events that come one by one, too, between which the lane has nothing to do; and nothing stays in memory for that.
func TestRateOfATrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		pushed := w.subscribe(func(s *eventhose.Subscription) { s.MaxRate = 1 })
		pulled := w.workers(func(s *eventhose.Subscription) { s.MaxRate = 1 })
		var handed []time.Time
		for range 50 {
			w.append(some(1, 0)...)
			pass(100 * time.Millisecond)
			for _, leased := range w.pull(pulled, eventhose.Pull{Max: 10}) {
				handed = append(handed, time.Now())
				w.answer(pulled, ack, 0, leased)
			}
		}
		if sent := len(w.sink.all()); sent > 6 || len(handed) > 6 {
			t.Errorf("in five seconds %d were sent and %d handed over", sent, len(handed))
		}
		for n := len(handed); n < 50; n++ {
			w.answer(pulled, ack, 0, w.pull(pulled, eventhose.Pull{Max: 1, Wait: time.Minute})...)
		}
		w.drained(pushed)
		w.append(some(1, 0)...)
		w.answer(pulled, ack, 0, w.pull(pulled, eventhose.Pull{Max: 1, Wait: time.Minute})...)
		pass(2 * time.Minute)
		if n, _ := w.eng.Resident(); n != 0 {
			t.Error("what has nothing to do is still in memory")
		}
	})
}
