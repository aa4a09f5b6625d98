package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Backup makes a copy of the store, as it is at one moment during the call, in a directory that must not exist. Appends and
// deliveries go on; another backup waits. Files are linked where the file system can. A backup holds no key that encrypts secrets. Opened, it is a
// store whose logs begin a new incarnation.
func (s *Store) Backup(ctx context.Context, dir string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	select {
	case s.backingUp <- struct{}{}:
		defer func() { <-s.backingUp }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := s.backup(dir)
	if failure := s.failure(); failure != nil {
		return failure
	}
	if err != nil {
		return fmt.Errorf("backup to %s: %w", dir, err)
	}
	return nil
}

func (s *Store) backup(dir string) (err error) {
	if _, err := s.fs.Stat(dir); err == nil {
		return fmt.Errorf("%w: the directory must not exist", os.ErrExist)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer func() {
		if err != nil {
			_ = s.fs.RemoveAll(dir)
		}
	}()
	s.commits.mu.Lock()
	durable := s.commits.durable
	s.commits.mu.Unlock()
	err = s.protect("checkpoint", func() error { return s.db.Checkpoint(s.fs.PathJoin(dir, pebbleDir), pebble.WithFlushedWAL()) })
	if err != nil {
		return err
	}
	if err := writeAttest(s.fs, dir, durable, nil); err != nil {
		return err
	}
	if err := writeSmall(s.fs, dir, backupFile, "A backup. Opened as a store, its logs begin a new incarnation.\n"); err != nil {
		return err
	}
	// The format comes last: a directory without it is no store.
	if err := writeSmall(s.fs, dir, formatFile, formatText()); err != nil {
		return err
	}
	return syncDir(s.fs, s.fs.PathDir(dir))
}

// Restore copies a backup to a directory that holds no store yet, and begins the new incarnation. o.FS has both.
func Restore(backup, dir string, o Options) error {
	fs := o.FS
	if fs == nil {
		fs = vfs.Default
	}
	if err := restoreFiles(fs, backup, dir); err != nil {
		return fmt.Errorf("restore %s to %s: %w", backup, dir, err)
	}
	s, err := Open(dir, o)
	if err != nil {
		return err
	}
	return s.Close()
}

func restoreFiles(fs vfs.FS, backup, dir string) error {
	name := fs.PathJoin(backup, formatFile)
	text, err := readSmall(fs, name)
	if err != nil {
		return err
	}
	if err := checkFormat(name, text); err != nil {
		return err
	}
	if _, err := fs.Stat(fs.PathJoin(backup, backupFile)); err != nil {
		return fmt.Errorf("not a backup: %w", err)
	}
	for _, name := range []string{formatFile, pebbleDir, attestFile} {
		if _, err := fs.Stat(fs.PathJoin(dir, name)); err == nil {
			return fmt.Errorf("%w: there is a store", os.ErrExist)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	files, err := fs.List(fs.PathJoin(backup, pebbleDir))
	if err != nil {
		return err
	}
	if err := fs.MkdirAll(fs.PathJoin(dir, pebbleDir), 0o700); err != nil {
		return err
	}
	for _, file := range files {
		if file == lockFile {
			continue
		}
		if err := copyFile(fs, fs.PathJoin(backup, pebbleDir, file), fs.PathJoin(dir, pebbleDir, file)); err != nil {
			return err
		}
	}
	for _, file := range []string{attestFile, backupFile} {
		if err := copyFile(fs, fs.PathJoin(backup, file), fs.PathJoin(dir, file)); err != nil {
			return err
		}
	}
	for _, d := range []string{fs.PathJoin(dir, pebbleDir), dir, fs.PathDir(dir)} {
		if err := syncDir(fs, d); err != nil {
			return err
		}
	}
	return writeSmall(fs, dir, formatFile, text)
}

func copyFile(fs vfs.FS, from, to string) error {
	if err := vfs.Copy(fs, from, to); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}
