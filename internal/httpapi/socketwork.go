package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/stall"
)

// A socket that works on a pull subscription: what the client has granted is leased for it, and what it has not answered
// when the connection ends is given back.

const (
	// maxAtOnce is how many events are leased at once: what is leased waits for the client to take what comes before it.
	maxAtOnce = 100
	// giveBackTime bounds how long is tried to give back the leases of a connection that has ended.
	giveBackTime = 10 * time.Second
)

// work is what a socket has to do with a subscription.
type work struct {
	sub   eventhose.SubscriptionID
	lease time.Duration
	// held are the leases that the client has, or is to get, and has not answered; the socket's mutex guards them. They and
	// the credit are together at most maxCredit.
	held map[string]heldLease
}

type heldLease struct {
	until time.Time
	// sent says that the client may have got it.
	sent bool
}

// workOf reads what subscription a socket is to work on.
func (a *API) workOf(ctx context.Context, x *exchange) (*work, error) {
	for _, name := range []string{"after", "types", "keys", "expression"} {
		if len(given(x.query[name])) > 0 {
			return nil, eventhose.Invalid(name, "must not be given with subscription, which has its own")
		}
	}
	j := &work{sub: eventhose.SubscriptionID(x.query.Get("subscription")), lease: eventhose.DefaultLease, held: map[string]heldLease{}}
	if text := x.query.Get("lease"); text != "" {
		var err error
		if j.lease, err = time.ParseDuration(text); err != nil || j.lease < eventhose.MinLease || j.lease > eventhose.MaxLease {
			return nil, eventhose.Invalid("lease", "must be a duration between %v and %v, such as 30s", eventhose.MinLease, eventhose.MaxLease)
		}
	}
	s, err := a.control.Subscription(ctx, x.tenant, j.sub)
	if err == nil && !s.Pull() {
		err = &eventhose.Error{Code: eventhose.CodeConflict, Message: "the subscription has a destination, which it sends to", Fix: "create a subscription without a destination to pull from"}
	}
	return j, err
}

// sendWork leases what is granted and sends it.
func (s *socket) sendWork() error {
	ready, err := marshal(struct {
		Type         string                   `json:"type"`
		Subscription eventhose.SubscriptionID `json:"subscription"`
	}{"ready", s.work.sub})
	if err == nil {
		err = s.send(ready)
	}
	if err != nil {
		return err
	}
	guard := s.a.guardOf(s.x)
	var frame []byte
	for {
		credit := s.await()
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := guard.Check(s.ctx); err != nil || credit == 0 {
			if err != nil {
				return err
			}
			continue
		}
		head, err := s.a.log.Head(s.ctx, s.x.tenant) // before anything is leased, since what fails after that has taken a delivery
		if err != nil {
			return err
		}
		list, err := s.a.delivery.Pull(s.ctx, s.x.tenant, s.work.sub, eventhose.Pull{Max: min(credit, maxAtOnce), Wait: s.a.streams.heartbeat, Lease: s.work.lease})
		if err != nil {
			return err
		}
		if len(list) == 0 {
			continue
		}
		s.hold(list)
		for i := range list {
			frame = appendLeasedFrame(frame[:0], &list[i], head)
			s.sends(&list[i])
			if err := s.send(frame); err != nil {
				return err
			}
		}
		s.a.streams.metrics.Sent(transportWS, len(list))
	}
}

// hold notes leases that are to be handed to the client. They use up credit.
func (s *socket) hold(list []eventhose.Leased) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		s.work.held[list[i].Lease] = heldLease{until: list[i].Until}
	}
	s.credit -= len(list)
}

// sends notes that the client may have a lease from now on.
func (s *socket) sends(l *eventhose.Leased) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work.held[l.Lease] = heldLease{until: l.Until, sent: true}
}

// heldBeside answers how many leases the client holds. Those that have ended are told apart only where it matters for a
// credit. s.mu is held.
func (s *socket) heldBeside(credit int) int {
	if s.work == nil {
		return 0
	}
	if credit+len(s.work.held) > maxCredit {
		s.forgetEnded()
	}
	return len(s.work.held)
}

func (s *socket) forgetEnded() {
	now := time.Now()
	for lease, held := range s.work.held {
		if held.until.Before(now) {
			delete(s.work.held, lease)
		}
	}
}

// answer does what the client says of leases, and tells it what came of that.
func (s *socket) answer(f *frame) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), requestTime)
	defer cancel()
	answer := f.answer()
	lost, err := s.a.delivery.Answer(ctx, s.x.tenant, s.work.sub, answer)
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, lease := range answer.Leases {
		if answer.Verdict != eventhose.AnswerExtend {
			delete(s.work.held, lease)
		} else if held, ok := s.work.held[lease]; ok {
			held.until = time.Now().Add(answer.Delay)
			s.work.held[lease] = held
		}
	}
	s.mu.Unlock()
	body, err := marshal(doneFrame{doneTypes[f.Type], Answered{Count: len(answer.Leases) - len(lost), Lost: notNil(lost)}})
	if err != nil {
		return err
	}
	return s.send(body)
}

// giveBack has others work on what the client has not answered. If it left, it may have died of an event that it was sent, so the
// delivery counts; of others, and if it is the server that has ended the connection, it does not. No goroutine of the socket is left.
func (s *socket) giveBack() {
	s.forgetEnded()
	why := context.Cause(s.ctx)
	theirs := s.a.draining.Err() == nil && (errors.Is(why, stall.ErrLeft) || errors.Is(why, stall.ErrSlow) || closeCode(why) == closeRefused)
	var died, released []string
	for lease, held := range s.work.held {
		if held.sent && theirs {
			died = append(died, lease)
		} else {
			released = append(released, lease)
		}
	}
	s.giveLeases(died, eventhose.AnswerNack)
	s.giveLeases(released, eventhose.AnswerRelease)
}

func (s *socket) giveLeases(leases []string, verdict eventhose.Verdict) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), giveBackTime)
	defer cancel()
	for len(leases) > 0 {
		part := leases[:min(len(leases), eventhose.MaxPull)]
		leases = leases[len(part):]
		answer := eventhose.Answer{Verdict: verdict, Leases: part, Message: "the worker's connection has ended"}
		if _, err := s.a.delivery.Answer(ctx, s.x.tenant, s.work.sub, answer); err != nil {
			s.a.logger.LogAttrs(ctx, slog.LevelWarn, "http: leases of a connection that has ended could not be given back; they end by themselves",
				slog.String("request_id", s.x.id), slog.Int("leases", len(part)+len(leases)), slog.String("error", err.Error()))
			return
		}
	}
}
