package httpapi_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/httpapi"
	"github.com/eventhose/eventhose/internal/inbound"
	"github.com/eventhose/eventhose/internal/inspector"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/rollup"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rootKey = "root-key-of-the-tests-0123456789"

// world is the real store, log, control and engine behind the API on a real socket. Only the sending of webhooks is
// scripted, so that nothing leaves the machine.
type world struct {
	t       testing.TB
	ctl     *control.Control
	log     *eventlog.Log
	engine  *deliver.Engine
	rollups *rollup.Rollups
	sink    *script
	api     *httpapi.API
	server  *httptest.Server
	logs    *lockedBuffer
	attempt chan eventhose.Attempt
	gate    *gate
}

// gate is the log, and tells when a read begins and ends to wait.
type gate struct {
	*eventlog.Log
	begun atomic.Pointer[chan struct{}]
	ended chan struct{}
}

func (g *gate) Wait(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence) error {
	if begun := g.begun.Swap(nil); begun != nil {
		close(*begun)
	}
	err := g.Log.Wait(ctx, tenant, after)
	if err != nil {
		select {
		case g.ended <- struct{}{}:
		default:
		}
	}
	return err
}

// script checks destinations as the real sink does and answers what it is told to.
type script struct {
	*webhook.Sink
	mu     sync.Mutex
	status int
	refuse string // the id of an event that no batch's receiver takes
	body   string // what receivers answer, saidBody if ""
}

// What receivers answer, which not everybody may see.
const saidHeader, saidBody = "said-in-a-header", "said-in-a-body"

func (s *script) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *script) Send(_ context.Context, b *sink.Batch) sink.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := sink.Result{Outcome: eventhose.OutcomeTaken, Status: s.status, Started: time.Now(), URL: b.Subscription.Destination.URL,
		ResponseHeaders: map[string]string{"X-Said": saidHeader}, ResponseBody: cmp.Or(s.body, saidBody)}
	if s.status >= 300 {
		r.Outcome, r.Reason, r.Message = eventhose.OutcomeFailed, eventhose.ReasonStatus, "the receiver refused it"
	}
	for _, item := range b.Items {
		if item.Event.ID == s.refuse && len(b.Items) > 1 {
			r.Outcome, r.Reason, r.Message = eventhose.OutcomeFailed, eventhose.ReasonPartly, "the receiver took some"
			r.Failed = []sink.Refused{{ID: s.refuse, Message: "no such order"}}
		}
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

// openStore answers the embedded store, or with EVENTHOSE_TEST_STORE=postgres the other one: the API is the same over both.
func openStore(t testing.TB) (store.Store, error) {
	if os.Getenv("EVENTHOSE_TEST_STORE") == "postgres" {
		return postgres.Open(t.Context(), pgtest.Database(t), postgres.Options{})
	}
	return embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
}

// newWorld starts everything, with the tenants acme and globex.
func newWorld(t testing.TB, change func(*httpapi.Options)) *world {
	t.Helper()
	st, err := openStore(t)
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOver(t, st, change)
}

// newWorldOver is newWorld over a store, which it closes.
func newWorldOver(t testing.TB, st store.Store, change func(*httpapi.Options)) *world {
	t.Helper()
	var err error
	w := &world{t: t, logs: &lockedBuffer{}, attempt: make(chan eventhose.Attempt, 10_000)}
	logger := slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	policy := egress.New(egress.Options{})
	client := egress.NewClient(policy, egress.ClientOptions{})
	w.sink = &script{Sink: webhook.New(policy, client), status: 200}
	sinks := map[string]sink.Sink{eventhose.DestinationWebhook: w.sink}
	w.ctl, err = control.New(st, control.Options{AdminKey: rootKey, SecretKey: make([]byte, 32), Sinks: sinks, CheckSource: (&inbound.Checker{}).Check})
	if err != nil {
		t.Fatal(err)
	}
	w.rollups = rollup.New(st, rollup.Options{})
	w.log = eventlog.New(st, w.ctl, eventlog.Options{Counted: w.rollups.Appended, Appended: func(id eventhose.TenantID) { w.engine.Appended(id) },
		Erased: func(id eventhose.TenantID, _ eventhose.Sequence) { w.api.Forget(id) }})
	w.engine = deliver.New(st, w.ctl, w.log, sinks, deliver.Options{Logger: slog.New(slog.DiscardHandler),
		Fatal:   func(err error) { t.Errorf("the engine gave up: %v", err) },
		Observe: func(a eventhose.Attempt, appended time.Time) { w.rollups.Attempted(&a, appended); w.attempt <- a },
		Worked:  func(a eventhose.Attempt) { w.rollups.Attempted(&a, time.Time{}) }})
	w.ctl.Announce(w.engine.Changed)
	if err := w.engine.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.gate = &gate{Log: w.log, ended: make(chan struct{}, 1)}
	door, err := inbound.New(inbound.Options{Log: w.log, Sources: w.ctl, Delivery: w.engine})
	if err != nil {
		t.Fatal(err)
	}
	inspect, err := inspector.New(inspector.Options{Inspectors: w.ctl})
	if err != nil {
		t.Fatal(err)
	}
	o := httpapi.Options{Log: w.gate, Control: w.ctl, Delivery: w.engine, Logger: logger, Version: "1.2.3", Backup: backups{}, Metrics: w.rollups, Health: health, Sources: sources{w.ctl, door}, Inspectors: inspectors{w.ctl, inspect}}
	if change != nil {
		change(&o)
	}
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
		w.server.Client().CloseIdleConnections()
		w.server.Close()
		w.api.Close()
		client.Close()
		if err := errors.Join(w.engine.Stop(context.Background()), w.log.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, id := range []string{"acme", "globex"} {
		w.want(201, w.root("PUT", "/v1/tenants/"+id, `{}`))
	}
	return w
}

type sources struct {
	*control.Control
	*inbound.Door
}

type inspectors struct {
	*control.Control
	*inspector.Door
}

// inspector makes an inspector that has got a request, and answers its id.
func (w *world) inspector(tenant string) string {
	w.t.Helper()
	id := w.want(201, w.root("POST", "/v1/tenants/"+tenant+"/inspectors", "{}")).json(w.t)["id"].(string)
	if _, err := w.ctl.KeepInspected(w.t.Context(), eventhose.TenantID(tenant), eventhose.InspectorID(id), eventhose.InspectedRequest{Time: time.Now(), Method: "POST",
		Path: "/", Headers: map[string][]string{"Host": {"example.com"}}, Body: "x", Signature: eventhose.SignatureNone, Answered: 200}); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// source makes a source with a rejected request, and answers the ids of both.
func (w *world) source(tenant string) (id, rejection string) {
	w.t.Helper()
	id = w.want(201, w.root("POST", "/v1/tenants/"+tenant+"/sources", `{"provider": "github", "secret": "long-enough"}`)).json(w.t)["id"].(string)
	mac := hmac.New(sha256.New, []byte("long-enough"))
	mac.Write([]byte("{}"))
	r, err := w.ctl.KeepRejection(w.t.Context(), eventhose.TenantID(tenant), eventhose.Rejection{Source: eventhose.SourceID(id), Received: time.Now(),
		Reason: "no_match", Detail: "the secret does not match", Method: "POST", Size: 2, Request: &eventhose.RejectedRequest{
			Header: http.Header{"X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))}}, Body: []byte("{}")}})
	if err != nil {
		w.t.Fatal(err)
	}
	return id, r.ID
}

// health is all of it that the API does not know itself.
func health(context.Context) (eventhose.Health, error) {
	return eventhose.Health{Version: "1.2.3", Started: time.Now(), Node: "n", Store: eventhose.StoreEmbedded, Disk: &eventhose.DiskHealth{Data: 1, Free: 2, Total: 3},
		Nodes: []eventhose.NodeHealth{{ID: "n", Leases: 256, Self: true}}, Leases: eventhose.LeasesHealth{Held: 256, Total: 256}}, nil
}

type backups struct{}

func (backups) Backup(_ context.Context, name string) (string, error) { return "/backups/" + name, nil }

// reply is an answer, read whole.
type reply struct {
	*http.Response
	what string
	body []byte
}

func (r reply) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%s: %v in %s", r.what, err, r.body)
	}
	return v
}

// call is one request. Headers are pairs.
func (w *world) call(key, method, path, body string, headers ...string) reply {
	w.t.Helper()
	r, err := w.try(w.t.Context(), key, method, path, body, headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) try(ctx context.Context, key, method, path, body string, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.HasSuffix(req.URL.Path, "/events/ws") {
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
			req.Header.Set(name, value)
		}
	}
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Del(pair[0])
		if pair[1] != "" {
			req.Header.Set(pair[0], pair[1])
		}
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := w.server.Client().Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	what := method + " " + path
	if res.StatusCode == http.StatusSwitchingProtocols {
		return reply{res, what, nil}, nil
	}
	if typ := res.Header.Get("Content-Type"); method == "GET" && (typ == "text/event-stream" || typ == "application/x-ndjson") {
		b := make([]byte, 10) // the stream has begun, which is all that a call can wait for
		n, err := io.ReadFull(res.Body, b)
		return reply{res, what, b[:n]}, err
	}
	b, err := io.ReadAll(res.Body)
	return reply{res, what, b}, err
}

// root calls with the key that may do everything.
func (w *world) root(method, path, body string, headers ...string) reply {
	w.t.Helper()
	return w.call(rootKey, method, path, body, headers...)
}

func (w *world) want(status int, r reply) reply {
	w.t.Helper()
	if r.StatusCode != status {
		w.t.Fatalf("%s: %d, want %d: %s", r.what, r.StatusCode, status, r.body)
	}
	return r
}

// refused checks a problem's shape, code and field, and that the document says that there may be one.
func (w *world) refused(code eventhose.Code, field string, r reply) {
	w.t.Helper()
	w.problem(code, field, r)
	if op := w.operation(r.Request); op != nil && op.Responses[fmt.Sprint(r.StatusCode)] == nil {
		w.t.Errorf("%s: the document does not say that it may be refused with %d", r.what, r.StatusCode)
	}
}

// problem is refused but for the document.
func (w *world) problem(code eventhose.Code, field string, r reply) {
	w.t.Helper()
	var p httpapi.Problem
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || r.Header.Get("Content-Type") != "application/problem+json" {
		w.t.Fatalf("%s: not a problem: %d %s %s (%v)", r.what, r.StatusCode, r.Header.Get("Content-Type"), r.body, err)
	}
	if p.Code != code || p.Field != field || p.Status != r.StatusCode || p.Detail == "" || p.Title == "" || p.Type != "/docs#"+string(code) {
		w.t.Errorf("%s: got %s, want code %s and field %q", r.what, r.body, code, field)
	}
	if field != "" && (len(p.Errors) == 0 || p.Errors[0].Field != field) {
		w.t.Errorf("%s: errors do not name %q: %s", r.what, field, r.body)
	}
}

// operation answers what the document has for a request, nil if that is nothing.
func (w *world) operation(r *http.Request) *huma.Operation {
	parts := strings.Split(r.URL.EscapedPath(), "/")
	var found *huma.Operation
	least := len(parts)
	for path, item := range w.api.Document().Paths {
		names, variable := strings.Split(path, "/"), strings.Count(path, "{")
		fits := slices.EqualFunc(names, parts, func(name, part string) bool { return name == part || strings.HasPrefix(name, "{") && part != "" })
		op := map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete}[r.Method]
		if fits && variable < least && op != nil { // of several the most particular one
			found, least = op, variable
		}
	}
	return found
}

// key makes an API key through the API and answers its id and itself.
func (w *world) key(tenant string, scopes ...eventhose.Scope) (id, key string) {
	w.t.Helper()
	body, _ := json.Marshal(map[string]any{"tenant": tenant, "scopes": scopes})
	if tenant == "" {
		body, _ = json.Marshal(map[string]any{"scopes": scopes})
	}
	k := w.want(201, w.root("POST", "/v1/keys", string(body))).json(w.t)
	return k["id"].(string), k["key"].(string)
}

// subscribe makes a subscription and answers its id.
func (w *world) subscribe(tenant, more string) string {
	w.t.Helper()
	r := w.want(201, w.root("POST", "/v1/tenants/"+tenant+"/subscriptions", `{`+more+`"destination": {"type": "webhook", "url": "https://example.com/hook"}}`))
	return r.json(w.t)["id"].(string)
}

// tried makes a test at a subscription and answers the attempt's id.
func (w *world) tried(tenant, id string) string {
	w.t.Helper()
	return w.want(200, w.root("POST", "/v1/tenants/"+tenant+"/subscriptions/"+id+"/test", "")).json(w.t)["id"].(string)
}

// append adds one event and answers its id.
func (w *world) append(tenant, body string) string {
	w.t.Helper()
	return w.want(202, w.root("POST", "/v1/tenants/"+tenant+"/events", body)).json(w.t)["id"].(string)
}

// attempts waits for n attempts.
func (w *world) attempts(n int) {
	w.t.Helper()
	for range n {
		select {
		case <-w.attempt:
		case <-time.After(20 * time.Second):
			w.t.Fatal("no attempt was made")
		}
	}
}
