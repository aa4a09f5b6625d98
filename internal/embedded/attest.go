package embedded

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pebblerecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose/internal/store"
)

// Pebble takes an unreadable end of its manifest or of its newest log for a write that a crash cut off, which is right
// after a crash and silent loss after rot. So the counter of a commit that is known to be durable is written down beside it, and
// how far the manifest is durable. A store that comes up with less than that is damaged.

const (
	attestFile = "ATTEST"
	// attestEvery is how long a durable commit may go without being attested.
	attestEvery = 200 * time.Millisecond
)

// attester writes the file some time after a commit. There is no timer while nothing is written.
type attester struct {
	armed   atomic.Bool
	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
	running sync.WaitGroup
	write   sync.Mutex // one writer of the file at a time
}

// attestLater sees to it that what is durable now is attested soon.
func (s *Store) attestLater() {
	a := &s.attester
	if a.armed.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || !a.armed.CompareAndSwap(false, true) {
		return
	}
	a.running.Add(1)
	a.timer = time.AfterFunc(attestEvery, func() {
		defer a.running.Done()
		a.armed.Store(false)
		// A failure that matters has failed the store; after any other the next commit tries again.
		_ = s.attest()
	})
}

// stop waits for a write under way; there will be no other.
func (a *attester) stop() {
	a.mu.Lock()
	a.stopped = true
	if a.timer != nil && a.timer.Stop() {
		a.running.Done()
	}
	a.mu.Unlock()
	a.running.Wait()
}

// attest writes down the durable counter.
func (s *Store) attest() error {
	a := &s.attester
	a.write.Lock()
	defer a.write.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	s.commits.mu.Lock()
	durable := s.commits.durable
	s.commits.mu.Unlock()
	return writeAttest(s.fs, s.dir, durable, s.fs.manifest.Load())
}

// writeAttest writes the file; manifest is nil where that is not known.
func writeAttest(fs vfs.FS, dir string, counter uint64, manifest *manifestMark) error {
	line := fmt.Sprintf("eventhose attest 1 %d", counter)
	if manifest != nil {
		line += fmt.Sprintf(" %s %d", manifest.name, manifest.size)
	}
	return writeSmall(fs, dir, attestFile, sealed(line))
}

// readAttest answers the counter that the store must have reached, and how far the manifest must be good, if that is known.
func readAttest(fs vfs.FS, dir string) (counter uint64, manifest *manifestMark, err error) {
	name := fs.PathJoin(dir, attestFile)
	text, err := readSmall(fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil, fmt.Errorf("%w: %s is missing", store.ErrCorrupt, name)
	}
	if err != nil {
		return 0, nil, err
	}
	line, ok := unsealed(text)
	if ok {
		var m manifestMark
		n, _ := fmt.Sscanf(line, "eventhose attest 1 %d %s %d", &counter, &m.name, &m.size)
		if n == 3 {
			manifest = &m
		}
		ok = n == 1 || n == 3
	}
	if !ok {
		return 0, nil, fmt.Errorf("%w: %s offset 0: checksum or form is wrong", store.ErrCorrupt, name)
	}
	return counter, manifest, nil
}

// checkManifest reads a manifest as far as it was durable. One that is not there any more has a successor.
func checkManifest(fs vfs.FS, dir string, m *manifestMark) error {
	if m == nil {
		return nil
	}
	name := fs.PathJoin(dir, m.name)
	f, err := fs.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was read
	for r := pebblerecord.NewReader(f, 0); r.Offset() < m.size; {
		at := r.Offset()
		edit, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, edit)
		}
		switch {
		case errors.Is(err, io.EOF), pebblerecord.IsInvalidRecord(err):
			return fmt.Errorf("%w: %s offset %d: unreadable before its end at %d", store.ErrCorrupt, name, at, m.size)
		case err != nil:
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil
}

// sealed ends a line with its checksum.
func sealed(line string) string {
	return fmt.Sprintf("%s %08x\n", line, crc32.Checksum([]byte(line), castagnoli))
}

func unsealed(text string) (line string, ok bool) {
	i := strings.LastIndexByte(text, ' ')
	if i < 0 {
		return "", false
	}
	return text[:i], sealed(text[:i]) == text
}

// writeSmall replaces a small file so that a power cut leaves the old one or the new one.
func writeSmall(fs vfs.FS, dir, name, text string) error {
	path := fs.PathJoin(dir, name)
	f, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write([]byte(text))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fs.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(fs, dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// readSmall reads a file of at most a few hundred bytes.
func readSmall(fs vfs.FS, path string) (string, error) {
	f, err := fs.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was read
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	buf := make([]byte, min(info.Size(), 1024))
	if len(buf) == 0 {
		return "", nil
	}
	if _, err := f.ReadAt(buf, 0); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return string(buf), nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
