package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
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
	// readBack reads the log from its beginning into a reader, until that has enough; nil is by dial.
	readBack func(ctx context.Context, o *readersOrder, into *reader) error
}

// streamKinds lists them.
var streamKinds = []streamKind{
	{name: "sse", dial: lines("text/event-stream")},
	{name: "websocket", grants: true, dial: webSocket},
	{name: "graphql", dial: graphQL},
	{name: "grpc", goal: 100_000, dial: connectStream, readBack: grpcReadBack},
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

// asked is a request that opens a stream.
type asked struct {
	target, version string
	head            http.Header
	body            []byte // with one it is a POST
	want            int
	// until is what must have come of the answer before the stream is open; "" is its head.
	until string
}

// ask sends a request on a connection of its own, and answers with that what has come of the answer behind its head.
func ask(ctx context.Context, a asked) (net.Conn, []byte, error) {
	u, err := url.Parse(a.target)
	if err != nil {
		return nil, nil, err
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	method := http.MethodGet
	if a.body != nil {
		method = http.MethodPost
		a.head.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	text := fmt.Appendf(nil, "%s %s %s\r\nHost: %s\r\n", method, u.RequestURI(), a.version, u.Host)
	for name, values := range a.head {
		text = fmt.Appendf(text, "%s: %s\r\n", name, values[0])
	}
	in := bufio.NewReaderSize(conn, 16<<10)
	var res *http.Response
	if _, err = conn.Write(append(append(text, "\r\n"...), a.body...)); err == nil {
		res, err = http.ReadResponse(in, nil)
	}
	if err == nil && res.StatusCode != a.want {
		err = fmt.Errorf("the server answers %s", res.Status)
	}
	var came []byte
	for err == nil && (in.Buffered() > 0 || !bytes.Contains(came, []byte(a.until))) {
		var b byte
		b, err = in.ReadByte()
		came = append(came, b)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, came, nil
}

// lines reads an answer that does not end, over HTTP/1.0: no marks of chunks stand between its parts.
func lines(accept string) func(context.Context, *readersOrder, string) (net.Conn, []byte, error) {
	return func(ctx context.Context, o *readersOrder, after string) (net.Conn, []byte, error) {
		target := o.URL + "/v1/tenants/default/events/stream?after=" + after + "&types=" + url.QueryEscape(o.Type)
		return ask(ctx, asked{target: target, version: "HTTP/1.0", head: http.Header{"Authorization": {"Bearer " + o.Key}, "Accept": {accept}}, want: http.StatusOK})
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
	conn, came, err := ask(ctx, asked{target: target, version: "HTTP/1.1", head: http.Header{"Authorization": {"Bearer " + o.Key}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-WebSocket-Version": {"13"}, "Sec-WebSocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}, want: http.StatusSwitchingProtocols})
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.Write(grantFrame(maxGrant)); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, came, nil
}

// grantFrame is a frame of a client, masked with zeros (RFC 6455, section 5.3).
func grantFrame(events int) []byte {
	text := fmt.Sprintf(`{"type":"grant","events":%d}`, events)
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}
