package listen

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// Route is what is forwarded where.
type Route struct {
	// Group names the cursor: listeners of one group share the work. At most MaxGroup bytes.
	Group  string
	Filter eventhose.Filter
	// ForwardTo is a URL.
	ForwardTo string
	// Secret signs; "" is the subscription's own.
	Secret eventhose.Secret
	// Ordering is strict if empty.
	Ordering eventhose.Ordering
	Begin    Begin
}

const (
	namePrefix = "listen:"
	// MaxGroup is what fits into a subscription's name.
	MaxGroup = eventhose.MaxName - len(namePrefix)
)

func (r *Route) name() string { return namePrefix + r.Group }

func (r *Route) ordering() eventhose.Ordering {
	if r.Ordering == "" {
		return eventhose.OrderingStrict
	}
	return r.Ordering
}

// concurrency is how many events are in hand at once.
func (r *Route) concurrency() int {
	if r.ordering() == eventhose.OrderingStrict {
		return 1
	}
	return 8
}

// Teller is told what a listener does. Its methods are called by several goroutines at once and should not block for long.
type Teller interface {
	// Ready: the cursor is there, and what comes is signed with secret.
	Ready(l *Listener, secret eventhose.Secret)
	// Sending: an event is about to be tried.
	Sending(route string, e *eventhose.Event)
	Tried(Attempt)
	// Lost: the server cannot be reached. It is tried on. Told once until Back.
	Lost(route string, err error)
	// Back: it can be reached again.
	Back(route string, after time.Duration)
	// CaughtUp: all that stood in the log when the server was reached is dealt with; this listener forwarded so many events of it.
	CaughtUp(route string, events int)
	// Trouble: something went wrong that is mended by going on, such as a lease that was lost.
	Trouble(route string, err error)
}

// Options make a Listener.
type Options struct {
	Tenant   *client.Tenant
	TenantID eventhose.TenantID
	Route    Route
	Forward  *Forwarder
	Tell     Teller
	// Wait is how long one request for events is held.
	Wait time.Duration
	// Patient has the server waited for also at first.
	Patient bool
	// Cut, if closed, ends attempts under way.
	Cut <-chan struct{}
}

// Listener forwards the events of one route.
type Listener struct {
	Options
	tenant *client.Tenant
	route  Route
	sub    eventhose.SubscriptionID
	target atomic.Pointer[Target]

	mu        sync.Mutex
	connected bool
	lostAt    time.Time // since when it was not, the last time
	// upTo is how far the log reached when the server was reached last, caught how many events up to there were forwarded since.
	upTo   atomic.Uint64
	caught atomic.Int64

	looked       time.Time // when it was looked at the subscription
	version      uint64    // of the subscription, then
	stopCatching context.CancelFunc
	catching     sync.WaitGroup
	// sending outlives the context of Run: a stop waits for attempts under way, a cut does not.
	sending context.Context
}

// New makes a Listener. CodeInvalid with the field if the route's target can never be used.
func New(o Options) (*Listener, error) {
	l := &Listener{Options: o, tenant: o.Tenant, route: o.Route, stopCatching: func() {}}
	_, err := o.Forward.Target(o.TenantID, o.Route.ForwardTo)
	return l, err
}

// Route answers what is forwarded where.
func (l *Listener) Route() Route { return l.route }

// Target is where it forwards to, without what may be secret.
func (l *Listener) Target() string { return l.target.Load().String() }

// Connected reports whether the server could be reached when it was last asked.
func (l *Listener) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected
}

const (
	// startTime bounds finding or making a cursor.
	startTime = time.Minute
	// statusTime bounds asking how things stand.
	statusTime = 10 * time.Second
	// lookAfter is how often it is looked at the subscription while there is always work; without, it is with each request for some.
	lookAfter = time.Minute
	// lease is how soon another listener of the group, or this one on another connection, is handed what was in hand when one was
	// lost. Work extends it.
	lease = 10 * time.Second
)

// Run forwards until ctx ends; then it finishes what is in hand and answers nil. While the server cannot be reached it goes on
// trying, from the second time on or, if Patient, from the first. It answers an error if trying again is no use.
func (l *Listener) Run(ctx context.Context) error {
	if err := l.start(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	defer func() { l.stopCatching(); l.catching.Wait() }()
	var cutting sync.WaitGroup
	defer cutting.Wait()
	var cut context.CancelFunc
	l.sending, cut = context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	cutting.Go(func() {
		select {
		case <-l.Cut:
			cut()
		case <-l.sending.Done():
		}
	})
	return l.tenant.Work(ctx, l.sub, l.route.concurrency(), l.work, client.WithLease(lease), client.WithWait(l.Wait),
		client.WithTrouble(func(err error) { l.trouble(ctx, err) }), client.WithPulled(func(events int) { l.pulled(ctx, events) }))
}

// start finds the cursor and the secret.
func (l *Listener) start(ctx context.Context) error {
	for try := 1; ; try++ {
		err := l.begin(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case !l.Patient || !client.Passing(err):
			return err
		}
		l.trouble(ctx, err)
		timer := time.NewTimer(backoff(try))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (l *Listener) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := l.cursor(ctx); err != nil {
		return err
	}
	l.route.Begin = Begin{} // it is done
	secrets, err := l.retarget(ctx)
	if err != nil {
		return err
	}
	l.Tell.Ready(l, secrets[0].Secret)
	return nil
}

// trouble is told of what goes wrong with the server.
func (l *Listener) trouble(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case !client.Passing(err) || errors.Is(err, client.ErrLeaseLost):
		l.Tell.Trouble(l.route.Group, err)
	default:
		l.lost(err)
	}
}

func (l *Listener) lost(err error) {
	l.mu.Lock()
	news := l.connected || l.lostAt.IsZero()
	if l.connected = false; news {
		l.lostAt = time.Now()
	}
	l.mu.Unlock()
	if news {
		l.Tell.Lost(l.route.Group, err)
	}
}

// pulled is called with each answer of the server to a request for work, before what it brought is worked on.
func (l *Listener) pulled(ctx context.Context, events int) {
	switch {
	case !l.Connected():
		l.reached(ctx)
	case events == 0 || time.Since(l.looked) > lookAfter:
		asking, cancel := context.WithTimeout(ctx, statusTime)
		defer cancel()
		if err := l.look(asking); err != nil {
			l.trouble(ctx, err)
		}
	}
}

// reached is called when the server has answered that could not be reached.
func (l *Listener) reached(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	head, err := l.tenant.Head(asking)
	if err == nil {
		err = l.look(asking)
	}
	if err != nil {
		l.trouble(ctx, err)
		return
	}
	l.mu.Lock()
	l.connected = true
	lostAt := l.lostAt
	l.mu.Unlock()
	if !lostAt.IsZero() {
		l.Tell.Back(l.route.Group, time.Since(lostAt))
	}
	l.stopCatching()
	l.catching.Wait()
	l.caught.Store(0)
	l.upTo.Store(uint64(head.Sequence))
	ctx, l.stopCatching = context.WithCancel(ctx)
	l.catching.Go(func() { l.catchUp(ctx, head.Sequence) })
}

// look takes back what was set aside because it was handed over too often, which a listener of the group that is gone may have had in hand for
// the last time; and it signs with other secrets if the subscription may have got some.
func (l *Listener) look(ctx context.Context) error {
	l.looked = time.Now()
	s, err := l.tenant.Subscription(ctx, l.sub)
	if err != nil {
		return err
	}
	if s.Version != l.version && l.route.Secret == "" {
		if _, err := l.retarget(ctx); err != nil {
			return err
		}
	}
	l.version = s.Version
	if s.Status != nil && s.Status.Dead > 0 {
		_, err = l.tenant.Redrive(ctx, l.sub)
	}
	return err
}

// catchUp asks until everything up to a place is dealt with, at growing intervals, and tells.
func (l *Listener) catchUp(ctx context.Context, upTo eventhose.Sequence) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if done, err := l.dealtWith(ctx, upTo); err == nil && done {
			l.Tell.CaughtUp(l.route.Group, int(l.caught.Load()))
			return
		}
		timer.Reset(pause)
	}
}

// dealtWith reports whether no event up to a place is still to be forwarded.
func (l *Listener) dealtWith(ctx context.Context, upTo eventhose.Sequence) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	s, err := l.tenant.Subscription(ctx, l.sub)
	if err != nil || s.Status == nil || s.Status.Cursor.Sequence < upTo || len(s.Status.Replays) > 0 {
		return false, err
	}
	for state, n := range map[eventhose.ParkedState]int{eventhose.ParkedRetrying: s.Status.Retrying, eventhose.ParkedLeased: s.Status.Leased, eventhose.ParkedWaiting: s.Status.Waiting} {
		if n == 0 {
			continue
		}
		page, err := l.tenant.Parked(ctx, l.sub, state, client.ListOptions{Limit: 1})
		if err != nil || len(page.Data) > 0 && page.Data[0].Sequence <= upTo {
			return false, err
		}
	}
	return true, nil
}

// work forwards one event. What the target does not take is given back, to be handed over again later, to this listener or
// another of its group; at its last delivery it is kept in hand until it is taken.
func (l *Listener) work(ctx context.Context, e eventhose.Event) error {
	handed, _ := client.Handed(ctx)
	for number := handed.Deliveries; ; number++ {
		l.Tell.Sending(l.route.Group, &handed.Event)
		a, wait := l.Forward.Send(l.sending, l.target.Load(), &handed, number)
		a.Route = l.route.Group
		if a.Taken() && uint64(e.Sequence) <= l.upTo.Load() {
			l.caught.Add(1)
		}
		l.Tell.Tried(a)
		switch {
		case a.Taken():
			return nil
		case handed.Deliveries < maxDeliveries:
			return client.RetryAfter(wait, errors.New(a.Message))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}
