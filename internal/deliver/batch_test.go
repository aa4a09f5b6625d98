package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// batches sends with a policy.
func batches(o eventhose.Ordering, p eventhose.BatchPolicy) func(*eventhose.Subscription) {
	return func(s *eventhose.Subscription) {
		quick(o)(s)
		s.Batch = p
	}
}

// tries answers the requests so far, each as what it brought, in the order in which they ended.
func (s *script) tries() [][]delivery {
	var all [][]delivery
	for _, d := range s.all() {
		if n := len(all); n > 0 && all[n-1][0].request == d.request {
			all[n-1] = append(all[n-1], d)
		} else {
			all = append(all, []delivery{d})
		}
	}
	return all
}

func sequences(ds []delivery) []eventhose.Sequence {
	seqs := make([]eventhose.Sequence, len(ds))
	for i, d := range ds {
		seqs[i] = d.seq
	}
	return seqs
}

// A batch ends at its number of events and at its bytes; what is larger than that travels alone; nothing waits if it need not.
func TestBatchBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(func(s *eventhose.Subscription) {
			batches(eventhose.OrderingStrict, eventhose.BatchPolicy{MaxEvents: 4, MaxBytes: 2000})(s)
			s.State = eventhose.StatePaused
		})
		var events []eventhose.Event
		for _, size := range []int{10, 10, 10, 10, 10, 1000, 985, 10, 3000, 10, 2000, 1, 1999, 1} {
			events = append(events, eventhose.Event{Type: "a", Data: fmt.Appendf(nil, "%0*d", size, 1)})
		}
		w.append(events...)
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
			t.Fatal(err)
		}
		w.drained(id)
		var got []int
		for _, try := range w.sink.tries() {
			got = append(got, len(try))
			for _, d := range try {
				if d.batch == "" || d.number != 1 || d.prev != d.seq-1 {
					t.Errorf("%+v", d)
				}
			}
		}
		if want := []int{4, 3, 1, 1, 1, 1, 2, 1}; !slices.Equal(got, want) {
			t.Errorf("requests of %v events, want %v", got, want)
		}
	})
}

// A batch that is not full waits from its first event on, a full one goes at once, also after a restart and with a wait
// before the first attempt.
func TestBatchWaits(t *testing.T) {
	for _, first := range []time.Duration{0, 3 * time.Second, 20 * time.Second} {
		t.Run(first.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(func(s *eventhose.Subscription) {
					batches(eventhose.OrderingKey, eventhose.BatchPolicy{MaxEvents: 5, MaxWait: eventhose.Duration(10 * time.Second)})(s)
					s.Retry.Schedule[0] = eventhose.Duration(first)
				})
				pass(time.Second)
				start := time.Now()
				w.append(some(2, 1)...)
				pass(4 * time.Second)
				w.append(some(1, 2)...)
				w.stop()
				w.start()
				defer w.stop()
				pass(10*time.Second - time.Since(start) - time.Millisecond)
				if n := len(w.sink.all()); n != 0 {
					t.Fatalf("%d events sent before the batch has waited", n)
				}
				pass(max(first-time.Since(start), 0) + time.Millisecond)
				if first < 10*time.Second {
					pass(10*time.Second - time.Since(start))
					if tries := w.sink.tries(); len(tries) != 1 || len(tries[0]) != 3 || tries[0][0].at.Sub(start) != 10*time.Second {
						t.Fatalf("after the wait: %+v", tries)
					}
				}
				w.drained(id)
				before, start := len(w.sink.tries()), time.Now()
				w.append(some(12, 3)...)
				w.drained(id)
				var sent []time.Duration
				for _, try := range w.sink.tries()[before:] {
					sent = append(sent, try[0].at.Sub(start))
				}
				if len(sent) != 3 || sent[0] != first || sent[1] != first || sent[2] != max(first, 10*time.Second) {
					t.Errorf("12 events went after %v, want two full batches after %v and the rest after its wait", sent, first)
				}
			})
		})
	}
}

// With failing, slow and partly refusing receivers, batches keep the order of keys and of all, and nothing is lost.
func TestOrderInBatches(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingKey, eventhose.OrderingStrict, eventhose.OrderingNone} {
		t.Run(string(ordering), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				defer w.stop()
				const total = 20_000
				id := w.subscribe(batches(ordering, eventhose.BatchPolicy{MaxEvents: 70}))
				w.sink.set(func(ctx context.Context, b *sink.Batch) sink.Result {
					if b.Items[0].Event.Sequence%5 == 0 {
						return partly(b, func(e *eventhose.Event) bool { return e.Sequence%11 == 0 && b.Number == 1 })
					}
					return moody(ctx, b)
				})
				w.append(some(total, 300)...)
				w.drained(id)
				if got := len(w.sink.firsts()) + w.status(id).Dead; got != total {
					t.Errorf("%d of %d are taken or dead", got, total)
				}
				tries := w.sink.tries()
				for _, d := range w.sink.all() {
					if d.prev != d.seq-1 {
						t.Fatalf("sequence %d says that %d came before it", d.seq, d.prev)
					}
				}
				if ordering == eventhose.OrderingNone {
					if inversions(w.sink.firsts(), false) == 0 {
						t.Error("no inversion without order: the checker is blind, or nothing runs in parallel")
					}
				} else if n := inversions(w.sink.all(), ordering == eventhose.OrderingStrict); n != 0 {
					t.Errorf("%d inversions", n)
				}
				if len(tries) > total/10 {
					t.Errorf("%d requests for %d events in batches of 70", len(tries), total)
				}
			})
		})
	}
}

// A batch that fails is tried again whole, under the same id and numbered on, also after a restart; when its schedule ends
// all of it is dead.
func TestBatchIsTriedAgainWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.subscribe(func(s *eventhose.Subscription) {
			batches(eventhose.OrderingKey, eventhose.BatchPolicy{MaxEvents: 5})(s)
			s.State = eventhose.StatePaused
		})
		w.append(some(8, 2)...)
		w.sink.set(always(failed(500)))
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			pass(30 * time.Second)
			w.stop()
			w.start()
		}
		defer w.stop()
		tries := map[string][][]eventhose.Sequence{}
		for _, try := range w.sink.tries() {
			tries[try[0].batch] = append(tries[try[0].batch], sequences(try))
			if n := len(tries[try[0].batch]); try[0].number != n {
				t.Errorf("try %d of batch %s has number %d", n, try[0].batch, try[0].number)
			}
		}
		for _, same := range tries {
			if len(tries) != 2 || len(same) != 6 || !slices.Equal(same[5], same[0]) {
				t.Errorf("%v", same)
			}
		}
		rows, err := w.eng.Parked(t.Context(), tenant, id, eventhose.ParkedDead, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range rows[:5] {
			if tries[p.Batch] == nil || p.Attempts != 6 {
				t.Errorf("dead: %+v", p)
			}
		}
		w.sink.set(nil)
		if _, err := w.eng.Redrive(t.Context(), tenant, id, nil); err != nil {
			t.Fatal(err)
		}
		w.drained(id)
		all := w.sink.tries()
		for batch, same := range tries {
			if !slices.ContainsFunc(all, func(try []delivery) bool {
				return try[0].batch == batch && try[0].kind == eventhose.AttemptRedrive && slices.Equal(sequences(try), same[0])
			}) {
				t.Errorf("what is redriven together does not travel together: %+v", all[len(all)-2:])
			}
		}
		if n := len(w.sink.firsts()); n != 8 {
			t.Errorf("%d of 8 taken", n)
		}
	})
}

// What a receiver did not take of a batch is tried again as a batch of its own, and charged; the rest is settled.
func TestPartialFailure(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey, eventhose.OrderingStrict} {
		t.Run(string(ordering), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(batches(ordering, eventhose.BatchPolicy{MaxEvents: 10, MaxWait: eventhose.Duration(time.Second)}))
				refuse := func(bad ...eventhose.Sequence) {
					w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
						return partly(b, func(e *eventhose.Event) bool { return slices.Contains(bad, e.Sequence) })
					})
				}
				bad := []eventhose.Sequence{2, 7, 8}
				refuse(bad...)
				w.append(some(10, 3)...)
				pass(time.Second)
				rows, err := w.eng.Parked(t.Context(), tenant, id, eventhose.ParkedRetrying, 0, 100)
				if err != nil || len(rows) != 3 {
					t.Fatalf("%+v, %v", rows, err)
				}
				first := w.sink.tries()[0][0].batch
				for _, p := range rows {
					if !slices.Contains(bad, p.Sequence) || p.Reason != eventhose.ReasonPartly || p.Attempts != 1 || p.Message != fmt.Sprintf("no %d", p.Sequence) || p.Batch == first || p.Batch != rows[0].Batch || !p.Due.Equal(rows[0].Due) {
						t.Errorf("parked %+v", p)
					}
				}
				as, err := w.eng.Attempts(t.Context(), tenant, id, "", 10)
				if err != nil || len(as) != 1 || as[0].Batch != first || as[0].Outcome != eventhose.OutcomeFailed || as[0].Reason != eventhose.ReasonPartly ||
					!slices.Equal(as[0].Failed, bad) || len(as[0].Events) != 10 || as[0].Next.IsZero() {
					t.Errorf("attempts: %+v, %v", as, err)
				}
				for seq, want := range map[eventhose.Sequence]string{1: eventhose.DeliveryDelivered, 2: string(eventhose.ParkedRetrying)} {
					e, err := w.store.Lookup(t.Context(), tenant, store.Ref{Sequence: seq})
					if err != nil {
						t.Fatal(err)
					}
					if ds, err := w.eng.Deliveries(t.Context(), *e); err != nil || len(ds) != 1 || ds[0].State != want || len(ds[0].Attempts) != 1 {
						t.Errorf("event %d: %+v, %v", seq, ds, err)
					}
				}
				w.stop()
				w.start()
				defer w.stop()
				refuse(2, 8)
				pass(2 * time.Second)
				refuse()
				w.drained(id)
				var got [][]eventhose.Sequence
				for _, try := range w.sink.tries() {
					if got = append(got, sequences(try)); len(got) == 2 && (try[0].batch != rows[0].Batch || try[0].number != 2 || try[0].kind != eventhose.AttemptRetry) {
						t.Errorf("the rest is tried as %+v", try[0])
					}
				}
				if want := "[[1 2 3 4 5 6 7 8 9 10] [2 7 8] [2 8]]"; fmt.Sprint(got) != want {
					t.Errorf("sent %v, want %s", got, want)
				}
				if st := w.status(id); st.Circuit != "closed" || !st.FailingSince.IsZero() {
					t.Errorf("a receiver that takes most is not down: %+v", st)
				}
			})
		})
	}
}

// What was not taken of a batch, and is tried again alone or with others, is tried for the second time: the request, the record of the
// attempt and the parked event say the same number, also after a restart.
func TestTriesAreTheEvents(t *testing.T) {
	for _, refused := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d refused", refused), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(batches(eventhose.OrderingKey, eventhose.BatchPolicy{MaxEvents: 3, MaxWait: eventhose.Duration(time.Second)}))
				w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
					return partly(b, func(e *eventhose.Event) bool { return int(e.Sequence) <= refused })
				})
				defer w.stop()
				w.append(some(3, 3)...)
				for try := 1; try <= 3; try++ {
					pass([]time.Duration{1: 500 * time.Millisecond, 2: time.Second, 3: 6 * time.Second}[try])
					all := w.sink.tries()
					as, err := w.eng.Attempts(t.Context(), tenant, id, "", 10)
					if err != nil || len(all) != try || len(as) != try || all[try-1][0].number != try || as[0].Number != try || (as[0].Kind == eventhose.AttemptRetry) != (try > 1) {
						t.Fatalf("try %d: sent %+v, recorded %+v, %v", try, all, as, err)
					}
					rows, err := w.eng.Parked(t.Context(), tenant, id, eventhose.ParkedRetrying, 0, 10)
					if err != nil || len(rows) != refused || rows[0].Attempts != try {
						t.Errorf("after try %d: parked %+v, %v", try, rows, err)
					}
					w.stop()
					w.start()
				}
			})
		})
	}
}

// A batch that is taken in part while this node stops is settled in part.
func TestPartlyTakenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.subscribe(batches(eventhose.OrderingNone, eventhose.BatchPolicy{MaxEvents: 3}))
		w.sink.set(func(ctx context.Context, b *sink.Batch) sink.Result {
			<-ctx.Done() // the answer is there already
			return partly(b, func(e *eventhose.Event) bool { return e.Sequence == 2 })
		})
		w.append(some(3, 0)...)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.eng.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := errors.Join(w.log.Close(), w.store.Close()); err != nil {
			t.Fatal(err)
		}
		w.sink.set(nil)
		w.start()
		defer w.stop()
		w.drained(id)
		if tries := w.sink.tries(); len(tries) != 2 || !slices.Equal(sequences(tries[1]), []eventhose.Sequence{2}) {
			t.Errorf("%+v", tries)
		}
	})
}

// A batch of which nothing is taken has failed whole, and is the same batch again.
func TestNothingOfABatchIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(batches(eventhose.OrderingNone, eventhose.BatchPolicy{MaxEvents: 3}))
		w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
			return partly(b, func(*eventhose.Event) bool { return b.Number < 3 })
		})
		w.append(some(3, 0)...)
		w.drained(id)
		tries := w.sink.tries()
		if len(tries) != 3 || len(tries[2]) != 3 || tries[0][0].batch != tries[2][0].batch || tries[2][0].number != 3 {
			t.Errorf("%+v", tries)
		}
	})
}

// A log that was restored to an earlier point grows differently: a batch of other events at the same places has another id, whatever
// tells them apart.
func TestBatchesAfterARestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewCrashableMem()
		w := &world{t: t, fs: fs, dir: "data", sink: &script{}}
		w.start()
		if _, _, err := w.ctl.PutTenant(t.Context(), eventhose.Tenant{ID: tenant}); err != nil {
			t.Fatal(err)
		}
		id := w.subscribe(batches(eventhose.OrderingNone, eventhose.BatchPolicy{MaxEvents: 2, MaxWait: eventhose.Duration(time.Minute)}))
		w.append(some(2, 0)...)
		w.drained(id)
		w.stop()
		backup := func() vfs.FS { return fs.CrashClone(vfs.CrashCloneCfg{}) }
		names := map[string]string{}
		for what, events := range map[string][2]eventhose.Event{
			"one life":      {{ID: "a1"}, {ID: "a2"}},
			"another":       {{ID: "b1"}, {ID: "b2"}},
			"cut otherwise": {{ID: "a1a"}, {ID: "2"}},
			"a scope":       {{ID: "a1"}, {ID: "2", Scope: "a"}},
		} {
			w.fs = backup()
			w.start()
			for i := range events {
				events[i].Type, events[i].Data = "order.paid", []byte("{}")
			}
			before := len(w.sink.tries())
			w.append(events[:]...)
			w.drained(id)
			w.stop()
			tries := w.sink.tries()[before:]
			if len(tries) != 1 || !slices.Equal(sequences(tries[0]), []eventhose.Sequence{3, 4}) {
				t.Fatalf("%s: sent %+v", what, tries)
			}
			if other, is := names[tries[0][0].batch]; is {
				t.Errorf("the batches of %s and %s have one id", what, other)
			}
			names[tries[0][0].batch] = what
		}
	})
}

// While the circuit is open a batch is the probe, again under its id; then all is sent.
func TestProbesAreBatches(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingStrict} {
		t.Run(string(ordering), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				defer w.stop()
				const total = 12_000
				id := w.subscribe(func(s *eventhose.Subscription) {
					batches(ordering, eventhose.BatchPolicy{MaxEvents: 100})(s)
					s.Retry.Schedule = eventhose.DefaultSchedule()
				})
				w.sink.set(always(failed(503)))
				w.append(some(total, 0)...)
				pass(50 * time.Hour)
				st := w.status(id)
				if st.Retrying+st.Dead > eventhose.MaxParked || ordering == eventhose.OrderingNone && st.Circuit != "open" {
					t.Errorf("after 50 h of failures: %+v", st)
				}
				numbers := map[string]int{}
				for _, try := range w.sink.tries() {
					if numbers[try[0].batch]++; try[0].number != numbers[try[0].batch] {
						t.Fatalf("try %d of batch %s has number %d", numbers[try[0].batch], try[0].batch, try[0].number)
					}
				}
				w.sink.set(nil)
				w.drained(id)
				if got := len(w.sink.firsts()) + w.status(id).Dead; got != total {
					t.Errorf("%d of %d are taken or dead", got, total)
				}
			})
		})
	}
}

// A person who gives up one event of a dead batch leaves its key held by the others, over a restart; one who has a later
// event tried again has it wait for the earlier ones.
func TestDecidingOnPartOfABatch(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingKey, eventhose.OrderingStrict} {
		t.Run(string(ordering), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(func(s *eventhose.Subscription) {
					batches(ordering, eventhose.BatchPolicy{MaxEvents: 6})(s)
					s.OnExhausted, s.State = eventhose.OnExhaustedBlock, eventhose.StatePaused
				})
				placed := w.append(some(12, 1)...) // one key
				w.sink.set(always(failed(500)))
				if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
					t.Fatal(err)
				}
				pass(time.Hour)
				if st := w.status(id); st.Dead != 6 || len(w.sink.tries()) != 6 {
					t.Fatalf("%+v", st)
				}
				w.sink.set(nil)
				before := len(w.sink.all())
				restart := func() {
					pass(time.Minute)
					w.stop()
					w.start()
				}
				decide := func(act func(context.Context, eventhose.TenantID, eventhose.SubscriptionID, []string) (int, error), events ...int) {
					t.Helper()
					var ids []string
					for _, n := range events {
						ids = append(ids, placed[n-1].ID)
					}
					if n, err := act(t.Context(), tenant, id, ids); n != len(events) || err != nil {
						t.Fatalf("%d, %v", n, err)
					}
					restart()
				}
				expect := func(want ...eventhose.Sequence) {
					t.Helper()
					if got := sequences(w.sink.all()[before:]); !slices.Equal(got, want) {
						t.Fatalf("sent %v, want %v", got, want)
					}
				}
				decide(func(c context.Context, a eventhose.TenantID, s eventhose.SubscriptionID, e []string) (int, error) {
					return w.eng.Discard(c, a, s, e)
				}, 6) // the head
				expect()
				redrive := func(c context.Context, a eventhose.TenantID, s eventhose.SubscriptionID, e []string) (int, error) {
					return w.eng.Redrive(c, a, s, e)
				}
				decide(redrive, 3, 5)
				expect()
				decide(redrive, 1)
				expect(1)
				decide(redrive, 2)
				expect(1, 2, 3)
				decide(redrive, 4)
				defer w.stop()
				w.drained(id)
				expect(1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12)
			})
		})
	}
}

// A change of the policy holds for what is sent from then on, for retries too, which keep their order.
func TestChangeOfPolicy(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingKey, eventhose.OrderingStrict, eventhose.OrderingNone} {
		for name, then := range map[string]eventhose.BatchPolicy{"off": {}, "fewer": {MaxEvents: 4}, "smaller": {MaxEvents: 20, MaxBytes: 1024}, "larger": {MaxEvents: 1000}} {
			t.Run(string(ordering)+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, deliver.Options{})
					id := w.subscribe(batches(ordering, eventhose.BatchPolicy{MaxEvents: 10}))
					w.sink.set(always(failed(500)))
					events := some(40, 3)
					for i := range events {
						events[i].Data = fmt.Appendf(nil, "%0*d", 300, i)
					}
					w.append(events...)
					synctest.Wait()
					if _, err := w.ctl.UpdateSubscription(t.Context(), tenant, id, eventhose.SubscriptionPatch{Batch: &then}, nil); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					before := len(w.sink.tries())
					w.sink.set(moody)
					pass(2 * time.Second)
					w.stop()
					w.start()
					defer w.stop()
					w.drained(id)
					tries := w.sink.tries()[before:]
					most := max(1, then.MaxEvents)
					if then.MaxBytes > 0 {
						most = 3
					}
					for _, try := range tries {
						if len(try) > most || (try[0].batch == "") != (then.MaxEvents == 0) {
							t.Errorf("%d events in %q with a policy of %+v", len(try), try[0].batch, then)
						}
					}
					if n := len(w.sink.firsts()); n != 40 {
						t.Errorf("%d of 40 taken", n)
					}
					var taken []delivery
					for _, d := range w.sink.all() {
						if d.taken {
							taken = append(taken, d)
						}
					}
					if n := inversions(taken, ordering == eventhose.OrderingStrict); n != 0 && ordering != eventhose.OrderingNone {
						t.Errorf("%d inversions", n)
					}
				})
			})
		}
	}
}

// A replay sends batches too, of its own events only, and what fails of it is parked with the others of its batch.
func TestReplayInBatches(t *testing.T) {
	for _, ordering := range []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingStrict} {
		t.Run(string(ordering), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, deliver.Options{})
				id := w.subscribe(batches(ordering, eventhose.BatchPolicy{MaxEvents: 100}))
				w.append(some(1000, 7)...)
				w.drained(id)
				before := len(w.sink.tries())
				w.sink.set(func(_ context.Context, b *sink.Batch) sink.Result {
					<-time.After(10 * time.Millisecond)
					if b.Items[0].Event.Sequence == 301 && b.Number < 2 {
						return failed(500)
					}
					return taken()
				})
				r, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{From: 101, To: 850}, false)
				if err != nil {
					t.Fatal(err)
				}
				<-time.After(25 * time.Millisecond)
				w.append(some(5, 0)...)
				w.stop()
				w.start()
				defer w.stop()
				w.drained(id)
				got := map[eventhose.Sequence]int{}
				tries := w.sink.tries()[before:]
				for _, try := range tries {
					for _, d := range try {
						if (d.replay == r.ID) != (d.seq <= 1000) || d.prev != d.seq-1 {
							t.Errorf("%+v", d)
						}
						if d.taken && d.replay != "" {
							got[d.seq]++
						}
					}
				}
				if len(got) != 750 || slices.Max(slices.Collect(maps.Values(got))) != 1 {
					t.Errorf("%d of 750 replayed", len(got))
				}
				if len(tries) > 14 {
					t.Errorf("%d requests", len(tries))
				}
			})
		})
	}
}

// What is erased, or gone with retention, before its turn is left out of its batch, and holds nobody up.
func TestErasedInABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(batches(eventhose.OrderingStrict, eventhose.BatchPolicy{MaxEvents: 10}))
		w.sink.set(always(failed(500)))
		placed := w.append(some(30, 0)...)
		synctest.Wait()
		first := w.sink.tries()[0]
		for _, n := range []int{2, 5, 14, 15, 16, 17, 18, 19, 20} {
			if err := w.log.Erase(t.Context(), tenant, "", placed[n-1].ID); err != nil {
				t.Fatal(err)
			}
		}
		w.sink.set(nil)
		w.drained(id)
		firsts := sequences(w.sink.firsts())
		if len(firsts) != 21 || !slices.IsSorted(firsts) || slices.Contains(firsts, 2) || slices.Contains(firsts, 16) {
			t.Errorf("taken: %v", firsts)
		}
		if again := w.sink.tries()[1]; len(again) != len(first)-2 || again[0].batch == first[0].batch || again[0].number != 2 {
			t.Errorf("what is left of a batch is the same batch, or its events were not tried before: %+v", again[0])
		}
	})
}

// A test has the body of a batch, and each is another.
func TestTestInBatchMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.subscribe(batches(eventhose.OrderingNone, eventhose.BatchPolicy{MaxEvents: 10}))
		a, err1 := w.eng.Test(t.Context(), tenant, id)
		b, err2 := w.eng.Test(t.Context(), tenant, id)
		if err1 != nil || err2 != nil || a.Batch == "" || a.Batch == b.Batch || len(a.Events) != 1 || a.Sequences != nil {
			t.Errorf("%+v %+v %v %v", a, b, err1, err2)
		}
	})
}
