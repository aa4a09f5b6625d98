package httpapi

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
)

// plainShapes are bodies that scanner must read by itself: nearly all that comes in looks like one of them.
var plainShapes = []string{
	`{"type":"order.paid","data":{"id":1,"lines":[{"sku":"a","n":2},{"sku":"b","n":-0.5e+3}],"ok":true,"no":false,"nil":null,"s":"é \u00e9 \n \" \\ \/"}}`,
	` [ {"type" : "a" , "data" : [ ] } , {"data":{},"type":"a","id":"x","key":"k","version":"1","time":"2026-01-31T12:00:00.5+01:00","content_type":"application/json"} ] `,
	`[{"type":"t","attributes":{"a":"b","c":"d"},"content_type":"application/vnd.x+json","data":"x"},{"type":"t","attributes":{},"data":0}]`,
	`{"type":"t","data":{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}}`,
	"{\"type\":\"t\",\"data\":{\"0123456789abcdef\":1,\"0123456789abcdeg\":\"0123456\x7f789é abcdefghijkl\"}}",
}

// notPlain are bodies that reader refuses, or alone may take.
var notPlain = []string{
	`{"type":"t","data":{"a":1,"a":2}}`, `{"type":"t","data":{"a":1,"\u0061":2}}`, `{"type":"t","data":[{"b":{"a":1,"c":2,"a":3}}]}`, `{"type":"t","type":"t","data":1}`,
	`{"type":"t","data":1,"data":1}`, `{"type":"t","attributes":{"a":"1","a":"2"},"data":1}`, `{"type":"t","data":1,}`, `[{"type":"t","data":1},]`, `[]`, `{}`, ``,
	`{"type":"t","data":01}`, `{"type":"t","data":1.}`, `{"type":"t","data":1e}`, `{"type":"t","data":-}`, `{"type":"t","data":+1}`, `{"type":"t","data":tru}`, `{"type":"t","data":nulls}`,
	`{"type":"t","data":"\ud800"}`, `{"type":"t","data":"\x"}`, `{"type":"t","data":"\u12g4"}`, `{"type":"t","data":"\u12"}`, "{\"type\":\"t\",\"data\":\"\x1f\"}", "{\"type\":\"t\",\"data\":\"1234567\xff\"}",
	"{\"type\":\"t\",\"data\":\"\xed\xa0\x80\"}", "{\"type\":\"t\",\"data\":{\"\xff\":1}}", `{"type":"t","data":1} x`, `{"type":"t","data":1}{}`, "{\"type\":\"t\",\"data\":1}\x00", `{"type":"t"}`, `{"data":1}`,
	`{"type":"t","id":"","data":1}`, `{"type":"eventhose.x","data":1}`, `{"type":"a..b","data":1}`, `{"type":"t","data_base64":"e30="}`, `{"type":"t","content_type":"image/png","data":1}`,
	`{"type":"t","time":"yesterday","data":1}`, `{"type":"t","data":{"a":1 "b":2}}`, `{"type":"t","data":[1 2]}`, `{"type":"t","data":[1,]}`, `{"type":"t","data":{"a":1,}}`, `{"type":"t","data":{"a"}}`,
	`{"type":"t","data":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`, `{"type":"t","data":[}`, `{"type":"t","data":"abc`, `{"type":"t","data":{"a":1`, `{"type":"\u0074","data":1}`,
}

// sameAsReader checks what scanner accepts against reader, and reports whether it did.
func sameAsReader(t *testing.T, body []byte) bool {
	t.Helper()
	got, many, ok := scanEvents(body)
	if ok {
		want, wantMany, err := readJSON(body)
		if err != nil || many != wantMany || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\nscanned %+v (%v)\nread    %+v (%v), %v", body, got, many, want, wantMany, err)
		}
	}
	var e eventhose.Event
	if line := bytes.TrimSpace(body); (&scanner{}).line(line, &e) {
		if want, err := readLine(line, 0); err != nil || !reflect.DeepEqual(e, want) {
			t.Fatalf("line %q\nscanned %+v\nread    %+v, %v", line, e, want, err)
		}
	}
	return ok
}

func TestScan(t *testing.T) {
	for _, body := range plainShapes {
		if !sameAsReader(t, []byte(body)) {
			t.Errorf("left to reader: %s", body)
		}
	}
	for _, body := range notPlain {
		if sameAsReader(t, []byte(body)) {
			t.Errorf("accepted: %s", body)
		}
	}
	many := `{"type":"t","data":{"x":0`
	for i := range scanNames - 1 {
		many += `,"` + strings.Repeat("y", i+1) + `":0`
	}
	if !sameAsReader(t, []byte(many+"}}")) {
		t.Errorf("an object of %d names is left to reader", scanNames)
	}
	if sameAsReader(t, []byte(many+`,"z":0}}`)) {
		t.Errorf("an object of %d names is not left to reader", scanNames+1)
	}
	if sameAsReader(t, []byte(many[:len(many)-2]+`":0,"`+strings.Repeat("y", 60)+`":0}}`)) {
		t.Error("a name that is given twice among many is accepted")
	}
	for i := range 40 { // every byte that ends a plain piece, at every place in a word
		for _, c := range []string{`"`, `\`, "\x1f", "\x00", "é", "\xff", "\x80"} {
			sameAsReader(t, []byte(`{"type":"t","data":"`+strings.Repeat("a", i)+c+strings.Repeat("b", 20)+`"}`))
		}
	}
}

// FuzzScan: what the short way accepts, the long one reads as the same.
func FuzzScan(f *testing.F) {
	for _, list := range [][]string{plainShapes, notPlain, eventSeeds} {
		for _, s := range list {
			f.Add([]byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameAsReader(t, body) })
}

func BenchmarkDecode(b *testing.B) {
	var event bytes.Buffer
	event.WriteString(`{"type":"order.paid","key":"customer_17","data":{"order":17`)
	for i := 0; event.Len() < 1024; i++ {
		event.WriteString(`,"field_` + string(rune('a'+i%26)) + string(rune('a'+i/26)) + `":"0123456789abcdef"`)
	}
	event.WriteString("}}")
	body := []byte("[" + strings.Repeat(event.String()+",", 99) + event.String() + "]")
	for name, decode := range map[string]func([]byte) ([]eventhose.Event, bool, error){"scan": decodeEvents, "read": readJSON} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if events, _, err := decode(body); err != nil || len(events) != 100 {
					b.Fatal(err)
				}
			}
		})
	}
}
