package diagnose_test

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
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/diagnose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names is a resolver of made-up hosts.
type names map[string]string

func (n names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	switch address, ok := n[host]; {
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case address == "":
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	case address == "never":
		<-ctx.Done()
		return nil, ctx.Err()
	default:
		return []netip.Addr{netip.MustParseAddr(address)}, nil
	}
}

// certificate makes one for a name, of an authority or its own, valid between two days from today.
func certificate(t *testing.T, by *tls.Certificate, name string, from, to int) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, BasicConstraintsValid: true,
		IsCA: by == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, NotBefore: time.Now().AddDate(0, 0, from), NotAfter: time.Now().AddDate(0, 0, to)}
	parent, signer := template, any(key)
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// raw answers each connection with f, as no web server would.
func raw(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// Each failure is made by a real server, goes through the real sink, and is told in its own words with its own fix.
func TestRealFailures(t *testing.T) {
	ca := certificate(t, nil, "authority", -100, 100)
	stranger := certificate(t, nil, "stranger", -100, 100)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	policy := egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Resolver: names{"hook.test": "127.0.0.1", "other.test": "127.0.0.1", "private.test": "10.1.2.3", "broken.test": "", "slow.test": "never"}})
	client := egress.NewClient(policy, egress.ClientOptions{RootCAs: roots})
	t.Cleanup(client.Close)
	s := webhook.New(policy, client)

	secure := func(c tls.Certificate, change func(*tls.Config)) string {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
		if change != nil {
			change(server.TLS)
		}
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // the failed handshakes, which are meant
		server.StartTLS()
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()[len("127.0.0.1"):]
	}
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		status, _ := strconv.Atoi(r.URL.Path[1:])
		if status/100 == 3 {
			w.Header().Set("Location", "https://www.example.com/hook")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(answers.Close)
	status := func(n int) string { return answers.URL + "/" + strconv.Itoa(n) }
	readRequest := func(c net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}
	var closed string
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	} else {
		closed = l.Addr().String()
		l.Close()
	}
	batch := func(s *eventhose.Subscription) { s.Batch.MaxEvents = 2 }

	for _, c := range []struct {
		name, url string
		change    func(*eventhose.Subscription)
		title     string
		fix       eventhose.Fix
	}{
		{"expired", "https://hook.test" + secure(certificate(t, &ca, "hook.test", -9, -1), nil), nil, "has expired", eventhose.FixCertificate},
		{"too early", "https://hook.test" + secure(certificate(t, &ca, "hook.test", 1, 9), nil), nil, "is not valid yet", eventhose.FixCertificate},
		{"unknown authority", "https://hook.test" + secure(certificate(t, &stranger, "hook.test", -9, 9), nil), nil, "cannot be traced to a trusted authority", eventhose.FixCertificate},
		{"wrong host name", "https://other.test" + secure(certificate(t, &ca, "hook.test", -9, 9), nil), nil, "is for another host name", eventhose.FixCertificate},
		{"no TLS", "https://hook.test" + answers.URL[len("http://127.0.0.1"):], nil, "does not speak HTTPS", eventhose.FixURL},
		{"old TLS", "https://hook.test" + secure(certificate(t, &ca, "hook.test", -9, 9), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), nil,
			"old versions of TLS", eventhose.FixCertificate},
		{"client certificate", "https://hook.test" + secure(certificate(t, &ca, "hook.test", -9, 9), func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 }), nil,
			"ended the TLS handshake", eventhose.FixReceiver},
		{"handshake", "https://" + raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), nil, "does not answer the TLS handshake", eventhose.FixReceiver},
		{"no such name", "https://absent.test", nil, "There is no such host: absent.test", eventhose.FixURL},
		{"name servers", "https://broken.test", nil, "The name servers of broken.test do not answer", eventhose.FixWait},
		{"slow name servers", "https://slow.test", nil, "Looking up slow.test took too long", eventhose.FixWait},
		{"blocked", "https://private.test", nil, "not allowed", eventhose.FixNetwork},
		{"blocked address", "https://169.254.169.254/", nil, "not allowed", eventhose.FixNetwork},
		{"refused", "http://" + closed, nil, "Nobody listens at " + closed, eventhose.FixReceiver},
		{"reset", "http://" + raw(t, func(c net.Conn) { readRequest(c); _ = c.(*net.TCPConn).SetLinger(0) }), nil, "broke the connection off", eventhose.FixReceiver},
		{"closed without an answer", "http://" + raw(t, readRequest), nil, "broke the connection off", eventhose.FixReceiver},
		{"time-out", "http://" + raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), nil, "took too long to answer", eventhose.FixTimeout},
		{"not HTTP", "http://" + raw(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.test ESMTP\r\n"); _, _ = io.Copy(io.Discard, c) }), nil, "is not HTTP", eventhose.FixURL},
		{"301", status(301), nil, "answered with a redirect", eventhose.FixURL},
		{"308", status(308), nil, "answered with a redirect", eventhose.FixURL},
		{"400", status(400), nil, "refused the event (400 Bad Request)", eventhose.FixReceiver},
		{"401", status(401), nil, "does not believe", eventhose.FixSecret},
		{"403", status(403), nil, "refuses us", eventhose.FixSecret},
		{"404", status(404), nil, "nothing at this path", eventhose.FixURL},
		{"405", status(405), nil, "takes no POST", eventhose.FixURL},
		{"408", status(408), nil, "in time (408)", eventhose.FixWait},
		{"410", status(410), nil, "wants no more events", eventhose.FixResume},
		{"413", status(413), nil, "too large", eventhose.FixBatch},
		{"415", status(415), nil, "content type", eventhose.FixSubscription},
		{"422", status(422), nil, "refused the event (422", eventhose.FixReceiver},
		{"429", status(429), nil, "asks to slow down", eventhose.FixSlowDown},
		{"500", status(500), nil, "The receiver failed (500 Internal Server Error)", eventhose.FixReceiver},
		{"501", status(501), nil, "does not do this", eventhose.FixURL},
		{"502", status(502), nil, "proxy does not reach", eventhose.FixReceiver},
		{"503", status(503), nil, "not available", eventhose.FixWait},
		{"504", status(504), nil, "gave up waiting", eventhose.FixReceiver},
		{"599", status(599), nil, "The receiver failed (599)", eventhose.FixReceiver},
		{"partly", "http://" + raw(t, func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+`{"failed":[{"id":"b","error":"no"}]}`)
		}), batch, "took a part of the batch", eventhose.FixReceiver},
		{"partly, without a name", "http://" + raw(t, func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+`{"failed":["b"]}`)
		}), batch, "does not say rightly which", eventhose.FixReceiver},
		{"partly, without an end", "http://" + raw(t, func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+`{"failed":[{"id":"b","error":"`+strings.Repeat("x", egress.MaxBody))
		}), batch, "does not say rightly which", eventhose.FixReceiver},
		{"secret", status(200), func(s *eventhose.Subscription) { s.Secrets = []eventhose.LiveSecret{{Secret: "whsec_?"}} }, "signing secret cannot be used", eventhose.FixSecret},
		{"header", status(200), func(s *eventhose.Subscription) {
			s.Destination.Headers = map[string]eventhose.Secret{"Host": "x"}
		}, "A header", eventhose.FixHeaders},
		{"URL", "ftp://hook.test/hook", nil, "URL cannot be used", eventhose.FixURL},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // some wait for a time-out
			sub := &eventhose.Subscription{ID: "sub_1", Tenant: "acme", Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: c.url, Signature: "v1"},
				Retry: eventhose.Retry{Timeout: eventhose.Duration(time.Second)}, Secrets: []eventhose.LiveSecret{{Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}}
			if c.change != nil {
				c.change(sub)
			}
			now := time.Now()
			b := &sink.Batch{ID: "a", Subscription: sub, Kind: eventhose.AttemptFirst, Number: 1, Items: []sink.Item{
				{Event: &eventhose.Event{ID: "a", Type: "a.b", Sequence: 1, Time: now, Data: []byte("1")}}}}
			if sub.Batch.Batched() {
				b.Items = append(b.Items, sink.Item{Event: &eventhose.Event{ID: "b", Type: "a.b", Sequence: 2, Time: now, Data: []byte("1")}})
			}
			r := s.Send(t.Context(), b)
			a := eventhose.Attempt{Kind: eventhose.AttemptFirst, Outcome: r.Outcome, Reason: r.Reason, Message: r.Message, Status: r.Status, URL: r.URL, Next: now.Add(time.Hour)}
			d := diagnose.Attempt(&a)
			if d == nil || !strings.Contains(d.Title, c.title) || d.Fix != c.fix {
				t.Fatalf("%s %d %q\nis told as %+v", r.Reason, r.Status, r.Message, d)
			}
			if strings.Contains(d.Title+d.Detail, "{") || strings.HasSuffix(d.Title, ".") || !strings.HasSuffix(d.Detail, "It is tried again by itself.") {
				t.Errorf("%+v", d)
			}
		})
	}
}

// What comes next is said too: a try by itself, none, or none needed.
func TestWhatComesNext(t *testing.T) {
	at := time.Now()
	for _, c := range []struct {
		a    eventhose.Attempt
		says string
		fix  eventhose.Fix
	}{
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStatus, Status: 503, Next: at}, "tried again by itself", eventhose.FixWait},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStatus, Status: 503}, "redrive it", eventhose.FixRedrive},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStatus, Status: 503, Kind: eventhose.AttemptTest}, "This was a test", eventhose.FixWait},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonTLS, Message: "the certificate of a expired on 2026-01-01. Renew it"}, "The certificate of a expired on 2026-01-01. Nothing", eventhose.FixCertificate},
		{eventhose.Attempt{Outcome: eventhose.OutcomeGone, Reason: eventhose.ReasonStatus, Status: 410}, "Resume it once the receiver wants events again.", eventhose.FixResume},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonRefused, Message: "no connection could be made: too many open files. See", Next: at}, "too many open files. Nothing was sent.", eventhose.FixWait},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStopping}, "sent again", eventhose.FixWait},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonNack, Message: "no stock"}, "handed over again", eventhose.FixWorker},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonExpired}, "lease", eventhose.FixWorker},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: "of a newer version", Message: "something new"}, "Something new", eventhose.FixReceiver},
	} {
		if d := diagnose.Attempt(&c.a); d == nil || !strings.Contains(d.Detail, c.says) || d.Fix != c.fix || d.Title == "" {
			t.Errorf("%+v is told as %+v", c.a, d)
		}
	}
	// What a test is answered disables nothing.
	if d := diagnose.Attempt(&eventhose.Attempt{Outcome: eventhose.OutcomeGone, Reason: eventhose.ReasonStatus, Status: 410, Kind: eventhose.AttemptTest}); strings.Contains(d.Detail, "was disabled") || d.Fix != eventhose.FixReceiver {
		t.Errorf("a test that is answered 410 is told as %+v", d)
	}
	if d := diagnose.Attempt(&eventhose.Attempt{Outcome: eventhose.OutcomeTaken}); d != nil {
		t.Errorf("a success is told as %+v", d)
	}
}

// Every reason that there is has words of its own, so that a new one is not forgotten.
func TestEveryReason(t *testing.T) {
	seen := []string{diagnose.Attempt(&eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: "new"}).Title}
	for _, reason := range []eventhose.Reason{eventhose.ReasonStatus, eventhose.ReasonRedirect, eventhose.ReasonTimeout, eventhose.ReasonDNS, eventhose.ReasonBlocked,
		eventhose.ReasonRefused, eventhose.ReasonReset, eventhose.ReasonTLS, eventhose.ReasonProtocol, eventhose.ReasonConfig, eventhose.ReasonPartly, eventhose.ReasonStopping,
		eventhose.ReasonNack, eventhose.ReasonExpired} {
		title := diagnose.Attempt(&eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: reason}).Title
		if slices.Contains(seen, title) {
			t.Errorf("%s has no words of its own: %s", reason, title)
		}
		seen = append(seen, title)
	}
}
