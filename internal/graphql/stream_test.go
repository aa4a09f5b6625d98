package graphql_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/graphql"
	"github.com/eventhose/eventhose/internal/httpapi"
)

const following = `subscription($after: String, $types: [String!], $expression: String) {
	events(after: $after, types: $types, expression: $expression) { cursor event { sequence cursor data } }
}`

// received is the data of an item.
type received struct {
	Events struct {
		Cursor string
		Event  *struct {
			Sequence uint64
			Cursor   string
			Data     any
		}
	}
}

// events is a client's end of an event stream.
type events struct {
	t      testing.TB
	lines  *bufio.Scanner
	cancel context.CancelFunc
	res    *http.Response
}

// follow opens an event stream. With no key, the address has a ticket.
func (w *world) follow(key, query string, variables ...string) *events {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	req, err := http.NewRequestWithContext(ctx, "POST", w.server.URL+acme+"/graphql"+query, strings.NewReader(request(following, variables...)))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { cancel(); res.Body.Close() })
	e := &events{w.t, bufio.NewScanner(res.Body), cancel, res}
	e.lines.Buffer(nil, 4<<20)
	return e
}

// read answers the next event that is one; "" when the stream has ended.
func (e *events) read() (event, data string) {
	e.t.Helper()
	for e.lines.Scan() {
		line := e.lines.Text()
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			event = name
		} else if value, ok := strings.CutPrefix(line, "data: "); ok {
			data = value
		} else if line == "" && event != "" {
			return event, data
		}
	}
	return "", ""
}

// item wants an item next.
func (e *events) item() (r received) {
	e.t.Helper()
	event, data := e.read()
	a := answer{}
	if event == "next" {
		a = parse(e.t, []byte(data))
	}
	if len(a.Errors) > 0 || a.Data == nil {
		e.t.Fatalf("wanted an item: %q %s", event, data)
	}
	unmarshal(e.t, a.Data, &r)
	return r
}

// Events come one by one, as they are appended, and a client goes on after the cursor of its last.
func TestEventStream(t *testing.T) {
	w := newWorld(t, quick)
	const awkward = "{ \"n\":\r\n 12345678901234567890, \"html\":\"<b>\"}"
	for range 3 {
		w.append(`{"type":"a","data":` + awkward + `}`)
	}
	s := w.follow(rootKey, "")
	if s.res.StatusCode != 200 || s.res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", s.res.Status, s.res.Header)
	}
	var last received
	for want := uint64(1); want <= 3; want++ {
		event, data := s.read()
		if event != "next" || !strings.Contains(data, `"data":{ "n": 12345678901234567890, "html":"<b>"}`) {
			t.Fatalf("got %q %s", event, data)
		}
		last = received{}
		unmarshal(t, parse(t, []byte(data)).Data, &last)
		if last.Events.Event.Sequence != want || last.Events.Cursor != last.Events.Event.Cursor {
			t.Errorf("got %+v, want %d", last, want)
		}
	}
	w.append(`{"type":"a","data":4}`)
	if r := s.item(); r.Events.Event.Sequence != 4 {
		t.Errorf("got %+v", r)
	}
	s.cancel()
	s = w.follow("", "?ticket="+w.ticket(), "after", `"`+last.Events.Cursor+`"`)
	if r := s.item(); r.Events.Event.Sequence != 4 {
		t.Errorf("after the third: %+v", r)
	}
	// From the end on: first where that was; then, with a filter, the cursor moves over what is not wanted.
	s = w.follow(rootKey, "", "after", `"now"`, "types", `["rare"]`)
	if r := s.item(); r.Events.Event != nil || !strings.HasSuffix(r.Events.Cursor, "_4") {
		t.Errorf("the end is at %+v", r)
	}
	w.append(`{"type":"a","data":5}`)
	if r := s.item(); r.Events.Event != nil || !strings.HasSuffix(r.Events.Cursor, "_5") {
		t.Errorf("the cursor has not moved: %+v", r)
	}
	w.append(`{"type":"rare","data":6}`)
	if r := s.item(); r.Events.Event == nil || r.Events.Event.Sequence != 6 {
		t.Errorf("got %+v", r)
	}
	eventually(t, "comments come when nothing happens", func() bool { return s.lines.Scan() && s.lines.Text() == ":" })
	eventually(t, "all that was sent is counted", func() bool { // 4 events, then 4 to 6, then the last
		m := w.metrics()
		return strings.Contains(m, `eventhose_stream_subscribers{transport="graphql"} 2`) && strings.Contains(m, `eventhose_stream_events_total{transport="graphql"} 8`)
	})
	// A query may come this way too, and has one answer.
	_, b, h := w.do("POST", acme+"/graphql", `{"query":"{ __typename }"}`, "Authorization", "Bearer "+rootKey, "Content-Type", "application/json", "Accept", "text/event-stream")
	if string(b) != "event: next\ndata: {\"data\":{\"__typename\":\"Query\"}}\n\nevent: complete\ndata: \n\n" || h.Get("Content-Type") != "text/event-stream" {
		t.Errorf("a query: %s", b)
	}
}

// What cannot be followed is told in the stream, which is complete then.
func TestEventStreamRefusals(t *testing.T) {
	w := newWorld(t, nil)
	refusal := func(document string, code eventhose.Code, field string, variables ...string) {
		t.Helper()
		_, b, _ := w.do("POST", acme+"/graphql", request(document, variables...), "Authorization", "Bearer "+rootKey, "Content-Type", "application/json", "Accept", "text/event-stream")
		data, complete := strings.CutSuffix(string(b), "event: complete\ndata: \n\n")
		_, data, _ = strings.Cut(data, "event: next\ndata: ")
		if !complete {
			t.Errorf("%s: not complete: %s", document, b)
			return
		}
		refused(t, document, parse(t, []byte(data)), code, field)
	}
	refusal(following, "invalid", "after", "after", `"x"`)
	refusal(following, "cursor_gone", "", "after", `"zzz_1"`)
	refusal(following, "invalid", "types[0]", "types", `[".."]`)
	refusal(following, "invalid", "expression", "expression", `"nope("`)
	refusal("subscription { events { event { deliveries { state } } } }", "too_large", "query")
	refusal("subscription { a: events { cursor } b: events { cursor } }", "invalid", "query")
	refusal("subscription { events @skip(if: true) { cursor } }", "invalid", "query")
	refusal("subscription { ...f } fragment f on Stream { events { cursor } }", "invalid", "query")
	refusal("subscription { __typename }", "invalid", "query")
	refusal("{ nope }", "invalid", "query")
}

// A stream lasts no longer than its key and the server do, and counts among all streams of its tenant.
func TestEventStreamEnds(t *testing.T) {
	w := newWorld(t, func(g *graphql.Options, o *httpapi.Options) {
		quick(g, o)
		o.Streams = follow.NewStreams(2, 2)
	})
	w.append(`{"type":"a","data":1}`)
	id, key := w.key("acme", eventhose.ScopeRead)
	s := w.follow(key, "")
	s.item()
	other := w.follow(rootKey, "")
	other.item()
	status, b, _ := w.do("POST", acme+"/graphql", request(following), "Authorization", "Bearer "+rootKey, "Content-Type", "application/json", "Accept", "text/event-stream")
	if status != 429 {
		t.Errorf("a third stream: %d %s", status, b)
	}
	w.rest("DELETE", "/v1/keys/"+id, "", 204)
	event, data := s.read()
	if event != "next" || parse(t, []byte(data)).Errors[0].Extensions.Code != "unauthenticated" {
		t.Errorf("after its key was revoked: %q %s", event, data)
	}
	if event, _ := s.read(); event != "complete" {
		t.Errorf("then came %q", event)
	}
	// The log cannot be read on.
	fault := error(&eventhose.Error{Code: "cursor_gone", Message: "gone", First: 17})
	w.fault.Store(&fault)
	w.append(`{"type":"a","data":2}`)
	event, data = other.read()
	if event != "next" || parse(t, []byte(data)).Errors[0].Extensions.First != 17 {
		t.Errorf("once the log has overtaken it: %q %s", event, data)
	}
	w.fault.Store(nil)
	// A server that stops ends streams without complete, so that clients come again.
	s = w.follow(rootKey, "", "after", `"now"`)
	s.item()
	w.door.Drain()
	if event, data := s.read(); event != "" {
		t.Errorf("when the server stops: %q %s", event, data)
	}
	if status, b, h := w.do("POST", acme+"/graphql", request(following), "Authorization", "Bearer "+rootKey, "Content-Type", "application/json", "Accept", "text/event-stream"); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("a stream of a server that stops: %d %s", status, b)
	}
	eventually(t, "all have ended", func() bool {
		m := w.metrics()
		return strings.Contains(m, `eventhose_stream_subscribers{transport="graphql"} 0`) &&
			strings.Contains(m, `eventhose_streams_ended_total{transport="graphql",why="unauthenticated"} 1`) &&
			strings.Contains(m, `eventhose_streams_ended_total{transport="graphql",why="cursor_gone"} 1`) &&
			strings.Contains(m, `eventhose_streams_ended_total{transport="graphql",why="unavailable"} 1`)
	})
}

// A stream holds nothing of what was asked for as long as it lasts.
func TestStreamsHoldNothing(t *testing.T) {
	const part = 64 << 10
	w := newWorld(t, func(_ *graphql.Options, o *httpapi.Options) { o.MaxBodies = 4 * part })
	w.append(`{"type":"a","data":1}`)
	_, key := w.key("acme", eventhose.ScopeRead)
	for range 6 {
		w.follow(key, "", "note", `"`+strings.Repeat(" ", part/2)+`"`).item()
	}
}

// A reader that takes nothing is given up, whichever way it came; one that is slow gets everything.
func TestStalledReaders(t *testing.T) {
	w := newWorld(t, func(g *graphql.Options, o *httpapi.Options) {
		g.Heartbeat, g.Stall = 20*time.Millisecond, time.Second
	})
	const n = 40
	for i := range n {
		w.append(fmt.Sprintf(`{"type":"a","data":{"i":%d,"x":"%s"}}`, i, strings.Repeat("x", 100<<10)))
	}
	u, err := url.Parse(w.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	silent := func(request string) net.Conn {
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		fmt.Fprint(c, request)
		return c
	}
	body := request(following)
	silent(fmt.Sprintf("POST %s/graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: %d\r\n\r\n%s", acme, rootKey, len(body), body))
	frame := func(text string) string { // a text frame, masked with zeros
		if len(text) < 126 {
			return "\x81" + string([]byte{0x80 | byte(len(text)), 0, 0, 0, 0}) + text
		}
		return "\x81" + string([]byte{0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}) + text
	}
	silent(fmt.Sprintf("GET %s/graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", acme, rootKey) +
		frame(`{"type":"connection_init"}`) + frame(`{"id":"1","type":"subscribe","payload":`+body+`}`))
	eventually(t, "both were given up", func() bool {
		m := w.metrics()
		return strings.Contains(m, `eventhose_streams_ended_total{transport="graphql",why="left"} 2`) && strings.Contains(m, `eventhose_stream_subscribers{transport="graphql"} 0`)
	})
	// Reading little by little, it is all there.
	c := silent(fmt.Sprintf("POST %s/graphql HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: %d\r\n\r\n%s", acme, rootKey, len(body), body))
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := 0
	var seen strings.Builder
	for buffer := make([]byte, 16<<10); got < n; {
		k, err := c.Read(buffer)
		if err != nil {
			t.Fatalf("after %d: %v", got, err)
		}
		seen.Write(buffer[:k])
		for strings.Contains(seen.String(), fmt.Sprintf(`"i":%d,`, got)) {
			got++
		}
	}
	if strings.Contains(w.logs.String(), "internal error") {
		t.Errorf("logs: %s", w.logs)
	}
}
