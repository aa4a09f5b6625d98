package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

// The clusters of a process live in one directory, which is the postgres user's if we are root. Nothing in the process can
// see to it that they end with it, since it may be killed: a shell outside of it does, which waits for the end of a pipe
// that only the process has open.

// watchdog is that shell's script. A server's processes, and all that they start, work in the cluster's directory, by which
// they are found even if their parent is gone; one that is dead and only not yet reaped works nowhere. What is found is
// killed until nothing is found, because between looking and killing it may have forked.
const watchdog = `
cat
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	found=
	for process in /proc/[0-9]*; do
		case $(readlink "$process/cwd") in
		"$0"/*) kill -KILL "${process#/proc/}"; found=1 ;;
		esac
	done
	[ -n "$found" ] || break
done
rm -rf "$0"
`

// held are the files that are to stay open as long as the process: what the shell waits for, and what says to other
// processes that the directory is in use.
var held struct{ pipe, lock *os.File }

var clusters atomic.Int64

// newDirectory makes a directory for a cluster, whose number in this process is n.
func newDirectory() (dir string, n int64, err error) {
	all, err := directory()
	if err != nil {
		return "", 0, err
	}
	n = clusters.Add(1)
	dir = filepath.Join(all, strconv.FormatInt(n, 10))
	return dir, n, makeDirectory(dir)
}

// makeDirectory makes a directory where the server may write and all may connect.
func makeDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // os.MkdirTemp made it ours alone
		return err
	}
	s, err := findServer()
	if err != nil || s.user == nil {
		return err
	}
	return os.Chown(dir, s.user.uid, s.user.gid)
}

// directory makes the directory of the process and starts its watchdog, once.
var directory = sync.OnceValues(func() (string, error) {
	parent := parentDirectory()
	removeLeft(parent)
	dir, err := os.MkdirTemp(parent, "pgtest-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(makeDirectory(dir), hold(dir), watch(dir)); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
})

// parentDirectory is the directory for temporary files, if a path in it fits into the 107 bytes that the name of a Unix
// socket may have, and if the server's user can get there and clean up.
func parentDirectory() string {
	dir, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil || len(dir) > 60 || os.Getuid() == 0 && !openToAll(dir) {
		return "/tmp"
	}
	return dir
}

// openToAll says whether anybody may make files in a directory.
func openToAll(dir string) bool {
	for need := os.FileMode(0o003); ; need = 0o001 {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&need != need {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// hold locks the directory's file "lock", which is there only once it is locked.
func hold(dir string) error {
	f, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return err
	}
	if err := lock(f); err != nil {
		return errors.Join(err, f.Close())
	}
	held.lock = f
	return os.Rename(f.Name(), filepath.Join(dir, "lock"))
}

// removeLeft removes the directories of processes that ended together with their watchdog, as when the machine went down.
// A server that should still run in one ends by itself when it finds its files gone.
func removeLeft(parent string) {
	names, err := filepath.Glob(filepath.Join(parent, "pgtest-*", "lock"))
	if err != nil {
		return
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			continue // another user's, or just removed
		}
		if lock(f) == nil {
			_ = os.RemoveAll(filepath.Dir(name)) // the next process tries again
		}
		f.Close()
	}
}

// watch starts the watchdog, as the user that the servers run as: whose processes that user may look into.
func watch(dir string) error {
	s, err := findServer()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	held.pipe = w
	cmd := exec.Command("/bin/sh", "-c", watchdog, dir)
	cmd.Dir = "/"
	cmd.Stdin = r
	detach(cmd, s.user)
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
