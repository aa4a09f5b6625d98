package browser_test

import (
	"fmt"
	"testing"
)

// hold keeps back the page's requests to addresses with a part, until release.
func (b *tab) hold(part string) {
	b.t.Helper()
	value[any](b, fmt.Sprintf(`(() => { window.held = []; const real = fetch; window.fetch = (u, o) => new Promise((yes, no) => { const go = () => real(u, o).then(yes, no); held && String(u).includes(%s) ? held.push(go) : go() }) })(), 0`, quoted(part)))
}

func (b *tab) release() {
	b.t.Helper()
	value[any](b, `(() => { const all = held; held = null; all.forEach(go => go()) })(), 0`)
}

// What was begun for a tenant stays with it, whatever the reader looks at meanwhile.
func TestTenantChangedMeanwhile(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	s.call("PUT", "/v1/tenants/globex", object{})
	b := open(t)
	s.enter(b, "/ui/acme/start")
	names := func(tenant, kind string) (all []string) {
		t.Helper()
		for _, x := range s.call("GET", "/v1/tenants/"+tenant+"/"+kind, nil)["data"].([]any) {
			name, _ := x.(object)["name"].(string)
			all = append(all, name)
		}
		return all
	}
	choose := func(tenant string) {
		t.Helper()
		b.until(fmt.Sprintf(`[...document.querySelector("#tenant").options].some(o => o.value === %s)`, quoted(tenant)))
		value[any](b, fmt.Sprintf(`(() => { const f = document.querySelector("#tenant"); f.value = %s; f.dispatchEvent(new Event("change", {bubbles: true})) })(), 0`, quoted(tenant)))
		b.until(fmt.Sprintf(`location.pathname.startsWith(%s)`, quoted("/ui/"+tenant)))
	}
	nothingIn := func(tenant string) {
		t.Helper()
		for _, kind := range []string{"inspectors", "subscriptions", "events"} {
			if all := names(tenant, kind); len(all) > 0 {
				t.Errorf("%s of %s: %q", kind, tenant, all)
			}
		}
	}

	b.hold("/inspectors")
	b.press("main", "Send a first event")
	b.until(`held.length > 0`)
	choose("globex")
	b.release()
	b.settle()
	nothingIn("globex")
	nothingIn("acme") // the page is left, and nobody waits for the rest

	b.visit(s.url + "/ui/acme/subscriptions/new")
	b.fill("main form", "Name", "made in acme")
	value[any](b, `[...document.querySelectorAll("main form label.pick")].find(e => e.innerText.includes("An inspector")).querySelector("input").click(), 0`)
	b.until(`!document.querySelector("main form [name=url]")`)
	b.hold("/inspectors")
	b.press("main form", "Subscribe")
	b.until(`held.length > 0`)
	choose("globex")
	b.release()
	s.await("/v1/tenants/acme/subscriptions", "the subscription", func(o object) bool {
		list, _ := o["data"].([]any)
		return len(list) == 1
	})
	nothingIn("globex")
}

// A dialog stays until it is answered: a click beside its fields does not close it, nor does Esc while what was asked for is under way.
func TestDialogStays(t *testing.T) {
	s := start(t, "embedded")
	b := open(t)
	s.enter(b, "/ui/default/keys")
	b.press("main header", "New key…")
	b.shows("It may")
	value[any](b, `document.querySelector("dialog").click(), 0`)
	b.fill("dialog", "Name", "made here")
	b.hold("/v1/keys")
	b.press("dialog", "Make it")
	b.until(`held.length > 0`)
	b.until(`[...document.querySelectorAll("dialog button")].every(e => e.disabled)`)
	value[any](b, `(() => { const d = document.querySelector("dialog"); d.dispatchEvent(new Event("cancel", {cancelable: true})); d.close() })(), 0`)
	b.until(`document.querySelector("dialog").open`)
	b.release()
	b.shows("It is shown this once")
	value[any](b, `document.querySelector("dialog").click(), 0`)
	b.settle()
	b.press("dialog", "I have it")
	b.until(`!document.querySelector("dialog")`)
}

// An answer that comes after its question was put aside changes nothing.
func TestLateAnswer(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	for range 60 {
		s.append(object{"type": "order.created", "data": object{}})
	}
	s.append(object{"type": "order.paid", "data": object{}})
	b := open(t)
	s.enter(b, "/ui/acme/events")
	b.until(`document.querySelectorAll("tbody tr").length === 50`)
	b.hold("before=")
	b.press("main", "Older")
	b.until(`held.length > 0`)
	b.fill("main form", "Types", "order.paid")
	b.press("main form", "Search")
	b.until(`document.querySelectorAll("tbody tr").length === 1`)
	b.release()
	b.settle()
	if n := value[int](b, `document.querySelectorAll("tbody tr").length`); n != 1 {
		t.Errorf("%d rows pass a filter for one event", n)
	}
}

// While the server does not answer, a page that keeps what it had says so.
func TestServerAway(t *testing.T) {
	s := start(t, "embedded")
	b := open(t)
	s.enter(b, "/ui/default")
	value[any](b, `(() => { window.real = fetch; window.fetch = () => Promise.reject(new TypeError("away")) })(), 0`)
	b.shows("The server does not answer")
	b.shows("Lanes") // what was there stays
	value[any](b, `(() => { window.fetch = real })(), 0`)
	b.misses("The server does not answer")
}
