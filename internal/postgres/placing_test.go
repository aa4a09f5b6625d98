package postgres_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// filling is a store in which an application appends to t0 whenever its events are looked for.
type filling struct {
	*postgres.Store
	db    *pgx.Conn
	looks atomic.Int64
}

func (f *filling) Unplaced(ctx context.Context, tenant eventhose.TenantID, limit int) ([]store.Unplaced, error) {
	if tenant == "t0" {
		f.looks.Add(1)
		if _, err := f.db.Exec(ctx, "SELECT eventhose.append('t0', 'order.paid', '{}') FROM generate_series(1, 600)"); err != nil {
			return nil, err
		}
	}
	return f.Store.Unplaced(ctx, tenant, limit)
}

// An application that appends without end to one log keeps no other's events from their places.
func TestPlacesByTurns(t *testing.T) {
	w := newSQLWorld(t)
	st := &filling{Store: w.st, db: w.connect(w.url)}
	for _, tenant := range []string{"t0", "t1"} {
		if err := appendSQL(t.Context(), w.db, with("tenant", tenant)); err != nil {
			t.Fatal(err)
		}
	}
	placing, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.log.RunPlacing(placing, st, time.Hour)
	}()
	if err := w.log.Wait(placing, "t1", 0); err != nil {
		t.Errorf("the other log's event has no place after %d turns: %v", st.looks.Load(), err)
	}
	before := st.looks.Load()
	if !until(placing, func() bool { return st.looks.Load() > before+3 }) {
		t.Error("what is left is not gone on with")
	}
	cancel()
	<-ended
}

// Large events are read a few at once, and those that are left of one transaction wait for no other.
func TestPlacesLargeEvents(t *testing.T) {
	w := newSQLWorld(t)
	const n = 20
	if _, err := w.db.Exec(t.Context(), `SELECT eventhose.append('t0', 'order.paid', to_json(repeat('x', 1000000))) FROM generate_series(1, $1)`, n); err != nil {
		t.Fatal(err)
	}
	w.place()
	if head, err := w.log.Head(t.Context(), "t0"); err != nil || head.Last != n {
		t.Errorf("%d of %d events have places: %v", head.Last, n, err)
	}
}

// A log that somebody holds for long keeps no other's events from their places.
func TestPlacesPastAHeldLog(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 6})
	names := []eventhose.TenantID{"a", "b"}
	if err := makeTenants(t.Context(), g.nodes[0], names...); err != nil {
		t.Fatal(err)
	}
	log := eventlog.New(g.nodes[0], tenants(names), eventlog.Options{})
	defer log.Close()
	g.put("a", "b")
	app := g.connect()
	for _, tenant := range names {
		if err := appendSQL(t.Context(), app, with("tenant", string(tenant))); err != nil {
			t.Fatal(err)
		}
	}
	placing, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	g.hold("a", func() {
		go func() {
			defer close(ended)
			log.RunPlacing(placing, g.nodes[0], 50*time.Millisecond)
		}()
		within, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		if err := log.Wait(within, "b", 1); err != nil {
			t.Errorf("the other log's event waits for its place: %v", err)
		}
	})
	within, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := log.Wait(within, "a", 1); err != nil {
		t.Errorf("the event has no place once its log is free: %v", err)
	}
	cancel()
	<-ended
}
