package egress

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestNewTarget(t *testing.T) {
	for _, c := range []struct {
		method, url, name, value string
		want                     string // "" is refused
	}{
		{"POST", "https://example.com", "X-A", "b c", "POST / HTTP/1.1\r\nHost: example.com\r\nX-A: b c\r\n"},
		{"GET", "http://example.com:81/a%2Fb?x=1#f", "", "", "GET /a%2Fb?x=1 HTTP/1.1\r\nHost: example.com:81\r\n"},
		{"POST", "https://[2606:4700::1111]:8443/", "", "", "POST / HTTP/1.1\r\nHost: [2606:4700::1111]:8443\r\n"},
		{"POST", "https://example.com/a b?c d HTTP/1.0&é", "", "", "POST /a%20b?c%20d%20HTTP/1.0&%C3%A9 HTTP/1.1\r\nHost: example.com\r\n"},
		{"POST", "https://example.com", "X-A", "b\r\nX-B: c", ""},
		{"POST", "https://example.com", "X A", "b", ""},
		{"POST", "https://example.com", "X-A:", "b", ""},
		{"HEAD", "https://example.com", "", "", ""},
		{"POST / HTTP/1.1\r\n", "https://example.com", "", "", ""},
		{"POST", "ftp://example.com", "", "", ""},
		{"POST", "/relative", "", "", ""},
		{"POST", "https://:443/", "", "", ""},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if c.name != "" {
			h[c.name] = []string{c.value}
		}
		got, err := NewTarget(c.method, u, h)
		if (err == nil) != (c.want != "") || err == nil && string(got.head) != c.want {
			t.Errorf("%s %s: %v, %v", c.method, c.url, got, err)
		}
	}
	for to, want := range map[string]place{"https://example.com": {true, "example.com:443"}, "http://example.com/": {false, "example.com:80"}, "http://[::1]:81": {false, "[::1]:81"}} {
		if got := target(t, "GET", to); got.place != want {
			t.Errorf("%s goes to %v", to, got.place)
		}
	}
}

func TestAppendHeader(t *testing.T) {
	if got := AppendHeader([]byte("a\r\n"), "X", "b\tc\r\nY: d\x00\x7fé"); string(got) != "a\r\nX: b\tc  Y: d  é\r\n" {
		t.Errorf("%q", got)
	}
}

// Whatever the URL and the values are, what is written is one request with those headers and that body.
func FuzzRequest(f *testing.F) {
	f.Add("https://example.com/a?b=c", "value", "id", []byte("{}"))
	f.Add("https://example.com/?a b\\", "v\r\nX: y", "a\nb", []byte("POST / HTTP/1.1\r\n\r\n"))
	f.Add("http://[::1]:80//x?%0d%0a", "", "\x00", []byte(nil))
	f.Fuzz(func(t *testing.T, raw, fixed, own string, body []byte) {
		u, err := url.Parse(raw)
		if err != nil {
			return
		}
		to, err := NewTarget("POST", u, http.Header{"X-Fixed": {fixed}})
		if err != nil {
			return
		}
		r := Request{Target: to, Header: AppendHeader(nil, "X-Own", own), Body: body}
		reader := bufio.NewReader(bytes.NewReader(append(r.AppendHead(nil), body...)))
		got, err := http.ReadRequest(reader)
		if err != nil {
			t.Fatalf("%q cannot be read: %v", r.AppendHead(nil), err)
		}
		read, err := io.ReadAll(got.Body)
		if err != nil || !bytes.Equal(read, body) || len(got.Header) != 3 || got.ContentLength != int64(len(body)) || !got.ProtoAtLeast(1, 1) || got.Method != "POST" {
			t.Fatalf("%q is read as %+v with %q, %v", r.AppendHead(nil), got, read, err)
		}
		if want := strings.Trim(fixed, " \t"); got.Header.Get("X-Fixed") != want {
			t.Fatalf("%q is read as %q", want, got.Header.Get("X-Fixed"))
		}
		if _, err := reader.ReadByte(); err != io.EOF {
			t.Fatalf("something follows %q", r.AppendHead(nil))
		}
	})
}

// Whatever comes back, it is read as net/http reads it or refused, within bounds, and nothing that is left of it is kept.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{good, good + smuggled, "HTTP/1.1 103 x\r\n\r\n" + good, "HTTP/1.0 200 OK\r\n\r\nabc", "HTTP/1.1 204 x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", "220 mail\r\n"} {
		f.Add([]byte(s))
	}
	request := &http.Request{Method: "POST"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		in := bytes.NewReader(raw)
		c := &conn{budget: maxHeaderBytes}
		c.rw = struct {
			io.Reader
			io.Writer
		}{in, nil}
		c.r = bufio.NewReaderSize(c, readBuffer)
		a := new(Answer)
		h := c.readHead(request)
		err := h.err
		if err == nil {
			err = c.readBody(h.resp, a)
		}
		if len(a.Body) > MaxBody || err != nil && c.clean || a.Status != 0 && a.Status < 200 && a.Status != 101 {
			t.Fatalf("%d with %d bytes, clean %t, %v", a.Status, len(a.Body), c.clean, err)
		}
		if c.clean && (in.Len() > 0 || c.r.Buffered() > 0) {
			t.Fatalf("%q is kept with something left", raw)
		}
		if a.Status == 0 {
			return
		}
		oracle := bufio.NewReader(bytes.NewReader(raw))
		for {
			resp, err2 := http.ReadResponse(oracle, request)
			if err2 != nil {
				t.Fatalf("we read %d of %q, net/http says %v", a.Status, raw, err2)
			}
			if resp.StatusCode/100 == 1 && resp.StatusCode != 101 {
				continue
			}
			body, err2 := io.ReadAll(resp.Body)
			if resp.StatusCode != a.Status || len(body) <= MaxBody && (!bytes.Equal(body, a.Body) || (err == nil) != (err2 == nil)) {
				t.Fatalf("we read %d, %q, %v of %q, net/http %d, %q, %v", a.Status, a.Body, err, raw, resp.StatusCode, body, err2)
			}
			return
		}
	})
}
