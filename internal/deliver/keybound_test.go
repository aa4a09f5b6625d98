package deliver_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/store"
)

// Every event in a worker's hands blocks its key, and those of the key that come meanwhile keep it as one that catches up. When as
// many keys do as may be set aside, workers get what waits in them, also after a restart.
func TestWorkersGoOnAtTheBoundOfKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(func(s *eventhose.Subscription) { s.Ordering = eventhose.OrderingKey })
		const each = 5
		events := some((eventhose.MaxParked+500)*each, 0)
		for i := range events {
			events[i].Key = fmt.Sprintf("order-%d", i/each)
		}
		w.append(events...)
		last := map[string]eventhose.Sequence{}
		work := func() int {
			list := w.pull(id, eventhose.Pull{Max: 1000})
			for _, l := range list {
				if before := last[l.Event.Key]; before > 0 && l.Event.Sequence != before+1 {
					t.Fatalf("event %d of key %s came after %d", l.Event.Sequence, l.Event.Key, before)
				}
				last[l.Event.Key] = l.Event.Sequence
			}
			if len(list) > 0 {
				w.answer(id, ack, 0, list...)
			}
			return len(list)
		}
		for w.status(id).BlockedKeys < eventhose.MaxParked {
			if work() == 0 {
				t.Fatalf("nothing more was handed over: %+v", w.status(id))
			}
		}
		for again := range 2 {
			if again > 0 {
				w.stop()
				w.start()
			}
			for range 5 {
				if work() == 0 {
					t.Fatalf("at the bound nothing more is handed over: %+v", w.status(id))
				}
			}
		}
	})
}

// What is stored at the bound goes on: keys that catch up with nothing parked, or beside dead events, for which there is room as
// long as there are fewer of them than may be set aside. Once nothing but dead events is left, a person has to decide.
func TestSendingGoesOnAtTheBoundOfKeys(t *testing.T) {
	const bound = eventhose.MaxParked
	for _, tc := range []struct {
		dead, keys int
		stands     bool
	}{{0, bound, false}, {bound / 2, bound / 2, false}, {bound - 1, 5, false}, {bound, 5, true}} {
		t.Run(fmt.Sprintf("%d dead, %d keys", tc.dead, tc.keys), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				placed := w.append(some(tc.dead+tc.keys, tc.dead+tc.keys)...)
				id := w.subscribe(func(s *eventhose.Subscription) { s.Ordering = eventhose.OrderingKey })
				w.drained(id)
				w.stop() // without the lane in memory, its rows are as they are written here
				w.start()
				row, _, err := w.store.Lane(t.Context(), tenant, id)
				if err != nil {
					t.Fatal(err)
				}
				row.Behind, row.Dead = true, tc.dead
				c := store.LaneChange{Lane: row}
				for i, p := range placed {
					if key := fmt.Sprintf("k%d", i); i < tc.dead {
						c.Park = append(c.Park, store.Parked{Previous: p.Sequence - 1, Parked: eventhose.Parked{Event: p.ID, Sequence: p.Sequence, Type: "order.paid",
							Key: key, State: eventhose.ParkedDead, Since: time.Now().UTC()}})
					} else {
						c.Block = append(c.Block, store.BlockedKey{Key: key, First: p.Sequence, Last: p.Sequence, Count: 1, Previous: p.Sequence - 1})
					}
				}
				if err := w.store.Commit(t.Context(), store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
					t.Fatal(err)
				}
				w.stop()
				w.start()
				defer w.stop()
				w.append(some(10, 0)...)
				pass(time.Hour)
				if tc.stands {
					if n := len(w.sink.all()); n != 0 {
						t.Errorf("%d events were sent with nowhere to set them aside: %+v", n, w.status(id))
					}
					if _, err := w.eng.Discard(t.Context(), tenant, id, nil); err != nil {
						t.Fatal(err)
					}
					pass(time.Hour)
				}
				if st, n := w.status(id), len(w.sink.firsts()); n != tc.keys+10 || st.BlockedKeys != 0 || st.Lag != 0 {
					t.Errorf("%d of %d events were sent: %+v", n, tc.keys+10, st)
				}
			})
		})
	}
}
