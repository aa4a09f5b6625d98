package webhook

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/sign"
)

// batchOf answers a batch of events "e1", "e2" … with the sequences 2, 4, 6 … for a subscription in batch mode.
func batchOf(sub *eventhose.Subscription, n int) *sink.Batch {
	sub.Batch = eventhose.BatchPolicy{MaxEvents: 10, MaxBytes: 1 << 20}
	b := &sink.Batch{ID: "bat_x", Subscription: sub, Kind: eventhose.AttemptFirst, Number: 2}
	for i := 1; i <= n; i++ {
		b.Items = append(b.Items, sink.Item{Previous: eventhose.Sequence(2*i - 2), Event: &eventhose.Event{ID: fmt.Sprint("e", i), Tenant: "acme",
			Sequence: eventhose.Sequence(2 * i), Type: "order.paid", Time: time.Unix(1764000000, 0), Data: fmt.Appendf(nil, `{"n" : %d.0}`, i)}})
	}
	return b
}

func TestBatchRequest(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	sub := subscription(rec.url)
	b := batchOf(sub, 3)
	b.Items[1].Event.Key = "k"
	b.Items[2].Event.Data, b.Items[2].Event.ContentType = []byte{0, 255}, "image/png"
	taken(t, s.Send(t.Context(), b))
	got := rec.last(t)
	const want = `{"batch_id":"bat_x","events":[` +
		`{"type":"order.paid","timestamp":"2025-11-24T16:00:00Z","data":{"n" : 1.0},"id":"e1","sequence":2,"previous_sequence":0},` +
		`{"type":"order.paid","timestamp":"2025-11-24T16:00:00Z","data":{"n" : 2.0},"id":"e2","sequence":4,"key":"k","previous_sequence":2},` +
		`{"type":"order.paid","timestamp":"2025-11-24T16:00:00Z","data_base64":"AP8=","content_type":"image/png","id":"e3","sequence":6,"previous_sequence":4}]}`
	if string(got.body) != want || !json.Valid(got.body) {
		t.Errorf("body %s, want %s", got.body, want)
	}
	library, err := standardwebhooks.NewWebhook(string(sub.Secrets[0].Secret))
	if err != nil {
		t.Fatal(err)
	}
	if err := library.Verify(got.body, got.header); err != nil {
		t.Errorf("the standard's library refuses it: %v", err)
	}
	for name, want := range map[string]string{"webhook-id": "bat_x", "eventhose-sequence": "6", "eventhose-previous-sequence": "0", "eventhose-attempt": "2", "content-type": "application/json", "content-encoding": ""} {
		if got.header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.header.Get(name), want)
		}
	}
	// One event, and a test, are batches too.
	taken(t, s.Send(t.Context(), batchOf(sub, 1)))
	if got := rec.last(t); !bytes.HasPrefix(got.body, []byte(`{"batch_id":"bat_x","events":[{"type"`)) {
		t.Errorf("body %s", got.body)
	}
	b = batchOf(sub, 1)
	b.Kind, b.Items[0].Event.Sequence = eventhose.AttemptTest, 0
	taken(t, s.Send(t.Context(), b))
	if got := rec.last(t); got.header.Get("eventhose-test") != "true" || got.header.Get("eventhose-sequence") != "" {
		t.Errorf("%v", got.header)
	}
}

// What is compressed is signed as it was before.
func TestCompression(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	for _, make := range []func(*eventhose.Subscription) *sink.Batch{batch, func(sub *eventhose.Subscription) *sink.Batch { return batchOf(sub, 10) }} {
		sub := subscription(rec.url)
		sub.Destination.Compression = eventhose.CompressionGzip
		b := make(sub)
		b.Items[0].Event.Data = []byte(`"` + strings.Repeat("é", 50_000) + `"`)
		taken(t, s.Send(t.Context(), b))
		got := rec.last(t)
		if got.header.Get("content-encoding") != "gzip" || len(got.body) > 5_000 {
			t.Errorf("%d bytes, %v", len(got.body), got.header)
		}
		r, err := gzip.NewReader(bytes.NewReader(got.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(body, appendBody(nil, b)) {
			t.Errorf("%d bytes decompressed, %v", len(body), err)
		}
		if err := sign.Verify(got.header, body, time.Now(), 0, mustSecret(t, sub)); err != nil {
			t.Error(err)
		}
	}
}

// The exact bytes of both of CloudEvents' modes; that they are CloudEvents is for its SDK to say, in test/interop.
func TestCloudEvents(t *testing.T) {
	rec, s := newReceiver(t), newSink(t, loopback())
	sub := subscription(rec.url)
	sub.Destination.Format = eventhose.FormatCloudEvents
	one := batch(sub)
	one.Items[0].Event.Tenant, one.Items[0].Previous = "acme", 5
	taken(t, s.Send(t.Context(), one))
	got := rec.last(t)
	const first = `{"specversion":"1.0","id":"evt_sinktest","source":"/tenants/acme","type":"order.paid","time":"2025-11-24T16:00:00Z",` +
		`"sequence":"00000000000000000007","previoussequence":"00000000000000000005","datacontenttype":"application/json","data":{"amount":  12.50}}`
	if string(got.body) != first || got.header.Get("content-type") != "application/cloudevents+json" || got.header.Get("webhook-id") != "evt_sinktest" {
		t.Errorf("%v %s", got.header, got.body)
	}
	one.Items[0].Event.Scope = "src_01j9z3k4m5n6p7q8r9s0t1v2w0"
	taken(t, s.Send(t.Context(), one))
	if want := strings.Replace(first, "/tenants/acme", "/sources/src_01j9z3k4m5n6p7q8r9s0t1v2w0", 1); string(rec.last(t).body) != want {
		t.Errorf("an inbound source's: %s", rec.last(t).body)
	}
	b := batchOf(sub, 2)
	b.Items[0].Event.Scope, b.Items[0].Event.Key = "/shop/1", "k"
	b.Items[1].Event.Data, b.Items[1].Event.ContentType = []byte{0, 255}, "image/png"
	taken(t, s.Send(t.Context(), b))
	got = rec.last(t)
	const both = `[{"specversion":"1.0","id":"e1","source":"/shop/1","type":"order.paid","time":"2025-11-24T16:00:00Z","partitionkey":"k",` +
		`"sequence":"00000000000000000002","previoussequence":"00000000000000000000","batchid":"bat_x","datacontenttype":"application/json","data":{"n" : 1.0}},` +
		`{"specversion":"1.0","id":"e2","source":"/tenants/acme","type":"order.paid","time":"2025-11-24T16:00:00Z",` +
		`"sequence":"00000000000000000004","previoussequence":"00000000000000000002","batchid":"bat_x","datacontenttype":"image/png","data_base64":"AP8="}]`
	if string(got.body) != both || got.header.Get("content-type") != "application/cloudevents-batch+json" {
		t.Errorf("%v %s", got.header, got.body)
	}
	if err := sign.Verify(got.header, got.body, time.Now(), 0, mustSecret(t, sub)); err != nil {
		t.Error(err)
	}
}

// answers are bodies of a 2xx to a batch of e1, e2 and e3, and which of them that refuses.
var answers = map[string]string{
	"": "", "ok": "", "{}": "", "null": "", "[]": "", `{"failed":null}`: "", `{"failed":[]}`: "", `{"failed":[ ],"ok":true}`: "",
	`{"failed":0}`: "", `{"failed":false}`: "", `{"failed":""}`: "", `{"failed":{ }}`: "",
	`{"ok":true,"failed":[{"id":"e2"}]}`:                                    "e2:",
	" \r\n\t{\"failed\":[{\"id\":\"e2\",\"error\":\"no\\u0000 \\nroom\"}]}": "e2:no   room",
	`{"failed":[{"id":"e3","error":null},{"id":"e1","error":{"code":7}}]}`:  `e1:{"code":7} e3:`,
	`{"failed":[{"id":"e1"},{"id":"e1","error":"last"}]}`:                   "e1:last",
	`{"failed":[{"id":"e1"},{"id":"e2"},{"id":"e3"}]}`:                      "e1: e2: e3:",
	"\ufeff {\"failed\":[{\"id\":\"e2\"}]}":                                 "e2:", // as editors begin files, and PHP what comes of them
	`{"failed":[{"id":"e1"}]`:                                               "",
	`{"failed":[{"id":"e1"}]} x`:                                            "",
	`{"failed":[{"id":"e1"`:                                                 "",
	`{"failed":[{"id":"e1","error":"` + strings.Repeat("é", 1000) + `"}]}`:  "e1:" + strings.Repeat("é", 150),
	// It says that something failed and not, of this batch, what.
	`{"failed":["e1"]}`:                                     "e1: e2: e3:",
	`{"failed":[17]}`:                                       "e1: e2: e3:",
	`{"failed":[null]}`:                                     "e1: e2: e3:",
	`{"failed":[{}]}`:                                       "e1: e2: e3:",
	`{"failed":[{"id":17,"error":"x"}]}`:                    "e1: e2: e3:",
	`{"failed":[{"event":"e1"}]}`:                           "e1: e2: e3:",
	`{"failed":[{"id":"e9"}]}`:                              "e1: e2: e3:",
	`{"failed":[[{"id":"e1"}]]}`:                            "e1: e2: e3:",
	`{"failed":[{"id":"e1"},{"id":"e9"}]}`:                  "e1: e2: e3:",
	`{"failed":[{"id":7},{"id":"e2","error":"no room"},8]}`: "e1: e2:no room e3:",
	`{"failed":[{"id":"e1"}],"failed":["e2"]}`:              "e1: e2: e3:",
	`{"failed":"e1"}`:                                       "e1: e2: e3:",
	`{"failed":{"e1":"no room"}}`:                           "e1: e2: e3:",
	`{"failed":true}`:                                       "e1: e2: e3:",
	`{"failed":2,"taken":1}`:                                "e1: e2: e3:",
	// Beyond what is read: what does not end counts for all.
	`{"failed":[{"id":"e1","error":"` + strings.Repeat("x", egress.MaxBody):                                    "e1: e2: e3:",
	`{"failed":[{"id":"e1"},` + strings.Repeat(`{"id":"other"},`, egress.MaxBody/10):                           "e1: e2: e3:",
	`{"failed":["e1"],"log":"` + strings.Repeat("x", egress.MaxBody):                                           "e1: e2: e3:",
	`{"failed":"` + strings.Repeat("x", egress.MaxBody):                                                        "e1: e2: e3:",
	`{"failed":{` + strings.Repeat(" ", egress.MaxBody):                                                        "e1: e2: e3:",
	`{"failed":[],"log":"` + strings.Repeat("x", egress.MaxBody):                                               "",
	`{"failed":[{"id":"e1"}],"log":"` + strings.Repeat("x", egress.MaxBody):                                    "e1:",
	`{"log":"` + strings.Repeat("x", egress.MaxBody) + `","failed":[{"id":"e1"}]}`:                             "",
	`{"log":["` + strings.Repeat("x", 100) + `"],"failed":[{"id":"e1"},` + strings.Repeat(" ", egress.MaxBody): "e1: e2: e3:",
}

func TestPartialAnswers(t *testing.T) {
	var answer string
	status := 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	s := newSink(t, loopback())
	sub := subscription(server.URL)
	check := func(want string, r sink.Result) {
		t.Helper()
		var got []string
		for _, f := range r.Failed {
			got = append(got, f.ID+":"+f.Message)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%.60s: %q, want %q", answer, got, want)
		}
		outcome, reason := eventhose.OutcomeTaken, eventhose.ReasonNone
		if want != "" {
			outcome, reason = eventhose.OutcomeFailed, eventhose.ReasonPartly
		}
		if r.Outcome != outcome || r.Reason != reason || r.Status != status || (r.Message == "") != (want == "") {
			t.Errorf("%.60s: %s %s %d %q", answer, r.Outcome, r.Reason, r.Status, r.Message)
		}
	}
	for body, want := range answers {
		answer = body
		check(want, s.Send(t.Context(), batchOf(sub, 3)))
	}
	// Only a 2xx says so, and only to a batch.
	answer = `{"failed":[{"id":"e1"}]}`
	status = 201
	check("e1:", s.Send(t.Context(), batchOf(sub, 3)))
	status = 500
	if r := s.Send(t.Context(), batchOf(sub, 3)); r.Failed != nil || r.Reason != eventhose.ReasonStatus {
		t.Errorf("%+v", r)
	}
	status = 200
	answer = `{"failed":[{"id":"evt_sinktest"}]}`
	sub.Batch = eventhose.BatchPolicy{}
	check("", s.Send(t.Context(), batch(sub)))
	// What it says holds no secret.
	secret := string(sub.Secrets[0].Secret)
	answer = `{"failed":[{"id":"e1","error":"` + strings.Repeat(" ", 250) + secret + `"}]}`
	if r := s.Send(t.Context(), batchOf(sub, 3)); strings.Contains(fmt.Sprintf("%+v", r), secret[8:30]) || len(r.Failed) != 1 {
		t.Errorf("%+v", r)
	}
}

// Without Accept-Encoding a receiver may choose how it encodes its answer (RFC 9110, section 12.5.3). What failed counts all the same.
func TestCompressedPartialAnswer(t *testing.T) {
	var answer string
	cut := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		io.WriteString(z, answer)
		z.Close()
		w.Header().Set("Content-Encoding", "GZIP")
		w.Write(b.Bytes()[:b.Len()-cut])
	}))
	t.Cleanup(server.Close)
	s := newSink(t, loopback())
	sub := subscription(server.URL)
	for _, c := range []struct {
		answer string
		cut    int
		failed int
	}{
		{`{"failed":[{"id":"e2","error":"no room"}]}`, 0, 1},
		{`{"failed":[]}`, 0, 0},
		{"ok", 0, 0},
		{`{"failed":[{"id":"e2"}],"log":"` + strings.Repeat("x", 10<<20) + `"}`, 0, 1},
		{`{"failed":[{"id":"e2","error":"` + strings.Repeat("x", 10<<20) + `"}]}`, 0, 3},
		{`{"failed":[{"id":"e2"}]}`, 8, 1}, // without what ends it
		{"", 20, 0},
	} {
		answer, cut = c.answer, c.cut
		if r := s.Send(t.Context(), batchOf(sub, 3)); len(r.Failed) != c.failed || (r.Reason == eventhose.ReasonPartly) != (c.failed > 0) || r.Status != 200 {
			t.Errorf("%.60s cut by %d: %s %s, %d failed", c.answer, c.cut, r.Outcome, r.Reason, len(r.Failed))
		}
	}
}

func FuzzRefused(f *testing.F) {
	for body := range answers {
		if len(body) < 1000 { // long ones make fuzzing slow
			f.Add([]byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		list, ended := refused(body, false)
		if !ended {
			t.Fatal("what is read whole ends")
		}
		if len(list) > 0 && !json.Valid(bytes.TrimPrefix(body, []byte("\ufeff"))) {
			t.Fatalf("%q is no JSON and refuses %v", body, list)
		}
		// Wherever it is cut, it refuses what it did, or does not end, or has not come to all of it.
		for _, at := range []int{len(body) / 3, len(body) / 2, len(body) - 1} {
			if at < 0 {
				continue
			}
			less, ended := refused(body[:at], true)
			if ended && json.Valid(bytes.TrimPrefix(body, []byte("\ufeff"))) && (len(less) > len(list) || len(less) > 0 && !reflect.DeepEqual(less, list[:len(less)])) {
				t.Fatalf("%q refuses %v, and %v when cut at %d", body, list, less, at)
			}
		}
		for i := range list {
			if text := sink.Printable(list[i].text(), maxRefusal); len(text) > maxRefusal {
				t.Fatalf("%q", text)
			}
		}
	})
}

func FuzzCloudEvent(f *testing.F) {
	f.Add("order.paid", "evt_1", "", "k", []byte(`{"a": [1, 2.50]}`), "", uint64(1))
	f.Add("a", "é\"\\", "/shop/1", "", []byte{0xff}, "text/plain", uint64(0))
	f.Fuzz(func(t *testing.T, typ, id, scope, key string, data []byte, contentType string, sequence uint64) {
		e := &eventhose.Event{Tenant: "acme", Type: typ, ID: id, Scope: scope, Key: key, Data: data, ContentType: contentType, Sequence: eventhose.Sequence(sequence)}
		if e.Validate() != nil || e.JSON() && !json.Valid(data) {
			return // what no door lets in
		}
		body := appendCloudEvent(nil, &sink.Item{Event: e}, "bat_x")
		var got map[string]any
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if got["id"] != id || got["type"] != typ || scope != "" && got["source"] != scope || key != "" && got["partitionkey"] != key {
			t.Fatalf("%q does not say %+v", body, e)
		}
		for name := range got {
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" && name != "data_base64" {
				t.Fatalf("%s is not a name that CloudEvents allows", name)
			}
		}
		if e.JSON() && !bytes.Contains(body, append([]byte(`,"data":`), data...)) {
			t.Fatalf("%q does not hold %q", body, data)
		}
	})
}
