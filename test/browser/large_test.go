package browser_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// Data as deep and as wide as the server takes it: the page that shows it stands, and draws no more than is looked at.
func TestLargeData(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	nested := func(n int) json.RawMessage {
		return json.RawMessage(strings.Repeat("[", n) + strings.Repeat("]", n))
	}
	data := func(d json.RawMessage) string {
		return s.append(object{"type": "order.paid", "data": d})[0]
	}
	deep, deepest := data(nested(400)), data(nested(9000))
	wide := data(json.RawMessage("[" + strings.Repeat("[1,2,3],", 100_000) + "[]]"))
	// Every level is small, and all of them together are not.
	row := "[" + strings.Repeat("1,", 19) + "1]"
	table := "[" + strings.Repeat(row+",", 19) + row + "]"
	bushy := data(json.RawMessage("[" + strings.Repeat(table+",", 299) + table + "]"))
	b := open(t)
	s.enter(b, "")
	show := func(id string) {
		t.Helper()
		b.visit(s.url + "/ui/acme/events/" + id)
		b.shows("What became of it")
	}
	count := func(what string) int {
		t.Helper()
		return value[int](b, "document.querySelectorAll("+quoted(what)+").length")
	}

	show(deep)
	if n := count(".tree details"); n != 4 {
		t.Errorf("%d of 400 levels are drawn", n)
	}
	value[any](b, `document.querySelector(".tree details:not([open]) summary").click(), 0`)
	b.until(`document.querySelectorAll(".tree details").length === 5`)

	show(deepest)
	b.until(`document.querySelector("main section pre").innerText.startsWith("[[[[")`)
	if n := count(".tree"); n != 0 {
		t.Error("9,000 levels are a tree")
	}

	show(wide)
	if n := count(".tree *"); n > 5000 {
		t.Errorf("%d elements are drawn", n)
	}
	b.press("main .tree", "show more: 99801 are left")
	b.until(`document.querySelectorAll(".tree > details > .in > *").length === 401`)

	show(bushy)
	if n := count(".tree *"); n > 10_000 {
		t.Errorf("%d elements are drawn", n)
	}
}

// Where the browser lets no page copy, as over HTTP or within another page, the button says so.
func TestCopyRefused(t *testing.T) {
	s := start(t, "embedded")
	b := open(t)
	s.enter(b, "/ui/default/start")
	value[any](b, `Object.defineProperty(navigator, "clipboard", {value: undefined}), 0`)
	b.press("main .code", "Copy")
	b.shows("Copying is not allowed here")
}
