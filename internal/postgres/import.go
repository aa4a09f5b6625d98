package postgres

// A copy of another store is written by one connection, which holds a lock that keeps a second copy out for as long as it lives: a
// process that was killed in the middle of a part has lost it only when the server has given that part up, or committed it. A part
// and how far the copy has come are one transaction, so whoever goes on begins exactly behind it.

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// copyLock is the key of the advisory lock that a copy holds.
const copyLock = 0x657674636f707921 // "evtcopy!"

// importPartition is how much is copied into one partition, in bytes, unless the options say otherwise: less than a partition takes from
// appends, since what was copied is of all ages, and a partition goes when the newest in it does.
const importPartition = 1 << 30

// dropAnew is what can always be done about a database that cannot be copied into.
const dropAnew = "name an empty database, or remove what is there for good: DROP SCHEMA eventhose CASCADE"

// Import is a database that another store is copied into. Write and Finish are called by one goroutine; reading is safe at any time.
type Import struct {
	store.Reading
	s     *Store
	conn  *pgx.Conn
	size  int64
	state importState
}

// importState is the row of eventhose.copies.
type importState struct {
	source    store.Source
	finished  bool
	events    int64
	partBytes int64
	position  []byte
	result    []byte
}

// OpenImport begins a copy of source into an empty database, or goes on with the one that was begun. CodeConflict, and nothing is
// changed, if the database holds anything else: other data, a copy of another store, a copy of this store in an earlier
// state, servers at work; or if another process is copying into it. Other errors are Open's.
func OpenImport(ctx context.Context, url string, source store.Source, o Options) (_ *Import, err error) {
	c, err := config(url)
	if err != nil {
		return nil, err
	}
	// A part may take longer than what the servers do.
	c.ConnConfig.RuntimeParams["statement_timeout"] = "600000"
	im := &Import{size: o.PartitionSize}
	if im.size == 0 {
		im.size = importPartition
	}
	if im.conn, err = pgx.ConnectConfig(ctx, c.ConnConfig); err != nil {
		return nil, failure("connect to the database", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, im.Close())
		}
	}()
	if err := im.begin(ctx, url, source); err != nil {
		return nil, err
	}
	o.Upkeep = -1
	if im.s, err = open(ctx, url, o); err != nil {
		return nil, err
	}
	im.Reading = im.s
	return im, nil
}

func (im *Import) begin(ctx context.Context, url string, source store.Source) error {
	if _, err := im.conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(copyLock)); err != nil {
		if state(err) == stateLockTimeout {
			return &eventhose.Error{Code: eventhose.CodeConflict, Field: "--database-url", Message: "names a database that another process is copying into", Fix: "wait until it has ended"}
		}
		return failure("wait for other copies", err)
	}
	// Before anything is changed, if there is a schema that can be asked.
	have, err := version(ctx, im.conn)
	if err != nil {
		return failure("read the version of the schema", err)
	}
	steps, _, err := migrations()
	if err != nil {
		return err
	}
	if have > 0 && have <= len(steps) {
		if _, err := lookForCopy(ctx, im.conn, source, have); err != nil {
			return err
		}
	}
	if _, err := Migrate(ctx, url); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, im.conn, func(tx pgx.Tx) error {
		st, err := lookForCopy(ctx, tx, source, len(steps))
		if err != nil {
			return err
		}
		if st == nil {
			st = &importState{source: source}
			if _, err := tx.Exec(ctx, "INSERT INTO eventhose.copies (source, commits) VALUES ($1, $2)", source.ID, int64(source.Commits)); err != nil {
				return err
			}
		}
		im.state = *st
		return nil
	})
	return failure("begin the copy", err)
}

// querier is a connection, or a transaction on one.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// copyVersion is the version of the schema from which on there is a table of copies.
const copyVersion = 6

// lookForCopy answers the copy of source that a database holds whose schema has a version, nil if there is none, and refuses a database
// with anything else in it.
func lookForCopy(ctx context.Context, q querier, source store.Source, version int) (*importState, error) {
	refuse := func(message, fix string) error {
		return &eventhose.Error{Code: eventhose.CodeConflict, Field: "--database-url", Message: message, Fix: fix}
	}
	var nodes, data bool
	if err := q.QueryRow(ctx, "SELECT EXISTS (SELECT FROM eventhose.nodes WHERE until > now())").Scan(&nodes); err != nil {
		return nil, failure("look for servers", err)
	}
	st := &importState{}
	err := pgx.ErrNoRows
	if version >= copyVersion {
		err = q.QueryRow(ctx, "SELECT source, commits, finished IS NOT NULL, events, part_bytes, position, result FROM eventhose.copies").
			Scan(&st.source.ID, &st.source.Commits, &st.finished, &st.events, &st.partBytes, &st.position, &st.result)
	}
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return nil, failure("look for an earlier copy", err)
	case err == nil && st.source.ID != source.ID:
		return nil, refuse("names a database that holds a copy of another data directory", dropAnew)
	case err == nil && st.source != source && st.finished:
		return nil, refuse("names a database with a finished copy, and the data directory has been changed since it was made", dropAnew)
	case err == nil && st.source != source:
		return nil, refuse("names a database with an unfinished copy, and the data directory has been changed since it was begun: a server ran on it",
			"stop that server, and begin anew: DROP SCHEMA eventhose CASCADE")
	case err == nil && st.finished:
		return st, nil
	case nodes:
		return nil, refuse("names a database that servers run on", "stop them, and "+dropAnew)
	case err == nil:
		return st, nil
	}
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM eventhose.logs) OR EXISTS (SELECT FROM eventhose.records) OR EXISTS (SELECT FROM eventhose.lanes)
		OR EXISTS (SELECT FROM eventhose.event_ids) OR EXISTS (SELECT FROM eventhose.kept_events) OR EXISTS (SELECT FROM eventhose.matched)
		OR EXISTS (SELECT FROM eventhose.unplaced)`).Scan(&data)
	switch {
	case err != nil:
		return nil, failure("look whether the database is empty", err)
	case data:
		return nil, refuse("names a database that holds data already", dropAnew)
	}
	return nil, nil
}

// whole refuses a database with a copy that is not finished.
func (s *Store) whole(ctx context.Context) error {
	var unfinished bool
	if err := s.row(ctx, "look for an unfinished copy", "SELECT EXISTS (SELECT FROM eventhose.copies WHERE finished IS NULL)", nil, &unfinished); err != nil {
		return err
	}
	if unfinished {
		return &eventhose.Error{Code: eventhose.CodeConflict, Field: "--database-url", Message: "names a database with a copy that is not finished",
			Fix: "run the same eventhose copy again until it ends, or " + dropAnew}
	}
	return nil
}

// Close ends the connections. An unfinished copy can be gone on with. It may be called more than once.
func (im *Import) Close() error {
	var err error
	if im.s != nil {
		err = im.s.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	return errors.Join(err, im.conn.Close(ctx))
}

// Position is how far the copy has come: that of the last part that was written, nil at the beginning.
func (im *Import) Position() []byte { return im.state.position }

// Events is how many events of logs were copied so far, those of earlier runs included.
func (im *Import) Events() int64 { return im.state.events }

// Finished answers what Finish was given, if the copy is finished.
func (im *Import) Finished() (result []byte, finished bool) {
	return im.state.result, im.state.finished
}

// Finish makes the database one that nodes serve on. result is JSON, and kept.
func (im *Import) Finish(ctx context.Context, result []byte) error {
	if err := im.update(ctx, im.conn, "UPDATE eventhose.copies SET finished = now(), result = $1 WHERE finished IS NULL", string(result)); err != nil {
		return failure("finish the copy", err)
	}
	im.state.finished, im.state.result = true, result
	return nil
}

// update changes the row of the copy, which must be there.
func (im *Import) update(ctx context.Context, q copyWriter, sql string, args ...any) error {
	done, err := q.Exec(ctx, sql, args...)
	if err == nil && done.RowsAffected() != 1 {
		err = fmt.Errorf("%w: somebody else has removed it from the database", store.ErrNotFound)
	}
	return err
}
