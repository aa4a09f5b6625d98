package main

import (
	"runtime"
	"testing"
)

func TestGarbagePercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		busy bool
		want int
	}{
		{0, true, 300}, {128 << 20, true, 300}, {192 << 20, true, 200}, {384 << 20, true, 100}, {64 << 30, true, 100},
		{1 << 20, false, calmPercent}, {64 << 30, false, calmPercent},
	} {
		if got := (&garbageLoad{busy: c.busy}).percent(c.live); got != c.want {
			t.Errorf("with %d MiB in use, busy %v: %d %%, want %d %%", c.live>>20, c.busy, got, c.want)
		}
	}
	_, before := collected()
	runtime.GC()
	if live, after := collected(); live == 0 || after <= before {
		t.Errorf("%d bytes in use, %v s of collecting after %v", live, after, before)
	}
}

// A minute's checks each, with what collecting takes every so many of them.
func TestGarbageLoad(t *testing.T) {
	for _, c := range []struct {
		name        string
		busy, want  bool
		took        float64
		every, last int
	}{
		{"idle", false, false, 0, 1, 60},
		{"little", false, false, .03, 1, 60},
		{"much", false, true, .08, 1, 60},
		{"as much, seldom", false, true, .6, 6, 60},
		{"a moment's", false, false, .3, 1, 1},
		{"a sixth of much, while there is load", true, true, .013, 1, 60},
		{"the same, seldom", true, true, .13, 10, 60},
		{"load that is over", true, false, 0, 1, 60},
		{"load that was over a moment ago", true, true, .08, 1, 50},
	} {
		l := garbageLoad{busy: c.busy}
		flips, was := 0, c.busy
		for i := range 60 {
			took := 0.0
			if i < c.last && i%c.every == 0 {
				took = c.took
			}
			if l.saw(took); l.busy != was {
				flips, was = flips+1, l.busy
			}
		}
		if l.busy != c.want || flips > 1 {
			t.Errorf("%s: busy %v after a minute, want %v; changed its mind %d times", c.name, l.busy, c.want, flips)
		}
	}
}
