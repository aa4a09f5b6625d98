package deliver

// Batches. A subscription may have several events travel in one request: those that are ready, of one source, by
// sequence. What fails together is tried again together, under the same id, which is made from which events they are.

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
)

// batchID names a batch by what is in it, so that a repeat has the same id, also after a restart, and what is left of a
// batch has another. Places alone do not say what is in it: in a log that was restored to an earlier point they are given again, to other
// events, and a receiver that drops repeats would drop those.
func batchID(b *sink.Batch) string {
	h := sha256.New()
	h.Write([]byte(b.Subscription.ID))
	h.Write([]byte{0})
	var text []byte
	for _, item := range b.Items {
		e := item.Event
		text = binary.BigEndian.AppendUint64(text[:0], uint64(e.Sequence))
		text = append(binary.AppendUvarint(text, uint64(len(e.Scope))), e.Scope...)
		text = append(binary.AppendUvarint(text, uint64(len(e.ID))), e.ID...)
		h.Write(text)
	}
	return "bat_" + eventhose.IDText([16]byte(h.Sum(nil)[:16]))
}

// tries is how often the event was tried before.
func (it *item) tries() int {
	if it.parked != nil {
		return it.parked.Tries
	}
	return it.entry.tries
}

// candidates are the events of a source that its next batch holds, those included that have to wait before their first
// attempt; full says that no more go into it.
type candidates struct {
	list  []*entry
	full  bool
	most  int
	limit int // bytes
	bytes int
	// before is the first place that is another source's.
	before eventhose.Sequence
}

// add reports whether there was room.
func (c *candidates) add(n *entry) bool {
	if c.full || n.seq >= c.before || len(c.list) > 0 && c.bytes+n.size > c.limit {
		c.full = true
		return false
	}
	c.list = append(c.list, n)
	c.bytes += n.size
	c.full = len(c.list) >= c.most || c.bytes >= c.limit
	return true
}

func (l *lane) candidates(from int, r *replay) candidates {
	policy := l.sub.Batch
	c := candidates{most: max(1, min(policy.MaxEvents, l.mayPark(from))), limit: policy.MaxBytes, before: l.before(from)}
	ordered := l.ordering != eventhose.OrderingNone
	switch from {
	case fromKeys:
		var all []*entry
		for _, k := range l.released {
			if k.under == 0 {
				all = append(all, k.pending[:min(len(k.pending), c.most)]...)
			}
		}
		slices.SortStableFunc(all, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
		for _, n := range all {
			if !c.add(n) {
				break
			}
		}
	case fromLive:
		busy := l.busyKeys()
		for _, n := range l.window {
			if n.sending || n.done || n.key != "" && busy[n.key] {
				continue
			}
			if !c.add(n) {
				break
			}
		}
	case fromReplays:
		for _, n := range r.window {
			if n.done {
				continue
			}
			if n.sending {
				if ordered {
					break
				}
				continue
			}
			if !c.add(n) {
				break
			}
		}
	}
	return c
}

// busyKeys are the keys of which a live event is under way: others of the key wait.
func (l *lane) busyKeys() map[string]bool {
	if l.ordering != eventhose.OrderingKey || l.sending == 0 {
		return nil
	}
	busy := map[string]bool{}
	for _, n := range l.window {
		if n.sending && n.key != "" {
			busy[n.key] = true
		}
	}
	return busy
}

// batchDue reports whether the next batch of a source needs to wait for more events no longer, or never.
func (l *lane) batchDue(from int, now time.Time) bool {
	return !l.waitsForMore() || !l.batchAt(from).After(now)
}

func (l *lane) waitsForMore() bool { return l.sub.Batch.Batched() && l.sub.Batch.MaxWait > 0 }

// batchAt is when the next batch of a source goes, zero if there is none.
func (l *lane) batchAt(from int) time.Time {
	c := l.candidates(from, nil)
	if len(c.list) == 0 {
		return time.Time{}
	}
	first := c.list[0]
	if first.tries > 0 {
		return time.Time{}
	}
	wait := time.Duration(l.sub.Retry.Schedule[0])
	at := first.appended.Add(max(wait, time.Duration(l.sub.Batch.MaxWait)))
	if !c.full {
		return at
	}
	if full := c.list[len(c.list)-1].appended.Add(wait); full.Before(at) {
		return full
	}
	return at
}

// fill makes the chosen attempt one at all events that go into its batch.
func (l *lane) fill(j *job, now time.Time) {
	if !l.sub.Batch.Batched() {
		return
	}
	var items []item
	if p := j.items[0].parked; p != nil {
		for _, m := range p.mates() {
			items = append(items, parkedItem(m))
		}
		j.items = items
		return
	}
	c := l.candidates(j.from, j.replay)
	items = make([]item, 0, len(c.list))
	for _, n := range c.list {
		if l.early(n, now) {
			break
		}
		it := l.tenant.engine.entryItem(n)
		if j.from == fromKeys {
			it.key = l.keys[n.key]
		}
		items = append(items, it)
	}
	if len(items) > 0 {
		j.items = items
	}
}

// takeReady takes what is sent of live events out of what is ready, and of what is behind that.
func (l *lane) takeReady(j *job) {
	if len(j.items) == 1 && l.ready[0] == j.items[0].entry {
		l.ready = l.ready[1:]
		return
	}
	l.ready = slices.DeleteFunc(l.ready, func(n *entry) bool { return n.sending })
	if l.ordering != eventhose.OrderingKey {
		return
	}
	for i := range j.items {
		key := j.items[i].entry.key
		queue, busy := l.behind[key]
		for len(queue) > 0 && queue[0].sending {
			queue = queue[1:]
		}
		if busy {
			l.behind[key] = queue
		}
	}
}
