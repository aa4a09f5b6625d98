package webhook

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsServer answers real DNS queries over UDP. Each query of a name and type takes the name's next answer, the last for
// ever; names it does not know do not exist.
type dnsServer struct {
	conn net.PacketConn
	mu   sync.Mutex
	a    map[string][][]netip.Addr // by name without final full stop; IPv4 goes into A records and IPv6 into AAAA
	cut  map[string]bool           // names whose queries are never answered
	// cname leads from a name to another, whose addresses come along.
	cname map[string]string
	asked map[string]int
	// askers are the resolver's connections, which wait for an answer long after nobody wants it any more.
	askers []net.Conn
	closed bool
}

func newDNS(t testing.TB) *dnsServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dnsServer{conn: conn, a: map[string][][]netip.Addr{}, cut: map[string]bool{}, cname: map[string]string{}, asked: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		for _, c := range s.askers {
			c.Close()
		}
	})
	return s
}

func (s *dnsServer) set(name string, answers ...[]netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.a[name] = answers
}

// queries answers how often a name was asked for.
func (s *dnsServer) queries(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

func (s *dnsServer) alias(name, target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cname[name] = target
}

// resolver is Go's own, asking this server and nobody else.
func (s *dnsServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "udp", s.conn.LocalAddr().String())
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil && s.closed {
			c.Close()
			return nil, net.ErrClosed
		}
		if err == nil {
			s.askers = append(s.askers, c)
		}
		return c, err
	}}
}

func (s *dnsServer) serve() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if answer := s.answer(buf[:n]); answer != nil {
			s.conn.WriteTo(answer, from)
		}
	}
}

func (s *dnsServer) answer(query []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	s.asked[name]++
	if s.cut[name] {
		return nil
	}
	target, aliased := s.cname[name]
	if !aliased {
		target = name
	}
	key := target + "/" + q.Type.String()
	answers, known := s.a[key]
	if !known {
		answers, known = s.a[target]
		if known { // the answers of A and AAAA go their own ways
			s.a[key] = answers
		}
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	if !known {
		m.RCode = dnsmessage.RCodeNameError
		return pack(m)
	}
	if aliased {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target + ".")}})
	}
	now := answers[0]
	if len(answers) > 1 {
		s.a[key] = answers[1:]
	}
	for _, addr := range now {
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(target + "."), Class: dnsmessage.ClassINET}
		switch {
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	return pack(m)
}

func pack(m dnsmessage.Message) []byte {
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
