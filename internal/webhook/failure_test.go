package webhook

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sinktest"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	a.key = newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().AddDate(-3, 0, 0), NotAfter: time.Now().AddDate(3, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue answers a certificate for a name, valid between two days from today.
func (a *authority) issue(t testing.TB, name string, from, to int) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().AddDate(0, 0, from), NotAfter: time.Now().AddDate(0, 0, to)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// overTLS serves HTTP over TLS with a configuration.
func overTLS(config *tls.Config, f func(net.Conn)) sinktest.Receiver {
	return sinktest.Listen(func(c net.Conn) {
		conn := tls.Server(c, config)
		if conn.HandshakeContext(context.Background()) == nil {
			f(conn)
			conn.Close()
		}
	})
}

func ok(c net.Conn) {
	buf := make([]byte, 64<<10)
	c.Read(buf)
	io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// What goes wrong is said in plain words, with the reason that the engine needs.
func TestFailures(t *testing.T) {
	ca, other, dns := newAuthority(t), newAuthority(t), newDNS(t)
	loop := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for _, name := range []string{"good.test", "expired.test", "early.test", "wrong.test", "stranger.test", "old.test", "plain.test"} {
		dns.set(name, loop)
	}
	dns.set("empty.test", nil)
	dns.cut["mute.test"] = true
	dns.set("private.test", []netip.Addr{netip.MustParseAddr("10.0.0.1")})
	policy := egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Resolver: dns.resolver()})
	client := egress.NewClient(policy, egress.ClientOptions{RootCAs: ca.pool})
	t.Cleanup(client.Close)
	s := New(policy, client)

	config := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	old := config(ca.issue(t, "old.test", -10, 10))
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	picky := config(ca.issue(t, "good.test", -10, 10))
	picky.ClientAuth, picky.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 // with 1.3 the alert races with the request
	date := func(days int) string { return time.Now().AddDate(0, 0, days).UTC().Format(time.DateOnly) }
	garbage := func(c net.Conn) {
		for {
			if _, err := c.Write([]byte(strings.Repeat("\x16\x03\x01\x40\x00garbage", 100))); err != nil {
				return
			}
		}
	}

	for _, c := range []struct {
		name    string
		host    string // with the scheme; ":" and the receiver's port are added if there is one
		serve   sinktest.Receiver
		reason  eventhose.Reason
		message string
		slow    bool
	}{
		{"good", "https://good.test", overTLS(config(ca.issue(t, "good.test", -10, 10)), ok), eventhose.ReasonNone, "", false},
		{"expired", "https://expired.test", overTLS(config(ca.issue(t, "expired.test", -10, -1)), ok), eventhose.ReasonTLS, "the certificate of expired.test expired on " + date(-1), false},
		{"not yet valid", "https://early.test", overTLS(config(ca.issue(t, "early.test", 1, 10)), ok), eventhose.ReasonTLS, "the certificate of early.test is not valid before " + date(1), false},
		{"for another name", "https://wrong.test", overTLS(config(ca.issue(t, "good.test", -10, 10)), ok), eventhose.ReasonTLS, "the certificate is not for wrong.test", false},
		{"unknown authority", "https://stranger.test", overTLS(config(other.issue(t, "stranger.test", -10, 10)), ok), eventhose.ReasonTLS, "signed by an authority that is not trusted here", false},
		{"old TLS", "https://old.test", overTLS(old, ok), eventhose.ReasonTLS, "protocol version", false},
		{"client certificate wanted", "https://good.test", overTLS(picky, ok), eventhose.ReasonTLS, "the receiver ended the TLS handshake: ", false},
		{"no TLS", "https://plain.test", sinktest.Listen(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); io.Copy(io.Discard, c) }), eventhose.ReasonTLS, "does not speak TLS on this port. Check the port", false},
		{"other protocol on TLS", "https://plain.test", sinktest.Listen(func(c net.Conn) { io.WriteString(c, "220 mail ESMTP\r\n"); io.Copy(io.Discard, c) }), eventhose.ReasonTLS, "does not speak TLS", false},
		{"TLS garbage", "https://plain.test", sinktest.Listen(garbage), eventhose.ReasonTLS, "", false},
		{"TLS then silence", "https://plain.test", sinktest.Listen(func(c net.Conn) { io.Copy(io.Discard, c) }), eventhose.ReasonTimeout, "time-out after 1s while shaking hands over TLS", true},
		{"TLS then reset", "https://plain.test", sinktest.Listen(func(c net.Conn) {
			c.Read(make([]byte, 1)) // the first of the handshake: a reset before it can reach who still connects
			c.(*net.TCPConn).SetLinger(0)
		}), eventhose.ReasonReset, "while shaking hands over TLS", false},
		{"silence", "http://good.test", sinktest.Silent(nil), eventhose.ReasonTimeout, "time-out after 1s while waiting for the answer", true},
		{"silence after the head", "http://good.test", sinktest.Listen(func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
				io.Copy(io.Discard, c)
			}
		}),
			eventhose.ReasonTimeout, "time-out after 1s while reading the answer", true},
		{"unknown name", "https://absent.test", nil, eventhose.ReasonDNS, "the name absent.test does not resolve", false},
		{"name without address", "https://empty.test", nil, eventhose.ReasonDNS, "the name empty.test does not resolve", false},
		{"name server is mute", "https://mute.test", nil, eventhose.ReasonTimeout, "while resolving the name", true},
		{"blocked", "https://private.test", nil, eventhose.ReasonBlocked, "address not allowed. ", false},
		{"refused", "http://127.0.0.1:" + closedPort(t), nil, eventhose.ReasonRefused, "nobody listens there", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := c.host
			if c.serve != nil {
				address, stop, err := c.serve()
				if err != nil {
					t.Fatal(err)
				}
				defer stop()
				to += address[strings.LastIndexByte(address, ':'):]
			}
			sub := subscription(to + "/?token=planted-secret")
			sub.Retry.Timeout = eventhose.Duration(time.Second)
			r := s.Send(t.Context(), batch(sub))
			if r.Reason != c.reason || !strings.Contains(r.Message, c.message) || r.Slow != c.slow {
				t.Errorf("%s, slow %t: %s", r.Reason, r.Slow, r.Message)
			}
			if c.reason != "" && (!strings.Contains(r.Message, ". ") || strings.Contains(r.Message, "planted") || strings.Contains(r.Message, "x509:") || strings.Contains(r.Message, "net/http")) {
				t.Errorf("not plain, without advice, or with a secret: %s", r.Message)
			}
			if r.URL != to+"/" {
				t.Errorf("URL %s", r.URL)
			}
			if c.name == "good" && (r.Phases.DNS == 0 || r.Phases.Connect == 0 || r.Phases.TLS == 0 || r.Phases.Wait == 0 || !strings.HasPrefix(r.Address, "127.0.0.1:")) {
				t.Errorf("%+v", r)
			}
			if c.reason == eventhose.ReasonBlocked && r.Address != "" {
				t.Errorf("tells the address %s", r.Address)
			}
		})
	}
}

// That no connection could be made is not told as an answer that cannot be read, whatever the system says.
func TestNoConnection(t *testing.T) {
	for _, fault := range []syscall.Errno{syscall.EAFNOSUPPORT, syscall.EPERM, syscall.EMFILE} {
		s := newSink(t, egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			Connect: func(context.Context, netip.AddrPort) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", fault)}
			}}))
		r := s.Send(t.Context(), batch(subscription("http://192.0.2.1/")))
		if want := "no connection could be made: " + fault.Error() + ". If this lasts, have the operator"; r.Reason != eventhose.ReasonRefused || !strings.HasPrefix(r.Message, want) {
			t.Errorf("%v: %s, %s", fault, r.Reason, r.Message)
		}
	}
}

// closedPort answers a port that nobody listens on.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// Hostile answers leave nothing behind, however many there are.
func TestMemoryStaysFlat(t *testing.T) {
	policy := loopback()
	client := egress.NewClient(policy, egress.ClientOptions{})
	defer client.Close()
	s := New(policy, client)
	var heap [2]uint64
	for _, c := range sinktest.HostileHTTP() {
		if c.Timeout == time.Second { // those that only wait
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			address, stop, err := c.Serve()
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			sub := subscription("http://" + address)
			for round := range heap {
				for range 20 {
					s.Send(t.Context(), batch(sub))
				}
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				heap[round] = m.HeapAlloc
			}
			if heap[1] > heap[0]+1<<20 {
				t.Errorf("the heap grew from %d to %d bytes", heap[0], heap[1])
			}
		})
	}
}

func TestRedirectMessage(t *testing.T) {
	s := newSink(t, loopback())
	address, stop, err := sinktest.Answer("HTTP/1.1 308 Moved\r\nLocation: /new?token=planted\r\nContent-Length: 0\r\n\r\n")()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	r := s.Send(t.Context(), batch(subscription("http://"+address+"/old")))
	if want := "the receiver answered 308, a redirect to http://" + address + "/new. Redirects are never followed"; r.Reason != eventhose.ReasonRedirect || !strings.HasPrefix(r.Message, want) {
		t.Errorf("%s", r.Message)
	}
}

func TestRetryAfterIsForFailures(t *testing.T) {
	s := newSink(t, loopback())
	for answer, want := range map[string]time.Duration{"200 OK": 0, "429 Slow": time.Minute, "500 No": time.Minute} {
		address, stop, err := sinktest.Answer("HTTP/1.1 " + answer + "\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")()
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Send(t.Context(), batch(subscription("http://"+address))); r.RetryAfter != want {
			t.Errorf("%s: %s", answer, r.RetryAfter)
		}
		stop()
	}
}
