package stall_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose/internal/stall"
)

// wire is a response whose connection can be taken over.
type wire struct {
	http.ResponseWriter
	net.Conn
}

func (w wire) Write(b []byte) (int, error)        { return w.Conn.Write(b) }
func (w wire) SetReadDeadline(t time.Time) error  { return w.Conn.SetReadDeadline(t) }
func (w wire) SetWriteDeadline(t time.Time) error { return w.Conn.SetWriteDeadline(t) }
func (w wire) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.Conn, bufio.NewReadWriter(bufio.NewReader(w.Conn), bufio.NewWriter(w.Conn)), nil
}

// A reader that is slow gets a long message whole, however long that takes; one that stands still is left, and seen to stand still.
func TestSlowIsNotStill(t *testing.T) {
	const limit, size, sip = 10 * time.Second, 1 << 20, 16 << 10
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		h := &stall.Hijacker{ResponseWriter: wire{httptest.NewRecorder(), ours}, Limit: limit}
		if _, _, err := h.Hijack(); err != nil {
			t.Fatal(err)
		}
		defer h.Conn.Close()
		began := time.Now()
		var reader sync.WaitGroup
		reader.Go(func() {
			for range size / sip {
				time.Sleep(limit / 4) // sleep: needed, because the reader is slow in the test's own time
				if _, err := io.ReadFull(theirs, make([]byte, sip)); err != nil {
					return // it was left
				}
			}
		})
		if n, err := h.Conn.Write(make([]byte, size)); n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
			ours.Close()
		}
		reader.Wait()
		if d := time.Since(began); d < 10*limit {
			t.Errorf("it took %v: the reader was not slow", d)
		}
		if h.Conn.Sent() != size || h.Conn.Stuck() {
			t.Errorf("%d bytes were sent, stuck %v", h.Conn.Sent(), h.Conn.Stuck())
		}
		began = time.Now()
		still := make(chan error)
		go func() {
			_, err := h.Conn.Write(make([]byte, size))
			still <- err
		}()
		time.Sleep(limit / 2) // sleep: needed, because it is seen in the test's own time that nothing moves
		if !h.Conn.Stuck() {
			t.Error("a write that stands still does not count as stuck")
		}
		if err := <-still; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != limit {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
