package webhook

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
)

// kilobyte is a batch of one event with 1 KB of data, of a subscription that is kept.
func kilobyte(to string) *sink.Batch {
	sub := subscription(to)
	sub.Version = 1
	b := batch(sub)
	b.Items[0].Event.Data = []byte(`{"x":"` + strings.Repeat("a", 1000) + `"}`)
	return b
}

func BenchmarkEncode(b *testing.B) {
	e := kilobyte("https://example.com/").Items[0].Event
	buffer := make([]byte, 0, bodySize(e))
	b.ReportAllocs()
	for b.Loop() {
		buffer = appendEvent(buffer[:0], e)
	}
}

// BenchmarkPrepare is all that goes before sending: encode, sign, header lines.
func BenchmarkPrepare(b *testing.B) {
	s := newSink(b, egress.New(egress.Options{}))
	batch := kilobyte("https://example.com/")
	w := new(work)
	b.ReportAllocs()
	for b.Loop() {
		t, _ := s.target(batch.Subscription)
		w.body = appendEvent(w.body[:0], batch.Items[0].Event)
		w.sign(t, batch, w.body, batch.Items[0].Event.Time)
		w.header = appendHeader(w.header[:0], batch, w.signature, batch.Items[0].Event.Time)
	}
}

// BenchmarkSend sends over loopback to a server in this process, which its time and memory include.
func BenchmarkSend(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	s := newSink(b, loopback())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		batch := kilobyte(server.URL)
		for pb.Next() {
			if r := s.Send(ctx, batch); r.Outcome != eventhose.OutcomeTaken {
				b.Error(r.Message)
				return
			}
		}
	})
}

// BenchmarkKept is what keeping an answer costs: judging it, its headers and body.
func BenchmarkKept(b *testing.B) {
	s := newSink(b, loopback())
	batch := kilobyte("http://127.0.0.1:1/?token=planted-secret")
	t, _ := s.target(batch.Subscription)
	a := &egress.Answer{Status: 200, Body: []byte(`{"ok":true}`),
		Header: http.Header{"Date": {"Tue, 24 Nov 2026 13:00:00 GMT"}, "Content-Length": {"11"}, "Content-Type": {"application/json"}}}
	b.ReportAllocs()
	for b.Loop() {
		t.judge(context.Background(), nil, batch, a)
	}
}
