package embedded

import (
	"context"
	"crypto/rand"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Append implements store.Log. Calls may overlap: while one waits for its fsync the next is placed.
func (s *Store) Append(ctx context.Context, group []store.Append) ([]store.AppendResult, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if err := s.space.room(needAppend); err != nil {
		if s.space.tell() {
			s.logger.Warn("there is no room for more events: appends are refused until disk space is free", "data", s.dir, "error", err)
		}
		return nil, err
	}
	g := appendGroup{s: s, logs: map[tenantID]*logAppend{}}
	ids := 0
	for i := range group {
		if e := group[i].Events; len(e) > 0 && e[0].Event.ID != "" {
			ids += len(e)
		}
	}
	g.dedupe = dedupe{s: s, group: make(map[string]remembered, ids)}
	defer g.release()
	p, results, err := g.applyGroup(group)
	if err != nil {
		return nil, err
	}
	if p.batch == nil {
		// All were duplicates; their firsts may still be on the way to the disk.
		err = s.settled(logs)
	} else {
		err = s.await(p)
	}
	if err != nil {
		return nil, err
	}
	s.show()
	return results, nil
}

// appendGroup is one group on its way in.
type appendGroup struct {
	s      *Store
	dedupe dedupe
	batch  *pebble.Batch
	logs   map[tenantID]*logAppend
	order  []*logAppend
	// counter is that of its commit.
	counter uint64
	// fresh are the record batches that it has written.
	fresh []*cachedBatch
	// unused is what is left of randoms.
	unused  []byte
	randoms [512]byte
}

// keptBatch is how large a Pebble batch may have grown to be used again.
const keptBatch = 8 << 20

// logAppend is what a group adds to one log.
type logAppend struct {
	tenant tenantID
	st     *logState
	first  sequence
	next   sequence // the next free one
	bytes  int64    // of the whole log
	added  int
	w      batchWriter
}

// applyGroup places the group and starts its fsync. pending is empty if there was nothing new.
func (g *appendGroup) applyGroup(group []store.Append) (p pending, results []store.AppendResult, err error) {
	s := g.s
	s.logMu.Lock()
	defer s.logMu.Unlock()
	results = make([]store.AppendResult, len(group))
	g.batch = s.db.NewBatch(pebble.WithMaxRetainedSizeBytes(keptBatch))
	fresh := 0
	for i := range group {
		n, err := g.place(&group[i], &results[i])
		if err != nil {
			_ = g.batch.Close()
			return p, nil, err
		}
		fresh += n
	}
	if fresh == 0 {
		return p, results, g.batch.Close()
	}
	for _, l := range g.order {
		if l.added > 0 {
			g.flush(l)
			_ = g.batch.Set(tenantKey(spaceHead, l.tenant), encodeHead(l.st, l.first, l.next-1, l.bytes), nil)
		}
	}
	if p, err = s.apply(g.batch, g.applied, logs); err != nil {
		return p, nil, err
	}
	s.cache.append(g.fresh) // before logMu is free, so that no erasure came in between
	return p, results, nil
}

// applied takes note of the group in memory, under the apply lock.
func (g *appendGroup) applied() {
	h := &g.s.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	g.counter = g.s.commits.counter + 1
	h.unseen = append(h.unseen, g)
	for _, l := range g.order {
		if l.added == 0 {
			continue
		}
		l.st.applied, l.st.bytes = l.next-1, l.bytes
		if !l.st.tail && l.st.applied > l.st.matched {
			l.st.tail = true
			_ = g.batch.Set(tenantKey(spaceTail, l.tenant), nil, nil)
		}
	}
}

// show lets readers see what is durable, group by group in the order of their commits, and each in all its logs at once: a
// reference must not be seen before what it refers to, nor a repeat be answered before its first can be read.
func (s *Store) show() {
	s.commits.mu.Lock()
	durable := s.commits.durable
	s.commits.mu.Unlock()
	h := &s.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.unseen) > 0 && h.unseen[0].counter <= durable {
		for _, l := range h.unseen[0].order {
			if l.added > 0 {
				l.st.durable = max(l.st.durable, l.next-1)
			}
		}
		h.unseen[0] = nil
		h.unseen = h.unseen[1:]
	}
}

func (g *appendGroup) release() {
	for _, l := range g.order {
		g.s.release(l.st)
	}
}

func (g *appendGroup) log(tenant tenantID) (*logAppend, error) {
	if l := g.logs[tenant]; l != nil {
		return l, nil
	}
	st, err := g.s.state(tenant)
	if err != nil {
		return nil, err
	}
	g.s.heads.mu.Lock()
	l := &logAppend{tenant: tenant, st: st, first: st.first, next: st.applied + 1, bytes: st.bytes, w: batchWriter{room: &g.s.room}}
	g.s.heads.mu.Unlock()
	g.logs[tenant] = l
	g.order = append(g.order, l)
	return l, nil
}

// place gives one entry's new events their places and answers how many there are.
func (g *appendGroup) place(e *store.Append, result *store.AppendResult) (int, error) {
	l, err := g.log(e.Tenant)
	if err != nil {
		return 0, err
	}
	places, index, err := g.dedupe.place(e, l.first, l.next)
	if err != nil {
		return 0, err
	}
	if index >= 0 {
		result.Err, result.Index = store.ErrDifferent, index
		return 0, nil
	}
	var parent *logAppend
	if e.Parent != "" {
		if parent, err = g.log(e.Parent); err != nil {
			return 0, err
		}
	}
	result.Placements = make([]eventhose.Placement, len(e.Events))
	fresh := 0
	for i := range e.Events {
		ev, at := &e.Events[i], &places[i]
		if at.dup {
			result.Placements[i] = eventhose.Placement{ID: ev.Event.ID, Sequence: at.seq, Duplicate: true}
			continue
		}
		r := record{event: ev.Event}
		r.event.Tenant, r.event.Sequence = e.Tenant, at.seq
		if r.event.ID == "" {
			r.generated, r.random = true, g.random()
			r.event.ID = eventhose.EventID(at.seq, r.random)
		} else {
			g.s.ids.add(at.hash)
			op := g.batch.SetDeferred(len(at.key), rememberedSize)
			copy(op.Key, at.key)
			remembered{at.seq, ev.Digest}.put(op.Value)
			_ = op.Finish()
		}
		if parent != nil {
			r.parent, r.parentSeq = e.Parent, parent.next
		}
		g.add(l, &r)
		if parent != nil {
			g.refer(parent, &r.event)
		}
		result.Placements[i] = eventhose.Placement{ID: r.event.ID, Sequence: at.seq}
		fresh++
	}
	return fresh, nil
}

// refer places a reference to an event in the parent's log.
func (g *appendGroup) refer(parent *logAppend, e *eventhose.Event) {
	r := &record{event: *e}
	r.event.ID = string(e.Tenant) + "/" + e.ID
	r.event.Tenant, r.event.Sequence = parent.tenant, parent.next
	r.event.Origin = eventhose.Origin{Tenant: e.Tenant, Sequence: e.Sequence}
	r.event.Data = nil
	_ = g.batch.Set(furtherKey(parent.tenant, r.event.Scope, r.event.ID, parent.next), nil, nil)
	g.add(parent, r)
}

// add puts an event at the end of a log.
func (g *appendGroup) add(l *logAppend, r *record) {
	if !l.w.takes(r) {
		g.flush(l)
	}
	l.w.add(r)
	l.next++
	l.added++
	l.bytes += int64(len(r.event.Data))
}

// flush writes the record batch that a log is at.
func (g *appendGroup) flush(l *logAppend) {
	count := l.w.count
	if count == 0 {
		return
	}
	value, body := l.w.finish()
	_ = g.batch.Set(batchKey(l.tenant, l.next-1), value, nil)
	g.fresh = append(g.fresh, &cachedBatch{tenant: l.tenant, first: l.next - sequence(count), last: l.next - 1,
		size: batchSize(len(body), count), body: body})
}

// random answers what nobody can guess.
func (g *appendGroup) random() uint64 {
	if len(g.unused) == 0 {
		g.unused = g.randoms[:]
		_, _ = rand.Read(g.unused) // never fails
	}
	n := binary.LittleEndian.Uint64(g.unused)
	g.unused = g.unused[8:]
	return n
}
