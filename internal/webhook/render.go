package webhook

import (
	"bufio"
	"bytes"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
)

var _ sink.Renderer = (*Sink)(nil)

// Render implements sink.Renderer, with what Send encodes and signs by.
func (s *Sink) Render(b *sink.Batch, at time.Time, signed bool) (sink.Request, bool) {
	if len(b.Items) == 0 || len(b.Items) > 1 && !b.Subscription.Batch.Batched() {
		return sink.Request{}, false
	}
	t, _ := s.target(b.Subscription)
	if t == nil {
		return sink.Request{}, false
	}
	w := &work{}
	body := appendBody(nil, b)
	if signed {
		_, signed = w.sign(t, b, body, at)
	}
	request := egress.Request{Target: t.out, Header: appendHeader(nil, b, w.signature, at), Body: t.compressed(body)}
	headers, ok := headersOf(request.AppendHead(nil))
	if !ok {
		return sink.Request{}, false
	}
	if !signed {
		delete(headers, "Webhook-Signature")
	}
	for name := range b.Subscription.Destination.Headers {
		headers[http.CanonicalHeaderKey(name)] = "***"
	}
	return sink.Request{Method: http.MethodPost, URL: t.shown, Headers: headers, Body: body}, true
}

// headersOf reads what a request begins with.
func headersOf(head []byte) (map[string]string, bool) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(head)))
	if _, err := r.ReadLine(); err != nil {
		return nil, false
	}
	lines, err := r.ReadMIMEHeader()
	headers := make(map[string]string, len(lines))
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		headers[name] = strings.Join(lines[name], ", ")
	}
	return headers, err == nil
}
