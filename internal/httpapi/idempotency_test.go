package httpapi_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/eventhosetest"
	"github.com/eventhose/eventhose/internal/httpapi"
)

func TestIdempotencyKey(t *testing.T) {
	w := newWorld(t, nil)
	body := `{"type":"t","data":1}`
	first := w.want(202, w.root("POST", events, body, "Idempotency-Key", `"k1"`))
	again := w.want(202, w.root("POST", events, body, "Idempotency-Key", "k1"))
	if string(first.body) != string(again.body) || first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" || again.Header.Get("Content-Type") != "application/json" {
		t.Errorf("first %s %v, again %s %v", first.body, first.Header, again.body, again.Header)
	}
	// Other tenants have their own keys, other requests may not use the same.
	w.want(202, w.root("POST", "/v1/tenants/globex/events", `{"type":"t","data":2}`, "Idempotency-Key", "k1"))
	w.refused("invalid", "Idempotency-Key", w.root("POST", events, `{"type":"t","data":2}`, "Idempotency-Key", "k1"))
	w.refused("invalid", "Idempotency-Key", w.root("POST", subscriptions, body, "Idempotency-Key", "k1"))
	ce := []string{"Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", "/s", "Ce-Type", "t", "Idempotency-Key", "ce"}
	w.want(202, w.root("POST", events, "1", ce...))
	w.refused("invalid", "Idempotency-Key", w.root("POST", events, "1", append(ce, "Ce-Subject", "s")...))
	if n := len(w.page(events).Data); n != 2 {
		t.Errorf("%d events in the log", n)
	}
	// What failed is not stored.
	w.refused("invalid", "data", w.root("POST", events, `{"type":"t"}`, "Idempotency-Key", "k2"))
	w.want(202, w.root("POST", events, body, "Idempotency-Key", "k2"))
	for _, key := range []string{strings.Repeat("k", 256), `""`, `"a"b"`, "a\tb", `a\b`, "é"} {
		w.refused("invalid", "Idempotency-Key", w.root("POST", events, body, "Idempotency-Key", key))
	}
	w.want(202, w.root("POST", events, body, "Idempotency-Key", strings.Repeat("k", 255)))
	// An answer with a secret is given again whole.
	for path, body := range map[string]string{"/v1/keys": `{"scopes":["read"]}`, subscriptions: `{` + hook + `}`} {
		first := w.want(201, w.root("POST", path, body, "Idempotency-Key", "made"+path[:7]))
		again := w.want(201, w.root("POST", path, body, "Idempotency-Key", "made"+path[:7]))
		if string(first.body) != string(again.body) {
			t.Errorf("%s: first %s, again %s", path, first.body, again.body)
		}
	}
	// GETs do not care.
	w.want(200, w.root("GET", events, "", "Idempotency-Key", "k1"))
	// An answer that could not be stored is not begun.
	var many strings.Builder
	for i := range 9_000 {
		fmt.Fprintf(&many, `{"type":"t","id":"%0240d","data":1}`+"\n", i)
	}
	w.refused("invalid", "Idempotency-Key", w.root("POST", events, many.String(), "Content-Type", "application/x-ndjson", "Idempotency-Key", "k3"))
	w.want(202, w.root("POST", events, many.String(), "Content-Type", "application/x-ndjson"))
}

// slowLog lets an append wait.
type slowLog struct {
	httpapi.Log
	begun, end chan struct{}
}

func (s *slowLog) Append(ctx context.Context, tenant eventhose.TenantID, events ...eventhose.Event) ([]eventhose.Placement, error) {
	if events[0].Type == "slow" {
		s.begun <- struct{}{}
		<-s.end
	}
	if events[0].Type == "broken" {
		return nil, fmt.Errorf("the disk says: %s", planted)
	}
	if events[0].Type == "panic" {
		events = events[:len(events)-1]
		return nil, events[len(events)].Validate() // which panics
	}
	return s.Log.Append(ctx, tenant, events...)
}

const planted = "planted-secret-7f3a"

func TestIdempotencyKeyInFlight(t *testing.T) {
	slow := &slowLog{begun: make(chan struct{}), end: make(chan struct{})}
	w := newWorld(t, func(o *httpapi.Options) { slow.Log, o.Log = o.Log, slow })
	body := `{"type":"slow","data":1}`
	answers := make(chan reply)
	go func() {
		r, err := w.try(context.Background(), rootKey, "POST", events, body, "Idempotency-Key", "k")
		if err != nil {
			t.Error(err)
		}
		answers <- r
	}()
	<-slow.begun
	w.refused("conflict", "Idempotency-Key", w.root("POST", events, body, "Idempotency-Key", "k"))
	close(slow.end)
	first := w.want(202, <-answers)
	if again := w.want(202, w.root("POST", events, body, "Idempotency-Key", "k")); string(again.body) != string(first.body) {
		t.Errorf("first %s, again %s", first.body, again.body)
	}

	// A client that leaves finds its answer when it comes back: it is appended once.
	slow.end = make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = w.try(ctx, rootKey, "POST", events, body, "Idempotency-Key", "left")
	}()
	<-slow.begun
	leave()
	<-left
	w.refused("conflict", "Idempotency-Key", w.root("POST", events, body, "Idempotency-Key", "left"))
	close(slow.end)
	r := w.root("POST", events, body, "Idempotency-Key", "left")
	for r.StatusCode == 409 {
		r = w.root("POST", events, body, "Idempotency-Key", "left")
	}
	w.want(202, r)
	if n := len(w.page(events).Data); n != 2 || r.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d events in the log, answered %v", n, r.Header)
	}
}

// What a client gets again is what it has got, also if it takes compressed answers, as most do by themselves.
func TestIdempotencyKeyOfACompressedAnswer(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
	w.append("acme", `{"type":"job","data":"`+strings.Repeat("x", 10_000)+`"}`)
	const pull = `{"wait":"20s","lease":"10m"}`
	first := w.want(200, w.root("POST", subscriptions+"/"+sub+"/pull", pull, "Idempotency-Key", "k"))
	again := w.want(200, w.root("POST", subscriptions+"/"+sub+"/pull", pull, "Idempotency-Key", "k"))
	if n := len(first.json(t)["data"].([]any)); n != 1 || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d events, and then %v", n, again.Header)
	}
	if string(again.body) != string(first.body) {
		t.Errorf("first %.60q, again %.60q", first.body, again.body)
	}
}

// As much as a pull answers at once is kept for its key, whatever it takes in JSON.
func TestIdempotencyKeyOfALargePull(t *testing.T) {
	for what, event := range map[string]string{
		"text":   `{"type":"job","data":"` + strings.Repeat("x", eventhose.MaxData-2) + `"}`,
		"binary": `{"type":"job","content_type":"image/png","data_base64":"` + base64.StdEncoding.EncodeToString(make([]byte, eventhose.MaxData)) + `"}`,
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, nil)
			sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
			const most = eventhose.MaxPageBytes / eventhose.MaxData
			for range most + 1 {
				w.append("acme", event)
			}
			pull := func() reply {
				return w.want(200, w.root("POST", subscriptions+"/"+sub+"/pull", `{"wait":"20s","lease":"10m"}`, "Idempotency-Key", "k"))
			}
			first := pull()
			if n := len(first.json(t)["data"].([]any)); n != most {
				t.Errorf("%d events", n)
			}
			if again := pull(); again.Header.Get("Idempotency-Replayed") != "true" || string(again.body) != string(first.body) {
				t.Errorf("again %d bytes after %d, %v", len(again.body), len(first.body), again.Header)
			}
		})
	}
}

// keyedPull pulls from a new server's subscription with the same key each time. It answers what came, and whether that was given again.
func keyedPull(t *testing.T, s *eventhosetest.Server, body string) func() (answer string, again bool) {
	t.Helper()
	sub, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{})
	if err != nil {
		t.Fatal(err)
	}
	return func() (string, bool) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v1/tenants/default/subscriptions/"+string(sub.ID)+"/pull", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Authorization": "Bearer " + string(s.Key), "Content-Type": "application/json", "Idempotency-Key": "k"} {
			r.Header.Set(name, value)
		}
		res, err := s.HTTPClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%d %s, %v", res.StatusCode, answer, err)
		}
		return string(answer), res.Header.Get("Idempotency-Replayed") == "true"
	}
}

// A pull with a key waits no longer than it has time to be answered.
func TestIdempotencyKeyOfAPullThatWaits(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		if answer, _ := keyedPull(t, s, `{"wait": "60s"}`)(); answer != `{"data":[]}` {
			t.Error(answer)
		}
	})
}

// What a worker was handed is given again for as long as its lease: behind that it is somebody else's, or may have been erased.
func TestIdempotencyKeyOfAPullIsGoodForItsLease(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		pull := keyedPull(t, s, `{"wait": "20s", "lease": "10m"}`)
		placed, err := s.Tenant.Append(t.Context(), eventhose.Event{Type: "job", Data: []byte(`"private"`)})
		if err != nil {
			t.Fatal(err)
		}
		first, _ := pull()
		<-time.After(9 * time.Minute)
		if answer, again := pull(); answer != first || !again || !strings.Contains(first, "private") {
			t.Errorf("first %s, within the lease %s", first, answer)
		}
		if err := s.Tenant.EraseData(t.Context(), "", placed[0].ID); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Minute)
		if answer, again := pull(); again || strings.Contains(answer, "private") {
			t.Errorf("behind the lease %s", answer)
		}
	})
}
