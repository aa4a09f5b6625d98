package browser_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// A thousand events a second: the page goes on to show the newest, keeps no more than a screen of them, and holds still when it is told to.
// EVENTHOSE_LIVE_SECONDS makes it as long, and then no task may take over 100 ms and memory may not grow: that is for a quiet machine.
func TestLive(t *testing.T) {
	seconds := 3
	measured := os.Getenv("EVENTHOSE_LIVE_SECONDS") != ""
	if measured {
		if _, err := fmt.Sscan(os.Getenv("EVENTHOSE_LIVE_SECONDS"), &seconds); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, "embedded")
	b := open(t)
	s.enter(b, "/ui/default/live")
	b.until(`document.querySelector("header [role=status]")?.innerText.includes("live")`)
	value[any](b, `window.long = []; new PerformanceObserver(l => l.getEntries().forEach(e => long.push(e.duration))).observe({type: "longtask", buffered: false}); window.shifted = 0; new PerformanceObserver(l => l.getEntries().forEach(e => { if (!e.hadRecentInput) shifted += e.value })).observe({type: "layout-shift", buffered: false}); 0`)
	cl, err := client.New(s.url, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	log := cl.Tenant("default")
	pace := rate.NewLimiter(20, 1)
	var sent int
	var heap []float64
	began := time.Now()
	for i := range seconds * 20 {
		if err := pace.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		batch := make([]eventhose.Event, 50)
		for j := range batch {
			batch[j] = eventhose.Event{Type: "order.paid", Key: fmt.Sprint("order_", sent), Data: fmt.Appendf(nil, `{"n": %d, "text": "%0400d"}`, sent, sent)}
			sent++
		}
		if _, err := log.Append(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
		if measured && i%200 == 199 {
			heap = append(heap, value[float64](b, `(globalThis.gc?.(), performance.memory.usedJSHeapSize)`))
		}
	}
	t.Logf("%d events in %v", sent, time.Since(began).Round(time.Millisecond))
	newest := fmt.Sprintf("order_%d", sent-1)
	b.until(fmt.Sprintf(`document.querySelector("tbody tr")?.innerText.includes(%s)`, quoted(newest)))
	if rows := value[int](b, `document.querySelectorAll("tbody tr").length`); rows > 100 {
		t.Errorf("%d rows are kept in the page", rows)
	}
	b.press("main form", "Pause")
	b.until(`document.querySelector("header [role=status]").innerText.includes("paused")`)
	if _, err := log.Append(t.Context(), eventhose.Event{Type: "order.late", Data: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	b.until(fmt.Sprintf(`document.querySelector("header [role=status]").innerText.includes(%s)`, quoted(grouped(sent+1)+" seen")))
	if value[bool](b, `document.querySelector("tbody").innerText.includes("order.late")`) {
		t.Error("it does not hold still")
	}
	b.press("main form", "Go on")
	b.shows("order.late")
	b.fill("main form", "Types", "order.late")
	b.press("main form", "Filter")
	b.until(`location.search.includes("types=order.late")`)
	long := value[[]float64](b, "long")
	shifted := value[float64](b, "shifted")
	t.Logf("long tasks (ms): %.0f; layout shift %.3f; heap %.0f", long, shifted, heap)
	if !measured {
		return
	}
	for _, ms := range long {
		if ms > 100 {
			t.Errorf("a task took %.0f ms", ms)
		}
	}
	if shifted > 0.1 {
		t.Errorf("the layout shifts by %.3f while events come", shifted)
	}
	if n := len(heap); n > 8 && heap[n-1] > 2*heap[n/4] {
		t.Errorf("the page's memory grows: %.0f", heap)
	}
}

// A connection that breaks before the first match goes on after what was looked through, not at the end of the log.
func TestLiveGoesOn(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	s.append(object{"type": "order.first", "data": object{}})
	cursor := s.call("GET", "/v1/tenants/acme/overview", nil)["head"].(object)["cursor"].(string)
	s.append(object{"type": "order.missed", "data": object{}})
	b := open(t)
	s.enter(b, "/ui/acme")
	value[any](b, fmt.Sprintf(`(() => { let broken; const real = fetch; window.fetch = (u, o) => { if (broken || !String(u).includes("/events/stream")) return real(u, o); broken = true; return Promise.resolve(new Response(%s)) } })(), 0`, quoted(`{"cursor":"`+cursor+`"}`+"\n")))
	b.press("nav.side", "Live")
	b.shows("order.missed")
}

// grouped is 1,204 for 1204.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
