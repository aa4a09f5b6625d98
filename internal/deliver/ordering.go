package deliver

// A change of a subscription's ordering. What is set aside was set aside by the order that was: with strict order a parked event
// holds the lane, with order by key its key, whose later events are one row and behind the cursor. So that nothing overtakes what
// came before it, the lane first lets what is under way end, and then says anew who waits for whom:
//
//   - Order by key: what held the lane holds its key.
//   - Strict order: what held a key holds the lane. What waits in keys is due with what comes from the log, in one order.
//   - None: nothing is held up any more. What waits in a key is caught up, later ones of it behind them until that is done.
//
// What was set aside without order holds up nothing later either: others have passed it. The stored row does not say which order
// it is from, so whoever loads it does the same.

import (
	"math"
	"time"

	"github.com/eventhose/eventhose"
)

// reorder has the lane go by what its subscription's ordering is now. Nothing is under way.
func (l *lane) reorder() {
	l.ordering = l.sub.Ordering
	l.rescan()
	l.holdAnew()
	l.regroup()
	l.change()
}

// holdAnew has parked events hold what the lane's ordering says, whatever they held before.
func (l *lane) holdAnew() {
	if l.ordering == eventhose.OrderingKey {
		for seq, key := range l.blocking {
			if key == "" {
				continue
			}
			if k := l.keys[key]; k == nil || !holds(k.holders, seq) {
				l.block(key, seq)
			}
		}
		return
	}
	for _, k := range l.keys {
		if k.Head > 0 {
			k.holders = nil
			l.release(k)
		}
	}
}

// nextKey answers a key that catches up and of which an event may go now; with strict order the one with the earliest event.
func (l *lane) nextKey(now time.Time) *blockedKey {
	strict := l.ordering == eventhose.OrderingStrict
	var next *blockedKey
	for _, k := range l.released {
		switch {
		case k.under > 0 || len(k.pending) == 0:
		case strict:
			if next == nil || k.pending[0].seq < next.pending[0].seq {
				next = k
			}
		case !l.early(k.pending[0], now):
			return k
		}
	}
	if next == nil || next.pending[0].seq >= l.before(fromKeys) || l.early(next.pending[0], now) {
		return nil
	}
	return next
}

// before is the first place that a source leaves to another: with strict order, while events wait in keys from when the order was
// by key, these and what comes from the log go in one order. What is not read again yet counts as due.
func (l *lane) before(from int) eventhose.Sequence {
	first := eventhose.Sequence(math.MaxUint64)
	if l.ordering != eventhose.OrderingStrict || len(l.keys) == 0 || from == fromReplays {
		return first
	}
	for _, k := range l.released {
		switch after, _ := k.resumeAt(); {
		case len(k.pending) == 0 && after < k.Last:
			first = min(first, after+1)
		case len(k.pending) > 0 && from == fromLive:
			first = min(first, k.pending[0].seq)
		}
	}
	switch {
	case from == fromLive:
	case len(l.ready) > 0:
		first = min(first, l.ready[0].seq)
	default:
		first = min(first, l.examinedTo()+1)
	}
	return first
}
