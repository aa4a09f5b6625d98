package postgres

import (
	"testing"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// What came in counts less and less.
func TestIntake(t *testing.T) {
	var in intake
	shard := store.ShardOf("acme")
	start := time.Now()
	in.add("acme", 1000)
	for i, want := range []float32{1000, 500, 250, 125} {
		came := in.read(start.Add(time.Duration(i) * intakeHalf))
		if came[shard] != want {
			t.Errorf("after %d halves it is %v, want %v", i, came[shard], want)
		}
		if came[shard^1] != 0 {
			t.Errorf("another shard has %v", came[shard^1])
		}
	}
}
