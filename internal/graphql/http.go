package graphql

import (
	"bytes"
	"context"
	"errors"
	"mime"
	"net/http"
	"strings"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/stall"
)

// The media types of answers. typeResponse is GraphQL over HTTP's own, whose status tells whether anything was done; with
// typeJSON a request that could be read is always answered by 200.
const (
	typeJSON     = "application/json"
	typeResponse = "application/graphql-response+json"
	typeSSE      = "text/event-stream"
)

// acceptOf answers the media type to answer with, "" if a client takes none of ours.
func acceptOf(h http.Header) string {
	accept := strings.Join(h["Accept"], ",")
	if strings.TrimSpace(accept) == "" {
		return typeJSON
	}
	best := ""
	for part := range strings.SplitSeq(accept, ",") {
		switch media, _, _ := mime.ParseMediaType(part); media {
		case typeSSE:
			return typeSSE
		case typeResponse:
			best = typeResponse
		case typeJSON, "application/*", "*/*":
			if best == "" {
				best = typeJSON
			}
		}
	}
	return best
}

// Answer answers a POST of a caller that may read the tenant: a query by its response, and for who accepts Server-Sent Events
// any operation as graphql-sse has it in its distinct connections mode. With an error nothing was written.
func (d *Door) Answer(w http.ResponseWriter, r *http.Request, c Caller) error {
	if r.URL.RawQuery != "" && len(r.URL.Query()["query"]) > 0 {
		return eventhose.Invalid("query", "belongs into the body")
	}
	media := acceptOf(r.Header)
	if media == "" {
		return &eventhose.Error{Code: eventhose.CodeUnsupported, Field: "Accept", Message: "must be " + typeResponse + ", " + typeJSON + " or " + typeSSE}
	}
	q, err := readRequest(c.Body())
	if err != nil {
		return err
	}
	var doc *document
	var wrong faults
	if err := d.guarded(r.Context(), func() error { doc, wrong = d.prepare(q, c.StreamsOnly()); return nil }); err != nil {
		return err
	}
	c.Read() // what is answered may be long
	if media == typeSSE {
		return d.events(w, r, c, doc, wrong)
	}
	if wrong == nil && doc.stream {
		wrong = faultsOf(&eventhose.Error{Code: eventhose.CodeUnsupported, Field: "Accept", Message: "a subscription is answered as Server-Sent Events", Fix: "send Accept: " + typeSSE + ", or use graphql-transport-ws"})
	}
	body, wrong := d.answer(r.Context(), c.Tenant(), doc, wrong)
	w.Header().Set("Content-Type", media)
	w.Header().Set("Vary", "Accept")
	if wrong != nil && media == typeResponse {
		w.WriteHeader(http.StatusBadRequest)
	}
	_, _ = w.Write(body) // nobody is left to be told
	return nil
}

// answer executes a query, unless something is wrong with it, and answers its response.
func (d *Door) answer(ctx context.Context, tenant eventhose.TenantID, doc *document, wrong faults) ([]byte, faults) {
	var response []byte
	if wrong == nil {
		response, wrong = d.query(ctx, tenant, doc)
	}
	if wrong != nil {
		return refusal(wrong), wrong
	}
	return response, nil
}

// events answers with an event stream.
func (d *Door) events(w http.ResponseWriter, r *http.Request, c Caller, doc *document, wrong faults) error {
	if d.draining.Err() != nil {
		return stopping()
	}
	end := func(error) {}
	if wrong == nil && doc.stream {
		var err error
		if end, err = c.Open(); err != nil {
			return err
		}
	}
	h := w.Header()
	h.Set("Content-Type", typeSSE)
	h.Set("Vary", "Accept")
	h.Set("X-Accel-Buffering", "no") // proxies that gather answers must not
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	out := &eventWriter{stall.NewWriter(w, d.o.Stall)}
	defer out.Done()
	stop := context.AfterFunc(d.draining, func() {
		cancel(stopping())
		out.Hurry()
	})
	defer stop()
	if wrong != nil || !doc.stream {
		body, _ := d.answer(ctx, c.Tenant(), doc, wrong)
		_ = out.last(body) // nobody is left to be told, here and below
		return nil
	}
	o := d.operation(c.Tenant())
	o.check, o.sent = c.Check, c.Sent
	// Clients wait for the first bytes; a comment is not an event.
	why, told := out.idle(), false
	if why == nil {
		why, told = o.stream(ctx, doc, out)
	}
	end(why)
	c.Finish(0, why)
	if !told && !errors.Is(why, stall.ErrLeft) && d.draining.Err() == nil {
		_ = out.last(refusal(d.tell(ctx, why)))
	}
	// A stream that ends without complete, as when the server stops, is one that clients connect to again.
	return nil
}

var beforeNext, afterNext = []byte("event: next\ndata: "), []byte("\n\n")

// eventWriter writes the events of graphql-sse.
type eventWriter struct{ *stall.Writer }

func (w *eventWriter) next(response []byte) error {
	return w.Write(beforeNext, onLine(response), afterNext)
}

// last sends a response and says that it was the last.
func (w *eventWriter) last(response []byte) error {
	if err := w.next(response); err != nil {
		return err
	}
	return w.Write([]byte("event: complete\ndata: \n\n"))
}

func (w *eventWriter) refuse(list faults) error { return w.last(refusal(list)) }
func (w *eventWriter) idle() error              { return w.Write([]byte(":\n\n")) }

// onLine answers JSON on one line: line breaks in it stand between tokens only.
func onLine(text []byte) []byte {
	if bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0 {
		return text
	}
	line := make([]byte, 0, len(text))
	for _, c := range text {
		if c != '\n' && c != '\r' {
			line = append(line, c)
		}
	}
	return line
}
