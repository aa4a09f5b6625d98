package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/eventhose/eventhose/internal/egress"
)

// What verifiers fetch goes out through the guarded dialer: over https only, to allowed addresses only, once.
func TestFetcher(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.Header.Get("X-Ask")+" "+string(body))
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/page", http.StatusFound) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", egress.MaxBody+1)) })
	s := httptest.NewTLSServer(mux)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	fetcher := func(allow ...netip.Prefix) (Fetcher, func()) {
		p := egress.New(egress.Options{Allow: allow})
		c := egress.NewClient(p, egress.ClientOptions{RootCAs: roots})
		return NewFetcher(p, c), c.Close
	}
	f, stop := fetcher(netip.MustParsePrefix("127.0.0.0/8"))
	defer stop()
	status, body, err := f.Fetch(t.Context(), http.MethodPost, s.URL+"/page", http.Header{"X-Ask": {"a"}}, []byte("b"))
	if err != nil || status != 200 || string(body) != "POST a b" {
		t.Errorf("%d %q %v", status, body, err)
	}
	if status, _, err := f.Fetch(t.Context(), http.MethodGet, s.URL+"/away", nil, nil); err != nil || status != http.StatusFound {
		t.Errorf("a redirect: %d %v", status, err)
	}
	if _, body, err := f.Fetch(t.Context(), http.MethodGet, s.URL+"/long", nil, nil); err == nil {
		t.Errorf("an answer that is too long: %d bytes", len(body))
	}
	plain := httptest.NewServer(mux)
	defer plain.Close()
	if _, _, err := f.Fetch(t.Context(), http.MethodGet, plain.URL+"/page", nil, nil); err == nil {
		t.Error("it went out over http")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.Fetch(ended, http.MethodGet, s.URL+"/page", nil, nil); err == nil {
		t.Error("it went out after the end of its context")
	}
	guarded, stop := fetcher()
	defer stop()
	if _, _, err := guarded.Fetch(t.Context(), http.MethodGet, s.URL+"/page", nil, nil); !errors.Is(err, egress.ErrBlocked) {
		t.Errorf("to an address that is not allowed: %v", err)
	}
}
