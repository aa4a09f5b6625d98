package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose/internal/store"
)

const liveRecord = "(expires IS NULL OR expires > now())"

// Record implements store.Records.
func (s *Store) Record(ctx context.Context, tenant tenantID, kind, id string) (store.Record, error) {
	if err := s.begin(ctx); err != nil {
		return store.Record{}, err
	}
	defer s.end()
	if !isText(string(tenant)) || !isText(id) {
		return store.Record{}, store.ErrNotFound
	}
	r := store.Record{Tenant: tenant, Kind: kind, ID: id}
	var expires *time.Time
	err := s.row(ctx, "read a "+kind, "SELECT version, value, expires FROM eventhose.records WHERE tenant = $1 AND kind = $2 AND id = $3 AND "+liveRecord,
		[]any{string(tenant), kind, id}, &r.Version, &r.Value, &expires)
	if errors.Is(err, errNoRow) {
		return store.Record{}, store.ErrNotFound
	}
	if expires != nil {
		r.Expires = expires.UTC()
	}
	return r, err
}

// isText reports whether PostgreSQL takes s for text; else nothing has it for a name, and to ask would be an error.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// List implements store.Records.
func (s *Store) List(ctx context.Context, tenant tenantID, kind, after string, limit int) ([]store.Record, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	var list []store.Record
	err := s.query(ctx, "list records", "SELECT id, version, value, expires FROM eventhose.records WHERE tenant = $1 AND kind = $2 AND id > $3 AND "+liveRecord+" ORDER BY id LIMIT $4",
		[]any{string(tenant), kind, after, limit}, func() { list = nil }, func(rows pgx.Rows) error {
			r := store.Record{Tenant: tenant, Kind: kind}
			var expires *time.Time
			err := rows.Scan(&r.ID, &r.Version, &r.Value, &expires)
			if expires != nil {
				r.Expires = expires.UTC()
			}
			list = append(list, r)
			return err
		})
	return list, err
}

// Save implements store.Records. Other nodes are told of it within the transaction, so that the telling cannot be lost.
func (s *Store) Save(ctx context.Context, records []store.RecordChange, lanes []store.LaneChange) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	ctx, cancel := write(ctx)
	defer cancel()
	n := len(records)
	tenant, kind, id := make([]string, n), make([]string, n), make([]string, n)
	version, value := make([]int64, n), make([][]byte, n)
	expires, deleted := make([]*time.Time, n), make([]bool, n)
	tell := []string{}
	for i := range records {
		r := &records[i]
		tenant[i], kind[i], id[i] = string(r.Tenant), r.Kind, r.ID
		version[i], deleted[i] = signed(sequence(r.Version)), r.Delete
		if value[i] = r.Value; value[i] == nil {
			value[i] = []byte{}
		}
		if !r.Expires.IsZero() {
			expires[i] = &r.Expires
		}
		if s.opts.Tell(r.Kind) {
			tell = append(tell, hint{kind: hintRecord, tenant: r.Tenant, record: r.Kind, id: r.ID}.text(s.hints.node))
		}
	}
	first := statement{sql: "eventhose._save(" + marks(8) + ")", args: []any{tenant, kind, id, version, value, expires, deleted, tell}}
	if err := s.change(ctx, "save records", first, lanes); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}
