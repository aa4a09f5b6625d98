package ingress

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// bufferSize is what a connection reads ahead. A head that is longer is no plain one.
	bufferSize = 4096
	// maxDrained is how much of a body is read that its handler has left, so that the connection can go on. It is net/http's.
	maxDrained = 256 << 10
	// slack is by which part of its limit a deadline may be short: setting one costs more than to see that it is far enough.
	slack = 12
	// lingers is how long a connection whose client is still sending stays after the last answer: closed at once, it would be
	// reset, and the answer lost with it.
	lingers = 500 * time.Millisecond
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// conn is a connection from its first byte until it ends or is given away. It is used by one goroutine, but for leave.
type conn struct {
	net.Conn
	server *Server

	buffer  *[bufferSize]byte
	at, end int // what of the buffer is to be read

	readUntil, writeUntil time.Time // deadlines, as far as they are known

	request http.Request // what all requests of the connection have in common
	out     response

	mu       sync.Mutex
	idle     bool // nothing of a next request has come
	draining bool // the present request is answered, and the rest of its body has not come
	leaving  bool // after the present request, if there is one
}

// leave ends the connection when it has answered what it is about.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	switch {
	case c.idle:
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // who waits comes back
	case c.draining:
		_ = c.Conn.SetReadDeadline(time.Now().Add(lingers))
	}
}

// waits says whether the connection is idle, and answers whether it is to go on.
func (c *conn) waits(idle bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle, c.draining = idle, false
	return !c.leaving
}

// drains takes note that what is left of a body is read from here on. A connection that is leaving has no more time for that than to
// linger.
func (c *conn) drains() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	limit := c.server.limit.body
	if c.leaving {
		limit = lingers
	}
	c.readUntil = time.Now().Add(limit)
	_ = c.Conn.SetReadDeadline(c.readUntil)
}

// serve answers requests until the connection is done with, or something comes that is not plain, which it reports.
func (c *conn) serve() (kept bool) {
	c.buffer = buffers.Get().(*[bufferSize]byte)
	defer func() {
		if !kept {
			c.free()
		}
	}()
	c.request = *(&http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: c.RemoteAddr().String()}).WithContext(c.server.base)
	for first := true; ; first = false {
		h, v, err := c.next(first)
		if err != nil {
			return false
		}
		if v == another {
			return true
		}
		if !c.answer(&h) {
			return false
		}
	}
}

// next waits for a request and reads its head. first says that it is the connection's first.
func (c *conn) next(first bool) (head, verdict, error) {
	if c.at == c.end {
		limit := c.server.limit.idle
		if first {
			limit = c.server.limit.head
		}
		if until := time.Now().Add(limit); c.readUntil.Before(until.Add(-limit/slack)) || c.readUntil.After(until) {
			c.readUntil = until
			_ = c.Conn.SetReadDeadline(until) // a connection that is closed needs none; so below
		}
		if !c.waits(true) {
			return head{}, 0, http.ErrServerClosed
		}
		c.at, c.end = 0, 0
		if err := c.fill(); err != nil {
			return head{}, 0, err
		}
	}
	if !c.waits(false) {
		return head{}, 0, http.ErrServerClosed
	}
	for hurried, breaks := false, !first; ; hurried = true {
		if breaks {
			breaks = c.skipBreaks()
		}
		if !breaks {
			if h, n, v := readHead(c.buffer[c.at:c.end], c.server.plain); v != more {
				c.at += n
				return h, v, nil
			}
		}
		if c.at > 0 {
			c.end = copy(c.buffer[:], c.buffer[c.at:c.end])
			c.at = 0
		}
		if c.end == len(c.buffer) {
			return head{}, another, nil
		}
		if !hurried {
			c.readUntil = time.Now().Add(c.server.limit.head)
			_ = c.Conn.SetReadDeadline(c.readUntil)
		}
		switch err := c.fill(); {
		case errors.Is(err, io.EOF) && !breaks:
			return head{}, another, nil // net/http says what is wrong with half a head
		case err != nil:
			return head{}, 0, err
		}
	}
}

// mostBreaks is how many bytes of line breaks may stand behind a body; net/http does not look at fewer bytes of a next request.
const mostBreaks = 4

// skipBreaks passes over line breaks that a client has sent behind a body, as net/http does (RFC 9112, section 2.2). It reports
// whether more must come before that is done.
func (c *conn) skipBreaks() bool {
	if c.end-c.at < mostBreaks {
		return true
	}
	for range mostBreaks {
		if b := c.buffer[c.at]; b != '\r' && b != '\n' {
			break
		}
		c.at++
	}
	return false
}

// fill reads more into the buffer.
func (c *conn) fill() error {
	n, err := c.Conn.Read(c.buffer[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// answer has a request answered, and reports whether the connection can go on.
func (c *conn) answer(h *head) bool {
	r, in := new(http.Request), &body{conn: c, left: h.length}
	*r = c.request
	r.URL = &url.URL{Path: h.path, RawQuery: h.query}
	r.RequestURI = h.path
	if h.query != "" {
		r.RequestURI += "?" + h.query
	}
	r.Host, r.Header, r.ContentLength, r.Body = h.host, h.header, h.length, in
	if h.length == 0 {
		r.Body = http.NoBody
	}
	out := &c.out
	out.begin(c, in)
	if !c.handle(r) {
		return false
	}
	left := in.left
	in.left = ended
	last := !c.waits(false) || out.last() || left > maxDrained
	if out.send(c, last) != nil {
		return false
	}
	switch {
	case left == 0:
		return !last
	case last:
		c.linger()
		return false
	}
	c.drains()
	return c.drain(left)
}

// handle calls the handler, and reports whether it has returned. One that panics has its connection closed, as net/http does it.
func (c *conn) handle(r *http.Request) (done bool) {
	defer func() {
		fault := recover()
		if err, ok := fault.(error); fault != nil && !(ok && errors.Is(err, http.ErrAbortHandler)) {
			c.server.logger.Error("http: panic", slog.String("path", r.URL.Path), slog.Any("panic", fault), slog.String("stack", string(debug.Stack())))
		}
	}()
	c.server.rest.Handler.ServeHTTP(&c.out, r)
	return true
}

var waste = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// drain reads what is left of a body.
func (c *conn) drain(left int64) bool {
	buffered := min(left, int64(c.end-c.at))
	c.at += int(buffered)
	left -= buffered
	if left == 0 {
		return true
	}
	b := waste.Get().(*[64 << 10]byte)
	defer waste.Put(b)
	for left > 0 {
		n, err := c.Conn.Read(b[:min(left, int64(len(b)))])
		if left -= int64(n); n == 0 && err != nil {
			return false
		}
	}
	return true
}

// linger reads for a moment what the client still sends, after it was told that nothing more is answered.
func (c *conn) linger() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.Conn.SetReadDeadline(time.Now().Add(lingers))
	c.drain(1 << 62)
}

// given answers the connection as it is given away.
func (c *conn) given() net.Conn {
	r := &begun{Conn: c.Conn, first: append([]byte(nil), c.buffer[c.at:c.end]...)}
	c.free()
	_ = c.Conn.SetDeadline(time.Time{})
	return r
}

func (c *conn) free() {
	buffers.Put(c.buffer)
	c.buffer = nil
}

// ended is what is left of a body that may not be read any more.
const ended = -1

// body is a request's body.
type body struct {
	conn *conn
	left int64 // to be read, or ended
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	c := b.conn
	switch {
	case b.left == ended:
		return 0, http.ErrBodyReadAfterClose
	case b.left == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	p = p[:min(int64(len(p)), b.left)]
	if c.at < c.end {
		n = copy(p, c.buffer[c.at:c.end])
		c.at += n
	} else if n, err = c.Conn.Read(p); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	b.left -= int64(n)
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error { return nil }

// arrived reports whether all of it is in the buffer.
func (b *body) arrived() bool { return b.left <= int64(b.conn.end-b.conn.at) }

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.first)
	if b.first = b.first[n:]; len(b.first) == 0 {
		b.first = nil
	}
	return n, nil
}

// CloseWrite is what net/http ends a connection with whose client still sends.
func (b *begun) CloseWrite() error {
	if half, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
