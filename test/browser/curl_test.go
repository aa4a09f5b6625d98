package browser_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// beforehand runs a script in each page before the page's own.
func (b *tab) beforehand(script string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		b.fail(err)
	}
}

// copied presses a button that copies, and answers what was copied.
func (b *tab) copied(within, words string) string {
	b.t.Helper()
	value[any](b, `navigator.clipboard.writeText = async t => { window.copied = t }, window.copied = "", 0`)
	b.press(within, words)
	b.until(`window.copied`)
	return value[string](b, `window.copied`)
}

// arguments runs a command in a shell that has no other curl than one which notes its arguments, and answers those. Whatever else the
// shell does fails the test.
func arguments(t *testing.T, command string) []string {
	t.Helper()
	dir := t.TempDir()
	programs, work := filepath.Join(dir, "programs"), filepath.Join(dir, "work")
	for _, d := range []string{programs, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	noted, ran := filepath.Join(dir, "noted"), filepath.Join(dir, "ran")
	for name, script := range map[string]string{"curl": `printf '%s\0' "$@" >> ` + noted, "ran": "echo ran >> " + ran} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sh := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	sh.Dir, sh.Env = work, []string{"PATH=" + programs, "EVENTHOSE_API_KEY=the key"}
	if said, err := sh.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("the shell: %v %s\n%s", err, said, command)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Errorf("a command within the command ran: %s", command)
	}
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("it has left %v, %v: %s", left, err, command)
	}
	all, err := os.ReadFile(noted)
	if err != nil {
		t.Errorf("curl was not run: %s", command)
	}
	return strings.Split(strings.TrimSuffix(string(all), "\x00"), "\x00")
}

// What the pages copy as a command is that one command for a shell, whatever stands in what was sent.
func TestCopiedCommands(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	sub := s.subscribe("hook", "/ok", nil)
	hostile := []string{"'; ran; '", "'$(ran)'", "'`ran`'", "$(ran)", "`ran`", "'|ran|'", "'&ran&'", "' > made '", `\'; ran #`, `"; ran; "`, "$HOME", "'\nran\n'", "é !! * ~ ?"}
	ids := s.append(object{"type": "a.b", "key": hostile[0], "attributes": object{"a": hostile[1]}, "data": hostile})
	attempts := "/v1/tenants/acme/subscriptions/" + sub + "/attempts"
	s.await(attempts, "an attempt", func(o object) bool {
		list, _ := o["data"].([]any)
		return len(list) > 0
	})
	attempt := s.call("GET", attempts, nil)["data"].([]any)[0].(map[string]any)["id"].(string)

	name := "x'|ran|'"
	status, said := s.try("POST", "/v1/tenants/acme/subscriptions", object{"destination": object{"type": "webhook", "url": s.receiver, "headers": object{name: "v"}}})
	if status != http.StatusUnprocessableEntity || said["field"] != "destination.headers."+name {
		t.Errorf("a header of that name may be set: %d %v", status, said)
	}
	// Names that the server refuses today may stand in what was sent before.
	headers := map[string]string{"X-Plain": "plain", "X-Mask": "***"}
	want := []string{}
	for i, name := range []string{"x'$IFS|ran|'", "x`ran`", "x&ran&", "x'&ran&'", "x'|ran|'", "x$ran", "x'`ran`'", "x!*#"} {
		headers[name] = strings.ReplaceAll(hostile[i], "\n", " ")
	}
	for name, v := range headers {
		want = append(want, name+": "+v)
	}
	url := `https://h.example/a'$(ran)'|ran?b=[1-3]&c={d,e}&'` + "`ran`"
	sent, err := json.Marshal(object{"method": "POST", "url": url, "headers": headers, "body": "{}"})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t)
	b.beforehand(fmt.Sprintf(`{
		const before = window.fetch
		window.fetch = async (...asked) => {
			const r = await before(...asked)
			if (!String(asked[0]).includes(%s)) return r
			return Response.json({ ...await r.json(), request: %s })
		}
	}`, quoted("/attempts/"+attempt), sent))
	s.enter(b, "/ui/acme/subscriptions/"+sub+"/attempts/"+attempt+"?side=request")
	b.shows("x`ran`")
	got := arguments(t, b.copied("main", "Copy as curl"))
	var given []string
	for i := range got {
		if got[i] == "-H" && i+1 < len(got) {
			given = append(given, got[i+1])
		}
	}
	slices.Sort(given)
	slices.Sort(want)
	if !slices.Equal(given, want) {
		t.Errorf("headers\n%q, want\n%q", given, want)
	}
	if !slices.Contains(got, url) || !slices.Contains(got, "--globoff") || got[len(got)-1] != "@body.json" {
		t.Errorf("%q", got)
	}

	b.visit(s.url + "/ui/acme/events/" + ids[0])
	b.shows("What became of it")
	got = arguments(t, b.copied("main header", "Copy as curl"))
	var body struct {
		Key        string
		Attributes map[string]string
		Data       []string
	}
	if err := json.Unmarshal([]byte(got[len(got)-1]), &body); err != nil || body.Key != hostile[0] || body.Attributes["a"] != hostile[1] || !slices.Equal(body.Data, hostile) {
		t.Errorf("%v %q", err, got)
	}
	if got[0] != s.url+"/v1/tenants/acme/events" || !slices.Contains(got, "Authorization: Bearer the key") {
		t.Errorf("%q", got)
	}
}
