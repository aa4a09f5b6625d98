package browser_test

import (
	"net/http"
	"testing"
)

// An address with a key signs nobody out: who follows a link that another has sent stays who he is.
func TestKeyInTheAddress(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	key := s.call("POST", "/v1/keys", object{"scopes": []string{"read"}, "name": "reader"})["key"].(string)
	b := open(t)
	s.enter(b, "")
	subject := `fetch("/v1/sessions/current").then(r => r.json()).then(s => s.subject)`
	before := value[string](b, subject)
	b.visit(s.url + "/ui/#key=" + key)
	b.shows("You are signed in already")
	if after := value[string](b, subject); after != before || after == "reader" {
		t.Errorf("%q is %q now", before, after)
	}

	// Its key opens all tenants, and not the list of them.
	b.expect("401")
	b.press("nav.side", "Sign out")
	b.until(`document.querySelector("input[name=key]")`)
	b.visit(s.url + "/ui/#key=" + key)
	b.shows("Which tenant?")
	b.fill("main form", "Id", "acme")
	b.press("main form", "Go to it")
	b.until(`location.pathname === "/ui/acme" && document.querySelector("main h1")?.innerText === "Overview"`)
	b.until(`document.title === "Overview · acme · Eventhose"`)
}

// An open portal that is given another token begins again with it.
func TestPortalTakesToken(t *testing.T) {
	a := newAcme(t, "embedded")
	url, _, _ := a.link("view")
	_, token, _ := a.link("view", "manage")
	b := open(t)
	b.visit(url)
	b.shows("billing-hook")
	b.press("nav.side", "Subscriptions")
	b.until(`document.querySelectorAll("tbody tr").length > 5`)
	if value[bool](b, `document.querySelector("main").innerText.includes("New subscription")`) {
		t.Error("it offers what the link does not open")
	}
	value[any](b, `location.hash = `+quoted("token="+token)+`, 0`)
	b.shows("New subscription")
	if value[bool](b, `location.hash !== ""`) {
		t.Error("the token stays in the address")
	}
}

// Who may only read is told that an inspector's requests are not for him, and they are asked for no more.
func TestInspectorOfAReader(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	id := s.call("POST", "/v1/tenants/acme/inspectors", object{"name": "look here"})["id"].(string)
	key := s.call("POST", "/v1/keys", object{"tenant": "acme", "scopes": []string{"read"}, "name": "reader"})["key"].(string)
	b := open(t)
	b.expect("/v1/sessions/current")
	b.expect("403")
	b.beforehand(`{ const before = window.setTimeout; window.setTimeout = (f, ms, ...more) => before(f, Math.min(ms ?? 0, 20), ...more) }`)
	b.visit(s.url + "/ui/#key=" + key)
	b.until(`!!document.querySelector("nav.side")`)
	b.visit(s.url + "/ui/acme/inspector/" + id)
	b.shows("You may not see this")
	b.shows("look here")
	b.misses("Waiting for the first request")
	b.settle()
	asked := `performance.getEntriesByType("resource").filter(e => e.name.includes("/requests")).length`
	if n := value[int](b, asked); n != 1 {
		t.Errorf("it has asked %d times", n)
	}
	b.press("main", "Try again")
	b.until(asked + ` === 2`)
	if status, _ := s.try("GET", "/v1/tenants/acme/inspectors/"+id+"/requests", nil); status != http.StatusOK {
		t.Errorf("the inspector answers %d", status)
	}
}
