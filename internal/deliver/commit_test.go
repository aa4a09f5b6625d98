package deliver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// gated holds commits back while it is closed.
type gated struct {
	deliver.Store
	gate chan struct{}
}

func (g *gated) Commit(ctx context.Context, p store.Progress) error {
	<-g.gate
	return g.Store.Commit(ctx, p)
}

// While the commit that says that a lane has caught up is under way, the lane is given its next event. Matching is not
// committed beyond that event before the lane's row says that it is behind: a crash would lose it.
func TestMatchingIsNotCommittedBeyondALane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		first := w.subscribe(func(s *eventhose.Subscription) { s.Filter.Types = []string{"first"} })
		w.subscribe(func(s *eventhose.Subscription) { s.Filter.Types = []string{"second"} })
		pass(time.Minute)
		w.stop()
		g := &gated{gate: make(chan struct{})}
		w.wrap = func(s deliver.Store) deliver.Store { g.Store = s; return g }
		w.start()
		hang := map[eventhose.Sequence]chan struct{}{1: make(chan struct{}), 2: make(chan struct{})}
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if c := hang[b.Items[0].Event.Sequence]; c != nil {
				<-c
			}
			return taken()
		})
		append1 := func(typ string) {
			w.append(eventhose.Event{Type: typ, Data: []byte(`{}`)})
			synctest.Wait()
		}
		commit := func() {
			g.gate <- struct{}{}
			pass(10 * time.Millisecond) // the next one begins
		}
		append1("first")
		pass(2 * time.Second)
		commit() // the lane is behind
		close(hang[1])
		pass(10 * time.Millisecond) // that it has caught up is now being committed
		append1("first")
		append1("second")
		commit()
		commit() // the outcome of the second subscription's event
		row, _, err := w.store.Lane(t.Context(), tenant, first)
		if err != nil {
			t.Fatal(err)
		}
		matcher, _, err := w.store.Lane(t.Context(), tenant, "")
		if err != nil {
			t.Fatal(err)
		}
		if settled := max(row.Cursor, matcher.Cursor); !row.Behind && settled >= 2 {
			t.Errorf("the second event hangs, and what is stored says that all up to %d is settled", settled)
		}
		close(g.gate)
		close(hang[2])
		w.drained(first)
		w.stop()
	})
}
