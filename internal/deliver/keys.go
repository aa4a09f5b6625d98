package deliver

// Keys with order. An event that fails blocks its key: later events of the key are not kept one by one but counted in
// one row (first, last, count), and the cursor moves on. When the head is out of the way, the waiting events are read
// again from the log and sent one after another. One sweep over the log serves all keys that are being caught up.

import (
	"context"
	"errors"
	"slices"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

type blockedKey struct {
	store.BlockedKey
	// pending are the next waiting events, read again; swept is how far the log was read for them, with the last due sequence up to there.
	pending          []*entry
	swept, sweptPrev eventhose.Sequence
	under            int // of pending, from its beginning, are under way
	inSweep          bool
	// holders are the parked events that hold the key, by sequence; Head is the last of them.
	holders []eventhose.Sequence
}

// sweep reads the log once for all released keys that take part in it.
type sweep struct {
	active  bool
	at      eventhose.Sequence
	lastDue eventhose.Sequence
	pending int // entries over all keys
}

// block makes a key wait behind a parked event, and behind those that hold it already.
func (l *lane) block(key string, head eventhose.Sequence) *blockedKey {
	k := l.keys[key]
	switch {
	case k == nil:
		k = &blockedKey{BlockedKey: store.BlockedKey{Key: key}}
		l.keys[key] = k
	case k.Head == 0:
		l.leaveSweep(k)
		l.unrelease(k)
	}
	k.holders = hold(k.holders, head)
	k.Head = k.holders[len(k.holders)-1]
	l.markBlocking(head, key)
	l.writeKey(k)
	return k
}

// markBlocking notes that a parked event holds its key, or the lane.
func (l *lane) markBlocking(seq eventhose.Sequence, key string) {
	l.blocking[seq] = key
	if l.holding(key) > 1 {
		l.disorder(key)
	}
}

func (l *lane) writeKey(k *blockedKey) {
	if l.changes.block == nil {
		l.changes.block = map[string]*blockedKey{}
	}
	l.changes.block[k.Key] = k
	delete(l.changes.unblock, k.Key)
	l.change()
}

func (l *lane) dropKey(k *blockedKey) {
	delete(l.keys, k.Key)
	delete(l.changes.block, k.Key)
	if l.changes.unblock == nil {
		l.changes.unblock = map[string]bool{}
	}
	l.changes.unblock[k.Key] = true
	l.change()
}

func (l *lane) restoreKey(row store.BlockedKey, holders []eventhose.Sequence) {
	k := &blockedKey{BlockedKey: row}
	l.keys[k.Key] = k
	if k.Head == 0 || len(holders) == 0 {
		l.release(k) // what held it may have gone with retention
		return
	}
	k.holders = holders
	k.Head = holders[len(holders)-1]
}

// release lets what waits behind a key be caught up.
func (l *lane) release(k *blockedKey) {
	k.Head = 0
	if k.First == 0 || k.First > k.Last {
		l.dropKey(k)
		return
	}
	l.writeKey(k)
	l.released = append(l.released, k)
	after, _ := k.resumeAt()
	k.inSweep = l.sweep.active && after >= l.sweep.at
}

// wait folds an entry of the window into its key's row.
func (l *lane) wait(k *blockedKey, n *entry) {
	released := k.Head == 0
	if k.First > 0 && n.seq < k.First {
		l.waitBefore(k, n)
		return
	}
	if released && k.swept > 0 && k.swept >= k.Last && l.sweep.pending < windowSize {
		// All that waits is in memory already: so is this one.
		k.pending = append(k.pending, &entry{seq: n.seq, prev: n.prev, key: n.key, size: n.size, appended: n.appended})
		k.swept, k.sweptPrev = n.seq, n.seq
		l.sweep.pending++
	}
	if k.First == 0 {
		k.First, k.Previous = n.seq, n.prev
	}
	k.Last = max(k.Last, n.seq)
	k.Count++
	l.writeKey(k)
	l.finish(n)
}

// waitBefore folds in an entry that lies before those that wait: a changed filter wants it.
func (l *lane) waitBefore(k *blockedKey, n *entry) {
	if k.under > 0 {
		// The first of them are under way, and what is settled with them is settled up to there.
		at := k.under
		for at < len(k.pending) && k.pending[at].seq < n.seq {
			at++
		}
		k.pending = slices.Insert(k.pending, at, &entry{seq: n.seq, prev: n.prev, key: n.key, size: n.size, appended: n.appended})
		l.sweep.pending++
	} else {
		l.leaveSweep(k)
		k.First, k.Previous = n.seq, n.prev
	}
	k.Count++
	l.writeKey(k)
	l.finish(n)
}

// unblock takes a parked event out of the way of its key, or of its lane.
func (l *lane) unblock(head eventhose.Sequence) {
	key, blocks := l.blocking[head]
	if !blocks {
		return
	}
	delete(l.blocking, head)
	k, holds := l.keys[key], false
	if k != nil {
		k.holders, holds = letGo(k.holders, head)
	}
	switch {
	case holds && len(k.holders) == 0:
		l.release(k)
	case holds && k.Head == head:
		k.Head = k.holders[len(k.holders)-1]
		l.writeKey(k)
	}
	if l.holding(key) > 0 {
		l.disorder(key)
	}
}

// passed moves a key on over its first pending entry, which was settled.
func (l *lane) passed(k *blockedKey, n *entry) {
	k.pending = k.pending[1:]
	l.sweep.pending--
	l.tenant.engine.unpin(n)
	k.First, k.Previous = n.seq+1, n.seq
	if len(k.pending) > 0 && k.pending[0].seq <= n.seq {
		k.First, k.Previous = k.pending[0].seq, k.pending[0].prev
	}
	k.Count = max(0, k.Count-1)
}

// caughtUp goes on with a key when what was under way of it is settled; heads are those that hold it from now on.
func (l *lane) caughtUp(k *blockedKey, heads []eventhose.Sequence) {
	k.under = 0
	for _, head := range heads {
		l.holdBehind(head, k.Key)
	}
	if k.Head > 0 {
		return
	}
	if len(k.pending) == 0 && k.swept >= k.Last {
		l.unrelease(k)
		l.dropKey(k)
		return
	}
	l.writeKey(k)
}

func (l *lane) unrelease(k *blockedKey) {
	for i, r := range l.released {
		if r == k {
			l.released = append(l.released[:i:i], l.released[i+1:]...)
			return
		}
	}
}

// leaveSweep forgets what was read for a key.
func (l *lane) leaveSweep(k *blockedKey) {
	for _, n := range k.pending {
		l.tenant.engine.unpin(n)
	}
	l.sweep.pending -= len(k.pending)
	k.pending, k.swept, k.sweptPrev, k.inSweep = nil, 0, 0, false
}

// restartSweep forgets what was read and not sent for all keys.
func (l *lane) restartSweep() {
	for _, k := range l.released {
		if k.under > 0 {
			// Its first entries are under way and move First on when they are settled.
			for _, n := range k.pending[k.under:] {
				l.tenant.engine.unpin(n)
			}
			l.sweep.pending -= len(k.pending) - k.under
			k.pending = k.pending[:k.under]
			last := k.pending[k.under-1].seq
			k.swept, k.sweptPrev, k.inSweep = last, last, false
			continue
		}
		l.leaveSweep(k)
	}
	l.sweep.active = false
}

func (k *blockedKey) resumeAt() (after, lastDue eventhose.Sequence) {
	if k.swept > 0 {
		return k.swept, k.sweptPrev
	}
	return k.First - 1, k.Previous
}

// wantsSweep reports whether waiting events are to be read, and there is room for them.
func (l *lane) wantsSweep() bool {
	if len(l.released) == 0 || l.sweep.pending >= windowSize/2 {
		return false
	}
	if l.sweep.active {
		return true
	}
	for _, k := range l.released {
		if k.swept < k.Last {
			return true
		}
	}
	return false
}

// beginSweep starts a pass at the earliest place that a released key is to be read from.
func (l *lane) beginSweep() {
	first := true
	for _, k := range l.released {
		if k.swept >= k.Last {
			continue
		}
		if after, lastDue := k.resumeAt(); first || after < l.sweep.at {
			l.sweep.at, l.sweep.lastDue, first = after, lastDue, false
		}
	}
	l.sweep.active = !first
	for _, k := range l.released {
		k.inSweep = l.sweep.active && k.swept < k.Last
	}
}

// readSweep reads one page for the released keys.
func (t *tenant) readSweep(ctx context.Context, l *lane) error {
	t.mu.Lock()
	if !l.wantsSweep() {
		t.mu.Unlock()
		return nil
	}
	if !l.sweep.active {
		l.beginSweep()
	}
	after, f := l.sweep.at, l.sub.filter
	t.mu.Unlock()

	events, err := t.engine.store.Read(ctx, t.id, after, readLimit)
	if errors.Is(err, store.ErrTrimmed) {
		return t.overtakenKeys(ctx, l)
	}
	if err != nil {
		return err
	}
	due := t.matches(f, events)

	t.mu.Lock()
	defer t.mu.Unlock()
	if l.gone || !l.sweep.active || l.sweep.at != after || l.sub.filter != f {
		return nil
	}
	last := eventhose.Sequence(0)
	for _, k := range l.released {
		if k.inSweep {
			last = max(last, k.Last)
		}
	}
	for i, e := range events {
		if l.sweep.pending >= windowSize || e.Sequence > last {
			break
		}
		l.sweep.at = e.Sequence
		if !due[i] {
			continue
		}
		if k := l.keys[e.Key]; k != nil && k.Head == 0 && k.inSweep && e.Key != "" {
			if from, _ := k.resumeAt(); e.Sequence > from && e.Sequence <= k.Last {
				k.pending = append(k.pending, t.engine.pin(&entry{seq: e.Sequence, prev: l.sweep.lastDue, key: e.Key, appended: e.Appended}, e))
				l.sweep.pending++
			}
		}
		l.sweep.lastDue = e.Sequence
	}
	if len(events) == 0 {
		l.sweep.at = last
	}
	for _, k := range append([]*blockedKey(nil), l.released...) {
		if !k.inSweep {
			continue
		}
		if after, _ := k.resumeAt(); l.sweep.at > after {
			k.swept, k.sweptPrev = l.sweep.at, l.sweep.lastDue
		}
		if k.swept >= k.Last {
			k.inSweep = false
			if len(k.pending) == 0 {
				// What waited is no longer due: the filter has changed, or retention took it.
				l.unrelease(k)
				l.dropKey(k)
			}
		}
	}
	if l.sweep.at >= last {
		l.sweep.active = false
	}
	l.update()
	return nil
}

// overtakenKeys moves released keys to the first event that retention has left, and tells.
func (t *tenant) overtakenKeys(ctx context.Context, l *lane) error {
	head, err := t.engine.store.Head(ctx, t.id)
	if err != nil {
		return err
	}
	if err := l.tellOvertaken(ctx, head.First); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range append([]*blockedKey(nil), l.released...) {
		after, _ := k.resumeAt()
		if after+1 >= head.First || after >= k.Last {
			continue
		}
		if len(k.pending) > 0 {
			// What is in memory is sent, or found to be gone, one by one; only reading goes on further ahead.
			k.swept, k.sweptPrev = head.First-1, 0
			continue
		}
		l.leaveSweep(k)
		k.First, k.Previous = head.First, 0
		if k.Last < head.First {
			l.unrelease(k)
			l.dropKey(k)
			continue
		}
		l.writeKey(k)
	}
	l.sweep.active = false
	l.update()
	return nil
}
