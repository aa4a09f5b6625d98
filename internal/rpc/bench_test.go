package rpc_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"

	"github.com/eventhose/eventhose"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

// kilobyte is about what a JSON event of 1 KB looks like to a compressor.
func kilobyte(i int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"order":%d`, i)
	for j := 0; b.Len() < 990; j++ {
		fmt.Fprintf(&b, `,"field_%d":"%016x"`, j, uint64(i*31+j)*0x9e3779b97f4a7c15)
	}
	b.WriteByte('}')
	return b.Bytes()
}

const kept = 100_000

// BenchmarkReadBack is how fast a log of 1 KB events is read from its beginning: from the log itself, and by grpc-go over the socket,
// in the same process. An iteration is one event; compare with a fixed -benchtime of some multiple of 100000x.
func BenchmarkReadBack(b *testing.B) {
	w := newWorldIn(b, b.TempDir(), nil)
	for from := 0; from < kept; from += 1000 {
		events := make([]eventhose.Event, 1000)
		for i := range events {
			events[i] = eventhose.Event{Type: "order.paid", Key: fmt.Sprintf("order-%d", (from+i)%1000), Data: kilobyte(from + i)}
		}
		if _, err := w.log.Append(b.Context(), "acme", events...); err != nil {
			b.Fatal(err)
		}
	}
	// read wants b.N events from rounds through the whole log; each round answers how many it has read of the most that are wanted.
	read := func(b *testing.B, round func(most int) int) {
		b.ReportAllocs()
		for left := b.N; left > 0; {
			n := round(left)
			if n == 0 {
				b.Fatal("nothing came")
			}
			left -= n
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	}
	b.Run("store", func(b *testing.B) {
		read(b, func(most int) (n int) {
			for _, err := range w.log.Read(b.Context(), "acme", 0, eventhose.Filter{}) {
				if err != nil {
					b.Fatal(err)
				}
				if n++; n == most {
					break
				}
			}
			return n
		})
	})
	for _, name := range []string{"grpc", "grpc-wide"} {
		b.Run(name, func(b *testing.B) {
			var options []grpc.DialOption
			if name == "grpc-wide" { // a client that lets more be under way
				options = append(options, grpc.WithInitialWindowSize(4<<20), grpc.WithInitialConnWindowSize(4<<20))
			}
			c := w.dial(options...)
			read(b, func(most int) (n int) {
				ctx, cancel := context.WithCancel(w.as(rootKey))
				defer cancel()
				s, err := c.subscribe(ctx, &v1.SubscribeRequest{Tenant: "acme"})
				if err != nil {
					b.Fatal(err)
				}
				for n < min(most, kept) {
					m, err := s.Recv()
					if err != nil {
						b.Fatal(err)
					}
					n += len(m.GetEvents())
				}
				return n
			})
		})
	}
}
