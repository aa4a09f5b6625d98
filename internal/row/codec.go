// Package row is how drivers write what they keep as bytes: lanes, what is parked, attempts. What a release wrote every
// later one reads.
package row

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
)

// ErrMalformed is what decoding answers for bytes that were not written so. Callers say where they stood.
var ErrMalformed = errors.New("malformed row")

// Version begins every row, so that a later format can be told from this one.
const Version = 1

// Writer appends to B. The zero value is ready.
type Writer struct{ B []byte }

func (w *Writer) Byte(v byte)    { w.B = append(w.B, v) }
func (w *Writer) Uint(v uint64)  { w.B = binary.AppendUvarint(w.B, v) }
func (w *Writer) Int(v int64)    { w.B = binary.AppendVarint(w.B, v) }
func (w *Writer) Str(s string)   { w.Uint(uint64(len(s))); w.B = append(w.B, s...) }
func (w *Writer) Bytes(s []byte) { w.Uint(uint64(len(s))); w.B = append(w.B, s...) }

func (w *Writer) Bool(v bool) {
	if v {
		w.Byte(1)
	} else {
		w.Byte(0)
	}
}

// Time keeps the instant to the nanosecond over all years that Go knows, not the location.
func (w *Writer) Time(t time.Time) {
	w.Int(t.Unix())
	w.Uint(uint64(t.Nanosecond()))
}

// Reader reads from B what Writer wrote. After the first thing that does not fit every read answers zero, and Done an error.
// It keeps nothing of B but for what Take answers; texts share the memory of S, or without S have their own.
type Reader struct {
	B   []byte
	S   string // the same bytes, if texts are to share them
	at  int
	bad bool
}

// Fail says that what was read does not fit.
func (r *Reader) Fail() { r.bad = true }

// Bad reports whether something did not fit.
func (r *Reader) Bad() bool { return r.bad }

// Done answers ErrMalformed if something did not fit or is left.
func (r *Reader) Done() error {
	if r.bad || r.at != len(r.B) {
		return ErrMalformed
	}
	return nil
}

// More reports whether something is left: what a later version appended to a row.
func (r *Reader) More() bool { return !r.bad && r.at < len(r.B) }

func (r *Reader) Byte() byte {
	if r.bad || r.at >= len(r.B) {
		r.Fail()
		return 0
	}
	r.at++
	return r.B[r.at-1]
}

func (r *Reader) Uint() uint64 {
	if r.bad {
		return 0
	}
	v, n := binary.Uvarint(r.B[r.at:])
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.at += n
	return v
}

func (r *Reader) Int() int64 {
	if r.bad {
		return 0
	}
	v, n := binary.Varint(r.B[r.at:])
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.at += n
	return v
}

// Count reads how many things follow, each of at least one byte.
func (r *Reader) Count() int {
	n := r.Uint()
	if n > uint64(len(r.B)-r.at) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Take answers the next n bytes, which are those of B.
func (r *Reader) Take(n int) []byte {
	if r.bad || n < 0 || n > len(r.B)-r.at {
		r.Fail()
		return nil
	}
	r.at += n
	return r.B[r.at-n : r.at]
}

func (r *Reader) Str() string {
	n := r.Count()
	b := r.Take(n)
	if r.S != "" {
		return r.S[r.at-len(b) : r.at]
	}
	return string(b)
}

// Name reads a text that is not empty.
func (r *Reader) Name() string {
	s := r.Str()
	if s == "" {
		r.Fail()
	}
	return s
}

func (r *Reader) Bytes() []byte {
	n := r.Count()
	if n == 0 {
		return nil
	}
	return append([]byte(nil), r.Take(n)...)
}

func (r *Reader) Bool() bool {
	switch r.Byte() {
	case 0:
		return false
	case 1:
		return true
	}
	r.Fail()
	return false
}

func (r *Reader) Time() time.Time {
	sec, nsec := r.Int(), r.Uint()
	if nsec >= 1e9 {
		r.Fail()
	}
	if r.bad {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

// Version reads the byte that begins a row.
func (r *Reader) Version() {
	if r.Byte() != Version {
		r.Fail()
	}
}

func (w *Writer) Strs(s []string) {
	w.Uint(uint64(len(s)))
	for _, v := range s {
		w.Str(v)
	}
}

func (r *Reader) Strs() []string {
	n := r.Count()
	if n == 0 {
		return nil
	}
	s := make([]string, n)
	for i := range s {
		s[i] = r.Str()
	}
	return s
}

func (w *Writer) Seqs(s []eventhose.Sequence) {
	w.Uint(uint64(len(s)))
	for _, seq := range s {
		w.Uint(uint64(seq))
	}
}

func (r *Reader) Seqs() []eventhose.Sequence {
	n := r.Count()
	if n == 0 {
		return nil
	}
	s := make([]eventhose.Sequence, n)
	for i := range s {
		s[i] = eventhose.Sequence(r.Uint())
	}
	return s
}
