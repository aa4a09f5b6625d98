package deliver_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// A subscription that retention has overtaken is told, and goes on with the first event left; what was dead before is
// kept aside and can still be redriven.
func TestRetentionOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingNone))
		other := w.subscribe(nil)
		w.sink.set(always(failed(400)))
		if _, err := w.ctl.SetState(t.Context(), tenant, other, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		w.append(some(3, 0)...)
		pass(time.Hour)
		if st := w.status(id); st.Dead != 3 {
			t.Fatalf("before: %+v", st)
		}
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.append(some(100, 0)...)
		pass(time.Hour)
		between := time.Now()
		w.append(some(50, 0)...)
		done, err := w.store.Trim(t.Context(), tenant, store.Trim{Before: between, Keep: 1 << 20})
		if err != nil || done.First != 104 || len(done.Lost) != 0 {
			t.Fatalf("trim: %+v, %v", done, err)
		}
		w.sink.set(nil)
		for _, sub := range []eventhose.SubscriptionID{id, other} {
			if _, err := w.ctl.SetState(t.Context(), tenant, sub, eventhose.StateActive); err != nil {
				t.Fatal(err)
			}
			w.drained(sub)
		}
		got := map[eventhose.SubscriptionID][]eventhose.Sequence{}
		for _, d := range w.sink.all() {
			if d.taken {
				got[d.sub] = append(got[d.sub], d.seq)
			}
			if d.seq == 104 && d.prev != 0 {
				t.Errorf("104 says that %d came before it, as if nothing were missing", d.prev)
			}
		}
		for _, sub := range []eventhose.SubscriptionID{id, other} {
			if len(got[sub]) != 50 || slices.Min(got[sub]) != 104 {
				t.Errorf("%v taken, want the 50 that are left", got[sub])
			}
			told := 0
			for e, err := range w.log.Read(t.Context(), tenant, 103, eventhose.Filter{Types: []string{deliver.Overtaken}}) {
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(e.Data), string(sub)) && strings.Contains(string(e.Data), `"first":104`) {
					told++
				}
			}
			if told != 1 {
				t.Errorf("told %d times that retention has overtaken, want once", told)
			}
		}
		if n, err := w.eng.Redrive(t.Context(), tenant, id, nil); n != 3 || err != nil {
			t.Fatalf("redrive: %d, %v", n, err)
		}
		w.drained(id)
		taken := 0
		for _, d := range w.sink.all() {
			if d.taken && d.seq <= 3 {
				taken++
			}
		}
		if taken != 3 {
			t.Errorf("%d of 3 dead events were taken after retention had removed them from the log", taken)
		}
	})
}

// What a subscription gets first after retention has overtaken it says that nothing is known to come before it, also if the subscription
// had nothing to do meanwhile, and a restart comes before there is something for it.
func TestRetentionOvertakesAtRest(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w, r := late(t)
			id := w.subscribe(func(s *eventhose.Subscription) { s.Filter.Types = []string{"order.paid"} })
			w.append(some(1, 0)...)
			w.drained(id)
			pass(time.Minute)
			if n := w.eng.InMemory(tenant); n != 0 {
				t.Fatalf("%d lanes are in memory", n)
			}
			r.before = func() {
				w.append(append(some(3, 0), eventhose.Event{Type: "order.sent", Data: []byte("1")})...)
				if done, err := w.store.Trim(context.Background(), tenant, store.Trim{Bytes: 1}); err != nil || done.First != 6 {
					t.Errorf("trim: %+v, %v", done, err)
				}
			}
			w.append(some(1, 0)...)
			w.drained(id)
			pass(time.Minute)
			if n := w.eng.InMemory(tenant); n != 0 {
				t.Errorf("%d lanes stay in memory", n)
			}
			if restarts {
				w.stop()
				w.start()
			}
			defer w.stop()
			last := w.append(some(2, 0)...)[0].Sequence
			w.drained(id)
			for _, d := range w.sink.all() {
				if want := map[eventhose.Sequence]eventhose.Sequence{1: 0, last: 0, last + 1: last}[d.seq]; d.prev != want {
					t.Errorf("restarts: %v: %d says that %d came before it, want %d", restarts, d.seq, d.prev, want)
				}
			}
			got := sequences(w.sink.all()) // the last two in any order
			slices.Sort(got)
			if !slices.Equal(got, []eventhose.Sequence{1, last, last + 1}) {
				t.Errorf("sent: %v", got)
			}
		})
	}
}

// Nor does a replay that retention overtakes say that nothing is missing.
func TestRetentionOvertakesAReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingNone))
		w.append(some(149, 0)...)
		pass(time.Hour)
		between := time.Now()
		w.append(some(51, 0)...)
		w.drained(id)
		held := make(chan struct{})
		w.sink.set(func(context.Context, *sink.Batch) sink.Result { <-held; return taken() })
		if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{}, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if done, err := w.store.Trim(t.Context(), tenant, store.Trim{Before: between}); err != nil || done.First != 150 {
			t.Fatalf("trim: %+v, %v", done, err)
		}
		close(held)
		w.drained(id)
		replayed := 0
		for _, d := range w.sink.all() {
			if d.replay == "" || d.seq < 150 {
				continue
			}
			replayed++
			if want := (d.seq - 1) * min(1, d.seq-150); d.prev != want {
				t.Errorf("%d says that %d came before it, want %d", d.seq, d.prev, want)
			}
		}
		if replayed != 51 {
			t.Errorf("%d of 51 came", replayed)
		}
	})
}

// trimsFirst is a store that retention trims just before something is read, once it is told to.
type trimsFirst struct {
	deliver.Store
	trim atomic.Pointer[func()]
}

func (s *trimsFirst) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, l store.ReadLimit) ([]*eventhose.Event, error) {
	if trim := s.trim.Swap(nil); trim != nil {
		(*trim)()
	}
	return s.Store.Read(ctx, tenant, after, l)
}

// What waits is listed from where retention has left the log, also if that goes on meanwhile; and so is what waits longest.
func TestWaitingBehindTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		w.stop()
		trims := &trimsFirst{}
		w.wrap = func(s deliver.Store) deliver.Store { trims.Store = s; return trims }
		w.start()
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			quick(eventhose.OrderingKey)(s)
			s.OnExhausted = eventhose.OnExhaustedBlock
		})
		w.sink.set(always(failed(500)))
		var ages []time.Time
		for range 3 { // 1 is dead, 2 to 4 wait
			w.append(some(1, 1)...)
			pass(time.Hour)
			ages = append(ages, time.Now())
		}
		w.append(some(1, 1)...)
		pass(time.Second)
		trim := func(before time.Time) {
			if _, err := w.store.Trim(t.Context(), tenant, store.Trim{Before: before, Keep: 1 << 20}); err != nil {
				t.Error(err)
			}
		}
		check := func(want ...eventhose.Sequence) {
			t.Helper()
			rows, _, err := w.eng.Waiting(t.Context(), tenant, id, 0, 10)
			var got []eventhose.Sequence
			for _, p := range rows {
				got = append(got, p.Sequence)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%v, %v, want %v", got, err, want)
			}
		}
		check(2, 3, 4)
		trim(ages[1])
		check(3, 4)
		again := func() { trim(ages[2]) }
		trims.trim.Store(&again)
		check(4)
	})
}

// What waits longest is the first event that retention has left, while the cursor stands before that.
func TestOldestBehindTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingStrict))
		answer := make(chan struct{})
		w.sink.set(func(context.Context, *sink.Batch) sink.Result { <-answer; return taken() })
		w.append(some(3, 0)...)
		pass(time.Hour)
		left := time.Now()
		w.append(some(2, 0)...)
		pass(time.Minute)
		if _, err := w.store.Trim(t.Context(), tenant, store.Trim{Before: left}); err != nil {
			t.Fatal(err)
		}
		s, err := w.ctl.Subscription(t.Context(), tenant, id)
		if err != nil {
			t.Fatal(err)
		}
		subs := []eventhose.Subscription{s}
		statuses, err := w.eng.Statuses(t.Context(), tenant, subs)
		if err != nil || statuses[0].Cursor.Sequence != 0 {
			t.Fatalf("%+v, %v", statuses[0], err)
		}
		if sub, at, err := w.eng.Oldest(t.Context(), tenant, subs, statuses); err != nil || sub != id || !at.Equal(left) {
			t.Errorf("%q, %v, %v, want %v", sub, at, err, left)
		}
		close(answer)
		w.drained(id)
	})
}

// What waits behind a dead event goes on when retention takes that, also of a lane that is not in memory.
func TestRetentionTakesWhatHoldsAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.subscribe(func(s *eventhose.Subscription) {
			quick(eventhose.OrderingKey)(s)
			s.OnExhausted = eventhose.OnExhaustedBlock
		})
		w.sink.set(always(failed(500)))
		w.append(some(1, 1)...)
		pass(time.Hour)
		w.append(some(5, 1)...)
		pass(time.Second)
		if st := w.status(id); st.Dead != 1 || st.Waiting != 5 {
			t.Fatalf("before: %+v", st)
		}
		w.stop()
		w.start()
		defer w.stop()
		pass(time.Second)
		if n := w.eng.InMemory(tenant); n != 0 {
			t.Fatalf("%d lanes in memory: it does not try what it is for", n)
		}
		w.sink.set(nil)
		if _, _, err := w.ctl.PutTenant(t.Context(), eventhose.Tenant{ID: tenant, Retention: eventhose.Retention{Age: eventhose.Duration(10 * time.Minute), DeadBytes: 1}}); err != nil {
			t.Fatal(err)
		}
		if err := w.log.Retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.drained(id)
		if n := len(w.sink.firsts()); n != 5 {
			t.Errorf("%d of 5 taken", n)
		}
	})
}

// What waits behind a dead event goes on when retention has taken that just before the server was killed.
func TestRetentionTakesWhatHoldsAKeyAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.subscribe(func(s *eventhose.Subscription) {
			quick(eventhose.OrderingKey)(s)
			s.OnExhausted = eventhose.OnExhaustedBlock
		})
		w.sink.set(always(failed(500)))
		w.append(some(1, 1)...)
		pass(time.Hour)
		between := time.Now()
		w.append(some(5, 1)...)
		pass(time.Second)
		w.sink.set(nil)
		trim := store.Trim{Before: between, Keep: 1}
		done, err := w.store.Trim(t.Context(), tenant, trim)
		if trim.Lose = done.Over; err != nil || len(trim.Lose) != 1 {
			t.Fatalf("%+v, %v", done, err)
		}
		if done, err = w.store.Trim(t.Context(), tenant, trim); err != nil || len(done.Lost) != 1 {
			t.Fatalf("%+v, %v", done, err)
		}
		w.stop() // the engine has heard of nothing
		w.start()
		defer w.stop()
		w.drained(id)
		if n := len(w.sink.firsts()); n != 5 {
			t.Errorf("%d of 5 taken", n)
		}
	})
}

// An event that is erased before its turn is not sent, and holds nobody up.
func TestErasedBeforeItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingStrict))
		w.sink.set(always(failed(500)))
		placed := w.append(some(10, 0)...)
		synctest.Wait()
		for _, i := range []int{0, 4} {
			if err := w.log.Erase(t.Context(), tenant, "", placed[i].ID); err != nil {
				t.Fatal(err)
			}
		}
		w.sink.set(nil)
		w.drained(id)
		var got []eventhose.Sequence
		for _, d := range w.sink.firsts() {
			got = append(got, d.seq)
		}
		want := []eventhose.Sequence{2, 3, 4, 6, 7, 8, 9, 10}
		if !slices.Equal(got, want) {
			t.Errorf("taken: %v, want %v", got, want)
		}
	})
}
