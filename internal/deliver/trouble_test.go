package deliver_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// While the circuit is open, a probe waits its time also when its event failed first before the last success.
func TestProbesOfAnOldFailureWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			s.Retry.Schedule = []eventhose.Duration{0, eventhose.Duration(time.Hour), eventhose.Duration(24 * time.Hour)}
		})
		var down atomic.Bool
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			<-time.After(10 * time.Millisecond)
			if down.Load() || b.Items[0].Event.Sequence == 1 {
				return failed(500)
			}
			return taken()
		})
		w.append(some(2, 0)...)
		pass(20 * time.Minute)
		down.Store(true)
		w.append(some(200, 0)...)
		pass(2 * time.Hour)
		if st := w.status(id); st.Circuit != "open" {
			t.Fatalf("after 200 failures: %+v", st)
		}
		if n := len(w.sink.all()); n > 200 {
			t.Errorf("%d attempts in two hours at a destination that is down", n)
		}
	})
}

// broken fails to read the lane of one subscription.
type broken struct {
	deliver.Store
	sub  eventhose.SubscriptionID
	well atomic.Bool
}

func (b *broken) Lane(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (store.Lane, []store.BlockedKey, error) {
	if sub == b.sub && !b.well.Load() {
		return store.Lane{}, nil, errors.New("planted")
	}
	return b.Store.Lane(ctx, tenant, sub)
}

// A lane that cannot be read keeps no other of its tenant from being read for, and goes on when it can.
func TestUnreadableLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		first, second := w.subscribe(nil), w.subscribe(nil)
		pass(time.Minute)
		w.stop()
		b := &broken{sub: first}
		w.wrap = func(s deliver.Store) deliver.Store { b.Store = s; return b }
		w.start()
		defer w.stop()
		count := func(id eventhose.SubscriptionID) (n int) {
			for _, d := range w.sink.all() {
				if d.sub == id {
					n++
				}
			}
			return n
		}
		for range 10 {
			w.append(some(10, 0)...)
			pass(30 * time.Second)
		}
		if n := count(second); n != 100 {
			t.Errorf("%d of 100 sent to the subscription whose lane can be read", n)
		}
		b.well.Store(true)
		pass(time.Minute)
		if n := count(first); n != 100 {
			t.Errorf("%d of 100 sent to the subscription whose lane could not be read, now that it can", n)
		}
	})
}

// A retry that is answered 410 stops the subscription with nothing else under way; what comes while it is disabled is
// there when it is enabled.
func TestNothingIsSkippedWhileDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingNone))
		w.sink.set(always(failed(500)))
		w.append(some(1, 0)...)
		synctest.Wait()
		w.sink.set(always(sink.Result{Outcome: eventhose.OutcomeGone, Status: 410}))
		pass(10 * time.Second)
		w.append(some(20, 0)...)
		pass(time.Minute)
		w.sink.set(nil)
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
			t.Fatal(err)
		}
		w.drained(id)
		if n := len(w.sink.firsts()); n != 21 {
			t.Errorf("%d of 21 taken", n)
		}
	})
}

// A wait before the first attempt keeps strict order and parks nothing, however many events come at once.
func TestFirstWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			quick(eventhose.OrderingStrict)(s)
			s.Retry.Schedule[0] = eventhose.Duration(time.Minute)
		})
		w.sink.set(moody)
		w.append(some(4_000, 0)...)
		pass(59 * time.Second)
		if st := w.status(id); st.Retrying != 0 || len(w.sink.all()) != 0 {
			t.Errorf("within the wait: %+v, %d attempts", st, len(w.sink.all()))
		}
		w.drained(id)
		if n := inversions(w.sink.all(), true); n != 0 {
			t.Errorf("%d inversions", n)
		}
		if n := len(w.sink.firsts()) + w.status(id).Dead; n != 4_000 {
			t.Errorf("%d of 4000 taken or dead", n)
		}
	})
}

// While a retry is under way, and nothing else is left to do, what is stored says that there is something to go on with: a
// crash would leave it for ever.
func TestRetryUnderWayIsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingKey))
		hang := make(chan struct{})
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			switch {
			case b.Items[0].Event.Sequence > 1:
				return taken()
			case b.Number == 1:
				return failed(500)
			}
			<-hang
			return taken()
		})
		w.append(some(1, 1)...)
		pass(2 * time.Second)
		w.append(some(1, 0)...)
		pass(2 * time.Second)
		row, _, err := w.store.Lane(t.Context(), tenant, id)
		if err != nil || row.Retrying != 1 {
			t.Fatalf("%+v, %v", row, err)
		}
		work, err := w.store.Work(t.Context(), store.LaneRef{}, 10)
		if err != nil || len(work) != 1 {
			t.Errorf("%d lanes have work, and one retries: %+v, %v", len(work), row, err)
		}
		close(hang)
		w.drained(id)
		if work, err := w.store.Work(t.Context(), store.LaneRef{}, 10); err != nil || len(work) != 0 {
			t.Errorf("%d lanes have work in the end, %v", len(work), err)
		}
	})
}

// What may be tried is probed while an event waits for its first attempt: an outage that is over is noticed.
func TestProbesBesideAFirstWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			s.Retry.Schedule = []eventhose.Duration{eventhose.Duration(time.Hour)}
		})
		w.sink.set(always(failed(500)))
		w.append(some(50, 0)...)
		pass(61 * time.Minute)
		if st := w.status(id); st.Circuit != "open" || st.Dead != 50 {
			t.Fatalf("%+v", st)
		}
		if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{}, false); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		w.append(some(1, 0)...)
		pass(time.Minute)
		w.sink.set(nil)
		pass(10 * time.Minute)
		if st := w.status(id); st.Circuit != "closed" || len(st.Replays) != 0 {
			t.Errorf("ten minutes after the outage: %+v", st)
		}
		pass(time.Hour)
		w.drained(id)
	})
}
