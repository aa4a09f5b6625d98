package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

// pipes is a listener within the process.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
	dials   atomic.Int64
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	p.dials.Add(1)
	here, there := net.Pipe()
	select {
	case p.dialled <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialled:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// asked is a resolver that knows one address for everything, and what it was asked for.
type asked struct {
	mu    sync.Mutex
	names []string
}

func (a *asked) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, host)
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func ownHost(t *testing.T, h http.Handler) (*Policy, *pipes, *asked) {
	t.Helper()
	l, resolver := &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})}, &asked{}
	// Close does not wait for a connection that lingers for half a second after it refused a body.
	var serving sync.WaitGroup
	s := &http.Server{Handler: h, ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			serving.Add(1)
		case http.StateClosed, http.StateHijacked:
			serving.Done()
		}
	}}
	serving.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Close(); serving.Wait() })
	return New(Options{Resolver: resolver, Within: map[string]func(context.Context) (net.Conn, error){"inspector.internal": l.dial}}), l, resolver
}

// A name within the process is reached by no other way than its own, leads nowhere else, and is asked of nobody.
func TestWithin(t *testing.T) {
	p, l, resolver := ownHost(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Host, r.URL)
	}))
	c := client(t, p, ClientOptions{})
	for _, raw := range []string{"http://inspector.internal/ins_1?a=b", "http://INSPECTOR.Internal./ins_1?a=b", "http://inspector.internal:80/ins_1?a=b",
		"http://\uff49nspector.internal/ins_1?a=b", "http://inspector\u3002internal/ins_1?a=b"} {
		u, err := p.ParseURL("url", raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		a, err := get(t, c, u.String())
		if err != nil || string(a.Body) != "inspector.internal /ins_1?a=b" || a.Address != "inspector.internal:80" || a.DNS != 0 {
			t.Errorf("%s: %q at %s, %v", raw, a.Body, a.Address, err)
		}
	}
	if l.dials.Load() != 1 {
		t.Errorf("%d connections: none is kept", l.dials.Load())
	}
	if len(resolver.names) > 0 {
		t.Errorf("DNS was asked for %q", resolver.names)
	}
	dials := l.dials.Load()

	// What is refused as a URL, and for good measure at the dialer, however it is written.
	for _, raw := range []string{"https://inspector.internal/ins_1", "https://inspector.internal:80/", "http://inspector.internal:443/", "http://inspector.internal:8080/",
		"http://inspector.internal:0/", "http://inspector.internal:/", "http://u:p@inspector.internal/", "http://u@inspector.internal/", "http://inspector.internal/#x",
		"http://inspector.internal../", "http://inspector.internal%00/", "http://inspector.internal%2e/", "http://.inspector.internal/", "ftp://inspector.internal/",
		"http://x.inspector.internal/", "http://inspector.internal.example.com/", "http://xinspector.internal/", "http://inspector.interna/", "http://internal/"} {
		if _, err := p.ParseURL("url", raw); eventhose.CodeOf(err) != eventhose.CodeInvalid {
			t.Errorf("%s: %v", raw, err)
		}
	}
	for _, d := range []struct {
		dialer  *Dialer
		address string
	}{
		{p.Dialer(), "inspector.internal:80"}, {p.Dialer(), "inspector.internal:443"}, {p.ListedDialer(), "inspector.internal:443"}, {p.ListedDialer(), "inspector.internal:8080"},
		{p.ListedDialer(), "INSPECTOR.internal.:81"}, {p.ListedDialer(), "inspector.internal..:25"}, {p.Dialer(), "inspector.internal.:80"}, {p.ListedDialer(), "inspector.internal:https"},
	} {
		if conn, err := d.dialer.DialContext(t.Context(), "tcp", d.address); !errors.Is(err, ErrBlocked) {
			conn.Close()
			t.Errorf("%s: %v", d.address, err)
		}
	}
	if len(resolver.names) > 0 {
		t.Errorf("DNS was asked for %q", resolver.names)
	}
	// Other names are asked for as ever, and lead out; addresses lead to nothing within.
	for _, address := range []string{"x.inspector.internal:80", "inspector.internal.example.com:80", "internal:80", "127.0.0.1:80", "[::1]:80"} {
		if _, err := p.ListedDialer().DialContext(t.Context(), "tcp", address); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if want := []string{"x.inspector.internal", "inspector.internal.example.com", "internal"}; !slices.Equal(resolver.names, want) {
		t.Errorf("DNS was asked for %q", resolver.names)
	}
	if l.dials.Load() != dials {
		t.Errorf("%d dials more reached the process", l.dials.Load()-dials)
	}
}

// A connection within the process is as good as a socket: large requests pass, who refuses them early is heard, deadlines end
// what hangs, and nothing of one exchange is left for the next.
func TestWithinIsAConnection(t *testing.T) {
	hang := make(chan struct{})
	p, _, _ := ownHost(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		case "/hang":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		default:
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%d%s", n, strings.Repeat("x", 32<<10))
		}
	}))
	defer close(hang)
	c := client(t, p, ClientOptions{})
	post := func(path string, body int, timeout time.Duration) (*Answer, error) {
		u, err := p.ParseURL("url", "http://inspector.internal"+path)
		if err != nil {
			t.Fatal(err)
		}
		to, err := NewTarget(http.MethodPost, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := new(Answer)
		return a, c.Do(t.Context(), &Request{Target: to, Body: make([]byte, body), Timeout: timeout}, a)
	}
	for _, size := range []int{0, 1, 16 << 10, 17 << 10, 1 << 20, 9 << 20} {
		if a, err := post("/read", size, 20*time.Second); err != nil || !strings.HasPrefix(string(a.Body), fmt.Sprintf("%dx", size)) {
			t.Errorf("%d bytes: %.20q, %v", size, a.Body, err)
		}
		if a, err := post("/early", size, 20*time.Second); a.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d bytes refused early: %d, %v", size, a.Status, err)
		}
	}
	if _, err := post("/hang", 1, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if a, err := post("/read", 3, 20*time.Second); err != nil || !strings.HasPrefix(string(a.Body), "3x") {
		t.Errorf("%.20q, %v", a.Body, err)
	}
}

func TestWithinMayBeGone(t *testing.T) {
	gone := errors.New("gone")
	p := New(Options{Within: map[string]func(context.Context) (net.Conn, error){"inspector.internal": func(context.Context) (net.Conn, error) { return nil, gone }}})
	if _, err := get(t, client(t, p, ClientOptions{}), "http://inspector.internal/"); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}
