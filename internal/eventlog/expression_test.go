package eventlog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/eventlog"
)

// dear makes an event on which the expression below costs about n times m.
func dear(typ string, n, m int) eventhose.Event {
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	return eventhose.Event{Type: typ, Data: fmt.Appendf(nil, `{"l":%s,"m":%s}`, list(n), list(m))}
}

const dearExpression = `data.l.all(x, data.m == data.m) && type != "other"`

func append1by1(t *testing.T, log *eventlog.Log, events ...eventhose.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := log.Append(t.Context(), "acme", e); err != nil {
			t.Fatal(err)
		}
	}
}

// What an expression cannot decide is handed out: no reader is stopped by one event.
func TestDearEventsStopNoReader(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	append1by1(t, log, dear("cheap", 1, 1), dear("other", 1, 1), dear("dear", 5000, 5000), dear("other", 1, 1), dear("cheap", 1, 1))
	f := eventhose.Filter{Expression: dearExpression}
	want := []eventhose.Sequence{1, 3, 5}
	var got []eventhose.Sequence
	for after := (eventhose.Cursor{}); ; {
		page, err := log.Page(t.Context(), "acme", after, f, eventhose.PageLimit{Events: 10})
		if err != nil {
			t.Fatalf("a page after %v: %v", got, err)
		}
		for _, e := range page.Events {
			got = append(got, e.Sequence)
		}
		if after = page.Cursor; !page.HasMore {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages hold %v, want %v", got, want)
	}
	got = nil
	for e, err := range log.Read(t.Context(), "acme", 0, f) {
		if err != nil {
			t.Fatalf("read after %v: %v", got, err)
		}
		got = append(got, e.Sequence)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v are read, want %v", got, want)
	}
	got, _ = searchAll(t, log, eventhose.Search{Filter: f, Limit: 10, MaxData: 1 << 20}, nil)
	if slices.Reverse(got); !slices.Equal(got, want) {
		t.Errorf("%v are found, want %v", got, want)
	}
}

// A page ends soon whatever its expression costs, also when there is something on it, and the next goes on behind it.
func TestDearPagesEndSoon(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	const n = 10
	for i := range n {
		typ := "other"
		if i%2 == 0 {
			typ = "wanted"
		}
		append1by1(t, log, dear(typ, 1000, 90)) // some 20 ms for each
	}
	for name, f := range map[string]eventhose.Filter{"half match": {Expression: dearExpression}, "none match": {Expression: dearExpression + ` && type == "none"`}} {
		found, most := 0, eventhose.Sequence(0)
		for after := (eventhose.Cursor{}); ; {
			page, err := log.Page(t.Context(), "acme", after, f, eventhose.PageLimit{Events: 1000})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Events {
				if e.Type != "wanted" {
					t.Errorf("%s: %s is on a page", name, e.Type)
				}
			}
			found += len(page.Events)
			most = max(most, page.Cursor.Sequence-after.Sequence)
			if after = page.Cursor; !page.HasMore {
				break
			}
		}
		want := n / 2
		if name == "none match" {
			want = 0
		}
		if found != want || most == n {
			t.Errorf("%s: %d found, want %d; one page has looked at %d of %d events", name, found, want, most, n)
		}
	}
}
