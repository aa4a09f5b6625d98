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
	b := make([]byte, 0, 512)
	put := func(s string) {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	put(e.Type)
	put(e.Key)
	at := ""
	if !e.Time.IsZero() {
		at = e.Time.UTC().Format("2006-01-02T15:04:05.999999999Z")
	}
	put(at)
	put(e.Version)
	put(e.ContentType)
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		put(name)
		put(e.Attributes[name])
	}
	b = binary.BigEndian.AppendUint64(b, uint64(len(e.Data)))
	h := sha256.New()
	h.Write(b)
	h.Write(e.Data)
	return [16]byte(h.Sum(b[:0])[:16])
}
