package embedded

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose/internal/store"
)

// A full disk must cost new events and nothing else. So Append stops while there is still room for all else; compactions
// stop at half of that, since they need room to make room; progress, records and flushes stop at an eighth; and for what
// comes as a surprise (somebody else fills the disk) there is a reserve file that is given back when a write fails. All
// of it heals as soon as there is room again.

const (
	reserveFile    = "RESERVE"
	defaultMinFree = 256 << 20
	maxReserve     = 32 << 20
	// freshFor is how long an answer about free space is believed.
	freshFor = 100 * time.Millisecond
	// toldFor is how long it is not told again that there is no room.
	toldFor = time.Minute
)

type space struct {
	fs      *guard
	dir     string
	minFree int64 // 0: off
	reserve int64
	total   int64

	mu      sync.Mutex
	checked time.Time
	free    int64
	held    bool // the reserve file is there
	told    time.Time
}

// init looks at the disk. Where the file system cannot tell its size nothing is watched.
func (p *space) init(fs *guard, dir string, minFree int64) {
	p.fs, p.dir = fs, dir
	usage, err := fs.GetDiskUsage(dir)
	if err != nil {
		return
	}
	p.total = int64(usage.AvailBytes + usage.UsedBytes)
	switch {
	case minFree < 0:
		return
	case minFree == 0:
		minFree = min(defaultMinFree, p.total/16)
	}
	p.minFree = minFree
	p.reserve = min(maxReserve, minFree/2)
	p.mu.Lock()
	defer p.mu.Unlock()
	// A reserve of an earlier run may be of any size.
	_ = fs.FS.Remove(fs.PathJoin(dir, reserveFile))
	p.look()
}

// memTable is how much Pebble gathers in memory; its logs and flushes are of that size, and must fit the disk.
func (p *space) memTable() uint64 {
	const size = 64 << 20
	if p.total == 0 {
		return size
	}
	return uint64(min(size, max(1<<20, p.total/64)))
}

// look asks how much is free and takes the reserve if there is room for it.
func (p *space) look() {
	p.checked = time.Now()
	usage, err := p.fs.GetDiskUsage(p.dir)
	if err != nil {
		p.free = p.minFree + p.reserve
		return
	}
	p.free = int64(usage.AvailBytes)
	if p.free < p.minFree+p.reserve {
		_ = p.fs.forget() // what it removes is seen by the next look
	}
	if !p.held && p.reserve > 0 && p.free > p.minFree+p.reserve {
		if err := p.take(); err != nil {
			_ = p.fs.FS.Remove(p.fs.PathJoin(p.dir, reserveFile))
			return
		}
		p.held = true
		p.free -= p.reserve
	}
}

// take writes the reserve file.
func (p *space) take() error {
	f, err := p.fs.FS.Create(p.fs.PathJoin(p.dir, reserveFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// fallocate takes blocks without writing them.
	if runtime.GOOS == "linux" && f.Fd() != vfs.InvalidFd && f.Preallocate(0, p.reserve) == nil {
		return f.Close()
	}
	zeros := make([]byte, min(1<<20, p.reserve))
	for left := p.reserve; left > 0 && err == nil; left -= int64(len(zeros)) {
		clear(zeros)
		_, err = f.Write(zeros[:min(int64(len(zeros)), left)])
	}
	return errors.Join(err, f.Close())
}

// giveReserve makes room for a write that found none.
func (s *Store) giveReserve() {
	p := &s.space
	p.mu.Lock()
	defer p.mu.Unlock()
	// Appends wait, and progress goes on if there was a reserve, until the next look finds out how much there is.
	p.free, p.checked = 0, time.Now()
	if p.held {
		p.held = false
		p.free = p.reserve
		_ = p.fs.FS.Remove(p.fs.PathJoin(p.dir, reserveFile))
	}
}

// What a write needs at least.
type need int

const (
	needAppend   need = iota // new events
	needProgress             // lanes, records
)

// room answers ErrFull if there is too little space for a write.
func (p *space) room(n need) error {
	if p.minFree == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if age := time.Since(p.checked); age >= freshFor || age < 0 {
		p.look()
	}
	least := p.minFree
	if n == needProgress {
		least /= 8
	} else if !p.held {
		least += p.reserve
	}
	if p.free < least {
		return fmt.Errorf("%w: %d bytes are free, %d must stay", store.ErrFull, p.free, least)
	}
	return nil
}

// tell reports whether it is to be told that there is no room.
func (p *space) tell() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told.IsZero() && time.Since(p.told) < toldFor {
		return false
	}
	p.told = time.Now()
	return true
}

// wrote counts what is about to be written, and refuses it to compactions where little is left.
func (p *space) wrote(category vfs.DiskWriteCategory, n int) error {
	if p.minFree == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free -= int64(n) // until the next look
	if category != compactionCategory {
		return nil
	}
	if age := time.Since(p.checked); age >= freshFor || age < 0 {
		p.look()
	}
	if p.free < p.minFree/2 {
		return fmt.Errorf("no room for a compaction: %w", syscall.ENOSPC)
	}
	return nil
}

// close gives the reserve back to the disk.
func (p *space) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		p.held = false
		if err := p.fs.FS.Remove(p.fs.PathJoin(p.dir, reserveFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			_ = p.fs.note(err)
		}
	}
}
