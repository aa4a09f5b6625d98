package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/store"
)

// reading counts the events that are read of a store, and the times.
type reading struct {
	store.Log
	reads, events, most int
}

func (r *reading) Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	events, err := r.Log.Read(ctx, tenant, after, limit)
	r.reads++
	r.events += len(events)
	size := 0
	for _, e := range events {
		size += len(e.Data)
	}
	r.most = max(r.most, size)
	return events, err
}

func openCounted(t *testing.T) (log *eventlog.Log, st *embedded.Store, r *reading) {
	t.Helper()
	st, err := embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	r = &reading{Log: st}
	return eventlog.New(r, acme, eventlog.Options{}), st, r
}

// searchAll goes over all pages and answers the sequences found, newest first, and how many pages there were.
func searchAll(t *testing.T, log *eventlog.Log, q eventhose.Search, keep func(context.Context, []eventhose.Event) ([]bool, error)) (found []eventhose.Sequence, pages int) {
	t.Helper()
	for {
		page, err := log.Search(t.Context(), "acme", q, keep)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		if len(page.Found) > q.Limit || page.Examined > eventhose.MaxExamined || page.Next > 0 && q.Before > 0 && page.Next >= q.Before {
			t.Fatalf("%d found of %d, %d examined, next %d of %d", len(page.Found), q.Limit, page.Examined, page.Next, q.Before)
		}
		for _, f := range page.Found {
			found = append(found, f.Event.Sequence)
		}
		if page.Next == 0 {
			return found, pages
		}
		q.Before = page.Next
	}
}

// Whatever is asked for, the pages of a search hold exactly what a plain look through the whole log finds, newest first.
func TestSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, st, _ := openCounted(t)
		defer closeAll(t, log, st)
		src := rand.New(rand.NewPCG(1, 2))
		start := time.Now()
		for range 120 {
			batch := make([]eventhose.Event, 1+src.IntN(20))
			for i := range batch {
				batch[i] = eventhose.Event{Type: fmt.Sprintf("order.t%d", src.IntN(5)), Key: fmt.Sprintf("k%d", src.IntN(50)), Data: fmt.Appendf(nil, `{"n":%d}`, src.IntN(1000))}
			}
			if _, err := log.Append(t.Context(), "acme", batch...); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Second) // times of append differ
		}
		if _, err := st.Trim(t.Context(), "acme", store.Trim{Before: start.Add(12 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		var all []eventhose.Event
		head, err := log.Head(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range log.Read(t.Context(), "acme", head.First-1, eventhose.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		slices.Reverse(all)
		for n := range 40 {
			q := eventhose.Search{Limit: 1 + src.IntN(200), MaxData: 100}
			if src.IntN(2) == 0 {
				q.Filter.Types = []string{fmt.Sprintf("order.t%d", src.IntN(5))}
			}
			if src.IntN(3) == 0 {
				q.Filter.Keys = []string{fmt.Sprintf("k%d", src.IntN(50))}
			}
			if src.IntN(4) == 0 {
				q.Filter.Expression = "data.n % 7 == 0"
			}
			if src.IntN(3) == 0 {
				q.Since = start.Add(time.Duration(src.IntN(120)) * time.Second)
			}
			if src.IntN(3) == 0 {
				q.Until = start.Add(time.Duration(src.IntN(120)) * time.Second)
			}
			if src.IntN(3) == 0 {
				q.Before = all[src.IntN(len(all))].Sequence
			}
			odd := src.IntN(3) == 0
			var keep func(context.Context, []eventhose.Event) ([]bool, error)
			if odd {
				keep = func(_ context.Context, group []eventhose.Event) ([]bool, error) {
					kept := make([]bool, len(group))
					for i, e := range group {
						kept[i] = e.Sequence%2 == 1
					}
					return kept, nil
				}
			}
			var want []eventhose.Sequence
			for _, e := range all {
				var n int
				if _, err := fmt.Sscanf(string(e.Data), `{"n":%d}`, &n); err != nil {
					t.Fatal(err)
				}
				if (len(q.Filter.Types) == 0 || q.Filter.Types[0] == e.Type) && (len(q.Filter.Keys) == 0 || q.Filter.Keys[0] == e.Key) && (q.Filter.Expression == "" || n%7 == 0) &&
					(q.Since.IsZero() || !e.Appended.Before(q.Since)) && (q.Until.IsZero() || !e.Appended.After(q.Until)) && (q.Before == 0 || e.Sequence < q.Before) && (!odd || e.Sequence%2 == 1) {
					want = append(want, e.Sequence)
				}
			}
			if got, _ := searchAll(t, log, q, keep); !slices.Equal(got, want) {
				t.Fatalf("search %d, %+v: %d found, want %d\n%v\n%v", n, q, len(got), len(want), got, want)
			}
		}
	})
}

// A page of a search that finds nothing has looked at its bound and no further, in steps; one that is full has looked no
// further than it must; and one with a bound of time reads nothing beyond it.
func TestSearchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, st, r := openCounted(t)
		defer closeAll(t, log, st)
		batch := make([]eventhose.Event, 1000)
		for n := range 25 {
			for i := range batch {
				batch[i] = eventhose.Event{Type: "a", Data: []byte("1")}
			}
			if n == 0 {
				batch[17].Type = "rare"
			}
			if _, err := log.Append(t.Context(), "acme", batch...); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Hour)
		}
		reads := func(what string, q eventhose.Search, examined, most, events int) eventhose.SearchPage {
			t.Helper()
			r.reads, r.events = 0, 0
			page, err := log.Search(t.Context(), "acme", q, nil)
			if err != nil || page.Examined != examined || r.reads > most || r.events > events {
				t.Errorf("%s: %d examined, %d events read in %d steps, %v; want %d, at most %d in %d", what, page.Examined, r.events, r.reads, err, examined, events, most)
			}
			return page
		}
		rare := eventhose.Search{Limit: 10, Filter: eventhose.Filter{Types: []string{"rare"}}}
		page := reads("a rare filter", rare, eventhose.MaxExamined, 25, eventhose.MaxExamined+512)
		if page.Next != 15_001 || page.SearchedTo.IsZero() || len(page.Found) != 0 {
			t.Errorf("%+v", page)
		}
		found, pages := searchAll(t, log, rare, nil)
		if !slices.Equal(found, []eventhose.Sequence{18}) || pages != 3 {
			t.Errorf("%v in %d pages", found, pages)
		}
		reads("the newest", eventhose.Search{Limit: 10}, 32, 1, 32) // matches are taken by 32
		reads("a filter within an hour", eventhose.Search{Limit: 10, Since: time.Now().Add(-90 * time.Minute), Filter: rare.Filter}, 1512, 8, 2048)
		reads("before a time", eventhose.Search{Limit: 1, Until: time.Now().Add(-10 * time.Hour)}, 544, 22, 1100)
	})
}

// Large data is neither held nor answered, and read in smaller steps.
func TestSearchAmongLargeData(t *testing.T) {
	log, st, r := openCounted(t)
	defer closeAll(t, log, st)
	for n := range 40 {
		data := []byte(`"` + strings.Repeat("x", 500<<10) + `"`)
		if n%2 == 0 {
			data = []byte("1")
		}
		if _, err := log.Append(t.Context(), "acme", eventhose.Event{Type: "a", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	q := eventhose.Search{Limit: 7, MaxData: 2048}
	seen := 0
	for {
		page, err := log.Search(t.Context(), "acme", q, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Found {
			if seen++; f.Event.Sequence != eventhose.Sequence(41-seen) || (f.Size > 2048) != (f.Event.Data == nil) || (f.Size > 2048) != (f.Event.Sequence%2 == 0) {
				t.Errorf("event %d of %d bytes, with %d", f.Event.Sequence, f.Size, len(f.Event.Data))
			}
		}
		if q.Before = page.Next; page.Next == 0 {
			break
		}
	}
	if seen != 40 || r.most > 5<<20 {
		t.Errorf("%d found, %d bytes read at once", seen, r.most)
	}
}

func TestSearchRefuses(t *testing.T) {
	log, st, _ := openCounted(t)
	defer closeAll(t, log, st)
	if page, err := log.Search(t.Context(), "acme", eventhose.Search{Limit: 1}, nil); err != nil || page.Next != 0 || !page.SearchedTo.IsZero() {
		t.Errorf("an empty log: %+v, %v", page, err)
	}
	_, err := log.Search(t.Context(), "absent", eventhose.Search{Limit: 1}, nil)
	code(t, err, eventhose.CodeNotFound, "")
	_, err = log.Search(t.Context(), "acme", eventhose.Search{Limit: 1, Filter: eventhose.Filter{Types: []string{"a..b"}}}, nil)
	code(t, err, eventhose.CodeInvalid, "filter.types[0]")
	if _, err := log.Append(t.Context(), "acme", event(1)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if _, err := log.Search(t.Context(), "acme", eventhose.Search{Limit: 1}, func(context.Context, []eventhose.Event) ([]bool, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("what keep says: %v", err)
	}
}
