package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A search that is ended, by whatever, prints what it has found and says how to go on.
func TestSearchThatIsEnded(t *testing.T) {
	const found = `{"data":[{"id":"one","type":"a","sequence":7,"time":"2026-01-31T12:00:00Z","data":1,"deliveries":{}}],"next":"x_7","searched_to":"2026-01-30T12:00:00Z","head":9}`
	for _, output := range []string{"text", "json", "jsonl"} {
		t.Run(output, func(t *testing.T) {
			ctx, end := context.WithCancelCause(t.Context())
			defer end(nil)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("before") == "" {
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, found)
					return
				}
				end(errInterrupted)
				<-r.Context().Done()
			}))
			defer s.Close()
			var out, notes bytes.Buffer
			p := &program{out: &out, err: &notes, env: func(string) (string, bool) { return "", false }, cut: make(chan struct{}), version: "test"}
			if code := p.run(ctx, []string{"events", "search", "--url", s.URL, "-o", output}); code != exitInterrupted {
				t.Errorf("exit code %d: %s", code, notes.String())
			}
			if !strings.Contains(out.String(), "one") || output == "json" && !strings.Contains(out.String(), `"next": "x_7"`) {
				t.Errorf("stdout %q", out.String())
			}
			if !strings.Contains(notes.String(), "searched back to 2026-01-30T12:00:00.000Z; more: --after x_7\n") {
				t.Errorf("stderr %q", notes.String())
			}
		})
	}
}

// What ends before anything was searched prints nothing but why.
func TestSearchThatIsRefused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer s.Close()
	var out, notes bytes.Buffer
	p := &program{out: &out, err: &notes, env: func(string) (string, bool) { return "", false }, cut: make(chan struct{}), version: "test"}
	if code := p.run(t.Context(), []string{"events", "search", "--url", s.URL, "-o", "json"}); code != exitAuth || out.Len() > 0 {
		t.Errorf("exit code %d, stdout %q", code, out.String())
	}
}
