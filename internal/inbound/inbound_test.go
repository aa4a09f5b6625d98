package inbound_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/app"
)

const secret = "whsec_9f2b7c4d1e8a6053"

// A signed request is in the log once its sender is told so, byte for byte, and once however often it comes.
func TestTakenOnce(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "stripe", "secret": "` + secret + `", "type_prefix": "pay"}`)
	if want := w.url + "/in/" + s.ID; s.URL != want {
		t.Errorf("url %s, want %s", s.URL, want)
	}
	body := `{"id": "evt_1",  "type":"charge.succeeded","created":1700000000,"data":{"object":{"id":"ch_1"}}}`
	for range 3 {
		r := w.want(200, w.send("POST", s.URL, body, "Stripe-Signature", stripe(secret, body, time.Now()), "Content-Type", "application/json"))
		if r.body != "" {
			t.Errorf("answer %q", r.body)
		}
	}
	// Providers redeliver with small changes.
	changed := strings.Replace(body, "ch_1", "ch_2", 1)
	w.want(200, w.send("POST", s.URL, changed, "Stripe-Signature", stripe(secret, changed, time.Now()), "Content-Type", "application/json"))
	if !strings.Contains(w.logs.String(), "outcome=different") {
		t.Error("the log does not tell of the change")
	}
	events := w.events()
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	if string(e.Data) != body || e.ID != "evt_1" || e.Scope != s.ID || e.Type != "pay.charge.succeeded" || e.Key != "ch_1" ||
		e.Time.Unix() != 1700000000 || e.Attributes["source"] != s.ID || e.Attributes["provider"] != "stripe" {
		t.Errorf("%+v", e)
	}
	// Another source has ids of its own.
	other := w.source(`{"provider": "stripe", "secret": "` + secret + `"}`)
	w.want(200, w.send("POST", other.URL, body, "Stripe-Signature", stripe(secret, body, time.Now())))
	if n := len(w.events()); n != 2 {
		t.Errorf("%d events", n)
	}
}

// Who may append takes no id of a source: what the provider sends under it is in the log, and nothing else seems to have come through it.
func TestNobodyElseAppendsForASource(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "stripe", "secret": "` + secret + `"}`)
	body := `{"id":"evt_1","type":"charge.succeeded"}`
	r := w.send("POST", w.url+"/v1/tenants/default/events", `{"specversion":"1.0","id":"evt_1","source":"`+s.ID+`","type":"stripe.charge.succeeded","data":{}}`,
		"Content-Type", "application/cloudevents+json", "Authorization", "Bearer "+adminKey)
	if r.StatusCode != 422 || !strings.Contains(r.body, `"field":"source"`) {
		t.Errorf("an event in the source's name is answered %d %s", r.StatusCode, r.body)
	}
	w.want(200, w.send("POST", s.URL, body, "Stripe-Signature", stripe(secret, body, time.Now())))
	if events := w.events(); len(events) != 1 || string(events[0].Data) != body {
		t.Errorf("in the log: %+v", events)
	}
}

// What does not verify gets the same answer whatever is wrong, and neither it nor the log says why to a stranger.
func TestRejected(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "stripe", "secrets": ["whsec_of-another-account"]}`)
	owner := w.source(`{"provider": "stripe", "secret": "whsec_of-the-owner"}`)
	body := `{"id":"evt_1","type":"charge.succeeded"}`
	now := time.Now()
	for _, c := range []struct{ name, signature, reason, detail string }{
		{"wrong secret", stripe(secret, body, now), "no_match", "does not match"},
		{"old", stripe("whsec_of-another-account", body, now.Add(-time.Hour)), "clock", "clock 36"},
		{"no header", "", "header_missing", "Stripe-Signature is missing"},
		{"another source's", stripe("whsec_of-the-owner", body, now), "other_source", owner.ID},
		{"re-encoded", stripe("whsec_of-another-account", strings.ReplaceAll(strings.ReplaceAll(body, ":", ": "), ",", ", "), now), "reencoded", "body re-encoded?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{"Authorization", "Bearer stranger-token", "X-Trace", "abc"}
			if c.signature != "" {
				headers = append(headers, "Stripe-Signature", c.signature)
			}
			r := w.want(401, w.send("POST", s.URL+"?access_token=in-the-query&a=b", body, headers...))
			if r.body != "" || r.Header.Get("Content-Type") != "" || r.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("the sender is told %q, %v", r.body, r.Header)
			}
			var list struct{ Data []eventhose.Rejection }
			w.manage(200, "GET", "/sources/"+s.ID+"/rejections", "", &list)
			newest := list.Data[0]
			if newest.Reason != c.reason || !strings.Contains(newest.Detail, c.detail) || newest.Request != nil || newest.Size != len(body) {
				t.Errorf("%+v", newest)
			}
			var one eventhose.Rejection
			w.manage(200, "GET", "/sources/"+s.ID+"/rejections/"+newest.ID, "", &one)
			if string(one.Request.Body) != body || one.Request.Query != "access_token=***&a=b" || fmt.Sprint(one.Request.Header["Authorization"]) != "[***]" ||
				fmt.Sprint(one.Request.Header["X-Trace"]) != "[abc]" {
				t.Errorf("%+v", one.Request)
			}
		})
	}
	if n := len(w.events()); n != 0 {
		t.Errorf("%d events", n)
	}
	for _, needle := range []string{"in-the-query", "stranger-token", "whsec_", "evt_1"} {
		if strings.Contains(w.logs.String(), needle) {
			t.Errorf("the server's log has %q", needle)
		}
	}
}

// What an operator's browser sends along by itself is not shown to whoever has a source: not by its events, and not by what it has rejected.
func TestOurCookiesAreNotKept(t *testing.T) {
	w := newWorld(t, nil)
	const cookies = "a=1; eventhose_session=planted; __Host-eventhose_session=planted; eventhose_oidc=planted;__Host-eventhose_oidc=planted; b=2"
	const shown = "a=1; eventhose_session=***; __Host-eventhose_session=***; eventhose_oidc=***;__Host-eventhose_oidc=***; b=2"
	s := w.source(`{"provider": "inspect"}`)
	w.want(200, w.send("GET", s.URL, "", "Cookie", cookies))
	signed := w.source(`{"provider": "github", "secret": "` + secret + `", "naming": {"keep": ["Cookie"]}}`)
	w.want(401, w.send("POST", signed.URL, `{}`, "Cookie", cookies, "X-Hub-Signature-256", github("another-secret", `{}`), "X-GitHub-Event", "push", "X-GitHub-Delivery", "1"))
	var list struct{ Data []eventhose.Rejection }
	w.manage(200, "GET", "/sources/"+signed.ID+"/rejections", "", &list)
	w.manage(200, "PATCH", "/sources/"+signed.ID, `{"secrets": ["another-secret"]}`, nil)
	w.manage(200, "POST", "/sources/"+signed.ID+"/rejections/"+list.Data[0].ID+"/retry", "", nil) // it has the headers as they were kept
	events := w.events()
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	if got := events[0].Attributes["header.cookie"]; got != shown {
		t.Errorf("the event has %q", got)
	}
	if got := events[1].Attributes["cookie"]; got != shown {
		t.Errorf("the rejected request has %q", got)
	}
}

// No source answers what the server's own pages would run.
func TestAnswerIsNoScript(t *testing.T) {
	w := newWorld(t, nil)
	for _, contentType := range []string{"text/javascript", "text/css"} {
		var problem struct{ Field string }
		w.manage(422, "POST", "/sources", `{"provider": "inspect", "answer": {"content_type": "`+contentType+`", "body": "x"}}`, &problem)
		if problem.Field != "answer.content_type" {
			t.Errorf("%s: %+v", contentType, problem)
		}
	}
}

// Once the secret is mended, a rejected request can be taken after all, as of when it came, and repeats are still repeats.
func TestRetry(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "stripe", "secret": "whsec_a-typing-error"}`)
	path := "/sources/" + s.ID
	body := `{"id":"evt_1","type":"charge.succeeded"}`
	signature := stripe(secret, body, time.Now())
	w.want(401, w.send("POST", s.URL, body, "Stripe-Signature", signature))
	var list struct{ Data []eventhose.Rejection }
	w.manage(200, "GET", path+"/rejections", "", &list)
	if len(list.Data) != 1 {
		t.Fatalf("%+v", list)
	}
	retry := path + "/rejections/" + list.Data[0].ID + "/retry"
	var problem struct{ Code, Detail string }
	w.manage(409, "POST", retry, "", &problem)
	if problem.Code != "conflict" || !strings.Contains(problem.Detail, "does not match") {
		t.Errorf("%+v", problem)
	}
	var told struct{ Secrets []string }
	w.manage(200, "PATCH", path, `{"secrets": ["whsec_a-typing-error", "`+secret+`"]}`, &told)
	if fmt.Sprint(told.Secrets) != "[*** ***]" {
		t.Errorf("secrets are told: %v", told)
	}
	var placed eventhose.Placement
	w.manage(200, "POST", retry, "", &placed)
	if placed.ID != "evt_1" || placed.Sequence != 1 || placed.Duplicate {
		t.Errorf("%+v", placed)
	}
	w.manage(404, "POST", retry, "", nil)
	w.manage(200, "GET", path+"/rejections", "", &list)
	if len(list.Data) != 0 {
		t.Errorf("%+v", list)
	}
	// The provider tries again by itself.
	w.want(200, w.send("POST", s.URL, body, "Stripe-Signature", signature))
	if n := len(w.events()); n != 1 {
		t.Errorf("%d events", n)
	}
}

// A rejected request whose id has come with other content since is not taken, and stays: there is no other copy of it.
func TestRetryOfAnotherContent(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "github", "secret": "a-typing-error"}`)
	path := "/sources/" + s.ID
	send := func(body string) int {
		return w.send("POST", s.URL, body, "X-Hub-Signature-256", github(secret, body), "X-GitHub-Delivery", "d-1").StatusCode
	}
	rejected := func() (list struct{ Data []eventhose.Rejection }) {
		w.manage(200, "GET", path+"/rejections", "", &list)
		return list
	}
	const first, changed = `{"attempt":1}`, `{"attempt":2}`
	if got := send(first); got != 401 {
		t.Fatalf("%d", got)
	}
	w.manage(200, "PATCH", path, `{"secrets": ["`+secret+`"]}`, nil)
	if got := send(changed); got != 200 {
		t.Fatalf("%d", got)
	}
	id := rejected().Data[0].ID
	var problem struct{ Code, Detail string }
	w.manage(409, "POST", path+"/rejections/"+id+"/retry", "", &problem)
	if problem.Code != "conflict" || !strings.Contains(problem.Detail, "other content") {
		t.Errorf("%+v", problem)
	}
	var one eventhose.Rejection
	w.manage(200, "GET", path+"/rejections/"+id, "", &one)
	if string(one.Request.Body) != first {
		t.Errorf("%+v", one.Request)
	}
	if events := w.events(); len(events) != 1 || string(events[0].Data) != changed {
		t.Errorf("%+v", events)
	}
	// The same content is a repeat, and done with.
	w.manage(200, "PATCH", path, `{"secrets": ["a-typing-error"]}`, nil)
	if got := send(changed); got != 401 {
		t.Fatalf("%d", got)
	}
	w.manage(200, "PATCH", path, `{"secrets": ["`+secret+`"]}`, nil)
	var placed eventhose.Placement
	w.manage(200, "POST", path+"/rejections/"+rejected().Data[0].ID+"/retry", "", &placed)
	if list := rejected().Data; !placed.Duplicate || placed.Sequence != 1 || len(list) != 1 || list[0].ID != id {
		t.Errorf("%+v, %+v", placed, list)
	}
}

func TestUnknown(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "github", "secret": "long-enough"}`)
	for _, path := range []string{"/in/", "/in/x", "/in/src_00000000000000000000000000", "/in/" + s.ID + "/more", "/in/../in/" + s.ID + "x", "/in/" + strings.ToUpper(s.ID)} {
		if r := w.want(404, w.send("POST", w.url+path, "{}")); r.body != "" {
			t.Errorf("%s: %q", path, r.body)
		}
	}
	w.want(405, w.send("GET", s.URL, ""))
	w.want(413, w.send("POST", s.URL, strings.Repeat("a", eventhose.MaxData+1)))
	w.want(413, w.sendAll(s.URL, io.MultiReader(strings.NewReader(strings.Repeat("a", eventhose.MaxData)), strings.NewReader("a"))))
	for _, size := range []int{1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_001, eventhose.MaxData} {
		body := strings.Repeat("a", size)
		for _, whole := range []bool{true, false} {
			in := io.Reader(strings.NewReader(body))
			if !whole {
				in = io.MultiReader(in) // of a length that is not declared
			}
			w.want(200, w.sendAll(s.URL, in, "X-Hub-Signature-256", github("long-enough", body), "Content-Type", "text/plain"))
		}
		events := w.events()
		if e := events[len(events)-1]; string(e.Data) != body {
			t.Errorf("of %d bytes %d came", size, len(e.Data))
		}
	}
	w.want(415, w.send("POST", s.URL, "{}", "Content-Encoding", "gzip"))
	var list struct{ Data []eventhose.Rejection }
	w.manage(200, "GET", "/sources/"+s.ID+"/rejections", "", &list)
	var reasons []string
	for _, r := range list.Data {
		reasons = append(reasons, r.Reason)
	}
	if fmt.Sprint(reasons) != "[encoded too_large too_large method]" {
		t.Errorf("%v", reasons)
	}
	w.manage(409, "POST", "/sources/"+s.ID+"/rejections/"+list.Data[1].ID+"/retry", "", nil)
	w.manage(204, "DELETE", "/sources/"+s.ID, "", nil)
	w.want(404, w.send("POST", s.URL, `{}`, "X-Hub-Signature-256", github("long-enough", "{}")))
	w.manage(404, "GET", "/sources/"+s.ID, "", nil)
	w.manage(404, "GET", "/subscriptions/"+s.Subscription, "", nil)
	w.manage(404, "DELETE", "/sources/"+s.ID, "", nil)
}

// A source whose settings cannot work is not made, and the answer names what is wrong.
func TestSettingsAreJudged(t *testing.T) {
	w := newWorld(t, nil)
	for body, field := range map[string]string{
		`{"provider": "stripe"}`:                                                        "secrets",
		`{"provider": "stripe", "secret": ""}`:                                          "secrets",
		`{"provider": "stripe", "secrets": [""]}`:                                       "secrets[0]",
		`{"provider": "stripe", "secrets": ["whsec_a", " "]}`:                           "secrets[1]",
		`{"provider": "stripe", "secrets": ["***"]}`:                                    "secrets[0]",
		`{"provider": "stripe", "secret": "whsec_a", "secrets": ["whsec_b"]}`:           "secret",
		`{"provider": "nobody", "secret": "whsec_a"}`:                                   "provider",
		`{"provider": "", "secret": "whsec_a"}`:                                         "provider",
		`{"provider": "sendgrid"}`:                                                      "public_keys",
		`{"provider": "twilio", "secret": "abc"}`:                                       "public_url",
		`{"provider": "stripe", "secret": "whsec_a", "tolerance": "1ms"}`:               "tolerance",
		`{"provider": "stripe", "secret": "whsec_a", "type_prefix": "eventhose.x"}`:     "type_prefix",
		`{"provider": "stripe", "secret": "whsec_a", "answer": {"status": 200}}`:        "answer",
		`{"provider": "inspect", "answer": {"status": 100}}`:                            "answer.status",
		`{"provider": "inspect", "answer": {"delay": "11s"}}`:                           "answer.delay",
		`{"provider": "stripe", "secret": "whsec_a", "options": {"x": "y"}}`:            "options.x",
		`{"provider": "generic", "secret": "long-enough", "scheme": {"header": "a b"}}`: "scheme.header",
	} {
		var problem struct{ Code, Field string }
		w.manage(422, "POST", "/sources", body, &problem)
		if problem.Field != field {
			t.Errorf("%s: field %q, want %q", body, problem.Field, field)
		}
	}
	var list struct{ Data []source }
	w.manage(200, "GET", "/sources", "", &list)
	if len(list.Data) != 0 {
		t.Errorf("%+v", list)
	}
	s := w.source(`{"provider": "stripe", "secret": "` + secret + `"}`)
	w.manage(422, "PATCH", "/sources/"+s.ID, `{"secrets": []}`, nil)
	w.manage(422, "PATCH", "/sources/"+s.ID, `{"secrets": null}`, nil)
	body := `{"id":"evt_1"}`
	w.want(200, w.send("POST", s.URL, body, "Stripe-Signature", stripe(secret, body, time.Now())))
}

// The server's public URL is what sources have, and what providers sign that sign a URL.
func TestPublicURL(t *testing.T) {
	w := newWorld(t, func(o *app.Options) { o.PublicURL = "https://hooks.example.com/base" })
	s := w.source(`{"provider": "square", "secret": "a-signature-key"}`)
	if s.URL != "https://hooks.example.com/base/in/"+s.ID {
		t.Errorf("url %s", s.URL)
	}
}

// Handshakes are answered and are no events.
func TestHandshakes(t *testing.T) {
	w := newWorld(t, nil)
	meta := w.source(`{"provider": "meta", "secret": "an-app-secret", "verify_token": "chosen-by-me"}`)
	r := w.want(200, w.send("GET", meta.URL+"?hub.mode=subscribe&hub.verify_token=chosen-by-me&hub.challenge=1158201444", ""))
	if r.body != "1158201444" {
		t.Errorf("%q", r.body)
	}
	w.want(401, w.send("GET", meta.URL+"?hub.mode=subscribe&hub.verify_token=guessed-by-me&hub.challenge=1158201444", ""))
	cloud := w.source(`{"provider": "cloudevents", "secret": "a-long-token", "options": {"origins": "events.example.com"}}`)
	r = w.want(200, w.send("OPTIONS", cloud.URL, "", "WebHook-Request-Origin", "events.example.com"))
	if r.Header.Get("WebHook-Allowed-Origin") != "events.example.com" {
		t.Errorf("%v", r.Header)
	}
	if n := len(w.events()); n != 0 {
		t.Errorf("%d events", n)
	}
	if strings.Contains(w.logs.String(), "guessed-by-me") || strings.Contains(w.logs.String(), "chosen-by-me") {
		t.Error("a token is in the log")
	}
}

// Inspect keeps what comes, however it looks, and answers what it was told to.
func TestInspect(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "inspect", "answer": {"status": 418, "body": "<b>seen</b>", "content_type": "text/html", "delay": "1ms"}}`)
	r := w.want(418, w.send("PUT", s.URL+"/a/b%20c?x=1&x=2", "not json", "X-One", "1", "Content-Type", "text/plain"))
	if r.body != "<b>seen</b>" || r.Header.Get("Content-Type") != "text/html" || !strings.Contains(r.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%q %v", r.body, r.Header)
	}
	w.want(418, w.send("PUT", s.URL+"/a/b%20c?x=1&x=2", "not json", "X-One", "1", "Content-Type", "text/plain"))
	w.want(418, w.send("HEAD", s.URL, ""))
	events := w.events()
	if len(events) != 3 {
		t.Fatalf("%d events: a repeat is seen too", len(events))
	}
	e := events[0]
	if string(e.Data) != "not json" || e.Type != "inspect.put" || e.Attributes["method"] != "PUT" || e.Attributes["query"] != "x=1&x=2" ||
		e.Attributes["path"] != "/a/b c" || e.Attributes["header.x-one"] != "1" {
		t.Errorf("%+v", e)
	}
	// As many headers as there may be leave room for what the door says itself.
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("X-%d", i), "v")
	}
	w.want(418, w.send("POST", s.URL, "", many...))
	events = w.events()
	if e = events[len(events)-1]; e.Attributes["source"] != s.ID || len(e.Attributes) > eventhose.MaxAttributes {
		t.Errorf("%+v", e)
	}
	w.manage(200, "PATCH", "/sources/"+s.ID, `{"answer": null}`, nil)
	if r := w.want(200, w.send("POST", s.URL, "")); r.body != "" {
		t.Errorf("%q", r.body)
	}
}

// The inbox tells what became of each event, whichever way it is asked.
func TestInbox(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "github", "secret": "long-enough"}`)
	other := w.source(`{"provider": "stripe", "secret": "` + secret + `"}`)
	for i := range 5 {
		body := fmt.Sprintf(`{"action":"opened","n":%d}`, i)
		w.want(200, w.send("POST", s.URL, body, "X-Hub-Signature-256", github("long-enough", body), "X-GitHub-Delivery", fmt.Sprint("d-", i), "X-GitHub-Event", "issues"))
	}
	body := `{"id":"evt_1","type":"charge.succeeded"}`
	w.want(200, w.send("POST", other.URL, body, "Stripe-Signature", stripe(secret, body, time.Now())))
	w.manage(202, "POST", "/events", `{"type": "order.paid", "data": {}}`, nil)
	// Nobody but the door says that something came through it.
	var problem struct{ Field string }
	w.manage(422, "POST", "/events", `{"type": "order.paid", "data": {}, "attributes": {"source": "`+s.ID+`"}}`, &problem)
	if problem.Field != "attributes.source" {
		t.Errorf("%+v", problem)
	}

	sub := eventhose.SubscriptionID(s.Subscription)
	pull := eventhose.Pull{Max: 3, Wait: 20 * time.Second}
	leased, err := w.tenant.Pull(t.Context(), sub, pull)
	if err != nil || len(leased) != 3 {
		t.Fatalf("%v, %v", leased, err)
	}
	if _, err := w.tenant.Ack(t.Context(), sub, leased[0].Lease); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tenant.Nack(t.Context(), sub, time.Hour, "the shop is closed", leased[1].Lease); err != nil {
		t.Fatal(err)
	}
	// The third becomes dead: it is handed over as often as it may be.
	lease := leased[2].Lease
	for range 4 {
		if _, err := w.tenant.Nack(t.Context(), sub, 0, "no such repository", lease); err != nil {
			t.Fatal(err)
		}
		again, err := w.tenant.Pull(t.Context(), sub, eventhose.Pull{Max: 10, Wait: 20 * time.Second})
		if err != nil || len(again) == 0 {
			t.Fatalf("%v, %v", again, err)
		}
		for _, l := range again {
			if l.Event.ID == leased[2].Event.ID {
				lease = l.Lease
			} else if _, err := w.tenant.Nack(t.Context(), sub, time.Hour, "later", l.Lease); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := w.tenant.Nack(t.Context(), sub, 0, "no such repository", lease); err != nil {
		t.Fatal(err)
	}

	type page struct {
		Data []eventhose.InboxItem
		Next *string
	}
	ask := func(query string) (got string) {
		t.Helper()
		var p page
		w.manage(200, "GET", "/inbox"+query, "", &p)
		for _, i := range p.Data {
			got += fmt.Sprintf("%s/%s/%d/%s ", i.Event, i.Status, i.Attempts, i.LastError)
		}
		return strings.TrimSpace(got)
	}
	third := leased[2].Event.ID
	for query, want := range map[string]string{
		"?status=processed":                  "d-0/processed/1/",
		"?status=dead":                       third + "/dead/5/no such repository",
		"?source=" + other.ID:                "evt_1/pending/0/",
		"?provider=stripe":                   "evt_1/pending/0/",
		"?provider=github&status=processed":  "d-0/processed/1/",
		"?provider=stripe&source=" + s.ID:    "",
		"?provider=nobody":                   "",
		"?status=pending&source=" + other.ID: "evt_1/pending/0/",
	} {
		if got := ask(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := ask(""); len(strings.Split(got, "evt_1")) != 2 || strings.Contains(got, "order.paid") || !strings.Contains(got, "d-1/failed/1/the shop is closed") {
		t.Errorf("all: %q", got)
	}
	// Page by page it is the same.
	var walked []string
	for after := "0"; ; {
		var p page
		w.manage(200, "GET", "/inbox?limit=1&after="+after, "", &p)
		for _, i := range p.Data {
			walked = append(walked, i.Event)
			if i.Status == eventhose.InboxProcessed && (i.Processed.Before(i.Received) || i.Processed.IsZero()) {
				t.Errorf("%+v", i)
			}
		}
		if p.Next == nil {
			break
		}
		after = *p.Next
	}
	if fmt.Sprint(walked) != "[d-0 d-1 d-2 d-3 d-4 evt_1]" {
		t.Errorf("%v", walked)
	}
	walked = nil
	for after := "0"; ; {
		var p page
		w.manage(200, "GET", "/inbox?limit=1&status=failed&after="+after, "", &p)
		if len(p.Data) != 1 {
			t.Fatalf("%+v", p)
		}
		walked = append(walked, p.Data[0].Event)
		if p.Next == nil || len(walked) == 3 {
			break
		}
		after = *p.Next
	}
	if fmt.Sprint(walked) != "[d-1 d-3 d-4]" {
		t.Errorf("failed: %v", walked)
	}
	w.manage(422, "GET", "/inbox?status=gone", "", nil)
	w.manage(404, "GET", "/inbox?source=src_00000000000000000000000000", "", nil)
	w.manage(200, "GET", "/sources/"+s.ID, "", nil)
	// The inbox is the source's: it ends with it and not before.
	w.manage(409, "DELETE", "/subscriptions/"+s.Subscription, "", nil)
	w.manage(409, "PATCH", "/subscriptions/"+s.Subscription, `{"filter": {}}`, nil)
}

// A stopping server holds no answer back.
func TestDrainEndsDelays(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "inspect", "answer": {"delay": "10s"}}`)
	done := make(chan *http.Response, 1)
	go func() {
		res, err := w.http.Post(s.URL, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Error(err)
		} else {
			res.Body.Close()
		}
		done <- res
	}()
	for len(w.events()) == 0 {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.stop()
	if res := <-done; res == nil || res.StatusCode != 200 {
		t.Errorf("%v", res)
	}
}

// What cannot be kept is not acknowledged: the provider is told to come again.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, func(o *app.Options) { o.Data = dir })
	s := w.source(`{"provider": "github", "secret": "long-enough"}`)
	w.stop()
	w = newWorld(t, func(o *app.Options) { o.Data, o.MinFree = dir, 1<<60 })
	r := w.want(503, w.send("POST", w.url+"/in/"+s.ID, "{}", "X-Hub-Signature-256", github("long-enough", "{}")))
	if r.Header.Get("Retry-After") == "" || r.body != "" {
		t.Errorf("%v %q", r.Header, r.body)
	}
	// Who is a stranger is still told so.
	w.want(401, w.send("POST", w.url+"/in/"+s.ID, "{}", "X-Hub-Signature-256", github("guessed", "{}")))
	if n := len(w.events()); n != 0 {
		t.Errorf("%d events", n)
	}
}

// A rejected request is shown without the secret that it may hold, in whichever place its provider shows it.
func TestShownWithoutSecrets(t *testing.T) {
	w := newWorld(t, nil)
	const shown = "right-one-0123456789"
	for _, c := range []struct{ settings, header, query string }{
		{`"provider": "flutterwave"`, "Verif-Hash", ""},
		{`"provider": "telegram"`, "X-Telegram-Bot-Api-Secret-Token", ""},
		{`"provider": "okta", "options": {"header": "X-Own"}`, "X-Own", ""},
		{`"provider": "postmark", "options": {"header": "x-own"}`, "X-Own", ""},
		{`"provider": "sparkpost", "options": {"header": "X-OWN"}`, "X-Own", ""},
		{`"provider": "sparkpost"`, "Authorization", ""},
		{`"provider": "gitlab"`, "X-Gitlab-Token", ""},
		{`"provider": "cloudevents"`, "", "access_token="},
		{`"provider": "cloudevents"`, "", "acces%73_token="},
		{`"provider": "stripe"`, "X-Api-Key", ""}, // which is no place of Stripe's, and sounds like one
	} {
		s := w.source(`{` + c.settings + `, "secret": "` + shown + `"}`)
		headers := []string{"X-Trace", "abc", "Content-Encoding", "gzip"}
		if c.header != "" {
			headers = append(headers, c.header, shown)
		}
		if c.query != "" {
			c.query += shown
		}
		w.want(415, w.send("POST", s.URL+"?a=b&"+c.query, `{}`, headers...))
		var list struct{ Data []eventhose.Rejection }
		w.manage(200, "GET", "/sources/"+s.ID+"/rejections", "", &list)
		var one eventhose.Rejection
		w.manage(200, "GET", "/sources/"+s.ID+"/rejections/"+list.Data[0].ID, "", &one)
		if text := fmt.Sprintf("%+v", one.Request); strings.Contains(text, shown) || strings.Count(text, "***") != 1 || fmt.Sprint(one.Request.Header["X-Trace"]) != "[abc]" || !strings.HasPrefix(one.Request.Query, "a=b&") {
			t.Errorf("%s shows %s", c.settings, text)
		}
	}
}
