package sinktest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

// HTTP answers the scenarios of receivers that speak HTTP, or pretend to. The first is one that takes everything.
func HTTP() []Scenario {
	all := []Scenario{
		{Name: "taken", Serve: Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Want: Want{Outcome: eventhose.OutcomeTaken, Status: 200}},
	}
	all = append(all, httpStatuses()...)
	all = append(all, httpRetryAfter()...)
	return append(all, HostileHTTP()...)
}

func status(code int, headers ...string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\n\r\n", code, http.StatusText(code), strings.Join(append(headers, ""), "\r\n"))
}

func httpStatuses() (all []Scenario) {
	add := func(want Want, codes ...int) {
		for _, code := range codes {
			want.Status = code
			all = append(all, Scenario{Name: fmt.Sprint("status ", code), Serve: Answer(status(code, "Location: http://127.0.0.1:1/elsewhere")), Want: want})
		}
	}
	failed := func(reason eventhose.Reason, slow bool) Want {
		return Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{reason}, Slow: slow}
	}
	add(Want{Outcome: eventhose.OutcomeTaken}, 200, 201, 202, 204, 299)
	add(failed(eventhose.ReasonRedirect, false), 300, 301, 302, 303, 304, 307, 308)
	add(failed(eventhose.ReasonStatus, false), 400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 501, 505, 599)
	add(failed(eventhose.ReasonStatus, true), 429, 502, 503, 504)
	add(Want{Outcome: eventhose.OutcomeGone, Reasons: []eventhose.Reason{eventhose.ReasonStatus}}, 410)
	return all
}

func httpRetryAfter() (all []Scenario) {
	for value, want := range map[string]time.Duration{"120": 2 * time.Minute, "0": time.Second, "99999999": 24 * time.Hour, "soon": 0, "-1": 0,
		"Fri, 31 Dec 9999 23:59:59 GMT": 24 * time.Hour, "Thu, 01 Jan 1970 00:00:00 GMT": time.Second} {
		all = append(all, Scenario{Name: "retry after " + value, Serve: Answer(status(503, "Retry-After: "+value)),
			Want: Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{eventhose.ReasonStatus}, Status: 503, Slow: true, RetryAfter: want}})
	}
	return all
}

// HostileHTTP answers receivers that mean harm. Each must end within its time-out and cost next to nothing.
func HostileHTTP() []Scenario {
	const short = time.Second
	junk := bytes.Repeat([]byte("all work and no play makes jack a dull boy "), 1<<10)
	failed := func(reasons ...eventhose.Reason) Want {
		return Want{Outcome: eventhose.OutcomeFailed, Reasons: reasons}
	}
	slow := func() Want {
		w := failed(eventhose.ReasonTimeout)
		w.Slow = true
		return w
	}
	bomb := gzipBomb()
	return []Scenario{
		{Name: "endless body", Timeout: 5 * time.Second, Want: Want{Outcome: eventhose.OutcomeTaken, Status: 200},
			Serve: Listen(after("HTTP/1.1 200 OK\r\n\r\n", func(c net.Conn) { repeat(c, junk) }))},
		{Name: "endless chunks", Timeout: 5 * time.Second, Want: Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{eventhose.ReasonStatus}, Status: 500},
			Serve: Listen(after("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", func(c net.Conn) {
				repeat(c, fmt.Appendf(nil, "%x\r\n%s\r\n", len(junk), junk))
			}))},
		{Name: "gzip bomb", Timeout: 5 * time.Second, Want: Want{Outcome: eventhose.OutcomeTaken, Status: 200},
			Serve: Listen(after("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", func(c net.Conn) { repeat(c, bomb) }))},
		{Name: "dripping body", Timeout: short, Want: slow(), Serve: Listen(after("HTTP/1.1 200 OK\r\n\r\n", func(c net.Conn) { drip(c, junk) }))},
		{Name: "dripping head", Timeout: short, Want: slow(), Serve: Listen(after("", func(c net.Conn) {
			drip(c, []byte("HTTP/1.1 200 OK\r\nX-Slow: "+strings.Repeat("a", 1<<16)))
		}))},
		{Name: "silence", Timeout: short, Want: slow(), Serve: Silent(nil)},
		{Name: "head without end", Timeout: 5 * time.Second, Want: failed(eventhose.ReasonProtocol),
			Serve: Listen(after("HTTP/1.1 200 OK\r\n", func(c net.Conn) { repeat(c, []byte("X-Junk: "+strings.Repeat("a", 4000)+"\r\n")) }))},
		{Name: "line without end", Timeout: 5 * time.Second, Want: failed(eventhose.ReasonProtocol),
			Serve: Listen(after("HTTP/1.1 200 OK\r\nX-Junk: ", func(c net.Conn) { repeat(c, bytes.Repeat([]byte("a"), 1<<15)) }))},
		{Name: "flood of 1xx", Timeout: 5 * time.Second, Want: failed(eventhose.ReasonProtocol),
			Serve: Listen(after("", func(c net.Conn) {
				repeat(c, bytes.Repeat([]byte("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), 100))
			}))},
		{Name: "reset", Want: failed(eventhose.ReasonReset), Serve: Listen(after("", reset))},
		{Name: "reset within the body", Want: failed(eventhose.ReasonReset), Serve: Listen(after("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", reset))},
		{Name: "closed at once", Want: failed(eventhose.ReasonReset), Serve: Listen(hangUp)},
		{Name: "cut body", Want: failed(eventhose.ReasonReset), Serve: Listen(after("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", hangUp))},
		{Name: "not HTTP", Want: failed(eventhose.ReasonProtocol), Serve: Listen(after("220 mail.example.com ESMTP\r\n", hangUp))},
		{Name: "TLS alert", Want: failed(eventhose.ReasonProtocol), Serve: Listen(after("\x15\x03\x01\x00\x02\x02\x28", hangUp))},
		{Name: "bad chunk", Want: failed(eventhose.ReasonProtocol), Serve: Listen(after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", hangUp))},
		{Name: "negative length", Want: failed(eventhose.ReasonProtocol), Serve: Listen(after("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", hangUp))},
		{Name: "echo", Want: Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{eventhose.ReasonStatus}, Status: 400}, Serve: Listen(echo)},
		{Name: "binary body and cookies", Want: Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{eventhose.ReasonStatus}, Status: 500},
			Serve: Answer("HTTP/1.1 500 No\r\nSet-Cookie: a=b\r\nX-Control: a\tb\r\nX-Binary: \xff\xfe\r\n" + manyHeaders() +
				"Content-Length: 40000\r\n\r\n" + strings.Repeat("\xff\x00\x1bé", 8000))},
	}
}

func manyHeaders() string {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, "X-Header-%d: %s\r\n", i, strings.Repeat("v", i*20))
	}
	return b.String()
}

// Receiver is the Serve of a scenario.
type Receiver = func() (address string, stop func(), err error)

// Answer serves each request on each connection the same answer, after reading it whole.
func Answer(answer string) Receiver {
	return Listen(func(c net.Conn) {
		for r := bufio.NewReader(c); readRequest(r) == nil; {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	})
}

// Silent reads requests and never answers. arrived, if set, is called once for each.
func Silent(arrived func()) Receiver {
	return Listen(func(c net.Conn) {
		if readRequest(bufio.NewReader(c)) != nil {
			return
		}
		if arrived != nil {
			arrived()
		}
		io.Copy(io.Discard, c) // until the other side, or stop, closes
	})
}

func readRequest(r *bufio.Reader) error {
	request, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, request.Body)
	return err
}

// after reads a request, writes something, and goes on with f.
func after(first string, f func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if readRequest(bufio.NewReader(c)) != nil {
			return
		}
		if _, err := io.WriteString(c, first); err == nil {
			f(c)
		}
	}
}

// repeat writes b until the other side is gone.
func repeat(c net.Conn, b []byte) {
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// drip writes a byte every 20 ms until the other side is gone: slower than any buffer fills, faster than any read times out.
func drip(c net.Conn, b []byte) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, one := range b {
		<-tick.C
		if _, err := c.Write([]byte{one}); err != nil {
			return
		}
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
}

func hangUp(net.Conn) {}

// echo answers 400 with everything it was sent, in the body and in a header.
func echo(c net.Conn) {
	request, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	var seen strings.Builder
	request.Header.Write(&seen)
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	line := request.RequestURI + " " + strings.ReplaceAll(seen.String(), "\r\n", "; ")
	answer := fmt.Sprintf("%s\n%s\n%q\n%s", request.RequestURI, seen.String(), seen.String(), body)
	fmt.Fprintf(c, "HTTP/1.1 400 %s\r\nX-Echo: %s\r\nContent-Length: %d\r\n\r\n%s", "Bad Request", line, len(answer), answer)
}

// gzipBomb answers 1 KiB that decompresses to 1 MiB; many of them in a row are one stream.
func gzipBomb() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(make([]byte, 1<<20))
	w.Close()
	return b.Bytes()
}

// Listen serves each connection to a port on 127.0.0.1 with f, whose connection is closed when it returns, at the latest
// when stop is called.
func Listen(f func(net.Conn)) Receiver {
	return func() (string, func(), error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", nil, err
		}
		var (
			wg      sync.WaitGroup
			mu      sync.Mutex
			conns   = map[net.Conn]bool{}
			stopped bool
		)
		serve := func(c net.Conn) {
			f(c)
			mu.Lock()
			delete(conns, c)
			mu.Unlock()
			c.Close()
		}
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				conns[c] = true
				late := stopped
				mu.Unlock()
				if late {
					c.Close()
					return
				}
				wg.Go(func() { serve(c) })
			}
		})
		stop := func() {
			l.Close()
			mu.Lock()
			stopped = true
			for c := range conns {
				c.Close()
			}
			mu.Unlock()
			wg.Wait()
		}
		return l.Addr().String(), stop, nil
	}
}
