package app_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

// needles are the ways in which a secret may be written down.
func needles(secret []byte) map[string][]byte {
	n := map[string][]byte{"raw": secret, "hex": []byte(hex.EncodeToString(secret)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(secret)))}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			// In the middle of other bytes base64 begins at any of three places; its first and last characters mix with them.
			text := enc.EncodeToString(append(make([]byte, shift), secret...))
			n[fmt.Sprintf("base64 %p %d", enc, shift)] = []byte(text[4 : len(text)-4])
		}
	}
	return n
}

// haystack looks for planted secrets.
type haystack struct {
	secrets map[string][]byte
	found   []string
}

func (h *haystack) search(where string, content []byte) {
	for name, secret := range h.secrets {
		for how, needle := range needles(secret) {
			if bytes.Contains(content, needle) {
				h.found = append(h.found, fmt.Sprintf("%s (%s) in %s", name, how, where))
			}
		}
	}
}

// searchFiles looks into every file as it lies there, but those left out.
func (h *haystack) searchFiles(t *testing.T, dir string, leaveOut ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		for _, name := range leaveOut {
			if filepath.Base(path) == name {
				return nil
			}
		}
		content, err := os.ReadFile(path)
		h.search(path, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// searchStore looks into every key and value, as the store decodes them.
func (h *haystack) searchStore(t *testing.T, dir string) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	n := 0
	for it.First(); it.Valid(); it.Next() {
		h.search(fmt.Sprintf("key %x", it.Key()), it.Key())
		h.search(fmt.Sprintf("value of %x", it.Key()), it.Value())
		n++
	}
	if n < 100 {
		t.Fatalf("only %d keys were looked at", n)
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

// recorder keeps every answer of the API.
type recorder struct {
	mu   sync.Mutex
	body bytes.Buffer
}

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	// A secret is shown once, when it is made.
	once := q.Method == http.MethodPost && (strings.HasSuffix(q.URL.Path, "/keys") || strings.HasSuffix(q.URL.Path, "/sessions") || strings.HasSuffix(q.URL.Path, "/portal-links") || strings.HasSuffix(q.URL.Path, "/subscriptions") || strings.HasSuffix(q.URL.Path, "/rotate"))
	if !once || resp.StatusCode >= 300 {
		r.mu.Lock()
		fmt.Fprintln(&r.body, resp.StatusCode, resp.Header)
		r.body.Write(body)
		r.mu.Unlock()
	}
	return resp, err
}

// Secrets that are planted everywhere a user can put them, sent to receivers that echo them back, are found nowhere:
// not in the files, raw or decoded, while the server runs and after it, not in logs, metrics, errors or answers.
func TestPlantedSecretsAreFoundNowhere(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for name, values := range r.Header {
			w.Header()["X-Echo-"+name] = values
		}
		w.WriteHeader(500)
		fmt.Fprintln(w, r.Header, string(body))
	}))
	defer echo.Close()

	h := &haystack{secrets: map[string][]byte{
		"admin key":    []byte("planted-admin-key-5f3759df5f3759df"),
		"header value": []byte("Bearer planted-header-value-0badc0de"),
		"secret key":   bytes.Repeat([]byte("planted!"), 4),

		"source secret":    []byte("planted-source-secret-1badb002"),
		"verify token":     []byte("planted-verify-token-8badf00d"),
		"sender's token":   []byte("planted-senders-token-defec8ed"),
		"token in a query": []byte("planted-query-token-deadc0de"),
	}}
	var logs bytes.Buffer
	var logging sync.Mutex
	dir := filepath.Join(t.TempDir(), "data")
	a, err := app.New(app.Options{Listen: "127.0.0.1:0", Data: dir, AdminKey: eventhose.Secret(h.secrets["admin key"]), SecretKey: h.secrets["secret key"],
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Logger:        slog.New(slog.NewTextHandler(lockedWriter{&logging, &logs}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	answers := &recorder{}
	c, err := client.New("http://"+a.Addr(), eventhose.Secret(h.secrets["admin key"]), client.WithHTTPClient(&http.Client{Transport: answers}))
	if err != nil {
		t.Fatal(err)
	}
	key, err := c.CreateKey(ctx, client.NewKey{Tenant: "default", Scopes: []eventhose.Scope{eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	h.secrets["api key"] = []byte(key.Key)
	session, err := c.SignIn(ctx, key.Key)
	if err != nil {
		t.Fatal(err)
	}
	h.secrets["session"] = []byte(session.Value)
	link, err := c.Tenant("default").CreatePortalLink(ctx, client.NewPortalLink{Name: "planted"})
	if err != nil {
		t.Fatal(err)
	}
	h.secrets["portal link"] = []byte(link.Token)
	tenant := c.Tenant("default")
	var subs []eventhose.SubscriptionID
	for i, signature := range []string{"v1", "v1a"} {
		s, err := tenant.CreateSubscription(ctx, client.NewSubscription{Retry: eventhose.Retry{Schedule: []eventhose.Duration{0, eventhose.Duration(50 * time.Millisecond)}},
			Destination: eventhose.Destination{Type: "webhook", URL: echo.URL + "/hook", Signature: signature,
				Headers: map[string]eventhose.Secret{"Authorization": eventhose.Secret(h.secrets["header value"])}}})
		if err != nil {
			t.Fatal(err)
		}
		rotated, err := tenant.RotateSecret(ctx, s.ID, eventhose.Duration(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for j, secret := range []eventhose.Secret{s.Secret, rotated.Secret} {
			text := strings.SplitN(string(secret), "_", 2)[1]
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(raw) < 24 {
				t.Fatalf("secret %d: %v", j, err)
			}
			h.secrets[fmt.Sprintf("signing secret %d.%d", i, j)] = raw
			h.secrets[fmt.Sprintf("signing secret %d.%d as text", i, j)] = []byte(secret)
		}
		subs = append(subs, s.ID)
	}
	source, err := tenant.CreateSource(ctx, eventhose.Source{Provider: "meta", Secrets: []eventhose.Secret{eventhose.Secret(h.secrets["source secret"])},
		VerifyToken: eventhose.Secret(h.secrets["verify token"])})
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := http.NewRequestWithContext(ctx, http.MethodPost, source.URL+"?access_token="+string(h.secrets["token in a query"]), strings.NewReader("{}"))
	stranger.Header.Set("Authorization", "Bearer "+string(h.secrets["sender's token"]))
	if resp, err := answers.RoundTrip(stranger); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("%v, %v", resp, err)
	}
	rejections, err := tenant.Rejections(ctx, source.ID)
	if err != nil || len(rejections.Data) != 1 {
		t.Fatalf("%v, %v", rejections, err)
	}
	if _, err := tenant.Rejection(ctx, source.ID, rejections.Data[0].ID); err != nil {
		t.Fatal(err)
	}
	for n := range 20 { // few enough that the circuit stays closed
		if _, err := tenant.Append(ctx, eventhose.Event{Type: "order.paid", Data: fmt.Appendf(nil, `{"n":%d}`, n)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range subs {
		for {
			s, err := tenant.Subscription(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if s.Status.Dead == 20 {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatalf("never dead: %+v", s.Status)
			case <-time.After(20 * time.Millisecond):
			}
		}
		if _, err := tenant.Test(ctx, id); err != nil {
			t.Fatal(err)
		}
		if list, err := tenant.Attempts(ctx, id, client.ListOptions{Limit: 1000}); err != nil || len(list.Data) < 40 {
			t.Fatalf("%d attempts, %v", len(list.Data), err)
		}
		if _, err := tenant.Parked(ctx, id, "", client.ListOptions{Limit: 1000}); err != nil {
			t.Fatal(err)
		}
		tenant.Subscription(ctx, eventhose.SubscriptionID(h.secrets["admin key"])) // an error that could echo what it was given
	}
	for _, path := range []string{"/metrics", "/openapi.json", "/readyz", "/v1/keys", "/v1/tenants/default/subscriptions", "/v1/sessions", "/v1/audit", "/v1/tenants/default/portal-links", "/v1/tenants/default/events?after=planted"} {
		q, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Addr()+path, nil)
		q.Header.Set("Authorization", "Bearer "+string(h.secrets["admin key"]))
		resp, err := answers.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	h.searchFiles(t, dir)
	if err := a.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	h.searchFiles(t, dir)
	h.searchStore(t, storeDir(t, dir))
	h.search("the logs", logs.Bytes())
	h.search("the API's answers", answers.body.Bytes())
	for _, f := range h.found {
		t.Error(f)
	}
	if logs.Len() < 1000 || answers.body.Len() < 10_000 {
		t.Errorf("%d bytes of logs and %d of answers: too little to prove anything", logs.Len(), answers.body.Len())
	}
}

// The search is seen red on each way of writing a secret down.
func TestSearchSeesSecrets(t *testing.T) {
	secret := []byte("planted-admin-key-5f3759df5f3759df")
	for i, content := range []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		base64.StdEncoding.EncodeToString([]byte("x" + string(secret) + "y")), base64.URLEncoding.EncodeToString([]byte("xx" + string(secret)))} {
		h := &haystack{secrets: map[string][]byte{"it": secret}}
		if h.search("here", []byte("before "+content+" after")); len(h.found) == 0 {
			t.Errorf("writing %d is not seen", i)
		}
	}
}

// storeDir finds where Pebble keeps its files in a data directory.
func storeDir(t *testing.T, dir string) string {
	t.Helper()
	found := ""
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(e.Name(), "MANIFEST-") {
			found = filepath.Dir(path)
		}
		return nil
	})
	if found == "" {
		t.Fatal("no MANIFEST in the data directory")
	}
	return found
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
