package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"code.dny.dev/ssrf"
	"pgregory.net/rapid"
)

// denied are addresses that no tenant may reach: one or more of each network, and the edges.
var denied = []string{
	"0.0.0.0", "0.255.255.255", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
	"127.0.0.1", "127.0.0.2", "127.255.255.255", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2",
	"172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1",
	"192.168.0.1", "192.168.255.255", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
	"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
	"::", "::1", "::7f00:1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::ffff:0:7f00:1",
	"::ffff:0:0", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b::10.0.0.1", "64:ff9b::a83f:8110", "64:ff9b:1::1",
	"64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:7f00:1::", "2001:1::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1",
	"2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "3fff:fff::1", "5f00::1",
	"4000::1", "6000::1", "8000::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1",
	"feff::1", "ff00::1", "ff02::1", "ff0e::1", "1::1", "0100::1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:10.0.0.1",
}

// public50 are addresses of well-known public services, and the neighbours of the networks that are denied.
var public50 = []string{
	"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "9.255.255.255", "11.0.0.0", "13.107.42.14", "17.253.144.10",
	"20.112.52.29", "23.185.0.2", "31.13.71.36", "34.117.59.81", "52.94.236.248", "54.187.174.169", "76.76.21.21", "93.184.216.34",
	"99.255.255.255", "100.63.255.255", "100.128.0.0", "104.16.132.229", "126.255.255.255", "128.0.0.1", "140.82.112.3",
	"151.101.1.69", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
	"185.199.108.153", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255",
	"198.20.0.0", "199.232.69.194", "208.67.222.222", "223.255.255.255",
	"2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe", "2a00:1450:4001:81b::200e", "2a03:2880:f12f:83:face:b00c:0:25de",
	"2600:1f18::1", "2001:200::1", "2400:cb00::1", "3ffe::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8",
}

func addr(t testing.TB, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// deaf is a policy whose own addresses are none and which cannot connect: raw only asks the guard.
func deaf(t testing.TB, allow ...string) (*Policy, *atomic.Int64) {
	t.Helper()
	p := New(Options{Allow: prefixes(allow...)})
	p.own.addrs, p.own.read = map[netip.Addr]bool{}, time.Now().Add(24*time.Hour)
	var passed atomic.Int64
	p.raw = func(ctx context.Context, control controlFunc, a netip.AddrPort) (net.Conn, error) {
		network := "tcp4"
		if a.Addr().Is6() {
			network = "tcp6"
		}
		if err := control(ctx, network, a.String(), nil); err != nil {
			return nil, err
		}
		passed.Add(1)
		return nil, errors.New("this test connects to nothing")
	}
	return p, &passed
}

func TestDeniedAddresses(t *testing.T) {
	p, passed := deaf(t)
	listed := p.ListedDialer()
	for _, s := range denied {
		a := addr(t, s)
		if p.Check(netip.AddrPortFrom(a, 443)) == nil {
			t.Errorf("%s is allowed", s)
		}
		for _, d := range []*Dialer{p.Dialer(), listed} {
			if _, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(s, "443")); !errors.Is(err, ErrBlocked) {
				t.Errorf("dial %s: %v", s, err)
			}
		}
	}
	for _, s := range public50 {
		if _, err := listed.DialContext(t.Context(), "tcp", net.JoinHostPort(s, "80")); !errors.Is(err, ErrBlocked) {
			t.Errorf("plain dial %s: %v", s, err)
		}
	}
	if n := passed.Load(); n != 0 {
		t.Errorf("%d connects passed the guard", n)
	}
	if s := p.Stats(); s.Connects != 0 || s.Blocked != uint64(2*len(denied)+len(public50)) {
		t.Errorf("%+v", s)
	}
}

func TestPublicAddresses(t *testing.T) {
	if len(public50) < 50 {
		t.Fatalf("only %d", len(public50))
	}
	p, passed := deaf(t)
	for _, s := range public50 {
		if err := p.Check(netip.AddrPortFrom(addr(t, s), 443)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		p.Dialer().DialContext(t.Context(), "tcp", net.JoinHostPort(s, "443"))
	}
	if passed.Load() != int64(len(public50)) || p.Stats().Connects != uint64(len(public50)) {
		t.Errorf("%d of %d passed, counted %d", passed.Load(), len(public50), p.Stats().Connects)
	}
}

// The third-party list denies nothing that we allow, over random addresses and over the edges of all its networks.
func TestLibraryAgrees(t *testing.T) {
	p, _ := deaf(t)
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV6Prefixes(ssrf.IPv6NAT64Prefix))
	agree := func(a netip.Addr) error {
		ours := p.Check(netip.AddrPortFrom(a, 443))
		if theirs := guard.SafeAddr(a.Unmap()); ours == nil && theirs != nil {
			return fmt.Errorf("%s: we allow it, they say %w", a, theirs)
		}
		return nil
	}
	for _, list := range [][]netip.Prefix{ssrf.IPv4DeniedPrefixes, ssrf.IPv6DeniedPrefixes, notPublic4, notPublic6} {
		for _, prefix := range list {
			last := lastOf(prefix)
			for _, a := range []netip.Addr{prefix.Addr(), prefix.Addr().Next(), last.Prev(), last} {
				if a.IsValid() && prefix.Contains(a) && !nat64.Contains(a) && p.Check(netip.AddrPortFrom(a, 443)) == nil {
					t.Errorf("%s of %s is allowed", a, prefix)
				}
			}
			for _, a := range []netip.Addr{prefix.Addr().Prev(), last.Next()} {
				if a.IsValid() {
					if err := agree(a); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		first := rapid.SampledFrom([]byte{b[0], 0x20, 0x26, 0x2a, 0x00, 0x3f, 0xfe}).Draw(t, "first")
		b[0] = first
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte(b[:4])), netip.AddrFrom16([16]byte(b))} {
			if err := agree(a); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if bits := min(8, max(0, p.Bits()-8*i)); bits < 8 {
			b[i] |= 0xff >> bits
		}
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// Without the vetting before it, the control function alone keeps a real socket from connecting.
func TestControlIsTheAuthority(t *testing.T) {
	accepted, port := trap(t)
	p := New(Options{})
	d := net.Dialer{ControlContext: p.Dialer().control, Timeout: time.Second}
	for _, s := range denied {
		conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(s, port))
		if err == nil {
			conn.Close()
			t.Errorf("connected to %s", s)
		}
		var unroutable *net.AddrError
		if !errors.Is(err, ErrBlocked) && !errors.As(err, &unroutable) && !strings.Contains(err.Error(), "no such network interface") && !strings.Contains(err.Error(), "invalid argument") {
			t.Errorf("%s: %v", s, err)
		}
	}
	if n := accepted(); n != 0 {
		t.Errorf("%d connects arrived", n)
	}
	if s := p.Stats(); s.Connects != 0 || s.Blocked == 0 {
		t.Errorf("%+v", s)
	}
	// The same without the guard: the trap works.
	unguarded := net.Dialer{Timeout: time.Second}
	for i, s := range []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "::ffff:127.0.0.1", "127.255.255.254"} {
		conn, err := unguarded.DialContext(t.Context(), "tcp", net.JoinHostPort(s, port))
		if err != nil {
			t.Fatalf("the trap does not take %s: %v", s, err)
		}
		conn.Close()
		if n := accepted(); n != int64(i+1) {
			t.Fatalf("the trap counted %d, want %d", n, i+1)
		}
	}
}

// trap listens on one port of every address of this machine, and counts.
func trap(t testing.TB) (accepted func() int64, port string) {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	markers := int64(0)
	// Connections are accepted in the order in which they came, so when one more has been, all before it have.
	accepted = func() int64 {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.Copy(io.Discard, conn)
		markers++
		return count.Load() - markers
	}
	return accepted, port
}

// names is a resolver whose answers are given; each lookup of a name takes its next answer, the last for ever.
type names map[string][][]string

func (n names) LookupNetIP(_ context.Context, _, host string) (addrs []netip.Addr, _ error) {
	answers := n[host]
	if len(answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if len(answers) > 1 {
		n[host] = answers[1:]
	}
	for _, s := range answers[0] {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs, nil
}

func TestNames(t *testing.T) {
	p, passed := deaf(t, "10.1.0.0/16", "fd12::/16")
	p.resolver = names{
		"public.test": {{"8.8.8.8", "2606:4700:4700::1111"}}, "private.test": {{"10.0.0.1"}}, "listed.test": {{"10.1.0.1", "fd12::1"}},
		"mixed.test": {{"8.8.8.8", "127.0.0.1"}}, "mixed6.test": {{"8.8.8.8", "::1"}}, "mapped.test": {{"::ffff:169.254.169.254"}},
		"half.test": {{"10.1.0.1", "8.8.8.8"}}, "many.test": {public50}, "six.test": {{"2606:4700:4700::1111"}}, "none.test": {{}},
	}
	for _, c := range []struct {
		dialer  *Dialer
		network string
		host    string
		passed  int64
		blocked bool
	}{
		{p.Dialer(), "tcp", "public.test", 2, false},
		{p.Dialer(), "tcp4", "public.test", 1, false},
		{p.Dialer(), "tcp", "private.test", 0, true},
		{p.Dialer(), "tcp", "listed.test", 2, false},
		{p.Dialer(), "tcp", "mixed.test", 0, true},
		{p.Dialer(), "tcp", "mixed6.test", 0, true},
		{p.Dialer(), "tcp", "mapped.test", 0, true},
		{p.Dialer(), "tcp", "half.test", 2, false},
		{p.Dialer(), "tcp", "many.test", 8, false},
		{p.Dialer(), "tcp4", "six.test", 0, false},
		{p.Dialer(), "tcp", "none.test", 0, false},
		{p.Dialer(), "tcp", "absent.test", 0, false},
		{p.ListedDialer(), "tcp", "listed.test", 2, false},
		{p.ListedDialer(), "tcp", "half.test", 0, true},
		{p.ListedDialer(), "tcp", "public.test", 0, true},
		{p.Dialer(), "udp", "public.test", 0, true},
		{p.Dialer(), "unix", "public.test", 0, true},
		{p.Dialer(), "tcp", "2130706433", 0, true},
		{p.Dialer(), "tcp", "127.1", 0, true},
		{p.Dialer(), "tcp", "0x7f000001", 0, true},
		{p.Dialer(), "tcp", "0177.0.0.1", 0, true},
		{p.Dialer(), "tcp", "localhost", 0, true},
		{p.Dialer(), "tcp", "LocalHost.", 0, true},
		{p.Dialer(), "tcp", "a.localhost", 0, true},
	} {
		before := passed.Load()
		_, err := c.dialer.DialContext(t.Context(), c.network, c.host+":443")
		if got := passed.Load() - before; got != c.passed || errors.Is(err, ErrBlocked) != c.blocked || err == nil {
			t.Errorf("%s %s: %d passed, want %d; %v", c.network, c.host, got, c.passed, err)
		}
	}
}

func TestOwnAddressesAndListeners(t *testing.T) {
	p, _ := deaf(t, "127.0.0.0/8", "93.184.216.0/24")
	p.own.addrs[addr(t, "93.184.215.14")] = true
	p.own.addrs[addr(t, "93.184.216.34")] = true
	check := func(address string, allowed bool) {
		t.Helper()
		if err := p.Check(netip.MustParseAddrPort(address)); (err == nil) != allowed {
			t.Errorf("%s: %v, want allowed %t", address, err, allowed)
		}
	}
	check("93.184.215.14:443", false) // our own, though public
	check("93.184.215.15:443", true)
	check("93.184.216.34:443", true) // our own, and listed
	check("127.0.0.1:8080", true)
	p.RefuseListener(netip.MustParseAddrPort("127.0.0.1:8080"))
	check("127.0.0.1:8080", false)
	check("[::ffff:127.0.0.1]:8080", false)
	check("127.0.0.2:8080", true)
	check("127.0.0.1:8081", true)
	p.RefuseListener(netip.MustParseAddrPort("[::]:8081"))
	check("127.0.0.9:8081", false)
	check("93.184.216.34:8081", false)
	check("93.184.216.35:8081", true)

	real := New(Options{})
	own, err := net.InterfaceAddrs()
	if err != nil || len(own) == 0 {
		t.Fatalf("no addresses here: %v", err)
	}
	for _, a := range own {
		prefix := netip.MustParsePrefix(a.String())
		if !real.own.contains(prefix.Addr()) || real.Check(netip.AddrPortFrom(prefix.Addr(), 443)) == nil {
			t.Errorf("%s is ours, and allowed", a)
		}
	}
}

// Our own listener is refused by every way to write it: the unspecified addresses lead to this machine's loopback, and NAT64 carries any
// IPv4 address.
func TestListenerUnderOtherAddresses(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		p := New(Options{Allow: prefixes("0.0.0.0/0", "::/0")})
		p.RefuseListener(l.Addr().(*net.TCPAddr).AddrPort())
		for _, host := range []string{"0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::127.0.0.1", "64:ff9b::"} {
			to := net.JoinHostPort(host, fmt.Sprint(port))
			if conn, err := p.ListedDialer().DialContext(t.Context(), "tcp", to); err == nil || !errors.Is(err, ErrBlocked) {
				if err == nil {
					conn.Close()
				}
				t.Errorf("what listens on %s is reached at %s: %v", l.Addr(), to, err)
			}
			if p.Check(netip.AddrPortFrom(addr(t, host), port+1)) != nil {
				t.Errorf("another port of %s is refused", host)
			}
		}
	}
	p, _ := deaf(t)
	p.own.addrs[addr(t, "93.184.215.14")] = true
	if p.Check(netip.MustParseAddrPort("[64:ff9b::93.184.215.14]:443")) == nil {
		t.Error("NAT64 reaches this machine's own address")
	}
}

func TestMappedPrefixIsListedAsIPv4(t *testing.T) {
	p := New(Options{Allow: []netip.Prefix{netip.MustParsePrefix("::ffff:10.9.8.7/112")}})
	if !p.Listed(addr(t, "10.9.1.1")) || p.Listed(addr(t, "10.8.1.1")) {
		t.Error("a network of mapped addresses does not stand for its IPv4 network")
	}
	// What the operator allows does not widen what NAT64 may carry.
	if p.Check(netip.MustParseAddrPort("[64:ff9b::10.9.1.1]:443")) == nil {
		t.Error("NAT64 reaches a private network")
	}
}

func TestLocalhostIsWhatIsListed(t *testing.T) {
	accepted, port := trap(t)
	p := New(Options{Allow: prefixes("127.0.0.1/32"), Resolver: names{}})
	conn, err := p.ListedDialer().DialContext(t.Context(), "tcp", "localhost:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if n := accepted(); n != 1 || p.Stats().Connects != 1 {
		t.Errorf("%d accepted, %+v", n, p.Stats())
	}
}

// Connecting goes on to the next address when one refuses, and ends with the first error when all do.
func TestNextAddress(t *testing.T) {
	accepted, port := trap(t)
	p := New(Options{Allow: prefixes("127.0.0.0/8", "::1/128"), Resolver: names{"two.test": {{"127.0.0.1", "127.0.0.2"}}}})
	real := p.raw
	p.raw = func(ctx context.Context, control controlFunc, a netip.AddrPort) (net.Conn, error) {
		if a.Addr() == addr(t, "127.0.0.1") {
			return nil, syscall.ECONNREFUSED
		}
		return real(ctx, control, a)
	}
	conn, err := p.Dialer().DialContext(t.Context(), "tcp", "two.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if n := accepted(); n != 1 {
		t.Errorf("%d accepted", n)
	}
}
