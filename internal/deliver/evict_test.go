package deliver_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
)

// A tenant that has had nothing to do for a minute is not in memory, and goes on as if it had been; one that has something to
// do stays.
func TestIdleTenantsLeaveMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		idle := w.subscribe(quick(eventhose.OrderingKey))
		resident := func(tenants, subscriptions int, when string) {
			t.Helper()
			pass(2 * time.Minute)
			if n, m := w.eng.Resident(); n != tenants || m != subscriptions {
				t.Errorf("%s: %d tenants with %d subscriptions are in memory, want %d with %d", when, n, m, tenants, subscriptions)
			}
		}
		total := 0
		deliverSome := func() {
			t.Helper()
			for i := range 3 {
				total++
				w.append(eventhose.Event{Type: "order.paid", Key: fmt.Sprint(i % 2), Data: []byte("{}")})
			}
			pass(time.Second)
		}
		deliverSome()
		resident(0, 0, "after deliveries")
		deliverSome()
		if n, m := w.eng.Resident(); n != 1 || m != 1 {
			t.Errorf("at work: %d tenants with %d subscriptions are in memory", n, m)
		}
		resident(0, 0, "after more deliveries")

		// What a person does wakes it, and it leaves again.
		if _, err := w.eng.Test(t.Context(), tenant, idle); err != nil {
			t.Error(err)
		}
		resident(0, 0, "after a test")
		if _, err := w.ctl.SetState(t.Context(), tenant, idle, eventhose.StatePaused); err != nil {
			t.Error(err)
		}
		deliverSome()
		pass(5 * time.Minute)
		if _, err := w.ctl.SetState(t.Context(), tenant, idle, eventhose.StateActive); err != nil {
			t.Error(err)
		}
		w.drained(idle)
		resident(0, 0, "after a pause")

		// Who has events to try again stays.
		failing := w.subscribe(nil)
		w.sink.set(always(failed(500)))
		w.append(eventhose.Event{Type: "order.paid", Data: []byte("{}")})
		total++
		resident(1, 2, "while a delivery fails")
		w.sink.set(nil)
		w.drained(failing)
		w.drained(idle)
		if err := w.ctl.DeleteSubscription(t.Context(), tenant, failing); err != nil {
			t.Error(err)
		}
		resident(0, 0, "in the end")

		var seq eventhose.Sequence
		for _, d := range w.sink.all() {
			if d.sub != idle || d.seq == 0 || !d.taken {
				continue
			}
			if d.seq != seq+1 || d.prev != seq {
				t.Errorf("event %d, after %d, comes after %d", d.seq, d.prev, seq)
			}
			seq = d.seq
		}
		if int(seq) != total {
			t.Errorf("%d events of %d were taken", seq, total)
		}
	})
}
