package browser_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// payloads are what people put where text belongs, to have it run: elements, attributes, handlers, schemes, breaks out of
// strings, scripts and comments, encodings, and templates. Each would raise a dialog or set window.ran.
func payloads() []string {
	run := `window.ran=1;alert(1)`
	forms := []string{
		`<script>%s</script>`, `<script src="data:text/javascript,%s"></script>`, `<ScRiPt>%s</sCrIpT>`, `<script/x>%s</script>`, `</script><script>%s</script>`,
		`<img src=x onerror="%s">`, `<img src=x onerror=%s>`, `<img/src=x/onerror=%s>`, `<IMG SRC=x ONERROR="%s">`, "<img src=`x` onerror=`%s`>",
		`<svg onload="%s">`, `<svg/onload=%s>`, `<svg><script>%s</script></svg>`, `<svg><animate onbegin="%s" attributeName=x dur=1s>`, `<svg><a xlink:href="javascript:%s"><text>x</text></a></svg>`,
		`<body onload="%s">`, `<iframe src="javascript:%s"></iframe>`, `<iframe srcdoc="<script>%s</script>"></iframe>`, `<object data="javascript:%s">`, `<embed src="javascript:%s">`,
		`<a href="javascript:%s">x</a>`, `javascript:%s`, `JaVaScRiPt:%s`, "java\tscript:%s", `data:text/html,<script>%s</script>`,
		`"><script>%s</script>`, `'><script>%s</script>`, `" onmouseover="%s" x="`, `' onfocus='%s' autofocus x='`, "` onerror=`%s`",
		`--><script>%s</script>`, `]]><script>%s</script>`, `*/%s/*`, `";%s;//`, `';%s;//`,
		`</textarea><script>%s</script>`, `</title><script>%s</script>`, `</style><script>%s</script>`, `</pre><script>%s</script>`, `</noscript><script>%s</script>`,
		`<input autofocus onfocus="%s">`, `<details open ontoggle="%s">`, `<video src=x onerror="%s">`, `<audio src=x onerror="%s">`, `<marquee onstart="%s">`,
		`<math><mtext><script>%s</script></mtext></math>`, `<style>@import "javascript:%s"</style>`, `<link rel=stylesheet href="javascript:%s">`, `<meta http-equiv=refresh content="0;url=javascript:%s">`, `<form action="javascript:%s"><button autofocus>x</button></form>`,
	}
	var all []string
	for _, f := range forms {
		all = append(all, fmt.Sprintf(f, run), "{{"+run+"}}${"+run+"}"+fmt.Sprintf(f, run)+"\u202e")
	}
	return all
}

// A hundred hostile texts as keys, attributes, data, headers of destinations, names, and answers of receivers: nothing runs on any page that
// shows them, and they are shown as they are.
func TestHostile(t *testing.T) {
	all := payloads()
	if len(all) < 100 {
		t.Fatalf("%d payloads", len(all))
	}
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	answers := http.NewServeMux()
	answers.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("X-Hostile", all[0])
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, strings.Join(all, "\n"))
	})
	s.hostile = answers
	var subs []string
	for i := range 4 {
		subs = append(subs, s.subscribe(all[i*7][:min(len(all[i*7]), 200)], "/hostile/"+fmt.Sprint(i), object{"retry": object{"schedule": []string{"0s"}}, "filter": object{"types": []string{fmt.Sprintf("x%d.y", i)}}}))
	}
	var events []object
	for i, p := range all {
		p = strings.ToValidUTF8(strings.ReplaceAll(p, "\x00", ""), "")
		events = append(events, object{"type": fmt.Sprintf("x%d.y", i%4), "key": strings.ReplaceAll(p, "\t", " ")[:min(len(p), 200)], "attributes": object{"a": strings.ReplaceAll(p, "\t", " ")}, "data": object{p: []any{p, object{"deep": p}}}})
	}
	ids := s.append(events...)
	s.call("POST", "/v1/keys", object{"tenant": "acme", "scopes": []string{"read"}, "name": all[0]})
	s.await("/v1/tenants/acme/parked?state=dead&limit=100", "dead events", func(o object) bool {
		list, _ := o["data"].([]any)
		return len(list) >= len(all)
	})
	attempt := s.call("GET", "/v1/tenants/acme/subscriptions/"+subs[0]+"/attempts", nil)["data"].([]any)[0].(map[string]any)["id"].(string)
	b := open(t)
	s.enter(b, "")
	pages := []string{"", "/live", "/events", "/events?limit=1&types=" + strings.ReplaceAll(all[0], "<", "%3C"), "/events?keys=" + "%22%3E%3Cscript%3Ewindow.ran%3D1%3C%2Fscript%3E", "/subscriptions", "/subscriptions/" + subs[0], "/subscriptions/" + subs[1] + "?tab=parked",
		"/subscriptions/" + subs[2] + "?tab=settings", "/subscriptions/" + subs[0] + "/attempts/" + attempt, "/attempts", "/parked", "/keys", "/audit",
		"/%3Cimg%20src=x%20onerror=window.ran=1%3E", "/events/%3Cscript%3Ewindow.ran=1%3C%2Fscript%3E"}
	for i, id := range ids {
		if i%7 == 0 {
			pages = append(pages, "/events/"+id, "/events/"+id+"?tab=attributes")
		}
	}
	b.expect("404")
	b.expect("422")
	for _, p := range pages {
		b.visit(s.url + "/ui/acme" + p)
		b.until(`document.querySelector("main")?.innerText.length > 20`)
		b.settle()
		if value[bool](b, `window.ran === 1 || document.querySelector("main script, main iframe, main object, main embed, main img") !== null`) {
			t.Errorf("%s: it is part of the page", p)
		}
	}
	b.visit(s.url + "/ui/acme/events/" + ids[0])
	b.shows(all[0])
	b.visit(s.url + "/ui/acme/subscriptions/" + subs[0] + "/attempts/" + attempt)
	b.shows(all[0])
	resp, err := http.Get(s.url + "/ui/acme")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe-") || strings.Contains(policy, "*") {
		t.Errorf("the policy is %q", policy)
	}
}
