package embedded

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// statFS calls looked after the first look at a path, before that is answered.
type statFS struct {
	vfs.FS
	path   string
	looked func()
	done   atomic.Bool
}

func (f *statFS) Stat(name string) (vfs.FileInfo, error) {
	info, err := f.FS.Stat(name)
	if name == f.path && !f.done.Swap(true) {
		f.looked()
	}
	return info, err
}

// Of two backups to one place at once one is made and stays, and the other says that there is one.
func TestBackupsToOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		fs := &statFS{FS: mem, path: "backup"}
		s := mustOpen(t, fs, "data")
		mustAppend(t, s, "t", event(1, "x"))
		second := make(chan error, 1)
		fs.looked = func() {
			go func() { second <- s.Backup(t.Context(), "backup") }()
			synctest.Wait() // it has ended, or waits for the first one
		}
		errs := []error{s.Backup(t.Context(), "backup"), <-second}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), os.ErrExist) {
			t.Errorf("the backups answer %v", errs)
		}
		b, err := Open("backup", Options{FS: mem})
		if err != nil {
			t.Fatalf("the backup that was made does not open: %v", err)
		}
		if got := mustRead(t, b, "t", 0); len(got) != 1 {
			t.Errorf("the backup has %d events", len(got))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
