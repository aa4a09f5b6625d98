package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// told is an event as a client of ours would read it, with an independent decoder that keeps data as it came.
type told struct {
	ID          string            `json:"id"`
	Type        string            `json:"type"`
	Sequence    uint64            `json:"sequence"`
	Key         string            `json:"key"`
	Time        string            `json:"time"`
	Cursor      string            `json:"cursor"`
	Source      string            `json:"source"`
	Version     string            `json:"version"`
	Attributes  map[string]string `json:"attributes"`
	ContentType string            `json:"content_type"`
	Data        json.RawMessage   `json:"data"`
	DataBase64  *string           `json:"data_base64"`
	Erased      bool              `json:"erased"`
}

type toldPage struct {
	Data    []told `json:"data"`
	Cursor  string `json:"cursor"`
	HasMore bool   `json:"has_more"`
}

func (w *world) page(path string) toldPage {
	w.t.Helper()
	r := w.want(200, w.root("GET", path, ""))
	var p toldPage
	if err := json.Unmarshal(r.body, &p); err != nil {
		w.t.Fatalf("%s: %v", r.body, err)
	}
	return p
}

const events = "/v1/tenants/acme/events"

// TestAppendForms appends one event in each form and reads it back as it must come out.
func TestAppendForms(t *testing.T) {
	const odd = "{ \"b\":1.50,\t\"a\" : [ 1e3,\"\\u00e9\\/ é\" ],\n \"big\":123456789012345678901234567890 }"
	png := base64.StdEncoding.EncodeToString([]byte("\x89PNG\x00\xff"))
	ce := []string{"Ce-Specversion", "1.0", "Ce-Id", "i1", "Ce-Source", "/shop", "Ce-Type", "order.paid"}
	with := func(more ...string) []string { return append(append([]string{}, ce...), more...) }
	for _, c := range []struct {
		name    string
		headers []string
		body    string
		want    told
		many    bool
	}{
		{"one", nil, `{"type":"order.paid","data":` + odd + `}`, told{Type: "order.paid", Data: []byte(odd)}, false},
		{"everything", nil, ` {"version":"2","attributes":{"a.b":"c"},"key":"k é","id":"me","time":"2026-01-31T12:00:00.5+01:00","data":null,"type":"t"} `,
			told{ID: "me", Type: "t", Key: "k é", Time: "2026-01-31T11:00:00.5Z", Version: "2", Attributes: map[string]string{"a.b": "c"}, Data: []byte("null")}, false},
		{"json type", nil, `{"type":"t","content_type":"application/vnd.x+json","data":[1]}`, told{Type: "t", ContentType: "application/vnd.x+json", Data: []byte("[1]")}, false},
		{"binary data", nil, `{"type":"t","content_type":"image/png","data_base64":"` + png + `"}`, told{Type: "t", ContentType: "image/png", DataBase64: &png}, false},
		{"json in base64", nil, `{"type":"t","content_type":"application/json","data_base64":"eyB9"}`, told{Type: "t", Data: []byte("{ }")}, false},
		{"half of a pair", nil, `[{"type":"t","id":"h","data":{"\ud800":["\uDC00\ud800","\ud83d\ude00","\ud800\u0041"]}}]`, told{ID: "h", Type: "t", Data: []byte(`{"\ud800":["\uDC00\ud800","\ud83d\ude00","\ud800\u0041"]}`)}, true},
		{"half of a pair in base64", nil, `{"type":"t","content_type":"application/json","data_base64":"` + base64.StdEncoding.EncodeToString([]byte(`"\udfff"`)) + `"}`, told{Type: "t", Data: []byte(`"\udfff"`)}, false},
		{"half of a pair on a line", []string{"Content-Type", "application/x-ndjson"}, `{"type":"t","data":"\ud800"}`, told{Type: "t", Data: []byte(`"\ud800"`)}, true},
		{"ce binary half of a pair", with("Content-Type", "application/json"), `"\ud800"`, told{ID: "i1", Source: "/shop", Type: "order.paid", Data: []byte(`"\ud800"`)}, false},
		{"ce half of a pair", []string{"Content-Type", "application/cloudevents+json"}, `{"specversion":"1.0","id":"i0","source":"/shop","type":"t","data":["\ud800"]}`, told{ID: "i0", Source: "/shop", Type: "t", Data: []byte(`["\ud800"]`)}, false},
		{"array", nil, `[ {"type":"t","data":` + odd + `} ]`, told{Type: "t", Data: []byte(odd)}, true},
		{"lines", []string{"Content-Type", "application/x-ndjson"}, "\n{\"type\":\"t\",\"data\":{\"a\": 1}}\r\n\n", told{Type: "t", Data: []byte(`{"a": 1}`)}, true},
		{"charset", []string{"Content-Type", "application/json; charset=UTF-8"}, `{"type":"t","data":1}`, told{Type: "t", Data: []byte("1")}, false},
		{"ce binary", with("Ce-Subject", "a%20%C3%A9", "Ce-Partitionkey", `"k 1"`, "Ce-Time", "2026-01-31T12:00:00Z", "Ce-Dataschema", "/s", "Content-Type", "application/json"), odd,
			told{ID: "i1", Source: "/shop", Type: "order.paid", Key: "k 1", Time: "2026-01-31T12:00:00Z", Attributes: map[string]string{"subject": "a é", "dataschema": "/s"}, Data: []byte(odd)}, false},
		{"ce binary text", with("Ce-Id", "i2", "Content-Type", "text/plain; charset=latin1"), "\xe9", told{ID: "i2", Source: "/shop", Type: "order.paid", ContentType: "text/plain; charset=latin1", DataBase64: p("6Q==")}, false},
		{"ce binary without data", with("Ce-Id", "i3"), "", told{ID: "i3", Source: "/shop", Type: "order.paid", Data: []byte("null")}, false},
		{"ce structured", []string{"Content-Type", "application/cloudevents+json; charset=utf-8"},
			`{"specversion":"1.0","id":"i4","source":"/shop","type":"order.paid","subject":"s","n":7,"flag":true,"gone":null,"partitionkey":"k","data":` + odd + `}`,
			told{ID: "i4", Source: "/shop", Type: "order.paid", Key: "k", Attributes: map[string]string{"subject": "s", "n": "7", "flag": "true"}, Data: []byte(odd)}, false},
		{"ce structured xml", []string{"Content-Type", "application/cloudevents+json"},
			`{"specversion":"1.0","id":"i5","source":"/shop","type":"t","datacontenttype":"application/xml","data":"<a b=\"c\"/>"}`,
			told{ID: "i5", Source: "/shop", Type: "t", ContentType: "application/xml", DataBase64: p(base64.StdEncoding.EncodeToString([]byte(`<a b="c"/>`)))}, false},
		{"ce structured base64", []string{"Content-Type", "application/cloudevents+json"},
			`{"data_base64":"AAEC","specversion":"1.0","id":"i6","source":"/shop","type":"t","datacontenttype":"application/octet-stream"}`,
			told{ID: "i6", Source: "/shop", Type: "t", ContentType: "application/octet-stream", DataBase64: p("AAEC")}, false},
		{"ce delivered by another server", []string{"Content-Type", "application/cloudevents+json"},
			`{"specversion":"1.0","id":"i8","source":"/tenants/acme","type":"t","shop":"1","sequence":"00000000000000000005","previoussequence":"00000000000000000000","batchid":"bat_x","data":1}`,
			told{ID: "i8", Source: "/tenants/acme", Type: "t", Attributes: map[string]string{"shop": "1"}, Data: []byte("1")}, false},
		{"ce with a sequence of its own", []string{"Content-Type", "application/cloudevents+json"},
			`{"specversion":"1.0","id":"i9","source":"/mill","type":"t","sequence":"5","previoussequence":"4","batchid":"7","data":1}`,
			told{ID: "i9", Source: "/mill", Type: "t", Attributes: map[string]string{"sequence": "5", "previoussequence": "4", "batchid": "7"}, Data: []byte("1")}, false},
		{"ce batch", []string{"Content-Type", "application/cloudevents-batch+json"},
			`[{"specversion":"1.0","id":"i7","source":"/shop","type":"t","data":` + odd + `}]`,
			told{ID: "i7", Source: "/shop", Type: "t", Data: []byte(odd)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			answer := w.want(202, w.root("POST", events, c.body, c.headers...)).json(t)
			if c.many {
				answer = answer["events"].([]any)[0].(map[string]any)
			}
			if answer["sequence"] != 1.0 || answer["duplicate"] != false || len(answer) != 3 {
				t.Errorf("answered %v", answer)
			}
			got := w.page(events + "?after=0").Data[0]
			if got.ID != answer["id"] || got.Sequence != 1 || got.Cursor == "" {
				t.Errorf("read back %+v", got)
			}
			if c.want.ID == "" {
				got.ID = ""
			}
			if c.want.Time == "" {
				got.Time = ""
			}
			got.Sequence, got.Cursor = 0, ""
			if a, b := fmt.Sprintf("%+v %s", got, deref(got.DataBase64)), fmt.Sprintf("%+v %s", c.want, deref(c.want.DataBase64)); strip(a) != strip(b) {
				t.Errorf("got  %s\nwant %s", a, b)
			}
			if !bytes.Equal(got.Data, c.want.Data) {
				t.Errorf("data is %q, want %q", got.Data, c.want.Data)
			}
			// The same again is the same event, if the client named it.
			if c.want.ID != "" {
				again := w.want(202, w.root("POST", events, c.body, c.headers...))
				if !strings.Contains(string(again.body), `"sequence":1,"duplicate":true`) {
					t.Errorf("again: %s", again.body)
				}
			}
		})
	}
}

func p(s string) *string { return &s }

func deref(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}

// strip takes pointers out of a formatted struct.
func strip(s string) string {
	i := strings.Index(s, "DataBase64:")
	j := strings.Index(s[i:], " ")
	return s[:i] + s[i+j:]
}

func TestAppendMany(t *testing.T) {
	w := newWorld(t, nil)
	answer := w.want(202, w.root("POST", events, `[{"type":"a","data":1},{"type":"b","id":"x","data":2},{"type":"c","data":3}]`)).json(t)
	var got []string
	for _, e := range answer["events"].([]any) {
		got = append(got, fmt.Sprint(e.(map[string]any)["sequence"]))
	}
	if strings.Join(got, " ") != "1 2 3" {
		t.Errorf("placed at %v", got)
	}
	// A conflict of one refuses all.
	w.refused(eventhose.CodeConflict, "events[1].id", w.root("POST", events, `[{"type":"a","data":1},{"type":"b","id":"x","data":3}]`))
	w.refused(eventhose.CodeConflict, "events[0].id", w.root("POST", events, `[{"type":"b","id":"x","data":3}]`))
	w.refused(eventhose.CodeConflict, "id", w.root("POST", events, `{"type":"b","id":"x","data":3}`))
	if page := w.page(events + "?after=0"); len(page.Data) != 3 {
		t.Errorf("%d events are in the log", len(page.Data))
	}
	if r := w.want(202, w.root("POST", events, `[]`, "Content-Type", "application/cloudevents-batch+json")); string(r.body) != `{"events":[]}` {
		t.Errorf("an empty batch: %s", r.body)
	}
}

// TestAppendRefused has the bad bodies, with what is said of each. Nothing of them may reach the log.
func TestAppendRefused(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.MaxBody = 3 << 20 })
	const lines, structured, batch = "application/x-ndjson", "application/cloudevents+json", "application/cloudevents-batch+json"
	const good = `{"type":"t","data":1}`
	const ce = `{"specversion":"1.0","id":"i","source":"/s","type":"t"`
	const source = "src_01j9z3k4m5n6p7q8r9s0t1v2w0" // as if it had come through one
	const through = `{"specversion":"1.0","id":"i","source":"` + source + `","type":"t"}`
	deep := strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001)
	for _, c := range []struct {
		typ, body string
		code      eventhose.Code
		field     string
	}{
		{"", ``, "malformed", ""},
		{"", ` `, "malformed", ""},
		{"", `{`, "malformed", ""},
		{"", `{"type":"t","data":1} x`, "malformed", ""},
		{"", `{"type":"t","data":1}{}`, "malformed", ""},
		{"", `[` + good + `] ]`, "malformed", ""},
		{"", `[` + good, "malformed", ""},
		{"", `{"type":"t","type":"t","data":1}`, "malformed", "type"},
		{"", `{"type":"t","data":{"a":{"b":1,"b":2}}}`, "malformed", "data.a.b"},
		{"", `[` + good + `,{"type":"t","data":{"b":1,"b":2}}]`, "malformed", "events[1].data.b"},
		{"", "{\"type\":\"t\",\"data\":\"\xff\"}", "malformed", "data"},
		{"", "{\"type\":\"t\\ud800\",\"data\":1}", "malformed", "type"},
		{"", `{"type":"t","data":1,"id":"\ud800"}`, "malformed", "id"},
		{"", `[` + good + `,{"type":"t","data":1,"attributes":{"a":"\udc00x"}}]`, "malformed", "events[1].attributes.a"},
		{"", `{"type":"t","data":1,"attributes":{"\ud800":"x"}}`, "invalid", "attributes"},
		{"", `{"type":"t","data":1,"\ud800":"x"}`, "invalid", "�"},
		{"", "{\"type\":\"t\",\"data\":[\"\\ud800\",\"\xed\xa0\x80\"]}", "malformed", "data[0]"},
		{"", `{"type":"t","data":{"\ud800":1,"\ud800":2}}`, "malformed", "data.�"},
		{"", `{"type":"t","data":"\ud8"}`, "malformed", "data"},
		{"", `{"type":"t","data":01}`, "malformed", ""},
		{"", `"t"`, "invalid", ""},
		{"", `7`, "invalid", ""},
		{"", `[]`, "invalid", "events"},
		{"", `[7]`, "invalid", "events[0]"},
		{"", `{"type":"t"}`, "invalid", "data"},
		{"", `{"data":1}`, "invalid", "type"},
		{"", `{"type":7,"data":1}`, "invalid", "type"},
		{"", `{"type":null,"data":1}`, "invalid", "type"},
		{"", `{"type":"a..b","data":1}`, "invalid", "type"},
		{"", `{"type":"eventhose.x","data":1}`, "invalid", "type"},
		{"", `{"type":"eventhose.test","data":1}`, "invalid", "type"},
		{"", `{"type":"t","data":1,"foo":2}`, "invalid", "foo"},
		{"", `[` + good + `,` + good + `,` + good + `,{"type":"t","data":1,"foo":2}]`, "invalid", "events[3].foo"},
		{"", `{"type":"t","data":1,"sequence":2}`, "invalid", "sequence"},
		{"", `{"type":"t","data":1,"id":""}`, "invalid", "id"},
		{"", `{"type":"t","data":1,"id":"a\nb"}`, "invalid", "id"},
		{"", `{"type":"t","data":1,"time":"yesterday"}`, "invalid", "time"},
		{"", `{"type":"t","data":1,"time":7}`, "invalid", "time"},
		{"", `{"type":"t","data":1,"time":"9999-12-31T23:59:59-01:00"}`, "invalid", "time"},
		{"", `{"type":"t","data":1,"time":"0001-01-01T00:00:00+01:00"}`, "invalid", "time"},
		{lines, good + "\n" + `{"type":"t","data":1,"time":"9999-12-31T23:59:59-01:00"}`, "invalid", "events[1].time"},
		{"", `{"type":"t","data":1,"attributes":[]}`, "invalid", "attributes"},
		{"", `{"type":"t","data":1,"attributes":{"a":7}}`, "invalid", "attributes.a"},
		{"", `{"type":"t","data":1,"attributes":{"a b":"7"}}`, "invalid", "attributes"},
		{"", `{"type":"t","data":1,"data_base64":"AA=="}`, "invalid", "data_base64"},
		{"", `{"type":"t","data_base64":"AA=="}`, "invalid", "content_type"},
		{"", `{"type":"t","content_type":"a/b","data_base64":"AA"}`, "invalid", "data_base64"},
		{"", `{"type":"t","content_type":"application/json","data_base64":"AA=="}`, "invalid", "data_base64"},
		{"", `{"type":"t","content_type":"text/plain","data":"x"}`, "invalid", "content_type"},
		{"", `{"type":"t","content_type":"nonsense","data_base64":""}`, "invalid", "content_type"},
		{"", `{"type":"t","data":` + deep + `}`, "malformed", "data" + strings.Repeat("[0]", 19) + "…"},
		{"", `{"type":"t","data":"` + strings.Repeat("x", 1<<20) + `"}`, "too_large", "data"},
		{"", `[` + good + strings.Repeat(","+good, 10_000) + `]`, "too_large", "events"},
		{"", `[` + strings.Repeat(" ", 3<<20) + `]`, "too_large", ""},
		{lines, good + "\n" + `{"type":"t","data":{"a":1,"a":2}}`, "malformed", "events[1].data.a"},
		{lines, good + "\n" + `{"type":"t"`, "malformed", "events[1]"},
		{lines, good + "\n\n" + `{"type":"t"}`, "invalid", "events[1].data"},
		{lines, good + good, "malformed", ""},
		{lines, "[" + good + "]", "invalid", "events[0]"},
		{lines, "\n \n", "invalid", "events"},
		{lines, strings.Repeat(good+"\n", 10_001), "too_large", "events"},
		{structured, ce + `,"specversion":"1.0"}`, "malformed", "specversion"},
		{structured, `{"id":"i","source":"/s","type":"t"}`, "invalid", "specversion"},
		{structured, `{"specversion":"0.3","id":"i","source":"/s","type":"t"}`, "invalid", "specversion"},
		{structured, `{"specversion":"1.0","id":"i","type":"t"}`, "invalid", "source"},
		{structured, `{"specversion":"1.0","id":"","source":"/s","type":"t"}`, "invalid", "id"},
		{structured, ce + `,"Upper":"x"}`, "invalid", "Upper"},
		{structured, ce + `,"ext":{"a":1}}`, "invalid", "ext"},
		{structured, ce + `,"ext":1.5}`, "invalid", "ext"},
		{structured, ce + `,"time":"now"}`, "invalid", "time"},
		{structured, ce + `,"time":"9999-12-31T23:59:59-01:00"}`, "invalid", "time"},
		{structured, ce + `,"data":1,"data_base64":"AA=="}`, "invalid", "data_base64"},
		{structured, ce + `,"datacontenttype":"text/plain","data":{}}`, "invalid", "data"},
		{structured, ce + `,"subject":"\ud800"}`, "malformed", "subject"},
		{structured, ce + `,"datacontenttype":"text/plain","data":"\ud800"}`, "invalid", "data"},
		{structured, `{"specversion":"1.0","id":"i","source":"/s","type":"eventhose.subscription.disabled"}`, "invalid", "type"},
		{structured, `[` + ce + `}]`, "invalid", ""},
		{batch, ce + `}`, "invalid", "events"},
		{batch, `[` + ce + `},{"specversion":"1.0"}]`, "invalid", "events[1].id"},
		{structured, through, "invalid", "source"},
		{batch, `[` + through + `]`, "invalid", "events[0].source"},
		{batch, `[` + ce + `},` + through + `]`, "invalid", "events[1].source"},
		{"", `{"type":"t","data":1,"attributes":{"source":"` + source + `"}}`, "invalid", "attributes.source"},
		{lines, good + "\n" + `{"type":"t","data":1,"attributes":{"source":"` + source + `"}}`, "invalid", "events[1].attributes.source"},
		{"text/plain", good, "unsupported_media_type", "Content-Type"},
		{"application/x-www-form-urlencoded", good, "unsupported_media_type", "Content-Type"},
		{"application/json; charset=utf-16", good, "unsupported_media_type", "Content-Type"},
		{"-", good, "unsupported_media_type", "Content-Type"},
	} {
		headers := []string{"Content-Type", "application/json"}
		if c.typ == "-" {
			headers[1] = ""
		} else if c.typ != "" {
			headers[1] = c.typ
		}
		r := w.root("POST", events, c.body, headers...)
		if len(c.body) > 100 {
			c.body = c.body[:100] + "…"
		}
		r.what = c.typ + " " + c.body
		w.refused(c.code, c.field, r)
	}
	for _, c := range []struct {
		field   string
		headers []string
		code    eventhose.Code
	}{
		{"ce-specversion", []string{"Ce-Id", "i", "Ce-Source", "/s", "Ce-Type", "t"}, "invalid"},
		{"ce-id", []string{"Ce-Specversion", "1.0", "Ce-Source", "/s", "Ce-Type", "t"}, "invalid"},
		{"ce-subject", []string{"Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", "/s", "Ce-Type", "t", "Ce-Subject", "%zz"}, "invalid"},
		{"ce-subject", []string{"Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", "/s", "Ce-Type", "t", "Ce-Subject", "%ff"}, "invalid"},
		{"ce-a_b", []string{"Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", "/s", "Ce-Type", "t", "Ce-A_b", "x"}, "invalid"},
		{"ce-data", []string{"Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", "/s", "Ce-Type", "t", "Ce-Data", "x"}, "invalid"},
		{"ce-datacontenttype", []string{"Ce-Specversion", "1.0", "Ce-Datacontenttype", "a/b"}, "invalid"},
		{"source", []string{"Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", source, "Ce-Type", "t"}, "invalid"},
		{"source", []string{"Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", "%73rc" + source[3:], "Ce-Type", "t"}, "invalid"},
	} {
		w.refused(c.code, c.field, w.root("POST", events, `1`, c.headers...))
	}
	w.refused("malformed", "a", w.root("POST", events, `{"a":1,"a":1}`, "Ce-Specversion", "1.0", "Ce-Id", "i", "Ce-Source", "/s", "Ce-Type", "t"))
	if page := w.page(events + "?after=0"); len(page.Data) != 0 {
		t.Errorf("%d events got in", len(page.Data))
	}
	if got := w.metric("eventhose_events_ingested_total"); got != "0" {
		t.Errorf("%s events were counted", got)
	}
}

func zip(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

func TestEncodedBodies(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) { o.MaxBody = 1 << 20 })
	good := `{"type":"t","data":1}`
	w.want(202, w.root("POST", events, zip(good), "Content-Encoding", "gzip"))
	w.want(202, w.root("POST", events, zip(good[:5])+zip(good[5:]), "Content-Encoding", "gzip"))
	w.want(202, w.root("POST", events, good, "Content-Encoding", "identity"))
	bomb := zip(strings.Repeat(" ", 8<<20))
	if len(bomb) > 1<<20 {
		t.Fatal("the bomb is too large to pass")
	}
	w.refused("too_large", "", w.root("POST", events, bomb, "Content-Encoding", "gzip"))
	w.refused("too_large", "", w.root("POST", events, strings.Repeat(" ", 1<<20+1)))
	w.refused("malformed", "", w.root("POST", events, good, "Content-Encoding", "gzip"))
	w.refused("malformed", "", w.root("POST", events, zip(good)[:20], "Content-Encoding", "gzip"))
	for _, e := range []string{"br", "gzip, gzip", "deflate", "x-gzip"} {
		w.refused("unsupported_media_type", "Content-Encoding", w.root("POST", events, zip(zip(good)), "Content-Encoding", e))
	}
	// Without a length, as chunks.
	for size, status := range map[int]int{100: 202, 1 << 21: 413} {
		req, _ := http.NewRequest("POST", w.server.URL+events, io.MultiReader(strings.NewReader(good), strings.NewReader(strings.Repeat(" ", size))))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+rootKey)
		res, err := w.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%d chunked bytes: %d, want %d", size, res.StatusCode, status)
		}
	}
	if n := len(w.page(events + "?after=0").Data); n != 4 {
		t.Errorf("%d events in the log", n)
	}
}

// metric answers the value of a metric without labels, or the sum's text of one line that begins so.
func (w *world) metric(name string) string {
	w.t.Helper()
	for line := range strings.Lines(string(w.call("", "GET", "/metrics", "").body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
