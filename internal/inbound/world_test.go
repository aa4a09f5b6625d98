package inbound_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminKey = "an-admin-key-of-the-tests"

// world is a whole server on a real socket.
type world struct {
	t      *testing.T
	url    string
	http   *http.Client
	tenant *client.Tenant
	logs   *logs
	stop   func()
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T, change func(*app.Options)) *world {
	t.Helper()
	w := &world{t: t, logs: &logs{}, http: &http.Client{Transport: &http.Transport{}}}
	o := app.Options{Listen: "127.0.0.1:0", Data: t.TempDir(), AdminKey: adminKey,
		Logger: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&o)
	}
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + a.Addr()
	c, err := client.New(w.url, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	w.tenant = c.Tenant("default")
	w.stop = sync.OnceFunc(func() {
		c.Close()
		w.http.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// reply is an answer, read whole.
type reply struct {
	*http.Response
	body string
}

// send is one request; headers are pairs.
func (w *world) send(method, url, body string, headers ...string) reply {
	w.t.Helper()
	return w.do(method, url, strings.NewReader(body), headers...)
}

// sendAll posts what a reader holds.
func (w *world) sendAll(url string, body io.Reader, headers ...string) reply {
	w.t.Helper()
	return w.do("POST", url, body, headers...)
}

func (w *world) do(method, url string, body io.Reader, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	res, err := w.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{res, string(b)}
}

// manage calls the API and reads its answer into v.
func (w *world) manage(status int, method, path, body string, v any) {
	w.t.Helper()
	r := w.send(method, w.url+"/v1/tenants/default"+path, body, "Authorization", "Bearer "+adminKey, "Content-Type", "application/json")
	if r.StatusCode != status {
		w.t.Fatalf("%s %s: %d %s, want %d", method, path, r.StatusCode, r.body, status)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(r.body), v); err != nil {
			w.t.Fatalf("%s %s: %v in %s", method, path, err, r.body)
		}
	}
}

// source is what the API tells of one.
type source struct {
	ID, URL, Subscription string
}

func (w *world) source(body string) source {
	w.t.Helper()
	var s source
	w.manage(201, "POST", "/sources", body, &s)
	return s
}

func (w *world) want(status int, r reply) reply {
	w.t.Helper()
	if r.StatusCode != status {
		w.t.Fatalf("%d %q, want %d", r.StatusCode, r.body, status)
	}
	return r
}

// stripe signs as Stripe documents it.
func stripe(secret, body string, at time.Time) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// github signs as GitHub documents it.
func github(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// events reads the whole log.
func (w *world) events() []eventhose.Event {
	w.t.Helper()
	page, err := w.tenant.Read(w.t.Context(), client.ReadOptions{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	return page.Events
}
