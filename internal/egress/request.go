package egress

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Target is where requests go, and what all of them begin with, as it travels. It does not change.
type Target struct {
	place      place
	serverName string
	head       []byte
	request    *http.Request // what answers are read for
}

// place is what connections are kept for.
type place struct {
	https   bool
	address string // host:port
}

// NewTarget prepares requests to a URL, as Policy.ParseURL answers it, with headers that all of them have. method is GET or POST.
func NewTarget(method string, u *url.URL, header http.Header) (*Target, error) {
	if method != http.MethodGet && method != http.MethodPost {
		return nil, errors.New("egress: the method must be GET or POST")
	}
	port := u.Port()
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("egress: the scheme must be https or http")
	case u.Hostname() == "" || !httpguts.ValidHostHeader(u.Host):
		return nil, errors.New("egress: the URL has no host that can be sent")
	case port == "" && u.Scheme == "https":
		port = "443"
	case port == "":
		port = "80"
	}
	t := &Target{
		place:      place{u.Scheme == "https", net.JoinHostPort(u.Hostname(), port)},
		serverName: u.Hostname(),
		request:    &http.Request{Method: method},
	}
	t.head = append(t.head, method...)
	t.head = append(t.head, ' ')
	t.head = appendRequestURI(t.head, u.RequestURI())
	t.head = append(t.head, " HTTP/1.1\r\n"...)
	t.head = AppendHeader(t.head, "Host", u.Host)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
				return nil, fmt.Errorf("egress: the header %q cannot be sent", name)
			}
			t.head = AppendHeader(t.head, name, value)
		}
	}
	return t, nil
}

// appendRequestURI appends what follows the method, with every byte in it escaped that could end it: url.Parse lets a
// space in the query pass.
func appendRequestURI(b []byte, uri string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(uri) {
		if c := uri[i]; c <= ' ' || c > '~' {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// AppendHeader appends one header line for Request.Header. name is a constant of the caller's. A control character in the
// value, which no caller should let come here, goes as a space, so that no value can begin a line.
func AppendHeader[T string | []byte](b []byte, name string, value T) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	start := len(b)
	b = append(b, value...)
	for i, c := range b[start:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			b[start+i] = ' '
		}
	}
	return append(b, "\r\n"...)
}

// Request is one request to a target. It is not kept after Do.
type Request struct {
	Target *Target
	// Header is the lines that it has beside the target's, by AppendHeader. Content-Length is not among them.
	Header []byte
	Body   []byte
	// Timeout is for the whole exchange, from waiting for a connection to the end of the answer.
	Timeout time.Duration
	// Still, if set, is asked right before the first byte goes out, on a connection that is open. If it answers false none
	// goes, and the error is ErrHeldBack.
	Still func() bool
}

// AppendHead appends all that comes before the body, as it travels.
func (r *Request) AppendHead(b []byte) []byte {
	b = append(b, r.Target.head...)
	b = append(b, r.Header...)
	if len(r.Body) > 0 || r.Target.request.Method == http.MethodPost {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// maxOneWrite is the length of the longest request that is written at once, its body copied behind its head: it fits the buffer
// of any socket, so that writing it waits for nobody.
const maxOneWrite = 16 << 10

// heads lends what requests are written from.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// Answer is what came of an exchange. It may be used for the next one, which overwrites it.
type Answer struct {
	// Status is 0 if no whole head of an answer came. Informational answers are not shown.
	Status int
	Header http.Header
	// Body is at most MaxBody bytes, as they travelled: nothing is decompressed. Its bytes are the Answer's.
	Body []byte

	// Started is when the exchange began, Stage how far it came.
	Started time.Time
	Stage   Stage
	// Address is what was connected to, or last tried: "192.0.2.1:443".
	Address string
	// How long the parts took; 0 for those that there were none of. Wait is from the end of the request to the first byte
	// of the answer.
	DNS, Connect, TLS, Wait time.Duration
}

func (a *Answer) reset() {
	*a = Answer{Body: a.Body[:0], Started: time.Now(), Stage: StageStart}
}

// Forget lets go of what was received, and of a body's buffer that is larger than most, before an Answer is lent on.
func (a *Answer) Forget() {
	a.Header = nil
	if cap(a.Body) > maxKeptBuffer {
		a.Body = nil
	}
}

const maxKeptBuffer = 16 << 10

// readBody reads at most MaxBody bytes and reports whether that was all.
func (a *Answer) readBody(body io.Reader) (whole bool, err error) {
	for len(a.Body) < MaxBody {
		if len(a.Body) == cap(a.Body) {
			a.Body = slices.Grow(a.Body, max(512, min(len(a.Body), MaxBody-len(a.Body))))
		}
		n, err := body.Read(a.Body[len(a.Body):min(cap(a.Body), MaxBody)])
		a.Body = a.Body[:len(a.Body)+n]
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}
