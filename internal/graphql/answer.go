package graphql

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	engine "github.com/graph-gophers/graphql-go"
	qerrors "github.com/graph-gophers/graphql-go/errors"

	"github.com/eventhose/eventhose"
)

const (
	// maxFaults bounds how many errors one answer tells, maxMessage how long in bytes what a library says of a document may be.
	maxFaults  = 20
	maxMessage = 300
	// maxAnswer bounds what is large in one answer, or in one item of a stream: data, attributes, bodies.
	maxAnswer = 8 << 20
)

// fault is an error as GraphQL has it.
type fault struct {
	Message    string     `json:"message"`
	Locations  []location `json:"locations,omitempty"`
	Path       []any      `json:"path,omitempty"`
	Extensions extensions `json:"extensions"`
}

type location struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// extensions are what a Problem of the HTTP API has, by the same names.
type extensions struct {
	Code       eventhose.Code     `json:"code"`
	Field      string             `json:"field,omitempty"`
	Fix        string             `json:"fix,omitempty"`
	First      eventhose.Sequence `json:"first,omitempty"`
	RetryAfter int                `json:"retry_after,omitempty"`
}

// faults are what is wrong, at most maxFaults.
type faults []fault

// faultsOf tells an error as clients may know it: what is ours to mend is masked, and the caller has logged it.
func faultsOf(err error) faults {
	code := eventhose.CodeOf(err)
	f := fault{Extensions: extensions{Code: code}}
	var e *eventhose.Error
	switch {
	case code == eventhose.CodeInternal:
		f.Message, f.Extensions.Fix = "the server met an error of its own", "try again; tell the operator if it stays"
	case errors.As(err, &e):
		f.Message = e.Message
		f.Extensions.Field, f.Extensions.Fix, f.Extensions.First = strings.TrimPrefix(e.Field, "filter."), e.Fix, e.First
		if e.RetryAfter > 0 {
			f.Extensions.RetryAfter = max(1, int(math.Ceil(e.RetryAfter.Seconds())))
		}
	case code == eventhose.CodeTimeout:
		f.Message, f.Extensions.RetryAfter = "the request's time ran out", 1
	default:
		f.Message, f.Extensions.RetryAfter = "the server cannot answer now", 1
	}
	return faults{f}
}

// tell is faultsOf, and logs what is ours to mend.
func (d *Door) tell(ctx context.Context, err error) faults {
	if eventhose.CodeOf(err) == eventhose.CodeInternal && !errors.Is(err, errPanic) {
		d.logger.LogAttrs(ctx, slog.LevelError, "graphql: internal error", slog.String("error", err.Error()))
	}
	return faultsOf(err)
}

// executed turns what the engine has found wrong into faults; refused are those that a request is not executed for.
func (d *Door) executed(ctx context.Context, list []*qerrors.QueryError) (out, refused faults) {
	for _, e := range list[:min(len(list), maxFaults)] {
		var f fault
		switch {
		case e.ResolverError != nil:
			f = d.tell(ctx, e.ResolverError)[0]
		case ctx.Err() != nil:
			f = faultsOf(context.Cause(ctx))[0]
		case len(e.Path) == 0: // an argument that passed validation and cannot be taken
			f = faultsOf(eventhose.Invalid("query", "%s", clip(e.Message, maxMessage)))[0]
			refused = append(refused, f)
		default:
			f = d.tell(ctx, e)[0]
		}
		f.Path = e.Path
		out = append(out, f)
	}
	return out, refused
}

// clip bounds what of a client's text is told back.
func clip(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// room is what is left of maxAnswer. It is safe for concurrent use.
type room struct {
	left atomic.Int64
	over atomic.Bool
}

func newRoom() *room {
	r := &room{}
	r.left.Store(maxAnswer)
	return r
}

// take answers whether there was room for n bytes. If not, the whole answer is refused in the end.
func (r *room) take(n int) bool {
	if r.left.Add(-int64(n)) < 0 {
		r.over.Store(true)
		return false
	}
	return true
}

// verbatim are texts that stand in an answer as they are: the engine, which would leave out spaces and escape <, sees marks
// in their place. A mark holds a random number that no client knows, so that nothing else can be taken for one.
type verbatim struct {
	quoted []byte // what a mark begins with, its quotation mark included

	mu    sync.Mutex
	next  int
	texts map[int][]byte
}

func newVerbatim() *verbatim {
	var random [16]byte
	rand.Read(random[:])
	return &verbatim{quoted: []byte(`"` + hex.EncodeToString(random[:]) + ":"), texts: map[int][]byte{}}
}

// mark answers what stands for a text until put.
func (v *verbatim) mark(text []byte) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next++
	v.texts[v.next] = text
	return append(strconv.AppendInt(bytes.Clone(v.quoted), int64(v.next), 10), '"')
}

// put appends an answer to b, with texts in place of their marks, which are forgotten.
func (v *verbatim) put(b, answer []byte) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	for {
		at := bytes.Index(answer, v.quoted)
		if at < 0 {
			return append(b, answer...)
		}
		b = append(b, answer[:at]...)
		answer = answer[at+len(v.quoted):]
		end := bytes.IndexByte(answer, '"')
		n, _ := strconv.Atoi(string(answer[:end])) // we wrote it
		b = append(b, v.texts[n]...)
		delete(v.texts, n)
		answer = answer[end+1:]
	}
}

// response writes an answer of the engine as clients get it, or answers why there is none.
func (o *operation) response(ctx context.Context, r *engine.Response, room *room) (response []byte, wrong faults) {
	if room.over.Load() {
		return nil, faultsOf(&eventhose.Error{Code: eventhose.CodeTooLarge, Message: "the answer is larger than 8 MiB", Fix: "ask for fewer events, or for fewer of their fields"})
	}
	list, refused := o.door.executed(ctx, r.Errors)
	switch {
	case refused != nil:
		return nil, refused
	case len(r.Data) == 0:
		return nil, list
	}
	b := []byte{'{'}
	if len(list) > 0 {
		b = append(append(append(b, `"errors":`...), marshal(list)...), ',')
	}
	return append(o.verbatim.put(append(b, `"data":`...), r.Data), '}'), nil
}

// refusal is the answer to a request of which nothing was done.
func refusal(list faults) []byte {
	return append(append([]byte(`{"errors":`), marshal(list)...), '}')
}

// marshal writes what cannot fail: texts and numbers.
func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	return bytes.TrimSpace(b.Bytes())
}
