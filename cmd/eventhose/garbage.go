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
	garbageChecked = 5 * time.Second
	// Load is more than busyRate collections a second, and over at less than calmRate: with mostPercent there are a sixth as
	// many as with calmPercent.
	busyRate = 5.0
	calmRate = 0.5
)

// garbagePercent is what GOGC is to be when so many bytes are in use, and there were so many collections a second with what
// it was.
func garbagePercent(was int, live uint64, rate float64) int {
	if rate < calmRate || was == calmPercent && rate < busyRate {
		return calmPercent
	}
	return int(min(mostPercent, max(leastPercent, mostGarbage*100/max(1, live))))
}

// tuning keeps GOGC at what the memory in use and the load ask for.
type tuning struct {
	end  chan struct{}
	done sync.WaitGroup
}

// collected answers how much is in use since the last collection, and how many there were.
func collected() (live, collections uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

// allowGarbage begins tuning; stop must be called.
func allowGarbage() *tuning {
	t := &tuning{end: make(chan struct{})}
	debug.SetGCPercent(calmPercent)
	t.done.Go(func() {
		tick := time.NewTicker(garbageChecked)
		defer tick.Stop()
		_, before := collected()
		for percent := calmPercent; ; {
			select {
			case <-tick.C:
			case <-t.end:
				return
			}
			live, collections := collected()
			rate := float64(collections-before) / garbageChecked.Seconds()
			before = collections
			if want := garbagePercent(percent, live, rate); want != percent {
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
