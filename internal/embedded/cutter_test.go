package embedded_test

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// powerDisk is a crashable disk that can be copied while it is at work: some operations of MemFS take the lock that
// CrashClone waits for twice, and a clone that comes in between would wait forever.
type powerDisk struct {
	*vfs.MemFS
	twice  sync.RWMutex
	small  bool         // so that a log file is done with after a megabyte
	reused atomic.Int64 // files that were written over
}

func (d *powerDisk) Link(oldname, newname string) error {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.Link(oldname, newname)
}

func (d *powerDisk) Lock(name string) (io.Closer, error) {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.Lock(name)
}

func (d *powerDisk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d.twice.RLock()
	defer d.twice.RUnlock()
	d.reused.Add(1)
	return d.MemFS.ReuseForWrite(oldname, newname, category)
}

func (d *powerDisk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	const size = 64 << 20
	if d.small {
		return vfs.DiskUsage{AvailBytes: size, TotalBytes: size}, nil
	}
	return d.MemFS.GetDiskUsage(path)
}

// clone answers what a power cut could leave, with a chance for each unsynced block and name to be there.
func (d *powerDisk) clone(percent int, rng *rand.Rand) *vfs.MemFS {
	d.twice.Lock()
	defer d.twice.Unlock()
	return d.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
}

// contents sums up every file of a disk, names and bytes.
func contents(disk *vfs.MemFS) uint64 {
	h := fnv.New64a()
	for _, f := range list(disk, dataDir) {
		b, err := disk.UnsafeGetFileDataBuffer(f.name)
		fmt.Fprintf(h, "%s %d %v %x ", f.name, len(b), err, sha256.Sum256(b))
	}
	return h.Sum64()
}

// cutter takes copies of a disk from inside its operations.
type cutter struct {
	disk    *powerDisk
	percent int // chance of a cut at one operation

	mu      sync.Mutex
	rng     *rand.Rand
	left    int
	cuts    []cut
	opening bool // cuts are taken while the store opens
	lines   []*line
	log     *shared
	writing chan struct{}
}

// wrap answers fs with the cutter in front of all that changes it.
func (c *cutter) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpFilePreallocate {
			c.maybeCut()
		}
		return nil
	}))
}

// work says that the store is open and the scripts begin; c stays with them until stop. The channel answered has a token
// whenever the disk is about to write, until quiet closes it.
func (c *cutter) work(lines []*line, log *shared) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opening, c.lines, c.log = false, lines, log
	c.writing = make(chan struct{}, 1)
	return c.writing
}

// quiet closes the channel that work answered.
func (c *cutter) quiet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.writing)
	c.writing = nil
}

// stop ends cutting.
func (c *cutter) stop() []cut {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = 0
	return c.cuts
}

func (c *cutter) maybeCut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.writing <- struct{}{}:
	default:
	}
	if c.left == 0 || c.lines == nil && !c.opening || c.rng.IntN(100) >= c.percent {
		return
	}
	c.left--
	cut := cut{percent: []int{0, 0, 0, 1 + c.rng.IntN(99), 100, 100}[c.rng.IntN(6)], opening: c.opening}
	load := func(of func(*line) *atomic.Int64) (n []int64) {
		for _, l := range c.lines {
			n = append(n, of(l).Load())
		}
		return n
	}
	// What was answered or read before the cut must be there; what began before its end may.
	cut.acked, cut.seen = load(func(l *line) *atomic.Int64 { return &l.acked }), load(func(l *line) *atomic.Int64 { return &l.seen })
	if c.log != nil {
		cut.sharedMin = c.log.acked.Load()
	}
	cut.disk = c.disk.clone(cut.percent, c.rng)
	cut.started = load(func(l *line) *atomic.Int64 { return &l.started })
	c.cuts = append(c.cuts, cut)
}
