package deliver

import (
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// openAfter is how many failures that tell of an outage open a lane's circuit, with no success between them.
const openAfter = 50

// circuit keeps a lane from spending its retries on a destination that takes nothing: while it is open the cursor
// stands, one probe at a time is sent, and no attempt is charged.
type circuit struct {
	// run counts the failures since the last success that tell of an outage, failingSince is when the first of them ended.
	run          int
	failingSince time.Time
	open         bool
	probes       int // since it opened
	nextProbe    time.Time
}

func (c *circuit) restore(row store.Lane) {
	*c = circuit{run: row.Run, failingSince: row.FailingSince, open: row.Open, probes: row.Probes}
	if c.open {
		c.nextProbe = row.Due
	}
}

// taken closes the circuit and reports whether it was open.
func (c *circuit) taken() bool {
	was := c.open
	*c = circuit{}
	return was
}

// failed counts a failure and reports whether the circuit opened by it.
func (c *circuit) failed(now time.Time, probe bool, retryAfter time.Duration, jittered func(time.Duration) time.Duration) bool {
	if c.run++; c.failingSince.IsZero() {
		c.failingSince = now
	}
	opened := false
	switch {
	case !c.open && c.run >= openAfter:
		c.open, opened = true, true
		c.probes = 0
	case c.open && probe:
		c.probes++
	default:
		return false
	}
	c.nextProbe = now.Add(max(jittered(probeWait(now.Sub(c.failingSince), c.probes)), retryAfter))
	return opened
}

// probeWait grows with each probe from a second, doubling, to a tenth of how long the failures have lasted already and
// ten minutes at most: an outage is noticed to have ended after at most a tenth of its length more.
func probeWait(outage time.Duration, probes int) time.Duration {
	longest := min(max(outage/10, 5*time.Second), 10*time.Minute)
	return min(time.Second<<min(probes, 20), longest)
}

// jittered adds up to a tenth, so that what failed together is not tried again together. It never takes away.
func (e *Engine) jittered(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d + time.Duration(e.opts.Random()%uint64(d/10+1))
}

// pace adapts how many attempts a lane has under way: one more for each success up to where it last hurt, then slowly
// more; half at a sign of overload.
type pace struct {
	limit     float64
	threshold float64
	cut       time.Time
}

const firstLimit = 8

func newPace() pace { return pace{limit: firstLimit, threshold: 1 << 20} }

// restart begins again from one attempt at a time, after an outage.
func (p *pace) restart() { p.limit, p.threshold = 1, 1<<20 }

func (p *pace) taken() {
	if p.limit < p.threshold {
		p.limit++
	} else {
		p.limit += 1 / p.limit
	}
}

// slow halves the limit, once for all attempts that were under way together.
func (p *pace) slow(started, now time.Time) {
	if started.Before(p.cut) {
		return
	}
	p.limit = max(1, p.limit/2)
	p.threshold = p.limit
	p.cut = now
}

// allowed is how many attempts may be under way, max at most.
func (p *pace) allowed(most int) int {
	if p.limit > float64(most) {
		p.limit = float64(most)
	}
	return int(p.limit)
}
