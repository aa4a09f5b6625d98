package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// everyCall is each call that goes to the database, by name, at log "calls".
func everyCall(st *postgres.Store) map[string]func(ctx context.Context) error {
	const log, sub = eventhose.TenantID("calls"), growthSub
	lane := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: log, Subscription: sub}}}
	found := func(err error) error {
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrVersion) {
			return nil
		}
		return err
	}
	return map[string]func(ctx context.Context) error{
		"append": func(ctx context.Context) error {
			_, err := st.Append(ctx, []store.Append{{Tenant: log, Parent: "parent", Events: []store.NewEvent{growthEvent(1, false)}}})
			return err
		},
		"read": func(ctx context.Context) error {
			_, err := st.Read(ctx, "parent", 0, store.ReadLimit{Events: 10, Bytes: 1 << 20})
			return err
		},
		"lookup": func(ctx context.Context) error {
			_, err := st.Lookup(ctx, log, store.Ref{ID: "a/b"})
			return found(err)
		},
		"head": func(ctx context.Context) error {
			_, err := st.Head(ctx, log)
			return err
		},
		"trim": func(ctx context.Context) error {
			_, err := st.Trim(ctx, log, store.Trim{Bytes: 10_000, Keep: 1})
			return err
		},
		"erase": func(ctx context.Context) error { return found(st.Erase(ctx, log, 1<<40)) },
		"lane": func(ctx context.Context) error {
			_, _, err := st.Lane(ctx, log, sub)
			return found(err)
		},
		"parked": func(ctx context.Context) error {
			_, err := st.Parked(ctx, log, sub, store.ParkedQuery{Limit: 10})
			return err
		},
		"attempts": func(ctx context.Context) error {
			_, err := st.Attempts(ctx, log, store.AttemptQuery{Sequence: 1, Limit: 10})
			return err
		},
		"commit": func(ctx context.Context) error {
			return st.Commit(ctx, store.Progress{Matched: []store.Tail{{Tenant: log, Matched: 1}}, Lanes: []store.LaneChange{lane}})
		},
		"commit twice": func(ctx context.Context) error {
			return st.Commit(ctx, store.Progress{Lanes: []store.LaneChange{lane, lane}})
		},
		"work": func(ctx context.Context) error {
			_, err := st.Work(ctx, store.LaneRef{}, 10)
			return err
		},
		"tails": func(ctx context.Context) error {
			_, err := st.Tails(ctx, "", 10)
			return err
		},
		"claim": func(ctx context.Context) error {
			_, err := st.Claim(ctx, "node", nil, time.Minute)
			return err
		},
		"record": func(ctx context.Context) error {
			_, err := st.Record(ctx, log, "key", "k")
			return found(err)
		},
		"list": func(ctx context.Context) error {
			_, err := st.List(ctx, log, "key", "", 10)
			return err
		},
		"save": func(ctx context.Context) error {
			return found(st.Save(ctx, []store.RecordChange{{Record: store.Record{Tenant: log, Kind: "key", ID: "k", Value: []byte("v")}}}, nil))
		},
		"unplaced tenants": func(ctx context.Context) error {
			_, err := st.UnplacedTenants(ctx, "", 10)
			return err
		},
		"unplaced": func(ctx context.Context) error {
			_, err := st.Unplaced(ctx, log, 10)
			return err
		},
		"place": func(ctx context.Context) error {
			_, _, err := st.Place(ctx, []store.Append{{Tenant: log, Events: []store.NewEvent{growthEvent(1, false)}}}, []int64{1 << 60})
			return err
		},
		"upkeep": st.Upkeep,
		"ready":  st.Ready,
	}
}

// A server that dies under load and comes back is survived: every call fails with ErrUnavailable meanwhile and works again by itself, and
// what was acknowledged is there, once.
func TestServerKilled(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	before := goleak.IgnoreCurrent()
	const conns = 6
	st, err := postgres.Open(t.Context(), server.URL("postgres"), postgres.Options{MaxConns: conns, Upkeep: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	type outcome struct{ ok, away atomic.Int64 }
	outcomes := map[string]*outcome{}
	loop := func(name string, call func(context.Context) error) {
		o := outcomes[name]
		if o == nil {
			o = &outcome{}
			outcomes[name] = o
		}
		all.Go(func() {
			for ctx.Err() == nil {
				switch err := call(context.WithoutCancel(ctx)); {
				case err == nil:
					o.ok.Add(1)
				case errors.Is(err, store.ErrUnavailable):
					o.away.Add(1)
				default:
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	for name, call := range everyCall(st) {
		loop(name, call)
	}
	var acked [3]atomic.Int64 // events of each log, one after the other and each until it is acknowledged
	for i := range acked {
		tenant := eventhose.TenantID(fmt.Sprint("acked", i))
		loop("append "+string(tenant), func(ctx context.Context) error {
			n := acked[i].Load() + 1
			r, err := st.Append(ctx, []store.Append{{Tenant: tenant, Events: []store.NewEvent{growthEvent(n, true)}}})
			if err != nil {
				return err
			}
			if r[0].Err != nil || r[0].Placements[0].Sequence != eventhose.Sequence(n) {
				return fmt.Errorf("event %d of %s was answered %+v", n, tenant, r[0])
			}
			acked[i].Store(n)
			return nil
		})
	}
	var interrupted atomic.Int64
	all.Go(func() {
		st.Listen(ctx, func(h postgres.Hint) {
			if h.Kind == postgres.HintInterrupted {
				interrupted.Add(1)
			}
		})
	})
	each := func(what string, count func(*outcome) int64) {
		t.Helper()
		before := map[string]int64{}
		for name, o := range outcomes {
			before[name] = count(o)
		}
		within, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if until(within, func() bool {
			maps.DeleteFunc(before, func(name string, n int64) bool { return count(outcomes[name]) > n })
			return len(before) == 0
		}) {
			return
		}
		t.Fatalf("never %s: %v", what, slices.Sorted(maps.Keys(before)))
	}
	ok, away := func(o *outcome) int64 { return o.ok.Load() }, func(o *outcome) int64 { return o.away.Load() }
	for round := range 2 {
		each("works", ok)
		listening := interrupted.Load()
		server.Kill()
		each("is unavailable", away)
		began := time.Now()
		server.Start()
		each("works again", ok)
		within, cancel := context.WithTimeout(t.Context(), time.Minute)
		if !until(within, func() bool { return interrupted.Load() > listening }) {
			t.Error("the hints are not listened to again")
		}
		cancel()
		t.Logf("round %d: all %d calls work again %v after the server was started", round, len(outcomes), time.Since(began).Round(time.Millisecond))
	}
	stop()
	all.Wait()
	for i := range acked {
		tenant, n := eventhose.TenantID(fmt.Sprint("acked", i)), acked[i].Load()
		logs, err := readAll(t.Context(), st, []eventhose.TenantID{tenant})
		if err != nil {
			t.Fatal(err)
		}
		// What was not acknowledged may be there, too.
		if have := int64(len(logs[tenant])); have < n || have > n+1 {
			t.Errorf("%s has %d events, of which %d were acknowledged", tenant, have, n)
		}
		for j, e := range logs[tenant] {
			if e.ID != fmt.Sprint("id-", j+1) {
				t.Fatalf("%s/%d is %s", tenant, j+1, e.ID)
			}
		}
	}
	if c := st.Connections(); c.InUse != 0 || c.Open > conns || c.Max != conns {
		t.Errorf("connections: %+v", c)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
	noConnections(t, server.URL("postgres"))
}

// noConnections waits until no node is connected to a database any more.
func noConnections(t *testing.T, url string) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	left := func() int {
		return ask[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventhose' AND datname = current_database()")
	}
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if !until(within, func() bool { return left() == 0 }) {
		t.Errorf("%d connections are left", left())
	}
}

// Closing ends everything, and later calls say so.
func TestClosed(t *testing.T) {
	url := pgtest.Database(t)
	before := goleak.IgnoreCurrent()
	st, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 4, Upkeep: time.Millisecond, PartitionSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range everyCall(st) {
		if err := call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(st.Close(), st.Close()); err != nil {
		t.Error(err)
	}
	for name, call := range everyCall(st) {
		if err := call(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s after closing: %v", name, err)
		}
	}
	goleak.VerifyNone(t, before)
	noConnections(t, url)
}

// A standby is told from a primary, until it is one.
func TestStandby(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Options{})
	before, err := postgres.Open(t.Context(), primary.URL("postgres"), postgres.Options{MaxConns: 4, Upkeep: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(everyCall(before)["head"](t.Context()), before.Close()); err != nil { // so that there is a log
		t.Fatal(err)
	}
	standby := primary.Standby(t, pgtest.Options{})
	st, err := postgres.Open(t.Context(), standby.URL("postgres"), postgres.Options{MaxConns: 4, Upkeep: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Ready(t.Context()); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "standby") {
		t.Errorf("ready: %v", err)
	}
	calls := everyCall(st)
	for _, name := range []string{"append", "commit", "save", "claim", "place", "upkeep"} {
		if err := calls[name](t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s at a standby: %v", name, err)
		}
	}
	for _, name := range []string{"read", "head", "record", "work", "tails"} {
		if err := calls[name](t.Context()); err != nil {
			t.Errorf("%s at a standby: %v", name, err)
		}
	}
	if head, err := st.Head(t.Context(), "new"); !errors.Is(err, store.ErrUnavailable) { // it has no incarnation to tell, and cannot get one
		t.Errorf("head of a log that is not there yet at a standby: %+v, %v", head, err)
	}
	primary.Kill()
	standby.Promote()
	for name, call := range calls {
		if err := call(t.Context()); err != nil {
			t.Errorf("%s after it was promoted: %v", name, err)
		}
	}
}
