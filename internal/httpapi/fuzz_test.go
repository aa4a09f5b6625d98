package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
)

// Whatever a body parser accepts must be sound, by the judgement of encoding/json and of the words themselves: the
// fuzzers check that, not only that nothing crashes.

// sound checks events that a parser let in, and that they come out of the API as they went in.
func sound(t *testing.T, events []eventhose.Event) {
	t.Helper()
	for i := range events {
		e := &events[i]
		if err := e.Validate(); err != nil {
			t.Fatalf("accepted %+v: %v", e, err)
		}
		if e.Reserved() {
			t.Fatalf("accepted the type %q", e.Type)
		}
		if e.JSON() && !json.Valid(e.Data) {
			t.Fatalf("accepted data that is not JSON: %q", e.Data)
		}
		out := append(appendEvent(nil, e, eventhose.Cursor{}), '}')
		var back struct {
			ID, Type, Key string
			Attributes    map[string]string
			Data          json.RawMessage
			DataBase64    []byte `json:"data_base64"`
		}
		if err := json.Unmarshal(out, &back); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		data := []byte(back.Data)
		if !e.JSON() {
			data = back.DataBase64
		}
		// encoding/json does not give the white space around a value.
		if back.ID != e.ID || back.Type != e.Type || back.Key != e.Key || len(back.Attributes) != len(e.Attributes) || !bytes.Equal(data, trimmed(e)) {
			t.Fatalf("%+v came back as %s", e, out)
		}
	}
}

func trimmed(e *eventhose.Event) []byte {
	if e.JSON() {
		return bytes.Trim(e.Data, " \t\r\n")
	}
	return e.Data
}

// coded checks that a refusal has a code that is the client's fault and can be told.
func coded(t *testing.T, err error) {
	t.Helper()
	switch eventhose.CodeOf(err) {
	case eventhose.CodeMalformed, eventhose.CodeInvalid, eventhose.CodeTooLarge, eventhose.CodeUnsupported:
	default:
		t.Fatalf("refused with %q: %v", eventhose.CodeOf(err), err)
	}
	body, err := marshal(problemOf(eventhose.CodeOf(err), err))
	if err != nil || !utf8.Valid(body) {
		t.Fatalf("cannot be told: %v %q", err, body)
	}
}

var eventSeeds = []string{
	``, `{}`, `[]`, `null`, `{"type":"t","data":1}`, `[{"type":"t","data":{"a":[1,2.50,"é\u00e9"]}},{"type":"a.b","id":"x","key":"k","data":null}]`,
	`{"type":"t","content_type":"image/png","data_base64":"AAEC","attributes":{"a":"b"},"time":"2026-01-31T12:00:00Z","version":"1"}`,
	`{"type":"t","data":{"a":1,"a":2}}`, "{\"type\":\"\xff\",\"data\":1}", `{"type":"t","data":1}}`, `[{"type":"t","data":1},]`, `{"type":"t","data":` + strings.Repeat("[", 50),
	`{"type":"eventhose.x","data":1}`, `{"type":"t","data":"\ud800"}`, `{"type":"t","data": {"x" :1 } , "id":"a"}` + "\n",
}

func FuzzEvents(f *testing.F) {
	for _, s := range eventSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, _, err := decodeEvents(body)
		if err != nil {
			coded(t, err)
			return
		}
		if !json.Valid(body) {
			t.Fatalf("accepted what is not JSON: %q", body)
		}
		for i := range events {
			if events[i].JSON() && !bytes.Contains(body, []byte("data_base64")) && !bytes.Contains(body, events[i].Data) {
				t.Fatalf("data %q is not in the body %q", events[i].Data, body)
			}
		}
		sound(t, events)
	})
}

func FuzzLines(f *testing.F) {
	for _, s := range eventSeeds {
		f.Add([]byte(s + "\n" + s))
		f.Add([]byte(s + "\r\n\n" + s + "\n"))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := decodeLines(body)
		if err != nil {
			coded(t, err)
			return
		}
		if lines := len(bytes.FieldsFunc(body, func(r rune) bool { return r == '\n' })); len(events) > lines {
			t.Fatalf("%d events in %d lines", len(events), lines)
		}
		sound(t, events)
	})
}

var cloudSeeds = []string{
	`{"specversion":"1.0","id":"i","source":"/s","type":"t"}`,
	`{"specversion":"1.0","id":"i","source":"/s","type":"t","data":{"a":1.50},"subject":"s","n":7,"b":true,"x":null,"partitionkey":"k","time":"2026-01-31T12:00:00Z","dataschema":"/d"}`,
	`{"specversion":"1.0","id":"i","source":"/s","type":"t","datacontenttype":"text/plain","data":"a\u0000b"}`,
	`{"specversion":"1.0","id":"i","source":"/s","type":"t","datacontenttype":"image/png","data_base64":"AAEC"}`,
	`{"specversion":"1.0","id":"i","source":"/s","type":"t","data_base64":"e30="}`, `{"specversion":"1.0"}`, `{"ext":{}}`, `{"n":1e5}`,
}

func FuzzCloudEventStructured(f *testing.F) {
	for _, s := range cloudSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := decodeStructured(body)
		if err != nil {
			coded(t, err)
			return
		}
		if !json.Valid(body) || e.ID == "" || e.Scope == "" {
			t.Fatalf("accepted %q as %+v", body, e)
		}
		sound(t, []eventhose.Event{e})
	})
}

func FuzzCloudEventBatch(f *testing.F) {
	for _, s := range cloudSeeds {
		f.Add([]byte("[" + s + "," + s + "]"))
	}
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := decodeBatch(body)
		if err != nil {
			coded(t, err)
			return
		}
		if !json.Valid(body) {
			t.Fatalf("accepted %q", body)
		}
		sound(t, events)
	})
}

func FuzzCloudEventBinary(f *testing.F) {
	f.Add("1.0", "i", "/s", "t", "subject", "a%20b", "application/json", []byte(`{"a": 1}`))
	f.Add("1.0", "i", "/s", "t", "partitionkey", `"q\"uoted"`, "text/plain", []byte("\xff"))
	f.Add("1.0", "i%2", "/s", "t", "time", `2026-01-31T12:00:00Z`, "", []byte(""))
	f.Add("0.3", "i", "/s", "t", "a-b", "%ff", "a/b;", []byte("x"))
	f.Fuzz(func(t *testing.T, spec, id, source, typ, name, value, media string, body []byte) {
		h := http.Header{"Ce-Specversion": {spec}, "Ce-Id": {id}, "Ce-Source": {source}, "Ce-Type": {typ}}
		h.Set("Ce-"+name, value)
		if media != "" {
			h.Set("Content-Type", media)
		}
		e, err := decodeBinary(h, body)
		if err != nil {
			coded(t, err)
			return
		}
		if len(body) > 0 && !bytes.Equal(e.Data, body) {
			t.Fatalf("data %q of the body %q", e.Data, body)
		}
		sound(t, []eventhose.Event{e})
	})
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "after=0&limit=10&types=a.*,b&keys=k&wait=30s", "after=1a_7", "limit=99999999999999999999", "types=%ff", "a;b", "%zz", "limit=1&limit=2", "expression=type%20==%20'a'", "wait=1h", "x=1"} {
		f.Add(s)
	}
	a := &API{maxWait: 60e9}
	known := map[string]bool{"after": false, "limit": false, "types": true, "keys": true, "expression": false, "wait": false}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := readQuery(raw, known, false)
		if err != nil {
			coded(t, err)
			return
		}
		after, filter, limit, wait, err := a.readParameters(&exchange{query: q}, func() (eventhose.Head, error) { return eventhose.Head{Incarnation: 7, First: 1, Last: 9}, nil })
		if err != nil {
			coded(t, err)
			return
		}
		if limit < 1 || limit > maxLimit || wait < 0 || wait > a.maxWait || filter.Validate() != nil {
			t.Fatalf("accepted limit %d, wait %v, filter %+v", limit, wait, filter)
		}
		if again, err := eventhose.ParseCursor(after.String()); err != nil || again != after {
			t.Fatalf("the cursor %v does not read back", after)
		}
		if _, err := url.ParseQuery(raw); err != nil {
			t.Fatalf("accepted %q", raw)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add("Bearer abc", `"key"`, "application/json; charset=utf-8")
	f.Add("bearer", "k", "text/plain")
	f.Add("", `"`, ";")
	f.Fuzz(func(t *testing.T, auth, idempotency, media string) {
		if key, err := access.Bearer([]string{auth}); err == nil && (key == "" || len(string(key)) > access.MaxKeyLength) {
			t.Fatalf("accepted the key of %q", auth)
		}
		if key, err := idempotencyKey([]string{idempotency}); err == nil && (key == "" || len(key) > maxIdempotencyKey) {
			t.Fatalf("accepted %q as %q", idempotency, key)
		}
		if got, err := jsonType(http.Header{"Content-Type": {media}}, typeJSON); err == nil && got != typeJSON {
			t.Fatalf("accepted %q as %q", media, got)
		}
		r := &http.Request{Header: http.Header{"X-Request-Id": {idempotency}}}
		if id := requestID(r); id == "" || strings.ContainsAny(id, " \r\n\"") {
			t.Fatalf("the request id is %q", id)
		}
	})
}

func FuzzFrame(f *testing.F) {
	for _, s := range []string{``, `{}`, `null`, `[]`, `{"type":"grant","events":100}`, `{"type":"grant","events":-1}`, `{"type":"grant","events":1e400}`,
		`{"type":"ack","leases":["lse_00000000000000000000000000"]}`, `{"type":"nack","leases":["a"],"delay":"5s","message":"m\u0000"}`,
		`{"type":"extend","leases":["a"],"lease":"1m"}`, `{"type":"nack","leases":["a"],"delay":null}`, `{"type":"ack","leases":null}`, `{"type":"release","leases":["a"]}`, `{"type":"grant","events":1,"type":"ack"}`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, works bool) {
		got, err := parseFrame(b, works)
		if err != nil {
			coded(t, err)
			return
		}
		if !json.Valid(b) {
			t.Fatalf("accepted what is not JSON: %q", b)
		}
		if got.Type == frameGrant {
			if got.Events < 1 || got.Events > maxCredit || got.Leases != nil {
				t.Fatalf("accepted %+v", got)
			}
			return
		}
		answer := got.answer()
		if !works || doneTypes[got.Type] == "" || len(answer.Leases) == 0 || len(answer.Leases) > eventhose.MaxPull || answer.Delay < -1 {
			t.Fatalf("accepted %+v: %+v", got, answer)
		}
	})
}

func FuzzTicket(f *testing.F) {
	office := ticketOffice{eventhose.Secret(strings.Repeat("k", 32))}
	now := time.Unix(1_800_000_000, 0)
	made := office.write(ticket{"key_1", "acme", now.Add(time.Minute)})
	f.Add(string(made))
	f.Add(string(office.write(ticket{strings.Repeat("k", 255), "a", now.Add(time.Hour)})))
	f.Add("tkt_")
	f.Add("tkt_AQAAAABrSdM8BWtleV8xYWNtZQ")
	f.Add(string(made[:20]) + "\r\n" + string(made[20:]))
	f.Fuzz(func(t *testing.T, s string) {
		got, err := office.read(eventhose.Secret(s), now)
		if err != nil {
			if eventhose.CodeOf(err) != eventhose.CodeUnauthenticated {
				t.Fatal(err)
			}
		} else if again := office.write(got); string(again) != s {
			t.Fatalf("accepted %q, which says what %q says", s, again)
		}
		// What it is signed for is all that it can say.
		b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(s, ticketPrefix))
		if err == nil && len(b) < maxTicket/2 {
			signed := eventhose.Secret(ticketPrefix + base64.RawURLEncoding.EncodeToString(append(b, office.sign(b)...)))
			if got, err := office.read(signed, now); err == nil && (len(got.keyID)+len(got.tenant) != len(b)-10 || !got.expires.After(now)) {
				t.Fatalf("read %+v of %x", got, b)
			}
		}
	})
}

// FuzzLine checks that whatever is in an event, it is one line that says the same.
func FuzzLine(f *testing.F) {
	f.Add([]byte("{\n \"a\" :\t1.0,\r\n\"b\":\"x\\ny\"}"), "key", "text/plain")
	f.Add([]byte("\n\n"), "", "")
	f.Add([]byte("id: 7\r\rdata: x\n\n"), "a\r\nb", "text/plain")
	f.Fuzz(func(t *testing.T, data []byte, key, media string) {
		e := eventhose.Event{ID: "e", Type: "t", Key: key, ContentType: media, Data: data}
		if e.JSON() && !json.Valid(data) {
			return
		}
		line := appendLine([]byte("before"), &e, eventhose.Cursor{Incarnation: 1, Sequence: 2})
		if bytes.ContainsAny(line, "\n\r") || !bytes.HasPrefix(line, []byte("before{")) {
			t.Fatalf("%q is not one line", line)
		}
		var back struct {
			Key        string
			Data       json.RawMessage
			DataBase64 []byte `json:"data_base64"`
		}
		if err := json.Unmarshal(line[len("before"):], &back); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if !e.JSON() {
			if !bytes.Equal(back.DataBase64, data) {
				t.Fatalf("%q came back as %q", data, back.DataBase64)
			}
			return
		}
		var want bytes.Buffer
		var got bytes.Buffer
		if json.Compact(&want, data) != nil || json.Compact(&got, back.Data) != nil || !bytes.Equal(want.Bytes(), got.Bytes()) {
			t.Fatalf("%q came back as %q", data, back.Data)
		}
	})
}
