package deliver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
)

// settle changes the lane by what came of an attempt; the committer makes it durable.
func (e *Engine) settle(j *job, b *sink.Batch, r sink.Result) {
	if r.Outcome != eventhose.OutcomeTaken && r.Reason != eventhose.ReasonPartly && (e.sending.Err() != nil || r.Reason == eventhose.ReasonStopping) {
		j.keep(0) // cut off because this node stops, or held back because it may not send it any more
		e.settleUnsent(j)
		return
	}
	now := time.Now()
	a := e.record(b, r)
	taken := j.judge(r)
	for i := range j.items {
		if j.items[i].verdict == refused {
			a.Failed = append(a.Failed, j.items[i].seq)
		}
	}
	l, t := j.lane, j.lane.tenant
	t.mu.Lock()
	a.ID = e.lastID.next(now)
	if l.gone { // deleted, or another node's by now: nothing of it is recorded
		l.ended(j)
		t.mu.Unlock()
		e.opts.Observe(a, b.Items[0].Event.Appended)
		return
	}
	var disable string
	opened := false
	switch {
	case taken:
		if l.circuit.taken() {
			l.pace.restart()
		} else {
			l.pace.taken()
		}
		l.lastTaken = now.UTC()
		a.Next = l.settleAll(j, l.fate(j, b, r, now))
	case !sameDestination(&j.sub.Destination, &l.sub.Destination):
		// It says nothing of where the events go now. That is tried at once, as one more try, which this one was and receivers
		// of the same webhook-id may have seen; the schedule counts what the destination was given to take them, so it is not charged.
		if l.putAllBack(j, b); l.sub.active() {
			a.Next = now.UTC()
		}
	case r.Outcome == eventhose.OutcomeGone:
		disable = "the receiver answered 410 Gone: it wants no more"
		l.putAllBack(j, b)
	default:
		if r.Slow {
			l.pace.slow(r.Started, now)
		}
		if r.RetryAfter > 0 && (r.Status == http.StatusTooManyRequests || r.Status == http.StatusServiceUnavailable) {
			l.hold = later(l.hold, now.Add(r.RetryAfter))
		}
		if probe := j.kind == eventhose.AttemptProbe; (probe || l.tellsOfOutage(j, r.Started)) && l.circuit.failed(now, probe, r.RetryAfter, e.jittered) {
			opened = true
		}
		if j.kind == eventhose.AttemptProbe {
			l.putAllBack(j, b)
			a.Next = l.circuit.nextProbe.UTC()
		} else {
			a.Next = l.settleAll(j, l.fate(j, b, r, now))
		}
		if after := time.Duration(l.sub.Retry.DisableAfter); after > 0 && !l.circuit.failingSince.IsZero() && now.Sub(l.circuit.failingSince) >= after {
			disable = fmt.Sprintf("nothing but failures since %s", l.circuit.failingSince.UTC().Format(time.RFC3339))
		}
	}
	l.changes.attempts = append(l.changes.attempts, a)
	l.ended(j)
	if opened {
		l.rescan() // what will wait is not held in memory meanwhile
	}
	if disable != "" && l.sub.active() {
		held := *l.sub // stands still at once, not only when the change has come round
		held.State = eventhose.StateDisabled
		l.sub = &held
		l.rescan() // what is matched from here on is not for it, so it reads for itself later
		e.attempts.Go(func() { e.disable(j.sub, disable) })
	}
	l.update()
	t.mu.Unlock()
	e.opts.Observe(a, b.Items[0].Event.Appended)
}

// judge gives the events that were sent their verdicts and reports whether any of them was taken.
func (j *job) judge(r sink.Result) bool {
	if r.Outcome == eventhose.OutcomeTaken {
		return true
	}
	if r.Reason != eventhose.ReasonPartly {
		return false
	}
	failed := make(map[string]bool, len(r.Failed))
	for _, f := range r.Failed {
		failed[f.ID] = true
	}
	taken := false
	for i := range j.items {
		it := &j.items[i]
		switch {
		case it.verdict != sent:
		case failed[it.event.ID]:
			it.verdict = refused
		default:
			taken = true
		}
	}
	return taken
}

// tellsOfOutage reports whether a failure is a sign that the destination is down, rather than that this event is one it
// will not take: nothing was taken since the event was tried first.
func (l *lane) tellsOfOutage(j *job, started time.Time) bool {
	if p := j.items[0].parked; p != nil && p.Tries+p.Attempts > 0 {
		started = p.Since
	}
	return l.lastTaken.Before(started)
}

// settleUnsent ends an attempt that did not take place. What is not kept needs no other.
func (e *Engine) settleUnsent(j *job) {
	l := j.lane
	l.tenant.mu.Lock()
	defer l.tenant.mu.Unlock()
	for i := range j.items {
		if j.items[i].verdict == kept {
			l.hold = later(l.hold, time.Now().Add(time.Second))
			break
		}
	}
	l.settleAll(j, fate{})
	l.ended(j)
	l.update()
}

// ended counts an attempt out; its slot comes back with the commit.
func (l *lane) ended(j *job) {
	l.sending--
	l.under -= len(j.items)
	l.changes.slots++
	if j.suspect {
		l.changes.suspects++
	}
	l.change()
}

// settleAll does with each event of an attempt what came of it, and goes on with what waited for them. It answers when
// what failed is tried next, zero if it is not.
func (l *lane) settleAll(j *job, f fate) time.Time {
	if l.gone {
		return time.Time{}
	}
	for i := range j.items {
		switch it := &j.items[i]; {
		case it.verdict == kept:
			l.putBack(it)
		case it.verdict == nothing, it.verdict == sent && !f.failed:
			l.settled1(j, it)
		default:
			l.failed(j, it, f)
		}
	}
	l.goOn(j)
	return f.due
}

// putAllBack lets the events of an attempt that took place and counts for nothing wait where they were.
func (l *lane) putAllBack(j *job, b *sink.Batch) {
	if l.gone {
		return
	}
	batch := ""
	if b.Subscription.Batch.Batched() {
		batch = b.ID
	}
	for i := range j.items {
		it := &j.items[i]
		if it.verdict == nothing {
			l.settled1(j, it)
			continue
		}
		if it.verdict != kept {
			l.notCharged(it, batch)
		}
		it.verdict = kept
		l.putBack(it)
	}
	l.goOn(j)
}

// notCharged counts an attempt that is not charged, in a batch if it was one at a batch.
func (l *lane) notCharged(it *item, batch string) {
	p := it.parked
	if p == nil {
		it.entry.tries++
		return
	}
	if p.Tries++; batch != "" {
		p.Batch = batch
	}
	l.parkRow(p.Parked)
}

// settled1 takes an event that needs no other attempt out of the lane.
func (l *lane) settled1(j *job, it *item) {
	switch {
	case it.parked != nil:
		l.back(it.parked)
		delete(l.parked, it.seq)
		l.unparkRow(it.seq)
		l.unblock(it.seq)
	case it.key != nil:
		if len(it.key.pending) > 0 && it.key.pending[0].seq == it.seq {
			l.passed(it.key, it.key.pending[0])
		}
	case j.replay != nil:
		if l.dead[it.seq] {
			delete(l.dead, it.seq)
			l.unparkRow(it.seq)
			l.unblock(it.seq)
		}
		l.replayed(j.replay, it.entry)
	default:
		it.entry.sending = false
		l.finish(it.entry)
	}
}

// putBack lets an event that was not tried wait where it was; for live ones goOn does the rest.
func (l *lane) putBack(it *item) {
	switch {
	case it.parked != nil:
		l.back(it.parked)
		l.hang(it.parked)
	case it.key == nil:
		it.entry.sending = false
	}
}

// goOn lets what waited for the events of an attempt go on.
func (l *lane) goOn(j *job) {
	first := &j.items[0]
	switch {
	case first.parked != nil || j.replay != nil:
	case len(j.items) == 1 && first.key == nil:
		l.next(first.entry, first.verdict == kept)
	default:
		l.goOnWithKeys(j)
	}
}

// goOnWithKeys is goOn for several live events, or for keys that are catching up.
func (l *lane) goOnWithKeys(j *job) {
	type rest struct {
		key   *blockedKey
		back  []*entry
		heads []eventhose.Sequence
	}
	keys := map[string]*rest{}
	var order []string
	var ready []*entry
	for i := range j.items {
		it := &j.items[i]
		if it.key == nil && (l.ordering != eventhose.OrderingKey || it.entry.key == "") {
			if it.verdict == kept {
				ready = append(ready, it.entry)
			}
			continue
		}
		k := keys[it.entry.key]
		if k == nil {
			k = &rest{key: it.key}
			keys[it.entry.key] = k
			order = append(order, it.entry.key)
		}
		if it.verdict == kept {
			k.back = append(k.back, it.entry)
		}
		if it.blocks {
			k.heads = append(k.heads, it.seq)
		}
	}
	for _, key := range order {
		switch k := keys[key]; {
		case k.key != nil:
			l.caughtUp(k.key, k.heads)
		case l.keys[key] != nil:
			for _, n := range k.back {
				l.wait(l.keys[key], n)
			}
			l.waitBehind(l.keys[key])
		case len(k.back) > 0:
			ready = append(ready, k.back[0])
			l.behind[key] = append(k.back[1:], l.behind[key]...)
		default:
			l.next(&entry{key: key}, false)
		}
	}
	if len(ready) > 0 {
		l.ready = append(ready, l.ready...)
	}
}

// disable holds a subscription because of its destination, and tells; unless that is another by now, of which the hint is on its way.
func (e *Engine) disable(s *subscription, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tenant, sub := s.Tenant, s.ID
	if now, err := e.lanes.Subscription(ctx, tenant, sub); err == nil && !sameDestination(&s.Destination, &now.Destination) {
		e.Changed(tenant, sub) // back to what is stored
		return
	}
	e.logger.Warn("subscription disabled", "tenant", tenant, "subscription", sub, "reason", reason)
	if err := e.lanes.Disable(ctx, tenant, sub, reason); err != nil {
		e.logger.Error("cannot disable a subscription", "tenant", tenant, "subscription", sub, "error", err)
		again := time.NewTimer(e.jittered(10 * time.Second))
		defer again.Stop()
		select {
		case <-again.C:
			e.Changed(tenant, sub) // back to what is stored
		case <-e.reading.Done():
		}
		return
	}
	body, err := json.Marshal(map[string]any{"subscription": sub, "reason": reason})
	if err == nil {
		err = e.system.AppendSystem(ctx, tenant, Disabled, body)
	}
	if err != nil {
		e.logger.Error("cannot tell that a subscription was disabled", "tenant", tenant, "subscription", sub, "error", err)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
