package client_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// serve answers every request with h and keeps the last one.
func serve(t *testing.T, h http.HandlerFunc, options ...client.Option) (*client.Client, *http.Request, *[]byte) {
	t.Helper()
	var last http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		last = *r.Clone(t.Context())
		h(w, r)
	}))
	t.Cleanup(s.Close)
	c, err := client.New(s.URL, "ehk_test", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, &last, &body
}

func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// awkward is JSON that every decode-and-encode would change.
const awkward = "{ \"amount\" : 1.10e+2,\n \"html\":\"<b>&</b>\", \"big\": 12345678901234567890.0,\"é\":\"\\u00e9\"}"

func TestAppendSendsDataVerbatim(t *testing.T) {
	c, req, body := serve(t, answer(202, `{"id":"evt_1","sequence":7,"duplicate":true}`))
	got, err := c.Tenant("acme").Append(t.Context(), eventhose.Event{ID: "a b/c", Type: "order.paid", Key: "k", Data: []byte(awkward)})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != (eventhose.Placement{ID: "evt_1", Sequence: 7, Duplicate: true}) {
		t.Errorf("placements %+v", got)
	}
	if !bytes.Contains(*body, []byte(awkward)) {
		t.Errorf("the body %s does not hold the data as it was", *body)
	}
	var sent struct {
		ID, Type, Key string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(*body, &sent); err != nil || sent.ID != "a b/c" || sent.Type != "order.paid" || sent.Key != "k" {
		t.Errorf("sent %+v, %v", sent, err)
	}
	if req.Method != "POST" || req.URL.Path != "/v1/tenants/acme/events" || req.Header.Get("Authorization") != "Bearer ehk_test" {
		t.Errorf("%s %s %v", req.Method, req.URL, req.Header)
	}
}

func TestAppendMany(t *testing.T) {
	c, _, body := serve(t, answer(202, `{"events":[{"id":"a","sequence":1},{"id":"b","sequence":2},{"id":"c","sequence":3}]}`))
	got, err := c.Tenant("acme").Append(t.Context(),
		eventhose.Event{Type: "a", Data: []byte("1")},
		eventhose.Event{Type: "b", ContentType: "text/plain", Data: []byte("hé")},
		eventhose.Event{Type: "c", ContentType: "text/plain"})
	if err != nil || len(got) != 3 || got[2].Sequence != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := `[{"type":"a","data":1},{"type":"b","content_type":"text/plain","data_base64":"aMOp"},{"type":"c","content_type":"text/plain","data_base64":""}]`
	if string(*body) != want {
		t.Errorf("sent %s, want %s", *body, want)
	}
	if _, err := c.Tenant("acme").Append(t.Context(), eventhose.Event{Type: "a", Data: []byte(`1,"type":"b"`)}); eventhose.CodeOf(err) != eventhose.CodeMalformed {
		t.Errorf("data that breaks out of its event: %v", err)
	}
}

func TestReadKeepsDataVerbatim(t *testing.T) {
	c, req, _ := serve(t, answer(200, `{"data":[{"id":"e","type":"order.paid","sequence":3,"time":"2026-01-02T03:04:05Z","data": `+awkward+` },
		{"id":"f","type":"x","sequence":4,"content_type":"text/plain","data_base64":"aMOp"}],"cursor":"a_4","has_more":true}`))
	page, err := c.Tenant("acme").Read(t.Context(), client.ReadOptions{After: eventhose.Cursor{Incarnation: 10, Sequence: 2}, Limit: 2, Types: []string{"order.*", "x"}, Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if string(page.Events[0].Data) != awkward || string(page.Events[1].Data) != "hé" {
		t.Errorf("data %q, %q", page.Events[0].Data, page.Events[1].Data)
	}
	if page.Cursor != (eventhose.Cursor{Incarnation: 10, Sequence: 4}) || !page.HasMore || page.Events[0].Tenant != "acme" {
		t.Errorf("%+v", page)
	}
	if q := req.URL.Query(); q.Get("after") != "a_2" || q.Get("limit") != "2" || q.Get("types") != "order.*,x" || q.Get("wait") != "1s" {
		t.Errorf("query %v", q)
	}
}

func TestIDsAreEscaped(t *testing.T) {
	c, req, _ := serve(t, answer(204, ""))
	if err := c.Tenant("acme").EraseData(t.Context(), "", "a/../b?c#d%2F e"); err != nil {
		t.Fatal(err)
	}
	if got := req.URL.EscapedPath(); got != "/v1/tenants/acme/events/a%2F..%2Fb%3Fc%23d%252F%20e/data" {
		t.Errorf("path %s", got)
	}
}

func TestHeaderValuesReachTheServer(t *testing.T) {
	c, _, body := serve(t, answer(201, `{"id":"sub_1","secret":"whsec_abc"}`))
	d := eventhose.Destination{Type: "webhook", URL: "https://example.com", Headers: map[string]eventhose.Secret{"X-Token": "s3cret"}}
	s, err := c.Tenant("acme").CreateSubscription(t.Context(), client.NewSubscription{Destination: d})
	if err != nil || string(s.Secret) != "whsec_abc" || s.ID != "sub_1" {
		t.Fatalf("%+v, %v", s, err)
	}
	if want := `{"destination":{"type":"webhook","url":"https://example.com","headers":{"X-Token":"s3cret"}}}` + "\n"; string(*body) != want {
		t.Errorf("sent %s", *body)
	}
	name := "new"
	if _, err := c.Tenant("acme").UpdateSubscription(t.Context(), "sub_1", eventhose.SubscriptionPatch{Name: &name, Destination: &d}); err != nil {
		t.Fatal(err)
	}
	if want := `{"name":"new","destination":{"type":"webhook","url":"https://example.com","headers":{"X-Token":"s3cret"}}}` + "\n"; string(*body) != want {
		t.Errorf("sent %s", *body)
	}
}

func TestBatches(t *testing.T) {
	c, req, body := serve(t, answer(200, `{"data":[{"id":"bat_1","events":2,"first_sequence":3,"last_sequence":5,"state":"taken","attempts":[{"id":"att_1","number":1,"kind":"first","started":"2026-01-31T12:00:00Z","duration":"5ms","status":200,"outcome":"taken"}]}],"next":"att_1"}`))
	tenant := c.Tenant("acme")
	l, err := tenant.Batches(t.Context(), "sub_1", client.ListOptions{After: "att_2", Limit: 1})
	if err != nil || len(l.Data) != 1 || l.Next != "att_1" || l.Data[0].LastSequence != 5 || l.Data[0].Attempts[0].Duration != eventhose.Duration(5*time.Millisecond) {
		t.Errorf("%+v, %v", l, err)
	}
	if got := req.URL.RequestURI(); got != "/v1/tenants/acme/subscriptions/sub_1/batches?after=att_2&limit=1" {
		t.Errorf("asked for %s", got)
	}
	d := eventhose.Destination{Type: "webhook", URL: "https://example.com", Format: eventhose.FormatCloudEvents, Compression: eventhose.CompressionGzip}
	policy := eventhose.BatchPolicy{MaxEvents: 10, MaxWait: eventhose.Duration(time.Second)}
	if _, err := tenant.CreateSubscription(t.Context(), client.NewSubscription{Batch: policy, Destination: d}); err != nil {
		t.Fatal(err)
	}
	if want := `{"batch":{"max_events":10,"max_wait":"1s"},"destination":{"type":"webhook","url":"https://example.com","format":"cloudevents","compression":"gzip"}}` + "\n"; string(*body) != want {
		t.Errorf("sent %s", *body)
	}
	if _, err := tenant.UpdateSubscription(t.Context(), "sub_1", eventhose.SubscriptionPatch{Batch: new(eventhose.BatchPolicy)}); err != nil || string(*body) != `{"batch":{}}`+"\n" {
		t.Errorf("sent %s, %v", *body, err)
	}
}

// A list that names no subscription is sent as one, and refused there; without a list it is all of them.
func TestPortalLinkToNone(t *testing.T) {
	c, _, body := serve(t, answer(201, `{}`))
	tenant := c.Tenant("acme")
	if _, err := tenant.CreatePortalLink(t.Context(), client.NewPortalLink{Subscriptions: []eventhose.SubscriptionID{}}); err != nil || string(*body) != `{"subscriptions":[]}`+"\n" {
		t.Errorf("sent %s, %v", *body, err)
	}
	if _, err := tenant.CreatePortalLink(t.Context(), client.NewPortalLink{}); err != nil || string(*body) != `{}`+"\n" {
		t.Errorf("sent %s, %v", *body, err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve http.HandlerFunc
		want  eventhose.Error
	}{
		{"problem", answer(410, `{"type":"x","status":410,"code":"cursor_gone","detail":"too old","first":42,"fix":"start over","field":"after"}`, "Content-Type", "application/problem+json"),
			eventhose.Error{Code: eventhose.CodeCursorGone, Message: "too old", Field: "after", Fix: "start over", First: 42}},
		{"retry after", answer(503, `{"code":"unavailable","title":"stopping"}`, "Retry-After", "7"),
			eventhose.Error{Code: eventhose.CodeUnavailable, Message: "stopping", RetryAfter: 7 * time.Second}},
		{"a proxy's page", answer(502, `<html>`, "Content-Type", "text/html"),
			eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the server answered 502 Bad Gateway", Fix: "check that the URL is an Eventhose server's"}},
		{"a redirect is not followed", answer(302, ``, "Location", "http://127.0.0.1:1/"),
			eventhose.Error{Code: eventhose.CodeInternal, Message: "the server answered 302 Found", Fix: "check that the URL is an Eventhose server's"}},
		{"an endless problem", answer(400, `{"code":"invalid","detail":"`+strings.Repeat("x", 1<<20)+`"}`),
			eventhose.Error{Code: eventhose.CodeInvalid, Message: "the server answered 400 Bad Request", Fix: "check that the URL is an Eventhose server's"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, _, _ := serve(t, c.serve)
			_, err := cl.Tenant("acme").Event(t.Context(), "", "e")
			var refused *client.Error
			var inner *eventhose.Error
			if !errors.As(err, &refused) || !errors.As(err, &inner) {
				t.Fatalf("%T %v", err, err)
			}
			if *inner != c.want {
				t.Errorf("got %+v, want %+v", *inner, c.want)
			}
		})
	}
}

func TestAnswersAreBounded(t *testing.T) {
	c, _, _ := serve(t, answer(200, `{"data":[],"next":null}`+strings.Repeat(" ", 1000)), client.WithMaxResponse(100))
	if _, err := c.Tenants(t.Context(), client.ListOptions{}); eventhose.CodeOf(err) != eventhose.CodeTooLarge {
		t.Errorf("got %v", err)
	}
	c, _, _ = serve(t, answer(200, `{"data":[],"next":null}`), client.WithMaxResponse(math.MaxInt64)) // no limit
	if _, err := c.Tenants(t.Context(), client.ListOptions{}); err != nil {
		t.Error(err)
	}
}

func TestNoServerAndBrokenAnswers(t *testing.T) {
	broken, _, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, `{"data":`)
	})
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	nobody, err := client.New(gone.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*client.Client{"broken": broken, "nobody": nobody} {
		_, err := c.Tenants(t.Context(), client.ListOptions{})
		var network *url.Error
		if !errors.As(err, &network) {
			t.Errorf("%s: %T %v", name, err, err)
		}
	}
}

func TestNewNamesTheField(t *testing.T) {
	for _, c := range []struct{ server, key, field string }{
		{"127.0.0.1:8080", "", "url"}, {"ftp://x", "", "url"}, {"", "", "url"}, {"http://u:p@x", "", "url"}, {"http://x?a=1", "", "url"},
		{"http://x", "a b", "key"}, {"http://x", "a\r\nHost: y", "key"},
	} {
		_, err := client.New(c.server, eventhose.Secret(c.key))
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Field != c.field {
			t.Errorf("%q %q: %v", c.server, c.key, err)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%+v", err), "u:p") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestReplayPlaces(t *testing.T) {
	c, _, body := serve(t, answer(202, `{"replay":null,"count":3}`))
	for _, r := range []struct {
		replay client.NewReplay
		want   string
	}{
		{client.NewReplay{}, `{}`},
		{client.NewReplay{From: "18446744073709551615", To: "1x_9", DryRun: true}, `{"from":18446744073709551615,"to":"1x_9","dry_run":true}`},
		{client.NewReplay{From: "2026-01-02T03:04:05Z", Types: []string{"a.*"}, Status: "dead"}, `{"from":"2026-01-02T03:04:05Z","types":["a.*"],"status":"dead"}`},
	} {
		got, err := c.Tenant("acme").Replay(t.Context(), "sub_1", r.replay)
		if err != nil || got.Count != 3 || got.Replay != nil || strings.TrimSpace(string(*body)) != r.want {
			t.Errorf("%+v, %v; sent %s, want %s", got, err, *body, r.want)
		}
	}
}

// An event is written as the API tells it, but for its cursor.
func TestMarshalEventAsTheServerTellsIt(t *testing.T) {
	const cursor = `"cursor":"a_7",`
	for _, told := range []string{
		`{"id":"e","type":"order.paid","sequence":7,"key":"","time":"2026-01-02T03:04:05Z","appended":"2026-01-02T03:04:06.5Z",` + cursor + `"data":` + awkward + `}`,
		`{"id":"child/e","type":"order.paid","sequence":7,"key":"k","time":"2026-01-02T03:04:05Z","appended":"2026-01-02T03:04:06Z",` + cursor +
			`"source":"s","version":"2","attributes":{"a":"1","b":"2"},"origin":{"tenant":"child","sequence":3},"content_type":"text/plain","data_base64":"aMOp"}`,
		`{"id":"e","type":"t","sequence":7,"key":"","time":"2026-01-02T03:04:05Z","appended":"2026-01-02T03:04:06Z",` + cursor + `"content_type":"text/plain","data_base64":""}`,
		`{"id":"e","type":"t","sequence":7,"key":"","time":"2026-01-02T03:04:05Z","appended":"2026-01-02T03:04:06Z",` + cursor + `"data":null}`,
		`{"id":"e","type":"t","sequence":7,"key":"","time":"2026-01-02T03:04:05Z","appended":"2026-01-02T03:04:06Z",` + cursor + `"erased":true}`,
		`{"id":"e","type":"t","sequence":7,"key":"","time":"2026-01-02T03:04:05Z","appended":"2026-01-02T03:04:06Z",` + cursor + `"data_omitted":true}`,
		`{"id":"e","type":"t","sequence":7,"key":"","time":"2026-01-02T03:04:05Z","appended":"2026-01-02T03:04:06Z",` + cursor + `"content_type":"text/plain","data_omitted":true}`,
	} {
		c, _, _ := serve(t, answer(200, `{"data":[`+told+`],"cursor":"a_7","has_more":false}`))
		page, err := c.Tenant("acme").Read(t.Context(), client.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.MarshalEvent(page.Events[0])
		if want := strings.Replace(told, cursor, "", 1); err != nil || string(got) != want {
			t.Errorf("%s, %v\nwant %s", got, err, want)
		}
	}
}

func TestOriginIsRead(t *testing.T) {
	const told = `{"id":"child/e","type":"t","sequence":7,"key":"","time":"2026-01-02T03:04:05Z","cursor":"a_7","origin":{"tenant":"child","sequence":3},"data":{}}`
	want := eventhose.Origin{Tenant: "child", Sequence: 3}
	c, _, _ := serve(t, answer(200, `{"data":[`+told+`],"cursor":"a_7","has_more":false}`))
	page, err := c.Tenant("acme").Read(t.Context(), client.ReadOptions{})
	if err != nil || page.Events[0].Origin != want {
		t.Errorf("read %+v, %v", page.Events, err)
	}
	c, _, _ = serve(t, answer(200, told))
	e, err := c.Tenant("acme").Event(t.Context(), "", "child/e")
	if err != nil || e.Origin != want {
		t.Errorf("got %+v, %v", e, err)
	}
	c, _, _ = serve(t, answer(200, `{"data":[{"lease":"lse_1","deliveries":1,"event":`+told+`}]}`))
	leased, err := c.Tenant("acme").Pull(t.Context(), "sub_1", eventhose.Pull{})
	if err != nil || leased[0].Event.Origin != want {
		t.Errorf("pulled %+v, %v", leased, err)
	}
	c, _, _ = serve(t, answer(200, told+"\n", "Content-Type", "application/x-ndjson"))
	for e, err := range c.Tenant("acme").Follow(t.Context(), client.FollowOptions{}) {
		if err != nil || e.Origin != want {
			t.Errorf("followed %+v, %v", e, err)
		}
		break
	}
}
