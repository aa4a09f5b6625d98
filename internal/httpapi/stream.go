package httpapi

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/stall"
)

// Streams. All are the same loop (internal/follow) and differ in how they write: lines.go has Server-Sent Events and NDJSON,
// websocket.go the WebSocket, ticket.go what lets browsers in. A stream ends when its reader leaves or stands still for too
// long, when its key or tenant is no longer good, when the log has overtaken it, and when the server stops.

const (
	// heartbeatTime is how often a stream with nothing to say says that it lives, and how often its key is looked at again.
	heartbeatTime = 15 * time.Second
	// stallTime is how long a reader may take nothing before it is given up. A minute's pause must be survived.
	stallTime = 90 * time.Second
)

// streaming is what the streams of an API share.
type streaming struct {
	counts    *follow.Streams
	lines     map[lineForm]*follow.Pages[[]byte]
	frames    *follow.Pages[[]byte]
	heartbeat time.Duration
	stall     time.Duration
	metrics   *follow.Metrics

	// hijacked are those that the HTTP server does not wait for, mu guards that none comes once closed is set.
	hijacked sync.WaitGroup
	mu       sync.Mutex
	closed   bool
}

// enter counts one more that Close waits for; leave must be called once.
func (s *streaming) enter() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, follow.Stopping()
	}
	s.hijacked.Add(1)
	return s.hijacked.Done, nil
}

func (a *API) newStreaming(o Options) (err error) {
	s := &streaming{counts: o.Streams, heartbeat: o.Heartbeat, stall: o.Stall}
	if s.counts == nil {
		s.counts = follow.NewStreams(0, 0)
	}
	if s.heartbeat == 0 {
		s.heartbeat = heartbeatTime
	}
	if s.stall == 0 {
		s.stall = stallTime
	}
	if s.metrics, err = follow.NewMetrics(o.Registry); err != nil {
		return err
	}
	s.lines = map[lineForm]*follow.Pages[[]byte]{
		formSSE:   follow.New[[]byte](a.log, s.counts, encodeSSE),
		formLines: follow.New[[]byte](a.log, s.counts, encodeLines),
	}
	s.frames = follow.New[[]byte](a.log, s.counts, encodeFrames)
	a.streams = s
	return nil
}

// pages lists what hands out pages to streams.
func (s *streaming) pages() []*follow.Pages[[]byte] {
	return []*follow.Pages[[]byte]{s.lines[formSSE], s.lines[formLines], s.frames}
}

// Forget drops what is kept of logs for streams that come a little later: data was erased.
func (a *API) Forget(tenants ...eventhose.TenantID) {
	for _, p := range a.streams.pages() {
		for _, t := range tenants {
			p.Forget(t)
		}
	}
}

// Close ends all streams and waits for them, those over WebSocket included. It is called after Drain, when the HTTP server
// has stopped or is being stopped.
func (a *API) Close() {
	a.drain()
	a.streams.mu.Lock()
	a.streams.closed = true
	a.streams.mu.Unlock()
	a.streams.hijacked.Wait()
	for _, p := range a.streams.pages() {
		p.Close()
	}
}

func (a *API) addStreams() {
	const path = "/v1/tenants/{tenant}"
	tags := []string{"streams"}
	tenant := pathParameter("tenant", "The tenant")
	texts := huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
	text := huma.Schema{Type: huma.TypeString}
	query := func(more ...*huma.Param) []*huma.Param {
		return append([]*huma.Param{tenant,
			queryParameter("after", "A cursor; 0 is the beginning, now the end of the log", huma.Schema{Type: huma.TypeString, Default: "0"}),
			queryParameter("types", "Types, prefixes such as order.*, or *; repeated or separated by commas", texts),
			queryParameter("keys", "Ordering keys; repeated", texts),
			queryParameter("expression", expressionHelp, text),
			queryParameter("ticket", "Instead of an Authorization header, which browsers cannot set here: see createTicket", text),
		}, more...)
	}
	rule := rule{scope: eventhose.ScopeRead, stream: true, tickets: true}
	lastID := &huma.Param{Name: "Last-Event-ID", In: "header", Description: "The cursor to go on after, before after: browsers send it when they connect again", Schema: &text}
	a.direct(rule.to(eventhose.CapabilityData), huma.Operation{
		OperationID: "streamEvents", Method: http.MethodGet, Path: path + "/events/stream", Tags: tags,
		Summary: "Follow the log: Server-Sent Events or NDJSON",
		Description: "Server-Sent Events: `id` is the cursor, `data` the event as in GET events, on one line, without `event`. An `error` event tells why the server ends the stream. " +
			"With `Accept: application/x-ndjson` an event a line, and now and then `{\"cursor\": …}` or at the end `{\"error\": {…}}`.",
		Parameters: query(lastID),
		Responses: map[string]*huma.Response{
			"200": {Description: "The events, as they come", Content: map[string]*huma.MediaType{
				typeSSE: {Schema: &text}, typeLines: {Schema: &huma.Schema{Type: huma.TypeString, Description: "An event a line"}}}},
			"410": a.problemResponse(http.StatusGone),
		},
	}, a.lines)
	a.direct(rule, huma.Operation{
		OperationID: "followEvents", Method: http.MethodGet, Path: path + "/events/ws", Tags: tags,
		Summary: "Follow the log, or work on a subscription, over WebSocket",
		Description: "JSON text frames. Nothing comes before it was granted: `{\"type\": \"grant\", \"events\": 100}`. " +
			"With `subscription` the events of a pull subscription are leased, and answered with `ack`, `nack`, `release` and `extend`.",
		Parameters: query(
			queryParameter("subscription", "A pull subscription to work on, without after and filters", text),
			queryParameter("lease", "With subscription: how long events are this worker's, 1s to 12h; 30s if left out", text)),
		Responses: map[string]*huma.Response{
			"101": {Description: "The connection is a WebSocket"},
			"400": a.problemResponse(http.StatusBadRequest),
			"409": a.problemResponse(http.StatusConflict),
			"410": a.problemResponse(http.StatusGone),
		},
	}, a.websocket)
	tickets := reads(eventhose.ScopeRead).to(eventhose.CapabilityData)
	tickets.quiet = true
	manage(a, tickets, huma.Operation{
		OperationID: "createTicket", Method: http.MethodPost, Path: path + "/tickets", Tags: tags,
		Summary:       "Make a ticket: it opens streams of the tenant for a minute, from a browser",
		DefaultStatus: http.StatusCreated,
	}, a.createTicket)
}

// start is where a stream begins.
type start struct {
	after  eventhose.Cursor
	filter eventhose.Filter
	// now says that it is the end of the log as it was.
	now bool
}

// startOf reads where a stream begins, and answers what would end it at once. The cursor has the log's incarnation, also
// if it was the beginning.
func (a *API) startOf(ctx context.Context, x *exchange, after, field string) (p start, err error) {
	if p.filter, err = filterOf(x); err != nil {
		return p, err
	}
	p.now = after == "now"
	p.after, err = follow.Begin(ctx, a.log, x.tenant, after, field, p.filter)
	return p, ofQuery(err)
}

// guardOf looks now and then whether a stream's key and tenant are still good.
func (a *API) guardOf(x *exchange) *access.Guard {
	return access.NewGuard(a.control, x.principal, x.wish, a.streams.heartbeat)
}

// ended notes why a stream has ended.
func (a *API) ended(x *exchange, transport string, err error) {
	x.ended = ending(err)
	a.streams.metrics.Ended(transport, x.ended)
}

// ending names why a stream has ended, for metrics and the log.
func ending(err error) string {
	switch {
	case errors.Is(err, stall.ErrLeft):
		return "left"
	case errors.Is(err, stall.ErrSlow):
		return "slow"
	}
	return string(eventhose.CodeOf(err))
}
