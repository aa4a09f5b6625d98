package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eventhose/eventhose"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

// A worker's stream is one goroutine that sends, one that leases what was granted, and one that does what the client says. They
// hand over to the sender without a queue, so a client that takes nothing stops all of them.

const (
	// maxCredit is how many events a client may have granted that it has not got, together with those that it holds.
	maxCredit = 10_000
	// maxAtOnce is how many events are leased at once: what is leased waits for the client to take what comes before it.
	maxAtOnce = 100
	// maxLeases is what the events of one message of leases take, in bytes, unless one event alone takes more.
	maxLeases = 1 << 20
	// giveBackTime bounds how long is tried to give back the leases of a stream that has ended.
	giveBackTime = 10 * time.Second
)

type workStream = connect.BidiStream[v1.WorkRequest, v1.WorkResponse]

// worker is a client that works on a subscription.
type worker struct {
	service
	c     *call
	sub   eventhose.SubscriptionID
	lease time.Duration
	// ctx ends with the first failure or goodbye, and its cause is why; io.EOF if the client has nothing more to say.
	ctx context.Context
	end context.CancelCauseFunc
	out chan *v1.WorkResponse

	mu sync.Mutex
	// credit is how many events the client has granted and not got; granted is told when there is some.
	credit  int
	granted chan struct{}
	// held are the leases that the client has, or is to get, and has not answered.
	held map[string]heldLease
}

type heldLease struct {
	until time.Time
	// sent says that the client may have got it.
	sent bool
}

// Work implements eventhosev1connect.LogServiceHandler.
func (s service) Work(ctx context.Context, stream *workStream) error {
	c := callOf(ctx)
	m, err := stream.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return eventhose.Invalid("start", "must come first")
		}
		return received(err)
	}
	c.out.expect(0) // who works may say nothing for hours; pings tell whether it is there
	w := &worker{service: s, c: c, out: make(chan *v1.WorkResponse), granted: make(chan struct{}, 1), held: map[string]heldLease{}}
	if err := w.start(ctx, m.GetStart()); err != nil {
		return err
	}
	going, leave, err := s.enter(ctx, c)
	if err != nil {
		return err
	}
	return leave(w.serve(going, stream))
}

// start reads what is to be worked on.
func (w *worker) start(ctx context.Context, m *v1.StartWork) (err error) {
	if m == nil {
		return eventhose.Invalid("start", "must come first")
	}
	if err := w.permit(ctx, w.c, m.GetTenant(), eventhose.ScopeRead); err != nil {
		return err
	}
	if w.lease, err = durationOf(m.GetLease(), "start.lease", eventhose.DefaultLease, eventhose.MinLease, eventhose.MaxLease); err != nil {
		return err
	}
	w.sub = eventhose.SubscriptionID(m.GetSubscription())
	sub, err := w.control.Subscription(ctx, w.c.tenant, w.sub)
	if err == nil && !sub.Pull() {
		err = &eventhose.Error{Code: eventhose.CodeConflict, Message: "the subscription has a destination, which it sends to", Fix: "create a subscription without a destination to pull from"}
	}
	return err
}

// serve has all of a worker's goroutines, and ends when they have and its leases are given back.
func (w *worker) serve(ctx context.Context, stream *workStream) error {
	w.ctx, w.end = context.WithCancelCause(ctx)
	var crew sync.WaitGroup
	crew.Go(func() { w.end(w.receive(stream)) })
	crew.Go(func() { w.end(w.pull()) })
	w.end(w.send(stream))
	w.c.out.hangUp()
	crew.Wait()
	w.giveBack()
	if err := context.Cause(w.ctx); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// send is the one that writes.
func (w *worker) send(stream *workStream) error {
	m := &v1.WorkResponse{Message: &v1.WorkResponse_Ready{Ready: &v1.Ready{}}}
	beat := time.NewTicker(w.heartbeat)
	defer beat.Stop()
	for {
		w.sends(m.GetLeases().GetLeases())
		if err := stream.Send(m); err != nil {
			return errLeft
		}
		w.metrics.streams.Sent(w.c.protocol, len(m.GetLeases().GetLeases()))
		select {
		case m = <-w.out:
		case <-beat.C:
			m = &v1.WorkResponse{}
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}

// tell hands a message to the sender.
func (w *worker) tell(m *v1.WorkResponse) error {
	select {
	case w.out <- m:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// pull leases what is granted.
func (w *worker) pull() error {
	guard := w.guard(w.c, eventhose.ScopeRead)
	for {
		credit := w.await()
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := guard.Check(w.ctx); err != nil {
			return err
		}
		if credit == 0 {
			continue
		}
		head, err := w.log.Head(w.ctx, w.c.tenant) // before anything is leased, since what fails after that has taken a delivery
		if err != nil {
			return err
		}
		list, err := w.delivery.Pull(w.ctx, w.c.tenant, w.sub, eventhose.Pull{Max: min(credit, maxAtOnce), Wait: w.heartbeat, Lease: w.lease})
		if err != nil {
			return err
		}
		if len(list) == 0 {
			continue
		}
		w.hold(list) // before the client sees them, and grants as many again
		if err := w.hand(list, head.Incarnation); err != nil {
			return err
		}
	}
}

// hand sends leases, in as many messages as their events need.
func (w *worker) hand(list []eventhose.Leased, incarnation eventhose.Incarnation) error {
	var part []*v1.Lease
	size := 0
	for i := range list {
		l := &list[i]
		if len(part) > 0 && size+l.Event.Size() > maxLeases {
			if err := w.tell(leases(part)); err != nil {
				return err
			}
			part, size = nil, 0
		}
		message := messagesOf([]eventhose.Event{l.Event}, incarnation)
		part = append(part, &v1.Lease{Lease: l.Lease, Event: &message[0], Deliveries: int32(l.Deliveries), Until: timestamppb.New(l.Until),
			PreviousSequence: uint64(l.Previous), Replay: l.Replay})
		size += l.Event.Size()
	}
	return w.tell(leases(part))
}

func leases(list []*v1.Lease) *v1.WorkResponse {
	return &v1.WorkResponse{Message: &v1.WorkResponse_Leases{Leases: &v1.Leases{Leases: list}}}
}

// await answers what the client has granted, 0 if that is nothing for as long as a heartbeat.
func (w *worker) await() int {
	timer := time.NewTimer(w.heartbeat)
	defer timer.Stop()
	for {
		w.mu.Lock()
		credit := w.credit
		w.mu.Unlock()
		if credit > 0 {
			return credit
		}
		select {
		case <-w.granted:
		case <-timer.C:
			return 0
		case <-w.ctx.Done():
			return 0
		}
	}
}

// hold notes leases that are being handed to the client. They use up credit.
func (w *worker) hold(list []eventhose.Leased) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range list {
		w.held[list[i].Lease] = heldLease{until: list[i].Until}
	}
	w.credit -= len(list)
}

// sends notes that the client may have leases from now on.
func (w *worker) sends(list []*v1.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range list {
		w.held[l.GetLease()] = heldLease{until: l.GetUntil().AsTime(), sent: true}
	}
}

// broken is why nothing more can be read of what a client sends: it has left, or has sent what is no message.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

// receive does what the client says. It ends with an error: io.EOF when the client has nothing more to say.
func (w *worker) receive(stream *workStream) error {
	for {
		m, err := stream.Receive()
		var ours *eventhose.Error
		if err != nil && !errors.As(err, &ours) {
			return broken{received(err)}
		}
		if err == nil {
			err = w.c.in.atLeast(proto.Size(m))
		}
		if err == nil {
			err = w.obey(m)
		}
		if err != nil {
			return received(err)
		}
		w.c.in.release()
	}
}

// theirs reports whether it was the client that has ended the stream, by what it did or said.
func (w *worker) theirs() bool {
	why := context.Cause(w.ctx)
	var b broken
	switch eventhose.CodeOf(why) {
	case eventhose.CodeMalformed, eventhose.CodeInvalid, eventhose.CodeTooLarge, eventhose.CodeUnsupported:
		return true
	}
	return errors.As(why, &b) || errors.Is(why, errLeft) || errors.Is(why, context.Canceled) || errors.Is(why, context.DeadlineExceeded)
}

func (w *worker) obey(m *v1.WorkRequest) error {
	switch a := m.GetAction().(type) {
	case *v1.WorkRequest_Grant:
		return w.grant(int(a.Grant.GetEvents()))
	case *v1.WorkRequest_Ack:
		return w.answer(eventhose.Answer{Verdict: eventhose.AnswerAck, Leases: a.Ack.GetLeases()}, "ack.")
	case *v1.WorkRequest_Nack:
		delay, err := durationOf(a.Nack.GetDelay(), "nack.delay", -1, 0, eventhose.MaxNackDelay)
		if err != nil {
			return err
		}
		return w.answer(eventhose.Answer{Verdict: eventhose.AnswerNack, Leases: a.Nack.GetLeases(), Delay: delay, Message: a.Nack.GetMessage()}, "nack.")
	case *v1.WorkRequest_Release:
		return w.answer(eventhose.Answer{Verdict: eventhose.AnswerRelease, Leases: a.Release.GetLeases()}, "release.")
	case *v1.WorkRequest_Extend:
		lease, err := durationOf(a.Extend.GetLease(), "extend.lease", eventhose.DefaultLease, eventhose.MinLease, eventhose.MaxLease)
		if err != nil {
			return err
		}
		return w.answer(eventhose.Answer{Verdict: eventhose.AnswerExtend, Leases: a.Extend.GetLeases(), Delay: lease}, "extend.")
	case *v1.WorkRequest_Start:
		return eventhose.Invalid("start", "must come once")
	}
	return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "action", Message: "must be grant, ack, nack, release or extend"}
}

// grant adds to the credit. CodeInvalid.
func (w *worker) grant(events int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if events < 1 || events > maxCredit {
		return eventhose.Invalid("grant.events", "must be between 1 and %d", maxCredit)
	}
	if w.credit+events+len(w.held) > maxCredit {
		w.forgetEnded()
	}
	if w.credit+events+len(w.held) > maxCredit {
		return eventhose.Invalid("grant.events", "grants more than %d together that are not yet sent or not answered", maxCredit)
	}
	w.credit += events
	select {
	case w.granted <- struct{}{}:
	default:
	}
	return nil
}

// forgetEnded forgets leases that have ended by themselves. w.mu is held.
func (w *worker) forgetEnded() {
	now := time.Now()
	for lease, held := range w.held {
		if held.until.Before(now) {
			delete(w.held, lease)
		}
	}
}

// answer does what the client says of leases, and tells it what came of that.
func (w *worker) answer(a eventhose.Answer, at string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), requestTime)
	defer cancel()
	lost, err := w.delivery.Answer(ctx, w.c.tenant, w.sub, a)
	if err != nil {
		var e *eventhose.Error
		if errors.As(err, &e) && e.Field != "" {
			moved := *e
			moved.Field = at + e.Field
			return &moved
		}
		return err
	}
	w.mu.Lock()
	for _, lease := range a.Leases {
		if a.Verdict != eventhose.AnswerExtend {
			delete(w.held, lease)
		} else if held, ok := w.held[lease]; ok {
			held.until = time.Now().Add(a.Delay)
			w.held[lease] = held
		}
	}
	w.mu.Unlock()
	return w.tell(&v1.WorkResponse{Message: &v1.WorkResponse_Answered{Answered: &v1.Answered{Count: int32(len(a.Leases) - len(lost)), Lost: lost}}})
}

// giveBack has others work on what the client has not answered. If it left, it may have died of an event that it was sent, so the
// delivery counts; of others, and if it is the server that has ended the stream, it does not. No other goroutine of the worker is left.
func (w *worker) giveBack() {
	theirs := w.draining.Err() == nil && w.theirs()
	w.mu.Lock()
	w.forgetEnded()
	var died, released []string
	for lease, held := range w.held {
		if held.sent && theirs {
			died = append(died, lease)
		} else {
			released = append(released, lease)
		}
	}
	w.mu.Unlock()
	w.giveLeases(died, eventhose.AnswerNack)
	w.giveLeases(released, eventhose.AnswerRelease)
}

func (w *worker) giveLeases(leases []string, verdict eventhose.Verdict) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), giveBackTime)
	defer cancel()
	for len(leases) > 0 {
		part := leases[:min(len(leases), eventhose.MaxPull)]
		leases = leases[len(part):]
		answer := eventhose.Answer{Verdict: verdict, Leases: part, Message: "the worker's connection has ended"}
		if _, err := w.delivery.Answer(ctx, w.c.tenant, w.sub, answer); err != nil {
			w.logger.LogAttrs(ctx, slog.LevelWarn, "rpc: leases of a stream that has ended could not be given back; they end by themselves",
				slog.String("request_id", w.c.id), slog.String("leases", fmt.Sprint(len(part)+len(leases))), slog.String("error", err.Error()))
			return
		}
	}
}
