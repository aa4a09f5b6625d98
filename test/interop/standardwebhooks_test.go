package interop_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// arrived is a webhook as the receiver got it.
type arrived struct {
	headers http.Header
	body    []byte
}

// payloads are data that a decode-and-encode on the way would change.
var payloads = []string{
	`{"amount":4200,"currency":"EUR"}`,
	`{ "spaces" : [1,  2 ],` + "\n\t" + `"order":1}`,
	`{"big":12345678901234567890.10e+2,"z":1,"a":2}`,
	`{"html":"<b>&amp;</b>","escaped":"\u00e9\/","plain":"é\u2028 😀"}`,
	`"text"`, `null`, `[]`, `-0.0`, `1E400`,
}

// What we send is what other people's verifiers take: the Go and the JavaScript library of Standard Webhooks, over a
// real binary and real sockets, with the data as it was appended, also while two secrets are live.
func TestStandardWebhooksLibrariesVerify(t *testing.T) {
	url := serve(t)
	got := make(chan arrived, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- arrived{r.Header.Clone(), body}
	}))
	t.Cleanup(receiver.Close)

	tenant := url + "/v1/tenants/default"
	var subscription struct{ ID, Secret string }
	call(t, http.MethodPost, tenant+"/subscriptions", fmt.Sprintf(`{"ordering": "strict", "destination": {"type": "webhook", "url": %q}}`, receiver.URL), &subscription)
	secrets := []string{subscription.Secret}
	for round := range 2 {
		for i, data := range payloads {
			call(t, http.MethodPost, tenant+"/events", fmt.Sprintf(`{"type":"order.paid","id":"order-%d-%d","key":"k","data":%s}`, round, i, data), nil)
		}
		deliveries := make([]arrived, 0, len(payloads))
		for range payloads {
			deliveries = append(deliveries, next(t, got))
		}
		for i, d := range deliveries {
			if want := `"data":` + payloads[i]; !bytes.Contains(d.body, []byte(want)) {
				t.Errorf("%s does not hold %s", d.body, want)
			}
			if want := fmt.Sprintf("order-%d-%d", round, i); d.headers.Get("webhook-id") != want {
				t.Errorf("webhook-id %q, want %q", d.headers.Get("webhook-id"), want)
			}
		}
		for _, secret := range secrets {
			verifyGo(t, secret, deliveries)
			verifyNode(t, secret, deliveries)
		}
		call(t, http.MethodPost, tenant+"/subscriptions/"+subscription.ID+"/secret/rotate", `{"overlap":"24h"}`, &subscription)
		secrets = append(secrets, subscription.Secret)
	}
}

func next(t *testing.T, got <-chan arrived) arrived {
	t.Helper()
	select {
	case d := <-got:
		return d
	case <-time.After(30 * time.Second):
		t.Fatal("nothing arrived within 30 s")
		return arrived{}
	}
}

// call speaks plain HTTP, so that our own client cannot hide a mistake of our server.
func call(t *testing.T, method, url, body string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode < 200 || res.StatusCode > 299 {
		t.Fatalf("%s %s: %s %s, %v", method, url, res.Status, answer, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatalf("%s %s: %s, %v", method, url, answer, err)
		}
	}
}

// spoilt is d with one byte of its body changed, which every verifier must refuse.
func spoilt(d arrived) arrived {
	body := bytes.Clone(d.body)
	body[len(body)-2] ^= 1
	return arrived{d.headers, body}
}

func verifyGo(t *testing.T, secret string, deliveries []arrived) {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deliveries {
		if err := w.Verify(d.body, d.headers); err != nil {
			t.Errorf("Go: %v: %s", err, d.body)
		}
		if bad := spoilt(d); w.Verify(bad.body, bad.headers) == nil {
			t.Errorf("Go: takes a changed body %s", bad.body)
		}
	}
}

func verifyNode(t *testing.T, secret string, deliveries []arrived) {
	t.Helper()
	var in bytes.Buffer
	for _, d := range deliveries {
		for _, d := range []arrived{d, spoilt(d)} {
			headers := map[string]string{}
			for name := range d.headers {
				headers[strings.ToLower(name)] = d.headers.Get(name)
			}
			line, err := json.Marshal(map[string]any{"secret": secret, "headers": headers, "body": base64.StdEncoding.EncodeToString(d.body)})
			if err != nil {
				t.Fatal(err)
			}
			in.Write(append(line, '\n'))
		}
	}
	node := exec.CommandContext(t.Context(), "node", "verify.mjs")
	node.Stdin = &in
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("node: %v (test/needs installs what it needs)\n%s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2*len(deliveries) {
		t.Fatalf("node answered %d lines for %d webhooks", len(lines), 2*len(deliveries))
	}
	for i, d := range deliveries {
		if lines[2*i] != "ok" {
			t.Errorf("JavaScript: %s: %s", lines[2*i], d.body)
		}
		if lines[2*i+1] == "ok" {
			t.Errorf("JavaScript: takes a changed body %s", spoilt(d).body)
		}
	}
}
