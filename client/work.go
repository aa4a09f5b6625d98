package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// pullWait is how long one request for work is held, unless WithWait says otherwise.
	pullWait = 20 * time.Second
	// answerTime is how long is tried to say what became of work once the worker is to stop.
	answerTime = 10 * time.Second
	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
)

// WorkOption changes how Work goes about it.
type WorkOption func(*worker)

// WithLease sets how long an event is this worker's at first. The lease is extended as long as the work takes, so this is
// how soon another takes over from a worker that has died: eventhose.DefaultLease if not set.
func WithLease(d time.Duration) WorkOption { return func(w *worker) { w.lease = d } }

// WithTrouble has f called with what Work met and goes on after: a server that cannot be reached, a lease that was lost.
func WithTrouble(f func(error)) WorkOption { return func(w *worker) { w.trouble = f } }

// WithWait sets how long one request for work is held if there is none: 20 s if not set, at most what the server holds.
func WithWait(d time.Duration) WorkOption { return func(w *worker) { w.wait = d } }

// WithPulled has f called with each answer to a request for work, before the work begins, with how many events it brought.
func WithPulled(f func(events int)) WorkOption { return func(w *worker) { w.pulled = f } }

type leasedKey struct{}

// Handed answers what a Work function's context belongs to: how often the event was handed over, and until when it is this
// worker's. Its Until is as of the beginning, since Work extends it.
func Handed(ctx context.Context) (eventhose.Leased, bool) {
	l, ok := ctx.Value(leasedKey{}).(eventhose.Leased)
	return l, ok
}

// RetryAfter is an error for a Work function to return that wants its event back after a certain time, eventhose.MaxNackDelay at most,
// instead of when the subscription's schedule says.
func RetryAfter(delay time.Duration, err error) error { return &retryAfter{delay, err} }

type retryAfter struct {
	delay time.Duration
	err   error
}

func (r *retryAfter) Error() string { return r.err.Error() }
func (r *retryAfter) Unwrap() error { return r.err }

// Work pulls events of a subscription and calls do with each, at most concurrency at once, until ctx ends; then it waits for
// the calls under way, whose contexts end too, and answers nil. Events for which do answers nil are acknowledged; others are
// handed over again, to this or another worker. If ctx has ended by then, the delivery of those does not count, unless do answers
// a RetryAfter or panics: a worker that stops costs an event nothing. The context of a call also ends if its lease is lost, since then
// another worker may have the event.
//
// do may be called more than once with the same event: after a crash, or when an acknowledgement was lost. It should find
// by the event's id that its work is done, in the transaction that does it.
//
// While the server cannot be reached Work goes on trying. It answers an error only if trying again is no use: the
// subscription is gone, or the key may not use it.
func (t *Tenant) Work(ctx context.Context, sub eventhose.SubscriptionID, concurrency int, do func(ctx context.Context, e eventhose.Event) error, options ...WorkOption) error {
	if concurrency < 1 || concurrency > eventhose.MaxPull {
		return eventhose.Invalid("concurrency", "must be between 1 and %d", eventhose.MaxPull)
	}
	w := &worker{tenant: t, sub: sub, do: do, lease: eventhose.DefaultLease, wait: pullWait, trouble: func(error) {}, pulled: func(int) {},
		slots: make(chan struct{}, concurrency), hands: map[string]*hand{}, said: make(chan struct{}, 1)}
	for _, o := range options {
		o(w)
	}
	answering, stop := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { w.answerLoop(answering) })
	background.Go(func() { w.extendLoop(answering) })
	err := w.pullLoop(ctx)
	w.calls.Wait()
	stop()
	background.Wait()
	return err
}

// worker is one call of Work.
type worker struct {
	tenant  *Tenant
	sub     eventhose.SubscriptionID
	do      func(context.Context, eventhose.Event) error
	lease   time.Duration
	wait    time.Duration
	trouble func(error)
	pulled  func(int)
	slots   chan struct{}
	calls   sync.WaitGroup

	mu      sync.Mutex
	hands   map[string]*hand // by lease
	answers []said
	said    chan struct{} // there is something in answers
}

// hand holds one event that is worked on.
type hand struct {
	cancel context.CancelCauseFunc
	until  time.Time // when the lease ends, by this clock
}

// said is what became of one lease.
type said struct {
	lease   string
	err     error
	delay   time.Duration
	release bool // the worker stops, and the event has done nothing wrong
	expires time.Time
}

func (w *worker) pullLoop(ctx context.Context) error {
	backoff := minBackoff
	// The first request, and each after one that failed, is not held: whether the server can be reached is known at once.
	for wait, lost := time.Duration(0), false; ; {
		var err error
		// One slot for the first event, and those that are free for more.
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		free := 1
		for more := true; more; {
			select {
			case w.slots <- struct{}{}:
				free++
			default:
				more = false
			}
		}
		if lost {
			err = w.look(ctx)
		}
		var leases []eventhose.Leased
		if err == nil {
			leases, err = w.pull(ctx, free, wait)
		}
		if err == nil {
			w.pulled(len(leases))
		}
		for i := range leases {
			w.take(ctx, &leases[i])
		}
		for range free - len(leases) {
			<-w.slots
		}
		switch {
		case over(ctx):
			return nil
		case err == nil:
			backoff, wait, lost = minBackoff, w.wait, false
			continue
		case !Passing(err):
			return err
		}
		wait, lost = 0, true
		w.trouble(err)
		timer := time.NewTimer(backoff/2 + rand.N(backoff))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// pull asks once. A server that says nothing is not waited for any longer than a stream's would be.
func (w *worker) pull(ctx context.Context, most int, wait time.Duration) ([]eventhose.Leased, error) {
	asking, cancel := context.WithTimeout(ctx, wait+w.tenant.c.silence)
	defer cancel()
	list, err := w.tenant.Pull(asking, w.sub, eventhose.Pull{Max: most, Wait: wait, Lease: w.lease})
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		err = errSilent
	}
	return list, err
}

// look asks whether the server is there again. A request for work would not do: if it arrives late, by a network that comes back,
// it takes events for a worker that has given it up.
func (w *worker) look(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, w.tenant.c.silence)
	defer cancel()
	_, err := w.tenant.Subscription(asking, w.sub)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		err = errSilent
	}
	return err
}

// Passing reports whether the same request may succeed later: the server was not reached, is stopping, or has too much to do.
func Passing(err error) bool {
	var e *eventhose.Error
	if !errors.As(err, &e) {
		return true // the server was not reached
	}
	switch e.Code {
	case eventhose.CodeUnavailable, eventhose.CodeLimit, eventhose.CodeTimeout, eventhose.CodeInternal, eventhose.CodeStorageFull:
		return true
	}
	return false
}

// take has an event worked on.
func (w *worker) take(ctx context.Context, l *eventhose.Leased) {
	calling, cancel := context.WithCancelCause(context.WithValue(ctx, leasedKey{}, *l))
	w.mu.Lock()
	w.hands[l.Lease] = &hand{cancel, time.Now().Add(w.lease)}
	w.mu.Unlock()
	lease, event := l.Lease, l.Event
	w.calls.Go(func() {
		defer func() { <-w.slots }()
		defer cancel(nil)
		err := w.call(calling, event)
		s := said{lease: lease, err: err, delay: -1}
		var wanted *retryAfter
		switch {
		case errors.As(err, &wanted):
			s.delay = min(wanted.delay, eventhose.MaxNackDelay)
		case err != nil && ctx.Err() != nil && !errors.Is(err, errPanic):
			s.release = true
		}
		w.mu.Lock()
		h := w.hands[lease]
		delete(w.hands, lease)
		if h != nil {
			s.expires = h.until
			w.answers = append(w.answers, s)
		}
		w.mu.Unlock()
		select {
		case w.said <- struct{}{}:
		default:
		}
	})
}

// errPanic is how a call ended that the event may be to blame for, whenever that was.
var errPanic = errors.New("panic")

// call keeps a panic from taking the other calls along: its event is given back.
func (w *worker) call(ctx context.Context, e eventhose.Event) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%w: %v", errPanic, fault)
			w.trouble(fmt.Errorf("working on event %s: %w", e.ID, err))
		}
	}()
	return w.do(ctx, e)
}

// answerLoop tells the server what became of leases, what comes while one request is under way in the next, until ctx ends
// and nothing is left.
func (w *worker) answerLoop(ctx context.Context) {
	// What is under way then is not broken off: said again, it would be of a lease that is answered.
	telling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(answerTime, cancel) })
	for {
		select {
		case <-w.said:
			w.tell(telling)
		case <-ctx.Done():
			w.tell(telling)
			return
		}
	}
}

// tell says all that is to be said; what the server could not be told is tried again until the leases have ended by themselves.
func (w *worker) tell(ctx context.Context) {
	for backoff := 50 * time.Millisecond; ; backoff = min(2*backoff, time.Second) {
		w.mu.Lock()
		answers := w.answers
		w.answers = nil
		w.mu.Unlock()
		if len(answers) == 0 {
			return
		}
		failed := w.send(ctx, answers)
		if len(failed) == 0 {
			return
		}
		w.mu.Lock()
		w.answers = append(failed, w.answers...)
		w.mu.Unlock()
		timer := time.NewTimer(backoff/2 + rand.N(backoff))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// send answers those that are to be sent again.
func (w *worker) send(ctx context.Context, answers []said) (again []said) {
	var done, released []said
	type back struct {
		delay   time.Duration
		message string
	}
	given := map[back][]said{}
	for _, s := range answers {
		switch {
		case s.err == nil:
			done = append(done, s)
		case s.release:
			released = append(released, s)
		default:
			b := back{s.delay, clip(s.err.Error())}
			given[b] = append(given[b], s)
		}
	}
	again = w.inParts(ctx, again, done, func(ctx context.Context, leases []string) ([]string, error) {
		return w.tenant.Ack(ctx, w.sub, leases...)
	})
	again = w.inParts(ctx, again, released, func(ctx context.Context, leases []string) ([]string, error) {
		return w.tenant.Release(ctx, w.sub, leases...)
	})
	for b, list := range given {
		again = w.inParts(ctx, again, list, func(ctx context.Context, leases []string) ([]string, error) {
			return w.tenant.Nack(ctx, w.sub, b.delay, b.message, leases...)
		})
	}
	return again
}

// clip is as much of a message as the server keeps: a request that is too long is refused.
func clip(message string) string {
	return strings.ToValidUTF8(message[:min(len(message), eventhose.MaxKeptTaken)], "")
}

func (w *worker) inParts(ctx context.Context, again, list []said, send func(context.Context, []string) ([]string, error)) []said {
	for len(list) > 0 {
		part := list[:min(len(list), eventhose.MaxPull)]
		list = list[len(part):]
		leases := make([]string, len(part))
		for i := range part {
			leases[i] = part[i].lease
		}
		answering, cancel := context.WithTimeout(ctx, max(w.lease/3, time.Second)) // on a dead connection there is time to try another
		lost, err := send(answering, leases)
		cancel()
		if err != nil {
			w.trouble(fmt.Errorf("answering leases: %w", err))
		}
		if err != nil && Passing(err) {
			for _, s := range part {
				if time.Now().Before(s.expires) {
					again = append(again, s)
				}
			}
		}
		if len(lost) > 0 {
			w.trouble(fmt.Errorf("%w before it was answered, of %d events: they may be worked on twice", ErrLeaseLost, len(lost)))
		}
	}
	return again
}

// extendLoop keeps the leases of what is worked on.
func (w *worker) extendLoop(ctx context.Context) {
	tick := time.NewTicker(max(w.lease/3, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		w.mu.Lock()
		leases := make([]string, 0, len(w.hands))
		for lease, h := range w.hands {
			if h.until.Before(now) {
				w.lose(lease)
				continue
			}
			leases = append(leases, lease)
		}
		w.mu.Unlock()
		if len(leases) == 0 {
			continue
		}
		extending, cancel := context.WithTimeout(ctx, w.lease/3)
		lost, err := w.tenant.Extend(extending, w.sub, w.lease, leases...)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.trouble(fmt.Errorf("extending leases: %w", err))
		}
		w.mu.Lock()
		for _, lease := range lost {
			w.lose(lease)
		}
		for _, lease := range leases {
			if h := w.hands[lease]; h != nil && err == nil {
				h.until = now.Add(w.lease)
			}
		}
		w.mu.Unlock()
	}
}

// lose ends the call that works under a lease, unless it has ended meanwhile. w.mu is held.
func (w *worker) lose(lease string) {
	if h := w.hands[lease]; h != nil {
		h.cancel(ErrLeaseLost)
		delete(w.hands, lease)
	}
}

// ErrLeaseLost says that an event that is worked on, or was, may be another worker's.
var ErrLeaseLost = errors.New("the lease was lost")
