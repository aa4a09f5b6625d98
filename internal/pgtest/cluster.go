package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Options are how a cluster differs from others.
type Options struct {
	// Name is its cluster_name and, if it is a standby, its application_name in pg_stat_replication, where no two should
	// have the same. If empty it is "primary" or "standby" and a number.
	Name string
	// Settings are added to postgresql.conf and win over those of pgtest, but for where it listens. A standby has those of
	// its primary too.
	Settings map[string]string
	// Synchronous makes the commits of a standby's primary wait for it from now on, also while it is down.
	Synchronous bool
}

// Cluster is a PostgreSQL server, its data directory and its addresses, which it keeps for as long as it is. Its methods
// may not be called at once.
type Cluster struct {
	t    testing.TB // nil for the shared one
	name string
	dir  string // the socket, the log, and data
	port int
	// settings are all of postgresql.conf.
	settings map[string]string
	// pid is the postmaster's, our child; 0 when it does not run.
	pid int
	// launched says that a client may know the port.
	launched bool
	// paused are the processes that Pause has stopped.
	paused []process
	// synchronous are the standbys that commits wait for.
	synchronous []string
}

// Start starts a cluster of the test's own: one that is new, empty, and ends with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	installed(t)
	c, err := newCluster("primary", o.Name, o.Settings)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	c.own(t)
	c.must(c.initdb())
	c.must(c.start())
	return c
}

// newCluster answers a cluster with a directory and settings, and no data yet. Without a name it is called after its kind.
func newCluster(kind, name string, settings map[string]string) (*Cluster, error) {
	dir, n, err := newDirectory()
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = fmt.Sprint(kind, n)
	}
	c := &Cluster{name: name, dir: dir, settings: map[string]string{
		"max_connections": "200",
		"fsync":           "on",
		"log_line_prefix": "%m [%p] %a ",
		// So that a standby that was away for a while finds all it missed, and soon asks for it.
		"wal_keep_size":               "1GB",
		"wal_retrieve_retry_interval": "200ms",
	}}
	maps.Copy(c.settings, settings)
	c.settings["cluster_name"] = name
	c.settings["listen_addresses"] = "127.0.0.1"
	c.settings["unix_socket_directories"] = dir
	return c, nil
}

// own makes a cluster end with a test.
func (c *Cluster) own(t testing.TB) {
	c.t = t
	t.Cleanup(func() {
		if c.pid != 0 {
			if err := c.kill(); err != nil {
				t.Errorf("pgtest: %s: %v", c.name, err)
			}
		}
		if t.Failed() {
			c.showLog(t)
		}
		if err := os.RemoveAll(c.dir); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
}

func (c *Cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("pgtest: %s: %v", c.name, err) // cleaning up shows the log
	}
}

// Name is what the cluster is called in the replication of others.
func (c *Cluster) Name() string { return c.name }

// URL answers the URL of a database, by the Unix socket. "postgres" is there from the start.
func (c *Cluster) URL(db string) string { return c.socketURL(db, nil) }

// socketURL is URL with more parameters.
func (c *Cluster) socketURL(db string, more url.Values) string {
	values := url.Values{"host": {c.dir}, "port": {strconv.Itoa(c.port)}, "user": {"postgres"}}
	maps.Copy(values, more)
	u := url.URL{Scheme: "postgres", Path: "/" + db}
	u.RawQuery = strings.ReplaceAll(values.Encode(), "+", "%20") // libpq takes + for itself
	return u.String()
}

// TCPURL answers the URL of a database, by 127.0.0.1.
func (c *Cluster) TCPURL(db string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: "127.0.0.1:" + strconv.Itoa(c.port), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

// Start starts a cluster that was stopped or killed, on the addresses that it had, and returns when it takes queries.
func (c *Cluster) Start() {
	c.t.Helper()
	c.must(c.start())
}

// Stop is a fast shutdown: transactions are rolled back, what is committed is written and sent to the standbys. It returns
// when no process is left.
func (c *Cluster) Stop() {
	c.t.Helper()
	c.must(c.stop())
}

// Kill is a crash: every process of the server is killed, and none is left when it returns. The addresses are kept.
func (c *Cluster) Kill() {
	c.t.Helper()
	c.must(c.kill())
}

// Pause stops every process of the server in its tracks, with connections left open and new ones neither taken nor refused,
// as a machine does that hangs or is cut off. It returns when all have stopped.
func (c *Cluster) Pause() {
	c.t.Helper()
	c.must(c.pause())
}

// Resume lets a server that was paused go on.
func (c *Cluster) Resume() {
	c.t.Helper()
	c.must(c.resume())
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) initdb() error {
	// initdb need not sync what is not worth more than a test; the server does.
	return c.run("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
}

func (c *Cluster) start() error {
	if c.pid != 0 {
		return errors.New("it runs already")
	}
	for tries := 1; ; tries++ {
		if !c.launched {
			port, err := freePort()
			if err != nil {
				return err
			}
			c.port = port
			c.settings["port"] = strconv.Itoa(port)
		}
		before := len(c.log())
		err := c.launch()
		if err == nil {
			c.launched = true
			return nil
		}
		// Between finding a port and listening on it another may have taken it.
		if c.launched || tries == 5 || c.pid != 0 || !bytes.Contains(c.log()[before:], []byte("Address already in use")) {
			return err
		}
	}
}

func (c *Cluster) launch() (err error) {
	if err := c.configure(); err != nil {
		return err
	}
	cmd, done, err := c.command(context.Background(), "postgres", "-D", c.data())
	if err != nil {
		return err
	}
	defer done()
	if err := cmd.Start(); err != nil {
		return err
	}
	// It is reaped by its number, without a goroutine that would wait for it and look like a leak in the tests.
	c.pid = cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	return poll("to take queries", func(ctx context.Context) (bool, error) {
		if ended, how := reap(c.pid); ended {
			c.pid = 0
			return true, fmt.Errorf("it ended while it started: %s", how)
		}
		if err := c.ready(); err != nil {
			return false, err
		}
		_, err := query[int](ctx, c, "SELECT 1")
		return err == nil, err
	})
}

// ready says what is wrong if the postmaster has not yet written to its file that it takes connections. To ask for one
// before that would fill its log.
func (c *Cluster) ready() error {
	b, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	if line := strings.Split(string(b), "\n"); len(line) < 8 || line[0] != strconv.Itoa(c.pid) || !slices.Contains([]string{"ready", "standby"}, strings.TrimSpace(line[7])) {
		return fmt.Errorf("its file says %q", b)
	}
	return nil
}

// configure writes postgresql.conf, in place: it is the server's own.
func (c *Cluster) configure() error {
	var conf strings.Builder
	quote := strings.NewReplacer(`\`, `\\`, `'`, `''`)
	for _, name := range slices.Sorted(maps.Keys(c.settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, quote.Replace(c.settings[name]))
	}
	return os.WriteFile(filepath.Join(c.data(), "postgresql.conf"), []byte(conf.String()), 0o600)
}

func (c *Cluster) stop() error {
	if err := c.resume(); err != nil {
		return err
	}
	if err := c.running(); err != nil {
		return err
	}
	if err := signal(c.pid, syscall.SIGINT); err != nil {
		return err
	}
	return c.gone("0")
}

func (c *Cluster) kill() error {
	if err := c.running(); err != nil {
		return err
	}
	all, err := freeze(c.pid) // a postmaster that stands still makes no children that are missed
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := signal(p.pid, syscall.SIGKILL); err != nil {
			return err
		}
	}
	if err := c.gone(""); err != nil {
		return err
	}
	c.paused = nil
	return poll("to be gone", func(context.Context) (bool, error) { return !slices.ContainsFunc(all, process.runs), nil })
}

// gone waits for the postmaster to end with a status, any if it is "".
func (c *Cluster) gone(status string) error {
	return poll("to end", func(context.Context) (bool, error) {
		ended, how := reap(c.pid)
		if !ended {
			return false, nil
		}
		c.pid = 0
		if status != "" && how != status {
			return true, fmt.Errorf("it ended with %s", how)
		}
		return true, nil
	})
}

// running says what is wrong if the server does not run.
func (c *Cluster) running() error {
	if c.pid == 0 {
		return errors.New("it does not run")
	}
	if ended, how := reap(c.pid); ended {
		c.pid = 0
		return fmt.Errorf("it has ended by itself: %s", how)
	}
	return nil
}

func (c *Cluster) pause() error {
	if err := c.running(); err != nil {
		return err
	}
	all, err := freeze(c.pid)
	c.paused = all
	return err
}

func (c *Cluster) resume() error {
	all := c.paused
	c.paused = nil
	return thaw(all)
}

func (c *Cluster) log() []byte {
	b, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

func (c *Cluster) logEnd() string {
	b := c.log()
	return fmt.Sprintf("the end of the log of %s:\n%s", c.name, b[max(0, len(b)-8<<10):])
}

func (c *Cluster) showLog(t testing.TB) {
	t.Helper()
	t.Log(c.logEnd())
}

// freePort answers a port of 127.0.0.1 that nobody listens on. It is below those that the system gives to connections and
// to tests that listen on port 0, so that it is still free when a cluster starts again.
func freePort() (port int, err error) {
	for range 100 {
		port = 10000 + rand.IntN(20000)
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}
