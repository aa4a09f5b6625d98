package deliver_test

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/store"
)

// weighing counts the data that the engine reads.
type weighing struct {
	deliver.Store
	bytes atomic.Int64
}

func (s *weighing) Read(ctx context.Context, id eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	events, err := s.Store.Read(ctx, id, after, limit)
	for _, e := range events {
		s.bytes.Add(int64(len(e.Data)))
	}
	return events, err
}

func (s *weighing) Lookup(ctx context.Context, id eventhose.TenantID, ref store.Ref) (*eventhose.Event, error) {
	e, err := s.Store.Lookup(ctx, id, ref)
	if e != nil {
		s.bytes.Add(int64(len(e.Data)))
	}
	return e, err
}

// weighed is a world whose engine's store counts what is read.
func weighed(t *testing.T) (*world, *weighing) {
	w, s := newWorld(t, deliver.Options{}), &weighing{}
	w.stop()
	w.wrap = func(st deliver.Store) deliver.Store { s.Store = st; return s }
	w.start()
	return w, s
}

// large appends events of some sizes, each with a key of its own.
func (w *world) large(sizes ...int) {
	w.t.Helper()
	for i, size := range sizes {
		w.append(eventhose.Event{Type: "a", Key: string(rune('A' + i)), ContentType: "text/plain", Data: bytes.Repeat([]byte{'x'}, size)})
	}
}

// A pull hands over no more data than a page of the log has, whatever it asks for, and reads no more. What it leaves is the next
// worker's, is not charged, and keeps its turn: what is small does not pass by what is large.
func TestPullOfLargeEvents(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey} {
		synctest.Test(t, func(t *testing.T) {
			w, read := weighed(t)
			defer func() { w.stop() }()
			id := w.workers(func(s *eventhose.Subscription) { s.Ordering = ordering })
			const mib = 1 << 20
			w.large(mib, mib, mib, mib, mib, 1, mib, mib, mib, 2)
			all := func(deliveries int) {
				t.Helper()
				for _, want := range [][]eventhose.Sequence{{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10}, nil} {
					synctest.Wait()
					before := read.bytes.Load()
					list := w.pull(id, eventhose.Pull{Max: 1000, Lease: time.Minute})
					if got := leasedAt(list); !slices.Equal(got, want) {
						t.Errorf("%s, delivery %d: %v, want %v", ordering, deliveries, got, want)
					}
					for _, l := range list {
						if l.Deliveries != deliveries {
							t.Errorf("%s: %d deliveries of %d, want %d", ordering, l.Deliveries, l.Event.Sequence, deliveries)
						}
					}
					if n := read.bytes.Load() - before; n > eventhose.MaxPageBytes+2*mib {
						t.Errorf("%s, delivery %d: %d bytes were read", ordering, deliveries, n)
					}
				}
				if st := w.status(id); st.Leased != 10 || st.Retrying != 0 {
					t.Errorf("%s, delivery %d: %+v", ordering, deliveries, st)
				}
			}
			all(1)
			pass(time.Minute) // nobody has answered
			all(2)
			pass(time.Minute)
			w.stop() // what is parked is of a size that nobody knows now
			w.start()
			all(3)
			pass(time.Minute)
			// What is handed over again comes first, and what is new behind it.
			w.large(mib, mib)
			var got []eventhose.Sequence
			for len(got) < 12 {
				list := w.pull(id, eventhose.Pull{Max: 1000})
				if len(list) == 0 || len(list) > 5 {
					t.Fatalf("%s: %v after %v", ordering, leasedAt(list), got)
				}
				got = append(got, leasedAt(list)...)
				w.answer(id, ack, 0, list...)
			}
			if !slices.IsSorted(got) {
				t.Errorf("%s: %v", ordering, got)
			}
			w.drained(id)
		})
	}
}

// Order is kept over pulls that have no room for what is next: of events that were not tried before, that wait behind one that
// failed, that are tried again, and that are replayed.
func TestPullOfLargeEventsKeepsOrder(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingKey, eventhose.OrderingStrict} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, deliver.Options{})
			defer w.stop()
			id := w.workers(func(s *eventhose.Subscription) { s.Ordering = ordering })
			for range 3 {
				w.large(slices.Repeat([]int{1 << 20}, 6)...) // of six keys
			}
			work := func(bad func(eventhose.Leased) bool) {
				t.Helper()
				last := map[string]eventhose.Sequence{}
				for done := 0; done < 18; {
					list := w.pull(id, eventhose.Pull{Max: 1000, Wait: time.Second})
					if len(list) == 0 || len(list) > 4 {
						t.Fatalf("%s: %v after %d", ordering, leasedAt(list), done)
					}
					for _, l := range list {
						key := l.Event.Key
						if ordering == eventhose.OrderingStrict {
							key = ""
						}
						if l.Event.Sequence <= last[key] {
							t.Fatalf("%s: %d after %d", ordering, l.Event.Sequence, last[key])
						}
						if bad(l) {
							w.answer(id, eventhose.Answer{Verdict: eventhose.AnswerNack, Delay: time.Second}, 0, l)
							continue
						}
						last[key] = l.Event.Sequence
						w.answer(id, ack, 0, l)
						done++
					}
				}
				w.drained(id)
			}
			work(func(l eventhose.Leased) bool { return l.Event.Sequence%3 != 0 && l.Deliveries == 1 })
			if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{}, false); err != nil {
				t.Fatal(err)
			}
			work(func(eventhose.Leased) bool { return false })
		})
	}
}

// A worker that waits gets what a pull has left for want of room.
func TestPullLeavesWorkForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(nil)
		w.large(slices.Repeat([]int{1 << 20}, 12)...)
		for range 2 {
			synctest.Wait()
			got := make(chan int, 3)
			for range 3 {
				go func() {
					list, err := w.tryPull(context.Background(), id, eventhose.Pull{Max: 1000, Wait: 5 * time.Second})
					if err != nil {
						t.Error(err)
					}
					got <- len(list)
				}()
			}
			for range 3 {
				if n := <-got; n != 4 {
					t.Errorf("%d events at once", n)
				}
			}
			pass(30 * time.Second)
		}
	})
}

// What is left is not counted against the rate either.
func TestPullOfLargeEventsAtARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(func(s *eventhose.Subscription) { s.MaxRate = 800 })
		w.large(slices.Repeat([]int{1 << 20}, 40)...)
		take := func() {
			t.Helper()
			begun := time.Now()
			for n := 0; n < 40; {
				list := w.pull(id, eventhose.Pull{Max: 1000, Wait: time.Second})
				if len(list) == 0 || len(list) > 4 {
					t.Fatal(leasedAt(list))
				}
				n += len(list)
			}
			if took := time.Since(begun); took > 150*time.Millisecond {
				t.Errorf("40 events at 800 a second took %v", took)
			}
		}
		take()
		pass(31 * time.Second)
		take()
	})
}
