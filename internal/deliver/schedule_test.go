package deliver_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

// The default schedule is kept to its jitter: each wait is at least what it says and at most a tenth more, 75 h 35 min 5 s
// in sum, and then the event is dead.
func TestDefaultScheduleIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) { s.Retry.DisableAfter = -1 })
		w.sink.set(always(failed(500)))
		w.append(some(1, 0)...)
		synctest.Wait()
		for range 90 {
			pass(time.Hour)
		}
		sent, schedule := w.sink.all(), eventhose.DefaultSchedule()
		if len(sent) != len(schedule) {
			t.Fatalf("%d attempts, want %d", len(sent), len(schedule))
		}
		var sum time.Duration
		for i := 1; i < len(sent); i++ {
			wait, want := sent[i].at.Sub(sent[i-1].at), time.Duration(schedule[i])
			if wait < want || wait > want+want/10+time.Millisecond {
				t.Errorf("attempt %d came after %v, want %v to a tenth more", i+1, wait, want)
			}
			if sent[i].number != i+1 || sent[i].id != sent[0].id {
				t.Errorf("attempt %d has number %d and id %s, the first had %s", i+1, sent[i].number, sent[i].id, sent[0].id)
			}
			sum += want
		}
		if want := 75*time.Hour + 35*time.Minute + 5*time.Second; sum != want {
			t.Errorf("the schedule is %v long, want %v", sum, want)
		}
		if st := w.status(id); st.Dead != 1 || st.Retrying != 0 {
			t.Errorf("after the last attempt: %+v, want one dead", st)
		}
	})
}

// A month of outage costs nothing but the events that were tried before the circuit opened to its end; everything else
// is delivered after it, in order.
func TestMonthOfOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) { s.Retry.DisableAfter = -1; s.Ordering = eventhose.OrderingStrict })
		w.sink.set(always(failed(503)))
		for range 30 {
			w.append(some(20, 0)...)
			pass(24 * time.Hour)
		}
		down := w.sink.all()
		if st := w.status(id); st.Dead > 9 || st.Retrying > 1 {
			t.Errorf("during the outage: %+v", st)
		}
		w.sink.set(nil)
		pass(11 * time.Minute)
		w.drained(id)
		st := w.status(id)
		firsts := w.sink.firsts()
		if len(firsts)+st.Dead != 600 {
			t.Errorf("%d delivered and %d dead of 600", len(firsts), st.Dead)
		}
		for i := 1; i < len(firsts); i++ {
			if firsts[i].seq <= firsts[i-1].seq {
				t.Fatalf("sequence %d came after %d", firsts[i].seq, firsts[i-1].seq)
			}
		}
		if len(down) > 6000 {
			t.Errorf("%d attempts at a destination that was down for a month", len(down))
		}
		n, err := w.eng.Redrive(context.Background(), tenant, id, nil)
		if err != nil || n != st.Dead {
			t.Fatalf("redrive: %d, %v", n, err)
		}
		w.drained(id)
		if firsts := w.sink.firsts(); len(firsts) != 600 {
			t.Errorf("%d of 600 delivered in the end", len(firsts))
		}
	})
}

// Days of nothing but failure disable a subscription, with a system event; enabling it goes on from the cursor.
func TestAutoDisable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(nil)
		began := time.Now()
		w.sink.set(always(failed(500)))
		for range 8 {
			w.append(some(100, 0)...)
			pass(24 * time.Hour)
		}
		s, err := w.ctl.Subscription(t.Context(), tenant, id)
		if err != nil || s.State != eventhose.StateDisabled || !strings.Contains(s.Reason, "nothing but failures") {
			t.Fatalf("after 8 days: %s %q, %v", s.State, s.Reason, err)
		}
		sent := w.sink.all()
		last := sent[len(sent)-1].at.Sub(began)
		if after := time.Duration(eventhose.DefaultDisableAfter); last < after || last > after+time.Hour {
			t.Errorf("the last attempt was after %v, want %v", last, after)
		}
		told := 0
		for e, err := range w.log.Read(t.Context(), tenant, 0, eventhose.Filter{Types: []string{deliver.Disabled}}) {
			if err != nil || !strings.Contains(string(e.Data), string(id)) {
				t.Errorf("system event %s, %v", e.Data, err)
			}
			told++
		}
		if told != 1 {
			t.Errorf("%d system events, want 1", told)
		}
		w.sink.set(nil)
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
			t.Fatal(err)
		}
		w.drained(id)
		if got := len(w.sink.firsts()) + w.status(id).Dead; got != 800 {
			t.Errorf("%d of 800 delivered or dead", got)
		}
	})
}

// 410 disables at once; Retry-After and 429 are obeyed.
func TestAnswersThatAskForSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(nil)
		busy := failed(429)
		busy.RetryAfter, busy.Slow = time.Hour, true
		w.sink.set(always(busy))
		w.append(some(1, 0)...)
		synctest.Wait()
		w.sink.set(nil)
		w.append(some(9, 0)...)
		pass(59 * time.Minute)
		if n := len(w.sink.all()); n != 1 {
			t.Errorf("%d attempts within Retry-After, want 1", n)
		}
		pass(10 * time.Minute)
		w.drained(id)
		if n := len(w.sink.firsts()); n != 10 {
			t.Errorf("%d delivered, want 10", n)
		}
		w.sink.set(always(sink.Result{Outcome: eventhose.OutcomeGone, Status: 410}))
		w.append(some(1, 0)...)
		pass(time.Second)
		if s, _ := w.ctl.Subscription(t.Context(), tenant, id); s.State != eventhose.StateDisabled || !strings.Contains(s.Reason, "410") {
			t.Errorf("after 410: %s %q", s.State, s.Reason)
		}
		w.append(some(5, 0)...)
		pass(time.Hour)
		w.sink.set(nil)
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
			t.Fatal(err)
		}
		w.drained(id)
		if n := len(w.sink.firsts()); n != 16 {
			t.Errorf("%d delivered, want 16", n)
		}
	})
}
