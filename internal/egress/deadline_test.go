package egress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a policy, in a bubble, whose connections are pipes, which f serves: nothing in them is buffered, and their
// deadlines are those of the bubble's clock.
func piped(t *testing.T, f func(net.Conn)) *Policy {
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	p := New(Options{Allow: prefixes("192.0.2.0/24")})
	p.raw = func(ctx context.Context, control controlFunc, a netip.AddrPort) (net.Conn, error) {
		if err := control(ctx, "tcp4", a.String(), nil); err != nil {
			return nil, err
		}
		ours, theirs := net.Pipe()
		serving.Go(func() {
			defer theirs.Close()
			f(theirs)
		})
		return ours, nil
	}
	return p
}

// answering answers every request on a connection.
func answering(c net.Conn) {
	for r := bufio.NewReader(c); request(r) == nil; {
		io.WriteString(c, good)
	}
}

// Each part of an exchange ends at its own limit or at the whole's, whichever is first, and says how far it came.
func TestDeadlines(t *testing.T) {
	silent := func(c net.Conn) { io.Copy(io.Discard, c) }
	deaf := func(c net.Conn) { c.Read(make([]byte, 1)); <-time.After(time.Hour) }
	drip := func(first string) func(net.Conn) {
		return func(c net.Conn) {
			if request(bufio.NewReader(c)) != nil {
				return
			}
			for _, err := io.WriteString(c, first); err == nil; <-time.After(time.Second) {
				_, err = c.Write([]byte("a"))
			}
		}
	}
	for _, c := range []struct {
		name    string
		to      string
		serve   func(net.Conn)
		size    int
		timeout time.Duration
		took    time.Duration
		stage   Stage
		status  int
	}{
		{"dripping head", "http://192.0.2.1/", drip("HTTP/1.1 200 OK\r\nX: "), 2, 30 * time.Second, 30 * time.Second, StageRead, 0},
		{"dripping body", "http://192.0.2.1/", drip("HTTP/1.1 200 OK\r\n\r\n"), 2, 30 * time.Second, 30 * time.Second, StageRead, 200},
		{"dripping 1xx", "http://192.0.2.1/", drip("HTTP/1.1 100 Continue\r\n\r\n"), 2, 20 * time.Second, 20 * time.Second, StageRead, 0},
		{"silence", "http://192.0.2.1/", silent, 2, 15 * time.Second, 15 * time.Second, StageWait, 0},
		{"deaf", "http://192.0.2.1/", deaf, 2, 15 * time.Second, 15 * time.Second, StageSend, 0},
		{"deaf to a long request", "http://192.0.2.1/", deaf, maxOneWrite + 1, 15 * time.Second, 15 * time.Second, StageSend, 0},
		{"handshake", "https://192.0.2.1/", silent, 2, 15 * time.Second, tlsTimeout, StageTLS, 0},
		{"handshake, short", "https://192.0.2.1/", silent, 2, 3 * time.Second, 3 * time.Second, StageTLS, 0},
		{"connect", "http://192.0.2.1/", nil, 2, 15 * time.Second, dialTimeout, StageConnect, 0},
		{"connect, short", "http://192.0.2.1/", nil, 2, 3 * time.Second, 3 * time.Second, StageConnect, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := piped(t, c.serve)
				if c.serve == nil {
					p.raw = func(ctx context.Context, _ controlFunc, _ netip.AddrPort) (net.Conn, error) {
						<-ctx.Done()
						return nil, os.ErrDeadlineExceeded
					}
				}
				a, started := new(Answer), time.Now()
				cl := client(t, p, ClientOptions{})
				err := cl.Do(t.Context(), &Request{Target: target(t, "POST", c.to), Body: make([]byte, c.size), Timeout: c.timeout}, a)
				if took := time.Since(started); !errors.Is(err, os.ErrDeadlineExceeded) || took != c.took || a.Stage != c.stage || a.Status != c.status {
					t.Errorf("%v after %s while %s, status %d", err, took, a.Stage, a.Status)
				}
				if cl.pool.idle != 0 || len(cl.pool.hosts) != 0 {
					t.Error("it is kept")
				}
			})
		})
	}
}

// The end of the context cuts an exchange in every stage, long before its deadline.
func TestCancel(t *testing.T) {
	silent := func(c net.Conn) { io.Copy(io.Discard, c) }
	for name, c := range map[string]struct {
		to    string
		serve func(net.Conn)
		size  int
		stage Stage
	}{
		"waiting":          {"http://192.0.2.1/", silent, 2, StageWait},
		"sending":          {"http://192.0.2.1/", func(net.Conn) { <-time.After(2 * time.Hour) }, 2, StageSend},
		"sending, long":    {"http://192.0.2.1/", func(net.Conn) { <-time.After(2 * time.Hour) }, maxOneWrite + 1, StageSend},
		"shaking hands":    {"https://192.0.2.1/", silent, 2, StageTLS},
		"connecting":       {"http://192.0.2.1/", nil, 2, StageConnect},
		"reading the head": {"http://192.0.2.1/", func(c net.Conn) { request(bufio.NewReader(c)); io.WriteString(c, "HTTP/1.1 2"); silent(c) }, 2, StageRead},
		"reading the body": {"http://192.0.2.1/", func(c net.Conn) {
			request(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nabc")
			silent(c)
		}, 2, StageRead},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := piped(t, c.serve)
				if c.serve == nil {
					p.raw = func(ctx context.Context, _ controlFunc, _ netip.AddrPort) (net.Conn, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					synctest.Wait() // until the exchange waits
					cancel()
				}()
				a, started := new(Answer), time.Now()
				cl := client(t, p, ClientOptions{})
				err := cl.Do(ctx, &Request{Target: target(t, "POST", c.to), Body: make([]byte, c.size), Timeout: time.Hour}, a)
				if err == nil || time.Since(started) != 0 || a.Stage != c.stage {
					t.Errorf("%v after %s while %s", err, time.Since(started), a.Stage)
				}
				if err := cl.Do(ctx, &Request{Target: target(t, "POST", c.to), Timeout: time.Hour}, a); !errors.Is(err, context.Canceled) {
					t.Errorf("a context that has ended: %v", err)
				}
				if cl.pool.idle != 0 || len(cl.pool.hosts) != 0 {
					t.Error("it is kept")
				}
			})
		})
	}
}

// The same over a real socket.
func TestCancelOverTCP(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	to := served(t, nil, func(c net.Conn) {
		request(bufio.NewReader(c))
		cancel()
		io.Copy(io.Discard, c)
	})
	c := client(t, local(), ClientOptions{})
	if err := c.Do(ctx, &Request{Target: target(t, "POST", to), Timeout: time.Hour}, new(Answer)); err == nil { // it would take an hour
		t.Error("no error")
	}
}
