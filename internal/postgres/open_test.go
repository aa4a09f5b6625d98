package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// run executes statements on a database.
func run(t *testing.T, url string, statements ...string) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	for _, sql := range statements {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// A database that cannot be relied on is refused, with what to do about it.
func TestRefused(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"fsync": "off"}})
	good := pgtest.Start(t, pgtest.Options{})
	run(t, good.URL("postgres"), "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0", "CREATE DATABASE hasty", "ALTER DATABASE hasty SET synchronous_commit = off",
		"CREATE DATABASE newer", "CREATE ROLE hasty LOGIN SUPERUSER", "ALTER ROLE hasty SET synchronous_commit = off")
	if _, err := postgres.Migrate(t.Context(), good.URL("newer")); err != nil {
		t.Fatal(err)
	}
	run(t, good.URL("newer"), "INSERT INTO eventhose.migrations SELECT max(version) + 1, 'future' FROM eventhose.migrations")
	for _, c := range []struct {
		name, url string
		message   string
		fix       string
	}{
		{"encoding", good.URL("latin"), "LATIN1", "ENCODING 'UTF8'"},
		{"synchronous_commit of the database", good.URL("hasty"), "before data is on disk", "synchronous_commit = on"},
		{"synchronous_commit of the role", strings.Replace(good.URL("postgres"), "user=postgres", "user=hasty", 1), "before data is on disk", "synchronous_commit = on"},
		{"synchronous_commit of the URL", good.URL("postgres") + "&synchronous_commit=off", "before data is on disk", "synchronous_commit = on"},
		{"fsync", server.URL("postgres"), "before data is on disk", "fsync = on"},
		{"no URL", "postgres://localhost:port/x", "is not a PostgreSQL URL", "postgres://user"},
	} {
		st, err := postgres.Open(t.Context(), c.url, postgres.Options{})
		var told *eventhose.Error
		if !errors.As(err, &told) {
			t.Errorf("%s: %v", c.name, err)
			if err == nil {
				st.Close()
			}
			continue
		}
		if told.Code != eventhose.CodeInvalid || told.Field != "--database-url" || !strings.Contains(told.Message, c.message) || !strings.Contains(told.Fix, c.fix) {
			t.Errorf("%s: %+v", c.name, told)
		}
	}
	if _, err := postgres.Open(t.Context(), good.URL("newer"), postgres.Options{}); !errors.Is(err, store.ErrNewer) {
		t.Errorf("a newer schema: %v", err)
	}
	if _, err := postgres.Open(t.Context(), good.URL("nowhere"), postgres.Options{}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a database that is not there: %v", err)
	}
	server.Stop()
	if _, err := postgres.Open(t.Context(), server.URL("postgres"), postgres.Options{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a server that is not there: %v", err)
	}
}

// Of many that bring a new database up to date at once one does, and the others wait for it.
func TestMigrateAtOnce(t *testing.T) {
	url := pgtest.Database(t)
	const many = 6
	var taken [many][]postgres.Migration
	var errs [many]error
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range many {
		all.Go(func() {
			<-begin
			taken[i], errs[i] = postgres.Migrate(t.Context(), url)
		})
	}
	close(begin)
	all.Wait()
	did := 0
	for i := range many {
		if errs[i] != nil {
			t.Error(errs[i])
		}
		if len(taken[i]) > 0 {
			did++
		}
	}
	if did != 1 {
		t.Errorf("%d have migrated it", did)
	}
	// Who comes while another holds the lock waits for it, and finds nothing to do.
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	if n := ask[int](t, db, "SELECT count(*) FROM eventhose.migrations"); n != len(taken[0])+len(taken[1])+len(taken[2])+len(taken[3])+len(taken[4])+len(taken[5]) {
		t.Errorf("%d steps are noted, of %v", n, taken)
	}
}
