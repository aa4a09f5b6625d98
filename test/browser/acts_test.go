package browser_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// From a server that has just begun to a signed delivery that one can look at: one press of a button.
func TestFirstSteps(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			s := start(t, driver)
			b := open(t)
			s.enter(b, "/ui/default/start")
			began := time.Now()
			b.press("main", "Send a first event")
			b.until(`document.querySelector("#first-delivery")`)
			t.Logf("from the press to the delivery: %v", time.Since(began).Round(time.Millisecond))
			b.shows("its signature verifies")
			b.shows("webhook-signature: v1,")
			b.press("#first-delivery", "See the event")
			b.shows("taken")
		})
	}
}

// From a failing subscription to the mend and the redrive, in five presses, as docs/operating.md has it.
func TestFiveClicks(t *testing.T) {
	a := newAcme(t, "embedded")
	b := open(t)
	a.enter(b, "/ui/acme")
	b.shows("ledger-sync has 2 dead events")
	b.press("main article.why", "See the failure") // 1
	b.shows("invalid signature")
	b.press("main .why", "Rotate with overlap…") // 2
	b.press("dialog", "Rotate")                  // 3
	b.shows("The new secret")
	a.mended.Store(true)              // the receiver has the new secret now
	b.press("main .why", "Redrive 2") // 4
	b.shows("2 dead events tried again")
	a.await("/v1/tenants/acme/subscriptions/"+a.ledger, "no dead event", func(o object) bool {
		return o["status"].(map[string]any)["dead"] == 0.0
	})
	b.press("nav.side", "Overview") // 5
	b.misses("ledger-sync has")
}

// Every button that changes something does what it says: what the API tells afterwards is the judge.
func TestButtons(t *testing.T) {
	a := newAcme(t, "embedded")
	b := open(t)
	a.enter(b, "")
	sub := "/v1/tenants/acme/subscriptions/"
	field := func(path, name string, want any) {
		t.Helper()
		a.await(path, fmt.Sprintf("%s is %v", name, want), func(o object) bool {
			var v any = o
			for part := range strings.SplitSeq(name, ".") {
				m, _ := v.(map[string]any)
				v = m[part]
			}
			return fmt.Sprint(v) == fmt.Sprint(want)
		})
	}
	page := func(path string) {
		t.Helper()
		b.visit(a.url + "/ui/acme" + path)
		b.until(`document.querySelector("main h1")`)
	}

	t.Run("pause and resume", func(t *testing.T) {
		page("/subscriptions/" + a.billing)
		b.press("main header", "Pause")
		field(sub+a.billing, "state", "paused")
		b.press("main header", "Resume")
		field(sub+a.billing, "state", "active")
	})
	t.Run("test", func(t *testing.T) {
		page("/subscriptions/" + a.billing)
		b.press("main header", "Send a test")
		b.shows("The test was taken with 200")
	})
	t.Run("settings", func(t *testing.T) {
		page("/subscriptions/" + a.billing + "?tab=settings")
		before := value[string](b, `document.querySelector("main form").dataset.updated`)
		b.fill("main form", "Name", "billing hook")
		b.fill("main form", "Events a second", "77")
		b.fill("main form", "Time-out", "12s")
		b.press("main form", "Save")
		field(sub+a.billing, "name", "billing hook")
		field(sub+a.billing, "max_rate", 77)
		field(sub+a.billing, "retry.timeout", "12s")
		b.until(fmt.Sprintf(`document.querySelector("main form").dataset.updated !== %s`, quoted(before)))
		b.fill("main form", "Time-out", "99h")
		b.expect("422")
		b.press("main form", "Save")
		b.until(`document.querySelector("main form .wrong")?.innerText.includes("timeout")`)
		field(sub+a.billing, "retry.timeout", "12s")
	})
	t.Run("settings keep the filter", func(t *testing.T) {
		filter := object{"types": []string{"order.*"}, "keys": []string{"Ann Lee", "a,b", " c"}, "expression": "key != '' // theirs\n && type != 'x'"}
		id := a.subscribe("filtered", "/ok", object{"filter": filter})
		page("/subscriptions/" + id + "?tab=settings")
		b.fill("main form", "Name", "filtered still")
		b.press("main form", "Save")
		field(sub+id, "name", "filtered still")
		field(sub+id, "filter.keys", filter["keys"])
		field(sub+id, "filter.expression", filter["expression"])
		a.call("DELETE", sub+id, nil)
	})
	t.Run("secret", func(t *testing.T) {
		page("/subscriptions/" + a.billing + "?tab=secret")
		before := a.call("GET", sub+a.billing+"/secret", nil)["secret"].(string)
		b.press("main", "Reveal")
		b.shows(before)
		b.press("main", "Rotate…")
		b.press("dialog", "Rotate")
		b.shows("The new secret")
		after := a.call("GET", sub+a.billing+"/secret", nil)["secret"].(string)
		if after == before {
			t.Error("the secret is the old one")
		}
		b.until(fmt.Sprintf(`document.querySelector(".notices code")?.innerText === %s`, quoted(after)))
	})
	t.Run("replay", func(t *testing.T) {
		page("/subscriptions/" + a.billing)
		b.press("main header", "Replay…")
		b.fill("dialog", "Of those", "delivered")
		b.until(`[...document.querySelectorAll("dialog button")].some(e => /^Send \d+ events$/.test(e.innerText) && !e.disabled)`)
		value[any](b, `[...document.querySelectorAll("dialog button")].find(e => /^Send \d+ events$/.test(e.innerText)).click(), 0`)
		b.shows("The replay runs")
		a.await(sub+a.billing+"/attempts?limit=100", "replayed attempts", func(o object) bool {
			for _, x := range o["data"].([]any) {
				if x.(map[string]any)["kind"] == "replay" {
					return true
				}
			}
			return false
		})
	})
	t.Run("send again", func(t *testing.T) {
		page("/events/" + a.taken)
		b.press("main header", "Send again…")
		value[any](b, `[...document.querySelectorAll("dialog button")].find(e => /^Send to \d+$/.test(e.innerText)).click(), 0`)
		b.shows("On its way to")
	})
	t.Run("send again, from a source", func(t *testing.T) {
		const id = "7d5f7b30-0000-11f0-8000-000000000001"
		sequence := a.call("GET", "/v1/tenants/acme/events/"+id+"?source="+a.source, nil)["sequence"].(float64)
		page(fmt.Sprintf("/events/%s?sequence=%.0f", id, sequence)) // as rows link to it that know no source
		b.press("main header", "Send again…")
		value[any](b, `[...document.querySelectorAll("dialog button")].find(e => /^Send to \d+$/.test(e.innerText)).click(), 0`)
		b.shows("On its way to")
	})
	t.Run("settings of a source's lane", func(t *testing.T) {
		lane := a.call("GET", "/v1/tenants/acme/sources/"+a.source, nil)["subscription"].(string)
		page("/subscriptions/" + lane + "?tab=settings")
		b.fill("main form", "Events a second", "55")
		b.press("main form", "Save")
		field(sub+lane, "max_rate", 55)
		if !value[bool](b, `["types", "keys", "expression"].every(n => document.querySelector("main form [name=" + n + "]").disabled)`) {
			t.Error("the filter of a source's lane can be written into")
		}
	})
	t.Run("discard and redrive", func(t *testing.T) {
		page("/parked")
		b.press("main tbody tr:first-child", "Discard")
		field(sub+a.ledger, "status.dead", 1)
		a.mended.Store(true)
		page("/events/" + a.dead)
		b.until(`[...document.querySelectorAll("main")].some(e => e.innerText.includes("dead") || e.innerText.includes("ledger-sync"))`)
		page("/subscriptions/" + a.ledger + "?tab=parked")
		b.press("main .filters", "Redrive it")
		field(sub+a.ledger, "status.dead", 0)
	})
	t.Run("try now", func(t *testing.T) {
		page("/parked?state=retrying")
		b.press("main tbody tr:first-child", "Try now")
		b.shows("It is due now")
	})
	t.Run("erase", func(t *testing.T) {
		b.expect("410")
		page("/events/" + a.taken)
		b.press("main", "Erase its data…")
		b.fill("dialog", "Type", "erase")
		b.press("dialog", "Erase")
		b.shows("The data was erased")
		if status, e := a.try("GET", "/v1/tenants/acme/events/"+a.taken, nil); status != http.StatusGone {
			t.Errorf("it is not erased: %d %v", status, e)
		}
	})
	t.Run("subscribe and delete", func(t *testing.T) {
		page("/subscriptions/new")
		b.fill("main form", "Name", "made here")
		b.fill("main form", "Which events", "order.*, payment.settled")
		b.fill("main form", "Address", a.receiver+"/ok")
		b.press("main form", "Subscribe")
		b.shows("made here is subscribed")
		b.press("main", "Go to it")
		b.until(`document.querySelector("main h1")?.innerText === "made here"`)
		id := value[string](b, `location.pathname.split("/").pop()`)
		field(sub+id, "filter.types", []string{"order.*", "payment.settled"})
		page("/subscriptions/" + id + "?tab=settings")
		b.press("main form", "Delete…")
		b.fill("dialog", "Type", "made here")
		b.press("dialog", "Delete")
		b.until(`location.pathname.endsWith("/subscriptions")`)
		if status, _ := a.try("GET", sub+id, nil); status != http.StatusNotFound {
			t.Errorf("it is still there: %d", status)
		}
	})
	t.Run("source", func(t *testing.T) {
		page("/sources/" + a.source + "/rejections/" + a.rejection)
		b.expect("409")
		b.expect("422")
		b.press("main .why", "Verify it again")
		b.until(`document.querySelector(".notices .bad")`)
		page("/sources/" + a.source)
		b.press("main header", "Change the secret…")
		b.fill("dialog", "The new secret", "another secret")
		b.press("dialog", "Save")
		b.shows("From now on it is verified")
		page("/sources/" + a.source + "/rejections/" + a.rejection)
		b.press("main .why", "Verify it again")
		b.until(`location.pathname.includes("/events/")`)
		page("/sources/new")
		b.fill("main form", "Provider", "inspect")
		b.fill("main form", "Name", "seen here")
		b.press("main form", "Make the source")
		b.until(`document.querySelector("main h1")?.innerText === "seen here"`)
		b.press("main header", "Delete…")
		b.press("dialog", "Delete")
		b.until(`location.pathname.endsWith("/sources")`)
		b.misses("seen here")
	})
	t.Run("generic source", func(t *testing.T) {
		page("/sources/new")
		if value[bool](b, `!!document.querySelector("main form [name=scheme]")`) {
			t.Error("it asks for the scheme of a provider that has its own")
		}
		at := func(name, text string) {
			t.Helper()
			b.until(fmt.Sprintf(`document.querySelector("main form label:has([name=%s]) .wrong")?.innerText.includes(%s)`, name, quoted(text)))
		}
		b.fill("main form", "Provider", "generic")
		b.fill("main form", "Name", "my own")
		b.fill("main form", "Signing secret", "a shared secret")
		b.fill("main form", "Scheme", `{"header": }`)
		b.press("main form", "Make the source")
		at("scheme", "JSON")
		b.expect("422")
		b.fill("main form", "Scheme", `{"header": "X-Signature", "prefix": "sha256=", "hash": "md5"}`)
		b.press("main form", "Make the source")
		at("scheme", "scheme.hash must be")
		b.fill("main form", "Scheme", `{"header": "X-Signature", "prefix": "sha256=", "hash": "sha512"}`)
		b.fill("main form", "Naming", `{"type": ["nowhere"]}`)
		b.press("main form", "Make the source")
		at("naming", "naming.type[0]")
		b.fill("main form", "Naming", `{"id": ["json:id"], "type": ["json:kind"]}`)
		b.press("main form", "Make the source")
		b.until(`document.querySelector("main h1")?.innerText === "my own"`)
		made := "/v1/tenants/acme/sources/" + value[string](b, `location.pathname.split("/").pop()`)
		field(made, "scheme.header", "X-Signature")
		field(made, "scheme.hash", "sha512")
		field(made, "naming.type", []string{"json:kind"})
	})
	t.Run("inspector", func(t *testing.T) {
		page("/inspector/" + a.inspector)
		b.press("main header", "How it answers…")
		b.fill("dialog", "Status", "503")
		b.press("dialog", "Save")
		field("/v1/tenants/acme/inspectors/"+a.inspector, "status", 503)
		b.press("main header", "Subscribe it")
		b.shows("It gets every event from now on")
		a.append(object{"type": "order.shipped", "data": object{"n": 1}})
		b.shows("503")
		b.shows("The signature verifies")
		b.expect("404") // the page still asks for requests while the inspector goes
		b.press("main header", "Clear")
		b.press("main header", "Delete")
		b.until(`location.pathname.endsWith("/inspector")`)
	})
	t.Run("inspected bodies", func(t *testing.T) {
		i := a.call("POST", "/v1/tenants/acme/inspectors", object{"name": "bodies"})
		send := func(body string) {
			t.Helper()
			r, err := http.Post(i["url"].(string), "application/octet-stream", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
		}
		send("\x00\xff<")
		page("/inspector/" + i["id"].(string))
		b.shows("AP88") // its base64
		send(strings.Repeat("x", 65<<10))
		b.shows("The body was longer")
		kept := func() (n float64) {
			return a.call("GET", "/v1/tenants/acme/inspectors/"+i["id"].(string), nil)["requests"].(float64)
		}
		for kept() < 32 { // 20 a second are kept
			send(strings.Repeat("\xff", 64<<10))
		}
		page("/inspector/" + i["id"].(string)) // more than one page of the API
		b.until(fmt.Sprintf(`document.querySelectorAll("main tbody tr").length === %.0f`, kept()))
		a.call("DELETE", "/v1/tenants/acme/inspectors/"+i["id"].(string), nil)
		b.expect("404")
	})
	t.Run("keys", func(t *testing.T) {
		page("/keys")
		b.press("main header", "New key…")
		b.fill("dialog", "Name", "made here")
		b.press("dialog", "Make it")
		b.shows("It is shown this once")
		key := value[string](b, `document.querySelector("dialog pre").innerText`)
		r, err := http.NewRequestWithContext(t.Context(), "GET", a.url+"/v1/tenants/acme/events?limit=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("the key opens nothing: %d", resp.StatusCode)
		}
		b.press("dialog", "I have it")
		b.shows("made here")
		value[any](b, `[...document.querySelectorAll("main tr")].find(e => e.innerText.includes("made here")).querySelector("button").click(), 0`)
		b.shows("It opens nothing any more")
	})
	t.Run("tenant", func(t *testing.T) {
		b.expect("404") // it looks whether there is one
		a.call("PUT", "/v1/tenants/kept", object{"retention": object{"age": "720h"}})
		b.visit(a.url + "/ui/-/tenants")
		b.press("main header", "New tenant…")
		b.fill("dialog", "Id", "kept")
		b.press("dialog", "Make it")
		b.until(`document.querySelector("dialog .wrong")?.innerText.includes("already")`)
		field("/v1/tenants/kept", "retention.age", "720h0m0s")
		b.fill("dialog", "Id", "globex")
		b.press("dialog", "Make it")
		b.until(`location.pathname === "/ui/globex/start"`)
		a.call("GET", "/v1/tenants/globex", nil)
	})
	t.Run("audit", func(t *testing.T) {
		page("/audit")
		b.shows("pause subscription")
		b.shows("rotate secret")
		b.fill("main form", "Did", "pauseSubscription")
		b.press("main form", "Search")
		b.until(`location.search.includes("action=pauseSubscription")`)
		b.misses("rotate secret")
	})
	t.Run("sign out", func(t *testing.T) {
		b.expect("401")
		b.press("nav.side", "Sign out")
		b.until(`document.querySelector("input[name=key]")`)
		b.visit(a.url + "/ui/acme")
		b.until(`document.querySelector("input[name=key]")`)
		b.fill("main form", "API key", "wrong")
		b.press("main form", "Sign in")
		b.until(`document.querySelector("[role=alert]")`)
		b.fill("main form", "API key", adminKey)
		b.press("main form", "Sign in")
		b.until(`document.querySelector("main h1")?.innerText === "Overview"`)
	})
}

// The address holds what is looked at: a link to a colleague and the back button bring it again, and keys get around.
func TestAddresses(t *testing.T) {
	a := newAcme(t, "embedded")
	b := open(t)
	a.enter(b, "/ui/acme/events")
	value[any](b, `document.querySelector(".skip").click(), 0`)
	b.until(`document.activeElement.id === "main" && location.hash === ""`)
	b.fill("main form", "Types", "payment.*")
	b.fill("main form", "State", "dead")
	b.press("main form", "Search")
	b.until(`location.search.includes("types=payment.*") && location.search.includes("status=dead")`)
	b.until(`document.querySelectorAll("tbody tr").length === 2`)
	address := value[string](b, "location.href")
	b.until(`document.activeElement?.tagName !== "INPUT" || (document.activeElement.blur(), false)`)
	b.key("j")
	b.key("j")
	b.until(`document.activeElement.matches("[data-row]")`)
	b.key("\r")
	b.until(`location.pathname.includes("/events/evt_")`)
	value[any](b, "history.back(), 0")
	b.until(fmt.Sprintf("location.href === %s", quoted(address)))
	b.until(`document.querySelectorAll("tbody tr").length === 2 && document.querySelector("[name=types]").value === "payment.*" && document.querySelector("[name=status]").value === "dead"`)
	other := open(t)
	other.visit(address)
	other.until(`document.querySelectorAll("tbody tr").length === 2`)

	b.key("?")
	b.shows("next and previous row")
	b.press("dialog", "Close")
	b.key("g")
	b.key("s")
	b.until(`location.pathname.endsWith("/subscriptions")`)
	b.key("/")
	b.until(`document.activeElement.id === "find" && (document.activeElement.select(), true)`)
	b.key("ledger")
	b.until(`document.querySelector("#found li")?.innerText.includes("ledger-sync")`)
	b.until(`document.getElementById(document.activeElement.getAttribute("aria-activedescendant"))?.getAttribute("aria-selected") === "true"`)
	b.key("\r")
	b.until(`document.querySelector("main h1")?.innerText === "ledger-sync"`)
}
