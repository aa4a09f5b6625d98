// Package browser_test looks at the pages in a real browser, over a real server with real traffic.
package browser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds each wait for a fact: for machines with much else to do.
const patience = 60 * time.Second

// programs are what Chromium is called.
var programs = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// browser is the one that all tests share, each with tabs of its own.
var browser context.Context

func TestMain(m *testing.M) {
	os.Exit(func() int {
		program := ""
		for _, name := range programs {
			if path, err := exec.LookPath(name); err == nil {
				program = path
				break
			}
		}
		if program == "" {
			fmt.Fprintln(os.Stderr, "these tests need Chromium in PATH: make test-needs installs it where it can")
			return 1
		}
		dir, err := os.MkdirTemp("", "eventhose-browser-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
			chromedp.ExecPath(program), chromedp.UserDataDir(dir), chromedp.NoSandbox, chromedp.DisableGPU,
			chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("test-third-party-cookie-phaseout", true),
			chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("hide-scrollbars", true), chromedp.WindowSize(1360, 900))
		allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
		defer stop()
		ctx, end := chromedp.NewContext(allocator)
		defer end()
		if err := chromedp.Do(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "start the browser:", err)
			return 1
		}
		browser = ctx
		return m.Run()
	}())
}

// tab is a page of the browser. What its console says and what its policy blocks fails the test, unless it is expected.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	said     []string
	expected []string
	ran      []string // texts of dialogs: something ran that should not have
	dialogs  sync.WaitGroup
}

// open opens a tab that the test closes.
func open(t *testing.T, options ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, end := chromedp.NewContext(browser, options...)
	cancel := func() {}
	if last, ok := t.Deadline(); ok { // a page that hangs is told of before the test is ended
		ctx, cancel = context.WithDeadline(ctx, last.Add(-patience))
	}
	b := &tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		cancel()
		end()
		b.dialogs.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, s := range b.said {
			if !slices.ContainsFunc(b.expected, func(e string) bool { return strings.Contains(s, e) }) {
				t.Errorf("the console says: %s", s)
			}
		}
		for _, s := range b.ran {
			t.Errorf("a script ran: %s", s)
		}
	})
	err := chromedp.Listen(ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			said := e.ExceptionDetails.Text
			if e.ExceptionDetails.Exception != nil {
				said += " " + e.ExceptionDetails.Exception.Description
			}
			b.note(said)
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
				b.note(fmt.Sprint(e.Type, " ", texts(e.Args)))
			}
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError {
				b.note(e.Entry.Text + " " + e.Entry.URL)
			}
		case *page.EventJavascriptDialogOpening:
			b.mu.Lock()
			b.ran = append(b.ran, e.Message)
			b.mu.Unlock()
			b.dialogs.Go(func() { // it ends with the tab at the latest
				_, _ = chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
			})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func texts(args []*runtime.RemoteObject) string {
	var s []string
	for _, a := range args {
		s = append(s, string(a.Value)+a.Description)
	}
	return strings.Join(s, " ")
}

func (b *tab) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, s)
}

// expect lets the console say something.
func (b *tab) expect(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, part)
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.fail(err)
	}
}

// fail ends the test with what the page shows.
func (b *tab) fail(why any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	shown, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText.slice(0, 1500)`))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("%v; the page (%v):\n%s\nthe console: %q", why, err, shown, b.said)
}

// visit goes to an address and waits until it is loaded.
func (b *tab) visit(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// value answers what an expression is in the page; a promise is waited for.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.fail(fmt.Errorf("%s: %w", expression[:min(len(expression), 200)], err))
	}
	return v
}

// until waits for an expression to be true in the page. It asks again and again: what waits within the page would need eval, which the
// pages' policy forbids.
func (b *tab) until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		v, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && v { // a page that goes away under the question is no answer
			return
		}
		if ctx.Err() != nil {
			b.fail(fmt.Errorf("did not come: %s (%v)", expression, err))
		}
		select {
		case <-time.After(15 * time.Millisecond):
		case <-b.ctx.Done():
			b.t.Fatal(b.ctx.Err())
		}
	}
}

// shows waits for a text in the page's main part or a notice.
func (b *tab) shows(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`[...document.querySelectorAll("main, dialog, .notices")].some(e => e.innerText.includes(%s))`, quoted(text)))
}

// misses waits for a text to be gone.
func (b *tab) misses(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`![...document.querySelectorAll("main, dialog")].some(e => e.innerText.includes(%s))`, quoted(text)))
}

// press presses a button or follows a link by its words, within what a selector names.
func (b *tab) press(within, words string) {
	b.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%s)].flatMap(e => [...e.querySelectorAll("button, a")]).find(e => e.innerText.trim().split("\n")[0] === %s && !e.disabled)`, quoted(within), quoted(words))
	b.until("!!" + find)
	value[chromedp.Void](b, find+".click()")
}

// fill types into a field by its label, as a person would.
func (b *tab) fill(within, label, text string) {
	b.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%s)].flatMap(e => [...e.querySelectorAll("label")]).find(e => e.innerText.trim().startsWith(%s))?.querySelector("input, select, textarea")`, quoted(within), quoted(label))
	b.until("!!" + find)
	value[chromedp.Void](b, fmt.Sprintf(`(() => { const f = %s; const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(f), "value").set; set.call(f, %s); f.dispatchEvent(new Event("input", {bubbles: true})); f.dispatchEvent(new Event("change", {bubbles: true})) })()`, find, quoted(text)))
}

// key presses a key on the page.
func (b *tab) key(k string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(k))
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(b)
}
