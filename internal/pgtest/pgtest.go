// Package pgtest runs real PostgreSQL servers for tests: one shared by the test process, whose databases are handed out
// empty, and clusters of a test's own that it may stop, kill, pause, replicate and promote.
//
// Servers write to a temporary directory with fsync on. They listen on a Unix socket there and on 127.0.0.1, and trust
// everybody. They end with the test process, however it ends, and so does the directory.
//
// It needs Linux and PostgreSQL 15 or newer, in PATH or where Debian's packages put it. Where they are missing, tests are
// skipped, and fail if the environment has CI set.
//
// As with testing.TB, which they fail, the functions are for the goroutine of the test. Each wait is bounded by 2 minutes.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// deadline bounds each single wait. It is for machines with much else to do: a cluster is up in about a second.
const deadline = 2 * time.Minute

// shared is the cluster that the databases of Database are on.
var shared struct {
	mu        sync.Mutex
	cluster   *Cluster
	err       error // of starting it; it is not tried twice
	databases int
}

// Database answers the URL of a fresh, empty database that no other test has, by the Unix socket. It is dropped at the end
// of the test, whoever is still connected. Tests may call it at once.
func Database(t testing.TB) string {
	t.Helper()
	c, db := database(t)
	return c.URL(db)
}

// DatabaseTCP is Database by 127.0.0.1, for clients that cannot be told of a Unix socket.
func DatabaseTCP(t testing.TB) string {
	t.Helper()
	c, db := database(t)
	return c.TCPURL(db)
}

func database(t testing.TB) (*Cluster, string) {
	t.Helper()
	installed(t)
	c, db, err := sharedCluster()
	if err != nil {
		t.Fatalf("pgtest: the shared cluster: %v", err)
	}
	if err := c.exec("CREATE DATABASE " + db); err != nil {
		c.showLog(t)
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := c.exec("DROP DATABASE " + db + " WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
		if t.Failed() {
			c.showLog(t)
		}
	})
	return c, db
}

// sharedCluster answers the shared cluster, which it starts if it is the first, and the name of a database to be made.
func sharedCluster() (c *Cluster, db string, err error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = newCluster("shared", "shared", nil)
		if shared.err == nil {
			shared.err = errors.Join(shared.cluster.initdb(), shared.cluster.start())
		}
		if shared.err != nil && shared.cluster != nil {
			shared.err = fmt.Errorf("%w\n%s", shared.err, shared.cluster.logEnd())
		}
	}
	shared.databases++
	return shared.cluster, fmt.Sprintf("db%d", shared.databases), shared.err
}

// installed skips or fails a test if there is no PostgreSQL to run.
func installed(t testing.TB) {
	t.Helper()
	_, err := findServer()
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatalf("pgtest: %v", err)
	case err != nil:
		t.Skipf("pgtest: %v", err)
	}
}

// exec executes a statement outside of a transaction, as the superuser.
func (c *Cluster) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err = conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// query reads the one value of a query on a connection of its own, so that it sees settings as they are now.
func query[T any](ctx context.Context, c *Cluster, sql string, args ...any) (value T, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return value, err
	}
	defer conn.Close(ctx)
	return value, conn.QueryRow(ctx, sql, args...).Scan(&value)
}

// poll asks for a fact until it is there. fact answers whether asking again is of no use, and with what result; until then
// its error is only what is told if the deadline passes.
func poll(what string, fact func(context.Context) (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := fact(ctx)
		if done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, deadline, errors.Join(err, ctx.Err()))
		}
	}
}
