package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// maxResend is how many subscriptions one event is handed over to once more by one request.
	maxResend = 1000
	// resenders is how many of them are dealt with at once.
	resenders = 16
)

// Resend hands one event over once more: to the subscriptions with the given ids, or with none given to all whose filters
// want it. It answers what was done for each. CodeErased; CodeNotFound and CodeInvalid with the field
// ("subscriptions[2]") for one that does not exist, is named twice, or whose filter does not want the event; then nothing was
// done.
// CodeLimit if there are more than 1,000.
func (e *Engine) Resend(ctx context.Context, event eventhose.Event, named []eventhose.SubscriptionID) ([]eventhose.Resent, error) {
	if event.Erased {
		return nil, &eventhose.Error{Code: eventhose.CodeErased, Message: "the data of the event was erased"}
	}
	ids, err := e.wanting(ctx, &event, named)
	if err != nil {
		return nil, err
	}
	if len(ids) > maxResend {
		return nil, &eventhose.Error{Code: eventhose.CodeLimit, Message: fmt.Sprintf("more than %d subscriptions want the event", maxResend), Fix: "name those that are meant"}
	}
	done := make([]eventhose.Resent, len(ids))
	failures := make([]error, len(ids))
	next := make(chan int)
	var all sync.WaitGroup
	for range min(resenders, len(ids)) {
		all.Go(func() {
			for i := range next {
				done[i], failures[i] = e.resend(ctx, &event, ids[i])
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	all.Wait()
	failed := 0
	for i, err := range failures {
		if err != nil {
			failed++
			done[i] = eventhose.Resent{Subscription: ids[i], Did: "failed", Error: toOrderError(err).Message}
		}
	}
	if failed > 0 && failed == len(ids) {
		return nil, failures[0]
	}
	return done, nil
}

// wanting answers which of the named subscriptions, or of all, want an event.
func (e *Engine) wanting(ctx context.Context, event *eventhose.Event, named []eventhose.SubscriptionID) (ids []eventhose.SubscriptionID, err error) {
	v := filter.NewView(event)
	wants := func(s *eventhose.Subscription) bool {
		f, err := filter.Compile(s.Filter)
		if err != nil {
			return true // as a lane sees it
		}
		ok, err := f.MatchView(v)
		return ok || err != nil
	}
	if len(named) == 0 {
		subs, err := e.lanes.All(ctx, event.Tenant)
		for i := range subs {
			if wants(&subs[i]) {
				ids = append(ids, subs[i].ID)
			}
		}
		return ids, err
	}
	for i, id := range named {
		if slices.Contains(ids, id) {
			return nil, eventhose.Invalid(fmt.Sprintf("subscriptions[%d]", i), "is named twice")
		}
		s, err := e.lanes.Subscription(ctx, event.Tenant, id)
		if err == nil && !wants(&s) {
			err = eventhose.Invalid("", "does not want the event: its filter does not match")
		}
		var known *eventhose.Error
		if errors.As(err, &known) {
			moved := *known
			moved.Field = fmt.Sprintf("subscriptions[%d]", i)
			return nil, &moved
		} else if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// resend does for one subscription what has the event sent: nothing if it comes anyway.
func (e *Engine) resend(ctx context.Context, event *eventhose.Event, sub eventhose.SubscriptionID) (eventhose.Resent, error) {
	r := eventhose.Resent{Subscription: sub, Did: "pending"}
	for range 2 { // what is parked may be settled at this moment, or parked at last, and recorded once it was decided about
		rows, err := e.store.Parked(ctx, event.Tenant, sub, store.ParkedQuery{After: event.Sequence - 1, Limit: 1})
		if err != nil {
			return r, err
		}
		if len(rows) == 0 || rows[0].Sequence != event.Sequence {
			var a resent
			if e.elsewhere(event.Tenant) {
				err = e.ask(ctx, opResend, event.Tenant, sub, event.Sequence, &a)
			} else {
				a, err = e.resendHere(ctx, event, sub)
			}
			if a.Replay != nil {
				r.Did, r.Replay = "replay", a.Replay
			}
			if err != nil || !a.Parked {
				return r, err
			}
			continue
		}
		op, did := opRedrive, "redrive"
		switch rows[0].State {
		case eventhose.ParkedRetrying:
			op, did = opRetry, "retry"
		case eventhose.ParkedLeased:
			return r, nil
		}
		n, err := e.decide(ctx, op, event.Tenant, sub, nil, []eventhose.Sequence{event.Sequence})
		if err != nil && eventhose.CodeOf(err) != eventhose.CodeNotFound {
			return r, err
		}
		if n > 0 {
			r.Did = did
			return r, nil
		}
	}
	return r, nil // it is under way
}

// resent is what was done for an event that was not parked when that was looked at.
type resent struct {
	Replay *eventhose.Replay `json:"replay,omitempty"` // that sends it; nil if it comes anyway
	Parked bool              `json:"parked,omitempty"` // it is by now
}

// resendAt is resendHere for the event at a place.
func (e *Engine) resendAt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, seq eventhose.Sequence) (resent, error) {
	event, err := e.store.Lookup(ctx, tenant, store.Ref{Sequence: seq})
	if errors.Is(err, store.ErrNotFound) {
		err = eventhose.NotFound("event")
	}
	if err != nil {
		return resent{}, err
	}
	return e.resendHere(ctx, event, sub)
}

// resendHere has an event that is not parked sent by a replay, unless it has still to come, on the node that delivers.
func (e *Engine) resendHere(ctx context.Context, event *eventhose.Event, sub eventhose.SubscriptionID) (a resent, err error) {
	head, err := e.store.Head(ctx, event.Tenant)
	if err != nil {
		return a, err
	}
	err = e.withLane(ctx, event.Tenant, sub, func(l *lane) error {
		switch l.became(event) {
		case eventhose.DeliveryPending, string(eventhose.ParkedWaiting), string(eventhose.ParkedLeased):
			return nil
		case string(eventhose.ParkedRetrying), string(eventhose.ParkedDead):
			a.Parked = true
			return nil
		}
		if event.Sequence < head.First {
			return &eventhose.Error{Code: eventhose.CodeCursorGone, Message: "retention has removed the event", First: head.First}
		}
		r := eventhose.Replay{From: event.Sequence, To: event.Sequence, At: event.Sequence - 1, Created: time.Now().UTC()}
		if err := l.startReplay(&r); err != nil {
			return err
		}
		a.Replay = &r
		return nil
	})
	return a, err
}
