package embedded

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// A record batch is the value that holds a run of events of one log:
//
//	version  1 byte: 1 body as it is, 2 body as one S2 block
//	crc      4 bytes, CRC-32C of all that follows
//	body     length uvarint, of meta
//	         meta   count, first sequence, parent; then for each event flags and the fields that they announce
//	         data   the events' data, one after the other
//
// Meta and data stand apart so that reading a batch costs one string for all text and one slice for all data, however
// many events it has. Pebble's blocks have checksums of their own; this one also covers what happens between them and us.
//
// A body is compressed here, once, and not by Pebble each time that it writes the value: the log, the table that memory
// is flushed to, and every compaction then write the few bytes. On a disk that is the bound this is what counts.

// batchBytes is how large a record batch grows; a single larger event has one of its own.
const batchBytes = 64 << 10

// The forms of a body. Bodies above maxPacked are not compressed, so that no stored length makes a reader allocate more.
const (
	rowPacked = 2
	maxPacked = 4 << 20
)

// Flags of one event in a batch.
const (
	hasGeneratedID = 1 << iota // an id made here: 8 random bytes, the rest is the sequence
	hasScope
	hasKey
	hasVersion
	hasAttributes
	hasContentType
	hasTime       // differs from Appended
	hasAppended   // differs from the event's before
	hasErased     // the data was removed
	hasOrigin     // a reference to another log's event; no data
	hasParentSeq  // its place in the parent's log
	allEventFlags = 1<<iota - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is an event with what only the store knows about it.
type record struct {
	event eventhose.Event
	// generated says that the id was made of the sequence and random, and is not in the index.
	generated bool
	random    uint64
	// parentSeq is the place in the log of parent, 0 if there is none.
	parent    tenantID
	parentSeq sequence
	// aside says that it is a copy kept aside, which has its own data also when it is a reference.
	aside bool
}

// batch is a decoded record batch. It is shared and never changed.
type batch struct {
	first   sequence
	records []record
	// size is about how much memory it holds.
	size int
}

// batchSize is about how much memory a decoded batch takes.
func batchSize(bytes, count int) int { return 256 + bytes + count*384 }

func (b *batch) last() sequence { return b.first + sequence(len(b.records)) - 1 }

// batchWriter encodes one batch after the other. It keeps the data of events that were added until the batch is finished.
type batchWriter struct {
	first    sequence
	parent   tenantID
	count    int
	meta     row.Writer
	data     [][]byte
	dataSize int
	appended time.Time // of the event before
	room     *batchRoom
}

// batchRoom is what values are put together in, one at a time.
type batchRoom struct{ value []byte }

func (w *batchWriter) size() int { return len(w.meta.B) + w.dataSize }

// recordSize is at most how much add grows a batch by.
func recordSize(e *eventhose.Event) int {
	n := 64 + len(e.ID) + len(e.Scope) + len(e.Type) + len(e.Key) + len(e.Version) + len(e.ContentType) + len(e.Origin.Tenant) + len(e.Data)
	for k, v := range e.Attributes {
		n += 6 + len(k) + len(v)
	}
	return n
}

// takes reports whether an event fits into the batch, which has one parent.
func (w *batchWriter) takes(r *record) bool {
	return w.count == 0 || w.size()+recordSize(&r.event) <= batchBytes && w.parent == r.parent
}

// encodeBatch writes records with the sequences that they have.
func encodeBatch(records []record) []byte {
	var w batchWriter
	for i := range records {
		w.add(&records[i])
	}
	value, _ := w.finish()
	return value
}

// add appends an event; the caller keeps sequences without gap. The event must stay as it is until finish.
func (w *batchWriter) add(r *record) {
	e := &r.event
	if w.count == 0 {
		w.first, w.parent = e.Sequence, r.parent
	}
	flags := uint64(0)
	set := func(on bool, flag uint64) {
		if on {
			flags |= flag
		}
	}
	set(r.generated, hasGeneratedID)
	set(e.Scope != "", hasScope)
	set(e.Key != "", hasKey)
	set(e.Version != "", hasVersion)
	set(len(e.Attributes) > 0, hasAttributes)
	set(e.ContentType != "", hasContentType)
	set(!e.Time.Equal(e.Appended), hasTime)
	set(w.count == 0 || !w.appended.Equal(e.Appended), hasAppended)
	set(e.Erased, hasErased)
	set(e.Origin != eventhose.Origin{}, hasOrigin)
	set(r.parentSeq != 0, hasParentSeq)
	m := &w.meta
	m.Uint(flags)
	if r.generated {
		m.B = binary.LittleEndian.AppendUint64(m.B, r.random)
	} else {
		m.Str(e.ID)
	}
	m.Str(e.Type)
	if flags&hasScope != 0 {
		m.Str(e.Scope)
	}
	if flags&hasKey != 0 {
		m.Str(e.Key)
	}
	if flags&hasVersion != 0 {
		m.Str(e.Version)
	}
	if flags&hasAttributes != 0 {
		m.Uint(uint64(len(e.Attributes)))
		for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
			m.Str(name)
			m.Str(e.Attributes[name])
		}
	}
	if flags&hasContentType != 0 {
		m.Str(e.ContentType)
	}
	if flags&hasAppended != 0 {
		m.Time(e.Appended)
	}
	if flags&hasTime != 0 {
		m.Time(e.Time)
	}
	if flags&hasOrigin != 0 {
		m.Str(string(e.Origin.Tenant))
		m.Uint(uint64(e.Origin.Sequence))
	}
	if flags&hasParentSeq != 0 {
		m.Uint(uint64(r.parentSeq))
	}
	m.Uint(uint64(len(e.Data)))
	w.data = append(w.data, e.Data)
	w.dataSize += len(e.Data)
	w.appended = e.Appended
	w.count++
}

// finish answers the encoded batch, good until the room is used again, and its body, which is the caller's, and empties
// the writer for the next one.
func (w *batchWriter) finish() (value, body []byte) {
	var head row.Writer
	head.Uint(uint64(w.count))
	head.Uint(uint64(w.first))
	head.Str(string(w.parent))
	if w.room == nil {
		w.room = &batchRoom{}
	}
	body = make([]byte, 0, binary.MaxVarintLen64+len(head.B)+w.size())
	body = binary.AppendUvarint(body, uint64(len(head.B)+len(w.meta.B)))
	body = append(append(body, head.B...), w.meta.B...)
	for _, data := range w.data {
		body = append(body, data...)
	}
	value = pack(w.room.value[:0], body)
	if w.room.value = value; cap(value) > maxPacked/2 {
		w.room.value = nil // of one unusual event
	}
	clear(w.data)
	w.meta.B, w.data, w.dataSize, w.count = w.meta.B[:0], w.data[:0], 0, 0
	return value, body
}

// pack writes the value of a body behind out, compressed if that makes it smaller by a sixteenth at least.
func pack(out, body []byte) []byte {
	const head = 5
	if n := s2.MaxEncodedLen(len(body)); len(body) <= maxPacked && n > 0 {
		out = slices.Grow(out, head+n)[:head+n]
		packed := s2.Encode(out[head:], body)
		if len(packed) <= len(body)-len(body)/16 {
			out = out[:head+len(packed)]
			out[0] = rowPacked
			putChecksum(out)
			return out
		}
	}
	out = append(slices.Grow(out[:0], head+len(body))[:head], body...)
	out[0] = row.Version
	putChecksum(out)
	return out
}

// unpack answers the body of a value; own says that it is not the value's own memory.
func unpack(value []byte) (body []byte, own bool, err error) {
	if len(value) < 6 || value[0] != row.Version && value[0] != rowPacked {
		return nil, false, row.ErrMalformed
	}
	if got, want := crc32.Checksum(value[5:], castagnoli), binary.LittleEndian.Uint32(value[1:]); got != want {
		return nil, false, fmt.Errorf("checksum %08x, want %08x", got, want)
	}
	if value[0] == row.Version {
		return value[5:], false, nil
	}
	if n, err := s2.DecodedLen(value[5:]); err != nil || n > maxPacked {
		return nil, false, row.ErrMalformed
	}
	if body, err = s2.Decode(nil, value[5:]); err != nil {
		return nil, false, row.ErrMalformed
	}
	return body, true, nil
}

func putChecksum(value []byte) {
	binary.LittleEndian.PutUint32(value[1:], crc32.Checksum(value[5:], castagnoli))
}

// decodeBatch reads a record batch of a tenant's log. It keeps nothing of value. Errors are row.ErrMalformed or tell that
// the checksum differs.
func decodeBatch(tenant tenantID, value []byte) (*batch, error) {
	body, own, err := unpack(value)
	if err != nil {
		return nil, err
	}
	if !own {
		body = bytes.Clone(body)
	}
	return decodeBody(tenant, body)
}

// decodeBody reads a batch's body, which it keeps.
func decodeBody(tenant tenantID, body []byte) (*batch, error) {
	n, k := binary.Uvarint(body)
	if k <= 0 || n > uint64(len(body)-k) {
		return nil, row.ErrMalformed
	}
	meta := string(body[k : k+int(n)])
	data := body[k+int(n):]
	r := row.Reader{B: body[k : k+int(n)], S: meta}
	count := r.Count()
	b := &batch{first: sequence(r.Uint()), size: batchSize(len(body)+len(meta), count)}
	parent := tenantID(r.Str())
	if r.Bad() || count == 0 || b.first == 0 || b.first+sequence(count) < b.first {
		return nil, row.ErrMalformed
	}
	b.records = make([]record, count)
	for i := range b.records {
		rec := &b.records[i]
		rec.event.Tenant, rec.event.Sequence = tenant, b.first+sequence(i)
		if i > 0 {
			rec.event.Appended = b.records[i-1].event.Appended
		}
		rec.parent = parent
		size := readRecord(&r, rec)
		if r.Bad() || size > uint64(len(data)) {
			return nil, row.ErrMalformed
		}
		if size > 0 {
			rec.event.Data = data[:size:size]
			data = data[size:]
		}
	}
	if r.Done() != nil || len(data) != 0 {
		return nil, row.ErrMalformed
	}
	return b, nil
}

// readRecord reads one event's part of meta into rec, whose Appended is the event's before, and answers the length of
// its data.
func readRecord(r *row.Reader, rec *record) uint64 {
	e := &rec.event
	flags := r.Uint()
	if flags > allEventFlags {
		r.Fail()
		return 0
	}
	if flags&hasGeneratedID != 0 {
		if b := r.Take(8); b != nil {
			rec.generated, rec.random = true, binary.LittleEndian.Uint64(b)
			e.ID = eventhose.EventID(e.Sequence, rec.random)
		}
	} else {
		e.ID = r.Str()
	}
	e.Type = r.Str()
	if flags&hasScope != 0 {
		e.Scope = r.Str()
	}
	if flags&hasKey != 0 {
		e.Key = r.Str()
	}
	if flags&hasVersion != 0 {
		e.Version = r.Str()
	}
	if flags&hasAttributes != 0 {
		n := r.Count()
		e.Attributes = make(map[string]string, min(n, eventhose.MaxAttributes))
		for range n {
			name := r.Str()
			e.Attributes[name] = r.Str()
			if r.Bad() {
				return 0
			}
		}
	}
	if flags&hasContentType != 0 {
		e.ContentType = r.Str()
	}
	if flags&hasAppended != 0 {
		e.Appended = r.Time()
	}
	e.Time = e.Appended
	if flags&hasTime != 0 {
		e.Time = store.EventTime(r.Time())
	}
	e.Erased = flags&hasErased != 0
	if flags&hasOrigin != 0 {
		e.Origin = eventhose.Origin{Tenant: tenantID(r.Str()), Sequence: sequence(r.Uint())}
	}
	if flags&hasParentSeq != 0 {
		rec.parentSeq = sequence(r.Uint())
	}
	return r.Uint()
}
