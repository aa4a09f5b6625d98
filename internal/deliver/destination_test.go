package deliver_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

const newURL = "https://new.example.com/hook"

// move gives a subscription another URL.
func (w *world) move(id eventhose.SubscriptionID) {
	w.t.Helper()
	d := eventhose.Destination{Type: eventhose.DestinationWebhook, URL: newURL}
	if _, err := w.ctl.UpdateSubscription(context.Background(), tenant, id, eventhose.SubscriptionPatch{Destination: &d}, nil); err != nil {
		w.t.Fatal(err)
	}
}

// What an attempt under way brings from the old URL says nothing of the new one: the subscription stays active, what was not taken
// is sent there at once, uncharged and counted as a try, and nothing of what the old one asked for is waited for.
func TestOldDestinationFails(t *testing.T) {
	busy := failed(503)
	busy.RetryAfter, busy.Slow = time.Hour, true
	for name, r := range map[string]sink.Result{"gone": {Outcome: eventhose.OutcomeGone, Status: 410}, "busy": busy, "failed": failed(500), "taken": taken()} {
		for _, change := range []func(*eventhose.Subscription){
			quick(eventhose.OrderingNone), quick(eventhose.OrderingKey), quick(eventhose.OrderingStrict), batches(eventhose.OrderingKey, eventhose.BatchPolicy{MaxEvents: 3}),
		} {
			for _, retried := range []bool{false, true} {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, deliver.Options{})
						defer w.stop()
						id := w.subscribe(func(s *eventhose.Subscription) {
							change(s)
							s.Retry.Schedule = []eventhose.Duration{0} // whatever is charged is dead
							if retried {
								s.Retry.Schedule = append(s.Retry.Schedule, eventhose.Duration(time.Second))
							}
							s.Retry.DisableAfter = eventhose.Duration(time.Hour)
						})
						w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
							switch {
							case b.Subscription.Destination.URL == newURL:
								return taken()
							case retried && b.Number == 1:
								return failed(500)
							}
							<-time.After(5 * time.Second)
							return r
						})
						w.append(some(1, 0)...)
						pass(3 * time.Second)
						began, tries := w.sink.all(), 2
						if retried {
							tries++
						}
						w.move(id)
						pass(5 * time.Second)
						got := w.sink.all()[len(began):]
						if name == "taken" {
							if len(got) != 1 || !got[0].taken {
								t.Errorf("%+v", got)
							}
							return
						}
						if len(got) != 2 || !got[1].taken || got[1].number != tries || got[1].at.Sub(got[0].at) > 6*time.Second {
							t.Errorf("%+v", got)
						}
						s, err := w.ctl.Subscription(t.Context(), tenant, id)
						if st := w.status(id); err != nil || s.State != eventhose.StateActive || st.Dead+st.Retrying != 0 || st.Circuit != "closed" || !st.FailingSince.IsZero() {
							t.Errorf("%s (%s), %+v, %v", s.State, s.Reason, st, err)
						}
						as, err := w.eng.Attempts(t.Context(), tenant, id, "", 10)
						if err != nil || len(as) != tries || as[1].Outcome != r.Outcome || as[1].Status != r.Status || as[1].Number != tries-1 || as[1].Next.IsZero() {
							t.Errorf("%+v, %v", as, err)
						}
						w.append(some(1, 0)...)
						synctest.Wait()
						if last := w.sink.all(); len(last) != len(began)+3 {
							t.Errorf("the next event waits for what the old destination asked for")
						}
					})
				})
			}
		}
	}
}

// What the old URL asked for before the change is not waited for at the new one either, nor does its circuit keep events back, nor
// its outage disable the subscription.
func TestOldDestinationWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) { s.Retry.DisableAfter = eventhose.Duration(3 * 24 * time.Hour) })
		busy := failed(503)
		busy.RetryAfter = 24 * time.Hour
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if b.Subscription.Destination.URL == newURL && b.Items[0].Event.Sequence > 101 {
				return taken()
			}
			return busy
		})
		w.append(some(101, 0)...)
		pass(71 * time.Hour)
		if st := w.status(id); st.FailingSince.IsZero() {
			t.Fatalf("%+v", st)
		}
		w.move(id)
		w.append(some(1, 0)...)
		synctest.Wait()
		all := w.sink.all()
		if last := all[len(all)-1]; time.Since(last.at) > time.Second {
			t.Errorf("nothing was tried at the new destination: %+v", last)
		}
		pass(3 * time.Hour)
		if s, err := w.ctl.Subscription(t.Context(), tenant, id); err != nil || s.State != eventhose.StateActive {
			t.Errorf("%s (%s) by an outage of the old destination, %v", s.State, s.Reason, err)
		}
	})
}

// The change may be stored and not have come round when the old URL answers: what is disabled is what was answered for.
func TestGoneWhileTheDestinationChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(nil)
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if b.Subscription.Destination.URL == newURL {
				return taken()
			}
			w.ctl.Announce(func(eventhose.TenantID, eventhose.SubscriptionID) {}) // the hint is lost
			w.move(id)
			return sink.Result{Outcome: eventhose.OutcomeGone, Status: 410}
		})
		w.append(some(1, 0)...)
		pass(time.Second)
		s, err := w.ctl.Subscription(t.Context(), tenant, id)
		if err != nil || s.State != eventhose.StateActive || !slices.ContainsFunc(w.sink.all(), func(d delivery) bool { return d.taken }) {
			t.Errorf("%s (%s), %+v, %v", s.State, s.Reason, w.sink.all(), err)
		}
	})
}
