package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const supported = true

// process is one process, told apart from a later one with its number by when it started.
type process struct {
	pid     int
	parent  int
	state   string // one letter, as in ps
	started string
}

// look answers what is known of a process; ok is false if it is gone, or dead and not yet reaped.
func look(pid int) (p process, ok bool) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return p, false
	}
	// The second field is the program's name in brackets, and may have anything in it.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third on, as proc(5) counts
	if len(f) < 20 {
		return p, false
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return p, false
	}
	p = process{pid: pid, parent: parent, state: f[0], started: f[19]}
	return p, p.state != "Z" && p.state != "X"
}

// runs says whether the process is still there.
func (p process) runs() bool {
	now, ok := look(p.pid)
	return ok && now.started == p.started
}

// freeze stops a process and its children, waits until they stand still, and answers them, the process first.
func freeze(pid int) (all []process, err error) {
	if all, err = freezeOne(nil, pid); err != nil {
		return nil, err
	}
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		child, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if p, ok := look(child); !ok || p.parent != pid {
			continue
		}
		if all, err = freezeOne(all, child); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// freezeOne adds a process to those that stand still, unless it is gone.
func freezeOne(all []process, pid int) ([]process, error) {
	if err := signal(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	err := poll("to stand still", func(context.Context) (bool, error) {
		p, ok := look(pid)
		if ok && p.state == "T" {
			all = append(all, p)
		}
		return !ok || p.state == "T", nil
	})
	return all, err
}

// thaw lets processes that stand still go on.
func thaw(all []process) (err error) {
	for _, p := range all {
		if p.runs() {
			err = errors.Join(err, signal(p.pid, syscall.SIGCONT))
		}
	}
	return err
}

// signal sends a signal to a process, if it is still there.
func signal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s to process %d: %w", s, pid, err)
	}
	return nil
}

// reap says whether a child has ended, and with what status or by which signal. It is not to be asked again then.
func reap(pid int) (ended bool, how string) {
	var status syscall.WaitStatus
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	switch {
	case errors.Is(err, syscall.EINTR) || err == nil && got == 0:
		return false, ""
	case err != nil:
		return true, err.Error()
	case status.Signaled():
		return true, status.Signal().String()
	}
	return true, strconv.Itoa(status.ExitStatus())
}

// detach makes a program run as a user, ours if nil, and apart from our terminal, whose interrupt is for us.
func detach(cmd *exec.Cmd, as *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
}

// lock takes the lock of a file for as long as it is open, or fails if another process has it.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
