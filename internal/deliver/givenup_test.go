package deliver_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// ill refuses commits while it is ill, and counts those that it has written since.
type ill struct {
	deliver.Store

	mu      sync.Mutex
	err     error // what it refuses with
	left    int   // how many commits it refuses, below 0 all
	written int
}

func (s *ill) Commit(ctx context.Context, p store.Progress) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left != 0 {
		s.left--
		return s.err
	}
	s.written++
	return s.Store.Commit(ctx, p)
}

// refuse has it refuse so many commits from here on.
func (s *ill) refuse(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.written = n, 0
}

func (s *ill) wrote() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// A commit that is given up held an event that had failed, and the lane has changed again meanwhile. What a later commit would
// write, were it written, is beyond that event: it and all behind it in its key would never come.
func TestNothingIsCommittedAfterWhatWasGivenUp(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		// refused is how many commits the store refuses, and atStop how many from the stop on; below 0 it is until the stop.
		refused, atStop int
		fatal           bool
		written         bool // what failed
	}{
		{name: "full, and there is room when it stops", err: store.ErrFull, refused: -1, written: true},
		{name: "full, and there is room too late", err: store.ErrFull, refused: -1, atStop: 1},
		{name: "away, and back when it stops", err: store.ErrUnavailable, refused: -1, written: true},
		{name: "away, and back too late", err: store.ErrUnavailable, refused: -1, atStop: 1},
		{name: "damaged", err: fmt.Errorf("%w: planted", store.ErrCorrupt), refused: 1, fatal: true},
		{name: "an error that nobody knows", err: fmt.Errorf("58030: planted"), refused: 1, fatal: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(func(s *eventhose.Subscription) {
					s.Ordering, s.Retry.Schedule = eventhose.OrderingKey, []eventhose.Duration{0, eventhose.Duration(time.Hour)}
				})
				pass(time.Minute)
				w.stop()
				sick := &ill{err: tc.err}
				w.wrap = func(s deliver.Store) deliver.Store { sick.Store = s; return sick }
				fatal := 0
				w.fatal = func(error) { fatal++ }
				w.start()
				w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
					if b.Items[0].Event.Sequence == 1 {
						return failed(500)
					}
					return taken()
				})
				sick.refuse(tc.refused)
				w.append(event("a"), event("a"))
				pass(20 * time.Second) // the next try is seconds away
				w.append(event("b"))
				pass(5 * time.Minute) // nothing that is not recorded may leave memory
				if n := len(w.sink.all()); n != 2 {
					t.Errorf("%d attempts, one at each event that may be sent is 2", n)
				}
				if tc.fatal {
					_, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{}, false)
					if eventhose.CodeOf(err) != eventhose.CodeUnavailable {
						t.Errorf("a replay that cannot be recorded any more: %v", err)
					}
				}
				if tc.refused < 0 {
					sick.refuse(tc.atStop)
				}
				w.stop()
				if n := sick.wrote(); n > 0 != tc.written {
					t.Errorf("%d commits were written from the stop on", n)
				}
				if fatal > 0 != tc.fatal {
					t.Errorf("the engine gave up %d times", fatal)
				}
				w.wrap, w.fatal = nil, nil
				w.sink.set(nil)
				w.start()
				pass(2 * time.Hour)
				w.drained(id)
				if n := len(w.sink.firsts()); n != 3 {
					t.Errorf("%d of 3 events were taken", n)
				}
				if n := len(w.sink.all()); tc.written && n != 4 {
					t.Errorf("%d attempts, of which one failed, at 3 events: what was recorded was sent again", n)
				}
				w.stop()
			})
		})
	}
}

// event is one of a key.
func event(key string) eventhose.Event {
	return eventhose.Event{Type: "order.paid", Key: key, Data: []byte(`{}`)}
}

// A worker that is told of an error, since the store was away for longer than it is waited for, has taken nothing.
func TestPullWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(t, deliver.Options{}), &ill{err: store.ErrUnavailable}
		w.stop()
		w.wrap = func(st deliver.Store) deliver.Store { s.Store = st; return s }
		w.start()
		defer w.stop()
		id := w.workers(nil)
		w.append(some(1, 0)...)
		pass(time.Minute)
		s.refuse(-1)
		p := eventhose.Pull{Max: 1, Lease: eventhose.MaxLease}
		if list, err := w.tryPull(t.Context(), id, p); err == nil {
			t.Fatalf("got %+v", list)
		}
		s.refuse(0)
		pass(10 * time.Second)
		if list := w.pull(id, p); len(list) != 1 || list[0].Deliveries != 1 {
			t.Errorf("the next worker got %+v", list)
		}
	})
}
