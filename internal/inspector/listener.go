package inspector

import (
	"context"
	"net"
	"sync"
)

// Listener is one within the process: what Dial answers one end of, Accept answers the other. It is safe for concurrent use.
type Listener struct {
	dialled chan net.Conn
	closed  chan struct{}
	close   func()
}

var _ net.Listener = (*Listener)(nil)

// NewListener makes a Listener. It holds nothing until something is dialled.
func NewListener() *Listener {
	closed := make(chan struct{})
	return &Listener{dialled: make(chan net.Conn), closed: closed, close: sync.OnceFunc(func() { close(closed) })}
}

// Dial connects, once Accept is called. The error is net.ErrClosed after Close, or ctx's.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.dialled <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener. The error is net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.dialled:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that are open stay so.
func (l *Listener) Close() error {
	l.close()
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return within{} }

// within is the address of what is in this process.
type within struct{}

func (within) Network() string { return "pipe" }
func (within) String() string  { return "in this process" }
