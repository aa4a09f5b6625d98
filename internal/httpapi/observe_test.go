package httpapi_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

func TestService(t *testing.T) {
	var broken error
	w := newWorld(t, func(o *httpapi.Options) {
		o.Ready = func(context.Context) map[string]error { return map[string]error{"store": broken, "other": nil} }
	})
	if r := w.want(200, w.call("", "GET", "/healthz", "")); string(r.body) != "ok\n" {
		t.Errorf("healthz: %s", r.body)
	}
	if r := w.want(200, w.call("", "GET", "/readyz", "")); string(r.body) != `{"status":"ready","checks":{"other":"ok","store":"ok"}}`+"\n" {
		t.Errorf("readyz: %s", r.body)
	}
	broken = errors.New(planted)
	if r := w.want(503, w.call("", "GET", "/readyz", "")); string(r.body) != `{"status":"not ready","checks":{"other":"ok","store":"failed"}}`+"\n" {
		t.Errorf("readyz: %s", r.body)
	}
	broken = &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the store is away"}
	if r := w.want(503, w.call("", "GET", "/readyz", "")); !strings.Contains(string(r.body), "the store is away") {
		t.Errorf("readyz: %s", r.body)
	}
	broken = nil
	w.api.Drain()
	if r := w.want(503, w.call("", "GET", "/readyz", "")); !strings.Contains(string(r.body), `"draining":"the server is stopping"`) {
		t.Errorf("readyz: %s", r.body)
	}
}

// The page loads nothing, and its style is the one that its policy allows.
func TestDocs(t *testing.T) {
	w := newWorld(t, nil)
	r := w.want(200, w.call("", "GET", "/docs", ""))
	page := string(r.body)
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(page)
	if style == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := r.Header.Get("Content-Security-Policy"); got != want {
		t.Errorf("policy %s\nwant   %s", got, want)
	}
	if strings.Contains(page, "<script") || regexp.MustCompile(`(src|href)="(https?:)?//`).MatchString(page) {
		t.Error("the page loads something")
	}
	for _, route := range w.api.Routes() {
		if !strings.Contains(page, route.Path) {
			t.Errorf("%s is not on the page", route.Path)
		}
	}
	for _, code := range eventhose.Codes() {
		if !strings.Contains(page, `id="`+string(code)+`"`) {
			t.Errorf("the code %s is not explained", code)
		}
	}
}

func TestObserved(t *testing.T) {
	slow := &slowLog{}
	w := newWorld(t, func(o *httpapi.Options) { slow.Log, o.Log = o.Log, slow })
	r := w.root("GET", events+"?types="+planted, "", "X-Request-Id", "my-id.1")
	if r.Header.Get("X-Request-Id") != "my-id.1" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", r.Header)
	}
	for _, bad := range []string{strings.Repeat("x", 65), "a b", "a\"b", "é"} {
		if r := w.root("GET", events, "", "X-Request-Id", bad); !strings.HasPrefix(r.Header.Get("X-Request-Id"), "req_") {
			t.Errorf("%q gave %q", bad, r.Header.Get("X-Request-Id"))
		}
	}
	w.root("POST", events, `{"type":"t","data":"`+planted+`"}`)
	w.root("POST", subscriptions, `{"destination":{"type":"webhook","url":"https://example.com","headers":{"X":"`+planted+`","Y":7}}}`)
	made := w.root("POST", subscriptions, `{"destination":{"type":"webhook","url":"https://example.com","headers":{"X":"`+planted+`"}}}`).json(t)
	w.call(planted, "GET", events, "")
	w.root("POST", events+"/"+"%2e%2e", "{}")
	w.try(t.Context(), rootKey, "BREW", events, "")

	for _, c := range []struct{ typ, logged string }{{"broken", "the disk says"}, {"panic", "out of range"}} {
		before := strings.Count(w.logs.String(), "level=ERROR")
		r := w.root("POST", events, `{"type":"`+c.typ+`","data":1}`, "X-Request-Id", "id-"+c.typ, "Idempotency-Key", c.typ)
		w.refused("internal", "", r)
		if strings.Contains(string(r.body), planted) || strings.Contains(string(r.body), "disk") {
			t.Errorf("the answer tells: %s", r.body)
		}
		logs := w.logs.String()
		if strings.Count(logs, "level=ERROR") != before+1 || !strings.Contains(logs, "request_id=id-"+c.typ) || !strings.Contains(logs, c.logged) {
			t.Errorf("%s is not logged once", c.typ)
		}
	}
	logs := strings.ReplaceAll(w.logs.String(), "the disk says: "+planted, "")
	for _, secret := range []string{planted, rootKey, made["secret"].(string)} {
		if i := strings.Index(logs, secret); i >= 0 {
			t.Errorf("the log tells a secret: %s", logs[max(0, i-200):i+40])
		}
	}
	if !strings.Contains(logs, `route=/v1/tenants/{tenant}/events`) || !strings.Contains(logs, "tenant=acme key=admin status=202") {
		t.Errorf("the access log: %s", logs[:1000])
	}

	metrics := string(w.call("", "GET", "/metrics", "").body)
	for _, want := range []string{
		`eventhose_http_requests_total{method="POST",route="/v1/tenants/{tenant}/events",status="2xx"} 1`,
		`eventhose_http_requests_total{method="POST",route="/v1/tenants/{tenant}/events",status="5xx"} 2`,
		`eventhose_http_requests_total{method="other",route="unmatched",status="4xx"} 1`,
		"eventhose_events_ingested_total 1",
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(metrics, "acme") || strings.Contains(metrics, planted) {
		t.Error("metrics name a tenant")
	}
	problems, err := promlint.New(strings.NewReader(metrics)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestAdmit(t *testing.T) {
	var limited atomic.Bool
	w := newWorld(t, func(o *httpapi.Options) {
		o.Admit = func(_ context.Context, p eventhose.Principal, tenant eventhose.TenantID) error {
			if tenant == "globex" && limited.Load() {
				return &eventhose.Error{Code: eventhose.CodeLimit, Message: "slow down", RetryAfter: 1500e6}
			}
			return nil
		}
	})
	limited.Store(true)
	w.want(202, w.root("POST", events, `{"type":"t","data":1}`))
	r := w.root("POST", "/v1/tenants/globex/events", `{"type":"t","data":1}`)
	w.refused("limit", "", r)
	if r.Header.Get("Retry-After") != "2" || !strings.Contains(string(r.body), `"retry_after":2`) {
		t.Errorf("%v %s", r.Header, r.body)
	}
}

// One registry serves one API.
func TestNewTwice(t *testing.T) {
	w := newWorld(t, nil)
	r := prometheus.NewRegistry()
	o := httpapi.Options{Log: w.log, Control: w.ctl, Delivery: w.engine, Registry: r}
	if _, err := httpapi.New(o); err != nil {
		t.Fatal(err)
	}
	if _, err := httpapi.New(o); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

// Every code has a status, and none of them is a success.
func TestCodes(t *testing.T) {
	for _, code := range eventhose.Codes() {
		slow := &failing{err: &eventhose.Error{Code: code, Message: "as told"}}
		w := newWorld(t, func(o *httpapi.Options) { slow.Log, o.Log = o.Log, slow })
		r := w.root("GET", events, "")
		if code == eventhose.CodeInternal && strings.Contains(string(r.body), "as told") {
			t.Errorf("what is internal is told: %s", r.body)
		}
		w.problem(code, "", r)
		if r.StatusCode < 400 || http.StatusText(r.StatusCode) == "" {
			t.Errorf("%s is %d", code, r.StatusCode)
		}
		again := code == eventhose.CodeUnavailable
		if got := r.Header.Get("Retry-After") != ""; got != again {
			t.Errorf("%s: Retry-After %v", code, got)
		}
	}
}

type failing struct {
	httpapi.Log
	err error
}

func (f *failing) Page(context.Context, eventhose.TenantID, eventhose.Cursor, eventhose.Filter, eventhose.PageLimit) (eventhose.Page, error) {
	return eventhose.Page{}, f.err
}
