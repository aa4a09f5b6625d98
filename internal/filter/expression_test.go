package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

func compile(tb testing.TB, expression string) *Filter {
	tb.Helper()
	f, err := Compile(eventhose.Filter{Expression: expression})
	if err != nil {
		tb.Fatalf("%s: %v", expression, err)
	}
	return f
}

func TestExpressions(t *testing.T) {
	e := &eventhose.Event{
		ID: "evt_1", Type: "order.paid", Key: "o1", Version: "2", Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Attributes: map[string]string{"region": "eu"},
		Data: []byte(`{"amount": 150, "price": 99.5, "whole": 100.0, "big": 18446744073709551615, "huge": 1e400,
			"exact": 9007199254740993, "name": "Ada", "null": null, "flag": true, "tags": ["a", "b"], "half": "a\ud800", "again": 1, "again": 2,
			"items": [{"sku": "x", "n": 1}, {"sku": "y", "n": 2.5}]}`),
	}
	for expression, want := range map[string]bool{
		"type == 'order.paid' && key == 'o1' && id == 'evt_1' && version == '2'": true,
		"attributes['region'] == 'eu'":                                           true,
		"attributes.region == 'us'":                                              false,
		"'region' in attributes && !('zone' in attributes)":                      true,
		"attributes['zone'] == 'eu'":                                             false, // absent
		"time > timestamp('2026-03-04T00:00:00Z')":                               true,
		"time.getFullYear() == 2026":                                             true,
		"time.getHours('Europe/Berlin') == 6":                                    true,
		"data.amount > 100":                                                      true,
		"data.amount > 149.5":                                                    true,
		"data.amount == 150.0":                                                   true,
		"data.price < 100":                                                       true,
		"data.price > 99.25 && data.price < data.amount":                         true,
		"data.whole == 100":                                                      true,
		"data.exact == 9007199254740993 && data.exact != 9007199254740992":       true,
		"data.big > 18446744073709551614u":                                       true,
		"data.huge > 1e308":                                                      true,
		"data['null'] == null":                                                   true,
		"type.matches('^o.{3}r[.]pa{1,3}id$')":                                   true,
		"data.half == 'a\ufffd' && size(data.half) == 2":                         true, // half of a surrogate pair is read as U+FFFD
		"data.again == 2":                                                        true, // of a name that is given twice, the last
		"data.flag == true":                                                      true,
		"has(data.name) && !has(data.other)":                                     true,
		"data.name.startsWith('A') && data.name.matches('^A.a$')":                true,
		"'a' in data.tags && size(data.tags) == 2":                               true,
		"data.items.exists(i, i.sku == 'y' && i.n > 2)":                          true,
		"data.items.all(i, i.n >= 1)":                                            true,
		"data.other == 1":                                                        false, // absent
		"data.other == 1 || true":                                                true,
		"data.name > 3":                                                          false, // a text where a number should be
		"data.amount + 'x' == '150x'":                                            false,
		"data.tags[7] == 'a'":                                                    false,
		"1/(data.amount - 150) == 1":                                             false,
	} {
		got, err := compile(t, expression).Match(e)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", expression, got, err, want)
		}
	}
}

func TestDataIsNull(t *testing.T) {
	f := compile(t, "data == null")
	for name, e := range map[string]*eventhose.Event{
		"erased":       {Data: []byte(`{"a":1}`), Erased: true},
		"not JSON":     {Data: []byte(`{"a":1}`), ContentType: "text/plain"},
		"empty":        {},
		"broken":       {Data: []byte(`{"a":`)},
		"two values":   {Data: []byte(`1 2`)},
		"null":         {Data: []byte(` null `)},
		"its own null": {Data: []byte(`null`), ContentType: "application/vnd.x+json"},
	} {
		if ok, err := f.Match(e); err != nil || !ok {
			t.Errorf("%s: got %v, %v", name, ok, err)
		}
	}
	if ok, err := f.Match(&eventhose.Event{Data: []byte(`{"a":1}`), ContentType: "application/vnd.x+json; charset=utf-8"}); err != nil || ok {
		t.Errorf("JSON of another type: got %v, %v", ok, err)
	}
}

func TestRefusedExpressions(t *testing.T) {
	for expression, want := range map[string]string{
		"dat.amount > 1":           "line 1, column 1: undeclared reference to 'dat'",
		"type == 'a' &&\n key > 1": "line 2, column 6: found no matching overload",
		"data.amount":              "must yield a boolean, not dyn",
		"'a' + 'b'":                "must yield a boolean, not string",
		"type ==":                  "line 1, column 8: Syntax error",
		"type.matches('(')":        "line 1, column 14: invalid matches argument",
		"type.matches(key)":        "a regular expression must be a literal",
		"matches(type, key)":       "a regular expression must be a literal",
		"type.matches('" + strings.Repeat("a", MaxPattern+1) + "')":                                      "at most 512 bytes",
		"type.matches('a{900}b{900}c{900}')":                                                             "its repetitions multiply",
		strings.Repeat("type.matches('a') || ", MaxPatterns) + "type.matches('a')":                       "at most 32 regular expressions",
		strings.Repeat(" ", eventhose.MaxExpression) + "true":                                            "at most 4096 bytes",
		strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300):                                     "recursion limit",
		"data.a.all(x, data.b.all(y, data.c.all(z, x == z)))":                                            "may cost too much",
		"timestamp('yesterday') < time":                                                                  "line 1, column 11: invalid timestamp argument",
		"type == '" + string([]byte{0xff}) + "'":                                                         "",
		"[1,2].map(x, [1,2].map(y, [1,2].map(z, data.l.map(a, data.l.map(b, data.l.map(c, c)))))) == []": "may cost too much",
	} {
		_, err := Compile(eventhose.Filter{Expression: expression})
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeInvalid || e.Field != "filter.expression" {
			t.Errorf("%.60q: got %v", expression, err)
		} else if !strings.Contains(e.Message, want) {
			t.Errorf("%.60q: says %q, want %q", expression, e.Message, want)
		} else if strings.Contains(want, "undeclared") && (strings.Contains(e.Message, "container") || !strings.Contains(e.Fix, "attributes")) {
			t.Errorf("%.60q: says %q and %q", expression, e.Message, e.Fix)
		}
	}
}

// TestCostIsBounded gives expressions that pass as harmless data that makes them dear. Each must end with CodeLimit,
// and soon.
func TestCostIsBounded(t *testing.T) {
	numbers := "[" + strings.Repeat("1,", 100_000) + "1]"
	deep := strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000)
	text, _ := json.Marshal(strings.Repeat("a", 500_000))
	for _, c := range []struct{ expression, data string }{
		{"data.l.all(x, data.m == data.m)", `{"l":` + numbers + `,"m":{"m":` + numbers + `}}`},
		{"data.l.all(x, !(2 in data.l))", `{"l":` + numbers + `}`},
		{"data.l.all(x, data.s + 'b' != 'a')", `{"l":` + numbers + `,"s":` + string(text) + `}`},
		{"data.l.all(x, size(data.s) > 3)", `{"l":` + numbers + `,"s":` + string(text) + `}`},
		{"data.l.all(x, data.s >= 'a' && data.s <= data.s)", `{"l":` + numbers + `,"s":` + string(text) + `}`},
		{"data.l.all(x, time.getHours('Europe/Berlin') >= 0)", `{"l":` + numbers + `}`},
		{"data.l.all(x, !([data.m] in data.n))", `{"l":` + numbers + `,"m":` + deep + `,"n":[` + deep + "," + deep + `]}`},
		{strings.Repeat("data == data && ", 200) + "true", numbers},
		{strings.Repeat("data.s + ", 80) + "'a' != 'a'", `{"s":` + string(text) + `}`},
		{"data.l.map(x, data.l.map(y, y)) == []", `{"l":` + numbers + `}`},
		{"data.s.matches('(a?){400}b')", `{"s":` + string(text) + `}`},
		{"data.s.matches('(a|b|aa)*c(a|b|aa)*c(a|b|aa)*c') || true", `{"s":` + string(text) + `}`},
		{"data.l.all(x, !data.s.contains('b'))", `{"l":` + numbers + `,"s":` + string(text) + `}`},
	} {
		f := compile(t, c.expression)
		v := NewView(&eventhose.Event{Type: "a", Data: []byte(c.data)})
		v.ResolveName("data") // parsing is paid once for all filters
		start := time.Now()
		_, err := f.MatchView(v)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%.40s: took %s", c.expression, took)
		}
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeLimit {
			t.Errorf("%.40s: got %v", c.expression, err)
		}
	}
}

// TestOrdinaryWorkFits: what people write must pass on large but honest data.
func TestOrdinaryWorkFits(t *testing.T) {
	var items []string
	for i := range 5_000 {
		items = append(items, fmt.Sprintf(`{"sku":"s%d","quantity":%d}`, i, i))
	}
	e := &eventhose.Event{Type: "a", Data: []byte(`{"status":"paid","items":[` + strings.Join(items, ",") + `],"note":"` + strings.Repeat("x", 60_000) + `"}`)}
	for _, expression := range []string{
		"data.items.exists(i, i.sku == 's4999' && i.quantity > 10)",
		"data.items.all(i, has(i.sku) && i.quantity >= 0)",
		"data.note.contains('xxx') && data.note.matches('^x+$')",
		"data.status in ['paid', 'refunded'] && size(data.items) > 3",
		"data.items.filter(i, i.quantity > 10).size() > 1",
	} {
		if ok, err := compile(t, expression).Match(e); err != nil || !ok {
			t.Errorf("%s: got %v, %v", expression, ok, err)
		}
	}
}

func TestViewIsSharedByGoroutines(t *testing.T) {
	f := compile(t, "data.l.exists(x, x == 3)")
	v := NewView(&eventhose.Event{Type: "a", Data: []byte(`{"l":[1,2,3]}`)})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if ok, err := f.MatchView(v); err != nil || !ok {
					t.Errorf("got %v, %v", ok, err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{"", "true", "data.a > 1", "data.l.all(x, x in data.l)", "type.matches('^a+$')", "((((", "'\\u0000'",
		"{'a': [1, 2.0, 3u]}.a[0] == data", "timestamp(data.t) < time", "duration('1h') > time - time", "a.b.c.d(e)[f]", "type.matches('a{2}{3}')", "type.matches('(?i)x{0,1000}')",
		"data.?a.orValue(1) == 1", "cel.bind(x, 1, x == 1)", "has(data.a)", "!!!!!!true", "1 == 1 ? true : false", "dyn(1) == data"} {
		f.Add(s)
	}
	e := &eventhose.Event{Type: "a.b", Key: "k", Attributes: map[string]string{"a": "b"}, Data: []byte(`{"a":1,"l":[1,"x",{"a":[null]}],"t":"2026-01-01T00:00:00Z"}`)}
	f.Fuzz(func(t *testing.T, expression string) {
		start := time.Now()
		c, err := Compile(eventhose.Filter{Expression: expression})
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("compiling took %s", took)
		}
		if err != nil {
			if eventhose.CodeOf(err) != eventhose.CodeInvalid {
				t.Errorf("got %v", err)
			}
			return
		}
		if _, err := c.Match(e); err != nil && eventhose.CodeOf(err) != eventhose.CodeLimit {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"a":1}`, `{"a":[1,[2,{"b":-0}]]}`, `{"a":1e999,"b":0.1}`, `[[[[[[]]]]]]`, `"\ud800"`, `{"a":{"a":{"a":null}}}`, "{\"a\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	var filters []*Filter
	for _, expression := range []string{"data.a == data.b || data.a in data", "data.a.all(x, x == data.a)", "size(data.a) > 3 && data.a.matches('a+$')",
		"data == data", "string(data.a) == 'x' || double(data.a) > 1.0 || int(data.a) == 2", "timestamp(data.a) < time", "data.a + data.b == data.b"} {
		filters = append(filters, compile(f, expression))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > eventhose.MaxData {
			return
		}
		v := NewView(&eventhose.Event{Type: "a", Data: data})
		for _, c := range filters {
			start := time.Now()
			if _, err := c.MatchView(v); err != nil && eventhose.CodeOf(err) != eventhose.CodeLimit {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		}
	})
}

func BenchmarkExpression(b *testing.B) {
	var items []string
	for i := range 10 {
		items = append(items, fmt.Sprintf(`{"sku":"s%d","quantity":%d}`, i, i))
	}
	e := &eventhose.Event{Type: "order.paid", Attributes: map[string]string{"region": "eu"},
		Data: []byte(`{"amount":150,"status":"paid","items":[` + strings.Join(items, ",") + `]}`)}
	for name, expression := range map[string]string{
		"fields":   "type == 'order.paid' && attributes['region'] == 'eu'",
		"data":     "data.amount > 100 && data.status == 'paid'",
		"ten rows": "data.items.exists(i, i.sku == 's9')",
	} {
		f := compile(b, expression)
		b.Run(name+"/parsing", func(b *testing.B) {
			for b.Loop() {
				f.Match(e)
			}
		})
		v := NewView(e)
		b.Run(name+"/parsed", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.MatchView(v)
			}
		})
	}
}
