package httpapi_test

import (
	"fmt"
	"strings"
	"testing"
)

// What the validator finds is told in the words of the rest of the API: what the value must be.
func TestRefusalsSayWhatIsWanted(t *testing.T) {
	w := newWorld(t, nil)
	path := subscriptions + "/" + w.subscribe("acme", "")
	for _, c := range []struct{ method, path, body, want string }{
		{"PUT", "/v1/tenants/acme", `{"retention":{"age":72}}`, "must be a string"},
		{"PUT", "/v1/tenants/acme", `{"retention":{"bytes":1.5}}`, "must be an integer"},
		{"PUT", "/v1/tenants/acme", `[]`, "must be an object"},
		{"PUT", "/v1/tenants/acme", `{`, "the body is not JSON: unexpected EOF at byte 1"},
		{"POST", events, `{`, "the body is not JSON: unexpected EOF at byte 1"},
		{"POST", events, `{"type":"a","data":{"k":1,"k":2}}`, "is given twice"},
		{"POST", "/v1/keys", `{"scopes":"read"}`, "must be an array"},
		{"POST", "/v1/keys", `{"scopes":["read"],"expires":"soon"}`, "must be an RFC 3339 time such as 2026-01-31T12:00:00Z"},
		{"GET", "/v1/tenants?limit=0", "", "must be at least 1"},
		{"GET", "/v1/tenants?limit=9999", "", "must be at most 1000"},
		{"GET", "/v1/tenants?limit=x", "", "must be an integer"},
		{"GET", path + "/parked?state=x", "", "must be one of retrying, waiting, leased, dead"},
		{"POST", path + "/replay", `{"from":true}`, "must be a sequence, a cursor or an RFC 3339 time"},
		{"POST", path + "/replay", `{"from":""}`, "must be a sequence, a cursor or an RFC 3339 time"}, // not from the beginning
		{"POST", path + "/replay", `{"from":1,"to":""}`, "must be a sequence, a cursor or an RFC 3339 time"},
		{"POST", path + "/replay", `{"dry_run":1}`, "must be a boolean"},
		{"POST", path + "/replay", `{"from":3,"to":2}`, "is before from"},
	} {
		if got := w.root(c.method, c.path, c.body).json(t)["detail"]; got != c.want {
			t.Errorf("%s %s %s: %q, want %q", c.method, c.path, c.body, got, c.want)
		}
	}
}

// Null in a merge patch takes a member back to its default (RFC 7396).
func TestPatchWithNull(t *testing.T) {
	w := newWorld(t, nil)
	path := subscriptions + "/" + w.subscribe("acme", `"name":"n","filter":{"types":["a"]},"ordering":"key","on_exhausted":"block","max_in_flight":2,"retry":{"timeout":"1s"},`)
	kept := w.want(200, w.root("PATCH", path, `{"name":"m"}`)).json(t)
	if kept["ordering"] != "key" || fmt.Sprint(kept["filter"]) != "map[types:[a]]" {
		t.Errorf("what was not named changed: %v", kept)
	}
	got := w.want(200, w.root("PATCH", path, `{"name":null,"filter":null,"ordering":null,"on_exhausted":null,"max_in_flight":null,"retry":null}`,
		"Content-Type", "application/merge-patch+json")).json(t)
	if got["name"] != nil || len(got["filter"].(map[string]any)) > 0 || got["ordering"] != "none" || got["on_exhausted"] != "park" ||
		got["max_in_flight"] != 64.0 || got["retry"].(map[string]any)["timeout"] != "15s" {
		t.Errorf("after null: %v", got)
	}
	w.refused("invalid", "destination", w.root("PATCH", path, `{"destination":null}`))
	w.refused("invalid", "state", w.root("PATCH", path, `{"state":null}`))
}

func TestOneEventIsOneLine(t *testing.T) {
	w := newWorld(t, nil)
	w.append("acme", `{"type":"a","id":"one","data":1}`)
	if body := string(w.want(200, w.root("GET", events+"/one", "")).body); strings.Contains(body, "\n") {
		t.Errorf("%q", body)
	}
}
