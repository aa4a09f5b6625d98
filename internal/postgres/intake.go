package postgres

import (
	"math"
	"sync"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// intake is how many events of each shard's tenants were appended here of late: each counts for half after every intakeHalf.
type intake struct {
	mu   sync.Mutex
	at   time.Time
	came [store.Shards]float64
}

const intakeHalf = 5 * time.Second

// add counts events that were appended.
func (in *intake) add(tenant tenantID, events int64) {
	in.mu.Lock()
	in.came[store.ShardOf(tenant)] += float64(events)
	in.mu.Unlock()
}

// read answers what is left by a time, shard 0 first. Times are those of one clock, and not of before the last call.
func (in *intake) read(now time.Time) []float32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	left := math.Exp2(-float64(now.Sub(in.at)) / float64(intakeHalf)) // 0 the first time, when nothing is old
	if in.at.IsZero() {
		left = 1
	}
	in.at = now
	came := make([]float32, store.Shards)
	for i := range in.came {
		in.came[i] *= left
		came[i] = float32(in.came[i])
	}
	return came
}
