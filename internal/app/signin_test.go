package app_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/oauth2-proxy/mockoidc"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/eventhosetest"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// What ends by itself does, in the whole server, on its own clock.
func TestCredentialsExpire(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		ctx := t.Context()
		status := func(key eventhose.Secret, cookie *http.Cookie) int {
			t.Helper()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/v1/tenants/default/subscriptions", nil)
			if err != nil {
				t.Fatal(err)
			}
			if key != "" {
				req.Header.Set("Authorization", "Bearer "+string(key))
			}
			if cookie != nil {
				req.AddCookie(cookie)
			}
			res, err := s.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.StatusCode
		}
		expect := func(what string, want, got int) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %d, want %d", what, got, want)
			}
		}
		link, err := s.Tenant.CreatePortalLink(ctx, client.NewPortalLink{ExpiresIn: eventhose.Duration(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		session, err := s.Client.SignIn(ctx, s.Key)
		if err != nil {
			t.Fatal(err)
		}
		short, err := s.Client.CreateKey(ctx, client.NewKey{Name: "short", Scopes: []eventhose.Scope{eventhose.ScopeRead}, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		ofShort, err := s.Client.SignIn(ctx, short.Key)
		if err != nil {
			t.Fatal(err)
		}
		s.Clock.Advance(time.Hour - time.Second)
		expect("a link before it expires", 200, status(link.Token, nil))
		expect("a session of a key before that expires", 200, status("", ofShort))
		s.Clock.Advance(time.Second)
		expect("an expired link", 401, status(link.Token, nil))
		expect("a session of an expired key", 401, status("", ofShort))
		if l, err := s.Tenant.PortalLinks(ctx, client.ListOptions{}); err != nil || len(l.Data) != 0 {
			t.Errorf("links %v, %v", l.Data, err)
		}

		// A session that is used goes on for twelve hours, and not a second more; one that is not ends after two hours.
		expect("a session", 200, status("", session))
		for range 7 {
			s.Clock.Advance(90 * time.Minute)
			expect("a session in use", 200, status("", session))
		}
		s.Clock.Advance(30*time.Minute - time.Second)
		expect("a session in its last second", 200, status("", session))
		s.Clock.Advance(time.Second)
		expect("a session after twelve hours", 401, status("", session))

		if session, err = s.Client.SignIn(ctx, s.Key); err != nil {
			t.Fatal(err)
		}
		s.Clock.Advance(2*time.Hour - time.Second)
		expect("a session that was not used", 200, status("", session))
		s.Clock.Advance(2 * time.Hour)
		expect("a session that was not used for two hours", 401, status("", session))
		if l, err := s.Client.Sessions(ctx, client.ListOptions{}); err != nil || len(l.Data) != 0 {
			t.Errorf("sessions %v, %v", l.Data, err)
		}
		if err := s.Client.SignOut(ctx, session); err != nil {
			t.Errorf("sign out of one that is over: %v", err)
		}

		// Keys tell when they were used last.
		named, err := s.Client.CreateKey(ctx, client.NewKey{Name: "worker", Tenant: "default", Scopes: []eventhose.Scope{eventhose.ScopeRead}})
		if err != nil {
			t.Fatal(err)
		}
		used := func() time.Time {
			t.Helper()
			l, err := s.Client.Keys(ctx, "default", client.ListOptions{})
			if err != nil || len(l.Data) != 1 || l.Data[0].Name != "worker" {
				t.Fatalf("keys %+v, %v", l.Data, err)
			}
			return l.Data[0].LastUsed
		}
		if at := used(); !at.IsZero() {
			t.Errorf("a key that nobody has used was used at %v", at)
		}
		expect("a key", 200, status(named.Key, nil))
		at := time.Now()
		for range 2 { // before it is written down, and after
			if got := used(); got.Sub(at).Abs() > time.Minute {
				t.Errorf("used at %v, not %v", got, at)
			}
			s.Clock.Advance(2 * time.Minute)
		}
		if entries, err := s.Tenant.Audit(ctx, client.AuditOptions{Action: "createKey"}); err != nil || len(entries.Data) != 1 || entries.Data[0].Target != named.ID {
			t.Errorf("audit %+v, %v", entries.Data, err)
		}
	})
}

// visitor is a browser: it has cookies, and goes where it is told to, step by step.
type visitor struct {
	t    *testing.T
	http *http.Client
}

// visitors counts browsers: each has an address of its own on this machine, since one address may try to sign in so often only.
var visitors atomic.Int32

func newVisitor(t *testing.T) *visitor {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(visitors.Add(1)))}}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t, &http.Client{Transport: &http.Transport{DialContext: from.DialContext}, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	t.Cleanup(v.http.CloseIdleConnections)
	return v
}

// get answers the status, and where the browser is sent next.
func (v *visitor) get(address string) (status int, next string) {
	v.t.Helper()
	res, err := v.http.Get(address)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode, res.Header.Get("Location")
}

// idp is an identity provider that we did not write.
type idp struct{ *mockoidc.MockOIDC }

func newIDP(t *testing.T) *idp {
	t.Helper()
	m, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Server.Close(); err != nil {
			t.Error(err)
		}
	})
	return &idp{m}
}

var ana = mockoidc.MockUser{Subject: "user-1", Email: "Ana@Example.com", EmailVerified: true, Groups: []string{"staff", "operators"}}

// startWith runs a server that trusts an identity provider. Its store is the one that the tests are run over.
func startWith(t *testing.T, m *idp, allow []string, change func(*app.Options)) string {
	t.Helper()
	o := app.Options{Listen: "127.0.0.1:0", AdminKey: "operating-key-0123456789", SecretKey: []byte(strings.Repeat("k", 32)), Logger: slog.New(slog.DiscardHandler),
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		OIDC:          app.OIDC{Issuer: m.Issuer(), ClientID: m.ClientID, ClientSecret: eventhose.Secret(m.ClientSecret), Allow: allow}}
	if os.Getenv("EVENTHOSE_TEST_STORE") == "postgres" {
		o.DatabaseURL = pgtest.Database(t)
	} else {
		o.Memory = true
	}
	if change != nil {
		change(&o)
	}
	a, err := app.New(o)
	if err == nil {
		err = a.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return "http://" + a.Addr()
}

// begin goes as far as the identity provider's answer, which it does not yet bring back: the address of the callback.
func (v *visitor) begin(server, query string) (callback string) {
	v.t.Helper()
	status, there := v.get(server + "/v1/sessions/oidc" + query)
	if status != 303 {
		v.t.Fatalf("begin: %d", status)
	}
	status, callback = v.get(there)
	if status != 302 || !strings.HasPrefix(callback, server+"/v1/sessions/oidc/callback?") {
		v.t.Fatalf("the provider answers %d %s", status, callback)
	}
	return callback
}

// me answers who the server takes the browser for, "" for nobody.
func (v *visitor) me(server string) string {
	v.t.Helper()
	res, err := v.http.Get(server + "/v1/sessions/current")
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	var me client.Me
	if res.StatusCode == 200 {
		if err := json.NewDecoder(res.Body).Decode(&me); err != nil {
			v.t.Fatal(err)
		}
		if me.Kind != eventhose.PrincipalSession || !me.OIDC || me.Tenant != "" || !slices.Contains(me.Scopes, eventhose.ScopeAdmin) {
			v.t.Errorf("got %+v", me)
		}
	}
	return me.Subject
}

// An operator signs in with the identity provider, and comes back to where he was.
func TestOIDC(t *testing.T) {
	m := newIDP(t)
	server := startWith(t, m, []string{"ana@example.com"}, nil)
	for query, back := range map[string]string{"": "/", "?return=/ui/%23/tenants/acme": "/ui/#/tenants/acme"} {
		v := newVisitor(t)
		m.QueueUser(&ana)
		callback := v.begin(server, query)
		if status, next := v.get(callback); status != 303 || next != back {
			t.Errorf("%q: %d %s", query, status, next)
		}
		if who := v.me(server); who != "Ana@Example.com" {
			t.Errorf("%q: signed in as %q", query, who)
		}
		// What was finished is not finished again: not by this browser, nor by another one that has its cookie and its address.
		if status, _ := v.get(callback); status != 401 {
			t.Errorf("the same callback again: %d", status)
		}
	}
	c, err := client.New(server, "operating-key-0123456789")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	methods, err := c.SignInMethods(t.Context())
	if err != nil || methods != (client.SignInMethods{Key: true, OIDC: "127.0.0.1"}) {
		t.Errorf("got %+v, %v", methods, err)
	}
	entries, err := c.Audit(t.Context(), client.AuditOptions{Actor: "Ana@Example.com", Action: "createSession"})
	if err != nil || len(entries.Data) != 2 {
		t.Errorf("got %+v, %v", entries, err)
	}
	for _, bad := range []string{"https://evil.example/", "//evil.example", "///evil.example", "/\t/evil.example", "/\\evil.example", "javascript:alert(1)", "ui", "/a\nb", "/" + strings.Repeat("a", 3000)} {
		if status, _ := newVisitor(t).get(server + "/v1/sessions/oidc?return=" + url.QueryEscape(bad)); status != 422 {
			t.Errorf("return to %q: %d", bad, status)
		}
	}
}

// A sign-in is finished once: also with the cookie as it was kept, and a code that the provider has just made for the same request.
func TestOIDCReplay(t *testing.T) {
	m := newIDP(t)
	server := startWith(t, m, []string{"@example.com"}, nil)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	v := newVisitor(t)
	_, there := v.get(server + "/v1/sessions/oidc")
	kept := v.http.Jar.Cookies(u)
	var callbacks []string
	for range 2 {
		m.QueueUser(&ana)
		_, callback := v.get(there)
		callbacks = append(callbacks, callback)
	}
	if status, _ := v.get(callbacks[0]); status != 303 {
		t.Fatalf("first: %d", status)
	}
	for _, callback := range callbacks {
		thief := newVisitor(t)
		thief.http.Jar.SetCookies(u, kept)
		if status, _ := thief.get(callback); status != 401 || thief.me(server) != "" {
			t.Errorf("again: %d", status)
		}
	}
}

// Everything that is wrong about a sign-in ends it, and nobody is signed in.
func TestOIDCRefusals(t *testing.T) {
	changed := func(name, value string) func(string) string {
		return func(callback string) string {
			u, _ := url.Parse(callback)
			q := u.Query()
			q.Set(name, value)
			u.RawQuery = q.Encode()
			return u.String()
		}
	}
	unverified, stranger, nobody := ana, ana, ana
	unverified.EmailVerified = false
	stranger.Email = "ana@example.com.evil.example"
	nobody.Email, nobody.EmailVerified = "", false
	forge := func(change func(jwt.MapClaims)) mockoidc.User { return &forged{ana, change} }
	m := newIDP(t)
	server := startWith(t, m, []string{"@example.com"}, nil)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		user   mockoidc.User // Ana if nil
		key    bool          // the provider signs with another key than it shows
		change func(string) string
		cookie func([]*http.Cookie) []*http.Cookie
		status int
	}{
		"good":                   {status: 303},
		"other state":            {change: changed("state", "another"), status: 401},
		"no state":               {change: changed("state", ""), status: 401},
		"other code":             {change: changed("code", "another"), status: 401},
		"no code":                {change: changed("code", ""), status: 401},
		"refused there":          {change: changed("error", "access_denied"), status: 401},
		"no cookie":              {cookie: func([]*http.Cookie) []*http.Cookie { return nil }, status: 401},
		"changed cookie":         {cookie: func(c []*http.Cookie) []*http.Cookie { c[0].Value = flip(c[0].Value); return c }, status: 401},
		"other nonce":            {user: forge(func(c jwt.MapClaims) { c["nonce"] = "another" }), status: 401},
		"no nonce":               {user: forge(func(c jwt.MapClaims) { delete(c, "nonce") }), status: 401},
		"other audience":         {user: forge(func(c jwt.MapClaims) { c["aud"] = "another-client" }), status: 401},
		"other issuer":           {user: forge(func(c jwt.MapClaims) { c["iss"] = "https://evil.example" }), status: 401},
		"expired":                {user: forge(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Hour).Unix() }), status: 401},
		"forged and good":        {user: forge(func(jwt.MapClaims) {}), status: 303},
		"signed by another":      {key: true, status: 401},
		"e-mail is not verified": {user: &unverified, status: 403},
		"not allowed":            {user: &stranger, status: 403},
		"no e-mail":              {user: &nobody, status: 403},
		"verified in words":      {user: forge(func(c jwt.MapClaims) { c["email_verified"] = "true" }), status: 303},
		"verified is a number":   {user: forge(func(c jwt.MapClaims) { c["email_verified"] = 1 }), status: 403},
		"two addresses":          {user: forge(func(c jwt.MapClaims) { c["email"] = "evil@evil.example,x@example.com" }), status: 403},
	} {
		t.Run(what, func(t *testing.T) {
			v := newVisitor(t)
			if c.user == nil {
				c.user = &ana
			}
			m.QueueUser(c.user)
			callback := v.begin(server, "")
			if c.key {
				own := m.Keypair.PrivateKey
				m.Keypair.PrivateKey = other
				defer func() { m.Keypair.PrivateKey = own }()
			}
			if c.change != nil {
				callback = c.change(callback)
			}
			if c.cookie != nil {
				u, _ := url.Parse(server)
				kept := c.cookie(v.http.Jar.Cookies(u))
				v.http.Jar, _ = cookiejar.New(nil)
				v.http.Jar.SetCookies(u, kept)
			}
			if status, _ := v.get(callback); status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if who := v.me(server); (who != "") != (c.status == 303) {
				t.Errorf("signed in as %q", who)
			}
		})
	}
}

// What the identity provider says when it fails may hold secrets: of its answer only the status and the error code are logged.
func TestOIDCErrorIsNotLoggedWhole(t *testing.T) {
	m := newIDP(t)
	var lines written
	server := startWith(t, m, []string{"@example.com"}, func(o *app.Options) { o.Logger = slog.New(slog.NewTextHandler(&lines, nil)) })
	m.QueueUser(&ana)
	first := newVisitor(t)
	if status, _ := first.get(first.begin(server, "")); status != 303 { // from now on it is known how the provider wants to be asked
		t.Fatalf("status %d", status)
	}
	for code, status := range map[int]int{500: 503, 400: 401} {
		m.QueueUser(&ana)
		v := newVisitor(t)
		callback := v.begin(server, "")
		m.QueueError(&mockoidc.ServerError{Code: code, Error: "of_its_own", Description: "planted-in-the-answer"})
		if got, _ := v.get(callback); got != status {
			t.Errorf("the provider fails with %d: %d, want %d", code, got, status)
		}
		if text := lines.String(); !strings.Contains(text, fmt.Sprintf("answers %d of_its_own", code)) || strings.Contains(text, "planted") {
			t.Errorf("the log says %s", text)
		}
	}
}

// written is what was logged. It is safe for concurrent use.
type written struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// Who is let in by one rule may stay only while the operator keeps it, whatever happens to the server.
func TestOIDCRules(t *testing.T) {
	m := newIDP(t)
	dir := t.TempDir()
	on := func(o *app.Options) { o.Memory, o.DatabaseURL, o.Data = false, "", dir }
	v := newVisitor(t)
	var kept []*http.Cookie
	for _, step := range []struct {
		allow []string
		in    bool
	}{{[]string{"groups=operators"}, true}, {[]string{"@other.example", "groups=operators"}, true}, {[]string{"ana@example.com"}, false}} {
		t.Run(fmt.Sprint(step.allow), func(t *testing.T) {
			v.t = t
			server := startWith(t, m, step.allow, on)
			u, _ := url.Parse(server)
			if kept == nil {
				m.QueueUser(&ana)
				if status, _ := v.get(v.begin(server, "")); status != 303 {
					t.Fatalf("status %d", status)
				}
				kept = v.http.Jar.Cookies(u)
			}
			v.http.Jar.SetCookies(u, kept)
			if in := v.me(server) != ""; in != step.in {
				t.Errorf("signed in %v", in)
			}
		})
	}
}

// wires is where names lead, and counts the connections that the server has opened.
type wires struct {
	to     string
	opened atomic.Int32
}

func (w *wires) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (w *wires) connect(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
	w.opened.Add(1)
	var d net.Dialer
	return d.DialContext(ctx, "tcp", w.to)
}

// The identity provider is reached as destinations are, by the guarded dialer alone: not on this machine, unless the operator allows it.
func TestOIDCGoesThroughTheGuard(t *testing.T) {
	m := newIDP(t)
	address := m.Server.Addr
	m.Server.Addr = "id.example.com:8081" // which it calls itself, and leads where wires lead
	for allowed, status := range map[string]int{"127.0.0.0/8": 303, "10.0.0.0/8": 503} {
		w := &wires{to: address}
		server := startWith(t, m, []string{"@example.com"}, func(o *app.Options) {
			o.Resolver, o.Connect, o.AllowNetworks = w, w.connect, []netip.Prefix{netip.MustParsePrefix(allowed)}
		})
		v := newVisitor(t)
		got, there := v.get(server + "/v1/sessions/oidc")
		if got != status || (w.opened.Load() > 0) != (status == 303) {
			t.Errorf("allowed %s: %d, %d connections", allowed, got, w.opened.Load())
		}
		if got != 303 {
			continue
		}
		before := w.opened.Load()
		m.QueueUser(&ana)
		_, callback := v.get(strings.Replace(there, "id.example.com:8081", address, 1))
		v.http.CloseIdleConnections()
		if status, _ := v.get(callback); status != 303 {
			t.Errorf("the callback: %d", status)
		}
		t.Logf("%d connections to begin, %d to finish", before, w.opened.Load()-before)
	}
	m.Server.Addr = address
	for what, issuer := range map[string]string{"by address": m.Issuer(), "by name": strings.Replace(m.Issuer(), "http://127.0.0.1", "https://localhost", 1)} {
		a, err := app.New(app.Options{Listen: "127.0.0.1:0", Memory: true, SecretKey: make([]byte, 32), OIDC: app.OIDC{Issuer: issuer, ClientID: "a", Allow: []string{"@a.example"}}})
		if err == nil {
			err = a.Start(t.Context())
		}
		var refused *eventhose.Error
		if !errors.As(err, &refused) || refused.Code != eventhose.CodeInvalid || refused.Field != "--oidc-issuer" {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, o := range []app.OIDC{{Issuer: m.Issuer(), Allow: []string{"@a.example"}}, {Issuer: m.Issuer(), ClientID: "a"}, {Issuer: m.Issuer(), ClientID: "a", Allow: []string{"everybody"}},
		{Issuer: m.Issuer(), ClientID: "a", Allow: []string{"*@a.example"}}, {Issuer: m.Issuer(), ClientID: "a", Allow: []string{"email=a@a.example"}}, {Issuer: "nowhere", ClientID: "a", Allow: []string{"@a.example"}}} {
		a, err := app.New(app.Options{Listen: "127.0.0.1:0", Memory: true, SecretKey: make([]byte, 32), OIDC: o, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
		if err == nil {
			err = a.Start(t.Context())
		}
		if eventhose.CodeOf(err) != eventhose.CodeInvalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// forged is a user whose tokens say something else.
type forged struct {
	mockoidc.MockUser
	change func(jwt.MapClaims)
}

func (f *forged) Claims(scopes []string, base *mockoidc.IDTokenClaims) (jwt.Claims, error) {
	claims, err := f.MockUser.Claims(scopes, base)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	all := jwt.MapClaims{}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	f.change(all)
	return all, nil
}

// flip changes a character in the middle.
func flip(s string) string {
	b := []byte(s)
	if i := len(b) / 2; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}
