package embedded

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// merging is a disk on which no compaction gets further than its first table before it may.
type merging struct {
	vfs.FS
	tables atomic.Int64
	may    chan struct{}
	merged chan struct{} // told of a compaction's first table
}

func (m *merging) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	// The first table is of what the log file held.
	if strings.HasSuffix(name, ".sst") && m.tables.Add(1) == 2 {
		m.merged <- struct{}{}
		<-m.may
	}
	return m.FS.Create(name, category)
}

// A server that was killed is back as soon as its log was read again; tables are merged while it is there.
func TestOpenWaitsForNoCompaction(t *testing.T) {
	leavesNothing(t)
	mem := vfs.NewCrashableMem()
	for i := range 2 * dueTables {
		disk := &merging{FS: mem, may: make(chan struct{}), merged: make(chan struct{}, 1)}
		deadline := time.AfterFunc(20*time.Second, func() {
			t.Error("opening waits for a compaction")
			close(disk.may)
		})
		s := mustOpen(t, disk, "data")
		if !deadline.Stop() {
			return
		}
		mustAppend(t, s, "t", event(i, fmt.Sprint(i)))
		mem = mem.CrashClone(vfs.CrashCloneCfg{})
		due := s.db.Metrics().Levels[0].TablesCount >= dueTables
		if due {
			<-disk.merged
		}
		close(disk.may)
		if due {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if got := mustRead(t, mustOpen(t, disk.FS, "data"), "t", 0); len(got) != i+1 {
				t.Fatalf("%d events after the compaction of %d", len(got), i+1)
			}
			return
		}
	}
	t.Fatal("no compaction was ever due")
}

// A store that is killed in each of its compactions does not go on with ever more tables.
func TestKilledInEachCompaction(t *testing.T) {
	leavesNothing(t)
	mem := vfs.NewCrashableMem()
	tables := int64(0)
	for i := range 2 * overdueTables {
		overdue := tables >= overdueTables
		disk := &merging{FS: mem, may: make(chan struct{}), merged: make(chan struct{}, 1)}
		if overdue {
			close(disk.may)
		}
		s := mustOpen(t, disk, "data")
		if tables = s.db.Metrics().Levels[0].TablesCount; overdue {
			if tables >= dueTables {
				t.Fatalf("there are still %d tables", tables)
			}
			return
		}
		mustAppend(t, s, "t", event(i, fmt.Sprint(i)))
		mem = mem.CrashClone(vfs.CrashCloneCfg{})
		close(disk.may)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%d tables are not overdue", tables)
}
