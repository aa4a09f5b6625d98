// Package embedded is the store driver on Pebble: one directory, one process, nothing else installed.
//
// A write is one Pebble batch, durable when the method returns. Reads never show what a power cut could take back.
// Files are reached only through Options.FS.
package embedded

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	crdb "github.com/cockroachdb/errors"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// Files of a data directory, beside Pebble's own directory.
const (
	pebbleDir  = "pebble"
	lockFile   = "LOCK"
	formatFile = "FORMAT"
	backupFile = "BACKUP"
	format     = 1
)

// Options of a store. The zero Options are good.
type Options struct {
	// FS is where the files are; nil is the operating system's.
	FS vfs.FS
	// Logger is told what Pebble met in the background. Nil says nothing.
	Logger *slog.Logger
	// MinFree is how many bytes stay free on the disk: with less, Append answers ErrFull. 0 is 256 MiB or a sixteenth of
	// the disk, whichever is less; negative turns it off.
	MinFree int64
	// Synced is told of every fsync of the write-ahead log, how long it took and how many bytes it covered. It must not block.
	Synced func(took time.Duration, bytes int64)
	// OnFatal is told once why the store has failed, before any call answers ErrFailed. It must neither block nor call
	// the store.
	OnFatal func(error)
}

// Store implements store.Store.
type Store struct {
	dir     string
	fs      *guard
	lock    io.Closer
	db      *pebble.DB
	logger  *slog.Logger
	onFatal func(error)

	open   sync.RWMutex // held for reading by calls under way
	closed bool

	commits  commits
	attester attester
	space    space
	scrubber scrubber
	leases   leases
	// backingUp has room for one backup: one that fails removes what it has made, which must not be another's.
	backingUp chan struct{}

	// incarnations of the store, oldest first; the last is the present one. Those of its logs are made of them. Set by Open.
	incarnations []eventhose.Incarnation
	epoch        uint64 // how often the store was opened

	heads heads
	cache batchCache
	ids   idFilter
	// logMu serialises what changes logs, laneMu what changes lanes, kept events and records. logMu comes first.
	logMu, laneMu sync.Mutex
	room          batchRoom // of appends, guarded by logMu
	// laneRows are lanes that a commit met before, guarded by laneMu.
	laneRows map[store.LaneRef]laneRow
}

var _ store.Store = (*Store)(nil)

// Open opens the store in dir, and makes it if there is none. ErrLocked, ErrNewer, ErrCorrupt.
func Open(dir string, o Options) (*Store, error) {
	s := newStore(dir, o)
	if err := s.start(o); err != nil {
		return nil, fmt.Errorf("open store %s: %w", s.dir, err)
	}
	return s, nil
}

// newStore makes a store of a directory, which is not looked at yet.
func newStore(dir string, o Options) *Store {
	fs := o.FS
	if fs == nil {
		fs = vfs.Default
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
	}
	dir = fs.PathJoin(dir)
	s := &Store{dir: dir, logger: o.Logger, onFatal: o.OnFatal, backingUp: make(chan struct{}, 1)}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.commits.moved.L = &s.commits.mu
	s.commits.told = make(chan struct{})
	s.heads.logs = map[tenantID]*logState{}
	s.laneRows = map[store.LaneRef]laneRow{}
	s.fs = &guard{FS: fs, root: dir, fail: s.fail, full: s.giveReserve, wrote: s.space.wrote, synced: o.Synced, spares: newSpares()}
	return s
}

func (s *Store) start(o Options) (err error) {
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if s.lock, err = lock(s.fs, s.dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = s.abandon() // why it could not be opened is what counts
		}
	}()
	if err := s.prepare(); err != nil {
		return err
	}
	s.space.init(s.fs, s.dir, o.MinFree)
	found, err := s.examine()
	if err != nil {
		return err
	}
	if err := s.openPebble(s.dbOptions(false), found.overdue); err != nil {
		return err
	}
	if err := s.enter(found); err != nil {
		return err
	}
	if err := s.attest(); err != nil {
		return err
	}
	s.cache.init()
	s.ids.start(s)
	s.scrubber.start(s, found.scrub)
	return s.failure()
}

// found is what a store held when it was opened.
type found struct {
	counter      uint64
	incarnations []eventhose.Incarnation
	opens        uint64
	scrub        [][]byte
	overdue      bool // compactions are
}

// examine looks at the database without changing anything. Pebble takes a damaged end of its manifest or log for the
// end, goes on from there, and removes what it then no longer knows; so whether all is there is found out before that.
func (s *Store) examine() (f found, err error) {
	if f, err = s.openReadOnly(); s.db != nil {
		err = errors.Join(err, s.db.Close())
		s.db = nil
	}
	return f, err
}

// openReadOnly opens the database without changing anything, and leaves it open. If nothing was ever answered it does neither.
func (s *Store) openReadOnly() (f found, err error) {
	attested, manifest, err := readAttest(s.fs, s.dir)
	if err != nil || attested == 0 {
		return f, err
	}
	if err := checkManifest(s.fs, s.fs.PathJoin(s.dir, pebbleDir), manifest); err != nil {
		return f, err
	}
	if err := s.openPebble(s.dbOptions(true), false); err != nil {
		return f, err
	}
	if f, err = s.read(); err == nil && f.counter < attested {
		err = fmt.Errorf("%w: %s holds commits up to %d, %s says that %d were durable: its newest MANIFEST or log file is damaged at the end",
			store.ErrCorrupt, s.fs.PathJoin(s.dir, pebbleDir), f.counter, attestFile, attested)
	}
	if err == nil && len(f.incarnations) == 0 {
		// The first commit of all wrote them. The newest ones are known from the log file.
		err = fmt.Errorf("%w: %s has lost its first commit: its newest MANIFEST is damaged at the end", store.ErrCorrupt, s.fs.PathJoin(s.dir, pebbleDir))
	}
	return f, err
}

func (s *Store) read() (f found, err error) {
	counter, err := s.getSequence(keyCounter)
	if err != nil {
		return f, err
	}
	opens, err := s.getSequence(keyOpens)
	if err != nil {
		return f, err
	}
	f.counter, f.opens = uint64(counter), uint64(opens)
	value, err := s.get(keyIncarnations)
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return f, err
	}
	if len(value)%4 != 0 {
		return f, corrupt("incarnations", row.ErrMalformed)
	}
	for ; len(value) > 0; value = value[4:] {
		f.incarnations = append(f.incarnations, eventhose.Incarnation(binary.BigEndian.Uint32(value)))
	}
	f.overdue = s.db.Metrics().Levels[0].TablesCount >= overdueTables
	f.scrub, err = s.unscrubbed()
	return f, err
}

func lock(fs *guard, dir string) (io.Closer, error) {
	l, err := fs.FS.Lock(fs.PathJoin(dir, lockFile))
	if err == nil {
		return l, nil
	}
	if errors.Is(err, syscall.EAGAIN) || strings.Contains(err.Error(), "lock held") {
		return nil, fmt.Errorf("%w: %w", store.ErrLocked, err)
	}
	return nil, err
}

// prepare makes a new data directory, or checks the format of the one that is there.
func (s *Store) prepare() error {
	name := s.fs.PathJoin(s.dir, formatFile)
	text, err := readSmall(s.fs, name)
	if err == nil {
		return checkFormat(name, text)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := s.fs.Stat(s.fs.PathJoin(s.dir, pebbleDir)); err == nil {
		return fmt.Errorf("%w: %s is missing, and there is data beside it", store.ErrCorrupt, name)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := syncDir(s.fs, s.fs.PathDir(s.dir)); err != nil {
		return err
	}
	if err := writeAttest(s.fs, s.dir, 0, nil); err != nil {
		return err
	}
	return writeSmall(s.fs, s.dir, formatFile, formatText())
}

func formatText() string { return sealed(fmt.Sprintf("eventhose data format %d", format)) }

func checkFormat(name, text string) error {
	line, ok := unsealed(text)
	var version int
	if ok {
		_, err := fmt.Sscanf(line, "eventhose data format %d", &version)
		ok = err == nil
	}
	switch {
	case !ok:
		return fmt.Errorf("%w: %s offset 0: checksum or form is wrong", store.ErrCorrupt, name)
	case version > format:
		return fmt.Errorf("%w: %s says format %d, this version reads up to %d; use the newer version", store.ErrNewer, name, version, format)
	case version < 1:
		return fmt.Errorf("%w: %s says format %d, which there never was", store.ErrCorrupt, name, version)
	}
	return nil
}

// flushDeletes is how soon retention's deletions are written to tables, which makes room.
const flushDeletes = 3 * time.Second

// compression leaves alone what does not get smaller: record batches are compressed before, other rows are not.
var compression = func() sstable.CompressionProfile {
	c := *sstable.FastestCompression
	c.Name = "eventhose"
	c.OtherBlocks = sstable.NoCompression.DataBlocks
	c.AdaptiveReductionCutoffPercent = 20
	return c
}()

// dbOptions are those of the database, which must be there to be read only.
func (s *Store) dbOptions(readOnly bool) *pebble.Options {
	opts := &pebble.Options{
		FS:                          s.fs,
		CacheSize:                   64 << 20,
		FormatMajorVersion:          pebble.FormatNewest,
		Cleaner:                     pebble.ArchiveCleaner{},
		MemTableSize:                s.space.memTable(),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       dueTables, // of 4 the index of ids is written twice as often
		L0StopWritesThreshold:       40,
		LBaseMaxBytes:               256 << 20,
		FlushDelayDeleteRange:       flushDeletes,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		ReadOnly:                    readOnly,
		ErrorIfNotExists:            readOnly,
		Logger:                      pebbleLogger{s},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { s.logger.Warn("background work of the store failed", "error", err) },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				s.logger.Error("stored data is damaged", "file", info.Path, "error", info.Details)
			},
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = 32 << 10
		opts.Levels[i].IndexBlockSize = 256 << 10
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	opts.ApplyCompressionSettings(func() (all pebble.DBCompressionSettings) {
		for i := range all.Levels {
			all.Levels[i] = &compression
		}
		return all
	})
	return opts
}

// openPebble opens the database. Only if compactions are overdue one may run while it opens.
func (s *Store) openPebble(opts *pebble.Options, overdue bool) error {
	name := s.fs.PathJoin(s.dir, pebbleDir)
	compactions := newCompactions(overdue)
	opts.Experimental.CompactionScheduler = compactions
	var err error
	failed := s.protect("open", func() error {
		if s.db, err = pebble.Open(name, opts); err == nil {
			compactions.begin()
		}
		return nil
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		s.db = nil
		return s.openError(name, err)
	}
	return nil
}

// openError tells files that could not be read from files that read as nonsense: Pebble marks only some of the latter.
func (s *Store) openError(name string, err error) error {
	switch {
	case strings.Contains(err.Error(), "unknown format major version"):
		return fmt.Errorf("%w: %w", store.ErrNewer, err)
	case s.fs.errors.Load() && !pebble.IsCorruptionError(err):
		return err
	}
	return fmt.Errorf("%w: %s: %w %s", store.ErrCorrupt, name, err, crdb.FlattenDetails(err))
}

// enter begins this run of the store: a first incarnation for a new store, another one for a restored backup.
func (s *Store) enter(f found) error {
	s.commits.counter, s.commits.durable = f.counter, f.counter
	s.incarnations, s.epoch = f.incarnations, f.opens+1
	marker := s.fs.PathJoin(s.dir, backupFile)
	_, err := s.fs.Stat(marker)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	restored := err == nil
	if restored || len(s.incarnations) == 0 {
		s.incarnations = append(s.incarnations, s.newIncarnation())
		s.incarnations = s.incarnations[max(0, len(s.incarnations)-maxForks-1):]
	}
	b := s.db.NewBatch()
	var value []byte
	for _, inc := range s.incarnations {
		value = binary.BigEndian.AppendUint32(value, uint32(inc))
	}
	_ = b.Set(keyIncarnations, value, nil)
	_ = b.Set(keyOpens, encodeSequence(sequence(s.epoch)), nil)
	if err := s.commit(b, nil); err != nil {
		return err
	}
	if restored {
		if err := s.fs.Remove(marker); err != nil {
			return err
		}
		return syncDir(s.fs, s.dir)
	}
	return nil
}

func (s *Store) newIncarnation() eventhose.Incarnation {
	for {
		var b [4]byte
		_, _ = rand.Read(b[:])
		inc := eventhose.Incarnation(binary.BigEndian.Uint32(b[:]))
		used := inc == 0
		for _, old := range s.incarnations {
			used = used || old == inc
		}
		if !used {
			return inc
		}
	}
}

const (
	// closeWait bounds how long a store that has failed waits for Pebble to end. Nothing can be written then.
	closeWait = time.Second
	// flushWait bounds how long Close waits for memory to be written to tables. Nothing is lost without that: it is in
	// the log.
	flushWait = 30 * time.Second
)

// Close implements store.Store. A store that was closed with room on its disk has nothing left to replay.
func (s *Store) Close() error {
	s.scrubber.stop(s.failure() != nil)
	s.open.Lock()
	defer s.open.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.attester.stop()
	var err error
	if s.failure() == nil && s.space.room(needProgress) == nil {
		if err = s.protect("flush", s.flush); err == nil {
			err = s.attest()
		}
	}
	s.space.close()
	return errors.Join(err, s.abandon())
}

// flush writes what is in memory to tables.
func (s *Store) flush() error {
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return err
	}
	timer := time.NewTimer(flushWait)
	defer timer.Stop()
	select {
	case <-flushed:
	case <-timer.C:
	}
	return nil
}

// abandon ends Pebble and gives the lock back.
func (s *Store) abandon() error {
	s.attester.stop()
	s.ids.close()
	var err error
	if s.db != nil {
		done := make(chan error, 1)
		go func() {
			defer func() {
				if r := recover(); r != nil {
					done <- fmt.Errorf("close: %v", r)
				}
			}()
			done <- s.db.Close()
		}()
		if s.failure() == nil {
			err = <-done
		} else {
			timer := time.NewTimer(closeWait)
			defer timer.Stop()
			select {
			case <-done: //nolint:errcheck // what it says is the consequence of the failure that was told before
			case <-timer.C:
			}
		}
	}
	// The directory may belong to somebody else from here on.
	s.fs.dead.Store(true)
	return errors.Join(err, s.lock.Close())
}

// pebbleLogger takes what Pebble says. What is fatal to it is fatal to the store, and not to the process: Pebble
// carries on for a few steps, but nothing is written or acknowledged any more.
type pebbleLogger struct{ s *Store }

func (pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(f string, args ...any) {
	l.s.logger.Warn("store: " + fmt.Sprintf(f, args...))
}

func (l pebbleLogger) Fatalf(f string, args ...any) { l.s.fail(fmt.Errorf(f, args...)) }
