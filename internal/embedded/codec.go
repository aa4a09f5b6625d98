package embedded

import (
	"encoding/binary"
	"errors"
	"time"
)

// errMalformed is what decoding answers for bytes that this package did not write. Callers say where they stood.
var errMalformed = errors.New("malformed row")

// rowVersion begins every row, so that a later format can be told from this one.
const rowVersion = 1

type writer struct{ b []byte }

func (w *writer) byte(v byte)    { w.b = append(w.b, v) }
func (w *writer) uint(v uint64)  { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)    { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) str(s string)   { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bytes(s []byte) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
	} else {
		w.byte(0)
	}
}

// time keeps the instant to the nanosecond over all years that Go knows, not the location.
func (w *writer) time(t time.Time) {
	w.int(t.Unix())
	w.uint(uint64(t.Nanosecond()))
}

// reader reads what writer wrote. After the first thing that does not fit every read answers zero and ok is false.
type reader struct {
	b   []byte
	s   string // the same bytes, if strings are to share them
	at  int
	bad bool
}

func (r *reader) fail() { r.bad = true }

func (r *reader) done() error {
	if r.bad || r.at != len(r.b) {
		return errMalformed
	}
	return nil
}

// more reports whether something is left: what a later version appended to a row.
func (r *reader) more() bool { return !r.bad && r.at < len(r.b) }

func (r *reader) byte() byte {
	if r.bad || r.at >= len(r.b) {
		r.fail()
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) uint() uint64 {
	if r.bad {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.at += n
	return v
}

func (r *reader) int() int64 {
	if r.bad {
		return 0
	}
	v, n := binary.Varint(r.b[r.at:])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.at += n
	return v
}

// count reads how many things follow, each of at least one byte.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)-r.at) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b)-r.at {
		r.fail()
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *reader) str() string {
	n := r.count()
	b := r.take(n)
	if r.s != "" {
		return r.s[r.at-len(b) : r.at]
	}
	return string(b)
}

// name reads a text that is not empty.
func (r *reader) name() string {
	s := r.str()
	if s == "" {
		r.fail()
	}
	return s
}

func (r *reader) bytes() []byte {
	n := r.count()
	if n == 0 {
		return nil
	}
	return append([]byte(nil), r.take(n)...)
}

func (r *reader) bool() bool {
	switch r.byte() {
	case 0:
		return false
	case 1:
		return true
	}
	r.fail()
	return false
}

func (r *reader) time() time.Time {
	sec, nsec := r.int(), r.uint()
	if nsec >= 1e9 {
		r.fail()
	}
	if r.bad {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

// version reads the byte that begins a row.
func (r *reader) version() {
	if r.byte() != rowVersion {
		r.fail()
	}
}
