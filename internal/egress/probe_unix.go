//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package egress

import (
	"errors"
	"net"
	"syscall"
)

// probe looks whether a socket has something to read, without reading it and without waiting.
type probe struct {
	socket syscall.RawConn
	look   func(fd uintptr)
	found  error
	b      [1]byte
}

// newProbe answers nil for what is no socket.
func newProbe(c net.Conn) *probe {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	socket, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	p := &probe{socket: socket}
	p.look = func(fd uintptr) {
		for {
			_, _, p.found = syscall.Recvfrom(int(fd), p.b[:], syscall.MSG_PEEK) // Go's sockets do not block
			if !errors.Is(p.found, syscall.EINTR) {
				return
			}
		}
	}
	return p
}

// silent reports whether the connection is open and nothing is there to be read.
func (p *probe) silent() bool {
	p.found = nil
	err := p.socket.Control(p.look) // and not Read, which minds the deadline of the last exchange
	return err == nil && (errors.Is(p.found, syscall.EAGAIN) || errors.Is(p.found, syscall.EWOULDBLOCK))
}
