package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

// A paused subscription gets nothing, loses nothing, and goes on from where it stood, also after a restart.
func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.subscribe(nil)
		w.append(some(10, 0)...)
		pass(time.Second)
		set := func(state eventhose.SubscriptionState) {
			t.Helper()
			if _, err := w.ctl.SetState(t.Context(), tenant, id, state); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		set(eventhose.StatePaused)
		w.append(some(5000, 0)...)
		pass(time.Hour)
		if n := len(w.sink.all()); n != 10 {
			t.Errorf("%d sent, 10 of them before the pause", n)
		}
		if st := w.status(id); st.Lag != 5000 {
			t.Errorf("paused: %+v", st)
		}
		w.stop()
		w.start()
		defer w.stop()
		w.append(some(5, 0)...)
		pass(time.Hour)
		if n := len(w.sink.all()); n != 10 {
			t.Errorf("%d sent after a restart, 10 of them before the pause", n)
		}
		set(eventhose.StateActive)
		w.drained(id)
		if n := len(w.sink.all()); n != 5015 {
			t.Errorf("%d sent, want 5015", n)
		}
	})
}

// A changed filter holds for what was not sent yet, and a deleted subscription gets nothing more.
func TestChangeAndDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingKey))
		w.sink.set(always(failed(500)))
		w.append(some(3000, 10)...)
		pass(10 * time.Second)
		if _, err := w.ctl.UpdateSubscription(t.Context(), tenant, id, eventhose.SubscriptionPatch{Filter: &eventhose.Filter{Keys: []string{"k3"}}}, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.sink.set(nil)
		before := len(w.sink.all())
		w.drained(id)
		got := map[string]int{}
		for _, d := range w.sink.all()[before:] {
			got[d.key]++
		}
		if got["k3"] != 300 {
			t.Errorf("%d events of the key that is still wanted, want 300", got["k3"])
		}
		for key, n := range got {
			if key != "k3" && n > 1 {
				t.Errorf("%d events of %s, which is no longer wanted; only what was parked goes on", n, key)
			}
		}
		if err := w.ctl.DeleteSubscription(t.Context(), tenant, id); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before = len(w.sink.all())
		w.append(some(10, 1)...)
		pass(time.Hour)
		if n := len(w.sink.all()) - before; n != 0 {
			t.Errorf("%d sent to a deleted subscription", n)
		}
		if lanes := w.eng.InMemory(tenant); lanes != 0 {
			t.Errorf("%d lanes left", lanes)
		}
	})
}

// A new subscription may begin at the start of the log, and gets it all.
func TestFromStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		w.append(some(5000, 0)...)
		s, err := w.ctl.CreateSubscription(t.Context(), eventhose.Subscription{Tenant: tenant, Ordering: eventhose.OrderingStrict,
			Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook"}}, "start")
		if err != nil {
			t.Fatal(err)
		}
		w.append(some(100, 0)...)
		w.drained(s.ID)
		sent := w.sink.all()
		if len(sent) != 5100 || inversions(sent, true) != 0 {
			t.Errorf("%d sent with %d inversions, want 5100 in order", len(sent), inversions(sent, true))
		}
	})
}

// A replay counts first if asked, sends its range once more marked by its id, to the statuses it names, and survives a
// restart; live order goes on beside it.
func TestReplay(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey} {
		t.Run(string(ordering), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(quick(ordering))
				w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
					if b.Items[0].Event.Sequence%10 == 0 {
						return failed(400)
					}
					return taken()
				})
				w.append(some(1000, 1000)...)
				pass(time.Hour)
				dead := w.status(id).Dead
				if dead != 100 {
					t.Fatalf("%d dead, want 100", dead)
				}
				w.sink.set(nil)
				before := len(w.sink.all())
				count := func(spec eventhose.ReplaySpec) int {
					t.Helper()
					_, n, err := w.eng.Replay(t.Context(), tenant, id, spec, true)
					if err != nil {
						t.Fatal(err)
					}
					return n
				}
				for _, tc := range []struct {
					spec eventhose.ReplaySpec
					want int
				}{
					{eventhose.ReplaySpec{}, 1000}, {eventhose.ReplaySpec{From: 11, To: 20}, 10}, {eventhose.ReplaySpec{Status: "failed"}, 100},
					{eventhose.ReplaySpec{Status: "delivered"}, 900}, {eventhose.ReplaySpec{Types: []string{"other"}}, 0}, {eventhose.ReplaySpec{From: 5000}, 0},
				} {
					if n := count(tc.spec); n != tc.want {
						t.Errorf("a dry run of %+v counts %d, want %d", tc.spec, n, tc.want)
					}
				}
				if n := len(w.sink.all()) - before; n != 0 {
					t.Errorf("dry runs sent %d", n)
				}
				w.sink.set(func(context.Context, *sink.Batch) sink.Result { <-time.After(10 * time.Millisecond); return taken() })
				r, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{From: 101, To: 900}, false)
				if err != nil {
					t.Fatal(err)
				}
				<-time.After(50 * time.Millisecond)
				w.stop()
				sent := len(w.sink.all()) - before
				if sent == 0 || sent >= 800 {
					t.Errorf("%d of 800 sent before the restart: it does not try what it is for", sent)
				}
				w.start()
				defer w.stop()
				w.append(some(10, 0)...)
				w.drained(id)
				replayed := map[eventhose.Sequence]int{}
				for _, d := range w.sink.all()[before:] {
					if d.seq > 1000 {
						if d.replay != "" {
							t.Errorf("live sequence %d is marked as replayed", d.seq)
						}
						continue
					}
					if d.replay != r.ID || d.prev != d.seq-1 {
						t.Errorf("sequence %d: replay %q, previous %d", d.seq, d.replay, d.prev)
					}
					replayed[d.seq]++
				}
				if len(replayed) != 800 {
					t.Errorf("%d events replayed, want 800", len(replayed))
				}
				if st := w.status(id); st.Dead != 20 || len(st.Replays) != 0 {
					t.Errorf("after: %+v; what a replay delivers is dead no more", st)
				}
			})
		})
	}
}

// Redrive and discard take the dead events they are given and refuse others, changing nothing.
func TestRedriveByID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingNone))
		w.sink.set(always(failed(400)))
		placed := w.append(some(5, 0)...)
		pass(time.Hour)
		rows, err := w.eng.Parked(t.Context(), tenant, id, eventhose.ParkedDead, 0, 10)
		if err != nil || len(rows) != 5 || rows[0].Attempts != 6 || rows[0].Status != 400 {
			t.Fatalf("parked: %+v, %v", rows, err)
		}
		_, err = w.eng.Redrive(t.Context(), tenant, id, []string{placed[0].ID, "evt_none"})
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeNotFound || e.Field != "events[1]" {
			t.Errorf("redriving what is not dead: %v", err)
		}
		if st := w.status(id); st.Dead != 5 {
			t.Errorf("a refused redrive changed something: %+v", st)
		}
		w.sink.set(nil)
		if n, err := w.eng.Redrive(t.Context(), tenant, id, []string{placed[0].ID, placed[2].ID}); n != 2 || err != nil {
			t.Errorf("redrive: %d, %v", n, err)
		}
		if n, err := w.eng.Discard(t.Context(), tenant, id, []string{placed[1].ID}); n != 1 || err != nil {
			t.Errorf("discard: %d, %v", n, err)
		}
		pass(time.Second)
		if st := w.status(id); st.Dead != 2 || st.Retrying != 0 {
			t.Errorf("after: %+v", st)
		}
		if firsts := w.sink.firsts(); len(firsts) != 2 || firsts[0].kind != eventhose.AttemptRedrive {
			t.Errorf("taken: %+v", firsts)
		}
	})
}

// Events of several sources may have one id: what names a place is about the event at it, and about no other.
func TestDecideByPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(once)
		later := w.subscribe(func(s *eventhose.Subscription) {
			s.Ordering, s.Retry.Schedule = eventhose.OrderingNone, []eventhose.Duration{0, eventhose.Duration(24 * time.Hour)}
		})
		w.sink.set(always(failed(400)))
		events := some(6, 0)
		for i := range events {
			events[i].ID, events[i].Scope = "1", fmt.Sprintf("/shop/%d", i)
		}
		placed := w.append(events...)
		pass(time.Minute)
		w.sink.set(nil)
		came := func() (of []eventhose.Sequence) {
			pass(time.Minute)
			for _, d := range w.sink.firsts() {
				if d.sub == id {
					of = append(of, d.seq)
				}
			}
			return of
		}
		rows := func(sub eventhose.SubscriptionID) (left []eventhose.Sequence) {
			list, err := w.eng.Parked(t.Context(), tenant, sub, "", 0, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				left = append(left, p.Sequence)
			}
			return left
		}
		expect := func(what string, got []eventhose.Sequence, places ...int) {
			t.Helper()
			var want []eventhose.Sequence
			for _, i := range places {
				want = append(want, placed[i].Sequence)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}

		for _, bad := range []eventhose.Sequence{0, placed[5].Sequence + 1} {
			_, err := w.eng.Redrive(t.Context(), tenant, id, nil, placed[0].Sequence, bad)
			var e *eventhose.Error
			if !errors.As(err, &e) || e.Code != eventhose.CodeNotFound || e.Field != "sequences[1]" {
				t.Errorf("redriving what is not dead: %v", err)
			}
		}
		expect("a refused redrive", rows(id), 0, 1, 2, 3, 4, 5)
		if n, err := w.eng.Redrive(t.Context(), tenant, id, nil, placed[3].Sequence); n != 1 || err != nil {
			t.Errorf("redrive: %d, %v", n, err)
		}
		expect("redriven", came(), 3)
		if n, err := w.eng.Discard(t.Context(), tenant, id, nil, placed[5].Sequence, placed[2].Sequence, placed[5].Sequence); n != 2 || err != nil {
			t.Errorf("discard: %d, %v", n, err)
		}
		pass(time.Minute)
		expect("after the discard", rows(id), 0, 1, 4)
		list, err := w.eng.Resend(t.Context(), w.everything()[4], []eventhose.SubscriptionID{id})
		if err != nil || len(list) != 1 || list[0].Did != "redrive" {
			t.Errorf("resend: %+v, %v", list, err)
		}
		expect("handed over once more", came(), 3, 4)
		if n, err := w.eng.Redrive(t.Context(), tenant, id, []string{"1"}, placed[1].Sequence); n != 2 || err != nil { // the id is the first that has it
			t.Errorf("redrive by both: %d, %v", n, err)
		}
		came()
		expect("after all", rows(id))

		if n, err := w.eng.Retry(t.Context(), tenant, later, nil, placed[4].Sequence); n != 1 || err != nil {
			t.Errorf("retry: %d, %v", n, err)
		}
		pass(time.Minute)
		expect("after the retry", rows(later), 0, 1, 2, 3, 5)
	})
}

// What became of an event is told at each subscription that it concerns; every try is on record, newest first.
func TestDeliveriesAndAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		good := w.subscribe(nil)
		bad := w.subscribe(quick(eventhose.OrderingKey))
		w.subscribe(func(s *eventhose.Subscription) { s.Filter.Types = []string{"other"} })
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if b.Subscription.ID == bad {
				return failed(500)
			}
			return taken()
		})
		w.append(some(3, 1)...)
		pass(3 * time.Second)
		later := w.subscribe(nil)
		states := func(n int) map[eventhose.SubscriptionID]string {
			t.Helper()
			var found *eventhose.Event
			for e := range w.log.Read(t.Context(), tenant, eventhose.Sequence(n-1), eventhose.Filter{}) {
				found = &e
				break
			}
			ds, err := w.eng.Deliveries(t.Context(), *found)
			if err != nil {
				t.Fatal(err)
			}
			m := map[eventhose.SubscriptionID]string{}
			for _, d := range ds {
				m[d.Subscription] = fmt.Sprintf("%s %d", d.State, len(d.Attempts))
			}
			return m
		}
		for n, want := range map[int]string{1: "retrying 2", 2: "waiting 0"} {
			got := states(n)
			if len(got) != 2 || got[good] != "delivered 1" || got[bad] != want {
				t.Errorf("event %d: %v", n, got)
			}
			if _, concerned := got[later]; concerned {
				t.Errorf("event %d concerns a subscription that began after it", n)
			}
		}
		waiting, _, err := w.eng.Waiting(t.Context(), tenant, bad, 0, 10)
		if err != nil || len(waiting) != 2 || waiting[0].Sequence != 2 {
			t.Errorf("waiting: %+v, %v", waiting, err)
		}
		as, err := w.eng.Attempts(t.Context(), tenant, bad, "", 10)
		if err != nil || len(as) != 2 || as[0].Number != 2 || as[0].Kind != eventhose.AttemptRetry || as[1].Kind != eventhose.AttemptFirst || as[0].Next.IsZero() {
			t.Errorf("attempts: %+v, %v", as, err)
		}
		older, err := w.eng.Attempts(t.Context(), tenant, bad, as[0].ID, 10)
		if err != nil || len(older) != 1 || older[0].ID != as[1].ID {
			t.Errorf("the page before: %+v, %v", older, err)
		}
		a, err := w.eng.Test(t.Context(), tenant, good)
		if err != nil || a.Outcome != eventhose.OutcomeTaken || a.Kind != eventhose.AttemptTest || len(a.Sequences) != 0 {
			t.Errorf("test event: %+v, %v", a, err)
		}
	})
}

// Stop takes no more, lets what is under way finish within its time, cuts off what does not without charging it, and
// records all of it.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.subscribe(nil)
		w.sink.set(func(ctx context.Context, b *sink.Batch) sink.Result {
			wait := time.Second
			if b.Items[0].Event.Sequence > 4 {
				wait = time.Hour
			}
			select {
			case <-time.After(wait):
				return taken()
			case <-ctx.Done():
				return failed(0)
			}
		})
		w.append(some(20, 0)...)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := w.eng.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if err := errors.Join(w.log.Close(), w.store.Close()); err != nil {
			t.Fatal(err)
		}
		tried := len(w.sink.all())
		if tried != 8 {
			t.Errorf("%d tried before the stop, want the first 8", tried)
		}
		w.sink.set(nil)
		w.start()
		defer w.stop()
		as, err := w.eng.Attempts(t.Context(), tenant, id, "", 100)
		if err != nil || slices.ContainsFunc(as, func(a eventhose.Attempt) bool { return a.Outcome != eventhose.OutcomeTaken }) {
			t.Errorf("what was cut off is on record as an attempt: %+v, %v", as, err)
		}
		w.drained(id)
		counts := map[eventhose.Sequence]int{}
		for _, d := range w.sink.all() {
			if d.taken {
				counts[d.seq]++
			}
		}
		for s := range eventhose.Sequence(20) {
			if counts[s+1] != 1 {
				t.Errorf("sequence %d was taken %d times", s+1, counts[s+1])
			}
		}
	})
}
