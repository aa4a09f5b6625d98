package httpapi_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

func types(p toldPage) string {
	var s []string
	for _, e := range p.Data {
		s = append(s, e.Type)
	}
	return strings.Join(s, " ")
}

func TestRead(t *testing.T) {
	w := newWorld(t, nil)
	empty := w.page(events)
	if len(empty.Data) != 0 || empty.HasMore || empty.Cursor == "" {
		t.Errorf("an empty log: %+v", empty)
	}
	w.want(202, w.root("POST", events, `[{"type":"order.a","key":"k1","data":{"n":1}},{"type":"order.b","key":"k2","data":{"n":2}},{"type":"mail.a","data":{"n":3}},{"type":"order.c","key":"k1","data":{"n":4}}]`))
	if got := w.page(events + "?after=" + empty.Cursor); types(got) != "order.a order.b mail.a order.c" || got.HasMore {
		t.Errorf("after the empty page's cursor: %+v", got)
	}
	for query, want := range map[string]string{
		"":                                "order.a order.b mail.a order.c",
		"types=order.*":                   "order.a order.b order.c",
		"types=order.a,mail.a":            "order.a mail.a",
		"types=order.a&types=mail.*":      "order.a mail.a",
		"keys=k1":                         "order.a order.c",
		"keys=k1&keys=k2":                 "order.a order.b order.c",
		"limit=2":                         "order.a order.b",
		"expression=data.n%20%3E%202":     "mail.a order.c",
		"types=*&keys=k1&limit=1&after=0": "order.a",
		"after=&limit=&types=&wait=":      "order.a order.b mail.a order.c",
		"keys=&expression=":               "order.a order.b mail.a order.c",
		"types=&types=mail.a&keys=":       "mail.a",
	} {
		if got := types(w.page(events + "?" + query)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	// Page by page, by either cursor.
	var all []string
	for cursor, more := "0", true; more; {
		page := w.page(events + "?limit=1&after=" + cursor)
		all = append(all, types(page))
		if page.Data[0].Cursor != page.Cursor {
			t.Errorf("the event's cursor is %s, the page's %s", page.Data[0].Cursor, page.Cursor)
		}
		cursor, more = page.Cursor, page.HasMore
	}
	if strings.Join(all, " ") != "order.a order.b mail.a order.c" {
		t.Errorf("page by page: %v", all)
	}
	for query, field := range map[string]string{
		"after=x": "after", "after=1_2_3": "after", "limit=0": "limit", "limit=1001": "limit", "limit=ten": "limit", "limit=1&limit=2": "limit",
		"wait=61s": "wait", "wait=-1s": "wait", "wait=soon": "wait", "types=a..b": "types[0]", "types=a,": "types[1]", "types=,": "types[0]",
		"expression=1%2B1": "expression", "expression=nope": "expression", "typos=a": "typos", "After=0": "After",
	} {
		w.refused("invalid", field, w.root("GET", events+"?"+query, ""))
	}
	w.refused("malformed", "", w.root("GET", events+"?after=%zz", ""))
	w.refused("malformed", "", w.root("GET", events+"?a;b", ""))
	w.refused("malformed", "types", w.root("GET", events+"?types=%ff", ""))
	w.refused("cursor_gone", "", w.root("GET", events+"?after=zzz_1", ""))
	if first := w.root("GET", events+"?after=zzz_1", "").json(t)["first"]; first != 1.0 {
		t.Errorf("first is %v", first)
	}
}

func TestReadZipped(t *testing.T) {
	w := newWorld(t, nil)
	w.append("acme", `{"type":"t","data":"`+strings.Repeat("x", 5000)+`"}`)
	plain := w.want(200, w.root("GET", events, ""))
	r := w.want(200, w.root("GET", events, "", "Accept-Encoding", "gzip"))
	if r.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("headers %v", r.Header)
	}
	z, err := gzip.NewReader(strings.NewReader(string(r.body)))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || string(b) != string(plain.body) {
		t.Errorf("%v, %d bytes, want %d", err, len(b), len(plain.body))
	}
}

// waiting starts a read that waits and answers when it has begun to.
func (w *world) waiting(ctx context.Context, path string) <-chan reply {
	w.t.Helper()
	begun := make(chan struct{})
	w.gate.begun.Store(&begun)
	answers := make(chan reply, 1)
	go func() {
		r, err := w.try(ctx, rootKey, "GET", path, "")
		if err != nil && !errors.Is(err, context.Canceled) {
			w.t.Error(err)
		}
		answers <- r
	}()
	select {
	case <-begun:
	case r := <-answers:
		w.t.Fatalf("it did not wait: %s", r.body)
	}
	return answers
}

// A tenant whose readers wait, as many as it likes, leaves others room for theirs.
func TestWaitingIsParted(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.MaxWaiting = 8 })
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	refused, waited := make(chan reply), 0
	for more := true; more; {
		begun := make(chan struct{})
		w.gate.begun.Store(&begun)
		go func() {
			if r, err := w.try(ctx, rootKey, "GET", events+"?wait=50s", ""); err == nil {
				refused <- r
			} else {
				left <- struct{}{}
			}
		}()
		select {
		case <-begun:
			waited++
		case r := <-refused:
			w.refused("unavailable", "", r)
			more = false
		}
	}
	if waited != 4 {
		t.Errorf("%d of one tenant wait", waited)
	}
	const sub = "/v1/tenants/globex/subscriptions"
	id := w.want(201, w.root("POST", sub, `{}`)).json(t)["id"].(string)
	w.want(200, w.root("POST", sub+"/"+id+"/pull", `{"wait": "20ms"}`))
	w.want(200, w.root("GET", "/v1/tenants/globex/events?wait=20ms", ""))
	leave()
	for range waited {
		<-left
	}
}

// pulling is what delivers, and tells when a worker has begun to ask.
type pulling struct {
	httpapi.Delivery
	begun chan struct{}
}

func (p *pulling) Pull(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, pull eventhose.Pull) ([]eventhose.Leased, error) {
	p.begun <- struct{}{}
	return p.Delivery.Pull(ctx, tenant, sub, pull)
}

// A key that is revoked while a request waits gets nothing of what comes then, and takes nothing.
func TestWaitingEndsWithItsKey(t *testing.T) {
	engine := &pulling{begun: make(chan struct{})}
	w := newWorld(t, func(o *httpapi.Options) { engine.Delivery, o.Delivery = o.Delivery, engine })
	sub := w.want(201, w.root("POST", subscriptions, `{}`)).json(t)["id"].(string)
	for what, c := range map[string]struct{ method, path, body string }{
		"read": {"GET", events + "?after=now&wait=50s", ""},
		"pull": {"POST", subscriptions + "/" + sub + "/pull", `{"wait": "50s", "lease": "10m"}`},
	} {
		id, key := w.key("acme", "read")
		begun := make(chan struct{})
		w.gate.begun.Store(&begun)
		answers := make(chan reply)
		go func() {
			r, err := w.try(t.Context(), key, c.method, c.path, c.body)
			if err != nil {
				t.Error(err)
			}
			answers <- r
		}()
		select {
		case <-begun:
		case <-engine.begun:
		}
		w.want(204, w.root("DELETE", "/v1/keys/"+id, ""))
		w.append("acme", `{"type":"t","data":1}`)
		w.refused("unauthenticated", "", <-answers)
		list, err := w.engine.Pull(t.Context(), "acme", eventhose.SubscriptionID(sub), eventhose.Pull{Max: 10, Wait: 20 * time.Second, Lease: time.Minute})
		if err != nil || len(list) != 1 || list[0].Deliveries != 1 {
			t.Errorf("%s: %+v, %v", what, list, err)
		}
	}
}

func TestLongPoll(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.MaxWaiting = 1 })

	// It ends with the event, and events that do not match do not end it.
	answers := w.waiting(t.Context(), events+"?wait=50s&types=wanted")
	w.refused("unavailable", "", w.root("GET", events+"?wait=50s", ""))
	w.append("acme", `{"type":"other","data":1}`)
	w.append("acme", `{"type":"wanted","data":2}`)
	if r := w.want(200, <-answers); !strings.Contains(string(r.body), `"wanted"`) || strings.Contains(string(r.body), `"other"`) {
		t.Errorf("got %s", r.body)
	}
	cursor := w.page(events).Cursor

	// With nothing to come it ends with the wait.
	if p := w.page(events + "?wait=20ms&after=" + cursor); len(p.Data) != 0 || p.Cursor != cursor {
		t.Errorf("got %+v", p)
	}
	<-w.gate.ended
	// What is there is answered at once.
	if p := w.page(events + "?wait=50s&after=0"); len(p.Data) != 2 {
		t.Errorf("got %+v", p)
	}

	// It ends when the client leaves.
	ctx, leave := context.WithCancel(t.Context())
	answers = w.waiting(ctx, events+"?wait=50s&after="+cursor)
	leave()
	<-answers
	<-w.gate.ended
	for w.root("GET", events+"?wait=1ms&after="+cursor, "").StatusCode == 503 { // its place is free a moment later
	}

	// It ends when the server drains, with what there is.
	answers = w.waiting(t.Context(), events+"?wait=50s&after="+cursor)
	w.api.Drain()
	r := w.want(200, <-answers)
	if string(r.body) != fmt.Sprintf(`{"data":[],"cursor":%q,"has_more":false}`, cursor) {
		t.Errorf("got %s", r.body)
	}
}

// TestReadersPassDearEvents: what an expression cannot decide comes to a reader of pages and to one of a stream, and both go on behind it.
func TestReadersPassDearEvents(t *testing.T) {
	w := newWorld(t, nil)
	const expression = "expression=data.l.all(x,data.l==data.l)"
	for _, body := range []string{`{"type":"first","data":{"l":[1]}}`, `{"type":"dear","data":{"l":[` + strings.Repeat("1,", 5000) + `1]}}`, `{"type":"no","data":{}}`, `{"type":"last","data":{"l":[1]}}`} {
		w.append("acme", body)
	}
	const want = "first dear last"
	var got toldPage
	for more, after := true, "0"; more; {
		page := w.page(events + "?" + expression + "&after=" + after)
		got.Data = append(got.Data, page.Data...)
		more, after = page.HasMore, page.Cursor
	}
	if types(got) != want {
		t.Errorf("pages hold %s, want %s", types(got), want)
	}
	p := w.open(rootKey, expression, "Accept", "application/x-ndjson")
	got = toldPage{}
	for len(got.Data) < 3 {
		var e told
		if err := json.Unmarshal([]byte(p.line()), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type != "" { // else it says where the stream stands
			got.Data = append(got.Data, e)
		}
	}
	if types(got) != want {
		t.Errorf("the stream brings %s, want %s", types(got), want)
	}
}

func TestEvent(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.subscribe("acme", `"filter":{"types":["t"]},`)
	w.subscribe("acme", `"filter":{"types":["other"]},`)
	w.append("acme", `{"type":"t","id":"a/b c","data":{"x": 1}}`)
	w.attempts(1)
	path := events + "/" + url.PathEscape("a/b c")
	var e struct {
		told
		Deliveries []eventhose.Delivery `json:"deliveries"`
	}
	for e.Deliveries == nil || e.Deliveries[0].State != eventhose.DeliveryDelivered {
		r := w.want(200, w.root("GET", path, ""))
		if err := json.Unmarshal(r.body, &e); err != nil {
			t.Fatal(err)
		}
	}
	if e.ID != "a/b c" || string(e.Data) != `{"x": 1}` || len(e.Deliveries) != 1 || string(e.Deliveries[0].Subscription) != sub || len(e.Deliveries[0].Attempts) != 1 {
		t.Errorf("got %+v", e)
	}
	w.want(202, w.root("POST", events, `7`, "Ce-Specversion", "1.0", "Ce-Id", "a/b c", "Ce-Source", "/s", "Ce-Type", "u"))
	if got := w.want(200, w.root("GET", path+"?source=/s", "")).json(t); got["type"] != "u" || got["source"] != "/s" {
		t.Errorf("in its scope: %v", got)
	}
	w.refused("not_found", "", w.root("GET", path+"?source=/other", ""))
	w.refused("not_found", "", w.root("GET", events+"/evt_00000000000000000000000000", ""))

	w.want(204, w.root("DELETE", path+"/data", ""))
	w.want(204, w.root("DELETE", path+"/data", ""))
	w.refused("erased", "", w.root("GET", path, ""))
	w.refused("not_found", "", w.root("DELETE", events+"/nothing/data", ""))
	page := w.page(events)
	if len(page.Data) != 2 || !page.Data[0].Erased || page.Data[0].Data != nil || string(page.Data[1].Data) != "7" {
		t.Errorf("the list: %+v", page)
	}
}

// Whatever id is taken names its event in the path; those that would lead elsewhere, the other routes among them, are refused.
func TestEventIDsAreReached(t *testing.T) {
	w := newWorld(t, nil)
	fixed := map[string]bool{"/": true, ".": true, "..": true}
	for _, route := range w.api.Routes() {
		if rest, below := strings.CutPrefix(route.Path, "/v1/tenants/{tenant}/events/"); below && !strings.HasPrefix(rest, "{id}") {
			name, _, _ := strings.Cut(rest, "/")
			fixed[name] = true
		}
	}
	if !fixed["stream"] || !fixed["ws"] {
		t.Errorf("the routes beside events have the names %v", fixed)
	}
	for name := range fixed {
		w.refused("invalid", "id", w.root("POST", events, `{"type":"a","id":"`+name+`","data":1}`))
		w.refused("invalid", "events[1].id", w.root("POST", events, `{"type":"a","data":1}`+"\n"+`{"type":"a","id":"`+name+`","data":1}`, "Content-Type", "application/x-ndjson"))
		w.refused("invalid", "id", w.root("POST", events, `{"specversion":"1.0","source":"/s","type":"a","id":"`+name+`"}`, "Content-Type", "application/cloudevents+json"))
	}
	for _, id := range []string{"...", "ws/", "a/../b", "//", "./a", "%2e", "%2E%2E", "a?b#c", "é ", "data", "a/data"} {
		w.want(202, w.root("POST", events, `{"type":"a","id":"`+id+`","data":1}`))
		if got := w.want(200, w.root("GET", events+"/"+url.PathEscape(id), "")).json(t)["id"]; got != id {
			t.Errorf("%q is %v", id, got)
		}
	}
}

// A key of the parent erases what the parent's log shows, and nothing of the connected tenant's own, which it cannot see.
func TestEraseInAParentsLog(t *testing.T) {
	w := newWorld(t, nil)
	w.want(201, w.root("PUT", "/v1/tenants/platform", `{}`))
	w.want(201, w.root("PUT", "/v1/tenants/shop", `{"parent": "platform"}`))
	_, parents := w.key("platform", eventhose.ScopeRead, eventhose.ScopeManage)
	const own, above = "/v1/tenants/shop/events/o1", "/v1/tenants/platform/events/shop%2Fo1"
	w.append("shop", `{"id": "o1", "type": "t", "data": {"x": 1}}`)
	w.refused("not_found", "", w.call(parents, "GET", own, ""))
	w.refused("not_found", "", w.call(parents, "DELETE", own+"/data", ""))
	w.want(200, w.call(parents, "GET", above, ""))
	w.want(204, w.call(parents, "DELETE", above+"/data", ""))
	w.refused("erased", "", w.call(parents, "GET", above, ""))
	if e := w.want(200, w.root("GET", own, "")).json(t); e["erased"] != nil || fmt.Sprint(e["data"]) != "map[x:1]" {
		t.Errorf("in its own log: %v", e)
	}
	w.want(204, w.root("DELETE", own+"/data", ""))
	w.refused("erased", "", w.root("GET", own, ""))
}

func TestReadMethods(t *testing.T) {
	w := newWorld(t, nil)
	r := w.root("PUT", events, "{}")
	w.refused("method_not_allowed", "", r)
	if r.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("Allow: %s", r.Header.Get("Allow"))
	}
	w.refused("not_found", "", w.root("GET", "/v1/nothing", ""))
	w.refused("not_found", "", w.call("", "GET", "/", ""))
	head := w.want(200, w.root("HEAD", events, ""))
	if len(head.body) != 0 {
		t.Errorf("HEAD has a body: %s", head.body)
	}
	for _, auth := range []string{"Basic " + rootKey, "Bearer", "Bearer  ", rootKey, "Bearer " + strings.Repeat("x", 600)} {
		r := w.call("", "GET", events, "", "Authorization", auth)
		w.refused("unauthenticated", "", r)
		if r.Header.Get("WWW-Authenticate") == "" {
			t.Error("no WWW-Authenticate")
		}
	}
	w.want(200, w.call("", "GET", events, "", "Authorization", "bearer "+rootKey))
}

// The server cuts off who does not finish a header.
func TestServerLimits(t *testing.T) {
	s := httpapi.Server(http.NotFoundHandler())
	if s.ReadHeaderTimeout != 5*time.Second || s.MaxHeaderBytes != 64<<10 || s.IdleTimeout == 0 || s.WriteTimeout <= time.Minute || s.ReadTimeout != 0 {
		t.Errorf("limits are %+v", s)
	}
	w := newWorld(t, nil)
	r, err := w.try(t.Context(), rootKey, "GET", events, "", "X-Large", strings.Repeat("x", 100<<10))
	if err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 100 KiB: %d", r.StatusCode)
	}
	// A body is waited for in time, of a request that is refused before it is read as well.
	for _, c := range []struct {
		path, key string
		status    int
	}{{events, "", 401}, {"/nowhere", "", 404}, {events, rootKey, 202}} {
		r := httptest.NewRequest("POST", c.path, struct{ io.Reader }{strings.NewReader(`{"type":"t","data":1}`)})
		r.Header.Set("Content-Type", "application/json")
		if c.key != "" {
			r.Header.Set("Authorization", "Bearer "+c.key)
		}
		rec := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		w.api.ServeHTTP(rec, r)
		if rec.Code != c.status || len(rec.set) == 0 || rec.set[0].IsZero() || rec.set[len(rec.set)-1].IsZero() != (c.status == 202) {
			t.Errorf("POST %s: %d with the deadlines %v", c.path, rec.Code, rec.set)
		}
	}
}

// deadlines keeps the deadlines that were set for reading.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}
