package deliver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// everything answers a log's events.
func (w *world) everything() (events []eventhose.Event) {
	w.t.Helper()
	for e, err := range w.log.Read(context.Background(), tenant, 0, eventhose.Filter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// counted is what Deliveries, which reads attempts, knows of an event.
func (w *world) counted(e eventhose.Event) (c eventhose.DeliveryCounts) {
	w.t.Helper()
	deliveries, err := w.eng.Deliveries(context.Background(), e)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range deliveries {
		switch d.State {
		case eventhose.DeliveryDelivered:
			c.Taken++
		case eventhose.DeliveryPending, "leased":
			c.Pending++
		case "retrying":
			c.Retrying++
		case "waiting":
			c.Waiting++
		case "dead":
			c.Dead++
		}
	}
	return c
}

// What the outlook tells of events without reading an attempt is what their attempts tell, whether lanes are in memory or
// not, after a restart, and on a node that does not deliver.
func TestOutlook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		answers := map[eventhose.SubscriptionID]func(*sink.Batch) sink.Result{}
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if f := answers[b.Subscription.ID]; f != nil {
				return f(b)
			}
			return taken()
		})
		refuse := func(seqs ...eventhose.Sequence) func(*sink.Batch) sink.Result {
			return func(b *sink.Batch) sink.Result {
				if slices.Contains(seqs, b.Items[0].Event.Sequence) {
					return failed(500)
				}
				return taken()
			}
		}
		w.append(some(5, 0)...) // before all of them
		w.subscribe(nil)
		answers[w.subscribe(nil)] = refuse(6, 9, 30)          // retrying
		answers[w.subscribe(once)] = refuse(7, 9, 31)         // dead
		answers[w.subscribe(func(s *eventhose.Subscription) { // dead, and its key waits
			s.Ordering, s.OnExhausted, s.Retry.Schedule = eventhose.OrderingKey, eventhose.OnExhaustedBlock, []eventhose.Duration{0}
		})] = refuse(8)
		w.subscribe(func(s *eventhose.Subscription) { s.Filter.Expression = "data.n >= 10" })
		answers[w.subscribe(func(s *eventhose.Subscription) { s.Filter.Types = []string{"nothing.*"} })] = nil
		paused := w.subscribe(nil)
		worked := w.workers(nil)
		synctest.Wait()
		w.append(some(20, 4)...)
		pass(time.Second)
		if _, err := w.ctl.SetState(t.Context(), tenant, paused, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		leased := w.pull(worked, eventhose.Pull{Max: 6, Lease: time.Hour})
		w.answer(worked, eventhose.Answer{Verdict: eventhose.AnswerAck}, 0, leased[0], leased[2], leased[3])
		w.append(some(20, 4)...)
		pass(time.Second)

		events := w.everything()
		check := func(when string, eng *deliver.Engine, all bool) {
			t.Helper()
			count, whole, err := eng.Outlook(t.Context(), tenant)
			if err != nil || !whole {
				t.Fatal(whole, err)
			}
			var total eventhose.DeliveryCounts
			for group := range slices.Chunk(events, 7) {
				counts, err := count(t.Context(), group)
				if err != nil {
					t.Fatal(err)
				}
				for i, e := range group {
					if want := w.counted(e); counts[i] != want {
						t.Errorf("%s, event %d: %+v, want %+v", when, e.Sequence, counts[i], want)
					}
					total.Taken, total.Pending, total.Retrying = total.Taken+counts[i].Taken, total.Pending+counts[i].Pending, total.Retrying+counts[i].Retrying
					total.Waiting, total.Dead = total.Waiting+counts[i].Waiting, total.Dead+counts[i].Dead
				}
			}
			if all && (total.Taken < 100 || total.Pending != 20+37 || total.Retrying != 3 || total.Waiting != 9 || total.Dead != 4) {
				t.Errorf("%s: in all %+v", when, total)
			}
		}
		check("in memory", w.eng, true)
		asleep := deliver.New(w.store, w.ctl, w.log, nil, deliver.Options{})
		check("as it is stored", asleep, true)
		w.stop()
		w.start()
		defer w.stop()
		pass(time.Second)
		check("after a restart", w.eng, true)
		w.append(some(1, 0)...)
		pass(time.Second)
		events = w.everything()
		check("with lanes woken", w.eng, false)
	})
}

// counting counts what is read of a store.
type counting struct {
	deliver.Store
	attempts, lanes, parked int
}

func (c *counting) Attempts(ctx context.Context, id eventhose.TenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	c.attempts++
	return c.Store.Attempts(ctx, id, q)
}

func (c *counting) Lane(ctx context.Context, id eventhose.TenantID, sub eventhose.SubscriptionID) (store.Lane, []store.BlockedKey, error) {
	c.lanes++
	return c.Store.Lane(ctx, id, sub)
}

func (c *counting) Parked(ctx context.Context, id eventhose.TenantID, sub eventhose.SubscriptionID, q store.ParkedQuery) ([]store.Parked, error) {
	c.parked++
	return c.Store.Parked(ctx, id, sub, q)
}

// The outlook over lanes that rest costs a look at what is parked, however many lanes and attempts there are.
func TestOutlookIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		var reads *counting
		w.stop()
		w.wrap = func(s deliver.Store) deliver.Store { reads = &counting{Store: s}; return reads }
		w.start()
		defer w.stop()
		for range 50 {
			w.subscribe(nil)
		}
		pass(2 * time.Minute) // clocks of nodes may differ by less
		w.append(some(200, 0)...)
		pass(10 * time.Second)
		events := w.everything()
		synctest.Wait()
		reads.attempts, reads.lanes, reads.parked = 0, 0, 0
		count, _, err := w.eng.Outlook(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		for group := range slices.Chunk(events, 32) {
			counts, err := count(t.Context(), group)
			if err != nil || counts[0].Taken != 50 {
				t.Fatal(counts, err)
			}
		}
		if reads.attempts != 0 || reads.lanes != 1 || reads.parked != 7 {
			t.Errorf("%d lists of attempts, %d lanes, %d lists of parked events were read for 200 events of 50 subscriptions", reads.attempts, reads.lanes, reads.parked)
		}
	})
}

// Who has retrying events due at once sees them sent at once, their schedule going on from where it was.
func TestRetryNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			s.Retry.Schedule = []eventhose.Duration{0, eventhose.Duration(time.Hour), eventhose.Duration(time.Hour)}
		})
		w.sink.set(always(failed(400)))
		placed := w.append(some(5, 0)...)
		pass(time.Second)
		retry := func(want int, events ...string) {
			t.Helper()
			if n, err := w.eng.Retry(t.Context(), tenant, id, events); err != nil || n != want {
				t.Fatalf("%d are due, %v, want %d", n, err, want)
			}
			pass(time.Second)
		}
		rows := func(state eventhose.ParkedState) (n int) {
			list, err := w.eng.Parked(t.Context(), tenant, id, state, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		if _, err := w.eng.Retry(t.Context(), tenant, id, []string{placed[0].ID, "absent"}); eventhose.CodeOf(err) != eventhose.CodeNotFound || !strings.Contains(err.Error(), "events[1]") {
			t.Errorf("one that is not retrying: %v", err)
		}
		sent := len(w.sink.all())
		retry(2, placed[1].ID, placed[3].ID)
		if n := len(w.sink.all()) - sent; n < 1 {
			t.Errorf("%d were sent", n)
		}
		w.sink.set(nil)
		retry(5)
		pass(time.Minute)
		if n := rows(""); n != 0 {
			t.Errorf("%d are still parked", n)
		}
		retry(0)
	})
}

// An event is handed over once more in the way that its delivery needs: by a replay, a redrive, a retry, or not at all.
func TestResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		bad := map[eventhose.SubscriptionID]bool{}
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if bad[b.Subscription.ID] {
				return failed(400)
			}
			return taken()
		})
		fine, retrying, dead, paused := w.subscribe(nil), w.subscribe(nil), w.subscribe(once), w.subscribe(nil)
		other := w.subscribe(func(s *eventhose.Subscription) { s.Filter.Types = []string{"other"} })
		bad[retrying], bad[dead] = true, true
		if _, err := w.ctl.SetState(t.Context(), tenant, paused, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		w.append(some(1, 0)...)
		pass(time.Second)
		clear(bad)
		event := w.everything()[0]
		before := len(w.sink.all())
		list, err := w.eng.Resend(t.Context(), event, nil)
		if err != nil {
			t.Fatal(err)
		}
		did := map[eventhose.SubscriptionID]string{}
		for _, r := range list {
			if did[r.Subscription] = r.Did; (r.Did == "replay") != (r.Replay != nil) || r.Error != "" {
				t.Errorf("%+v", r)
			}
		}
		if want := map[eventhose.SubscriptionID]string{fine: "replay", retrying: "retry", dead: "redrive", paused: "pending"}; fmt.Sprint(did) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", did, want)
		}
		pass(time.Minute)
		kinds := map[eventhose.SubscriptionID]eventhose.AttemptKind{}
		for _, d := range w.sink.all()[before:] {
			if kinds[d.sub] = d.kind; !d.taken {
				t.Errorf("%+v", d)
			}
		}
		if len(kinds) != 3 || kinds[fine] != eventhose.AttemptReplay || kinds[dead] != eventhose.AttemptRedrive {
			t.Errorf("sent: %v", kinds)
		}
		for field, subs := range map[string][]eventhose.SubscriptionID{"subscriptions[1]": {fine, other}, "subscriptions[0]": {"sub_absent"}} {
			if _, err := w.eng.Resend(t.Context(), event, subs); err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("%v: %v, want %s", subs, err, field)
			}
		}
		if list, err := w.eng.Resend(t.Context(), event, []eventhose.SubscriptionID{fine}); err != nil || len(list) != 1 {
			t.Errorf("one that is named: %+v, %v", list, err)
		}
		event.Erased = true
		if _, err := w.eng.Resend(t.Context(), event, nil); eventhose.CodeOf(err) != eventhose.CodeErased {
			t.Errorf("an erased one: %v", err)
		}
		pass(time.Minute)
	})
}

// What waits behind its key comes anyway; what was taken while an earlier one is under way is sent once more; and no
// subscription is named twice.
func TestResendAheadOfTheCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		answer := make(chan struct{})
		keyed := w.subscribe(func(s *eventhose.Subscription) {
			s.Ordering, s.Retry.Schedule = eventhose.OrderingKey, []eventhose.Duration{0, eventhose.Duration(time.Hour)}
		})
		free := w.subscribe(func(s *eventhose.Subscription) { s.Ordering = eventhose.OrderingNone })
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			switch {
			case b.Subscription.ID == keyed:
				return failed(400)
			case b.Items[0].Event.Sequence == 1:
				<-answer
			}
			return taken()
		})
		w.append(some(2, 1)...)
		pass(time.Second)
		event := w.everything()[1]
		before := len(w.sink.all())
		did := func(want string, to ...eventhose.SubscriptionID) {
			t.Helper()
			list, err := w.eng.Resend(t.Context(), event, to)
			got := ""
			for _, r := range list {
				if got += r.Did + " "; (r.Did == "replay") != (r.Replay != nil) {
					t.Errorf("%+v", r)
				}
			}
			if err != nil || got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		}
		did("pending ", keyed)
		did("replay ", free)
		pass(time.Second)
		if sent := w.sink.all()[before:]; len(sent) != 1 || sent[0].sub != free || sent[0].seq != 2 || sent[0].kind != eventhose.AttemptReplay {
			t.Errorf("sent: %+v", sent)
		}
		if st := w.status(keyed); len(st.Replays) != 0 || st.Waiting != 1 {
			t.Errorf("what waits: %+v", st)
		}
		_, err := w.eng.Resend(t.Context(), event, []eventhose.SubscriptionID{free, keyed, free})
		if eventhose.CodeOf(err) != eventhose.CodeInvalid || !strings.Contains(err.Error(), "subscriptions[2]") {
			t.Errorf("one that is named twice: %v", err)
		}
		if st := w.status(free); len(st.Replays) != 0 {
			t.Errorf("a refused request has started %+v", st.Replays)
		}
		close(answer)
		w.sink.set(nil)
		w.drained(free)
		w.drained(keyed)
	})
}

// Who asks another node to send an event once more gets what the one that delivers decides.
func TestResendOfAnotherNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		id, sub, _, other := apart(c, 1, func(s *eventhose.Subscription) {
			s.Ordering, s.Retry.Schedule = eventhose.OrderingKey, []eventhose.Duration{0, eventhose.Duration(time.Hour)}
		})
		c.append(id, 1)
		pass(time.Minute)
		before := c.came()
		event, err := c.store.Lookup(t.Context(), id, store.Ref{Sequence: 1})
		if err != nil {
			t.Fatal(err)
		}
		list, err := other.eng.Resend(t.Context(), *event, []eventhose.SubscriptionID{sub})
		if err != nil || len(list) != 1 || list[0].Did != "replay" || list[0].Replay == nil || list[0].Subscription != sub {
			t.Errorf("%+v, %v", list, err)
		}
		pass(time.Minute)
		if n := c.came() - before; n != 1 {
			t.Errorf("%d came", n)
		}
	})
}

// Who asks another node for a retry gets it from the one that delivers.
func TestRetryNowOfAnotherNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		id, sub, _, other := apart(c, 1, func(s *eventhose.Subscription) {
			s.Ordering, s.Retry.Schedule = eventhose.OrderingNone, []eventhose.Duration{0, eventhose.Duration(24 * time.Hour)}
		})
		c.set(always(failed(400)))
		c.append(id, 3)
		pass(time.Minute)
		rows, err := other.eng.Parked(t.Context(), id, sub, eventhose.ParkedRetrying, 0, 10)
		if err != nil || len(rows) != 3 {
			t.Fatalf("%d retrying, %v", len(rows), err)
		}
		c.set(nil)
		before := c.came()
		if n, err := other.eng.Retry(t.Context(), id, sub, []string{rows[1].Event}); n != 1 || err != nil {
			t.Errorf("one: %d, %v", n, err)
		}
		pass(time.Minute)
		if n := c.came() - before; n == 0 {
			t.Error("nothing came")
		}
		if n, err := other.eng.Retry(t.Context(), id, sub, nil); n == 0 || err != nil {
			t.Errorf("all: %d, %v", n, err)
		}
		pass(time.Minute)
		if rows, err := other.eng.Parked(t.Context(), id, sub, "", 0, 10); err != nil || len(rows) != 0 {
			t.Errorf("%d are left, %v", len(rows), err)
		}
	})
}

// What was taken a moment ago, and is not recorded yet, is sent once more when that is asked for.
func TestResendOfWhatWasJustTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			s.Retry.Schedule = []eventhose.Duration{0, eventhose.Duration(time.Hour)}
		})
		w.sink.set(always(failed(400)))
		w.append(some(1, 0)...)
		pass(time.Second)
		answer := make(chan struct{})
		w.sink.set(func(context.Context, *sink.Batch) sink.Result { <-answer; return taken() })
		if n, err := w.eng.Retry(t.Context(), tenant, id, nil); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		close(answer)
		synctest.Wait() // it is taken, and the next commit is some milliseconds away
		if rows, err := w.store.Parked(t.Context(), tenant, id, store.ParkedQuery{Limit: 1}); err != nil || len(rows) != 1 || len(w.sink.firsts()) != 1 {
			t.Fatalf("%d parked, %d taken, %v", len(rows), len(w.sink.firsts()), err)
		}
		list, err := w.eng.Resend(t.Context(), w.everything()[0], nil)
		if err != nil || len(list) != 1 || list[0].Did != "replay" {
			t.Errorf("%+v, %v", list, err)
		}
		pass(time.Minute)
		if n := len(w.sink.all()); n != 3 {
			t.Errorf("%d were sent", n)
		}
	})
}

// Who has an event tried now, or redriven, does not wait until the receiver wants more, which asked for hours with Retry-After.
func TestRetryNowThoughItAskedForLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			s.Retry.Schedule = []eventhose.Duration{0, eventhose.Duration(time.Second)}
		})
		busy := failed(503)
		busy.RetryAfter = 10 * time.Hour
		w.sink.set(always(busy))
		w.append(some(1, 0)...)
		pass(time.Minute)
		for _, ask := range []func() (int, error){
			func() (int, error) { return w.eng.Retry(t.Context(), tenant, id, nil, 1) },
			func() (int, error) { return w.eng.Redrive(t.Context(), tenant, id, nil, 1) },
		} {
			sent := len(w.sink.all())
			if n, err := ask(); err != nil || n != 1 {
				t.Fatalf("%d are due, %v", n, err)
			}
			pass(time.Minute)
			if n := len(w.sink.all()) - sent; n != 1 {
				t.Errorf("sent %d times", n)
			}
		}
		w.sink.set(nil)
		w.drained(id)
	})
}
