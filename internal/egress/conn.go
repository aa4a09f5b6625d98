package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// conn is a place for a connection, and the connection once it is open. One goroutine at a time uses it: the one that took
// it from the pool.
//
// The danger of keeping a connection is to take what is left of one exchange for the answer to the next, and with it what
// one tenant was answered for another's. So it is kept only when the answer had an end and nothing followed it, and
// before it carries another request it must be found open and silent.
type conn struct {
	raw     net.Conn  // nil until it is open
	tls     *tls.Conn // over raw, nil if there is none
	rw      io.ReadWriter
	r       *bufio.Reader // over the conn itself, which counts
	budget  int           // how many more bytes may be read
	until   time.Time     // the deadline of the exchange under way
	readErr error         // why reading ended, if not by the other side's closing
	address string
	probe   *probe
	cut     func()          // ends what is under way; may be called by any goroutine, also late
	watched context.Context // whose end calls cut, until unwatch
	unwatch func() bool
	used    bool // it has carried a request
	clean   bool // it may carry another

	// What the pool knows, under its mutex.
	host         *host
	since        time.Time // when it was put back
	older, newer *conn     // in the order in which idle ones were put back
}

// past is a deadline that ends what waits for it.
var past = time.Unix(1, 0)

var (
	errTooMuch = errors.New("it is longer than what is read of an answer")
	errCut     = errors.New("it was kept for somebody whose time is over")
	errVersion = errors.New("it is not HTTP/1.0 or 1.1, or has no status")
)

// readBuffer holds the head of an answer and, most times, its body.
const readBuffer = 4 << 10

func (c *conn) connected(raw net.Conn) {
	*c = conn{raw: raw, rw: raw, address: raw.RemoteAddr().String(), host: c.host,
		probe: newProbe(raw), cut: func() { raw.SetDeadline(past) }}
	c.r = bufio.NewReaderSize(c, readBuffer)
}

func (c *conn) secure(config *tls.Config) {
	c.tls = tls.Client(c.raw, config)
	c.rw = c.tls
}

// close closes the socket and says no goodbye over TLS, which could wait for a receiver that does not read.
func (c *conn) close() {
	if c.unwatch != nil {
		c.unwatch()
	}
	if c.raw != nil {
		c.raw.Close()
	}
	*c = conn{host: c.host}
}

// watch has the end of ctx cut what is under way, from now until another is watched or the connection is closed: most
// exchanges have the same one, and beginning to watch costs more than being watched. It reports whether the connection can
// be used; if not, its deadline may still be cut for the one before.
func (c *conn) watch(ctx context.Context) bool {
	if c.watched == ctx {
		return true
	}
	if c.unwatch != nil && !c.unwatch() {
		return false
	}
	c.watched, c.unwatch = ctx, context.AfterFunc(ctx, c.cut)
	return true
}

// Read reads within the budget, for c.r.
func (c *conn) Read(b []byte) (int, error) {
	if c.budget <= 0 {
		c.readErr = errTooMuch
		return 0, errTooMuch
	}
	n, err := c.rw.Read(b[:min(len(b), c.budget)])
	c.budget -= n
	if err != nil && !errors.Is(err, io.EOF) {
		c.readErr = err
	}
	return n, err
}

// exchange sends a request and reads its answer. sent is false if not a byte of the request went out.
func (c *conn) exchange(ctx context.Context, r *Request, a *Answer, deadline time.Time) (sent bool, err error) {
	used := c.used
	c.used, c.clean, c.until, c.readErr = true, false, deadline, nil
	if !c.watch(ctx) {
		return false, errCut
	}
	if err := c.raw.SetDeadline(deadline); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err // it may have been cut before the deadline was set
	}
	a.Address, a.Stage = c.address, StageSend
	c.budget = maxHeaderBytes

	if r.Still != nil && !r.Still() {
		return false, ErrHeldBack
	}
	w, h := c.send(r)
	if w.err != nil && w.n == 0 && used {
		return false, w.err
	}
	if w.whole {
		a.Stage = StageWait
	}
	if h.resp == nil && h.err == nil {
		h = c.readHead(r.Target.request)
	}
	if !h.began.IsZero() {
		a.Wait, a.Stage = max(0, h.began.Sub(w.ended)), StageRead
	}
	// Who refuses a request may answer before it is whole, and break the connection at once: the answer counts.
	switch {
	case h.err == nil:
		err = c.readBody(h.resp, a)
	case h.began.IsZero() && w.err != nil:
		err = w.err
	default:
		err = h.err
	}
	if ctx.Err() != nil || !w.whole {
		c.clean = false
	}
	return true, err
}

// written is what came of writing a request.
type written struct {
	n     int64
	whole bool
	ended time.Time
	err   error // why it is not whole, if that was not for an early answer
}

// send also answers the head of the answer if it has read it.
func (c *conn) send(r *Request) (written, answerHead) {
	buffer := heads.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= 2*maxOneWrite {
			heads.Put(buffer)
		}
	}()
	*buffer = r.AppendHead((*buffer)[:0])
	if len(*buffer)+len(r.Body) > maxOneWrite {
		return c.sendLong(*buffer, r)
	}
	*buffer = append(*buffer, r.Body...)
	n, err := c.rw.Write(*buffer)
	c.failed(err)
	return written{int64(n), err == nil, time.Now(), err}, answerHead{}
}

// failed keeps what is read after a Write that failed from taking long: an answer that explains it is there already.
func (c *conn) failed(err error) {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	if soon := time.Now().Add(time.Second); soon.Before(c.until) {
		c.raw.SetReadDeadline(soon)
	}
}

// sendLong also reads the head of the answer: a receiver that has its answer ready before it has read all may never read
// the rest, and then writing would not end.
func (c *conn) sendLong(head []byte, r *Request) (written, answerHead) {
	done := make(chan written, 1)
	go func() {
		parts := net.Buffers{head, r.Body}
		n, err := parts.WriteTo(c.rw)
		c.failed(err)
		done <- written{n, err == nil, time.Now(), err}
	}()
	h := c.readHead(r.Target.request)
	select {
	case w := <-done:
		return w, h
	default:
	}
	c.raw.SetWriteDeadline(past)
	w := <-done
	if errors.Is(w.err, os.ErrDeadlineExceeded) {
		w.err = nil
	}
	return w, h
}

// answerHead is what comes before the body of the final answer, and why there is none.
type answerHead struct {
	resp  *http.Response
	began time.Time // when its first byte came, zero if none has
	err   error
}

// readHead reads on to the head of the final answer. Those before it, 1xx, say nothing of what becomes of the request.
func (c *conn) readHead(request *http.Request) answerHead {
	for {
		var h answerHead
		if _, h.err = c.r.Peek(1); h.err != nil && !errors.Is(h.err, errTooMuch) {
			return h
		}
		h.began = time.Now()
		h.resp, h.err = http.ReadResponse(c.r, request) //nolint:bodyclose // its body is read to its end, or the connection is closed
		switch {
		case h.err != nil && c.readErr != nil:
			h.err = c.readErr // and not that half a line is malformed
		case h.err != nil:
		case h.resp.ProtoMajor != 1 || h.resp.StatusCode < 100:
			h.err = errVersion
		case h.resp.StatusCode < 200 && h.resp.StatusCode != http.StatusSwitchingProtocols:
			continue
		}
		return h
	}
}

func (c *conn) readBody(resp *http.Response, a *Answer) error {
	a.Status, a.Header = resp.StatusCode, resp.Header
	c.budget = maxBodyWire
	whole, err := a.readBody(resp.Body)
	c.clean = whole && !resp.Close && resp.ProtoMinor > 0 && resp.StatusCode != http.StatusSwitchingProtocols && c.r.Buffered() == 0
	return err
}

// silent reports whether a kept connection is open and has nothing to read.
func (c *conn) silent() bool {
	if c.tls != nil {
		// What TLS has read ahead comes although the deadline is over; this reads nothing from the socket.
		c.raw.SetReadDeadline(past)
		if !silence(c.tls) {
			return false
		}
	}
	if c.probe != nil {
		return c.probe.silent()
	}
	if time.Since(c.since) < unprobed {
		return true
	}
	c.raw.SetReadDeadline(time.Now().Add(time.Millisecond))
	return silence(c.raw)
}

// unprobed is how long a connection is taken to be silent where the system cannot be asked without waiting.
const unprobed = 10 * time.Millisecond

// silence reads until the deadline, which must be all that it finds.
func silence(r io.Reader) bool {
	var b [1]byte
	n, err := r.Read(b[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}
