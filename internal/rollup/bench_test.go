package rollup_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/rollup"
)

// What counting costs an append and an attempt, from several goroutines at once: 0 allocs/op is part of what is promised.
func BenchmarkAppended(b *testing.B) {
	st := openStore(b, vfs.NewMem())
	defer st.Close()
	r := rollup.New(st, rollup.Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Appended("acme", "", 1, 1024)
		}
	})
}

func BenchmarkAttempted(b *testing.B) {
	st := openStore(b, vfs.NewMem())
	defer st.Close()
	r := rollup.New(st, rollup.Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(1, 1))
		a := eventhose.Attempt{Tenant: "acme", Subscription: "sub_01h455vb4pex5vsknk084sn02q", Kind: eventhose.AttemptFirst, Outcome: eventhose.OutcomeTaken,
			Started: time.Now(), Events: []string{"evt"}}
		appended := a.Started.Add(-time.Millisecond)
		for pb.Next() {
			a.Duration = eventhose.Duration(1e6 + rng.IntN(50e6))
			r.Attempted(&a, appended)
		}
	})
}
