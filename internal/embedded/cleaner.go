package embedded

import "sync"

// deletions holds Pebble's deletions of obsolete files back until the store was found to be whole: Pebble takes a
// damaged end of its manifest for the end, and would delete what it then no longer knows.
//
// Pebble runs with its ArchiveCleaner, for two reasons: the renames it asks for, into the directory archive, are how
// the guard tells deletions of obsolete files from Pebble's other business, and with it Pebble does not write over used
// log files again, which would keep erased data in them. Nothing is archived: the files are removed.
type deletions struct {
	mu    sync.Mutex
	whole bool
	held  []string
}

// archive is the directory that ArchiveCleaner moves files to.
const archive = "archive"

func (g *guard) archives(path string) bool {
	return g.PathBase(g.PathDir(path)) == archive && g.inside(path)
}

// discard removes an obsolete file, or remembers it.
func (g *guard) discard(path string) error {
	d := &g.deletions
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.whole {
		d.held = append(d.held, path)
		return nil
	}
	return g.change(func() error { return g.FS.Remove(path) })
}

// release removes what was held back, and holds nothing back from now on.
func (g *guard) release() {
	d := &g.deletions
	d.mu.Lock()
	defer d.mu.Unlock()
	d.whole = true
	for _, path := range d.held {
		// What stays is found again as obsolete by the next start.
		_ = g.change(func() error { return g.FS.Remove(path) })
	}
	d.held = nil
}
