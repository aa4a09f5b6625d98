package postgres_test

// What was done to the logs and what was seen of them, and what of it goes against the promise of order. Every event has a token of its
// own in its data, by which it is told apart whatever place or id it gets.

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// token names an event.
type token uint64

const tokenField = `{"token":`

func (k token) data() []byte {
	return append(strconv.AppendUint([]byte(tokenField), uint64(k), 10), '}')
}

func tokenOf(data []byte) token {
	n, err := strconv.ParseUint(string(bytes.TrimSuffix(bytes.TrimPrefix(data, []byte(tokenField)), []byte("}"))), 10, 64)
	if err != nil {
		return 0
	}
	return token(n)
}

// transaction is what an application appended in one transaction.
type transaction struct {
	tokens    map[eventhose.TenantID][]token // in the order of the calls
	committed bool
}

// track is what is known of one log.
type track struct {
	acked   map[eventhose.Sequence]token // what appends were told
	last    eventhose.Sequence           // the highest acknowledged place
	seen    []token                      // what readers have found, by place: the first that came there says what is there
	seenAt  []time.Duration              // when the first had it
	ops     []porcupine.Operation        // the first sampledOps
	sampled time.Duration                // when that many were there; what began later is left out
}

// sampledOps is how many operations of each log are kept for the model.
const sampledOps = 1500

// history gathers what clients of several nodes were told. It is safe for concurrent use.
type history struct {
	began time.Time

	mu           sync.Mutex
	tracks       map[eventhose.TenantID]*track
	maybe        map[token]eventhose.TenantID // events whose append has no answer (yet)
	since        map[token]time.Duration      // before which an event that was appended in another way was certainly not there
	transactions []transaction
	appended     int // events that are certainly there
	faults       []string
}

func newHistory() *history {
	return &history{began: time.Now(), tracks: map[eventhose.TenantID]*track{}, maybe: map[token]eventhose.TenantID{}, since: map[token]time.Duration{}}
}

func (h *history) now() time.Duration { return time.Since(h.began) }

// maxFaults bounds what is told of a store that does nothing right.
const maxFaults = 20

func (h *history) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong(format, args...)
}

// wrong is fault with h.mu held.
func (h *history) wrong(format string, args ...any) {
	if len(h.faults) < maxFaults {
		h.faults = append(h.faults, fmt.Sprintf(format, args...))
	}
}

// of answers a log's track. h.mu is held.
func (h *history) of(tenant eventhose.TenantID) *track {
	k := h.tracks[tenant]
	if k == nil {
		k = &track{acked: map[eventhose.Sequence]token{}}
		h.tracks[tenant] = k
	}
	return k
}

// acked answers up to where a log is acknowledged.
func (h *history) acked(tenant eventhose.TenantID) eventhose.Sequence {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of(tenant).last
}

// lengths answers how far each log was read.
func (h *history) lengths() map[eventhose.TenantID]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := map[eventhose.TenantID]int{}
	for tenant, k := range h.tracks {
		n[tenant] = len(k.seen)
	}
	return n
}

// count answers how many events are certainly there.
func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.appended
}

// begun notes a group that is about to be appended, and answers up to where its logs are acknowledged.
func (h *history) begun(group []store.Append) (floors []eventhose.Sequence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range group {
		for _, e := range group[i].Events {
			h.maybe[tokenOf(e.Event.Data)] = group[i].Tenant
		}
		floors = append(floors, h.of(group[i].Tenant).last)
	}
	return floors
}

// ended notes what a group's append answered. again says that it was appended before, and acknowledged.
func (h *history) ended(group []store.Append, results []store.AppendResult, floors []eventhose.Sequence, call time.Duration, again bool) {
	end := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range group {
		tenant, placements := group[i].Tenant, results[i].Placements
		if results[i].Err != nil || len(placements) != len(group[i].Events) {
			h.wrong("an append to %s answered %d places for %d events, and %v", tenant, len(placements), len(group[i].Events), results[i].Err)
			continue
		}
		op := appendOp{tenant: tenant, first: placements[0].Sequence, again: again}
		for j, p := range placements {
			k := tokenOf(group[i].Events[j].Event.Data)
			op.tokens = append(op.tokens, k)
			delete(h.maybe, k)
			if p.Duplicate != again {
				h.wrong("event %d at %s/%d: duplicate is %v", k, tenant, p.Sequence, p.Duplicate)
			}
			if p.Sequence != op.first+eventhose.Sequence(j) {
				h.wrong("an append to %s got the places %v, which do not follow one another", tenant, placements)
			}
			h.ack(tenant, p.Sequence, k, again)
		}
		if !again && op.first <= floors[i] {
			h.wrong("inversion: an append to %s got %d, when %d had been acknowledged before it began", tenant, op.first, floors[i])
		}
		h.keep(tenant, op, nil, call, end)
	}
}

// ack notes that a place was told. h.mu is held.
func (h *history) ack(tenant eventhose.TenantID, seq eventhose.Sequence, k token, again bool) {
	t := h.of(tenant)
	if other, twice := t.acked[seq]; twice && other != k || again && !twice {
		h.wrong("%s/%d was told for event %d and for %d", tenant, seq, other, k)
	}
	if _, twice := t.acked[seq]; !twice {
		h.appended++
	}
	t.acked[seq] = k
	t.last = max(t.last, seq)
}

// keep keeps an operation for the model. h.mu is held.
func (h *history) keep(tenant eventhose.TenantID, in any, out []token, call, end time.Duration) {
	t := h.of(tenant)
	if t.sampled > 0 && call > t.sampled {
		return
	}
	t.ops = append(t.ops, porcupine.Operation{Input: in, Output: out, Call: int64(call), Return: int64(end)})
	if len(t.ops) == sampledOps {
		t.sampled = h.now()
	}
}

// page notes what a reader found after a place, when the log was known to reach at least to floor. It answers where the reader goes on.
func (h *history) page(tenant eventhose.TenantID, after, floor eventhose.Sequence, page []*eventhose.Event, call time.Duration) eventhose.Sequence {
	end := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.of(tenant)
	if len(page) == 0 && after < floor {
		h.wrong("hidden: %s was read after %d and there was nothing, when it reached to %d", tenant, after, floor)
	}
	tokens := make([]token, len(page))
	next := after
	for i, e := range page {
		if next++; e.Sequence != next || e.Tenant != tenant {
			h.wrong("gap: %s/%d was read where %s/%d is to be", e.Tenant, e.Sequence, tenant, next)
			next = e.Sequence
		}
		tokens[i] = tokenOf(e.Data)
		switch n := int(next); {
		case n == len(t.seen)+1:
			t.seen, t.seenAt = append(t.seen, tokens[i]), append(t.seenAt, end)
		case n <= len(t.seen) && n > 0 && t.seen[n-1] != tokens[i]:
			h.wrong("changed: at %s/%d was event %d, and is %d", tenant, next, t.seen[n-1], tokens[i])
		}
	}
	h.keep(tenant, readOp{tenant: tenant, after: after}, tokens, call, end)
	return next
}

// done notes a transaction of an application that has ended.
func (h *history) done(x transaction) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.transactions = append(h.transactions, x)
	if x.committed {
		for _, tokens := range x.tokens {
			h.appended += len(tokens)
		}
	}
}

// check compares the logs, as they are in the end, with all that was done and seen. parents has those logs whose tenant has one.
func (h *history) check(logs map[eventhose.TenantID][]*eventhose.Event, parents map[eventhose.TenantID]eventhose.TenantID) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := map[eventhose.TenantID]map[token]eventhose.Sequence{}
	for tenant, log := range logs {
		at[tenant] = h.checkLog(tenant, log)
	}
	for tenant, t := range h.tracks {
		for seq, k := range t.acked {
			if int(seq) > len(logs[tenant]) || tokenOf(logs[tenant][seq-1].Data) != k {
				h.wrong("lost: event %d was acknowledged at %s/%d and is not there", k, tenant, seq)
			}
		}
	}
	expected := map[token]bool{}
	for _, t := range h.tracks {
		for _, k := range t.acked {
			expected[k] = true
		}
	}
	for k := range h.maybe {
		expected[k] = true
	}
	for _, x := range h.transactions {
		for tenant, tokens := range x.tokens {
			last := eventhose.Sequence(0)
			for _, k := range tokens {
				seq := at[tenant][k]
				switch {
				case !x.committed && seq > 0:
					h.wrong("rolled back: event %d is at %s/%d", k, tenant, seq)
				case x.committed && seq == 0:
					h.wrong("lost: event %d of a committed transaction is not in the log of %s", k, tenant)
				case x.committed && seq < last:
					h.wrong("inversion: event %d is at %s/%d, after the one before it in its transaction at %d", k, tenant, seq, last)
				}
				last = seq
				expected[k] = true
			}
		}
	}
	for tenant, places := range at {
		for k, seq := range places {
			if !expected[k] {
				h.wrong("%s/%d is event %d, which nobody appended", tenant, seq, k)
			}
		}
	}
	for child, parent := range parents {
		h.checkParent(child, logs[child], parent, logs[parent])
	}
	return h.faults
}

// checkLog checks one log by itself, and answers where each event is. h.mu is held.
func (h *history) checkLog(tenant eventhose.TenantID, log []*eventhose.Event) map[token]eventhose.Sequence {
	at := make(map[token]eventhose.Sequence, len(log))
	next := eventhose.Sequence(0)
	for _, e := range log {
		if next++; e.Sequence != next {
			h.wrong("gap: the log of %s has %d where %d is to be", tenant, e.Sequence, next)
			next = e.Sequence
		}
		k := tokenOf(e.Data)
		if first := at[k]; first > 0 {
			h.wrong("twice: event %d is at %s/%d and %d", k, tenant, first, e.Sequence)
		}
		at[k] = e.Sequence
	}
	seen := h.of(tenant).seen
	for i, k := range seen {
		if i >= len(log) || tokenOf(log[i].Data) != k {
			h.wrong("changed: a reader saw event %d at %s/%d, where it is not", k, tenant, i+1)
			break
		}
	}
	if len(seen) < len(log) {
		h.wrong("skipped: readers came to %s/%d of %d", tenant, len(seen), len(log))
	}
	return at
}

// checkParent checks that a tenant's events are in its parent's log, each once and in the same order. h.mu is held.
func (h *history) checkParent(child eventhose.TenantID, log []*eventhose.Event, parent eventhose.TenantID, up []*eventhose.Event) {
	n := 0
	for _, e := range up {
		if e.Origin.Tenant != child {
			continue
		}
		if n++; e.Origin.Sequence != eventhose.Sequence(n) {
			h.wrong("inversion: %s/%d stands for %s/%d where %d is to be", parent, e.Sequence, child, e.Origin.Sequence, n)
			n = int(e.Origin.Sequence)
		}
		if n > len(log) || !bytes.Equal(log[n-1].Data, e.Data) || e.ID != string(child)+"/"+log[n-1].ID {
			h.wrong("%s/%d does not hold what %s/%d does", parent, e.Sequence, child, n)
		}
	}
	if n != len(log) {
		h.wrong("lost: %d of %d events of %s are in the log of %s", n, len(log), child, parent)
	}
}

// operations answers what the model is to check, with what is in the logs by other ways than appends that were kept: such an event came
// after its append or transaction began, and before the first reader had it.
func (h *history) operations(logs map[eventhose.TenantID][]*eventhose.Event, parents map[eventhose.TenantID]eventhose.TenantID) (all []porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ever := int64(h.now())
	of := map[eventhose.TenantID][]porcupine.Operation{}
	for tenant, t := range h.tracks {
		of[tenant] = slices.Clone(t.ops)
		if parent := parents[tenant]; parent != "" {
			of[parent] = append(of[parent], parentOps(t.ops, tenant, parent, logs[parent])...)
		}
	}
	for _, tenant := range slices.Sorted(maps.Keys(of)) {
		ops, told, reach := of[tenant], map[eventhose.Sequence]bool{}, eventhose.Sequence(0)
		for _, op := range ops {
			switch in := op.Input.(type) {
			case appendOp:
				for seq := in.first; seq <= in.end(); seq++ {
					told[seq] = told[seq] || !in.again
				}
				reach = max(reach, in.end())
			case readOp:
				reach = max(reach, in.after+eventhose.Sequence(len(op.Output.([]token))))
			}
		}
		for _, e := range logs[tenant] {
			if e.Sequence <= reach && !told[e.Sequence] {
				in := appendOp{tenant: tenant, first: e.Sequence, tokens: []token{tokenOf(e.Data)}}
				op := porcupine.Operation{Input: in, Output: []token(nil), Call: int64(h.since[in.tokens[0]]), Return: ever}
				if at := h.of(tenant).seenAt; int(e.Sequence) <= len(at) {
					op.Return = int64(at[e.Sequence-1])
				}
				ops = append(ops, op)
			}
		}
		all = append(all, ops...)
	}
	return all
}
