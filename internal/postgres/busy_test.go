package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// hold locks the head of a log, as no node would, while f runs.
func (g *growth) hold(log eventhose.TenantID, f func()) {
	g.Helper()
	err := pgx.BeginFunc(g.Context(), g.db, func(tx pgx.Tx) error {
		if tag, err := tx.Exec(g.Context(), "SELECT FROM eventhose.logs WHERE tenant = $1 FOR UPDATE", string(log)); err != nil || tag.RowsAffected() != 1 {
			g.Fatalf("cannot hold the log of %s: %v", log, err)
		}
		f()
		return nil
	})
	if err != nil {
		g.Fatal(err)
	}
}

// waited waits until a statement waits for a lock, or did.
func (g *growth) waited() {
	g.Helper()
	db := g.connect()
	if !until(g.Context(), func() bool {
		return ask[bool](g.T, db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")
	}) {
		g.Fatal("nobody waits for a lock")
	}
}

// put appends one event to each of some logs, in one group.
func (g *growth) put(logs ...eventhose.TenantID) {
	g.Helper()
	var group []store.Append
	for _, log := range logs {
		group = append(group, store.Append{Tenant: log, Events: []store.NewEvent{growthEvent(1, false)}})
	}
	if _, err := g.nodes[0].Append(g.Context(), group); err != nil {
		g.Fatal(err)
	}
}

// A log that somebody holds for long has nobody else's appends wait, neither those that come after its own nor those in one group with them.
func TestHeldLog(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 8})
	log := eventlog.New(g.nodes[0], tenants([]eventhose.TenantID{"a", "b", "c"}), eventlog.Options{})
	defer log.Close()
	g.put("a", "b", "c")
	began := func(tenant eventhose.TenantID) <-chan error {
		answer := make(chan error, 1)
		go func() {
			_, err := log.Append(context.WithoutCancel(t.Context()), tenant, eventhose.Event{Type: "x.y", Data: []byte(`{}`)})
			answer <- err
		}()
		return answer
	}
	var held []<-chan error
	g.hold("a", func() {
		held = append(held, began("a"))
		g.waited()
		for range 20 {
			held = append(held, began("a"))
			for _, answer := range []<-chan error{began("b"), began("c")} {
				if err := <-answer; err != nil {
					t.Fatal(err)
				}
			}
			for _, answer := range held {
				select {
				case err := <-answer:
					t.Fatalf("an append to the log that is held was answered before those to others: %v", err)
				default:
				}
			}
		}
	})
	for _, answer := range held {
		if err := <-answer; err != nil {
			t.Error(err)
		}
	}
	if head, err := log.Head(t.Context(), "a"); err != nil || head.Last != 22 {
		t.Errorf("the log that was held reaches to %d: %v", head.Last, err)
	}
}

// Whoever waits for a log holds no other one, but that of a tenant while it waits for its parent's.
func TestWaitingHoldsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		held  eventhose.TenantID
		group []store.Append
		free  []eventhose.TenantID
	}{
		"other tenants": {"m", []store.Append{{Tenant: "m"}, {Tenant: "a"}, {Tenant: "z"}}, []eventhose.TenantID{"a", "z"}},
		"the parent":    {"m", []store.Append{{Tenant: "m", Parent: "a"}}, []eventhose.TenantID{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrowth(t, postgres.Options{MaxConns: 4})
			g.put("a", "m", "z")
			for i := range c.group {
				c.group[i].Events = []store.NewEvent{growthEvent(2, false)}
			}
			answer := make(chan error, 1)
			g.hold(c.held, func() {
				go func() {
					_, err := g.nodes[0].Append(context.WithoutCancel(t.Context()), c.group)
					answer <- err
				}()
				g.waited()
				db := g.connect()
				for _, free := range c.free {
					if _, err := db.Exec(t.Context(), "SELECT FROM eventhose.logs WHERE tenant = $1 FOR UPDATE NOWAIT", string(free)); err != nil {
						t.Errorf("the log of %s is held by who waits for that of %s: %v", free, c.held, err)
					}
				}
			})
			if err := <-answer; err != nil {
				t.Error(err)
			}
		})
	}
}
