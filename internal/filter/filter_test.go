package filter

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/eventhose/eventhose"
)

// naive is the filter's definition, word for word, without its expression.
func naive(f eventhose.Filter, e *eventhose.Event) bool {
	types := f.Types
	if len(types) == 0 {
		types = []string{"*"}
	}
	ok := slices.ContainsFunc(types, func(p string) bool {
		if strings.HasPrefix(e.Type, "eventhose.") && !strings.HasPrefix(p, "eventhose.") {
			return false
		}
		return p == "*" || p == e.Type || strings.HasSuffix(p, ".*") && strings.HasPrefix(e.Type, p[:len(p)-1])
	})
	if len(f.Keys) > 0 && !slices.Contains(f.Keys, e.Key) {
		return false
	}
	for name, value := range f.Attributes {
		if got, there := e.Attributes[name]; !there || got != value {
			return false
		}
	}
	return ok
}

func TestMatchFields(t *testing.T) {
	paid := &eventhose.Event{Type: "order.paid", Key: "o1", Attributes: map[string]string{"region": "eu", "empty": ""}}
	system := &eventhose.Event{Type: "eventhose.subscription.disabled"}
	for _, c := range []struct {
		name  string
		f     eventhose.Filter
		event *eventhose.Event
		want  bool
	}{
		{"zero filter", eventhose.Filter{}, paid, true},
		{"exact", eventhose.Filter{Types: []string{"order.paid"}}, paid, true},
		{"other exact", eventhose.Filter{Types: []string{"order.pai"}}, paid, false},
		{"prefix", eventhose.Filter{Types: []string{"order.*"}}, paid, true},
		{"prefix is not the type itself", eventhose.Filter{Types: []string{"order.paid.*"}}, paid, false},
		{"prefix ends at a full stop", eventhose.Filter{Types: []string{"ord.*"}}, paid, false},
		{"deep prefix", eventhose.Filter{Types: []string{"eventhose.*"}}, system, true},
		{"key", eventhose.Filter{Keys: []string{"o2", "o1"}}, paid, true},
		{"other key", eventhose.Filter{Keys: []string{"o2"}}, paid, false},
		{"no key", eventhose.Filter{Keys: []string{"o2"}}, system, false},
		{"attribute", eventhose.Filter{Attributes: map[string]string{"region": "eu"}}, paid, true},
		{"empty attribute", eventhose.Filter{Attributes: map[string]string{"empty": ""}}, paid, true},
		{"absent is not empty", eventhose.Filter{Attributes: map[string]string{"other": ""}}, paid, false},
		{"all attributes", eventhose.Filter{Attributes: map[string]string{"region": "eu", "x": "y"}}, paid, false},
		{"zero filter and system event", eventhose.Filter{}, system, false},
		{"star and system event", eventhose.Filter{Types: []string{"*"}}, system, false},
		{"star and named system event", eventhose.Filter{Types: []string{"*", "eventhose.subscription.disabled"}}, system, true},
		{"blank expression", eventhose.Filter{Expression: " \n"}, paid, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Compile(c.f)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Match(c.event)
			if err != nil || got != c.want {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
			if n := naive(c.f, c.event); n != c.want {
				t.Errorf("the oracle says %v", n)
			}
		})
	}
}

func TestCompileNamesTheField(t *testing.T) {
	for field, f := range map[string]eventhose.Filter{
		"filter.types[1]":   {Types: []string{"a", "a.*.b"}},
		"filter.keys[0]":    {Keys: []string{""}},
		"filter.attributes": {Attributes: map[string]string{"a b": "c"}},
		"filter.expression": {Expression: "1"},
	} {
		_, err := Compile(f)
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeInvalid || e.Field != field {
			t.Errorf("%s: got %#v", field, err)
		}
	}
}

var (
	someTypes = []string{"a", "b", "a.a", "a.b", "a.b.c", "a.b.c.d", "ab.c", "eventhose.x", "eventhose.x.y", "eventhose", "eventhoses.x"}
	somePats  = append([]string{"*", "a.*", "a.b.*", "a.b.c.*", "ab.*", "eventhose.*", "eventhose.x.*", "b.*"}, someTypes...)
	someExprs = []string{"", "", "data.n > 2", "key == 'k1'", "type.startsWith('a')", "data.l.exists(x, x == 1)", "id != ''"}
)

func drawFilter(t *rapid.T) eventhose.Filter {
	f := eventhose.Filter{
		Types:      rapid.SliceOfN(rapid.SampledFrom(somePats), 0, 4).Draw(t, "types"),
		Keys:       rapid.SliceOfN(rapid.SampledFrom([]string{"k1", "k2", "k3"}), 0, 3).Draw(t, "keys"),
		Attributes: rapid.MapOfN(rapid.SampledFrom([]string{"x", "y"}), rapid.SampledFrom([]string{"", "1", "2"}), 0, 2).Draw(t, "attributes"),
		Expression: rapid.SampledFrom(someExprs).Draw(t, "expression"),
	}
	if rapid.IntRange(0, 9).Draw(t, "many") == 0 { // more places than an index gives one filter
		for i := range 70 {
			f.Types = append(f.Types, "t"+string(rune('A'+i%26))+string(rune('A'+i/26)))
		}
		f.Keys = []string{"k1", "k2", "k3"}
	}
	return f
}

func drawEvent(t *rapid.T) *eventhose.Event {
	return &eventhose.Event{
		Type:       rapid.SampledFrom(append([]string{"tAA", "tBA"}, someTypes...)).Draw(t, "type"),
		Key:        rapid.SampledFrom([]string{"", "k1", "k2", "k4"}).Draw(t, "key"),
		Attributes: rapid.MapOfN(rapid.SampledFrom([]string{"x", "y", "z"}), rapid.SampledFrom([]string{"", "1", "2"}), 0, 3).Draw(t, "event attributes"),
		Data:       rapid.SampledFrom([][]byte{nil, []byte(`{"n":1}`), []byte(`{"n":2.5}`), []byte(`{"n":3,"l":[1]}`), []byte("{")}).Draw(t, "data"),
	}
}

func TestFilterEqualsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, e := drawFilter(t), drawEvent(t)
		f.Expression = ""
		c, err := Compile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Match(e)
		if err != nil || got != naive(f, e) {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}
