package deliver_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

// Four subscriptions have as much to send as they like and share one slot: whoever sends large events in large batches gets
// no more bytes through than who sends small ones one by one, but for what requests cost.
func TestTurnsGoByBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{MaxInFlight: 1})
		defer w.stop()
		var mu sync.Mutex
		bytes := map[eventhose.SubscriptionID]int{}
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			<-time.After(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			for i := range b.Items {
				bytes[b.Subscription.ID] += len(b.Items[i].Event.Data)
			}
			return taken()
		})
		large := w.subscribe(func(s *eventhose.Subscription) {
			s.Filter.Types, s.Batch = []string{"large"}, eventhose.BatchPolicy{MaxEvents: 10}
		})
		var small []eventhose.SubscriptionID
		for i := range 3 {
			small = append(small, w.subscribe(func(s *eventhose.Subscription) { s.Filter.Types = []string{fmt.Sprintf("small.%d", i)} }))
		}
		var events []eventhose.Event
		for n := range 500 {
			events = append(events, eventhose.Event{Type: "large", Data: fmt.Appendf(nil, "%020000d", 1)})
			for i := range 9 {
				events = append(events, eventhose.Event{Type: fmt.Sprintf("small.%d", i%3), Data: fmt.Appendf(nil, "%01000d", n)})
			}
		}
		for i := 0; i < len(events); i += 300 {
			w.append(events[i:min(i+300, len(events))]...)
		}
		pass(2 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if bytes[large] == 0 {
			t.Fatal("nothing of the one that sends large batches has come through")
		}
		// A batch costs 8 + 200 KiB, a small event 8 + 1: in a round of 64 KiB seven small ones go.
		for _, id := range small {
			if ratio := float64(bytes[large]) / float64(bytes[id]); ratio > 20 {
				t.Errorf("the one with large batches sent %.0f times the bytes of one with small events: %d and %d", ratio, bytes[large], bytes[id])
			}
		}
	})
}
