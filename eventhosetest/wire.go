package eventhosetest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// serverName is the server's in a bubble.
const serverName = "eventhose.test"

// wire is a network in memory, with names: what listens on it has an address of its own in 127.0.0.0/8, which no socket has.
// Addresses that it does not know are this machine's loopback, for receivers outside the bubble; nothing further is reached.
type wire struct {
	mu    sync.Mutex
	ports map[netip.Addr]*port
	names map[string]netip.Addr
}

func newWire() *wire { return &wire{ports: map[netip.Addr]*port{}, names: map[string]netip.Addr{}} }

// port is where something listens, on port 80.
type port struct {
	address netip.AddrPort
	calls   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (w *wire) listen(name string) *port {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.ports) + 1
	addr := netip.AddrFrom4([4]byte{127, 254, byte(n >> 8), byte(n)})
	p := &port{address: netip.AddrPortFrom(addr, 80), calls: make(chan net.Conn), closed: make(chan struct{})}
	w.ports[addr], w.names[name] = p, addr
	return p
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *port) Addr() net.Addr { return net.TCPAddrFromAddrPort(p.address) }

// LookupNetIP knows the wire's names and no others.
func (w *wire) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if addr, ok := w.names[host]; ok {
		return []netip.Addr{addr}, nil
	}
	return nil, &net.DNSError{Err: "no such host in this test", Name: host, IsNotFound: true}
}

// connect connects to an address of the wire, or of this machine.
func (w *wire) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	p := w.ports[to.Addr()]
	w.mu.Unlock()
	if p == nil {
		if !to.Addr().IsLoopback() {
			return nil, fmt.Errorf("eventhosetest: %v is not on this machine, and a test does not leave it", to)
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", to.String())
	}
	here, there := net.Pipe()
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 254, 0, 0}), 1))
	select {
	case p.calls <- &end{there, p.Addr(), from}:
		return &end{here, from, p.Addr()}, nil
	case <-p.closed:
		return nil, fmt.Errorf("eventhosetest: nobody listens on %v any more", to)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// DialContext is connect to a name.
func (w *wire) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addrs, err := w.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, err
		}
		addr = addrs[0]
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return nil, err
	}
	return w.connect(ctx, netip.AddrPortFrom(addr, uint16(port)))
}

// end is one end of a connection.
type end struct {
	net.Conn
	local, remote net.Addr
}

func (e *end) LocalAddr() net.Addr  { return e.local }
func (e *end) RemoteAddr() net.Addr { return e.remote }
