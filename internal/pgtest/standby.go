package pgtest

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Standby makes a copy of the cluster that follows it as a hot standby: it takes queries, and changes nothing. It returns
// when it streams and, if it is to be synchronous, when commits wait for it. It ends with the test t, which must end before
// the one that started the cluster, or be it.
func (c *Cluster) Standby(t testing.TB, o Options) *Cluster {
	t.Helper()
	settings := maps.Clone(c.settings)
	delete(settings, "synchronous_standby_names") // once promoted, it has no standbys to wait for
	maps.Copy(settings, o.Settings)
	s, err := newCluster("standby", o.Name, settings)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.own(t)
	from := c.socketURL("", url.Values{"application_name": {s.name}})
	s.must(s.run("pg_basebackup", "-d", from, "-D", s.data(), "-R", "-X", "stream", "--checkpoint", "fast", "--no-sync"))
	s.must(s.start())
	s.must(c.waitStandby(s.name, "streaming"))
	if o.Synchronous {
		s.must(c.setSynchronous(append(c.synchronous, s.name)))
		s.must(c.waitStandby(s.name, "streaming sync"))
		s.must(c.waitSynchronous())
	}
	return s
}

// Promote makes a standby a primary, and returns when it takes writes. Nothing keeps the old primary, if it still runs, from
// taking writes too.
func (c *Cluster) Promote() {
	c.t.Helper()
	c.must(c.running())
	c.must(c.run("pg_ctl", "promote", "-D", c.data(), "-w", "-t", strconv.Itoa(int(deadline.Seconds()))))
	c.must(poll("to take writes", func(ctx context.Context) (bool, error) {
		recovering, err := query[bool](ctx, c, "SELECT pg_is_in_recovery()")
		return err == nil && !recovering, err
	}))
}

// waitStandby waits until a standby of the cluster is in a state, told as that of its connection and whether it is
// synchronous.
func (c *Cluster) waitStandby(name, state string) error {
	return poll(fmt.Sprintf("%s to be %s", name, state), func(ctx context.Context) (bool, error) {
		is, err := query[string](ctx, c, "SELECT coalesce(max(state || ' ' || sync_state), 'not connected') FROM pg_stat_replication WHERE application_name = $1", name)
		if err == nil && !strings.HasPrefix(is, state) {
			err = fmt.Errorf("it is %s", is)
		}
		return err == nil, err
	})
}

// setSynchronous makes commits wait for all of some standbys.
func (c *Cluster) setSynchronous(names []string) error {
	c.synchronous = slices.Clone(names)
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	c.settings["synchronous_standby_names"] = fmt.Sprintf("FIRST %d (%s)", len(names), strings.Join(quoted, ", "))
	if err := c.configure(); err != nil {
		return err
	}
	return signal(c.pid, syscall.SIGHUP)
}

// waitSynchronous waits until commits do wait. They begin to when the checkpointer has read the setting, which may be later
// than when the connections of the standbys have, and which nothing tells. A new connection with the setting tells that the
// postmaster has signalled everybody; a checkpoint, that the checkpointer has looked for signals since or was just past it;
// a second, that it has looked.
func (c *Cluster) waitSynchronous() error {
	err := poll("the setting to be read", func(ctx context.Context) (bool, error) {
		is, err := query[string](ctx, c, "SHOW synchronous_standby_names")
		return is == c.settings["synchronous_standby_names"], err
	})
	if err != nil {
		return err
	}
	if err := c.exec("CHECKPOINT"); err != nil {
		return err
	}
	return c.exec("CHECKPOINT")
}
