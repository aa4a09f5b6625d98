package bench

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
)

// database is one that was made for a server, and is dropped after it.
type database struct {
	url, name, admin string
	secretKey        string
}

// newDatabase makes a database beside the one that the operator named.
func (b *bench) newDatabase(ctx context.Context) (*database, error) {
	d := &database{admin: b.DatabaseURL, name: "eventhose_bench_" + strings.ToLower(rand.Text())}
	u, err := url.Parse(b.DatabaseURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, eventhose.Invalid("--database-url", "must be a URL like postgres://user:password@host/database")
	}
	u.Path = "/" + d.name
	d.url = u.String()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	d.secretKey = base64.StdEncoding.EncodeToString(key)
	return d, d.exec(ctx, "CREATE DATABASE "+d.name)
}

func (d *database) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return d.exec(ctx, "DROP DATABASE IF EXISTS "+d.name+" WITH (FORCE)")
}

func (d *database) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, d.admin)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // what was asked for is answered
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(sql), err)
	}
	return nil
}

// written is what a database has written so far: rows that were inserted, updated or deleted, and bytes of its log.
type written struct{ rows, bytes int64 }

func (d *database) written(ctx context.Context) (w written, err error) {
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return w, fmt.Errorf("connect to the database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// What the server's own connections did shows in these figures up to a second later.
	err = conn.QueryRow(ctx, `SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint, (pg_current_wal_lsn() - '0/0')::bigint
		FROM pg_stat_user_tables`).Scan(&w.rows, &w.bytes)
	return w, err
}

// tally is what was written for so many events.
type tally struct {
	written
	events int64
}

// counting has a side's writes counted, if it is on a database.
func (g *rig) counting(t *tally, run func(context.Context, time.Duration) (*side, error)) func(context.Context, time.Duration) (*side, error) {
	if g.database == nil {
		return run
	}
	return func(ctx context.Context, d time.Duration) (*side, error) {
		before, err := g.database.written(ctx)
		if err != nil {
			return nil, err
		}
		s, err := run(ctx, d)
		if err != nil {
			return nil, err
		}
		pause(ctx, 1500*time.Millisecond)
		after, err := g.database.written(ctx)
		t.rows, t.bytes, t.events = t.rows+after.rows-before.rows, t.bytes+after.bytes-before.bytes, t.events+s.events
		return s, err
	}
}

func (t *tally) into(r *Result) {
	if t.events > 0 {
		r.more("rows_written_per_event", float64(t.rows)/float64(t.events))
		r.more("wal_bytes_per_event", float64(t.bytes)/float64(t.events))
	}
}

// manyTenants is over how many tenants twoNodes spreads its load, so that either node has some.
const manyTenants = 32

// twoNodes delivers by two nodes over one database, in turns with one over another.
func (b *bench) twoNodes(ctx context.Context, r *Result) (err error) {
	if b.DatabaseURL == "" {
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--scenario", Message: "two-nodes needs a database", Fix: "add --database-url"}
	}
	r.Baseline = "one-node"
	one, err := b.newRig(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, one.close()) }()
	two, err := b.newRig(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, two.close()) }()
	second := &server{key: two.server.key, b: b, dir: two.dir, database: two.database, node: "second"}
	if err := second.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.stop()) }()
	run := func(g *rig, urls ...string) (func(context.Context, time.Duration) (*side, error), error) {
		groups := g.groups(manyTenants)
		o := g.order(0, 0)
		o.URLs, o.Connections, o.Window, o.Types = urls, 2*manyTenants, window, []string{"order.many"}
		o.Tenants = nil
		for i, group := range groups {
			tenant := eventhose.TenantID(fmt.Sprintf("many-%d", i))
			if _, err := g.server.client.PutTenant(ctx, eventhose.Tenant{ID: tenant}); err != nil {
				return nil, err
			}
			if _, err := g.subscribe(ctx, tenant, to(endpoint(g.receiverURL, group), "order.many")); err != nil {
				return nil, err
			}
			o.Tenants = append(o.Tenants, string(tenant))
		}
		return func(ctx context.Context, d time.Duration) (*side, error) {
			return g.measure(ctx, flow{order: o, groups: groups, fanout: 1}, d)
		}, nil
	}
	alone, err := run(one, one.server.url)
	if err != nil {
		return err
	}
	both, err := run(two, two.server.url, second.url)
	if err != nil {
		return err
	}
	b.tell("waiting for both nodes to have their share", 0, 0)
	if !pause(ctx, 15*time.Second) {
		return ctx.Err()
	}
	if err := b.rounds(ctx, r, alone, both); err != nil {
		return err
	}
	r.goal("ratio ≥ 0.9", r.Ratio >= 0.9)
	return nil
}
