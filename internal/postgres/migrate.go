package postgres

// The schema is changed by the files in migrations/, each once, in order, and never back. A node that starts does what
// is missing, one node at a time; a schema that is newer than the binary is refused. So that nodes of two versions can run over one
// database during an upgrade, a migration leaves alone what the version before uses: functions get a new name when
// their arguments change, and what nobody calls any more is dropped a version later.
//
// A migration library would bring database/sql and a table of its own outside our schema; this is one transaction.

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrationLock is the key of the advisory lock that migrating holds.
const migrationLock = 0x6576656e74686f73 // "eventhos"

// minVersion is the oldest PostgreSQL, as server_version_num.
const minVersion = 150000

// Migration is one step of the schema.
type Migration struct {
	Version int
	Name    string
}

// migrations lists the steps in order, with their SQL.
func migrations() ([]Migration, []string, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql") // sorted
	if err != nil {
		return nil, nil, err
	}
	var steps []Migration
	var texts []string
	for _, file := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
		number, rest, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != len(steps)+1 {
			return nil, nil, fmt.Errorf("migration %s is out of order", file)
		}
		text, err := migrationFiles.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		steps, texts = append(steps, Migration{version, rest}), append(texts, string(text))
	}
	return steps, texts, nil
}

// Migrate brings the schema up to date in one transaction and answers the steps that it took. Others who migrate
// at the same time are waited for. ErrNewer if the schema has steps that this version does not know; nothing is changed then.
func Migrate(ctx context.Context, url string) (taken []Migration, err error) {
	c, err := config(url)
	if err != nil {
		return nil, err
	}
	// Waiting for another node's migration, and a step over large tables, may take longer than a statement of the main job.
	c.ConnConfig.RuntimeParams["lock_timeout"] = "600000"
	c.ConnConfig.RuntimeParams["statement_timeout"] = "0"
	conn, err := pgx.ConnectConfig(ctx, c.ConnConfig)
	if err != nil {
		return nil, notLetIn("connect to the database", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := usable(ctx, conn); err != nil {
		return nil, err
	}
	steps, texts, err := migrations()
	if err != nil {
		return nil, err
	}
	if have, err := version(ctx, conn); err != nil || have == len(steps) { // as nearly always: nothing to be locked, nothing to be allowed
		return nil, failure("read the version of the schema", err)
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
		have, err := version(ctx, conn)
		if err != nil {
			return err
		}
		if have > len(steps) {
			return fmt.Errorf("%w: the database's schema has version %d, this binary knows %d", store.ErrNewer, have, len(steps))
		}
		if have == 0 {
			const begin = `CREATE SCHEMA IF NOT EXISTS eventhose;
				CREATE TABLE eventhose.migrations (version int PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())`
			if _, err := tx.Exec(ctx, begin); err != nil {
				return err
			}
		}
		for i := have; i < len(steps); i++ {
			if _, err := tx.Conn().PgConn().Exec(ctx, texts[i]).ReadAll(); err != nil {
				return fmt.Errorf("step %d, %s: %w", steps[i].Version, steps[i].Name, err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO eventhose.migrations (version, name) VALUES ($1, $2)", steps[i].Version, steps[i].Name); err != nil {
				return err
			}
			taken = append(taken, steps[i])
		}
		return nil
	})
	if err != nil {
		return nil, notLetIn("migrate the database", err)
	}
	return taken, nil
}

// version answers how many steps the schema has, 0 if there is none.
func version(ctx context.Context, conn *pgx.Conn) (n int, err error) {
	var there bool
	// Not to_regclass, which would not see what another node has made while this one waited for the lock: it asks a cache.
	const look = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'eventhose' AND c.relname = 'migrations')"
	if err = conn.QueryRow(ctx, look).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = conn.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM eventhose.migrations").Scan(&n)
	return n, err
}

// usable refuses a server that is too old, an encoding that cannot hold every text, and a commit that does not wait for the disk.
func usable(ctx context.Context, conn *pgx.Conn) error {
	var number int
	var text, encoding, commit, fsync string
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		current_setting('server_encoding'), current_setting('synchronous_commit'), current_setting('fsync')`).Scan(&number, &text, &encoding, &commit, &fsync)
	switch {
	case err != nil:
		return failure("ask the database for its version", err)
	case number < minVersion:
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--database-url", Message: "names PostgreSQL " + text + ", which is too old", Fix: "use 15 or newer"}
	case encoding != "UTF8":
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--database-url", Message: "names a database with the encoding " + encoding, Fix: "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"}
	case commit == "off", fsync == "off":
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--database-url", Message: "names a database that answers before data is on disk (synchronous_commit or fsync is off)",
			Fix: "ALTER ROLE … SET synchronous_commit = on, and fsync = on in postgresql.conf"}
	}
	return nil
}
