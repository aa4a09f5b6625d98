//go:build unix

package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// freeSpace answers how many bytes this user may still write to dir's file system.
func freeSpace(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil //nolint:unconvert // Bavail is signed on FreeBSD
}

// inUse reports whether an address could not be listened on because somebody does.
func inUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }
