package inspector_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/sign"
)

// What anybody sends is kept as it came, and answered as the inspector was told to.
func TestPlay(t *testing.T) {
	overBoth(t, func(t *testing.T, node func() *world) {
		w := node()
		i := w.inspector(eventhose.Inspector{Name: "mine", Status: 202, Body: `{"ok": true}`})
		if i.URL != w.url+"/play/"+string(i.ID) || i.Destination != "http://inspector.internal/"+string(i.ID) || i.Expires.Before(time.Now().Add(23*time.Hour)) {
			t.Errorf("%+v", i)
		}
		status, body, header := w.send("PROPFIND", i.URL+"/a%2Fb/c?x=1&x=%32", "hello", "X-Two", "1", "X-Two", "2", "Cookie", "a=1; eventhose_session=ticket; b=2; __Host-eventhose_session=ticket; eventhose_oidc=kept;__Host-eventhose_oidc=kept; my_eventhose_oidc=4")
		if status != 202 || body != `{"ok": true}` || header.Get("Content-Type") != "application/json" || !strings.Contains(header.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%d %q %v", status, body, header)
		}
		got := w.requests(i.ID, "")[0]
		if got.Method != "PROPFIND" || got.Path != "/a%2Fb/c" || got.Query != "x=1&x=%32" || got.Body != "hello" || got.Answered != 202 || got.Signature != eventhose.SignatureNone ||
			!slices.Equal(got.Headers["X-Two"], []string{"1", "2"}) || got.Headers["Host"][0] != strings.TrimPrefix(w.url, "http://") || got.Took <= 0 || time.Since(got.Time) > time.Minute {
			t.Errorf("%+v", got)
		}
		if cookie := got.Headers["Cookie"]; len(cookie) != 1 || cookie[0] != "a=1; eventhose_session=***; b=2; __Host-eventhose_session=***; eventhose_oidc=***;__Host-eventhose_oidc=***; my_eventhose_oidc=4" {
			t.Errorf("cookies %q", cookie)
		}

		// What no well-behaved client sends.
		if line := w.raw("POST /play/" + string(i.ID) + "/\xe9 HTTP/1.1\r\nHost: x\r\nX-Bytes: caf\xe9\r\nx-script: <script>alert(1)</script>\r\nContent-Length: 3\r\n\r\n\x00\xff<"); line != "HTTP/1.1 202 Accepted" {
			t.Errorf("%q", line)
		}
		got = w.requests(i.ID, got.ID)[0]
		if got.Headers["X-Bytes"][0] != "caf\u00e9" || got.Headers["X-Script"][0] != "<script>alert(1)</script>" || !bytes.Equal(got.BodyBase64, []byte("\x00\xff<")) || got.Body != "" ||
			!strings.HasSuffix(got.Path, "/%E9") && got.Path != "/\u00e9" {
			t.Errorf("%+v", got)
		}
		// Longer than is read: the beginning is kept, and it is answered all the same.
		long := strings.Repeat("é", eventhose.MaxInspectedBody)
		if status, _, _ := w.send("POST", i.URL, "a"+long); status != 202 {
			t.Errorf("%d", status)
		}
		got = w.requests(i.ID, got.ID)[0]
		if !got.BodyTruncated || got.Body != ("a" + long)[:eventhose.MaxInspectedBody-1] || got.Path != "/" {
			t.Errorf("%d bytes, truncated %v, %q", len(got.Body), got.BodyTruncated, got.Path)
		}
		if status, body, _ := w.send("HEAD", i.URL, ""); status != 202 || body != "" {
			t.Errorf("%d %q", status, body)
		}
		for _, path := range []string{"/play/", "/play/ins_", "/play/" + string(i.ID) + "x", "/play/ins_00000000000000000000000000", "/play/../v1/tenants", "/play/src_00000000000000000000000000", "/play/%2e%2e/healthz"} {
			if line := w.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); line != "HTTP/1.1 404 Not Found" {
				t.Errorf("%s: %q", path, line)
			}
		}
		if l := must(w.tenant.Inspected(t.Context(), i.ID, client.InspectedOptions{}))(t); len(l.Data) != 4 || l.Next != "" {
			t.Errorf("%d are kept, next %q", len(l.Data), l.Next)
		}
		if err := w.tenant.ForgetInspected(t.Context(), i.ID); err != nil {
			t.Fatal(err)
		}
		if l := must(w.tenant.Inspected(t.Context(), i.ID, client.InspectedOptions{}))(t); len(l.Data) != 0 {
			t.Errorf("%d are left", len(l.Data))
		}
		if err := w.tenant.DeleteInspector(t.Context(), i.ID); err != nil {
			t.Fatal(err)
		}
		if status, _, _ := w.send("POST", i.URL, "x"); status != 404 {
			t.Errorf("after its end: %d", status)
		}
	})
}

// Each status that an inspector may have comes as it is, with the body that it may have.
func TestAnswers(t *testing.T) {
	w := newEmbedded(t)
	i := w.inspector(eventhose.Inspector{Body: "plain <b>text</b>"})
	for _, status := range []int{200, 204, 301, 304, 404, 410, 429, 500, 599} {
		must(w.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Status: &status}))(t)
		req := must(http.NewRequestWithContext(t.Context(), "POST", i.URL, nil))(t)
		res := must(w.http.Transport.RoundTrip(req))(t)
		res.Body.Close()
		bodiless := status == 204 || status == 304
		if res.StatusCode != status || bodiless != (res.Header.Get("Content-Type") == "") || !bodiless && res.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%d: %d %v", status, res.StatusCode, res.Header)
		}
	}
	delay, status := eventhose.Duration(30*time.Millisecond), 200
	must(w.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Status: &status, Delay: &delay}))(t)
	before := w.requests(i.ID, "")[0].ID
	if status, _, _ := w.send("POST", i.URL, ""); status != 200 {
		t.Errorf("%d", status)
	}
	if got := w.requests(i.ID, before)[0]; got.Took < delay {
		t.Errorf("it was held for %v", time.Duration(got.Took))
	}
	// Half of them fail: that all of 64 do, or none, does not happen.
	half, statuses := 0.5, map[int]bool{}
	must(w.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Delay: new(eventhose.Duration), FailRate: &half}))(t)
	for range 64 {
		status, _, _ := w.send("POST", i.URL, "")
		statuses[status] = true
	}
	if !maps.Equal(statuses, map[int]bool{200: true, 500: true}) {
		t.Errorf("at half: %v", statuses)
	}
}

// A sender that does not wait for the answer is shown, with none.
func TestSenderThatLeaves(t *testing.T) {
	w := newEmbedded(t)
	i := w.inspector(eventhose.Inspector{Delay: eventhose.MaxInspectDelay})
	must(w.tenant.CreateSubscription(t.Context(), client.NewSubscription{Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: i.Destination},
		Retry: eventhose.Retry{Schedule: []eventhose.Duration{0}, Timeout: eventhose.Duration(time.Second)}}))(t)
	w.append(w.tenant, `{}`)
	if got := w.requests(i.ID, "")[0]; got.Answered != 0 || got.Took >= i.Delay {
		t.Errorf("%+v", got)
	}
}

func TestSignatures(t *testing.T) {
	w := newEmbedded(t)
	secret := sign.NewSecret()
	i := w.inspector(eventhose.Inspector{Secret: eventhose.Secret(secret.Reveal())})
	if i.Secret != "***" {
		t.Errorf("it is told as %q", string(i.Secret))
	}
	zip := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte(s))
		z.Close()
		return b.String()
	}
	now, last := time.Now(), ""
	for _, c := range []struct {
		name, body string
		signed     string
		at         time.Time
		key        sign.Signer
		encoding   string
		want       string
	}{
		{name: "signed", body: "hello", signed: "hello", at: now, key: secret, want: "verified"},
		{name: "compressed", body: zip("hello"), signed: "hello", at: now, key: secret, encoding: "gzip", want: "verified"},
		{name: "another body", body: "hello!", signed: "hello", at: now, key: secret, want: "failed: no signature matches"},
		{name: "another key", body: "hello", signed: "hello", at: now, key: sign.NewSecret(), want: "failed: no signature matches"},
		{name: "old", body: "hello", signed: "hello", at: now.Add(-time.Hour), key: secret, want: "failed: message is too old"},
		{name: "a bomb", body: zip(strings.Repeat("x", 1<<20)), signed: "hello", at: now, key: secret, encoding: "gzip", want: "failed: body not read: it is larger than 65536 bytes"},
		{name: "long", body: strings.Repeat("x", eventhose.MaxInspectedBody+1), signed: "hello", at: now, key: secret, want: "failed: the body is longer than 65536 bytes"},
		{name: "unsigned", body: "hello", want: "failed: missing header: webhook-id"},
	} {
		var headers []string
		if c.key != nil {
			signature := must(sign.Sign("msg_1", c.at, []byte(c.signed), c.key))(t)
			headers = []string{sign.HeaderID, "msg_1", sign.HeaderTimestamp, fmt.Sprint(c.at.Unix()), sign.HeaderSignature, signature}
		}
		if c.encoding != "" {
			headers = append(headers, "Content-Encoding", c.encoding)
		}
		if status, _, _ := w.send("POST", i.URL, c.body, headers...); status != 200 {
			t.Errorf("%s: %d", c.name, status)
		}
		got := w.requests(i.ID, last)[0]
		if last = got.ID; !strings.HasPrefix(got.Signature, c.want) {
			t.Errorf("%s: %q", c.name, got.Signature)
		}
	}
	for _, bad := range []eventhose.Secret{"x", "whsec_", "whsec_###", "whsk_" + eventhose.Secret(strings.Repeat("A", 43)+"=")} {
		_, err := w.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Secret: &bad})
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeInvalid || e.Field != "secret" || strings.Contains(err.Error(), string(bad)) && len(bad) > 6 {
			t.Errorf("%q: %v", string(bad), err)
		}
	}
}

// Failure injection drives a real retry: a delivery fails on purpose, is tried again, and arrives once the inspector is mended. It
// does not leave the process: no network is allowed to destinations here.
func TestDeliveryIsTriedAgain(t *testing.T) {
	overBoth(t, func(t *testing.T, node func() *world) {
		w := node()
		i := w.inspector(eventhose.Inspector{FailRate: 1})
		s := w.subscribe(w.tenant, i.Destination, 0, eventhose.Duration(50*time.Millisecond), eventhose.Duration(50*time.Millisecond), eventhose.Duration(50*time.Millisecond),
			eventhose.Duration(time.Second), eventhose.Duration(time.Second), eventhose.Duration(time.Second), eventhose.Duration(time.Second), eventhose.Duration(time.Second))
		secret := must(w.tenant.Secrets(t.Context(), s.ID))(t)[0].Secret
		must(w.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Secret: &secret}))(t)
		id := w.append(w.tenant, `{"amount":  4200.0}`)
		first := w.requests(i.ID, "")
		if got := first[len(first)-1]; got.Answered != 500 || got.Signature != "verified" || got.Headers["Eventhose-Attempt"][0] != "1" || got.Headers["Webhook-Id"][0] != id {
			t.Errorf("%+v", got)
		}
		second := w.requests(i.ID, first[0].ID)[0]
		if second.Answered != 500 || second.Headers["Webhook-Id"][0] != id {
			t.Errorf("%+v", second)
		}
		must(w.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{FailRate: new(float64)}))(t)
		for got := second; got.Answered != 200; {
			got = w.requests(i.ID, got.ID)[0]
			if !strings.Contains(got.Body, `"data":{"amount":  4200.0}`) || got.Path != "/" || got.Headers["Host"][0] != eventhose.InspectorHost {
				t.Errorf("%+v", got)
			}
		}
		var e client.EventStatus
		for done := false; !done; { // the attempt is written after the answer
			e = must(w.tenant.Event(t.Context(), "", id))(t)
			done = len(e.Deliveries) == 1 && e.Deliveries[0].State == eventhose.DeliveryDelivered
		}
		attempts := e.Deliveries[0].Attempts
		if n := len(attempts); n < 3 || attempts[0].Address != "inspector.internal:80" || attempts[n-1].Status != 500 || attempts[0].Status != 200 || attempts[0].URL != i.Destination {
			t.Errorf("%+v", attempts)
		}
	})
}

// What is larger than is kept is delivered and verified whole.
func TestLargeDelivery(t *testing.T) {
	w := newEmbedded(t)
	i := w.inspector(eventhose.Inspector{})
	s := w.subscribe(w.tenant, i.Destination, 0)
	secret := must(w.tenant.Secrets(t.Context(), s.ID))(t)[0].Secret
	must(w.tenant.UpdateInspector(t.Context(), i.ID, eventhose.InspectorPatch{Secret: &secret}))(t)
	w.append(w.tenant, `"`+strings.Repeat("x", 900<<10)+`"`)
	if got := w.requests(i.ID, "")[0]; got.Signature != "verified" || !got.BodyTruncated || len(got.Body) != eventhose.MaxInspectedBody || got.Answered != 200 {
		t.Errorf("%s, %d bytes, %d", got.Signature, len(got.Body), got.Answered)
	}
	destination := eventhose.Destination{Type: eventhose.DestinationWebhook, URL: i.Destination, Compression: eventhose.CompressionGzip}
	must(w.tenant.UpdateSubscription(t.Context(), s.ID, eventhose.SubscriptionPatch{Destination: &destination}))(t)
	last := w.requests(i.ID, "")[0].ID
	w.append(w.tenant, `"`+strings.Repeat("x", 900<<10)+`"`)
	if got := w.requests(i.ID, last)[0]; got.Signature != "verified" || got.BodyTruncated || len(got.BodyBase64) == 0 {
		t.Errorf("%s, %d bytes", got.Signature, len(got.Content()))
	}
}

// A tenant may deliver to another's inspector if it knows the address, as to any public one, and learns nothing by it.
func TestAnotherTenantsInspector(t *testing.T) {
	w := newEmbedded(t)
	must(w.client.PutTenant(t.Context(), eventhose.Tenant{ID: "globex"}))
	globex := w.client.Tenant("globex")
	i := w.inspector(eventhose.Inspector{})
	w.subscribe(globex, i.Destination, 0)
	w.append(globex, `{}`)
	if got := w.requests(i.ID, "")[0]; got.Answered != 200 {
		t.Errorf("%+v", got)
	}
	if _, err := globex.Inspected(t.Context(), i.ID, client.InspectedOptions{}); eventhose.CodeOf(err) != eventhose.CodeNotFound {
		t.Errorf("%v", err)
	}
	// Nothing but inspectors is behind the name.
	for _, path := range []string{"/", "/healthz", "/metrics", "/v1/tenants", "/play/" + string(i.ID), "/in/src_00000000000000000000000000", "/eventhose.v1.Log/Append", "//" + string(i.ID), "/ins_00000000000000000000000000"} {
		s := w.subscribe(w.tenant, "http://inspector.internal"+path, 0)
		a := must(w.tenant.Test(t.Context(), s.ID))(t)
		if a.Status != 404 || !strings.Contains(a.ResponseBody, "there is no such inspector") {
			t.Errorf("%s: %d %q", path, a.Status, a.ResponseBody)
		}
	}
}

// A flood is answered, and neither what is stored nor what is held grows with it.
func TestFlood(t *testing.T) {
	w := newEmbedded(t)
	i := w.inspector(eventhose.Inspector{})
	began := time.Now()
	const senders, each = 50, 20
	statuses := map[int]int{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range senders {
		wait.Go(func() {
			for range each {
				status, _, _ := w.send("POST", i.URL, strings.Repeat("x", 2000))
				mu.Lock()
				statuses[status]++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	// As many as may be kept in the time that it took, and one for where it is cut.
	most := eventhose.MaxInspectedRate + int(time.Since(began).Seconds()*eventhose.MaxInspectedRate) + 1
	told := must(w.tenant.Inspector(t.Context(), i.ID))(t)
	if !maps.Equal(statuses, map[int]int{200: senders * each}) || told.Requests < eventhose.MaxInspectedRate || told.Requests > uint64(most) {
		t.Errorf("answers %v, %d kept, at most %d may", statuses, told.Requests, most)
	}
	_, text, _ := w.send("GET", w.url+"/metrics", "")
	for outcome, n := range map[string]uint64{"kept": told.Requests, "unkept": senders*each - told.Requests} {
		if line := fmt.Sprintf("eventhose_inspector_requests_total{outcome=%q} %d\n", outcome, n); !strings.Contains(text, line) {
			t.Errorf("no %s", line)
		}
	}
}

// Who is told to hold everything holds a share, and what is beyond it is told to come again; another tenant's goes on.
func TestHeldRequestsAreBounded(t *testing.T) {
	w := newEmbedded(t)
	must(w.client.PutTenant(t.Context(), eventhose.Tenant{ID: "globex"}))
	slow := w.inspector(eventhose.Inspector{Delay: eventhose.MaxInspectDelay})
	other := must(w.client.Tenant("globex").CreateInspector(t.Context(), eventhose.Inspector{}))(t)
	const sent, may = 300, 256
	ctx, cancel := context.WithCancel(t.Context())
	many := &http.Client{Transport: &http.Transport{}}
	statuses := make(chan int, sent)
	var wait sync.WaitGroup
	defer func() { cancel(); wait.Wait(); many.CloseIdleConnections() }()
	for range sent {
		wait.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", slow.URL, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if res, err := many.Do(req); err == nil {
				res.Body.Close()
				statuses <- res.StatusCode
			} else if ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	for range sent - may { // the others are held, which is told by that these are not
		if status := <-statuses; status != 503 {
			t.Fatalf("%d instead of a refusal", status)
		}
	}
	if status, _, _ := w.send("POST", other.URL, ""); status != 200 {
		t.Errorf("another tenant's: %d", status)
	}
	if status, _, header := w.send("POST", slow.URL, ""); status != 503 || header.Get("Retry-After") != "1" {
		t.Errorf("one more: %d %v", status, header)
	}
}

// A wait ends with the first request, with its time, with the inspector, and with the server.
func TestWaits(t *testing.T) {
	overBoth(t, func(t *testing.T, node func() *world) {
		w := node()
		i := w.inspector(eventhose.Inspector{})
		if l := must(w.tenant.Inspected(t.Context(), i.ID, client.InspectedOptions{Wait: time.Millisecond}))(t); len(l.Data) != 0 {
			t.Errorf("%+v", l)
		}
		w.send("POST", i.URL, "one")
		w.send("POST", i.URL, "two")
		got := w.requests(i.ID, "")
		if len(got) != 2 || got[0].Body != "two" || got[1].Body != "one" {
			t.Fatalf("%+v", got)
		}
		came := make(chan []eventhose.InspectedRequest)
		go func() { came <- w.requests(i.ID, got[0].ID) }()
		w.send("POST", i.URL, "three")
		if got := <-came; len(got) != 1 || got[0].Body != "three" {
			t.Errorf("%+v", got)
		}
		gone := make(chan error)
		go func() {
			o := client.InspectedOptions{Wait: 20 * time.Second}
			o.After = "inr_0000000000000009"
			_, err := w.tenant.Inspected(t.Context(), i.ID, o)
			gone <- err
		}()
		if err := w.tenant.DeleteInspector(t.Context(), i.ID); err != nil {
			t.Fatal(err)
		}
		if err := <-gone; eventhose.CodeOf(err) != eventhose.CodeNotFound {
			t.Errorf("%v", err)
		}
		var problem struct{ Errors []struct{ Field string } }
		for _, field := range []string{"after", "before", "limit", "wait"} {
			_, body, _ := w.send("GET", w.url+"/v1/tenants/default/inspectors/"+string(w.inspector(eventhose.Inspector{}).ID)+"/requests?"+field+"=x", "", "Authorization", "Bearer "+adminKey)
			if err := json.Unmarshal([]byte(body), &problem); err != nil || len(problem.Errors) != 1 || problem.Errors[0].Field != field {
				t.Errorf("%s: %s", field, body)
			}
		}
	})
}
