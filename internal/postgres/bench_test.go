package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// batch is how many events one append of the benchmarks has, of a kilobyte each.
const batch = 100

func benchEvent(data []byte) store.NewEvent {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return store.NewEvent{Event: eventhose.Event{Type: "order.paid", Key: "order-1", Time: now, Appended: now, Data: data}}
}

// atOnce runs f b.N times on two goroutines and reports events a second.
func atOnce(b *testing.B, f func(ctx context.Context, n int) error) {
	var next atomic.Int64
	var workers sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range 2 {
		workers.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := f(b.Context(), int(n)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAppend appends batches of 100 events; /bare puts the same bytes into one table with one index.
func BenchmarkAppend(b *testing.B) {
	data := fmt.Appendf(nil, `{"text": "%01000d"}`, 1)
	b.Run("bare", func(b *testing.B) {
		pool, err := pgxpool.New(b.Context(), pgtest.Database(b))
		if err != nil {
			b.Fatal(err)
		}
		defer pool.Close()
		const table = `CREATE TABLE events (tenant text NOT NULL, seq bigint NOT NULL, type text NOT NULL, key text NOT NULL, time timestamptz NOT NULL, data bytea NOT NULL, PRIMARY KEY (tenant, seq))`
		if _, err := pool.Exec(b.Context(), table); err != nil {
			b.Fatal(err)
		}
		atOnce(b, func(ctx context.Context, n int) error {
			seqs, datas := make([]int64, batch), make([][]byte, batch)
			for i := range batch {
				seqs[i], datas[i] = int64(n*batch+i), data
			}
			_, err := pool.Exec(ctx, `INSERT INTO events SELECT 'default', s, 'order.paid', 'order-1', now(), d FROM unnest($1::bigint[], $2::bytea[]) AS x(s, d)`, seqs, datas)
			return err
		})
	})
	for _, with := range []string{"own ids", "client ids"} {
		b.Run(with, func(b *testing.B) {
			st, err := postgres.Open(b.Context(), pgtest.Database(b), postgres.Options{Upkeep: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			atOnce(b, func(ctx context.Context, n int) error {
				entry := store.Append{Tenant: "default"}
				for i := range batch {
					e := benchEvent(data)
					if with == "client ids" {
						e.Event.ID = fmt.Sprintf("order-%d-%d", n, i)
					}
					entry.Events = append(entry.Events, e)
				}
				_, err := st.Append(ctx, []store.Append{entry})
				return err
			})
		})
	}
}

// BenchmarkReadOthers reads pages of what another node has appended.
func BenchmarkReadOthers(b *testing.B) {
	const events, page = 20_000, 50
	url := pgtest.Database(b)
	var nodes [2]*postgres.Store
	for i := range nodes {
		st, err := postgres.Open(b.Context(), url, postgres.Options{Upkeep: -1})
		if err != nil {
			b.Fatal(err)
		}
		defer st.Close()
		nodes[i] = st
	}
	data := fmt.Appendf(nil, `{"text": "%01000d"}`, 1)
	for range events / batch {
		entry := store.Append{Tenant: "default"}
		for range batch {
			entry.Events = append(entry.Events, benchEvent(data))
		}
		if _, err := nodes[0].Append(b.Context(), []store.Append{entry}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	after := eventhose.Sequence(0)
	for b.Loop() {
		got, err := nodes[1].Read(b.Context(), "default", after, store.ReadLimit{Events: page, Bytes: 1 << 20})
		if err != nil || len(got) != page {
			b.Fatal(len(got), err)
		}
		after = (after + page) % events
	}
	b.ReportMetric(float64(b.N*page)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*page), "µs/event")
}
