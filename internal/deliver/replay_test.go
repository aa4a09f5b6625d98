package deliver_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// looking notes, for which replay and how often in a row, it is looked at what became of events.
type looking struct {
	deliver.Store
	of   func(eventhose.SubscriptionID, eventhose.Sequence) string
	gate chan struct{}

	mu           sync.Mutex
	last         string
	run, longest int
	all          int
	next         map[string]int // by the last one and the next
}

func (s *looking) Attempts(ctx context.Context, id eventhose.TenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	<-s.gate
	s.mu.Lock()
	if of := s.of(q.Subscription, q.Sequence); of == s.last {
		s.run++
	} else {
		s.next[s.last+of]++
		s.last, s.run = of, 1
	}
	s.longest = max(s.longest, s.run)
	s.all++
	s.mu.Unlock()
	return s.Store.Attempts(ctx, id, q)
}

// Replays that look up what became of events do so a small page at a time, each in its turn, since others are read for by the same
// readers; and once for a page.
func TestReplaysByStatusTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		w.stop()
		s := &looking{gate: make(chan struct{}), next: map[string]int{}}
		w.wrap = func(st deliver.Store) deliver.Store { s.Store = st; return s }
		w.start()
		defer w.stop()
		two, one := w.subscribe(nil), w.subscribe(nil)
		s.of = func(id eventhose.SubscriptionID, seq eventhose.Sequence) string {
			switch {
			case id == one:
				return "C"
			case seq <= 1000:
				return "A"
			}
			return "B"
		}
		w.append(some(2000, 0)...)
		w.drained(two)
		w.drained(one)
		set := func(state eventhose.SubscriptionState) {
			for _, id := range []eventhose.SubscriptionID{two, one} {
				if _, err := w.ctl.SetState(t.Context(), tenant, id, state); err != nil {
					t.Fatal(err)
				}
			}
			pass(time.Second)
		}
		set(eventhose.StatePaused)
		for _, r := range []struct {
			sub      eventhose.SubscriptionID
			from, to eventhose.Sequence
		}{{two, 1, 1000}, {two, 1001, 2000}, {one, 1, 1000}} {
			if _, _, err := w.eng.Replay(t.Context(), tenant, r.sub, eventhose.ReplaySpec{From: r.from, To: r.to, Status: "failed"}, false); err != nil {
				t.Fatal(err)
			}
		}
		before := len(w.sink.all())
		set(eventhose.StateActive)
		close(s.gate)
		w.drained(two)
		w.drained(one)
		if n := len(w.sink.all()) - before; n != 0 {
			t.Errorf("%d were sent", n)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.longest > 2 || s.next["AC"]+s.next["BC"] < 14 || s.next["CA"] < 7 || s.next["CB"] < 7 {
			t.Errorf("%d in a row, and one after another: %v", s.longest, s.next)
		}
		if s.all > 60 {
			t.Errorf("%d looks at what became of 3000 events", s.all)
		}
	})
}

// blocked subscribes with order per key; the first event of one key fails, is tried again in a day, and what has the key waits behind it.
func (w *world) blocked(key string) eventhose.SubscriptionID {
	id := w.subscribe(func(s *eventhose.Subscription) {
		s.Ordering, s.Retry.Schedule = eventhose.OrderingKey, []eventhose.Duration{0, eventhose.Duration(24 * time.Hour)}
	})
	w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
		if b.Items[0].Event.Key == key && b.Kind == eventhose.AttemptFirst {
			return failed(400)
		}
		return taken()
	})
	return id
}

// A dry run counts what the replay sends: not what is tried again by itself, and not what waits behind it.
func TestDryRunCountsWhatIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.blocked("k1")
		w.append(some(2000, 2)...) // of k1 the first is tried again, and 999 wait
		pass(time.Minute)
		if st := w.status(id); st.Retrying != 1 || st.Waiting != 999 {
			t.Fatalf("%+v", st)
		}
		for _, status := range []string{"", "failed"} {
			spec := eventhose.ReplaySpec{Status: status}
			_, count, err := w.eng.Replay(t.Context(), tenant, id, spec, true)
			if err != nil {
				t.Fatal(err)
			}
			before := len(w.sink.all())
			if _, _, err := w.eng.Replay(t.Context(), tenant, id, spec, false); err != nil {
				t.Fatal(err)
			}
			pass(time.Minute)
			if sent := len(w.sink.all()) - before; sent != count || status == "" && sent != 1000 {
				t.Errorf("%q: %d counted, %d sent", status, count, sent)
			}
		}
		w.sink.set(nil)
		pass(48 * time.Hour)
		w.drained(id)
	})
}

// What counts and lists by reading the log looks at a bounded piece of it and tells how far it has come.
func TestBoundedLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.blocked("k0")
		w.append(some(2, 1)...)
		w.append(some(12_000, 0)...)
		w.append(some(2, 1)...) // 12,003 and 12,004
		pass(time.Minute)
		if st := w.status(id); st.Waiting != 3 || st.Lag != 0 {
			t.Fatalf("%+v", st)
		}
		var waiting []eventhose.Sequence
		pages := 0
		for after, more := eventhose.Sequence(0), true; more; pages++ {
			rows, next, err := w.eng.Waiting(t.Context(), tenant, id, after, 2)
			if err != nil || next > 0 && (next <= after || next > after+eventhose.MaxExamined+500) {
				t.Fatalf("after %d: %d, %v", after, next, err)
			}
			for _, p := range rows {
				waiting = append(waiting, p.Sequence)
			}
			after, more = next, next > 0
		}
		if !slices.Equal(waiting, []eventhose.Sequence{2, 12_003, 12_004}) || pages != 2 {
			t.Errorf("%v on %d pages", waiting, pages)
		}
		if rows, next, err := w.eng.Waiting(t.Context(), tenant, id, 12_000, 1); err != nil || len(rows) != 1 || next < 12_003 || next >= 12_004 {
			t.Errorf("a full page: %+v, %d, %v", rows, next, err)
		}
		count := 0
		pages = 0
		for from := eventhose.Sequence(1); from > 0; pages++ {
			r, n, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{From: from}, true)
			if err != nil || r.At > r.To || r.At > from+eventhose.MaxExamined+500 {
				t.Fatalf("from %d: %+v, %v", from, r, err)
			}
			count += n
			if from = r.At + 1; r.At == r.To {
				from = 0
			}
		}
		if count != 12_000 || pages != 2 {
			t.Errorf("%d counted in %d steps", count, pages)
		}
		w.sink.set(nil)
		pass(48 * time.Hour)
		w.drained(id)
	})
}

// What a replay has sent is not sent again when the subscription is paused and goes on while an earlier event is still under way, or
// was when it was paused.
func TestReplayGoesOnWhereItWas(t *testing.T) {
	for name, whilePaused := range map[string]bool{"while it is paused": true, "later": false} {
		t.Run(name, func(t *testing.T) { replayGoesOn(t, whilePaused) })
	}
}

func replayGoesOn(t *testing.T, whilePaused bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(nil)
		w.append(some(200, 0)...)
		w.drained(id)
		release := make(chan struct{})
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if b.Items[0].Event.Sequence == 1 {
				<-release
			}
			return taken()
		})
		if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{}, false); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		for _, state := range []eventhose.SubscriptionState{eventhose.StatePaused, eventhose.StateActive} {
			if _, err := w.ctl.SetState(t.Context(), tenant, id, state); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			if whilePaused == (state == eventhose.StatePaused) {
				close(release)
				synctest.Wait()
			}
		}
		w.drained(id)
		times := map[eventhose.Sequence]int{}
		for _, d := range w.sink.all() {
			if d.replay != "" {
				times[d.seq]++
			}
		}
		for seq := eventhose.Sequence(1); seq <= 200; seq++ {
			if times[seq] != 1 {
				t.Errorf("the replay sent %d %d times", seq, times[seq])
			}
		}
	})
}

// What a replay is for, by status: of what was tried in batches and more than once, and of what was given up.
func TestReplayByStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			s.Batch.MaxEvents, s.Retry.Schedule = 10, []eventhose.Duration{0, eventhose.Duration(time.Second)}
		})
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			return partly(b, func(e *eventhose.Event) bool { return e.Sequence%7 == 0 || e.Sequence%5 == 0 && b.Number == 1 })
		})
		w.append(some(300, 0)...)
		w.drained(id)
		var given []eventhose.Sequence
		for seq := eventhose.Sequence(7); seq <= 100; seq += 7 {
			given = append(given, seq)
		}
		if n, err := w.eng.Discard(t.Context(), tenant, id, nil, given...); n != 14 || err != nil {
			t.Fatal(n, err)
		}
		for status, want := range map[string]int{"dead": 28, "failed": 42, "delivered": 258} {
			if _, count, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{Status: status}, true); count != want || err != nil {
				t.Errorf("%s: %d, %v, want %d", status, count, err, want)
			}
		}
	})
}

// A replay names no more types than a filter does: with more it could not be read for, and with it nothing of the tenant's.
func TestReplayOfManyTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(nil)
		w.append(some(1, 0)...)
		w.drained(id)
		types := slices.Repeat([]string{"order.paid"}, eventhose.MaxFilterTypes)
		for _, dry := range []bool{true, false} {
			if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{Types: types}, dry); err != nil {
				t.Error(err)
			}
			if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{Types: append(types, "one.more")}, dry); eventhose.CodeOf(err) != eventhose.CodeInvalid {
				t.Errorf("%d types: %v", len(types)+1, err)
			}
		}
		w.drained(id)
	})
}
