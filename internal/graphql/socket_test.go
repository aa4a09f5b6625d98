package graphql_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/graphql"
	"github.com/eventhose/eventhose/internal/httpapi"
)

func unmarshal(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
}

// socket is a client's end of a WebSocket.
type socket struct {
	t    testing.TB
	ctx  context.Context
	conn *websocket.Conn
	// pinged, if set, is called at each ping, which then is not answered.
	pinged func()
}

// heard is a message of the server.
type heard struct {
	Type, ID string
	Payload  json.RawMessage
}

// dial opens a WebSocket. With no key, the address or connection_init tells who it is.
func (w *world) dial(tenant, key, query string, protocols ...string) *socket {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	h := http.Header{"Origin": {"https://shop.example"}}
	if key != "" {
		h.Set("Authorization", "Bearer "+key)
	}
	s := &socket{t: w.t, ctx: ctx}
	answers := func(context.Context, []byte) bool {
		if s.pinged != nil {
			s.pinged()
		}
		return s.pinged == nil
	}
	//nolint:bodyclose // which the connection is
	conn, _, err := websocket.Dial(ctx, w.server.URL+tenant+"/graphql"+query, &websocket.DialOptions{HTTPClient: w.server.Client(), HTTPHeader: h, Subprotocols: protocols, OnPingReceived: answers})
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	conn.SetReadLimit(4 << 20)
	w.t.Cleanup(func() { cancel(); conn.CloseNow() })
	s.conn = conn
	return s
}

// connect opens a WebSocket and says connection_init.
func (w *world) connect(key string) *socket {
	w.t.Helper()
	s := w.dial(acme, key, "", "graphql-transport-ws")
	s.send(`{"type":"connection_init"}`)
	s.read("connection_ack", "")
	return s
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := s.conn.Write(s.ctx, websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socket) subscribe(id, document string, variables ...string) {
	s.t.Helper()
	s.send(`{"id":"` + id + `","type":"subscribe","payload":` + request(document, variables...) + `}`)
}

// read wants a message of one type for one operation next.
func (s *socket) read(typ, id string) heard {
	s.t.Helper()
	kind, b, err := s.conn.Read(s.ctx)
	if err != nil {
		s.t.Fatalf("wanted %s: %v", typ, err)
	}
	var m heard
	unmarshal(s.t, b, &m)
	if kind != websocket.MessageText || m.Type != typ || m.ID != id {
		s.t.Fatalf("got %s, wanted %s for %q", b, typ, id)
	}
	return m
}

// item wants an item of a stream next.
func (s *socket) item(id string) (r received) {
	s.t.Helper()
	a := parse(s.t, s.read("next", id).Payload)
	if len(a.Errors) > 0 {
		s.t.Fatalf("got %+v", a)
	}
	unmarshal(s.t, a.Data, &r)
	return r
}

// failed wants an operation to be refused.
func (s *socket) failed(id string, code eventhose.Code, field string) told {
	s.t.Helper()
	var list []told
	unmarshal(s.t, s.read("error", id).Payload, &list)
	refused(s.t, id, answer{Errors: list}, code, field)
	return list[0]
}

// closed wants the connection to end with a code, after nothing else.
func (s *socket) closed(code websocket.StatusCode, reason string) {
	s.t.Helper()
	_, b, err := s.conn.Read(s.ctx)
	var closing websocket.CloseError
	if err == nil || !errorAs(err, &closing) || closing.Code != code || !strings.Contains(closing.Reason, reason) {
		s.t.Errorf("got %s, %v; wanted %d %s", b, err, code, reason)
	}
}

func errorAs(err error, to *websocket.CloseError) bool {
	for ; err != nil; err = unwrap(err) {
		if c, ok := err.(websocket.CloseError); ok {
			*to = c
			return true
		}
	}
	return false
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

// Several operations share a connection; each ends by itself, by the client, or by what is wrong with it.
func TestSocket(t *testing.T) {
	w := newWorld(t, quick)
	const awkward = "{ \"n\":\n 12345678901234567890, \"html\":\"<b>\"}"
	w.append(`{"type":"a","data":` + awkward + `}`)
	w.append(`{"type":"b","data":2}`)
	s := w.connect(rootKey)
	s.subscribe("1", following)
	if m := s.read("next", "1"); !strings.Contains(string(m.Payload), `"data":`+awkward+`}`) {
		t.Errorf("not byte for byte: %s", m.Payload)
	}
	cursor := s.item("1").Events.Cursor
	s.subscribe("2", `{ events(limit: 1) { hasMore } }`)
	if m := s.read("next", "2"); string(m.Payload) != `{"data":{"events":{"hasMore":true}}}` {
		t.Errorf("got %s", m.Payload)
	}
	s.read("complete", "2")
	// An id is free again as soon as its operation is complete.
	s.subscribe("2", `{ event(id: "nope") { id } }`)
	if a := parse(t, s.read("next", "2").Payload); a.Errors[0].Extensions.Code != "not_found" || string(a.Data) != `{"event":null}` {
		t.Errorf("got %+v", a)
	}
	s.read("complete", "2")
	s.subscribe("3", `{ nope }`)
	s.failed("3", "invalid", "query")
	s.subscribe("3", following, "after", `"x"`)
	s.failed("3", "invalid", "after")
	s.subscribe("3", following, "after", `"zzz_1"`)
	if e := s.failed("3", "cursor_gone", ""); e.Extensions.First != 1 {
		t.Errorf("got %+v", e)
	}
	s.send(`{"type":"ping"}`)
	if m := s.read("pong", ""); m.Payload != nil {
		t.Errorf("got %s", m.Payload)
	}
	s.send(`{"type":"ping","payload":{ "a": 1 }}`)
	if m := s.read("pong", ""); string(m.Payload) != `{ "a": 1 }` {
		t.Errorf("got %s", m.Payload)
	}
	s.send(`{"type":"pong"}`)
	s.send(`{"id":"nope","type":"complete"}`)
	// What the client has completed sends nothing more, and its id may be used for another.
	s.send(`{"id":"1","type":"complete"}`)
	s.subscribe("1", following, "after", `"`+cursor+`"`)
	s.send(`{"type":"ping"}`)
	s.read("pong", "") // it has heard all of that
	w.append(`{"type":"c","data":3}`)
	if r := s.item("1"); r.Events.Event.Sequence != 3 {
		t.Errorf("got %+v", r)
	}
	// The log cannot be read on.
	fault := error(&eventhose.Error{Code: "unavailable", Message: "the store is away"})
	w.fault.Store(&fault)
	w.append(`{"type":"c","data":4}`)
	s.failed("1", "unavailable", "")
	w.fault.Store(nil)
	s.subscribe("1", following, "after", `"now"`)
	if r := s.item("1"); r.Events.Event != nil {
		t.Errorf("got %+v", r)
	}
	if err := s.conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	eventually(t, "it is in the log", func() bool {
		return strings.Contains(w.logs.String(), "method=GET route=/v1/tenants/{tenant}/graphql tenant=acme key=admin status=101 bytes=")
	})
	eventually(t, "all has ended", func() bool {
		return strings.Contains(w.metrics(), `eventhose_stream_subscribers{transport="graphql"} 0`)
	})
}

// What a client should not send ends the connection with the code that the protocol has for it.
func TestSocketCloseCodes(t *testing.T) {
	w := newWorld(t, nil)
	_, stranger := w.key("globex", eventhose.ScopeRead)
	_, publisher := w.key("acme", eventhose.ScopePublish)
	const init, stream = `{"type":"connection_init"}`, `{"id":"1","type":"subscribe","payload":{"query":"subscription { events(after: \"now\") { cursor } }"}}`
	for _, c := range []struct {
		name     string
		tenant   string
		key      string
		messages []string
		code     websocket.StatusCode
		reason   string
	}{
		{"garbage", acme, rootKey, []string{"\x00garbage"}, 4400, "not JSON"},
		{"nothing", acme, rootKey, []string{""}, 4400, "not JSON"},
		{"an array", acme, rootKey, []string{"[" + init + "]"}, 4400, "wrong kind"},
		{"no type", acme, rootKey, []string{"{}"}, 4400, "unknown type"},
		{"a type that is none", acme, rootKey, []string{`{"type":"start"}`}, 4400, `unknown type "start"`},
		{"a type of the server's", acme, rootKey, []string{`{"type":"next","id":"1"}`}, 4400, "unknown type"},
		{"a name twice", acme, rootKey, []string{`{"type":"ping","type":"ping"}`}, 4400, "not JSON"},
		{"an unknown field", acme, rootKey, []string{`{"type":"ping","more":1}`}, 4400, "more"},
		{"an id that is a number", acme, rootKey, []string{init, `{"type":"complete","id":1}`}, 4400, "id"},
		{"no id to complete", acme, rootKey, []string{init, `{"type":"complete"}`}, 4400, "id is required"},
		{"no id to subscribe", acme, rootKey, []string{init, strings.Replace(stream, `"1"`, `""`, 1)}, 4400, "id must be"},
		{"a long id", acme, rootKey, []string{init, strings.Replace(stream, `"1"`, `"`+strings.Repeat("1", 129)+`"`, 1)}, 4400, "id must be"},
		{"no payload", acme, rootKey, []string{init, `{"id":"1","type":"subscribe"}`}, 4400, "payload must be an object"},
		{"no query", acme, rootKey, []string{init, `{"id":"1","type":"subscribe","payload":{}}`}, 4400, "query: is required"},
		{"a ping with a text", acme, rootKey, []string{`{"type":"ping","payload":"x"}`}, 4400, "payload must be an object"},
		{"init with a text", acme, rootKey, []string{`{"type":"connection_init","payload":"x"}`}, 4400, "payload must be an object"},
		{"init twice", acme, rootKey, []string{init, init}, 4429, "Too many initialisation requests"},
		{"subscribe before init", acme, rootKey, []string{stream}, 4401, "Unauthorized"},
		{"an id twice", acme, rootKey, []string{init, stream, stream}, 4409, "Subscriber for 1 already exists"},
		{"no key", acme, "", []string{init}, 4401, "no API key"},
		{"no key in the payload", acme, "", []string{`{"type":"connection_init","payload":{}}`}, 4401, "no API key"},
		{"more than a key in the payload", acme, "", []string{`{"type":"connection_init","payload":{"authorization":"Bearer x","x":1}}`}, 4400, "x"},
		{"a key without Bearer", acme, "", []string{`{"type":"connection_init","payload":{"authorization":"` + rootKey + `"}}`}, 4401, "no API key"},
		{"an unknown key", acme, "", []string{`{"type":"connection_init","payload":{"authorization":"Bearer x"}}`}, 4401, "unknown"},
		{"another's key", acme, "", []string{`{"type":"connection_init","payload":{"authorization":"Bearer ` + stranger + `"}}`}, 4404, "no such tenant"},
		{"no tenant", "/v1/tenants/nobody", "", []string{`{"type":"connection_init","payload":{"authorization":"Bearer ` + stranger + `"}}`}, 4404, "no such tenant"},
		{"no scope", acme, "", []string{`{"type":"connection_init","payload":{"authorization":"Bearer ` + publisher + `"}}`}, 4403, "scope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := w.dial(c.tenant, c.key, "", "graphql-transport-ws")
			s.t = t
			for _, m := range c.messages {
				s.send(m)
			}
			for range c.messages {
				_, b, err := s.conn.Read(s.ctx)
				if err == nil {
					if !strings.Contains(string(b), "connection_ack") && !strings.Contains(string(b), `"next"`) {
						t.Errorf("got %s", b)
					}
					continue
				}
				var closing websocket.CloseError
				if !errorAs(err, &closing) || closing.Code != c.code || !strings.Contains(closing.Reason, c.reason) {
					t.Errorf("closed with %v, wanted %d %s", err, c.code, c.reason)
				}
				return
			}
			s.closed(c.code, c.reason)
		})
	}
	s := w.dial(acme, rootKey, "", "graphql-transport-ws")
	if err := s.conn.Write(s.ctx, websocket.MessageBinary, []byte(init)); err != nil {
		t.Fatal(err)
	}
	s.closed(4400, "text")
	w.dial(acme, rootKey, "").closed(4406, "Subprotocol not acceptable")
	w.dial(acme, rootKey, "", "graphql-ws").closed(4406, "Subprotocol not acceptable")
	s = w.connect(rootKey)
	_ = s.conn.Write(s.ctx, websocket.MessageText, []byte(`{"type":"ping"`+strings.Repeat(" ", 65<<10)+`}`))
	if _, _, err := s.conn.Read(s.ctx); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("a message of 65 KiB: %v", err)
	}
	if strings.Contains(w.logs.String(), stranger) || strings.Contains(w.logs.String(), "internal error") {
		t.Errorf("logs: %s", w.logs)
	}
}

// Who may come in is told by a header, by a ticket, or in time by connection_init.
func TestSocketAdmission(t *testing.T) {
	w := newWorld(t, func(g *graphql.Options, o *httpapi.Options) {
		quick(g, o)
		o.Streams = follow.NewStreams(3, 3)
	})
	w.append(`{"type":"a","data":1}`)
	stranger, silent := w.dial(acme, "", "", "graphql-transport-ws"), w.dial(acme, rootKey, "", "graphql-transport-ws")
	stranger.closed(4408, "Connection initialisation timeout")
	silent.closed(4408, "Connection initialisation timeout")

	id, key := w.key("acme", eventhose.ScopeRead)
	s := w.dial(acme, "", "", "graphql-transport-ws")
	s.send(`{"type":"connection_init","payload":{"authorization":"Bearer ` + key + `"}}`)
	s.read("connection_ack", "")
	s.subscribe("1", following)
	s.item("1")

	ticket := w.dial(acme, "", "?ticket="+w.ticket(), "graphql-transport-ws")
	ticket.send(`{"type":"connection_init"}`)
	ticket.read("connection_ack", "")
	ticket.subscribe("q", `{ events { cursor } }`)
	ticket.failed("q", "forbidden", "")
	// Three streams are all that there may be, and a connection is one.
	ticket.subscribe("1", following)
	ticket.failed("1", "limit", "")
	if status, b, _ := w.do("GET", acme+"/graphql?ticket=tkt_nope", "", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="); status != 401 {
		t.Errorf("a ticket that is none: %d %s", status, b)
	}
	// Also who answers no ping reads no longer than the key lasts.
	revoke := sync.OnceFunc(func() { w.rest("DELETE", "/v1/keys/"+id, "", 204) })
	s.pinged = revoke
	s.closed(4401, "unauthenticated")
	eventually(t, "there is room for a stream", func() bool {
		ticket.subscribe("2", following)
		_, b, err := ticket.conn.Read(ticket.ctx)
		return err == nil && strings.Contains(string(b), `"next"`)
	})
	w.door.Drain()
	ticket.closed(websocket.StatusGoingAway, "unavailable: the server is stopping")
	if status, b, _ := w.do("GET", acme+"/graphql", "", "Authorization", "Bearer "+rootKey, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="); status != 503 {
		t.Errorf("a server that stops: %d %s", status, b)
	}
}

// A connection has a bounded number of operations, however quickly they come and go.
func TestSocketOperations(t *testing.T) {
	w := newWorld(t, nil)
	s := w.connect(rootKey)
	for i := range 50 {
		s.subscribe(fmt.Sprint(i), following, "after", `"now"`)
		s.item(fmt.Sprint(i))
	}
	s.subscribe("more", following)
	s.failed("more", "limit", "")
	s.subscribe("more", `{ __typename }`)
	s.failed("more", "limit", "")
	s.send(`{"id":"7","type":"complete"}`)
	eventually(t, "there is room again", func() bool {
		s.subscribe("more", `{ __typename }`)
		_, b, err := s.conn.Read(s.ctx)
		if err == nil && strings.Contains(string(b), `"next"`) {
			s.read("complete", "more")
			return true
		}
		return err != nil
	})
	w.append(`{"type":"a","data":1}`)
	got := map[string]bool{}
	for range 49 {
		_, b, err := s.conn.Read(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		var m heard
		unmarshal(t, b, &m)
		got[m.ID] = true
	}
	if len(got) != 49 || got["7"] {
		t.Errorf("%d operations have got it: %v", len(got), got)
	}
}

// sipping is a client's connection that takes little at a time, but goes on taking.
type sipping struct {
	net.Conn
	taken *atomic.Int64
}

func (s sipping) Read(b []byte) (int, error) {
	<-time.After(10 * time.Millisecond)
	n, err := s.Conn.Read(b[:min(len(b), 8<<10)])
	s.taken.Add(int64(n))
	return n, err
}

// A client that takes a large item slowly is answered a ping meanwhile: behind all of the item it came too late, which cut the client off.
func TestSocketSlowClientPings(t *testing.T) {
	w := newWorld(t, nil)
	w.append(`{"type":"a","data":"` + strings.Repeat("x", 1<<20-2) + `"}`)
	var taken atomic.Int64
	w.server.Client().Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return sipping{c, &taken}, c.(*net.TCPConn).SetReadBuffer(64 << 10)
	}}
	s := w.connect(rootKey)
	s.subscribe("1", following)
	ponged := make(chan error, 1)
	go func() {
		for taken.Load() < 100<<10 { // so that the item is on its way
			<-time.After(time.Millisecond)
		}
		ponged <- s.conn.Ping(s.ctx)
	}()
	s.item("1")
	select {
	case err := <-ponged:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(100 * time.Millisecond): // nothing is read meanwhile
		t.Error("the ping was not answered before the item was there")
	}
}
