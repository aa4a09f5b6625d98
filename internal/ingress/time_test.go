package ingress_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose/internal/ingress"
)

// pipes is a listener whose connections are in memory, so that their time is a test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.IPAddr{} }

// piped serves one connection that is in memory. close ends the server.
func piped() (s *ingress.Server, conn net.Conn, close func()) {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	s = ingress.New(limited(http.HandlerFunc(tell)), isPlain, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	return s, l.dial(), func() {
		s.Close()
		<-served
	}
}

// What a client may take its time for, and what for how long.
func TestLimits(t *testing.T) {
	whole := request("/in/x", "body")
	for _, c := range []struct {
		name  string
		sends []string // a second apart
		ends  time.Duration
		count int // answers
	}{
		{"nothing comes", nil, 5 * time.Second, 0},
		{"half a head", []string{"POST /in"}, 5 * time.Second, 0},
		{"a head that goes on and on", []string{"POST /in/x HT", "TP/1.1\r\n", "Host: a\r\n", "X-A: 1\r\n", "X-B: 1\r\n", "X-C: 1\r\n", "X-D: 1\r\n"}, 5 * time.Second, 0},
		{"nothing after a request", []string{whole}, 2 * time.Minute, 1},
		{"half a head after a request", []string{whole, "POST"}, 6 * time.Second, 1},
		{"line breaks after a request", []string{whole, "\r\n"}, 6 * time.Second, 1},
		{"nothing after two", []string{whole, whole}, 2*time.Minute + time.Second, 2},
		{"a body that its handler does not read, and that never comes", []string{strings.TrimSuffix(request("/in/none", "body"), "body")}, 30 * time.Second, 1},
		{"nothing after it came", []string{strings.TrimSuffix(request("/in/none", "body"), "body"), "body", whole}, 2*time.Minute + 2*time.Second, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conn, end := piped()
				defer end()
				began := time.Now()
				var sending sync.WaitGroup
				sending.Go(func() {
					for i, text := range c.sends {
						if i > 0 {
							<-time.After(time.Second)
						}
						if _, err := io.WriteString(conn, text); err != nil {
							return
						}
					}
				})
				count := 0
				for r := bufio.NewReader(conn); ; count++ {
					resp, err := http.ReadResponse(r, nil)
					if err != nil {
						break
					}
					_, _ = io.Copy(io.Discard, resp.Body)
				}
				// Deadlines are set anew when they are short by a twelfth.
				if took := time.Since(began); took > c.ends || took < c.ends*11/12 || count != c.count {
					t.Errorf("ends after %v with %d answers, want %v and %d", took, count, c.ends, c.count)
				}
				conn.Close()
				sending.Wait()
			})
		})
	}
}

// A client that takes no answer is waited for as long as an answer may take.
func TestAnswerNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conn, end := piped()
		defer end()
		if _, err := io.WriteString(conn, request("/in/x", "body")); err != nil {
			t.Fatal(err)
		}
		<-time.After(2*time.Minute + time.Second)
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection after that: %v", err)
		}
	})
}

// A client that was answered and does not send the rest of its body holds up no shutdown.
func TestShutdownDoesNotWaitForBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, conn, end := piped()
		defer end()
		if _, err := io.WriteString(conn, strings.TrimSuffix(request("/in/none", "body"), "body")); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		synctest.Wait()
		began := time.Now()
		if err := s.Shutdown(t.Context()); err != nil || time.Since(began) > time.Second {
			t.Errorf("Shutdown took %v: %v", time.Since(began), err)
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("the connection after that: %v", err)
		}
	})
}
