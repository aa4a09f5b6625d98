package embedded

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Of the events that are kept aside retention reads those that the quota has no room for and no other, however much it trims: whatever
// else it read here it could not make sense of.
func TestTrimLeavesWhatIsKept(t *testing.T) {
	s, err := Open("data", Options{FS: vfs.NewMem(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, epoch := context.Background(), time.Unix(1_700_000_000, 0).UTC()
	put := func(n int, at time.Time) {
		t.Helper()
		entry := store.Append{Tenant: "acme"}
		for range n {
			entry.Events = append(entry.Events, store.NewEvent{Event: eventhose.Event{Type: "a.b", Time: at, Appended: at, Data: make([]byte, 100)}})
		}
		if _, err := s.Append(ctx, []store.Append{entry}); err != nil {
			t.Fatal(err)
		}
	}
	const parked, rest = 10, 5 * trimEvents / 2
	c := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "acme", Subscription: "sub"}, Dead: parked}}
	put(parked, epoch)
	for seq := range sequence(parked) {
		c.Park = append(c.Park, store.Parked{Parked: eventhose.Parked{Sequence: seq + 1, State: eventhose.ParkedDead}})
	}
	for range 10 {
		put(rest/10, epoch.Add(time.Minute))
	}
	put(1, epoch.Add(time.Hour))
	if err := s.Commit(ctx, store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
		t.Fatal(err)
	}
	trim := func(before time.Time, keep int64, lose ...store.LostParked) store.Trimmed {
		t.Helper()
		done, err := s.Trim(ctx, "acme", store.Trim{Before: before, Keep: keep, Lose: lose})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	trim(epoch.Add(time.Second), parked*100)
	kept := map[sequence][]byte{}
	for seq := sequence(1); seq <= parked; seq++ {
		value, err := s.get(seqKey(spaceKept, "acme", seq))
		if err != nil {
			t.Fatal(err)
		}
		kept[seq] = slices.Clone(value)
		if err := s.db.Set(seqKey(spaceKept, "acme", seq), []byte("no event"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if done := trim(epoch.Add(time.Second), parked*100); done.Removed != 0 || len(done.Over) > 0 {
		t.Errorf("with nothing to trim: %+v", done)
	}
	if done := trim(epoch.Add(time.Hour), parked*100); done.Removed != rest || len(done.Over) > 0 {
		t.Errorf("with room for all that is kept: %+v", done)
	}
	want := []store.LostParked{{Subscription: "sub", Sequence: 1}, {Subscription: "sub", Sequence: 2}}
	for _, p := range want {
		if err := s.db.Set(seqKey(spaceKept, "acme", p.Sequence), kept[p.Sequence], pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	done := trim(time.Time{}, (parked-2)*100)
	if !slices.Equal(done.Over, want) {
		t.Errorf("over the quota are %+v, want %+v", done.Over, want)
	}
	if done = trim(time.Time{}, (parked-2)*100, done.Over...); !slices.Equal(done.Lost, want) || len(done.Over) > 0 {
		t.Errorf("given up: %+v", done)
	}
}

// A parked event is there at every moment while retention takes it out of its log: whoever is about to try it again would take it for lost.
func TestParkedWhileItIsTrimmed(t *testing.T) {
	var waits atomic.Bool
	writing, goOn := make(chan struct{}), make(chan struct{})
	// The disk is so small that what is kept fills Pebble's memory, and a new log is begun before it is written.
	fs := errorfs.Wrap(newQuota(64<<20), errorfs.InjectorFunc(func(op errorfs.Op) error {
		begun := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite
		if begun && strings.HasSuffix(op.Path, ".log") && waits.CompareAndSwap(true, false) {
			close(writing)
			<-goOn
		}
		return nil
	}))
	s, err := Open("data", Options{FS: fs, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	large := event(1, "parked")
	large.Event.Data = make([]byte, 900<<10)
	for i := range large.Event.Data {
		large.Event.Data[i] = byte(rand.Uint32())
	}
	mustAppend(t, s, "t", large)
	mustAppend(t, s, "t", event(2, ""))
	c := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "t", Subscription: "sub"}, Retrying: 1}}
	c.Park = []store.Parked{{Parked: eventhose.Parked{Sequence: 1, State: eventhose.ParkedRetrying}}}
	if err := s.Commit(ctx, store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
		t.Fatal(err)
	}
	waits.Store(true)
	trimmed := make(chan error, 1)
	go func() {
		done, err := s.Trim(ctx, "t", store.Trim{Bytes: 1, Keep: 1 << 30})
		if err == nil && (done.First != 2 || len(done.Over) > 0) {
			t.Errorf("trimmed: %+v", done)
		}
		trimmed <- err
	}()
	check := func(when string) {
		t.Helper()
		for _, ref := range []store.Ref{{Sequence: 1}, {ID: "parked"}} {
			if e, err := s.Lookup(ctx, "t", ref); err != nil || len(e.Data) != len(large.Event.Data) {
				t.Errorf("%s, looked up by %+v: %v", when, ref, err)
			}
		}
	}
	select {
	case <-writing:
	case err := <-trimmed:
		t.Fatalf("it was trimmed without a new log: %v", err)
	}
	check("while it is trimmed")
	close(goOn)
	if err := <-trimmed; err != nil {
		t.Fatal(err)
	}
	check("trimmed")
}
