package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
)

// forbidden are addresses that lead to this machine, its network, or a cloud's secrets.
var forbidden = []string{
	"0.0.0.0", "10.0.0.1", "10.255.255.254", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.0.0.3", "127.255.255.254",
	"168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.254", "192.0.0.192", "192.0.2.1", "192.88.99.1",
	"192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
	"::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "100::1", "2001::7f00:1", "2001:db8::1", "2002:7f00:1::1",
	"2002:a9fe:a9fe::1", "3fff::1", "5f00::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
}

// spellings answers the ways to write an address as the host of a URL.
func spellings(t *testing.T, s string) []string {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	if a.Is6() {
		long := a.StringExpanded()
		return []string{"[" + s + "]", "[" + long + "]", "[" + strings.ToUpper(long) + "]", "[" + s + "%25lo]"}
	}
	b := a.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	hi, lo := n>>16, n&0xffff
	wide := strings.Map(func(r rune) rune {
		if r == '.' {
			return '。'
		}
		return r - '0' + '０'
	}, s)
	return []string{
		s, s + ".", wide,
		fmt.Sprint(n), fmt.Sprintf("0x%x", n), fmt.Sprintf("0%o", n),
		fmt.Sprintf("%d.%d", b[0], n&0xffffff), fmt.Sprintf("%d.%d.%d", b[0], b[1], lo),
		fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]), fmt.Sprintf("0x%x.0x%x.0x%x.0x%x", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("[::ffff:%s]", s), fmt.Sprintf("[::ffff:%x:%x]", hi, lo), fmt.Sprintf("[0:0:0:0:0:FFFF:%X:%X]", hi, lo),
		fmt.Sprintf("[::%s]", s), fmt.Sprintf("[::ffff:0:%s]", s), fmt.Sprintf("[64:ff9b::%s]", s), fmt.Sprintf("[64:ff9b:1::%s]", s),
		fmt.Sprintf("[2002:%x:%x::]", hi, lo), fmt.Sprintf("[2001:0:%x:%x::]", hi, lo), fmt.Sprintf("[fe80::5efe:%s]", s),
	}
}

// trap counts what connects to one port of any address of this machine, so that nothing local goes unseen.
type trap struct {
	port    string
	count   atomic.Int64
	markers int64
}

func newTrap(t testing.TB) *trap {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{}
	_, tr.port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tr.count.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return tr
}

// accepted answers how many connections came so far: they are accepted in order, so when one more has been, all were.
func (tr *trap) accepted(t testing.TB) int64 {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+tr.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.Copy(io.Discard, conn)
	tr.markers++
	return tr.count.Load() - tr.markers
}

// kinds are the two ways by which a tenant makes us send.
var kinds = []eventhose.AttemptKind{eventhose.AttemptFirst, eventhose.AttemptTest}

func send(s *Sink, to string, kind eventhose.AttemptKind) sink.Result {
	b := batch(subscription(to))
	b.Kind = kind
	return s.Send(context.Background(), b)
}

// blocked checks that a try was refused and that its result tells a tenant nothing of what is behind.
func blocked(t *testing.T, what string, r sink.Result) {
	t.Helper()
	if r.Outcome != eventhose.OutcomeFailed || r.Reason != eventhose.ReasonBlocked && r.Reason != eventhose.ReasonConfig {
		t.Errorf("%s: %s %s %q", what, r.Outcome, r.Reason, r.Message)
	}
	if r.Address != "" || r.Phases.Connect != 0 || r.Status != 0 {
		t.Errorf("%s: tells of a connect: %+v", what, r)
	}
	if r.Reason == eventhose.ReasonBlocked && r.Message != sink.Explain(eventhose.ReasonBlocked, "") {
		t.Errorf("%s: says more than that it is blocked: %q", what, r.Message)
	}
}

func TestSSRF(t *testing.T) {
	tr, dns := newTrap(t), newDNS(t)
	// The policy allows 127.0.0.2 alone, so that http is not refused for being http and redirects have somewhere to start.
	open := egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Resolver: dns.resolver()})
	closed := egress.New(egress.Options{Resolver: dns.resolver()})
	sinks := map[*egress.Policy]*Sink{open: newSink(t, open), closed: newSink(t, closed)}
	cases := map[string]int{}
	try := func(class string, policy *egress.Policy, to string) {
		t.Helper()
		for _, kind := range kinds {
			cases[class]++
			blocked(t, string(kind)+" "+to, send(sinks[policy], to, kind))
		}
	}

	for i, address := range forbidden {
		for _, host := range spellings(t, address) {
			for _, scheme := range []string{"https", "http"} {
				to := scheme + "://" + host + ":" + tr.port + "/latest/meta-data"
				for policy, s := range sinks {
					var e *eventhose.Error
					if err := s.Check(eventhose.Destination{Type: eventhose.DestinationWebhook, URL: to}); !errors.As(err, &e) || e.Code != eventhose.CodeInvalid || e.Field != "destination.url" {
						t.Errorf("create with %s: %v", to, err)
					}
					try("literal", policy, to)
				}
			}
		}
		addr := netip.MustParseAddr(address)
		good, bad := netip.MustParseAddr("127.0.0.2"), []netip.Addr{addr}
		name := func(kind string) string { return fmt.Sprintf("%s%d.attacker.test", kind, i) }
		class := "A"
		if addr.Is6() {
			class = "AAAA"
		}
		dns.set(name("direct"), bad)
		dns.set(name("mixed"), []netip.Addr{good, addr})
		dns.set(name("mapped"), []netip.Addr{netip.AddrFrom16(addr.As16())}) // an A address as the AAAA record that maps it
		dns.alias(name("alias"), name("direct"))
		for _, scheme := range []string{"https", "http"} {
			at := func(kind string) string { return scheme + "://" + name(kind) + ":" + tr.port + "/" }
			for _, c := range []struct{ class, kind string }{{class, "direct"}, {"mixed", "mixed"}, {"mapped", "mapped"}, {"CNAME", "alias"}} {
				try(c.class, open, at(c.kind))
			}
		}
	}
	total := 0
	for _, n := range cases {
		total += n
	}
	t.Logf("%d cases: %v", total, cases)
	if total < 500 {
		t.Errorf("only %d cases", total)
	}
	if n := tr.accepted(t); n != 0 {
		t.Errorf("%d connects arrived", n)
	}
	for policy := range sinks {
		if s := policy.Stats(); s.Connects != 0 {
			t.Errorf("the guard let %d connects pass", s.Connects)
		}
	}
	if open.Stats().Blocked == 0 {
		t.Error("the guard itself was never asked")
	}
	if dns.queries("direct0.attacker.test") == 0 || dns.queries("alias0.attacker.test") == 0 {
		t.Error("the name server was never asked")
	}
}

// A name that first leads to an allowed address and then elsewhere: what was vetted is what is connected to, and the next
// connection is vetted anew.
func TestSSRFRebinding(t *testing.T) {
	tr, dns := newTrap(t), newDNS(t)
	policy := egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Resolver: dns.resolver()})
	s := newSink(t, policy)
	good := netip.MustParseAddr("127.0.0.2")
	n := 0
	for i, address := range forbidden {
		host := fmt.Sprintf("rebind%d.attacker.test", i)
		addr := netip.MustParseAddr(address)
		dns.set(host, []netip.Addr{good}, []netip.Addr{addr}, []netip.Addr{good, addr}, []netip.Addr{addr})
		to := "http://" + host + ":" + tr.port + "/"
		if r := send(s, to, eventhose.AttemptFirst); r.Reason != eventhose.ReasonReset || r.Address != "127.0.0.2:"+tr.port {
			t.Fatalf("%s: the allowed address is not reached: %+v", to, r)
		}
		for range 3 {
			n++
			blocked(t, to, send(s, to, eventhose.AttemptTest))
		}
	}
	// The trap hangs up on what reaches it, so each connection is new; those to the allowed address are all there are.
	if got := tr.accepted(t); got != int64(policy.Stats().Connects) || got < int64(len(forbidden)) || got > 2*int64(len(forbidden)) {
		t.Errorf("%d connects arrived, the guard counted %d, for %d names", got, policy.Stats().Connects, len(forbidden))
	}
	t.Logf("%d cases", n)
}

func TestSSRFRedirect(t *testing.T) {
	tr := newTrap(t)
	policy := egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	s := newSink(t, policy)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscan(r.URL.Query().Get("status"), &status)
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(status)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })

	n := 0
	for _, address := range forbidden {
		for _, host := range spellings(t, address)[:4] {
			for _, status := range []string{"301", "302", "303", "307", "308"} {
				n++
				target := "http://" + host + ":" + tr.port + "/"
				r := send(s, "http://"+l.Addr().String()+"/?"+url.Values{"to": {target}, "status": {status}}.Encode(), kinds[n%2])
				if r.Outcome != eventhose.OutcomeFailed || r.Reason != eventhose.ReasonRedirect || fmt.Sprint(r.Status) != status {
					t.Errorf("redirect to %s: %+v", target, r)
				}
			}
		}
	}
	if got := tr.accepted(t); got != 0 {
		t.Errorf("%d of %d redirects were followed", got, n)
	}
	t.Logf("%d cases, over %d connections", n, policy.Stats().Connects)
}

// The trap and the cases see red: a sink whose guard lets everything pass connects to what is local.
func TestSSRFWithoutTheGuard(t *testing.T) {
	tr := newTrap(t)
	everything := egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}})
	s := newSink(t, everything)
	arrived := 0
	for _, host := range []string{"127.0.0.1", "127.0.0.3", "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1.", "１２７。0。0。1", "localhost"} {
		before := tr.accepted(t)
		send(s, "http://"+host+":"+tr.port+"/", eventhose.AttemptTest)
		if tr.accepted(t) > before {
			arrived++
		} else {
			t.Errorf("%s did not reach the trap", host)
		}
	}
	if arrived == 0 {
		t.Error("nothing reached the trap")
	}
}
