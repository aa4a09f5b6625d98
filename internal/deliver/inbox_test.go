package deliver_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
)

// An event that a worker is just getting is not processed, while it is being recorded that the worker gets it either.
func TestInboxWhileALeaseIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.workers(nil)
		w.append(some(4, 0)...)
		w.stop()
		g := &gated{gate: make(chan struct{})}
		w.wrap = func(s deliver.Store) deliver.Store { g.Store = s; return g }
		w.start()
		defer w.stop()
		became := func(want ...eventhose.InboxStatus) {
			t.Helper()
			events := make([]eventhose.Event, 4)
			for i := range events {
				events[i].Sequence = eventhose.Sequence(i + 1)
			}
			if got, err := w.eng.InboxStatus(t.Context(), tenant, id, events); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
		}
		const pending, processed, failed = eventhose.InboxPending, eventhose.InboxProcessed, eventhose.InboxFailed
		handed := make(chan []eventhose.Leased, 1)
		go func() {
			list, err := w.tryPull(context.Background(), id, eventhose.Pull{Max: 3, Wait: time.Second})
			if err != nil {
				t.Error(err)
			}
			handed <- list
		}()
		synctest.Wait()
		if st := w.status(id); st.Cursor.Sequence != 3 || len(handed) != 0 {
			t.Fatalf("%+v: nobody is being handed anything", st)
		}
		became(pending, pending, pending, pending)
		close(g.gate)
		list := <-handed
		became(pending, pending, pending, pending)
		w.answer(id, ack, 0, list[0])
		w.answer(id, eventhose.Answer{Verdict: eventhose.AnswerNack, Delay: time.Hour}, 0, list[1])
		became(processed, failed, pending, pending)
	})
}
