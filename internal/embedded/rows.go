package embedded

import (
	"maps"
	"slices"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// How rows of lanes are written. Their names are in their keys.

func encodeLane(l *store.Lane) []byte {
	w := writer{make([]byte, 0, 64+4*len(l.Settled))}
	w.byte(rowVersion)
	w.uint(uint64(l.Cursor))
	w.uint(uint64(l.Previous))
	w.uint(uint64(len(l.Settled)))
	before := l.Cursor
	for _, seq := range l.Settled {
		w.int(int64(seq - before)) // small, since they ascend from the cursor
		before = seq
	}
	w.bool(l.Behind)
	w.time(l.Due)
	w.int(int64(l.Retrying))
	w.int(int64(l.Dead))
	w.int(int64(l.Waiting))
	w.time(l.FailingSince)
	w.int(int64(l.Run))
	w.bool(l.Open)
	w.int(int64(l.Probes))
	w.time(l.LastSuccess)
	w.uint(uint64(len(l.Replays)))
	for i := range l.Replays {
		r := &l.Replays[i]
		w.str(r.ID)
		w.uint(uint64(r.From))
		w.uint(uint64(r.To))
		w.strs(r.Types)
		w.str(r.Status)
		w.uint(uint64(r.At))
		w.int(int64(r.Sent))
		w.time(r.Created)
	}
	return w.b
}

func decodeLane(ref store.LaneRef, value []byte) (store.Lane, error) {
	r := reader{b: value}
	r.version()
	l := store.Lane{LaneRef: ref, Cursor: sequence(r.uint()), Previous: sequence(r.uint())}
	before := l.Cursor
	for range r.count() {
		before += sequence(r.int())
		l.Settled = append(l.Settled, before)
	}
	l.Behind, l.Due = r.bool(), r.time()
	l.Retrying, l.Dead, l.Waiting = int(r.int()), int(r.int()), int(r.int())
	l.FailingSince, l.Run, l.Open, l.Probes, l.LastSuccess = r.time(), int(r.int()), r.bool(), int(r.int()), r.time()
	for range r.count() {
		l.Replays = append(l.Replays, eventhose.Replay{ID: r.str(), From: sequence(r.uint()), To: sequence(r.uint()),
			Types: r.strs(), Status: r.str(), At: sequence(r.uint()), Sent: int(r.int()), Created: r.time()})
	}
	return l, r.done()
}

func (w *writer) strs(s []string) {
	w.uint(uint64(len(s)))
	for _, v := range s {
		w.str(v)
	}
}

func (r *reader) strs() []string {
	n := r.count()
	if n == 0 {
		return nil
	}
	s := make([]string, n)
	for i := range s {
		s[i] = r.str()
	}
	return s
}

func (w *writer) seqs(s []sequence) {
	w.uint(uint64(len(s)))
	for _, seq := range s {
		w.uint(uint64(seq))
	}
}

func (r *reader) seqs() []sequence {
	n := r.count()
	if n == 0 {
		return nil
	}
	s := make([]sequence, n)
	for i := range s {
		s[i] = sequence(r.uint())
	}
	return s
}

func encodeParked(p *store.Parked) []byte {
	w := writer{make([]byte, 0, 128)}
	w.byte(rowVersion)
	w.str(p.Event)
	w.str(p.Type)
	w.str(p.Key)
	w.str(string(p.State))
	w.int(int64(p.Attempts))
	w.time(p.Since)
	w.time(p.Due)
	w.int(int64(p.Status))
	w.str(string(p.Reason))
	w.str(p.Message)
	w.bool(p.Blocks)
	w.uint(uint64(p.Previous))
	w.int(int64(p.Tries))
	w.str(p.Replay)
	w.bool(p.Redriven)
	if p.Batch != "" { // rows from before there were batches end here
		w.str(p.Batch)
	}
	return w.b
}

func decodeParked(seq sequence, value []byte) (store.Parked, error) {
	r := reader{b: value}
	r.version()
	p := store.Parked{Parked: eventhose.Parked{Sequence: seq, Event: r.str(), Type: r.str(), Key: r.str(),
		State: eventhose.ParkedState(r.str()), Attempts: int(r.int()), Since: r.time(), Due: r.time(),
		Status: int(r.int()), Reason: eventhose.Reason(r.str()), Message: r.str(), Blocks: r.bool()},
		Previous: sequence(r.uint()), Tries: int(r.int()), Replay: r.str(), Redriven: r.bool()}
	if r.more() {
		p.Batch = r.name()
	}
	return p, r.done()
}

func encodeBlocked(k *store.BlockedKey) []byte {
	var w writer
	w.byte(rowVersion)
	w.uint(uint64(k.Head))
	w.uint(uint64(k.First))
	w.uint(uint64(k.Last))
	w.int(int64(k.Count))
	w.uint(uint64(k.Previous))
	return w.b
}

func decodeBlocked(key string, value []byte) (store.BlockedKey, error) {
	r := reader{b: value}
	r.version()
	k := store.BlockedKey{Key: key, Head: sequence(r.uint()), First: sequence(r.uint()), Last: sequence(r.uint()),
		Count: int(r.int()), Previous: sequence(r.uint())}
	return k, r.done()
}

func encodeAttempt(a *eventhose.Attempt) []byte {
	w := writer{make([]byte, 0, 256+len(a.ResponseBody))}
	w.byte(rowVersion)
	w.strs(a.Events)
	w.seqs(a.Sequences)
	w.str(string(a.Kind))
	w.int(int64(a.Number))
	w.str(string(a.Outcome))
	w.str(string(a.Reason))
	w.str(a.Message)
	w.int(int64(a.Status))
	w.time(a.Started)
	w.int(int64(a.Duration))
	w.int(int64(a.Phases.DNS))
	w.int(int64(a.Phases.Connect))
	w.int(int64(a.Phases.TLS))
	w.int(int64(a.Phases.Wait))
	w.str(a.URL)
	w.str(a.Address)
	w.uint(uint64(len(a.ResponseHeaders)))
	for _, name := range slices.Sorted(maps.Keys(a.ResponseHeaders)) {
		w.str(name)
		w.str(a.ResponseHeaders[name])
	}
	w.str(a.ResponseBody)
	w.time(a.Next)
	w.str(a.Replay)
	if a.Batch != "" { // rows from before there were batches end here
		w.str(a.Batch)
		w.seqs(a.Failed)
	}
	return w.b
}

func decodeAttempt(tenant tenantID, sub subscriptionID, id string, value []byte) (eventhose.Attempt, error) {
	r := reader{b: value, s: string(value)}
	r.version()
	a := eventhose.Attempt{ID: id, Tenant: tenant, Subscription: sub, Events: r.strs(), Sequences: r.seqs()}
	a.Kind, a.Number = eventhose.AttemptKind(r.str()), int(r.int())
	a.Outcome, a.Reason, a.Message = eventhose.Outcome(r.str()), eventhose.Reason(r.str()), r.str()
	a.Status, a.Started, a.Duration = int(r.int()), r.time(), eventhose.Duration(r.int())
	a.Phases = eventhose.Phases{DNS: eventhose.Duration(r.int()), Connect: eventhose.Duration(r.int()),
		TLS: eventhose.Duration(r.int()), Wait: eventhose.Duration(r.int())}
	a.URL, a.Address = r.str(), r.str()
	if n := r.count(); n > 0 {
		a.ResponseHeaders = make(map[string]string, min(n, 64))
		for range n {
			name := r.str()
			a.ResponseHeaders[name] = r.str()
			if r.bad {
				break
			}
		}
	}
	a.ResponseBody, a.Next, a.Replay = r.str(), r.time(), r.str()
	if r.more() {
		a.Batch, a.Failed = r.name(), r.seqs()
	}
	return a, r.done()
}
