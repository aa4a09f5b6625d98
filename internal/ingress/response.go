package ingress

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxKept is the size above which an answer's buffer is not used again.
const maxKept = 64 << 10

// response gathers an answer, which is sent when its handler has returned. It implements http.ResponseWriter, and the deadlines of
// http.ResponseController.
type response struct {
	conn   *conn
	in     *body
	header http.Header
	status int
	body   []byte
	text   []byte // as it is sent
	names  []string
}

func (w *response) begin(c *conn, in *body) {
	if w.header == nil {
		w.header = make(http.Header, 8)
	}
	clear(w.header)
	w.conn, w.in, w.status, w.body = c, in, 0, w.body[:0]
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. What comes before an answer, 1xx, is not sent.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if bodiless(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	w.body = append(w.body, b...)
	return len(b), nil
}

// SetReadDeadline bounds the reading of the body. One that is here needs no bound.
func (w *response) SetReadDeadline(t time.Time) error {
	if w.in.arrived() {
		return nil
	}
	w.conn.readUntil = time.Time{}
	return w.conn.Conn.SetReadDeadline(t)
}

// SetWriteDeadline bounds the sending of the answer.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.conn.writeUntil = t
	return w.conn.Conn.SetWriteDeadline(t)
}

// last reports whether the handler wants the connection to end.
func (w *response) last() bool { return strings.EqualFold(w.header.Get("Connection"), "close") }

// bodiless reports whether an answer has no body (RFC 9110, section 6.4.1).
func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// send sends the answer. last says that the connection ends after it.
func (w *response) send(c *conn, last bool) error {
	w.WriteHeader(http.StatusOK)
	now := time.Now()
	limit := c.server.limit.write
	if until := now.Add(limit); c.writeUntil.Before(until.Add(-limit / slack)) {
		c.writeUntil = until
		_ = c.Conn.SetWriteDeadline(until) // a connection that is closed needs none
	}
	delete(w.header, "Content-Length")
	delete(w.header, "Connection")
	w.names = w.names[:0]
	for name := range w.header {
		w.names = append(w.names, name)
	}
	slices.Sort(w.names)
	b := append(w.text[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(b, ' ')
	if text := http.StatusText(w.status); text != "" {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(append(b, "status code "...), int64(w.status), 10)
	}
	b = append(b, "\r\n"...)
	for _, name := range w.names {
		if _, ok := headerName(name); !ok {
			continue
		}
		for _, value := range w.header[name] {
			b = appendHeader(b, name, value)
		}
	}
	if len(w.body) > 0 && w.header["Content-Type"] == nil {
		b = appendHeader(b, "Content-Type", http.DetectContentType(w.body))
	}
	if !bodiless(w.status) {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(w.body)), 10)
		b = append(b, "\r\n"...)
	}
	if w.header["Date"] == nil {
		b = append(b, "Date: "...)
		b = now.UTC().AppendFormat(b, http.TimeFormat)
		b = append(b, "\r\n"...)
	}
	if last {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "\r\n"...)
	b = append(b, w.body...)
	_, err := c.Conn.Write(b)
	if w.text = b; cap(b) > maxKept {
		w.text, w.body = nil, nil
	}
	return err
}

// appendHeader appends a header's line. What would break it in two becomes spaces, as with net/http.
func appendHeader(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	from := len(b)
	b = append(b, value...)
	for i, c := range b[from:] {
		if c == '\r' || c == '\n' {
			b[from+i] = ' '
		}
	}
	return append(b, "\r\n"...)
}
