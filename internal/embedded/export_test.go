package embedded_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

// files are the sums of all files below a directory.
func files(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	sums := map[string][sha256.Size]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		sums[name] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// scripted is a data directory that a script has written. Beside that it holds a parked event that was trimmed.
func scripted(t *testing.T, clean bool) (string, *storetest.Script) {
	t.Helper()
	dir := t.TempDir()
	script := storetest.NewScript(rand.New(rand.NewPCG(seed(t), 1)), "a", storetest.NewModel(), 0)
	st, err := embedded.Open(dir, options(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := script.RunAndCheck(t.Context(), st, 300, 300); err != nil {
		t.Fatal(err)
	}
	if err := parkAndTrim(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	if clean {
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		return dir, script
	}
	// As it lies there when the process is killed now.
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return killed, script
}

func parkAndTrim(ctx context.Context, st store.Store) error {
	event := store.NewEvent{Event: eventhose.Event{ID: "parked", Type: "a", Time: time.Unix(1, 5).UTC(), Appended: time.Unix(1, 0).UTC(), Data: []byte("1")}}
	if _, err := st.Append(ctx, []store.Append{{Tenant: "other", Events: []store.NewEvent{event}}}); err != nil {
		return err
	}
	event.Event.ID = ""
	if _, err := st.Append(ctx, []store.Append{{Tenant: "other", Events: []store.NewEvent{event}}}); err != nil {
		return err
	}
	lane := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "other", Subscription: "s"}},
		Park: []store.Parked{{Parked: eventhose.Parked{Sequence: 1, Event: "parked", Type: "a", State: eventhose.ParkedDead}}}}
	if err := st.Commit(ctx, store.Progress{Lanes: []store.LaneChange{lane}, Matched: []store.Tail{{Tenant: "other", Matched: 2}}}); err != nil {
		return err
	}
	_, err := st.Trim(ctx, "other", store.Trim{Bytes: 1, Keep: 1000})
	return err
}

// everything walks through an export in parts of one size.
func everything(t *testing.T, next func(position []byte, limit store.PartLimit) (*store.Part, error), limit store.PartLimit) (all store.Part, parts int) {
	t.Helper()
	lanes := map[store.LaneRef]int{}
	for position := []byte(nil); ; parts++ {
		part, err := next(position, limit)
		if err != nil {
			t.Fatal(err)
		}
		if part == nil {
			return all, parts
		}
		position = part.Position
		all.Logs, all.Events, all.Kept = append(all.Logs, part.Logs...), append(all.Events, part.Events...), append(all.Kept, part.Kept...)
		all.IDs, all.Matched, all.Records = append(all.IDs, part.IDs...), append(all.Matched, part.Matched...), append(all.Records, part.Records...)
		for _, c := range part.Lanes {
			at, known := lanes[c.Lane.LaneRef]
			if !known {
				at = len(all.Lanes)
				lanes[c.Lane.LaneRef] = at
				all.Lanes = append(all.Lanes, store.LaneChange{Lane: c.Lane, Create: c.Create})
			}
			l := &all.Lanes[at]
			l.Park, l.Block, l.Attempts = append(l.Park, c.Park...), append(l.Block, c.Block...), append(l.Attempts, c.Attempts...)
		}
	}
}

// Whatever the parts are, they hold the same; what they hold is what can be read; and nothing in the directory is changed.
func TestExport(t *testing.T) {
	for name, clean := range map[string]bool{"closed": true, "killed": false} {
		t.Run(name, func(t *testing.T) {
			dir, script := scripted(t, clean)
			before := files(t, dir)
			x, err := embedded.OpenExport(dir, options(nil))
			if err != nil {
				t.Fatal(err)
			}
			next := func(position []byte, limit store.PartLimit) (*store.Part, error) {
				return x.Next(t.Context(), position, limit)
			}
			all, parts := everything(t, next, store.PartLimit{Rows: 1 << 30, Bytes: 1 << 30})
			if parts > 10 {
				t.Errorf("%d parts of any size", parts)
			}
			if few, parts := everything(t, next, store.PartLimit{Rows: 1, Bytes: 1 << 30}); !reflect.DeepEqual(few, all) || parts < 100 {
				t.Errorf("%d parts of one row hold something else", parts)
			}
			if few, parts := everything(t, next, store.PartLimit{Rows: 1 << 30, Bytes: 3000}); !reflect.DeepEqual(few, all) || parts < 10 {
				t.Errorf("%d parts of 3000 bytes hold something else", parts)
			}
			outline, _ := everything(t, func(position []byte, limit store.PartLimit) (*store.Part, error) {
				return x.Outline(t.Context(), position, limit)
			}, store.PartLimit{Rows: 10, Bytes: 1 << 30})
			sameExport(t, x, all, outline)
			if err := x.Close(); err != nil {
				t.Error(err)
			}
			if after := files(t, dir); !maps.Equal(before, after) {
				t.Errorf("the directory was changed: %v, was %v", slicesOf(after), slicesOf(before))
			}
			st, err := embedded.Open(dir, options(nil))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if err := script.Check(t.Context(), st, -1); err != nil {
				t.Error(err)
			}
		})
	}
}

func slicesOf(m map[string][sha256.Size]byte) (names []string) {
	for name, sum := range m {
		names = append(names, fmt.Sprintf("%s %x", name, sum[:4]))
	}
	return names
}

// sameExport compares what an export hands out with what it answers to readers.
func sameExport(t *testing.T, x *embedded.Export, all, outline store.Part) {
	t.Helper()
	if len(all.Kept) == 0 || len(all.IDs) == 0 || len(all.Lanes) == 0 || len(all.Records) == 0 {
		t.Fatalf("the script has made too little: %d kept, %d ids, %d lanes, %d records", len(all.Kept), len(all.IDs), len(all.Lanes), len(all.Records))
	}
	at := map[eventhose.TenantID][]store.StoredEvent{}
	for _, e := range all.Events {
		at[e.Event.Tenant] = append(at[e.Event.Tenant], e)
	}
	extent, err := x.Extent(t.Context())
	if err != nil || extent.Events != len(all.Events) || extent.Logs != len(all.Logs) {
		t.Errorf("it says %+v (%v), and has %d events of %d logs", extent, err, len(all.Events), len(all.Logs))
	}
	for _, l := range all.Logs {
		page, err := x.Read(t.Context(), l.Tenant, l.Head.First-1, store.ReadLimit{Events: 1 << 20, Bytes: 1 << 30})
		if err != nil || len(page) != len(at[l.Tenant]) {
			t.Fatalf("log %s: %d events, %v, want %d", l.Tenant, len(page), err, len(at[l.Tenant]))
		}
		bytes := int64(0)
		for i, s := range at[l.Tenant] {
			e, want := *s.Event, *page[i]
			if bytes += int64(len(e.Data)); e.Origin.Tenant != "" && !e.Erased {
				e.Data, e.Erased = want.Data, want.Erased
			}
			if err := storetest.SameEvent(&e, &want); err != nil {
				t.Error(err)
			}
			if made := eventhose.EventID(e.Sequence, s.Random); s.Made && made != e.ID {
				t.Errorf("%s is not made of %d and %x", e.ID, e.Sequence, s.Random)
			}
		}
		if bytes != l.Bytes {
			t.Errorf("log %s has %d bytes, and says %d", l.Tenant, bytes, l.Bytes)
		}
	}
	for _, id := range all.IDs {
		e, err := x.Lookup(t.Context(), id.Tenant, store.Ref{Sequence: id.Sequence})
		if err != nil || e.ID != id.ID || e.Scope != id.Scope {
			t.Errorf("the event of %+v is %+v, %v", id, e, err)
		}
	}
	for _, c := range all.Lanes {
		got, blocked, err := x.Lane(t.Context(), c.Lane.Tenant, c.Lane.Subscription)
		if err != nil || !reflect.DeepEqual(got, c.Lane) || len(blocked) != len(c.Block) {
			t.Errorf("lane %+v: %+v, %v", c.Lane, got, err)
		}
		attempts, err := x.Attempts(t.Context(), c.Lane.Tenant, store.AttemptQuery{Subscription: c.Lane.Subscription, Limit: 1000})
		if err != nil || len(attempts) != len(c.Attempts) || len(attempts) > 0 && !reflect.DeepEqual(attempts, c.Attempts) {
			t.Errorf("%d attempts, %v, want %d", len(attempts), err, len(c.Attempts))
		}
	}
	for i := range all.Lanes {
		all.Lanes[i].Park, all.Lanes[i].Block, all.Lanes[i].Attempts = nil, nil, nil
	}
	if all.Events = nil; !reflect.DeepEqual(outline, all) {
		t.Error("the outline is another")
	}
}

// A state has a name, and every change of the store gives it another.
func TestExportSource(t *testing.T) {
	source := func(dir string) store.Source {
		t.Helper()
		x, err := embedded.OpenExport(dir, options(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		return x.Source()
	}
	dir, _ := scripted(t, true)
	first := source(dir)
	if again := source(dir); again != first {
		t.Errorf("%+v became %+v", first, again)
	}
	st, err := embedded.Open(dir, options(nil))
	if err != nil {
		t.Fatal(err)
	}
	backup, restored := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "restored")
	if err := st.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if later := source(dir); later.ID != first.ID || later.Commits <= first.Commits {
		t.Errorf("%+v became %+v by a start", first, later)
	}
	if err := embedded.Restore(backup, restored, options(nil)); err != nil {
		t.Fatal(err)
	}
	if other := source(restored); other.ID == first.ID {
		t.Errorf("a restored backup is %+v, too", other)
	}
}

// Damage is seen before anything is copied, also in a store so new that no more than its first commit is attested.
func TestExportSeesDamage(t *testing.T) {
	for _, young := range []bool{false, true} {
		t.Run(fmt.Sprintf("young %v", young), func(t *testing.T) { exportSeesDamage(t, young) })
	}
}

func exportSeesDamage(t *testing.T, young bool) {
	dir, _ := scripted(t, false)
	if young {
		line := "eventhose attest 1 1"
		sealed := fmt.Sprintf("%s %08x\n", line, crc32.Checksum([]byte(line), crc32.MakeTable(crc32.Castagnoli)))
		if err := os.WriteFile(filepath.Join(dir, "ATTEST"), []byte(sealed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "pebble", "MANIFEST-*"))
	if err != nil || len(manifests) != 1 {
		t.Fatal(manifests, err)
	}
	if err := os.Truncate(manifests[0], 100); err != nil {
		t.Fatal(err)
	}
	x, err := embedded.OpenExport(dir, options(nil))
	if err == nil {
		x.Close()
	}
	if !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("the end of the manifest is missing: %v", err)
	}
	// It was given back all the same.
	if x, err := embedded.OpenExport(dir, options(nil)); errors.Is(err, store.ErrLocked) {
		t.Error(err)
	} else if err == nil {
		x.Close()
	}
}
