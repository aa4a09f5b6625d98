package deliver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

const child = eventhose.TenantID("child")

// connect makes a tenant whose events have places in the world's own log.
func (w *world) connect() {
	w.t.Helper()
	if _, _, err := w.ctl.PutTenant(w.t.Context(), eventhose.Tenant{ID: child, Parent: tenant}); err != nil {
		w.t.Fatal(err)
	}
}

// born appends n events of the connected tenant.
func (w *world) born(n, keys int) []eventhose.Placement {
	w.t.Helper()
	placed, err := w.log.Append(w.t.Context(), child, some(n, keys)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return placed
}

// trimChild lets the connected tenant's retention take all but its newest event.
func (w *world) trimChild() {
	w.t.Helper()
	if _, err := w.store.Trim(w.t.Context(), child, store.Trim{Before: time.Now().Add(time.Hour), Keep: 64 << 20}); err != nil {
		w.t.Fatal(err)
	}
}

// toldOf answers what a subscription was told of: the last first sequence left with how often, and the parked events that are lost.
func (w *world) toldOf(id eventhose.SubscriptionID) (first eventhose.Sequence, times int, lost []eventhose.Sequence) {
	w.t.Helper()
	for e, err := range w.log.Read(w.t.Context(), tenant, 0, eventhose.Filter{Types: []string{deliver.Overtaken, deliver.ParkedLost}}) {
		var body struct {
			Subscription eventhose.SubscriptionID
			First        eventhose.Sequence
			Parked       []store.LostParked
		}
		if err = errors.Join(err, json.Unmarshal(e.Data, &body)); err != nil {
			w.t.Fatal(err)
		}
		if body.Subscription == id {
			first = max(first, body.First)
			times++
		}
		for _, p := range body.Parked {
			if p.Subscription == id {
				lost = append(lost, p.Sequence)
			}
		}
	}
	return first, times, lost
}

// A platform's subscription that is behind when a connected tenant's retention runs is told of every event that it is not
// handed any more, whether that waited in the log, was set aside, or was dead; what was erased is nobody's to be told of.
func TestConnectedRetentionIsTold(t *testing.T) {
	const n = 300
	for _, o := range []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey, eventhose.OrderingStrict} {
		for _, batch := range []int{1, 50} {
			t.Run(fmt.Sprintf("%s, batches of %d", o, batch), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, deliver.Options{})
					defer w.stop()
					w.connect()
					id := w.subscribe(func(s *eventhose.Subscription) {
						s.Ordering, s.Retry.DisableAfter, s.Batch.MaxEvents = o, -1, batch
					})
					w.sink.set(always(failed(503)))
					w.born(n, 7)
					pass(2 * time.Hour)
					if st := w.status(id); st.Retrying == 0 || len(w.sink.firsts()) > 0 {
						t.Fatalf("before: %+v", st)
					}
					w.trimChild()
					w.sink.set(nil)
					w.drained(id)
					first, times, lost := w.toldOf(id)
					var got []eventhose.Sequence
					for _, d := range w.sink.firsts() {
						got = append(got, d.seq)
					}
					for seq := eventhose.Sequence(1); seq <= n; seq++ {
						if seq >= first && !slices.Contains(lost, seq) && !slices.Contains(got, seq) {
							t.Fatalf("nobody was told that %d did not come: %d came, told of the first left %d and of %v", seq, len(got), first, lost)
						}
					}
					if len(lost) == 0 || times > 3 {
						t.Errorf("told %d times of what waited and of %d that were set aside", times, len(lost))
					}
					if !slices.Contains(got, n) {
						t.Errorf("what is left did not come: %v", got)
					}
				})
			})
		}
	}
}

// A dead event of a connected tenant that retention has taken meanwhile is told of when it is redriven; one that was erased is not.
func TestConnectedRetentionTakesDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		w.connect()
		id := w.subscribe(quick(eventhose.OrderingNone))
		w.sink.set(always(failed(400)))
		placed := w.born(4, 0)
		pass(time.Hour)
		if st := w.status(id); st.Dead != 4 {
			t.Fatalf("before: %+v", st)
		}
		if err := w.log.Erase(t.Context(), child, "", placed[3].ID); err != nil {
			t.Fatal(err)
		}
		w.trimChild()
		w.sink.set(nil)
		for range 2 { // it is told of for as long as it cannot be
			if n, err := w.eng.Redrive(t.Context(), tenant, id, nil); n != 4 && n != 0 || err != nil {
				t.Fatalf("redrive: %d, %v", n, err)
			}
			w.drained(id)
		}
		first, _, lost := w.toldOf(id)
		slices.Sort(lost)
		if !slices.Equal(lost, []eventhose.Sequence{1, 2, 3}) || first != 0 || len(w.sink.firsts()) > 0 {
			t.Errorf("told of %v and of the first left %d, and %d came", lost, first, len(w.sink.firsts()))
		}
	})
}

// What a replay was to send and retention has taken is told of, too; and what is erased is no part of it.
func TestReplayOfConnectedTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		w.connect()
		id := w.subscribe(nil)
		placed := w.born(10, 0)
		w.drained(id)
		if err := w.log.Erase(t.Context(), child, "", placed[9].ID); err != nil {
			t.Fatal(err)
		}
		w.trimChild()
		if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{From: 1}, false); err != nil {
			t.Fatal(err)
		}
		w.drained(id)
		if first, times, lost := w.toldOf(id); first != 10 || times != 1 || len(lost) > 0 {
			t.Errorf("told %d times of the first left %d, and of %v", times, first, lost)
		}
	})
}

// deaf is a log that takes no system events until it is told to.
type deaf struct {
	deliver.SystemLog
	hears chan struct{}
}

func (d *deaf) AppendSystem(ctx context.Context, tenant eventhose.TenantID, typ string, data []byte) error {
	select {
	case <-d.hears:
		return d.SystemLog.AppendSystem(ctx, tenant, typ, data)
	default:
		return errors.New("planted: no system events are taken")
	}
}

// Nothing is passed over before it was told of.
func TestConnectedTrimmedWaitsToBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		w.stop()
		d := &deaf{hears: make(chan struct{})}
		w.system = func(s deliver.SystemLog) deliver.SystemLog { d.SystemLog = s; return d }
		w.start()
		defer w.stop()
		w.connect()
		id := w.subscribe(func(s *eventhose.Subscription) { s.Retry.DisableAfter = -1 })
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			if b.Items[0].Event.Sequence == 1 {
				return failed(503)
			}
			return taken()
		})
		w.born(1, 0)
		pass(time.Second)
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		w.born(10, 0)
		pass(time.Second)
		w.trimChild()
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if st := w.status(id); st.Retrying != 1 || st.Cursor.Sequence > 1 {
			t.Errorf("passed over what it was not told of: %+v", st)
		}
		close(d.hears)
		w.drained(id)
		if first, _, lost := w.toldOf(id); first != 11 || !slices.Equal(lost, []eventhose.Sequence{1}) {
			t.Errorf("told of the first left %d and of %v", first, lost)
		}
	})
}
