package embedded

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// remembered is what the index of ids holds for a client's id.
type remembered struct {
	seq    sequence
	digest [16]byte
}

const rememberedSize = 24

// put writes the row of an id into rememberedSize bytes.
func (r remembered) put(out []byte) {
	binary.BigEndian.PutUint64(out, uint64(r.seq))
	copy(out[8:], r.digest[:])
}

func decodeRemembered(value []byte) (remembered, error) {
	if len(value) != rememberedSize {
		return remembered{}, row.ErrMalformed
	}
	return remembered{sequence(binary.BigEndian.Uint64(value)), [16]byte(value[8:])}, nil
}

// remember finds a client's id in a log that begins at first. What trimming has left behind below that does not count.
func (s *Store) remember(key string, hash uint64, first sequence) (remembered, bool, error) {
	if !s.ids.mayHave(key, hash) {
		return remembered{}, false, nil
	}
	value, err := s.get([]byte(key))
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
	// group holds the ids that the group has made known so far.
	group map[string]remembered
	// keys and places are room that is used again.
	keys   []byte
	places []placed
}

// placed is what becomes of one event.
type placed struct {
	seq sequence
	dup bool
	// key is that of the index of ids, if the id is to be remembered.
	key  string
	hash uint64 // of key, for the filter
}

// place answers what becomes of an entry's events when next is the next free sequence: for each its sequence, those that
// are there already with dup set. index is the event whose id is remembered with another digest, -1 if none. The places
// are good until the next call.
func (d *dedupe) place(e *store.Append, first, next sequence) (places []placed, index int, err error) {
	places = slices.Grow(d.places[:0], len(e.Events))[:len(e.Events)]
	clear(places)
	d.places = places
	keys := d.allKeys(e)
	for i := range e.Events {
		ev, at := &e.Events[i], &places[i]
		if ev.Event.ID == "" {
			at.seq = next
			next++
			continue
		}
		var key string
		n := idKeySize(e.Tenant, ev.Event.Scope, ev.Event.ID)
		key, keys = keys[:n], keys[n:]
		known, ok := d.group[key]
		if !ok {
			at.hash = d.s.ids.hash(key)
			known, ok, err = d.s.remember(key, at.hash, first)
		}
		switch {
		case err != nil:
			return nil, 0, err
		case ok && known.digest != ev.Digest:
			for _, taken := range places[:i] { // none of the entry's is appended
				if taken.key != "" {
					delete(d.group, taken.key)
				}
			}
			return nil, i, nil
		case ok:
			at.seq, at.dup = known.seq, true
		default:
			at.seq, at.key = next, key
			d.group[key] = remembered{next, ev.Digest}
			next++
		}
	}
	return places, -1, nil
}

// allKeys answers the keys of an entry's ids, one after the other: one string for all of them.
func (d *dedupe) allKeys(e *store.Append) string {
	k := d.keys[:0]
	for i := range e.Events {
		if ev := &e.Events[i].Event; ev.ID != "" {
			k = appendIDKey(k, e.Tenant, ev.Scope, ev.ID)
		}
	}
	d.keys = k
	return string(k)
}
