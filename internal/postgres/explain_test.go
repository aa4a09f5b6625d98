package postgres_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

// plans gathers the plans that the server tells of (auto_explain), those of statements within functions included.
type plans struct {
	mu    sync.Mutex
	nodes map[string]bool
}

// plan is the part of EXPLAIN's JSON that says how a table is reached.
type plan struct {
	Node     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Plans    []plan `json:"Plans"`
}

var partitionNumber = regexp.MustCompile(`_\d+(_|$)`)

const seqScan = "all of "

func (p *plans) take(n *pgconn.Notice) {
	_, text, ok := strings.Cut(n.Message, "plan:\n")
	if !ok {
		return
	}
	var told struct{ Plan plan }
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		panic(fmt.Sprintf("a plan that cannot be read: %v\n%s", err, text))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(told.Plan)
}

func (p *plans) add(x plan) {
	// Whether an index is gone through by itself or by a bitmap hangs on statistics.
	switch {
	case x.Index != "":
		p.nodes[partitionNumber.ReplaceAllString(x.Index, "_N$1")] = true
	case x.Node == "Seq Scan":
		p.nodes[partitionNumber.ReplaceAllString(seqScan+x.Relation, "_N$1")] = true
	}
	for _, below := range x.Plans {
		p.add(below)
	}
}

// during answers how tables are reached while f runs.
func (p *plans) during(f func()) []string {
	p.mu.Lock()
	p.nodes = map[string]bool{}
	p.mu.Unlock()
	f()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.nodes))
}

// TestHotPathsUseIndexes: no statement of the hot paths reads a table from end to end that grows with what is kept. How each reaches its
// tables is in testdata/plans.txt; run with -update after a change that is meant.
func TestHotPathsUseIndexes(t *testing.T) {
	base := pgtest.Database(t)
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, value := range map[string]string{"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0",
		"auto_explain.log_nested_statements": "on", "auto_explain.log_format": "json", "client_min_messages": "log"} {
		q.Set(name, value)
	}
	u.RawQuery = q.Encode()
	told := &plans{nodes: map[string]bool{}}
	ctx := t.Context()
	fill(ctx, t, base)
	st, err := postgres.Open(ctx, u.String(), postgres.WithNotices(postgres.Options{Upkeep: -1, MaxConns: 1}, told.take))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()

	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var leases []store.Lease
	var out strings.Builder
	for _, path := range []struct {
		name string
		run  func()
	}{
		{"append", func() {
			_, err := st.Append(ctx, []store.Append{{Tenant: "t7", Events: []store.NewEvent{idEvent("hot-1"), idEvent("")}}, {Tenant: "t8", Parent: "t9", Events: []store.NewEvent{idEvent("hot-2")}}})
			ok(err)
		}},
		{"append, the same again", func() {
			_, err := st.Append(ctx, []store.Append{{Tenant: "t7", Events: []store.NewEvent{idEvent("hot-1")}}})
			ok(err)
		}},
		{"head", func() { _, err := st.Head(ctx, "t7"); ok(err) }},
		{"read", func() {
			_, err := st.Read(ctx, "t7", 1, store.ReadLimit{Events: 100, Bytes: 1 << 20})
			ok(err)
		}},
		{"read a parent's log", func() {
			_, err := st.Read(ctx, "t9", 40, store.ReadLimit{Events: 100, Bytes: 1 << 20})
			ok(err)
		}},
		{"lookup by place", func() { _, err := st.Lookup(ctx, "t7", store.Ref{Sequence: 3}); ok(err) }},
		{"lookup by id", func() { _, err := st.Lookup(ctx, "t7", store.Ref{ID: "t7-3"}); ok(err) }},
		{"lane", func() { _, _, err := st.Lane(ctx, "t7", lane(7)); ok(err) }},
		{"parked", func() {
			_, err := st.Parked(ctx, "t7", lane(7), store.ParkedQuery{Limit: 10})
			ok(err)
		}},
		{"matched", func() { _, _, err := st.Lane(ctx, "t7", ""); ok(err) }},
		{"work", func() { _, err := st.Work(ctx, store.LaneRef{Tenant: "t7"}, 100); ok(err) }},
		{"attempts of all lanes", func() {
			_, err := st.Attempts(ctx, "t7", store.AttemptQuery{Limit: 10})
			ok(err)
		}},
		{"attempts of all lanes, further back", func() {
			_, err := st.Attempts(ctx, "t7", store.AttemptQuery{Before: eventhose.AttemptIDAt(time.Now()), Limit: 10})
			ok(err)
		}},
		{"parked of all lanes", func() {
			_, err := st.Parked(ctx, "t7", "", store.ParkedQuery{After: 1, Limit: 10})
			ok(err)
		}},
		{"attempts of a lane", func() {
			_, err := st.Attempts(ctx, "t7", store.AttemptQuery{Subscription: lane(7), Limit: 10})
			ok(err)
		}},
		{"attempts at an event", func() {
			_, err := st.Attempts(ctx, "t7", store.AttemptQuery{Sequence: 3, Limit: 10})
			ok(err)
		}},
		{"attempts at a page of events", func() {
			_, err := st.Attempts(ctx, "t7", store.AttemptQuery{Subscription: lane(7), Sequence: 3, Through: 66, Limit: 10})
			ok(err)
		}},
		{"claim", func() {
			c, err := st.Claim(ctx, "node", nil, time.Minute)
			ok(err)
			leases = c.Leases
		}},
		{"commit", func() {
			c := full("t7", 7)
			c.Create, c.Unpark, c.Unblock = false, []eventhose.Sequence{1}, []string{"key"}
			c.Attempts[0].ID = "att_z"
			ok(st.Commit(ctx, store.Progress{Fence: leases[:2], Matched: []store.Tail{{Tenant: "t7", Matched: 3}}, Lanes: []store.LaneChange{c}}))
		}},
		{"record", func() { _, err := st.Record(ctx, "t7", "subscription", "s"); ok(err) }},
		{"list", func() { _, err := st.List(ctx, "t7", "subscription", "", 10); ok(err) }},
		{"save", func() {
			ok(st.Save(ctx, []store.RecordChange{{Record: store.Record{Tenant: "t7", Kind: "subscription", ID: "s", Version: 1, Value: []byte("2")}},
				{Record: store.Record{Tenant: "t7", Kind: "subscription", ID: "s2", Value: []byte("1")}}}, []store.LaneChange{full("t7", 7_000_000), {Lane: full("t7", 7_000_000).Lane, Delete: true}}))
		}},
		{"erase", func() { ok(st.Erase(ctx, "t7", 2)) }},
		{"trim", func() { _, err := st.Trim(ctx, "t7", store.Trim{Bytes: 100, Keep: 1 << 20}); ok(err) }},
		{"unplaced", func() {
			_, err := st.UnplacedTenants(ctx, "", 100)
			ok(err)
			_, err = st.Unplaced(ctx, "t7", 100)
			ok(err)
		}},
	} {
		fmt.Fprintf(&out, "%s\n", path.name)
		for _, node := range told.during(path.run) {
			fmt.Fprintf(&out, "\t%s\n", node)
			if table, found := strings.CutPrefix(node, seqScan); found && grows(table) {
				t.Errorf("%s reads %s from end to end", path.name, table)
			}
		}
	}
	file := filepath.Join("testdata", "plans.txt")
	if *update {
		ok(os.MkdirAll("testdata", 0o755))
		ok(os.WriteFile(file, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	ok(err)
	if out.String() != string(want) {
		t.Errorf("the plans are others than those of %s; look at them, and run this test with -update if they are meant:\n%s", file, out.String())
	}
}

// grows reports whether a table grows with what is kept; the others have a bounded number of rows.
func grows(table string) bool {
	return !slices.Contains([]string{"partitions", "leases", "nodes", "migrations", "copies"}, table)
}

func lane(n int) eventhose.SubscriptionID { return eventhose.SubscriptionID(fmt.Sprintf("sub_%d", n)) }

func idEvent(id string) store.NewEvent {
	e := benchEvent([]byte(`{"a":1}`))
	e.Event.ID = id
	return e
}

// full makes a lane with something of everything.
func full(tenant eventhose.TenantID, n int) store.LaneChange {
	return store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: lane(n)}, Behind: n%10 == 0, Dead: 1},
		Park:  []store.Parked{{Parked: eventhose.Parked{Event: "e", Sequence: 1, State: eventhose.ParkedDead}}},
		Block: []store.BlockedKey{{Key: "key"}},
		Attempts: []eventhose.Attempt{{ID: fmt.Sprintf("att_%08d", n), Tenant: tenant, Subscription: lane(n), Sequences: []eventhose.Sequence{1}, Events: []string{"e"}, Started: time.Now()},
			{ID: fmt.Sprintf("att_%08d_wide", n), Tenant: tenant, Subscription: lane(n), Sequences: []eventhose.Sequence{1, 1000}, Events: []string{"e", "f"}, Started: time.Now()}}}
}

func analyze(ctx context.Context, t *testing.T, url string) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "ANALYZE"); err != nil {
		t.Fatal(err)
	}
}

// fill puts 20,000 events of 2,000 tenants, and as many lanes, into a database.
func fill(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	st, err := postgres.Open(ctx, url, postgres.Options{Upkeep: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	const tenants, step = 2000, 200
	defer analyze(ctx, t, url)
	defer func() { // one lane has had many batches
		c := full("t7", 7)
		c.Create, c.Attempts = false, nil
		for i := range 3000 {
			at := eventhose.Sequence(1000 * (i + 1))
			c.Attempts = append(c.Attempts, eventhose.Attempt{ID: fmt.Sprintf("att_b%08d", i), Tenant: "t7", Subscription: lane(7), Sequences: []eventhose.Sequence{at, at + 500}, Events: []string{"e", "f"}, Started: time.Now()})
		}
		if err := st.Commit(ctx, store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
			t.Error(err)
		}
	}()
	for from := 0; from < tenants; from += step {
		var group []store.Append
		var p store.Progress
		var records []store.RecordChange
		for n := from; n < from+step; n++ {
			tenant := eventhose.TenantID(fmt.Sprintf("t%d", n))
			a := store.Append{Tenant: tenant}
			if n%100 == 8 {
				a.Parent = "t9"
			}
			for i := range 10 {
				id := ""
				if i%2 == 0 {
					id = fmt.Sprintf("%s-%d", tenant, i+1)
				}
				a.Events = append(a.Events, idEvent(id))
			}
			group = append(group, a)
			p.Lanes, p.Matched = append(p.Lanes, full(tenant, n)), append(p.Matched, store.Tail{Tenant: tenant, Matched: 5})
			records = append(records, store.RecordChange{Record: store.Record{Tenant: tenant, Kind: "subscription", ID: "s", Value: []byte("1")}})
		}
		_, err := st.Append(ctx, group)
		if err == nil {
			err = st.Commit(ctx, p)
		}
		if err == nil {
			err = st.Save(ctx, records, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
