// Package deliver hands events over: it matches each log once, keeps one lane per subscription, sends, and advances
// the cursor or parks what failed.
//
// # How it works
//
// All reading of one tenant's log is done by one goroutine at a time (tenant.go): it matches new events against the
// index of subscriptions and puts what is due into the windows of lanes that are at the tail; lanes that are behind
// are scanned on their own, a page at a time, until they reach the tail. Sending is done by one goroutine per attempt
// (send.go), picked from the ready lanes by turns over tenants and then over lanes (dispatch.go), within budgets. What came of an
// attempt changes the lane in memory (settle.go); one goroutine writes all changed lanes in one atomic commit after
// another (commit.go), together with how far their logs are matched. An attempt's slot is free again only when its
// outcome is durable, so a crash repeats at most what was in flight. An attempt is at one event or, if the subscription
// asks for that, at a batch (batch.go); what failed of a batch is tried again in one attempt (group.go).
//
// Of several nodes over one store each delivers for some of the tenants (leases.go); what a person asks of another node
// reaches the right one through the store (orders.go).
//
// A tenant's mutex guards all of its lanes; it is never held across I/O. The engine's mutex guards the queues of
// tenants; it may be taken while a tenant's is held, never the other way round.
package deliver

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// Store is what the engine reads and writes.
type Store interface {
	store.Lanes
	store.Leases
	store.Records
	Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error)
	Lookup(ctx context.Context, tenant eventhose.TenantID, ref store.Ref) (*eventhose.Event, error)
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
}

// Lanes tells which subscriptions there are. Whoever changes one calls Engine.Changed after the change is durable.
type Lanes interface {
	// All answers every subscription of a tenant, with its secrets.
	All(ctx context.Context, tenant eventhose.TenantID) ([]eventhose.Subscription, error)
	// Subscription answers one, with its secrets. CodeNotFound.
	Subscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID) (eventhose.Subscription, error)
	// Disable holds a subscription because of what its destination answered.
	Disable(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, reason string) error
}

// SystemLog takes the engine's own events. data is JSON.
type SystemLog interface {
	AppendSystem(ctx context.Context, tenant eventhose.TenantID, typ string, data []byte) error
}

// Types of the system events that the engine appends.
const (
	// Disabled: a subscription was disabled, and why.
	Disabled = "eventhose.subscription.disabled"
	// Overtaken: retention removed events that a subscription had not been handed; first is the first sequence left. In a platform's
	// log it is also what comes after places whose events connected tenants' retention has removed; some before it may still come.
	Overtaken = "eventhose.subscription.overtaken"
	// ParkedLost: retention removed events that were parked; the log says so by the same name of those whose place went, too.
	ParkedLost = "eventhose.parked.lost"
)

// Options of an Engine. Zero fields take the defaults.
type Options struct {
	Logger *slog.Logger
	// MaxInFlight bounds the attempts under way or not yet recorded, over all lanes: 1024.
	MaxInFlight int
	// Observe is called with each attempt after it ended, with the first event's time of append; it must not block.
	Observe func(a eventhose.Attempt, appended time.Time)
	// Worked is called with each attempt of a worker at an event of a pull subscription. It must not block, and not call the
	// engine: the lane is held meanwhile.
	Worked func(a eventhose.Attempt)
	// Fatal is called once if the store has failed and the engine cannot go on.
	Fatal func(error)

	// Node is what this engine is called among those that have the store open. It need not be unique: each engine is a node
	// of its own, also one that is started again while its predecessor, frozen, may wake.
	Node string
	// LeaseTTL is how long after this node was last heard of others take over what it delivers for: 6 s.
	LeaseTTL time.Duration
	// Poll is how often what there is to do is looked for that no hint told of, if the store is shared: 5 s.
	Poll time.Duration
	// Ordered is called when this node has stored an order that another is to carry out, and OrderDone when it has carried
	// out an order of another. Whoever passes that on to Engine.Ordered and Engine.OrderDone of the other nodes saves them a
	// wait. They must not block.
	Ordered   func()
	OrderDone func(id string)

	// Random draws what ids and jitter are made of; it is called by several goroutines at once. math/rand/v2's if nil.
	Random func() uint64
}

// Engine delivers for all tenants, or with a shared store for those whose shards this node holds. Its exported methods are safe for
// concurrent use.
type Engine struct {
	store  Store
	lanes  Lanes
	system SystemLog
	sinks  map[string]sink.Sink
	opts   Options
	logger *slog.Logger

	// sending is cancelled when attempts under way are to be cut off, reading when nothing more is to be read.
	sending, reading        context.Context
	cutSending, stopReading context.CancelFunc
	loops                   sync.WaitGroup // reading, dispatching, waking
	attempts                sync.WaitGroup
	committer               sync.WaitGroup
	leases                  leases
	orders                  orders
	pulls                   pulls

	mu      sync.Mutex
	shared  bool // other nodes may have the store open; Start learns it
	tenants map[eventhose.TenantID]*tenant
	ready   turns[*tenant] // with lanes that may send
	toRead  []*tenant      // with something to read
	// resting are the tenants that may leave memory, those that rest longest first; resident counts the subscriptions of all.
	resting   []*tenant
	restTimer *time.Timer
	resident  int
	inFlight  int       // slots taken
	suspect   int       // of them by retries and by lanes that fail
	waiting   []*lane   // suspects that wait for a slot of theirs
	changed   []*tenant // with something to commit
	lazy      []*tenant // with a matching position to commit, which has time
	stopping  bool
	canSend   *sync.Cond
	canRead   *sync.Cond
	// attempters are there, and idle of them have nothing to do.
	attempters, idle int
	commitC          chan struct{}
	// commitEnd is closed when only what has changed already is to be committed.
	commitEnd chan struct{}
	// committed is closed when nothing is committed any more.
	committed chan struct{}
	lazyTimer *time.Timer
	timer     *wakeups
	lastID    attemptIDs
	pinned    atomic.Int64 // bytes of events that windows hold
	erasures  erasures
}

// readers is how many tenants are read for at once.
const readers = 4

// New makes an engine; sinks are by type of destination.
func New(st Store, lanes Lanes, system SystemLog, sinks map[string]sink.Sink, o Options) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 1024
	}
	if o.Observe == nil {
		o.Observe = func(eventhose.Attempt, time.Time) {}
	}
	if o.Worked == nil {
		o.Worked = func(eventhose.Attempt) {}
	}
	if o.Fatal == nil {
		o.Fatal = func(error) {}
	}
	if o.Node == "" {
		o.Node = "node"
	}
	if o.LeaseTTL == 0 {
		o.LeaseTTL = 6 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = 5 * time.Second
	}
	if o.Ordered == nil {
		o.Ordered = func() {}
	}
	if o.Random == nil {
		o.Random = rand.Uint64
	}
	if o.OrderDone == nil {
		o.OrderDone = func(string) {}
	}
	e := &Engine{store: st, lanes: lanes, system: system, sinks: sinks, opts: o, logger: o.Logger,
		tenants: map[eventhose.TenantID]*tenant{}, commitC: make(chan struct{}, 1), commitEnd: make(chan struct{}), committed: make(chan struct{})}
	e.canSend, e.canRead = sync.NewCond(&e.mu), sync.NewCond(&e.mu)
	e.sending, e.cutSending = context.WithCancel(context.Background())
	e.reading, e.stopReading = context.WithCancel(context.Background())
	e.lastID.random = e.opts.Random
	e.leases.node = o.Node + "." + idAt(o.Random(), o.Random())
	e.leases.now, e.leases.look = make(chan struct{}, 1), make(chan struct{}, 1)
	e.leases.ending = map[eventhose.TenantID]*tenant{}
	e.leases.holding, e.leases.letGo = context.WithCancel(context.Background())
	e.orders.there, e.orders.slots, e.orders.asked = make(chan struct{}, 1), make(chan struct{}, maxOrders), map[string]chan struct{}{}
	e.timer = newWakeups(e.due)
	return e
}

// Start goes on where the store says that deliveries were left, with a shared store for the shards that it is granted. It
// returns once it knows which tenants have work, and goes on in the background until Stop.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.claimFirst(ctx); err != nil {
		return err
	}
	err := e.findWork(ctx, nil)
	if err == nil {
		err = e.findTails(ctx)
	}
	if err != nil {
		e.release()
		return err
	}
	if e.shared {
		e.loops.Go(e.pollLoop)
		e.loops.Go(e.orderLoop)
	}
	for range readers {
		e.loops.Go(e.readLoop)
	}
	e.loops.Go(e.timer.run)
	e.committer.Go(e.commitLoop)
	return nil
}

// Stop takes no more work at once, waits for the attempts under way until ctx ends, cuts off those that are left (they are
// not charged), records what came of all, lets other nodes take over, and returns. It is called once, after Start.
func (e *Engine) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	e.canSend.Broadcast()
	e.canRead.Broadcast()
	e.mu.Unlock()
	e.stopReading()
	e.timer.stop()
	e.loops.Wait()
	finished := make(chan struct{})
	go func() { e.attempts.Wait(); close(finished) }()
	var err error
	select {
	case <-finished:
	case <-ctx.Done():
		err = ctx.Err()
		e.cutSending()
		<-finished
	}
	e.cutSending()
	close(e.commitEnd)
	e.committer.Wait()
	e.orders.running.Wait()
	e.release()
	e.mu.Lock()
	for _, timer := range []*time.Timer{e.lazyTimer, e.restTimer} {
		if timer != nil {
			timer.Stop()
		}
	}
	e.mu.Unlock()
	return err
}

// Appended hints that a tenant's log has grown. It does not block, and costs next to nothing if another node delivers for
// the tenant.
func (e *Engine) Appended(id eventhose.TenantID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.tenant(id); t != nil {
		e.queueRead(t)
	}
}

// Changed hints that a subscription was created, changed or deleted. It does not block.
func (e *Engine) Changed(id eventhose.TenantID, sub eventhose.SubscriptionID) {
	t := e.lock(id)
	if t == nil {
		return
	}
	defer t.mu.Unlock()
	t.changes = append(t.changes, sub)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queueRead(t)
}

// ChangedAll hints that any subscription may have been created, changed or deleted: hints may have been lost. It looks
// again at those of all tenants in memory, and does not block for long.
func (e *Engine) ChangedAll() {
	e.mu.Lock()
	tenants := slices.Collect(maps.Values(e.tenants))
	e.mu.Unlock()
	for _, t := range tenants {
		t.mu.Lock()
		if !t.evicted {
			t.lookAgain = true
			e.mu.Lock()
			e.queueRead(t)
			e.mu.Unlock()
		}
		t.mu.Unlock()
	}
}

// tenant answers a tenant's state, made if need be; nil if another node delivers for it. e.mu is held.
func (e *Engine) tenant(id eventhose.TenantID) *tenant {
	t := e.tenants[id]
	if t != nil {
		return t
	}
	m, here := e.termOf(id)
	if !here {
		return nil
	}
	t = newTenant(e, id)
	if m != nil {
		t.term, t.left = m, make(chan struct{})
		m.resident++
	}
	e.tenants[id] = t
	return t
}

// queueRead puts a tenant into the queue of those to read for. e.mu is held.
func (e *Engine) queueRead(t *tenant) {
	switch t.readState {
	case idle:
		t.readState = queued
		e.toRead = append(e.toRead, t)
		e.canRead.Signal()
	case running:
		t.readState = again
	}
}

// The states of a tenant's reading; guarded by the engine's mutex.
const (
	idle = iota
	queued
	running
	again // running, and to be queued once more
)

func (e *Engine) readLoop() {
	for {
		e.mu.Lock()
		for len(e.toRead) == 0 && !e.stopping {
			e.canRead.Wait()
		}
		if e.stopping {
			e.mu.Unlock()
			return
		}
		t := e.toRead[0]
		e.toRead = e.toRead[1:]
		t.readState = running
		e.mu.Unlock()

		more := t.read(e.reading)

		e.mu.Lock()
		if t.readState == again || more {
			t.readState = queued
			e.toRead = append(e.toRead, t)
			e.canRead.Signal()
		} else {
			t.readState = idle
			e.rest(t)
		}
		crowded := e.resident > maxResident
		e.mu.Unlock()
		e.depart(t)
		if crowded {
			e.evict()
		}
	}
}
