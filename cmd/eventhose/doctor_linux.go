package main

import "golang.org/x/sys/unix"

// clockSynchronised asks the kernel whether something disciplines its clock.
func clockSynchronised() (synchronised, known bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t) // with no mode set it only reads
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err == nil
}
