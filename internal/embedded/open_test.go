package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// leavesNothing checks that a test's stores leave no goroutine behind.
func leavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func TestRefusals(t *testing.T) {
	leavesNothing(t)
	write := func(name, text string) func(*testing.T, vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			if err := writeSmall(fs, "data", name, text); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			if err := fs.Remove("data/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		do   func(*testing.T, vfs.FS)
		want error
		says string
	}{
		"newer format":     {write(formatFile, sealed("eventhose data format 2")), store.ErrNewer, "says format 2, this version reads up to 1"},
		"damaged format":   {write(formatFile, "eventhose data format 2 00000000\n"), store.ErrCorrupt, "data/FORMAT"},
		"no format":        {remove(formatFile), store.ErrCorrupt, "data/FORMAT is missing"},
		"no attest":        {remove(attestFile), store.ErrCorrupt, "data/ATTEST is missing"},
		"damaged attest":   {write(attestFile, "eventhose attest 1 5 00000000\n"), store.ErrCorrupt, "data/ATTEST"},
		"attested is lost": {write(attestFile, sealed("eventhose attest 1 1000")), store.ErrCorrupt, "ATTEST says that 1000 were durable"},
		"no database":      {func(t *testing.T, fs vfs.FS) { _ = fs.RemoveAll("data/pebble") }, store.ErrCorrupt, "data/pebble"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			s := mustOpen(t, fs, "data")
			mustAppend(t, s, "t", event(1, "a"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			c.do(t, fs)
			before, _ := fs.List("data/pebble")
			_, err := Open("data", Options{FS: fs})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %v with %q", err, c.want, c.says)
			}
			after, _ := fs.List("data/pebble")
			slices.Sort(before)
			slices.Sort(after)
			if name != "no database" && !slices.Equal(before, after) {
				t.Fatalf("the refusal changed files: %v, were %v", after, before)
			}
		})
	}
}

func TestLocked(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	for _, fs := range []vfs.FS{vfs.NewMem(), nil} {
		s := mustOpen(t, fs, dir)
		if _, err := Open(dir, Options{FS: fs}); !errors.Is(err, store.ErrLocked) {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := mustOpen(t, fs, dir)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilled opens what a process leaves that ended without closing.
func TestKilled(t *testing.T) {
	leavesNothing(t)
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, mem, "data")
	for i := range 20 {
		mustAppend(t, s, "t", event(i, fmt.Sprint(i)))
	}
	for _, percent := range []int{0, 100} {
		clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: newRand(1)})
		again := mustOpen(t, clone, "data")
		if got := mustRead(t, again, "t", 0); len(got) != 20 {
			t.Fatalf("%d events", len(got))
		}
	}
}

// TestAttested shows that the loss of the newest commits from the log file is seen.
func TestAttested(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, mem, "data")
	for i := range 3 {
		mustAppend(t, s, "t", event(i, ""))
	}
	s.attester.stop() // no timer from here on
	if err := s.attest(); err != nil {
		t.Fatal(err)
	}
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	names, _ := clone.List("data/pebble")
	cut := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			b, err := clone.UnsafeGetFileDataBuffer("data/pebble/" + name)
			if err != nil {
				t.Fatal(err)
			}
			clear(b[len(b)-min(len(b), 40):])
			cut++
		}
	}
	if cut == 0 {
		t.Fatal("no log file")
	}
	if _, err := Open("data", Options{FS: clone}); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "ATTEST") {
		t.Fatal(err)
	}
}

func TestBackupAndRestore(t *testing.T) {
	leavesNothing(t)
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "files": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data, backup, restored := filepath.Join(dir, "data"), filepath.Join(dir, "backup"), filepath.Join(dir, "restored")
			s := mustOpen(t, fs, data)
			for i := range 100 {
				mustAppend(t, s, "t", event(i, fmt.Sprint(i)))
			}
			before, _ := s.Head(ctx, "t")
			if err := s.Backup(ctx, backup); err != nil {
				t.Fatal(err)
			}
			if err := s.Backup(ctx, backup); !errors.Is(err, os.ErrExist) {
				t.Fatal("backup over a backup:", err)
			}
			mustAppend(t, s, "t", event(100, "late"))
			late, _ := s.Head(ctx, "t")
			cursor := late.Cursor(late.Last)
			if err := Restore(backup, restored, Options{FS: fs}); err != nil {
				t.Fatal(err)
			}
			if err := Restore(backup, restored, Options{FS: fs}); !errors.Is(err, os.ErrExist) {
				t.Fatal("restore over a store:", err)
			}
			if err := Restore(data, restored+"2", Options{FS: fs}); err == nil {
				t.Fatal("restored what is no backup")
			}
			// The backup itself opens too.
			for _, place := range []string{restored, backup} {
				r := mustOpen(t, fs, place)
				if got := mustRead(t, r, "t", 0); len(got) != 100 {
					t.Fatalf("%d events", len(got))
				}
				head, _ := r.Head(ctx, "t")
				if head.Incarnation == before.Incarnation || head.Last != 100 || len(head.Forks) != 1 ||
					head.Forks[0] != (eventhose.Fork{Incarnation: before.Incarnation, At: 100}) {
					t.Fatalf("head %+v, was %+v", head, before)
				}
				if _, err := head.Resolve(cursor); eventhose.CodeOf(err) != eventhose.CodeCursorGone {
					t.Fatal("a cursor beyond the fork resolved:", err)
				}
				if seq, err := head.Resolve(before.Cursor(100)); err != nil || seq != 100 {
					t.Fatal(seq, err)
				}
				empty, _ := r.Head(ctx, "nobody")
				if empty.Incarnation == head.Incarnation || empty.Last != 0 || empty.First != 1 {
					t.Fatalf("empty log %+v", empty)
				}
				mustAppend(t, r, "t", event(100, "other"))
				grown, _ := r.Head(ctx, "t")
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				r = mustOpen(t, fs, place)
				if again, _ := r.Head(ctx, "t"); fmt.Sprint(again) != fmt.Sprint(grown) || len(again.Forks) != 1 {
					t.Fatalf("opened again %+v, was %+v", again, grown)
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestForks restores again and again: cursors of each life resolve up to where it was left, and the list stays bounded.
func TestForks(t *testing.T) {
	leavesNothing(t)
	fs := vfs.NewMem()
	s := mustOpen(t, fs, "life-0")
	var lives []eventhose.Cursor
	for i := range maxForks + 10 {
		if i%3 == 0 { // some lives add nothing to the log
			mustAppend(t, s, "t", event(i, ""))
		}
		head, _ := s.Head(ctx, "t")
		lives = append(lives, head.Cursor(head.Last))
		next := fmt.Sprintf("life-%d", i+1)
		if err := errors.Join(s.Backup(ctx, "backup"), s.Close(), Restore("backup", next, Options{FS: fs}), fs.RemoveAll("backup")); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, fs, next)
	}
	head, _ := s.Head(ctx, "t")
	if len(head.Forks) != maxForks {
		t.Fatalf("%d forks", len(head.Forks))
	}
	for i, c := range lives {
		seq, err := head.Resolve(c)
		if i < 10 {
			if eventhose.CodeOf(err) != eventhose.CodeCursorGone {
				t.Fatalf("life %d: %v", i, err)
			}
		} else if err != nil || seq != c.Sequence {
			t.Fatalf("life %d: %d %v", i, seq, err)
		}
	}
}

// TestIdleInBubble runs in a bubble with a fake clock: an idle store has no timer, or a year would not pass at once, and
// nothing else that keeps the clock from moving.
func TestIdleInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s, err := Open("data", Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			mustAppend(t, s, "t", event(i, ""))
			time.Sleep(365 * 24 * time.Hour) // sleep: needed, because virtual time is what passes
		}
		if err := s.Erase(ctx, "t", 3); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open("data", Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		if got := mustRead(t, again, "t", 0); len(got) != 10 {
			t.Fatal(len(got))
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestErasedBytesLeaveFiles looks for erased data in every file, also after a crash between the erasure and the compaction.
func TestErasedBytesLeaveFiles(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	s := mustOpen(t, nil, dir)
	secret := "p1anted-5ecret-" + strings.Repeat("x", 10)
	e := event(1, "e")
	e.Event.Data = []byte(`{"card":"` + secret + `"}`)
	mustAppend(t, s, "t", event(0, ""), e)
	mustAppend(t, s, "t", event(2, ""))
	holds := func() (found []string) {
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), secret[:15]) {
				found = append(found, path)
			}
			return nil
		})
		return found
	}
	if len(holds()) == 0 {
		t.Fatal("the data is in no file before it is erased: the search is blind")
	}
	if err := s.Erase(ctx, "t", 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // may cut the compaction off
		t.Fatal(err)
	}
	s = mustOpen(t, nil, dir)
	s.scrubber.done.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if found := holds(); len(found) > 0 {
		t.Fatalf("erased data is still in %v", found)
	}
	s = mustOpen(t, nil, dir)
	got, err := s.Lookup(ctx, "t", store.Ref{ID: "e"})
	if err != nil || !got.Erased || got.Data != nil || got.Sequence != 2 {
		t.Fatalf("%+v %v", got, err)
	}
}

// What is erased of a parked event that retention has taken out of its log leaves the files too, also while a record batch still holds it
// since its neighbours stay.
func TestErasedBytesOfAKeptEventLeaveFiles(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, nil, dir)
	secret := "p1anted-5ecret-" + strings.Repeat("x", 10)
	e := event(1, "e")
	e.Event.Data = []byte(secret)
	mustAppend(t, s, "t", e, event(2, ""), event(3, ""))
	c := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "t", Subscription: "sub"}, Dead: 1}}
	c.Park = []store.Parked{{Parked: eventhose.Parked{Sequence: 1, State: eventhose.ParkedDead}}}
	if err := s.Commit(ctx, store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
		t.Fatal(err)
	}
	if done, err := s.Trim(ctx, "t", store.Trim{Before: moment(2), Keep: 1 << 20}); err != nil || done.First != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, seq := range []sequence{1, 3} { // the second is written with what is in memory
		if err := s.Erase(ctx, "t", seq); err != nil {
			t.Fatal(err)
		}
	}
	s.scrubber.done.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), secret[:15]) {
			t.Errorf("erased data is still in %s", path)
		}
		return nil
	})
	s = mustOpen(t, nil, dir)
	if got := mustRead(t, s, "t", 1); len(got) != 2 || got[0].Erased || !got[1].Erased {
		t.Errorf("%+v", got)
	}
}

// TestErasedBytesLeaveUsedLogs has erased data in each place where a log file that is used again may have it: behind the end of the
// log that is written, and in a file that waits.
func TestErasedBytesLeaveUsedLogs(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, nil, dir)
	const secret = "p1anted-5ecret"
	e := event(1, "e")
	e.Event.Data = []byte(`{"card":"` + secret + `"}`)
	rotate := func() {
		t.Helper()
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		sp := s.fs.spares // the log is done with when its rows are in a table and Pebble's cleaner has come to it
		sp.mu.Lock()
		defer sp.mu.Unlock()
		for len(sp.used) > 1 {
			sp.moved.Wait()
		}
	}
	holds := func() (logs, waiting int) {
		paths, err := filepath.Glob(filepath.Join(dir, pebbleDir, "*.log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			switch {
			case err != nil || !bytes.Contains(b, []byte(secret)):
			case slices.Contains(s.fs.spares.free, path):
				waiting++
			default:
				logs++
			}
		}
		return logs, waiting
	}
	for range 100 { // so that what is written later does not reach it
		mustAppend(t, s, "t", event(0, ""))
	}
	mustAppend(t, s, "t", e)
	rotate()
	mustAppend(t, s, "t", event(2, ""))
	if logs, waiting := holds(); logs != 0 || waiting != 1 {
		t.Fatalf("in %d logs and %d that wait: the file does not wait to be used again", logs, waiting)
	}
	rotate()
	if logs, waiting := holds(); logs != 1 || waiting != 0 {
		t.Fatalf("in %d logs and %d that wait: the file is not used again", logs, waiting)
	}
	scrubbed := func(seq sequence) {
		t.Helper()
		if err := s.Erase(ctx, "t", seq); err != nil {
			t.Fatal(err)
		}
		s.scrubber.done.Wait()
		if logs, waiting := holds(); logs+waiting > 0 {
			t.Fatalf("erased data is still in %d logs and %d that wait", logs, waiting)
		}
	}
	scrubbed(101)
	again := func(n int) {
		t.Helper()
		for range 100 {
			mustAppend(t, s, "t", event(0, ""))
		}
		e.Event.ID = fmt.Sprint("e", n)
		mustAppend(t, s, "t", e)
		rotate()
		if logs, waiting := holds(); logs != 0 || waiting != 1 {
			t.Fatalf("in %d logs and %d that wait: files are not used again after an erasure", logs, waiting)
		}
	}
	again(1)
	scrubbed(203)
	again(2)
	rotate()
	// The log may have been flushed since the erasure, so that a compaction need not end it.
	if err := errors.Join(s.fs.forget(), s.fs.forgotten(ctx, s.flush)); err != nil {
		t.Fatal(err)
	}
	if logs, waiting := holds(); logs+waiting > 0 {
		t.Fatalf("in %d logs and %d that wait", logs, waiting)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestIDFilter(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, fs, "data")
	var events []store.NewEvent
	for i := range 5000 {
		events = append(events, event(i, fmt.Sprint("id-", i)))
	}
	mustAppend(t, s, "t", events...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fs, "data")
	s.ids.stopped.Wait()
	if !s.ids.complete {
		t.Fatal("the filter is not filled")
	}
	mayHave := func(key string) bool { return s.ids.mayHave(key, s.ids.hash(key)) }
	wrong := 0
	for i := range 5000 {
		if !mayHave(string(idKey("t", "", fmt.Sprint("id-", i)))) {
			t.Fatalf("id %d is not in the filter", i)
		}
		if mayHave(string(idKey("t", "", fmt.Sprint("new-", i)))) {
			wrong++
		}
	}
	if wrong > 100 {
		t.Fatalf("%d of 5000 new ids would be read for nothing", wrong)
	}
	// Until it is filled it answers for what it has passed, and for nothing else.
	s.ids.complete, s.ids.passed = false, "m"
	if mayHave("absent") || !mayHave("nobody knows") {
		t.Fatal("it does not know how far it is filled")
	}
	s.ids.complete = true
	// Segments fill up and grow.
	for i := range 3 * firstSegment {
		s.ids.add(uint64(i) * 0x9e3779b97f4a7c15)
	}
	wrong = 0
	const every = 16
	for i := 0; i < 3*firstSegment; i += every {
		if !s.ids.mayHave("", uint64(i)*0x9e3779b97f4a7c15) {
			t.Fatal(i)
		}
		if s.ids.mayHave("", uint64(i)*0x9e3779b97f4a7c15^0x5555555555555555) {
			wrong++
		}
	}
	if share := float64(wrong) * every / (3 * firstSegment); share > 0.02 {
		t.Fatalf("%.1f %% of new ids would be read for nothing", 100*share)
	}
}
