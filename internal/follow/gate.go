package follow

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// A thousand readers that wait for one event would keep the processors busy for long when it comes, and what came over the network
// meanwhile, above all other appends, would stand in line behind them: Go looks for it only when nothing else is ready to run. So
// readers are let in gate by gate: the next one opens when those of the last are back from writing, and after a rest. Of all
// large audiences one gate at a time is open, of one tenant after the other, and who comes back from it for the next page waits until all are through: when there
// are more events than that lets through one by one, a page holds several.

const (
	// gateReaders is how many are let in at once, for each processor.
	gateReaders = 14
	// gateTime is how long they are waited for at most: some may stand still.
	gateTime = 4 * time.Millisecond
	// restTime is long enough for the network to be looked at. The runtime makes it a millisecond if there is nothing else to do.
	restTime = time.Millisecond
)

// gate is where a few readers of a flight wait for it to land.
type gate struct {
	index   int
	open    chan struct{}
	through <-chan struct{} // the flight's
	// readers counts those that wait, away those that are still to come back from writing before most of them are, which closes home.
	readers int
	away    atomic.Int64
	home    chan struct{}
}

func newGate(index int, through <-chan struct{}) *gate {
	return &gate{index: index, open: make(chan struct{}), through: through, home: make(chan struct{})}
}

// atOnce is how many readers are let in at once.
func atOnce() int { return gateReaders * runtime.GOMAXPROCS(0) }

// let lets the readers in.
func (g *gate) let() {
	g.away.Store(int64(g.readers - g.readers/4)) // one that has left does not come back
	close(g.open)
}

// back tells that a reader has written what it was let in for.
func (g *gate) back() {
	if g.away.Add(-1) == 0 {
		close(g.home)
	}
}

// large reports whether more wait for a flight than are let in at once.
func (p *Pages[T]) large(f *flight[T]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f.readers > atOnce()
}

// takeTurn waits for the flight's turn to let many in. It has none if ctx ends first.
func (p *Pages[T]) takeTurn(ctx context.Context, f *flight[T]) {
	if !f.turn {
		f.turn = p.turn.take(ctx, f.tenant)
	}
}

// passOn gives the turn to the next, if the flight has it.
func (p *Pages[T]) passOn(f *flight[T]) {
	if f.turn {
		p.turn.pass()
		f.turn = false
	}
}

// admit lets in the readers of a flight. When the server stops it waits for nothing.
func (p *Pages[T]) admit(f *flight[T], gates []*gate) {
	defer close(f.through)
	if len(gates) > 1 {
		p.takeTurn(p.flying, f)
	}
	for i, g := range gates {
		if i > 0 {
			p.wait(nil, restTime)
			p.passOn(f) // to other audiences, if there are any
			p.takeTurn(p.flying, f)
		}
		g.let()
		if i < len(gates)-1 {
			p.wait(g.home, gateTime)
		}
	}
}

// wait waits for something, and no longer than d.
func (p *Pages[T]) wait(it <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-it:
	case <-timer.C:
	case <-p.flying.Done():
	}
}
