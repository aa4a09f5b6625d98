package deliver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// settle changes the lane by what came of an attempt; the committer makes it durable.
func (e *Engine) settle(j *job, event *eventhose.Event, r sink.Result) {
	if r.Outcome != eventhose.OutcomeTaken && e.sending.Err() != nil {
		e.settleUnsent(j, false) // cut off because this node stops
		return
	}
	now := time.Now()
	a := e.record(j.batch(event), r)
	l, t := j.lane, j.lane.tenant
	t.mu.Lock()
	var disable string
	switch r.Outcome {
	case eventhose.OutcomeTaken:
		if l.circuit.taken() {
			l.pace.restart()
		} else {
			l.pace.taken()
		}
		l.lastTaken = now.UTC()
		l.settled1(j)
	case eventhose.OutcomeGone:
		disable = "the receiver answered 410 Gone: it wants no more"
		l.putBack(j, true)
	default:
		if r.Slow {
			l.pace.slow(r.Started, now)
		}
		if r.RetryAfter > 0 && (r.Status == http.StatusTooManyRequests || r.Status == http.StatusServiceUnavailable) {
			l.hold = later(l.hold, now.Add(r.RetryAfter))
		}
		if probe := j.kind == eventhose.AttemptProbe; (probe || l.tellsOfOutage(j, r.Started)) && l.circuit.failed(now, probe, r.RetryAfter) {
			l.unpinAll()
		}
		if j.kind == eventhose.AttemptProbe {
			l.putBack(j, true)
			a.Next = l.circuit.nextProbe.UTC()
		} else {
			a.Next = l.failed(j, event, r, now)
		}
		if after := time.Duration(l.sub.Retry.DisableAfter); after > 0 && !l.circuit.failingSince.IsZero() && now.Sub(l.circuit.failingSince) >= after {
			disable = fmt.Sprintf("nothing but failures since %s", l.circuit.failingSince.UTC().Format(time.RFC3339))
		}
	}
	if !l.gone {
		l.changes.attempts = append(l.changes.attempts, a)
	}
	l.ended(j)
	if disable != "" && l.sub.active() {
		held := *l.sub // stands still at once, not only when the change has come round
		held.State = eventhose.StateDisabled
		l.sub = &held
		l.rescan() // what is matched from here on is not for it, so it reads for itself later
		e.attempts.Go(func() { e.disable(t.id, l.id, disable) })
	}
	l.update()
	t.mu.Unlock()
	e.opts.Observe(a, event.Appended)
}

// tellsOfOutage reports whether a failure is a sign that the destination is down, rather than that this event is one it
// will not take: nothing was taken since the event was tried first.
func (l *lane) tellsOfOutage(j *job, started time.Time) bool {
	if j.parked != nil && j.parked.Tries > 0 {
		started = j.parked.Since
	}
	return l.lastTaken.Before(started)
}

// settleUnsent ends an attempt that did not take place: done says that the event needs no other.
func (e *Engine) settleUnsent(j *job, done bool) {
	l := j.lane
	l.tenant.mu.Lock()
	defer l.tenant.mu.Unlock()
	if done {
		l.settled1(j)
	} else {
		l.putBack(j, false)
		l.hold = later(l.hold, time.Now().Add(time.Second))
	}
	l.ended(j)
	l.update()
}

// ended counts an attempt out; its slot comes back with the commit.
func (l *lane) ended(j *job) {
	l.sending--
	l.changes.slots++
	if j.suspect {
		l.changes.suspects++
	}
	l.change()
}

// settled1 takes the event of a finished attempt out of the lane.
func (l *lane) settled1(j *job) {
	switch {
	case l.gone:
	case j.parked != nil:
		j.parked.sending = false
		delete(l.parked, j.seq)
		l.unparkRow(j.seq)
		l.unblock(j.seq)
	case j.key != nil:
		if len(j.key.pending) > 0 && j.key.pending[0].seq == j.seq {
			l.caughtUp(j.key, j.key.pending[0], false)
		}
	case j.replay != nil:
		if l.dead[j.seq] {
			delete(l.dead, j.seq)
			l.unparkRow(j.seq)
			l.unblock(j.seq)
		}
		l.replayed(j.replay, j.entry)
	default:
		j.entry.sending = false
		l.finish(j.entry)
		l.next(j.entry.key)
	}
}

// putBack lets the event of an attempt wait where it was; tried says that the attempt took place.
func (l *lane) putBack(j *job, tried bool) {
	tries := 0
	if tried {
		tries = 1
	}
	switch {
	case l.gone:
	case j.parked != nil:
		j.parked.sending = false
		j.parked.Tries += tries
		l.hang(j.parked)
		if tried {
			l.parkRow(j.parked.Parked)
		}
	case j.key != nil:
		j.key.sending = false
		if len(j.key.pending) > 0 {
			j.key.pending[0].tries += tries
		}
	case j.replay != nil:
		j.entry.sending = false
		j.entry.tries += tries
	default:
		j.entry.sending = false
		j.entry.tries += tries
		l.ready = append([]*entry{j.entry}, l.ready...)
	}
}

// failed charges an attempt to its event's schedule and parks the event. It answers when the next try is due, zero if
// there is none.
func (l *lane) failed(j *job, event *eventhose.Event, r sink.Result, now time.Time) time.Time {
	if l.gone {
		return time.Time{}
	}
	p := store.Parked{Parked: eventhose.Parked{Event: event.ID, Sequence: j.seq, Type: event.Type, Key: event.Key, Since: now.UTC()},
		Previous: j.prev, Tries: j.number}
	if j.replay != nil {
		p.Replay = j.replay.ID
	}
	if j.parked != nil {
		p.Since, p.Attempts, p.Replay, p.Redriven, p.Blocks = j.parked.Since, j.parked.Attempts, j.parked.Replay, j.parked.Redriven, j.parked.Blocks
		j.parked.sending = false
		delete(l.parked, j.seq)
	} else if j.replay == nil {
		p.Blocks = l.sub.Ordering == eventhose.OrderingStrict || l.sub.Ordering == eventhose.OrderingKey && event.Key != ""
	}
	p.Attempts++
	p.Status, p.Reason, p.Message = r.Status, r.Reason, r.Message
	p.State = eventhose.ParkedDead
	if schedule := l.sub.Retry.Schedule; p.Attempts < len(schedule) {
		p.State = eventhose.ParkedRetrying
		p.Due = now.Add(max(jittered(time.Duration(schedule[p.Attempts])), r.RetryAfter)).UTC()
	}
	free := p.State == eventhose.ParkedDead && l.sub.OnExhausted == eventhose.OnExhaustedPark
	blocked := p.Blocks
	if free {
		p.Blocks = false
	}

	switch {
	case j.parked != nil:
		l.setAside(p)
		if blocked && free {
			l.unblock(j.seq)
		}
	case j.key != nil:
		if l.setAside(p); len(j.key.pending) > 0 && j.key.pending[0].seq == j.seq {
			l.caughtUp(j.key, j.key.pending[0], p.Blocks)
		}
	case j.replay != nil:
		if l.parked[j.seq] == nil && !l.dead[j.seq] {
			l.setAside(p)
		}
		l.replayed(j.replay, j.entry)
	default:
		j.entry.sending = false
		l.setAside(p)
		if p.Blocks {
			l.holdBehind(p.Sequence, p.Key)
		}
		l.finish(j.entry)
		if !p.Blocks {
			l.next(j.entry.key)
		}
	}
	return p.Due
}

// holdBehind makes the lane, or the key's later events, wait behind a parked event.
func (l *lane) holdBehind(head eventhose.Sequence, key string) {
	if l.sub.Ordering == eventhose.OrderingStrict {
		l.blocking[head] = ""
		return
	}
	k := l.block(key, head)
	queue := l.behind[key]
	delete(l.behind, key)
	for _, n := range queue {
		l.wait(k, n)
	}
}

// setAside parks a row as retrying or dead.
func (l *lane) setAside(p store.Parked) {
	if p.State == eventhose.ParkedRetrying {
		l.hang(&parked{Parked: p})
	} else {
		l.dead[p.Sequence] = true
	}
	l.parkRow(p)
}

func (l *lane) parkRow(p store.Parked) {
	if l.changes.park == nil {
		l.changes.park = map[eventhose.Sequence]store.Parked{}
	}
	l.changes.park[p.Sequence] = p
	delete(l.changes.unpark, p.Sequence)
	l.change()
}

func (l *lane) unparkRow(seq eventhose.Sequence) {
	if l.changes.unpark == nil {
		l.changes.unpark = map[eventhose.Sequence]bool{}
	}
	l.changes.unpark[seq] = true
	delete(l.changes.park, seq)
	l.change()
}

// unpinAll gives back the memory of events that will wait.
func (l *lane) unpinAll() {
	for _, n := range l.window {
		l.tenant.engine.unpin(n)
	}
}

// disable holds a subscription and tells.
func (e *Engine) disable(tenant eventhose.TenantID, sub eventhose.SubscriptionID, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e.logger.Warn("subscription disabled", "tenant", tenant, "subscription", sub, "reason", reason)
	if err := e.lanes.Disable(ctx, tenant, sub, reason); err != nil {
		e.logger.Error("cannot disable a subscription", "tenant", tenant, "subscription", sub, "error", err)
		again := time.NewTimer(jittered(10 * time.Second))
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
