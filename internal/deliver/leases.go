package deliver

// Many nodes over one store. A node delivers for the tenants of those shards that it holds a lease of, and what it does
// counts for nothing once the lease is gone: the store refuses a commit that relies on it, and each request asks right
// before its first byte whether it still lasts (sink.Batch.Still), so that a node that was frozen for a while sends nothing
// from a memory that is no longer true. What is hard is that a lease may end at any moment, by the clock alone. So a
// tenant in memory belongs to one term of its shard; when that ends the tenant leaves as it is (handover.go), and if the
// shard comes back it is loaded anew.
//
// A store of one process says so at the first claim. Then there are no terms, no loops, and no fences.

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// term is this node's time with one shard, from the claim that granted it until it is given back or lost. The nil term is
// that of a store of one process: it lasts for ever.
type term struct {
	shard uint8
	epoch uint64
	began time.Time
	// until is how long after began it lasts, unless it is extended; over says that somebody has seen its end, after
	// which nothing extends it.
	until atomic.Int64
	over  atomic.Bool
	// leaving says that nothing new is begun: it is to be given back. Commits still rely on it.
	leaving atomic.Bool
	still   func() bool // sends, now

	// The engine's mutex guards these.
	resident int       // its tenants in memory
	leaveBy  time.Time // when it is given back whatever is under way
}

// newTerm makes a term that lasts until a time, which is before the lease's end.
func newTerm(l store.Lease, until time.Time) *term {
	m := &term{shard: l.Shard, epoch: l.Epoch, began: time.Now()}
	m.until.Store(int64(until.Sub(m.began)))
	m.still = func() bool { return m.sends(time.Now()) }
	return m
}

// lasts reports whether commits may rely on it.
func (m *term) lasts(now time.Time) bool {
	if m == nil {
		return true
	}
	if m.over.Load() {
		return false
	}
	if int64(now.Sub(m.began)) < m.until.Load() {
		return true
	}
	m.over.Store(true)
	return false
}

// sends reports whether something new may be begun under it.
func (m *term) sends(now time.Time) bool { return m == nil || !m.leaving.Load() && m.lasts(now) }

// extend has it last longer, and reports whether it does. Whoever saw its end meanwhile has acted on that.
func (m *term) extend(until time.Time) bool {
	if !m.lasts(time.Now()) {
		return false
	}
	m.until.Store(int64(until.Sub(m.began)))
	return !m.over.Load()
}

// leases is what the engine holds, and the loops that keep it.
type leases struct {
	node string
	// holding ends the loops that keep the leases, which go on while the engine stops.
	holding context.Context
	letGo   context.CancelFunc
	loops   sync.WaitGroup
	// now asks for a claim, look for a look at what there is to do.
	now, look chan struct{}

	// The engine's mutex guards these.
	held   [store.Shards]*term
	gained [store.Shards]bool // what there is to do for them is to be found out
	again  bool               // and for all
	// ending are tenants that left memory while a commit with something of theirs is under way.
	ending map[eventhose.TenantID]*tenant
}

// margin is how long before its end a lease is relied on no more: clocks do not run equally fast, and a request that was
// let go needs a moment to leave.
func (e *Engine) margin() time.Duration { return e.opts.LeaseTTL / 6 }

// claimFirst learns whether the store is shared, and if it is begins to hold leases.
func (e *Engine) claimFirst(ctx context.Context) error {
	claimed, err := e.store.Claim(ctx, e.leases.node, nil, e.opts.LeaseTTL)
	if err != nil || !claimed.Shared {
		return err
	}
	e.mu.Lock()
	e.shared = true
	clear(e.tenants) // hints came early: what they are about is looked for by Start
	e.toRead, e.resident = nil, 0
	e.mu.Unlock()
	e.take(claimed, nil)
	e.mu.Lock()
	e.leases.gained = [store.Shards]bool{} // Start looks itself
	e.mu.Unlock()
	e.leases.loops.Go(e.claimLoop)
	e.leases.loops.Go(e.expireLoop)
	return nil
}

// release gives all leases back, so that others go on at once.
func (e *Engine) release() {
	if !e.shared {
		return
	}
	e.leases.letGo()
	e.leases.loops.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), e.opts.LeaseTTL)
	defer cancel()
	if _, err := e.store.Claim(ctx, e.leases.node, nil, 0); err != nil {
		e.logger.Warn("cannot give leases back, they run out", "error", err)
	}
}

// termOf is the term that a tenant is delivered for under, and whether there is one. e.mu is held.
func (e *Engine) termOf(id eventhose.TenantID) (*term, bool) {
	if !e.shared {
		return nil, true
	}
	m := e.leases.held[store.ShardOf(id)]
	return m, m != nil && m.sends(time.Now())
}

// elsewhere reports whether another node delivers for a tenant, or none does at this moment.
func (e *Engine) elsewhere(id eventhose.TenantID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, here := e.termOf(id)
	return !here
}

var errElsewhere = &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "another node delivers for this tenant by now", RetryAfter: time.Second}

// errLost: it was to be recorded when the lease was lost.
var errLost = &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "another node delivers for this tenant by now, and nobody knows whether this was recorded",
	Fix: "see whether it was done before you ask again", RetryAfter: time.Second}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Freed hints that another node has given leases back. It does not block.
func (e *Engine) Freed() { signal(e.leases.now) }

// claimLoop claims again in time, and soon when it is asked to: shards that can be given one shortly after another are
// given together.
func (e *Engine) claimLoop() {
	every := e.opts.LeaseTTL / 3
	timer := time.NewTimer(every)
	defer timer.Stop()
	fails := 0
	for {
		select {
		case <-timer.C:
		case <-e.leases.now:
			timer.Reset(e.opts.LeaseTTL / 200)
			select {
			case <-timer.C:
			case <-e.leases.holding.Done():
				return
			}
		case <-e.leases.holding.Done():
			return
		}
		wait, err := e.claim(e.leases.holding)
		switch {
		case err == nil:
			fails = 0
		case e.leases.holding.Err() != nil:
			return
		case errors.Is(err, store.ErrFailed):
			e.opts.Fatal(err)
			return
		default:
			wait = min(every, e.jittered(every/32<<min(fails, 5)))
			fails++
			e.logger.Error("cannot claim leases, trying again", "error", err)
		}
		timer.Reset(wait)
	}
}

// claim claims once, acts on the answer, and says when to claim next.
func (e *Engine) claim(ctx context.Context) (time.Duration, error) {
	give := e.left()
	shards := make([]uint8, len(give))
	for i, m := range give {
		shards[i] = m.shard
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.LeaseTTL/3)
	defer cancel()
	claimed, err := e.store.Claim(ctx, e.leases.node, shards, e.opts.LeaseTTL)
	if err != nil {
		return 0, err
	}
	e.take(claimed, give)
	e.shed(claimed.Surplus)
	if claimed.Changed {
		// A node that is gone may have appended, or changed a subscription, and not told.
		e.ChangedAll()
		e.mu.Lock()
		e.leases.again = true
		e.mu.Unlock()
		signal(e.leases.look)
	}
	return e.nextClaim(), nil
}

// take acts on what was granted: terms that are not, or were given, end; those that are new begin.
func (e *Engine) take(claimed store.Claimed, given []*term) {
	var granted [store.Shards]*store.Lease
	for i := range claimed.Leases {
		granted[claimed.Leases[i].Shard] = &claimed.Leases[i]
	}
	var ended []*term
	lost, gained := 0, 0
	e.mu.Lock()
	for shard, l := range granted {
		var until time.Time
		if l != nil {
			until = l.Until.Add(-e.margin())
		}
		m := e.leases.held[shard]
		if m != nil && (l == nil || l.Epoch != m.epoch || slices.Contains(given, m) || !m.extend(until)) {
			if !slices.Contains(given, m) {
				lost++
			}
			m.over.Store(true)
			ended = append(ended, m)
			e.leases.held[shard], m = nil, nil
		}
		if m == nil && l != nil {
			e.leases.held[shard] = newTerm(*l, until)
			e.leases.gained[shard] = true
			gained++
		}
	}
	e.mu.Unlock()
	e.abandon(ended...)
	if lost > 0 {
		e.logger.Warn("leases were lost: another node has them, or they were claimed too late", "shards", lost)
	}
	if gained > 0 || len(given) > 0 {
		e.logger.Info("shards have changed hands", "gained", gained, "given", len(given), "held", len(claimed.Leases))
	}
	if gained > 0 {
		signal(e.leases.look)
	}
}

// expireLoop ends terms whose time is over while a claim is late. Nothing new begins under them anyway; this is so that
// nobody waits for their tenants.
func (e *Engine) expireLoop() {
	timer := time.NewTimer(e.opts.LeaseTTL / 3)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(e.expire())
		case <-e.leases.holding.Done():
			return
		}
	}
}

// expire ends what is over and answers when to look again.
func (e *Engine) expire() time.Duration {
	now, next := time.Now(), e.opts.LeaseTTL/3
	var over []*term
	e.mu.Lock()
	for _, m := range e.leases.held {
		switch {
		case m == nil:
		case !m.lasts(now):
			over = append(over, m)
		default:
			next = min(next, time.Duration(m.until.Load())-now.Sub(m.began))
		}
	}
	e.mu.Unlock()
	if len(over) > 0 {
		e.logger.Warn("leases have run out before they could be claimed again", "shards", len(over))
		e.abandon(over...)
		signal(e.leases.now)
	}
	return max(next, time.Millisecond)
}
