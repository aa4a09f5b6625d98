package storetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Op is one changing call of the seam with its arguments; exactly one of the pointers or slices is set.
type Op struct {
	// N counts the operations of one script from 1. Everything that the operation stores shows it, see MarkOf.
	N      int
	Append []store.Append
	Trim   *TrimOp
	Erase  *EraseOp
	Commit *store.Progress
	Save   *SaveOp
}

// TrimOp are Trim's arguments.
type TrimOp struct {
	Tenant eventhose.TenantID
	Trim   store.Trim
}

// EraseOp are Erase's arguments.
type EraseOp struct {
	Tenant   eventhose.TenantID
	Sequence eventhose.Sequence
}

// SaveOp are Save's arguments.
type SaveOp struct {
	Records []store.RecordChange
	Lanes   []store.LaneChange
}

// Answer is what a store said to an Op.
type Answer struct {
	Results []store.AppendResult
	Trimmed store.Trimmed
	// Heads are those of the logs that an append touched, asked for right after it.
	Heads map[eventhose.TenantID]eventhose.Head
	Err   error
	// Recovered says that the store has not said it: Recover has found it out.
	Recovered bool
}

func (o Op) String() string {
	switch {
	case o.Append != nil:
		return fmt.Sprintf("op %d append of %d entries", o.N, len(o.Append))
	case o.Trim != nil:
		return fmt.Sprintf("op %d trim %+v", o.N, *o.Trim)
	case o.Erase != nil:
		return fmt.Sprintf("op %d erase %+v", o.N, *o.Erase)
	case o.Commit != nil:
		return fmt.Sprintf("op %d commit of %d lanes", o.N, len(o.Commit.Lanes))
	case o.Save != nil:
		return fmt.Sprintf("op %d save of %d records and %d lanes", o.N, len(o.Save.Records), len(o.Save.Lanes))
	}
	return fmt.Sprintf("op %d", o.N)
}

// Do calls the store.
func (o Op) Do(ctx context.Context, s store.Store) (a Answer) {
	switch {
	case o.Append != nil:
		if a.Results, a.Err = s.Append(ctx, o.Append); a.Err != nil {
			return a
		}
		a.Heads = map[eventhose.TenantID]eventhose.Head{}
		for _, entry := range o.Append {
			for _, tenant := range []eventhose.TenantID{entry.Tenant, entry.Parent} {
				if tenant == "" {
					continue
				}
				h, err := s.Head(ctx, tenant)
				if err != nil {
					a.Heads = nil // the append stands; whoever reads next meets the error again
					return a
				}
				a.Heads[tenant] = h
			}
		}
	case o.Trim != nil:
		a.Trimmed, a.Err = s.Trim(ctx, o.Trim.Tenant, o.Trim.Trim)
	case o.Erase != nil:
		a.Err = s.Erase(ctx, o.Erase.Tenant, o.Erase.Sequence)
	case o.Commit != nil:
		a.Err = s.Commit(ctx, *o.Commit)
	case o.Save != nil:
		a.Err = s.Save(ctx, o.Save.Records, o.Save.Lanes)
	}
	return a
}

// Source draws random numbers in [0, n), as a *rand.Rand of math/rand/v2 does.
type Source interface{ IntN(n int) int }

// Script makes random operations that make sense on what its model holds, over every changing method of the seam. Two
// scripts of different names share nothing in a store, so that they may run on it side by side.
type Script struct {
	Model *Model
	src   Source
	name  string // [a-z]+
	n     int
}

// The times of a script: events are appended a second apart from epoch. wallClock is any time between what a script
// lets expire and what it does not.
var (
	epoch     = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	wallClock = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	longGone  = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	farAway   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// NewScript goes on where m is after n operations. name is of lower-case letters and not the beginning of another's.
func NewScript(src Source, name string, m *Model, n int) *Script {
	return &Script{Model: m, src: src, name: name, n: n}
}

func (s *Script) tenants() []eventhose.TenantID {
	return []eventhose.TenantID{s.tenant("0"), s.tenant("1"), s.parent()}
}

func (s *Script) tenant(n string) eventhose.TenantID { return eventhose.TenantID(s.name + "-" + n) }
func (s *Script) parent() eventhose.TenantID         { return s.tenant("platform") }

// parentOf: tenant 1 is connected to the platform, 0 is alone.
func (s *Script) parentOf(t eventhose.TenantID) eventhose.TenantID {
	if t == s.tenant("1") {
		return s.parent()
	}
	return ""
}

func (s *Script) subs() []eventhose.SubscriptionID {
	var ids []eventhose.SubscriptionID
	for i := range 2 {
		ids = append(ids, eventhose.SubscriptionID("sub_"+eventhose.IDText([16]byte{15: byte(i + 1)})))
	}
	return ids
}

func (s *Script) kinds() []string { return []string{s.name + "key", s.name + "sub"} }

func pick[T any](s *Script, from []T) T { return from[s.src.IntN(len(from))] }

// chance is true in percent of all calls.
func (s *Script) chance(percent int) bool { return s.src.IntN(100) < percent }

// Kinds of operations, for Step.
var OpKinds = []string{"append", "commit", "save", "erase", "trim"}

// Next makes an operation of a random kind; after a trim that has answered what is over the quota, the one that gives that up.
func (s *Script) Next() Op {
	for _, tenant := range s.tenants() {
		if l := s.Model.log(tenant); len(l.over) > 0 {
			s.n++
			return Op{N: s.n, Trim: &TrimOp{tenant, store.Trim{Keep: l.keep, Lose: l.over}}}
		}
	}
	weights := []int{45, 32, 13, 6, 4}
	at := s.src.IntN(100)
	for i, w := range weights {
		if at -= w; at < 0 {
			return s.Step(OpKinds[i])
		}
	}
	return s.Step("append")
}

// Step makes an operation of one kind of OpKinds, or an append if there is nothing yet to do that to.
func (s *Script) Step(kind string) Op {
	s.n++
	o := Op{N: s.n}
	switch kind {
	case "commit":
		o.Commit = s.progress()
	case "save":
		o.Save = s.save()
	case "erase":
		o.Erase = s.erase()
	case "trim":
		o.Trim = s.trim()
	}
	if o.Commit == nil && o.Save == nil && o.Erase == nil && o.Trim == nil {
		o.Append = s.group()
	}
	return o
}

func (s *Script) group() []store.Append {
	group := make([]store.Append, 1+s.src.IntN(4)/2)
	for i := range group {
		tenant := pick(s, s.tenants())
		group[i] = store.Append{Tenant: tenant, Parent: s.parentOf(tenant)}
		n := 1 + s.src.IntN(3)
		if s.chance(5) {
			n = 20
		}
		for range n {
			group[i].Events = append(group[i].Events, s.event(tenant))
		}
	}
	return group
}

func (s *Script) event(tenant eventhose.TenantID) store.NewEvent {
	at := epoch.Add(time.Duration(s.n) * time.Second)
	e := eventhose.Event{Type: pick(s, []string{"order.paid", "order.sent", "a", "eventhose.test"}), Time: at.Add(-time.Duration(s.src.IntN(1e9))),
		Appended: at, Version: markText(s.n), Data: s.data()}
	if s.chance(50) {
		e.Key = pick(s, []string{"k1", "k2", "Schlüssel", "k/4"})
	}
	if s.chance(30) {
		e.Attributes = map[string]string{"region": "eu", "n": fmt.Sprint(s.src.IntN(9))}
	}
	if s.chance(20) {
		e.ContentType = "application/octet-stream"
	}
	if s.chance(30) {
		e.Scope = "https://example.com/source"
	}
	var digest [16]byte
	if s.chance(60) {
		e.ID, digest = s.id(tenant, e.Scope)
	}
	return store.NewEvent{Event: e, Digest: digest}
}

// id makes a client's id: new, or remembered with its own digest, or with another.
func (s *Script) id(tenant eventhose.TenantID, scope string) (string, [16]byte) {
	digest := [16]byte{0: byte(s.n), 1: byte(s.n >> 8), 15: 1 + byte(s.src.IntN(200))}
	var known []idKey
	if s.chance(35) {
		for k := range s.Model.log(tenant).ids {
			if k.scope == scope {
				known = append(known, k)
			}
		}
	}
	if len(known) == 0 {
		switch s.src.IntN(10) {
		case 0: // looks like one of ours, of a place that is or will be somebody else's
			return eventhose.EventID(eventhose.Sequence(1+s.src.IntN(50)), uint64(s.n)<<20+uint64(s.src.IntN(1<<20))), digest
		case 1: // twice in one group, sooner or later
			return fmt.Sprintf("%d", s.n), [16]byte{15: 1}
		}
		return fmt.Sprintf("client-%d-%d", s.n, s.src.IntN(1e6)), digest
	}
	slices.SortFunc(known, func(a, b idKey) int { return int(s.Model.log(tenant).ids[a].seq) - int(s.Model.log(tenant).ids[b].seq) })
	key := pick(s, known)
	if s.chance(80) {
		digest = s.Model.log(tenant).ids[key].digest
	}
	return key.id, digest
}

// data makes payloads that do not compress away, mostly small.
func (s *Script) data() []byte {
	size := s.src.IntN(200)
	if s.chance(4) {
		size = 4096 + s.src.IntN(12000)
	}
	state := uint64(s.src.IntN(1<<30))<<20 + uint64(s.n)
	b := make([]byte, size)
	for i := range b {
		state = state*6364136223846793005 + 1442695040888963407
		b[i] = byte(state >> 56)
	}
	return b
}

// place picks a sequence that is in the log, 0 if there is none.
func (s *Script) place(tenant eventhose.TenantID) eventhose.Sequence {
	l := s.Model.log(tenant)
	if l.last < l.first {
		return 0
	}
	return l.first + eventhose.Sequence(s.src.IntN(int(l.last-l.first+1)))
}

func (s *Script) erase() *EraseOp {
	tenant := pick(s, s.tenants())
	l := s.Model.log(tenant)
	seq := s.place(tenant)
	if kept := sortedKeys(l.kept); len(kept) > 0 && s.chance(30) {
		seq = pick(s, kept)
	}
	switch {
	case s.chance(5):
		seq = l.last + 1 // not there
	case seq == 0:
		return nil
	}
	return &EraseOp{tenant, seq}
}

func (s *Script) trim() *TrimOp {
	tenant := pick(s, s.tenants())
	l := s.Model.log(tenant)
	seq := s.place(tenant)
	if seq == 0 {
		return nil
	}
	t := store.Trim{Keep: int64(pick(s, []int{0, 300, 1 << 20, 1 << 20}))}
	if s.chance(60) {
		t.Before = l.events[seq].Appended
	} else {
		t.Bytes = int64(200 + s.src.IntN(3000))
	}
	return &TrimOp{tenant, t}
}

func (s *Script) save() *SaveOp {
	var o SaveOp
	used := map[recordKey]bool{}
	for range 1 + s.src.IntN(3) {
		tenant := pick(s, append(s.tenants(), ""))
		r := store.Record{Tenant: tenant, Kind: pick(s, s.kinds()), ID: fmt.Sprintf("r%d", s.src.IntN(6))}
		stored := s.Model.records[keyOf(r)]
		if r.Version = stored.Version; s.chance(8) {
			r.Version++
		}
		if used[keyOf(r)] {
			continue
		}
		used[keyOf(r)] = true
		change := store.RecordChange{Record: r, Delete: stored.Version > 0 && s.chance(20)}
		if !change.Delete {
			change.Value = append([]byte(markText(s.n)+" "), s.data()...)
			switch s.src.IntN(6) {
			case 0:
				change.Expires = farAway
			case 1:
				change.Expires = longGone
			}
		}
		o.Records = append(o.Records, change)
	}
	if s.chance(25) {
		o.Lanes = append(o.Lanes, s.laneChange(store.LaneRef{Tenant: pick(s, s.tenants()), Subscription: pick(s, s.subs())}))
	}
	return &o
}

func (s *Script) progress() *store.Progress {
	var p store.Progress
	if s.chance(40) {
		tenant := pick(s, s.tenants())
		if seq := s.place(tenant); seq > 0 {
			p.Matched = append(p.Matched, store.Tail{Tenant: tenant, Matched: seq, Last: s.Model.log(tenant).last})
		}
	}
	used := map[store.LaneRef]bool{}
	for range 1 + s.src.IntN(3) {
		ref := store.LaneRef{Tenant: pick(s, s.tenants()), Subscription: pick(s, s.subs())}
		if !used[ref] {
			used[ref] = true
			p.Lanes = append(p.Lanes, s.laneChange(ref))
		}
	}
	return &p
}

func (s *Script) laneChange(ref store.LaneRef) store.LaneChange {
	lane := s.Model.lanes[ref]
	c := store.LaneChange{Lane: store.Lane{LaneRef: ref, Probes: s.n}}
	switch {
	case lane == nil && s.chance(75):
		c.Create = true
		lane = &laneModel{}
	case lane == nil: // a change to a lane that is not there is left out
		lane = &laneModel{}
	case s.chance(4):
		c.Delete = true
		return c
	}
	at := epoch.Add(time.Duration(s.n) * time.Minute)
	l, row := s.Model.log(ref.Tenant), &c.Lane
	row.Cursor = lane.row.Cursor + eventhose.Sequence(s.src.IntN(3))
	row.Previous = row.Cursor / 2
	for i := range s.src.IntN(4) {
		row.Settled = append(row.Settled, row.Cursor+eventhose.Sequence(2*i+2))
	}
	row.Behind, row.Open, row.Run = s.chance(50), s.chance(20), s.src.IntN(5)
	row.Retrying, row.Dead, row.Waiting = s.src.IntN(5), s.src.IntN(5), s.src.IntN(5)
	if s.chance(40) {
		row.Due = at.Add(time.Duration(s.src.IntN(100)) * time.Second)
	}
	if s.chance(40) {
		row.FailingSince, row.LastSuccess = at, at.Add(-time.Hour)
	}
	if s.chance(15) {
		row.Replays = []eventhose.Replay{{ID: "r1", From: 1, To: 9, Types: []string{"order.*"}, At: 3, Sent: s.n, Created: at}}
	}
	s.parkedChanges(&c, lane, at)
	for i := range s.src.IntN(3) {
		if l.last < l.first {
			break
		}
		c.Attempts = append(c.Attempts, s.attempt(ref, i, at))
	}
	return c
}

func (s *Script) parkedChanges(c *store.LaneChange, lane *laneModel, at time.Time) {
	touched := map[eventhose.Sequence]bool{}
	for _, seq := range sortedKeys(lane.parked) {
		if s.chance(25) {
			touched[seq] = true
			c.Unpark = append(c.Unpark, seq)
		} else if s.chance(20) {
			touched[seq] = true
			c.Park = append(c.Park, s.parked(s.Model.log(c.Lane.Tenant).find(seq), seq, at))
		}
	}
	for range s.src.IntN(4) {
		if seq := s.place(c.Lane.Tenant); seq > 0 && !touched[seq] {
			touched[seq] = true
			c.Park = append(c.Park, s.parked(s.Model.log(c.Lane.Tenant).find(seq), seq, at))
		}
	}
	for _, key := range sortedKeys(lane.blocked) {
		if s.chance(40) {
			c.Unblock = append(c.Unblock, key)
		}
	}
	if key := pick(s, []string{"", "k1", "k2", "a/b", "Schlüssel"}); key != "" && !slices.Contains(c.Unblock, key) {
		c.Block = append(c.Block, store.BlockedKey{Key: key, Head: 3, First: 4, Last: eventhose.Sequence(4 + s.n), Count: s.n, Previous: 2})
	}
}

func (s *Script) parked(e *eventhose.Event, seq eventhose.Sequence, at time.Time) store.Parked {
	p := store.Parked{Previous: seq - 1, Tries: s.n, Redriven: s.chance(10)}
	p.Sequence, p.State = seq, pick(s, []eventhose.ParkedState{eventhose.ParkedRetrying, eventhose.ParkedDead, eventhose.ParkedWaiting, eventhose.ParkedLeased})
	if e != nil {
		p.Event, p.Type, p.Key = e.ID, e.Type, e.Key
	}
	p.Attempts, p.Since, p.Status, p.Reason, p.Message, p.Blocks = s.src.IntN(9), at, 503, eventhose.ReasonStatus, "answered 503", s.chance(20)
	if p.State == eventhose.ParkedRetrying {
		p.Due = at.Add(time.Minute)
	}
	if s.chance(30) {
		p.Batch = fmt.Sprintf("bat_%d", s.n)
	}
	return p
}

func (s *Script) attempt(ref store.LaneRef, i int, at time.Time) eventhose.Attempt {
	l := s.Model.log(ref.Tenant)
	a := eventhose.Attempt{ID: "att_" + eventhose.IDText([16]byte{4: byte(s.n >> 16), 5: byte(s.n >> 8), 6: byte(s.n), 7: byte(i), 9: s.subByte(ref.Subscription)}),
		Tenant: ref.Tenant, Subscription: ref.Subscription, Kind: eventhose.AttemptFirst, Number: 1 + s.src.IntN(5), Outcome: eventhose.OutcomeFailed,
		Reason: eventhose.ReasonStatus, Message: "answered 503", Status: 503, Started: at, Duration: eventhose.Duration(s.src.IntN(1e9)),
		Phases: eventhose.Phases{DNS: 1, Wait: 5}, URL: "https://example.com/hook", Address: "192.0.2.1:443",
		ResponseHeaders: map[string]string{"Retry-After": "5"}, ResponseBody: "try\nlater", Next: at.Add(time.Minute)}
	for seq := s.place(ref.Tenant); seq <= l.last && len(a.Sequences) < 1+i; seq++ {
		a.Sequences = append(a.Sequences, seq)
		a.Events = append(a.Events, l.events[seq].ID)
	}
	if len(a.Sequences) > 0 && s.chance(30) {
		if a.Batch = fmt.Sprintf("bat_%d", s.n); s.chance(50) {
			a.Failed = a.Sequences[:1]
		}
	}
	if s.chance(50) {
		for _, seq := range a.Sequences {
			a.Previous = append(a.Previous, seq-seq%3)
		}
	}
	return a
}

func (s *Script) subByte(sub eventhose.SubscriptionID) byte { return byte(slices.Index(s.subs(), sub)) }
