package overload

import (
	"sync"
	"time"
)

// maxPaced is how many keys a Pace remembers; beyond it forgets one or another, which then has its whole burst again.
const maxPaced = 10_000

// Pace bounds how often something is done for each key: a burst at once, then so many a second. It is safe for concurrent use;
// without Set it allows nothing.
type Pace[K comparable] struct {
	mu        sync.Mutex
	burst     float64
	perSecond float64
	of        map[K]allowance
}

// allowance is how many are left at a time.
type allowance struct {
	left float64
	at   time.Time
}

// Set says how often. It is called before the first Allows.
func (p *Pace[K]) Set(burst, perSecond float64) { p.burst, p.perSecond = burst, perSecond }

// Allows takes one from a key's allowance, if there is one left.
func (p *Pace[K]) Allows(key K, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[K]allowance{}
	}
	a, ok := p.of[key]
	if !ok {
		if len(p.of) >= maxPaced {
			for other := range p.of {
				delete(p.of, other)
				break
			}
		}
		a = allowance{p.burst, now}
	}
	a.left = min(p.burst, a.left+now.Sub(a.at).Seconds()*p.perSecond)
	a.at = now
	allowed := a.left >= 1
	if allowed {
		a.left--
	}
	p.of[key] = a
	return allowed
}
