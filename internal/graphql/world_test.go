package graphql_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/graphql"
	"github.com/eventhose/eventhose/internal/httpapi"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rootKey = "root-key-of-the-tests-0123456789"
	acme    = "/v1/tenants/acme"
	// patience is how long a test waits for a fact.
	patience = 30 * time.Second
)

// world is the real store, log, control and engine behind the HTTP API with the door, on a real socket. Only the sending of
// webhooks is scripted, so that nothing leaves the machine.
type world struct {
	t       testing.TB
	ctl     *control.Control
	log     *eventlog.Log
	api     *httpapi.API
	door    *graphql.Door
	server  *httptest.Server
	logs    *lockedBuffer
	attempt chan eventhose.Attempt
	fault   atomic.Pointer[error] // what every page of the log answers, if set
}

type served struct{ *graphql.Door }

func (s served) Answer(w http.ResponseWriter, r *http.Request, c *httpapi.Caller) error {
	return s.Door.Answer(w, r, c)
}

func (s served) Connect(w http.ResponseWriter, r *http.Request, c *httpapi.Caller) error {
	return s.Door.Connect(w, r, c)
}

// faulty is the log, whose pages fail when they are told to.
type faulty struct {
	*eventlog.Log
	w *world
}

func (f faulty) Page(ctx context.Context, tenant eventhose.TenantID, after eventhose.Cursor, filter eventhose.Filter, limit eventhose.PageLimit) (eventhose.Page, error) {
	if err := f.w.fault.Load(); err != nil {
		return eventhose.Page{}, *err
	}
	return f.Log.Page(ctx, tenant, after, filter, limit)
}

// script takes everything, but for events of the type "refused".
type script struct{ *webhook.Sink }

func (s script) Send(_ context.Context, b *sink.Batch) sink.Result {
	r := sink.Result{Outcome: eventhose.OutcomeTaken, Status: 200, Started: time.Now(), URL: b.Subscription.Destination.URL, ResponseBody: "thanks", ResponseHeaders: map[string]string{"Server": "shop"}}
	if b.Items[0].Event.Type == "refused" {
		r.Outcome, r.Reason, r.Status, r.Message = eventhose.OutcomeFailed, eventhose.ReasonStatus, 500, "the receiver refused it"
	}
	return r
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func quick(o *graphql.Options, a *httpapi.Options) {
	o.Heartbeat, a.Heartbeat = 20*time.Millisecond, 20*time.Millisecond
}

// newWorld starts everything, with the tenants acme and globex.
func newWorld(t testing.TB, change func(*graphql.Options, *httpapi.Options)) *world {
	t.Helper()
	w := &world{t: t, logs: &lockedBuffer{}, attempt: make(chan eventhose.Attempt, 1000)}
	logger := slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	st, err := embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	policy := egress.New(egress.Options{})
	client := egress.NewClient(policy, egress.ClientOptions{})
	sinks := map[string]sink.Sink{eventhose.DestinationWebhook: script{webhook.New(policy, client)}}
	if w.ctl, err = control.New(st, control.Options{AdminKey: rootKey, SecretKey: make([]byte, 32), Sinks: sinks}); err != nil {
		t.Fatal(err)
	}
	var engine *deliver.Engine
	w.log = eventlog.New(st, w.ctl, eventlog.Options{Appended: func(id eventhose.TenantID) { engine.Appended(id) },
		Erased: func(id eventhose.TenantID, _ eventhose.Sequence) { w.door.Forget(id) }})
	engine = deliver.New(st, w.ctl, w.log, sinks, deliver.Options{Logger: slog.New(slog.DiscardHandler),
		Fatal:   func(err error) { t.Errorf("the engine gave up: %v", err) },
		Observe: func(a eventhose.Attempt, _ time.Time) { w.attempt <- a }})
	w.ctl.Announce(engine.Changed)
	if err := engine.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	g := graphql.Options{Log: faulty{w.log, w}, Subscriptions: w.ctl, Delivery: engine, Logger: logger}
	o := httpapi.Options{Log: w.log, Control: w.ctl, Delivery: engine, Logger: logger, Streams: follow.NewStreams(0, 0)}
	if change != nil {
		change(&g, &o)
	}
	if w.door, err = graphql.New(g); err != nil {
		t.Fatal(err)
	}
	o.GraphQL = served{w.door}
	if w.api, err = httpapi.New(o); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(nil)
	w.server.Config = httpapi.Server(w.api)
	// Little fits between both ends, so that a client that does not read is felt.
	w.server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
		return ctx
	}
	w.server.Start()
	t.Cleanup(func() {
		w.api.Drain()
		w.door.Drain()
		w.server.Client().CloseIdleConnections()
		w.server.Close()
		w.door.Close()
		w.api.Close()
		client.Close()
		if err := errors.Join(engine.Stop(context.Background()), w.log.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, id := range []string{"acme", "globex"} {
		w.rest("PUT", "/v1/tenants/"+id, `{}`, 201)
	}
	return w
}

// rest makes a request of the HTTP API, with the key that may do everything.
func (w *world) rest(method, path, body string, want int) map[string]any {
	w.t.Helper()
	status, b, _ := w.do(method, path, body, "Authorization", "Bearer "+rootKey, "Content-Type", "application/json")
	if status != want {
		w.t.Fatalf("%s %s: %d %s", method, path, status, b)
	}
	var v map[string]any
	_ = json.Unmarshal(b, &v) // some answers are empty
	return v
}

// do makes a request. Headers are pairs.
func (w *world) do(method, path, body string, headers ...string) (status int, b []byte, h http.Header) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err = io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, b, res.Header
}

// append adds one event and answers its id.
func (w *world) append(body string) string {
	w.t.Helper()
	return w.rest("POST", acme+"/events", body, 202)["id"].(string)
}

// key makes an API key and answers its id and itself.
func (w *world) key(tenant string, scope eventhose.Scope) (id, key string) {
	w.t.Helper()
	k := w.rest("POST", "/v1/keys", `{"tenant": "`+tenant+`", "scopes": ["`+string(scope)+`"]}`, 201)
	return k["id"].(string), k["key"].(string)
}

// ticket makes a ticket for acme.
func (w *world) ticket() string {
	w.t.Helper()
	return w.rest("POST", acme+"/tickets", "", 201)["ticket"].(string)
}

// subscribe makes a subscription to a webhook and answers its id.
func (w *world) subscribe(more string) string {
	w.t.Helper()
	return w.rest("POST", acme+"/subscriptions", `{`+more+`"destination": {"type": "webhook", "url": "https://example.com/hook", "headers": {"X-Team": "planted-0badc0de"}}}`, 201)["id"].(string)
}

// attempts waits for n attempts.
func (w *world) attempts(n int) {
	w.t.Helper()
	for range n {
		select {
		case <-w.attempt:
		case <-time.After(patience):
			w.t.Fatal("no attempt was made")
		}
	}
}

func (w *world) metrics() string {
	w.t.Helper()
	_, b, _ := w.do("GET", "/metrics", "")
	return string(b)
}

// eventually waits for a fact that nothing announces.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// told is an error as clients see it.
type told struct {
	Message    string
	Path       []any
	Locations  []struct{ Line, Column int }
	Extensions struct {
		Code       eventhose.Code
		Field, Fix string
		First      eventhose.Sequence
		RetryAfter int `json:"retry_after"`
	}
}

// answer is an answer as clients see it.
type answer struct {
	Data   json.RawMessage
	Errors []told
}

func parse(t testing.TB, b []byte) (a answer) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return a
}

// ask posts a document with pairs of variables, whose values are JSON.
func (w *world) ask(document string, variables ...string) answer {
	w.t.Helper()
	status, b, h := w.do("POST", acme+"/graphql", request(document, variables...), "Authorization", "Bearer "+rootKey, "Content-Type", "application/json")
	if status != 200 || h.Get("Content-Type") != "application/json" {
		w.t.Fatalf("%s: %d %s %s", document, status, h.Get("Content-Type"), b)
	}
	return parse(w.t, b)
}

func request(document string, variables ...string) string {
	q := map[string]any{"query": document}
	if len(variables) > 0 {
		v := map[string]any{}
		for i := 0; i < len(variables); i += 2 {
			v[variables[i]] = json.RawMessage(variables[i+1])
		}
		q["variables"] = v
	}
	b, _ := json.Marshal(q)
	return string(b)
}

// want asks, and reads the data into v.
func (w *world) want(v any, document string, variables ...string) {
	w.t.Helper()
	a := w.ask(document, variables...)
	if len(a.Errors) > 0 {
		w.t.Fatalf("%s: %+v", document, a.Errors)
	}
	if err := json.Unmarshal(a.Data, v); err != nil {
		w.t.Fatalf("%s: %v in %s", document, err, a.Data)
	}
}

// refused checks that an answer is nothing but one error.
func refused(t testing.TB, what string, a answer, code eventhose.Code, field string) {
	t.Helper()
	if len(a.Errors) == 0 || a.Errors[0].Extensions.Code != code || a.Errors[0].Extensions.Field != field || a.Errors[0].Message == "" {
		t.Errorf("%.100s: %+v, want %s for %q", what, a, code, field)
	}
	if a.Data != nil && !bytes.Contains(a.Data, []byte("null")) {
		t.Errorf("%.100s: yet there is %s", what, a.Data)
	}
}
