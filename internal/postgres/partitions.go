package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose/internal/store"
)

// upkeepLock is the key of the advisory lock of the node that does the upkeep, openLock that of whoever opens a partition.
const (
	upkeepLock = 0x65767475706b6570 // "evtupkep"
	openLock   = upkeepLock + 1
)

// carryBelow is how many events may be left of a closed partition for them to be carried into the open one, or as many hundredths of it.
const (
	carryBelow   = 10_000
	carryPercent = 10
)

// They are carried in pieces, of so many events and bytes of data: appends to that log wait for one.
const (
	carryEvents = 2000
	carryBytes  = 4 << 20
)

// standing remembers how much of logs is left in closed partitions: if it is less the next time, their floor moves, and what would be carried
// is soon gone anyway.
type standing struct {
	mu   sync.Mutex
	logs map[leftOf]int64 // events
}

type leftOf struct {
	part   int64
	tenant string
}

// maxStanding bounds what is remembered. What is not is carried.
const maxStanding = 100_000

// stands reports whether a log's floor stands, as far as it is known.
func (s *standing) stands(of leftOf, events int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.logs[of]
	delete(s.logs, of)
	if events <= 1 || known && before == events || len(s.logs) >= maxStanding { // the newest event stays
		return true
	}
	if s.logs == nil {
		s.logs = map[leftOf]int64{}
	}
	s.logs[of] = events
	return false
}

// keep forgets all partitions but some.
func (s *standing) keep(parts map[int64]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.logs, func(of leftOf, _ int64) bool { return !parts[of.part] })
}

// classAges are the longest ages of the classes from 1 on. Logs that keep their events for about as long share partitions, so
// that one that keeps them long does not hold what the others could drop. Class 0 has no age; the last one is beyond all.
var classAges = [...]time.Duration{24 * time.Hour, 3 * 24 * time.Hour, 7 * 24 * time.Hour, 14 * 24 * time.Hour, 30 * 24 * time.Hour, 90 * 24 * time.Hour, 366 * 24 * time.Hour}

func classOf(t store.Trim) int16 {
	if t.Before.IsZero() {
		return 0
	}
	age := time.Since(t.Before)
	for i, limit := range classAges {
		if age <= limit+time.Minute {
			return int16(i + 1)
		}
	}
	return int16(len(classAges) + 1)
}

// classify has a log's next events go where those are that are kept as long.
func (s *Store) classify(ctx context.Context, tenant tenantID, t store.Trim) error {
	class := classOf(t)
	var stored int16
	err := s.row(ctx, "read the class of a log", "SELECT class FROM eventhose.logs WHERE tenant = $1", []any{string(tenant)}, &stored)
	if errors.Is(err, errNoRow) || err == nil && stored == class {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := write(ctx)
	defer cancel()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(openLock)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT eventhose._open_partition($1) WHERE NOT EXISTS (SELECT FROM eventhose.partitions WHERE class = $1 AND closed IS NULL)`, class)
		return err
	})
	if err == nil {
		_, err = s.pool.Exec(ctx, "UPDATE eventhose.logs SET class = $2 WHERE tenant = $1", string(tenant), class)
	}
	return failure("choose the partition of a log", err)
}

// upkeepLoop does the upkeep now and then, until ctx ends.
func (s *Store) upkeepLoop(ctx context.Context) {
	tick := time.NewTicker(s.opts.Upkeep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.Upkeep(ctx); err != nil && ctx.Err() == nil {
			s.logger.Warn("the upkeep of the database failed, it is tried again", "error", err)
		}
	}
}

// Upkeep turns partitions, drops those of which nothing is left, and removes what has expired. One node does it at a time; the others return at once.
func (s *Store) Upkeep(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	mine, release, err := s.lockUpkeep(ctx)
	if err != nil || !mine {
		return failure("take the lock of the upkeep", err)
	}
	defer release()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return failure("connect to the database", err)
	}
	defer conn.Release()
	swept := failure("remove what has expired", s.sweep(ctx, conn.Conn()))
	if ctx.Err() != nil || conn.Conn().IsClosed() {
		return swept
	}
	return errors.Join(swept, s.turnPartitions(ctx, conn.Conn())) // what cannot be removed keeps no partition
}

// lockUpkeep takes the lock of the upkeep unless another node has it. It is that of a transaction on a connection of its own: behind a pooler that gives
// each transaction another session, the lock of a session would stay behind in one.
func (s *Store) lockUpkeep(ctx context.Context) (mine bool, release func(), err error) {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return false, nil, err
	}
	release = func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer cancel()
		_, _ = conn.Exec(closing, "ROLLBACK") // or it ends with the connection
		_ = conn.Close(closing)
	}
	if _, err = conn.Exec(ctx, "BEGIN"); err == nil {
		err = conn.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(upkeepLock)).Scan(&mine)
	}
	if err == nil && mine { // this statement also ends the one before, whose snapshot a partition would wait for to be detached
		_, err = conn.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0")
	}
	if err != nil || !mine {
		release()
	}
	return mine, release, err
}

// turnPartitions has others take what is appended in place of those that have taken enough, and drops those of which nothing is left.
func (s *Store) turnPartitions(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(openLock)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT eventhose._turn_partitions($1, $2)", s.opts.PartitionAge, s.opts.PartitionSize)
		return err
	})
	if err != nil {
		return failure("turn partitions", err)
	}
	if _, err := conn.Exec(ctx, "SELECT eventhose._settle()"); err != nil {
		return failure("turn partitions", err)
	}
	return s.dropPartitions(ctx, conn)
}

// sweepRows is how many rows are looked at, or removed, at once.
const sweepRows = 10_000

// sweep removes the records that have expired, and kept events that nothing is parked for any more.
func (s *Store) sweep(ctx context.Context, conn *pgx.Conn) error {
	for gone := int64(sweepRows); gone == sweepRows; {
		if err := conn.QueryRow(ctx, "SELECT eventhose._sweep_records($1)", sweepRows).Scan(&gone); err != nil {
			return err
		}
	}
	tenant, seq := "", int64(0)
	for {
		err := conn.QueryRow(ctx, "SELECT o_tenant, o_seq FROM eventhose._sweep_kept($1, $2, $3)", tenant, seq, sweepRows).Scan(&tenant, &seq)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// dropPartitions drops the closed partitions of which nothing is left, once the little that is left was carried on. One that fails does not keep
// the others.
func (s *Store) dropPartitions(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "SELECT o_part, o_events FROM eventhose._settled()")
	if err != nil {
		return failure("list partitions", err)
	}
	type settled struct{ part, events int64 }
	parts, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (p settled, err error) {
		err = r.Scan(&p.part, &p.events)
		return p, err
	})
	if err != nil {
		return failure("list partitions", err)
	}
	there := map[int64]bool{}
	for _, p := range parts {
		there[p.part] = true
	}
	s.still.keep(there)
	var failed []error
	for _, p := range parts {
		left, err := s.carry(ctx, conn, p.part, max(carryBelow, p.events*carryPercent/100))
		if err == nil && !left {
			err = s.dropPartition(ctx, conn, p.part)
		}
		if err != nil {
			failed = append(failed, failure(fmt.Sprintf("drop partition %d", p.part), err))
		}
		if ctx.Err() != nil || conn.IsClosed() {
			break
		}
	}
	return errors.Join(failed...)
}

// carry moves what is left of a partition into the open ones, if that is at most limit events, but for logs whose floor moves. It reports
// whether something is left.
func (s *Store) carry(ctx context.Context, conn *pgx.Conn, part, limit int64) (bool, error) {
	rows, err := conn.Query(ctx, "SELECT tenant, first, events FROM eventhose._live($1)", part)
	if err != nil {
		return false, err
	}
	type live struct {
		tenant        string
		first, events int64
	}
	logs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (l live, err error) {
		err = r.Scan(&l.tenant, &l.first, &l.events)
		return l, err
	})
	if err != nil {
		return false, err
	}
	total, of := int64(0), map[string]int64{}
	for _, l := range logs {
		total += max(0, l.events)
		of[l.tenant] += max(0, l.events)
	}
	if total > limit {
		return true, nil
	}
	moving := map[string]bool{}
	for tenant, events := range of {
		moving[tenant] = !s.still.stands(leftOf{part, tenant}, events)
	}
	left := false
	for _, l := range logs {
		if moving[l.tenant] {
			left = true
			continue
		}
		for next := &l.first; next != nil; {
			if err := conn.QueryRow(ctx, "SELECT eventhose._carry_piece($1, $2, $3, $4, $5)", part, l.tenant, *next, carryEvents, carryBytes).Scan(&next); err != nil {
				return false, err
			}
		}
	}
	return left, nil
}

// forgetEvents is of how many events at once the ids are forgotten: an append that uses one of them again waits that long.
const forgetEvents = 10_000

// dropPartition drops a partition unless something of it is left. It may be called again after it failed.
func (s *Store) dropPartition(ctx context.Context, conn *pgx.Conn, part int64) error {
	var there, empty bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass(format('eventhose.events_%s', $1::int)) IS NOT NULL", part).Scan(&there); err != nil {
		return err
	}
	if there {
		if err := conn.QueryRow(ctx, "SELECT eventhose._empty_partition($1)", part).Scan(&empty); err != nil || !empty {
			return err
		}
	}
	tenant, seq := "", int64(0)
	for there {
		err := conn.QueryRow(ctx, "SELECT o_tenant, o_seq FROM eventhose._forget_ids($1, $2, $3, $4)", part, tenant, seq, forgetEvents).Scan(&tenant, &seq)
		if errors.Is(err, pgx.ErrNoRows) {
			break
		}
		if err != nil {
			return err
		}
	}
	for _, table := range []string{"attempts", "events"} {
		var attached, pending bool
		err := conn.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_or(inhdetachpending), false) FROM pg_inherits WHERE inhrelid = to_regclass(format('eventhose.%s_%s', $1::text, $2::int))`,
			table, part).Scan(&attached, &pending)
		if err != nil {
			return err
		}
		how := "CONCURRENTLY" // holds up nobody, and so cannot be part of a transaction
		if pending {
			how = "FINALIZE"
		}
		if attached {
			if _, err := conn.Exec(ctx, fmt.Sprintf("ALTER TABLE eventhose.%s DETACH PARTITION eventhose.%[1]s_%d %s", table, part, how)); err != nil {
				return err
			}
		}
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("DROP TABLE IF EXISTS eventhose.attempts_%d, eventhose.events_%[1]d", part)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM eventhose.partitions WHERE part = $1", part)
		return err
	})
	if err == nil {
		s.logger.Info("a partition was dropped", "partition", part)
	}
	return err
}
