package embedded

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose/internal/store"
)

// remembered is what the index of ids holds for a client's id.
type remembered struct {
	seq    sequence
	digest [16]byte
}

func (r remembered) encode() []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 24), uint64(r.seq)), r.digest[:]...)
}

func decodeRemembered(value []byte) (remembered, error) {
	if len(value) != 24 {
		return remembered{}, errMalformed
	}
	return remembered{sequence(binary.BigEndian.Uint64(value)), [16]byte(value[8:])}, nil
}

// remember finds a client's id in a log that begins at first. What trimming has left behind below that does not count.
func (s *Store) remember(key []byte, first sequence) (remembered, bool, error) {
	if !s.ids.mayHave(key) {
		return remembered{}, false, nil
	}
	value, err := s.get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return remembered{}, false, nil
	}
	if err != nil {
		return remembered{}, false, err
	}
	known, err := decodeRemembered(value)
	if err != nil {
		return remembered{}, false, corrupt("index of ids", err)
	}
	return known, known.seq >= first, nil
}

// dedupe decides what becomes of each event of a group.
type dedupe struct {
	s *Store
	// group holds the ids of the group's accepted entries, entry those of the one being looked at.
	group, entry map[string]remembered
}

// find answers what is known of an id.
func (d *dedupe) find(key []byte, first sequence) (remembered, bool, error) {
	if r, ok := d.entry[string(key)]; ok {
		return r, true, nil
	}
	if r, ok := d.group[string(key)]; ok {
		return r, true, nil
	}
	return d.s.remember(key, first)
}

// accept makes the present entry's ids the group's.
func (d *dedupe) accept() {
	for k, r := range d.entry {
		d.group[k] = r
	}
	clear(d.entry)
}

// place answers what becomes of an entry's events when next is the next free sequence: for each its sequence, those that
// are there already with dup set. index is the event whose id is remembered with another digest, -1 if none.
func (d *dedupe) place(e *store.Append, first, next sequence) (places []placed, index int, err error) {
	places = make([]placed, len(e.Events))
	clear(d.entry)
	for i := range e.Events {
		ev := &e.Events[i]
		if ev.Event.ID == "" {
			places[i].seq = next
			next++
			continue
		}
		key := idKey(e.Tenant, ev.Event.Scope, ev.Event.ID)
		known, ok, err := d.find(key, first)
		switch {
		case err != nil:
			return nil, 0, err
		case ok && known.digest != ev.Digest:
			return nil, i, nil
		case ok:
			places[i] = placed{seq: known.seq, dup: true}
		default:
			places[i] = placed{seq: next, key: key}
			d.entry[string(key)] = remembered{next, ev.Digest}
			next++
		}
	}
	d.accept()
	return places, -1, nil
}

// placed is what becomes of one event.
type placed struct {
	seq sequence
	dup bool
	key []byte // of the index of ids, if it is to be remembered
}
