package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted counts the bytes read from the connections of a policy.
func counted(p *Policy) *atomic.Int64 {
	var n atomic.Int64
	real := p.raw
	p.raw = func(ctx context.Context, control controlFunc, a netip.AddrPort) (net.Conn, error) {
		conn, err := real(ctx, control, a)
		if err != nil {
			return nil, err
		}
		return countedConn{conn, &n}, nil
	}
	return &n
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func target(t testing.TB, method, to string) *Target {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	target, err := NewTarget(method, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func get(t testing.TB, c *Client, to string) (*Answer, error) {
	t.Helper()
	a := new(Answer)
	return a, c.Do(t.Context(), &Request{Target: target(t, http.MethodGet, to), Timeout: 10 * time.Second}, a)
}

func client(t *testing.T, p *Policy, o ClientOptions) *Client {
	t.Helper()
	c := NewClient(p, o)
	t.Cleanup(c.Close)
	return c
}

func local() *Policy { return New(Options{Allow: prefixes("127.0.0.1/32")}) }

// raw answers each connection with what f writes, after the request's head.
func raw(t *testing.T, f func(net.Conn)) (url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		f(conn)
	}))
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func TestRedirectsProxiesAndEncodingsAreLeftAlone(t *testing.T) {
	accepted, port := trap(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, "http://127.0.0.1:"+port)
	}
	var seen http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		w.Header().Set("Location", "http://127.0.0.1:"+port+"/")
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(http.StatusTemporaryRedirect)
		fmt.Fprint(w, "not gzip")
	}))
	defer s.Close()
	// By a name, since proxies are never asked for 127.0.0.1.
	p := New(Options{Allow: prefixes("127.0.0.1/32"), Resolver: names{"proxied.test": {{"127.0.0.1"}}}})
	a, err := get(t, client(t, p, ClientOptions{}), strings.Replace(s.URL, "127.0.0.1", "proxied.test", 1))
	if err != nil || a.Status != 307 || string(a.Body) != "not gzip" {
		t.Errorf("%+v %v", a, err)
	}
	if seen.Get("Accept-Encoding") != "" {
		t.Errorf("sent %v", seen)
	}
	if n := accepted(); n != 0 {
		t.Errorf("%d connects to the redirect's target or the proxy", n)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	for name, f := range map[string]func(net.Conn){
		"headers": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "X-Junk: "+strings.Repeat("a", 4000)+"\r\n")
			}
		},
		"1xx": func(c net.Conn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 50))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := local()
			n := counted(p)
			if _, err := get(t, client(t, p, ClientOptions{}), raw(t, f)); err == nil {
				t.Error("no error")
			}
			if n.Load() > maxHeaderBytes+8<<10 {
				t.Errorf("read %d bytes", n.Load())
			}
		})
	}
}

func TestBodyIsNotDrained(t *testing.T) {
	p := local()
	n := counted(p)
	a, err := get(t, client(t, p, ClientOptions{}), raw(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for err := error(nil); err == nil; {
			_, err = io.WriteString(c, strings.Repeat("a", 1<<14))
		}
	}))
	if err != nil || len(a.Body) != MaxBody {
		t.Fatalf("%d bytes, %v", len(a.Body), err)
	}
	if n.Load() > 64<<10+16<<10 {
		t.Errorf("read %d bytes for 64 KiB of body", n.Load())
	}
}

func TestPlainTextOnlyToListedNetworks(t *testing.T) {
	accepted, port := trap(t)
	p := New(Options{})
	c := client(t, p, ClientOptions{})
	for _, url := range []string{"http://127.0.0.1:" + port, "https://127.0.0.1:" + port, "http://8.8.8.8:" + port} {
		if _, err := get(t, c, url); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if n := accepted(); n != 0 || p.Stats().Connects != 0 || p.Stats().Blocked != 3 {
		t.Errorf("%d connects, %+v", n, p.Stats())
	}
}

func TestTimeoutIsRequired(t *testing.T) {
	if err := client(t, local(), ClientOptions{}).Do(t.Context(), &Request{Target: target(t, "GET", "http://127.0.0.1:1")}, new(Answer)); err == nil {
		t.Error("a request without a time-out was sent")
	}
}

func TestTLSVersionAndRoots(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if a, err := get(t, client(t, local(), ClientOptions{RootCAs: roots}), s.URL); err != nil || string(a.Body) != "HTTP/1.1" {
		t.Errorf("spoke %s, %v", a.Body, err)
	}
	if _, err := get(t, client(t, local(), ClientOptions{}), s.URL); err == nil {
		t.Error("an unknown authority is trusted")
	}
}
