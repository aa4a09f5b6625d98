package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
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

// readBody reads a request's body whole into x and back into r, bounded before and after gunzip and by what the requests of
// whoever it is may hold together. x.memory must be given back when the request is done, also after an error.
func (a *API) readBody(w http.ResponseWriter, r *http.Request, x *exchange, ru rule) error {
	if ru.maxBody == 0 {
		r.Body = http.NoBody
		return nil
	}
	zipped := false
	switch encoding := strings.Join(r.Header["Content-Encoding"], ","); strings.ToLower(encoding) {
	case "", "identity":
	case "gzip":
		zipped = true
	default:
		return &eventhose.Error{Code: eventhose.CodeUnsupported, Field: "Content-Encoding", Message: "must be gzip, once, or absent"}
	}
	if r.ContentLength > ru.maxBody {
		return tooLarge("the body", ru.maxBody)
	}
	in, declared := http.MaxBytesReader(w, r.Body, ru.maxBody), r.ContentLength
	if zipped {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return bodyError(err, ru.maxBody)
		}
		in, declared = unpacked, -1
	}
	var err error
	x.memory.share = a.bodies.Of(x.principal)
	if x.body, err = x.memory.read(in, declared, ru.maxBody); err != nil {
		return bodyError(err, ru.maxBody)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a writer in a test may have none
	if !ru.anyType && len(x.body) > 0 {
		if _, err := jsonType(r.Header, "application/json", "application/merge-patch+json"); err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
	}
	r.Body = io.NopCloser(bytes.NewReader(x.body))
	return nil
}

func bodyError(err error, limit int64) error {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, errNoRoom):
		return busy("too many requests are under way")
	case errors.Is(err, errTooLong):
		return tooLarge("the unpacked body", limit)
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

// validText reports whether s is what every store takes for text.
func validText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// clip bounds what of a client's text is told back.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.ToValidUTF8(s, "�")
}
