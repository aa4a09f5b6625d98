package embedded

import (
	"bytes"
	"context"
	"errors"
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
		t.Lose = nil
		sum.First = step.First
		sum.Removed += step.Removed
		sum.Bytes += step.Bytes
		sum.Lost = append(sum.Lost, step.Lost...)
		// What is aside beyond the quota is told of before more comes to it.
		sum.Over, err = s.over(ctx, tenant, t.Keep)
		if err != nil || len(sum.Over) > 0 || !more {
			return sum, err
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
	aside  map[sequence]bool // what this step keeps
}

func (s *Store) trimStep(ctx context.Context, tenant tenantID, t store.Trim) (store.Trimmed, bool, error) {
	if err := s.begin(ctx); err != nil {
		return store.Trimmed{}, false, err
	}
	defer s.end()
	step := trimming{laneWriter: s.newLaneWriter(s.db.NewBatch()), tenant: tenant, t: t,
		lanes: map[subscriptionID]*store.Lane{}, aside: map[sequence]bool{}}
	defer step.release()
	done, err := step.apply()
	if err != nil || done.batch == nil {
		return step.out, false, err
	}
	if err := s.await(done); err != nil {
		return step.out, step.more, err
	}
	if step.next > step.first {
		_ = s.fs.forget() // what it cannot remove goes at the next start
	}
	return step.out, step.more, nil
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
	if err := t.keep(); err != nil {
		return done, err
	}
	for _, p := range t.t.Lose {
		if err := t.lose(p); err != nil {
			return done, err
		}
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
	done, err = s.apply(t.b, t.trimmed, logs, lanes)
	s.heads.mu.Lock()
	t.st.trimming = 0
	s.heads.mu.Unlock()
	return done, err
}

// trimmed takes note of the step in memory. Readers are turned away at once: the batches are gone from here on.
func (t *trimming) trimmed() {
	h := &t.s.heads
	h.mu.Lock()
	t.st.first, t.st.bytes, t.st.trimming = t.next, t.bytes, t.first
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
	now, read, sure := time.Now(), 0, 0
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
			// What a clock that was ahead has stamped is no younger than what came after it.
			ahead := !t.t.Before.IsZero() && r.event.Appended.After(now)
			if stays = !old && !large && !ahead; stays {
				break
			}
			t.gone = append(t.gone, r)
			t.bytes -= int64(len(r.event.Data))
			t.next++
			if old || large {
				sure = len(t.gone)
			}
		}
		if stays {
			break
		}
	}
	for _, r := range t.gone[sure:] {
		t.bytes += int64(len(r.event.Data))
	}
	t.gone, t.next, t.more = t.gone[:sure], t.first+sequence(sure), t.more && sure > 0
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

// keep copies aside what is parked of the events that go.
func (t *trimming) keep() error {
	lower := prefix(spaceParkedAt, t.tenant, 0)
	return t.s.scan(seqKey(spaceParkedAt, t.tenant, t.first), seqKey(spaceParkedAt, t.tenant, t.next), func(key, _ []byte) (bool, error) {
		seq, ok := seqAt(key, len(lower))
		if !ok {
			return false, corrupt("parked rows by event of "+string(t.tenant), row.ErrMalformed)
		}
		if t.aside[seq] { // for another lane
			return true, nil
		}
		r := *t.gone[seq-t.first]
		if r.event.Origin != (eventhose.Origin{}) && !r.event.Erased {
			e, err := t.s.resolve(&r.event)
			if err != nil {
				return false, err
			}
			r.event = *e
		}
		t.putKept(&r)
		return true, nil
	})
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

// lose removes a parked row, and the event kept aside for it unless another lane has it parked.
func (t *trimming) lose(lost store.LostParked) error {
	seq, sub := lost.Sequence, lost.Subscription
	if seq >= t.first {
		return nil
	}
	ref := store.LaneRef{Tenant: t.tenant, Subscription: sub}
	value, err := t.s.get(parkedKey(t.tenant, sub, seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return t.unkeep(ref, seq)
	}
	if err != nil {
		return err
	}
	p, err := row.DecodeParked(seq, value)
	if err != nil {
		return corrupt("parked row of lane "+string(sub)+" of "+string(t.tenant), err)
	}
	_ = t.b.Delete(parkedKey(t.tenant, sub, seq), nil)
	if err := t.unkeep(ref, seq); err != nil {
		return err
	}
	t.out.Lost = append(t.out.Lost, lost)
	l := t.lanes[sub]
	if l == nil {
		read, err := t.s.lane(ref)
		if errors.Is(err, store.ErrNotFound) {
			return nil
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
	if l.Due.IsZero() {
		l.Due = store.LongDue
	}
	return nil
}

// over answers the parked events below the first one left that the quota has no room for, the oldest, and those that were
// parked when the log had lost their event. While there is room, and nothing was parked so late, it reads nothing.
func (s *Store) over(ctx context.Context, tenant tenantID, keep int64) (over []store.LostParked, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	st, err := s.state(tenant)
	if err != nil {
		return nil, err
	}
	defer s.release(st)
	s.heads.mu.Lock()
	first, total, late := st.first, st.kept, st.late
	found := late == st.sought
	s.heads.mu.Unlock()
	if total <= keep && found {
		return nil, nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix(spaceKept, tenant, 0), UpperBound: end(prefix(spaceKept, tenant, 0))})
	if err != nil {
		return nil, s.readError(err)
	}
	defer func() { _ = it.Close() }() // what it has met it has told when it was read
	lower := prefix(spaceParkedAt, tenant, 0)
	last, goes, missing := sequence(0), false, false
	err = s.scan(lower, seqKey(spaceParkedAt, tenant, first), func(key, _ []byte) (bool, error) {
		seq, ok := seqAt(key, len(lower))
		if !ok {
			return false, corrupt("parked rows by event of "+string(tenant), row.ErrMalformed)
		}
		if seq != last {
			last = seq
			if total <= keep && found {
				return false, nil
			}
			size, is, err := s.keptSize(it, tenant, seq, total > keep)
			if err != nil {
				return false, err
			}
			goes = !is || total > keep
			missing = missing || !is
			total -= size
		}
		if goes {
			over = append(over, store.LostParked{Subscription: subscriptionID(key[len(lower)+8:]), Sequence: seq})
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if !missing && !found {
		s.heads.mu.Lock()
		st.sought = max(st.sought, late)
		s.heads.mu.Unlock()
	}
	return over, s.settled(lanes)
}

// keptSize reports whether there is a copy of an event, and if it is asked for how many bytes of data that has.
func (s *Store) keptSize(it *pebble.Iterator, tenant tenantID, seq sequence, ask bool) (size int64, is bool, err error) {
	key := seqKey(spaceKept, tenant, seq)
	is = it.SeekGE(key) && bytes.Equal(it.Key(), key)
	if err := it.Error(); err != nil {
		return 0, false, s.readError(err)
	}
	if !is || !ask {
		return 0, is, nil
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return 0, false, s.readError(err)
	}
	r, err := decodeKept(tenant, seq, value)
	if err != nil {
		return 0, false, err
	}
	return int64(len(r.event.Data)), true, nil
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
