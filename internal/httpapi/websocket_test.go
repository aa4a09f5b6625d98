package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// socket is a client's end of a WebSocket.
type socket struct {
	t    testing.TB
	ctx  context.Context
	conn *websocket.Conn
}

// sent is a frame of the server.
type sent struct {
	Type         string
	Cursor       string
	Event        told
	Lease        string
	Deliveries   int
	Subscription string
	Count        int
	Lost         []string
	Code         eventhose.Code
	Status       int
	Field        string
}

func (w *world) tryDial(key, query string, headers http.Header) (conn *websocket.Conn, status int, err error) {
	return w.tryDialWith(w.server.Client(), key, query, headers)
}

func (w *world) tryDialWith(c *http.Client, key, query string, headers http.Header) (conn *websocket.Conn, status int, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), streamTime)
	defer cancel()
	h := headers.Clone()
	if h == nil {
		h = http.Header{}
	}
	if key != "" {
		h.Set("Authorization", "Bearer "+key)
	}
	//nolint:bodyclose // which the connection is
	conn, res, err := websocket.Dial(ctx, w.server.URL+events+"/ws?"+query, &websocket.DialOptions{HTTPClient: c, HTTPHeader: h})
	if res != nil {
		status = res.StatusCode
	}
	return conn, status, err
}

func (w *world) dial(key, query string) *socket {
	w.t.Helper()
	return w.dialWith(w.server.Client(), key, query)
}

func (w *world) dialWith(c *http.Client, key, query string) *socket {
	w.t.Helper()
	conn, _, err := w.tryDialWith(c, key, query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	conn.SetReadLimit(4 << 20)
	ctx, cancel := context.WithTimeout(w.t.Context(), streamTime)
	w.t.Cleanup(func() { cancel(); conn.CloseNow() })
	return &socket{w.t, ctx, conn}
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := s.conn.Write(s.ctx, websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// read wants a frame of one type next.
func (s *socket) read(typ string) sent {
	s.t.Helper()
	kind, b, err := s.conn.Read(s.ctx)
	if err != nil {
		s.t.Fatalf("wanted %s: %v", typ, err)
	}
	var f sent
	if err := json.Unmarshal(b, &f); err != nil || kind != websocket.MessageText || f.Type != typ {
		s.t.Fatalf("got %s, wanted %s: %v", b, typ, err)
	}
	return f
}

// closed wants the connection to end with an error frame and a close code, without another event.
func (s *socket) closed(status websocket.StatusCode, code eventhose.Code) {
	s.t.Helper()
	var f sent
	for {
		_, b, err := s.conn.Read(s.ctx)
		if err != nil {
			if websocket.CloseStatus(err) != status || f.Type != "error" || f.Code != code || f.Status == 0 {
				s.t.Errorf("closed with %v after %+v, wanted %d and %s", err, f, status, code)
			}
			return
		}
		f = sent{}
		if err := json.Unmarshal(b, &f); err != nil || f.Type == "event" {
			s.t.Fatalf("got %s: %v", b, err)
		}
	}
}

// No more comes than was granted, all of it in order, and what is in an event passes byte for byte.
func TestSocketCredit(t *testing.T) {
	w := newWorld(t, quick)
	const awkward = "{ \"amount\" : 1.10e+2,\n \"html\":\"<b>&</b>\\u00e9\", \"half\":\"\\ud800\", \"big\": 12345678901234567890.0}"
	for i := range 20 {
		w.append("acme", fmt.Sprintf(`{"type":"t%d","data":%s}`, i%2, awkward))
	}
	s := w.dial(rootKey, "after=&types=&keys=")
	if ready := s.read("ready"); ready.Cursor != w.cursor(0) {
		t.Errorf("ready at %s", ready.Cursor)
	}
	want := uint64(0)
	take := func(n int) {
		t.Helper()
		for range n {
			want++
			if f := s.read("event"); f.Event.Sequence != want || f.Cursor != w.cursor(want) || f.Event.Cursor != f.Cursor || string(f.Event.Data) != awkward {
				t.Fatalf("got %+v, want %d", f, want)
			}
		}
	}
	s.send(`{"type":"grant","events":3}`)
	s.send(`{"type":"grant","events":2}`)
	take(5)
	// A frame that cannot be read is answered next: nothing was under way.
	s.send(`{"type":"grant"}`)
	s.closed(4400, eventhose.CodeInvalid)

	s = w.dial(rootKey, "after="+w.cursor(want))
	s.read("ready")
	s.send(`{"type":"grant","events":10000}`)
	take(15)

	// The cursor moves over what is not wanted, as long as there is credit to move it.
	s = w.dial(rootKey, "after=now&types=rare")
	s.read("ready")
	s.send(`{"type":"grant","events":1}`)
	w.append("acme", `{"type":"often","data":1}`)
	if f := s.read("cursor"); f.Cursor != w.cursor(21) {
		t.Errorf("got %+v", f)
	}
	w.append("acme", `{"type":"rare","data":1}`)
	if f := s.read("event"); f.Event.Sequence != 22 {
		t.Errorf("got %+v", f)
	}
	// The client says goodbye, and nothing is left of it.
	if err := s.conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	eventually(t, "it is in the log", func() bool {
		return strings.Contains(w.logs.String(), "route=/v1/tenants/{tenant}/events/ws tenant=acme key=admin status=101 bytes=")
	})
}

// What a client should not send ends the connection with a code and a reason, and nothing else.
func TestSocketHostileFrames(t *testing.T) {
	w := newWorld(t, nil)
	pull, _ := w.leased("acme")
	for _, c := range []struct {
		name, query string
		kind        websocket.MessageType
		frames      []string
		status      websocket.StatusCode
		code        eventhose.Code
	}{
		{"garbage", "", websocket.MessageText, []string{"\x00\x01garbage"}, 4400, eventhose.CodeMalformed},
		{"nothing", "", websocket.MessageText, []string{""}, 4400, eventhose.CodeMalformed},
		{"binary", "", websocket.MessageBinary, []string{`{"type":"grant","events":1}`}, 4400, eventhose.CodeMalformed},
		{"no type", "", websocket.MessageText, []string{`{}`}, 4400, eventhose.CodeInvalid},
		{"two values", "", websocket.MessageText, []string{`{"type":"grant","events":1}{}`}, 4400, eventhose.CodeMalformed},
		{"a name twice", "", websocket.MessageText, []string{`{"type":"grant","events":1,"events":2}`}, 4400, eventhose.CodeMalformed},
		{"an unknown field", "", websocket.MessageText, []string{`{"type":"grant","events":1,"more":1}`}, 4400, eventhose.CodeInvalid},
		{"an array", "", websocket.MessageText, []string{`[{"type":"grant"}]`}, 4400, eventhose.CodeInvalid},
		{"deep", "", websocket.MessageText, []string{strings.Repeat("[", 30_000)}, 4400, eventhose.CodeInvalid},
		{"nothing granted", "", websocket.MessageText, []string{`{"type":"grant","events":0}`}, 4400, eventhose.CodeInvalid},
		{"less than nothing", "", websocket.MessageText, []string{`{"type":"grant","events":-1}`}, 4400, eventhose.CodeInvalid},
		{"half an event", "", websocket.MessageText, []string{`{"type":"grant","events":1.5}`}, 4400, eventhose.CodeInvalid},
		{"too much at once", "", websocket.MessageText, []string{`{"type":"grant","events":10001}`}, 4400, eventhose.CodeInvalid},
		{"beyond integers", "", websocket.MessageText, []string{`{"type":"grant","events":9223372036854775808}`}, 4400, eventhose.CodeInvalid},
		{"too much together", "after=now", websocket.MessageText, []string{`{"type":"grant","events":10000}`, `{"type":"grant","events":1}`}, 4400, eventhose.CodeInvalid},
		{"ack without work", "", websocket.MessageText, []string{`{"type":"ack","leases":["x"]}`}, 4400, eventhose.CodeInvalid},
		{"leases to grant", "", websocket.MessageText, []string{`{"type":"grant","events":1,"leases":["x"]}`}, 4400, eventhose.CodeInvalid},
		{"no leases", "subscription=" + pull, websocket.MessageText, []string{`{"type":"ack","leases":[]}`}, 4400, eventhose.CodeInvalid},
		{"no lease", "subscription=" + pull, websocket.MessageText, []string{`{"type":"ack","leases":["x"]}`}, 4400, eventhose.CodeInvalid},
		{"a long delay", "subscription=" + pull, websocket.MessageText, []string{`{"type":"nack","delay":"25h","leases":["lse_00000000000000000000000000"]}`}, 4400, eventhose.CodeInvalid},
		{"a negative delay", "subscription=" + pull, websocket.MessageText, []string{`{"type":"nack","delay":"-1s","leases":["lse_00000000000000000000000000"]}`}, 4400, eventhose.CodeInvalid},
		{"a short lease", "subscription=" + pull, websocket.MessageText, []string{`{"type":"extend","lease":"1ms","leases":["lse_00000000000000000000000000"]}`}, 4400, eventhose.CodeInvalid},
		{"a delay to ack", "subscription=" + pull, websocket.MessageText, []string{`{"type":"ack","delay":"1s","leases":["lse_00000000000000000000000000"]}`}, 4400, eventhose.CodeInvalid},
		{"a message to release", "subscription=" + pull, websocket.MessageText, []string{`{"type":"release","message":"bye","leases":["lse_00000000000000000000000000"]}`}, 4400, eventhose.CodeInvalid},
		{"nothing to release", "subscription=" + pull, websocket.MessageText, []string{`{"type":"release"}`}, 4400, eventhose.CodeInvalid},
		{"too many leases", "subscription=" + pull, websocket.MessageText, []string{`{"type":"ack","leases":[` + strings.TrimSuffix(strings.Repeat(`"lse_000000000000000000",`, 1001), ",") + `]}`}, 4400, eventhose.CodeInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := w.dial(rootKey, c.query)
			s.t = t
			s.read("ready")
			for _, text := range c.frames {
				if err := s.conn.Write(s.ctx, c.kind, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			s.closed(c.status, c.code)
		})
	}
	// A frame that is too large is not read to its end.
	s := w.dial(rootKey, "")
	s.read("ready")
	_ = s.conn.Write(s.ctx, websocket.MessageText, []byte(`{"type":"grant","events":1`+strings.Repeat(" ", 33<<10)+`}`))
	if _, _, err := s.conn.Read(s.ctx); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("a frame of 33 KiB: %v", err)
	}
	eventually(t, "all have ended", func() bool {
		return strings.Contains(w.metrics(), `eventhose_stream_subscribers{transport="websocket"} 0`)
	})
}

func (w *world) metrics() string { return string(w.call("", "GET", "/metrics", "").body) }

// Who may not open a socket is told before there is one, as everywhere.
func TestSocketRefusals(t *testing.T) {
	w := newWorld(t, nil)
	pull, _ := w.leased("acme")
	hooked := w.subscribe("acme", "")
	for query, want := range map[string]struct {
		code  eventhose.Code
		field string
	}{
		"after=x":                         {"invalid", "after"},
		"after=zzz_1":                     {"cursor_gone", ""},
		"expression=nope":                 {"invalid", "expression"},
		"lease=5s":                        {"invalid", "lease"},
		"subscription=sub_none":           {"not_found", ""},
		"subscription=":                   {"not_found", ""},
		"subscription=" + hooked:          {"conflict", ""},
		"events=1":                        {"invalid", "events"},
		"after=0&subscription=" + pull:    {"invalid", "after"},
		"types=a&subscription=" + pull:    {"invalid", "types"},
		"lease=1ms&subscription=" + pull:  {"invalid", "lease"},
		"lease=soon&subscription=" + pull: {"invalid", "lease"},
	} {
		w.refused(want.code, want.field, w.root("GET", events+"/ws?"+query, ""))
	}
	for _, header := range []string{"Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key"} {
		w.refused("malformed", "", w.root("GET", events+"/ws", "", header, ""))
	}
	if _, status, err := w.tryDial("", "", http.Header{"Origin": {"https://evil.example"}}); err == nil || status != 401 {
		t.Errorf("a foreign page without a ticket: %v", err)
	}
	_, key := w.key("acme", eventhose.ScopeRead)
	for query, header := range map[string]http.Header{
		"ticket=" + w.ticket(key): {"Origin": {"https://shop.example"}},
		"":                        {"Origin": {"https://shop.example"}, "Authorization": {"Bearer " + key}},
	} {
		conn, _, err := w.tryDial("", query, header)
		if err != nil {
			t.Fatalf("?%s: %v", query, err)
		}
		conn.CloseNow()
	}
}

// A client that is silent, or takes nothing, is not waited for.
func TestSocketSilentClients(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.Heartbeat, o.Stall = 20*time.Millisecond, 200*time.Millisecond })
	w.fill(4)
	silent := func(frame string) net.Conn {
		u, _ := url.Parse(w.server.URL)
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.(*net.TCPConn).SetReadBuffer(128 << 10)
		fmt.Fprintf(c, "GET %s/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s", events, rootKey, frame)
		return c
	}
	one := silent("")
	grant := `{"type":"grant","events":9999}`
	silent( // a text frame, masked with zeros
		"\x81" + string([]byte{0x80 | byte(len(grant)), 0, 0, 0, 0}) + grant)
	_ = one.SetReadDeadline(time.Now().Add(streamTime))
	b, err := io.ReadAll(one)
	if err != nil || !strings.Contains(string(b), "too slow") || !strings.Contains(string(b), "\x88\x0a\x11\x38") { // 4408
		t.Errorf("the silent client was told %q, %v", b, err)
	}
	eventually(t, "both have ended", func() bool {
		return strings.Contains(w.metrics(), `eventhose_stream_subscribers{transport="websocket"} 0`)
	})
	if m := w.metrics(); strings.Contains(m, `why="internal"`) {
		t.Errorf("metrics:\n%s", m)
	}
}

// Over a socket a worker takes leases, answers them, and gives back what it has not answered by going away.
func TestSocketWorks(t *testing.T) {
	w := newWorld(t, quick)
	sub := w.want(201, w.root("POST", subscriptions, `{"filter":{"types":["job"]}}`)).json(t)["id"].(string)
	for i := range 6 {
		w.append("acme", fmt.Sprintf(`{"type":"job","data":{"n" : %d.0}}`, i))
		w.append("acme", `{"type":"other","data":1}`)
	}
	s := w.dial(rootKey, "lease=10m&subscription="+sub)
	if ready := s.read("ready"); ready.Subscription != sub {
		t.Errorf("got %+v", ready)
	}
	s.send(`{"type":"grant","events":4}`)
	var leases []string
	for i := range 4 {
		f := s.read("event")
		if f.Deliveries != 1 || string(f.Event.Data) != fmt.Sprintf(`{"n" : %d.0}`, i) || f.Event.Cursor != w.cursor(f.Event.Sequence) {
			t.Fatalf("got %+v", f)
		}
		leases = append(leases, f.Lease)
	}
	answer := func(frame, typ string, count int, lost ...string) {
		t.Helper()
		s.send(frame)
		if f := s.read(typ); f.Count != count || fmt.Sprint(f.Lost) != fmt.Sprint(lost) {
			t.Errorf("%s: %+v", frame, f)
		}
	}
	answer(`{"type":"ack","leases":["`+leases[0]+`"]}`, "acked", 1)
	answer(`{"type":"ack","leases":["`+leases[0]+`","`+leases[1]+`"]}`, "acked", 1, leases[0])
	answer(`{"type":"extend","lease":"20m","leases":["`+leases[2]+`"]}`, "extended", 1)
	answer(`{"type":"nack","delay":"0s","message":"not yet","leases":["`+leases[3]+`"]}`, "nacked", 1)
	s.send(`{"type":"grant","events":1}`)
	again := s.read("event")
	if again.Deliveries != 2 || string(again.Event.Data) != `{"n" : 3.0}` {
		t.Errorf("what was given back: %+v", again)
	}
	answer(`{"type":"release","leases":["`+leases[0]+`","`+again.Lease+`"]}`, "released", 1, leases[0])
	s.send(`{"type":"grant","events":1}`)
	if again := s.read("event"); again.Deliveries != 2 || string(again.Event.Data) != `{"n" : 3.0}` {
		t.Errorf("what was released: %+v", again)
	}
	// It goes away with two events in its hands; the leases are for ten minutes, so only giving back explains that another has them.
	s.conn.CloseNow()
	s = w.dial(rootKey, "lease=10m&subscription="+sub)
	s.read("ready")
	s.send(`{"type":"grant","events":100}`)
	got := map[string]int{}
	for range 4 {
		f := s.read("event")
		got[string(f.Event.Data)] = f.Deliveries
		s.send(`{"type":"ack","leases":["` + f.Lease + `"]}`)
		for { // events may come before the answer
			_, b, err := s.conn.Read(s.ctx)
			if err != nil {
				t.Fatal(err)
			}
			var next sent
			if err := json.Unmarshal(b, &next); err != nil {
				t.Fatal(err)
			}
			if next.Type == "acked" {
				break
			}
			got[string(next.Event.Data)] = next.Deliveries
			s.send(`{"type":"ack","leases":["` + next.Lease + `"]}`)
		}
		if len(got) == 4 {
			break
		}
	}
	if fmt.Sprint(got) != `map[{"n" : 2.0}:2 {"n" : 3.0}:3 {"n" : 4.0}:1 {"n" : 5.0}:1]` {
		t.Errorf("the next worker got %v", got)
	}
	// The subscription vanishes under it.
	w.want(204, w.root("DELETE", subscriptions+"/"+sub, ""))
	s.closed(4404, eventhose.CodeNotFound)
}

// What a worker was leased and never sent does not count as a delivery to it.
func TestSocketWorkUnsent(t *testing.T) {
	log := &headless{}
	w := newWorld(t, func(o *httpapi.Options) { log.Log, o.Log = o.Log, log })
	sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
	w.append("acme", `{"type":"job","data":1}`)
	s := w.dial(rootKey, "lease=10m&subscription="+sub)
	s.read("ready")
	log.away.Store(true)
	s.send(`{"type":"grant","events":10}`)
	s.closed(websocket.StatusInternalError, eventhose.CodeInternal)
	log.away.Store(false)
	list, err := w.engine.Pull(t.Context(), "acme", eventhose.SubscriptionID(sub), eventhose.Pull{Max: 1, Lease: time.Minute, Wait: streamTime})
	if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A worker whose connection ends by a fault of the server's is not charged for what it has in its hands.
func TestSocketWorkThatFailsChargesNothing(t *testing.T) {
	log := &headless{}
	w := newWorld(t, func(o *httpapi.Options) { log.Log, o.Log = o.Log, log })
	sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
	w.append("acme", `{"type":"job","data":1}`)
	s := w.dial(rootKey, "lease=10m&subscription="+sub)
	s.read("ready")
	s.send(`{"type":"grant","events":1}`)
	s.read("event")
	log.away.Store(true)
	s.send(`{"type":"grant","events":1}`)
	s.closed(websocket.StatusInternalError, eventhose.CodeInternal)
	log.away.Store(false)
	list, err := w.engine.Pull(t.Context(), "acme", eventhose.SubscriptionID(sub), eventhose.Pull{Max: 1, Lease: time.Minute, Wait: streamTime})
	if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A server that stops gives back what workers have in their hands before it is gone.
func TestSocketWorkDrains(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
	w.append("acme", `{"type":"job","data":1}`)
	s := w.dial(rootKey, "lease=10m&subscription="+sub)
	s.read("ready")
	s.send(`{"type":"grant","events":10}`)
	s.read("event")
	w.api.Drain()
	s.closed(1001, eventhose.CodeUnavailable)
	w.api.Close()
	list, err := w.engine.Pull(t.Context(), "acme", eventhose.SubscriptionID(sub), eventhose.Pull{Max: 1, Lease: time.Minute})
	if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, _, err := w.tryDial(rootKey, "", nil); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that has stopped: %v", err)
	}
}
