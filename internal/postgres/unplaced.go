package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

var _ store.Placing = (*Store)(nil)

// UnplacedTenants implements store.Placing.
func (s *Store) UnplacedTenants(ctx context.Context, after tenantID, limit int) ([]tenantID, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	var tenants []tenantID
	// From tenant to tenant in the index, past all events but one of each: of one there may be millions.
	err := s.query(ctx, "look for events without a place", `WITH RECURSIVE t AS (SELECT $1::text COLLATE "C" AS tenant
		UNION ALL SELECT (SELECT u.tenant FROM eventhose.unplaced u WHERE u.tenant > t.tenant ORDER BY u.tenant LIMIT 1) FROM t WHERE t.tenant IS NOT NULL)
		SELECT tenant FROM t WHERE tenant IS NOT NULL OFFSET 1 LIMIT $2`,
		[]any{string(after), limit}, func() { tenants = nil }, func(r pgx.Rows) error {
			var t tenantID
			err := r.Scan(&t)
			tenants = append(tenants, t)
			return err
		})
	return tenants, err
}

// Unplaced implements store.Placing.
func (s *Store) Unplaced(ctx context.Context, tenant tenantID, limit int) ([]store.Unplaced, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	var list []store.Unplaced
	err := s.query(ctx, "read events without a place", `SELECT id, appended, time, event_id, type, key, version, attributes, data FROM
		(SELECT *, sum(octet_length(data)) OVER (ORDER BY id) - octet_length(data) AS before FROM (SELECT * FROM eventhose.unplaced WHERE tenant = $1 ORDER BY id LIMIT $2) u) u
		WHERE before < 4194304 ORDER BY id`,
		[]any{string(tenant), limit}, func() { list = nil }, func(r pgx.Rows) error {
			u := store.Unplaced{Event: eventhose.Event{Tenant: tenant}}
			e := &u.Event
			var at *time.Time
			var attributes []byte
			if err := r.Scan(&u.Row, &e.Appended, &at, &e.ID, &e.Type, &e.Key, &e.Version, &attributes, &e.Data); err != nil {
				return err
			}
			if at != nil {
				e.Time = at.UTC()
			}
			if len(attributes) > 0 {
				if err := json.Unmarshal(attributes, &e.Attributes); err != nil {
					return corrupt("attributes of an event without a place", err)
				}
			}
			list = append(list, u)
			return nil
		})
	return list, err
}

// Place implements store.Placing.
func (s *Store) Place(ctx context.Context, entries []store.Append, rows []int64) ([]store.AppendResult, bool, error) {
	if err := s.begin(ctx); err != nil {
		return nil, false, err
	}
	defer s.end()
	ctx, cancel := write(ctx)
	defer cancel()
	results, err := s.append(ctx, entries, rows)
	if state(err) == statePlaced {
		return nil, false, nil
	}
	for _, r := range results {
		if errors.Is(r.Err, store.ErrBusy) { // and so are the others, which are for the same log
			return nil, false, r.Err
		}
	}
	return results, err == nil, err
}
