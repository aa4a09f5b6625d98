package postgres_test

import (
	"flag"
	"sync"
	"testing"

	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

// databases opens stores and remembers which database each is on.
type databases struct {
	mu sync.Mutex
	of map[store.Store]string
}

func (d *databases) open(t *testing.T, url string) store.Store {
	t.Helper()
	st, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 12, Upkeep: -1})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = map[store.Store]string{}
	}
	d.of[st] = url
	return st
}

func (d *databases) reopen(t *testing.T, st store.Store) store.Store {
	t.Helper()
	d.mu.Lock()
	url := d.of[st]
	d.mu.Unlock()
	if err := st.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return d.open(t, url)
}

// checks is how many random histories rapid tries; -rapid.checks makes it longer.
const checks = "12"

func TestStore(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		if err := f.Value.Set(checks); err != nil {
			t.Fatal(err)
		}
	}
	var d databases
	storetest.Run(t, func(t *testing.T) store.Store { return d.open(t, pgtest.Database(t)) }, d.reopen)
}
