package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// Problem is the body of every error (RFC 9457). It names nothing of the request but the field at fault, so that what is
// absent and what is another tenant's are answered with the same bytes.
type Problem struct {
	Type   string         `json:"type" doc:"Where the code is explained" example:"/docs#invalid"`
	Title  string         `json:"title" example:"A field cannot be accepted"`
	Status int            `json:"status" example:"422"`
	Code   eventhose.Code `json:"code" doc:"Stable; switch on this" example:"invalid"`
	Detail string         `json:"detail" doc:"What is wrong" example:"is required"`
	Field  string         `json:"field,omitempty" doc:"The path of the first field at fault" example:"events[3].type"`
	Errors []ProblemField `json:"errors,omitempty" doc:"Every field at fault"`
	Fix    string         `json:"fix,omitempty" doc:"What to do about it"`
	// First is set with cursor_gone.
	First eventhose.Sequence `json:"first,omitempty" doc:"The first sequence left, with cursor_gone"`
	// RetryAfter is in seconds, as in the header.
	RetryAfter int `json:"retry_after,omitempty" doc:"Seconds after which another try makes sense"`
}

// ProblemField is what is wrong with one field.
type ProblemField struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus and ContentType are what huma asks of an error.
func (p *Problem) GetStatus() int            { return p.Status }
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders are those that go with the status.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Code == eventhose.CodeUnauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="eventhose"`)
	}
	return h
}

// kinds is the one mapping from codes to HTTP.
var kinds = map[eventhose.Code]struct {
	status int
	title  string
}{
	eventhose.CodeMalformed:       {http.StatusBadRequest, "The request cannot be read"},
	eventhose.CodeInvalid:         {http.StatusUnprocessableEntity, "A field cannot be accepted"},
	eventhose.CodeTooLarge:        {http.StatusRequestEntityTooLarge, "A size limit was passed"},
	eventhose.CodeUnsupported:     {http.StatusUnsupportedMediaType, "This content type or encoding is not taken"},
	eventhose.CodeUnauthenticated: {http.StatusUnauthorized, "A valid API key is needed"},
	eventhose.CodeForbidden:       {http.StatusForbidden, "The API key does not reach this far"},
	eventhose.CodeNotFound:        {http.StatusNotFound, "Not found"},
	eventhose.CodeMethod:          {http.StatusMethodNotAllowed, "The route does not take this method"},
	eventhose.CodeConflict:        {http.StatusConflict, "The request conflicts with what is there"},
	eventhose.CodeVersion:         {http.StatusConflict, "Somebody else changed it first"},
	eventhose.CodeErased:          {http.StatusGone, "The data was erased"},
	eventhose.CodeCursorGone:      {http.StatusGone, "The cursor has been overtaken"},
	eventhose.CodeLimit:           {http.StatusTooManyRequests, "A limit was reached"},
	eventhose.CodeUnavailable:     {http.StatusServiceUnavailable, "Not available now"},
	eventhose.CodeStorageFull:     {http.StatusInsufficientStorage, "There is no room for more events"},
	eventhose.CodeTimeout:         {http.StatusGatewayTimeout, "It took too long"},
	eventhose.CodeInternal:        {http.StatusInternalServerError, "Something went wrong here"},
}

// problem turns any error into the one that is shown. What is ours to mend is logged here, once, and shown as nothing
// but a generic sentence.
func (a *API) problem(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	code := eventhose.CodeOf(err)
	if code == eventhose.CodeInternal {
		a.logger.LogAttrs(ctx, slog.LevelError, "http: internal error",
			slog.String("request_id", exchangeOf(ctx).id), slog.String("route", exchangeOf(ctx).route), slog.String("error", err.Error()))
	}
	return problemOf(code, err)
}

func problemOf(code eventhose.Code, err error) *Problem {
	kind, known := kinds[code]
	if !known {
		code = eventhose.CodeInternal
		kind = kinds[code]
	}
	p := &Problem{Type: "/docs#" + string(code), Title: kind.title, Status: kind.status, Code: code}
	var e *eventhose.Error
	errors.As(err, &e)
	switch {
	case code == eventhose.CodeInternal:
		p.Detail, p.Fix = "the server met an error of its own", "try again; tell the operator the X-Request-Id if it stays"
	case e == nil && code == eventhose.CodeTimeout:
		p.Detail, p.RetryAfter = "the request's time ran out", 1
	case e == nil:
		p.Detail, p.RetryAfter = "the server cannot answer now", 1
	default:
		p.Detail, p.Field, p.Fix, p.First = e.Message, e.Field, e.Fix, e.First
		if e.RetryAfter > 0 {
			p.RetryAfter = max(1, int(math.Ceil(e.RetryAfter.Seconds())))
		} else if code == eventhose.CodeUnavailable {
			p.RetryAfter = 1
		}
	}
	if p.Field != "" {
		p.Errors = []ProblemField{{p.Field, p.Detail}}
	}
	return p
}

// fail answers a request with an error.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := a.problem(r.Context(), err)
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	body, err := marshal(p)
	if err != nil {
		a.logger.LogAttrs(r.Context(), slog.LevelError, "http: cannot encode a problem", slog.String("error", err.Error()))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// hookHuma makes huma's own refusals ours. The hooks are the library's and global; they are set once, to functions that
// depend on nothing.
var hookHuma = sync.OnceFunc(func() {
	huma.DefaultArrayNullable = false
	huma.NewError = refusal
	huma.NewErrorWithContext = func(_ huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return refusal(status, msg, errs...)
	}
})

// maxFields bounds how many faults one answer tells.
const maxFields = 20

// refusal is what huma found wrong with a request, in our words. Values are left out: they may be secrets.
func refusal(status int, msg string, errs ...error) huma.StatusError {
	code := eventhose.CodeInvalid
	switch status {
	case http.StatusBadRequest:
		code = eventhose.CodeMalformed
	case http.StatusUnsupportedMediaType:
		code = eventhose.CodeUnsupported
	case http.StatusRequestEntityTooLarge:
		code = eventhose.CodeTooLarge
	case http.StatusInternalServerError:
		code = eventhose.CodeInternal
	}
	var fields []ProblemField
	for _, err := range errs {
		var d *huma.ErrorDetail
		if errors.As(err, &d) {
			fields = append(fields, fieldOf(d))
		}
	}
	// huma walks objects in no order.
	slices.SortStableFunc(fields, func(a, b ProblemField) int { return strings.Compare(a.Field, b.Field) })
	if len(fields) > maxFields {
		fields = fields[:maxFields]
	}
	if len(fields) == 0 {
		return problemOf(code, &eventhose.Error{Code: code, Message: msg})
	}
	p := problemOf(code, &eventhose.Error{Code: code, Message: fields[0].Message, Field: fields[0].Field})
	p.Errors = fields
	if fields[0].Field == "" {
		p.Errors = nil
	}
	return p
}

// fieldOf reads one of huma's details: its location begins with where the value was, a missing property is told at its
// parent, and what only the decoder noticed (a duration that is none) has its path in the message, from jsonError.
func fieldOf(d *huma.ErrorDetail) ProblemField {
	f := ProblemField{Message: d.Message}
	_, f.Field, _ = strings.Cut(d.Location, ".")
	if len(f.Field) > maxField {
		f.Field = strings.ToValidUTF8(f.Field[:maxField], "") + "…"
	}
	var missing string
	if n, _ := fmt.Sscanf(d.Message, "expected required property %s to be present", &missing); n == 1 {
		return ProblemField{strings.TrimPrefix(f.Field+"."+missing, "."), "is required"}
	}
	if path, message, ok := strings.Cut(d.Message, fieldMark); ok {
		f.Field, f.Message = path, message
	} else {
		f.Message = inOurWords(d.Message)
	}
	return f
}

// inOurWords says what huma finds wrong with a value as the rest of the API says it: what the value must be.
func inOurWords(message string) string {
	kind, wrongKind := strings.CutPrefix(message, "expected ")
	article := "a "
	switch {
	case message == "unexpected property":
		return "is not a field that this route knows"
	case message == "invalid integer":
		return "must be an integer"
	case !wrongKind:
		return message
	case strings.HasPrefix(kind, "value to match at least one schema"): // Place is the only such field
		return placeWanted
	case strings.HasPrefix(kind, "value to be one of "):
		return "must be one of " + strings.Trim(strings.TrimPrefix(kind, "value to be one of "), `"`)
	case strings.HasPrefix(kind, "number >= "):
		return "must be at least " + strings.TrimPrefix(kind, "number >= ")
	case strings.HasPrefix(kind, "number <= "):
		return "must be at most " + strings.TrimPrefix(kind, "number <= ")
	case kind == "string to be RFC 3339 date-time":
		return "must be an RFC 3339 time such as 2026-01-31T12:00:00Z"
	case kind == "array", kind == "object", kind == "integer":
		article = "an "
	case kind != "string" && kind != "number" && kind != "boolean":
		return message
	}
	return "must be " + article + kind
}

// fieldMark parts a path from what is wrong with it where only text can pass.
const fieldMark = "\x00"

// pathError is an error whose text huma carries to fieldOf.
type pathError struct{ fault *eventhose.Error }

func (e pathError) Error() string { return e.fault.Field + fieldMark + e.fault.Message }
func (e pathError) Unwrap() error { return e.fault }

// jsonError tells what is wrong with a JSON text, and where.
func jsonError(err error) pathError {
	var syntax *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.As(err, &syntax):
		e := &eventhose.Error{Code: eventhose.CodeMalformed, Field: fieldPath(syntax.JSONPointer)}
		if errors.Is(syntax.Err, jsontext.ErrDuplicateName) {
			e.Message = "is given twice"
		} else {
			e.Message = fmt.Sprintf("is not JSON: %v at byte %d", syntax.Err, syntax.ByteOffset)
			if e.Field == "" {
				e.Message = "the body " + e.Message
			}
		}
		return pathError{e}
	case errors.As(err, &semantic):
		e := &eventhose.Error{Code: eventhose.CodeInvalid, Field: fieldPath(semantic.JSONPointer), Message: "has a value of the wrong kind"}
		var cause *eventhose.Error
		switch {
		case errors.Is(semantic.Err, json.ErrUnknownName):
			e.Message = "is not a field that this route knows"
		case errors.As(semantic.Err, &cause):
			e.Message = cause.Message
		}
		return pathError{e}
	}
	return pathError{&eventhose.Error{Code: eventhose.CodeMalformed, Message: "the body is not JSON: the text ends too early"}}
}

// maxField bounds, in bytes, how much of a path that huma names is told.
const maxField = 256

// maxFieldPath bounds how many steps of a hostile document's path are told.
const maxFieldPath = 20

// fieldPath writes a JSON pointer as a path: "/filter/types/0" is "filter.types[0]".
func fieldPath(p jsontext.Pointer) string {
	var b strings.Builder
	steps := 0
	for token := range p.Tokens() {
		if steps++; steps > maxFieldPath {
			return b.String() + "…"
		}
		if _, err := strconv.ParseUint(token, 10, 32); err == nil {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(clip(token))
	}
	return b.String()
}

func statusText(status int) string { return strconv.Itoa(status) }

// tooLarge is the refusal of what passes a limit of n bytes.
func tooLarge(what string, n int64) error {
	return &eventhose.Error{Code: eventhose.CodeTooLarge, Message: fmt.Sprintf("%s is larger than %d bytes", what, n)}
}

// busy asks the client to come back.
func busy(message string) error {
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: message, RetryAfter: time.Second}
}
