package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// open are the routes that need no key. Adding one is a decision, taken here.
var open = []string{"GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json", "GET /docs",
	"POST /v1/sessions", "DELETE /v1/sessions/current", "GET /v1/sessions/methods"}

// openRows are those of them that are not just read.
var openRows = map[string]row{
	"POST /v1/sessions":           {"", `{"key": "` + rootKey + `"}`, 201},
	"DELETE /v1/sessions/current": {"", "", 204},
}

// row says how one route is called when it works: what stands in for {id}, and a body.
type row struct {
	id   string // event, subscription, source, inspector, link, session or key
	body string
	ok   int
}

const hook = `"destination": {"type": "webhook", "url": "https://example.com/hook"}`

// rows has one for each route that needs a key. A route without a row fails.
var rows = map[string]row{
	"PUT /v1/tenants/{tenant}":                                            {"", `{}`, 200},
	"GET /v1/tenants/{tenant}":                                            {"", "", 200},
	"GET /v1/tenants":                                                     {"", "", 200},
	"POST /v1/keys":                                                       {"", `{"tenant": "TENANT", "scopes": ["read"]}`, 201},
	"GET /v1/providers":                                                   {"", "", 200},
	"GET /v1/keys":                                                        {"", "", 200},
	"DELETE /v1/keys/{id}":                                                {"key", "", 204},
	"POST /v1/tenants/{tenant}/events":                                    {"", `{"type": "a.b", "data": 1}`, 202},
	"GET /v1/tenants/{tenant}/events":                                     {"", "", 200},
	"GET /v1/tenants/{tenant}/events/{id}":                                {"event", "", 200},
	"DELETE /v1/tenants/{tenant}/events/{id}/data":                        {"event", "", 204},
	"POST /v1/tenants/{tenant}/subscriptions":                             {"", `{` + hook + `}`, 201},
	"GET /v1/tenants/{tenant}/subscriptions":                              {"", "", 200},
	"GET /v1/tenants/{tenant}/subscriptions/{id}":                         {"subscription", "", 200},
	"PATCH /v1/tenants/{tenant}/subscriptions/{id}":                       {"subscription", `{"name": "x"}`, 200},
	"DELETE /v1/tenants/{tenant}/subscriptions/{id}":                      {"subscription", "", 204},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/pause":                  {"subscription", "", 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/resume":                 {"subscription", "", 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/test":                   {"subscription", "", 200},
	"GET /v1/tenants/{tenant}/subscriptions/{id}/secret":                  {"subscription", "", 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/secret/rotate":          {"subscription", "", 200},
	"GET /v1/tenants/{tenant}/subscriptions/{id}/attempts":                {"subscription", "", 200},
	"GET /v1/tenants/{tenant}/subscriptions/{id}/attempts/{attempt}":      {"subscription", "", 200},
	"GET /v1/tenants/{tenant}/attempts":                                   {"", "", 200},
	"GET /v1/tenants/{tenant}/parked":                                     {"", "", 200},
	"GET /v1/tenants/{tenant}/events/search":                              {"", "", 200},
	"POST /v1/tenants/{tenant}/events/{id}/resend":                        {"event", "", 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/parked/retry":           {"subscription", "", 200},
	"GET /v1/tenants/{tenant}/subscriptions/{id}/batches":                 {"subscription", "", 200},
	"GET /v1/tenants/{tenant}/subscriptions/{id}/parked":                  {"subscription", "", 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/parked/redrive":         {"subscription", "", 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/parked/discard":         {"subscription", "", 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/replay":                 {"subscription", `{"from": 1, "dry_run": true}`, 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/pull":                   {"pull", `{"max": 1}`, 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/ack":                    {"pull", `{"leases": ["LEASE"]}`, 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/nack":                   {"pull", `{"leases": ["LEASE"]}`, 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/release":                {"pull", `{"leases": ["LEASE"]}`, 200},
	"POST /v1/tenants/{tenant}/subscriptions/{id}/extend":                 {"pull", `{"leases": ["LEASE"]}`, 200},
	"GET /v1/tenants/{tenant}/events/stream":                              {"", "", 200},
	"GET /v1/tenants/{tenant}/events/ws":                                  {"", "", 101},
	"POST /v1/tenants/{tenant}/tickets":                                   {"", "", 201},
	"POST /v1/tenants/{tenant}/sources":                                   {"", `{"provider": "stripe", "secret": "whsec_a"}`, 201},
	"GET /v1/tenants/{tenant}/sources":                                    {"", "", 200},
	"GET /v1/tenants/{tenant}/sources/{id}":                               {"source", "", 200},
	"PATCH /v1/tenants/{tenant}/sources/{id}":                             {"source", `{"name": "x"}`, 200},
	"DELETE /v1/tenants/{tenant}/sources/{id}":                            {"source", "", 204},
	"GET /v1/tenants/{tenant}/sources/{id}/rejections":                    {"source", "", 200},
	"GET /v1/tenants/{tenant}/sources/{id}/rejections/{rejection}":        {"source", "", 200},
	"POST /v1/tenants/{tenant}/sources/{id}/rejections/{rejection}/retry": {"source", "", 200},
	"GET /v1/tenants/{tenant}/inbox":                                      {"", "", 200},
	"GET /v1/tenants/{tenant}/metrics":                                    {"", "", 200},
	"GET /v1/tenants/{tenant}/overview":                                   {"", "", 200},
	"GET /v1/metrics":                                                     {"", "", 200},
	"GET /v1/health":                                                      {"", "", 200},
	"GET /v1/sessions/current":                                            {"", "", 200},
	"GET /v1/sessions":                                                    {"", "", 200},
	"DELETE /v1/sessions/{id}":                                            {"session", "", 204},
	"POST /v1/tenants/{tenant}/portal-links":                              {"", `{"capabilities": ["data"]}`, 201},
	"GET /v1/tenants/{tenant}/portal-links":                               {"", "", 200},
	"DELETE /v1/tenants/{tenant}/portal-links/{id}":                       {"link", "", 204},
	"GET /v1/tenants/{tenant}/audit":                                      {"", "", 200},
	"GET /v1/audit":                                                       {"", "", 200},
	"POST /v1/tenants/{tenant}/inspectors":                                {"", `{"fail_rate": 0.5}`, 201},
	"GET /v1/tenants/{tenant}/inspectors":                                 {"", "", 200},
	"GET /v1/tenants/{tenant}/inspectors/{id}":                            {"inspector", "", 200},
	"PATCH /v1/tenants/{tenant}/inspectors/{id}":                          {"inspector", `{"name": "x"}`, 200},
	"DELETE /v1/tenants/{tenant}/inspectors/{id}":                         {"inspector", "", 204},
	"GET /v1/tenants/{tenant}/inspectors/{id}/requests":                   {"inspector", "", 200},
	"DELETE /v1/tenants/{tenant}/inspectors/{id}/requests":                {"inspector", "", 204},
	"POST /v1/backup":                                                     {"", `{"dir": "sunday"}`, 200},
}

// weaker are the scopes that do not hold s.
func weaker(s eventhose.Scope) []eventhose.Scope {
	return slices.DeleteFunc(eventhose.Scopes(), func(o eventhose.Scope) bool { return o == s || o == eventhose.ScopeAdmin })
}

func TestRouteMatrix(t *testing.T) {
	w := newWorld(t, nil)
	acmeAdminID, acmeAdmin := w.key("acme", eventhose.ScopeAdmin)
	_, globexAdmin := w.key("globex", eventhose.ScopeAdmin)
	revokedID, revoked := w.key("", eventhose.ScopeAdmin)
	w.want(200, w.call(revoked, "GET", "/v1/tenants", ""))
	w.want(204, w.root("DELETE", "/v1/keys/"+revokedID, ""))
	_ = acmeAdminID

	var unused []string
	for name := range rows {
		unused = append(unused, name)
	}
	refusals := 0
	for _, route := range w.api.Routes() {
		name := route.Method + " " + route.Path
		if slices.Contains(open, name) {
			if route.Scope != "" {
				t.Errorf("%s is listed as open and asks for a scope", name)
			}
			row, ok := openRows[name]
			if !ok {
				row.ok = 200
			}
			w.want(row.ok, w.call("", route.Method, route.Path, row.body))
			continue
		}
		row, ok := rows[name]
		if !ok || route.Scope == "" && !route.Known {
			t.Errorf("%s has no row, or no scope", name)
			continue
		}
		unused = slices.DeleteFunc(unused, func(s string) bool { return s == name })
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			// All of it exists in globex.
			ids := map[string]string{"": ""}
			ids["subscription"] = w.subscribe("globex", "")
			ids["event"] = w.append("globex", `{"type": "a.b", "data": 1}`)
			ids["key"], _ = w.key("globex", eventhose.ScopeRead)
			var lease string
			if row.id == "pull" {
				ids["pull"], lease = w.leased("globex")
			}
			var rejection string
			ids["source"], rejection = w.source("globex")
			ids["link"], _ = w.link("globex", `{}`)
			if row.id == "session" {
				ids["session"], _ = w.signIn(globexAdmin)
			}
			if row.id == "inspector" {
				ids["inspector"] = w.inspector("globex")
			}
			attempt := ""
			if strings.Contains(route.Path, "{attempt}") {
				attempt = w.tried("globex", ids["subscription"])
			}
			path := func(tenant, id string) string {
				return strings.NewReplacer("{tenant}", tenant, "{id}", id, "{rejection}", rejection, "{attempt}", attempt).Replace(route.Path)
			}
			body := func(tenant string) string {
				return strings.NewReplacer("TENANT", tenant, "LEASE", lease).Replace(row.body)
			}
			call := func(key, tenant, id string) reply {
				return w.call(key, route.Method, path(tenant, id), body(tenant))
			}
			same := func(what string, a, b reply) {
				t.Helper()
				if a.StatusCode != b.StatusCode || !bytes.Equal(a.body, b.body) || fmt.Sprint(comparable(a.Header)) != fmt.Sprint(comparable(b.Header)) {
					t.Errorf("%s: %d %s\nand %d %s", what, a.StatusCode, a.body, b.StatusCode, b.body)
				}
			}
			refuse := func(code eventhose.Code, r reply) {
				t.Helper()
				w.refused(code, "", r)
				refusals++
			}

			refuse(eventhose.CodeUnauthenticated, call("", "globex", ids[row.id]))
			refuse(eventhose.CodeUnauthenticated, call("ehk_made_up", "globex", ids[row.id]))
			refuse(eventhose.CodeUnauthenticated, call(revoked, "globex", ids[row.id]))
			if route.Known {
				_, little := w.key("globex", eventhose.ScopePublish)
				w.want(row.ok, call(little, "globex", ""))
				return
			}
			for _, scope := range weaker(route.Scope) {
				_, little := w.key("globex", scope)
				refuse(eventhose.CodeForbidden, call(little, "globex", ids[row.id]))
				_, little = w.key("", scope)
				refuse(eventhose.CodeForbidden, call(little, "globex", ids[row.id]))
			}
			switch {
			case route.Platform:
				if strings.Contains(route.Path, "{tenant}") {
					refuse(eventhose.CodeNotFound, call(acmeAdmin, "globex", ""))
					same("foreign and absent", call(acmeAdmin, "globex", ""), call(acmeAdmin, "nobody", ""))
				}
				refuse(eventhose.CodeForbidden, call(globexAdmin, "globex", ids[row.id]))
			case name == "GET /v1/keys":
				foreign := w.call(acmeAdmin, "GET", "/v1/keys?tenant=globex", "")
				refuse(eventhose.CodeNotFound, foreign)
				same("foreign and absent", foreign, w.call(acmeAdmin, "GET", "/v1/keys?tenant=nobody", ""))
				own := w.want(200, w.call(acmeAdmin, "GET", "/v1/keys", ""))
				if strings.Contains(string(own.body), "globex") || !strings.Contains(string(own.body), acmeAdminID) {
					t.Errorf("the list is not of the key's own tenant: %s", own.body)
				}
			case row.id == "key":
				foreign := call(acmeAdmin, "", ids["key"])
				refuse(eventhose.CodeNotFound, foreign)
				same("foreign and absent", foreign, call(acmeAdmin, "", "key_00000000000000000000000000"))
				same("foreign and absent to the platform", foreign, call(rootKey, "", "key_00000000000000000000000000"))
			default:
				// Another tenant's, which the right key has just read.
				if row.id != "" && row.id != "link" {
					w.want(200, w.call(globexAdmin, "GET", path0(row.id, "globex", ids[row.id]), ""))
				}
				foreign := call(acmeAdmin, "globex", ids[row.id])
				refuse(eventhose.CodeNotFound, foreign)
				same("foreign and absent tenant", foreign, call(acmeAdmin, "nobody", ids[row.id]))
				same("foreign and absent tenant to the platform", foreign, call(rootKey, "nobody", ids[row.id]))
				same("foreign tenant, absent id", foreign, call(acmeAdmin, "globex", "nothing"))
				if row.id != "" {
					inOwn := call(acmeAdmin, "acme", ids[row.id])
					refuse(eventhose.CodeNotFound, inOwn)
					same("foreign and absent id", inOwn, call(acmeAdmin, "acme", "nothing"))
					same("foreign and absent id of the right shape", inOwn, call(acmeAdmin, "acme", ids[row.id][:len(ids[row.id])-1]+"0"))
				}
			}
			// Nothing of this was refused for another reason: with the right key it works.
			w.want(row.ok, call(rootKey, "globex", ids[row.id]))
		})
	}
	if len(unused) > 0 {
		t.Errorf("rows without a route: %v", unused)
	}
	t.Logf("%d refusals", refusals)
}

// What is no text in a path names nothing, and in a query it cannot be read, whichever store is behind: PostgreSQL takes neither a NUL nor
// what is not UTF-8 for text.
func TestNoText(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (store.Store, error){
		"embedded": func(*testing.T) (store.Store, error) {
			return embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
		},
		"postgresql": func(t *testing.T) (store.Store, error) {
			return postgres.Open(t.Context(), pgtest.Database(t), postgres.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorldOver(t, st, nil)
			source, rejection := w.source("acme")
			subscription := w.subscribe("acme", "")
			own := map[string]string{"{tenant}": "acme", "{rejection}": rejection, "{attempt}": w.tried("acme", subscription)}
			var described struct {
				Paths map[string]map[string]struct {
					Parameters []struct{ Name, In string }
				}
			}
			if err := json.Unmarshal(w.want(200, w.root("GET", "/openapi.json", "")).body, &described); err != nil {
				t.Fatal(err)
			}
			for _, route := range w.api.Routes() {
				own["{id}"] = subscription
				if strings.Contains(route.Path, "/sources/") {
					own["{id}"] = source
				}
				with := func(part, text string) string {
					path := route.Path
					for name, value := range own {
						if name == part {
							value = text
						}
						path = strings.Replace(path, name, value, 1)
					}
					return path
				}
				for _, text := range []string{"%00", "a%00b", "%ff", "a%c3"} {
					for name := range own {
						if !strings.Contains(route.Path, name) {
							continue
						}
						w.refused("unauthenticated", "", w.call("", route.Method, with(name, text), ""))
						w.refused("not_found", "", w.root(route.Method, with(name, text), rows[route.Method+" "+route.Path].body))
					}
					for _, p := range described.Paths[route.Path][strings.ToLower(route.Method)].Parameters {
						if p.In == "query" && p.Name != "ticket" {
							w.refused("malformed", p.Name, w.root(route.Method, with("", "")+"?"+p.Name+"="+text, ""))
						}
					}
				}
			}
			if logs := w.logs.String(); strings.Contains(logs, "level=ERROR") {
				t.Errorf("the log has errors: %s", logs)
			}
		})
	}
}

func path0(kind, tenant, id string) string {
	if kind == "pull" {
		kind = "subscription"
	}
	return "/v1/tenants/" + tenant + "/" + kind + "s/" + id
}

// leased makes a pull subscription with one event in a worker's hands, and answers its id and the lease.
func (w *world) leased(tenant string) (id, lease string) {
	w.t.Helper()
	path := "/v1/tenants/" + tenant
	id = w.want(201, w.root("POST", path+"/subscriptions", `{"from": "start"}`)).json(w.t)["id"].(string)
	w.append(tenant, `{"type": "a.b", "data": 1}`)
	var got struct{ Data []struct{ Lease string } }
	r := w.want(200, w.root("POST", path+"/subscriptions/"+id+"/pull", `{"max": 1, "wait": "20s"}`))
	if err := json.Unmarshal(r.body, &got); err != nil || len(got.Data) != 1 {
		w.t.Fatalf("%v: %s", err, r.body)
	}
	return id, got.Data[0].Lease
}

// comparable are the headers that must not tell anything either.
func comparable(h http.Header) http.Header {
	h = h.Clone()
	h.Del("X-Request-Id")
	h.Del("Date")
	return h
}

// The matrix is generated from the router: it must see a route that is left out.
func TestRoutesAreTheDocuments(t *testing.T) {
	w := newWorld(t, nil)
	doc := w.want(200, w.call("", "GET", "/openapi.json", "")).json(t)
	described := map[string]bool{}
	for path, item := range doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			described[strings.ToUpper(method)+" "+path] = true
		}
	}
	for _, r := range w.api.Routes() {
		name := r.Method + " " + r.Path
		if !described[name] {
			t.Errorf("%s is not in the document", name)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("%s is in the document and has no route", name)
	}
}
