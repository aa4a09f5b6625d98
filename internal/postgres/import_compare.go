package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose/internal/store"
)

// What a copy is compared by that reading does not answer: rows as they lie there.

// Analyze has the server look at what was copied, so that it knows how to read it.
func (im *Import) Analyze(ctx context.Context) error {
	_, err := im.conn.Exec(ctx, `ANALYZE eventhose.logs, eventhose.spans, eventhose.events, eventhose.event_ids, eventhose.kept_events, eventhose.matched,
		eventhose.lanes, eventhose.parked, eventhose.blocked_keys, eventhose.attempts, eventhose.records`)
	return failure("look at what was copied", err)
}

// Remembered answers what is remembered under the ids of a list, in its order. Sequence is 0 where there is nothing.
func (im *Import) Remembered(ctx context.Context, ids []store.RememberedID) ([]store.RememberedID, error) {
	keys := make([][16]byte, len(ids))
	for i := range ids {
		keys[i] = ownKey(&ids[i])
	}
	found := make([]store.RememberedID, len(ids))
	err := im.s.query(ctx, "read the ids of events", "SELECT x.n, i.tenant, i.seq, i.digest FROM unnest($1::uuid[]) WITH ORDINALITY AS x(id, n) JOIN eventhose.event_ids i ON i.id = x.id",
		[]any{keys}, func() { clear(found) }, func(r pgx.Rows) error {
			var n int
			var one store.RememberedID
			if err := r.Scan(&n, &one.Tenant, &one.Sequence, &one.Digest); err != nil {
				return err
			}
			one.Scope, one.ID = ids[n-1].Scope, ids[n-1].ID
			found[n-1] = one
			return nil
		})
	return found, err
}

// Records answers the records that a list names, in its order, also those that have expired. Version is 0 where there is none.
func (im *Import) Records(ctx context.Context, of []store.Record) ([]store.Record, error) {
	tenants, kinds, ids := make([]string, len(of)), make([]string, len(of)), make([]string, len(of))
	for i := range of {
		tenants[i], kinds[i], ids[i] = string(of[i].Tenant), of[i].Kind, of[i].ID
	}
	found := make([]store.Record, len(of))
	err := im.s.query(ctx, "read records", `SELECT x.n, r.tenant, r.kind, r.id, r.version, r.value, r.expires FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS x(tenant, kind, id, n)
		JOIN eventhose.records r ON (r.tenant, r.kind, r.id) = (x.tenant, x.kind, x.id)`, []any{tenants, kinds, ids}, func() { clear(found) }, func(rows pgx.Rows) error {
		var n int
		var r store.Record
		var expires *time.Time
		if err := rows.Scan(&n, &r.Tenant, &r.Kind, &r.ID, &r.Version, &r.Value, &expires); err != nil {
			return err
		}
		if expires != nil {
			r.Expires = expires.UTC()
		}
		found[n-1] = r
		return nil
	})
	return found, err
}

// Rows counts what a copy fills row by row. Logs are those with events.
type Rows struct{ Logs, Kept, Matched, Lanes, Parked, Blocked, Records int }

// Rows counts what is in the database.
func (im *Import) Rows(ctx context.Context) (n Rows, err error) {
	err = im.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM eventhose.logs WHERE last > 0), (SELECT count(*) FROM eventhose.kept_events), (SELECT count(*) FROM eventhose.matched),
		(SELECT count(*) FROM eventhose.lanes), (SELECT count(*) FROM eventhose.parked), (SELECT count(*) FROM eventhose.blocked_keys), (SELECT count(*) FROM eventhose.records)`).
		Scan(&n.Logs, &n.Kept, &n.Matched, &n.Lanes, &n.Parked, &n.Blocked, &n.Records)
	return n, failure("count rows", err)
}
