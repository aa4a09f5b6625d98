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
	if !e.prepare(j) {
		e.settleUnsent(j)
		return
	}
	b := j.request()
	if m := j.lane.tenant.term; m != nil {
		b.Still = m.still
	}
	e.settle(j, b, e.send(e.sending, b))
}

// prepare reads the events that are not in memory, decides which of them are sent, and reports whether any is.
func (e *Engine) prepare(j *job) bool {
	t := j.lane.tenant
	if err := e.read(j); err != nil {
		e.logger.Error("cannot read an event to deliver", "tenant", t.id, "subscription", j.lane.id, "sequence", j.items[0].seq, "error", err)
		return j.keep(0)
	}
	count, bytes, lost := 0, 0, eventhose.Sequence(0)
	var erased []*item
	for i := range j.items {
		switch it := &j.items[i]; {
		case it.event == nil:
			// Retention has taken it, and the quota for parked events had no room.
			it.verdict, lost = nothing, it.seq
		case it.event.Erased:
			it.verdict = nothing
			erased = append(erased, it)
		case count > 0 && bytes+len(it.event.Data) > j.sub.Batch.MaxBytes:
			j.keep(i) // the policy has changed since these were tried together
		default:
			count++
			bytes += len(it.event.Data)
		}
		if j.items[i].verdict == kept {
			break
		}
	}
	if lost > 0 {
		head, err := e.store.Head(e.sending, t.id)
		if err == nil {
			err = j.lane.tellOvertaken(e.sending, max(head.First, lost+1))
		}
		if err != nil {
			e.logger.Error("cannot tell that retention has overtaken an event", "tenant", t.id, "subscription", j.lane.id, "sequence", lost, "error", err)
			return j.keep(0) // nothing is skipped in silence
		}
	}
	if err := e.tellTrimmed(j, erased); err != nil {
		e.logger.Error("cannot tell that retention has taken connected tenants' events", "tenant", t.id, "subscription", j.lane.id, "sequence", erased[0].seq, "error", err)
		return j.keep(0)
	}
	return count > 0
}

// keep has the items from a place on wait where they were. It answers false.
func (j *job) keep(from int) bool {
	for i := range j.items[from:] {
		j.items[from+i].verdict = kept
	}
	return false
}

// read fills in the events that are not in memory; those that are gone stay nil.
func (e *Engine) read(j *job) error { return e.readAll(e.sending, j.lane.tenant.id, j.items) }

// readAll does that for items by sequence.
func (e *Engine) readAll(ctx context.Context, tenant eventhose.TenantID, items []item) error {
	for i := 0; i < len(items); {
		if items[i].event != nil {
			i++
			continue
		}
		n, err := e.readPage(ctx, tenant, items[i:])
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// readPage reads the event of the first item, and of those after it that lie close by, and answers how many items it dealt with.
func (e *Engine) readPage(ctx context.Context, tenant eventhose.TenantID, items []item) (int, error) {
	near := 1
	for near < len(items) && items[near].event == nil && items[near].seq-items[near-1].seq <= 4 {
		near++
	}
	if near > 2 {
		first := items[0].seq
		limit := store.ReadLimit{Events: min(readLimit.Events, int(items[near-1].seq-first)+1), Bytes: readLimit.Bytes}
		page, err := e.store.Read(ctx, tenant, first-1, limit)
		if err != nil && !errors.Is(err, store.ErrTrimmed) {
			return 0, err
		}
		done := 0
		for done < near && items[done].seq-first < eventhose.Sequence(len(page)) {
			items[done].event = page[items[done].seq-first]
			done++
		}
		if done > 0 {
			return done, nil
		}
	}
	event, err := e.store.Lookup(ctx, tenant, store.Ref{Sequence: items[0].seq})
	if errors.Is(err, store.ErrNotFound) {
		return 1, nil
	}
	items[0].event = event
	return 1, err
}

// request is what is sent: the events that are there, as one batch.
func (j *job) request() *sink.Batch {
	b := &j.batch
	*b = sink.Batch{Subscription: &j.sub.Subscription, Kind: j.kind, Items: j.send1[:0]}
	for i := range j.items {
		if it := &j.items[i]; it.verdict == sent {
			b.Items = append(b.Items, sink.Item{Event: it.event, Previous: it.prev})
			b.Number = max(b.Number, 1+it.tries())
		}
	}
	switch parked := j.items[0].parked; {
	case j.replay != nil:
		b.Replay = j.replay.ID
	case parked != nil:
		b.Replay = parked.Replay
	}
	if !b.Subscription.Batch.Batched() {
		b.ID = b.Items[0].Event.WebhookID()
		return b
	}
	b.ID = batchID(b)
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

// record turns a result into the attempt that is kept; its id is given when it has its place in its lane.
func (e *Engine) record(b *sink.Batch, r sink.Result) eventhose.Attempt {
	a := eventhose.Attempt{Tenant: b.Subscription.Tenant, Subscription: b.Subscription.ID,
		Kind: b.Kind, Number: b.Number, Outcome: r.Outcome, Reason: r.Reason, Message: r.Message, Status: r.Status,
		Started: r.Started.UTC(), Duration: eventhose.Duration(r.Duration), Phases: r.Phases, URL: r.URL, Address: r.Address,
		ResponseHeaders: r.ResponseHeaders, ResponseBody: r.ResponseBody, Replay: b.Replay}
	if b.Subscription.Batch.Batched() {
		a.Batch = b.ID
	}
	if len(b.Items) == 1 {
		var one struct {
			event              [1]string
			sequence, previous [1]eventhose.Sequence
		}
		a.Events, a.Sequences, a.Previous = one.event[:0], one.sequence[:0], one.previous[:0]
	} else {
		a.Events, a.Sequences, a.Previous = make([]string, 0, len(b.Items)), make([]eventhose.Sequence, 0, len(b.Items)), make([]eventhose.Sequence, 0, len(b.Items))
	}
	for _, item := range b.Items {
		a.Events = append(a.Events, item.Event.ID)
		if item.Event.Sequence > 0 {
			a.Sequences, a.Previous = append(a.Sequences, item.Event.Sequence), append(a.Previous, item.Previous)
		}
	}
	if len(a.Sequences) == 0 {
		a.Sequences, a.Previous = nil, nil // of a test
	}
	return a
}
