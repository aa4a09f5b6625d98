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

// guard stands between Pebble and the file system, because several of our promises are about what happens there:
//
//   - A failed fsync is fatal, whichever file of the store it was, and is never tried again: the kernel may have dropped
//     the pages, and a second fsync would succeed without them. So is any other error of a change to the store's files
//     but a full disk, which heals; and a full disk too where it hits the write-ahead log.
//   - After a failure nothing more is written, so that what the process still does cannot make the files worse. The
//     guard then answers that all went well and does nothing: Pebble panics on errors in the middle of its locks, tries
//     flushes again for ever, and would not come to an end. Nobody believes it any more: whoever waits for a
//     commit asks whether the store has failed before it answers.
//   - A write that finds the disk full gives back the reserve file and goes on, once.
//
// It also measures the syncs of the log, remembers whether the file system answered an error at all, which tells a file
// that cannot be read from one that reads as nonsense, and keeps erased data from living on in log files.
type guard struct {
	vfs.FS
	root   string // the data directory; trouble outside of it (a backup's disk) is not the store's
	fail   func(error)
	full   func()                                 // gives back the reserve
	wrote  func(vfs.DiskWriteCategory, int) error // asks whether there is room to write so much
	synced func(time.Duration, int64)
	dead   atomic.Bool
	errors atomic.Bool
	spares *spares
	// manifest is what is durable of the newest manifest, nil before there is one.
	manifest atomic.Pointer[manifestMark]
}

// manifestMark says how far a manifest is durable.
type manifestMark struct {
	name string
	size int64
}

var errStopped = errors.New("the store has failed, nothing is written any more")

const (
	// The categories of write-ahead log files and of what compactions write.
	walCategory        vfs.DiskWriteCategory = "pebble-wal"
	compactionCategory vfs.DiskWriteCategory = "pebble-compaction"
	// retryPause slows down flushes and compactions that find the disk full; Pebble repeats them at once.
	retryPause   = 20 * time.Millisecond
	compactPause = 500 * time.Millisecond
	// archive is the directory that Pebble's ArchiveCleaner moves obsolete files to. Pebble has it because then it does
	// not write over used log files again, which would keep erased data in them. Nothing is archived: files are removed, or
	// used again in our way (spares.go).
	archive = "archive"
)

// inside reports whether a path is the store's own.
func (g *guard) inside(path string) bool {
	rest, ok := strings.CutPrefix(path, g.root)
	return g.root == "." || ok && (rest == "" || rest[0] == '/' || rest[0] == '\\')
}

func (g *guard) archives(path string) bool {
	return g.PathBase(g.PathDir(path)) == archive && g.inside(path)
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

// change does what changes the file at path, again with the reserve given back if the disk is full.
func (g *guard) change(path string, category vfs.DiskWriteCategory, do func() error) error {
	if g.dead.Load() {
		return nil
	}
	err := do()
	full := isFull(err)
	if full && g.full != nil {
		g.full()
		err = do()
		full = isFull(err)
	}
	switch {
	case err == nil || errors.Is(err, os.ErrNotExist) || !g.inside(path):
		return g.note(err)
	case full && category != walCategory:
		time.Sleep(retryPause) //nolint:forbidigo // Pebble tries again at once, and nothing tells it to wait
		return g.note(err)
	}
	_ = g.note(err)
	g.fail(fmt.Errorf("write %s: %w", path, err))
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// create does what answers a file to write to.
func (g *guard) create(name string, category vfs.DiskWriteCategory, do func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	if err := g.change(name, category, func() (err error) { f, err = do(); return err }); err != nil {
		return nil, err
	}
	if f == nil || g.dead.Load() {
		f = nowhere{}
	}
	return &guardFile{File: f, g: g, name: name, category: category}, nil
}

// Create makes a file. Pebble's markers say by their name which file is the newest of its kind; a power cut may keep the
// marker's place in the directory and not that file's, unless the directory is synced in between.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(g.PathBase(name), "marker.") {
		if err := syncDir(g, g.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return g.create(name, category, func() (vfs.File, error) {
		if category == walCategory {
			return g.createLog(name, category)
		}
		return g.FS.Create(name, category)
	})
}

func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.create(name, category, func() (vfs.File, error) { return g.FS.OpenReadWrite(name, category, opts...) })
}

func (g *guard) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.create(newname, category, func() (vfs.File, error) { return g.FS.ReuseForWrite(oldname, newname, category) })
}

func (g *guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if err != nil {
		return nil, g.note(err)
	}
	return &guardFile{File: f, g: g, name: name}, nil
}

func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, g.note(err)
	}
	return &guardFile{File: f, g: g, name: name}, nil
}

func (g *guard) Link(oldname, newname string) error {
	return g.change(newname, "", func() error { return g.FS.Link(oldname, newname) })
}

func (g *guard) Remove(name string) error {
	if g.dead.Load() {
		return nil
	}
	return g.note(g.FS.Remove(name)) // what stays is found again
}

func (g *guard) RemoveAll(name string) error {
	if g.dead.Load() {
		return nil
	}
	return g.note(g.FS.RemoveAll(name))
}

func (g *guard) Rename(oldname, newname string) error {
	switch {
	case g.archives(newname) && strings.HasSuffix(oldname, ".log"):
		return g.doneWith(oldname)
	case g.archives(newname):
		return g.Remove(oldname)
	}
	return g.change(newname, "", func() error { return g.FS.Rename(oldname, newname) })
}

func (g *guard) MkdirAll(dir string, perm os.FileMode) error {
	if g.archives(g.PathJoin(dir, "x")) {
		return nil
	}
	return g.change(dir, "", func() error { return g.FS.MkdirAll(dir, perm) })
}

func (g *guard) List(dir string) ([]string, error) {
	names, err := g.FS.List(dir)
	return names, g.note(err)
}

func (g *guard) Stat(name string) (vfs.FileInfo, error) {
	info, err := g.FS.Stat(name)
	return info, g.note(err)
}

// guardFile is a file below a guard.
type guardFile struct {
	vfs.File
	g        *guard
	name     string
	category vfs.DiskWriteCategory
	written  int64 // to a log since its last sync; Write and Sync of one file are sequential, but for directories
	size     int64 // written in all
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

func (f *guardFile) Write(p []byte) (int, error) {
	return f.write(p, func(done int) (int, error) { return f.File.Write(p[done:]) })
}

func (f *guardFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(done int) (int, error) { return f.File.WriteAt(p[done:], off+int64(done)) })
}

func (f *guardFile) write(p []byte, do func(done int) (int, error)) (n int, err error) {
	if f.g.wrote != nil && f.g.inside(f.name) {
		if err := f.g.wrote(f.category, len(p)); err != nil {
			time.Sleep(compactPause) //nolint:forbidigo // Pebble tries again at once, and nothing tells it to wait
			return 0, err
		}
	}
	err = f.g.change(f.name, f.category, func() error {
		m, err := do(n)
		n += m
		return err
	})
	f.written += int64(n)
	f.size += int64(n)
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *guardFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *guardFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() error { full, err = f.File.SyncTo(length); return err })
	return full, err
}

func (f *guardFile) sync(do func() error) error {
	if f.g.dead.Load() {
		return nil
	}
	start := time.Now()
	if err := f.g.note(do()); err != nil {
		err = fmt.Errorf("sync %s: %w", f.name, err)
		if !f.g.inside(f.name) {
			return err
		}
		f.g.fail(err)
		return nil
	}
	if f.category == walCategory && f.g.synced != nil {
		f.g.synced(time.Since(start), f.written)
		f.written = 0
	}
	if base := f.g.PathBase(f.name); strings.HasPrefix(base, "MANIFEST-") && f.g.inside(f.name) && f.size > 0 {
		f.g.manifest.Store(&manifestMark{base, f.size})
	}
	return nil
}

func (f *guardFile) Close() error {
	err := f.g.note(f.File.Close())
	if err != nil && f.category != "" && f.g.inside(f.name) {
		f.g.fail(fmt.Errorf("close %s: %w", f.name, err))
		return nil
	}
	return err
}

// nowhere is the file that a failed store writes to.
type nowhere struct{}

func (nowhere) Close() error                           { return nil }
func (nowhere) Read([]byte) (int, error)               { return 0, errStopped }
func (nowhere) ReadAt([]byte, int64) (int, error)      { return 0, errStopped }
func (nowhere) Write(p []byte) (int, error)            { return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Preallocate(int64, int64) error         { return nil }
func (nowhere) Stat() (vfs.FileInfo, error)            { return nil, errStopped }
func (nowhere) Sync() error                            { return nil }
func (nowhere) SyncTo(int64) (bool, error)             { return true, nil }
func (nowhere) SyncData() error                        { return nil }
func (nowhere) Prefetch(int64, int64) error            { return nil }
func (nowhere) Fd() uintptr                            { return vfs.InvalidFd }
