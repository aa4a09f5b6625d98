package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// upkeepSteps are what the upkeep waits for if another session holds it, step by step: what gives that session no transaction number, which the
// upkeep would wait for without beginning. The partition to be dropped is 1.
var upkeepSteps = []struct{ step, hold string }{
	{"sweep", "LOCK TABLE eventhose.records IN ACCESS EXCLUSIVE MODE"},
	{"turn", "LOCK TABLE eventhose.partitions IN SHARE MODE"},
	{"carry", "LOCK TABLE eventhose.logs IN EXCLUSIVE MODE"},
	{"keep aside", "LOCK TABLE eventhose.kept_events IN SHARE MODE"},
	{"forget ids", "LOCK TABLE eventhose.event_ids IN SHARE MODE"},
	{"detach attempts", "SELECT count(*) FROM eventhose.attempts"},
	{"detach events", "SELECT count(*) FROM eventhose.events WHERE part > 1"},
	{"drop", "LOCK TABLE eventhose.events_1 IN ACCESS SHARE MODE"},
}

// An upkeep that is interrupted, in whatever step, leaves nothing half done for good: the next one finishes it, with nothing lost.
func TestUpkeepInterrupted(t *testing.T) {
	for _, c := range upkeepSteps {
		t.Run(c.step, func(t *testing.T) {
			g := newGrowth(t, postgres.Options{MaxConns: 4, PartitionSize: 1})
			st := g.nodes[0]
			fillForUpkeep(t, st)
			holder, err := g.db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := holder.Exec(t.Context(), c.hold); err != nil {
				t.Fatal(err)
			}
			mine := ask[uint32](t, holder.Conn(), "SELECT pg_backend_pid()")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- st.Upkeep(ctx) }()
			watch := g.connect()
			waits := func() bool {
				return ask[int](t, watch, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventhose' AND $1::int = ANY (pg_blocking_pids(pid))", mine) > 0
			}
			within, stop := context.WithTimeout(t.Context(), 30*time.Second)
			defer stop()
			if !until(within, waits) {
				t.Fatalf("the upkeep does not wait for what is held: %v", <-done)
			}
			// Meanwhile another node's upkeep has nothing to do, and logs are appended to and read.
			if err := g.nodes[1].Upkeep(t.Context()); err != nil {
				t.Errorf("the other node's upkeep: %v", err)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("the upkeep answers %v", err)
			}
			if !until(within, func() bool { return !waits() }) { // the server hears of it a moment later
				t.Fatal("the upkeep goes on")
			}
			if err := holder.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			// What was cancelled gives back its lock when its connection ends.
			if !until(within, func() bool {
				if err := g.nodes[1].Upkeep(t.Context()); err != nil {
					t.Fatalf("the next upkeep: %v", err)
				}
				return ask[int](t, watch, "SELECT count(*) FROM eventhose.partitions WHERE part = 1") == 0
			}) {
				t.Fatal("the partition is never dropped")
			}
			checkAfterUpkeep(t, g)
		})
	}
}

func (g *growth) connect() *pgx.Conn {
	g.Helper()
	db, err := pgx.ConnectConfig(g.Context(), g.db.Config())
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { db.Close(context.Background()) })
	return db
}

// fillForUpkeep appends to two logs: busy is trimmed but for its newest event, and one of what was trimmed is parked; of idle one event is left.
func fillForUpkeep(t *testing.T, st *postgres.Store) {
	t.Helper()
	put := func(tenant eventhose.TenantID, from, n int64) {
		t.Helper()
		entry := store.Append{Tenant: tenant}
		for i := range n {
			entry.Events = append(entry.Events, growthEvent(from+i, true))
		}
		if _, err := st.Append(t.Context(), []store.Append{entry}); err != nil {
			t.Fatal(err)
		}
	}
	put("busy", 1, 100)
	put("idle", 1, 1)
	e, err := st.Lookup(t.Context(), "busy", store.Ref{Sequence: 50})
	if err != nil {
		t.Fatal(err)
	}
	lane := store.Lane{LaneRef: store.LaneRef{Tenant: "busy", Subscription: growthSub}}
	idle := store.Lane{LaneRef: store.LaneRef{Tenant: "idle", Subscription: growthSub}}
	park := store.Parked{Parked: eventhose.Parked{Event: e.ID, Sequence: 50, Type: e.Type, State: eventhose.ParkedDead, Since: e.Appended}, Tries: 1}
	if err := st.Commit(t.Context(), store.Progress{Lanes: []store.LaneChange{
		{Create: true, Lane: lane, Park: []store.Parked{park}, Attempts: []eventhose.Attempt{growthAttempt("busy", 1, 50)}},
		{Create: true, Lane: idle, Attempts: []eventhose.Attempt{growthAttempt("idle", 1, 1)}}}}); err != nil {
		t.Fatal(err)
	}
	if done, err := st.Trim(t.Context(), "busy", store.Trim{Bytes: 1, Keep: 1 << 20}); err != nil || done.First != 100 {
		t.Fatal(done, err)
	}
}

func checkAfterUpkeep(t *testing.T, g *growth) {
	t.Helper()
	st := g.nodes[1]
	for tenant, seqs := range map[eventhose.TenantID][]eventhose.Sequence{"busy": {50, 100}, "idle": {1}} {
		for _, seq := range seqs {
			for _, ref := range []store.Ref{{Sequence: seq}, {ID: fmt.Sprint("id-", seq)}} {
				if e, err := st.Lookup(t.Context(), tenant, ref); err != nil || e.Sequence != seq || len(e.Data) < 100 {
					t.Errorf("%s by %+v: %+v, %v", tenant, ref, e, err)
				}
			}
		}
	}
	if list, err := st.Attempts(t.Context(), "idle", store.AttemptQuery{Sequence: 1, Limit: 10}); err != nil || len(list) != 1 {
		t.Errorf("attempts at the newest event of an idle log: %v, %v", list, err)
	}
	for what, sql := range map[string]string{
		"ids of what was dropped":   "SELECT count(*) FROM eventhose.event_ids WHERE tenant = 'busy' AND seq NOT IN (50, 100)",
		"spans of no partition":     "SELECT count(*) FROM eventhose.spans WHERE part NOT IN (SELECT part FROM eventhose.partitions)",
		"tables of no partition":    "SELECT count(*) FROM pg_class WHERE oid IN (to_regclass('eventhose.events_1'), to_regclass('eventhose.attempts_1'))",
		"detached halfway":          "SELECT count(*) FROM pg_inherits WHERE inhdetachpending",
		"logs that go on elsewhere": misplaced,
	} {
		if n := ask[int](t, g.db, sql); n > 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
	if _, err := st.Append(t.Context(), []store.Append{{Tenant: "busy", Events: []store.NewEvent{growthEvent(101, true)}}, {Tenant: "idle", Events: []store.NewEvent{growthEvent(2, true)}}}); err != nil {
		t.Error(err)
	}
	for tenant, after := range map[eventhose.TenantID]eventhose.Sequence{"busy": 99, "idle": 0} {
		if page, err := st.Read(t.Context(), tenant, after, store.ReadLimit{Events: 10, Bytes: 1 << 20}); err != nil || len(page) != 2 {
			t.Errorf("%s has %d events after %d: %v", tenant, len(page), after, err)
		}
	}
}

// slowAppend has every append wait, before it commits, for a lock that the test may hold.
const slowAppend = `
CREATE FUNCTION slow_append() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4242); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow_append AFTER UPDATE ON eventhose.logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.tenant = 'slow') EXECUTE FUNCTION slow_append();`

// An append may take as long as it likes to commit: the partition that it has put its events into, which looks empty to others, is not dropped.
func TestUpkeepWaitsForAppends(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 4, PartitionSize: 1})
	if _, err := g.nodes[0].Append(t.Context(), []store.Append{{Tenant: "other", Events: []store.NewEvent{growthEvent(1, false)}}}); err != nil {
		t.Fatal(err)
	}
	if err := execute(t.Context(), g.db, slowAppend); err != nil {
		t.Fatal(err)
	}
	ask[any](t, g.db, "SELECT pg_advisory_lock(4242)")
	appended := make(chan error, 1)
	go func() {
		_, err := g.nodes[0].Append(t.Context(), []store.Append{{Tenant: "slow", Events: []store.NewEvent{growthEvent(1, true)}}})
		appended <- err
	}()
	waiting := func(n int) func() bool {
		return func() bool {
			return ask[int](t, g.db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0") >= n
		}
	}
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if !until(within, waiting(1)) {
		t.Fatal("the append does not wait")
	}
	kept := make(chan error, 1)
	go func() {
		var err error
		for range 3 {
			err = errors.Join(err, g.nodes[1].Upkeep(within))
		}
		kept <- err
	}()
	if !until(within, func() bool { return len(kept) > 0 || waiting(2)() }) {
		t.Fatal("the upkeep neither ends nor waits")
	}
	ask[bool](t, g.db, "SELECT pg_advisory_unlock(4242)")
	if err := errors.Join(<-appended, <-kept); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		page, err := g.nodes[1].Read(t.Context(), "slow", 0, store.ReadLimit{Events: 10, Bytes: 1 << 20})
		if err != nil || len(page) != 1 {
			t.Fatalf("of the append %d events can be read: %v", len(page), err)
		}
		if err := g.nodes[1].Upkeep(t.Context()); err != nil { // which now carries it on
			t.Fatal(err)
		}
	}
	if n := ask[int](t, g.db, "SELECT count(*) FROM eventhose.partitions WHERE part = 1"); n > 0 {
		t.Error("the partition is never dropped")
	}
}

// What has expired goes at once, however much it is, and so do kept events that nothing is parked for any more. Others stay.
func TestUpkeepRemovesAllThatHasExpired(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 4})
	if err := execute(t.Context(), g.db, `
		INSERT INTO eventhose.records (version, expires, tenant, kind, id, value)
			SELECT 1, CASE WHEN n % 10 = 0 THEN now() + interval '1 hour' ELSE now() - interval '2 minutes' END, 'busy', 'answer', n::text, '' FROM generate_series(1, 30000) n;
		INSERT INTO eventhose.kept_events (part, nanos, erased, seq, random, time, appended, tenant, id, scope, type, key, version, content_type, data)
			SELECT 1, 0, false, n, 0, now(), now(), 'busy', 'id-' || n, '', 'x.y', '', '', '', '{}' FROM generate_series(1, 30000) n;
		INSERT INTO eventhose.parked (lane, seq, tenant, state, row) SELECT 1, n, 'busy', 'dead', '' FROM generate_series(10, 30000, 10) n;
		INSERT INTO eventhose.event_ids (id, digest, seq, tenant)
			SELECT eventhose._id_key('busy', '', 'id-' || n, 0, NULL), eventhose._id_key('busy', '', '', 0, NULL), n, 'busy' FROM generate_series(1, 30000) n`); err != nil {
		t.Fatal(err)
	}
	if err := g.nodes[0].Upkeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"records", "kept_events", "event_ids"} {
		if n := ask[int](t, g.db, "SELECT count(*) FROM eventhose."+table); n != 3000 {
			t.Errorf("%s: %d rows are left, not 3000", table, n)
		}
	}
}

// What has expired and cannot be removed keeps no partition from being turned and dropped.
func TestUpkeepPastWhatFails(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 4, PartitionSize: 1})
	st, err := postgres.Open(t.Context(), g.db.Config().ConnString()+"&lock_timeout=100", postgres.Options{MaxConns: 4, PartitionSize: 1, Upkeep: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	fillForUpkeep(t, st)
	holder, err := g.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), "LOCK TABLE eventhose.records IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	for range 4 { // turned, looked at twice, dropped
		if err := st.Upkeep(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("the upkeep does not tell: %v", err)
		}
	}
	if n := ask[int](t, g.db, "SELECT count(*) FROM eventhose.partitions WHERE part = 1"); n > 0 {
		t.Error("the partition stays")
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkAfterUpkeep(t, g)
}

// A node that stops does not wait for its own upkeep, whatever that waits for or has left to do.
func TestCloseDuringUpkeep(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 4})
	var warned atomic.Bool
	st, err := postgres.Open(t.Context(), g.db.Config().ConnString()+"&lock_timeout=0&statement_timeout=0",
		postgres.Options{MaxConns: 4, Upkeep: time.Millisecond, Logger: slog.New(ended{slog.DiscardHandler, func() { warned.Store(true) }})})
	if err != nil {
		t.Fatal(err)
	}
	holder, err := g.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), "LOCK TABLE eventhose.records IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	mine := ask[uint32](t, holder.Conn(), "SELECT pg_backend_pid()")
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watch := g.connect()
	if !until(within, func() bool {
		return ask[int](t, watch, "SELECT count(*) FROM pg_stat_activity WHERE $1::int = ANY (pg_blocking_pids(pid))", mine) > 0
	}) {
		t.Fatal("the upkeep never waits")
	}
	closed := make(chan error, 1)
	go func() { closed <- st.Close() }()
	select {
	case err := <-closed:
		if err != nil || warned.Load() {
			t.Errorf("closed with %v, warned: %t", err, warned.Load())
		}
	case <-within.Done():
		t.Error("it does not close")
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}
