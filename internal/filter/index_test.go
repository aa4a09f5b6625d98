package filter

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/eventhose/eventhose"
)

// TestIndexEqualsBruteForce adds, replaces and removes at random and compares with asking every filter.
func TestIndexEqualsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index := NewIndex()
		model := map[eventhose.SubscriptionID]*Filter{}
		id := rapid.Custom(func(t *rapid.T) eventhose.SubscriptionID {
			return eventhose.SubscriptionID(fmt.Sprint("sub_", rapid.IntRange(0, 15).Draw(t, "id")))
		})
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				f, err := Compile(drawFilter(t))
				if err != nil {
					t.Fatal(err)
				}
				i := id.Draw(t, "add")
				index.Add(i, f)
				model[i] = f
			},
			"remove": func(t *rapid.T) {
				i := id.Draw(t, "remove")
				index.Remove(i)
				delete(model, i)
			},
			"": func(t *rapid.T) {
				if index.Len() != len(model) {
					t.Fatalf("holds %d filters, want %d", index.Len(), len(model))
				}
				e := drawEvent(t)
				var want []eventhose.SubscriptionID
				for i, f := range model {
					if ok, err := f.Match(e); err != nil {
						t.Fatal(err)
					} else if ok {
						want = append(want, i)
					}
				}
				var got []eventhose.SubscriptionID
				index.Match(NewView(e), func(i eventhose.SubscriptionID, err error) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, i)
				})
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Fatalf("event %+v: got %v, want %v", e, got, want)
				}
			},
		})
		for i := range model {
			index.Remove(i)
		}
		if len(index.types) != 0 || len(index.holders) != 0 || len(index.filters) != 0 {
			t.Fatalf("an empty index keeps %d terms, %d attributes", len(index.types), len(index.holders))
		}
	})
}

const many = 10_000

// narrow makes 10,000 filters of which exactly three concern narrowEvent, narrow in a different way in each kind.
func narrow(tb testing.TB, kind string) *Index {
	index := NewIndex()
	rich := compile(tb, "data.amount > 100").expression
	for i := range many {
		n := fmt.Sprint(i / 3) // three of each
		var f eventhose.Filter
		switch kind {
		case "type":
			f.Types = []string{"order" + n + ".paid"}
		case "prefix":
			f.Types = []string{"order" + n + ".*"}
		case "key":
			f.Types, f.Keys = []string{"order7.*"}, []string{"k" + n, "x" + n}
		case "attribute":
			f.Attributes = map[string]string{"billing": "eu", "customer": n, "live": "yes"}
		case "type and attribute": // either alone is shared by a hundred
			f.Types = []string{fmt.Sprintf("order%d.*", i/3%58)}
			f.Attributes = map[string]string{"customer": fmt.Sprint(i / 3 / 58)}
		}
		c, err := Compile(f)
		if err != nil {
			tb.Fatal(err)
		}
		c.expression = rich
		index.Add(eventhose.SubscriptionID(fmt.Sprint("sub_", i)), c)
	}
	return index
}

func narrowEvent(kind string) *eventhose.Event {
	e := &eventhose.Event{Type: "order7.paid", Key: "k7", Data: []byte(`{"amount": 101}`),
		Attributes: map[string]string{"billing": "eu", "customer": "7", "live": "yes"}}
	if kind == "type and attribute" {
		e.Attributes["customer"] = "0"
	}
	return e
}

var narrowKinds = []string{"type", "prefix", "key", "attribute", "type and attribute"}

func TestIndexTouchesOnlyWhatItConcerns(t *testing.T) {
	for _, kind := range narrowKinds {
		t.Run(kind, func(t *testing.T) {
			index := narrow(t, kind)
			got := map[eventhose.SubscriptionID]bool{}
			index.Match(NewView(narrowEvent(kind)), func(id eventhose.SubscriptionID, err error) {
				if err != nil {
					t.Error(err)
				}
				got[id] = true
			})
			want := map[eventhose.SubscriptionID]bool{"sub_21": true, "sub_22": true, "sub_23": true}
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			// The first three filters of the kind "attribute" came before it was known which attribute is rare.
			if n := index.Evaluated(); n > 6 || kind != "attribute" && n > 3 {
				t.Errorf("looked at %d filters for three that match", n)
			}
		})
	}
}

func BenchmarkIndexMatch(b *testing.B) {
	for _, kind := range narrowKinds {
		b.Run(kind, func(b *testing.B) {
			index, e := narrow(b, kind), narrowEvent(kind)
			b.ReportAllocs()
			for b.Loop() {
				index.Match(NewView(e), func(eventhose.SubscriptionID, error) {})
			}
		})
	}
}
