package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// maxLaneRows is how many lanes' presence stays in memory, about 100 bytes each.
const maxLaneRows = 100_000

// laneRow is what a commit needs to know of a lane that is there or not.
type laneRow struct {
	exists bool
	work   bool // its row in the work index is there
}

func hasWork(l *store.Lane) bool { return l.Behind || !l.Due.IsZero() }

// laneWriter gathers changes to lanes in one batch. It is used under laneMu, and sees its own changes.
type laneWriter struct {
	s      *Store
	b      *pebble.Batch
	rows   map[store.LaneRef]laneRow
	parked map[string]bool // rows by event that this batch sets or deletes
	kept   map[tenantID]int64
	late   map[tenantID]bool // in which something is parked that the log no longer holds
	states map[tenantID]*logState
}

func (s *Store) newLaneWriter(b *pebble.Batch) *laneWriter {
	return &laneWriter{s: s, b: b, rows: map[store.LaneRef]laneRow{}, parked: map[string]bool{}, kept: map[tenantID]int64{}, late: map[tenantID]bool{}, states: map[tenantID]*logState{}}
}

func (w *laneWriter) release() {
	for _, st := range w.states {
		w.s.release(st)
	}
}

func (w *laneWriter) state(tenant tenantID) (*logState, error) {
	if st := w.states[tenant]; st != nil {
		return st, nil
	}
	st, err := w.s.state(tenant)
	if err == nil {
		w.states[tenant] = st
	}
	return st, err
}

// row answers whether a lane is there.
func (w *laneWriter) row(ref store.LaneRef) (laneRow, error) {
	if was, ok := w.rows[ref]; ok {
		return was, nil
	}
	if was, ok := w.s.laneRows[ref]; ok {
		return was, nil
	}
	l, err := w.s.lane(ref)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return laneRow{}, nil
	case err != nil:
		return laneRow{}, err
	}
	return laneRow{exists: true, work: hasWork(&l)}, nil
}

// finish writes what was summed up. The caller then applies the batch with applied as last.
func (w *laneWriter) finish() {
	for tenant, change := range w.kept {
		if change != 0 {
			_ = w.b.Set(tenantKey(spaceKeptSize, tenant), encodeSequence(sequence(max(0, w.states[tenant].kept+change))), nil)
		}
	}
}

// applied takes note of the changes in memory.
func (w *laneWriter) applied() {
	h := &w.s.heads
	h.mu.Lock()
	for tenant, change := range w.kept {
		w.states[tenant].kept = max(0, w.states[tenant].kept+change)
	}
	for tenant := range w.late {
		w.states[tenant].late++
	}
	h.mu.Unlock()
	if len(w.s.laneRows)+len(w.rows) > maxLaneRows {
		clear(w.s.laneRows)
	}
	for ref, is := range w.rows {
		w.s.laneRows[ref] = is
	}
}

// change applies one lane's change.
func (w *laneWriter) change(c *store.LaneChange) error {
	ref := c.Lane.LaneRef
	was, err := w.row(ref)
	if err != nil {
		return err
	}
	if c.Delete {
		return w.remove(ref, was)
	}
	if !was.exists && !c.Create {
		return nil
	}
	w.putLane(&c.Lane, was)
	first := sequence(0)
	if len(c.Park) > 0 {
		st, err := w.state(ref.Tenant)
		if err != nil {
			return err
		}
		first, _ = w.s.span(st)
	}
	for i := range c.Park {
		p := &c.Park[i]
		_ = w.b.Set(parkedKey(ref.Tenant, ref.Subscription, p.Sequence), row.EncodeParked(p), nil)
		at := parkedAtKey(ref.Tenant, p.Sequence, ref.Subscription)
		_ = w.b.Set(at, nil, nil)
		w.parked[string(at)] = true
		if p.Sequence < first {
			w.late[ref.Tenant] = true
		}
	}
	for _, seq := range c.Unpark {
		_ = w.b.Delete(parkedKey(ref.Tenant, ref.Subscription, seq), nil)
		if err := w.unkeep(ref, seq); err != nil {
			return err
		}
	}
	for i := range c.Block {
		_ = w.b.Set(blockedKey(ref.Tenant, ref.Subscription, c.Block[i].Key), row.EncodeBlocked(&c.Block[i]), nil)
	}
	for _, key := range c.Unblock {
		_ = w.b.Delete(blockedKey(ref.Tenant, ref.Subscription, key), nil)
	}
	w.putAttempts(ref, c.Attempts)
	return nil
}

func (w *laneWriter) putLane(l *store.Lane, was laneRow) {
	_ = w.b.Set(laneKey(spaceLane, l.Tenant, l.Subscription), row.EncodeLane(l), nil)
	work := hasWork(l)
	switch key := laneKey(spaceWork, l.Tenant, l.Subscription); {
	case work && !was.work:
		_ = w.b.Set(key, nil, nil)
	case !work && was.work:
		_ = w.b.Delete(key, nil)
	}
	w.rows[l.LaneRef] = laneRow{exists: true, work: work}
}

// unkeep takes back the row that says that a lane has parked an event, and the copy of the event if it was the last one.
func (w *laneWriter) unkeep(ref store.LaneRef, seq sequence) error {
	at := parkedAtKey(ref.Tenant, seq, ref.Subscription)
	_ = w.b.Delete(at, nil)
	w.parked[string(at)] = false
	st, err := w.state(ref.Tenant)
	if err != nil {
		return err
	}
	if first, _ := w.s.span(st); seq >= first {
		return nil
	}
	others, err := w.parkedAt(ref.Tenant, seq)
	if err != nil || len(others) > 0 {
		return err
	}
	return w.dropKept(ref.Tenant, seq)
}

// parkedAt answers who has an event parked, with this batch's changes.
func (w *laneWriter) parkedAt(tenant tenantID, seq sequence) ([]subscriptionID, error) {
	lower := seqKey(spaceParkedAt, tenant, seq)
	var subs []subscriptionID
	err := w.s.scan(lower, end(lower), func(key, _ []byte) (bool, error) {
		if _, changed := w.parked[string(key)]; !changed {
			subs = append(subs, subscriptionID(key[len(lower):]))
		}
		return true, nil
	})
	for key, there := range w.parked {
		if there && bytes.HasPrefix([]byte(key), lower) {
			subs = append(subs, subscriptionID(key[len(lower):]))
		}
	}
	return subs, err
}

// dropKept removes the copy of an event, if there is one.
func (w *laneWriter) dropKept(tenant tenantID, seq sequence) error {
	r, err := w.s.keptRecord(tenant, seq)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := w.state(tenant); err != nil {
		return err
	}
	_ = w.b.Delete(seqKey(spaceKept, tenant, seq), nil)
	if !r.generated {
		_ = w.b.Delete(furtherKey(tenant, r.event.Scope, r.event.ID, seq), nil)
	}
	w.kept[tenant] -= int64(len(r.event.Data))
	return nil
}

// remove deletes a lane and everything that hangs on it. Its rows among the attempts by event stay until the events go;
// they name attempts that are no longer there.
func (w *laneWriter) remove(ref store.LaneRef, was laneRow) error {
	w.rows[ref] = laneRow{}
	if !was.exists {
		return nil
	}
	lower := lanePrefix(spaceParked, ref.Tenant, ref.Subscription, 0)
	var parked []sequence
	err := w.s.scan(lower, end(lower), func(key, _ []byte) (bool, error) {
		seq, ok := seqAt(key, len(lower))
		if ok {
			parked = append(parked, seq)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for key, there := range w.parked { // parked by this batch
		n := len(prefix(spaceParkedAt, ref.Tenant, 0))
		if there && bytes.HasPrefix([]byte(key), prefix(spaceParkedAt, ref.Tenant, 0)) && key[n+8:] == string(ref.Subscription) {
			if seq, ok := seqAt([]byte(key), n); ok {
				parked = append(parked, seq)
			}
		}
	}
	for _, seq := range parked {
		if err := w.unkeep(ref, seq); err != nil {
			return err
		}
	}
	_ = w.b.Delete(laneKey(spaceLane, ref.Tenant, ref.Subscription), nil)
	_ = w.b.Delete(laneKey(spaceWork, ref.Tenant, ref.Subscription), nil)
	for _, space := range []byte{spaceParked, spaceBlocked, spaceAttempt} {
		lower := lanePrefix(space, ref.Tenant, ref.Subscription, 0)
		_ = w.b.DeleteRange(lower, end(lower), nil)
	}
	return nil
}

// Commit implements store.Lanes.
func (s *Store) Commit(ctx context.Context, p store.Progress) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if err := s.space.room(needProgress); err != nil {
		return err
	}
	b := s.db.NewBatch()
	w := s.newLaneWriter(b)
	defer w.release()
	done, err := s.applyProgress(w, &p)
	if err != nil {
		return err
	}
	return s.await(done)
}

func (s *Store) applyProgress(w *laneWriter, p *store.Progress) (done pending, err error) {
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	if err := s.leases.check(p.Fence); err != nil {
		return done, err
	}
	for i := range p.Lanes {
		if err := w.change(&p.Lanes[i]); err != nil {
			return done, err
		}
	}
	for _, t := range p.Matched {
		if _, err := w.state(t.Tenant); err != nil {
			return done, err
		}
	}
	w.finish()
	return s.apply(w.b, func() {
		w.applied()
		w.match(p.Matched)
	}, lanes)
}

// match moves the matching positions, under the apply lock, since they are compared with what is applied.
func (w *laneWriter) match(tails []store.Tail) {
	h := &w.s.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range tails {
		st := w.states[t.Tenant]
		if t.Matched <= st.matched {
			continue
		}
		st.matched = t.Matched
		_ = w.b.Set(tenantKey(spaceMatched, t.Tenant), encodeSequence(st.matched), nil)
		if st.tail && st.matched >= st.applied {
			st.tail = false
			_ = w.b.Delete(tenantKey(spaceTail, t.Tenant), nil)
		}
	}
}

// lane reads a lane's row.
func (s *Store) lane(ref store.LaneRef) (store.Lane, error) {
	value, err := s.get(laneKey(spaceLane, ref.Tenant, ref.Subscription))
	if errors.Is(err, pebble.ErrNotFound) {
		return store.Lane{}, store.ErrNotFound
	}
	if err != nil {
		return store.Lane{}, err
	}
	l, err := row.DecodeLane(ref, value)
	if err != nil {
		return store.Lane{}, corrupt(fmt.Sprintf("lane %s of %s", ref.Subscription, ref.Tenant), err)
	}
	return l, nil
}

// Lane implements store.Lanes.
func (s *Store) Lane(ctx context.Context, tenant tenantID, sub subscriptionID) (store.Lane, []store.BlockedKey, error) {
	if err := s.begin(ctx); err != nil {
		return store.Lane{}, nil, err
	}
	defer s.end()
	if sub == "" {
		return s.matcher(tenant)
	}
	l, blocked, err := s.laneAndBlocked(store.LaneRef{Tenant: tenant, Subscription: sub})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Lane{}, nil, err
	}
	if failure := s.settled(lanes); failure != nil {
		return store.Lane{}, nil, failure
	}
	return l, blocked, err
}

// laneAndBlocked reads a lane and its blocked keys as they are together.
func (s *Store) laneAndBlocked(ref store.LaneRef) (l store.Lane, blocked []store.BlockedKey, err error) {
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	if l, err = s.lane(ref); err != nil {
		return l, nil, err
	}
	lower := lanePrefix(spaceBlocked, ref.Tenant, ref.Subscription, 0)
	err = s.scan(lower, end(lower), func(key, value []byte) (bool, error) {
		k, err := row.DecodeBlocked(string(key[len(lower):]), value)
		if err != nil {
			return false, corrupt(fmt.Sprintf("blocked key of lane %s of %s", ref.Subscription, ref.Tenant), err)
		}
		blocked = append(blocked, k)
		return true, nil
	})
	return l, blocked, err
}

// Parked implements store.Lanes.
func (s *Store) Parked(ctx context.Context, tenant tenantID, sub subscriptionID, q store.ParkedQuery) ([]store.Parked, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if q.Limit <= 0 || q.After == ^sequence(0) {
		return nil, nil
	}
	if sub == "" {
		return s.parkedOfAll(ctx, tenant, q)
	}
	lower := lanePrefix(spaceParked, tenant, sub, 0)
	var rows []store.Parked
	err := s.scan(parkedKey(tenant, sub, q.After+1), end(lower), func(key, value []byte) (bool, error) {
		seq, ok := seqAt(key, len(lower))
		p, err := row.DecodeParked(seq, value)
		if err != nil || !ok {
			return false, corrupt(fmt.Sprintf("parked row of lane %s of %s", sub, tenant), row.ErrMalformed)
		}
		if q.State == "" || p.State == q.State {
			rows = append(rows, p)
		}
		return len(rows) < q.Limit, nil
	})
	if err != nil {
		return nil, err
	}
	return rows, s.settled(lanes)
}

// Work implements store.Lanes.
func (s *Store) Work(ctx context.Context, after store.LaneRef, limit int) ([]store.Lane, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if limit <= 0 {
		return nil, nil
	}
	lower := []byte{spaceWork}
	if after != (store.LaneRef{}) {
		lower = append(laneKey(spaceWork, after.Tenant, after.Subscription), 0)
	}
	var found []store.Lane
	err := s.scan(lower, []byte{spaceWork + 1}, func(key, _ []byte) (bool, error) {
		tenant, sub, ok := bytes.Cut(key[1:], []byte{0})
		if !ok {
			return false, corrupt("work index", row.ErrMalformed)
		}
		l, err := s.lane(store.LaneRef{Tenant: tenantID(tenant), Subscription: subscriptionID(sub)})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
		if err == nil && hasWork(&l) { // it may have changed since the row was read
			found = append(found, l)
		}
		return len(found) < limit, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, s.settled(lanes)
}

// Tails implements store.Lanes.
func (s *Store) Tails(ctx context.Context, after tenantID, limit int) ([]store.Tail, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if limit <= 0 {
		return nil, nil
	}
	lower := []byte{spaceTail}
	if after != "" {
		lower = append(tenantKey(spaceTail, after), 0)
	}
	var tails []store.Tail
	err := s.scan(lower, []byte{spaceTail + 1}, func(key, _ []byte) (bool, error) {
		t, err := s.tail(tenantID(key[1:]))
		if err != nil {
			return false, err
		}
		if t.Last > t.Matched {
			tails = append(tails, t)
		}
		return len(tails) < limit, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return tails, s.settled(lanes)
}

// matcher is the row that stands for the reader which matches a log.
func (s *Store) matcher(tenant tenantID) (store.Lane, []store.BlockedKey, error) {
	t, err := s.tail(tenant)
	return store.Lane{LaneRef: store.LaneRef{Tenant: tenant}, Cursor: t.Matched}, nil, err
}

func (s *Store) tail(tenant tenantID) (store.Tail, error) {
	st, err := s.state(tenant)
	if err != nil {
		return store.Tail{}, err
	}
	defer s.release(st)
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	return store.Tail{Tenant: tenant, Matched: st.matched, Last: st.durable}, nil
}
