package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// SQLSTATEs, PostgreSQL 15 Appendix A; those that begin with EH are ours (migrations/).
const (
	stateFenced        = "EH001"
	statePlaced        = "EH002"
	stateVersion       = "EH003"
	stateUndefined     = "42P01" // undefined_table: a partition that was dropped
	stateNoPartition   = "23514" // check_violation: a row for a partition that is just being dropped
	stateLockTimeout   = "55P03" // lock_not_available
	stateDeadlock      = "40P01"
	stateSerialization = "40001"
	stateDiskFull      = "53100"
	stateReadOnly      = "25006" // read_only_sql_transaction: a standby
)

// state answers the SQLSTATE of an error, "" if it does not come from the server.
func state(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// broken reports whether the connection was at fault, and not the statement.
func broken(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Connection exceptions, operator intervention (shutdown, starting up).
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P")
	}
	var dial *pgconn.ConnectError
	var network net.Error // an answer that did not come in time is one, too
	return errors.As(err, &dial) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "closed pool")
}

// unsent reports whether the server has certainly not carried the statement out.
func unsent(err error) bool {
	var dial *pgconn.ConnectError
	return pgconn.SafeToRetry(err) || errors.As(err, &dial)
}

// refused reports whether the server does not know us, or the database, or does not let us do this.
func refused(state string) bool {
	return strings.HasPrefix(state, "28") || state == "3D000" || state == "42501"
}

// notLetIn is failure for who has just come: being refused is then a matter of the URL.
func notLetIn(doing string, err error) error {
	if refused(state(err)) {
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--database-url", Message: "does not let us in: cannot " + doing,
			Fix: "check the role, its password and its rights, and the name of the database", Err: err}
	}
	return failure(doing, err)
}

// failure wraps an error with what was being done and the sentinel that it amounts to.
func failure(doing string, err error) error {
	if err == nil {
		return nil
	}
	var coded *eventhose.Error
	var sentinel error
	switch s := state(err); {
	case errors.As(err, &coded):
		return err
	case s == stateFenced:
		sentinel = store.ErrFenced
	case s == stateVersion:
		sentinel = store.ErrVersion
	case s == stateDiskFull:
		sentinel = store.ErrFull
	case s == stateLockTimeout, s == stateDeadlock, s == stateSerialization, s == stateReadOnly, s == "57014", strings.HasPrefix(s, "53"), refused(s), broken(err):
		sentinel = store.ErrUnavailable
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, sentinel, err)
}

// corrupt says that what is stored cannot be read, and where.
func corrupt(where string, err error) error {
	return fmt.Errorf("%w: %s: %w", store.ErrCorrupt, where, err)
}
