package main

import (
	"runtime/metrics"
	"testing"
)

func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 300, 1 << 20: 300, 128 << 20: 300, 192 << 20: 200, 384 << 20: 100, 64 << 30: 100} {
		if got := garbagePercent(live); got != want {
			t.Errorf("with %d MiB in use %d %%, want %d %%", live>>20, got, want)
		}
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	if metrics.Read(sample); sample[0].Value.Kind() != metrics.KindUint64 {
		t.Error("Go does not tell how much is in use")
	}
}
