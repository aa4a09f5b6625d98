package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := func(perSecond float64, count, most int, each time.Duration) (calls, sent, largest int, took time.Duration) {
			started := time.Now()
			if err := paced(t.Context(), perSecond, count, most, func(n int) error {
				calls, sent, largest = calls+1, sent+n, max(largest, n)
				<-time.After(each)
				return nil
			}); err != nil {
				t.Error(err)
			}
			return calls, sent, largest, time.Since(started)
		}
		for _, c := range []struct {
			name            string
			rate            float64
			count, most     int
			each            time.Duration
			calls, largest  int
			took, tolerance time.Duration
		}{
			{name: "slowly", rate: 10, count: 25, most: 100, calls: 25, largest: 1, took: 2400 * time.Millisecond},
			{name: "by the minute", rate: 0.1, count: 3, most: 100, calls: 3, largest: 1, took: 20 * time.Second},
			{name: "many", rate: 10_000, count: 5000, most: 1000, calls: 51, largest: 100, took: 500 * time.Millisecond},
			{name: "slow sender", rate: 100, count: 500, most: 1000, each: time.Second, calls: 6, largest: 100, took: 6 * time.Second, tolerance: time.Second},
			{name: "slow sender of few", rate: 100, count: 50, most: 10, each: time.Second, calls: 6, largest: 10, took: 6 * time.Second, tolerance: time.Second},
			{name: "one", rate: 0.001, count: 1, most: 1, calls: 1, largest: 1},
		} {
			calls, sent, largest, took := run(c.rate, c.count, c.most, c.each)
			if sent != c.count || calls != c.calls || largest > c.largest || (took-c.took).Abs() > c.tolerance+paceStep {
				t.Errorf("%s: %d in %d calls of at most %d, after %v", c.name, sent, calls, largest, took)
			}
		}
		failed := errors.New("failed")
		if err := paced(t.Context(), 1, 5, 1, func(int) error { return failed }); !errors.Is(err, failed) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		n := 0
		if err := paced(ctx, 1, 100, 1, func(int) error { n++; return nil }); !errors.Is(err, context.DeadlineExceeded) || n != 3 {
			t.Errorf("%d, %v", n, err)
		}
	})
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]float64{"10/s": 10, "10": 10, "90/m": 1.5, "0.5/s": 0.5, "100000/s": 100_000,
		"": 0, "0/s": 0, "-1/s": 0, "100001/s": 0, "10/": 0, "10/h": 0, "x/s": 0, "NaN": 0, "Inf": 0, "10/s/s": 0} {
		got, err := parseRate(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
