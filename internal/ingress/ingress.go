// Package ingress takes HTTP connections. What producers send all day, plain POSTs with a body, it reads and answers itself;
// every connection on which anything else comes is net/http's from then on.
//
// It is there because net/http spends on such a request a third of what it costs in all: a goroutine that listens whether the
// client has left, contexts, deadlines, buffers for answers that go on. docs/performance.md has what is saved.
//
// It cannot be talked into reading a request otherwise than net/http would, since it reads only what leaves no choice
// (plain.go), and gives the connection away, with all that has come, before it has answered or taken anything of another.
package ingress

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server serves HTTP/1.1 and HTTP/2 without TLS on one listener.
type Server struct {
	rest   *http.Server
	plain  func(path string) bool
	logger *slog.Logger
	given  *given
	limit  limits

	mu      sync.Mutex
	conns   map[*conn]struct{}
	closing bool
	serving sync.WaitGroup // connections
	base    context.Context
	end     context.CancelFunc
}

// limits are how long a client may take.
type limits struct {
	head  time.Duration // for a request's head, once it has begun
	idle  time.Duration // between two requests
	body  time.Duration // for what a handler leaves of a body
	write time.Duration // to take an answer
}

// New makes a server. rest says what a server does and what its limits are: its handler answers all requests, and it serves the
// connections on which something comes that is no plain POST to a path that plain accepts. Its time-outs for heads, answers and
// between requests must be set. For plain requests the handler must neither flush nor take the connection over, and is not told
// that its client has left. What panics is told to logger.
func New(rest *http.Server, plain func(path string) bool, logger *slog.Logger) *Server {
	s := &Server{
		rest: rest, plain: plain, logger: logger, conns: map[*conn]struct{}{},
		limit: limits{head: rest.ReadHeaderTimeout, idle: rest.IdleTimeout, body: 30 * time.Second, write: rest.WriteTimeout},
	}
	s.base, s.end = context.WithCancel(context.Background())
	return s
}

// Serve accepts connections until Shutdown or Close, and then answers http.ErrServerClosed. It is called once.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return http.ErrServerClosed
	}
	s.given = &given{address: l.Addr(), conns: make(chan net.Conn), closed: make(chan struct{}), listener: l}
	s.mu.Unlock()
	failed := make(chan error, 1)
	var accepting sync.WaitGroup
	accepting.Go(func() { failed <- s.accept(l) })
	err := s.rest.Serve(s.given) // until it is shut down, which closes both listeners
	s.given.end()
	accepting.Wait()
	if s.stopping() {
		return http.ErrServerClosed
	}
	return errors.Join(err, <-failed)
}

// accept takes connections until the listener is closed. What fails for a while, such as that no file is left, is tried again,
// as net/http does.
func (s *Server) accept(l net.Listener) error {
	defer s.given.end()
	const longest = time.Second
	wait := time.Duration(0)
	for {
		nc, err := l.Accept()
		var passing interface{ Temporary() bool }
		switch {
		case err == nil:
			wait = 0
			s.take(nc)
			continue
		case !errors.As(err, &passing) || !passing.Temporary():
			return err
		}
		wait = min(max(2*wait, 5*time.Millisecond), longest)
		select {
		case <-time.After(wait):
		case <-s.given.closed:
			return err
		}
	}
}

// take serves a connection in a goroutine of its own.
func (s *Server) take(nc net.Conn) {
	c := &conn{server: s, Conn: nc}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.serving.Go(func() {
		kept := c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		if !kept || !s.given.give(c.given()) {
			nc.Close()
		}
	})
}

// stop takes no more connections, and tells those that are there. kill closes them.
func (s *Server) stop(kill bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	if s.given != nil {
		s.given.end()
	}
	for c := range s.conns {
		if kill {
			c.Conn.Close()
		} else {
			c.leave()
		}
	}
}

// Shutdown takes no more requests and waits until those that are under way are answered, or ctx ends: then it answers its error, and Close
// is to be called.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop(false)
	err := s.rest.Shutdown(ctx)
	served := make(chan struct{})
	go func() { s.serving.Wait(); close(served) }() // ends at the latest after Close, which ends all connections
	select {
	case <-served:
		s.end()
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// Close closes all connections and waits until their handlers have ended.
func (s *Server) Close() {
	s.stop(true)
	s.end()
	s.rest.Close()
	s.serving.Wait()
}

// stopping reports whether Shutdown or Close was called.
func (s *Server) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// given is the listener from which net/http accepts what this package gives it.
type given struct {
	address  net.Addr
	conns    chan net.Conn
	listener net.Listener
	once     sync.Once
	closed   chan struct{}
}

// give hands a connection over. It answers false if nobody takes any more.
func (g *given) give(c net.Conn) bool {
	select {
	case g.conns <- c:
		return true
	case <-g.closed:
		return false
	}
}

// Accept implements net.Listener.
func (g *given) Accept() (net.Conn, error) {
	select {
	case c := <-g.conns:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *given) Close() error {
	g.end()
	return nil
}

// end ends it, and the listener that it stands for.
func (g *given) end() {
	g.once.Do(func() {
		close(g.closed)
		g.listener.Close()
	})
}

// Addr implements net.Listener.
func (g *given) Addr() net.Addr { return g.address }
