package browser_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// view is one page, what it is called, and what it must show.
type view struct {
	name, path, shows string
}

// views are all pages.
func (a *acme) views() []view {
	ui := func(path string) string { return "/ui/acme" + path }
	return []view{
		{"overview", ui(""), "ledger-sync"},
		{"live", ui("/live"), "Live"},
		{"events", ui("/events"), "payment.settled"},
		{"event", ui("/events/" + a.dead), "pi_3Nq8"},
		{"subscriptions", ui("/subscriptions"), "billing-hook"},
		{"subscription-new", ui("/subscriptions/new"), "Where to"},
		{"subscription", ui("/subscriptions/" + a.ledger), "of tries taken"},
		{"subscription-parked", ui("/subscriptions/" + a.ledger + "?tab=parked"), "Redrive"},
		{"subscription-batches", ui("/subscriptions/" + a.batches + "?tab=batches"), "bat_"},
		{"subscription-settings", ui("/subscriptions/" + a.billing + "?tab=settings"), "Waits before each try"},
		{"subscription-secret", ui("/subscriptions/" + a.billing + "?tab=secret"), "Reveal"},
		{"attempt", ui("/subscriptions/" + a.ledger + "/attempts/" + a.failed), "invalid signature"},
		{"attempts", ui("/attempts?outcome=failed"), "401"},
		{"parked", ui("/parked"), "payment.settled"},
		{"sources", ui("/sources"), "github"},
		{"source-new", ui("/sources/new"), "Provider"},
		{"source", ui("/sources/" + a.source), "pull_request"},
		{"source-rejected", ui("/sources/" + a.source + "?tab=rejected"), "no_match"},
		{"rejection", ui("/sources/" + a.source + "/rejections/" + a.rejection), "Verify it again"},
		{"inspectors", ui("/inspector"), "look here"},
		{"inspector", ui("/inspector/" + a.inspector), "Waiting for the first request"},
		{"start", ui("/start"), "Send a first event"},
		{"portal-links", ui("/portal-links"), "Portal links"},
		{"keys", ui("/keys"), "checkout"},
		{"audit", ui("/audit"), "create subscription"},
		{"tenants", "/ui/-/tenants", "acme"},
		{"all-keys", "/ui/-/keys", "checkout"},
		{"all-changes", "/ui/-/audit", "acme"},
		{"health", "/ui/-/health", "all is well"},
	}
}

// screen is how a page is looked at.
type screen struct {
	name          string
	width, height int64
	dark, mobile  bool
}

var screens = []screen{
	{"light", 1360, 900, false, false},
	{"dark", 1360, 900, true, false},
	{"390", 390, 844, false, true},
}

func (b *tab) as(s screen) {
	b.t.Helper()
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.mobile})
	if err == nil {
		_, err = chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// Every page shows what it is for, over both stores: nothing is said on the console, nothing passes the window's edge, and axe finds no
// serious violation, in light, in dark and in a narrow window. EVENTHOSE_SCREENSHOTS names a directory for pictures of them.
func TestEveryPage(t *testing.T) {
	pictures := os.Getenv("EVENTHOSE_SCREENSHOTS")
	axe, err := os.ReadFile("../../web/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal("make test-needs installs what this needs: ", err)
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			a := newAcme(t, driver)
			b := open(t)
			a.enter(b, "")
			for _, s := range screens {
				if driver != "embedded" && s.name != "light" {
					continue
				}
				b.as(s)
				for _, v := range a.views() {
					b.visit(a.url + v.path)
					b.until(`!!document.querySelector("main h1")`)
					b.shows(v.shows)
					b.settle()
					if wide := value[string](b, overflow); wide != "" {
						t.Errorf("%s, %s: passes the edge: %s", v.name, s.name, wide)
					}
					for _, f := range b.violations(string(axe)) {
						t.Errorf("%s, %s: %s", v.name, s.name, f)
					}
					if pictures != "" && driver == "embedded" {
						b.picture(filepath.Join(pictures, v.name+"-"+s.name+".webp"))
					}
				}
			}
		})
	}
}

// overflow names what is wider than the window.
const overflow = `(() => { const w = document.documentElement.clientWidth; if (document.documentElement.scrollWidth <= w) return ""; ` +
	`return [...document.querySelectorAll("main *, nav *")].filter(e => e.getBoundingClientRect().right > w + 1 && !e.closest(".scroll, pre, .hidden")).slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(" | ") || "the document" })()`

// settle waits for the answers that are under way and for the page to have drawn them.
func (b *tab) settle() {
	b.t.Helper()
	b.until(`(() => { const n = performance.getEntriesByType("resource").length; const before = window.settled ?? [0, 0]; window.settled = [n, before[0] === n ? before[1] + 1 : 0]; return window.settled[1] > 3 && !/Loading…|Looking for|Looking at|Searching…/.test(document.querySelector("main").innerText) })()`)
}

func (b *tab) picture(path string) {
	b.t.Helper()
	size := value[[]float64](b, "[document.documentElement.clientWidth, Math.min(2400, document.documentElement.scrollHeight)]")
	shot, err := chromedp.Call(b.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatWebp, Quality: new(int64(90)),
		CaptureBeyondViewport: new(true), Clip: &page.Viewport{Width: size[0], Height: size[1], Scale: 1}})
	if err != nil {
		b.fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, shot.Data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// violations runs axe and answers what it finds serious or critical.
func (b *tab) violations(axe string) []string {
	b.t.Helper()
	value[int](b, axe+";0")
	found := value[string](b, `new Promise(r => axe.run(document, {resultTypes: ["violations"]}).then(x => r(JSON.stringify(x.violations.filter(v => v.impact === "serious" || v.impact === "critical").map(v => ({id: v.id, help: v.help, nodes: v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? ""))})))), e => r("[]")))`)
	return violationsOf(b.t, found)
}

func violationsOf(t *testing.T, found string) (faults []string) {
	t.Helper()
	var all []struct {
		ID, Help string
		Nodes    []string
	}
	if err := json.Unmarshal([]byte(found), &all); err != nil {
		t.Fatal(err, found)
	}
	for _, v := range all {
		faults = append(faults, fmt.Sprintf("%s: %s: %s", v.ID, v.Help, strings.Join(v.Nodes, " | ")))
	}
	return faults
}

// An address whose escapes are none, or no text, is one of a page all the same: it says that there is nothing of that name.
func TestAddressesThatAreNoText(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	b := open(t)
	s.enter(b, "")
	b.expect("404")
	b.expect("422")
	b.visit(s.url + "/ui/acme/events/%E0")
	b.shows("It is not here")
	b.visit(s.url + "/ui/acme/%E0%A4")
	b.shows("There is no such page")
	b.visit(s.url + "/ui/%E0/events")
	b.until(`!!document.querySelector("main h1")`)
	b.settle()
}

// The checkers themselves, on a page that is bad.
func TestPageCheckers(t *testing.T) {
	s := start(t, "embedded")
	b := open(t)
	b.expect("401") // nobody is signed in
	b.visit(s.url + "/ui/")
	b.until(`!!document.querySelector("form")`)
	value[chromedp.Void](b, `document.querySelector("main").insertAdjacentHTML("beforeend", "<button></button><img src='data:,'><div id=wide>x</div>"); document.getElementById("wide").style.width = "5000px"`)
	axe, err := os.ReadFile("../../web/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(b.violations(string(axe)), "\n"); !strings.Contains(got, "button-name") {
		t.Errorf("a button without a name is no violation: %s", got)
	}
	if got := value[string](b, overflow); !strings.Contains(got, "wide") {
		t.Errorf("what is too wide is not found: %q", got)
	}
	b.expect("refused")
	b.expect("Refused")
	b.expect("violates")
	value[bool](b, `new Promise(r => { document.addEventListener("securitypolicyviolation", () => r(true)); const s = document.createElement("script"); s.textContent = "window.ran = 1"; document.body.append(s) })`)
	if value[bool](b, `window.ran === 1`) {
		t.Error("an inline script ran")
	}
	if len(b.said) == 0 {
		t.Error("the console was not heard")
	}
}
