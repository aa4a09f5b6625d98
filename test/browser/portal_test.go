package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"github.com/eventhose/eventhose/internal/app"
)

// link makes a portal link of acme and answers its URL, token and id.
func (a *acme) link(capabilities ...string) (url, token, id string) {
	a.t.Helper()
	l := a.call("POST", "/v1/tenants/acme/portal-links", object{"capabilities": capabilities, "expires_in": "1h", "name": "the shop"})
	return l["url"].(string), l["token"].(string), l["id"].(string)
}

// A customer sees what the link opens and nothing else, and not a moment longer than it is good.
func TestPortal(t *testing.T) {
	a := newAcme(t, "embedded")
	url, token, id := a.link("view")
	b := open(t)
	b.visit(url)
	b.shows("billing-hook")
	if address := value[string](b, "location.href"); strings.Contains(address, token) {
		t.Errorf("the token stays in the address: %s", address)
	}
	if cookies := value[string](b, "document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"); cookies != "{}{}" {
		t.Errorf("something is kept: %s", cookies)
	}
	if nav := value[string](b, `document.querySelector("nav.side").innerText`); strings.Contains(nav, "Tenants") || strings.Contains(nav, "Keys\n") || strings.Contains(nav, "Sources") || strings.Contains(nav, "Audit") {
		t.Errorf("it shows the way to what is not the customer's: %s", nav)
	}
	b.press("nav.side", "Events")
	b.shows("payment.settled")
	value[any](b, fmt.Sprintf(`document.querySelector("a[href*='%s']").click(), 0`, a.dead))
	b.shows("What became of it")
	b.shows("You may not see the data")
	if text := value[string](b, `document.querySelector("main").innerText`); strings.Contains(text, "pi_3Nq8") {
		t.Error("it shows data that the link does not open")
	}
	for _, words := range []string{"Redrive", "Send again…", "Erase its data…"} {
		if value[bool](b, fmt.Sprintf(`[...document.querySelectorAll("main button")].some(e => e.innerText === %s)`, quoted(words))) {
			t.Errorf("it offers %q, which the link does not open", words)
		}
	}
	b.expect("401")
	a.call("DELETE", "/v1/tenants/acme/portal-links/"+id, nil)
	b.press("nav.side", "Subscriptions")
	b.until(`document.body.innerText.includes("This link does not open anything")`)

	url, _, _ = a.link("view", "data", "manage", "replay", "test", "secrets")
	b = open(t)
	b.visit(url)
	b.press("main article.why", "See the failure")
	b.shows("invalid signature")
	a.mended.Store(true)
	b.press("main .why", "Redrive 2")
	b.shows("tried again")

	// A link that is limited to some subscriptions sends no event again, whatever else it may.
	l := a.call("POST", "/v1/tenants/acme/portal-links", object{"capabilities": []string{"view", "data", "replay"}, "subscriptions": []string{a.ledger}})
	b = open(t)
	b.visit(strings.Replace(l["url"].(string), "/portal#", "/portal/events/"+a.dead+"#", 1))
	b.shows("What became of it")
	if value[bool](b, `[...document.querySelectorAll("main button")].some(e => e.innerText === "Send again…")`) {
		t.Error("it offers what the link does not open")
	}
	b.visit(strings.Replace(l["url"].(string), "/portal#", "/portal/subscriptions/"+a.ledger+"/attempts/"+a.failed+"#", 1))
	b.shows("try 1")
	if value[bool](b, `[...document.querySelectorAll("main button")].some(e => e.innerText === "Send it again")`) {
		t.Error("it offers what the link does not open")
	}

	b = open(t)
	b.expect("401")
	b.visit(a.url + "/portal#token=ehp_" + strings.Repeat("A", 40))
	b.until(`document.body.innerText.includes("This link does not open anything")`)
}

// Within another site's page, by the iframe and by the element, in a browser that blocks third-party cookies; and only where the
// operator allows it.
func TestPortalWithin(t *testing.T) {
	var portal string
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		token := r.URL.Query().Get("token")
		if r.URL.Path == "/element" {
			fmt.Fprintf(w, `<!doctype html><title>the shop</title><script type="module" src="%s/ui/eventhose-portal.js"></script><eventhose-portal token="%s" theme="dark" accent="#aa3377"></eventhose-portal>`, portal, token)
			return
		}
		fmt.Fprintf(w, `<!doctype html><title>the shop</title><iframe title="events" width="1000" height="700" src="%s/portal#token=%s"></iframe>`, portal, token)
	}))
	defer outside.Close()
	// Another host name is another site, so that what is embedded is a third party.
	shop := strings.Replace(outside.URL, "127.0.0.1", "localhost", 1)
	a := newAcme(t, "embedded", func(o *app.Options) { o.PortalOrigins = []string{shop} })
	portal = a.url
	_, token, _ := a.link("view", "data")
	for _, way := range []string{"/iframe", "/element"} {
		t.Run(way, func(t *testing.T) {
			b := open(t)
			b.visit(shop + way + "?token=" + token)
			f := b.frame(a.url + "/portal")
			f.until(`document.querySelector("main")?.innerText.includes("billing-hook")`)
			if way == "/element" {
				if got := value[string](f, `document.documentElement.dataset.theme + getComputedStyle(document.documentElement).getPropertyValue("--water")`); got != "dark#aa3377" {
					t.Errorf("it is %q", got)
				}
			}
			f.press("nav.side", "Subscriptions")
			f.until(`document.querySelectorAll("tbody tr").length > 5`)
			if got := value[string](f, "document.cookie"); got != "" {
				t.Errorf("it has the cookie %q", got)
			}
			if way == "/element" {
				value[any](b, `document.querySelector("eventhose-portal").removeAttribute("token"), 0`)
				b.unframed(a.url + "/portal")
			}
		})
	}
	t.Run("elsewhere", func(t *testing.T) {
		b := open(t)
		b.expect("frame-ancestors")
		b.visit(outside.URL + "/iframe?token=" + token) // its origin is not allowed
		b.heard("frame-ancestors")
	})
}

// heard waits for the console to say something.
func (b *tab) heard(part string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b.mu.Lock()
		heard := slices.ContainsFunc(b.said, func(s string) bool { return strings.Contains(s, part) })
		b.mu.Unlock()
		if heard {
			return
		}
		if time.Now().After(deadline) {
			b.fail("the console did not say " + part)
		}
		select {
		case <-time.After(15 * time.Millisecond):
		case <-b.ctx.Done():
			b.t.Fatal(b.ctx.Err())
		}
	}
}

// unframed waits for the embedded page at an address to be gone.
func (b *tab) unframed(prefix string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		all, err := chromedp.Targets(b.ctx)
		if err != nil {
			b.fail(err)
		}
		if !slices.ContainsFunc(all, func(target *target.Info) bool {
			return target.Type == "iframe" && strings.HasPrefix(target.URL, prefix)
		}) {
			return
		}
		if time.Now().After(deadline) {
			b.fail("the page is still embedded")
		}
		select {
		case <-time.After(15 * time.Millisecond):
		case <-b.ctx.Done():
			b.t.Fatal(b.ctx.Err())
		}
	}
}

// frame waits for the embedded page of another site at an address, as a tab of its own.
func (b *tab) frame(prefix string) *tab {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		all, err := chromedp.Targets(b.ctx)
		if err != nil {
			b.fail(err)
		}
		for _, target := range all {
			if target.Type == "iframe" && strings.HasPrefix(target.URL, prefix) {
				return open(b.t, chromedp.WithTargetID(target.TargetID))
			}
		}
		if time.Now().After(deadline) {
			b.fail("the page is not embedded")
		}
		select {
		case <-time.After(15 * time.Millisecond):
		case <-b.ctx.Done():
			b.t.Fatal(b.ctx.Err())
		}
	}
}
