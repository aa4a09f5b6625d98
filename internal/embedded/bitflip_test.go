package embedded_test

// Rot. One bit of one file is turned. The store must then either refuse to open, or answer ErrCorrupt when it comes to the
// damage, naming the file; or everything is equal to the model. When it refuses, every file is still there with all it
// held: with the bit turned back the store opens and holds everything.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

// image is a disk at rest with what is on it.
type image struct {
	disk  *vfs.MemFS
	model *storetest.Model
	n     int
	files []file
}

type file struct {
	name string
	size int
}

// copy answers a disk of its own.
func (m image) copy() *vfs.MemFS {
	return m.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// newImage runs a script and leaves the store closed, or cut off after its last commit was attested, which takes it a moment.
func newImage(seed uint64, crashed bool) (m image, err error) {
	ctx := context.Background()
	mem := vfs.NewCrashableMem()
	attested := make(chan struct{}, 1)
	var watching atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRename && strings.HasPrefix(path.Base(op.Path), "ATTEST") && watching.Load() {
			select {
			case attested <- struct{}{}:
			default:
			}
		}
		return nil
	}))
	script := storetest.NewScript(rand.New(rand.NewPCG(seed, 1)), "a", storetest.NewModel(), 0)
	for life := range 3 {
		st, err := embedded.Open(dataDir, options(fs))
		if err != nil {
			return m, err
		}
		if err := script.RunAndCheck(ctx, st, 45, 45); err != nil {
			return m, errors.Join(err, st.Close())
		}
		if crashed && life == 2 {
			watching.Store(true)
			// The first one after the script may have begun before its end, the second has not. The third is under way
			// only when the second has ended.
			for i := range 3 {
				pad := store.Record{Kind: "pad", ID: fmt.Sprint(i)}
				if err := st.Save(ctx, []store.RecordChange{{Record: pad}}, nil); err != nil {
					return m, err
				}
				<-attested
			}
			m.disk = mem.CrashClone(vfs.CrashCloneCfg{})
		}
		if err := st.Close(); err != nil {
			return m, err
		}
	}
	if !crashed {
		m.disk = mem.CrashClone(vfs.CrashCloneCfg{})
	}
	m.model, m.n = script.Model, script.N()
	m.files = list(m.disk, dataDir)
	return m, nil
}

// list answers all files below a directory.
func list(fs *vfs.MemFS, dir string) (files []file) {
	names, err := fs.List(dir)
	if err != nil {
		return nil
	}
	slices.Sort(names)
	for _, name := range names {
		name = fs.PathJoin(dir, name)
		info, err := fs.Stat(name)
		switch {
		case err != nil:
		case info.IsDir():
			files = append(files, list(fs, name)...)
		default:
			files = append(files, file{name, int(info.Size())})
		}
	}
	return files
}

// flip turns one bit: half of the time of any file, the small ones as often as the large, else of any byte.
func (m image) flip(rng *rand.Rand, disk *vfs.MemFS) (name string, bit int, err error) {
	var all []file
	total := 0
	for _, f := range m.files {
		if f.size > 0 {
			all = append(all, f)
			total += f.size
		}
	}
	f := all[rng.IntN(len(all))]
	if rng.IntN(2) == 0 {
		at := rng.IntN(total)
		for _, f = range all {
			if at -= f.size; at < 0 {
				break
			}
		}
	}
	bit = rng.IntN(8 * f.size)
	return f.name, bit, turn(disk, f.name, bit)
}

func turn(disk *vfs.MemFS, name string, bit int) error {
	b, err := disk.UnsafeGetFileDataBuffer(name)
	if err == nil && bit/8 >= len(b) {
		err = errors.New("the file is shorter than before")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b[bit/8] ^= 1 << (bit % 8)
	return nil
}

// holds compares a store with all that the image holds.
func (m image) holds(st store.Store) error {
	script := storetest.NewScript(rand.New(rand.NewPCG(1, 2)), "a", m.model.Clone(), m.n)
	return script.Check(context.Background(), st, -1)
}

// opener opens the store on a disk.
type opener func(disk *vfs.MemFS) (store.Store, error)

func openDisk(disk *vfs.MemFS) (store.Store, error) { return embedded.Open(dataDir, options(disk)) }

// opened answers what a store on a disk says: refused when it does not open, else what comparing it answers.
func (m image) opened(disk *vfs.MemFS, open opener) (refused, differs error) {
	st, err := open(disk)
	if err != nil {
		return err, nil
	}
	err = shallow(func() error { return m.holds(st) })
	_ = st.Close() // may meet the damage again
	return nil, err
}

// try turns one bit and answers what came of it, and the violation if it is one.
func (m image) try(rng *rand.Rand, open opener) (outcome string, err error) {
	disk := m.copy()
	name, bit, err := m.flip(rng, disk)
	if err != nil {
		return "", err
	}
	refused, differs := m.opened(disk, open)
	told := errors.Join(refused, differs)
	what := fmt.Sprintf("bit %d of %s", bit, name)
	switch {
	case told == nil:
		return "harmless", nil
	case !errors.Is(told, store.ErrCorrupt) && !errors.Is(told, store.ErrNewer):
		return "", fmt.Errorf("%s: %w", what, told)
	case !strings.Contains(told.Error(), path.Base(name)) && !strings.Contains(told.Error(), path.Base(path.Dir(name))):
		return "", fmt.Errorf("%s: the file is not named: %w", what, told)
	case refused == nil:
		return "told when read", nil
	}
	if err := m.untouched(disk, name, bit); err != nil {
		return "", fmt.Errorf("%s, refused with %q: %w", what, refused, err)
	}
	return "refused", nil
}

// untouched checks that a refused disk has lost nothing: every file is there, and with the bit turned back all is well.
func (m image) untouched(disk *vfs.MemFS, name string, bit int) error {
	now := list(disk, dataDir)
	for _, f := range m.files {
		if !slices.ContainsFunc(now, func(n file) bool { return n.name == f.name }) {
			return fmt.Errorf("%s was deleted", f.name)
		}
	}
	if err := turn(disk, name, bit); err != nil {
		return err
	}
	before, err := m.disk.UnsafeGetFileDataBuffer(name)
	if err != nil {
		return err
	}
	after, err := disk.UnsafeGetFileDataBuffer(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(before, after) {
		return errors.New("the damaged file was changed")
	}
	refused, differs := m.opened(disk, openDisk)
	if err := errors.Join(refused, differs); err != nil {
		return fmt.Errorf("with the bit turned back: %w", err)
	}
	return nil
}

// bitFlips turns n bits, one at a time, and answers how often what came of it.
func bitFlips(m image, seed uint64, n int, open opener) (map[string]int, error) {
	var mu sync.Mutex
	outcomes := map[string]int{}
	err := atWork(n, func(i int) error {
		outcome, err := m.try(rand.New(rand.NewPCG(seed, uint64(i))), open)
		mu.Lock()
		defer mu.Unlock()
		outcomes[outcome]++
		return err
	})
	return outcomes, err
}

func TestBitFlips(t *testing.T) {
	seed := seed(t)
	for name, crashed := range map[string]bool{"closed": false, "crashed": true} {
		t.Run(name, func(t *testing.T) {
			m, err := newImage(seed, crashed)
			if err != nil {
				t.Fatal(err)
			}
			if refused, differs := m.opened(m.copy(), openDisk); refused != nil || differs != nil {
				t.Fatalf("without any damage: %v, %v", refused, differs)
			}
			start := time.Now()
			outcomes, err := bitFlips(m, seed, setting(t, "EVENTHOSE_FLIPS", 75), openDisk)
			if err != nil {
				t.Error(err)
			}
			t.Logf("%v of %d files in %v", outcomes, len(m.files), time.Since(start).Round(time.Second))
			if outcomes["refused"]+outcomes["told when read"] == 0 {
				t.Error("the test has not seen what it is for")
			}
		})
	}
}

// TestBitFlipsSees shows the checker red on a store that cleans up what looks damaged and begins anew.
func TestBitFlipsSees(t *testing.T) {
	m, err := newImage(1, false)
	if err != nil {
		t.Fatal(err)
	}
	cleansUp := func(disk *vfs.MemFS) (store.Store, error) {
		if st, err := openDisk(disk); err == nil {
			return st, nil
		}
		if err := disk.RemoveAll(dataDir); err != nil {
			return nil, err
		}
		return openDisk(disk)
	}
	if _, err = bitFlips(m, 1, 50, cleansUp); err == nil {
		t.Fatal("nothing was seen")
	}
	t.Logf("seen: %.200v", err)
}
