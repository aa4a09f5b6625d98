package egress

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose/internal/sinktest"
)

func post(t testing.TB, c *Client, to string, body []byte) (*Answer, error) {
	t.Helper()
	a := new(Answer)
	return a, c.Do(t.Context(), &Request{Target: target(t, http.MethodPost, to), Body: body, Timeout: time.Minute}, a)
}

// served serves each connection with f until the test ends, over TLS if config is not nil.
func served(t testing.TB, config *tls.Config, f func(net.Conn)) (url string) {
	t.Helper()
	scheme := "http://"
	serve := f
	if config != nil {
		scheme = "https://"
		serve = func(raw net.Conn) {
			c := tls.Server(&gathered{Conn: raw}, config)
			if c.Handshake() == nil {
				f(c)
			}
		}
	}
	address, stop, err := sinktest.Listen(serve)()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return scheme + address
}

// gathered writes what it is given while it holds at once with what follows.
type gathered struct {
	net.Conn
	hold bool
	held []byte
}

func (g *gathered) Write(b []byte) (int, error) {
	g.held = append(g.held, b...)
	if g.hold {
		return len(b), nil
	}
	_, err := g.Conn.Write(g.held)
	g.held = nil
	return len(b), err
}

// together writes parts, each a TLS record of its own if there is TLS, to the socket at once.
func together(c net.Conn, parts ...string) {
	var g *gathered
	if over, ok := c.(*tls.Conn); ok {
		g = over.NetConn().(*gathered)
	} else {
		io.WriteString(c, strings.Join(parts, ""))
		return
	}
	for i, part := range parts {
		g.hold = i < len(parts)-1
		io.WriteString(c, part)
	}
}

// certified answers the configuration of a server for 127.0.0.1 and example.com, and of a client that trusts it.
func certified(t testing.TB) (*tls.Config, ClientOptions) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, ClientOptions{RootCAs: roots}
}

const (
	good     = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	smuggled = "HTTP/1.1 299 Smuggled\r\nContent-Length: 0\r\n\r\n"
)

// request reads one request whole.
func request(r *bufio.Reader) error {
	request, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, request.Body)
	return err
}

func head(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil || strings.TrimSpace(line) == "" {
			return err
		}
	}
}

func bodyOf(r *bufio.Reader) ([]byte, error) {
	request, err := http.ReadRequest(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(request.Body)
}
