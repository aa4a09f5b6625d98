package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose/internal/store"
)

// Ready reports whether the database answers and takes writes.
func (s *Store) Ready(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	var standby bool
	if err := s.row(ctx, "ask the database", "SELECT pg_is_in_recovery()", nil, &standby); err != nil {
		return err
	}
	if standby {
		return errors.Join(store.ErrUnavailable, errors.New("the database is a standby, which takes no writes"))
	}
	return nil
}

// Connections are those of this node.
type Connections struct {
	Open, InUse, Max int
	// Waited is how long calls have waited for one, since the start.
	Waited time.Duration
}

// Connections tells how many there are.
func (s *Store) Connections() Connections {
	st := s.pool.Stat()
	return Connections{Open: int(st.TotalConns()), InUse: int(st.AcquiredConns()), Max: int(st.MaxConns()), Waited: st.EmptyAcquireWaitTime()}
}

// Inspection is what can be told of a database without changing anything.
type Inspection struct {
	// Server is PostgreSQL's version, as text.
	Server string
	// Schema is how many steps of Known the schema has.
	Schema, Known int
	// Standbys are those that commits wait for.
	Standbys int
	// MaxConnections is the server's bound.
	MaxConnections int
	// Skew is how far its clock is ahead of this machine's, less what the answer took.
	Skew time.Duration
}

// Inspect looks at a database. The errors are Open's.
func Inspect(ctx context.Context, url string) (i Inspection, err error) {
	c, err := config(url)
	if err != nil {
		return i, err
	}
	conn, err := pgx.ConnectConfig(ctx, c.ConnConfig)
	if err != nil {
		return i, notLetIn("connect to the database", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := usable(ctx, conn); err != nil {
		return i, err
	}
	steps, _, err := migrations()
	if err != nil {
		return i, err
	}
	i.Known = len(steps)
	if i.Schema, err = version(ctx, conn); err != nil {
		return i, failure("read the version of the schema", err)
	}
	began := time.Now()
	var now time.Time
	err = conn.QueryRow(ctx, `SELECT clock_timestamp(), current_setting('server_version'), current_setting('max_connections')::int,
		(SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))`).Scan(&now, &i.Server, &i.MaxConnections, &i.Standbys)
	if err != nil {
		return i, failure("ask the database for its state", err)
	}
	switch after := time.Now(); {
	case now.Before(began):
		i.Skew = now.Sub(began)
	case now.After(after):
		i.Skew = now.Sub(after)
	}
	return i, nil
}

// Version answers PostgreSQL's, as text.
func (s *Store) Version(ctx context.Context) (string, error) {
	if err := s.begin(ctx); err != nil {
		return "", err
	}
	defer s.end()
	var version string
	err := s.row(ctx, "ask the database for its version", "SELECT current_setting('server_version')", nil, &version)
	return version, err
}

// Node is one that is alive, how many leases it holds, and when it counts as gone if nothing more is heard of it.
type Node struct {
	Name   string
	Leases int
	Until  time.Time
}

// Nodes lists those that are alive by name, at most limit.
func (s *Store) Nodes(ctx context.Context, limit int) ([]Node, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	var nodes []Node
	err := s.query(ctx, "list the nodes", `SELECT n.node, n.until, (SELECT count(*) FROM eventhose.leases l WHERE l.node = n.node AND l.until >= clock_timestamp())
		FROM eventhose.nodes n WHERE n.until >= clock_timestamp() ORDER BY n.node LIMIT $1`, []any{limit}, func() { nodes = nil }, func(rows pgx.Rows) error {
		var n Node
		err := rows.Scan(&n.Name, &n.Until, &n.Leases)
		n.Until = n.Until.UTC()
		nodes = append(nodes, n)
		return err
	})
	return nodes, err
}
