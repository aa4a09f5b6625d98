package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// Lane implements store.Lanes.
func (s *Store) Lane(ctx context.Context, tenant tenantID, sub subscriptionID) (store.Lane, []store.BlockedKey, error) {
	if err := s.begin(ctx); err != nil {
		return store.Lane{}, nil, err
	}
	defer s.end()
	if sub == "" {
		l := store.Lane{LaneRef: store.LaneRef{Tenant: tenant}}
		err := s.row(ctx, "read how far a log is matched", "SELECT matched FROM eventhose.matched WHERE tenant = $1", []any{string(tenant)}, &l.Cursor)
		if errors.Is(err, errNoRow) {
			err = nil
		}
		return l, nil, err
	}
	var lane *store.Lane
	var keys []store.BlockedKey
	err := s.query(ctx, "read a lane", `SELECT l.row, l.due, l.retrying, l.dead, b.key, b.row FROM eventhose.lanes l LEFT JOIN eventhose.blocked_keys b ON b.lane = l.id
		WHERE l.tenant = $1 AND l.subscription = $2`, []any{string(tenant), string(sub)}, func() { lane, keys = nil, []store.BlockedKey{} }, func(r pgx.Rows) error {
		var value, blocked []byte
		var due *time.Time
		var retrying, dead int
		var key *string
		if err := r.Scan(&value, &due, &retrying, &dead, &key, &blocked); err != nil {
			return err
		}
		if lane == nil {
			l, err := laneOf(store.LaneRef{Tenant: tenant, Subscription: sub}, value, due, retrying, dead)
			if err != nil {
				return err
			}
			lane = &l
		}
		if key == nil {
			return nil
		}
		k, err := row.DecodeBlocked(*key, blocked)
		if err != nil {
			return corrupt(fmt.Sprintf("blocked key of lane %s of %s", sub, tenant), err)
		}
		keys = append(keys, k)
		return nil
	})
	switch {
	case err != nil:
		return store.Lane{}, nil, err
	case lane == nil:
		return store.Lane{}, nil, store.ErrNotFound
	}
	return *lane, keys, nil
}

// laneOf makes a lane of its row. Trimming counts parked rows down, and says that there is something to do, without touching the rest.
func laneOf(ref store.LaneRef, value []byte, due *time.Time, retrying, dead int) (store.Lane, error) {
	l, err := row.DecodeLane(ref, value)
	if err != nil {
		return l, corrupt(fmt.Sprintf("lane %s of %s", ref.Subscription, ref.Tenant), err)
	}
	if l.Retrying, l.Dead = retrying, dead; l.Due.IsZero() && due != nil {
		l.Due = due.UTC()
	}
	return l, nil
}

// Parked implements store.Lanes.
func (s *Store) Parked(ctx context.Context, tenant tenantID, sub subscriptionID, q store.ParkedQuery) ([]store.Parked, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if q.Limit <= 0 {
		return nil, nil
	}
	if sub == "" {
		return s.parkedOfAll(ctx, tenant, q)
	}
	var rows []store.Parked
	err := s.query(ctx, "list parked events", `SELECT p.seq, p.row FROM eventhose.lanes l JOIN eventhose.parked p ON p.lane = l.id
		WHERE l.tenant = $1 AND l.subscription = $2 AND p.seq > $3 AND ($4 = '' OR p.state = $4) ORDER BY p.seq LIMIT $5`,
		[]any{string(tenant), string(sub), signed(q.After), string(q.State), q.Limit}, func() { rows = nil }, func(r pgx.Rows) error {
			var seq sequence
			var value []byte
			if err := r.Scan(&seq, &value); err != nil {
				return err
			}
			p, err := decodeParked(tenant, sub, seq, value)
			rows = append(rows, p)
			return err
		})
	return rows, err
}

func decodeParked(tenant tenantID, sub subscriptionID, seq sequence, value []byte) (store.Parked, error) {
	p, err := row.DecodeParked(seq, value)
	if err != nil {
		return p, corrupt(fmt.Sprintf("parked event %d of lane %s of %s", seq, sub, tenant), err)
	}
	return p, nil
}

// Work implements store.Lanes.
func (s *Store) Work(ctx context.Context, after store.LaneRef, limit int) ([]store.Lane, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	var lanes []store.Lane
	err := s.query(ctx, "list lanes with work", `SELECT tenant, subscription, row, due, retrying, dead FROM eventhose.lanes
		WHERE work AND (tenant, subscription) > ($1, $2) ORDER BY tenant, subscription LIMIT $3`,
		[]any{string(after.Tenant), string(after.Subscription), limit}, func() { lanes = nil }, func(r pgx.Rows) error {
			var ref store.LaneRef
			var value []byte
			var due *time.Time
			var retrying, dead int
			if err := r.Scan(&ref.Tenant, &ref.Subscription, &value, &due, &retrying, &dead); err != nil {
				return err
			}
			l, err := laneOf(ref, value, due, retrying, dead)
			lanes = append(lanes, l)
			return err
		})
	return lanes, err
}

// Tails implements store.Lanes.
func (s *Store) Tails(ctx context.Context, after tenantID, limit int) ([]store.Tail, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	var tails []store.Tail
	err := s.query(ctx, "list logs that are not matched to their ends", `SELECT l.tenant, coalesce(m.matched, 0), l.last FROM eventhose.logs l
		LEFT JOIN eventhose.matched m ON m.tenant = l.tenant WHERE l.tenant > $1 AND l.last > coalesce(m.matched, 0) ORDER BY l.tenant LIMIT $2`,
		[]any{string(after), limit}, func() { tails = nil }, func(r pgx.Rows) error {
			var t store.Tail
			err := r.Scan(&t.Tenant, &t.Matched, &t.Last)
			tails = append(tails, t)
			return err
		})
	return tails, err
}

// Commit implements store.Lanes.
func (s *Store) Commit(ctx context.Context, p store.Progress) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	ctx, cancel := write(ctx)
	defer cancel()
	shards, epochs := make([]int16, len(p.Fence)), make([]int64, len(p.Fence))
	for i, f := range p.Fence {
		shards[i], epochs[i] = int16(f.Shard), signed(sequence(f.Epoch))
	}
	tenants, matched := make([]string, len(p.Matched)), make([]int64, len(p.Matched))
	for i, m := range p.Matched {
		tenants[i], matched[i] = string(m.Tenant), signed(m.Matched)
	}
	first := statement{sql: "eventhose._fence(?, ?), eventhose._matched(?, ?)", args: []any{shards, epochs, tenants, matched}}
	return s.change(ctx, "record progress", first, p.Lanes)
}

// statement is a part of a SELECT, with a question mark for each argument.
type statement struct {
	sql  string
	args []any
}

// change carries out a statement together with changes of lanes.
func (s *Store) change(ctx context.Context, doing string, first statement, lanes []store.LaneChange) error {
	parts := [][]store.LaneChange{lanes}
	if again := repeated(lanes); again > 0 { // a lane is changed twice: one after the other
		parts = nil
		for rest := lanes; len(rest) > 0; {
			n := len(rest)
			if again := repeated(rest); again > 0 {
				n = again
			}
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
	}
	run := func(do func(sql string, args ...any) error) error {
		for i, part := range parts {
			st := first
			if i > 0 {
				st = statement{}
			}
			if len(part) > 0 {
				c := lanesOf(part)
				if st.sql != "" {
					st.sql += ", "
				}
				st = statement{st.sql + "eventhose._lanes(" + marks(len(c)) + ")", append(st.args[:len(st.args):len(st.args)], c...)}
			}
			if err := do("SELECT "+numbered(st.sql), st.args...); err != nil {
				return err
			}
		}
		return nil
	}
	for try := 0; ; try++ {
		var err error
		if len(parts) == 1 {
			err = run(func(sql string, args ...any) error {
				_, err := s.pool.Exec(ctx, sql, args...)
				return err
			})
		} else {
			err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
				return run(func(sql string, args ...any) error {
					_, err := tx.Exec(ctx, sql, args...)
					return err
				})
			})
		}
		if err == nil {
			return nil
		}
		if try < retries && (unsent(err) || state(err) == stateDeadlock || state(err) == stateNoPartition) && ctx.Err() == nil {
			continue
		}
		return failure(doing, err)
	}
}

// repeated answers the index of the first change of a lane that has one before it, 0 if each is changed once.
func repeated(lanes []store.LaneChange) int {
	if len(lanes) < 2 {
		return 0
	}
	seen := make(map[store.LaneRef]struct{}, len(lanes))
	for i := range lanes {
		if _, twice := seen[lanes[i].Lane.LaneRef]; twice {
			return i
		}
		seen[lanes[i].Lane.LaneRef] = struct{}{}
	}
	return 0
}
