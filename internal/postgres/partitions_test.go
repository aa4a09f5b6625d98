package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// growth is a database that is appended to, read, delivered from, trimmed and kept up all at once.
type growth struct {
	*testing.T
	nodes  []*postgres.Store
	db     *pgx.Conn
	busy   []eventhose.TenantID
	target int64

	appended atomic.Int64
	allowed  atomic.Int64 // up to how many events may be appended
	mu       sync.Mutex
	kept     []keptEvent
	faults   []string
}

// keptEvent is one that a lane has parked.
type keptEvent struct {
	tenant eventhose.TenantID
	id     string
	seq    eventhose.Sequence
	data   string
}

const (
	// keepBytes is how much of each busy log is kept, of some 100 bytes an event.
	keepBytes                          = 60_000
	growthSub eventhose.SubscriptionID = "sub_0000000000000000000000000a"
	idleLogs                           = 50
	// ahead is how many events may be appended between two rounds of retention.
	ahead = 5000
)

// growthTables are those that must not grow with what has gone.
var growthTables = []string{"logs", "matched", "lanes", "parked", "event_ids", "spans", "records", "partitions", "kept_events"}

func newGrowth(t *testing.T, settings postgres.Options) *growth {
	t.Helper()
	g := &growth{T: t}
	url := pgtest.Database(t)
	settings.Upkeep = -1
	for range 2 {
		st, err := postgres.Open(t.Context(), url, settings)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { st.Close() })
		g.nodes = append(g.nodes, st)
	}
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	g.db = db
	return g
}

func (g *growth) fault(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.faults) < maxFaults {
		g.faults = append(g.faults, fmt.Sprintf(format, args...))
	}
}

// ask reads the one value of a query.
func ask[T any](t *testing.T, db *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// misplaced counts the logs that say that they go on in another partition than that of their last piece.
const misplaced = "SELECT count(*) FROM eventhose.logs l WHERE l.last > 0 AND l.part <> (SELECT s.part FROM eventhose.spans s WHERE s.tenant = l.tenant ORDER BY s.first DESC LIMIT 1)"

// With retention, what is stored is bounded, whatever was appended: partitions go, and with them ids, spans and attempts. What is parked and the
// newest event of each log stay.
func TestGrowth(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 12, PartitionSize: 1 << 20})
	g.target = int64(number(t, "EVENTHOSE_GROWTH_APPENDS", 150_000))
	seed := number(t, "EVENTHOSE_SEED", rand.Uint64())
	t.Logf("EVENTHOSE_SEED=%d EVENTHOSE_GROWTH_APPENDS=%d", seed, g.target)
	for i := range 12 {
		g.busy = append(g.busy, eventhose.TenantID(fmt.Sprint("busy", i)))
	}
	g.makeIdle()
	ctx, stop := context.WithTimeout(t.Context(), max(2*time.Minute, time.Duration(g.target)*time.Millisecond))
	defer stop()
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() { g.append(ctx, i, rand.New(rand.NewPCG(seed, uint64(i)))) })
		all.Go(func() { g.read(ctx, i, append(slices.Clone(g.busy), orderParent)) })
	}
	all.Go(func() { g.deliver(ctx, rand.New(rand.NewPCG(seed, 7))) })

	var early map[string]int64
	most, rounds := 0, 0
	for ; g.appended.Load() < g.target && ctx.Err() == nil; rounds++ {
		g.allowed.Store(g.appended.Load() + ahead)
		g.retain(ctx)
		most = max(most, ask[int](t, g.db, "SELECT count(*) FROM eventhose.partitions"))
		if astray := ask[int](t, g.db, misplaced); astray > 0 {
			t.Fatalf("%d logs say that they go on elsewhere than where their last piece is", astray)
		}
		if early == nil && g.appended.Load() > g.target/4 {
			early = g.sizes()
		}
	}
	if n := g.appended.Load(); n < g.target {
		t.Fatalf("only %d events were appended in time", n)
	}
	stop()
	all.Wait()
	for range 5 { // what was under way may have held something, and each node looks twice whether a floor stands
		g.retain(t.Context())
	}
	late := g.sizes()
	var told []string
	for _, table := range growthTables {
		told = append(told, fmt.Sprintf("%s %d→%d KB", table, early[table]>>10, late[table]>>10))
		if late[table] > early[table]*3/2+128<<10 {
			t.Errorf("%s grew from %d to %d bytes", table, early[table], late[table])
		}
	}
	made := ask[int](t, g.db, "SELECT max(part) FROM eventhose.partitions")
	left := ask[int](t, g.db, "SELECT count(*) FROM eventhose.partitions")
	t.Logf("%d events, %d parked, %d rounds of retention; %d partitions made, at most %d at once, %d left; %s", g.appended.Load(), len(g.kept), rounds, made, most, left, strings.Join(told, ", "))
	if made < 8 || most > 8 || left > 4 {
		t.Errorf("of %d partitions there were %d at once, and %d are left", made, most, left)
	}
	g.checkKept()
	g.checkIdle()
	g.checkIDs()
	for _, fault := range g.faults {
		t.Error(fault)
	}
}

// growthEvent is event number n.
func growthEvent(n int64, id bool) store.NewEvent {
	now := time.Now().UTC().Truncate(time.Microsecond)
	e := store.NewEvent{Event: eventhose.Event{Type: "order.paid", Key: "k", Time: now, Appended: now, Data: fmt.Appendf(nil, `{"number":%0100d}`, n)}}
	if id {
		e.Event.ID, e.Digest[0] = fmt.Sprint("id-", n), 1
	}
	return e
}

// makeIdle makes logs to which nothing more is appended, with an attempt at the newest event of each.
func (g *growth) makeIdle() {
	g.Helper()
	for i := range idleLogs {
		tenant := eventhose.TenantID(fmt.Sprint("idle", i))
		if _, err := g.nodes[0].Append(g.Context(), []store.Append{{Tenant: tenant, Events: []store.NewEvent{growthEvent(1, true), growthEvent(2, false), growthEvent(3, true)}}}); err != nil {
			g.Fatal(err)
		}
		if err := g.nodes[0].Commit(g.Context(), store.Progress{Lanes: []store.LaneChange{{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: growthSub}},
			Attempts: []eventhose.Attempt{growthAttempt(tenant, 1, 3)}}}}); err != nil {
			g.Fatal(err)
		}
		if done, err := g.nodes[1].Trim(g.Context(), tenant, store.Trim{Bytes: 1, Keep: 1 << 30}); err != nil || done.First != 3 {
			g.Fatalf("trim %s: %+v, %v", tenant, done, err)
		}
	}
}

func growthAttempt(tenant eventhose.TenantID, n int, seqs ...eventhose.Sequence) eventhose.Attempt {
	a := eventhose.Attempt{ID: "att_" + eventhose.IDText([16]byte{12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}), Tenant: tenant, Subscription: growthSub,
		Kind: eventhose.AttemptFirst, Number: 1, Outcome: eventhose.OutcomeTaken, Status: 200, Started: time.Now().UTC().Truncate(time.Microsecond), Sequences: seqs}
	for _, seq := range seqs {
		a.Events = append(a.Events, fmt.Sprint("e", seq))
	}
	return a
}

// append appends until there is enough.
func (g *growth) append(ctx context.Context, node int, rng *rand.Rand) {
	for g.appended.Load() < g.target && until(ctx, func() bool { return g.appended.Load() < g.allowed.Load() }) {
		var group []store.Append
		for range 4 {
			entry := store.Append{Tenant: g.busy[rng.IntN(len(g.busy))]}
			if entry.Tenant == g.busy[0] || entry.Tenant == g.busy[1] {
				entry.Parent = orderParent
			}
			ids := rng.IntN(2) == 0
			for range 50 {
				entry.Events = append(entry.Events, growthEvent(g.appended.Add(1), ids))
			}
			group = append(group, entry)
		}
		if _, err := g.nodes[node].Append(ctx, group); err != nil && ctx.Err() == nil {
			g.fault("append: %v", err)
			return
		}
	}
}

// read follows some logs. What was trimmed before it was read is passed over.
func (g *growth) read(ctx context.Context, node int, logs []eventhose.TenantID) {
	at := map[eventhose.TenantID]eventhose.Sequence{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, tenant := range logs {
			if err := g.readPage(ctx, g.nodes[node], tenant, at); err != nil && ctx.Err() == nil {
				g.fault("read %s after %d: %v", tenant, at[tenant], err)
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (g *growth) readPage(ctx context.Context, st *postgres.Store, tenant eventhose.TenantID, at map[eventhose.TenantID]eventhose.Sequence) error {
	head, err := st.Head(ctx, tenant)
	if err != nil {
		return err
	}
	page, err := st.Read(ctx, tenant, at[tenant], store.ReadLimit{Events: 300, Bytes: 1 << 20})
	if errors.Is(err, store.ErrTrimmed) {
		if head, err = st.Head(ctx, tenant); err == nil {
			at[tenant] = head.First - 1
		}
		return err
	}
	if err != nil {
		return err
	}
	if len(page) == 0 && head.Last > at[tenant] {
		return fmt.Errorf("there is nothing, and the log reaches to %d", head.Last)
	}
	for _, e := range page {
		if at[tenant]++; e.Sequence != at[tenant] {
			return fmt.Errorf("%d is where %d is to be", e.Sequence, at[tenant])
		}
		if !e.Erased && len(e.Data) > 100 {
			continue
		}
		// Only a place in a parent's log may have lost its data, and only if its event is trimmed.
		child, err := st.Head(ctx, e.Origin.Tenant)
		if err != nil || e.Origin.Tenant == "" || e.Origin.Sequence >= child.First {
			return fmt.Errorf("event %d (of %+v, whose log begins at %d) has %d bytes of data: %w", e.Sequence, e.Origin, child.First, len(e.Data), err)
		}
	}
	return nil
}

// deliver records attempts, and parks an event now and then.
func (g *growth) deliver(ctx context.Context, rng *rand.Rand) {
	for n := 1; ctx.Err() == nil && g.appended.Load() < g.target; n++ {
		st, tenant := g.nodes[n%2], g.busy[rng.IntN(len(g.busy))]
		if err := g.settle(ctx, st, tenant, n); err != nil && ctx.Err() == nil {
			g.fault("progress of %s: %v", tenant, err)
			return
		}
	}
}

func (g *growth) settle(ctx context.Context, st *postgres.Store, tenant eventhose.TenantID, n int) error {
	head, err := st.Head(ctx, tenant)
	if err != nil || head.Last == 0 {
		return err
	}
	lane := store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: growthSub}, Cursor: head.Last}
	c := store.LaneChange{Create: true, Lane: lane, Attempts: []eventhose.Attempt{growthAttempt(tenant, n, max(1, head.First-1)), growthAttempt(tenant, n, head.Last)}}
	c.Attempts[1].ID = strings.Replace(c.Attempts[1].ID, "att_0", "att_1", 1)
	g.mu.Lock()
	parked := len(g.kept)
	g.mu.Unlock()
	if n%20 == 0 && parked < 200 {
		e, err := st.Lookup(ctx, tenant, store.Ref{Sequence: head.Last})
		if err != nil {
			return fmt.Errorf("look up the newest event, %d: %w", head.Last, err)
		}
		c.Park = []store.Parked{{Parked: eventhose.Parked{Event: e.ID, Sequence: e.Sequence, Type: e.Type, State: eventhose.ParkedDead, Since: e.Appended}, Tries: 1}}
		g.mu.Lock()
		g.kept = append(g.kept, keptEvent{tenant, e.ID, e.Sequence, string(e.Data)})
		g.mu.Unlock()
	}
	return st.Commit(ctx, store.Progress{Matched: []store.Tail{{Tenant: tenant, Matched: head.Last}}, Lanes: []store.LaneChange{c}})
}

// retain trims all logs and has both nodes do the upkeep at once, with what autovacuum does in a day.
func (g *growth) retain(ctx context.Context) {
	g.Helper()
	for _, tenant := range g.busy {
		if _, err := g.nodes[0].Trim(ctx, tenant, store.Trim{Bytes: keepBytes, Keep: 1 << 30}); err != nil {
			g.Fatalf("trim %s: %v", tenant, err)
		}
	}
	// Places in a parent's log have no bytes: it is trimmed by age.
	if _, err := g.nodes[0].Trim(ctx, orderParent, store.Trim{Before: time.Now().Add(-time.Second), Keep: 1 << 30}); err != nil {
		g.Fatalf("trim %s: %v", orderParent, err)
	}
	var expired []store.RecordChange
	for i := range 50 {
		expired = append(expired, store.RecordChange{Record: store.Record{Kind: "answer", ID: fmt.Sprint(g.appended.Load(), "-", i), Value: make([]byte, 500), Expires: time.Now().Add(-2 * time.Minute)}})
	}
	if err := g.nodes[0].Save(ctx, expired, nil); err != nil {
		g.Fatalf("save: %v", err)
	}
	var both sync.WaitGroup
	for _, st := range g.nodes {
		both.Go(func() {
			if err := st.Upkeep(ctx); err != nil {
				g.fault("upkeep: %v", err)
			}
		})
	}
	both.Wait()
	for _, table := range growthTables {
		if _, err := g.db.Exec(ctx, "VACUUM (SKIP_LOCKED) eventhose."+table); err != nil {
			g.Fatal(err)
		}
	}
}

// sizes answers how large each table is with its indexes.
func (g *growth) sizes() map[string]int64 {
	g.Helper()
	sizes := map[string]int64{}
	for _, table := range growthTables {
		sizes[table] = ask[int64](g.T, g.db, "SELECT pg_total_relation_size($1::regclass)", "eventhose."+table)
	}
	return sizes
}

// checkKept checks that parked events are found by place and by id after their partitions were dropped, until they are unparked.
func (g *growth) checkKept() {
	g.Helper()
	aside := ask[int](g.T, g.db, "SELECT count(*) FROM eventhose.kept_events")
	if len(g.kept) < 20 || aside < len(g.kept)/2 {
		g.Errorf("of %d parked events only %d have outlived their partition", len(g.kept), aside)
	}
	unpark := map[eventhose.TenantID][]eventhose.Sequence{}
	for _, k := range g.kept {
		for _, ref := range []store.Ref{{Sequence: k.seq}, {ID: k.id}} {
			if e, err := g.nodes[0].Lookup(g.Context(), k.tenant, ref); err != nil || e.Sequence != k.seq || e.ID != k.id || string(e.Data) != k.data {
				g.Errorf("parked event %s/%d %s looked up by %+v: %+v, %v", k.tenant, k.seq, k.id, ref, e, err)
			}
		}
		unpark[k.tenant] = append(unpark[k.tenant], k.seq)
	}
	for tenant, seqs := range unpark {
		c := store.LaneChange{Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: growthSub}}, Unpark: seqs}
		if err := g.nodes[1].Commit(g.Context(), store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
			g.Error(err)
		}
	}
	g.retain(g.Context())
	if aside := ask[int](g.T, g.db, "SELECT count(*) FROM eventhose.kept_events"); aside != 0 {
		g.Errorf("%d events are kept for nobody", aside)
	}
}

// checkIdle checks that of logs to which nothing is appended the newest event is left, with what hangs on it.
func (g *growth) checkIdle() {
	g.Helper()
	for i := range idleLogs {
		tenant := eventhose.TenantID(fmt.Sprint("idle", i))
		page, err := g.nodes[i%2].Read(g.Context(), tenant, 2, store.ReadLimit{Events: 10, Bytes: 1 << 20})
		if err != nil || len(page) != 1 || page[0].ID != "id-3" {
			g.Fatalf("what is left of %s is %v, %v", tenant, page, err)
		}
		if _, err := g.nodes[0].Lookup(g.Context(), tenant, store.Ref{ID: "id-3"}); err != nil {
			g.Fatalf("the newest event of %s by its id: %v", tenant, err)
		}
		for _, q := range []store.AttemptQuery{{Sequence: 3, Limit: 10}, {Subscription: growthSub, Limit: 10}} {
			if list, err := g.nodes[0].Attempts(g.Context(), tenant, q); err != nil || len(list) != 1 {
				g.Fatalf("attempts at the newest event of %s, asked by %+v: %v, %v", tenant, q, list, err)
			}
		}
	}
	if part := ask[int](g.T, g.db, "SELECT min(part) FROM eventhose.spans WHERE tenant LIKE 'idle%'"); part < 3 {
		g.Errorf("idle logs still lie in partition %d", part)
	}
}

// checkIDs checks that the ids of what was dropped are forgotten.
func (g *growth) checkIDs() {
	g.Helper()
	stale := ask[int](g.T, g.db, `SELECT count(*) FROM eventhose.event_ids i JOIN eventhose.logs l USING (tenant) WHERE i.seq < l.first`)
	lying := ask[int](g.T, g.db, `SELECT count(*) FROM eventhose.events e JOIN eventhose.logs l USING (tenant) WHERE e.seq < l.first`)
	if stale > lying {
		g.Errorf("%d ids are remembered of events that were trimmed, of which only %d are not dropped yet", stale, lying)
	}
	e := growthEvent(1, true)
	e.Digest[0]++
	for _, tenant := range g.busy {
		if r, err := g.nodes[0].Append(g.Context(), []store.Append{{Tenant: tenant, Events: []store.NewEvent{e}}}); err != nil || r[0].Err != nil || r[0].Placements[0].Duplicate {
			g.Errorf("an id of %s that was dropped is not free again: %+v, %v", tenant, r, err)
		}
	}
}

// The places of what is appended while a log is carried from partition to partition, piece by piece.
func TestCarryPiecemeal(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 4, PartitionSize: 1})
	st, log := g.nodes[0], eventhose.TenantID("acme")
	n := int64(0)
	put := func(count int) {
		t.Helper()
		entry := store.Append{Tenant: log}
		for range count {
			n++
			entry.Events = append(entry.Events, growthEvent(n, true))
		}
		if _, err := st.Append(t.Context(), []store.Append{entry}); err != nil {
			t.Fatal(err)
		}
	}
	repeat := func() { // an append that brings nothing new, in a group that does
		t.Helper()
		r, err := st.Append(t.Context(), []store.Append{{Tenant: log, Events: []store.NewEvent{growthEvent(n, true)}}, {Tenant: "other", Events: []store.NewEvent{growthEvent(1, false)}}})
		if err != nil || !r[0].Placements[0].Duplicate {
			t.Fatal(r, err)
		}
	}
	turn := func() { // the next partition, without carrying anything
		t.Helper()
		ask[int](t, g.db, "SELECT eventhose._turn_partitions('1 day', 1)")
	}
	carry := func(span int) {
		t.Helper()
		ask[any](t, g.db, "SELECT eventhose._carry_piece(part, tenant, first, 1000, 1000000) FROM (SELECT * FROM eventhose.spans WHERE tenant = 'acme' ORDER BY first OFFSET $1 LIMIT 1) s", span)
	}
	whole := func(when string) {
		t.Helper()
		logs, err := readAll(t.Context(), g.nodes[1], []eventhose.TenantID{log})
		if err != nil || int64(len(logs[log])) != n {
			t.Errorf("%s %d of %d events can be read: %v", when, len(logs[log]), n, err)
		}
		for seq := range n {
			if _, err := g.nodes[1].Lookup(t.Context(), log, store.Ref{Sequence: eventhose.Sequence(seq + 1)}); err != nil {
				t.Fatalf("%s event %d is not found: %v", when, seq+1, err)
			}
		}
	}
	put(10)
	turn()
	put(10)
	carry(0) // both pieces are in the second partition
	turn()
	carry(0) // the first of two is in the third
	put(10)
	whole("after the older of two pieces was carried,")
	turn()
	repeat()
	turn()
	for span := range ask[int](t, g.db, "SELECT count(*) FROM eventhose.spans WHERE tenant = 'acme'") {
		carry(span)
	}
	put(10)
	whole("after an append that brought nothing,")

	// A piece that is trimmed just before it is carried.
	turn()
	put(10)
	first := ask[int64](t, g.db, "SELECT min(first) FROM eventhose.spans WHERE tenant = 'acme'")
	if _, err := st.Trim(t.Context(), log, store.Trim{Bytes: 300, Keep: 1}); err != nil {
		t.Fatal(err)
	}
	turn()
	ask[any](t, g.db, "SELECT eventhose._carry_piece(part, tenant, first, 1000, 1000000) FROM eventhose.spans WHERE tenant = 'acme' AND first = $1", first)
	head, err := st.Head(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	page, err := g.nodes[1].Read(t.Context(), log, head.First-1, store.ReadLimit{Events: 10, Bytes: 1 << 20})
	if err != nil || len(page) != int(head.Last-head.First)+1 {
		t.Errorf("of %+v only %d events can be read after a piece was carried that was trimmed: %v", head, len(page), err)
	}
}

// What is left of a log is carried in pieces, between which it is appended to, trimmed and read, and not as long as its floor moves.
func TestCarryInPieces(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 4, PartitionSize: 1})
	st, log := g.nodes[0], eventhose.TenantID("acme")
	const n = 4500
	put := func(from, to int64) {
		t.Helper()
		entry := store.Append{Tenant: log}
		for i := from; i <= to; i++ {
			entry.Events = append(entry.Events, growthEvent(i, true))
		}
		if _, err := st.Append(t.Context(), []store.Append{entry}); err != nil {
			t.Fatal(err)
		}
	}
	trim := func(left int64) {
		t.Helper()
		if _, err := st.Trim(t.Context(), log, store.Trim{Bytes: left * int64(len(growthEvent(1, false).Event.Data)), Keep: 1}); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(when string) {
		t.Helper()
		head, err := st.Head(t.Context(), log)
		if err != nil {
			t.Fatal(err)
		}
		for _, node := range g.nodes {
			next := head.First
			for next <= head.Last {
				page, err := node.Read(t.Context(), log, next-1, store.ReadLimit{Events: 10_000, Bytes: 1 << 30})
				if err != nil || len(page) == 0 || page[0].ID != fmt.Sprint("id-", next) {
					t.Fatalf("%s, event %d of %+v: %d events, %v", when, next, head, len(page), err)
				}
				next += eventhose.Sequence(len(page))
			}
		}
		if lie := ask[int64](t, g.db, "SELECT count(*) FROM eventhose.events e JOIN eventhose.logs l USING (tenant) WHERE e.seq >= l.first"); lie != int64(head.Last-head.First)+1 {
			t.Errorf("%s, %d events lie there of %+v", when, lie, head)
		}
		if astray := ask[int](t, g.db, misplaced); astray > 0 {
			t.Errorf("%s, the log goes on elsewhere than where its last piece is", when)
		}
	}
	upkeep := func() int {
		t.Helper()
		if err := st.Upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return ask[int](t, g.db, "SELECT count(*) FROM eventhose.spans WHERE part = 1")
	}
	put(1, n)
	whole("at first")
	for left := int64(n); left > n-3; left-- {
		trim(left)
		if upkeep() == 0 {
			t.Fatal("a log whose floor moves was carried")
		}
		whole("while its floor moves")
	}
	if upkeep() != 0 {
		t.Fatal("a log whose floor stands was not carried")
	}
	whole("carried")
	if most := ask[int](t, g.db, "SELECT max(n) FROM (SELECT lead(first, 1, $1) OVER (ORDER BY first) - first AS n FROM eventhose.spans) s", n+1); most > 2000 {
		t.Errorf("%d events were carried at once", most)
	}
	// By hand, as the upkeep does, with what comes in between.
	ask[int](t, g.db, "SELECT eventhose._turn_partitions('1 day', 1)")
	part, pieces := ask[int](t, g.db, "SELECT min(part) FROM eventhose.spans"), 0
	next := ask[int64](t, g.db, "SELECT min(first) FROM eventhose.spans WHERE part = $1", part)
	for piece := &next; piece != nil; pieces++ {
		piece = ask[*int64](t, g.db, "SELECT eventhose._carry_piece($1, 'acme', $2, 2000, 100000)", part, *piece)
		put(n+1+int64(pieces)*2, n+2+int64(pieces)*2)
		whole("between two pieces")
		if pieces%2 == 1 {
			trim(n - 10 - 100*int64(pieces))
			whole("trimmed between two pieces")
		}
	}
	if pieces < 2 {
		t.Errorf("200 KB were carried in %d pieces of 100", pieces)
	}
	for range 3 {
		upkeep()
	}
	if left := ask[int](t, g.db, "SELECT count(*) FROM eventhose.partitions WHERE part <= $1", part); left != 0 {
		t.Errorf("%d partitions are still there of which everything could be carried", left)
	}
	whole("in the end")
}
