package embedded

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A sync of a log that grows has to write how long the file is now, beside the data; where the file system has a journal that takes
// longer than the data. So a log file whose rows are all in tables is written over by a later log, as Pebble does it, which knows
// by the log's number in each record where the new ones end.
//
// What a file held stays in it until it is written over, and may have been erased since. Pebble cannot be told so, so it is made to
// believe that its log files are archived, and they are used again here: none that was there when something was erased.

// mostSpares is how many files wait to be used again. While one log is written the rows of the one before go to a table.
const mostSpares = 2

// spares are the log files of a store.
type spares struct {
	mu    sync.Mutex
	moved sync.Cond
	// era counts erasures. A file is of the era of the oldest that it may hold.
	era  uint64
	used map[string]uint64 // the era of each file that is in use, but for those of an earlier process
	free []string          // to be used again, all of this era
}

func newSpares() *spares {
	s := &spares{used: map[string]uint64{}}
	s.moved.L = &s.mu
	return s
}

// createLog makes a log file, of one that is free if there is any.
func (g *guard) createLog(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	s := g.spares
	s.mu.Lock()
	s.used[name] = s.era
	old := ""
	if n := len(s.free); n > 0 {
		old, s.free = s.free[n-1], s.free[:n-1]
	}
	s.mu.Unlock()
	if old != "" {
		f, err := g.FS.ReuseForWrite(old, name, category)
		if !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
	}
	return g.FS.Create(name, category) // also if somebody has removed the old one
}

// doneWith takes a log file that holds nothing that is needed any more.
func (g *guard) doneWith(name string) error {
	s := g.spares
	s.mu.Lock()
	era, ours := s.used[name]
	keep := ours && era == s.era && len(s.free) < mostSpares && !g.dead.Load()
	if keep {
		s.free = append(s.free, name)
	}
	s.mu.Unlock()
	if !keep {
		if err := g.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // it stays in use, so that nothing that it holds counts as gone
		}
	}
	s.mu.Lock()
	delete(s.used, name)
	s.moved.Broadcast()
	s.mu.Unlock()
	return nil
}

// forget has nothing written over that is in a file now: files that are free are removed, those in use when they are done with.
func (g *guard) forget() error {
	s := g.spares
	s.mu.Lock()
	s.era++
	free := s.free
	s.free = nil
	s.mu.Unlock()
	var failed error
	for _, name := range free {
		if err := g.Remove(name); err != nil {
			failed = err
		}
	}
	return failed
}

// forgotten waits until no log file holds anything of before the last call of forget, or until ctx ends. flush ends the log that is written.
func (g *guard) forgotten(ctx context.Context, flush func() error) error {
	s := g.spares
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.moved.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	old := func() bool {
		for _, era := range s.used {
			if era < s.era {
				return true
			}
		}
		return false
	}
	if !old() {
		return nil
	}
	s.mu.Unlock()
	err := flush()
	s.mu.Lock()
	for err == nil && old() {
		if err = ctx.Err(); err == nil {
			s.moved.Wait()
		}
	}
	return err
}
