package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// streamKind is one way to read a log that is measured.
type streamKind struct {
	name string
	// goal is how many events a second it is to read back, 0 for none.
	goal float64
	// grants says that no more comes than is granted; dial grants maxGrant.
	grants bool
	// dial opens a stream after a cursor, and answers what of it has come already.
	dial func(ctx context.Context, o *readersOrder, after string) (conn net.Conn, came []byte, err error)
}

// streamKinds lists them.
var streamKinds = []streamKind{
	{name: "sse", dial: lines("text/event-stream")},
	{name: "websocket", grants: true, dial: webSocket},
	{name: "ndjson", goal: 100_000, dial: lines("application/x-ndjson")},
}

func kindOf(name string) (streamKind, error) {
	for _, k := range streamKinds {
		if k.name == name {
			return k, nil
		}
	}
	return streamKind{}, fmt.Errorf("no such kind of stream: %s", name)
}

// ask sends a request on a connection of its own and reads the head of the answer.
func ask(ctx context.Context, target, version string, head http.Header, want int) (net.Conn, *bufio.Reader, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, nil, err
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	text := fmt.Appendf(nil, "GET %s %s\r\nHost: %s\r\n", u.RequestURI(), version, u.Host)
	for name, values := range head {
		text = fmt.Appendf(text, "%s: %s\r\n", name, values[0])
	}
	in := bufio.NewReaderSize(conn, 16<<10)
	var res *http.Response
	if _, err = conn.Write(append(text, "\r\n"...)); err == nil {
		res, err = http.ReadResponse(in, nil)
	}
	if err == nil && res.StatusCode != want {
		err = fmt.Errorf("the server answers %s", res.Status)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, in, nil
}

// buffered answers what a reader has taken from its connection already.
func buffered(in *bufio.Reader) []byte {
	b, _ := in.Peek(in.Buffered())
	return b
}

// lines reads an answer that does not end, over HTTP/1.0: no marks of chunks stand between its parts.
func lines(accept string) func(context.Context, *readersOrder, string) (net.Conn, []byte, error) {
	return func(ctx context.Context, o *readersOrder, after string) (net.Conn, []byte, error) {
		target := o.URL + "/v1/tenants/default/events/stream?after=" + after + "&types=" + url.QueryEscape(o.Type)
		conn, in, err := ask(ctx, target, "HTTP/1.0", http.Header{"Authorization": {"Bearer " + o.Key}, "Accept": {accept}}, http.StatusOK)
		if err != nil {
			return nil, nil, err
		}
		return conn, buffered(in), nil
	}
}

// maxGrant is the most that a WebSocket may have granted, and longestRound how long one may leave pings unanswered.
const (
	maxGrant     = 10_000
	longestRound = time.Minute
)

// webSocket answers no pings: nothing that comes is parsed.
func webSocket(ctx context.Context, o *readersOrder, after string) (net.Conn, []byte, error) {
	target := o.URL + "/v1/tenants/default/events/ws?after=" + after + "&types=" + url.QueryEscape(o.Type)
	conn, in, err := ask(ctx, target, "HTTP/1.1", http.Header{"Authorization": {"Bearer " + o.Key}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-WebSocket-Version": {"13"}, "Sec-WebSocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}, http.StatusSwitchingProtocols)
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.Write(grantFrame(maxGrant)); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, buffered(in), nil
}

// grantFrame is a frame of a client, masked with zeros (RFC 6455, section 5.3).
func grantFrame(events int) []byte {
	text := fmt.Sprintf(`{"type":"grant","events":%d}`, events)
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}
