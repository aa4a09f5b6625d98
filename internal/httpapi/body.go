package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"

	"github.com/eventhose/eventhose"
)

// bodyTime is how long a body may take to arrive.
const bodyTime = 30 * time.Second

// hurry sets the deadline for a request's body, which readBody lifts. It is set before anything is decided of the request,
// because net/http reads what is left of a refused request's body before it answers, and would wait for it for ever.
func hurry(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // a writer in a test may have none
	}
}

// readBody reads a request's body whole, bounded before and after gunzip and by what all requests together may hold, into x
// and back into r. give must be called when the request is done.
func (a *API) readBody(w http.ResponseWriter, r *http.Request, x *exchange, ru rule) (give func(), err error) {
	if ru.maxBody == 0 {
		r.Body = http.NoBody
		return func() {}, nil
	}
	zipped := false
	switch encoding := strings.Join(r.Header["Content-Encoding"], ","); strings.ToLower(encoding) {
	case "", "identity":
	case "gzip":
		zipped = true
	default:
		return nil, &eventhose.Error{Code: eventhose.CodeUnsupported, Field: "Content-Encoding", Message: "must be gzip, once, or absent"}
	}
	if r.ContentLength > ru.maxBody {
		return nil, tooLarge("the body", ru.maxBody)
	}
	room := r.ContentLength
	if room < 0 || zipped {
		room = ru.maxBody
	}
	if !a.bodies.Take(room) {
		return nil, busy("too many requests are under way")
	}
	defer func() {
		if err != nil {
			a.bodies.Give(room)
		}
	}()

	var in io.Reader = http.MaxBytesReader(w, r.Body, ru.maxBody)
	if zipped {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return nil, bodyError(err, ru.maxBody)
		}
		in = unpacked
	}
	body := buffers.Get().(*bytes.Buffer)
	defer func() {
		if err != nil {
			giveBuffer(body)
		}
	}()
	body.Reset()
	if r.ContentLength > 0 && !zipped {
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(in, ru.maxBody+1)); err != nil {
		return nil, bodyError(err, ru.maxBody)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a writer in a test may have none
	if int64(body.Len()) > ru.maxBody {
		return nil, tooLarge("the unpacked body", ru.maxBody)
	}
	x.body = body.Bytes()
	if !ru.anyType && len(x.body) > 0 {
		if _, err := jsonType(r.Header, "application/json", "application/merge-patch+json"); err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
	}
	r.Body = io.NopCloser(bytes.NewReader(x.body))
	return func() {
		a.bodies.Give(room)
		giveBuffer(body)
	}, nil
}

// buffers are for the next bodies. Nothing of a body outlives its request: what is kept of it is copied.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxKeptBuffer is the size above which a buffer is not used again.
const maxKeptBuffer = 1 << 20

func giveBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxKeptBuffer {
		buffers.Put(b)
	}
}

func bodyError(err error, limit int64) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge("the body", limit)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the body is not gzip"}
	case isTimeout(err):
		return &eventhose.Error{Code: eventhose.CodeTimeout, Message: "the body did not arrive in time", Err: err}
	}
	return &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the body ends too early or is damaged", Err: err}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// jsonType answers which of the media types a Content-Type names. A charset must be UTF-8, which is the only one JSON has.
func jsonType(h http.Header, allowed ...string) (string, error) {
	values := h["Content-Type"]
	if len(values) == 1 && slices.Contains(allowed, values[0]) {
		return values[0], nil // as nearly all write it
	}
	refused := &eventhose.Error{Code: eventhose.CodeUnsupported, Field: "Content-Type", Message: "must be " + strings.Join(allowed, " or ")}
	if len(values) != 1 {
		return "", refused
	}
	media, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return "", refused
	}
	if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") {
		refused.Message = "must have the charset UTF-8"
		return "", refused
	}
	for _, a := range allowed {
		if media == a {
			return media, nil
		}
	}
	return "", refused
}

func validText(s string) bool { return utf8.ValidString(s) }

// clip bounds what of a client's text is told back.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.ToValidUTF8(s, "�")
}
