package browser_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

const adminKey = "ehk_test_0123456789abcdef"

// drivers are the stores that the pages are looked at over.
var drivers = []string{"embedded", "postgresql"}

// server is a running Eventhose with receivers of all kinds.
type server struct {
	t        *testing.T
	url      string
	receiver string
	// mended makes the receiver below /mended take what it refused before.
	mended atomic.Bool
	// hostile answers below /hostile.
	hostile http.Handler
}

// start starts a server over a driver. It ends with the test.
func start(t *testing.T, driver string, change ...func(*app.Options)) *server {
	t.Helper()
	s := &server{t: t}
	receiver := httptest.NewServer(http.HandlerFunc(s.receive))
	t.Cleanup(receiver.Close)
	s.receiver = receiver.URL
	o := app.Options{Listen: "127.0.0.1:0", AdminKey: adminKey, Version: "test", AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if driver == "postgresql" {
		o.DatabaseURL, o.SecretKey, o.Node = pgtest.Database(t), bytes.Repeat([]byte{7}, 32), "first"
	} else {
		o.Data = t.TempDir()
	}
	for _, f := range change {
		f(&o)
	}
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	s.url = "http://" + a.Addr()
	return s
}

// receive answers as the path says.
func (s *server) receive(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the sender sees whether it was read
	switch path := strings.Trim(r.URL.Path, "/"); {
	case strings.HasPrefix(path, "hostile/"):
		s.hostile.ServeHTTP(w, r)
	case path == "mended" && !s.mended.Load():
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error": "invalid signature"}`)
	case path == "slow":
		select {
		case <-time.After(900 * time.Millisecond):
		case <-r.Context().Done():
		}
	case path == "busy":
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		fmt.Fprint(w, `{"received": true}`)
	}
}

// call asks the API; the answer is of status 2xx or the test fails.
func (s *server) call(method, path string, body any) map[string]any {
	s.t.Helper()
	status, answer := s.try(method, path, body)
	if status/100 != 2 {
		s.t.Fatalf("%s %s answered %d: %v", method, path, status, answer)
	}
	return answer
}

func (s *server) try(method, path string, body any) (int, map[string]any) {
	s.t.Helper()
	var b io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		b = bytes.NewReader(j)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, b)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminKey)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer map[string]any
	if len(said) > 0 {
		if err := json.Unmarshal(said, &answer); err != nil {
			answer = map[string]any{"text": string(said)}
		}
	}
	return resp.StatusCode, answer
}

type object = map[string]any

// subscribe makes a subscription of acme and answers its id.
func (s *server) subscribe(name, path string, more object) string {
	s.t.Helper()
	body := object{"name": name}
	if path != "" {
		body["destination"] = object{"type": "webhook", "url": s.receiver + path}
	}
	for k, v := range more {
		body[k] = v
	}
	return s.call("POST", "/v1/tenants/acme/subscriptions", body)["id"].(string)
}

// append appends events to acme's log and answers their ids.
func (s *server) append(events ...object) []string {
	s.t.Helper()
	answer := s.call("POST", "/v1/tenants/acme/events", events)
	var ids []string
	for _, e := range answer["events"].([]any) {
		ids = append(ids, e.(map[string]any)["id"].(string))
	}
	return ids
}

// await waits for the API to say something.
func (s *server) await(path, what string, is func(object) bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, answer := s.try("GET", path, nil)
		if is(answer) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: %s did not come: %v", path, what, answer)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-s.t.Context().Done():
			s.t.Fatal(s.t.Context().Err())
		}
	}
}

// acme is a tenant in which everything that the pages can show has happened.
type acme struct {
	*server
	// taken was taken by all, dead is dead at the receiver that can be mended.
	taken, dead                       string
	billing, ledger, workers, batches string
	paused                            string
	source, rejection                 string
	failed                            string // an attempt of ledger
	inspector                         string
}

func newAcme(t *testing.T, driver string, change ...func(*app.Options)) *acme {
	t.Helper()
	a := &acme{server: start(t, driver, change...)}
	a.call("PUT", "/v1/tenants/acme", object{"retention": object{"age": "720h"}})
	a.billing = a.subscribe("billing-hook", "/ok", object{"filter": object{"types": []string{"payment.*", "order.*"}}})
	a.subscribe("crm", "/ok", object{"filter": object{"types": []string{"customer.*"}}})
	a.ledger = a.subscribe("ledger-sync", "/mended", object{"filter": object{"types": []string{"payment.*"}}, "ordering": "key",
		"retry": object{"schedule": []string{"0s"}, "timeout": "10s"}})
	a.subscribe("warehouse-eu", "/slow", object{"filter": object{"types": []string{"parcel.*"}}, "retry": object{"timeout": "1s"}})
	a.subscribe("partner", "/busy", object{"filter": object{"types": []string{"order.*"}}})
	a.batches = a.subscribe("analytics", "/ok", object{"batch": object{"max_events": 100, "max_bytes": 1 << 20, "max_wait": "20ms"}})
	a.workers = a.subscribe("agent-hq", "", object{"filter": object{"types": []string{"order.*"}}})
	a.paused = a.subscribe("staging", "/ok", nil)
	a.call("POST", "/v1/tenants/acme/subscriptions/"+a.paused+"/pause", nil)
	secret := "whsec_" + strings.Repeat("A", 32)
	src := a.call("POST", "/v1/tenants/acme/sources", object{"provider": "github", "name": "github", "secret": secret})
	a.source = src["id"].(string)
	a.github(secret, "7d5f7b30-0000-11f0-8000-000000000001", true)
	a.github(secret, "7d5f7b30-0000-11f0-8000-000000000002", false)
	a.rejection = a.call("GET", "/v1/tenants/acme/sources/"+a.source+"/rejections", nil)["data"].([]any)[0].(map[string]any)["id"].(string)
	a.call("POST", "/v1/keys", object{"tenant": "acme", "scopes": []string{"publish"}, "name": "checkout"})
	a.inspector = a.call("POST", "/v1/tenants/acme/inspectors", object{"name": "look here"})["id"].(string)

	for i := range 40 {
		a.append(
			object{"type": "order.created", "key": fmt.Sprintf("order_%d", 8800+i), "data": object{"order": fmt.Sprintf("order_%d", 8800+i), "amount": 100 + i, "currency": "eur"}},
			object{"type": "customer.updated", "key": fmt.Sprintf("cus_%d", i%7), "data": object{"customer": i % 7, "email": "a@example.com"}},
			object{"type": "parcel.scanned", "key": fmt.Sprintf("parcel_%d", i), "data": object{"parcel": i, "place": "Hamburg"}},
		)
	}
	ids := a.append(
		object{"type": "order.paid", "key": "order_8812", "attributes": object{"region": "eu"}, "data": json.RawMessage(`{"order": "order_8812", "amount": 10000, "exact": 12345678901234567890, "currency": "eur", "method": {"type": "sepa_debit", "last4": "3000"}}`)},
		object{"type": "payment.settled", "key": "order_8812", "data": object{"id": "pi_3Nq8", "amount": 10000, "currency": "eur", "order": "order_8812"}},
		object{"type": "payment.settled", "key": "order_8813", "data": object{"id": "pi_3Nq9", "amount": 4200, "currency": "eur", "order": "order_8813"}})
	a.taken, a.dead = ids[0], ids[1]
	a.await("/v1/tenants/acme/subscriptions/"+a.ledger, "two dead events", func(o object) bool {
		st, _ := o["status"].(map[string]any)
		return st != nil && st["dead"] == 2.0
	})
	a.await("/v1/tenants/acme/subscriptions/"+a.batches, "the end of the log", func(o object) bool {
		st, _ := o["status"].(map[string]any)
		return st != nil && st["lag"] == 0.0
	})
	a.await("/v1/tenants/acme/subscriptions/"+a.ledger+"/attempts", "an attempt on record", func(o object) bool {
		list, _ := o["data"].([]any)
		if len(list) > 0 {
			a.failed = list[0].(map[string]any)["id"].(string)
		}
		return len(list) > 0
	})
	return a
}

// github sends what GitHub would; wrong has another secret.
func (a *acme) github(secret, id string, right bool) {
	a.t.Helper()
	body := `{"action": "opened", "number": 7, "repository": {"full_name": "acme/shop"}}`
	if !right {
		secret = "another secret"
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	r, err := http.NewRequestWithContext(a.t.Context(), "POST", a.url+"/in/"+a.source, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Event", "pull_request")
	r.Header.Set("X-GitHub-Delivery", id)
	r.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	resp.Body.Close()
	if want := map[bool]int{true: 200, false: 401}[right]; resp.StatusCode != want {
		a.t.Fatalf("the source answered %d, and %d is right", resp.StatusCode, want)
	}
}

// enter opens a page of an operator who is signed in.
func (s *server) enter(b *tab, path string) {
	s.t.Helper()
	b.expect("/v1/sessions/current") // who has no session yet is told 401
	b.visit(s.url + "/ui/#key=" + adminKey)
	b.until(`!!document.querySelector("nav.side")`)
	if path != "" {
		b.visit(s.url + path)
		b.until(`!!document.querySelector("main h1")`)
	}
}
