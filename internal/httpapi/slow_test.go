package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// sipping is a client's connection that takes little at a time, but goes on taking.
type sipping struct {
	net.Conn
	pause time.Duration
	taken *atomic.Int64
}

func (s sipping) Read(b []byte) (int, error) {
	<-time.After(s.pause)
	n, err := s.Conn.Read(b[:min(len(b), 8<<10)])
	s.taken.Add(int64(n))
	return n, err
}

// sip opens a socket whose client takes 8 KiB, then pauses, and again. taken is how much it has taken, pinged what it does when it is pinged.
func (w *world) sip(pause time.Duration, query string, pinged func()) (s *socket, taken *atomic.Int64) {
	w.t.Helper()
	taken = new(atomic.Int64)
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return sipping{c, pause, taken}, c.(*net.TCPConn).SetReadBuffer(64 << 10)
	}}
	ctx, cancel := context.WithTimeout(w.t.Context(), streamTime)
	//nolint:bodyclose // which the connection is
	conn, _, err := websocket.Dial(ctx, w.server.URL+events+"/ws?"+query, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr},
		HTTPHeader: http.Header{"Authorization": {"Bearer " + rootKey}}, OnPingReceived: func(context.Context, []byte) bool { pinged(); return true }})
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	conn.SetReadLimit(4 << 20)
	w.t.Cleanup(func() { cancel(); conn.CloseNow(); tr.CloseIdleConnections() })
	return &socket{w.t, ctx, conn}, taken
}

// large appends an event of 1 MiB, which is more in base64.
func (w *world) large() {
	w.t.Helper()
	if _, err := w.log.Append(w.t.Context(), "acme", eventhose.Event{Type: "job", ContentType: "application/octet-stream", Data: make([]byte, 1<<20)}); err != nil {
		w.t.Fatal(err)
	}
}

// A client that takes a large event slowly is answered a ping meanwhile: behind all of the event it came too late, which cut the client off.
func TestSocketSlowClientPings(t *testing.T) {
	w := newWorld(t, nil)
	w.large()
	s, taken := w.sip(10*time.Millisecond, "", func() {})
	s.read("ready")
	s.send(`{"type":"grant","events":2}`)
	ponged := make(chan error, 1)
	go func() {
		for taken.Load() < 100<<10 { // so that the event is on its way
			<-time.After(time.Millisecond)
		}
		ponged <- s.conn.Ping(s.ctx)
	}()
	s.read("event")
	select {
	case err := <-ponged:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(100 * time.Millisecond): // nothing is read meanwhile
		t.Error("the ping was not answered before the event was there")
	}
}

// A worker that answers pings is not given up when the server does not come to read that, behind a large event that it takes slowly.
func TestSocketSlowWorkerAnswersPings(t *testing.T) {
	const stall = 2 * time.Second
	w := newWorld(t, func(o *httpapi.Options) { o.Heartbeat, o.Stall = 50*time.Millisecond, stall })
	sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
	w.append("acme", `{"type":"job","data":1}`)
	var s *socket
	var lease string
	said := false
	pinged := func() {
		if lease == "" || said {
			return
		}
		sb, err := w.ctl.Subscription(t.Context(), "acme", eventhose.SubscriptionID(sub))
		if err != nil {
			t.Error(err)
		}
		if st, err := w.engine.Status(t.Context(), sb); err != nil || st.Leased == 2 {
			said = true // before the ping is answered, and with the large event on its way
			s.send(`{"type":"ack","leases":["` + lease + `"]}`)
		}
	}
	s, _ = w.sip(16*time.Millisecond, "lease=10m&subscription="+sub, func() { pinged() })
	s.read("ready")
	s.send(`{"type":"grant","events":1}`)
	lease = s.read("event").Lease
	w.large()
	s.send(`{"type":"grant","events":1}`)
	// The large event most times comes first; the answer that the next is to has waited behind it then.
	var large sent
	for range 2 {
		_, b, err := s.conn.Read(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		var f sent
		if err := json.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		if f.Type == "event" {
			large = f
		} else if f.Type != "acked" || f.Count != 1 {
			t.Errorf("got %+v", f)
		}
	}
	s.send(fmt.Sprintf(`{"type":"ack","leases":[%q]}`, large.Lease))
	if f := s.read("acked"); f.Count != 1 {
		t.Errorf("got %+v", f)
	}
}
