package deliver

import (
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// fate is what becomes of the events that an attempt failed at. All of them are charged and tried again together.
type fate struct {
	failed bool // those too that the receiver did not name
	state  eventhose.ParkedState
	now    time.Time
	due    time.Time
	result *sink.Result
	why    map[string]string // by event id, what the receiver says
	charge int
	batch  string
}

func (l *lane) fate(j *job, b *sink.Batch, r sink.Result, now time.Time) fate {
	f := fate{failed: r.Outcome != eventhose.OutcomeTaken && r.Reason != eventhose.ReasonPartly, state: eventhose.ParkedDead, now: now.UTC(), result: &r,
		charge: 1}
	if r.Outcome == eventhose.OutcomeTaken {
		return f
	}
	if p := j.items[0].parked; p != nil {
		f.charge += p.Attempts
	}
	if schedule := l.sub.Retry.Schedule; f.charge < len(schedule) {
		f.state = eventhose.ParkedRetrying
		f.due = now.Add(max(l.tenant.engine.jittered(time.Duration(schedule[f.charge])), r.RetryAfter)).UTC()
	}
	if !b.Subscription.Batch.Batched() {
		return f
	}
	if f.batch = b.ID; r.Reason == eventhose.ReasonPartly {
		f.why = make(map[string]string, len(r.Failed))
		for _, one := range r.Failed {
			f.why[one.ID] = one.Message
		}
		left := &sink.Batch{Subscription: b.Subscription}
		for i := range j.items {
			if it := &j.items[i]; it.verdict == refused {
				left.Items = append(left.Items, sink.Item{Event: it.event})
			}
		}
		if len(left.Items) < len(b.Items) {
			f.batch = batchID(left)
		}
	}
	return f
}

// failed parks an event.
func (l *lane) failed(j *job, it *item, f fate) {
	event := it.event
	p := store.Parked{Parked: eventhose.Parked{Event: event.ID, Sequence: it.seq, Type: event.Type, Key: event.Key, Since: f.now, Batch: f.batch},
		Previous: it.prev, Tries: 1 + it.tries()}
	if j.replay != nil {
		p.Replay = j.replay.ID
	}
	switch {
	case it.parked != nil:
		was := &it.parked.Parked
		p.Since, p.Replay, p.Redriven, p.Blocks = was.Since, was.Replay, was.Redriven, was.Blocks
		l.back(it.parked)
		delete(l.parked, it.seq)
	case j.replay != nil:
		_, p.Blocks = l.blocking[it.seq] // if it was dead, and held its key
	default:
		p.Blocks = l.ordering == eventhose.OrderingStrict || l.ordering == eventhose.OrderingKey && event.Key != ""
	}
	p.Attempts, p.State, p.Due = f.charge, f.state, f.due
	p.Status, p.Reason, p.Message = f.result.Status, f.result.Reason, f.result.Message
	if why := f.why[event.ID]; why != "" {
		p.Message = why
	}
	free := p.State == eventhose.ParkedDead && l.sub.OnExhausted == eventhose.OnExhaustedPark
	blocked := p.Blocks
	if free {
		p.Blocks = false
	}
	it.blocks = p.Blocks

	switch {
	case it.parked != nil:
		l.setAside(p)
		if blocked && free {
			l.unblock(it.seq)
		}
	case it.key != nil:
		if l.setAside(p); len(it.key.pending) > 0 && it.key.pending[0].seq == it.seq {
			l.passed(it.key, it.key.pending[0])
		}
	case j.replay != nil:
		if l.parked[it.seq] == nil && !l.dead[it.seq] {
			l.setAside(p)
		}
		l.replayed(j.replay, it.entry)
	default:
		it.entry.sending = false
		l.setAside(p)
		if p.Blocks {
			l.holdBehind(p.Sequence, p.Key)
		}
		l.finish(it.entry)
	}
}

// holdBehind makes the lane, or the key's later events, wait behind a parked event.
func (l *lane) holdBehind(head eventhose.Sequence, key string) {
	if l.ordering == eventhose.OrderingStrict {
		l.markBlocking(head, key)
		return
	}
	l.waitBehind(l.block(key, head))
}

// waitBehind has the live events of a key wait for it.
func (l *lane) waitBehind(k *blockedKey) {
	queue := l.behind[k.Key]
	delete(l.behind, k.Key)
	for _, n := range queue {
		l.wait(k, n)
	}
}

// setAside parks a row as retrying, leased or dead.
func (l *lane) setAside(p store.Parked) {
	if p.State == eventhose.ParkedDead {
		l.dead[p.Sequence] = true
	} else {
		l.hang(&parked{Parked: p})
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
