package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eventhose/eventhose/internal/sinktest"
)

// kept answers the one idle connection.
func kept(t testing.TB, c *Client) *conn {
	t.Helper()
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.pool.idle != 1 {
		t.Fatalf("%d connections are kept", c.pool.idle)
	}
	return c.pool.newest
}

// awaitNoise waits until something has arrived on an idle connection.
func awaitNoise(t testing.TB, c *conn) {
	t.Helper()
	for c.silent() {
		if t.Context().Err() != nil {
			t.Fatal("nothing arrives")
		}
		runtime.Gosched()
	}
}

// What a receiver sends beyond its answer is never the answer to the next request.
func TestNothingIsLeftForTheNext(t *testing.T) {
	server, options := certified(t)
	for _, over := range []struct {
		name   string
		config *tls.Config
	}{{"http", nil}, {"https", server}} {
		for name, parts := range map[string][]string{
			"two answers at once":        {good + smuggled},
			"two answers, two records":   {good, smuggled},
			"a body longer than it says": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + "HTTP/1.1 299 x"},
			"a body where none may be":   {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n" + smuggled},
			"more after the last chunk":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n" + smuggled},
			"a blank line":               {good + "\r\n"},
		} {
			t.Run(over.name+", "+name, func(t *testing.T) {
				var n atomic.Int64
				to := served(t, over.config, func(c net.Conn) {
					for r := bufio.NewReader(c); request(r) == nil; {
						if n.Add(1) == 1 {
							together(c, parts...)
						} else {
							io.WriteString(c, good)
						}
					}
				})
				c := client(t, local(), options)
				for range 3 {
					if a, err := post(t, c, to, []byte("{}")); err != nil || a.Status == 299 || a.Status/100 != 2 {
						t.Errorf("%d, %v", a.Status, err)
					}
				}
				if got := n.Load(); got != 3 {
					t.Errorf("%d requests arrived", got)
				}
			})
		}
		t.Run(over.name+", unsolicited", func(t *testing.T) {
			quiet := make(chan struct{})
			var n atomic.Int64
			to := served(t, over.config, func(c net.Conn) {
				for r := bufio.NewReader(c); request(r) == nil; {
					io.WriteString(c, good)
					if n.Add(1) == 1 {
						<-quiet
						io.WriteString(c, smuggled)
					}
				}
			})
			p := local()
			c := client(t, p, options)
			if _, err := post(t, c, to, nil); err != nil {
				t.Fatal(err)
			}
			idle := kept(t, c)
			if !idle.silent() {
				t.Fatal("noise before anything was sent")
			}
			close(quiet)
			awaitNoise(t, idle)
			if a, err := post(t, c, to, nil); err != nil || a.Status != 200 || p.Stats().Connects != 2 {
				t.Errorf("%d, %v, %d connects", a.Status, err, p.Stats().Connects)
			}
		})
		t.Run(over.name+", closed", func(t *testing.T) {
			to := served(t, over.config, func(c net.Conn) {
				if request(bufio.NewReader(c)) == nil {
					io.WriteString(c, good)
				}
			})
			p := local()
			c := client(t, p, options)
			for i := range 3 {
				if a, err := post(t, c, to, nil); err != nil || a.Status != 200 || p.Stats().Connects != uint64(i+1) {
					t.Errorf("%d, %v, %d connects", a.Status, err, p.Stats().Connects)
				}
				awaitNoise(t, kept(t, c))
			}
		})
	}
}

// A connection is kept after the answers that end by themselves, and after no others.
func TestWhatIsKept(t *testing.T) {
	large := strings.Repeat("a", MaxBody)
	for _, c := range []struct {
		answer string
		status int
		body   string
		kept   bool
	}{
		{good, 200, "ok", true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", true},
		{"HTTP/1.1 204 No Content\r\n\r\n", 204, "", true},
		{"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", 304, "", true},
		{"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\n\r\n", 500, "ok!", true},
		{"HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n", 200, "ok", true},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + good, 200, "ok", true},
		{"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", 200, "ok", true},
		{fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", MaxBody, large), 200, large, true},
		{fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sb", MaxBody+1, large), 200, large, false},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
		{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
		{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 101, "", false},
		{"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0, "", false},
		{"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", 0, "", false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 0, "", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 0, "", false},
	} {
		to := served(t, nil, func(conn net.Conn) {
			for r := bufio.NewReader(conn); request(r) == nil; {
				io.WriteString(conn, c.answer)
			}
		})
		p := local()
		cl := client(t, p, ClientOptions{})
		connects := uint64(2)
		if c.kept {
			connects = 1
		}
		for range 2 {
			a, err := post(t, cl, to, []byte("{}"))
			if a.Status != c.status || string(a.Body) != c.body || (err == nil) != (c.status != 0) {
				t.Errorf("%.60q: %d %.20q %v", c.answer, a.Status, a.Body, err)
			}
		}
		if n := p.Stats().Connects; n != connects {
			t.Errorf("%.60q: %d connects, want %d", c.answer, n, connects)
		}
	}
}

// A receiver costs at most 64 KiB of headers and as much of body, whatever it sends and claims.
func TestReadingIsBounded(t *testing.T) {
	for _, s := range sinktest.HostileHTTP() {
		t.Run(s.Name, func(t *testing.T) {
			address, stop, err := s.Serve()
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			p := local()
			n := counted(p)
			a := new(Answer)
			err = client(t, p, ClientOptions{}).Do(t.Context(), &Request{Target: target(t, "POST", "http://"+address), Timeout: max(s.Timeout, time.Second)}, a)
			if n.Load() > maxHeaderBytes+MaxBody+4*readBuffer || len(a.Body) > MaxBody {
				t.Errorf("read %d bytes, %d of body (%v)", n.Load(), len(a.Body), err)
			}
			if s.Name == "endless body" && len(a.Body) != MaxBody {
				t.Errorf("the count is wrong: %d", len(a.Body))
			}
		})
	}
	to := served(t, nil, func(c net.Conn) {
		request(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1;"+strings.Repeat("x", 14)+"\r\na\r\n", MaxBody))
		io.Copy(io.Discard, c)
	})
	p := local()
	n := counted(p)
	if a, err := post(t, client(t, p, ClientOptions{}), to, nil); !errors.Is(err, errTooMuch) || n.Load() > maxHeaderBytes+maxBodyWire {
		t.Errorf("chunks of one byte: %d bytes read for %d, %v", n.Load(), len(a.Body), err)
	}
}

// faulty breaks in a Write, given by its number, after n bytes.
type faulty struct {
	net.Conn
	fail, n int
	writes  int
}

func (f *faulty) Write(b []byte) (int, error) {
	if f.writes++; f.writes == f.fail {
		n, _ := f.Conn.Write(b[:f.n])
		f.Conn.Close()
		return n, syscall.EPIPE
	}
	return f.Conn.Write(b)
}

// Only a kept connection that took no byte is replaced, and only once.
func TestWhatIsSentAgain(t *testing.T) {
	for _, c := range []struct {
		name          string
		fail, n       int // of each connection
		size          int
		failed        int // of three requests
		connects, got int
	}{
		{"the first write", 1, 0, 10, 3, 3, 0},
		{"the second write, with nothing sent", 2, 0, 10, 0, 3, 3},
		{"the second write, within", 2, 50, 10, 1, 2, 2},
		{"a long body, with nothing sent", 2, 0, maxOneWrite + 1, 3, 3, 0}, // head and body are two writes here
	} {
		t.Run(c.name, func(t *testing.T) {
			var got atomic.Int64
			to := served(t, nil, func(conn net.Conn) {
				for r := bufio.NewReader(conn); request(r) == nil; io.WriteString(conn, good) {
					got.Add(1) // before the answer, which the test goes on with
				}
			})
			p := local()
			real := p.raw
			p.raw = func(ctx context.Context, control controlFunc, a netip.AddrPort) (net.Conn, error) {
				conn, err := real(ctx, control, a)
				if err != nil {
					return nil, err
				}
				return &faulty{Conn: conn, fail: c.fail, n: c.n}, nil
			}
			cl := client(t, p, ClientOptions{})
			failed := 0
			for range 3 {
				if a, err := post(t, cl, to, make([]byte, c.size)); err != nil {
					failed++
				} else if a.Status != 200 {
					t.Errorf("%d", a.Status)
				}
			}
			if n := p.Stats().Connects; failed != c.failed || n != uint64(c.connects) {
				t.Errorf("%d failed and %d connects, want %d and %d", failed, n, c.failed, c.connects)
			}
			cl.Close()
			if n := int(got.Load()); n != c.got {
				t.Errorf("%d arrived, want %d", n, c.got)
			}
		})
	}
}

// A receiver that refuses a long request without reading it is heard.
func TestEarlyAnswer(t *testing.T) {
	server, options := certified(t)
	body := bytes.Repeat([]byte("a"), 64<<20)
	for _, config := range []*tls.Config{nil, server} {
		to := served(t, config, func(c net.Conn) {
			if r := bufio.NewReader(c); head(r) == nil {
				io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
				var one [1]byte
				c.Read(one[:]) // then it reads no more, and waits for the end
				<-t.Context().Done()
			}
		})
		p := local()
		c := client(t, p, options)
		if a, err := post(t, c, to, body); err != nil || a.Status != 413 {
			t.Errorf("%d, %v", a.Status, err)
		}
		if c.pool.idle != 0 {
			t.Error("half a request's connection is kept")
		}
	}
}

// A receiver that refuses a request for its long headers, without reading them, is heard as well.
func TestEarlyAnswerToHeaders(t *testing.T) {
	to := served(t, nil, func(c net.Conn) {
		c.Read(make([]byte, 1))
		io.WriteString(c, "HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n")
		<-t.Context().Done() // it reads no more, and waits for the end
	})
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"X-Long": {strings.Repeat("a", 16<<20)}} // more than any socket's buffer
	long, err := NewTarget(http.MethodPost, u, header)
	if err != nil {
		t.Fatal(err)
	}
	a := new(Answer)
	if err := client(t, local(), ClientOptions{}).Do(t.Context(), &Request{Target: long, Body: []byte("{}"), Timeout: 2 * time.Second}, a); err != nil || a.Status != 431 {
		t.Errorf("%d, %v while %s", a.Status, err, a.Stage)
	}
}

// What a receiver says before its answer (1xx) cuts off no long request, and hides no refusal of one. It is bounded as all
// headers are.
func TestInterimAnswers(t *testing.T) {
	server, options := certified(t)
	body := bytes.Repeat([]byte("a"), 16<<20)
	const interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	long := "HTTP/1.1 103 Early Hints\r\nLink: </" + strings.Repeat("a", 2*readBuffer) + ">\r\n\r\n"
	even := fmt.Sprintf("HTTP/1.1 102 Processing\r\nX: %032d\r\n\r\n", 0) // as many bytes as what is read can be divided by
	for _, config := range []*tls.Config{nil, server} {
		whole := served(t, config, func(c net.Conn) {
			for r := bufio.NewReader(c); head(r) == nil; {
				io.WriteString(c, interim)
				n, _ := io.CopyN(io.Discard, r, 1<<20)
				io.WriteString(c, long)
				m, _ := io.CopyN(io.Discard, r, int64(len(body))-n)
				io.WriteString(c, interim)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%8d", n+m)
			}
		})
		p := local()
		c := client(t, p, options)
		for range 2 {
			if a, err := post(t, c, whole, body); err != nil || a.Status != 200 || string(a.Body) != fmt.Sprint(len(body)) {
				t.Errorf("%d %q, %v while %s", a.Status, a.Body, err, a.Stage)
			}
		}
		if n := p.Stats().Connects; n != 1 {
			t.Errorf("%d connects", n)
		}
		refused := served(t, config, func(c net.Conn) {
			if head(bufio.NewReader(c)) == nil {
				io.WriteString(c, interim+"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
				<-t.Context().Done()
			}
		})
		if a, err := post(t, c, refused, body); err != nil || a.Status != 413 {
			t.Errorf("%d, %v", a.Status, err)
		}
		endless := served(t, config, func(c net.Conn) {
			if head(bufio.NewReader(c)) == nil {
				for _, err := io.WriteString(c, even); err == nil; _, err = io.WriteString(c, even) {
				}
			}
		})
		if a, err := post(t, c, endless, body); !errors.Is(err, errTooMuch) || a.Status != 0 || a.Stage != StageRead {
			t.Errorf("%d, %v while %s", a.Status, err, a.Stage)
		}
		malformed := served(t, config, func(c net.Conn) {
			if head(bufio.NewReader(c)) == nil {
				io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink\r\n"+smuggled)
				<-t.Context().Done()
			}
		})
		if a, err := post(t, c, malformed, body); err == nil || a.Status != 0 {
			t.Errorf("%d, %v", a.Status, err)
		}
	}
}

// A long body arrives whole, over either, again and again.
func TestLongBody(t *testing.T) {
	server, options := certified(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, config := range []*tls.Config{nil, server} {
		to := served(t, config, func(c net.Conn) {
			for r := bufio.NewReader(c); ; {
				request, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				got, err := io.ReadAll(request.Body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n%-4t", err == nil && bytes.Equal(got, body))
			}
		})
		p := local()
		c := client(t, p, options)
		for range 3 {
			if a, err := post(t, c, to, body); err != nil || string(a.Body) != "true" {
				t.Errorf("%q, %v", a.Body, err)
			}
		}
		if n := p.Stats().Connects; n != 1 {
			t.Errorf("%d connects", n)
		}
	}
}
