package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/eventhose/eventhose/internal/store"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func isLogSync(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return strings.HasSuffix(op.Path, ".log")
	}
	return false
}

func TestFailedSyncIsFatal(t *testing.T) {
	leavesNothing(t)
	mem := vfs.NewCrashableMem()
	var broken atomic.Bool
	var syncs atomic.Int32
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isLogSync(op) && broken.Load() {
			syncs.Add(1)
			return syscall.EIO
		}
		return nil
	}))
	told := make(chan error, 10)
	s, err := Open("data", Options{FS: fs, OnFatal: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "t", event(1, ""))
	broken.Store(true)
	if _, err := s.Append(ctx, []store.Append{{Tenant: "t", Events: []store.NewEvent{event(2, "")}}}); !errors.Is(err, store.ErrFailed) {
		t.Fatal("append answered", err)
	}
	if err := s.Commit(ctx, store.Progress{}); !errors.Is(err, store.ErrFailed) {
		t.Fatal("commit answered", err)
	}
	if _, err := s.Head(ctx, "t"); !errors.Is(err, store.ErrFailed) {
		t.Fatal("head answered", err)
	}
	if err := s.Backup(ctx, "backup"); !errors.Is(err, store.ErrFailed) {
		t.Fatal("backup answered", err)
	}
	broken.Store(false)
	if err := s.Save(ctx, nil, nil); !errors.Is(err, store.ErrFailed) {
		t.Fatal("save answered", err)
	}
	if len(told) != 1 || !errors.Is(<-told, syscall.EIO) {
		t.Fatal("OnFatal was not told once of the fsync")
	}
	if n := syncs.Load(); n != 1 {
		t.Fatalf("the fsync was tried %d times", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal("close:", err)
	}
	again := mustOpen(t, mem.CrashClone(vfs.CrashCloneCfg{}), "data")
	if got := mustRead(t, again, "t", 0); len(got) != 1 {
		t.Fatalf("%d events", len(got))
	}
}

// TestVisibleMeansDurable holds an fsync up and sees that nothing moves before it ends: neither the head, nor reads, nor
// lookups, nor the answer to a repeat, nor records and lanes.
func TestVisibleMeansDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gate atomic.Pointer[chan struct{}]
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if g := gate.Load(); g != nil && isLogSync(op) {
				<-*g
			}
			return nil
		}))
		s, err := Open("data", Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, "t", event(1, "one"))
		closed := make(chan struct{})
		gate.Store(&closed)
		var done atomic.Int32
		var all sync.WaitGroup
		run := func(do func()) {
			all.Go(func() { do(); done.Add(1) })
			synctest.Wait()
		}
		run(func() { mustAppend(t, s, "t", event(2, "two")) })
		run(func() {
			if p := mustAppend(t, s, "t", event(2, "two")); !p[0].Duplicate || p[0].Sequence != 2 {
				t.Errorf("%+v", p)
			}
		})
		record := store.RecordChange{Record: store.Record{Kind: "k", ID: "r"}}
		run(func() {
			if err := s.Save(ctx, []store.RecordChange{record}, nil); err != nil {
				t.Error(err)
			}
		})
		run(func() {
			if r, err := s.Record(ctx, "", "k", "r"); err != nil || r.Version != 1 {
				t.Errorf("%+v %v", r, err)
			}
		})
		run(func() {
			lane := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "t", Subscription: "s"}}}
			if err := s.Commit(ctx, store.Progress{Lanes: []store.LaneChange{lane}}); err != nil {
				t.Error(err)
			}
		})
		run(func() {
			if _, _, err := s.Lane(ctx, "t", "s"); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Hour) // sleep: needed, because virtual time is what passes
		if n := done.Load(); n != 0 {
			t.Errorf("%d calls were answered before the fsync", n)
		}
		if head, err := s.Head(ctx, "t"); err != nil || head.Last != 1 {
			t.Errorf("head %+v %v", head, err)
		}
		if got := mustRead(t, s, "t", 0); len(got) != 1 {
			t.Errorf("read %d events", len(got))
		}
		for _, ref := range []store.Ref{{Sequence: 2}, {ID: "two"}} {
			if e, err := s.Lookup(ctx, "t", ref); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("lookup %+v: %+v %v", ref, e, err)
			}
		}
		gate.Store(nil)
		close(closed)
		all.Wait()
		if got := mustRead(t, s, "t", 0); len(got) != 2 {
			t.Errorf("read %d events after the fsync", len(got))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Who reads what another has written waits until it is durable, from the moment on in which it can be read.
func TestReadersWaitFromTheFirst(t *testing.T) {
	s := mustOpen(t, vfs.NewMem(), "data")
	for k := range kinds {
		b := s.db.NewBatch()
		_ = b.Set(recordKey("t", "k", "r"), nil, nil)
		err := s.commit(b, func() { // right before that
			if waits, comes := s.commits.of[k].Load(), s.commits.counter+1; waits != comes {
				t.Errorf("readers of kind %d wait for commit %d, and %d can be read", k, waits, comes)
			}
		}, k)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// quota is a disk of a size.
type quota struct {
	vfs.FS
	mu    sync.Mutex
	total int64
	used  int64
	sizes map[string]int64
}

func newQuota(total int64) *quota {
	return &quota{FS: vfs.NewMem(), total: total, sizes: map[string]int64{}}
}

func (q *quota) take(name string, n int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used+n > q.total {
		return syscall.ENOSPC
	}
	q.used += n
	q.sizes[name] += n
	return nil
}

func (q *quota) resize(total int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total = total
}

func (q *quota) GetDiskUsage(string) (vfs.DiskUsage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	free := uint64(max(0, q.total-q.used))
	return vfs.DiskUsage{AvailBytes: free, UsedBytes: uint64(q.used), TotalBytes: uint64(q.total)}, nil
}

func (q *quota) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := q.take(name, 0); err != nil {
		return nil, err
	}
	f, err := q.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	return &quotaFile{f, q, name}, nil
}

func (q *quota) Remove(name string) error {
	err := q.FS.Remove(name)
	if err == nil {
		q.mu.Lock()
		q.used -= q.sizes[name]
		delete(q.sizes, name)
		q.mu.Unlock()
	}
	return err
}

func (q *quota) Rename(from, to string) error {
	err := q.FS.Rename(from, to)
	if err == nil {
		q.mu.Lock()
		q.used -= q.sizes[to]
		q.sizes[to] = q.sizes[from]
		delete(q.sizes, from)
		q.mu.Unlock()
	}
	return err
}

type quotaFile struct {
	vfs.File
	q    *quota
	name string
}

func (f *quotaFile) Write(p []byte) (int, error) {
	if err := f.q.take(f.name, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 12 << 20
		disk := newQuota(size)
		noise := rand.NewChaCha8([32]byte{})
		s, err := Open("data", Options{FS: disk, OnFatal: func(err error) { t.Error("failed:", err) }})
		if err != nil {
			t.Fatal(err)
		}
		ref := store.LaneRef{Tenant: "t", Subscription: "s"}
		lane := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: ref}}
		big := func(i int) store.NewEvent {
			e := event(i, "")
			e.Event.Data = make([]byte, 100<<10)
			_, _ = noise.Read(e.Event.Data) // does not compress
			return e
		}
		fill := func(from int) int {
			for i := from; i < from+1000; i++ {
				_, err := s.Append(ctx, []store.Append{{Tenant: "t", Events: []store.NewEvent{big(i)}}})
				if errors.Is(err, store.ErrFull) {
					return i
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Millisecond) // sleep: needed, because virtual time is what passes
			}
			t.Fatal("the disk never became full")
			return 0
		}
		for round := range 3 {
			n := fill(round * 1000)
			head, err := s.Head(ctx, "t")
			if err != nil || head.Last == 0 {
				t.Fatal(head, err)
			}
			if got := mustRead(t, s, "t", head.Last-1); len(got) != 1 {
				t.Fatal("reads stopped")
			}
			for range 20 {
				if err := s.Commit(ctx, store.Progress{Lanes: []store.LaneChange{lane}}); err != nil {
					t.Fatal("progress stopped:", err)
				}
			}
			if round == 2 {
				// Somebody else takes what is left: the reserve is given back, and nothing fails.
				disk.mu.Lock()
				disk.total = disk.used + 1
				disk.mu.Unlock()
				time.Sleep(time.Second) // sleep: needed, because virtual time is what passes
				if err := s.Commit(ctx, store.Progress{Lanes: []store.LaneChange{lane}}); err != nil && !errors.Is(err, store.ErrFull) {
					t.Fatal(err)
				}
				disk.resize(size)
			}
			// Retention makes room.
			if _, err := s.Trim(ctx, "t", store.Trim{Before: moment(n)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // sleep: needed, because virtual time is what passes
			mustAppend(t, s, "t", big(n))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestReserve fills the disk behind the store's back in the middle of commits.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newQuota(64 << 20)
		s, err := Open("data", Options{FS: disk, OnFatal: func(err error) { t.Error("failed:", err) }})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, "t", event(0, ""))
		if _, err := disk.Stat("data/" + reserveFile); err != nil {
			t.Fatal("no reserve:", err)
		}
		disk.mu.Lock()
		disk.total = disk.used
		disk.mu.Unlock()
		// The store believes its last look for a moment, and meets the full disk as it writes.
		mustAppend(t, s, "t", event(1, ""))
		if _, err := disk.Stat("data/" + reserveFile); err == nil {
			t.Fatal("the reserve was not given back")
		}
		if _, err := s.Append(ctx, []store.Append{{Tenant: "t", Events: []store.NewEvent{event(2, "")}}}); !errors.Is(err, store.ErrFull) {
			t.Fatal(err)
		}
		disk.resize(64 << 20)
		time.Sleep(time.Second) // sleep: needed, because virtual time is what passes
		mustAppend(t, s, "t", event(2, ""))
		if _, err := disk.Stat("data/" + reserveFile); err != nil {
			t.Fatal("the reserve was not taken again:", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDamageIsNamed turns bits in tables and sees the file named and nothing removed.
func TestDamageIsNamed(t *testing.T) {
	leavesNothing(t)
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, mem, "data")
	for i := range 500 {
		mustAppend(t, s, "t", event(i, fmt.Sprint(i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	names, _ := clone.List("data/pebble")
	for _, name := range names {
		if path.Ext(name) == ".sst" {
			b, err := clone.UnsafeGetFileDataBuffer("data/pebble/" + name)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/4] ^= 4
		}
	}
	again, err := Open("data", Options{FS: clone})
	if err == nil {
		_, err = again.Read(ctx, "t", 0, wide)
		_ = again.Close()
	}
	if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), ".sst") {
		t.Fatal(err)
	}
}
