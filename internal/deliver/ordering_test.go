package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

var orderings = []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey, eventhose.OrderingStrict}

// reorder changes a subscription's ordering; the engine learns of it at once, or with restart only when it is started again.
func (w *world) reorder(id eventhose.SubscriptionID, o eventhose.Ordering, restart bool) {
	w.t.Helper()
	if restart {
		if err := w.eng.Stop(context.Background()); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := w.ctl.UpdateSubscription(context.Background(), tenant, id, eventhose.SubscriptionPatch{Ordering: &o}, nil); err != nil {
		w.t.Fatal(err)
	}
	if restart {
		if err := errors.Join(w.log.Close(), w.store.Close()); err != nil {
			w.t.Fatal(err)
		}
		w.start()
	}
	synctest.Wait()
}

// Whatever a subscription's ordering was and is changed to, what was set aside in order holds up what comes after it, what waits
// behind it comes when it is its turn, and nothing comes twice. Events 1, 3, 5 … are of one key, 2, 4, 6 … of another; 1 fails for six
// minutes, and after one the ordering is changed and four more are appended.
func TestOrderingIsChanged(t *testing.T) {
	type places = []eventhose.Sequence
	for _, tc := range []struct {
		from, to eventhose.Ordering
		// taken before the change, then until event 1 is, both in any order but for that within keys, and from there on.
		before, meanwhile, after places
	}{
		{eventhose.OrderingNone, eventhose.OrderingNone, places{2, 3, 4, 5, 6}, places{7, 8, 9, 10}, places{1}},
		{eventhose.OrderingNone, eventhose.OrderingKey, places{2, 3, 4, 5, 6}, places{7, 8, 9, 10}, places{1}}, // others have passed it already
		{eventhose.OrderingNone, eventhose.OrderingStrict, places{2, 3, 4, 5, 6}, places{7, 8, 9, 10}, places{1}},
		{eventhose.OrderingKey, eventhose.OrderingNone, places{2, 4, 6}, places{3, 5, 7, 8, 9, 10}, places{1}},
		{eventhose.OrderingKey, eventhose.OrderingKey, places{2, 4, 6}, places{8, 10}, places{1, 3, 5, 7, 9}},
		{eventhose.OrderingKey, eventhose.OrderingStrict, places{2, 4, 6}, nil, places{1, 3, 5, 7, 8, 9, 10}},
		{eventhose.OrderingStrict, eventhose.OrderingNone, nil, places{2, 3, 4, 5, 6, 7, 8, 9, 10}, places{1}},
		{eventhose.OrderingStrict, eventhose.OrderingKey, nil, places{2, 4, 6, 8, 10}, places{1, 3, 5, 7, 9}},
		{eventhose.OrderingStrict, eventhose.OrderingStrict, nil, nil, places{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
	} {
		for _, restart := range []bool{false, true} {
			for _, batch := range []int{0, 3} {
				t.Run(fmt.Sprintf("%s to %s, restart %v, batches of %d", tc.from, tc.to, restart, batch), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, deliver.Options{})
						id := w.subscribe(func(s *eventhose.Subscription) {
							quick(tc.from)(s)
							s.Retry.Schedule[1] = eventhose.Duration(6 * time.Minute)
							s.Batch.MaxEvents = batch
						})
						began := time.Now()
						w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
							return partly(b, func(e *eventhose.Event) bool { return e.Sequence == 1 && time.Since(began) < 6*time.Minute })
						})
						w.append(some(1, 2)...) // alone, so that its batch is
						synctest.Wait()
						events := some(10, 2)
						w.append(events[1:6]...)
						pass(time.Minute)
						count := len(w.sink.firsts())
						w.reorder(id, tc.to, restart)
						w.append(events[6:]...)
						pass(time.Minute)
						defer w.stop()
						meanwhile := len(w.sink.firsts())
						w.drained(id)
						got := sequences(w.sink.firsts())
						sorted := func(s places) places { return slices.Sorted(slices.Values(s)) }
						if !slices.Equal(sorted(got[:count]), tc.before) || !slices.Equal(sorted(got[count:meanwhile]), tc.meanwhile) || !slices.Equal(sorted(got[meanwhile:]), tc.after) ||
							!slices.Equal(got[meanwhile:], tc.after) && tc.to == eventhose.OrderingStrict {
							t.Errorf("taken %v before the change, %v until event 1 was tried again, %v then", got[:count], got[count:meanwhile], got[meanwhile:])
						}
						if n := inversions(w.sink.firsts()[count:], false); n != 0 && tc.to == eventhose.OrderingKey && tc.from != eventhose.OrderingNone {
							t.Errorf("%d inversions within keys: %v", n, got)
						}
						if n := len(w.sink.all()); n != 11 {
							t.Errorf("%d tries at 10 events of which one failed once", n)
						}
					})
				})
			}
		}
	}
}

// A dead event that holds up the lane until a person decides holds up its key when that is what is asked for, and the other way round.
func TestDeadEventHoldsAfterAChange(t *testing.T) {
	for _, to := range []eventhose.Ordering{eventhose.OrderingKey, eventhose.OrderingStrict} {
		from := orderings[3-slices.Index(orderings, to)]
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s to %s, restart %v", from, to, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, deliver.Options{})
					id := w.subscribe(func(s *eventhose.Subscription) {
						s.Ordering, s.OnExhausted, s.Retry.Schedule = from, eventhose.OnExhaustedBlock, []eventhose.Duration{0}
					})
					w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
						if b.Items[0].Event.Sequence == 1 {
							return failed(400)
						}
						return taken()
					})
					w.append(some(6, 2)...)
					pass(time.Second)
					w.reorder(id, to, restart)
					w.append(some(4, 2)...)
					pass(time.Hour)
					defer w.stop()
					want := []eventhose.Sequence{2, 4, 6}
					if to == eventhose.OrderingKey {
						want = []eventhose.Sequence{2, 4, 6, 8, 10}
					}
					if got := sequences(w.sink.firsts()); !slices.Equal(got, want) {
						t.Errorf("taken beside the dead event: %v, want %v", got, want)
					}
					w.sink.set(nil)
					if _, err := w.eng.Redrive(t.Context(), tenant, id, nil); err != nil {
						t.Fatal(err)
					}
					w.drained(id)
					rest := w.sink.firsts()[len(want):]
					if n := inversions(rest, to == eventhose.OrderingStrict); n != 0 || len(rest)+len(want) != 10 {
						t.Errorf("%d inversions once it was redriven: %v", n, sequences(rest))
					}
				})
			})
		}
	}
}

// What is under way when the ordering is changed ends first: nothing is sent beside it that has to wait for it.
func TestOrderingWaitsForWhatIsUnderWay(t *testing.T) {
	for _, to := range []eventhose.Ordering{eventhose.OrderingKey, eventhose.OrderingStrict} {
		t.Run(string(to), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				defer w.stop()
				id := w.subscribe(func(s *eventhose.Subscription) { s.MaxInFlight = 4 })
				w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
					if seq := b.Items[0].Event.Sequence; seq == 2 {
						<-time.After(20 * time.Second)
					} else {
						<-time.After(time.Second)
					}
					return taken()
				})
				w.append(some(4, 1)...)
				pass(500 * time.Millisecond)
				w.append(some(20, 1)...)
				w.reorder(id, to, false)
				w.drained(id)
				ended := time.Time{}
				for _, d := range w.sink.all() {
					if d.seq == 2 {
						ended = d.at.Add(20 * time.Second)
					}
				}
				all := w.sink.all()
				for i, d := range all {
					if d.seq > 4 && (d.at.Before(ended) || i != int(d.seq)-1) {
						t.Errorf("event %d was sent at %s, and one of before the change ended at %s", d.seq, d.at.Format(time.TimeOnly), ended.Format(time.TimeOnly))
					}
				}
			})
		})
	}
}

// judge is a receiver that says what comes out of order, by the ordering under which each request was sent.
type judge struct {
	mu    sync.Mutex
	keys  map[eventhose.Sequence]string
	begun map[eventhose.Sequence]bool
	done  map[eventhose.Sequence]int
	free  map[eventhose.Sequence]bool // tried first without order: others may pass it
	wrong []string
}

func (j *judge) arrive(b *sink.Batch) {
	j.mu.Lock()
	defer j.mu.Unlock()
	in := map[eventhose.Sequence]bool{}
	for _, item := range b.Items {
		e := item.Event
		in[e.Sequence] = true
		if j.done[e.Sequence] > 0 {
			j.wrong = append(j.wrong, fmt.Sprintf("%d came again", e.Sequence))
		}
		if j.begun[e.Sequence] {
			continue
		}
		j.begun[e.Sequence] = true
		o := b.Subscription.Ordering
		if o == eventhose.OrderingNone || o == eventhose.OrderingKey && e.Key == "" {
			j.free[e.Sequence] = true
			continue
		}
		for seq := range e.Sequence {
			if seq > 0 && j.done[seq] == 0 && !j.free[seq] && !in[seq] && (o == eventhose.OrderingStrict || j.keys[seq] == e.Key) {
				j.wrong = append(j.wrong, fmt.Sprintf("%d (key %q, %s) came before %d (key %q)", e.Sequence, e.Key, o, seq, j.keys[seq]))
			}
		}
	}
}

func (j *judge) take(b *sink.Batch, bad func(*eventhose.Event) bool) sink.Result {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := partly(b, bad)
	for _, item := range b.Items {
		if !slices.ContainsFunc(r.Failed, func(f sink.Refused) bool { return f.ID == item.Event.ID }) {
			j.done[item.Event.Sequence]++
		}
	}
	return r
}

// Orderings that change all the time, with failures, batches and restarts: each event that is sent for the first time comes after all that
// it has to wait for by the ordering that its request went out with, and everything comes once.
func TestRandomChangesOfOrdering(t *testing.T) {
	first := number(t, "EVENTHOSE_SEED", rand.Uint64()>>1)
	for i := range number(t, "EVENTHOSE_LIVES", 6) {
		t.Run(fmt.Sprintf("EVENTHOSE_SEED=%d", first+i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(first+i, 1))
				var mu sync.Mutex // of rng
				draw := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.IntN(n) }
				j := &judge{keys: map[eventhose.Sequence]string{}, begun: map[eventhose.Sequence]bool{}, done: map[eventhose.Sequence]int{}, free: map[eventhose.Sequence]bool{}}
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(func(s *eventhose.Subscription) {
					quick(orderings[draw(3)])(s)
					s.Batch.MaxEvents, s.MaxInFlight = []int{0, 1, 4}[draw(3)], 1+draw(6)
					s.Retry.Schedule = slices.Repeat([]eventhose.Duration{eventhose.Duration(time.Duration(1+draw(20)) * time.Second)}, eventhose.MaxSchedule)
					s.Retry.Schedule[0] = 0
				})
				w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
					j.arrive(b)
					<-time.After(time.Duration(draw(100)) * time.Millisecond)
					return j.take(b, func(*eventhose.Event) bool { return draw(8) == 0 })
				})
				last := eventhose.Sequence(0)
				for range 60 {
					events := some(draw(40), 0)
					for i := range events {
						events[i].Key = []string{"", "a", "b", "c", "d"}[draw(5)]
						last++
						j.mu.Lock()
						j.keys[last] = events[i].Key
						j.mu.Unlock()
					}
					w.append(events...)
					pass(time.Duration(draw(3000)) * time.Millisecond)
					switch o := orderings[draw(3)]; draw(6) {
					case 0:
						w.reorder(id, o, true)
					case 1, 2, 3:
						w.reorder(id, o, false)
					case 4:
						w.stop()
						w.start()
					}
				}
				w.drained(id)
				w.stop()
				if len(j.done) != int(last) || len(j.wrong) > 0 {
					t.Errorf("%d of %d events taken; %s", len(j.done), last, strings.Join(j.wrong[:min(10, len(j.wrong))], "; "))
				}
			})
		})
	}
}
