package main

import (
	"runtime"
	"testing"
)

func TestGarbagePercent(t *testing.T) {
	const idle, middling, busy = .002, .03, .08
	for _, c := range []struct {
		was   int
		live  uint64
		share float64
		want  int
	}{
		{calmPercent, 0, busy, 300}, {calmPercent, 128 << 20, busy, 300}, {calmPercent, 192 << 20, busy, 200}, {calmPercent, 384 << 20, busy, 100}, {calmPercent, 64 << 30, busy, 100},
		{calmPercent, 1 << 20, middling, calmPercent}, {300, 1 << 20, middling, 300}, {200, 384 << 20, middling, 100},
		{300, 1 << 20, idle, calmPercent}, {calmPercent, 1 << 20, idle, calmPercent},
	} {
		if got := garbagePercent(c.was, c.live, c.share); got != c.want {
			t.Errorf("with %d MiB in use, collecting takes %v of a core at %d %%: %d %%, want %d %%", c.live>>20, c.share, c.was, got, c.want)
		}
	}
	_, before := collected()
	runtime.GC()
	if live, after := collected(); live == 0 || after <= before {
		t.Errorf("%d bytes in use, %v s of collecting after %v", live, after, before)
	}
}
