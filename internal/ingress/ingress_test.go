package ingress_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eventhose/eventhose/internal/ingress"
)

// tell answers all that a handler can see of a request. /none reads no body, /half a part of it, /empty answers 204, /large more than
// fits any buffer, /close ends the connection.
func tell(w http.ResponseWriter, r *http.Request) {
	var body []byte
	var err error
	switch r.URL.Path {
	case "/in/none":
	case "/in/half":
		body, err = io.ReadAll(io.LimitReader(r.Body, 3))
	default:
		body, err = io.ReadAll(r.Body)
	}
	switch r.URL.Path {
	case "/in/empty":
		w.WriteHeader(http.StatusNoContent)
		return
	case "/in/close":
		w.Header().Set("Connection", "close")
	case "/in/large":
		w.Header()["X-Two"] = []string{"1", "2"}
		_, _ = w.Write(bytes.Repeat([]byte("0123456789"), 50_000))
		return
	}
	if r.Method == http.MethodGet {
		w.Header().Set("X-Other", "net/http's\r\nX-Split: no")
	}
	w.Header()["X-Two"] = []string{"1", "2"}
	if strings.Contains(r.URL.RawQuery, "status=") {
		w.WriteHeader(http.StatusTeapot)
	}
	fmt.Fprintf(w, "%s %q %q %q %q %s %d.%d host=%q length=%d close=%v te=%q pattern=%q\n", r.Method, r.RequestURI, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.Proto,
		r.ProtoMajor, r.ProtoMinor, r.Host, r.ContentLength, r.Close, r.TransferEncoding, r.Pattern)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(w, "%s: %q\n", name, r.Header[name])
	}
	fmt.Fprintf(w, "%d bytes %q %v\n", len(body), body[:min(len(body), 100)], err)
}

func limited(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, Protocols: protocols}
}

func isPlain(path string) bool { return strings.HasPrefix(path, "/in/") }

// serve starts a server of this package on a network, tcp or unix.
func serve(t testing.TB, network string, h http.HandlerFunc) (*ingress.Server, net.Addr) {
	t.Helper()
	l := listen(t, network)
	s := ingress.New(limited(h), isPlain, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr()
}

// reference starts net/http's own server.
func reference(t testing.TB, network string, h http.HandlerFunc) net.Addr {
	t.Helper()
	l := listen(t, network)
	s := limited(h)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-served })
	return l.Addr()
}

func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" { // leaves no port taken when a connection ends: fuzzing takes very many
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t testing.TB, address net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(address.Network(), address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// send sends bytes in pieces, says that there is nothing more, and answers all that comes back, as net/http's client reads it.
func send(t testing.TB, address net.Addr, pieces ...[]byte) string {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	go func() {
		for _, p := range pieces {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
		_ = c.(interface{ CloseWrite() error }).CloseWrite() // the other side may have ended it
	}()
	return answers(c)
}

// answers reads answers until the connection ends.
func answers(c io.Reader) string {
	var all strings.Builder
	for r := bufio.NewReader(c); ; {
		resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
		if err != nil {
			return all.String() // the end; it may be a reset, since either server may have left something unread
		}
		body, err := io.ReadAll(resp.Body)
		resp.Header.Del("Date")
		// How an answer is framed is each one's own choice; that a connection ends is seen by what is not answered any more.
		resp.Header.Del("Content-Length")
		fmt.Fprintf(&all, "%s\n", resp.Status)
		for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
			fmt.Fprintf(&all, "  %s: %q\n", name, resp.Header[name])
		}
		if errors.Is(err, syscall.ECONNRESET) {
			err = nil // as above
		}
		fmt.Fprintf(&all, "  %d %x %.300s %v\n", len(body), sha256.Sum256(body), body, err)
	}
}

const host = "Host: hose.example\r\n"

// requests are what is plain, what nearly is, and what tries to be read in two ways.
var requests = []string{
	"POST /in/src_1 HTTP/1.1\r\n" + host + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	"POST /in/src_1?a=b&c=%20d HTTP/1.1\r\n" + host + "stripe-signature: t=1,v1=00\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 5\r\nConnection: Keep-Alive\r\n\r\nhello",
	"POST /in/src_1 HTTP/1.1\r\n" + host + "\r\n",
	"POST /in/src_1 HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n",
	"POST /in/empty HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/none HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/half HTTP/1.1\r\n" + host + "Content-Length: 30000\r\n\r\n" + strings.Repeat("x", 30000),
	"POST /in/large HTTP/1.1\r\n" + host + "Content-Length: 100000\r\n\r\n" + strings.Repeat("y", 100000),
	"POST /in/close HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/x?status=1 HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/x? HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /other HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"GET /in/x HTTP/1.1\r\n" + host + "\r\n",
	"PUT /in/x HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx",
	"POST /in/x HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 4\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 003\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nX-Folded: a\r\n b\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nX-Tab:\ta\tb\t\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nX-Nul: a\x00b\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nX-Old: caf\xe9  \r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nX Y: a\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\n: a\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nnothing\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nX_y.z: a\r\n!#$%: b\r\n\r\nabc",
	"POST /in/x HTTP/1.1\n" + "Host: a\nContent-Length: 3\n\nabc",
	"POST /in/x HTTP/1.1\r\nHost: a\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\nHost: a\rContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\nHost:\r\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\nHost: a/b\r\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.0\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.0\r\n" + host + "Content-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
	"POST /in/x HTTP/1.2\r\n" + host + "\r\n",
	"POST /in/x\r\n" + host + "\r\n",
	"POST  /in/x HTTP/1.1\r\n" + host + "\r\n",
	"POST /in/x  HTTP/1.1\r\n" + host + "\r\n",
	"POST /in/x HTTP/1.1 \r\n" + host + "\r\n",
	"post /in/x HTTP/1.1\r\n" + host + "\r\n",
	"POST /in/a%2Fb HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in//b HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/../b HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/b;c HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/b#c HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/b?c#d HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/b?\"<>` HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST http://other.example/in/b HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST * HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nConnection: close\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nConnection: keep-alive, close\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nExpect: more\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nPragma: no-cache\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTE: trailers\r\nTrailer: X\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Length: 30\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "Content-Le",
	"POST /in/x HTTP/1.1\r\n" + host + "X-Long: " + strings.Repeat("z", 5000) + "\r\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + "X-Longer: " + strings.Repeat("z", 80_000) + "\r\nContent-Length: 3\r\n\r\nabc",
	"POST /in/x HTTP/1.1\r\n" + host + strings.Repeat("X-Many: 1\r\n", 100) + "Content-Length: 3\r\n\r\nabc",
	"\r\n\r\nPOST /in/x HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"POST /in/ HTTP/1.1\r\nHost:0\r\n\r\n0",
	"POST /in/ HTTP/1.1\r\nHost:0\r\n\r\n\r\nPO",
	"POST /in/ HTTP/1.1\r\nHost:0\r\n\r\n\r\nP",
	"POST /in/ HTTP/1.1\r\nHost:0\r\n\r\n\r\n\r\n",
	"POST /in/ HTTP/1.1\r\nHost:0\r\n\r\n\r\n\r\nPO",
	"P", "POST", "POST ", "", "\x16\x03\x01\x02\x00",
}

// differs sends the same bytes to both servers.
func differs(t testing.TB, ours, theirs net.Addr, pieces ...[]byte) {
	t.Helper()
	var got, want string
	var both sync.WaitGroup
	both.Go(func() { got = send(t, ours, pieces...) })
	both.Go(func() { want = send(t, theirs, pieces...) })
	both.Wait()
	if got != want {
		t.Errorf("%.300q\nis answered\n%s\nand by net/http\n%s", pieces, got, want)
	}
}

// Whatever comes is answered as net/http answers it: alone, between others on one connection, and torn in two at many places.
func TestAsNetHTTP(t *testing.T) {
	_, ours := serve(t, "unix", tell)
	theirs := reference(t, "unix", tell)
	before := "POST /in/before HTTP/1.1\r\n" + host + "Content-Length: 6\r\n\r\nbefore"
	after := "POST /in/after HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nafter"
	for i, text := range requests {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			differs(t, ours, theirs, []byte(text))
			differs(t, ours, theirs, []byte(before+text+after))
			for at := i % 4; at < min(len(text), 150); at += 4 {
				differs(t, ours, theirs, []byte(before+text[:at]), []byte(text[at:]+after))
			}
		})
	}
}

func FuzzAsNetHTTP(f *testing.F) {
	for _, text := range requests {
		if len(text) < 1000 { // what is long takes long to vary
			f.Add([]byte(text), uint16(len(text)/2))
			f.Add([]byte(text+text), uint16(len(text)))
		}
	}
	_, ours := serve(f, "unix", tell)
	theirs := reference(f, "unix", tell)
	f.Fuzz(func(t *testing.T, text []byte, at uint16) {
		n := min(int(at), len(text))
		differs(t, ours, theirs, text[:n], text[n:])
	})
}

// request is a plain one.
func request(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", path, host, len(body), body)
}

// A connection that has been given to net/http works on, with all that is its own: upgrades, HTTP/2, answers that go on.
func TestGivenAway(t *testing.T) {
	_, address := serve(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if err := http.NewResponseController(w).Flush(); err != nil {
			w.WriteHeader(http.StatusAccepted)
		}
		fmt.Fprint(w, r.Proto)
	})
	for _, c := range []struct{ name, method, path, want string }{
		{"plain", http.MethodPost, "/in/x", "202 HTTP/1.1"},
		{"another path", http.MethodPost, "/x", "200 HTTP/1.1"},
		{"and then plain", http.MethodPost, "/in/x", "200 HTTP/1.1"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+address.String()+c.path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := fmt.Sprintf("%d %s", resp.StatusCode, body); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Post("http://"+address.String()+"/in/x", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "HTTP/2.0" {
		t.Errorf("HTTP/2: %s", body)
	}
}

// A handler that panics ends its connection, and the others go on.
func TestPanic(t *testing.T) {
	_, address := serve(t, "tcp", func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/in/panic" {
			panic(http.ErrAbortHandler)
		}
	})
	if got := send(t, address, []byte(request("/in/x", "1")+request("/in/panic", "2")+request("/in/x", "3"))); strings.Count(got, "200 OK") != 1 {
		t.Errorf("answered is\n%s", got)
	}
	if got := send(t, address, []byte(request("/in/x", "1"))); !strings.HasPrefix(got, "200 OK") {
		t.Errorf("answered is\n%s", got)
	}
}

// Shutdown waits for the request that is under way, which is answered and told that it is the last; a connection between two requests
// ends at once, and no other is taken.
func TestShutdown(t *testing.T) {
	entered, finish := make(chan struct{}), make(chan struct{})
	s, address := serve(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/in/slow" {
			close(entered)
			<-finish
		}
		_, _ = io.Copy(w, r.Body)
	})
	begin := func(text string) (net.Conn, *bufio.Reader) {
		c := dial(t, address)
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c, bufio.NewReader(c)
	}
	_, idle := begin(request("/in/x", "idle"))
	resp, err := http.ReadResponse(idle, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	slow, answer := begin(strings.TrimSuffix(request("/in/slow", "in two parts"), "parts"))
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	if _, err := idle.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection: %v", err)
	}
	if c, err := net.Dial("tcp", address.String()); err == nil {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection is taken")
		}
		c.Close()
	}
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown does not wait: %v", err)
	default:
	}
	close(finish)
	if _, err := io.WriteString(slow, "parts"); err != nil {
		t.Fatal(err)
	}
	resp, err = http.ReadResponse(answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "in two parts" || !resp.Close {
		t.Errorf("the last answer: %q, close %v, %v", body, resp.Close, err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// A Shutdown whose time is up says so; Close then ends what is left.
func TestShutdownInVain(t *testing.T) {
	entered := make(chan struct{})
	s, address := serve(t, "tcp", func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		_, err := io.Copy(io.Discard, r.Body) // until Close
		if err == nil {
			t.Error("the body has an end")
		}
	})
	c := dial(t, address)
	if _, err := io.WriteString(c, "POST /in/x HTTP/1.1\r\n"+host+"Content-Length: 10\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	s.Close()
}

// What is larger than what may be left of a body ends the connection after the answer, which arrives although the client is still
// sending.
func TestUnreadBody(t *testing.T) {
	_, address := serve(t, "tcp", tell)
	got := send(t, address, []byte(request("/in/none", strings.Repeat("z", 10<<20))+request("/in/x", "never")))
	if !strings.HasPrefix(got, "200 OK\n") || strings.Contains(got, "never") {
		t.Errorf("answered is\n%s", got)
	}
}
