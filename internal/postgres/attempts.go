package postgres

// A run of attempts is one row: what one commit brought of one lane, in one piece as long as its events are within 64 places of each
// other. Such a run is found by its highest place, with one range of an index; a batch, whose events may be further apart, by
// each of its places. A row for each attempt would cost more than all else that a delivery writes.

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// runSpan is how far apart the events of a run may be that is not wide.
	runSpan = 64
	// maxRun bounds the attempts of a run, so that reading one of them is cheap, and maxRunBytes what they keep of answers.
	maxRun      = 64
	maxRunBytes = 256 << 10
)

// attemptColumns are the a_ arguments of eventhose._lanes.
type attemptColumns struct {
	lane               []int32
	first, seqs, taken []string
	hi                 []int64
	at                 []time.Time
	wide               []bool
	runs               [][]byte
}

// add cuts a lane's attempts into runs.
func (c *attemptColumns) add(lane int32, attempts []eventhose.Attempt) {
	if !slices.IsSortedFunc(attempts, byID) {
		attempts = slices.Clone(attempts)
		slices.SortFunc(attempts, byID)
	}
	for len(attempts) > 0 {
		n, size := 1, len(attempts[0].ResponseBody)
		lo, hi := reach(&attempts[0])
		wide := hi-lo >= runSpan
		end := row.EndOfRun(attempts[0].ID)
		for ; n < len(attempts) && n < maxRun && !wide && hi > 0; n++ {
			l, h := reach(&attempts[n])
			size += len(attempts[n].ResponseBody)
			if h == 0 || max(hi, h)-min(lo, l) >= runSpan || size > maxRunBytes || attempts[n].ID >= end {
				break
			}
			lo, hi = min(lo, l), max(hi, h)
		}
		c.run(lane, attempts[:n], hi, wide)
		attempts = attempts[n:]
	}
}

func byID(a, b eventhose.Attempt) int { return cmp.Compare(a.ID, b.ID) }

// reach answers the lowest and the highest place that an attempt is about, 0 for a test.
func reach(a *eventhose.Attempt) (lo, hi sequence) {
	if len(a.Sequences) == 0 {
		return 0, 0
	}
	return slices.Min(a.Sequences), slices.Max(a.Sequences)
}

func (c *attemptColumns) run(lane int32, attempts []eventhose.Attempt, hi sequence, wide bool) {
	seqs, taken := []byte{'{'}, []byte{'{'}
	var at time.Time
	for i := range attempts {
		a := &attempts[i]
		if end := a.Started.Add(time.Duration(a.Duration)); end.After(at) {
			at = end
		}
		for _, seq := range a.Sequences {
			if len(seqs) > 1 {
				seqs, taken = append(seqs, ','), append(taken, ',')
			}
			seqs = strconv.AppendInt(seqs, signed(seq), 10)
			if a.Took(seq) {
				taken = append(taken, 't')
			} else {
				taken = append(taken, 'f')
			}
		}
	}
	c.lane, c.first = append(c.lane, lane), append(c.first, attempts[0].ID)
	c.seqs, c.taken = append(c.seqs, string(append(seqs, '}'))), append(c.taken, string(append(taken, '}')))
	c.hi, c.at, c.wide = append(c.hi, signed(hi)), append(c.at, at), append(c.wide, wide)
	c.runs = append(c.runs, row.EncodeRun(attempts))
}

// Attempts implements store.Lanes.
func (s *Store) Attempts(ctx context.Context, tenant tenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if q.Limit <= 0 {
		return nil, nil
	}
	switch {
	case q.Sequence != 0:
		return s.attemptsAt(ctx, tenant, q)
	case q.Subscription == "":
		return s.attemptsOfAll(ctx, tenant, q)
	}
	return s.attemptsOfLane(ctx, tenant, q)
}

// beyondIDs is greater than every id.
const beyondIDs = "~"

// attemptsOfLane lists the attempts of one subscription. Runs of a lane follow one another, so pages of them are pages of attempts.
// The lane is not joined: its attempts are then taken from the end of the index, and not sorted all.
func (s *Store) attemptsOfLane(ctx context.Context, tenant tenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	var list []eventhose.Attempt
	limit := min(firstRuns, q.Limit)
	for before := cmp.Or(q.Before, beyondIDs); len(list) < q.Limit; limit = min(2*limit, maxRuns) {
		runs, had, last := 0, len(list), before
		err := s.query(ctx, "list attempts", `SELECT $2::text, a.first_id, a.runs, (SELECT first FROM eventhose.logs WHERE tenant = $1) FROM eventhose.attempts a
			WHERE a.lane = (SELECT id FROM eventhose.lanes WHERE tenant = $1 AND subscription = $2) AND a.first_id < $3
				AND (a.hi = 0 OR a.hi >= coalesce((SELECT first FROM eventhose.logs WHERE tenant = $1), 1)) ORDER BY a.first_id DESC LIMIT $4`,
			[]any{string(tenant), string(q.Subscription), before, limit}, func() { runs, list = 0, list[:had] }, func(r pgx.Rows) error {
				runs++
				run, first, err := scanRun(r, tenant, &last)
				for i := range run {
					if (q.Before == "" || run[i].ID < q.Before) && there(&run[i], first) {
						list = append(list, run[i])
					}
				}
				return err
			})
		if err != nil {
			return nil, err
		}
		if before = last; runs < limit {
			break
		}
	}
	return list[:min(len(list), q.Limit)], nil
}

// scanRun reads a run, newest first, with the first sequence left of its log.
func scanRun(r pgx.Rows, tenant tenantID, firstID *string) ([]eventhose.Attempt, sequence, error) {
	var sub subscriptionID
	var value []byte
	var first *int64
	if err := r.Scan(&sub, firstID, &value, &first); err != nil {
		return nil, 0, err
	}
	return decodeRun(tenant, sub, *firstID, value, first)
}

func decodeRun(tenant tenantID, sub subscriptionID, firstID string, value []byte, first *int64) ([]eventhose.Attempt, sequence, error) {
	run, err := row.DecodeRun(tenant, sub, "", value)
	if err != nil {
		return nil, 0, corrupt(fmt.Sprintf("attempts of lane %s of %s from %s", sub, tenant, firstID), err)
	}
	if first == nil {
		return run, 1, nil
	}
	return run, sequence(*first), nil
}

// there reports whether an attempt's events are not all trimmed.
func there(a *eventhose.Attempt, first sequence) bool {
	_, hi := reach(a)
	return hi == 0 || hi >= first
}

// attemptsAt lists the attempts at one event, or at some in a row.
func (s *Store) attemptsAt(ctx context.Context, tenant tenantID, q store.AttemptQuery) ([]eventhose.Attempt, error) {
	var list []eventhose.Attempt
	last := max(q.Sequence, q.Through)
	places := make([]int64, 0, last-q.Sequence+1)
	for seq := q.Sequence; seq <= last; seq++ {
		places = append(places, signed(seq))
	}
	// Two halves, each with an index of its own; in the second one look for each place, since how many runs have one of several is
	// overestimated, until all of the tenant's are read.
	err := s.query(ctx, "list attempts at an event", `SELECT l.subscription, a.first_id, a.runs, g.first FROM (
			SELECT * FROM eventhose.attempts WHERE tenant = $1 AND NOT wide AND hi BETWEEN $2 AND $4 + 63
			UNION ALL (SELECT DISTINCT ON (w.lane, w.first_id) w.* FROM unnest($5::bigint[]) AS p(seq),
				LATERAL (SELECT * FROM eventhose.attempts WHERE tenant = $1 AND wide AND seqs @> ARRAY[p.seq] OFFSET 0) w)) a
		JOIN eventhose.lanes l ON l.id = a.lane LEFT JOIN eventhose.logs g ON g.tenant = a.tenant WHERE $3 = '' OR l.subscription = $3`,
		[]any{string(tenant), signed(q.Sequence), string(q.Subscription), signed(last), places}, func() { list = nil }, func(r pgx.Rows) error {
			var firstID string
			run, first, err := scanRun(r, tenant, &firstID)
			for i := range run {
				if q.About(run[i].Sequences) && there(&run[i], first) && (q.Before == "" || run[i].ID < q.Before) {
					list = append(list, run[i])
				}
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b eventhose.Attempt) int { return cmp.Compare(b.ID, a.ID) })
	return list[:min(len(list), q.Limit)], nil
}
