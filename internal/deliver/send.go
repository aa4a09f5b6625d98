package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// attempt makes one attempt and settles it.
func (e *Engine) attempt(j *job) {
	event, err := j.event, error(nil)
	if event == nil {
		event, err = e.store.Lookup(e.sending, j.lane.tenant.id, store.Ref{Sequence: j.seq})
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		// Retention has taken it, and the quota for parked events had no room.
		head, err := e.store.Head(e.sending, j.lane.tenant.id)
		if err == nil {
			err = j.lane.tellOvertaken(e.sending, max(head.First, j.seq+1))
		}
		if err != nil {
			e.logger.Error("cannot tell that retention has overtaken an event", "tenant", j.lane.tenant.id, "subscription", j.lane.id, "sequence", j.seq, "error", err)
		}
		e.settleUnsent(j, err == nil) // nothing is skipped in silence
	case err != nil:
		e.logger.Error("cannot read an event to deliver", "tenant", j.lane.tenant.id, "subscription", j.lane.id, "sequence", j.seq, "error", err)
		e.settleUnsent(j, false)
	case event.Erased:
		e.settleUnsent(j, true)
	default:
		e.settle(j, event, e.send(e.sending, j.batch(event)))
	}
}

func (j *job) batch(event *eventhose.Event) *sink.Batch {
	b := &sink.Batch{ID: event.WebhookID(), Subscription: &j.sub.Subscription, Kind: j.kind, Number: j.number,
		Items: []sink.Item{{Event: event, Previous: j.prev}}}
	switch {
	case j.replay != nil:
		b.Replay = j.replay.ID
	case j.parked != nil:
		b.Replay = j.parked.Replay
	}
	return b
}

func (e *Engine) send(ctx context.Context, b *sink.Batch) sink.Result {
	s := e.sinks[b.Subscription.Destination.Type]
	if s == nil {
		now := time.Now()
		return sink.Result{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonConfig, Started: now,
			Message: "this server cannot send to destinations of type " + b.Subscription.Destination.Type}
	}
	return s.Send(ctx, b)
}

// record turns a result into the attempt that is kept.
func (e *Engine) record(b *sink.Batch, r sink.Result) eventhose.Attempt {
	a := eventhose.Attempt{ID: e.lastID.next(r.Started), Tenant: b.Subscription.Tenant, Subscription: b.Subscription.ID,
		Kind: b.Kind, Number: b.Number, Outcome: r.Outcome, Reason: r.Reason, Message: r.Message, Status: r.Status,
		Started: r.Started.UTC(), Duration: eventhose.Duration(r.Duration), Phases: r.Phases, URL: r.URL, Address: r.Address,
		ResponseHeaders: r.ResponseHeaders, ResponseBody: r.ResponseBody, Replay: b.Replay}
	for _, item := range b.Items {
		a.Events = append(a.Events, item.Event.ID)
		if item.Event.Sequence > 0 {
			a.Sequences = append(a.Sequences, item.Event.Sequence)
		}
	}
	return a
}
