package main

import (
	"errors"

	"golang.org/x/sys/windows"
)

// freeSpace answers how many bytes this user may still write to dir's volume.
func freeSpace(dir string) (free uint64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	err = windows.GetDiskFreeSpaceEx(name, &free, nil, nil)
	return free, err
}

// inUse reports whether an address could not be listened on because somebody does.
func inUse(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }
