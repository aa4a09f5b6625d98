// Package egress is the only way out of this process: one guarded dialer, and what speaks HTTP over it.
//
// A tenant chooses where we connect to, so every connection is an attempt to make us reach what only we can reach: a
// cloud's metadata service, a database beside us, our own API. What a URL looks like proves nothing (names, redirects
// and rebinding DNS say one thing when they are checked and another when they are used), so the decision is made where
// it cannot be talked around: in the dialer's control function, on the address that the socket is about to connect to.
// All earlier checks exist to answer a user sooner and in better words.
//
// Everything in this package may be used concurrently.
package egress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrBlocked: the address, or one that the name resolves to, is not one that the operator allows. Its text is all that
// a tenant may learn.
var ErrBlocked = errors.New("address not allowed")

const (
	// dialTimeout bounds resolving a name and connecting to it.
	dialTimeout = 5 * time.Second
	// maxTried is how many addresses of a name are tried: a name must not make one request a scan.
	maxTried = 8
)

// Resolver looks up the addresses of a name; *net.Resolver is one. network is "ip".
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options make a Policy. The zero value allows the public internet and nothing else.
type Options struct {
	// Allow are the networks that may be reached beside the public internet, over http as well, also if they hold this
	// machine's own addresses. Only an operator may set it.
	Allow []netip.Prefix
	// Resolver is Go's own resolver if nil. The C library's is never used: it takes "0177.1" for an address.
	Resolver Resolver
	// Within are names of what runs in this process, in lower case, and how to connect to it. Plain http to port 80 of one is
	// given such a connection; nothing else of it is reached, and no DNS is asked for it.
	Within map[string]func(ctx context.Context) (net.Conn, error)
	// Connect connects to an address that the policy has let pass, in place of the system's TCP.
	Connect func(ctx context.Context, address netip.AddrPort) (net.Conn, error)
}

// Policy says which addresses may be connected to, and connects to them.
type Policy struct {
	allow    []netip.Prefix
	resolver Resolver
	within   map[string]func(ctx context.Context) (net.Conn, error)
	own      ownAddresses
	refused  atomic.Pointer[[]netip.AddrPort] // grows by RefuseListener
	refusing sync.Mutex

	connects, blocked atomic.Uint64

	// raw connects to an address that is given as such, through the control function it is given.
	raw func(ctx context.Context, control controlFunc, address netip.AddrPort) (net.Conn, error)
}

type controlFunc = func(ctx context.Context, network, address string, _ syscall.RawConn) error

// New makes a Policy.
func New(o Options) *Policy {
	p := &Policy{resolver: o.Resolver, within: maps.Clone(o.Within), raw: connect}
	for _, prefix := range o.Allow {
		p.allow = append(p.allow, unmapPrefix(prefix).Masked())
	}
	if o.Connect != nil {
		p.raw = func(ctx context.Context, control controlFunc, a netip.AddrPort) (net.Conn, error) {
			network := "tcp6"
			if a.Addr().Is4() {
				network = "tcp4"
			}
			if err := control(ctx, network, a.String(), nil); err != nil {
				return nil, err
			}
			return o.Connect(ctx, a)
		}
	}
	if p.resolver == nil {
		p.resolver = &net.Resolver{PreferGo: true}
	}
	return p
}

// unmapPrefix writes a prefix of IPv4-mapped addresses as the IPv4 prefix it stands for.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// Stats are counts since the policy was made.
type Stats struct {
	// Connects are the connections that the guard let pass, Blocked those that it refused: names before they were
	// dialled, and addresses at connect.
	Connects, Blocked uint64
}

// Stats answers the counts so far.
func (p *Policy) Stats() Stats {
	return Stats{Connects: p.connects.Load(), Blocked: p.blocked.Load()}
}

// RefuseListener refuses connections to an address that this process listens on, even where Options.Allow holds it, so
// that a tenant cannot send our own requests back to us. An unspecified address stands for the port on each address of
// this machine, and is one of them: who connects to it comes to the loopback.
func (p *Policy) RefuseListener(a netip.AddrPort) {
	p.refusing.Lock()
	defer p.refusing.Unlock()
	var all []netip.AddrPort
	if old := p.refused.Load(); old != nil {
		all = append(all, *old...)
	}
	all = append(all, netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()))
	p.refused.Store(&all)
}

// Check answers nil if an address may be connected to and else ErrBlocked. Port 0 stands for any port.
func (p *Policy) Check(a netip.AddrPort) error { return p.check(a, false) }

// check decides for one address. listed demands that the operator has listed it, as plain http does.
func (p *Policy) check(a netip.AddrPort, listed bool) error {
	addr := a.Addr().Unmap().WithZone("")
	end := behindNAT64(addr)
	switch {
	case !addr.IsValid() || p.listener(end, a.Port()):
		return ErrBlocked
	case p.Listed(addr):
		return nil
	case listed || !public(addr) || p.own.contains(end):
		return ErrBlocked
	}
	return nil
}

// Listed reports whether an address lies in one of the operator's networks.
func (p *Policy) Listed(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, prefix := range p.allow {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

func (p *Policy) listener(addr netip.Addr, port uint16) bool {
	refused := p.refused.Load()
	if refused == nil {
		return false
	}
	for _, r := range *refused {
		if r.Port() != port {
			continue
		}
		switch at := r.Addr(); {
		case at == addr, addr.IsUnspecified() && (at.IsLoopback() || at.IsUnspecified()):
			return true
		case at.IsUnspecified() && (addr.IsLoopback() || p.own.contains(addr)):
			return true
		}
	}
	return false
}

// Dialer connects to what its policy allows.
type Dialer struct {
	policy *Policy
	listed bool
}

// Dialer answers the policy's dialer, for protocols that protect what they send.
func (p *Policy) Dialer() *Dialer { return &Dialer{policy: p} }

// ListedDialer answers a dialer that reaches only the operator's own networks (Options.Allow), for plain text.
func (p *Policy) ListedDialer() *Dialer { return &Dialer{policy: p, listed: true} }

// DialContext connects to "host:port" over TCP within 5 s. All addresses of a name are looked up and vetted first: with
// any that is not allowed the whole name is refused, since which one is used must not be the name owner's choice. Then
// the first eight are tried in order. Errors wrap ErrBlocked, are *net.DNSError, or come from the connect.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var a Answer
	return d.dial(ctx, network, address, &a)
}

// dial is DialContext that notes in a how far it came, and how long that took.
func (d *Dialer) dial(ctx context.Context, network, address string, a *Answer) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, fmt.Errorf("egress: network %q: %w", network, ErrBlocked)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if name := nameOf(host); d.policy.within[name] != nil {
		return d.dialWithin(ctx, name, port, a)
	}
	addrs, err := d.policy.resolve(ctx, network, host, a)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		if err := d.policy.check(netip.AddrPortFrom(addr, uint16(port)), d.listed); err != nil {
			d.policy.blocked.Add(1)
			return nil, err
		}
	}
	a.Stage = StageConnect
	started := time.Now()
	defer func() { a.Connect = time.Since(started) }()
	return d.connectFirst(ctx, addrs[:min(len(addrs), maxTried)], uint16(port), a)
}

// dialWithin connects to what runs in this process.
func (d *Dialer) dialWithin(ctx context.Context, name string, port int, a *Answer) (net.Conn, error) {
	if port != withinPort || !d.listed {
		d.policy.blocked.Add(1)
		return nil, ErrBlocked
	}
	a.Stage = StageConnect
	a.Address = net.JoinHostPort(name, strconv.Itoa(port))
	started := time.Now()
	defer func() { a.Connect = time.Since(started) }()
	conn, err := d.policy.within[name](ctx)
	if err != nil {
		return nil, fmt.Errorf("egress: connect within the process: %w", err)
	}
	d.policy.connects.Add(1)
	return withinConn{conn, withinAddress(a.Address)}, nil
}

// withinPort is the one port that names within this process have.
const withinPort = 80

// withinConn is a connection to what runs in this process, under the name that it was asked for by.
type withinConn struct {
	net.Conn
	address withinAddress
}

func (c withinConn) RemoteAddr() net.Addr { return c.address }

type withinAddress string

func (withinAddress) Network() string  { return "pipe" }
func (a withinAddress) String() string { return string(a) }

// nameOf is a host in the one way in which names are compared.
func nameOf(host string) string { return strings.ToLower(strings.TrimRight(host, ".")) }

func (p *Policy) resolve(ctx context.Context, network, host string, a *Answer) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	name := nameOf(host)
	addrs := p.loopback()
	switch local := localhost(name); {
	case numeric(name), local && len(addrs) == 0:
		p.blocked.Add(1)
		return nil, ErrBlocked
	case !local:
		a.Stage = StageDNS
		started := time.Now()
		var err error
		addrs, err = p.resolver.LookupNetIP(ctx, "ip", host)
		a.DNS = time.Since(started)
		if err != nil {
			return nil, err
		}
	}
	var fit []netip.Addr
	for _, addr := range addrs {
		addr = addr.Unmap()
		if network == "tcp" || addr.Is4() == (network == "tcp4") {
			fit = append(fit, addr)
		}
	}
	if len(fit) == 0 {
		return nil, &net.DNSError{Err: "no suitable address", Name: host, IsNotFound: true}
	}
	return fit, nil
}

// connectFirst tries addresses in order, each with its share of the time that is left, as net.Dialer does.
func (d *Dialer) connectFirst(ctx context.Context, addrs []netip.Addr, port uint16, a *Answer) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	var first error
	for i, addr := range addrs {
		share := max(time.Until(deadline)/time.Duration(len(addrs)-i), min(2*time.Second, time.Until(deadline)))
		one, cancel := context.WithTimeout(ctx, share)
		to := netip.AddrPortFrom(addr, port)
		a.Address = to.String()
		conn, err := d.policy.raw(one, d.control, to)
		cancel()
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil || errors.Is(err, ErrBlocked) {
			break
		}
	}
	return nil, first
}

// control is the authority: it sees the very address that the socket connects to.
func (d *Dialer) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") || d.policy.check(a, d.listed) != nil {
		d.policy.blocked.Add(1)
		return ErrBlocked
	}
	d.policy.connects.Add(1)
	return nil
}

func connect(ctx context.Context, control controlFunc, a netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{ControlContext: control}
	return d.DialContext(ctx, "tcp", a.String())
}

// ownAddresses knows the addresses of this machine's interfaces, as they were at most ownAge ago.
type ownAddresses struct {
	mu    sync.Mutex
	read  time.Time
	addrs map[netip.Addr]bool
}

const ownAge = 10 * time.Second

func (o *ownAddresses) contains(addr netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.addrs == nil || time.Since(o.read) > ownAge {
		addrs, err := net.InterfaceAddrs()
		if err != nil && o.addrs == nil {
			return true // nothing is known of this machine: refuse
		}
		if err == nil {
			o.addrs = map[netip.Addr]bool{}
			for _, a := range addrs {
				if prefix, err := netip.ParsePrefix(a.String()); err == nil {
					o.addrs[prefix.Addr().Unmap().WithZone("")] = true
				}
			}
			o.read = time.Now()
		}
	}
	return o.addrs[addr]
}
