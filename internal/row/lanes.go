package row

import (
	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// What names a row is not in it: a driver has that in its key.

func EncodeLane(l *store.Lane) []byte {
	w := Writer{B: make([]byte, 0, 64+4*len(l.Settled))}
	w.Byte(Version)
	w.Uint(uint64(l.Cursor))
	w.Uint(uint64(l.Previous))
	w.Uint(uint64(len(l.Settled)))
	before := l.Cursor
	for _, seq := range l.Settled {
		w.Int(int64(seq - before)) // small, since they ascend from the cursor
		before = seq
	}
	w.Bool(l.Behind)
	w.Time(l.Due)
	w.Int(int64(l.Retrying))
	w.Int(int64(l.Dead))
	w.Int(int64(l.Waiting))
	w.Time(l.FailingSince)
	w.Int(int64(l.Run))
	w.Bool(l.Open)
	w.Int(int64(l.Probes))
	w.Time(l.LastSuccess)
	w.Uint(uint64(len(l.Replays)))
	for i := range l.Replays {
		r := &l.Replays[i]
		w.Str(r.ID)
		w.Uint(uint64(r.From))
		w.Uint(uint64(r.To))
		w.Strs(r.Types)
		w.Str(r.Status)
		w.Uint(uint64(r.At))
		w.Int(int64(r.Sent))
		w.Time(r.Created)
	}
	if l.Began > 0 { // rows from before lanes knew it end here
		w.Uint(uint64(l.Began))
	}
	return w.B
}

func DecodeLane(ref store.LaneRef, value []byte) (store.Lane, error) {
	r := Reader{B: value}
	r.Version()
	l := store.Lane{LaneRef: ref, Cursor: eventhose.Sequence(r.Uint()), Previous: eventhose.Sequence(r.Uint())}
	before := l.Cursor
	for range r.Count() {
		before += eventhose.Sequence(r.Int())
		l.Settled = append(l.Settled, before)
	}
	l.Behind, l.Due = r.Bool(), r.Time()
	l.Retrying, l.Dead, l.Waiting = int(r.Int()), int(r.Int()), int(r.Int())
	l.FailingSince, l.Run, l.Open, l.Probes, l.LastSuccess = r.Time(), int(r.Int()), r.Bool(), int(r.Int()), r.Time()
	for range r.Count() {
		l.Replays = append(l.Replays, eventhose.Replay{ID: r.Str(), From: eventhose.Sequence(r.Uint()), To: eventhose.Sequence(r.Uint()),
			Types: r.Strs(), Status: r.Str(), At: eventhose.Sequence(r.Uint()), Sent: int(r.Int()), Created: r.Time()})
	}
	if r.More() {
		if l.Began = eventhose.Sequence(r.Uint()); l.Began == 0 {
			r.Fail()
		}
	}
	return l, r.Done()
}

func EncodeParked(p *store.Parked) []byte {
	w := Writer{B: make([]byte, 0, 128)}
	w.Byte(Version)
	w.Str(p.Event)
	w.Str(p.Type)
	w.Str(p.Key)
	w.Str(string(p.State))
	w.Int(int64(p.Attempts))
	w.Time(p.Since)
	w.Time(p.Due)
	w.Int(int64(p.Status))
	w.Str(string(p.Reason))
	w.Str(p.Message)
	w.Bool(p.Blocks)
	w.Uint(uint64(p.Previous))
	w.Int(int64(p.Tries))
	w.Str(p.Replay)
	w.Bool(p.Redriven)
	if p.Batch != "" { // rows from before there were batches end here
		w.Str(p.Batch)
	}
	return w.B
}

func DecodeParked(seq eventhose.Sequence, value []byte) (store.Parked, error) {
	r := Reader{B: value}
	r.Version()
	p := store.Parked{Parked: eventhose.Parked{Sequence: seq, Event: r.Str(), Type: r.Str(), Key: r.Str(),
		State: eventhose.ParkedState(r.Str()), Attempts: int(r.Int()), Since: r.Time(), Due: r.Time(),
		Status: int(r.Int()), Reason: eventhose.Reason(r.Str()), Message: r.Str(), Blocks: r.Bool()},
		Previous: eventhose.Sequence(r.Uint()), Tries: int(r.Int()), Replay: r.Str(), Redriven: r.Bool()}
	if r.More() {
		p.Batch = r.Name()
	}
	return p, r.Done()
}

func EncodeBlocked(k *store.BlockedKey) []byte {
	var w Writer
	w.Byte(Version)
	w.Uint(uint64(k.Head))
	w.Uint(uint64(k.First))
	w.Uint(uint64(k.Last))
	w.Int(int64(k.Count))
	w.Uint(uint64(k.Previous))
	return w.B
}

func DecodeBlocked(key string, value []byte) (store.BlockedKey, error) {
	r := Reader{B: value}
	r.Version()
	k := store.BlockedKey{Key: key, Head: eventhose.Sequence(r.Uint()), First: eventhose.Sequence(r.Uint()), Last: eventhose.Sequence(r.Uint()),
		Count: int(r.Int()), Previous: eventhose.Sequence(r.Uint())}
	return k, r.Done()
}
