//go:build !linux

package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// supported is false where nothing of this package is called but findServer, which says so.
const supported = false

var errNotSupported = errors.New("not on this system")

type process struct{ pid int }

func (p process) runs() bool { return false }

func freeze(int) ([]process, error) { return nil, errNotSupported }

func thaw([]process) error { return errNotSupported }

func signal(int, syscall.Signal) error { return errNotSupported }

func reap(int) (ended bool, how string) { return true, "" }

func detach(*exec.Cmd, *account) {}

func lock(*os.File) error { return errNotSupported }
