package ingress

import (
	"bytes"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// What is plain: an HTTP/1.1 POST of a path in its simplest spelling, each header on a line of its own, at most one
// Content-Length and no Transfer-Encoding, nothing that asks for more than an answer. There is one way to read such a
// request (RFC 9112), so it does not matter who does.

type verdict int

const (
	plain   verdict = iota
	more            // of the head must come before that can be said
	another         // kind of request
)

const maxHeaders = 64

// head is the head of a plain request.
type head struct {
	path, query, host string
	header            http.Header
	length            int64 // of the body
}

const (
	method  = "POST "
	version = " HTTP/1.1"
)

// readHead reads a request's head, of n bytes. What it answers keeps nothing of b.
func readHead(b []byte, serves func(path string) bool) (h head, n int, v verdict) {
	if len(b) < len(method) {
		if string(b) != method[:len(b)] {
			return head{}, 0, another
		}
		return head{}, 0, more
	}
	if string(b[:len(method)]) != method {
		return head{}, 0, another
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if bareFeed(b) {
			return head{}, 0, another
		}
		return head{}, 0, more
	}
	line, rest, _ := strings.Cut(string(b[:end+2]), "\r\n")
	target, ok := strings.CutSuffix(line[len(method):], version)
	if !ok {
		return head{}, 0, another
	}
	h.path, h.query, _ = strings.Cut(target, "?")
	if !simplePath(h.path) || !simpleQuery(h.query) || strings.HasSuffix(target, "?") || !serves(h.path) {
		return head{}, 0, another
	}
	if !h.readHeader(rest) {
		return head{}, 0, another
	}
	return h, end + 4, plain
}

// bareFeed reports whether a line ends without a carriage return. Some read it as an end (RFC 9112, section 2.2).
func bareFeed(b []byte) bool {
	for i, c := range b {
		if c == '\n' && (i == 0 || b[i-1] != '\r') {
			return true
		}
	}
	return false
}

// readHeader reads header lines, each of which ends with CRLF.
func (h *head) readHeader(text string) bool {
	count := strings.Count(text, "\n")
	if count > maxHeaders {
		return false
	}
	h.header = make(http.Header, count)
	values := make([]string, count)
	sized, hosted := false, false
	for i := 0; text != ""; i++ {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		colon := strings.IndexByte(line, ':')
		if colon <= 0 {
			return false
		}
		name, ok := headerName(line[:colon])
		if !ok {
			return false
		}
		value := strings.Trim(line[colon+1:], " ")
		if !simpleValue(value) {
			return false
		}
		switch name {
		case "Host":
			if hosted || !simpleHost(value) {
				return false
			}
			h.host, hosted = value, true
			continue
		case "Content-Length":
			if sized {
				return false
			}
			if h.length, ok = contentLength(value); !ok {
				return false
			}
			sized = true
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case "Transfer-Encoding", "Upgrade", "Expect", "Trailer", "Te", "Pragma", "Http2-Settings":
			return false
		}
		if there := h.header[name]; there != nil {
			h.header[name] = append(there, value)
			continue
		}
		values[i] = value
		h.header[name] = values[i : i+1 : i+1]
	}
	return hosted
}

// contentLength reads digits and nothing else, less than any that overflows.
func contentLength(text string) (int64, bool) {
	if len(text) == 0 || len(text) > 15 {
		return 0, false
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// headerName answers the canonical form of a name that is a token (RFC 9110, section 5.6.2).
func headerName(name string) (string, bool) {
	canonical, upper := true, true
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z':
			canonical = canonical && !upper
		case 'A' <= c && c <= 'Z':
			canonical = canonical && upper
		case '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return "", false
		}
		upper = c == '-'
	}
	if canonical {
		return name, true
	}
	return textproto.CanonicalMIMEHeaderKey(name), true
}

// simpleValue reports whether a header's value is printable: it may have spaces within and what is not ASCII.
func simpleValue(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// simplePath reports whether a path has one spelling only: no escapes, no empty segments, none of dots.
func simplePath(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	last := byte(0)
	for _, c := range []byte(path) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '~':
		case c == '.', c == '/':
			if last == '/' {
				return false
			}
		default:
			return false
		}
		last = c
	}
	return true
}

// simpleQuery reports whether a query can be taken as it stands.
func simpleQuery(query string) bool {
	for _, c := range []byte(query) {
		if c <= ' ' || c >= 0x7f || c == '#' || c == '"' || c == '<' || c == '>' {
			return false
		}
	}
	return true
}

// simpleHost reports whether a Host is a name or an address with or without a port.
func simpleHost(host string) bool {
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return host != ""
}
