package graphql_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/graphql"
	"github.com/eventhose/eventhose/internal/httpapi"
)

const everything = `query($after: String, $types: [String!], $keys: [String!], $expression: String, $limit: Int) {
	events(after: $after, types: $types, keys: $keys, expression: $expression, limit: $limit) {
		events { id type sequence key time appended cursor source version attributes origin { tenant sequence } contentType erased data dataBase64 }
		cursor hasMore
	}
}`

// page is what everything answers.
type page struct {
	Events struct {
		Events []struct {
			ID, Type, Key, Cursor, ContentType string
			Time, Appended                     string
			Sequence                           uint64
			Source, Version, DataBase64        *string
			Attributes                         map[string]string
			Origin                             *struct {
				Tenant   string
				Sequence uint64
			}
			Erased bool
			Data   json.RawMessage
		}
		Cursor  string
		HasMore bool
	}
}

// Data comes byte for byte as it was appended, beside data that is not JSON, and erased data.
func TestData(t *testing.T) {
	w := newWorld(t, nil)
	const awkward = "{ \"amount\" : 1.10e+2,\n \"html\":\"<b>&</b>\\u00e9 \u2028\", \"half\":\"\\ud800\", \"big\": 12345678901234567890.0}"
	w.append(`{"type":"order.paid","id":"a \"quoted\" id","key":"k","version":"2","attributes":{"region":"eu"},"time":"2026-01-31T12:00:00Z","data":` + awkward + `}`)
	w.append(`{"type":"label.printed","content_type":"image/png","data_base64":"iVBORw0KGgo="}`)
	erased := w.append(`{"type":"secret","data":"leaked"}`)
	w.rest("DELETE", acme+"/events/"+erased+"/data", "", 204)
	w.append(`{"type":"nothing","data":null}`)

	status, b, _ := w.do("POST", acme+"/graphql", request(everything), "Authorization", "Bearer "+rootKey, "Content-Type", "application/json")
	if status != 200 || !strings.Contains(string(b), `"data":`+awkward+`,`) {
		t.Errorf("not byte for byte: %d %s", status, b)
	}
	var p page
	w.want(&p, everything)
	e := p.Events.Events
	if len(e) != 4 || p.Events.HasMore || p.Events.Cursor != e[3].Cursor {
		t.Fatalf("got %+v", p)
	}
	if e[0].ID != `a "quoted" id` || e[0].Type != "order.paid" || e[0].Sequence != 1 || e[0].Key != "k" || *e[0].Version != "2" || e[0].Attributes["region"] != "eu" ||
		e[0].Time != "2026-01-31T12:00:00Z" || e[0].ContentType != "application/json" || e[0].DataBase64 != nil || e[0].Source != nil || e[0].Origin != nil {
		t.Errorf("the first is %+v", e[0])
	}
	if *e[1].DataBase64 != "iVBORw0KGgo=" || string(e[1].Data) != "null" || e[1].ContentType != "image/png" || e[1].Attributes != nil {
		t.Errorf("the second is %+v", e[1])
	}
	if !e[2].Erased || string(e[2].Data) != "null" || e[2].DataBase64 != nil || e[3].Erased {
		t.Errorf("the third and fourth are %+v", e[2:])
	}
	var one struct {
		Event struct{ Data json.RawMessage }
	}
	w.want(&one, `{ event(id: "a \"quoted\" id") { data } }`)
	if string(one.Event.Data) != awkward {
		t.Errorf("alone it is %s", one.Event.Data)
	}
	// A client's text that looks like what stands for data is a text.
	var twice struct {
		Events struct {
			Events []struct{ A, B json.RawMessage }
		}
	}
	w.want(&twice, `{ events(limit: 1) { events { a: data b: data } } }`)
	if string(twice.Events.Events[0].A) != awkward || string(twice.Events.Events[0].B) != awkward {
		t.Errorf("twice: %s", twice.Events.Events[0].A)
	}
}

// A log is read page by page with the cursor, and narrowed by types, keys and an expression.
func TestPages(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 10 {
		w.append(fmt.Sprintf(`{"type":"t%d.x","key":"k%d","data":{"n":%d}}`, i%2, i%5, i))
	}
	after, got := `"0"`, 0
	for more := true; more; {
		var p page
		w.want(&p, everything, "after", after, "limit", "3")
		for _, e := range p.Events.Events {
			if got++; int(e.Sequence) != got {
				t.Fatalf("got %d, want %d", e.Sequence, got)
			}
		}
		after, more = `"`+p.Events.Cursor+`"`, p.Events.HasMore
	}
	if got != 10 {
		t.Errorf("%d events", got)
	}
	for want, variables := range map[string][]string{
		"[1 3 5 7 9]":            {"types", `["t0.*"]`},
		"[2 4 6 8 10]":           {"types", `"t1.x"`},
		"[1 2 6 7]":              {"keys", `["k0","k1"]`},
		"[9 10]":                 {"expression", `"data.n > 7"`},
		"[]":                     {"after", `"now"`},
		"[1 2 3 4 5 6 7 8 9 10]": {"after", `null`, "limit", "null", "types", "null"},
	} {
		var p page
		w.want(&p, everything, variables...)
		list := []uint64{}
		for _, e := range p.Events.Events {
			list = append(list, e.Sequence)
		}
		if fmt.Sprint(list) != want {
			t.Errorf("%v: %v, want %s", variables, list, want)
		}
	}
}

// Subscriptions, where their delivery stands, and what was tried are told; secrets are not.
func TestDeliveries(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.subscribe(`"name": "shop", "filter": {"types": ["order.*", "refused"], "attributes": {"a": "b"}, "expression": "data != 1"}, "ordering": "key", `)
	pull := w.rest("POST", acme+"/subscriptions", `{"filter": {"types": ["job"]}}`, 201)["id"].(string)
	paid := w.append(`{"type":"order.paid","attributes":{"a":"b"},"data":{}}`)
	w.attempts(1)
	bad := w.append(`{"type":"refused","attributes":{"a":"b"},"data":{}}`)
	w.attempts(1)

	const all = `{
		subscriptions(first: 20) { next subscriptions {
			id name filter { types keys attributes expression } ordering onExhausted schedule timeout maxInFlight batchEvents
			destination { type url headers signature format compression } state reason created updated publicKey
			status { cursor lag inFlight retrying leased blockedKeys waiting dead circuit failingSince lastSuccess next }
			attempts(first: 10) { next attempts { ...a } }
		} }
	}
	fragment a on Attempt {
		id subscription events sequences kind batch number outcome reason message status started duration
		phases { dns connect tls wait } url address responseHeaders responseBody next replay
	}`
	type attempts struct {
		Next     *string
		Attempts []struct {
			ID, Subscription, Kind, Outcome string
			Events                          []string
			Sequences                       []uint64
			Number                          int
			Status                          *int
			Reason, Next                    *string
			ResponseBody                    *string
			ResponseHeaders                 map[string]string
		}
	}
	var got struct {
		Subscriptions struct {
			Next          *string
			Subscriptions []struct {
				ID, Name, Ordering, State string
				Filter                    struct {
					Types      []string
					Attributes map[string]string
					Expression *string
				}
				Destination *struct {
					Type, URL, Format string
					Headers           []string
				}
				Status struct {
					Lag      uint64
					Retrying int
					Circuit  string
				}
				Attempts attempts
			}
		}
	}
	eventually(t, "the second is retrying", func() bool {
		got.Subscriptions.Subscriptions = nil
		w.want(&got, all)
		for _, s := range got.Subscriptions.Subscriptions {
			if s.ID == sub {
				return s.Status.Retrying == 1 && len(s.Attempts.Attempts) == 2
			}
		}
		return false
	})
	list := got.Subscriptions.Subscriptions
	if len(list) != 2 || got.Subscriptions.Next != nil {
		t.Fatalf("got %+v", got)
	}
	for _, s := range list {
		if s.ID == pull {
			if s.Destination != nil || s.Filter.Types[0] != "job" || s.Ordering != "none" || s.State != "active" {
				t.Errorf("the pull subscription is %+v", s)
			}
			continue
		}
		if s.ID != sub || s.Name != "shop" || s.Ordering != "key" || fmt.Sprint(s.Filter.Types) != "[order.* refused]" || s.Filter.Attributes["a"] != "b" || *s.Filter.Expression != "data != 1" ||
			s.Destination.URL != "https://example.com/hook" || fmt.Sprint(s.Destination.Headers) != "[X-Team]" || s.Destination.Format != "standard" || s.Status.Circuit != "closed" {
			t.Errorf("the subscription is %+v", s)
		}
		last, first := s.Attempts.Attempts[0], s.Attempts.Attempts[1]
		if first.Outcome != "taken" || first.Events[0] != paid || first.Sequences[0] != 1 || first.Kind != "first" || first.Number != 1 || *first.Status != 200 || first.Reason != nil || *first.ResponseBody != "thanks" || first.ResponseHeaders["Server"] != "shop" {
			t.Errorf("the first attempt is %+v", first)
		}
		if last.Outcome != "failed" || last.Events[0] != bad || *last.Reason != "status" || last.Next == nil || last.Subscription != sub {
			t.Errorf("the last attempt is %+v", last)
		}
	}
	var event struct {
		Event struct {
			Deliveries []struct {
				Subscription, State string
				Attempts            []struct{ Outcome string }
			}
		}
	}
	w.want(&event, `query($id: ID!) { event(id: $id) { deliveries { subscription state attempts { outcome } } } }`, "id", `"`+bad+`"`)
	if d := event.Event.Deliveries; len(d) != 1 || d[0].Subscription != sub || d[0].State != "retrying" || d[0].Attempts[0].Outcome != "failed" {
		t.Errorf("the deliveries are %+v", d)
	}
	var a struct{ Attempts attempts }
	w.want(&a, `query($s: ID!) { attempts(subscription: $s, first: 1) { next attempts { id } } }`, "s", `"`+sub+`"`)
	var b struct{ Attempts attempts }
	w.want(&b, `query($s: ID!, $n: String) { attempts(subscription: $s, first: 1, after: $n) { next attempts { id } } }`, "s", `"`+sub+`"`, "n", `"`+*a.Attempts.Next+`"`)
	var c struct{ Attempts attempts }
	w.want(&c, `query($s: ID!, $e: ID) { attempts(subscription: $s, event: $e) { next attempts { id } } }`, "s", `"`+sub+`"`, "e", `"`+paid+`"`)
	if len(b.Attempts.Attempts) != 1 || b.Attempts.Next != nil || a.Attempts.Attempts[0].ID <= b.Attempts.Attempts[0].ID || len(c.Attempts.Attempts) != 1 || c.Attempts.Attempts[0].ID != b.Attempts.Attempts[0].ID {
		t.Errorf("pages of attempts: %+v, %+v, %+v", a, b, c)
	}
	var one struct{ Subscriptions struct{ Next *string } }
	w.want(&one, `{ subscriptions(first: 1) { next } }`)
	if one.Subscriptions.Next == nil || *one.Subscriptions.Next != list[0].ID {
		t.Errorf("the next of one is %v", one.Subscriptions.Next)
	}

	if answer := w.ask(all); strings.Contains(string(answer.Data), "planted") || strings.Contains(string(answer.Data), "whsec_") {
		t.Errorf("secrets are told: %s", answer.Data)
	}
	if strings.Contains(graphql.SDL, "secret:") || strings.Contains(graphql.SDL, "secrets:") {
		t.Error("a secret is in the schema")
	}
}

// What cannot be accepted is refused as a whole, with a code and the field, before anything is done.
func TestRefusals(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.subscribe("")
	nested := func(n int) string {
		return "{ __type(name: \"Event\") { " + strings.Repeat("ofType { ", n) + "name" + strings.Repeat(" }", n) + " } }"
	}
	bomb := "{ events { ...f0 } }"
	for i := range 12 {
		bomb += fmt.Sprintf(" fragment f%d on EventPage { ...f%d ...f%d }", i, i+1, i+1)
	}
	bomb += " fragment f12 on EventPage { cursor }"
	aliases := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, " a%d: type", i)
		}
		return "{ event(id: 1) {" + b.String() + " } }"
	}
	for _, c := range []struct {
		name, document string
		code           eventhose.Code
		field          string
		variables      []string
	}{
		{"syntax", "{ events {", "malformed", "query", nil},
		{"nothing", "# nothing", "invalid", "operationName", nil},
		{"a field that is none", "{ nope }", "invalid", "query", nil},
		{"an argument that is none", "{ events(offset: 1) { cursor } }", "invalid", "query", nil},
		{"a mutation", "mutation { append }", "invalid", "query", nil},
		{"two operations", "query a { __typename } query b { __typename }", "invalid", "operationName", nil},
		{"a long document", "{ __typename }" + strings.Repeat(" ", 16<<10), "too_large", "query", nil},
		{"many tokens", "{" + strings.Repeat(" a", 2001) + "}", "too_large", "query", nil},
		{"many fields", "{" + strings.Repeat(" __typename", 501) + "}", "too_large", "query", nil},
		{"many operations", strings.Repeat("query { __typename } ", 11), "too_large", "query", nil},
		{"many fragments", "{ __typename }" + strings.Repeat(" fragment f on Query { __typename }", 51), "too_large", "query", nil},
		{"deep", nested(14), "too_large", "query", nil},
		{"very deep", strings.Repeat("{a", 600) + strings.Repeat("}", 600), "too_large", "query", nil},
		{"deep values", "{ event(id: " + strings.Repeat("[", 900) + strings.Repeat("]", 900) + ") { id } }", "invalid", "query", nil},
		{"a bomb of fragments", bomb, "too_large", "query", nil},
		{"a cycle of fragments", "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "too_large", "query", nil},
		{"many aliases", aliases(31), "too_large", "query", nil},
		{"introspection without end", "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }", "invalid", "query", nil},
		{"a large page of much", "{ events(limit: 1000) { events { id type sequence key time appended cursor source version attributes contentType erased data dataBase64 origin { tenant sequence } i: id t: type } } }", "too_large", "query", nil},
		{"deliveries of many", "{ events { events { deliveries { state } } } }", "too_large", "query", nil},
		{"attempts of many", "query($n: Int) { subscriptions(first: $n) { subscriptions { attempts(first: $n) { attempts { id } } } } }", "too_large", "query", []string{"n", "150"}},
		{"attempts of many by default", "query($n: Int = 150) { subscriptions(first: $n) { subscriptions { attempts(first: $n) { attempts { id } } } } }", "too_large", "query", nil},
		{"many pages", "{ a: events(limit: 1) { cursor } b: events(limit: 1) { cursor } c: events(limit: 1) { cursor }" + func() (s string) {
			for i := range 20 {
				s += fmt.Sprintf(" p%d: events(limit: 1) { cursor }", i)
			}
			return s
		}() + " }", "too_large", "query", nil},
		{"a text for a number", "query($n: Int) { events(limit: $n) { cursor } }", "invalid", "query", []string{"n", `"5"`}},
		{"half a number", "query($n: Int) { events(limit: $n) { cursor } }", "invalid", "variables.n", []string{"n", "1.5"}},
		{"a number for a text", "query($t: [String!]) { events(types: $t) { cursor } }", "invalid", "variables.t[1]", []string{"t", `["a", 2]`}},
		{"a missing variable", "query($i: ID!) { event(id: $i) { id } }", "invalid", "variables.i", nil},
		{"limit 0", "{ events(limit: 0) { cursor } }", "invalid", "limit", nil},
		{"limit 1001", "{ events(limit: 1001) { cursor } }", "invalid", "limit", nil},
		{"first -1", "{ subscriptions(first: -1) { next } }", "invalid", "first", nil},
		{"no cursor", `{ events(after: "x") { cursor } }`, "invalid", "after", nil},
		{"another log's cursor", `{ events(after: "zzz_1") { cursor } }`, "cursor_gone", "", nil},
		{"no type", `{ events(types: ["a", "a..b"]) { cursor } }`, "invalid", "types[1]", nil},
		{"no key", `{ events(keys: [""]) { cursor } }`, "invalid", "keys[0]", nil},
		{"no expression", `{ events(expression: "nope(") { cursor } }`, "invalid", "expression", nil},
		{"no event", `{ event(id: "nope") { id } }`, "not_found", "", nil},
		{"no subscription", `{ subscription(id: "sub_nope") { id } }`, "not_found", "", nil},
		{"no such subscription's attempts", `{ attempts(subscription: "sub_nope") { next } }`, "not_found", "", nil},
		{"no text", `{ subscriptions(after: "sub_\u0000") { next } }`, "invalid", "after", nil}, // which PostgreSQL cannot be asked for
		{"no attempt", `{ attempts(subscription: "` + sub + `", after: "x") { next } }`, "invalid", "after", nil},
		{"a source without an event", `{ attempts(subscription: "` + sub + `", source: "x") { next } }`, "invalid", "source", nil},
		{"a subscription without a stream", "subscription { events { cursor } }", "unsupported_media_type", "Accept", nil},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, c.name, w.ask(c.document, c.variables...), c.code, c.field) })
	}
	if a := w.ask(`{ events(after: "zzz_1") { cursor } }`); a.Errors[0].Extensions.First != 1 {
		t.Errorf("first is missing: %+v", a)
	}
	// What is within the limits passes.
	for _, document := range []string{aliases(30), nested(12), "{ events(limit: 1000) { events { id type sequence key time appended cursor data } cursor hasMore } }",
		"{ __typename ... on Query { __typename } ...a } fragment a on Query { __typename @skip(if: true) }"} {
		if a := w.ask(document); len(a.Errors) > 0 && a.Errors[0].Extensions.Code != "not_found" {
			t.Errorf("%.60s: %+v", document, a.Errors)
		}
	}
	// An answer is bounded, however little the document is.
	large := strings.Repeat("x", 900<<10)
	for range 4 {
		w.append(`{"type":"t","data":"` + large + `"}`)
	}
	refused(t, "a large answer", w.ask("{ events { events { a: data b: data c: data } } }"), "too_large", "")
	if a := w.ask("{ events { events { a: data b: data } } }"); len(a.Errors) > 0 || len(a.Data) < 7<<20 {
		t.Errorf("an answer within the bound: %d bytes, %+v", len(a.Data), a.Errors)
	}
}

// Requests that are not GraphQL's are refused before, as everywhere in the API.
func TestRequests(t *testing.T) {
	w := newWorld(t, nil)
	_, publisher := w.key("acme", eventhose.ScopePublish)
	_, stranger := w.key("globex", eventhose.ScopeRead)
	const good = `{"query": "{ __typename }"}`
	for _, c := range []struct {
		name, method, path, body, key, typ string
		status                             int
		code                               eventhose.Code
	}{
		{"no key", "POST", acme, good, "", "application/json", 401, "unauthenticated"},
		{"another's key", "POST", acme, good, stranger, "application/json", 404, "not_found"},
		{"no tenant", "POST", "/v1/tenants/nobody", good, rootKey, "application/json", 404, "not_found"},
		{"no scope", "POST", acme, good, publisher, "application/json", 403, "forbidden"},
		{"a form", "POST", acme, "query={__typename}", rootKey, "application/x-www-form-urlencoded", 415, "unsupported_media_type"},
		{"plain text", "POST", acme, good, rootKey, "text/plain", 415, "unsupported_media_type"},
		{"a document alone", "POST", acme, "{ __typename }", rootKey, "application/graphql", 415, "unsupported_media_type"},
		{"nothing", "POST", acme, "", rootKey, "application/json", 400, "malformed"},
		{"no JSON", "POST", acme, "{", rootKey, "application/json", 400, "malformed"},
		{"a name twice", "POST", acme, `{"query": "a", "query": "b"}`, rootKey, "application/json", 400, "malformed"},
		{"several", "POST", acme, "[" + good + "]", rootKey, "application/json", 422, "invalid"},
		{"no query", "POST", acme, `{"variables": {}}`, rootKey, "application/json", 422, "invalid"},
		{"an unknown field", "POST", acme, `{"query": "{ __typename }", "id": 1}`, rootKey, "application/json", 422, "invalid"},
		{"variables that are a list", "POST", acme, `{"query": "{ __typename }", "variables": []}`, rootKey, "application/json", 422, "invalid"},
		{"a large body", "POST", acme, `{"query": "{ __typename }", "variables": {"a": "` + strings.Repeat("x", 64<<10) + `"}}`, rootKey, "application/json", 413, "too_large"},
		{"GET", "GET", acme, "", rootKey, "", 400, "malformed"},
		{"PUT", "PUT", acme, good, rootKey, "application/json", 405, "method_not_allowed"},
		{"a query in the address", "GET", acme, "", rootKey, "?query={__typename}", 422, "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			query := ""
			if strings.HasPrefix(c.typ, "?") {
				query, c.typ = c.typ, ""
			}
			headers := []string{"Content-Type", c.typ}
			if c.key != "" {
				headers = append(headers, "Authorization", "Bearer "+c.key)
			}
			status, b, h := w.do(c.method, c.path+"/graphql"+query, c.body, headers...)
			var p httpapi.Problem
			if err := json.Unmarshal(b, &p); err != nil || status != c.status || p.Code != c.code || h.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %s, want %d %s", status, b, c.status, c.code)
			}
		})
	}
	post := func(body, accept string) (int, string, string) {
		status, b, h := w.do("POST", acme+"/graphql", body, "Authorization", "Bearer "+rootKey, "Content-Type", "application/json; charset=utf-8", "Accept", accept)
		return status, h.Get("Content-Type"), string(b)
	}
	// GraphQL over HTTP's own type tells by its status whether anything was done.
	for _, c := range []struct {
		body, accept, typ string
		status            int
	}{
		{good, "application/graphql-response+json, application/json;q=0.9", "application/graphql-response+json", 200},
		{`{"query": "{ nope }"}`, "application/graphql-response+json", "application/graphql-response+json", 400},
		{`{"query": "{ event(id: 1) { id } }"}`, "application/graphql-response+json", "application/graphql-response+json", 200},
		{`{"query": "{ nope }"}`, "application/json", "application/json", 200},
		{good, "*/*", "application/json", 200},
		{good, "text/html", "application/problem+json", 415},
	} {
		if status, typ, b := post(c.body, c.accept); status != c.status || typ != c.typ {
			t.Errorf("%s for %s: %d %s %s", c.body, c.accept, status, typ, b)
		}
	}
	// An operation is chosen by its name.
	if _, _, b := post(`{"query": "query a { x: __typename } query b { y: __typename }", "operationName": "b", "extensions": {}, "variables": null}`, "*/*"); b != `{"data":{"y":"Query"}}` {
		t.Errorf("the operation b: %s", b)
	}
	// A ticket opens streams and nothing else.
	status, b, _ := w.do("POST", acme+"/graphql?ticket="+w.ticket(), `{"query": "{ subscriptions { next } }"}`, "Content-Type", "application/json")
	if status != 200 {
		t.Errorf("with a ticket: %d %s", status, b)
	}
	refused(t, "a query with a ticket", parse(t, b), "forbidden", "")
	// The document in the API's description works.
	_, b, _ = w.do("GET", "/openapi.json", "")
	var spec struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct {
					Examples map[string]struct{ Value json.RawMessage }
				}
			}
		}
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	example := spec.Paths["/v1/tenants/{tenant}/graphql"]["post"].RequestBody.Content["application/json"].Examples["page"].Value
	if status, _, b := post(string(example), "*/*"); status != 200 || strings.Contains(b, "errors") {
		t.Errorf("the example %s: %d %s", example, status, b)
	}
}

// What is ours to mend is masked, and logged once.
func TestInternalErrors(t *testing.T) {
	w := newWorld(t, nil)
	for fault, want := range map[error]eventhose.Code{
		errors.New("/var/lib/eventhose is on fire"):                                  "internal",
		&eventhose.Error{Code: "internal", Message: "/var/lib/eventhose is on fire"}: "internal",
		&eventhose.Error{Code: "unavailable", Message: "the store is away"}:          "unavailable",
	} {
		before := strings.Count(w.logs.String(), "on fire")
		w.fault.Store(&fault)
		a := w.ask(`{ events { cursor } }`)
		refused(t, fault.Error(), a, want, "")
		if strings.Contains(a.Errors[0].Message, "fire") {
			t.Errorf("it is told: %+v", a)
		}
		if logged := strings.Count(w.logs.String(), "on fire") - before; want == "internal" && logged != 1 || want != "internal" && logged != 0 {
			t.Errorf("%v was logged %d times", fault, logged)
		}
	}
}

// A literal is read as GraphQL has it, whatever of it the engine knows.
func TestLiterals(t *testing.T) {
	w := newWorld(t, nil)
	for name, c := range map[string]struct{ key, literal string }{
		"a slash that is escaped": {"a/b", `"a\/b"`},
		"a pair of surrogates":    {"😀", `"\ud83d\ude00"`},
		"braces":                  {"é", `"\u{e9}"`},
		"quotes in a block":       {`a"""b`, `"""a\"""b"""`},
		"a backslash in a block":  {`a\b`, `"""a\b"""`},
	} {
		w.append(fmt.Sprintf(`{"type":"a","key":%q,"data":1}`, c.key))
		for _, document := range []string{`{ events(keys: [` + c.literal + `]) { events { key } } }`, `query($k: [String!] = [` + c.literal + `]) { events(keys: $k) { events { key } } }`} {
			var p page
			if a := w.ask(document); len(a.Errors) > 0 {
				t.Errorf("%s: %s: %+v", name, document, a.Errors)
			} else if err := json.Unmarshal(a.Data, &p); err != nil || len(p.Events.Events) != 1 || p.Events.Events[0].Key != c.key {
				t.Errorf("%s: %s: %s", name, document, a.Data)
			}
		}
	}
}
