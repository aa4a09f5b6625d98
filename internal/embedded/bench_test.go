package embedded

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// kilobyte is about what a JSON event looks like to a compressor.
func kilobyte(i int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"order":%d`, i)
	for j := 0; b.Len() < 1000; j++ {
		fmt.Fprintf(&b, `,"field_%d":"%016x"`, j, uint64(i*31+j)*0x9e3779b97f4a7c15)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func benchStore(b *testing.B) *Store {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func perSecond(b *testing.B, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAppendGroup is what the engine does with 64 producers: one group after the other, each of 64 appends.
func BenchmarkAppendGroup(b *testing.B) {
	for _, size := range []int{1, 100} {
		for _, ids := range []bool{false, true} {
			b.Run(fmt.Sprintf("events=%d/ids=%v", size, ids), func(b *testing.B) {
				s := benchStore(b)
				data := kilobyte(7)
				n := 0
				b.ReportAllocs()
				for b.Loop() {
					group := make([]store.Append, 0, 64)
					for range max(1, 64/min(size, 2)) {
						e := make([]store.NewEvent, size)
						for i := range e {
							e[i].Event = eventhose.Event{Type: "order.paid", Key: "k", Time: moment(1), Appended: moment(1), Data: data}
							if ids {
								e[i].Event.ID = fmt.Sprint("order-", n)
							}
							n++
						}
						group = append(group, store.Append{Tenant: "t", Events: e})
						if len(group)*size >= 3200 {
							break
						}
					}
					if _, err := s.Append(ctx, group); err != nil {
						b.Fatal(err)
					}
				}
				perSecond(b, n)
			})
		}
	}
}

// BenchmarkAppendConcurrent has 64 callers of their own, which share fsyncs.
func BenchmarkAppendConcurrent(b *testing.B) {
	s := benchStore(b)
	data := kilobyte(7)
	var n atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for n.Add(1) <= int64(b.N) {
				e := store.NewEvent{Event: eventhose.Event{Type: "order.paid", Time: moment(1), Appended: moment(1), Data: data}}
				if _, err := s.Append(ctx, []store.Append{{Tenant: "t", Events: []store.NewEvent{e}}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	perSecond(b, b.N)
}

func BenchmarkRead(b *testing.B) {
	s := benchStore(b)
	const total = 50_000
	for i := 0; i < total; i += 500 {
		events := make([]store.NewEvent, 500)
		for j := range events {
			events[j].Event = eventhose.Event{Type: "order.paid", Time: moment(1), Appended: moment(1), Data: kilobyte(i + j)}
		}
		mustAppend(b, s, "t", events...)
	}
	n := 0
	after := eventhose.Sequence(0)
	b.ReportAllocs()
	for b.Loop() {
		page, err := s.Read(ctx, "t", after, store.ReadLimit{Events: 500, Bytes: 1 << 20})
		if err != nil {
			b.Fatal(err)
		}
		n += len(page)
		if after += eventhose.Sequence(len(page)); after >= total {
			after = 0
		}
	}
	perSecond(b, n)
}

// BenchmarkCommit writes progress as the engine gathers it: 100 lanes with ten attempts each in one commit.
func BenchmarkCommit(b *testing.B) {
	s := benchStore(b)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		var p store.Progress
		for i := range 100 {
			ref := store.LaneRef{Tenant: "t", Subscription: eventhose.SubscriptionID(fmt.Sprintf("sub_%026d", i))}
			c := store.LaneChange{Create: true, Lane: store.Lane{LaneRef: ref, Cursor: eventhose.Sequence(n)}}
			for range 10 {
				n++
				c.Attempts = append(c.Attempts, eventhose.Attempt{ID: fmt.Sprintf("att_%026d", n), Events: []string{"evt_00000000000000000000000000"},
					Sequences: []eventhose.Sequence{eventhose.Sequence(n)}, Kind: eventhose.AttemptFirst, Number: 1, Outcome: eventhose.OutcomeTaken,
					Status: 200, Started: moment(n), Duration: 1e6, URL: "https://receiver.example/hooks", Address: "203.0.113.7:443",
					ResponseHeaders: map[string]string{"content-type": "application/json"}, ResponseBody: `{"ok":true}`})
			}
			p.Lanes = append(p.Lanes, c)
		}
		if err := s.Commit(ctx, p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "attempts/s")
}
