package postgres

import "github.com/jackc/pgx/v5/pgconn"

// WithNotices has the store's connections hand over what the server says beside its answers.
func WithNotices(o Options, f func(*pgconn.Notice)) Options {
	o.notice = func(_ *pgconn.PgConn, n *pgconn.Notice) { f(n) }
	return o
}
