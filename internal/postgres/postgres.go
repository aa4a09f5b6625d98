// Package postgres is the store of many nodes: any number of identical processes over one PostgreSQL, 15 or newer.
//
// # How it is done
//
// Everything that changes several rows is a function in the database (migrations/), called in one statement. So a
// change is one message from the client: a node that is frozen or dies in the middle of a request holds no lock, and there is nothing
// to roll back but by the server. In particular the heads of logs, of which each append holds some, are only ever held by the server.
//
// Order is position: an append locks the heads of its logs, takes the next sequences and commits. Who comes later waits for that
// commit, so nobody can read N+1 before N. Logs that another node holds just then are left out, and given again by whoever gathers
// appends, so they hold up no others (append.go).
//
// Events and attempts lie in partitions, which are dropped whole (partitions.go); what is trimmed is hidden at once by a log's floor.
//
// A connection may break at any time, and then nobody knows whether a statement was carried out. Appends are safe to repeat
// for events with an id, progress and records by what they compare; such errors are ErrUnavailable.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

type (
	tenantID       = eventhose.TenantID
	subscriptionID = eventhose.SubscriptionID
	sequence       = eventhose.Sequence
)

// Options of a Store. Zero fields take the defaults.
type Options struct {
	Logger *slog.Logger
	// MaxConns bounds the connections of this node: pool_max_conns of the URL, else 16.
	MaxConns int32
	// Partition says when a partition is closed and another begun: after an age, 24 h, or at a size in bytes, 8 GiB.
	PartitionAge  time.Duration
	PartitionSize int64
	// Tell says which kinds of records other nodes are told of when they change; none by default.
	Tell func(kind string) bool
	// Upkeep is how often partitions are turned and dropped and what has expired is removed: 1 min. Below 0 never by itself.
	Upkeep time.Duration
	// notice is called with what the server says beside its answers.
	notice pgconn.NoticeHandler
}

const (
	// statementTimeout bounds one statement, on the server and here.
	statementTimeout = 30 * time.Second
	// answerTime is how long an answer is waited for: the server's own bound comes first, unless it is gone without a word.
	answerTime = statementTimeout + 5*time.Second
	// lockTimeout bounds how long a statement waits for a row.
	lockTimeout    = 10 * time.Second
	connectTimeout = 5 * time.Second
	defaultConns   = 16
)

// Store implements store.Store on PostgreSQL.
type Store struct {
	pool *pgxpool.Pool
	// claims has one connection, so that a lease is not lost for want of one.
	claims *pgxpool.Pool
	logger *slog.Logger
	opts   Options
	spans  spans
	still  standing
	recent recent
	hints  hints
	nodes  liveNodes
	// several says that other nodes were alive at the last claim.
	several atomic.Bool

	// calls are those under way; closing refuses new ones.
	mu      sync.Mutex
	closing bool
	calls   sync.WaitGroup
	// endUpkeep ends the upkeep, stop the other loop.
	endUpkeep, stop context.CancelFunc
	loops           sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// errClosed is what calls answer after Close.
var errClosed = fmt.Errorf("%w: it is closed", store.ErrUnavailable)

// config reads a URL (or key=value text, libpq's syntax) and adds what is not said there.
func config(url string) (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		// pgx redacts the password in this error.
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--database-url", Message: "is not a PostgreSQL URL", Fix: "write postgres://user:password@host:5432/database", Err: err}
	}
	params := c.ConnConfig.RuntimeParams
	for name, value := range map[string]string{
		"application_name":                    "eventhose",
		"statement_timeout":                   fmt.Sprint(statementTimeout.Milliseconds()),
		"lock_timeout":                        fmt.Sprint(lockTimeout.Milliseconds()),
		"idle_in_transaction_session_timeout": fmt.Sprint(statementTimeout.Milliseconds()),
		"jit":                                 "off", // it takes longer to compile any of these statements than to run it
		"enable_seqscan":                      "off", // plans are made once, and tables are small on the first day
	} {
		if _, said := params[name]; !said {
			params[name] = value
		}
	}
	// The types of some arguments only the database knows. Once they were asked for, this is as good behind a pooler as those that never ask.
	if mode := &c.ConnConfig.DefaultQueryExecMode; *mode == pgx.QueryExecModeExec || *mode == pgx.QueryExecModeSimpleProtocol {
		*mode = pgx.QueryExecModeCacheDescribe
	}
	if c.ConnConfig.ConnectTimeout == 0 || c.ConnConfig.ConnectTimeout > time.Minute {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	c.PingTimeout = connectTimeout
	dial := c.ConnConfig.DialFunc
	c.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok {
			if err = attend(tcp); err != nil {
				conn.Close()
			}
		}
		return conn, err
	}
	return c, nil
}

// Open connects to the database and brings its schema up to date. ErrNewer if the schema is a newer version's, CodeInvalid if the
// URL or the database cannot be used, CodeConflict if a copy into it is not finished, ErrUnavailable if it cannot be reached now.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	if _, err := Migrate(ctx, url); err != nil {
		return nil, err
	}
	s, err := open(ctx, url, o)
	if err != nil {
		return nil, err
	}
	if err := s.whole(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open connects to a database whose schema is up to date, whatever it holds.
func open(ctx context.Context, url string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.PartitionAge == 0 {
		o.PartitionAge = 24 * time.Hour
	}
	if o.PartitionSize == 0 {
		o.PartitionSize = 8 << 30
	}
	if o.Upkeep == 0 {
		o.Upkeep = time.Minute
	}
	if o.Tell == nil {
		o.Tell = func(string) bool { return false }
	}
	c, err := config(url)
	if err != nil {
		return nil, err
	}
	if o.MaxConns > 0 {
		c.MaxConns = o.MaxConns
	} else if !strings.Contains(url, "pool_max_conns") {
		c.MaxConns = defaultConns
	}
	c.ConnConfig.OnNotice = o.notice
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, failure("connect to the database", err)
	}
	c = c.Copy()
	c.MaxConns, c.MinConns, c.MinIdleConns = 1, 0, 0
	claims, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		pool.Close()
		return nil, failure("connect to the database", err)
	}
	s := &Store{pool: pool, claims: claims, logger: o.Logger, opts: o}
	s.hints.init()
	s.several.Store(true) // until it is known
	telling, stop := context.WithCancel(context.Background())
	keeping, endUpkeep := context.WithCancel(context.Background())
	s.stop, s.endUpkeep = stop, endUpkeep
	s.loops.Go(func() { s.tellLoop(telling) })
	if o.Upkeep > 0 {
		s.loops.Go(func() { s.upkeepLoop(keeping) })
	}
	return s, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.endUpkeep() // which may have minutes of work before it, and is gone on with by whoever is next
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.calls.Wait()
	s.stop()
	s.loops.Wait()
	s.pool.Close()
	s.claims.Close()
	return nil
}

// begin counts a call in; end must follow unless it answers an error.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return errClosed
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) end() { s.calls.Done() }

// write is the context of a statement that changes something: once begun it is not given up with its caller, for then nobody would know.
func write(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), answerTime)
}

// query reads rows, again if the connection turned out to be broken: the pool may hold some from before the server was restarted.
// each must begin anew when it is called for the first row again, which restart tells.
func (s *Store) query(ctx context.Context, doing, sql string, args []any, restart func(), each func(pgx.Rows) error) error {
	return queryOn(ctx, s.pool, doing, sql, args, restart, each)
}

func queryOn(ctx context.Context, pool *pgxpool.Pool, doing, sql string, args []any, restart func(), each func(pgx.Rows) error) error {
	for try := 0; ; try++ {
		restart()
		err := queryOnce(ctx, pool, sql, args, each)
		if err == nil {
			return nil
		}
		if try < retries && broken(err) && ctx.Err() == nil {
			continue
		}
		return failure(doing, err)
	}
}

// retries is how often a reading is tried again over a new connection.
const retries = 2

func queryOnce(ctx context.Context, pool *pgxpool.Pool, sql string, args []any, each func(pgx.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	rows, err := pool.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// errNoRow is what row answers if there is none.
var errNoRow = errors.New("no row")

// row reads one row; errNoRow if there is none.
func (s *Store) row(ctx context.Context, doing, sql string, args []any, into ...any) error {
	found := false
	err := s.query(ctx, doing, sql, args, func() { found = false }, func(r pgx.Rows) error {
		found = true
		return r.Scan(into...)
	})
	if err == nil && !found {
		return errNoRow
	}
	return err
}
