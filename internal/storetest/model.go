package storetest

// The reference model: what a store must answer, in plain maps and slices, slow and obvious. It knows nothing of files,
// caches or groups. Where the seam leaves a choice to the driver (made ids, incarnations, how far a trim goes) the model
// checks that the choice is allowed and adopts it; everything else it predicts.

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Model is what a store holds as far as one script has written it. The zero Model is not usable; see NewModel. It is
// not safe for concurrent use.
type Model struct {
	logs    map[eventhose.TenantID]*logModel
	lanes   map[store.LaneRef]*laneModel
	records map[recordKey]store.Record
}

type logModel struct {
	incarnation          eventhose.Incarnation
	first, last, matched eventhose.Sequence
	events               map[eventhose.Sequence]*eventhose.Event // [first, last]; never changed in place
	kept                 map[eventhose.Sequence]*eventhose.Event // parked ones below first
	ids                  map[idKey]remembered
	// over is what the last trim has answered to be over the quota keep; whoever trims gives it up next.
	over []store.LostParked
	keep int64
}

type idKey struct{ scope, id string }

type remembered struct {
	seq    eventhose.Sequence
	digest [16]byte
}

type laneModel struct {
	row      store.Lane
	parked   map[eventhose.Sequence]store.Parked
	blocked  map[string]store.BlockedKey
	attempts []eventhose.Attempt // oldest first
}

type recordKey struct {
	tenant   eventhose.TenantID
	kind, id string
}

// NewModel is an empty store.
func NewModel() *Model {
	return &Model{logs: map[eventhose.TenantID]*logModel{}, lanes: map[store.LaneRef]*laneModel{}, records: map[recordKey]store.Record{}}
}

// Clone answers a model that changes on its own.
func (m *Model) Clone() *Model {
	c := NewModel()
	for id, l := range m.logs {
		n := *l
		n.events, n.kept, n.ids = maps.Clone(l.events), maps.Clone(l.kept), maps.Clone(l.ids)
		c.logs[id] = &n
	}
	for ref, l := range m.lanes {
		c.lanes[ref] = &laneModel{row: l.row, parked: maps.Clone(l.parked), blocked: maps.Clone(l.blocked), attempts: slices.Clone(l.attempts)}
	}
	c.records = maps.Clone(m.records)
	return c
}

func (m *Model) log(tenant eventhose.TenantID) *logModel {
	l := m.logs[tenant]
	if l == nil {
		l = &logModel{first: 1, events: map[eventhose.Sequence]*eventhose.Event{}, kept: map[eventhose.Sequence]*eventhose.Event{}, ids: map[idKey]remembered{}}
		m.logs[tenant] = l
	}
	return l
}

// Apply moves the model over one operation and its answer. An error says how the answer breaks the seam's contract.
func (m *Model) Apply(o Op, a Answer) error {
	var err error
	switch {
	case o.Append != nil:
		err = m.applyAppend(o.Append, a)
	case o.Trim != nil:
		err = m.applyTrim(*o.Trim, a)
	case o.Erase != nil:
		err = m.applyErase(*o.Erase, a)
	case o.Commit != nil:
		err = m.applyCommit(*o.Commit, a)
	case o.Save != nil:
		err = m.applySave(*o.Save, a)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	return nil
}

func (m *Model) applyAppend(group []store.Append, a Answer) error {
	if a.Err != nil {
		return fmt.Errorf("failed: %w", a.Err)
	}
	if len(a.Results) != len(group) {
		return fmt.Errorf("%d results for %d entries", len(a.Results), len(group))
	}
	for i, entry := range group {
		if err := m.applyEntry(entry, a.Results[i]); err != nil {
			return fmt.Errorf("entry %d of tenant %s: %w", i, entry.Tenant, err)
		}
	}
	for tenant, h := range a.Heads {
		l := m.log(tenant)
		if h.First != l.first || h.Last != l.last {
			return fmt.Errorf("head of %s is [%d,%d] after it, want [%d,%d]", tenant, h.First, h.Last, l.first, l.last)
		}
		if l.incarnation == 0 {
			l.incarnation = h.Incarnation
		}
		if h.Incarnation == 0 || h.Incarnation != l.incarnation {
			return fmt.Errorf("incarnation of %s became %d, was %d", tenant, h.Incarnation, l.incarnation)
		}
	}
	return nil
}

func (m *Model) applyEntry(entry store.Append, got store.AppendResult) error {
	l := m.log(entry.Tenant)
	firsts := map[idKey]int{}
	for i, e := range entry.Events {
		key := idKey{e.Event.Scope, e.Event.ID}
		digest, known := l.ids[key].digest, l.ids[key].seq != 0
		if at, ok := firsts[key]; ok && !known {
			digest, known = entry.Events[at].Digest, true
		}
		if e.Event.ID == "" || !known {
			firsts[key] = i
			continue
		}
		if digest != e.Digest {
			if !errors.Is(got.Err, store.ErrDifferent) || got.Index != i {
				return fmt.Errorf("id %q is remembered with another digest: got %v at %d, want ErrDifferent at %d", e.Event.ID, got.Err, got.Index, i)
			}
			return nil
		}
	}
	if got.Err != nil {
		return fmt.Errorf("refused at %d: %w", got.Index, got.Err)
	}
	if len(got.Placements) != len(entry.Events) {
		return fmt.Errorf("%d placements for %d events", len(got.Placements), len(entry.Events))
	}
	for i, e := range entry.Events {
		p, key := got.Placements[i], idKey{e.Event.Scope, e.Event.ID}
		if r, ok := l.ids[key]; ok && e.Event.ID != "" {
			if want := (eventhose.Placement{ID: e.Event.ID, Sequence: r.seq, Duplicate: true}); p != want {
				return fmt.Errorf("repeat answered %+v, want %+v", p, want)
			}
			continue
		}
		want := eventhose.Placement{ID: e.Event.ID, Sequence: l.last + 1}
		if want.ID == "" {
			if seq, ok := eventhose.EventIDSequence(p.ID); !ok || seq != want.Sequence {
				return fmt.Errorf("made id %q does not carry sequence %d", p.ID, want.Sequence)
			}
			want.ID = p.ID
		} else {
			l.ids[key] = remembered{want.Sequence, e.Digest}
		}
		if p != want {
			return fmt.Errorf("placement %d is %+v, want %+v", i, p, want)
		}
		ev := e.Event
		ev.ID, ev.Tenant, ev.Sequence = p.ID, entry.Tenant, p.Sequence
		l.last = p.Sequence
		l.events[p.Sequence] = &ev
		if entry.Parent != "" {
			up := m.log(entry.Parent)
			up.last++
			ref := ev
			ref.ID, ref.Tenant, ref.Sequence = string(entry.Tenant)+"/"+ev.ID, entry.Parent, up.last
			ref.Origin = eventhose.Origin{Tenant: entry.Tenant, Sequence: ev.Sequence}
			up.events[up.last] = &ref
		}
	}
	return nil
}

func (m *Model) applyErase(e EraseOp, a Answer) error {
	l := m.log(e.Tenant)
	here := l.find(e.Sequence)
	if here == nil {
		if !errors.Is(a.Err, store.ErrNotFound) {
			return fmt.Errorf("answered %v for an event that is not there", a.Err)
		}
		return nil
	}
	if a.Err != nil {
		return fmt.Errorf("failed: %w", a.Err)
	}
	l.erase(e.Sequence)
	origin := eventhose.Origin{Tenant: e.Tenant, Sequence: e.Sequence}
	for _, up := range m.logs {
		for _, in := range []map[eventhose.Sequence]*eventhose.Event{up.events, up.kept} {
			for seq, ref := range in {
				if ref.Origin == origin {
					up.erase(seq)
				}
			}
		}
	}
	return nil
}

func (l *logModel) erase(seq eventhose.Sequence) {
	for _, in := range []map[eventhose.Sequence]*eventhose.Event{l.events, l.kept} {
		if e := in[seq]; e != nil {
			gone := *e
			gone.Data, gone.Erased = nil, true
			in[seq] = &gone
		}
	}
}

func (l *logModel) find(seq eventhose.Sequence) *eventhose.Event {
	if e := l.events[seq]; e != nil {
		return e
	}
	return l.kept[seq]
}

func (m *Model) applyTrim(o TrimOp, a Answer) error {
	if a.Err != nil {
		return fmt.Errorf("failed: %w", a.Err)
	}
	l := m.log(o.Tenant)
	got, limit := a.Trimmed, l.trimmable(o.Trim)
	if l.last == 0 {
		limit = 1
	}
	if got.First < l.first || got.First > limit {
		return fmt.Errorf("first left is %d: it was %d and may become at most %d", got.First, l.first, limit)
	}
	removed, bytes := 0, int64(0)
	for seq := l.first; seq < got.First; seq++ {
		e := l.events[seq]
		removed++
		bytes += size(e)
		delete(l.events, seq)
		if key := (idKey{e.Scope, e.ID}); l.ids[key].seq == seq {
			delete(l.ids, key)
		}
		if len(m.parkers(o.Tenant, seq)) > 0 {
			l.kept[seq] = e
		}
	}
	if got.Removed != removed || got.Bytes != bytes {
		return fmt.Errorf("says it removed %d events of %d bytes, but these are %d of %d", got.Removed, got.Bytes, removed, bytes)
	}
	l.first = got.First
	if l.over, l.keep = nil, o.Trim.Keep; !a.Recovered {
		l.over = got.Over
	}
	defer m.forget(o.Tenant)
	return m.applyLost(o, l, got)
}

// size is what an event counts in its log: its data, which a reference has none of.
func size(e *eventhose.Event) int64 {
	if e.Origin != (eventhose.Origin{}) {
		return 0
	}
	return int64(len(e.Data))
}

// forget erases the references to events of a tenant that are no longer there.
func (m *Model) forget(tenant eventhose.TenantID) {
	l := m.log(tenant)
	for _, up := range m.logs {
		for seq, e := range up.events {
			if e.Origin.Tenant == tenant && l.find(e.Origin.Sequence) == nil {
				up.erase(seq)
			}
		}
	}
}

// trimmable answers the greatest first sequence that a trim may leave.
func (l *logModel) trimmable(t store.Trim) eventhose.Sequence {
	first, left := l.first, int64(0)
	for seq := l.first; seq <= l.last; seq++ {
		left += size(l.events[seq])
	}
	for ; first < l.last; first++ {
		e := l.events[first]
		old := !t.Before.IsZero() && e.Appended.Before(t.Before)
		if !old && (t.Bytes == 0 || left <= t.Bytes) {
			break
		}
		left -= size(e)
	}
	return first
}

// applyLost checks that the newest kept events stay within the quota, unless some are over it, and that nothing is lost while
// there is room.
func (m *Model) applyLost(o TrimOp, l *logModel, got store.Trimmed) error {
	gone := map[eventhose.Sequence]bool{}
	for _, p := range got.Lost {
		lane := m.lanes[store.LaneRef{Tenant: o.Tenant, Subscription: p.Subscription}]
		if lane == nil || l.kept[p.Sequence] == nil {
			return fmt.Errorf("lost %+v, which was not kept", p)
		}
		row, ok := lane.parked[p.Sequence]
		if !ok {
			return fmt.Errorf("lost %+v, which was not parked", p)
		}
		delete(lane.parked, p.Sequence)
		switch row.State { // the lane counts it no more
		case eventhose.ParkedRetrying, eventhose.ParkedLeased:
			lane.row.Retrying = max(0, lane.row.Retrying-1)
		case eventhose.ParkedDead:
			lane.row.Dead = max(0, lane.row.Dead-1)
		}
		if lane.row.Due.IsZero() {
			lane.row.Due = store.LongDue
		}
		gone[p.Sequence] = true
	}
	newestLost, size := eventhose.Sequence(0), int64(0)
	for seq := range gone {
		if len(m.parkers(o.Tenant, seq)) > 0 {
			return fmt.Errorf("lost sequence %d for some of its subscriptions only", seq)
		}
		newestLost = max(newestLost, seq)
	}
	oldestKept := eventhose.Sequence(math.MaxUint64)
	for seq, e := range l.kept {
		if !gone[seq] {
			size += int64(len(e.Data))
			oldestKept = min(oldestKept, seq)
		}
	}
	switch {
	case size > o.Trim.Keep && len(got.Over) == 0:
		return fmt.Errorf("keeps %d bytes aside, the quota is %d", size, o.Trim.Keep)
	case newestLost > oldestKept:
		return fmt.Errorf("lost %d and kept the older %d", newestLost, oldestKept)
	case newestLost > 0 && size+int64(len(l.kept[newestLost].Data)) <= o.Trim.Keep:
		return fmt.Errorf("lost %d though there was room for it: %d of %d bytes", newestLost, size, o.Trim.Keep)
	}
	for seq := range gone {
		delete(l.kept, seq)
	}
	return nil
}

// parkers are the subscriptions that have a sequence parked.
func (m *Model) parkers(tenant eventhose.TenantID, seq eventhose.Sequence) (subs []eventhose.SubscriptionID) {
	for ref, lane := range m.lanes {
		if _, ok := lane.parked[seq]; ok && ref.Tenant == tenant {
			subs = append(subs, ref.Subscription)
		}
	}
	return subs
}

func (m *Model) applyCommit(p store.Progress, a Answer) error {
	if a.Err != nil {
		return fmt.Errorf("failed: %w", a.Err)
	}
	for _, t := range p.Matched {
		l := m.log(t.Tenant)
		l.matched = max(l.matched, t.Matched)
	}
	for _, c := range p.Lanes {
		m.applyLane(c)
	}
	return nil
}

func (m *Model) applyLane(c store.LaneChange) {
	ref := c.Lane.LaneRef
	lane := m.lanes[ref]
	switch {
	case c.Delete:
		delete(m.lanes, ref)
		m.release(ref.Tenant)
		return
	case lane == nil && !c.Create:
		return
	case lane == nil:
		lane = &laneModel{parked: map[eventhose.Sequence]store.Parked{}, blocked: map[string]store.BlockedKey{}}
		m.lanes[ref] = lane
	}
	lane.row = c.Lane
	for _, p := range c.Park {
		lane.parked[p.Sequence] = p
	}
	for _, seq := range c.Unpark {
		delete(lane.parked, seq)
	}
	for _, b := range c.Block {
		lane.blocked[b.Key] = b
	}
	for _, key := range c.Unblock {
		delete(lane.blocked, key)
	}
	lane.attempts = append(lane.attempts, c.Attempts...)
	m.release(ref.Tenant)
}

// release forgets kept events that nobody has parked any more.
func (m *Model) release(tenant eventhose.TenantID) {
	l := m.log(tenant)
	before := len(l.kept)
	maps.DeleteFunc(l.kept, func(seq eventhose.Sequence, _ *eventhose.Event) bool { return len(m.parkers(tenant, seq)) == 0 })
	if len(l.kept) < before {
		m.forget(tenant)
	}
}

func (m *Model) applySave(s SaveOp, a Answer) error {
	for _, r := range s.Records {
		if stored := m.records[keyOf(r.Record)].Version; stored != r.Version {
			if !errors.Is(a.Err, store.ErrVersion) {
				return fmt.Errorf("answered %v to version %d where %d is stored", a.Err, r.Version, stored)
			}
			return nil
		}
	}
	if a.Err != nil {
		return fmt.Errorf("failed: %w", a.Err)
	}
	for _, r := range s.Records {
		if expired := !r.Expires.IsZero() && r.Expires.Before(wallClock); r.Delete || expired {
			delete(m.records, keyOf(r.Record))
			continue
		}
		rec := r.Record
		rec.Version++
		m.records[keyOf(rec)] = rec
	}
	for _, c := range s.Lanes {
		m.applyLane(c)
	}
	return nil
}

func keyOf(r store.Record) recordKey { return recordKey{r.Tenant, r.Kind, r.ID} }
