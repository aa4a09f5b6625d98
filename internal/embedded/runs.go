package embedded

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// A busy lane has many attempts in one commit, and a row for each, with one more for each of its events, would cost more
// than all else that a delivery writes. So what one commit brings is one row, a run, when it is worth it:
//
//	version  1 byte, 2: it tells a run from a row of one attempt, which begins with 1
//	count    of attempts, newest first; each with its id and its fields
//
// It stands where its newest attempt would stand by itself. Since ids grow from commit to commit, runs and single attempts
// of a lane do not overlap. Texts that are those of the attempt before are not written again. By event a run is found in
// blocks of 64 sequences: one row for each block that it has events of.

const (
	runVersion = 2
	// runFrom is for how many events a commit must have attempts to make them a run: below that, single rows are found with
	// less reading.
	runFrom  = 5
	runBlock = 6 // bits
)

// triedRun is the row of a run by block: which of the block's sequences it has, and the last of all that it has.
type triedRun struct{ from, to, last sequence }

func (t triedRun) encode() []byte {
	var w writer
	w.uint(uint64(t.from))
	w.uint(uint64(t.to))
	w.uint(uint64(t.last))
	return w.b
}

func decodeTriedRun(value []byte) (triedRun, error) {
	r := reader{b: value}
	t := triedRun{sequence(r.uint()), sequence(r.uint()), sequence(r.uint())}
	return t, r.done()
}

// runPrefix begins the runs that have events of a block, or with sub those of one subscription.
func runPrefix(tenant tenantID, block uint64, sub subscriptionID) []byte {
	k := binary.BigEndian.AppendUint64(prefix(spaceTriedRun, tenant, 8+len(sub)+32), block)
	if sub == "" {
		return k
	}
	return append(append(k, sub...), 0)
}

// putAttempts writes what a commit has of one lane.
func (w *laneWriter) putAttempts(ref store.LaneRef, attempts []eventhose.Attempt) {
	events := 0
	for i := range attempts {
		n := len(attempts[i].Sequences)
		if n == 0 { // a test, which goes by age and not with an event
			events = 0
			break
		}
		events += n
	}
	if events < runFrom {
		for i := range attempts {
			w.putAttempt(ref, &attempts[i])
		}
		return
	}
	newest := ""
	blocks := map[uint64]triedRun{}
	last := sequence(0)
	for i := range attempts {
		newest = max(newest, attempts[i].ID)
		for _, seq := range attempts[i].Sequences {
			last = max(last, seq)
			block := uint64(seq) >> runBlock
			if b, ok := blocks[block]; ok {
				blocks[block] = triedRun{from: min(b.from, seq), to: max(b.to, seq)}
			} else {
				blocks[block] = triedRun{from: seq, to: seq}
			}
		}
	}
	_ = w.b.Set(attemptKey(ref.Tenant, ref.Subscription, newest), encodeRun(attempts), nil)
	for block, t := range blocks {
		t.last = last
		_ = w.b.Set(appendNewestFirst(runPrefix(ref.Tenant, block, ref.Subscription), newest), t.encode(), nil)
	}
}

// encodeRun writes attempts, which need not be in order.
func encodeRun(attempts []eventhose.Attempt) []byte {
	order := make([]*eventhose.Attempt, len(attempts))
	for i := range attempts {
		order[i] = &attempts[i]
	}
	slices.SortFunc(order, func(a, b *eventhose.Attempt) int { return strings.Compare(b.ID, a.ID) })
	w := writer{make([]byte, 0, 128+96*len(attempts))}
	w.byte(runVersion)
	w.uint(uint64(len(order)))
	before := &eventhose.Attempt{}
	for _, a := range order {
		w.str(a.ID)
		w.attempt(a, before)
		before = a
	}
	return w.b
}

// again writes a text that may be the one before.
func (w *writer) again(s, before string) {
	if s == before {
		w.uint(0)
		return
	}
	w.uint(uint64(len(s)) + 1)
	w.b = append(w.b, s...)
}

func (r *reader) again(before string) string {
	n := r.uint()
	if n == 0 {
		return before
	}
	if n-1 > uint64(len(r.b)-r.at) {
		r.fail()
		return ""
	}
	b := r.take(int(n - 1))
	return r.s[r.at-len(b) : r.at]
}

func (w *writer) attempt(a, before *eventhose.Attempt) {
	w.strs(a.Events)
	w.seqs(a.Sequences)
	w.again(string(a.Kind), string(before.Kind))
	w.int(int64(a.Number))
	w.again(string(a.Outcome), string(before.Outcome))
	w.again(string(a.Reason), string(before.Reason))
	w.again(a.Message, before.Message)
	w.int(int64(a.Status))
	w.time(a.Started)
	w.int(int64(a.Duration))
	for _, d := range [...]eventhose.Duration{a.Phases.DNS, a.Phases.Connect, a.Phases.TLS, a.Phases.Wait} {
		w.int(int64(d))
	}
	w.again(a.URL, before.URL)
	w.again(a.Address, before.Address)
	w.headers(a.ResponseHeaders, before.ResponseHeaders)
	w.again(a.ResponseBody, before.ResponseBody)
	w.bool(!a.Next.IsZero())
	if !a.Next.IsZero() {
		w.time(a.Next)
	}
	w.again(a.Replay, before.Replay)
	w.again(a.Batch, before.Batch)
	w.seqs(a.Failed)
}

// headers writes 0 for those of the attempt before, and else one more than how many there are.
func (w *writer) headers(h, before map[string]string) {
	if maps.Equal(h, before) {
		w.uint(0)
		return
	}
	w.uint(uint64(len(h)) + 1)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		w.str(name)
		w.again(h[name], before[name])
	}
}

func (r *reader) headers(before map[string]string) map[string]string {
	n := r.uint()
	switch {
	case n == 0:
		return before
	case n == 1:
		return nil
	case n-1 > uint64(len(r.b)-r.at):
		r.fail()
		return nil
	}
	h := make(map[string]string, min(n-1, 64))
	for range n - 1 {
		name := r.str()
		h[name] = r.again(before[name])
		if r.bad {
			return nil
		}
	}
	return h
}

// decodeRun reads the attempts of a row, be it a run or a single one, newest first. id is the row's.
func decodeRun(tenant tenantID, sub subscriptionID, id string, value []byte) ([]eventhose.Attempt, error) {
	if len(value) == 0 || value[0] != runVersion {
		a, err := decodeAttempt(tenant, sub, id, value)
		return []eventhose.Attempt{a}, err
	}
	r := reader{b: value, s: string(value), at: 1}
	n := r.count()
	if n == 0 {
		return nil, errMalformed
	}
	attempts := make([]eventhose.Attempt, n)
	before := &eventhose.Attempt{}
	for i := range attempts {
		a := &attempts[i]
		a.ID, a.Tenant, a.Subscription = r.str(), tenant, sub
		r.attempt(a, before)
		if i > 0 && a.ID >= before.ID || i == 0 && a.ID != id {
			r.fail()
		}
		if r.bad {
			break
		}
		before = a
	}
	return attempts, r.done()
}

func (r *reader) attempt(a, before *eventhose.Attempt) {
	a.Events, a.Sequences = r.strs(), r.seqs()
	a.Kind, a.Number = eventhose.AttemptKind(r.again(string(before.Kind))), int(r.int())
	a.Outcome, a.Reason = eventhose.Outcome(r.again(string(before.Outcome))), eventhose.Reason(r.again(string(before.Reason)))
	a.Message, a.Status, a.Started, a.Duration = r.again(before.Message), int(r.int()), r.time(), eventhose.Duration(r.int())
	for _, d := range [...]*eventhose.Duration{&a.Phases.DNS, &a.Phases.Connect, &a.Phases.TLS, &a.Phases.Wait} {
		*d = eventhose.Duration(r.int())
	}
	a.URL, a.Address = r.again(before.URL), r.again(before.Address)
	a.ResponseHeaders, a.ResponseBody = r.headers(before.ResponseHeaders), r.again(before.ResponseBody)
	if r.bool() {
		a.Next = r.time()
	}
	a.Replay, a.Batch, a.Failed = r.again(before.Replay), r.again(before.Batch), r.seqs()
}

// rowOf answers the attempts of the row that an id names.
func (s *Store) rowOf(tenant tenantID, sub subscriptionID, id string) ([]eventhose.Attempt, error) {
	value, err := s.get(attemptKey(tenant, sub, id))
	if err != nil {
		return nil, err // also pebble.ErrNotFound
	}
	attempts, err := decodeRun(tenant, sub, id, value)
	if err != nil {
		return nil, corrupt(fmt.Sprintf("attempt %s of lane %s of %s", id, sub, tenant), err)
	}
	return attempts, nil
}

// scanFrom is scan that begins with the last row at or before a key, if there is one from lower on.
func (s *Store) scanFrom(lower, from, upper []byte, each func(key, value []byte) (bool, error)) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return s.readError(err)
	}
	ok := it.SeekLT(append(from, 0))
	if !ok {
		ok = it.First()
	}
	return s.drain(it, ok, each)
}
