package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// The pgx loop is the least that puts events into a PostgreSQL table: connections that each insert a batch of rows with one
// statement, again and again. One table, one index, no ids, no order but the one that the loop brings.

type pgxLoopOrder struct {
	URL         string `json:"url"`
	Connections int    `json:"connections"`
	Batch       int    `json:"batch"`
	Bytes       int    `json:"bytes"`
	Nanos       int64  `json:"nanos"`
}

func pgxLoop(ctx context.Context, o *orders) error {
	return each(o, func(order pgxLoopOrder) (any, error) { return pgxLoopRun(ctx, order) })
}

const (
	pgxLoopTable = `CREATE TABLE IF NOT EXISTS pgx_loop (tenant text NOT NULL, seq bigint NOT NULL, type text NOT NULL, key text NOT NULL, time timestamptz NOT NULL, data bytea NOT NULL, PRIMARY KEY (tenant, seq));
		TRUNCATE pgx_loop`
	pgxLoopInsert = `INSERT INTO pgx_loop SELECT 'default', s, 'order.paid', '', now(), d FROM unnest($1::bigint[], $2::bytea[]) AS x(s, d)`
)

func pgxLoopRun(ctx context.Context, o pgxLoopOrder) (*partResult, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(o.Connections)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	_, err = conn.Conn().PgConn().Exec(ctx, pgxLoopTable).ReadAll()
	conn.Release()
	if err != nil {
		return nil, fmt.Errorf("make the table of the pgx loop: %w", err)
	}
	r := &partResult{Latency: &histogram{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	cpu, began := ownCPU(), time.Now()
	end := began.Add(time.Duration(o.Nanos))
	for p := range o.Connections {
		wg.Go(func() {
			seqs, data := make([]int64, o.Batch), make([][]byte, o.Batch)
			for i := range data {
				data[i] = appendData(nil, o.Bytes, p*o.Batch+i)
			}
			latency, requests, failure := &histogram{}, int64(0), error(nil)
			for now := time.Now(); now.Before(end) && ctx.Err() == nil && failure == nil; {
				for i := range seqs { // each connection counts in a range of its own
					seqs[i] = int64(p)<<40 + requests*int64(o.Batch) + int64(i)
				}
				if _, failure = pool.Exec(ctx, pgxLoopInsert, seqs, data); failure == nil {
					was := now
					now = time.Now()
					latency.add(now.Sub(was))
					requests++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			r.Latency.merge(latency)
			r.Requests += requests
			if failure != nil {
				r.Failed, r.Failure = r.Failed+1, failure.Error()
			}
		})
	}
	wg.Wait()
	r.Nanos, r.CPU, r.Events = int64(time.Since(began)), (ownCPU() - cpu).Microseconds(), r.Requests*int64(o.Batch)
	return r, nil
}
