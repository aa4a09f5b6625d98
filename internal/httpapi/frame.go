package httpapi

import (
	"time"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
)

// The frames of a WebSocket. What the client sends is read strictly; what it is sent is written by hand where there are events
// in it, whose data passes byte for byte.

const (
	// maxFrame bounds what a client sends at once, in bytes.
	maxFrame = 32 << 10
	// maxCredit is how many events a client may have granted that it has not got.
	maxCredit = 10_000
)

// The types of frames that clients send.
const (
	frameGrant   = "grant"
	frameAck     = "ack"
	frameNack    = "nack"
	frameRelease = "release"
	frameExtend  = "extend"
)

// frame is what a client sends.
type frame struct {
	Type string `json:"type"`
	// Events is how many more events it takes, with grant.
	Events int `json:"events"`
	// Leases are what ack, nack, release and extend are about.
	Leases  []string            `json:"leases"`
	Delay   *eventhose.Duration `json:"delay"`
	Message string              `json:"message"`
	Lease   eventhose.Duration  `json:"lease"`
}

// parseFrame reads what a client sends; works says that it works on a subscription. CodeMalformed, CodeInvalid with the field.
func parseFrame(b []byte, works bool) (frame, error) {
	var f frame
	if err := unmarshal(b, &f); err != nil {
		return f, err
	}
	foreign := func(field string, set bool, types ...string) error {
		if !set {
			return nil
		}
		for _, t := range types {
			if f.Type == t {
				return nil
			}
		}
		return eventhose.Invalid(field, "does not belong into a frame of this type")
	}
	for _, err := range []error{
		foreign("events", f.Events != 0, frameGrant),
		foreign("leases", f.Leases != nil, frameAck, frameNack, frameRelease, frameExtend),
		foreign("delay", f.Delay != nil, frameNack),
		foreign("message", f.Message != "", frameNack),
		foreign("lease", f.Lease != 0, frameExtend),
	} {
		if err != nil {
			return f, err
		}
	}
	switch {
	case f.Type == frameGrant:
		if f.Events < 1 || f.Events > maxCredit {
			return f, eventhose.Invalid("events", "must be between 1 and %d", maxCredit)
		}
	case doneTypes[f.Type] == "":
		return f, eventhose.Invalid("type", "must be grant, ack, nack, release or extend")
	case !works:
		return f, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "type", Message: "must be grant: nothing is leased here", Fix: "connect with ?subscription= to work on a pull subscription"}
	case len(f.Leases) == 0:
		return f, eventhose.Invalid("leases", "must not be empty")
	case len(f.Leases) > eventhose.MaxPull:
		return f, eventhose.Invalid("leases", "must be at most %d", eventhose.MaxPull)
	case f.Delay != nil && *f.Delay < 0:
		return f, eventhose.Invalid("delay", "must not be negative")
	}
	return f, nil
}

// answer is what a frame of a worker says of its leases.
func (f *frame) answer() eventhose.Answer {
	a := eventhose.Answer{Leases: f.Leases, Message: f.Message}
	switch f.Type {
	case frameNack:
		a.Verdict, a.Delay = eventhose.AnswerNack, -1
		if f.Delay != nil {
			a.Delay = time.Duration(*f.Delay)
		}
	case frameRelease:
		a.Verdict = eventhose.AnswerRelease
	case frameExtend:
		a.Verdict, a.Delay = eventhose.AnswerExtend, time.Duration(f.Lease)
		if f.Lease == 0 {
			a.Delay = eventhose.DefaultLease
		}
	default:
		a.Verdict = eventhose.AnswerAck
	}
	return a
}

// doneFrame answers ack, nack, release and extend, in their order.
type doneFrame struct {
	Type string `json:"type"` // acked, nacked, released or extended
	Answered
}

var doneTypes = map[string]string{frameAck: "acked", frameNack: "nacked", frameRelease: "released", frameExtend: "extended"}

// errorFrame tells why the server closes. The problem's own type gives way to the frame's.
type errorFrame struct {
	Type string `json:"type"`
	*Problem
}

func encodeFrames(events []eventhose.Event, incarnation eventhose.Incarnation) follow.Encoded[[]byte] {
	return encodeEach(events, incarnation, func(b []byte, e *eventhose.Event, cursor eventhose.Cursor) []byte {
		b = append(append(append(b, `{"type":"event","cursor":"`...), cursor.String()...), `","event":`...)
		return append(appendEvent(b, e, cursor), "}}"...)
	})
}

// appendLeasedFrame writes an event that is in this worker's hands.
func appendLeasedFrame(b []byte, l *eventhose.Leased, head eventhose.Head) []byte {
	b = appendHanding(append(b, `{"type":"event",`...), l)
	return append(appendEvent(append(b, `,"event":`...), &l.Event, head.Cursor(l.Event.Sequence)), "}}"...)
}

func cursorFrame(typ string, c eventhose.Cursor) []byte {
	return []byte(`{"type":"` + typ + `","cursor":"` + c.String() + `"}`)
}

// closeTooSlow ends a client that answers no ping; what it is sent besides goes by the error's code. closeRefused is for frames that
// cannot be accepted.
const (
	closeTooSlow websocket.StatusCode = 4408
	closeRefused websocket.StatusCode = 4400
)

// closeCodes is the one mapping from codes to WebSocket's close codes; those that are not here are 1011.
var closeCodes = map[eventhose.Code]websocket.StatusCode{
	eventhose.CodeMalformed:       closeRefused,
	eventhose.CodeInvalid:         closeRefused,
	eventhose.CodeTooLarge:        closeRefused,
	eventhose.CodeUnsupported:     closeRefused,
	eventhose.CodeUnauthenticated: 4401,
	eventhose.CodeForbidden:       4403,
	eventhose.CodeNotFound:        4404,
	eventhose.CodeConflict:        4409,
	eventhose.CodeCursorGone:      4410,
	eventhose.CodeLimit:           4429,
	eventhose.CodeUnavailable:     websocket.StatusTryAgainLater,
	eventhose.CodeTimeout:         websocket.StatusTryAgainLater,
	eventhose.CodeStorageFull:     websocket.StatusTryAgainLater,
}

func closeCode(err error) websocket.StatusCode {
	if code, ok := closeCodes[eventhose.CodeOf(err)]; ok {
		return code
	}
	return websocket.StatusInternalError
}
