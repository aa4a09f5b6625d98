package deliver_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

// moody fails one in twenty and is slow at one in twenty.
func moody(ctx context.Context, _ *sink.Batch) sink.Result {
	switch rand.N(20) {
	case 0:
		return failed(500)
	case 1:
		select {
		case <-time.After(time.Duration(rand.N(200)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return taken()
}

// inversions counts the events that came, for the first time, after a later one of their key (strict: of all).
func inversions(sent []delivery, strict bool) int {
	last, seen, n := map[string]eventhose.Sequence{}, map[eventhose.Sequence]bool{}, 0
	for _, d := range sent {
		if seen[d.seq] {
			continue
		}
		seen[d.seq] = true
		key := d.key
		if strict {
			key = ""
		}
		if d.seq < last[key] {
			n++
		}
		last[key] = max(last[key], d.seq)
	}
	return n
}

func quick(o eventhose.Ordering) func(*eventhose.Subscription) {
	return func(s *eventhose.Subscription) {
		s.Ordering = o
		s.Retry.Schedule = []eventhose.Duration{0, eventhose.Duration(time.Second), eventhose.Duration(5 * time.Second),
			eventhose.Duration(30 * time.Second), eventhose.Duration(time.Minute), eventhose.Duration(5 * time.Minute)}
	}
}

// 100,000 events over 1,000 keys with failing and slow answers come in order, all of them, each with the sequence that
// was due before it.
func TestOrder(t *testing.T) {
	for _, tc := range []struct {
		ordering eventhose.Ordering
		events   int
	}{{eventhose.OrderingKey, 100_000}, {eventhose.OrderingStrict, 100_000}, {eventhose.OrderingNone, 20_000}} {
		t.Run(string(tc.ordering), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				defer w.stop()
				id := w.subscribe(quick(tc.ordering))
				w.sink.set(moody)
				w.append(some(tc.events, 1000)...)
				w.drained(id)
				sent, firsts := w.sink.all(), w.sink.firsts()
				st := w.status(id)
				if len(firsts)+st.Dead != tc.events {
					t.Errorf("%d taken and %d dead of %d", len(firsts), st.Dead, tc.events)
				}
				if tc.ordering == eventhose.OrderingNone {
					// What failed is taken a second later at the earliest, and others of its key before it.
					if inversions(firsts, false) == 0 {
						t.Error("no inversion without order: the checker is blind, or nothing runs in parallel")
					}
				} else if n := inversions(sent, tc.ordering == eventhose.OrderingStrict); n != 0 {
					t.Errorf("%d inversions", n)
				}
				for _, d := range sent {
					if d.prev != d.seq-1 {
						t.Fatalf("sequence %d says that %d came before it", d.seq, d.prev)
					}
				}
			})
		})
	}
}

// While one key is blocked for hours, the others keep moving; what waits behind it is one row, and comes in order.
func TestBlockedKeyIsOneRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) { s.Ordering = eventhose.OrderingKey })
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if b.Items[0].Event.Key == "bad" {
				return failed(500)
			}
			return taken()
		})
		bad := some(100_000, 0)
		for i := range bad {
			bad[i].Key = "bad"
			if i%1000 == 999 {
				bad[i].Key = "good"
			}
		}
		w.append(bad...)
		pass(time.Minute)
		if n := len(w.sink.firsts()); n != 100 {
			t.Errorf("%d events of the good key were taken, want 100", n)
		}
		st := w.status(id)
		if st.BlockedKeys != 1 || st.Retrying != 1 || st.Waiting != 99_899 || st.Lag != 0 {
			t.Errorf("behind the bad key: %+v", st)
		}
		row, keys, err := w.store.Lane(t.Context(), tenant, id)
		if err != nil || len(keys) != 1 || len(row.Settled) != 0 {
			t.Errorf("stored: %d keys, %d settled, %v", len(keys), len(row.Settled), err)
		}
		w.sink.set(nil)
		w.drained(id)
		if n := len(w.sink.firsts()); n != 100_000 {
			t.Errorf("%d taken in the end", n)
		}
		if n := inversions(w.sink.all(), false); n != 0 {
			t.Errorf("%d inversions", n)
		}
	})
}

// on_exhausted block holds the key, or the lane, until a person decides; park goes on.
func TestOnExhausted(t *testing.T) {
	for _, tc := range []struct {
		ordering eventhose.Ordering
		policy   eventhose.OnExhausted
		discard  bool
		want     int // taken of 10 before the person decides
	}{
		{eventhose.OrderingKey, eventhose.OnExhaustedPark, false, 9},
		{eventhose.OrderingKey, eventhose.OnExhaustedBlock, false, 5},
		{eventhose.OrderingKey, eventhose.OnExhaustedBlock, true, 5},
		{eventhose.OrderingStrict, eventhose.OnExhaustedPark, false, 9},
		{eventhose.OrderingStrict, eventhose.OnExhaustedBlock, false, 0},
		{eventhose.OrderingStrict, eventhose.OnExhaustedBlock, true, 0},
		{eventhose.OrderingNone, eventhose.OnExhaustedPark, true, 9},
	} {
		t.Run(string(tc.ordering)+" "+string(tc.policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(func(s *eventhose.Subscription) {
					quick(tc.ordering)(s)
					s.OnExhausted = tc.policy
				})
				w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
					if b.Items[0].Event.Sequence == 1 {
						return failed(400)
					}
					return taken()
				})
				w.append(some(10, 2)...)
				pass(time.Hour)
				if n := len(w.sink.firsts()); n != tc.want {
					t.Errorf("%d taken, want %d", n, tc.want)
				}
				if st := w.status(id); st.Dead != 1 {
					t.Errorf("before: %+v", st)
				}
				w.stop() // what a person decides later must survive
				w.start()
				defer w.stop()
				w.sink.set(nil)
				decide, total := w.eng.Redrive, 10
				if tc.discard {
					decide, total = w.eng.Discard, 9
				}
				if n, err := decide(t.Context(), tenant, id, nil); n != 1 || err != nil {
					t.Fatalf("decided on %d, %v", n, err)
				}
				w.drained(id)
				if n := len(w.sink.firsts()); n != total {
					t.Errorf("%d taken in the end, want %d", n, total)
				}
				if n := inversions(w.sink.all(), tc.ordering == eventhose.OrderingStrict); n != 0 && tc.ordering != eventhose.OrderingNone {
					t.Errorf("%d inversions", n)
				}
				if st := w.status(id); st.Dead != 0 || st.BlockedKeys != 0 {
					t.Errorf("after: %+v", st)
				}
			})
		})
	}
}
