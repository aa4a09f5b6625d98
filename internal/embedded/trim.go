package embedded

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// Retention removes a log's oldest events. What a log shows ends exactly where it should; the record batch that this
// point lies in stays until all of it can go. It works in steps, each one commit of bounded work, so that appends and
// deliveries wait for none of them long.
const (
	trimEvents   = 2_000   // of one step
	trimBytes    = 4 << 20 // read by one step
	trimAttempts = 20_000  // removed by one step, beyond those of its first event
)

// Trim implements store.Log. It may answer an error after some steps; those stay done, and another call goes on.
func (s *Store) Trim(ctx context.Context, tenant tenantID, t store.Trim) (store.Trimmed, error) {
	var sum store.Trimmed
	for {
		step, more, err := s.trimStep(ctx, tenant, t)
		if err != nil {
			return sum, err
		}
		sum.First = step.First
		sum.Removed += step.Removed
		sum.Bytes += step.Bytes
		sum.Lost = append(sum.Lost, step.Lost...)
		if !more {
			return sum, nil
		}
	}
}

// trimming is one step.
type trimming struct {
	*laneWriter
	tenant tenantID
	t      store.Trim
	st     *logState
	first  sequence // before
	next   sequence // the first that stays
	gone   []*record
	bytes  int64 // of the log, after
	more   bool
	out    store.Trimmed
	lanes  map[subscriptionID]*store.Lane
	// parked says who has parked what below next, aside what this step keeps.
	parked map[sequence][]subscriptionID
	aside  map[sequence]bool
}

func (s *Store) trimStep(ctx context.Context, tenant tenantID, t store.Trim) (store.Trimmed, bool, error) {
	if err := s.begin(ctx); err != nil {
		return store.Trimmed{}, false, err
	}
	defer s.end()
	step := trimming{laneWriter: s.newLaneWriter(s.db.NewBatch()), tenant: tenant, t: t,
		lanes: map[subscriptionID]*store.Lane{}, parked: map[sequence][]subscriptionID{}, aside: map[sequence]bool{}}
	defer step.release()
	done, err := step.apply()
	if err != nil || done.batch == nil {
		return step.out, false, err
	}
	return step.out, step.more, s.await(done)
}

// apply decides and applies the step; pending is empty if there was nothing to do.
func (t *trimming) apply() (done pending, err error) {
	s := t.s
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	if t.st, err = t.state(t.tenant); err != nil {
		return done, err
	}
	if err := t.choose(); err != nil {
		return done, err
	}
	t.out.First = t.next
	if err := t.findParked(); err != nil {
		return done, err
	}
	if err := t.keep(); err != nil {
		return done, err
	}
	t.forgetIDs()
	if err := t.forgetTests(); err != nil {
		return done, err
	}
	for _, l := range t.lanes {
		t.putLane(l, t.rows[l.LaneRef])
	}
	if t.next > t.first {
		_ = t.b.DeleteRange(batchKey(t.tenant, t.first), batchKey(t.tenant, t.next), nil)
		_ = t.b.DeleteRange(seqKey(spaceTried, t.tenant, 1), seqKey(spaceTried, t.tenant, t.next), nil)
		_ = t.b.DeleteRange(runPrefix(t.tenant, 0, ""), runPrefix(t.tenant, uint64(t.next)>>runBlock, ""), nil)
		_ = t.b.Set(tenantKey(spaceHead, t.tenant), encodeHead(t.st, t.next, t.st.applied, t.bytes), nil)
	}
	t.finish()
	if t.b.Empty() {
		return done, t.b.Close()
	}
	return s.apply(t.b, t.trimmed, logs, lanes)
}

// trimmed takes note of the step in memory. Readers are turned away at once: the batches are gone from here on.
func (t *trimming) trimmed() {
	h := &t.s.heads
	h.mu.Lock()
	t.st.first, t.st.bytes = t.next, t.bytes
	h.mu.Unlock()
	t.laneWriter.applied()
}

// choose finds what goes: next, gone and bytes.
func (t *trimming) choose() error {
	h := &t.s.heads
	h.mu.Lock()
	t.first, t.bytes = t.st.first, t.st.bytes
	newest := t.st.applied
	h.mu.Unlock()
	t.next = t.first
	read := 0
	it, err := t.s.db.NewIter(&pebble.IterOptions{LowerBound: batchKey(t.tenant, t.first), UpperBound: end(prefix(spaceBatch, t.tenant, 0))})
	if err != nil {
		return t.s.readError(err)
	}
	defer func() { _ = it.Close() }() // what it has met it has told when it was read
	for t.next < newest {
		if len(t.gone) >= trimEvents || read >= trimBytes {
			t.more = true
			break
		}
		b, err := t.s.readBatch(it, t.tenant, t.next)
		if err != nil {
			return err
		}
		read += b.size
		stays := false
		for i := int(t.next - b.first); i < len(b.records) && t.next < newest; i++ {
			r := &b.records[i]
			old := !t.t.Before.IsZero() && r.event.Appended.Before(t.t.Before)
			large := t.t.Bytes > 0 && t.bytes > t.t.Bytes
			if stays = !old && !large; stays {
				break
			}
			t.gone = append(t.gone, r)
			t.bytes -= int64(len(r.event.Data))
			t.next++
		}
		if stays {
			break
		}
	}
	if err := t.forgetAttempts(); err != nil {
		return err
	}
	t.gone = t.gone[:t.next-t.first]
	t.out.Removed = len(t.gone)
	for _, r := range t.gone {
		t.out.Bytes += int64(len(r.event.Data))
	}
	return nil
}

// forgetAttempts removes the attempts all of whose events go. If there are very many it moves next back first.
func (t *trimming) forgetAttempts() error {
	if t.next == t.first {
		return nil
	}
	rows := 0
	err := t.tried(func(seq sequence, _ tried, _ []byte) bool {
		if rows++; rows > trimAttempts && seq > t.first {
			t.stopBefore(seq)
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	err = t.runs(func(block sequence, _ triedRun, _, _ []byte) bool {
		if rows++; rows > trimAttempts && block > t.first {
			t.stopBefore(block)
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	err = t.tried(func(_ sequence, when tried, key []byte) bool {
		if when.last < t.next {
			t.drop(key)
		}
		return true
	})
	if err != nil {
		return err
	}
	return t.runs(func(block sequence, run triedRun, key, attempts []byte) bool {
		if run.last < t.next {
			t.drop(attempts)
			_ = t.b.Delete(key, nil)
		}
		return true
	})
}

// stopBefore moves next back.
func (t *trimming) stopBefore(seq sequence) {
	if seq >= t.next {
		return
	}
	for _, r := range t.gone[seq-t.first : t.next-t.first] {
		t.bytes += int64(len(r.event.Data))
	}
	t.next, t.more = seq, true
}

// runs calls each for the rows of runs by block that have events up to next, with the block's first sequence, the row's
// key and the run's.
func (t *trimming) runs(each func(block sequence, run triedRun, key, attempts []byte) bool) error {
	lower := runPrefix(t.tenant, 0, "")
	n := len(lower) - 8
	return t.s.scan(lower, runPrefix(t.tenant, uint64(t.next-1)>>runBlock+1, ""), func(key, value []byte) (bool, error) {
		block, ok := seqAt(key, n)
		run, err := decodeTriedRun(value)
		if err != nil || !ok {
			return false, corrupt("attempts by event of "+string(t.tenant), row.ErrMalformed)
		}
		attempts, err := t.attemptOf(key[n+8:])
		if err != nil {
			return false, err
		}
		return each(block<<runBlock, run, key, attempts), nil
	})
}

// tried calls each for the rows of attempts by event up to next, with the keys of the attempts.
func (t *trimming) tried(each func(seq sequence, when tried, key []byte) bool) error {
	lower := seqKey(spaceTried, t.tenant, 1)
	n := len(lower) - 8
	return t.s.scan(lower, seqKey(spaceTried, t.tenant, t.next), func(key, value []byte) (bool, error) {
		seq, ok := seqAt(key, n)
		when, err := decodeTried(value)
		if err != nil || !ok {
			return false, corrupt("attempts by event of "+string(t.tenant), row.ErrMalformed)
		}
		attempt, err := t.attemptOf(key[n+8:])
		if err != nil {
			return false, err
		}
		return each(seq, when, attempt), nil
	})
}

// drop deletes an attempt, or a run, by its key.
func (t *trimming) drop(attempt []byte) {
	_ = t.b.Delete(attempt, nil)
	sub, id, ok := bytes.Cut(attempt[len(prefix(spaceAttempt, t.tenant, 0)):], []byte{0})
	if ok {
		_ = t.b.Delete(append(append(prefix(spaceRecent, t.tenant, len(id)+len(sub)), id...), sub...), nil)
	}
}

// attemptOf makes the key of an attempt of the end of its key by event: subscription, zero, id.
func (t *trimming) attemptOf(rest []byte) ([]byte, error) {
	if bytes.IndexByte(rest, 0) < 0 {
		return nil, corrupt("attempts by event of "+string(t.tenant), row.ErrMalformed)
	}
	return append(prefix(spaceAttempt, t.tenant, len(rest)), rest...), nil
}

// forgetTests removes the attempts of tests that are as old as what goes by age.
func (t *trimming) forgetTests() error {
	if t.t.Before.IsZero() {
		return nil
	}
	lower := seqKey(spaceTried, t.tenant, 0)
	rows := 0
	return t.s.scan(lower, end(lower), func(key, value []byte) (bool, error) {
		when, err := decodeTried(value)
		if err != nil {
			return false, corrupt("attempts by event of "+string(t.tenant), err)
		}
		attempt, err := t.attemptOf(key[len(lower):])
		if err == nil && time.Unix(when.started, 0).Before(t.t.Before) {
			t.drop(attempt)
			_ = t.b.Delete(key, nil)
		}
		rows++
		return rows < trimAttempts, err
	})
}

// findParked reads who has parked what below next.
func (t *trimming) findParked() error {
	lower := prefix(spaceParkedAt, t.tenant, 0)
	return t.s.scan(lower, seqKey(spaceParkedAt, t.tenant, t.next), func(key, _ []byte) (bool, error) {
		seq, ok := seqAt(key, len(lower))
		if !ok {
			return false, corrupt("parked rows by event of "+string(t.tenant), row.ErrMalformed)
		}
		t.parked[seq] = append(t.parked[seq], subscriptionID(key[len(lower)+8:]))
		return true, nil
	})
}

// keep copies parked events aside, the newest ones that fit, and gives up the others.
func (t *trimming) keep() error {
	total := t.st.kept
	type keptEvent struct {
		seq   sequence
		size  int64
		fresh *record // nil if it is kept already
	}
	var events []keptEvent
	if len(t.parked) == 0 && total == 0 {
		return nil
	}
	lower := prefix(spaceKept, t.tenant, 0)
	kept := map[sequence]bool{}
	err := t.s.scan(lower, end(lower), func(key, value []byte) (bool, error) {
		seq, _ := seqAt(key, len(lower))
		r, err := decodeKept(t.tenant, seq, value)
		if err != nil {
			return false, err
		}
		kept[seq] = true
		events = append(events, keptEvent{seq: seq, size: int64(len(r.event.Data))})
		return true, nil
	})
	if err != nil {
		return err
	}
	var orphans []sequence
	for seq := range t.parked {
		switch {
		case kept[seq]:
		case seq < t.first:
			orphans = append(orphans, seq) // parked when it was gone already
		default:
			r := *t.gone[seq-t.first]
			if r.event.Origin != (eventhose.Origin{}) && !r.event.Erased {
				e, err := t.s.resolve(&r.event)
				if err != nil {
					return err
				}
				r.event = *e
			}
			events = append(events, keptEvent{seq: seq, size: int64(len(r.event.Data)), fresh: &r})
			total += int64(len(r.event.Data))
		}
	}
	slices.SortFunc(events, func(a, b keptEvent) int { return int(int64(a.seq) - int64(b.seq)) })
	slices.Sort(orphans)
	for _, seq := range orphans {
		if err := t.lose(seq); err != nil {
			return err
		}
	}
	for _, e := range events {
		switch {
		case total > t.t.Keep:
			total -= e.size
			if err := t.lose(e.seq); err != nil {
				return err
			}
			if e.fresh == nil {
				if err := t.dropKept(t.tenant, e.seq); err != nil {
					return err
				}
			}
		case e.fresh != nil:
			t.putKept(e.fresh)
		}
	}
	return nil
}

func (t *trimming) putKept(r *record) {
	e := &r.event
	_ = t.b.Set(seqKey(spaceKept, t.tenant, e.Sequence), encodeBatch([]record{*r}), nil)
	if !r.generated {
		_ = t.b.Set(furtherKey(t.tenant, e.Scope, e.ID, e.Sequence), nil, nil)
	}
	t.kept[t.tenant] += int64(len(e.Data))
	t.aside[e.Sequence] = true
}

// lose removes the parked rows of an event that is not kept, and tells.
func (t *trimming) lose(seq sequence) error {
	subs := t.parked[seq]
	slices.Sort(subs)
	for _, sub := range subs {
		ref := store.LaneRef{Tenant: t.tenant, Subscription: sub}
		_ = t.b.Delete(parkedAtKey(t.tenant, seq, sub), nil)
		value, err := t.s.get(parkedKey(t.tenant, sub, seq))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		p, err := row.DecodeParked(seq, value)
		if err != nil {
			return corrupt("parked row of lane "+string(sub)+" of "+string(t.tenant), err)
		}
		_ = t.b.Delete(parkedKey(t.tenant, sub, seq), nil)
		t.out.Lost = append(t.out.Lost, store.LostParked{Subscription: sub, Sequence: seq})
		l := t.lanes[sub]
		if l == nil {
			read, err := t.s.lane(ref)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			l = &read
			t.lanes[sub] = l
			t.rows[ref] = laneRow{exists: true, work: hasWork(l)}
		}
		switch p.State {
		case eventhose.ParkedRetrying, eventhose.ParkedLeased:
			l.Retrying = max(0, l.Retrying-1)
		case eventhose.ParkedDead:
			l.Dead = max(0, l.Dead-1)
		}
	}
	return nil
}

// forgetIDs removes the remembered ids of what goes, but for the further ids of what is kept.
func (t *trimming) forgetIDs() {
	for _, r := range t.gone {
		e := &r.event
		switch {
		case e.Origin == (eventhose.Origin{}) && !r.generated:
			_ = t.b.Delete(idKey(t.tenant, e.Scope, e.ID), nil)
		case e.Origin != (eventhose.Origin{}) && !t.aside[e.Sequence]:
			_ = t.b.Delete(furtherKey(t.tenant, e.Scope, e.ID, e.Sequence), nil)
		}
	}
}
