package postgres

import (
	"cmp"
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// The page of runs that a list of attempts reads first, and at most: there may be many attempts in one, or just one.
const (
	firstRuns = 20
	maxRuns   = 320
)

// attemptsOfAll lists the attempts of all lanes. Runs are read by their first ids, downwards; those of different lanes
// overlap, but by no more than a run's time, so what lies that far above the last run that was read is known. A run
// whose lane or events are gone counts, as one attempt without a subscription: there may be very many, and whoever pages over
// them wants to come back from time to time.
func (s *Store) attemptsOfAll(ctx context.Context, tenant tenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	var list []eventhose.Attempt
	limit := firstRuns
	for last, before := cmp.Or(q.Before, beyondIDs), cmp.Or(q.Before, beyondIDs); ; {
		runs, had, from := 0, len(list), last
		err := s.query(ctx, "list all attempts", `SELECT coalesce(l.subscription, ''), a.first_id, CASE WHEN a.hi = 0 OR a.hi >= coalesce(g.first, 1) THEN a.runs END, g.first
			FROM (SELECT lane, hi, first_id, runs FROM eventhose.attempts WHERE tenant = $1 AND first_id < $2 ORDER BY first_id DESC LIMIT $3) a
			LEFT JOIN eventhose.lanes l ON l.id = a.lane LEFT JOIN eventhose.logs g ON g.tenant = $1 ORDER BY a.first_id DESC`,
			[]any{string(tenant), from, limit}, func() { runs, list = 0, list[:had] }, func(r pgx.Rows) error {
				runs++
				run, err := scanAnyRun(r, tenant, &last)
				for i := range run {
					if run[i].ID < before {
						list = append(list, run[i])
					}
				}
				return err
			})
		if err != nil {
			return nil, err
		}
		slices.SortFunc(list, func(a, b eventhose.Attempt) int { return cmp.Compare(b.ID, a.ID) })
		if runs < limit {
			break
		}
		known := row.EndOfRun(last)
		if sure, _ := slices.BinarySearchFunc(list, known, func(a eventhose.Attempt, id string) int { return cmp.Compare(id, a.ID) }); sure >= q.Limit {
			break
		}
		limit = min(2*limit, maxRuns)
	}
	return list[:min(len(list), q.Limit)], nil
}

// scanAnyRun reads a run, newest first, or, if its lane or its events are gone, what stands for it.
func scanAnyRun(r pgx.Rows, tenant tenantID, firstID *string) ([]eventhose.Attempt, error) {
	var sub subscriptionID
	var value []byte
	var first *int64
	if err := r.Scan(&sub, firstID, &value, &first); err != nil {
		return nil, err
	}
	if sub == "" || value == nil {
		return []eventhose.Attempt{{ID: *firstID, Tenant: tenant}}, nil
	}
	run, left, err := decodeRun(tenant, sub, *firstID, value, first)
	return slices.DeleteFunc(run, func(a eventhose.Attempt) bool { return !there(&a, left) }), err
}

// parkedOfAll lists what all lanes of a tenant have parked.
func (s *Store) parkedOfAll(ctx context.Context, tenant tenantID, q store.ParkedQuery) ([]store.Parked, error) {
	from := q.After
	if q.AfterSubscription == "" {
		from++
	}
	var rows []store.Parked
	err := s.query(ctx, "list all parked events", `SELECT l.subscription, p.seq, p.row FROM eventhose.parked p JOIN eventhose.lanes l ON l.id = p.lane
		WHERE p.tenant = $1 AND p.seq >= $2 AND (p.seq > $2 OR l.subscription > $3) AND ($4 = '' OR p.state = $4) ORDER BY p.seq, l.subscription LIMIT $5`,
		[]any{string(tenant), signed(from), string(q.AfterSubscription), string(q.State), q.Limit}, func() { rows = nil }, func(r pgx.Rows) error {
			var sub subscriptionID
			var seq sequence
			var value []byte
			if err := r.Scan(&sub, &seq, &value); err != nil {
				return err
			}
			p, err := decodeParked(tenant, sub, seq, value)
			p.Subscription = sub
			rows = append(rows, p)
			return err
		})
	return rows, err
}
