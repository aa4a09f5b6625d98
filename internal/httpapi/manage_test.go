package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

const subscriptions = "/v1/tenants/acme/subscriptions"

func TestTenants(t *testing.T) {
	w := newWorld(t, nil)
	created := w.want(201, w.root("PUT", "/v1/tenants/child", `{"parent":"acme","retention":{"age":"72h","bytes":1048576}}`)).json(t)
	if created["id"] != "child" || created["parent"] != "acme" || fmt.Sprint(created["retention"]) != "map[age:72h0m0s bytes:1.048576e+06]" {
		t.Errorf("created %v", created)
	}
	w.want(200, w.root("PUT", "/v1/tenants/child", `{"retention":{"age":"1s","bytes":1}}`))
	w.want(200, w.root("PUT", "/v1/tenants/child", `{"parent":"acme"}`))
	w.want(201, w.root("PUT", "/v1/tenants/empty", ``))
	w.refused("conflict", "parent", w.root("PUT", "/v1/tenants/child", `{"parent":"globex"}`))
	for body, field := range map[string]string{
		`{"retention":{"age":"999ms"}}`:  "retention.age",
		`{"retention":{"age":"-1h"}}`:    "retention.age",
		`{"retention":{"bytes":-1}}`:     "retention.bytes",
		`{"retention":{"age":"long"}}`:   "retention.age",
		`{"retention":{"age":3600}}`:     "retention.age",
		`{"retention":{"bytes":"many"}}`: "retention.bytes",
		`{"retention":{"bytes":1.5}}`:    "retention.bytes",
		`{"retention":{"bytes":1e30}}`:   "retention.bytes",
		`{"retention":{"days":1}}`:       "retention.days",
		`{"retention":7}`:                "retention",
		`{"name":"x"}`:                   "name",
		`{"parent":"a b"}`:               "parent",
		`[]`:                             "",
	} {
		r := w.root("PUT", "/v1/tenants/bad", body)
		r.what = body
		w.refused("invalid", field, r)
	}
	for body, field := range map[string]string{`{`: "", `{} {}`: "", `{"parent":"a","parent":"a"}`: "parent", "{\"parent\":\"\xff\"}": "parent"} {
		r := w.root("PUT", "/v1/tenants/bad", body)
		r.what = body
		w.refused("malformed", field, r)
	}
	w.refused("unsupported_media_type", "Content-Type", w.root("PUT", "/v1/tenants/bad", `{}`, "Content-Type", "text/plain"))
	w.refused("too_large", "", w.root("PUT", "/v1/tenants/bad", strings.Repeat(" ", 1<<20+1)))
	w.refused("invalid", "tenant", w.root("PUT", "/v1/tenants/-bad", `{}`))
	w.refused("not_found", "", w.root("GET", "/v1/tenants/bad", ""))
	w.refused("not_found", "", w.root("GET", "/v1/tenants/-bad", ""))

	var ids []string
	for next := "?limit=2"; next != ""; {
		page := w.want(200, w.root("GET", "/v1/tenants"+next, "")).json(t)
		for _, item := range page["data"].([]any) {
			ids = append(ids, item.(map[string]any)["id"].(string))
		}
		next = ""
		if page["next"] != nil {
			next = "?limit=2&after=" + page["next"].(string)
		}
	}
	if strings.Join(ids, " ") != "acme child empty globex" {
		t.Errorf("tenants %v", ids)
	}
	w.refused("invalid", "limit", w.root("GET", "/v1/tenants?limit=0", ""))
	w.refused("invalid", "limit", w.root("GET", "/v1/tenants?limit=x", ""))
	w.refused("invalid", "state", w.root("GET", "/v1/tenants?state=x", ""))
}

func TestKeys(t *testing.T) {
	w := newWorld(t, nil)
	_, admin := w.key("acme", eventhose.ScopeAdmin)
	// A key of a tenant makes keys of this tenant, whether it names it or not.
	for _, body := range []string{`{"scopes":["read"]}`, `{"tenant":"acme","scopes":["read"]}`} {
		made := w.want(201, w.call(admin, "POST", "/v1/keys", body)).json(t)
		if made["tenant"] != "acme" || !strings.HasPrefix(made["key"].(string), "ehk_") {
			t.Errorf("made %v", made)
		}
		w.want(200, w.call(made["key"].(string), "GET", events, ""))
		w.want(204, w.call(admin, "DELETE", "/v1/keys/"+made["id"].(string), ""))
		w.refused("unauthenticated", "", w.call(made["key"].(string), "GET", events, ""))
	}
	w.refused("not_found", "", w.call(admin, "POST", "/v1/keys", `{"tenant":"globex","scopes":["read"]}`))
	w.refused("not_found", "", w.root("POST", "/v1/keys", `{"tenant":"nobody","scopes":["read"]}`))
	w.refused("invalid", "scopes", w.root("POST", "/v1/keys", `{}`))
	w.refused("invalid", "scopes", w.root("POST", "/v1/keys", `{"scopes":[]}`))
	w.refused("invalid", "scopes[1]", w.root("POST", "/v1/keys", `{"scopes":["read","all"]}`))
	w.refused("invalid", "scopes[0]", w.root("POST", "/v1/keys", `{"scopes":[7]}`))
	w.refused("invalid", "expires", w.root("POST", "/v1/keys", `{"scopes":["read"],"expires":"2001-01-01T00:00:00Z"}`))
	w.refused("invalid", "expires", w.root("POST", "/v1/keys", `{"scopes":["read"],"expires":"soon"}`))
	w.refused("malformed", "", w.root("POST", "/v1/keys", ``))
	list := w.want(200, w.root("GET", "/v1/keys?tenant=acme", ""))
	if strings.Contains(string(list.body), admin) || len(list.json(t)["data"].([]any)) != 3 {
		t.Errorf("keys %s", list.body)
	}
}

func TestSubscriptions(t *testing.T) {
	w := newWorld(t, nil)
	r := w.want(201, w.root("POST", subscriptions, `{"name":"n","filter":{"types":["a.*"],"attributes":{"x":"y"}},"ordering":"key","retry":{"schedule":["0s","5s"],"timeout":"10s"},"destination":{"type":"webhook","url":"https://example.com/h","headers":{"X-Team":"topsecret"}}}`))
	s := r.json(t)
	secret := s["secret"].(string)
	if !strings.HasPrefix(secret, "whsec_") || !strings.HasPrefix(s["id"].(string), "sub_") || s["state"] != "active" || s["ordering"] != "key" || s["on_exhausted"] != "park" {
		t.Errorf("created %s", r.body)
	}
	path := subscriptions + "/" + s["id"].(string)
	get := w.want(200, w.root("GET", path, ""))
	if strings.Contains(string(get.body), secret) || !strings.Contains(string(get.body), `"headers":{"X-Team":"***"}`) || get.json(t)["status"].(map[string]any)["circuit"] != "closed" {
		t.Errorf("got %s", get.body)
	}
	for _, r := range []reply{get, w.root("GET", subscriptions, ""), w.root("PATCH", path, `{"name":"m"}`), w.root("POST", path+"/pause", ""), w.root("POST", path+"/resume", "")} {
		w.want(200, r)
		if strings.Contains(string(r.body), "topsecret") || strings.Contains(string(r.body), secret) {
			t.Errorf("%s shows a secret: %s", r.what, r.body)
		}
	}
	w.refused("invalid", "", w.root("POST", path+"/pause", `{"for":"1h"}`))
	if got := w.want(200, w.root("POST", path+"/pause", `{}`, "Accept", "text/html")).json(t); got["state"] != "paused" {
		t.Errorf("paused: %v", got)
	}
	if got := w.want(200, w.root("POST", path+"/resume", "")).json(t); got["state"] != "active" || got["name"] != "m" {
		t.Errorf("resumed: %v", got)
	}
	shown := w.want(200, w.root("GET", path+"/secret", "")).json(t)
	rotated := w.want(200, w.root("POST", path+"/secret/rotate", `{"overlap":"1h"}`)).json(t)
	after := w.want(200, w.root("GET", path+"/secret", "")).json(t)
	if shown["secret"] != secret || rotated["secret"] == secret || after["secret"] != rotated["secret"] || len(after["secrets"].([]any)) != 2 {
		t.Errorf("before %v, rotated %v, after %v", shown, rotated["secret"], after)
	}
	// Who wants the old one to stop at once, since it has leaked, says so. Left out it is a day.
	w.want(200, w.root("POST", path+"/secret/rotate", `{"overlap":"0s"}`))
	if got := w.want(200, w.root("GET", path+"/secret", "")).json(t)["secrets"].([]any); len(got) != 2 { // the first has its hour
		t.Errorf("with no overlap %d sign", len(got))
	}
	w.want(200, w.root("POST", path+"/secret/rotate", `{"overlap":null}`))
	if got := w.want(200, w.root("GET", path+"/secret", "")).json(t)["secrets"].([]any); len(got) != 3 {
		t.Errorf("with the default overlap %d sign", len(got))
	}
	w.want(200, w.root("POST", path+"/secret/rotate", ""))
	w.refused("invalid", "overlap", w.root("POST", path+"/secret/rotate", `{"overlap":"169h"}`))
	w.refused("invalid", "overlap", w.root("POST", path+"/secret/rotate", `{"overlap":"-1h"}`))
	w.refused("invalid", "overlap", w.root("POST", path+"/secret/rotate", `{"overlap":"soon"}`))

	attempt := w.want(200, w.root("POST", path+"/test", "")).json(t)
	if attempt["kind"] != "test" || attempt["outcome"] != "taken" {
		t.Errorf("test: %v", attempt)
	}
	w.want(204, w.root("DELETE", path, ""))
	w.refused("not_found", "", w.root("GET", path, ""))
	w.refused("not_found", "", w.root("DELETE", path, ""))
}

func TestSubscriptionsRefused(t *testing.T) {
	w := newWorld(t, nil)
	const good = `"destination":{"type":"webhook","url":"https://example.com/h"}`
	for _, c := range []struct{ body, field string }{
		{`{"destination":{}}`, "destination.type"},
		{`{"destination":{"type":"webhook"}}`, "destination.url"},
		{`{"destination":{"type":"pigeon","url":"https://example.com"}}`, "destination.type"},
		{`{"destination":{"type":"webhook","url":7}}`, "destination.url"},
		{`{"destination":{"type":"webhook","url":"http://127.0.0.1:1/"}}`, "destination.url"},
		{`{"destination":{"type":"webhook","url":"https://169.254.169.254/"}}`, "destination.url"},
		{`{"destination":{"type":"webhook","url":"ftp://example.com"}}`, "destination.url"},
		{`{"destination":{"type":"webhook","url":"https://example.com","headers":{"Host":"x"}}}`, "destination.headers.Host"},
		{`{"destination":{"type":"webhook","url":"https://example.com","headers":{"X-A":7}}}`, "destination.headers.X-A"},
		{`{"destination":{"type":"webhook","url":"https://example.com","format":"x"}}`, "destination.format"},
		{`{"destination":{"type":"webhook","url":"https://example.com","compression":"br"}}`, "destination.compression"},
		{`{"batch":{"max_events":1001},` + good + `}`, "batch.max_events"},
		{`{"batch":{"max_events":-1},` + good + `}`, "batch.max_events"},
		{`{"batch":{"max_wait":"1s"},` + good + `}`, "batch.max_events"},
		{`{"batch":{"max_events":10,"max_bytes":1000},` + good + `}`, "batch.max_bytes"},
		{`{"batch":{"max_events":10,"max_bytes":8388609},` + good + `}`, "batch.max_bytes"},
		{`{"batch":{"max_events":10,"max_wait":"61s"},` + good + `}`, "batch.max_wait"},
		{`{"batch":{"max_events":10,"max_wait":5},` + good + `}`, "batch.max_wait"},
		{`{"batch":{"events":10},` + good + `}`, "batch.events"},
		{`{"filter":{"types":["a..b"]},` + good + `}`, "filter.types[0]"},
		{`{"filter":{"types":["a",7]},` + good + `}`, "filter.types[1]"},
		{`{"filter":{"types":"a"},` + good + `}`, "filter.types"},
		{`{"filter":{"kinds":["a"]},` + good + `}`, "filter.kinds"},
		{`{"filter":{"expression":"1+1"},` + good + `}`, "filter.expression"},
		{`{"filter":{"expression":"nope == 1"},` + good + `}`, "filter.expression"},
		{`{"ordering":"sometimes",` + good + `}`, "ordering"},
		{`{"on_exhausted":"block",` + good + `}`, "on_exhausted"},
		{`{"max_in_flight":65,` + good + `}`, "max_in_flight"},
		{`{"max_in_flight":"8",` + good + `}`, "max_in_flight"},
		{`{"retry":{"schedule":["0s","soon"]},` + good + `}`, "retry.schedule[1]"},
		{`{"retry":{"schedule":[5]},` + good + `}`, "retry.schedule[0]"},
		{`{"retry":{"timeout":"1h"},` + good + `}`, "retry.timeout"},
		{`{"from":"yesterday",` + good + `}`, "from"},
		{`{"state":"paused",` + good + `}`, "state"},
	} {
		r := w.root("POST", subscriptions, c.body)
		r.what = c.body
		w.refused("invalid", c.field, r)
	}
	w.refused("malformed", "filter.types", w.root("POST", subscriptions, `{"filter":{"types":[],"types":[]},`+good+`}`))
	// Everything that is wrong is told at once, and no value is told back.
	r := w.root("POST", subscriptions, `{"nope":"hush","filter":{"nein":"hush"},"destination":{"type":"webhook","url":"https://example.com","headers":{"A":["hush"]}}}`)
	var p httpapi.Problem
	if err := json.Unmarshal(r.body, &p); err != nil || len(p.Errors) != 3 || strings.Contains(string(r.body), "hush") {
		t.Errorf("got %s", r.body)
	}
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, `"%s%d":1,`, strings.Repeat("x", 10), i)
	}
	fmt.Fprintf(&many, `"%s":1,`, strings.Repeat("y", 10_000))
	if r := w.want(422, w.root("POST", subscriptions, `{`+many.String()+good+`}`)); len(r.body) > 10<<10 {
		t.Errorf("an answer of %d bytes", len(r.body))
	}
	if list := w.want(200, w.root("GET", subscriptions, "")); string(list.body) != "{\"data\":[],\"next\":null}\n" {
		t.Errorf("something was made: %s", list.body)
	}
	id := w.subscribe("acme", "")
	for body, field := range map[string]string{`{"nope":1}`: "nope", `{"ordering":"x"}`: "ordering", `{"destination":{"type":"webhook"}}`: "destination.url", `{"retry":{"timeout":"x"}}`: "retry.timeout"} {
		r := w.root("PATCH", subscriptions+"/"+id, body)
		r.what = body
		w.refused("invalid", field, r)
	}
	w.want(200, w.root("PATCH", subscriptions+"/"+id, `{"name":"x"}`, "Content-Type", "application/merge-patch+json"))
}

func TestLanes(t *testing.T) {
	w := newWorld(t, nil)
	w.sink.answer(500)
	path := subscriptions + "/" + w.subscribe("acme", `"retry":{"schedule":["0s"]},`)
	w.append("acme", `{"type":"a","id":"one","data":1}`)
	w.append("acme", `{"type":"b","id":"two","data":2}`)
	w.attempts(2)
	list := func(path string) (items []map[string]any, next any) {
		page := w.want(200, w.root("GET", path, "")).json(t)
		for _, item := range page["data"].([]any) {
			items = append(items, item.(map[string]any))
		}
		return items, page["next"]
	}
	var dead []map[string]any
	for len(dead) < 2 { // the second attempt may still be on its way into the store
		dead, _ = list(path + "/parked?state=dead")
	}
	first, next := list(path + "/parked?limit=1")
	second, last := list(path + "/parked?limit=1&after=" + next.(string))
	if dead[0]["event"] != "one" || dead[1]["event"] != "two" || first[0]["event"] != "one" || second[0]["event"] != "two" || last != nil {
		t.Errorf("dead %v, page by page %v %v %v", dead, first, second, last)
	}
	attempts, next := list(path + "/attempts?limit=1")
	if older, _ := list(path + "/attempts?after=" + next.(string)); len(older) != 1 || older[0]["id"] == attempts[0]["id"] || attempts[0]["status"] != 500.0 {
		t.Errorf("attempts %v, then %v", attempts, older)
	}
	if of, _ := list(path + "/attempts?event=one"); len(of) != 1 || fmt.Sprint(of[0]["events"]) != "[one]" {
		t.Errorf("attempts of one: %v", of)
	}
	w.refused("not_found", "", w.root("GET", path+"/attempts?event=none", ""))
	w.refused("invalid", "state", w.root("GET", path+"/parked?state=odd", ""))
	w.refused("invalid", "after", w.root("GET", path+"/parked?after=x", ""))
	w.refused("invalid", "after", w.root("GET", path+"/attempts?after=x", ""))
	status := w.want(200, w.root("GET", path, "")).json(t)["status"].(map[string]any)
	if status["dead"] != 2.0 || status["lag"] != 0.0 {
		t.Errorf("status %v", status)
	}

	w.refused("not_found", "events[1]", w.root("POST", path+"/parked/redrive", `{"events":["one","none"]}`))
	w.refused("invalid", "events", w.root("POST", path+"/parked/discard", `{"events":[]}`))
	w.refused("invalid", "events[0]", w.root("POST", path+"/parked/discard", `{"events":[1]}`))
	w.sink.answer(200)
	if got := w.want(200, w.root("POST", path+"/parked/redrive", `{"events":["one"]}`)).json(t); got["count"] != 1.0 {
		t.Errorf("redrive: %v", got)
	}
	w.attempts(1)
	w.refused("invalid", "sequences", w.root("POST", path+"/parked/discard", `{"sequences":[]}`))
	w.refused("invalid", "sequences[0]", w.root("POST", path+"/parked/discard", `{"sequences":[-1]}`))
	w.refused("not_found", "sequences[1]", w.root("POST", path+"/parked/discard", `{"sequences":[2,3]}`))
	w.sink.answer(500)
	w.want(202, w.call(rootKey, "POST", "/v1/tenants/acme/events", `{"specversion":"1.0","type":"a","source":"/shop","id":"two","data":3}`, "Content-Type", "application/cloudevents+json"))
	w.attempts(1)
	for len(dead) != 2 || dead[1]["sequence"] != 3.0 {
		dead, _ = list(path + "/parked?state=dead")
	}
	if got := w.want(200, w.root("POST", path+"/parked/discard", `{"sequences":[3]}`)).json(t); got["count"] != 1.0 {
		t.Errorf("discard by sequence: %v", got)
	}
	if dead, _ = list(path + "/parked?state=dead"); len(dead) != 1 || dead[0]["sequence"] != 2.0 {
		t.Errorf("after the discard by sequence: %v", dead)
	}
	if got := w.want(200, w.root("POST", path+"/parked/discard", "")).json(t); got["count"] != 1.0 {
		t.Errorf("discard: %v", got)
	}
}

func TestBatches(t *testing.T) {
	w := newWorld(t, nil)
	w.sink.answer(500)
	w.sink.refuse = "e2"
	const policy = `"batch":{"max_events":3,"max_wait":"1m"},`
	path := subscriptions + "/" + w.subscribe("acme", policy+`"retry":{"schedule":["0s","1h"]},`)
	w.root("POST", subscriptions[:len("/v1/tenants/acme/")]+"events", `[{"type":"a","id":"e1","data":1},{"type":"b","id":"e2","data":2},{"type":"c","id":"e3","data":3}]`)
	w.attempts(1)
	w.sink.answer(200)
	w.want(200, w.root("POST", path+"/test", ""))
	w.append("acme", `{"type":"a","id":"e4","data":1}`)
	w.append("acme", `{"type":"a","id":"e5","data":1}`)
	w.append("acme", `{"type":"a","id":"e6","data":1}`)
	w.attempts(2)
	type batch struct {
		ID, State string
		Events    int
		First     int `json:"first_sequence"`
		Last      int `json:"last_sequence"`
		Attempts  []map[string]any
	}
	list := func(query string) (page struct {
		Data []batch
		Next *string
	}) {
		if err := json.Unmarshal(w.want(200, w.root("GET", path+"/batches"+query, "")).body, &page); err != nil {
			t.Fatal(err)
		}
		return page
	}
	page := list("")
	for len(page.Data) < 2 { // the last attempt may still be on its way into the store
		page = list("")
	}
	if len(page.Data) != 2 || page.Next != nil {
		t.Fatalf("%+v", page)
	}
	second, first := page.Data[0], page.Data[1]
	if second.State != "taken" || second.First != 4 || second.Last != 6 || second.Events != 3 || !strings.HasPrefix(second.ID, "bat_") || len(second.Attempts) != 1 {
		t.Errorf("%+v", second)
	}
	if first.State != "partly" || first.First != 1 || first.Last != 3 || len(first.Attempts) != 1 || first.Attempts[0]["reason"] != "partly" || first.Attempts[0]["number"] != 1.0 {
		t.Errorf("%+v", first)
	}
	parked := w.want(200, w.root("GET", path+"/parked", "")).json(t)["data"].([]any)
	if p := parked[0].(map[string]any); len(parked) != 1 || p["event"] != "e2" || p["message"] != "no such order" || p["batch"] == first.ID {
		t.Errorf("parked %v", parked)
	}
	if of := w.want(200, w.root("GET", path+"/attempts?event=e3", "")).json(t)["data"].([]any); len(of) != 1 || of[0].(map[string]any)["batch"] != first.ID {
		t.Errorf("attempts of e3: %v", of)
	}
	if e := w.want(200, w.root("GET", subscriptions[:len("/v1/tenants/acme/")]+"events/e3", "")); !strings.Contains(string(e.body), `"state":"delivered"`) {
		t.Errorf("e3: %s", e.body)
	}
	// Page by page it is the same.
	one := list("?limit=1")
	if two := list("?limit=1&after=" + *one.Next); len(one.Data) != 1 || len(two.Data) != 1 || one.Data[0].ID != second.ID || two.Data[0].ID != first.ID {
		t.Errorf("%+v, then %+v", one, two)
	}
	w.refused("invalid", "after", w.root("GET", path+"/batches?after=x", ""))
	// What was not taken of a batch is listed as the batch of its own that it is tried again in, for the second time.
	w.want(200, w.root("POST", path+"/parked/retry", ""))
	w.attempts(1)
	for len(page.Data) < 3 {
		page = list("")
	}
	if rest := page.Data[0]; rest.ID != parked[0].(map[string]any)["batch"] || rest.State != "taken" || rest.Events != 1 || rest.First != 2 || len(rest.Attempts) != 1 || rest.Attempts[0]["number"] != 2.0 {
		t.Errorf("%+v", rest)
	}
	// A policy is shown only where there is one, and may be changed and taken back.
	if s := w.want(200, w.root("GET", path, "")).json(t); fmt.Sprint(s["batch"]) != "map[max_bytes:1.048576e+06 max_events:3 max_wait:1m0s]" {
		t.Errorf("shown as %v", s["batch"])
	}
	for body, want := range map[string]any{`{"batch":{"max_events":7,"max_bytes":4096}}`: map[string]any{"max_events": 7.0, "max_bytes": 4096.0}, `{"batch":null}`: nil, `{"batch":{}}`: nil} {
		if s := w.want(200, w.root("PATCH", path, body)).json(t); fmt.Sprint(s["batch"]) != fmt.Sprint(want) {
			t.Errorf("%s: %v", body, s["batch"])
		}
	}
	w.refused("invalid", "batch.max_events", w.root("PATCH", path, `{"batch":{"max_events":1001}}`))
	s := w.want(200, w.root("PATCH", path, `{"destination":{"type":"webhook","url":"https://example.com/h","format":"cloudevents","compression":"gzip"}}`)).json(t)["destination"].(map[string]any)
	if s["format"] != "cloudevents" || s["compression"] != "gzip" {
		t.Errorf("destination %v", s)
	}
	s = w.want(200, w.root("PATCH", path, `{"destination":{"type":"webhook","url":"https://example.com/h","format":"standard"}}`)).json(t)["destination"].(map[string]any)
	if _, shown := s["format"]; shown || s["compression"] != nil {
		t.Errorf("destination %v", s)
	}
}

func TestReplay(t *testing.T) {
	w := newWorld(t, nil)
	path := subscriptions + "/" + w.subscribe("acme", "")
	for i := range 4 {
		w.append("acme", fmt.Sprintf(`{"type":"t%d","data":%d}`, i%2, i))
	}
	w.attempts(4)
	page := w.page(events)
	whole := w.want(200, w.root("GET", events, "")).json(t)["data"].([]any)
	appended := func(i int) string { return whole[i].(map[string]any)["appended"].(string) }
	for w.want(200, w.root("GET", path, "")).json(t)["status"].(map[string]any)["lag"] != 0.0 {
	}
	for body, count := range map[string]float64{
		``:                       4,
		`{}`:                     4,
		`{"from":2,"to":3}`:      2,
		`{"from":"0"}`:           4,
		`{"types":["t1"]}`:       2,
		`{"status":"delivered"}`: 4,
		`{"status":"dead"}`:      0,
		`{"from":"` + page.Data[0].Cursor + `","to":"` + page.Data[2].Cursor + `"}`: 2,
		`{"from":"` + appended(1) + `"}`:                                            3,
		`{"to":"` + appended(1) + `"}`:                                              2,
		`{"from":"2001-01-01T00:00:00Z","to":"2099-01-01T00:00:00Z"}`:               4,
	} {
		dry := strings.TrimSuffix(body, "}")
		if dry != "" && dry != "{" {
			dry += ","
		} else {
			dry = "{"
		}
		r := w.want(200, w.root("POST", path+"/replay", dry+`"dry_run":true}`))
		if got := r.json(t); got["count"] != count || got["replay"] != nil {
			t.Errorf("%s: %v, want %v", body, got, count)
		}
	}
	for body, field := range map[string]string{
		`{"from":"nonsense"}`: "from", `{"to":true}`: "to", `{"from":-1}`: "from", `{"from":1.5}`: "from", `{"status":"odd"}`: "status",
		`{"from":"2099-01-01T00:00:00Z"}`: "from", `{"to":"2001-01-01T00:00:00Z"}`: "to", `{"to":"0"}`: "to", `{"until":1}`: "until",
		`{"from":3,"to":2}`: "to", `{"from":3,"to":2,"dry_run":true}`: "to",
	} {
		r := w.root("POST", path+"/replay", body)
		r.what = body
		w.refused("invalid", field, r)
	}
	w.refused("cursor_gone", "from", w.root("POST", path+"/replay", `{"from":"zzz_1"}`))
	if got := w.want(200, w.root("POST", path+"/replay", `{"from":99}`)).json(t); got["count"] != 0.0 || got["replay"] != nil {
		t.Errorf("beyond what was delivered: %v", got)
	}
	started := w.want(202, w.root("POST", path+"/replay", `{"from":2,"to":3}`)).json(t)
	if started["replay"].(map[string]any)["from"] != 2.0 {
		t.Errorf("started %v", started)
	}
	w.attempts(2)
}

// The attempts of one event are a list as every other: as long as it is asked for, and it goes on.
func TestAttemptsOfEventInPages(t *testing.T) {
	w := newWorld(t, nil)
	w.sink.answer(500)
	path := subscriptions + "/" + w.subscribe("acme", `"retry":{"schedule":["0s","0s","0s"]},`) + "/attempts"
	w.append("acme", `{"type":"a","id":"one","data":1}`)
	w.attempts(3)
	var all []any
	eventually(t, "three attempts are stored", func() bool {
		all = w.want(200, w.root("GET", path, "")).json(t)["data"].([]any)
		return len(all) == 3
	})
	var got []string
	for query := "?event=one&limit=2"; query != ""; {
		page := w.want(200, w.root("GET", path+query, "")).json(t)
		for _, item := range page["data"].([]any) {
			got = append(got, item.(map[string]any)["id"].(string))
		}
		if len(page["data"].([]any)) > 2 {
			t.Errorf("%s: %d attempts", query, len(page["data"].([]any)))
		}
		query = ""
		if next, more := page["next"].(string); more {
			query = "?event=one&limit=2&after=" + next
		}
	}
	for i, item := range all {
		if len(got) != len(all) || got[i] != item.(map[string]any)["id"] {
			t.Fatalf("got %v of %v", got, all)
		}
	}
	w.refused("invalid", "after", w.root("GET", path+"?event=one&after=x", ""))
}

// Whatever a route may be refused with is in the document; refused looks there.
func TestRefusalsDescribed(t *testing.T) {
	var told error
	w := newWorld(t, func(o *httpapi.Options) {
		o.Admit = func(context.Context, eventhose.Principal, eventhose.TenantID) error { return told }
	})
	w.refused("cursor_gone", "", w.root("POST", subscriptions, `{"from":"zzzz_5"}`))
	w.refused("cursor_gone", "", w.root("GET", "/v1/tenants/acme/inbox?after=zzzz_5", ""))
	id, _ := w.source("acme")
	inbox := w.want(200, w.root("GET", "/v1/tenants/acme/sources/"+id, "")).json(t)["subscription"].(string)
	w.refused("conflict", "", w.root("DELETE", subscriptions+"/"+inbox, ""))
	for code, routes := range map[eventhose.Code][]string{
		eventhose.CodeTimeout:     {"GET /v1/tenants/acme/attempts", "GET /v1/tenants/acme/events", "POST /v1/keys", "DELETE /v1/tenants/acme/sources/" + id},
		eventhose.CodeStorageFull: {"POST /v1/keys", "PUT /v1/tenants/acme", "PATCH /v1/tenants/acme/sources/" + id, "DELETE /v1/tenants/acme/sources/" + id},
		eventhose.CodeVersion:     {"DELETE /v1/tenants/acme/sources/" + id},
	} {
		told = &eventhose.Error{Code: code, Message: "as it may be under way"}
		for _, route := range routes {
			method, path, _ := strings.Cut(route, " ")
			w.refused(code, "", w.root(method, path, ""))
		}
	}
	told = nil
}

// What receivers answer is kept, and many of them that answer much make no answer of ours that is larger than a page of events.
func TestLargeAttempts(t *testing.T) {
	w := newWorld(t, nil)
	w.sink.status, w.sink.body = 500, strings.Repeat("x", eventhose.MaxKeptBody)
	const subs, tries = 30, 20
	var paths []string
	for range subs {
		paths = append(paths, subscriptions+"/"+w.subscribe("acme", `"retry":{"schedule":["0s"`+strings.Repeat(`,"0s"`, tries-1)+`]},`))
	}
	w.append("acme", `{"type":"a","id":"one","data":1}`)
	w.attempts(subs * tries)
	for _, path := range paths {
		w.told(path+"/parked?state=dead", `"event":"one"`, 1)
	}
	const most = eventhose.MaxPageBytes + 1<<20
	r := w.want(200, w.root("GET", events+"/one", ""))
	var status struct{ Deliveries []eventhose.Delivery }
	if err := json.Unmarshal(r.body, &status); err != nil || len(r.body) > most || len(status.Deliveries) != subs {
		t.Fatalf("%d deliveries in %d bytes, %v", len(status.Deliveries), len(r.body), err)
	}
	if first := status.Deliveries[0].Attempts; len(first) != tries || first[0].ResponseBody != w.sink.body {
		t.Errorf("%d attempts at the first", len(first))
	}
	for _, d := range status.Deliveries {
		if len(d.Attempts) == 0 || d.Attempts[0].Number != tries || d.Attempts[0].Status != 500 || d.State != "dead" {
			t.Errorf("%s: %d attempts, %s", d.Subscription, len(d.Attempts), d.State)
		}
	}
	// One by one they are all there.
	for path, parameter := range map[string]string{"/v1/tenants/acme/attempts?limit=1000": "before", paths[0] + "/attempts?limit=1000": "after", paths[0] + "/attempts?event=one": "after"} {
		seen, pages := map[string]bool{}, 0
		for query := path; query != ""; pages++ {
			r := w.want(200, w.root("GET", query, ""))
			var page httpapi.List[eventhose.Attempt]
			if err := json.Unmarshal(r.body, &page); err != nil || len(r.body) > most {
				t.Fatalf("%s: %d bytes, %v", query, len(r.body), err)
			}
			for _, a := range page.Data {
				seen[a.ID] = true
			}
			if query = ""; page.Next != nil {
				query = path + "&" + parameter + "=" + *page.Next
			}
		}
		want := tries
		if parameter == "before" {
			want *= subs
		}
		if len(seen) != want || parameter == "before" && pages < 3 {
			t.Errorf("%s: %d attempts on %d pages", path, len(seen), pages)
		}
	}
}
