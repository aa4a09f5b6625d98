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
	// Load is when collecting takes more than busyShare of a core, and over at less than calmShare: with mostPercent it takes a
	// sixth of what it does with calmPercent. Each second counts for a newShare of what it is taken to take, so that a moment's
	// work, as when many streams are opened, is no load.
	busyShare = 0.05
	calmShare = 0.005
	newShare  = 0.15
)

// garbagePercent is what GOGC is to be when so many bytes are in use, and collecting takes a share of a core with what it was.
func garbagePercent(was int, live uint64, share float64) int {
	if share < calmShare || was == calmPercent && share < busyShare {
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
		share := 0.0
		for percent := calmPercent; ; {
			select {
			case <-tick.C:
			case <-t.end:
				return
			}
			live, seconds := collected()
			share += newShare * ((seconds-before)/garbageChecked.Seconds() - share)
			before = seconds
			if want := garbagePercent(percent, live, share); want != percent {
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
