package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/inbound"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/webhook"
)

// work counts what requests ask of a store: calls, and the events, attempts and parked rows that it answers.
type work struct {
	store.Store
	calls, rows atomic.Int64
}

func (w *work) did(n int) { w.calls.Add(1); w.rows.Add(int64(n)) }

func (w *work) Read(ctx context.Context, id eventhose.TenantID, after eventhose.Sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	events, err := w.Store.Read(ctx, id, after, limit)
	w.did(len(events))
	return events, err
}

func (w *work) Lookup(ctx context.Context, id eventhose.TenantID, ref store.Ref) (*eventhose.Event, error) {
	w.did(1)
	return w.Store.Lookup(ctx, id, ref)
}

func (w *work) Head(ctx context.Context, id eventhose.TenantID) (eventhose.Head, error) {
	w.did(0)
	return w.Store.Head(ctx, id)
}

func (w *work) Lane(ctx context.Context, id eventhose.TenantID, sub eventhose.SubscriptionID) (store.Lane, []store.BlockedKey, error) {
	w.did(1)
	return w.Store.Lane(ctx, id, sub)
}

func (w *work) Parked(ctx context.Context, id eventhose.TenantID, sub eventhose.SubscriptionID, q store.ParkedQuery) ([]store.Parked, error) {
	rows, err := w.Store.Parked(ctx, id, sub, q)
	w.did(len(rows))
	return rows, err
}

func (w *work) Attempts(ctx context.Context, id eventhose.TenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	list, err := w.Store.Attempts(ctx, id, q)
	w.did(len(list))
	return list, err
}

func (w *work) Record(ctx context.Context, id eventhose.TenantID, kind, name string) (store.Record, error) {
	w.did(1)
	return w.Store.Record(ctx, id, kind, name)
}

func (w *work) List(ctx context.Context, id eventhose.TenantID, kind, after string, limit int) ([]store.Record, error) {
	list, err := w.Store.List(ctx, id, kind, after, limit)
	w.did(len(list))
	return list, err
}

const listed = eventhose.TenantID("listed")

// full is a store with very many events and attempts.
type full struct {
	n      int // events, and attempts
	subs   []eventhose.SubscriptionID
	source eventhose.SourceID
}

// fillLists writes n events of as many types as there are subscriptions, each wanted by one of them and tried there once: one
// of fifty is dead, another one retrying, every tenth came through a source. All of them were a millisecond apart.
func fillLists(t *testing.T, st store.Store, n, lanes int) *full {
	t.Helper()
	f := &full{n: n}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctl, err := control.New(st, control.Options{SecretKey: make([]byte, 32), CheckSource: (&inbound.Checker{}).Check,
		Sinks: map[string]sink.Sink{eventhose.DestinationWebhook: anySink{}}})
	ok(err)
	_, _, err = ctl.PutTenant(t.Context(), eventhose.Tenant{ID: listed})
	ok(err)
	src, err := ctl.CreateSource(t.Context(), eventhose.Source{Tenant: listed, Provider: "inspect"})
	ok(err)
	f.source = src.ID
	for i := range lanes {
		s, err := ctl.CreateSubscription(t.Context(), eventhose.Subscription{Tenant: listed, Name: fmt.Sprintf("lane %d", i), Filter: eventhose.Filter{Types: []string{fmt.Sprintf("order.t%d", i)}},
			Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook"}}, "now")
		ok(err)
		f.subs = append(f.subs, s.ID)
	}
	var making sync.WaitGroup
	next := make(chan int)
	for range 16 {
		making.Go(func() {
			for i := range next {
				if _, _, err := ctl.PutTenant(t.Context(), eventhose.Tenant{ID: eventhose.TenantID(fmt.Sprintf("tenant%06d", i))}); err != nil {
					t.Error(err)
				}
				if i >= 900 { // a tenant has at most 1,000
					continue
				}
				if _, _, err := ctl.CreateKey(t.Context(), eventhose.APIKey{Tenant: listed, Scopes: []eventhose.Scope{eventhose.ScopeRead}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range max(200, n/100) {
		next <- i
	}
	close(next)
	making.Wait()

	start := time.Now().UTC().Truncate(time.Microsecond).Add(-time.Duration(n)*time.Millisecond - time.Minute)
	data := []byte(`{"order": {"id": 4711, "total": "12.50", "note": "` + strings.Repeat("x", 300) + `"}}`)
	lane := make([]store.Lane, lanes)
	for seq := 1; seq <= n; {
		var a store.Append
		a.Tenant = listed
		p := store.Progress{Lanes: make([]store.LaneChange, lanes)}
		for i := range lanes {
			p.Lanes[i].Create = true
		}
		for range min(1000, n+1-seq) {
			at := start.Add(time.Duration(seq) * time.Millisecond)
			i := seq % lanes
			e := eventhose.Event{ID: fmt.Sprintf("event-%d", seq), Type: fmt.Sprintf("order.t%d", i), Key: fmt.Sprintf("order-%d", seq%5000), Time: at, Appended: at, Data: data}
			if seq%10 == 0 {
				e.Scope, e.Attributes = string(f.source), map[string]string{eventhose.SourceAttribute: string(f.source), "provider": "inspect"}
			}
			a.Events = append(a.Events, store.NewEvent{Event: e, Digest: [16]byte{byte(seq), byte(seq >> 8), byte(seq >> 16)}})
			try := eventhose.Attempt{ID: eventhose.AttemptIDAt(at.Add(20 * time.Millisecond)), Tenant: listed, Subscription: f.subs[i], Events: []string{e.ID}, Sequences: []eventhose.Sequence{eventhose.Sequence(seq)},
				Kind: eventhose.AttemptFirst, Number: 1, Outcome: eventhose.OutcomeTaken, Status: 200, Started: at, Duration: eventhose.Duration(20 * time.Millisecond), URL: "https://example.com/hook",
				Address: "192.0.2.1:443", ResponseHeaders: map[string]string{"content-type": "text/plain"}, ResponseBody: "ok", Previous: []eventhose.Sequence{eventhose.Sequence(max(0, seq-lanes))}}
			row := store.Parked{Parked: eventhose.Parked{Event: e.ID, Sequence: eventhose.Sequence(seq), Type: e.Type, Key: e.Key, Attempts: 1, Since: at, Status: 503, Reason: eventhose.ReasonStatus}, Tries: 1}
			switch seq / lanes % 50 {
			case 7:
				row.State = eventhose.ParkedDead
				lane[i].Dead++
			case 8:
				row.State, row.Due = eventhose.ParkedRetrying, time.Now().Add(1000*time.Hour).UTC()
				lane[i].Retrying++
				lane[i].Due = row.Due
			}
			if row.State != "" {
				try.Outcome, try.Reason, try.Status, try.Message, try.Next = eventhose.OutcomeFailed, eventhose.ReasonStatus, 503, "the receiver answered 503", row.Due
				p.Lanes[i].Park = append(p.Lanes[i].Park, row)
			}
			p.Lanes[i].Attempts = append(p.Lanes[i].Attempts, try)
			seq++
		}
		_, err := st.Append(t.Context(), []store.Append{a})
		ok(err)
		for i := range lanes {
			lane[i].LaneRef, lane[i].Cursor = store.LaneRef{Tenant: listed, Subscription: f.subs[i]}, eventhose.Sequence(seq-1)
			p.Lanes[i].Lane = lane[i]
		}
		p.Matched = []store.Tail{{Tenant: listed, Matched: eventhose.Sequence(seq - 1)}}
		ok(st.Commit(t.Context(), p))
	}
	return f
}

// anySink takes every destination.
type anySink struct{ *webhook.Sink }

func (anySink) Check(eventhose.Destination) error { return nil }

// listing is one way to ask for a list.
type listing struct{ name, path string }

func (w *world) listings(f *full) []listing {
	w.t.Helper()
	base, sub := "/v1/tenants/listed", "/v1/tenants/listed/subscriptions/"+string(f.subs[3])
	next := func(path string) string {
		w.t.Helper()
		n, _ := w.want(200, w.root("GET", path, "")).json(w.t)["next"].(string)
		if n == "" {
			w.t.Fatalf("%s has no next page", path)
		}
		return url.QueryEscape(n)
	}
	cursor := func(seq int) string {
		c := w.want(200, w.root("GET", base+"/events?limit=1", "")).json(w.t)["cursor"].(string)
		incarnation, _, _ := strings.Cut(c, "_")
		return incarnation + "_" + strconv.Itoa(seq)
	}
	middle := time.Now().Add(-time.Duration(f.n/2) * time.Millisecond).UTC()
	at := url.QueryEscape(middle.Format(time.RFC3339Nano))
	deep := eventhose.AttemptIDAt(middle)
	attempt := w.want(200, w.root("GET", sub+"/attempts?limit=1", "")).json(w.t)["data"].([]any)[0].(map[string]any)["id"].(string)
	return []listing{
		{"events", base + "/events"},
		{"events, deep", base + "/events?after=" + cursor(f.n/2)},
		{"events, rare", base + "/events?types=rare"},
		{"search", base + "/events/search"},
		{"search, deep", base + "/events/search?before=" + cursor(f.n/2)},
		{"search, from a time", base + "/events/search?until=" + at},
		{"search, within a time", base + "/events/search?since=" + at + "&types=rare"},
		{"search, one type", base + "/events/search?types=order.t5"},
		{"search, a key", base + "/events/search?keys=order-77"},
		{"search, rare", base + "/events/search?types=rare"},
		{"search, expression", base + "/events/search?expression=" + url.QueryEscape("data.order.id == 1")},
		{"search, dead", base + "/events/search?status=dead"},
		{"search, waiting", base + "/events/search?status=waiting"},
		{"search, an id", base + "/events/search?id=event-" + strconv.Itoa(f.n/2+1)},
		{"attempts of all", base + "/attempts"},
		{"attempts of all, deep", base + "/attempts?before=" + deep},
		{"attempts of all, failed", base + "/attempts?outcome=failed"},
		{"attempts of all, rare", base + "/attempts?reason=dns"},
		{"attempts of all, from a time", base + "/attempts?until=" + at},
		{"attempts of all, of one", base + "/attempts?outcome=failed&subscription=" + string(f.subs[3])},
		{"attempts", sub + "/attempts"},
		{"attempts, deep", sub + "/attempts?after=" + deep},
		{"attempts of an event", sub + "/attempts?event=event-" + strconv.Itoa(f.n/2/len(f.subs)*len(f.subs)+3)},
		{"attempt", sub + "/attempts/" + attempt},
		{"parked of all", base + "/parked"},
		{"parked of all, deep", base + "/parked?after=" + strconv.Itoa(f.n/2) + "." + string(f.subs[0])},
		{"parked of all, dead", base + "/parked?state=dead"},
		{"parked of all, leased", base + "/parked?state=leased"},
		{"parked", sub + "/parked"},
		{"parked, dead", sub + "/parked?state=dead"},
		{"parked, waiting", sub + "/parked?state=waiting"},
		{"batches", sub + "/batches"},
		{"subscriptions", base + "/subscriptions"},
		{"inbox", base + "/inbox"},
		{"inbox, dead", base + "/inbox?status=dead"},
		{"inbox, processed", base + "/inbox?status=processed&after=" + cursor(f.n/2)},
		{"tenants", "/v1/tenants"},
		{"tenants, deep", "/v1/tenants?after=" + next("/v1/tenants?limit=100")},
		{"keys", "/v1/keys?tenant=listed"},
		{"keys, deep", "/v1/keys?tenant=listed&after=" + next("/v1/keys?tenant=listed&limit=100")},
	}
}

// TestLists: whatever there is in the store, a page of a list asks a bounded amount of it. EVENTHOSE_LISTS fills it with so
// many events and attempts, on a disk, and tells how long each list takes.
func TestLists(t *testing.T) {
	n, lanes, times := 20_000, 40, 2
	if s := os.Getenv("EVENTHOSE_LISTS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		lanes, times = 1000, 100
	}
	for name, open := range map[string]func(t *testing.T) (store.Store, error){
		"embedded": func(t *testing.T) (store.Store, error) {
			if times > 2 {
				return embedded.Open(t.TempDir(), embedded.Options{})
			}
			return embedded.Open("data", embedded.Options{FS: vfs.NewMem(), MinFree: -1})
		},
		"postgres": func(t *testing.T) (store.Store, error) {
			return postgres.Open(t.Context(), pgtest.Database(t), postgres.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			counted := &work{Store: st}
			f := fillLists(t, st, n, lanes)
			w := newWorldOver(t, counted, nil)
			var told strings.Builder
			for _, l := range w.listings(f) {
				var took []time.Duration
				calls, rows := int64(math.MaxInt64), int64(math.MaxInt64) // the least: the engine has its own to read
				for range times {
					counted.calls.Store(0)
					counted.rows.Store(0)
					began := time.Now()
					r := w.want(http.StatusOK, w.root("GET", l.path, ""))
					took = append(took, time.Since(began))
					calls, rows = min(calls, counted.calls.Load()), min(rows, counted.rows.Load())
					if !json.Valid(r.body) {
						t.Fatalf("%s: %s", l.name, r.body)
					}
				}
				// A page examines so much; what it tells of what it has found comes beside that.
				if rows > eventhose.MaxExamined+5000 || calls > 1500 {
					t.Errorf("%s asked the store %d times, for %d rows", l.name, calls, rows)
				}
				slices.Sort(took)
				fmt.Fprintf(&told, "%-30s p50 %8.2f ms  p99 %8.2f ms  %5d calls %6d rows\n", l.name, ms(took[len(took)/2]), ms(took[len(took)*99/100]), calls, rows)
			}
			t.Logf("%d events and attempts, %d subscriptions\n%s", n, lanes, told.String())
		})
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
