package rpc

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/gzip"

	"github.com/eventhose/eventhose/internal/overload"
)

const (
	// arriveTime is how long a call's only, or first, message may take to arrive.
	arriveTime = 30 * time.Second
	// goodbyeTime is how long a stream has for its last words once the server stops.
	goodbyeTime = 3 * time.Second
	// maxWrite is how much is written under one deadline, so that a slow client is told from one that stands still.
	maxWrite = 32 << 10
	// renewTime is how old a deadline becomes before it is moved on: moving it is not free.
	renewTime = time.Second
)

// request is a body whose bytes are counted while they are held.
type request struct {
	io.ReadCloser
	share overload.Share // of what all hold; a stranger's until it is known who calls
	taken atomic.Int64
}

func (r *request) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if fault := r.hold(int64(n)); fault != nil {
		return 0, fault
	}
	return n, err
}

// hold counts n bytes more, or answers CodeUnavailable.
func (r *request) hold(n int64) error {
	if n > 0 && !r.share.Take(n) {
		return connect.NewError(connect.CodeUnavailable, busy("too many messages are under way"))
	}
	r.taken.Add(n)
	return nil
}

// atLeast counts a message's size, if its bytes were fewer because they were compressed.
func (r *request) atLeast(size int) error { return r.hold(max(0, int64(size)-r.taken.Load())) }

// release says that nothing is held any more of what was read.
func (r *request) release() { r.share.Give(r.taken.Swap(0)) }

// response writes with a deadline that moves on as the client reads, and bounds how long is waited for what it sends.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	written atomic.Int64

	mu sync.Mutex
	// moved is when the deadline was, hasty that it stays, over that the call has ended: nothing may be touched any more.
	moved       time.Time
	hasty, over bool
}

// renew gives what is written next its time, and wait before it.
func (w *response) renew(wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.hasty || w.over || wait == 0 && now.Sub(w.moved) < min(renewTime, w.stall/8) {
		return
	}
	w.moved = now.Add(wait)
	_ = w.control.SetWriteDeadline(now.Add(wait + w.stall)) // a writer without deadlines is a test's
}

// hurry leaves little time for what is being written, and for all that comes.
func (w *response) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hasty && !w.over {
		w.hasty = true
		_ = w.control.SetWriteDeadline(time.Now().Add(min(w.stall, goodbyeTime)))
	}
}

// expect gives the client's next message its time; 0 is for ever.
func (w *response) expect(wait time.Duration) {
	var at time.Time
	if wait > 0 {
		at = time.Now().Add(wait)
	}
	w.readUntil(at)
}

// hangUp ends reading what the client sends.
func (w *response) hangUp() { w.readUntil(time.Unix(1, 0)) }

func (w *response) readUntil(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		_ = w.control.SetReadDeadline(at)
	}
}

// done is called when the call has ended: the writer is no more.
func (w *response) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

func (w *response) Write(b []byte) (n int, err error) {
	for more := true; more; more = len(b) > 0 {
		w.renew(0)
		part, err := w.ResponseWriter.Write(b[:min(len(b), maxWrite)])
		n, b = n+part, b[part:]
		w.written.Add(int64(part))
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Flush implements http.Flusher. What goes wrong the next write tells.
func (w *response) Flush() { _ = w.control.Flush() }

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// unpacker gunzips no more than a message may have. The reader is not embedded: its WriteTo would pass by the bound.
type unpacker struct {
	zipped gzip.Reader
	left   int
}

func newUnpacker() connect.Decompressor { return &unpacker{} }

// Reset implements connect.Decompressor.
func (u *unpacker) Reset(r io.Reader) error {
	u.left = maxMessage + 1
	return u.zipped.Reset(r)
}

// Read implements connect.Decompressor.
func (u *unpacker) Read(b []byte) (int, error) {
	if u.left == 0 {
		return 0, errUnpacked
	}
	n, err := u.zipped.Read(b[:min(len(b), u.left)])
	u.left -= n
	return n, err
}

// Close implements connect.Decompressor.
func (u *unpacker) Close() error { return u.zipped.Close() }

// errUnpacked ends the library's reading on, to tell how large a message would be that is too large.
var errUnpacked = errors.New("no more of it is unpacked")

// newPacker compresses for clients that ask for it, quickly rather than well: pages come one after the other.
func newPacker() connect.Compressor {
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil { // it refuses impossible levels, which this is not
		return gzip.NewWriter(io.Discard)
	}
	return w
}
