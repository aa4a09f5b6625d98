package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// ear is a node that listens.
type ear struct {
	mu    sync.Mutex
	heard map[postgres.Hint]int
	done  chan struct{}
}

func listen(ctx context.Context, st *postgres.Store) *ear {
	e := &ear{heard: map[postgres.Hint]int{}, done: make(chan struct{})}
	go func() {
		defer close(e.done)
		st.Listen(ctx, func(h postgres.Hint) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.heard[h]++
		})
	}()
	return e
}

func (e *ear) count(h postgres.Hint) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[h]
}

// hears waits until a hint was heard n times.
func (e *ear) hears(t *testing.T, h postgres.Hint, n int) {
	t.Helper()
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if !until(within, func() bool { return e.count(h) >= n }) {
		t.Fatalf("%+v was heard %d times, not %d", h, e.count(h), n)
	}
}

// Nodes hear what others do, not what they do themselves, and much of the same at once; and they hear when they may have missed something.
func TestHints(t *testing.T) {
	url := pgtest.Database(t)
	var nodes [2]*postgres.Store
	for i := range nodes {
		st, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 8, Upkeep: -1, Tell: func(kind string) bool { return kind == "tenant" }})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		nodes[i] = st
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	here, there := listen(ctx, nodes[0]), listen(ctx, nodes[1])
	interrupted := postgres.Hint{Kind: postgres.HintInterrupted}
	here.hears(t, interrupted, 1)
	there.hears(t, interrupted, 1)

	// One group for many logs, more than one notification holds.
	const many = 400
	name := func(i int) eventhose.TenantID {
		return eventhose.TenantID(fmt.Sprintf("tenant-with-a-long-name-so-that-few-fit-%d", i))
	}
	var group []store.Append
	for i := range many {
		group = append(group, store.Append{Tenant: name(i), Events: []store.NewEvent{growthEvent(1, false)}})
	}
	if _, err := nodes[0].Append(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	for i := range many {
		there.hears(t, postgres.Hint{Kind: postgres.HintAppended, Tenant: name(i)}, 1)
	}

	// Much of the same is told less often, but at least once after the last.
	grown := postgres.Hint{Kind: postgres.HintAppended, Tenant: "busy"}
	const appends = 300
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range appends / 4 {
				if _, err := nodes[0].Append(t.Context(), []store.Append{{Tenant: "busy", Events: []store.NewEvent{growthEvent(1, false)}}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	there.hears(t, grown, 1)

	if err := nodes[0].Erase(t.Context(), "busy", 7); err != nil {
		t.Fatal(err)
	}
	there.hears(t, postgres.Hint{Kind: postgres.HintErased, Tenant: "busy", Sequence: 7}, 1)
	if n := there.count(grown); n > appends/2 {
		t.Errorf("of %d appends %d were told", appends, n)
	}

	odd := "id with\ttab, \"quotes\" and é"
	save := func(kind, id string) {
		t.Helper()
		if err := nodes[0].Save(t.Context(), []store.RecordChange{{Record: store.Record{Tenant: "busy", Kind: kind, ID: id, Value: []byte("v")}}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	save("answer", "silent")
	save("tenant", odd)
	save("tenant", "acme")
	there.hears(t, postgres.Hint{Kind: postgres.HintRecord, Tenant: "busy", Record: "tenant", ID: odd}, 1)
	there.hears(t, postgres.Hint{Kind: postgres.HintRecord, Tenant: "busy", Record: "tenant", ID: "acme"}, 1)
	if there.count(postgres.Hint{Kind: postgres.HintRecord, Tenant: "busy", Record: "answer", ID: "silent"}) > 0 {
		t.Error("a record was told of that nobody asked about")
	}

	// What applications append is told to all.
	if err := makeTenants(t.Context(), nodes[0], "busy"); err != nil {
		t.Fatal(err)
	}
	run(t, url, `SELECT eventhose.append('busy', 'order.paid', '{}')`)
	here.hears(t, postgres.Hint{Kind: postgres.HintUnplaced}, 1)
	there.hears(t, postgres.Hint{Kind: postgres.HintUnplaced}, 1)
	for _, h := range []postgres.Hint{grown, {Kind: postgres.HintErased, Tenant: "busy", Sequence: 7}, {Kind: postgres.HintRecord, Tenant: "busy", Record: "tenant", ID: "acme"}} {
		if here.count(h) > 0 {
			t.Errorf("a node hears of what it did itself: %+v", h)
		}
	}

	// A connection that is lost is made again.
	run(t, url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN eventhose' AND datname = current_database()`)
	there.hears(t, interrupted, 2)
	if _, err := nodes[0].Append(t.Context(), []store.Append{{Tenant: "again", Events: []store.NewEvent{growthEvent(1, false)}}}); err != nil {
		t.Fatal(err)
	}
	there.hears(t, postgres.Hint{Kind: postgres.HintAppended, Tenant: "again"}, 1)

	// Leases that are given back are told of.
	if c, err := nodes[0].Claim(t.Context(), "alone", nil, time.Minute); err != nil || len(c.Leases) != store.Shards {
		t.Fatal(c, err)
	}
	if _, err := nodes[0].Claim(t.Context(), "alone", []uint8{7}, time.Minute); err != nil {
		t.Fatal(err)
	}
	there.hears(t, postgres.Hint{Kind: postgres.HintFreed}, 1)
	if n := there.count(postgres.Hint{Kind: postgres.HintFreed}); n != 1 {
		t.Errorf("leases were given once, and that was told %d times", n)
	}

	// With nobody else there is nobody to tell.
	if c, err := nodes[0].Claim(t.Context(), "alone", nil, time.Minute); err != nil || !c.Shared {
		t.Fatal(c, err)
	}
	if _, err := nodes[0].Append(t.Context(), []store.Append{{Tenant: "untold", Events: []store.NewEvent{growthEvent(1, false)}}}); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].Erase(t.Context(), "untold", 1); err != nil { // which is told after the append would have been
		t.Fatal(err)
	}
	there.hears(t, postgres.Hint{Kind: postgres.HintErased, Tenant: "untold", Sequence: 1}, 1)
	if there.count(postgres.Hint{Kind: postgres.HintAppended, Tenant: "untold"}) > 0 {
		t.Error("a node that is alone tells of its appends")
	}
	stop()
	<-here.done
	<-there.done
}
