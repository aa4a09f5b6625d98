package embedded_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

// options are those of every store in these tests.
func options(fs vfs.FS) embedded.Options { return embedded.Options{FS: fs, MinFree: -1} }

// disks opens stores and remembers which disk each is on.
type disks struct {
	mu sync.Mutex
	of map[store.Store]disk
}

type disk struct {
	fs  vfs.FS // nil is the operating system's
	dir string
}

func (d *disks) open(t *testing.T, on disk) store.Store {
	st, err := embedded.Open(on.dir, options(on.fs))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = map[store.Store]disk{}
	}
	d.of[st] = on
	return st
}

func (d *disks) reopen(t *testing.T, st store.Store) store.Store {
	d.mu.Lock()
	on := d.of[st]
	d.mu.Unlock()
	if err := st.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return d.open(t, on)
}

// checks is how many random histories rapid tries; -rapid.checks makes it longer.
const checks = "30"

func TestStore(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		if err := f.Value.Set(checks); err != nil {
			t.Fatal(err)
		}
	}
	var d disks
	storetest.Run(t, func(t *testing.T) store.Store { return d.open(t, disk{vfs.NewMem(), dataDir}) }, d.reopen)
}

// TestStoreOnFiles runs the named cases on the operating system's files.
func TestStoreOnFiles(t *testing.T) {
	var d disks
	for _, c := range storetest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			err := c.Try(t.Context(), d.open(t, disk{nil, t.TempDir()}), func(st store.Store) store.Store { return d.reopen(t, st) })
			if err != nil {
				t.Errorf("promise: %s\n%v", c.Promise, err)
			}
		})
	}
}

// TestScripts compares longer scripts than rapid's with the model.
func TestScripts(t *testing.T) {
	seed := seed(t)
	err := atWork(setting(t, "EVENTHOSE_SCRIPTS", 6), func(i int) error {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		script := storetest.NewScript(rng, "a", storetest.NewModel(), 0)
		fs := vfs.NewMem()
		for range 4 {
			st, err := embedded.Open(dataDir, options(fs))
			if err != nil {
				return err
			}
			if err := errors.Join(script.RunAndCheck(t.Context(), st, 100, 20), st.Close()); err != nil {
				return fmt.Errorf("script %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// planted is a store with a fault that a checker must see.
type planted struct {
	store.Store
	append func(context.Context, store.Store, []store.Append) ([]store.AppendResult, error)
	commit func(context.Context, store.Store, store.Progress) error
	head   func(context.Context, store.Store, eventhose.TenantID) (eventhose.Head, error)
	read   func([]*eventhose.Event) []*eventhose.Event
	claim  func(store.Claimed) store.Claimed
}

func (p *planted) Claim(ctx context.Context, node string, give []uint8, ttl time.Duration) (store.Claimed, error) {
	claimed, err := p.Store.Claim(ctx, node, give, ttl)
	if p.claim != nil {
		claimed = p.claim(claimed)
	}
	return claimed, err
}

func (p *planted) Append(ctx context.Context, group []store.Append) ([]store.AppendResult, error) {
	if p.append == nil {
		return p.Store.Append(ctx, group)
	}
	return p.append(ctx, p.Store, group)
}

func (p *planted) Commit(ctx context.Context, progress store.Progress) error {
	if p.commit == nil {
		return p.Store.Commit(ctx, progress)
	}
	return p.commit(ctx, p.Store, progress)
}

func (p *planted) Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error) {
	if p.head == nil {
		return p.Store.Head(ctx, tenant)
	}
	return p.head(ctx, p.Store, tenant)
}

func (p *planted) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	events, err := p.Store.Read(ctx, tenant, after, limit)
	if p.read != nil {
		events = p.read(events)
	}
	return events, err
}

// dropDigest forgets what clients sent, so that all that has one id is the same.
func dropDigest(st store.Store) *planted {
	return &planted{Store: st, append: func(ctx context.Context, st store.Store, group []store.Append) ([]store.AppendResult, error) {
		bare := make([]store.Append, len(group))
		for i, entry := range group {
			bare[i] = entry
			bare[i].Events = nil
			for _, e := range entry.Events {
				e.Digest = [16]byte{}
				bare[i].Events = append(bare[i].Events, e)
			}
		}
		return st.Append(ctx, bare)
	}}
}

// twoCommits writes a lane's row in one commit and what hangs on it in the next.
func twoCommits(st store.Store) *planted {
	return &planted{Store: st, commit: func(ctx context.Context, st store.Store, p store.Progress) error {
		rows := store.Progress{Fence: p.Fence, Matched: p.Matched}
		for _, c := range p.Lanes {
			rows.Lanes = append(rows.Lanes, store.LaneChange{Lane: c.Lane, Create: c.Create, Delete: c.Delete})
		}
		if err := st.Commit(ctx, rows); err != nil {
			return err
		}
		return st.Commit(ctx, store.Progress{Lanes: p.Lanes})
	}}
}

// earlyHead tells the head that a log will have while its append is still on its way to the disk.
func earlyHead(st store.Store) *planted {
	var mu sync.Mutex
	coming := map[eventhose.TenantID]eventhose.Sequence{}
	return &planted{Store: st,
		append: func(ctx context.Context, st store.Store, group []store.Append) ([]store.AppendResult, error) {
			for _, entry := range group {
				h, err := st.Head(ctx, entry.Tenant)
				if err != nil {
					return nil, err
				}
				mu.Lock()
				coming[entry.Tenant] = h.Last + eventhose.Sequence(len(entry.Events))
				mu.Unlock()
			}
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				for _, entry := range group {
					delete(coming, entry.Tenant)
				}
			}()
			return st.Append(ctx, group)
		},
		head: func(ctx context.Context, st store.Store, tenant eventhose.TenantID) (eventhose.Head, error) {
			h, err := st.Head(ctx, tenant)
			mu.Lock()
			defer mu.Unlock()
			h.Last = max(h.Last, coming[tenant])
			return h, err
		}}
}

// swapped answers two events of a page in the wrong order.
func swapped(st store.Store) *planted {
	return &planted{Store: st, read: func(events []*eventhose.Event) []*eventhose.Event {
		if len(events) > 2 {
			events = append([]*eventhose.Event{events[1], events[0]}, events[2:]...)
		}
		return events
	}}
}

// skipping leaves out an event of a page.
func skipping(st store.Store) *planted {
	return &planted{Store: st, read: func(events []*eventhose.Event) []*eventhose.Event {
		if len(events) > 2 {
			events = append([]*eventhose.Event{events[0]}, events[2:]...)
		}
		return events
	}}
}

// unfenced commits whatever leases are relied on.
func unfenced(st store.Store) *planted {
	return &planted{Store: st, commit: func(ctx context.Context, st store.Store, p store.Progress) error {
		p.Fence = nil
		return st.Commit(ctx, p)
	}}
}

// sameEpoch answers the same epoch whoever had the shard in between.
func sameEpoch(st store.Store) *planted {
	return &planted{Store: st, claim: func(c store.Claimed) store.Claimed {
		for i := range c.Leases {
			c.Leases[i].Epoch = 1
		}
		return c
	}}
}

// TestCheckersSee shows each checker red on the fault that it is there for, and names who must see it.
func TestCheckersSee(t *testing.T) {
	for name, fault := range map[string]struct {
		plant func(store.Store) *planted
		cases []string // all of these, and the random script unless it is onlyCases
		only  bool
	}{
		"dropped digest": {dropDigest, []string{"dedupe/different", "dedupe/group"}, false},
		"early head":     {earlyHead, []string{"concurrency/order"}, true},
		"swapped events": {swapped, []string{"append/sequences", "concurrency/order"}, false},
		"skipped event":  {skipping, []string{"read/limits", "concurrency/order"}, false},
		"no fence":       {unfenced, []string{"leases/fenced", "leases/given", "leases/left", "leases/one", "leases/reopened"}, true},
		"same epoch":     {sameEpoch, []string{"leases/given", "leases/left", "leases/reopened"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range storetest.Cases() {
				for _, want := range fault.cases {
					if c.Name == want && c.Try(t.Context(), fault.plant(open(t, vfs.NewMem())), func(st store.Store) store.Store { return st }) == nil {
						t.Errorf("%s saw nothing", c.Name)
					}
				}
			}
			script := storetest.NewScript(rand.New(rand.NewPCG(1, 1)), "a", storetest.NewModel(), 0)
			if !fault.only && script.RunAndCheck(t.Context(), fault.plant(open(t, vfs.NewMem())), 200, 10) == nil {
				t.Error("the random script saw nothing")
			}
		})
	}
}

func open(t *testing.T, fs vfs.FS) store.Store { return new(disks).open(t, disk{fs, dataDir}) }

// TestPowerCutSees shows the power cut checker red on faults that only a power cut brings out.
func TestPowerCutSees(t *testing.T) {
	for name, fault := range map[string]powerCuts{
		"no fsync":            {plantFS: noSync(func(string) bool { return true })},
		"no fsync of the log": {plantFS: noSync(func(name string) bool { return strings.HasSuffix(name, ".log") })},
		"early head":          {plant: func(st store.Store) store.Store { return earlyHead(st) }},
		"two commits":         {plant: func(st store.Store) store.Store { return twoCommits(st) }},
	} {
		t.Run(name, func(t *testing.T) {
			seed := seed(t)
			fault.scripts, fault.ops, fault.cuts, fault.tally = 2, 120, 150, new(tally)
			const rounds = 20
			for i := range uint64(rounds) {
				if err := fault.run(seed + i); err != nil {
					t.Logf("seen after %d power cuts: %.300v", fault.tally.cuts.Load(), err)
					return
				}
			}
			t.Errorf("nothing was seen in %d power cuts", fault.tally.cuts.Load())
		})
	}
}

// noSync plants a disk that answers fsync of some files without doing it.
func noSync(of func(name string) bool) func(vfs.FS) vfs.FS {
	return func(fs vfs.FS) vfs.FS { return forgetful{fs, of} }
}

type forgetful struct {
	vfs.FS
	of func(name string) bool
}

func (f forgetful) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	return f.file(file, name, err)
}

func (f forgetful) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(oldname, newname, category)
	return f.file(file, newname, err)
}

func (f forgetful) file(file vfs.File, name string, err error) (vfs.File, error) {
	if err != nil || !f.of(name) {
		return file, err
	}
	return unsynced{file}, nil
}

type unsynced struct{ vfs.File }

func (unsynced) Sync() error                { return nil }
func (unsynced) SyncData() error            { return nil }
func (unsynced) SyncTo(int64) (bool, error) { return true, nil }
