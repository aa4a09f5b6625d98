package deliver_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// lateReader calls before, if set, once when a page is about to be read, and meanwhile once a page was read and before it is handed
// over. It counts what is looked up alone.
type lateReader struct {
	deliver.Store
	before    func()
	meanwhile func()
	lookups   atomic.Int64
}

func (r *lateReader) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	if do := r.before; do != nil {
		r.before = nil
		do()
	}
	events, err := r.Store.Read(ctx, tenant, after, limit)
	if do := r.meanwhile; do != nil && len(events) > 0 {
		r.meanwhile = nil
		do()
	}
	return events, err
}

func (r *lateReader) Lookup(ctx context.Context, tenant eventhose.TenantID, ref store.Ref) (*eventhose.Event, error) {
	r.lookups.Add(1)
	return r.Store.Lookup(ctx, tenant, ref)
}

// late is a world whose engine reads through a lateReader.
func late(t *testing.T) (*world, *lateReader) {
	w, r := newWorld(t, deliver.Options{}), &lateReader{}
	w.stop()
	w.wrap = func(s deliver.Store) deliver.Store { r.Store = s; return r }
	w.start()
	return w, r
}

// hold has one event under way until release, so that its lane is in memory.
func (w *world) hold() (release func()) {
	held := make(chan struct{})
	w.sink.set(func(context.Context, *sink.Batch) sink.Result {
		<-held
		return taken()
	})
	w.append(some(1, 0)...)
	synctest.Wait()
	return func() { close(held) }
}

// An event that is erased while it is being read for its delivery is not sent.
func TestErasedWhileItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := late(t)
		defer w.stop()
		id := w.subscribe(quick(eventhose.OrderingStrict))
		release := w.hold()
		r.meanwhile = func() {
			event, err := w.store.Lookup(context.Background(), tenant, store.Ref{Sequence: 2})
			if err == nil {
				err = w.log.Erase(context.Background(), tenant, "", event.ID)
			}
			if err != nil {
				t.Error(err)
			}
		}
		w.append(some(2, 0)...)
		synctest.Wait()
		release()
		w.drained(id)
		if got := sequences(w.sink.firsts()); !slices.Equal(got, []eventhose.Sequence{1, 3}) {
			t.Errorf("sent: %v, and 2 was erased", got)
		}
	})
}

// What is erased in a parent's log while it waits in memory is not sent from there, and is from its own log; what is erased in its own
// log is sent from neither.
func TestErasedInAParentsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := late(t)
		defer w.stop()
		const child = eventhose.TenantID("shop")
		if _, _, err := w.ctl.PutTenant(t.Context(), eventhose.Tenant{ID: child, Parent: tenant}); err != nil {
			t.Fatal(err)
		}
		above := w.subscribe(quick(eventhose.OrderingStrict))
		own := w.subscribe(func(s *eventhose.Subscription) {
			quick(eventhose.OrderingStrict)(s)
			s.Tenant = child
		})
		release := w.hold() // sequence 1 of the parent
		placed, err := w.log.Append(t.Context(), child, some(5, 0)...)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // all are in the windows of both
		before := r.lookups.Load()
		if err := errors.Join(w.log.Erase(t.Context(), tenant, "", string(child)+"/"+placed[1].ID), w.log.Erase(t.Context(), child, "", placed[3].ID)); err != nil {
			t.Fatal(err)
		}
		release()
		w.drained(above)
		pass(time.Minute)
		got := map[eventhose.SubscriptionID][]eventhose.Sequence{}
		for _, d := range w.sink.all() {
			got[d.sub] = append(got[d.sub], d.seq)
		}
		if want := []eventhose.Sequence{1, 2, 4, 6}; !slices.Equal(got[above], want) {
			t.Errorf("sent from the parent's log: %v, want %v", got[above], want)
		}
		if want := []eventhose.Sequence{1, 2, 3, 5}; !slices.Equal(got[own], want) {
			t.Errorf("sent from its own log: %v, want %v", got[own], want)
		}
		if n := r.lookups.Load() - before; n > 5 { // three that are erased, and where the two places among them come from
			t.Errorf("%d lookups: what was not erased was not sent from memory", n)
		}
	})
}

// What waits for its turn in a window is not read again for as long as erasures are known, and is when they may not be.
func TestWhatIsHeldIsBelieved(t *testing.T) {
	for _, tc := range []struct {
		name   string
		every  time.Duration
		during func(*world)
		again  int64
	}{
		{"seconds", 30 * time.Millisecond, func(*world) {}, 0},
		{"erasures unheard", 30 * time.Millisecond, func(w *world) { w.eng.Unheard() }, 100},
		{"too many erasures", 30 * time.Millisecond, func(w *world) {
			for i := range eventhose.Sequence(10_001) {
				w.eng.Erased("other", i+1)
			}
		}, 100},
		{"longer", 300 * time.Millisecond, func(*world) {}, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := late(t)
				defer w.stop()
				id := w.subscribe(quick(eventhose.OrderingStrict))
				w.sink.set(func(context.Context, *sink.Batch) sink.Result {
					<-time.After(tc.every)
					return taken()
				})
				w.append(some(100, 0)...)
				tc.during(w)
				w.drained(id)
				if n := len(w.sink.firsts()); n != 100 {
					t.Fatalf("%d of 100 taken", n)
				}
				if n := r.lookups.Load(); tc.again == 0 && n > 0 || tc.again > 0 && (n == 0 || n > tc.again) {
					t.Errorf("%d of 100 were read again by themselves", n)
				}
			})
		})
	}
}

// What is appended after a subscription was paused waits, also if the log was about to be read when both came.
func TestPausedWhileItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := late(t)
		defer w.stop()
		id := w.subscribe(nil)
		for n := range 50 {
			release := w.hold()
			r.before = func() {
				if _, err := w.ctl.SetState(context.Background(), tenant, id, eventhose.StatePaused); err != nil {
					t.Error(err)
				}
				w.append(some(1, 0)...)
			}
			w.eng.Appended(tenant)
			synctest.Wait()
			release()
			pass(time.Minute)
			if got := len(w.sink.firsts()); got != 2*n+1 {
				t.Fatalf("%d events were sent, %d of them while the subscription was paused", got, got-2*n-1)
			}
			if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
				t.Fatal(err)
			}
			w.drained(id)
		}
	})
}
