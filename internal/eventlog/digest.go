package eventlog

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/eventhose/eventhose"
)

// digestOf tells apart what clients sent under one id: the first half of SHA-256 over every field that the client may
// set, each with its length, so that no two events write the same bytes.
func digestOf(e *eventhose.Event) [16]byte {
	h := sha256.New()
	var length [8]byte
	put := func(b []byte) {
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		h.Write(length[:])
		h.Write(b)
	}
	put([]byte(e.Type))
	put([]byte(e.Key))
	if !e.Time.IsZero() {
		put(e.Time.UTC().AppendFormat(nil, "2006-01-02T15:04:05.999999999Z"))
	} else {
		put(nil)
	}
	put([]byte(e.Version))
	put([]byte(e.ContentType))
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		put([]byte(name))
		put([]byte(e.Attributes[name]))
	}
	put(e.Data)
	return [16]byte(h.Sum(nil)[:16])
}
