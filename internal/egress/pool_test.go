package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A place has at most its number of connections; who comes later waits until one is free, at most until its deadline.
func TestConnectionsPerHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open, most atomic.Int64
		release := make(chan struct{})
		p := piped(t, func(c net.Conn) {
			most.Store(max(most.Load(), open.Add(1)))
			defer open.Add(-1)
			for r := bufio.NewReader(c); request(r) == nil; {
				<-release
				io.WriteString(c, good)
			}
		})
		c := client(t, p, ClientOptions{})
		const waiting = 50
		to := target(t, "POST", "http://192.0.2.1/")
		var wg sync.WaitGroup
		for range maxConnsPerHost + waiting {
			wg.Go(func() {
				a := new(Answer)
				if err := c.Do(t.Context(), &Request{Target: to, Timeout: time.Minute}, a); err != nil || a.Status != 200 {
					t.Errorf("%d, %v", a.Status, err)
				}
			})
		}
		synctest.Wait()
		if n := open.Load(); n != maxConnsPerHost {
			t.Errorf("%d are open", n)
		}
		a, started := new(Answer), time.Now()
		if err := c.Do(t.Context(), &Request{Target: to, Timeout: time.Second}, a); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(started) != time.Second || a.Stage != StageStart {
			t.Errorf("%v after %s while %s", err, time.Since(started), a.Stage)
		}
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if err := c.Do(ctx, &Request{Target: to, Timeout: time.Hour}, new(Answer)); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		// Another place has its own.
		a = new(Answer)
		wg.Go(func() {
			if err := c.Do(t.Context(), &Request{Target: target(t, "POST", "http://192.0.2.1:81/"), Timeout: time.Minute}, a); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if n := open.Load(); n != maxConnsPerHost+1 {
			t.Errorf("%d are open", n)
		}
		close(release)
		wg.Wait()
		if n := p.Stats().Connects; n != maxConnsPerHost+1 {
			t.Errorf("%d connects", n)
		}
		if h := c.pool.hosts[to.place]; h.conns != maxConnsPerHost || len(h.idle) != maxConnsPerHost || len(h.waiting) != 0 {
			t.Errorf("%d connections, %d idle, %d wait", h.conns, len(h.idle), len(h.waiting))
		}
	})
}

// With more exchanges at once than a place has connections by default, none waits if it may have as many.
func TestMoreConnectionsPerHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		release := make(chan struct{})
		p := piped(t, func(c net.Conn) {
			open.Add(1)
			request(bufio.NewReader(c))
			<-release
			io.WriteString(c, good)
		})
		const many = maxConnsPerHost + 500
		c := client(t, p, ClientOptions{MaxConnsPerHost: many})
		var wg sync.WaitGroup
		for range many {
			wg.Go(func() {
				if err := c.Do(t.Context(), &Request{Target: target(t, "POST", "http://192.0.2.1/"), Timeout: time.Minute}, new(Answer)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := open.Load(); n != many {
			t.Errorf("%d are open", n)
		}
		close(release)
		wg.Wait()
	})
}

// Who waits gets the place of a connection that broke.
func TestBrokenConnectionsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := piped(t, func(c net.Conn) {
			request(bufio.NewReader(c))
			<-release
		})
		c := client(t, p, ClientOptions{})
		var wg sync.WaitGroup
		for range 3 * maxConnsPerHost {
			wg.Go(func() {
				if err := c.Do(t.Context(), &Request{Target: target(t, "POST", "http://192.0.2.1/"), Timeout: time.Minute}, new(Answer)); !errors.Is(err, io.EOF) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		if n := p.Stats().Connects; n != 3*maxConnsPerHost || len(c.pool.hosts) != 0 {
			t.Errorf("%d connects, %d places", n, len(c.pool.hosts))
		}
	})
}

// Idle connections are closed when they are old, the one used last is used next, and beyond the limit the oldest goes.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		p := piped(t, func(c net.Conn) {
			open.Add(1)
			defer open.Add(-1)
			answering(c)
		})
		c := client(t, p, ClientOptions{})
		do := func(n int, port int) {
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					if a, err := post(t, c, fmt.Sprintf("http://192.0.2.1:%d/", port), nil); err != nil || a.Status != 200 {
						t.Errorf("%d, %v", a.Status, err)
					}
				})
			}
			wg.Wait()
			synctest.Wait()
		}
		expect := func(want int64, when string) {
			t.Helper()
			synctest.Wait()
			c.pool.mu.Lock() // it expires what is old at the very time at which the test goes on
			kept := int64(c.pool.idle)
			c.pool.mu.Unlock()
			if n := open.Load(); n != want || kept != want {
				t.Errorf("%s: %d are open and %d kept, want %d", when, n, kept, want)
			}
		}
		held := func(n int) (conns []*conn) {
			for range n {
				cn, err := c.pool.take(t.Context(), place{false, "192.0.2.1:80"}, time.Now().Add(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, cn)
			}
			return conns
		}
		do(1, 80)
		one := held(1)
		do(1, 80)
		c.pool.put(one[0])
		expect(2, "two exchanges at once")
		<-time.After(idleTimeout / 2)
		do(1, 80) // with the one that was put back last
		if again := held(1); again[0] != one[0] {
			t.Error("not the one that was used last")
		} else {
			c.pool.put(again[0])
		}
		<-time.After(idleTimeout / 2)
		expect(1, "after the time of the first")
		<-time.After(idleTimeout / 2)
		expect(0, "after the time of both")
		if len(c.pool.hosts) != 0 || c.pool.expiring {
			t.Error("something is left")
		}
		for port := range maxIdleConns + 10 {
			do(1, 1000+port)
		}
		expect(maxIdleConns, "beyond the limit")
		before := p.Stats().Connects
		do(1, 1000+maxIdleConns+9)
		if n := p.Stats().Connects; n != before {
			t.Error("the newest is gone")
		}
		do(1, 1000)
		if n := p.Stats().Connects; n != before+1 {
			t.Error("the oldest is still there")
		}
		c.Close()
		expect(0, "after Close")
	})
}

// Close ends what is kept and waits for it; what is under way goes on, and is not kept.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var open atomic.Int64
		p := piped(t, func(c net.Conn) {
			open.Add(1)
			defer open.Add(-1)
			for r := bufio.NewReader(c); request(r) == nil; {
				<-release
				io.WriteString(c, good)
			}
		})
		c := client(t, p, ClientOptions{})
		done := make(chan error)
		go func() {
			_, err := post(t, c, "http://192.0.2.1/", nil)
			done <- err
		}()
		synctest.Wait()
		c.Close()
		if _, err := post(t, c, "http://192.0.2.1/", nil); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := open.Load(); n != 0 || len(c.pool.hosts) != 0 || c.pool.expiring {
			t.Errorf("%d are open, %d places", n, len(c.pool.hosts))
		}
		c.Close() // again does nothing
	})
}

// Connections are not shared between http and https, nor between ports and names, and many at once do not mix up answers.
func TestAnswersGoToTheirRequests(t *testing.T) {
	server, options := certified(t)
	echo := func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			body, err := bodyOf(r)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	}
	c := client(t, local(), options)
	var wg sync.WaitGroup
	for _, to := range []string{served(t, nil, echo), served(t, server, echo), served(t, nil, echo)} {
		for i := range 16 {
			wg.Go(func() {
				a, prepared := new(Answer), target(t, "POST", to)
				for j := range 50 {
					body := fmt.Sprint(to, i, j)
					if err := c.Do(t.Context(), &Request{Target: prepared, Body: []byte(body), Timeout: time.Minute}, a); err != nil || string(a.Body) != body {
						t.Errorf("%q for %q, %v", a.Body, body, err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// Names are sent and verified as they are in the URL, and sessions are resumed.
func TestServerName(t *testing.T) {
	config, options := certified(t)
	var (
		mu      sync.Mutex
		asked   []string
		resumed []bool
	)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, hello.ServerName)
		return nil, nil
	}
	to := served(t, config, func(c net.Conn) {
		if request(bufio.NewReader(c)) == nil {
			mu.Lock()
			resumed = append(resumed, c.(*tls.Conn).ConnectionState().DidResume)
			mu.Unlock()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	})
	_, port, _ := net.SplitHostPort(to[len("https://"):])
	p := New(Options{Allow: prefixes("127.0.0.1/32"), Resolver: names{"example.com": {{"127.0.0.1"}}, "other.test": {{"127.0.0.1"}}}})
	c := client(t, p, options)
	for range 2 {
		for _, host := range []string{"example.com", "127.0.0.1"} {
			if a, err := post(t, c, "https://"+host+":"+port, nil); err != nil || a.Status != 200 || a.TLS == 0 {
				t.Errorf("%s: %+v, %v", host, a, err)
			}
		}
	}
	_, err := post(t, c, "https://other.test:"+port, nil)
	var host *tls.CertificateVerificationError
	if !errors.As(err, &host) {
		t.Errorf("a certificate for another name: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := fmt.Sprint(asked, resumed); got != "[example.com  example.com  other.test] [false false true true]" {
		t.Errorf("names and resumed sessions: %s", got)
	}
}
