package deliver_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

// What a paused or disabled subscription has before it is not behind; what an active one tries again is.
func TestStatsOfHeldSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			s.Ordering, s.Retry.Schedule = eventhose.OrderingKey, []eventhose.Duration{0, eventhose.Duration(24 * time.Hour)}
		})
		w.sink.set(always(failed(500)))
		w.append(some(1, 1)...)
		pass(time.Minute)
		w.append(some(3, 1)...)
		pass(time.Minute)
		if st := w.eng.Stats(); st.Pending != 4 || time.Since(st.Oldest) < time.Minute {
			t.Errorf("active: %+v", st)
		}
		held := func(state eventhose.SubscriptionState) {
			t.Helper()
			if n := w.eng.InMemory(tenant); n != 1 {
				t.Errorf("%d lanes in memory: it does not try what it is for", n)
			}
			if st := w.eng.Stats(); st.Pending != 0 || !st.Oldest.IsZero() || st.Subscriptions[string(state)] != 1 {
				t.Errorf("%s: %+v", state, st)
			}
		}
		set := func(state eventhose.SubscriptionState) {
			t.Helper()
			if _, err := w.ctl.SetState(t.Context(), tenant, id, state); err != nil {
				t.Fatal(err)
			}
			w.append(some(1, 0)...)
			pass(time.Minute)
		}
		set(eventhose.StatePaused)
		held(eventhose.StatePaused)
		w.sink.set(always(sink.Result{Outcome: eventhose.OutcomeGone, Reason: eventhose.ReasonStatus, Status: 410}))
		set(eventhose.StateActive)
		held(eventhose.StateDisabled)
		w.sink.set(nil)
		set(eventhose.StateActive)
		pass(48 * time.Hour)
		w.drained(id)
		if st := w.eng.Stats(); st.Pending != 0 || !st.Oldest.IsZero() {
			t.Errorf("drained: %+v", st)
		}
	})
}
