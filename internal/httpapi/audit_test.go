package httpapi_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// trail reads all of an audit log, page by page.
func (w *world) trail(key, path, query string, limit int) (all []entry) {
	w.t.Helper()
	for after := ""; ; {
		r := w.want(200, w.call(key, "GET", fmt.Sprintf("%s?limit=%d%s%s", path, limit, query, after), ""))
		var page struct {
			Data []entry
			Next *string
		}
		if err := json.Unmarshal(r.body, &page); err != nil || len(page.Data) > limit {
			w.t.Fatalf("%v in %s", err, r.body)
		}
		all = append(all, page.Data...)
		if page.Next == nil {
			return all
		}
		after = "&after=" + *page.Next
	}
}

// Every request that has changed something leaves an entry: who, what, of which tenant, and how. Nothing else does.
func TestAuditTrail(t *testing.T) {
	w := newWorld(t, nil)
	adminID, acmeAdmin := w.key("acme", eventhose.ScopeAdmin)
	sub := w.subscribe("acme", `"name": "before",`)
	path := subscriptions + "/" + sub
	patch := w.want(200, w.call(acmeAdmin, "PATCH", path, `{"name": "after", "destination": {"type": "webhook", "url": "https://example.com/other", "headers": {"X-Token": "planted-secret"}}}`))
	w.want(200, w.call(acmeAdmin, "POST", path+"/pause", ""))
	w.want(200, w.call(acmeAdmin, "POST", path+"/secret/rotate", ""))
	linkID, token := w.link("acme", `{"name": "for the shop", "capabilities": ["manage"]}`)
	w.want(200, w.call(token, "POST", path+"/resume", ""))
	keyed := func() reply {
		return w.call(acmeAdmin, "POST", path+"/pause", "", "Idempotency-Key", "once")
	}
	w.want(200, keyed())
	w.want(200, keyed()) // which does nothing any more
	event := w.append("acme", `{"type": "a.b", "data": 1}`)
	w.want(204, w.call(acmeAdmin, "DELETE", events+"/"+event+"/data", ""))
	w.want(204, w.call(acmeAdmin, "DELETE", path, ""))
	// None of these is one.
	w.want(404, w.call(acmeAdmin, "PATCH", path, `{"name": "x"}`))
	w.want(422, w.call(acmeAdmin, "POST", subscriptions, `{"name": 1}`))
	w.want(403, w.call(token, "POST", "/v1/keys", `{"scopes": ["read"]}`))
	w.want(201, w.call(acmeAdmin, "POST", "/v1/tenants/acme/tickets", ""))
	pull, lease := w.leased("acme")
	w.want(200, w.call(acmeAdmin, "POST", subscriptions+"/"+pull+"/ack", `{"leases": ["`+lease+`"]}`))
	w.want(200, w.call(acmeAdmin, "POST", subscriptions+"/"+pull+"/replay", `{"dry_run": true}`))

	const tenantPath = "/v1/tenants/acme/audit"
	var told []string
	all := w.trail(rootKey, tenantPath, "", 3)
	for _, e := range slices.Backward(all) {
		target := strings.NewReplacer(sub, "SUB", adminID, "KEY", linkID, "LINK", event, "EVENT", pull, "PULL").Replace(e.Target)
		told = append(told, fmt.Sprintf("%s %s %s", e.Actor.Kind+":"+strings.NewReplacer(adminID, "KEY", linkID, "LINK").Replace(e.Actor.ID), e.Action, target))
		if e.Tenant != "acme" || e.Address != "127.0.0.1" || e.RequestID == "" || e.Time.IsZero() || !strings.HasPrefix(e.ID, "aud_") {
			t.Errorf("got %+v", e)
		}
	}
	want := []string{"key:admin putTenant acme", "key:admin createKey KEY", "key:admin createSubscription SUB", "key:KEY updateSubscription SUB",
		"key:KEY pauseSubscription SUB", "key:KEY rotateSecret SUB", "key:admin createPortalLink LINK", "portal:LINK resumeSubscription SUB", "key:KEY pauseSubscription SUB",
		"key:KEY eraseData EVENT", "key:KEY deleteSubscription SUB", "key:admin createSubscription PULL"}
	if !slices.Equal(told, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	changed := all[slices.IndexFunc(all, func(e entry) bool { return e.Action == "updateSubscription" })]
	if changed.RequestID != patch.Header.Get("X-Request-Id") || len(changed.Changes) != 2 || fmt.Sprint(changed.Changes["name"]) != "[before after]" || !strings.Contains(fmt.Sprint(changed.Changes["destination"]), "X-Token:***") {
		t.Errorf("got %+v", changed)
	}
	paused := all[slices.IndexFunc(all, func(e entry) bool { return e.Action == "pauseSubscription" })]
	if fmt.Sprint(paused.Changes) != "map[state:[active paused]]" {
		t.Errorf("got %+v", paused)
	}
	created := all[slices.IndexFunc(all, func(e entry) bool { return e.Action == "createPortalLink" })]
	if fmt.Sprint(created.Changes["capabilities"]) != "[<nil> [view manage]]" || created.Actor.Name != "" {
		t.Errorf("got %+v", created)
	}
	if text := fmt.Sprint(all); strings.Contains(text, "planted-secret") || strings.Contains(text, token) || strings.Contains(text, acmeAdmin) || strings.Contains(text, "whsec_") {
		t.Error("a secret is in the audit log")
	}

	// The platform sees all tenants, and each filter what it names.
	platform := w.trail(rootKey, "/v1/audit", "", 100)
	if len(platform) != len(all)+1 || !slices.ContainsFunc(platform, func(e entry) bool { return e.Tenant == "globex" }) {
		t.Errorf("%d entries", len(platform))
	}
	for query, n := range map[string]int{"&actor=" + adminID: 6, "&actor=for%20the%20shop": 1, "&action=pauseSubscription": 2, "&target=" + sub: 7,
		"&actor=" + adminID + "&action=pauseSubscription": 2, "&actor=nobody": 0} {
		if got := w.trail(rootKey, tenantPath, query, 1); len(got) != n {
			t.Errorf("%s: %d entries, want %d", query, len(got), n)
		}
	}
	// A tenant is not told where the operator's people are.
	for _, e := range w.trail(acmeAdmin, tenantPath, "", 100) {
		if (e.Address == "") != (e.Actor.Tenant == "") {
			t.Errorf("got %+v", e)
		}
	}
	w.refused(eventhose.CodeInvalid, "after", w.root("GET", tenantPath+"?after=x", ""))
	w.refused(eventhose.CodeForbidden, "", w.call(acmeAdmin, "GET", "/v1/audit", ""))
}

// What cannot be written down does not undo what was done. It is logged once.
func TestAuditFails(t *testing.T) {
	var fails atomic.Bool
	w := newWorld(t, func(o *httpapi.Options) { o.Control = unwritten{o.Control, &fails} })
	fails.Store(true)
	for range 3 {
		w.want(200, w.root("PUT", "/v1/tenants/acme", `{}`))
	}
	fails.Store(false)
	for range 2 {
		w.want(200, w.root("PUT", "/v1/tenants/acme", `{}`))
	}
	if logs := w.logs.String(); strings.Count(logs, "the audit log cannot be written") != 1 || strings.Count(logs, "the audit log can be written again\" lost=3") != 1 {
		t.Errorf("the log says\n%s", logs)
	}
}

// A change that is too large to be kept is told to be one.
func TestAuditIsBounded(t *testing.T) {
	w := newWorld(t, nil)
	types, _ := json.Marshal([]string{strings.Repeat("a", 100), strings.Repeat("b", 100)})
	long := `{"filter": {"types": ` + string(types) + `, "expression": "key != '` + strings.Repeat("x", 4000) + `'"}}`
	sub := w.subscribe("acme", "")
	w.want(200, w.root("PATCH", subscriptions+"/"+sub, long))
	e := w.trail(rootKey, "/v1/audit", "&action=updateSubscription", 1)[0]
	if fmt.Sprint(e.Changes["filter"]) != "[map[] … (too long to be kept)]" {
		t.Errorf("got %v", e.Changes)
	}
}
