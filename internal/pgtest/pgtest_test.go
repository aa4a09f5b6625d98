//go:build linux

package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// connect connects to a database for as long as the test runs.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func number(t *testing.T, conn *pgx.Conn, sql string) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// Databases are empty, each is another, and they go with the test although somebody is connected.
func TestDatabase(t *testing.T) {
	var before string
	for range 2 {
		t.Run("", func(t *testing.T) {
			url := Database(t)
			if url == before {
				t.Errorf("%s is given twice", url)
			}
			before = url
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			execute(t, conn, "CREATE TABLE t (n int)")
			if fsync := number(t, conn, "SELECT count(*) FROM pg_settings WHERE name = 'fsync' AND setting = 'on'"); fsync != 1 {
				t.Error("fsync is off")
			}
		})
	}
	if left := number(t, connect(t, DatabaseTCP(t)), "SELECT count(*) FROM pg_database WHERE datname LIKE 'db%'"); left != 1 {
		t.Errorf("%d databases are left, and one is in use", left)
	}
}

// What was committed is there after a crash and after a shutdown, at the same addresses.
func TestKill(t *testing.T) {
	c := Start(t, Options{Name: "it's", Settings: map[string]string{"work_mem": "5MB"}})
	conn := connect(t, c.TCPURL("postgres"))
	execute(t, conn, "CREATE TABLE t (n int)")
	execute(t, conn, "INSERT INTO t VALUES (1)")
	for name, end := range map[string]func(){"kill": c.Kill, "stop": c.Stop} {
		pid := c.pid
		end()
		if _, runs := look(pid); runs {
			t.Fatalf("%s: process %d still runs", name, pid)
		}
		if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Fatalf("%s: the connection lives on", name)
		}
		if _, err := pgx.Connect(t.Context(), c.URL("postgres")); err == nil {
			t.Fatalf("%s: one can connect", name)
		}
		c.Start()
		conn = connect(t, c.TCPURL("postgres"))
		if n := number(t, conn, "SELECT count(*) FROM t"); n != 1 {
			t.Errorf("%s: %d rows, want 1", name, n)
		}
	}
	if n := number(t, conn, "SELECT count(*) FROM pg_settings WHERE name = 'cluster_name' AND setting = 'it''s' OR name = 'work_mem' AND setting = '5120'"); n != 2 {
		t.Error("the settings are not as told")
	}
}

// A paused server keeps its clients waiting, and then goes on as if nothing had been.
func TestPause(t *testing.T) {
	c := Start(t, Options{})
	conn := connect(t, c.URL("postgres"))
	c.Pause()
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT 1")
		answered <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := pgx.Connect(ctx, c.URL("postgres")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connecting to a paused server: %v", err)
	}
	select {
	case err := <-answered:
		t.Errorf("a paused server answers: %v", err)
	default:
	}
	c.Resume()
	if err := <-answered; err != nil {
		t.Errorf("a resumed server answers: %v", err)
	}
	c.Pause()
	c.Kill()
	c.Start()
	c.Pause()
	c.Stop()
}

// What a primary with a synchronous standby has acknowledged is on the standby when the primary is no more.
func TestPromote(t *testing.T) {
	primary := Start(t, Options{})
	standby := primary.Standby(t, Options{Name: `a "name"`, Synchronous: true})
	other := primary.Standby(t, Options{})
	conn := connect(t, primary.URL("postgres"))
	if n := number(t, conn, fmt.Sprintf("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND (application_name, sync_state) IN ((E'%s', 'sync'), ('%s', 'async'))", standby.Name(), other.Name())); n != 2 {
		t.Errorf("%d standbys are as told, want 2", n)
	}
	execute(t, conn, "CREATE TABLE t (n int)")
	execute(t, conn, "INSERT INTO t VALUES (1)")

	// Without the standby nothing is acknowledged, with it again all is.
	standby.Pause()
	acknowledged := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "INSERT INTO t VALUES (2)")
		acknowledged <- err
	}()
	if err := poll("the commit to wait", func(ctx context.Context) (bool, error) {
		waiting, err := query[int](ctx, primary, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
		return waiting == 1, err
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-acknowledged:
		t.Errorf("acknowledged without the standby: %v", err)
	default:
	}
	standby.Resume()
	if err := <-acknowledged; err != nil {
		t.Fatal(err)
	}

	primary.Kill()
	if _, err := connect(t, standby.URL("postgres")).Exec(t.Context(), "INSERT INTO t VALUES (3)"); err == nil {
		t.Error("a standby takes writes")
	}
	standby.Promote()
	conn = connect(t, standby.URL("postgres"))
	if n := number(t, conn, "SELECT count(*) FROM t"); n != 2 {
		t.Errorf("%d rows, want the 2 that were acknowledged", n)
	}
	execute(t, conn, "INSERT INTO t VALUES (3)")
	if third := standby.Standby(t, Options{}); number(t, connect(t, third.URL("postgres")), "SELECT count(*) FROM t") != 3 {
		t.Error("the promoted standby's standby lacks rows")
	}
}

// childEnv makes TestEndsWithProcess be the process whose end is watched.
const childEnv = "PGTEST_CHILD"

// A process that is killed leaves no server, running or paused, and no directory.
func TestEndsWithProcess(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		Database(t)
		c := Start(t, Options{})
		c.Pause()
		fmt.Printf("started %d %q %d %q\n", shared.cluster.pid, shared.cluster.dir, c.pid, c.dir)
		io.Copy(io.Discard, os.Stdin) // until we are killed, or the parent ends
		return
	}
	installed(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEndsWithProcess$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var (
		pids [2]int
		dirs [2]string
	)
	said := ""
	for lines := bufio.NewScanner(out); pids[1] == 0 && lines.Scan(); {
		said += lines.Text() + "\n"
		if _, line, found := strings.Cut(lines.Text(), "started "); found {
			fmt.Sscanf(line, "%d %q %d %q", &pids[0], &dirs[0], &pids[1], &dirs[1])
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if pids[1] == 0 {
		t.Fatalf("the child has not started its clusters:\n%s", said)
	}
	err = poll("the clusters to end", func(context.Context) (bool, error) {
		for i := range pids {
			if p, runs := look(pids[i]); runs {
				return false, fmt.Errorf("process %d is in state %s", p.pid, p.state)
			}
			if _, err := os.Stat(dirs[i]); !errors.Is(err, fs.ErrNotExist) {
				return false, fmt.Errorf("%s: %w", dirs[i], err)
			}
		}
		return true, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// The directory of a process that ended with its watchdog is removed by a later one, that of a living process is not.
func TestRemoveLeft(t *testing.T) {
	parent := t.TempDir()
	var dirs [2]string
	for i := range dirs {
		dir, err := os.MkdirTemp(parent, "pgtest-")
		if err != nil {
			t.Fatal(err)
		}
		dirs[i] = dir
	}
	before := held.lock
	defer func() { held.lock = before }()
	for _, dir := range dirs {
		if err := hold(dir); err != nil {
			t.Fatal(err)
		}
		if dir == dirs[0] {
			held.lock.Close()
		}
	}
	defer held.lock.Close()
	removeLeft(parent)
	for i, want := range []bool{false, true} {
		if _, err := os.Stat(dirs[i]); (err == nil) != want {
			t.Errorf("directory %d: %v", i, err)
		}
	}
}
