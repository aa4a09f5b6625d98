package httpapi_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// link makes a portal link and answers its id and its token.
func (w *world) link(tenant, body string) (id, token string) {
	w.t.Helper()
	l := w.want(201, w.root("POST", "/v1/tenants/"+tenant+"/portal-links", body)).json(w.t)
	return l["id"].(string), l["token"].(string)
}

// linkWith makes a link to globex with capabilities.
func (w *world) linkWith(capabilities ...eventhose.Capability) string {
	w.t.Helper()
	body, _ := json.Marshal(map[string]any{"capabilities": capabilities})
	_, token := w.link("globex", string(body))
	return token
}

// told waits until an answer holds a text so often.
func (w *world) told(path, text string, times int) {
	w.t.Helper()
	eventually(w.t, path+" tells "+text, func() bool { return strings.Count(string(w.root("GET", path, "").body), text) == times })
}

// portalRoutes are those that a portal link opens, and the capability that it takes. Opening one is a decision, taken here.
var portalRoutes = map[string]eventhose.Capability{
	"GET /v1/tenants/{tenant}/events":                                eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/events/{id}":                           eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/events/search":                         eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/attempts":                              eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/parked":                                eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/subscriptions/{id}/attempts/{attempt}": eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/metrics":                               eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/overview":                              eventhose.CapabilityView,
	"POST /v1/tenants/{tenant}/events/{id}/resend":                   eventhose.CapabilityReplay,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/parked/retry":      eventhose.CapabilityReplay,
	"GET /v1/tenants/{tenant}/subscriptions":                         eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/subscriptions/{id}":                    eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/subscriptions/{id}/attempts":           eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/subscriptions/{id}/batches":            eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/subscriptions/{id}/parked":             eventhose.CapabilityView,
	"GET /v1/tenants/{tenant}/events/stream":                         eventhose.CapabilityData,
	"POST /v1/tenants/{tenant}/tickets":                              eventhose.CapabilityData,
	"POST /v1/tenants/{tenant}/subscriptions":                        eventhose.CapabilityManage,
	"PATCH /v1/tenants/{tenant}/subscriptions/{id}":                  eventhose.CapabilityManage,
	"DELETE /v1/tenants/{tenant}/subscriptions/{id}":                 eventhose.CapabilityManage,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/pause":             eventhose.CapabilityManage,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/resume":            eventhose.CapabilityManage,
	"GET /v1/tenants/{tenant}/subscriptions/{id}/secret":             eventhose.CapabilitySecrets,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/secret/rotate":     eventhose.CapabilitySecrets,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/replay":            eventhose.CapabilityReplay,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/parked/redrive":    eventhose.CapabilityReplay,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/parked/discard":    eventhose.CapabilityReplay,
	"POST /v1/tenants/{tenant}/subscriptions/{id}/test":              eventhose.CapabilityTest,
}

// Every route with a link of each capability: it opens exactly what the table says, in its own tenant, and a link whose
// capability does not open a route is refused.
func TestPortalMatrix(t *testing.T) {
	w := newWorld(t, nil)
	links := map[eventhose.Capability]string{}
	for _, c := range eventhose.Capabilities() {
		links[c] = w.linkWith(c)
	}
	revokedID, revoked := w.link("globex", `{"capabilities": ["view", "data", "manage", "secrets", "replay", "test"]}`)
	w.want(200, w.call(revoked, "GET", "/v1/tenants/globex/events", ""))
	w.want(204, w.root("DELETE", "/v1/tenants/globex/portal-links/"+revokedID, ""))
	opened, refused := 0, 0
	var unused []string
	for name := range portalRoutes {
		unused = append(unused, name)
	}
	for _, route := range w.api.Routes() {
		name := route.Method + " " + route.Path
		if slices.Contains(open, name) || route.Known {
			continue
		}
		needs := portalRoutes[name]
		if route.Portal != needs {
			t.Errorf("%s is opened by %q, and the table says %q", name, route.Portal, needs)
		}
		unused = slices.DeleteFunc(unused, func(s string) bool { return s == name })
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			row := rows[name]
			ids := map[string]string{"": ""}
			ids["subscription"] = w.subscribe("globex", "")
			ids["event"] = w.append("globex", `{"type": "a.b", "data": 1}`)
			ids["key"], _ = w.key("globex", eventhose.ScopeRead)
			var lease, rejection string
			if row.id == "pull" {
				ids["pull"], lease = w.leased("globex")
			}
			ids["source"], rejection = w.source("globex")
			ids["link"], _ = w.link("globex", `{}`)
			ids["session"] = "ses_00000000000000000000000000"
			if row.id == "inspector" {
				ids["inspector"] = w.inspector("globex")
			}
			attempt := ""
			if strings.Contains(route.Path, "{attempt}") {
				attempt = w.tried("globex", ids["subscription"])
			}
			call := func(token, tenant string) reply {
				path := strings.NewReplacer("{tenant}", tenant, "{id}", ids[row.id], "{rejection}", rejection, "{attempt}", attempt).Replace(route.Path)
				return w.call(token, route.Method, path, strings.NewReplacer("TENANT", tenant, "LEASE", lease).Replace(row.body))
			}
			w.refused(eventhose.CodeUnauthenticated, "", call(revoked, "globex"))
			for _, c := range eventhose.Capabilities() {
				if strings.Contains(route.Path, "{tenant}") {
					w.refused(eventhose.CodeNotFound, "", call(links[c], "acme"))
					if foreign, absent := call(links[c], "acme"), call(links[c], "nobody"); string(foreign.body) != string(absent.body) {
						t.Errorf("foreign %s\nabsent %s", foreign.body, absent.body)
					}
				}
				if needs == "" || c != needs && needs != eventhose.CapabilityView {
					refused++
					w.refused(eventhose.CodeForbidden, "", call(links[c], "globex"))
					continue
				}
				opened++
				w.want(row.ok, call(links[c], "globex"))
			}
		})
	}
	if len(unused) > 0 {
		t.Errorf("the table has routes that are not there: %v", unused)
	}
	t.Logf("%d opened, %d refused", opened, refused)
}

// The guide says what each capability opens.
func TestPortalDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/portal.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range portalRoutes {
		method, path, _ := strings.Cut(name, " ")
		want := "`" + method + " " + strings.TrimPrefix(path, "/v1/tenants/{tenant}") + "`"
		found := false
		for line := range strings.Lines(string(text)) {
			found = found || strings.HasPrefix(line, "| `"+string(c)+"` ") && strings.Contains(line, want)
		}
		if !found {
			t.Errorf("docs/portal.md does not say that %s opens %s", c, want)
		}
	}
	// Nor does it keep back what any credential opens.
	for _, route := range newWorld(t, nil).api.Routes() {
		want := "`" + route.Method + " " + route.Path + "`"
		named := slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
			return strings.HasPrefix(line, "| none ") && strings.Contains(line, want)
		})
		if named != route.Known {
			t.Errorf("%s: docs/portal.md says that any link opens it: %v", want, named)
		}
	}
}

// Without the capability data nothing of it is told: no data, no body and no header of an answer, no message of a receiver, and no answer to
// a question about data. Nor is a signing secret without secrets.
func TestPortalWithoutData(t *testing.T) {
	w := newWorld(t, nil)
	view, data := w.linkWith(), w.linkWith(eventhose.CapabilityData)
	manage, test := w.linkWith(eventhose.CapabilityManage), w.linkWith(eventhose.CapabilityTest)
	testData := w.linkWith(eventhose.CapabilityTest, eventhose.CapabilityData)
	w.sink.answer(500)
	const subs = "/v1/tenants/globex/subscriptions"
	sub := w.subscribe("globex", `"name": "one", "retry": {"schedule": ["0s"]},`)
	batched := w.subscribe("globex", `"name": "batches", "retry": {"schedule": ["0s"]}, "batch": {"max_events": 10, "max_wait": "0s"},`)
	event := w.append("globex", `{"type": "a.b", "data": {"card": "4242-planted"}}`)
	w.told("/v1/tenants/globex/events/"+event, saidBody, 2) // so that the next is in no batch with it
	binary := w.append("globex", `{"type": "a.b", "content_type": "text/plain", "data_base64": "cGxhbnRlZC1iaW5hcnk="}`)
	w.told("/v1/tenants/globex/events/"+binary, saidBody, 2)
	secret := w.want(200, w.root("GET", subs+"/"+sub+"/secret", "")).json(t)["secret"].(string)
	planted := []string{"4242-planted", "cGxhbnRlZC1iaW5hcnk=", saidBody, saidHeader, secret}
	tells := func(r reply) (found []string) {
		for _, p := range planted {
			if strings.Contains(string(r.body), p) {
				found = append(found, p)
			}
		}
		return found
	}
	for path, all := range map[string][]string{
		"/v1/tenants/globex/events":                   {"4242-planted", "cGxhbnRlZC1iaW5hcnk="},
		"/v1/tenants/globex/events/" + event:          {"4242-planted", saidBody, saidHeader},
		"/v1/tenants/globex/events/" + binary:         {"cGxhbnRlZC1iaW5hcnk=", saidBody, saidHeader},
		subs:                                          nil,
		subs + "/" + sub:                              nil,
		subs + "/" + sub + "/attempts":                {saidBody, saidHeader},
		subs + "/" + sub + "/attempts?event=" + event: {saidBody, saidHeader},
		subs + "/" + sub + "/parked":                  nil,
		subs + "/" + batched + "/batches":             nil,
		subs + "/" + batched + "/attempts":            {saidBody, saidHeader},
	} {
		if found := tells(w.want(200, w.call(view, "GET", path, ""))); len(found) > 0 {
			t.Errorf("%s tells %v", path, found)
		}
		if found := tells(w.want(200, w.call(data, "GET", path, ""))); !slices.Equal(found, all) {
			t.Errorf("%s with data tells %v, want %v", path, found, all)
		}
	}
	omitted := w.want(200, w.call(view, "GET", "/v1/tenants/globex/events/"+event, "")).json(t)
	if _, there := omitted["data"]; there || omitted["data_omitted"] != true || omitted["id"] != event || omitted["type"] != "a.b" {
		t.Errorf("got %v", omitted)
	}
	for token, all := range map[string][]string{test: nil, testData: {saidBody, saidHeader}} {
		if found := tells(w.want(200, w.call(token, "POST", subs+"/"+sub+"/test", ""))); !slices.Equal(found, all) {
			t.Errorf("a test tells %v, want %v", found, all)
		}
	}

	// An expression about data is a question about it, and a page that the client has is not the same one with data.
	w.refused(eventhose.CodeForbidden, "expression", w.call(view, "GET", `/v1/tenants/globex/events?expression=data.card.startsWith("4")`, ""))
	w.want(200, w.call(data, "GET", `/v1/tenants/globex/events?expression=data.card.startsWith("4")`, ""))
	withData := w.call(data, "GET", "/v1/tenants/globex/events", "")
	w.want(200, w.call(view, "GET", "/v1/tenants/globex/events", "", "If-None-Match", withData.Header.Get("ETag")))

	// Nor is a secret told with manage alone, not even by the answer that the operator's own request was given.
	const body = `{` + hook + `}`
	made := w.want(201, w.root("POST", subs, body, "Idempotency-Key", "theirs"))
	if made.json(t)["secret"] == nil {
		t.Error("the operator is not told the secret")
	}
	for range 2 {
		if r := w.want(201, w.call(manage, "POST", subs, body, "Idempotency-Key", "theirs")); r.json(t)["secret"] != nil || r.json(t)["id"] == made.json(t)["id"] {
			t.Errorf("got %s", r.body)
		}
	}
}

// Who may manage and not see secrets has no header's value sent to another place than it was meant for.
func TestPortalKeepsHeaders(t *testing.T) {
	w := newWorld(t, nil)
	manage, secrets := w.linkWith(eventhose.CapabilityManage), w.linkWith(eventhose.CapabilityManage, eventhose.CapabilitySecrets)
	path := "/v1/tenants/globex/subscriptions/" + w.want(201, w.root("POST", "/v1/tenants/globex/subscriptions",
		`{"destination": {"type": "webhook", "url": "https://example.com/hook", "headers": {"X-Token": "planted"}}}`)).json(t)["id"].(string)
	to := func(url, header string) string {
		return `{"destination": {"type": "webhook", "url": "` + url + `", "headers": {"X-Token": "` + header + `"}}}`
	}
	w.want(200, w.call(manage, "PATCH", path, to("https://example.com/hook", "***")))
	w.refused(eventhose.CodeInvalid, "destination.headers.X-Token", w.call(manage, "PATCH", path, to("https://example.org/hook", "***")))
	if url := w.want(200, w.root("GET", path, "")).json(t)["destination"].(map[string]any)["url"]; url != "https://example.com/hook" {
		t.Errorf("it was changed to %v", url)
	}
	w.want(200, w.call(secrets, "PATCH", path, to("https://example.org/hook", "***")))
	w.want(200, w.call(manage, "PATCH", path, to("https://example.net/hook", "of-my-own")))
}

// A list of subscriptions that names none opens nothing, least of all everything.
func TestPortalLinkToNone(t *testing.T) {
	w := newWorld(t, nil)
	const path = "/v1/tenants/globex/portal-links"
	w.refused(eventhose.CodeInvalid, "subscriptions", w.root("POST", path, `{"subscriptions": []}`))
	if list := w.want(200, w.root("GET", path, "")).json(t)["data"].([]any); len(list) != 0 {
		t.Errorf("it was made: %v", list)
	}
	w.want(201, w.root("POST", path, `{"subscriptions": null}`))
	w.want(201, w.root("POST", path, `{}`))
}

// What a receiver of a batch, or a worker, has written is told with data only.
func TestPortalMessages(t *testing.T) {
	w := newWorld(t, nil)
	view, data := w.linkWith(), w.linkWith(eventhose.CapabilityData)
	const subs = "/v1/tenants/globex/subscriptions"
	pull, lease := w.leased("globex")
	w.want(200, w.root("POST", subs+"/"+pull+"/nack", `{"leases": ["`+lease+`"], "delay": "1h", "message": "planted-message"}`))
	w.append("globex", `{"type": "a.b", "id": "refused", "data": 1}`)
	w.sink.refuse = "refused"
	batched := w.subscribe("globex", `"from": "start", "batch": {"max_events": 10, "max_wait": "0s"},`)
	w.told(subs+"/"+batched+"/parked", "no such order", 1)
	for path, planted := range map[string]string{subs + "/" + pull + "/attempts": "planted-message", subs + "/" + pull + "/parked": "planted-message", subs + "/" + batched + "/parked": "no such order"} {
		for token, told := range map[string]bool{view: false, data: true} {
			if r := w.want(200, w.call(token, "GET", path, "")); strings.Contains(string(r.body), planted) != told {
				t.Errorf("%s with data %v: %s", path, told, r.body)
			}
		}
	}
}

// A link that is limited to a subscription knows nothing of others, nor of the log as a whole.
func TestPortalLimited(t *testing.T) {
	w := newWorld(t, nil)
	const subs = "/v1/tenants/globex/subscriptions"
	own := w.subscribe("globex", `"filter": {"types": ["own.*"]},`)
	other := w.subscribe("globex", `"filter": {"types": ["own.*", "other.*"]},`)
	foreign := w.subscribe("acme", "")
	for _, bad := range []string{foreign, "sub_00000000000000000000000000", "nothing"} {
		w.refused(eventhose.CodeInvalid, "subscriptions[1]", w.root("POST", "/v1/tenants/globex/portal-links", `{"subscriptions": ["`+own+`", "`+bad+`"]}`))
	}
	gone := w.subscribe("globex", "")
	_, token := w.link("globex", `{"subscriptions": ["`+gone+`", "`+own+`"], "capabilities": ["data", "manage", "secrets", "replay", "test"]}`)
	w.want(204, w.root("DELETE", subs+"/"+gone, ""))
	mine := w.append("globex", `{"type": "own.a", "data": 1}`)
	theirs := w.append("globex", `{"type": "other.a", "data": 1}`)
	w.attempts(3)

	for _, query := range []string{"", "?limit=1", "?after=" + gone[:len(gone)-26]} {
		list := w.want(200, w.call(token, "GET", subs+query, "")).json(t)
		if items := list["data"].([]any); len(items) != 1 || items[0].(map[string]any)["id"] != own || list["next"] != nil {
			t.Errorf("%q: got %v", query, list)
		}
	}
	for _, route := range w.api.Routes() {
		name := route.Method + " " + route.Path
		if portalRoutes[name] == "" || !strings.Contains(name, "/subscriptions/{id}") {
			continue
		}
		attempts := map[string]string{}
		if strings.Contains(route.Path, "{attempt}") {
			attempts[own], attempts[other] = w.tried("globex", own), w.tried("globex", other)
		}
		call := func(id string) reply {
			return w.call(token, route.Method, strings.NewReplacer("{tenant}", "globex", "{id}", id, "{attempt}", cmp.Or(attempts[id], attempts[own])).Replace(route.Path), rows[name].body)
		}
		w.refused(eventhose.CodeNotFound, "", call(other))
		if a, b := call(other), call("sub_00000000000000000000000000"); string(a.body) != string(b.body) {
			t.Errorf("hidden %s\nabsent %s", a.body, b.body)
		}
		if route.Method != "DELETE" {
			w.want(rows[name].ok, call(own))
		}
	}
	shown := w.want(200, w.call(token, "GET", "/v1/tenants/globex/events/"+mine, ""))
	if strings.Contains(string(shown.body), other) || !strings.Contains(string(shown.body), own) {
		t.Errorf("got %s", shown.body)
	}
	hidden := w.call(token, "GET", "/v1/tenants/globex/events/"+theirs, "")
	w.refused(eventhose.CodeNotFound, "", hidden)
	if absent := w.call(token, "GET", "/v1/tenants/globex/events/nothing", ""); string(absent.body) != string(hidden.body) {
		t.Errorf("hidden %s\nabsent %s", hidden.body, absent.body)
	}
	for _, id := range []string{theirs, "nothing"} {
		w.refused(eventhose.CodeNotFound, "", w.call(token, "GET", subs+"/"+own+"/attempts?event="+id, ""))
	}
	w.want(200, w.call(token, "GET", subs+"/"+own+"/attempts?event="+mine, ""))
	w.want(204, w.root("DELETE", "/v1/tenants/globex/events/"+theirs+"/data", ""))
	w.refused(eventhose.CodeNotFound, "", w.call(token, "GET", "/v1/tenants/globex/events/"+theirs, ""))
	for _, q := range [][3]string{{"GET", "/v1/tenants/globex/events", ""}, {"GET", "/v1/tenants/globex/events/stream", ""}, {"POST", "/v1/tenants/globex/tickets", ""},
		{"POST", subs, `{` + hook + `}`}} {
		w.refused(eventhose.CodeForbidden, "", w.call(token, q[0], q[1], q[2]))
	}
}

// What a link is made of, and what it says of itself.
func TestPortalLink(t *testing.T) {
	w := newWorld(t, nil)
	const path = "/v1/tenants/acme/portal-links"
	for body, field := range map[string]string{
		`{"capabilities": ["view", "all"]}`: "capabilities[1]", `{"expires_in": "59s"}`: "expires_in", `{"expires_in": "721h"}`: "expires_in", `{"expires_in": "-1h"}`: "expires_in",
		`{"name": "` + strings.Repeat("n", 101) + `"}`: "name", `{"name": "a\u0000b"}`: "name", `{"more": 1}`: "more",
		`{"subscriptions": [` + strings.Repeat(`"sub_a", `, 100) + `"sub_a"]}`: "subscriptions",
	} {
		w.refused(eventhose.CodeInvalid, field, w.root("POST", path, body))
	}
	r := w.want(201, w.root("POST", path, `{"name": "The shop", "capabilities": ["test", "data", "data"], "expires_in": "720h"}`)).json(t)
	token := r["token"].(string)
	expires, err := time.Parse(time.RFC3339, r["expires"].(string))
	if err != nil || time.Until(expires) > 720*time.Hour || time.Until(expires) < 719*time.Hour || fmt.Sprint(r["capabilities"]) != "[view data test]" || !strings.HasPrefix(token, "ehp_") ||
		r["url"] != w.server.URL+"/portal#token="+token || r["tenant"] != "acme" || r["name"] != "The shop" {
		t.Errorf("got %v", r)
	}
	me := w.want(200, w.call(token, "GET", "/v1/sessions/current", "")).json(t)
	if me["kind"] != "portal" || me["subject"] != "The shop" || me["tenant"] != "acme" || fmt.Sprint(me["capabilities"]) != "[view data test]" || fmt.Sprint(me["scopes"]) != "[]" || me["expires"] != r["expires"] {
		t.Errorf("got %v", me)
	}
	_, empty := w.link("acme", ``)
	if me := w.want(200, w.call(empty, "GET", "/v1/sessions/current", "")).json(t); fmt.Sprint(me["capabilities"]) != "[view]" {
		t.Errorf("got %v", me)
	}
	list := w.want(200, w.root("GET", path+"?limit=1", "")).json(t)
	if items := list["data"].([]any); len(items) != 1 || items[0].(map[string]any)["id"] != r["id"] || list["next"] != r["id"] {
		t.Errorf("got %v", list)
	}
	if logs := w.logs.String(); strings.Contains(logs, token) {
		t.Error("a token is in the log")
	}
	public := newWorld(t, func(o *httpapi.Options) { o.PublicURL = "https://hooks.example.com" })
	if made := public.want(201, public.root("POST", path, `{}`)).json(t); made["url"] != "https://hooks.example.com/portal#token="+made["token"].(string) {
		t.Errorf("got %v", made)
	}
}

// A stream ends with its link, and a ticket is worth no more than the link that has made it.
func TestPortalStream(t *testing.T) {
	w := newWorld(t, quick)
	id, token := w.link("acme", `{"capabilities": ["data"]}`)
	ticket := w.ticket(token)
	byKey, byTicket := w.open(token, ""), w.open("", "ticket="+ticket, "Origin", "https://shop.example")
	w.append("acme", `{"type": "a", "data": 1}`)
	for _, s := range []*pipe{byKey, byTicket} {
		if e := s.event(); !strings.Contains(e.Data, `"type":"a"`) {
			t.Errorf("got %+v", e)
		}
	}
	if _, status, err := w.tryDial("", "ticket="+ticket, nil); err == nil || status != 403 {
		t.Errorf("a WebSocket by a link's ticket: %d, %v", status, err)
	}
	w.want(204, w.root("DELETE", "/v1/tenants/acme/portal-links/"+id, ""))
	for _, s := range []*pipe{byKey, byTicket} {
		if e := s.event(); e.Type != "error" || !strings.Contains(e.Data, "unauthenticated") {
			t.Errorf("got %+v", e)
		}
	}
	w.refused(eventhose.CodeUnauthenticated, "", w.call("", "GET", events+"/stream?ticket="+ticket, ""))
	viewID, _ := w.link("acme", `{}`)
	w.refused(eventhose.CodeForbidden, "", w.call("", "GET", events+"/stream?ticket="+w.api.WriteTicket(viewID, "acme", time.Now().Add(time.Minute)), ""))
}
