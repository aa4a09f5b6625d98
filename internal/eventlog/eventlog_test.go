package eventlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/store"
)

// tenants are those that a test knows.
type tenants map[eventhose.TenantID]eventhose.Tenant

func (m tenants) Tenant(_ context.Context, id eventhose.TenantID) (eventhose.Tenant, error) {
	t, ok := m[id]
	if !ok {
		return t, eventhose.NotFound("tenant")
	}
	return t, nil
}

func (m tenants) Tenants(_ context.Context, after eventhose.TenantID, limit int) ([]eventhose.Tenant, error) {
	var all []eventhose.Tenant
	for _, t := range m {
		if t.ID > after && len(all) < limit {
			all = append(all, t)
		}
	}
	return all, nil
}

func open(t *testing.T, known eventlog.Tenants) (*eventlog.Log, *embedded.Store) {
	t.Helper()
	st, err := embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	return eventlog.New(st, known, eventlog.Options{}), st
}

func closeAll(t *testing.T, log *eventlog.Log, st *embedded.Store) {
	t.Helper()
	if err := errors.Join(log.Close(), st.Close()); err != nil {
		t.Error(err)
	}
}

var acme = tenants{"acme": {ID: "acme"}}

func event(n int) eventhose.Event {
	return eventhose.Event{Type: "order.paid", Data: fmt.Appendf(nil, `{"n": %d}`, n)}
}

func code(t *testing.T, err error, want eventhose.Code, field string) {
	t.Helper()
	var e *eventhose.Error
	if !errors.As(err, &e) || e.Code != want || e.Field != field {
		t.Errorf("got %v (code %s), want code %s at %q", err, eventhose.CodeOf(err), want, field)
	}
}

func TestAppendAndRead(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	ctx := t.Context()
	placed, err := log.Append(ctx, "acme", event(1), event(2), event(3))
	if err != nil || len(placed) != 3 || placed[2].Sequence != 3 || placed[0].Duplicate {
		t.Fatalf("%+v, %v", placed, err)
	}
	n := 0
	for e, err := range log.Read(ctx, "acme", 1, eventhose.Filter{}) {
		if n++; err != nil || e.Sequence != eventhose.Sequence(n+1) || !bytes.Equal(e.Data, event(n+1).Data) || e.ID != placed[n].ID {
			t.Errorf("read %+v, %v", e, err)
		}
	}
	if n != 2 {
		t.Errorf("%d read after the first of three", n)
	}
	e, err := log.Event(ctx, "acme", "", placed[1].ID)
	if err != nil || e.Sequence != 2 || e.Time.IsZero() || e.Appended.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
}

// The same event twice is one; another under its id is refused, with everything it came with.
func TestDuplicates(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	ctx := t.Context()
	first := event(1)
	first.ID = "order-1"
	first.Attributes = map[string]string{"a": "1", "b": "2"}
	again := first
	again.Attributes = map[string]string{"b": "2", "a": "1"}
	placed, err := log.Append(ctx, "acme", first)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := log.Append(ctx, "acme", again, event(2))
	if err != nil || !twice[0].Duplicate || twice[0].Sequence != placed[0].Sequence || twice[1].Sequence != 2 {
		t.Errorf("%+v, %v", twice, err)
	}
	for name, change := range map[string]func(*eventhose.Event){
		"data": func(e *eventhose.Event) { e.Data = []byte(`{"n":1}`) }, "type": func(e *eventhose.Event) { e.Type = "x" },
		"key": func(e *eventhose.Event) { e.Key = "x" }, "version": func(e *eventhose.Event) { e.Version = "x" },
		"time":       func(e *eventhose.Event) { e.Time = time.Unix(1, 0) },
		"attributes": func(e *eventhose.Event) { e.Attributes = map[string]string{"a": "1", "b": "3"} },
	} {
		other := first
		change(&other)
		_, err := log.Append(ctx, "acme", event(3), other)
		code(t, err, eventhose.CodeConflict, "events[1].id")
		if h, _ := log.Head(ctx, "acme"); h.Last != 2 {
			t.Fatalf("a refused append with another %s has left something: %+v", name, h)
		}
	}
}

func TestRefusals(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	ctx := t.Context()
	big := event(1)
	big.Data = make([]byte, eventhose.MaxData+1)
	many := make([]eventhose.Event, 9)
	for i := range many {
		many[i] = event(i)
		many[i].Data = make([]byte, eventhose.MaxData)
	}
	for _, tc := range []struct {
		tenant eventhose.TenantID
		events []eventhose.Event
		code   eventhose.Code
		field  string
	}{
		{"nobody", []eventhose.Event{event(1)}, eventhose.CodeNotFound, ""},
		{"acme", nil, eventhose.CodeInvalid, "events"},
		{"acme", []eventhose.Event{event(1), {Data: []byte("{}")}}, eventhose.CodeInvalid, "events[1].type"},
		{"acme", []eventhose.Event{{Type: "eventhose.fake"}}, eventhose.CodeInvalid, "type"},
		{"acme", []eventhose.Event{big}, eventhose.CodeTooLarge, "data"},
		{"acme", many, eventhose.CodeTooLarge, "events"},
		{"acme", make([]eventhose.Event, eventhose.MaxAppend+1), eventhose.CodeTooLarge, "events"},
	} {
		_, err := log.Append(ctx, tc.tenant, tc.events...)
		code(t, err, tc.code, tc.field)
	}
	if h, err := log.Head(ctx, "acme"); err != nil || h.Last != 0 {
		t.Errorf("refused appends have left something: %+v, %v", h, err)
	}
}

// Many writers of many tenants share commits; every answer is its own, every log is contiguous, and a reader that waits
// at the tail sees each event once.
func TestConcurrentAppendsAndWaits(t *testing.T) {
	known := tenants{}
	const logs, writers, each = 4, 4, 50
	for i := range logs {
		id := eventhose.TenantID(fmt.Sprintf("t%d", i))
		known[id] = eventhose.Tenant{ID: id}
	}
	log, st := open(t, known)
	defer closeAll(t, log, st)
	var wg sync.WaitGroup
	for id := range known {
		for range writers {
			wg.Go(func() {
				for n := range each {
					placed, err := log.Append(t.Context(), id, event(n), event(n))
					if err != nil || placed[1].Sequence != placed[0].Sequence+1 {
						t.Errorf("%+v, %v", placed, err)
					}
				}
			})
		}
		wg.Go(func() {
			for after := eventhose.Sequence(0); after < 2*writers*each; {
				if err := log.Wait(t.Context(), id, after); err != nil {
					t.Error(err)
					return
				}
				for e, err := range log.Read(t.Context(), id, after, eventhose.Filter{}) {
					if err != nil || e.Sequence != after+1 {
						t.Errorf("%d after %d, %v", e.Sequence, after, err)
						return
					}
					after = e.Sequence
				}
			}
		})
	}
	wg.Wait()
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, st := open(t, acme)
		defer closeAll(t, log, st)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := log.Wait(ctx, "acme", 0); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// A page examines no more than 10,000 events, and its cursor moves on even if nothing matched.
func TestPageAdvancesThroughWhatDoesNotMatch(t *testing.T) { synctest.Test(t, pageAdvances) }

func pageAdvances(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	ctx := t.Context()
	const total = 25_000
	for n := 0; n < total; n += 5000 {
		chunk := make([]eventhose.Event, 5000)
		for i := range chunk {
			chunk[i] = event(n + i)
		}
		if n+5000 == total {
			chunk[4999].Type = "rare"
		}
		if _, err := log.Append(ctx, "acme", chunk...); err != nil {
			t.Fatal(err)
		}
	}
	var cursors []eventhose.Sequence
	found := 0
	for after := (eventhose.Cursor{}); ; {
		page, err := log.Page(ctx, "acme", after, eventhose.Filter{Types: []string{"rare"}}, eventhose.PageLimit{Events: 10})
		if err != nil {
			t.Fatal(err)
		}
		found += len(page.Events)
		cursors = append(cursors, page.Cursor.Sequence)
		if after = page.Cursor; !page.HasMore {
			break
		}
	}
	if found != 1 || fmt.Sprint(cursors) != "[10000 20000 25000]" {
		t.Errorf("found %d at cursors %v", found, cursors)
	}
	_, err := log.Page(ctx, "acme", eventhose.Cursor{Incarnation: 7, Sequence: 9}, eventhose.Filter{}, eventhose.PageLimit{Events: 10})
	code(t, err, eventhose.CodeCursorGone, "")
	page, err := log.Page(ctx, "acme", eventhose.Cursor{}, eventhose.Filter{}, eventhose.PageLimit{Events: 10})
	if err != nil || len(page.Events) != 10 || page.Cursor.Sequence != 10 || !page.HasMore {
		t.Errorf("%d events, %+v, %v", len(page.Events), page.Cursor, err)
	}
}

// A page's bytes are all that its events have, not their data only.
func TestPageCountsAttributes(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	attributes := map[string]string{}
	for i := range eventhose.MaxAttributes {
		attributes[fmt.Sprint("a", i)] = strings.Repeat("v", eventhose.MaxAttribute)
	}
	const n, each = 300, 32 << 10
	for range n / 10 {
		events := make([]eventhose.Event, 10)
		for i := range events {
			events[i] = eventhose.Event{Type: "a", Attributes: attributes, Data: []byte("1")}
		}
		if _, err := log.Append(t.Context(), "acme", events...); err != nil {
			t.Fatal(err)
		}
	}
	read := 0
	for after := (eventhose.Cursor{}); read < n; {
		page, err := log.Page(t.Context(), "acme", after, eventhose.Filter{}, eventhose.PageLimit{Events: 1000})
		if err != nil || len(page.Events) == 0 || len(page.Events)*each > eventhose.MaxPageBytes+each {
			t.Fatalf("a page of %d events with 32 KiB of attributes each, %v", len(page.Events), err)
		}
		read, after = read+len(page.Events), page.Cursor
	}
	for before := eventhose.Sequence(0); ; {
		page, err := log.Search(t.Context(), "acme", eventhose.Search{Before: before, Limit: 1000, MaxData: 2048}, nil)
		if err != nil || len(page.Found)*each > eventhose.MaxPageBytes+each {
			t.Fatalf("%d events with 32 KiB of attributes each are found at once, %v", len(page.Found), err)
		}
		if read -= len(page.Found); page.Next == 0 {
			break
		}
		before = page.Next
	}
	if read != 0 {
		t.Errorf("of %d events %d are not found", n, read)
	}
}

// Retention by age and size tells a reader that it has overtaken it, and names what of parked events is lost.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := tenants{"acme": {ID: "acme", Retention: eventhose.Retention{Age: eventhose.Duration(time.Hour), DeadBytes: 1}}}
		log, st := open(t, known)
		defer closeAll(t, log, st)
		ctx := t.Context()
		ref := store.LaneRef{Tenant: "acme", Subscription: "sub_x"}
		if err := st.Save(ctx, nil, []store.LaneChange{{Create: true, Lane: store.Lane{LaneRef: ref}}}); err != nil {
			t.Fatal(err)
		}
		for n := range 10 {
			if _, err := log.Append(ctx, "acme", event(n)); err != nil {
				t.Fatal(err)
			}
			<-time.After(10 * time.Minute)
		}
		dead := store.Parked{Parked: eventhose.Parked{Sequence: 1, State: eventhose.ParkedDead}}
		if err := st.Commit(ctx, store.Progress{Lanes: []store.LaneChange{{Lane: store.Lane{LaneRef: ref, Dead: 1, Cursor: 1}, Park: []store.Parked{dead}}}}); err != nil {
			t.Fatal(err)
		}
		old, err := log.Page(ctx, "acme", eventhose.Cursor{}, eventhose.Filter{}, eventhose.PageLimit{Events: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Retain(ctx); err != nil {
			t.Fatal(err)
		}
		_, err = log.Page(ctx, "acme", old.Cursor, eventhose.Filter{}, eventhose.PageLimit{Events: 10})
		var e *eventhose.Error
		if !errors.As(err, &e) || e.Code != eventhose.CodeCursorGone || e.First < 4 || e.First > 6 {
			t.Errorf("an overtaken reader is told %+v", err)
		}
		var lost struct{ Count int }
		for e := range log.Read(ctx, "acme", 5, eventhose.Filter{Types: []string{eventlog.ParkedLost}}) {
			if err := json.Unmarshal(e.Data, &lost); err != nil {
				t.Error(err)
			}
		}
		if lost.Count != 1 {
			t.Errorf("%d parked events are told to be lost, want 1", lost.Count)
		}
	})
}

// changing are tenants that change while they are looked at.
type changing struct {
	mu sync.Mutex
	of tenants
}

func (c *changing) Tenant(ctx context.Context, id eventhose.TenantID) (eventhose.Tenant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of.Tenant(ctx, id)
}

func (c *changing) Tenants(ctx context.Context, after eventhose.TenantID, limit int) ([]eventhose.Tenant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of.Tenants(ctx, after, limit)
}

func (c *changing) bound(id eventhose.TenantID, r eventhose.Retention) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[id] = eventhose.Tenant{ID: id, Retention: r}
}

// A small bound takes effect soon after it was set, and then as soon as it is passed; the newest event stays.
func TestSmallRetention(t *testing.T) {
	for name, r := range map[string]eventhose.Retention{"age": {Age: eventhose.Duration(time.Second)}, "bytes": {Bytes: 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known := &changing{of: tenants{"acme": {ID: "acme"}, "other": {ID: "other"}}}
				log, st := open(t, known)
				defer closeAll(t, log, st)
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				defer running.Wait()
				defer cancel()
				running.Go(func() { log.RunRetention(ctx, time.Minute) })
				append3 := func(tenant eventhose.TenantID) {
					if _, err := log.Append(ctx, tenant, event(1), event(2), event(3)); err != nil {
						t.Error(err)
					}
				}
				first := func(tenant eventhose.TenantID, want eventhose.Sequence) {
					t.Helper()
					<-time.After(10 * time.Second)
					synctest.Wait()
					if h, err := log.Head(ctx, tenant); err != nil || h.First != want {
						t.Errorf("the first event of %s is %d (%v), want %d", tenant, h.First, err, want)
					}
				}
				append3("acme")
				append3("other")
				first("acme", 1)
				known.bound("acme", r)
				log.Bounded("acme")
				log.Bounded("other")
				first("acme", 3)
				append3("acme")
				first("acme", 6)
				first("other", 1)
				known.bound("other", r) // and nobody says so
				<-time.After(time.Minute)
				first("other", 3)
				append3("other")
				first("other", 6)
			})
		})
	}
}

// Only what has a source's id both as its scope and as its attribute came through it.
func TestNothingPassesForASources(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	const source, other = "src_01j9z3k4m5n6p7q8r9s0t1v2w0", "src_01j9z3k4m5n6p7q8r9s0t1v2w4"
	for _, c := range []struct {
		scope, attribute string
		field            string // that is refused
	}{
		{source, source, ""}, {"", "", ""}, {"/shop", "", ""}, {"/shop", "shop", ""}, {source + "x", "", ""}, {"", "src_x", ""},
		{source, "", "source"}, {source, "/shop", "source"},
		{"", source, "attributes.source"}, {"/shop", source, "attributes.source"}, {source, other, "attributes.source"},
	} {
		e := event(1)
		e.ID, e.Scope = "evt_1 "+c.attribute, c.scope
		if c.attribute != "" {
			e.Attributes = map[string]string{eventhose.SourceAttribute: c.attribute}
		}
		if _, err := log.Append(t.Context(), "acme", e); c.field != "" {
			code(t, err, eventhose.CodeInvalid, c.field)
			_, err = log.Append(t.Context(), "acme", event(1), e)
			code(t, err, eventhose.CodeInvalid, "events[1]."+c.field)
		} else if err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if head, err := log.Head(t.Context(), "acme"); err != nil || head.Last != 6 {
		t.Errorf("%d events are in the log, %v", head.Last, err)
	}
}

// What no text of RFC 3339 can say in UTC is no time of an event, whatever offset a client says it at.
func TestTimesAtTheEdgeOfTheCalendar(t *testing.T) {
	log, st := open(t, acme)
	defer closeAll(t, log, st)
	for text, good := range map[string]bool{
		"9999-12-31T23:59:59.999999999Z": true, "9999-12-31T23:59:59+01:00": true, "9999-12-31T23:59:59-01:00": false,
		"0001-01-01T00:00:00.000000001Z": true, "0001-01-01T00:00:00-01:00": true, "0001-01-01T00:00:00+01:00": false,
	} {
		e := event(1)
		var err error
		if e.Time, err = time.Parse(time.RFC3339Nano, text); err != nil {
			t.Fatal(err)
		}
		placed, err := log.Append(t.Context(), "acme", e)
		if !good {
			code(t, err, eventhose.CodeInvalid, "time")
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got, err := log.Event(t.Context(), "acme", "", placed[0].ID)
		if b, failed := json.Marshal(got.Time); err != nil || failed != nil || !got.Time.Equal(e.Time) {
			t.Errorf("%s is read as %s, %v, %v", text, b, failed, err)
		}
	}
}

// An erased event keeps its place and loses its data, in the parent's log too. What is erased in the parent's log its own log still has.
func TestErase(t *testing.T) {
	known := tenants{"acme": {ID: "acme", Parent: "platform"}, "platform": {ID: "platform"}}
	st, err := embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	var told []eventhose.Origin
	log := eventlog.New(st, known, eventlog.Options{Erased: func(tenant eventhose.TenantID, seq eventhose.Sequence) {
		told = append(told, eventhose.Origin{Tenant: tenant, Sequence: seq})
	}})
	defer closeAll(t, log, st)
	ctx := t.Context()
	if _, err := log.Append(ctx, "platform", event(0)); err != nil { // so that places differ
		t.Fatal(err)
	}
	placed, err := log.Append(ctx, "acme", event(1), event(2))
	if err != nil {
		t.Fatal(err)
	}
	has := func(tenant eventhose.TenantID, id string, n int) {
		t.Helper()
		e, err := log.Event(ctx, tenant, "", id)
		if err != nil || e.Erased != (n == 0) || n > 0 && !bytes.Equal(e.Data, event(n).Data) || n == 0 && len(e.Data) > 0 {
			t.Errorf("%s has %+v, %v", tenant, e, err)
		}
	}
	for i, p := range placed {
		has("platform", "acme/"+p.ID, i+1)
	}
	for range 2 {
		if err := log.Erase(ctx, "platform", "", "acme/"+placed[0].ID); err != nil {
			t.Fatal(err)
		}
		has("platform", "acme/"+placed[0].ID, 0)
		has("acme", placed[0].ID, 1)
	}
	for _, p := range placed {
		if err := log.Erase(ctx, "acme", "", p.ID); err != nil {
			t.Fatal(err)
		}
		has("acme", p.ID, 0)
		has("platform", "acme/"+p.ID, 0)
	}
	if want := fmt.Sprint([]eventhose.Origin{{Tenant: "platform", Sequence: 2}, {Tenant: "platform", Sequence: 2}, {Tenant: "acme", Sequence: 1}, {Tenant: "acme", Sequence: 2}}); fmt.Sprint(told) != want {
		t.Errorf("told of %v, want %v", told, want)
	}
	code(t, log.Erase(ctx, "acme", "", "evt_none"), eventhose.CodeNotFound, "")
	code(t, log.Erase(ctx, "platform", "", placed[0].ID), eventhose.CodeNotFound, "")
}

// After Close nothing is taken any more, and what was taken is committed.
func TestClose(t *testing.T) {
	log, st := open(t, acme)
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := 0
	for range 20 {
		wg.Go(func() {
			for {
				_, err := log.Append(context.Background(), "acme", event(1))
				if err != nil {
					code(t, err, eventhose.CodeUnavailable, "")
					return
				}
				mu.Lock()
				acked++
				mu.Unlock()
			}
		})
	}
	if err := log.Wait(t.Context(), "acme", 10); err != nil {
		t.Fatal(err)
	}
	log.Close()
	wg.Wait()
	if h, err := st.Head(t.Context(), "acme"); err != nil || int(h.Last) != acked {
		t.Errorf("%d in the log, %d acknowledged, %v", h.Last, acked, err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}
