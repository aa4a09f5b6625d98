package deliver_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
)

// events is how many events the backlog test appends; EVENTHOSE_BACKLOG makes it long.
func events(t *testing.T) int {
	if s := os.Getenv("EVENTHOSE_BACKLOG"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 1_000_000
}

// A destination that is down while a million events arrive costs constant memory and constant lane state, recovers, and
// gets all of them.
func TestBacklogIsTheLog(t *testing.T) {
	total := events(t)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.Default, dir: dir, sink: &script{forget: true}}
		w.start()
		defer w.stop()
		if _, _, err := w.ctl.PutTenant(t.Context(), eventhose.Tenant{ID: tenant}); err != nil {
			t.Fatal(err)
		}
		id := w.subscribe(func(s *eventhose.Subscription) { s.Retry.DisableAfter = -1 })
		w.sink.set(always(failed(503)))
		chunk := some(10_000, 0)
		var heap []uint64
		for done := 0; done < total; done += len(chunk) {
			if _, err := w.log.Append(t.Context(), tenant, chunk...); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			if done/len(chunk) == total/4/len(chunk) || done+len(chunk) >= total {
				row, keys, err := w.store.Lane(t.Context(), tenant, id)
				if err != nil {
					t.Fatal(err)
				}
				if len(row.Settled) > 1024 || row.Retrying > 100 || len(keys) != 0 || !row.Open {
					t.Errorf("after %d events: %d settled, %d retrying, %d keys, circuit open %v", done, len(row.Settled), row.Retrying, len(keys), row.Open)
				}
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				heap = append(heap, m.HeapAlloc)
			}
		}
		if tries := w.sink.count; tries > 500 {
			t.Errorf("%d attempts while it was down", tries)
		}
		if grown := int64(heap[1]) - int64(heap[0]); grown > 48<<20 {
			t.Errorf("the heap grew by %d MiB from a quarter of the backlog to all of it", grown>>20)
		}
		got, last := 0, eventhose.Sequence(0)
		seen := make([]bool, total+1)
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			w.sink.mu.Lock()
			defer w.sink.mu.Unlock()
			seq := b.Items[0].Event.Sequence
			if !seen[seq] {
				seen[seq] = true
				got++
			}
			last = max(last, seq)
			return taken()
		})
		w.drained(id)
		if got != total || int(last) != total {
			t.Errorf("%d of %d taken, the last was %d", got, total, last)
		}
	})
}

// 10,000 subscriptions with narrow filters: an event that concerns three of them touches three.
func TestNarrowFilters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		const n = 10_000
		for i := range n {
			w.subscribe(func(s *eventhose.Subscription) {
				s.Filter = eventhose.Filter{Types: []string{"order.*"}, Attributes: map[string]string{"customer": fmt.Sprint(i / 3)}}
			})
		}
		synctest.Wait()
		before := w.eng.Evaluated(tenant)
		const events = 100
		for i := range events {
			e := some(1, 0)[0]
			e.Attributes = map[string]string{"customer": fmt.Sprint(i * 7)}
			w.append(e)
		}
		pass(10 * time.Second)
		if sent := len(w.sink.firsts()); sent == 0 || len(w.sink.all()) != 3*events {
			t.Errorf("%d sent for %d events that concern three each", len(w.sink.all()), events)
		}
		if touched := w.eng.Evaluated(tenant) - before; touched != 3*events {
			t.Errorf("%d filters were looked at for %d events that concern three each", touched, events)
		}
		if lanes := w.eng.InMemory(tenant); lanes != 0 {
			t.Errorf("%d lanes are in memory with nothing to do", lanes)
		}
	})
}
