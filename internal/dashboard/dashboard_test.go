package dashboard_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/eventhose/eventhose/internal/dashboard"
)

func ask(t *testing.T, h http.Handler, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w.Result()
}

// Files whose names change with them are kept for ever, the page that names them never; nothing inline may run.
func TestHeaders(t *testing.T) {
	h, err := dashboard.New(dashboard.Options{PortalOrigins: []string{"https://app.example.com", "http://localhost:3000"}})
	if err != nil {
		t.Fatal(err)
	}
	for path, ancestors := range map[string]string{"/ui/": "'none'", "/ui/acme/events": "'none'", "/portal": "https://app.example.com http://localhost:3000", "/portal/events": "https://app.example.com http://localhost:3000"} {
		r := ask(t, h, "GET", path)
		policy := r.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self';") || !strings.HasSuffix(policy, "frame-ancestors "+ancestors) || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the policy is %q", path, policy)
		}
		if r.StatusCode != http.StatusOK || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %d %v", path, r.StatusCode, r.Header)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/ui/", nil))
	names := regexp.MustCompile(`"(/ui/app-[0-9a-f]{12}\.(?:js|css))"`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(names) != 2 {
		t.Fatalf("the page names %v", names)
	}
	for _, name := range names {
		r := ask(t, h, "GET", name[1])
		if r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("Cache-Control"), "immutable") || r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", name[1], r.StatusCode, r.Header)
		}
	}
	if r := ask(t, h, "GET", dashboard.Element); r.Header.Get("Access-Control-Allow-Origin") != "*" || strings.Contains(r.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("the element: %v", r.Header)
	}
	if r := ask(t, h, "GET", "/"); r.StatusCode != http.StatusFound || r.Header.Get("Location") != "/ui/" {
		t.Errorf("/: %d %v", r.StatusCode, r.Header)
	}
	if r := ask(t, h, "POST", "/ui/"); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.StatusCode)
	}
}

func TestOrigins(t *testing.T) {
	for _, bad := range []string{"", "*", "https://*", "app.example.com", "https://app.example.com/", "https://app.example.com/x", "https://a b", "https://a;script-src *", "javascript:alert(1)", "https://u:p@app.example.com", "https://app.example.com?x"} {
		if _, err := dashboard.New(dashboard.Options{PortalOrigins: []string{bad}}); err == nil {
			t.Errorf("%q is an origin", bad)
		}
	}
	for path, is := range map[string]bool{"/": true, "/ui": true, "/ui/x": true, "/portal": true, "/portal/x": true, "/uix": false, "/v1/keys": false, "/portals": false, "/docs": false} {
		if dashboard.Serves(path) != is {
			t.Errorf("%s: %v", path, !is)
		}
	}
}
