package row

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

func EncodeAttempt(a *eventhose.Attempt) []byte {
	w := Writer{B: make([]byte, 0, 256+len(a.ResponseBody))}
	w.Byte(Version)
	w.Strs(a.Events)
	w.Seqs(a.Sequences)
	w.Str(string(a.Kind))
	w.Int(int64(a.Number))
	w.Str(string(a.Outcome))
	w.Str(string(a.Reason))
	w.Str(a.Message)
	w.Int(int64(a.Status))
	w.Time(a.Started)
	w.Int(int64(a.Duration))
	w.Int(int64(a.Phases.DNS))
	w.Int(int64(a.Phases.Connect))
	w.Int(int64(a.Phases.TLS))
	w.Int(int64(a.Phases.Wait))
	w.Str(a.URL)
	w.Str(a.Address)
	w.Uint(uint64(len(a.ResponseHeaders)))
	for _, name := range slices.Sorted(maps.Keys(a.ResponseHeaders)) {
		w.Str(name)
		w.Str(a.ResponseHeaders[name])
	}
	w.Str(a.ResponseBody)
	w.Time(a.Next)
	w.Str(a.Replay)
	if a.Batch != "" || len(a.Previous) > 0 { // rows from before there were batches end here
		w.Str(a.Batch)
		w.Seqs(a.Failed)
	}
	if len(a.Previous) > 0 { // and rows from before this was kept, here
		w.previous(a)
	}
	return w.B
}

// previous writes how far each place is from the one before it, which is little most times.
func (w *Writer) previous(a *eventhose.Attempt) {
	w.Uint(uint64(len(a.Previous)))
	for i, prev := range a.Previous {
		w.Uint(uint64(placeOf(a, i) - prev))
	}
}

func (r *Reader) previous(a *eventhose.Attempt) {
	n := r.Count()
	if n == 0 {
		return
	}
	a.Previous = make([]eventhose.Sequence, n)
	for i := range a.Previous {
		a.Previous[i] = placeOf(a, i) - eventhose.Sequence(r.Uint())
	}
}

func placeOf(a *eventhose.Attempt, i int) eventhose.Sequence {
	if i < len(a.Sequences) {
		return a.Sequences[i]
	}
	return 0
}

func DecodeAttempt(tenant eventhose.TenantID, sub eventhose.SubscriptionID, id string, value []byte) (eventhose.Attempt, error) {
	r := Reader{B: value, S: string(value)}
	r.Version()
	a := eventhose.Attempt{ID: id, Tenant: tenant, Subscription: sub, Events: r.Strs(), Sequences: r.Seqs()}
	a.Kind, a.Number = eventhose.AttemptKind(r.Str()), int(r.Int())
	a.Outcome, a.Reason, a.Message = eventhose.Outcome(r.Str()), eventhose.Reason(r.Str()), r.Str()
	a.Status, a.Started, a.Duration = int(r.Int()), r.Time(), eventhose.Duration(r.Int())
	a.Phases = eventhose.Phases{DNS: eventhose.Duration(r.Int()), Connect: eventhose.Duration(r.Int()),
		TLS: eventhose.Duration(r.Int()), Wait: eventhose.Duration(r.Int())}
	a.URL, a.Address = r.Str(), r.Str()
	if n := r.Count(); n > 0 {
		a.ResponseHeaders = make(map[string]string, min(n, 64))
		for range n {
			name := r.Str()
			a.ResponseHeaders[name] = r.Str()
			if r.bad {
				break
			}
		}
	}
	a.ResponseBody, a.Next, a.Replay = r.Str(), r.Time(), r.Str()
	if r.More() {
		a.Batch, a.Failed = r.Str(), r.Seqs()
		if r.More() {
			r.previous(&a)
		}
		if a.Batch == "" && len(a.Previous) == 0 {
			r.Fail()
		}
	}
	return a, r.Done()
}

// A run is one row for the attempts that a commit brings, where a row for each would cost too much:
//
//	version  1 byte, 3: it tells a run from a row of one attempt, which begins with 1; 2 is a run without Previous
//	count    of attempts, newest first; each with its id and its fields
//
// Texts that are those of the attempt before are not written again.

const (
	runVersion         = 3
	runWithoutPrevious = 2
)

// MaxRunTime is how far apart the ids of a run's attempts may be. So whoever has seen the runs of all lanes from a place on knows
// all attempts from so much later on.
const MaxRunTime = 100 * time.Millisecond

// beyondIDs is greater than every id.
const beyondIDs = "~"

// EndOfRun is what all ids of a run are below whose least one is given.
func EndOfRun(first string) string {
	at, ok := eventhose.AttemptIDTime(first)
	if !ok {
		return beyondIDs
	}
	return eventhose.AttemptIDAt(at.Add(MaxRunTime))
}

// EncodeRun writes attempts, which need not be in order.
func EncodeRun(attempts []eventhose.Attempt) []byte {
	order := make([]*eventhose.Attempt, len(attempts))
	for i := range attempts {
		order[i] = &attempts[i]
	}
	slices.SortFunc(order, func(a, b *eventhose.Attempt) int { return strings.Compare(b.ID, a.ID) })
	w := Writer{B: make([]byte, 0, 128+96*len(attempts))}
	w.Byte(runVersion)
	w.Uint(uint64(len(order)))
	before := &eventhose.Attempt{}
	for _, a := range order {
		w.Str(a.ID)
		w.attempt(a, before)
		before = a
	}
	return w.B
}

// again writes a text that may be the one before.
func (w *Writer) again(s, before string) {
	if s == before {
		w.Uint(0)
		return
	}
	w.Uint(uint64(len(s)) + 1)
	w.B = append(w.B, s...)
}

func (r *Reader) again(before string) string {
	n := r.Uint()
	if n == 0 {
		return before
	}
	if n-1 > uint64(len(r.B)-r.at) {
		r.Fail()
		return ""
	}
	b := r.Take(int(n - 1))
	return r.S[r.at-len(b) : r.at]
}

func (w *Writer) attempt(a, before *eventhose.Attempt) {
	w.Strs(a.Events)
	w.Seqs(a.Sequences)
	w.again(string(a.Kind), string(before.Kind))
	w.Int(int64(a.Number))
	w.again(string(a.Outcome), string(before.Outcome))
	w.again(string(a.Reason), string(before.Reason))
	w.again(a.Message, before.Message)
	w.Int(int64(a.Status))
	w.Time(a.Started)
	w.Int(int64(a.Duration))
	for _, d := range [...]eventhose.Duration{a.Phases.DNS, a.Phases.Connect, a.Phases.TLS, a.Phases.Wait} {
		w.Int(int64(d))
	}
	w.again(a.URL, before.URL)
	w.again(a.Address, before.Address)
	w.headers(a.ResponseHeaders, before.ResponseHeaders)
	w.again(a.ResponseBody, before.ResponseBody)
	w.Bool(!a.Next.IsZero())
	if !a.Next.IsZero() {
		w.Time(a.Next)
	}
	w.again(a.Replay, before.Replay)
	w.again(a.Batch, before.Batch)
	w.Seqs(a.Failed)
	w.previous(a)
}

// headers writes 0 for those of the attempt before, and else one more than how many there are.
func (w *Writer) headers(h, before map[string]string) {
	if maps.Equal(h, before) {
		w.Uint(0)
		return
	}
	w.Uint(uint64(len(h)) + 1)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		w.Str(name)
		w.again(h[name], before[name])
	}
}

func (r *Reader) headers(before map[string]string) map[string]string {
	n := r.Uint()
	switch {
	case n == 0:
		return before
	case n == 1:
		return nil
	case n-1 > uint64(len(r.B)-r.at):
		r.Fail()
		return nil
	}
	h := make(map[string]string, min(n-1, 64))
	for range n - 1 {
		name := r.Str()
		h[name] = r.again(before[name])
		if r.bad {
			return nil
		}
	}
	return h
}

// DecodeRun reads the attempts of a row, be it a run or a single one, newest first. id is that of the newest, by which the
// row is found. With "" a run may begin with any; a single attempt, whose id is not in its row, then has none.
func DecodeRun(tenant eventhose.TenantID, sub eventhose.SubscriptionID, id string, value []byte) ([]eventhose.Attempt, error) {
	if len(value) == 0 || value[0] != runVersion && value[0] != runWithoutPrevious {
		a, err := DecodeAttempt(tenant, sub, id, value)
		return []eventhose.Attempt{a}, err
	}
	r := Reader{B: value, S: string(value), at: 1}
	n := r.Count()
	if n == 0 {
		return nil, ErrMalformed
	}
	attempts := make([]eventhose.Attempt, n)
	before := &eventhose.Attempt{}
	for i := range attempts {
		a := &attempts[i]
		a.ID, a.Tenant, a.Subscription = r.Str(), tenant, sub
		r.attempt(a, before)
		if value[0] == runVersion {
			r.previous(a)
		}
		if i > 0 && a.ID >= before.ID || i == 0 && id != "" && a.ID != id {
			r.Fail()
		}
		if r.bad {
			break
		}
		before = a
	}
	return attempts, r.Done()
}

func (r *Reader) attempt(a, before *eventhose.Attempt) {
	a.Events, a.Sequences = r.Strs(), r.Seqs()
	a.Kind, a.Number = eventhose.AttemptKind(r.again(string(before.Kind))), int(r.Int())
	a.Outcome, a.Reason = eventhose.Outcome(r.again(string(before.Outcome))), eventhose.Reason(r.again(string(before.Reason)))
	a.Message, a.Status, a.Started, a.Duration = r.again(before.Message), int(r.Int()), r.Time(), eventhose.Duration(r.Int())
	for _, d := range [...]*eventhose.Duration{&a.Phases.DNS, &a.Phases.Connect, &a.Phases.TLS, &a.Phases.Wait} {
		*d = eventhose.Duration(r.Int())
	}
	a.URL, a.Address = r.again(before.URL), r.again(before.Address)
	a.ResponseHeaders, a.ResponseBody = r.headers(before.ResponseHeaders), r.again(before.ResponseBody)
	if r.Bool() {
		a.Next = r.Time()
	}
	a.Replay, a.Batch, a.Failed = r.again(before.Replay), r.again(before.Batch), r.Seqs()
}
