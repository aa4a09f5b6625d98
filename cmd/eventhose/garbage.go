package main

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Much is allocated here and little kept, so collecting garbage less often than Go does by itself saves a twentieth of the
// CPU under load. It costs memory, so it is only done while there is such load, and while little is in use: three times as much
// garbage as there is in use, but no more than 384 MiB of it unless as much is in use. Without load, memory is what counts: a
// thousand open streams, say, have little to do and much in use.
const (
	mostGarbage    = 384 << 20
	mostPercent    = 300
	leastPercent   = 100
	calmPercent    = 50
	garbageChecked = time.Second
	// Load is when collecting takes more than busyShare of a core, on an average over some seconds, so that a moment's work, as
	// when many streams are opened, is no load. It is over when that was less than calmShare for calmChecks in a row: with mostPercent
	// collecting takes a sixth of what it does with calmPercent, and may be done once in ten seconds only.
	busyShare  = 0.05
	calmShare  = 0.005
	newShare   = 0.15
	calmChecks = 20
)

// garbageLoad tells from what collecting takes whether there is load.
type garbageLoad struct {
	share float64 // of a core, on an average
	quiet int     // checks in a row
	busy  bool
}

// saw takes in what collecting has taken since the last check, as a share of a core.
func (l *garbageLoad) saw(took float64) {
	l.share += newShare * (took - l.share)
	if l.quiet++; l.share >= calmShare {
		l.quiet = 0
	}
	l.busy = l.share >= busyShare || l.busy && l.quiet < calmChecks
}

// percent is what GOGC is to be when so many bytes are in use.
func (l *garbageLoad) percent(live uint64) int {
	if !l.busy {
		return calmPercent
	}
	return int(min(mostPercent, max(leastPercent, mostGarbage*100/max(1, live))))
}

// tuning keeps GOGC at what the memory in use and the load ask for.
type tuning struct {
	end  chan struct{}
	done sync.WaitGroup
}

// collected answers how much is in use since the last collection, and how many seconds of a core all of them took.
func collected() (live uint64, seconds float64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Float64()
}

// allowGarbage begins tuning; stop must be called.
func allowGarbage() *tuning {
	t := &tuning{end: make(chan struct{})}
	debug.SetGCPercent(calmPercent)
	t.done.Go(func() {
		tick := time.NewTicker(garbageChecked)
		defer tick.Stop()
		_, before := collected()
		var load garbageLoad
		for percent := calmPercent; ; {
			select {
			case <-tick.C:
			case <-t.end:
				return
			}
			live, seconds := collected()
			load.saw((seconds - before) / garbageChecked.Seconds())
			before = seconds
			if want := load.percent(live); want != percent {
				percent = want
				debug.SetGCPercent(percent)
			}
		}
	})
	return t
}

func (t *tuning) stop() {
	close(t.end)
	t.done.Wait()
}
