package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// signIn begins a session with a key, and answers its id and the cookie.
func (w *world) signIn(key string) (id, cookie string) {
	w.t.Helper()
	r := w.want(201, w.call("", "POST", "/v1/sessions", `{"key": "`+key+`"}`))
	cookies := r.Cookies()
	if len(cookies) != 1 || cookies[0].Name != "eventhose_session" || !cookies[0].HttpOnly || cookies[0].Secure || cookies[0].SameSite != http.SameSiteStrictMode || cookies[0].Path != "/" ||
		cookies[0].Domain != "" {
		w.t.Fatalf("cookies %v", cookies)
	}
	p, err := w.ctl.Session(w.t.Context(), eventhose.Secret(cookies[0].Value))
	if err != nil {
		w.t.Fatal(err)
	}
	return p.KeyID, cookies[0].Name + "=" + cookies[0].Value
}

// A session may do what its key may, until it or the key is ended.
func TestSession(t *testing.T) {
	w := newWorld(t, nil)
	keyID, key := w.key("acme", eventhose.ScopeRead)
	id, cookie := w.signIn(key)
	by := func(cookie, method, path, body string) reply { return w.call("", method, path, body, "Cookie", cookie) }

	me := w.want(200, by(cookie, "GET", "/v1/sessions/current", "")).json(t)
	if me["kind"] != "session" || me["subject"] != keyID || me["tenant"] != "acme" || fmt.Sprint(me["scopes"]) != "[read]" || me["oidc"] != false || me["expires"] == nil {
		t.Errorf("got %v", me)
	}
	w.want(200, by(cookie, "GET", events, ""))
	w.refused(eventhose.CodeForbidden, "", by(cookie, "POST", events, `{"type":"a","data":1}`))
	w.refused(eventhose.CodeNotFound, "", by(cookie, "GET", "/v1/tenants/globex/events", ""))
	w.refused(eventhose.CodeForbidden, "", by(cookie, "GET", "/v1/sessions", ""))

	// What is no session opens nothing: another's token as a key, another name, a changed token, a key.
	token := strings.TrimPrefix(cookie, "eventhose_session=")
	w.refused(eventhose.CodeUnauthenticated, "", w.call(token, "GET", events, ""))
	for _, bad := range []string{"eventhose_session=", "eventhose_session=" + key, "session=" + token, "__Host-eventhose_session=" + token, cookie + "x",
		cookie[:len(cookie)-1], "eventhose_session=" + strings.ToUpper(token), "eventhose_session=" + strings.Repeat("a", 10_000)} {
		w.refused(eventhose.CodeUnauthenticated, "", by(bad, "GET", events, ""))
	}
	// An Authorization header comes first, also one that is wrong.
	w.refused(eventhose.CodeUnauthenticated, "", w.call("ehk_wrong", "GET", events, "", "Cookie", cookie))

	// Nobody signs in with what is no key.
	_, portal := w.link("acme", `{}`)
	for _, bad := range []string{"", "ehk_wrong", token, portal} {
		w.refused(eventhose.CodeUnauthenticated, "", w.call("", "POST", "/v1/sessions", `{"key": "`+bad+`"}`))
	}

	list := w.want(200, w.root("GET", "/v1/sessions", "")).json(t)["data"].([]any)
	if one := list[0].(map[string]any); len(list) != 1 || one["id"] != id || one["subject"] != keyID || one["address"] != "127.0.0.1" || strings.Contains(fmt.Sprint(list), token) {
		t.Errorf("got %v", list)
	}

	out := w.want(204, by(cookie, "DELETE", "/v1/sessions/current", ""))
	if c := out.Cookies(); len(c) != 1 || c[0].MaxAge >= 0 || c[0].Value != "" {
		t.Errorf("cookies %v", c)
	}
	w.refused(eventhose.CodeUnauthenticated, "", by(cookie, "GET", events, ""))
	w.want(204, by(cookie, "DELETE", "/v1/sessions/current", "")) // again

	id, cookie = w.signIn(key)
	w.want(204, w.root("DELETE", "/v1/sessions/"+id, ""))
	w.refused(eventhose.CodeUnauthenticated, "", by(cookie, "GET", events, ""))
	w.refused(eventhose.CodeNotFound, "", w.root("DELETE", "/v1/sessions/"+id, ""))

	_, cookie = w.signIn(key)
	w.want(204, w.root("DELETE", "/v1/keys/"+keyID, ""))
	w.refused(eventhose.CodeUnauthenticated, "", by(cookie, "GET", events, ""))
	if list := w.want(200, w.root("GET", "/v1/sessions", "")).json(t)["data"].([]any); len(list) != 0 {
		t.Errorf("sessions of an ended key are left: %v", list)
	}
}

// Over https the cookie has a name that only this host can set, and no other is believed.
func TestSecureCookie(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.PublicURL = "https://hooks.example.com" })
	for what, headers := range map[string][]string{"told by a proxy": {"X-Forwarded-Proto", "https"}, "at the public URL": {"Host", "hooks.example.com"}} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", w.server.URL+"/v1/sessions", strings.NewReader(`{"key": "`+rootKey+`"}`))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(headers[0], headers[1])
		if headers[0] == "Host" {
			req.Host = headers[1]
		}
		res, err := w.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		c := res.Cookies()
		if len(c) != 1 || c[0].Name != "__Host-eventhose_session" || !c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
			t.Fatalf("%s: %v", what, c)
		}
		w.want(200, w.call("", "GET", events, "", "Cookie", c[0].Name+"="+c[0].Value, "X-Forwarded-Proto", "https"))
		w.refused(eventhose.CodeUnauthenticated, "", w.call("", "GET", events, "", "Cookie", "eventhose_session="+c[0].Value, "X-Forwarded-Proto", "https"))
	}
}

// What a browser sends by itself opens nothing to the pages of other origins, whichever way they ask, and shows them nothing.
func TestOtherOrigins(t *testing.T) {
	w := newWorld(t, nil)
	_, cookie := w.signIn(rootKey)
	own := w.server.URL
	for _, c := range []struct {
		site, origin string
		good         bool
	}{
		{"same-origin", own, true}, {"same-origin", "", true}, {"none", "", true}, {"", own, true}, {"", "", true},
		{"cross-site", "", false}, {"same-site", "", false}, {"cross-site", own, false}, {"same-site", own, false}, {"nonsense", own, false},
		{"cross-site", "https://evil.example", false}, {"", "https://evil.example", false}, {"", "null", false}, {"", own + "0", false},
		{"", "http://localhost:3000", false}, {"same-site", "http://127.0.0.1:3000", false}, {"", "http://127.0.0.1.evil.example", false},
	} {
		headers := []string{"Cookie", cookie, "Sec-Fetch-Site", c.site, "Origin", c.origin}
		for _, q := range [][3]string{
			{"PUT", "/v1/tenants/acme", "{}"}, {"POST", events, `{"type":"a","data":1}`}, {"POST", "/v1/tenants/acme/tickets", ""}, {"GET", events, ""},
			{"GET", events + "/stream", ""}, {"GET", events + "/ws", ""}, {"GET", "/v1/sessions/current", ""},
		} {
			r := w.call("", q[0], q[1], q[2], headers...)
			if got := r.StatusCode < 300; got != c.good {
				t.Errorf("%s from %+v: %d %s", r.what, c, r.StatusCode, r.body)
			}
			if !c.good {
				w.refused(eventhose.CodeForbidden, "", r)
			}
			if r.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s from %+v may be read by other origins", r.what, c)
			}
		}
		// Nor do they sign anybody in or out; by header they may do what the header opens.
		if r := w.call("", "POST", "/v1/sessions", `{"key": "wrong"}`, headers...); (r.StatusCode == 403) == c.good {
			t.Errorf("sign in from %+v: %d", c, r.StatusCode)
		}
		if !c.good {
			w.refused(eventhose.CodeForbidden, "", w.call("", "DELETE", "/v1/sessions/current", "", headers...))
		}
		w.want(200, w.call(rootKey, "GET", events, "", headers...))
		w.want(200, w.call(rootKey, "PUT", "/v1/tenants/acme", "{}", headers...))
	}
	// A ticket opens a stream to every origin, as before, whatever cookie the browser sends along.
	ticket := w.want(201, w.root("POST", "/v1/tenants/acme/tickets", "")).json(t)["ticket"].(string)
	r := w.want(200, w.call("", "GET", events+"/stream?ticket="+ticket, "", "Cookie", cookie, "Origin", "https://shop.example", "Sec-Fetch-Site", "cross-site"))
	if r.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Error("a ticket's answer cannot be read")
	}
	// Behind a proxy that rewrites Host, the public URL is this server's too.
	proxied := newWorld(t, func(o *httpapi.Options) { o.PublicURL = "http://hooks.example.com" })
	_, cookie = proxied.signIn(rootKey)
	proxied.want(200, proxied.call("", "GET", events, "", "Cookie", cookie, "Origin", "http://hooks.example.com"))
	proxied.refused(eventhose.CodeForbidden, "", proxied.call("", "GET", events, "", "Cookie", cookie, "Origin", "http://other.example.com"))
}

// A WebSocket by cookie lives with its session, and is none to a page of another origin.
func TestWebSocketByCookie(t *testing.T) {
	w := newWorld(t, quick)
	id, cookie := w.signIn(rootKey)
	header := func(origin string) http.Header { return http.Header{"Cookie": {cookie}, "Origin": {origin}} }
	for _, origin := range []string{"https://evil.example", "http://localhost:1", "null"} {
		if _, status, err := w.tryDial("", "", header(origin)); err == nil || status != 403 {
			t.Errorf("from %s: %d, %v", origin, status, err)
		}
	}
	conn, _, err := w.tryDial("", "", header(w.server.URL))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), streamTime)
	defer cancel()
	s := &socket{t, ctx, conn}
	s.read("ready")
	w.want(204, w.root("DELETE", "/v1/sessions/"+id, ""))
	if e := s.read("error"); e.Code != eventhose.CodeUnauthenticated {
		t.Errorf("got %+v", e)
	}
	if _, _, err := conn.Read(ctx); !errors.As(err, new(websocket.CloseError)) {
		t.Errorf("got %v", err)
	}
}

// One address may try so often, and is then told to wait.
func TestSignInLimit(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 20 {
		if r := w.call("", "POST", "/v1/sessions", `{"key": "guess"}`); r.StatusCode != 401 {
			t.Fatalf("try %d: %d", i, r.StatusCode)
		}
	}
	r := w.call("", "POST", "/v1/sessions", `{"key": "`+rootKey+`"}`)
	w.refused(eventhose.CodeLimit, "", r)
	if r.Header.Get("Retry-After") == "" {
		t.Error("it is not told when to come again")
	}
	w.want(200, w.root("GET", "/v1/tenants", "")) // which is about signing in only
}

func TestSignInMethods(t *testing.T) {
	if got := strings.TrimSpace(string(newWorld(t, nil).call("", "GET", "/v1/sessions/methods", "").body)); got != `{"key":true,"oidc":null}` {
		t.Errorf("got %s", got)
	}
}

// unwritten is a control whose audit log cannot be written while it is told so.
type unwritten struct {
	httpapi.Control
	fails *atomic.Bool
}

func (f unwritten) Audit(ctx context.Context, e eventhose.AuditEntry) error {
	if f.fails.Load() {
		return errors.New("the disk is on fire")
	}
	return f.Control.Audit(ctx, e)
}

// entry is an audit entry as the API tells it.
type entry struct {
	ID, Action, Tenant, Target, Address string
	Time                                time.Time
	RequestID                           string `json:"request_id"`
	Actor                               struct{ Kind, ID, Name, Tenant string }
	Changes                             map[string][]any
}
