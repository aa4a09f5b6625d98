package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guard stands between Pebble and the file system, because three of our promises are about what happens there:
//
//   - A failed fsync is fatal, whichever file it was, and is never tried again: the kernel may have dropped the pages
//     and a second fsync would succeed without them.
//   - After a failure nothing more is written, so that what the process still does cannot make the files worse.
//   - A write that finds the disk full gives back the reserve file and goes on, once.
//
// It also measures the syncs of the write-ahead log, and remembers whether the file system answered an error at all, which
// tells a file that cannot be read from one that reads as nonsense.
type guard struct {
	vfs.FS
	root   string // the data directory; trouble outside of it (a backup's disk) is not the store's
	fail   func(error)
	full   func() // gives back the reserve
	synced func(time.Duration, int64)
	dead   atomic.Bool
	errors atomic.Bool

	deletions deletions
}

// errStopped is what a store that has failed answers its own background work.
var errStopped = errors.New("the store has failed, nothing is written any more")

// walCategory is the category of write-ahead log files.
const walCategory vfs.DiskWriteCategory = "pebble-wal"

// retryPause slows down flushes and compactions that fail again and again; Pebble repeats them at once.
const retryPause = 20 * time.Millisecond

// inside reports whether a path is the store's own.
func (g *guard) inside(path string) bool {
	rest, ok := strings.CutPrefix(path, g.root)
	return g.root == "." || ok && (rest == "" || rest[0] == '/' || rest[0] == '\\')
}

func (g *guard) Unwrap() vfs.FS { return g.FS }

// Lock grants: the data directory has a lock of its own.
func (g *guard) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (g *guard) note(err error) error {
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrNotExist) {
		g.errors.Store(true)
	}
	return err
}

// change does what changes the file system, again with the reserve given back if the disk is full.
func (g *guard) change(do func() error) error {
	if g.dead.Load() {
		return errStopped
	}
	err := do()
	if errors.Is(err, syscall.ENOSPC) && g.full != nil {
		g.full()
		err = do()
	}
	return g.note(err)
}

func (g *guard) file(f vfs.File, name string, category vfs.DiskWriteCategory) vfs.File {
	return &guardFile{File: f, g: g, name: name, category: category}
}

func (g *guard) Create(name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.change(func() error { f, err = g.FS.Create(name, category); return err })
	if err != nil {
		pause(category)
		return nil, err
	}
	return g.file(f, name, category), nil
}

func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = g.change(func() error { f, err = g.FS.OpenReadWrite(name, category, opts...); return err })
	if err != nil {
		return nil, err
	}
	return g.file(f, name, category), nil
}

func (g *guard) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.change(func() error { f, err = g.FS.ReuseForWrite(oldname, newname, category); return err })
	if err != nil {
		return nil, err
	}
	return g.file(f, newname, category), nil
}

func (g *guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if err != nil {
		return nil, g.note(err)
	}
	return g.file(f, name, ""), nil
}

func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, g.note(err)
	}
	return g.file(f, name, ""), nil
}

func (g *guard) Link(oldname, newname string) error {
	return g.change(func() error { return g.FS.Link(oldname, newname) })
}

func (g *guard) Remove(name string) error {
	if strings.HasPrefix(g.PathBase(name), "OPTIONS-") {
		return g.discard(name)
	}
	return g.change(func() error { return g.FS.Remove(name) })
}

func (g *guard) RemoveAll(name string) error {
	return g.change(func() error { return g.FS.RemoveAll(name) })
}

func (g *guard) Rename(oldname, newname string) error {
	if g.archives(newname) {
		return g.discard(oldname)
	}
	return g.change(func() error { return g.FS.Rename(oldname, newname) })
}

func (g *guard) MkdirAll(dir string, perm os.FileMode) error {
	if g.archives(g.PathJoin(dir, "x")) {
		return nil
	}
	return g.change(func() error { return g.FS.MkdirAll(dir, perm) })
}

func (g *guard) List(dir string) ([]string, error) {
	names, err := g.FS.List(dir)
	return names, g.note(err)
}

func (g *guard) Stat(name string) (vfs.FileInfo, error) {
	info, err := g.FS.Stat(name)
	return info, g.note(err)
}

type guardFile struct {
	vfs.File
	g        *guard
	name     string
	category vfs.DiskWriteCategory
	written  int64 // since the last sync; Write and Sync of one file are sequential
}

func (f *guardFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	return n, f.g.note(err)
}

func (f *guardFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	return n, f.g.note(err)
}

func (f *guardFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	return info, f.g.note(err)
}

func (f *guardFile) Write(p []byte) (n int, err error) {
	err = f.g.change(func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	f.written += int64(n)
	if err != nil {
		pause(f.category)
	}
	return n, err
}

func (f *guardFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.g.change(func() error {
		m, err := f.File.WriteAt(p[n:], off+int64(n))
		n += m
		return err
	})
	return n, err
}

func (f *guardFile) Sync() error {
	return f.sync(f.File.Sync)
}

func (f *guardFile) SyncData() error {
	return f.sync(f.File.SyncData)
}

func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() error { full, err = f.File.SyncTo(length); return err })
	return full, err
}

func (f *guardFile) sync(do func() error) error {
	if f.g.dead.Load() {
		return errStopped
	}
	start := time.Now()
	if err := do(); err != nil {
		err = fmt.Errorf("sync %s: %w", f.name, f.g.note(err))
		if f.g.inside(f.name) {
			f.g.fail(err)
		}
		return err
	}
	if f.g.dead.Load() {
		return errStopped
	}
	if f.category == walCategory && f.g.synced != nil {
		f.g.synced(time.Since(start), f.written)
	}
	f.written = 0
	return nil
}

// pause holds up background writers whose write failed.
func pause(category vfs.DiskWriteCategory) {
	if category != walCategory && category != vfs.WriteCategoryUnspecified {
		time.Sleep(retryPause)
	}
}
