package embedded

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Tables at the top level, of which each flush makes one.
const (
	// dueTables are merged.
	dueTables = 8
	// overdueTables are merged before a store is open. So many are there only if it was killed again and again before a
	// compaction had ended.
	overdueTables = 32
)

// compactions schedules Pebble's compactions, none of them before begin. Pebble would begin one while it opens, and end
// opening only when that has ended: after a crash, a server would be away for as long as it takes to merge what may be
// hundreds of megabytes.
//
// Pebble's own scheduler looks for work every 100 ms, for ever. The one within is the same without that: it looks when a
// flush or compaction ends.
type compactions struct {
	*pebble.ConcurrencyLimitScheduler
	db    pebble.DBForCompaction
	begun atomic.Bool
}

// newCompactions makes the scheduler of a database that is about to be opened. What is overdue need not wait for begin.
func newCompactions(overdue bool) *compactions {
	c := &compactions{ConcurrencyLimitScheduler: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()}
	c.begun.Store(overdue)
	return c
}

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(goroutines int, db pebble.DBForCompaction) {
	c.db = db
	c.ConcurrencyLimitScheduler.Register(goroutines, db)
}

// TrySchedule implements pebble.CompactionScheduler. A database that is refused waits to be given what it asked for.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.begun.Load() {
		return false, nil
	}
	return c.ConcurrencyLimitScheduler.TrySchedule()
}

// begin lets compactions run from now on, and starts the one that the database waits for; when it ends, others follow.
func (c *compactions) begin() {
	c.begun.Store(true)
	if waits, _ := c.db.GetWaitingCompaction(); !waits {
		return
	}
	if ok, grant := c.TrySchedule(); ok && !c.db.Schedule(grant) {
		grant.Done()
	}
}
