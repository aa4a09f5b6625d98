package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func TestBody(t *testing.T) {
	at := time.Date(2026, 11, 22, 7, 33, 0, 500, time.FixedZone("x", 7200))
	for want, e := range map[string]eventhose.Event{
		`{"type":"a.b","timestamp":"2026-11-22T05:33:00.0000005Z","data":{"a" : 1.0e2},"id":"x","sequence":1}`: {Type: "a.b", ID: "x", Sequence: 1, Data: []byte(`{"a" : 1.0e2}`)},
		`{"type":"a","timestamp":"2026-11-22T05:33:00.0000005Z","data":["\ud800"],"id":"x","sequence":2}`:      {Type: "a", ID: "x", Sequence: 2, Data: []byte(`["\ud800"]`)},
		`{"type":"a","timestamp":"2026-11-22T05:33:00.0000005Z","data":[1,
2],"id":"q\"\\é\u003c","sequence":18446744073709551615,"key":"k\u0001"}`: {Type: "a", ID: "q\"\\é<", Sequence: 1<<64 - 1, Key: "k\x01", Data: []byte("[1,\n2]"), ContentType: "application/cloudevents+json; charset=utf-8"},
		`{"type":"a","timestamp":"2026-11-22T05:33:00.0000005Z","data_base64":"AP8=","content_type":"application/octet-stream","id":"x","sequence":2,"key":"k"}`: {Type: "a", ID: "x", Sequence: 2, Key: "k", Data: []byte{0, 255}, ContentType: "application/octet-stream"},
		`{"type":"a","timestamp":"2026-11-22T05:33:00.0000005Z","data_base64":"","content_type":"text/plain","id":"x","sequence":2}`:                             {Type: "a", ID: "x", Sequence: 2, ContentType: "text/plain"},
		`{"type":"a","timestamp":"2026-11-22T05:33:00.0000005Z","data":null,"erased":true,"id":"x","sequence":2}`:                                                {Type: "a", ID: "x", Sequence: 2, Erased: true},
		`{"type":"a","timestamp":"2026-11-22T05:33:00.0000005Z","data":null,"id":"x","sequence":2}`:                                                              {Type: "a", ID: "x", Sequence: 2},
	} {
		e.Time = at
		if got := string(appendEvent([]byte("before"), &e)); got != "before"+want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// checkBody holds what is appended against the standard decoder: valid JSON that says what the event says, in the agreed
// order of fields, with the data's bytes as they are.
func checkBody(t interface{ Fatalf(string, ...any) }, e *eventhose.Event) {
	body := appendEvent(nil, e)
	var got struct {
		Type        string          `json:"type"`
		Timestamp   time.Time       `json:"timestamp"`
		Data        json.RawMessage `json:"data"`
		Base64      *[]byte         `json:"data_base64"`
		ContentType string          `json:"content_type"`
		Erased      bool            `json:"erased"`
		ID          string          `json:"id"`
		Sequence    uint64          `json:"sequence"`
		Key         string          `json:"key"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil || d.InputOffset() != int64(len(body)) {
		t.Fatalf("%q: %v", body, err)
	}
	if got.Type != e.Type || got.ID != e.ID || got.Sequence != uint64(e.Sequence) || got.Key != e.Key || !got.Timestamp.Equal(e.Time) || got.Erased != e.Erased {
		t.Fatalf("%q does not say %+v", body, e)
	}
	switch {
	case e.Erased:
	case e.JSON() && len(e.Data) > 0:
		if !bytes.Contains(body, append([]byte(`,"data":`), append(bytes.Clone(e.Data), `,"id":`...)...)) {
			t.Fatalf("%q does not hold %q", body, e.Data)
		}
	case !e.JSON():
		if got.Base64 == nil || !bytes.Equal(*got.Base64, e.Data) || got.ContentType != e.ContentType || !bytes.Contains(body, []byte(base64.StdEncoding.EncodeToString(e.Data))) {
			t.Fatalf("%q does not hold %q", body, e.Data)
		}
	}
	var names []string
	d = json.NewDecoder(bytes.NewReader(body))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
			} else {
				depth--
			}
		case string:
			if depth == 1 && (len(names) == 0 || names[len(names)-1] != "") {
				names = append(names, v)
			}
		}
	}
	if names[0] != "type" {
		t.Fatalf("%q begins with %q", body, names[0])
	}
}

func TestBodyProperties(t *testing.T) {
	jsonText := rapid.Custom(func(t *rapid.T) []byte {
		var v any
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			v = rapid.MapOf(rapid.String(), rapid.Float64()).Draw(t, "object")
		case 1:
			v = rapid.SliceOf(rapid.String()).Draw(t, "array")
		case 2:
			v = rapid.String().Draw(t, "string")
		case 3:
			v = rapid.Int64().Draw(t, "number")
		}
		var b []byte
		var err error
		if rapid.Bool().Draw(t, "indent") {
			b, err = json.MarshalIndent(v, " ", "\t")
		} else {
			b, err = json.Marshal(v)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	rapid.Check(t, func(t *rapid.T) {
		e := &eventhose.Event{
			Type: rapid.StringMatching(`[a-z]{1,8}(\.[a-z]{1,8}){0,2}`).Draw(t, "type"), ID: rapid.String().Draw(t, "id"), Key: rapid.String().Draw(t, "key"),
			Sequence: eventhose.Sequence(rapid.Uint64().Draw(t, "sequence")),
			Time:     time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "ns")),
		}
		if rapid.Bool().Draw(t, "json") {
			e.Data = jsonText.Draw(t, "data")
		} else {
			e.Data, e.ContentType = rapid.SliceOf(rapid.Byte()).Draw(t, "data"), "application/x-thing"
		}
		checkBody(t, e)
	})
}

func FuzzBody(f *testing.F) {
	f.Add("order.paid", "evt_1", "k", []byte(`{"a": [1, 2.50]}`), "", uint64(1), int64(1764000000))
	f.Add("a", "é\"\\", "\x7f", []byte{0xff}, "text/plain", uint64(0), int64(0))
	f.Add("a", "", "", []byte("1"), "", uint64(1), int64(253402300800)) // the year 10000
	f.Add("a", "", "", []byte("1"), "", uint64(1), int64(-62135596801)) // the year 0
	f.Fuzz(func(t *testing.T, typ, id, key string, data []byte, contentType string, sequence uint64, seconds int64) {
		e := &eventhose.Event{Type: typ, ID: id, Key: key, Data: data, ContentType: contentType, Sequence: eventhose.Sequence(sequence), Time: store.EventTime(time.Unix(seconds, 0))}
		if e.Validate() != nil || e.JSON() && !json.Valid(data) {
			return // what no door lets in
		}
		checkBody(t, e)
	})
}
