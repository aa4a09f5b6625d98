// Package stall tells a reader that is slow from one that stands still: every write has a deadline that moves on as the
// reader reads, and little time is left for all that is still to be said once a server stops.
package stall

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// GoodbyeTime is how long a stream has for its last words once the server stops.
const GoodbyeTime = 3 * time.Second

const (
	// stuckAfter is how long a write takes at least that the client does not want now.
	stuckAfter = time.Second
	// maxWrite is how much is written under one deadline.
	maxWrite = 32 << 10
)

var (
	// ErrLeft ends a stream whose reader has left or stood still for too long.
	ErrLeft = errors.New("the reader has left")
	// ErrSlow ends one whose client answers no ping.
	ErrSlow = errors.New("the client answers no ping")
)

// Conn gives every write of a connection a deadline, which moves on as its reader reads, and counts. It is safe for concurrent
// use, but one goroutine at a time may write.
type Conn struct {
	net.Conn
	sent atomic.Int64
	// since is when the write under way began, in nanoseconds of Unix time; 0 if there is none.
	since atomic.Int64

	mu    sync.Mutex
	limit time.Duration
	hasty bool
}

// Stuck reports whether a write stands still: what else is to be written would have to wait for it.
func (c *Conn) Stuck() bool {
	since := c.since.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > stuckAfter
}

// Sent is how many bytes were written.
func (c *Conn) Sent() int64 { return c.sent.Load() }

// Hurry leaves GoodbyeTime for all that is still to be read and written.
func (c *Conn) Hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasty {
		c.hasty = true
		_ = c.SetDeadline(time.Now().Add(GoodbyeTime)) // a connection that is closed needs none
	}
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (n int, err error) {
	defer c.since.Store(0)
	for more := true; more && err == nil; more = n < len(b) {
		now := time.Now()
		c.mu.Lock()
		if !c.hasty {
			_ = c.SetWriteDeadline(now.Add(c.limit)) // as above
		}
		c.mu.Unlock()
		c.since.Store(now.UnixNano())
		var part int
		part, err = c.Conn.Write(b[n:min(len(b), n+maxWrite)])
		n += part
		c.sent.Add(int64(part))
	}
	return n, err
}

// Hijacker hands its connection over as a Conn.
type Hijacker struct {
	http.ResponseWriter
	// Limit is how long the reader may take nothing.
	Limit time.Duration
	// Conn is set once the connection was handed over.
	Conn *Conn
}

// Hijack implements http.Hijacker.
func (w *Hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.Conn = &Conn{Conn: conn, limit: w.Limit}
	rw.Writer.Reset(w.Conn)
	return w.Conn, rw, nil
}

// Send writes a text message of a WebSocket over a Conn, a large one in parts: behind all of it pings and pongs would wait too long.
func Send(ctx context.Context, conn *websocket.Conn, b []byte) error {
	if len(b) <= maxWrite {
		return conn.Write(ctx, websocket.MessageText, b)
	}
	w, err := conn.Writer(ctx, websocket.MessageText)
	for err == nil && len(b) > 0 {
		part := b[:min(len(b), maxWrite)]
		b = b[len(part):]
		_, err = w.Write(part)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		_ = conn.CloseNow() // nothing can be said any more behind half of a message
	}
	return err
}

// Writer writes an answer that goes on. Write is used by one goroutine at a time, Hurry by any.
type Writer struct {
	w       http.ResponseWriter
	control *http.ResponseController

	mu    sync.Mutex
	limit time.Duration
	hasty bool
}

// NewWriter writes to w; limit is how long the reader may take nothing.
func NewWriter(w http.ResponseWriter, limit time.Duration) *Writer {
	return &Writer{w: w, control: http.NewResponseController(w), limit: limit}
}

// Hurry leaves GoodbyeTime for what is being written, and for all that comes.
func (o *Writer) Hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hasty {
		return
	}
	o.hasty, o.limit = true, min(o.limit, GoodbyeTime)
	_ = o.control.SetWriteDeadline(time.Now().Add(o.limit)) // a writer without deadlines is a test's
}

// Done is called when the request ends: over HTTP/2 nothing may be done to its writer then.
func (o *Writer) Done() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hasty = true
}

// Write sends texts off, one behind the other, or answers ErrLeft.
func (o *Writer) Write(texts ...[]byte) error {
	for _, b := range texts {
		for len(b) > 0 {
			part := b[:min(len(b), maxWrite)]
			b = b[len(part):]
			o.mu.Lock()
			if !o.hasty {
				_ = o.control.SetWriteDeadline(time.Now().Add(o.limit))
			}
			o.mu.Unlock()
			if _, err := o.w.Write(part); err != nil {
				return ErrLeft
			}
		}
	}
	if o.control.Flush() != nil {
		return ErrLeft
	}
	return nil
}
