package eventhose

import (
	"strconv"
	"strings"
)

// Sequence is an event's position in its tenant's log: 1, 2, 3 … with no gap. 0 is before the first.
type Sequence uint64

// Incarnation names one life of a log. It changes when numbers may be issued again (a restored backup, a failover with
// loss), so that a cursor from the other side of the fork is recognised. It is never 0 and fits IMAP's UIDVALIDITY.
type Incarnation uint32

// Cursor is how a reader writes down how far it has read: everything up to and including Sequence.
// The zero Cursor is the beginning of any log. To clients its text is opaque, except that "0" is the beginning.
type Cursor struct {
	Incarnation Incarnation
	Sequence    Sequence
}

// String writes the cursor: "0", or the incarnation in base 36, "_", and the sequence.
func (c Cursor) String() string {
	if c.Incarnation == 0 {
		return "0"
	}
	return strconv.FormatUint(uint64(c.Incarnation), 36) + "_" + strconv.FormatUint(uint64(c.Sequence), 10)
}

// ParseCursor reads what String wrote and nothing else; "" and "0" are the beginning. Otherwise it answers CodeInvalid
// with field "cursor".
func ParseCursor(s string) (Cursor, error) {
	if s == "" || s == "0" {
		return Cursor{}, nil
	}
	inc, seq, ok := strings.Cut(s, "_")
	i, err1 := strconv.ParseUint(inc, 36, 32)
	n, err2 := strconv.ParseUint(seq, 10, 64)
	c := Cursor{Incarnation(i), Sequence(n)}
	if !ok || err1 != nil || err2 != nil || i == 0 || c.String() != s {
		return Cursor{}, &Error{Code: CodeInvalid, Field: "cursor", Message: "is not a cursor",
			Fix: "use a cursor that this server gave out, or 0 for the beginning"}
	}
	return c, nil
}

func (c Cursor) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c *Cursor) UnmarshalText(b []byte) (err error) {
	*c, err = ParseCursor(string(b))
	return err
}

// Head describes how far a log reaches. Everything between First and Last is durable.
type Head struct {
	Incarnation Incarnation
	// First is the first sequence that is left; Last+1 if none is.
	First Sequence
	// Last is the newest durable sequence, 0 in an empty log.
	Last Sequence
	// Forks are the earlier incarnations, oldest first: each was left at its sequence, and cursors of it are good up to there.
	Forks []Fork
}

// Fork says where an incarnation of a log ended.
type Fork struct {
	Incarnation Incarnation
	At          Sequence
}

// Cursor answers the cursor that stands at seq in this log.
func (h Head) Cursor(seq Sequence) Cursor { return Cursor{h.Incarnation, seq} }

// Resolve answers the sequence after which a reader with cursor c goes on. It answers CodeCursorGone with First set if
// retention has overtaken it, or if it was issued in another incarnation beyond the fork. The beginning always
// resolves, to the place before First.
func (h Head) Resolve(c Cursor) (Sequence, error) {
	if c == (Cursor{}) {
		return h.First - 1, nil
	}
	gone := func(first Sequence, why string) error {
		return &Error{Code: CodeCursorGone, Message: why, First: first, Fix: "read again from the first sequence that is left, with after=0, or reconcile what is missing"}
	}
	limit := h.Last
	if c.Incarnation != h.Incarnation {
		found := false
		for i := len(h.Forks) - 1; i >= 0 && !found; i-- {
			limit = min(limit, h.Forks[i].At)
			found = h.Forks[i].Incarnation == c.Incarnation
		}
		if !found {
			return 0, gone(h.First, "the cursor is of another incarnation of this log")
		}
		if c.Sequence > limit {
			return 0, gone(max(h.First, limit+1), "the log was restored to an earlier point than this cursor")
		}
	}
	if c.Sequence > h.Last {
		return 0, gone(h.First, "the cursor is beyond the end of this log")
	}
	if c.Sequence+1 < h.First {
		return 0, gone(h.First, "retention has removed events that this cursor has not read")
	}
	return c.Sequence, nil
}
