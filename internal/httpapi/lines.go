package httpapi

import (
	"bytes"
	"context"
	"mime"
	"net/http"
	"strings"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/stall"
)

const (
	typeSSE = "text/event-stream"
	// retryLine has browsers connect again a second after a stream has ended. It is part of the block that comes next: some
	// clients take every block for an event.
	retryLine = "retry: 1000\n:\n"
)

// lineForm is how a stream of lines is written.
type lineForm string

const (
	formSSE   lineForm = "sse"
	formLines lineForm = "ndjson"
)

// formOf reads Accept: NDJSON for those that ask for it and not for Server-Sent Events.
func formOf(h http.Header) lineForm {
	wanted := false
	for part := range strings.SplitSeq(strings.Join(h["Accept"], ","), ",") {
		switch media, _, _ := mime.ParseMediaType(part); media {
		case typeSSE:
			return formSSE
		case typeLines:
			wanted = true
		}
	}
	if wanted {
		return formLines
	}
	return formSSE
}

// appendLine writes an event on one line, as GET events does but for line breaks in its data, which in JSON stand between
// tokens only.
func appendLine(b []byte, e *eventhose.Event, cursor eventhose.Cursor) []byte {
	from := len(b)
	b = append(appendEvent(b, e, cursor), '}')
	if bytes.IndexByte(b[from:], '\n') < 0 && bytes.IndexByte(b[from:], '\r') < 0 {
		return b
	}
	kept := b[:from]
	for _, c := range b[from:] {
		if c != '\n' && c != '\r' {
			kept = append(kept, c)
		}
	}
	return kept
}

func encodeSSE(events []eventhose.Event, incarnation eventhose.Incarnation) follow.Encoded[[]byte] {
	return encodeEach(events, incarnation, func(b []byte, e *eventhose.Event, cursor eventhose.Cursor) []byte {
		b = append(append(append(b, "id: "...), cursor.String()...), "\ndata: "...)
		return append(appendLine(b, e, cursor), "\n\n"...)
	})
}

func encodeLines(events []eventhose.Event, incarnation eventhose.Incarnation) follow.Encoded[[]byte] {
	return encodeEach(events, incarnation, func(b []byte, e *eventhose.Event, cursor eventhose.Cursor) []byte {
		return append(appendLine(b, e, cursor), '\n')
	})
}

// encodeEach writes events one behind the other; Each are parts of All.
func encodeEach(events []eventhose.Event, incarnation eventhose.Incarnation, one func([]byte, *eventhose.Event, eventhose.Cursor) []byte) follow.Encoded[[]byte] {
	size := 0
	for i := range events {
		size += 512 + len(events[i].Data)
		if !events[i].JSON() {
			size += len(events[i].Data) / 3
		}
	}
	all, ends := make([]byte, 0, size), make([]int, len(events))
	for i := range events {
		all = one(all, &events[i], eventhose.Cursor{Incarnation: incarnation, Sequence: events[i].Sequence})
		ends[i] = len(all)
	}
	out := follow.Encoded[[]byte]{All: all, Each: make([][]byte, len(events)), Size: cap(all) + 24*len(events)}
	from := 0
	for i, end := range ends {
		out.Each[i] = all[from:end:end]
		from = end
	}
	return out
}

// begin is what a stream says first. From the end of the log on, a reader must know where that was, to go on after it.
func (f lineForm) begin(where start) string {
	switch {
	case f == formLines:
		return f.heartbeat(where.after, true)
	case where.now:
		return retryLine + f.heartbeat(where.after, true)
	}
	return retryLine
}

// heartbeat is what says that a stream lives, with the cursor if it has moved.
func (f lineForm) heartbeat(cursor eventhose.Cursor, moved bool) string {
	switch {
	case f == formLines:
		return `{"cursor":"` + cursor.String() + "\"}\n"
	case moved:
		return ":\nid: " + cursor.String() + "\n\n"
	}
	return ":\n\n"
}

// goodbye tells why the server ends a stream. The problem is JSON on one line.
func (f lineForm) goodbye(problem []byte) string {
	problem = bytes.TrimSpace(problem)
	if f == formLines {
		return `{"error":` + string(problem) + "}\n"
	}
	return "event: error\ndata: " + string(problem) + "\n\n"
}

// lines answers GET …/events/stream.
func (a *API) lines(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	form := formOf(r.Header)
	after, field := x.query.Get("after"), "after"
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after, field = last, "Last-Event-ID"
	}
	where, err := a.startOf(r.Context(), x, after, field)
	if err == nil && a.draining.Err() != nil {
		err = follow.Stopping()
	}
	var end func()
	if err == nil {
		end, err = a.streams.counts.Open(x.tenant)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	defer end()
	h := w.Header()
	h.Set("Content-Type", map[lineForm]string{formSSE: typeSSE, formLines: typeLines}[form])
	h.Set("Vary", "Accept")
	h.Set("X-Accel-Buffering", "no") // proxies that gather answers must not
	if r.Method == http.MethodHead {
		return
	}
	defer a.streams.metrics.Open(string(form))()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := stall.NewWriter(w, a.streams.stall)
	stop := context.AfterFunc(a.draining, func() {
		cancel()
		out.Hurry()
	})
	defer stop()
	defer out.Done()
	err = a.writeLines(ctx, out, form, x, where)
	if a.draining.Err() != nil {
		err = follow.Stopping()
	}
	a.ended(x, string(form), err)
	if ending(err) == "left" {
		return
	}
	if body, fault := marshal(a.problem(r.Context(), err)); fault == nil {
		_ = out.Write([]byte(form.goodbye(body))) // nobody is left to be told
	}
}

// writeLines is the loop of a stream of lines. It ends with an error: stall.ErrLeft if nobody is there to be told of it.
func (a *API) writeLines(ctx context.Context, out *stall.Writer, form lineForm, x *exchange, where start) error {
	if err := out.Write([]byte(form.begin(where))); err != nil {
		return err
	}
	guard := a.guardOf(x)
	stream := a.streams.lines[form].Open(x.tenant, where.after, where.filter)
	for {
		before := stream.Cursor()
		page, err := stream.Next(ctx, follow.Limit.Events, a.streams.heartbeat)
		if err == nil {
			err = guard.Check(ctx)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return stall.ErrLeft
		case err != nil:
			return err
		case page.Events == 0:
			err = out.Write([]byte(form.heartbeat(page.Cursor, page.Cursor != before)))
		default:
			err = out.Write(page.All)
		}
		if err != nil {
			return err
		}
		a.streams.metrics.Sent(string(form), page.Events)
	}
}
