package embedded_test

// Errors of the disk. A script runs again and again, and each time another one of the disk's operations fails: the first
// write, the second, and so on until the script passes without meeting the fault; likewise for fsyncs, and for what
// changes names. After the fault nothing may be answered that is not there when the disk is well again, and after a
// failed fsync nothing may be answered at all.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

// faultKind says which operations of a disk fail, and how.
type faultKind struct {
	name   string
	of     []errorfs.OpKind
	sync   bool
	sticky bool // all from the Nth on
}

var (
	writes = []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileWriteAt}
	syncs  = []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}
	names  = []errorfs.OpKind{errorfs.OpCreate, errorfs.OpOpenDir, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpRemove, errorfs.OpMkdirAll, errorfs.OpLink}
)

var faultKinds = []faultKind{
	{"write", writes, false, false}, {"write and all after", writes, false, true},
	{"fsync", syncs, true, false}, {"fsync and all after", syncs, true, true},
	{"change of names", names, false, false},
}

// faultyDisk fails its Nth operation of a kind.
type faultyDisk struct {
	kind  faultKind
	left  atomic.Int64
	met   atomic.Bool
	armed atomic.Bool
}

func (d *faultyDisk) wrap(fs vfs.FS) vfs.FS {
	d.armed.Store(true)
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		for _, k := range d.kind.of {
			if op.Kind != k || !d.armed.Load() {
				continue
			}
			if n := d.left.Add(-1); n == 0 || n < 0 && d.kind.sticky {
				d.met.Store(true)
				return fmt.Errorf("planted: %w", syscall.EIO)
			}
		}
		return nil
	}))
}

// ioFaults is one run with one fault.
type ioFaults struct {
	kind  faultKind
	n     int
	seed  uint64
	ops   int
	plant func(store.Store) store.Store
}

// hangs is how long one run may take before it counts as one that does not end.
const hangs = 45 * time.Second

// run answers whether the script met its fault, and the first violation.
func (f ioFaults) run() (met bool, err error) {
	type result struct {
		met bool
		err error
	}
	done := make(chan result, 1)
	go func() {
		met, err := f.script()
		done <- result{met, err}
	}()
	select {
	case r := <-done:
		return r.met, r.err
	case <-time.After(hangs):
		return true, fmt.Errorf("no end after %v", hangs)
	}
}

func (f ioFaults) script() (met bool, err error) {
	ctx := context.Background()
	mem := vfs.NewCrashableMem()
	faulty := &faultyDisk{kind: f.kind}
	faulty.left.Store(int64(f.n))
	script := storetest.NewScript(rand.New(rand.NewPCG(f.seed, 1)), "a", storetest.NewModel(), 0)
	var fatal atomic.Int32
	o := options(faulty.wrap(mem))
	o.OnFatal = func(error) { fatal.Add(1) }
	var pending *storetest.Op
	driver, err := embedded.Open(dataDir, o)
	if err != nil {
		if !faulty.met.Load() {
			return false, err
		}
		return true, f.recover(ctx, mem, script, nil)
	}
	var st store.Store = driver
	if f.plant != nil {
		st = f.plant(st)
	}
	for range f.ops {
		metBefore := faulty.met.Load()
		op := script.Next()
		answer := op.Do(ctx, st)
		next := script.Model.Clone()
		wrong := next.Apply(op, answer)
		if wrong == nil {
			if metBefore && f.kind.sync {
				return true, fmt.Errorf("%s was answered after an fsync had failed", op)
			}
			script.Model = next
			continue
		}
		if answer.Err == nil || !faulty.met.Load() {
			return true, wrong
		}
		if errors.Is(answer.Err, store.ErrFailed) {
			pending = &op
			if err := allFailed(ctx, st, script); err != nil {
				return true, fmt.Errorf("after %s failed with %w: %w", op, answer.Err, err)
			}
			break
		}
		if f.kind.sync {
			return true, fmt.Errorf("%s met a failed fsync and answered %w, want ErrFailed", op, answer.Err)
		}
		if err := script.Check(ctx, st, -1); err != nil { // it failed and nothing of it may be there
			return true, fmt.Errorf("after %s failed with %w: %w", op, answer.Err, err)
		}
	}
	if failed := pending != nil; failed != (fatal.Load() == 1) && (failed || !faulty.met.Load()) {
		return true, fmt.Errorf("store failed: %v, but OnFatal was called %d times", failed, fatal.Load())
	}
	if err := st.Close(); err != nil && !faulty.met.Load() {
		return false, err
	}
	faulty.armed.Store(false)
	return faulty.met.Load(), f.recover(ctx, mem, script, pending)
}

// allFailed checks that a store that has failed answers so to everything.
func allFailed(ctx context.Context, st store.Store, script *storetest.Script) error {
	for range 5 {
		op := script.Next()
		if a := op.Do(ctx, st); !errors.Is(a.Err, store.ErrFailed) {
			return fmt.Errorf("%s answered %v", op, a.Err)
		}
	}
	_, head := st.Head(ctx, "a-1")
	_, read := st.Read(ctx, "a-1", 0, store.ReadLimit{Events: 1, Bytes: 1})
	_, lookup := st.Lookup(ctx, "a-1", store.Ref{Sequence: 1})
	_, work := st.Work(ctx, store.LaneRef{}, 1)
	_, list := st.List(ctx, "", "a", "", 1)
	for what, err := range map[string]error{"head": head, "read": read, "lookup": lookup, "work": work, "list": list} {
		if !errors.Is(err, store.ErrFailed) {
			return fmt.Errorf("%s answered %v", what, err)
		}
	}
	return nil
}

// recover opens what is left of the disk, without the fault, after the process has ended and after a power cut. All that
// was answered is there, and of the pending operation all or nothing.
func (f ioFaults) recover(ctx context.Context, mem *vfs.MemFS, script *storetest.Script, pending *storetest.Op) error {
	rng := rand.New(rand.NewPCG(f.seed, uint64(f.n)))
	for _, percent := range []int{100, 0, 1 + rng.IntN(99)} {
		disk := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
		st, err := embedded.Open(dataDir, options(disk))
		if err != nil {
			return fmt.Errorf("open with %d %% of unsynced data: %w", percent, err)
		}
		lookups := 3
		if percent == 100 {
			lookups = -1
		}
		err = shallow(func() error { return holds(ctx, st, script, pending, lookups) })
		if err == nil {
			_, err = st.Append(ctx, []store.Append{{Tenant: "later", Events: []store.NewEvent{{}}}})
		}
		if err := errors.Join(err, st.Close()); err != nil {
			return fmt.Errorf("with %d %% of unsynced data: %w", percent, err)
		}
	}
	return nil
}

func holds(ctx context.Context, st store.Store, script *storetest.Script, pending *storetest.Op, lookups int) error {
	before := script.Check(ctx, st, lookups)
	if before == nil || pending == nil {
		return before
	}
	answer, err := script.Recover(ctx, st, *pending)
	if err == nil {
		whole := storetest.NewScript(rand.New(rand.NewPCG(1, 1)), "a", script.Model.Clone(), pending.N)
		if err = whole.Model.Apply(*pending, answer); err == nil {
			err = whole.Check(ctx, st, lookups)
		}
	}
	if err != nil {
		return fmt.Errorf("%s is there neither not at all (%w) nor whole: %w", pending, before, err)
	}
	return nil
}

func TestIOErrors(t *testing.T) {
	seed := seed(t)
	ops := setting(t, "EVENTHOSE_IO_OPS", 40)
	for _, kind := range faultKinds {
		t.Run(kind.name, func(t *testing.T) {
			start, passed := time.Now(), errors.New("passed")
			var faults atomic.Int64
			err := atWork(1<<30, func(i int) error {
				met, err := ioFaults{kind: kind, n: i + 1, seed: seed, ops: ops}.run()
				switch {
				case err != nil:
					return fmt.Errorf("number %d: %w", i+1, err)
				case !met:
					return passed
				}
				faults.Add(1)
				return nil
			})
			if !errors.Is(err, passed) {
				t.Fatal(err)
			}
			t.Logf("%d faults in %v", faults.Load(), time.Since(start).Round(time.Second))
			if faults.Load() < 20 {
				t.Errorf("the script met %d faults only", faults.Load())
			}
		})
	}
}

// hasty answers a commit as done although the store has just failed.
type hasty struct{ store.Store }

func (h hasty) Save(ctx context.Context, records []store.RecordChange, lanes []store.LaneChange) error {
	if err := h.Store.Save(ctx, records, lanes); !errors.Is(err, store.ErrFailed) {
		return err
	}
	return nil
}

// TestIOErrorsSees shows the checker red on a store that answers after a failed fsync.
func TestIOErrorsSees(t *testing.T) {
	for n := 1; n < 200; n++ {
		f := ioFaults{kind: faultKind{"fsync", syncs, true, false}, n: n, seed: 1, ops: 40, plant: func(st store.Store) store.Store { return hasty{st} }}
		met, err := f.run()
		if err != nil {
			t.Logf("seen at fsync %d: %v", n, err)
			return
		}
		if !met {
			break
		}
	}
	t.Error("nothing was seen")
}
