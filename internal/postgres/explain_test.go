package postgres_test

// Which indexes the hot statements use, as the server itself says: auto_explain writes the plan of every statement to its log, also of those within functions.

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

var update = flag.Bool("update", false, "write testdata/scans.txt")

// smallTables do not grow, and may be read as a whole.
var smallTables = []string{"leases", "nodes", "partitions", "migrations"}

// planNode is a part of a plan in auto_explain's JSON.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Index    string     `json:"Index Name"`
	Plans    []planNode `json:"Plans"`
}

var partNumber = regexp.MustCompile(`^(events|attempts)_[0-9]+(_.*)?$`)

// scans adds what a plan reads tables by: "index I", or "all of T" unless T is one of those that have only a few pages.
func (p planNode) scans(into map[string]bool, tiny []string) {
	name := func(s string) string { return partNumber.ReplaceAllString(s, "${1}_N$2") }
	switch {
	case p.Index != "":
		into["index "+name(p.Index)] = true
	case p.Type == "Seq Scan" && slices.Contains(tiny, p.Relation):
	case p.Type == "Seq Scan":
		into["all of "+name(p.Relation)] = true
	case strings.HasSuffix(p.Type, "Scan") && p.Relation != "" && p.Type != "Bitmap Heap Scan" && p.Type != "Tid Scan":
		into[p.Type+" of "+name(p.Relation)] = true
	}
	for _, child := range p.Plans {
		child.scans(into, tiny)
	}
}

// No hot statement reads a table that grows from end to end, neither with the settings of the driver nor with those of a server; and which index is
// used for what is written down.
func TestScans(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"session_preload_libraries": "auto_explain", "auto_explain.log_nested_statements": "on",
		"auto_explain.log_format": "json", "auto_explain.log_min_duration": "-1", "logging_collector": "on", "log_destination": "jsonlog", "log_rotation_size": "0", "autovacuum": "off"}})
	base := server.URL("postgres")
	x := &explained{T: t, base: base}
	x.fill()
	db, err := pgx.Connect(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	x.db = db
	got := map[string]string{}
	for _, settings := range []string{"", "&enable_seqscan=on"} {
		for name, scans := range x.explain(base + "&auto_explain.log_min_duration=0" + settings) {
			for _, s := range scans {
				if table, whole := strings.CutPrefix(s, "all of "); whole && !slices.Contains(smallTables, table) {
					t.Errorf("with %q, %s reads all of %s", settings, name, table)
				}
			}
			if text := strings.Join(scans, "\n\t"); settings != "" && got[name] != text {
				got[name+", with sequential scans enabled"] = text
			} else {
				got[name] = text
			}
		}
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(got)) {
		fmt.Fprintf(&text, "%s\n\t%s\n", name, got[name])
	}
	golden := filepath.Join("testdata", "scans.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("other indexes are used than testdata/scans.txt says (write it with -update):\n%s", text.String())
	}
}

// explained is a database that is large enough for indexes to be worth it.
type explained struct {
	*testing.T
	base string
	db   *pgx.Conn
	n    int64
}

// The numbers of its rows.
const (
	explainTenants = 3000
	explainEvents  = 40 // of each
)

func explainTenant(i int) eventhose.TenantID { return eventhose.TenantID(fmt.Sprintf("tenant%04d", i)) }

// fill makes tenants, the first tenth of which are connected to a platform, each with a lane, two blocked keys, some parked events and attempts.
func (x *explained) fill() {
	x.Helper()
	st, err := postgres.Open(x.Context(), x.base, postgres.Options{MaxConns: 4, Upkeep: -1, PartitionSize: 1})
	if err != nil {
		x.Fatal(err)
	}
	defer st.Close()
	for half := range 2 {
		for i := 0; i < explainTenants; i += 50 {
			var group []store.Append
			var changes []store.LaneChange
			var records []store.RecordChange
			for j := i; j < i+50; j++ {
				tenant := explainTenant(j)
				entry := store.Append{Tenant: tenant}
				if j < explainTenants/10 {
					entry.Parent = orderParent
				}
				for k := range explainEvents / 2 {
					x.n++
					e := growthEvent(x.n, k%2 == 0)
					e.Event.Data = e.Event.Data[:40]
					entry.Events = append(entry.Events, e)
				}
				group = append(group, entry)
				first := eventhose.Sequence(half*explainEvents/2 + 1)
				c := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: growthSub}, Behind: j%10 == 0}}
				for k := range eventhose.Sequence(3) {
					c.Attempts = append(c.Attempts, growthAttempt(tenant, int(first+k), first+k), growthAttempt(tenant, int(first+k)+1000, first, first+k))
					c.Park = append(c.Park, store.Parked{Parked: eventhose.Parked{Sequence: first + k, State: eventhose.ParkedDead, Since: time.Now()}, Tries: 1})
					records = append(records, store.RecordChange{Record: store.Record{Tenant: tenant, Kind: "key", ID: fmt.Sprint(half, k), Value: []byte("v")}})
				}
				c.Block = []store.BlockedKey{{Key: fmt.Sprint("a", half), Head: first}, {Key: fmt.Sprint("b", half), Head: first}}
				changes = append(changes, c)
			}
			if _, err := st.Append(x.Context(), group); err != nil {
				x.Fatal(err)
			}
			if err := st.Save(x.Context(), records, changes); err != nil {
				x.Fatal(err)
			}
		}
		if half == 0 {
			run(x.T, x.base, "SELECT eventhose._turn_partitions('1 day', 1)")
		}
	}
	if _, err := st.Trim(x.Context(), orderParent, store.Trim{Before: time.Now().Add(-time.Hour)}); err != nil { // chooses its class
		x.Fatal(err)
	}
	run(x.T, x.base, "INSERT INTO eventhose.matched SELECT tenant, last / 2 FROM eventhose.logs",
		`INSERT INTO eventhose.unplaced (tenant, event_id, type, key, version, data) SELECT 'tenant' || lpad((i % 900 + 100)::text, 4, '0'), '', 'order.paid', '', '', '{}' FROM generate_series(1, 9000) i`,
		"INSERT INTO eventhose.kept_events SELECT * FROM eventhose.events WHERE seq < 10",
		"VACUUM ANALYZE")
}

// explain makes every hot call several times, and answers what the statements of each have read.
func (x *explained) explain(url string) map[string][]string {
	x.Helper()
	st, err := postgres.Open(x.Context(), url, postgres.Options{MaxConns: 1, Upkeep: -1})
	if err != nil {
		x.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Claim(x.Context(), "node", nil, time.Hour); err != nil { // alone, it tells nobody of what it appends
		x.Fatal(err)
	}
	tiny := ask[[]string](x.T, x.db, "SELECT array_agg(relname) FROM pg_class WHERE relkind = 'r' AND relname ~ '^(events|attempts)_[0-9]' AND pg_relation_size(oid) <= 8 * 8192") // a partition that has just begun
	all := map[string][]string{}
	calls := x.calls(st)
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		from := x.logged()
		for n := range 7 { // the sixth time a plan may be made for all arguments
			if err := calls[name](n + 1); err != nil {
				x.Fatalf("%s: %v", name, err)
			}
		}
		found := map[string]bool{}
		for _, plan := range x.plans(from) {
			plan.scans(found, tiny)
		}
		all[name] = slices.Sorted(maps.Keys(found))
	}
	return all
}

// logged answers how long the server's log is, with all that was done until now.
func (x *explained) logged() int64 {
	x.Helper()
	x.n++
	mark := fmt.Sprintf("mark %d of the test", x.n)
	if _, err := x.db.Exec(x.Context(), "DO $$ BEGIN RAISE LOG '"+mark+"'; END $$"); err != nil {
		x.Fatal(err)
	}
	within, cancel := context.WithTimeout(x.Context(), 30*time.Second)
	defer cancel()
	// The log is written by a process of its own, in the order in which it was sent.
	if !until(within, func() bool {
		return ask[bool](x.T, x.db, "SELECT pg_read_file(f, greatest(0, size - 20000), 20000) LIKE '%' || $1 || '%' FROM pg_current_logfile('jsonlog') f, pg_stat_file(f)", mark)
	}) {
		x.Fatal("the server's log does not come")
	}
	return ask[int64](x.T, x.db, "SELECT size FROM pg_stat_file(pg_current_logfile('jsonlog'))")
}

// plans answers the plans that were logged from a place on.
func (x *explained) plans(from int64) (all []planNode) {
	x.Helper()
	to := x.logged()
	text := ask[string](x.T, x.db, "SELECT pg_read_file(pg_current_logfile('jsonlog'), $1, $2)", from, to-from)
	for line := range strings.Lines(text) {
		var entry struct{ Message string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			x.Fatalf("%v in %.200s", err, line)
		}
		_, plan, found := strings.Cut(entry.Message, "plan:\n")
		if !found {
			continue
		}
		var p struct{ Plan planNode }
		if err := json.Unmarshal([]byte(plan), &p); err != nil {
			x.Fatalf("%v in %.200s", err, plan)
		}
		all = append(all, p.Plan)
	}
	if len(all) == 0 {
		x.Fatal("no plan was logged")
	}
	return all
}

// calls are the hot calls, by name. n is which time it is.
func (x *explained) calls(st *postgres.Store) map[string]func(n int) error {
	ctx := x.Context()
	events := func(count int, id bool) (all []store.NewEvent) {
		for range count {
			x.n++
			all = append(all, growthEvent(x.n, id))
		}
		return all
	}
	node := "node"
	fence, err := st.Claim(ctx, node, nil, time.Hour)
	if err != nil {
		x.Fatal(err)
	}
	lookup := func(tenant eventhose.TenantID, ref store.Ref, there bool) error {
		_, err := st.Lookup(ctx, tenant, ref)
		if (err == nil) != there {
			return fmt.Errorf("looked up %+v: %w", ref, err)
		}
		return nil
	}
	return map[string]func(n int) error{
		"append": func(n int) error {
			_, err := st.Append(ctx, []store.Append{{Tenant: explainTenant(500 + n), Events: events(10, true)}})
			return err
		},
		"append a group": func(n int) error {
			var group []store.Append
			for i := range 30 {
				group = append(group, store.Append{Tenant: explainTenant(30*n + i), Events: events(3, i%2 == 0)})
			}
			group[0].Tenant, group[0].Parent = explainTenant(1), orderParent
			group = append(group, group[2], store.Append{Tenant: eventhose.TenantID(fmt.Sprint("new", x.n)), Events: events(1, true)})
			_, err := st.Append(ctx, group)
			return err
		},
		"place": func(n int) error {
			list, err := st.Unplaced(ctx, explainTenant(100+n), 3)
			if err != nil {
				return err
			}
			var rows []int64
			var entries []store.Append
			for _, u := range list {
				rows = append(rows, u.Row)
				entries = append(entries, store.Append{Tenant: u.Event.Tenant, Events: []store.NewEvent{{Event: u.Event}}})
			}
			_, done, err := st.Place(ctx, entries, rows)
			if err == nil && !done {
				err = fmt.Errorf("not placed")
			}
			return err
		},
		"read": func(n int) error {
			_, err := st.Read(ctx, explainTenant(200+n), eventhose.Sequence(3*n), store.ReadLimit{Events: 100, Bytes: 1 << 20})
			return err
		},
		"read a parent's log": func(n int) error {
			_, err := st.Read(ctx, orderParent, eventhose.Sequence(1000*n), store.ReadLimit{Events: 100, Bytes: 1 << 20})
			return err
		},
		"head": func(n int) error {
			_, err := st.Head(ctx, explainTenant(n))
			return err
		},
		"look up a place": func(n int) error { return lookup(explainTenant(300+n), store.Ref{Sequence: 30}, true) },
		"look up an id": func(n int) error {
			return lookup(explainTenant(300+n), store.Ref{ID: fmt.Sprint("id-", (300+n)*explainEvents/2+1)}, true)
		},
		"look up an id that is not there": func(n int) error { return lookup(explainTenant(300+n), store.Ref{ID: "tenant/x"}, false) },
		"look up an id that was made": func(n int) error {
			return lookup(explainTenant(300+n), store.Ref{ID: eventhose.EventID(20, uint64(n))}, false)
		},
		"look up a place in a parent's log": func(n int) error { return lookup(orderParent, store.Ref{Sequence: eventhose.Sequence(100 * n)}, true) },
		"lane":                              func(n int) error { _, _, err := st.Lane(ctx, explainTenant(n), growthSub); return err },
		"how far a log is matched":          func(n int) error { _, _, err := st.Lane(ctx, explainTenant(n), ""); return err },
		"parked": func(n int) error {
			_, err := st.Parked(ctx, explainTenant(n), growthSub, store.ParkedQuery{After: 2, Limit: 5})
			return err
		},
		"attempts of a lane": func(n int) error {
			_, err := st.Attempts(ctx, explainTenant(n), store.AttemptQuery{Subscription: growthSub, Limit: 5})
			return err
		},
		"attempts at an event": func(n int) error {
			_, err := st.Attempts(ctx, explainTenant(n), store.AttemptQuery{Sequence: 5, Limit: 5})
			return err
		},
		"attempts at an event by a subscription": func(n int) error {
			_, err := st.Attempts(ctx, explainTenant(n), store.AttemptQuery{Sequence: 5, Subscription: growthSub, Limit: 5})
			return err
		},
		"work": func(n int) error {
			_, err := st.Work(ctx, store.LaneRef{Tenant: explainTenant(100 * n)}, 20)
			return err
		},
		"tails":        func(n int) error { _, err := st.Tails(ctx, explainTenant(100*n), 20); return err },
		"claim":        func(n int) error { _, err := st.Claim(ctx, node, nil, time.Hour); return err },
		"record":       func(n int) error { _, err := st.Record(ctx, explainTenant(n), "key", "0 1"); return err },
		"list records": func(n int) error { _, err := st.List(ctx, explainTenant(n), "key", "0", 5); return err },
		"save": func(n int) error {
			tenant := explainTenant(400 + n)
			keep := func(id string, version uint64, gone bool) store.RecordChange {
				return store.RecordChange{Record: store.Record{Tenant: tenant, Kind: "key", ID: id, Version: version, Value: []byte("w")}, Delete: gone}
			}
			r, err := st.Record(ctx, tenant, "key", "0 2")
			if err != nil {
				return err
			}
			x.n++
			return st.Save(ctx, []store.RecordChange{keep("0 2", r.Version, false), keep(fmt.Sprint("new", x.n), 0, false)}, nil)
		},
		"tenants with events without a place": func(n int) error { _, err := st.UnplacedTenants(ctx, explainTenant(100*n), 20); return err },
		"events without a place":              func(n int) error { _, err := st.Unplaced(ctx, explainTenant(150+n), 20); return err },
		"trim": func(n int) error {
			_, err := st.Trim(ctx, explainTenant(600+n), store.Trim{Bytes: 1500 - int64(n), Keep: 1 << 20})
			return err
		},
		"trim a parent's log": func(n int) error {
			_, err := st.Trim(ctx, orderParent, store.Trim{Before: time.Now().Add(-time.Hour), Keep: 1 << 20})
			return err
		},
		"erase": func(n int) error { return st.Erase(ctx, explainTenant(700+n), eventhose.Sequence(30+n)) },
		"commit": func(n int) error {
			var p store.Progress
			p.Fence = fence.Leases[:10]
			for i := range 20 {
				tenant := explainTenant(800 + 20*(n%8) + i)
				x.n++
				c := store.LaneChange{Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: growthSub}, Cursor: 3}, Create: i%2 == 0,
					Park:   []store.Parked{{Parked: eventhose.Parked{Sequence: 30, State: eventhose.ParkedRetrying, Since: time.Now()}}},
					Unpark: []eventhose.Sequence{1, 2}, Block: []store.BlockedKey{{Key: "c", Head: 30}}, Unblock: []string{"a0"},
					Attempts: []eventhose.Attempt{growthAttempt(tenant, int(x.n), 31)}}
				p.Lanes = append(p.Lanes, c)
				p.Matched = append(p.Matched, store.Tail{Tenant: tenant, Matched: eventhose.Sequence(25 + n)})
			}
			p.Lanes[0].Lane.Subscription = "sub_0000000000000000000000000b"
			p.Lanes[1].Delete = true
			return st.Commit(ctx, p)
		},
	}
}
