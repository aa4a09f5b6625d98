package embedded

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
)

// maxHeads is how many logs' heads stay in memory, about 200 bytes each; others are read again when they are needed.
const maxHeads = 100_000

// maxForks is how many forks of a log are told; cursors of older incarnations are of an unknown one.
const maxForks = 64

// logState is what the store knows in memory about one log. Fields are guarded by heads.mu.
type logState struct {
	tenant tenantID
	inc    eventhose.Incarnation
	forks  []eventhose.Fork
	first  sequence
	// trimming is what first was before the step of retention that is being written, 0 if none is.
	trimming sequence
	// applied is the last sequence that was given out, durable the last one that a power cut cannot take back. Readers
	// see up to durable.
	applied, durable sequence
	bytes            int64 // of data between first and applied
	kept             int64 // of data kept aside
	// late counts the times that something was parked which the log no longer held, sought those of them after which there
	// was nothing parked without an event.
	late, sought uint64
	matched      sequence
	tail         bool // the row that says that applied is beyond matched is there
	users        int  // who rely on this state staying in memory
}

// heads are the logs in use.
type heads struct {
	mu   sync.Mutex
	logs map[tenantID]*logState
	// unseen are the groups that are applied and not yet shown to readers, in the order of their commits.
	unseen []*appendGroup
}

// incarnationOf is a log's incarnation in one of the store: another one for each log, so that a cursor of one is not taken for one of another.
func incarnationOf(of eventhose.Incarnation, tenant tenantID) eventhose.Incarnation {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(of)), tenant...))
	return eventhose.Incarnation(max(1, binary.BigEndian.Uint32(sum[:]))) // never 0
}

// encodeHead writes the row of a log. Its incarnation is that in the store's newest one: the forks before it are in the row.
func encodeHead(st *logState, first, last sequence, bytes int64) []byte {
	w := row.Writer{B: make([]byte, 0, 32+12*len(st.forks))}
	w.Byte(row.Version)
	w.Uint(uint64(st.inc))
	w.Uint(uint64(first))
	w.Uint(uint64(last))
	w.Uint(uint64(bytes))
	w.Uint(uint64(len(st.forks)))
	for _, f := range st.forks {
		w.Uint(uint64(f.Incarnation))
		w.Uint(uint64(f.At))
	}
	return w.B
}

func decodeHead(value []byte, st *logState) error {
	r := row.Reader{B: value}
	r.Version()
	st.inc = eventhose.Incarnation(r.Uint())
	st.first, st.applied = sequence(r.Uint()), sequence(r.Uint())
	st.bytes = int64(r.Uint())
	for range r.Count() {
		st.forks = append(st.forks, eventhose.Fork{Incarnation: eventhose.Incarnation(r.Uint()), At: sequence(r.Uint())})
	}
	if st.inc == 0 || st.first == 0 || st.first > st.applied || st.bytes < 0 {
		r.Fail()
	}
	return r.Done()
}

// state answers a log's state and holds it in memory until release.
func (s *Store) state(tenant tenantID) (*logState, error) {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	st := s.heads.logs[tenant]
	if st == nil {
		st = &logState{tenant: tenant}
		if err := s.loadState(st); err != nil {
			return nil, err
		}
		if len(s.heads.logs) >= maxHeads {
			s.heads.shrink()
		}
		s.heads.logs[tenant] = st
	}
	st.users++
	return st, nil
}

func (s *Store) release(st *logState) {
	s.heads.mu.Lock()
	st.users--
	s.heads.mu.Unlock()
}

// shrink forgets half of the logs that nobody uses and that have nothing in flight.
func (h *heads) shrink() {
	for tenant, st := range h.logs {
		if st.users == 0 && st.applied == st.durable {
			delete(h.logs, tenant)
		}
		if len(h.logs) < maxHeads/2 {
			return
		}
	}
}

// loadState reads a log's rows. Nothing of that log is in flight then, since what is in flight is in memory.
func (s *Store) loadState(st *logState) error {
	value, err := s.get(tenantKey(spaceHead, st.tenant))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		st.inc, st.first = incarnationOf(s.incarnations[0], st.tenant), 1
	case err != nil:
		return err
	default:
		if err := decodeHead(value, st); err != nil {
			return corrupt("head of log "+string(st.tenant), err)
		}
	}
	st.durable = st.applied
	s.fork(st)
	if st.matched, err = s.getSequence(tenantKey(spaceMatched, st.tenant)); err != nil {
		return err
	}
	kept, err := s.getSequence(tenantKey(spaceKeptSize, st.tenant))
	if err != nil {
		return err
	}
	st.kept = int64(kept)
	st.late = 1 // before this state was in memory
	_, err = s.get(tenantKey(spaceTail, st.tenant))
	if st.tail = err == nil; err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	return nil
}

// fork brings a log that was last written in an earlier incarnation of the store to the present one: it was left at
// its last sequence then, and at each incarnation since.
func (s *Store) fork(st *logState) {
	i, found := 0, false
	for j, inc := range s.incarnations {
		if incarnationOf(inc, st.tenant) == st.inc {
			i, found = j, true
		}
	}
	newest := len(s.incarnations) - 1
	if !found { // longer ago than the store remembers, or when all logs of a store had its incarnation
		st.forks = append(st.forks, eventhose.Fork{Incarnation: st.inc, At: st.applied})
	}
	for ; i < newest; i++ {
		st.forks = append(st.forks, eventhose.Fork{Incarnation: incarnationOf(s.incarnations[i], st.tenant), At: st.applied})
	}
	st.inc = incarnationOf(s.incarnations[newest], st.tenant)
	if n := len(st.forks); n > maxForks {
		st.forks = st.forks[n-maxForks:]
	}
}

// span answers the first and the durable last sequence of a log.
func (s *Store) span(st *logState) (first, last sequence) {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	return st.first, st.durable
}
