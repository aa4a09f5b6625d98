package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// streamTime bounds what a test of streams waits for.
const streamTime = 30 * time.Second

// quick makes streams whose heart beats fast.
func quick(o *httpapi.Options) { o.Heartbeat = 20 * time.Millisecond }

// pipe is an open stream of lines.
type pipe struct {
	t      testing.TB
	res    *http.Response
	cancel context.CancelFunc
	next   func() (sse.Event, error, bool)
	lines  *bufio.Scanner
}

// open begins a stream and answers it, with the parser of somebody else for Server-Sent Events.
func (w *world) open(key, query string, headers ...string) *pipe {
	w.t.Helper()
	return w.openWith(w.server.Client(), key, query, headers...)
}

func (w *world) openWith(c *http.Client, key, query string, headers ...string) *pipe {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), streamTime)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+events+"/stream?"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &pipe{t: w.t, res: res, cancel: cancel}
	var stop func()
	p.next, stop = iter.Pull2(sse.Read(res.Body, &sse.ReadConfig{MaxEventSize: 4 << 20}))
	w.t.Cleanup(func() { cancel(); stop(); res.Body.Close() })
	if res.StatusCode != 200 {
		b, _ := io.ReadAll(res.Body)
		w.t.Fatalf("stream?%s: %d %s", query, res.StatusCode, b)
	}
	p.lines = bufio.NewScanner(res.Body)
	p.lines.Buffer(nil, 4<<20)
	return p
}

// event is the next block of Server-Sent Events.
func (p *pipe) event() sse.Event {
	p.t.Helper()
	e, err, more := p.next()
	if err != nil || !more {
		p.t.Fatalf("the stream ended: %v", err)
	}
	return e
}

// ended checks that nothing follows.
func (p *pipe) ended() {
	p.t.Helper()
	if e, err, more := p.next(); more && err == nil {
		p.t.Errorf("the stream goes on with %+v", e)
	}
}

// line is the next line of NDJSON.
func (p *pipe) line() string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatalf("the stream ended: %v", p.lines.Err())
	}
	return p.lines.Text()
}

// eventually waits for what no signal tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(streamTime); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("it did not happen: %s", what)
		}
	}
}

const lines = "application/x-ndjson"

// A stream hands out what a page does, one event a line, and nothing in an event breaks a line.
func TestStreamForms(t *testing.T) {
	w := newWorld(t, nil)
	w.want(202, w.root("POST", events, `[
		{"type":"a","key":"k","attributes":{"x":"y"},"data":{"n":1.50,"s":"a\nb\u2028 c","e":"é\u00e9\/","half":"\ud800"}},
		{"type":"a","data":{
			"pretty" : [ 1,`+"\r\n\t"+`2.0e+1 ],
			"big": 12345678901234567890.10
		}},
		{"type":"b","content_type":"text/plain","data_base64":"YQpiDQpkYXRhOiB4Cgo="},
		{"type":"c","data":null}, {"type":"c","data":"id: 7"}]`))
	page := w.want(200, w.root("GET", events, ""))
	var want struct {
		Data   []json.RawMessage
		Cursor string
	}
	if err := json.Unmarshal(page.body, &want); err != nil {
		t.Fatal(err)
	}
	flat := strings.NewReplacer("\n", "", "\r", "")
	s, n := w.open(rootKey, "after=0&types="), w.open(rootKey, "after=&types=&keys=&expression=", "Accept", lines)
	if got := n.line(); !strings.HasPrefix(got, `{"cursor":"`) {
		t.Errorf("NDJSON begins with %s", got)
	}
	for i := range want.Data {
		one := flat.Replace(string(want.Data[i]))
		var told struct{ Cursor string }
		if err := json.Unmarshal([]byte(one), &told); err != nil {
			t.Fatal(err)
		}
		if e := s.event(); e.Data != one || e.LastEventID != told.Cursor || e.Type != "" {
			t.Errorf("got %+v\nwant %s", e, one)
		}
		if got := n.line(); got != one {
			t.Errorf("got %s\nwant %s", got, one)
		}
	}
	for p, typ := range map[*pipe]string{s: "text/event-stream", n: lines} {
		if h := p.res.Header; h.Get("Content-Type") != typ || h.Get("Cache-Control") != "no-store" || h.Get("X-Accel-Buffering") != "no" || h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("headers %v", h)
		}
	}
	if h := w.want(200, w.root("HEAD", events+"/stream", "")); h.Header.Get("Content-Type") != "text/event-stream" || len(h.body) > 0 {
		t.Errorf("HEAD answers %v %s", h.Header, h.body)
	}
	// The end of the log, as it was.
	s, n = w.open(rootKey, "after=now"), w.open(rootKey, "after=now", "Accept", "text/html, "+lines+";q=0.5")
	if e := s.event(); e.LastEventID != want.Cursor || e.Data != "" {
		t.Errorf("from now on: %+v", e)
	}
	if got := n.line(); got != `{"cursor":"`+want.Cursor+`"}` {
		t.Errorf("from now on: %s", got)
	}
	w.append("acme", `{"type":"d","data":7}`)
	if e, line := s.event(), n.line(); e.Data != line || !strings.Contains(line, `"type":"d"`) {
		t.Errorf("%s and %s", e.Data, line)
	}
}

// From every cursor, given in every way, a stream goes on with exactly what follows.
func TestStreamResumesAtEveryCursor(t *testing.T) {
	w := newWorld(t, nil)
	const n = 25
	var many []string
	for i := range n {
		many = append(many, fmt.Sprintf(`{"type":"t%d","key":"k","data":%d}`, i%2, i))
	}
	w.want(202, w.root("POST", events, "["+strings.Join(many, ",")+"]"))
	cursors := []string{"0"}
	for _, e := range w.page(events).Data {
		cursors = append(cursors, e.Cursor)
	}
	for i, cursor := range cursors {
		for _, p := range []*pipe{
			w.open(rootKey, "after="+cursor),
			w.open(rootKey, "", "Last-Event-ID", cursor),
			w.open(rootKey, "after="+cursors[(i+7)%n], "Last-Event-ID", cursor),
			w.open(rootKey, "types=t0&after="+cursor),
			w.open(rootKey, "expression="+url.QueryEscape(`type == "t0" && key == "k"`)+"&after="+cursor),
		} {
			filtered := strings.Contains(p.res.Request.URL.RawQuery, "t0")
			for j := i + 1; j <= n; j++ {
				if filtered && j%2 == 0 {
					continue
				}
				if e := p.event(); e.LastEventID != cursors[j] || !strings.Contains(e.Data, fmt.Sprintf(`"sequence":%d,`, j)) {
					t.Fatalf("%s after %s: got %+v, want %s", p.res.Request.URL, cursor, e, cursors[j])
				}
			}
			p.cancel()
		}
	}
}

func TestStreamRefusals(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.Streams = follow.NewStreams(3, 2) })
	for query, field := range map[string]string{
		"after=x": "after", "types=a..b": "types[0]", "types=a,": "types[1]", "expression=1%2B1": "expression", "expression=nope": "expression",
		"limit=1": "limit", "wait=1s": "wait", "ticket=a&ticket=b": "ticket", "subscription=sub_1": "subscription",
	} {
		w.refused("invalid", field, w.root("GET", events+"/stream?"+query, ""))
	}
	w.refused("invalid", "Last-Event-ID", w.root("GET", events+"/stream?after=0", "", "Last-Event-ID", "x"))
	gone := w.root("GET", events+"/stream?after=zzz_1", "")
	w.refused("cursor_gone", "", gone)
	if gone.json(t)["first"] != 1.0 {
		t.Errorf("got %s", gone.body)
	}
	w.refused("method_not_allowed", "", w.root("POST", events+"/stream", ""))

	// As many as there may be, and again when one has ended.
	one, _ := w.open(rootKey, ""), w.open(rootKey, "", "Accept", lines)
	w.refused("limit", "", w.root("GET", events+"/stream", ""))
	w.refused("limit", "", w.root("GET", events+"/ws", ""))
	one.cancel()
	eventually(t, "there is room for another stream", func() bool { return w.root("GET", events+"/stream?after=now", "").StatusCode == 200 })
}

// With nothing to hand out a stream says that it lives, and how far it has looked.
func TestStreamHeartbeats(t *testing.T) {
	w := newWorld(t, quick)
	s, n := w.open(rootKey, "types=rare"), w.open(rootKey, "types=rare", "Accept", lines)
	for i := range 20 {
		w.append("acme", fmt.Sprintf(`{"type":"often","data":%d}`, i))
	}
	cursor := w.page(events).Cursor
	for s.event().LastEventID != cursor { // blocks without data move it
	}
	for n.line() != `{"cursor":"`+cursor+`"}` {
	}
	w.append("acme", `{"type":"rare","data":1}`)
	if e := s.event(); !strings.Contains(e.Data, `"sequence":21,`) {
		t.Errorf("got %+v", e)
	}
	for {
		line := n.line()
		if strings.Contains(line, `"type":"rare"`) {
			break
		}
		if line != `{"cursor":"`+cursor+`"}` {
			t.Fatalf("got %s", line)
		}
	}
	// Comments keep the connection alive when nothing has moved.
	raw := w.open(rootKey, "after=now&types=rare")
	buf := make([]byte, 4096)
	for got := ""; strings.Count(got, "\n:\n\n") < 3; {
		k, err := raw.res.Body.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += string(buf[:k])
	}
}

// A key that is revoked while streams are open under it ends them, and tells why.
func TestStreamEndsWithItsKey(t *testing.T) {
	w := newWorld(t, quick)
	for name, ticket := range map[string]bool{"key": false, "ticket": true} {
		t.Run(name, func(t *testing.T) {
			id, key := w.key("acme", eventhose.ScopeRead)
			query := ""
			if ticket {
				query, key = "ticket="+w.ticket(key), ""
			}
			s, n := w.open(key, query), w.open(key, query, "Accept", lines)
			ws := w.dial(key, query)
			ws.read("ready")
			w.want(204, w.root("DELETE", "/v1/keys/"+id, ""))
			e := s.event()
			for e.Type == "" {
				e = s.event()
			}
			var p httpapi.Problem
			if err := json.Unmarshal([]byte(e.Data), &p); err != nil || e.Type != "error" || p.Code != eventhose.CodeUnauthenticated || p.Status != 401 {
				t.Errorf("got %+v", e)
			}
			s.ended()
			line := n.line()
			for !strings.HasPrefix(line, `{"error":`) {
				line = n.line()
			}
			if !strings.Contains(line, `"code":"unauthenticated"`) || n.lines.Scan() {
				t.Errorf("got %s", line)
			}
			ws.closed(4401, eventhose.CodeUnauthenticated)
		})
	}
}

// A server that stops tells its streams to come again.
func TestStreamsDrain(t *testing.T) {
	w := newWorld(t, nil)
	w.append("acme", `{"type":"a","data":1}`)
	s, n, ws := w.open(rootKey, ""), w.open(rootKey, "", "Accept", lines), w.dial(rootKey, "")
	s.event()
	n.line() // the cursor, and the event
	n.line()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	h2 := w.openWith(&http.Client{Transport: transport}, rootKey, "")
	if h2.event(); h2.res.ProtoMajor != 2 {
		t.Errorf("over %s", h2.res.Proto)
	}
	ws.read("ready")
	ws.send(`{"type":"grant","events":5}`)
	ws.read("event")
	w.api.Drain()
	if e := s.event(); e.Type != "error" || !strings.Contains(e.Data, `"code":"unavailable"`) || !strings.Contains(e.Data, `"retry_after":1`) {
		t.Errorf("got %+v", e)
	}
	s.ended()
	if e := h2.event(); e.Type != "error" {
		t.Errorf("got %+v", e)
	}
	h2.ended()
	if line := n.line(); !strings.HasPrefix(line, `{"error":{`) || !strings.Contains(line, `"code":"unavailable"`) {
		t.Errorf("got %s", line)
	}
	ws.closed(1001, eventhose.CodeUnavailable)
	w.refused("unavailable", "", w.root("GET", events+"/stream", ""))
	w.refused("unavailable", "", w.root("GET", events+"/ws", ""))
	w.api.Close()
}

// A reader that stands still does not hold up a server that stops.
func TestStalledStreamsDrain(t *testing.T) {
	w := newWorld(t, nil)
	w.append("acme", `{"type":"a","data":"`+strings.Repeat("x", 1<<20-2)+`"}`) // more than fits between the ends
	n := w.openWith(narrow(t), rootKey, "", "Accept", lines)
	if _, err := io.ReadFull(n.res.Body, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	ws := w.dialWith(narrow(t), rootKey, "")
	ws.read("ready")
	ws.send(`{"type":"grant","events":1}`)
	if _, frame, err := ws.conn.Reader(ws.ctx); err != nil {
		t.Fatal(err)
	} else if _, err := io.ReadFull(frame, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.api.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), streamTime)
	defer cancel()
	if err := w.server.Config.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	w.api.Close()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// narrow is a client between whose ends little fits.
func narrow(t *testing.T) *http.Client {
	dialer := &net.Dialer{}
	tr := &http.Transport{ReadBufferSize: 4 << 10, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(128 << 10)
		}
		return c, err
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// fill appends megabytes of events of about 10 KiB.
func (w *world) fill(megabytes int) (events int) {
	w.t.Helper()
	for range megabytes {
		batch := make([]eventhose.Event, 100)
		for i := range batch {
			batch[i] = eventhose.Event{Type: "t", Data: []byte(`"` + strings.Repeat("x", 10<<10) + `"`)}
		}
		if _, err := w.log.Append(w.t.Context(), "acme", batch...); err != nil {
			w.t.Fatal(err)
		}
	}
	return 100 * megabytes
}

// The log overtakes a reader that stands still: it is told, with what is left, and misses nothing in silence.
func TestStreamIsOvertaken(t *testing.T) {
	w := newWorld(t, nil)
	w.want(200, w.root("PUT", "/v1/tenants/acme", `{"retention":{"bytes":1000000}}`))
	last := w.fill(12)
	c := narrow(t)
	s, n := w.openWith(c, rootKey, ""), w.openWith(c, rootKey, "", "Accept", lines)
	ws := w.dial(rootKey, "")
	ws.read("ready")
	if err := w.log.Retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := 0
	check := func(name, problem string, got int) {
		t.Helper()
		var p httpapi.Problem
		if err := json.Unmarshal([]byte(problem), &p); err != nil || p.Code != eventhose.CodeCursorGone || int(p.First) <= got || int(p.First) > last {
			t.Errorf("%s: after %d events: %s", name, got, problem)
		}
		first = int(p.First)
	}
	got := 0
	for {
		e := s.event()
		if e.Type == "error" {
			check("sse", e.Data, got)
			break
		}
		got++
		if !strings.Contains(e.Data, fmt.Sprintf(`"sequence":%d,`, got)) {
			t.Fatalf("event %d is %.200s", got, e.Data)
		}
	}
	s.ended()
	n.line()
	for got = 0; ; got++ {
		if line := n.line(); strings.HasPrefix(line, `{"error":`) {
			check("ndjson", strings.TrimSuffix(strings.TrimPrefix(line, `{"error":`), "}"), got)
			break
		}
	}
	ws.send(`{"type":"grant","events":1}`)
	ws.closed(4410, eventhose.CodeCursorGone)
	if w.page(events).Data[0].Sequence != uint64(first) {
		t.Errorf("the first that is left is %d, not %d", w.page(events).Data[0].Sequence, first)
	}
	w.refused("cursor_gone", "", w.root("GET", events+"/stream?after="+w.cursor(1), ""))
}

// cursor is what stands after a sequence of acme's log.
func (w *world) cursor(seq uint64) string {
	head, err := w.log.Head(w.t.Context(), "acme")
	if err != nil {
		w.t.Fatal(err)
	}
	return head.Cursor(eventhose.Sequence(seq)).String()
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// Readers that stand still cost the page in their hands and no more, however much is appended behind their backs, and they
// catch up when they go on.
func TestSlowReaders(t *testing.T) {
	const readers, each = 20, 512 << 10
	w := newWorld(t, nil)
	c := narrow(t)
	empty := heap()
	last := w.fill(10)
	store := heap() - empty // it is in memory here
	pipes := make([]*pipe, readers)
	for i := range pipes {
		pipes[i] = w.openWith(c, rootKey, "", "Accept", lines)
		pipes[i].line()
	}
	w.fill(3)
	before := heap()
	last += 300 + w.fill(10)
	if grown := heap() - before - store; grown > readers*each {
		t.Errorf("%d bytes more are in use, with %d readers that stand still", grown, readers)
	} else {
		t.Logf("%d KiB a reader", grown/readers>>10)
	}
	done := make(chan error, readers)
	for _, p := range pipes {
		go func() {
			for want := 1; want <= last; want++ {
				if !p.lines.Scan() || !strings.Contains(p.lines.Text()[:min(len(p.lines.Text()), 300)], fmt.Sprintf(`"sequence":%d,`, want)) {
					done <- fmt.Errorf("at %d: %v %.300s", want, p.lines.Err(), p.lines.Text())
					return
				}
			}
			done <- nil
		}()
	}
	for range pipes {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Who takes nothing for too long is given up; who reads slowly is not.
func TestStreamStall(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.Stall = time.Second; o.Streams = follow.NewStreams(0, 0) })
	w.fill(4)
	c := narrow(t)
	slow, still := w.openWith(c, rootKey, ""), w.openWith(c, rootKey, "")
	_ = still
	eventually(t, "the stream that stands still ends", func() bool {
		slow.event()
		return strings.Contains(w.logs.String(), "ended=left")
	})
	for range 20 {
		slow.event()
	}
}

// What was erased is not handed out from memory.
func TestStreamForgetsErased(t *testing.T) {
	w := newWorld(t, nil)
	id := w.append("acme", `{"type":"a","data":"private"}`)
	if e := w.open(rootKey, ""); !strings.Contains(e.event().Data, "private") {
		t.Error("the event has no data")
	}
	w.want(204, w.root("DELETE", events+"/"+id+"/data", ""))
	if e := w.open(rootKey, "").event(); strings.Contains(e.Data, "private") || !strings.Contains(e.Data, `"erased":true`) {
		t.Errorf("got %+v", e)
	}
}
