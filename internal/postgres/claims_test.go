package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// Leases are claimed while all connections are waiting for something.
func TestClaimsHaveAConnection(t *testing.T) {
	const conns = 2
	g := newGrowth(t, postgres.Options{MaxConns: conns, Upkeep: -1})
	g.put("a", "b")
	var appends sync.WaitGroup
	g.hold("a", func() {
		for range conns {
			appends.Go(func() { g.put("a") })
		}
		db := g.connect()
		if !until(t.Context(), func() bool {
			return ask[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == conns
		}) {
			t.Fatal("the appends do not wait")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if c, err := g.nodes[0].Claim(ctx, "node", nil, time.Minute); err != nil || len(c.Leases) != store.Shards {
			t.Errorf("%d leases, %v", len(c.Leases), err)
		}
	})
	appends.Wait()
}

// A log is trimmed to its bounds however much it is that goes.
func TestTrimInSteps(t *testing.T) {
	g := newGrowth(t, postgres.Options{Upkeep: -1})
	const events, batch = 30_001, 1000
	for n := 0; n < events; n += batch {
		entry := store.Append{Tenant: "a"}
		for range min(batch, events-n) {
			entry.Events = append(entry.Events, growthEvent(1, false))
		}
		if _, err := g.nodes[0].Append(t.Context(), []store.Append{entry}); err != nil {
			t.Fatal(err)
		}
	}
	done, err := g.nodes[0].Trim(t.Context(), "a", store.Trim{Bytes: 1})
	if err != nil || done.First != events || done.Removed != events-1 || done.Bytes == 0 {
		t.Errorf("%+v, %v", done, err)
	}
}
