package embedded

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// A busy lane has many attempts in one commit, and a row for each, with one more for each of its events, would cost more
// than all else that a delivery writes. So what one commit brings is one row, a run, when it is worth it. It stands where its
// newest attempt would stand by itself. Since ids grow from commit to commit, runs and single attempts of a lane do not
// overlap. By event a run is found in blocks of 64 sequences: one row for each block that it has events of.

const (
	// runFrom is for how many events a commit must have attempts to make them a run: below that, single rows are found with
	// less reading.
	runFrom  = 5
	runBlock = 6 // bits
)

// triedRun is the row of a run by block: which of the block's sequences it has, and the last of all that it has.
type triedRun struct{ from, to, last sequence }

func (t triedRun) encode() []byte {
	var w row.Writer
	w.Uint(uint64(t.from))
	w.Uint(uint64(t.to))
	w.Uint(uint64(t.last))
	return w.B
}

func decodeTriedRun(value []byte) (triedRun, error) {
	r := row.Reader{B: value}
	t := triedRun{sequence(r.Uint()), sequence(r.Uint()), sequence(r.Uint())}
	return t, r.Done()
}

// runPrefix begins the runs that have events of a block, or with sub those of one subscription.
func runPrefix(tenant tenantID, block uint64, sub subscriptionID) []byte {
	k := binary.BigEndian.AppendUint64(prefix(spaceTriedRun, tenant, 8+len(sub)+32), block)
	if sub == "" {
		return k
	}
	return append(append(k, sub...), 0)
}

// putAttempts writes what a commit has of one lane, in pieces that are no longer than a run may be.
func (w *laneWriter) putAttempts(ref store.LaneRef, attempts []eventhose.Attempt) {
	byID := func(a, b eventhose.Attempt) int { return strings.Compare(a.ID, b.ID) }
	if !slices.IsSortedFunc(attempts, byID) {
		attempts = slices.Clone(attempts)
		slices.SortFunc(attempts, byID)
	}
	for len(attempts) > 0 {
		end := row.EndOfRun(attempts[0].ID)
		n := 1
		for n < len(attempts) && attempts[n].ID < end {
			n++
		}
		w.putRun(ref, attempts[:n])
		attempts = attempts[n:]
	}
}

func (w *laneWriter) putRun(ref store.LaneRef, attempts []eventhose.Attempt) {
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
	_ = w.b.Set(attemptKey(ref.Tenant, ref.Subscription, newest), row.EncodeRun(attempts), nil)
	_ = w.b.Set(recentKey(ref.Tenant, newest, ref.Subscription), nil, nil)
	for block, t := range blocks {
		t.last = last
		_ = w.b.Set(appendNewestFirst(runPrefix(ref.Tenant, block, ref.Subscription), newest), t.encode(), nil)
	}
}

// rowOf answers the attempts of the row that an id names.
func (s *Store) rowOf(tenant tenantID, sub subscriptionID, id string) ([]eventhose.Attempt, error) {
	value, err := s.get(attemptKey(tenant, sub, id))
	if err != nil {
		return nil, err // also pebble.ErrNotFound
	}
	attempts, err := row.DecodeRun(tenant, sub, id, value)
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
