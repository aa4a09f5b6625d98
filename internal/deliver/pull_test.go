package deliver_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
)

// workers makes a pull subscription.
func (w *world) workers(change func(*eventhose.Subscription)) eventhose.SubscriptionID {
	w.t.Helper()
	return w.subscribe(func(s *eventhose.Subscription) {
		s.Destination = eventhose.Destination{}
		if change != nil {
			change(s)
		}
	})
}

func (w *world) pull(id eventhose.SubscriptionID, p eventhose.Pull) []eventhose.Leased {
	w.t.Helper()
	synctest.Wait() // what was appended is matched
	list, err := w.tryPull(context.Background(), id, p)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func (w *world) tryPull(ctx context.Context, id eventhose.SubscriptionID, p eventhose.Pull) ([]eventhose.Leased, error) {
	if p.Lease == 0 {
		p.Lease = 30 * time.Second
	}
	return w.eng.Pull(ctx, tenant, id, p)
}

// answer wants that all of the leases are the caller's, but for lost.
func (w *world) answer(id eventhose.SubscriptionID, a eventhose.Answer, lost int, leases ...eventhose.Leased) {
	w.t.Helper()
	for _, l := range leases {
		a.Leases = append(a.Leases, l.Lease)
	}
	if list, err := w.eng.Answer(context.Background(), tenant, id, a); err != nil || len(list) != lost {
		w.t.Fatalf("%v is lost, %v; wanted %d", list, err, lost)
	}
}

var (
	ack  = eventhose.Answer{Verdict: eventhose.AnswerAck}
	nack = eventhose.Answer{Verdict: eventhose.AnswerNack, Delay: -1}
)

func leasedAt(leases []eventhose.Leased) (list []eventhose.Sequence) {
	for _, l := range leases {
		list = append(list, l.Event.Sequence)
	}
	return list
}

func TestPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(nil)
		w.append(some(25, 0)...)
		first := w.pull(id, eventhose.Pull{Max: 10})
		if len(first) != 10 || first[0].Deliveries != 1 || string(first[3].Event.Data) != `{"n":3}` {
			t.Fatalf("%+v", first)
		}
		second := w.pull(id, eventhose.Pull{Max: 100, Lease: time.Minute})
		if got := leasedAt(append(first, second...)); len(got) != 25 || !slices.IsSorted(got) {
			t.Fatalf("%v", got)
		}
		if st := w.status(id); st.Leased != 25 || st.Retrying != 0 || st.Lag != 0 {
			t.Errorf("%+v", st)
		}
		w.answer(id, ack, 0, first[:5]...)
		w.answer(id, ack, 5, first[:5]...) // answered before
		w.answer(id, eventhose.Answer{Verdict: eventhose.AnswerNack, Delay: 10 * time.Second, Message: "not today"}, 0, first[5])
		w.answer(id, eventhose.Answer{Verdict: eventhose.AnswerExtend, Delay: time.Hour}, 0, first[6])
		pass(9 * time.Second)
		if none := w.pull(id, eventhose.Pull{Max: 10}); len(none) > 0 {
			t.Errorf("%v was handed over before it was due", leasedAt(none))
		}
		pass(time.Second)
		again := w.pull(id, eventhose.Pull{Max: 10})
		if len(again) != 1 || again[0].Event.Sequence != 6 || again[0].Deliveries != 2 || again[0].Lease == first[5].Lease {
			t.Fatalf("%+v", again)
		}
		w.answer(id, ack, 1, first[5]) // of the delivery before
		w.answer(id, ack, 0, again...)
		attempts, err := w.eng.AttemptsAt(t.Context(), tenant, id, 6, 10)
		if err != nil || len(attempts) != 2 || attempts[1].Reason != eventhose.ReasonNack || attempts[1].Message != "not today" || attempts[1].Next.IsZero() ||
			attempts[0].Outcome != eventhose.OutcomeTaken || attempts[0].Number != 2 {
			t.Errorf("%+v %v", attempts, err)
		}
		pass(21 * time.Second) // the first leases end, but for the one that was extended
		expired := w.pull(id, eventhose.Pull{Max: 10})
		if got := leasedAt(expired); !slices.Equal(got, []eventhose.Sequence{8, 9, 10}) || expired[0].Deliveries != 2 {
			t.Errorf("%v", got)
		}
		w.answer(id, ack, 0, append(expired, append(second, first[6])...)...)
		if st := w.status(id); st.Leased != 0 || st.Lag != 0 || st.LastSuccess.IsZero() {
			t.Errorf("%+v", st)
		}
	})
}

// An event that no worker can do is dead after five deliveries, holds up nobody, and can be had back.
func TestPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(func(s *eventhose.Subscription) { s.Ordering = eventhose.OrderingKey })
		w.append(eventhose.Event{Type: "a", Key: "k", Data: []byte("1")}, eventhose.Event{Type: "a", Key: "k", Data: []byte("2")}, eventhose.Event{Type: "a", Key: "other", Data: []byte("3")})
		for delivery := 1; delivery <= 5; delivery++ {
			list := w.pull(id, eventhose.Pull{Max: 10})
			if delivery == 1 {
				if got := leasedAt(list); !slices.Equal(got, []eventhose.Sequence{1, 3}) {
					t.Fatalf("%v", got)
				}
				w.answer(id, ack, 0, list[1])
			}
			if list[0].Event.Sequence != 1 || list[0].Deliveries != delivery {
				t.Fatalf("delivery %d: %+v", delivery, list)
			}
			if delivery%2 == 1 {
				pass(30 * time.Second) // the worker has died
			} else {
				w.answer(id, nack, 0, list[0])
			}
		}
		if st := w.status(id); st.Dead != 1 {
			t.Fatalf("%+v", st)
		}
		next := w.pull(id, eventhose.Pull{Max: 10})
		if got := leasedAt(next); !slices.Equal(got, []eventhose.Sequence{2}) {
			t.Fatalf("%v", got)
		}
		w.answer(id, ack, 0, next...)
		if n, err := w.eng.Redrive(t.Context(), tenant, id, nil); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		back := w.pull(id, eventhose.Pull{Max: 10})
		if len(back) != 1 || back[0].Deliveries != 1 {
			t.Fatalf("%+v", back)
		}
		w.answer(id, ack, 0, back...)
		if st := w.status(id); st.Dead+st.Retrying+st.Leased+st.Waiting != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// With order, what is behind an event waits until its worker is done.
func TestPullOrder(t *testing.T) {
	for ordering, atOnce := range map[eventhose.Ordering]int{eventhose.OrderingKey: 4, eventhose.OrderingStrict: 1} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, deliver.Options{})
			defer w.stop()
			id := w.workers(func(s *eventhose.Subscription) { s.Ordering = ordering })
			w.append(some(200, 4)...)
			last := map[string]eventhose.Sequence{}
			for done := 0; done < 200; {
				list := w.pull(id, eventhose.Pull{Max: 100, Wait: time.Second})
				if len(list) == 0 || len(list) > atOnce {
					t.Fatalf("%s: %d events at once, of %d keys", ordering, len(list), 4)
				}
				for _, l := range list {
					key := l.Event.Key
					if ordering == eventhose.OrderingStrict {
						key = ""
					}
					if l.Event.Sequence <= last[key] {
						t.Fatalf("%s: %d after %d", ordering, l.Event.Sequence, last[key])
					}
					if l.Event.Sequence%7 == 0 && l.Deliveries == 1 {
						w.answer(id, nack, 0, l)
						continue
					}
					last[key] = l.Event.Sequence
					w.answer(id, ack, 0, l)
					done++
				}
			}
		})
	}
}

// Leases are as they were after a restart.
func TestPullRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.workers(func(s *eventhose.Subscription) { s.Ordering = eventhose.OrderingKey })
		w.append(some(9, 3)...)
		first := w.pull(id, eventhose.Pull{Max: 10})
		w.stop()
		w.start()
		defer w.stop()
		if list := w.pull(id, eventhose.Pull{Max: 10}); len(first) != 3 || len(list) != 0 {
			t.Fatalf("%v, then %v", leasedAt(first), leasedAt(list))
		}
		w.answer(id, ack, 0, first[0])
		if got := leasedAt(w.pull(id, eventhose.Pull{Max: 10, Lease: time.Hour})); !slices.Equal(got, []eventhose.Sequence{4}) {
			t.Errorf("%v", got)
		}
		pass(31 * time.Second)
		again := w.pull(id, eventhose.Pull{Max: 10})
		if got := leasedAt(again); !slices.Equal(got, []eventhose.Sequence{2, 3}) || again[0].Deliveries != 2 {
			t.Errorf("%v", got)
		}
	})
}

// Workers that wait are told, one for each event, and one that leaves takes nothing along.
func TestPullWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(nil)
		got := make(chan int, 100)
		var waiting sync.WaitGroup
		begun := time.Now()
		for range 20 {
			waiting.Go(func() {
				list, err := w.tryPull(context.Background(), id, eventhose.Pull{Max: 1, Wait: time.Minute, Lease: time.Hour})
				if err != nil {
					t.Error(err)
				}
				got <- len(list)
			})
		}
		leaving, leave := context.WithCancel(t.Context())
		waiting.Go(func() {
			if list, err := w.tryPull(leaving, id, eventhose.Pull{Max: 1, Wait: time.Minute}); !errors.Is(err, context.Canceled) || len(list) > 0 {
				t.Error(list, err)
			}
		})
		synctest.Wait()
		leave()
		w.append(some(15, 0)...)
		synctest.Wait()
		pass(time.Second)
		if len(got) != 15 {
			t.Errorf("%d of 20 workers have an event, of 15", len(got))
		}
		waiting.Wait()
		if waited := time.Since(begun); waited < time.Minute || waited > 61*time.Second {
			t.Errorf("waited for %v", waited)
		}
		if st := w.status(id); st.Leased != 15 || st.Retrying != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A paused subscription hands out nothing; what workers have they may answer.
func TestPullPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(nil)
		w.append(some(10, 0)...)
		list := w.pull(id, eventhose.Pull{Max: 5})
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StatePaused); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if none := w.pull(id, eventhose.Pull{Max: 5}); len(none) > 0 {
			t.Errorf("%v", leasedAt(none))
		}
		w.answer(id, ack, 0, list...)
		if _, err := w.ctl.SetState(t.Context(), tenant, id, eventhose.StateActive); err != nil {
			t.Fatal(err)
		}
		if got := leasedAt(w.pull(id, eventhose.Pull{Max: 50, Wait: time.Second})); len(got) != 5 || got[0] != 6 {
			t.Errorf("%v", got)
		}
	})
}

func TestPullReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id := w.workers(nil)
		w.append(some(10, 0)...)
		w.answer(id, ack, 0, w.pull(id, eventhose.Pull{Max: 8})...)
		held := w.pull(id, eventhose.Pull{Max: 8})
		if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{From: 3, To: 9}, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		again := w.pull(id, eventhose.Pull{Max: 100})
		if got := leasedAt(again); !slices.Equal(got, []eventhose.Sequence{3, 4, 5, 6, 7, 8}) {
			t.Errorf("%v", got) // 9 is in a worker's hands
		}
		w.answer(id, ack, 0, append(again, held...)...)
		w.drained(id)
	})
}

func TestPullRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		defer w.stop()
		id, push := w.workers(nil), w.subscribe(nil)
		refused := func(id eventhose.SubscriptionID, p eventhose.Pull, code eventhose.Code, field string) {
			t.Helper()
			var e *eventhose.Error
			if _, err := w.eng.Pull(t.Context(), tenant, id, p); !errors.As(err, &e) || e.Code != code || e.Field != field {
				t.Errorf("%v", err)
			}
		}
		refused(id, eventhose.Pull{Lease: time.Minute}, eventhose.CodeInvalid, "max")
		refused(id, eventhose.Pull{Max: 1001, Lease: time.Minute}, eventhose.CodeInvalid, "max")
		refused(id, eventhose.Pull{Max: 1}, eventhose.CodeInvalid, "lease")
		refused(id, eventhose.Pull{Max: 1, Lease: 13 * time.Hour}, eventhose.CodeInvalid, "lease")
		refused(push, eventhose.Pull{Max: 1, Lease: time.Minute}, eventhose.CodeConflict, "")
		refused("sub_none", eventhose.Pull{Max: 1, Lease: time.Minute}, eventhose.CodeNotFound, "")
		for field, a := range map[string]eventhose.Answer{
			"leases":    ack,
			"leases[1]": {Verdict: eventhose.AnswerAck, Leases: []string{"lse_00000000000000000000000000", "lse_x"}},
			"delay":     {Verdict: eventhose.AnswerNack, Leases: []string{"lse_00000000000000000000000000"}, Delay: 25 * time.Hour},
			"lease":     {Verdict: eventhose.AnswerExtend, Leases: []string{"lse_00000000000000000000000000"}, Delay: time.Millisecond},
		} {
			var e *eventhose.Error
			if _, err := w.eng.Answer(t.Context(), tenant, id, a); !errors.As(err, &e) || e.Code != eventhose.CodeInvalid || e.Field != field {
				t.Errorf("%s: %v", field, err)
			}
		}
		w.answer(id, ack, 1, eventhose.Leased{Lease: "lse_00000000000000000000000000"})
	})
}

// handed is one step of one event's life, as Porcupine judges it.
type handed struct {
	verdict   eventhose.Verdict // "" is a delivery
	lease     string
	until     time.Time
	call, end time.Time
	lost      bool
}

// hands is what is known of an event: whose it is, until when, and whether it is done.
type hands struct {
	lease string
	until time.Time
	free  bool
	done  bool
}

// leaseModel says what may happen to one event. An operation takes place at some time from its call to its end.
var leaseModel = porcupine.Model{
	Init: func() any { return hands{free: true} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(hands), input.(handed)
		ours := !s.done && s.lease == op.lease
		switch {
		case op.verdict == "":
			return !s.done && (s.free || !s.until.After(op.end)), hands{lease: op.lease, until: op.until}
		case op.lost:
			return !ours || !s.until.After(op.end) || s.free, s
		case op.verdict == eventhose.AnswerAck:
			return ours, hands{lease: op.lease, done: true}
		}
		return ours, hands{lease: op.lease, free: true}
	},
}

// Sixteen workers that die, take their time, give events back and are told too late, a server that is restarted, and an
// event that nobody can do: nothing is lost, nothing is in two hands at once, everything is acknowledged once.
func TestWorkers(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) { workersLife(t, seed) })
	}
}

const poison = 50 // the sequence of the event that nobody can do

func workersLife(t *testing.T, seed uint64) {
	const n, keys = 400, 20
	ordering := []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey}[seed%2]
	w := newWorld(t, deliver.Options{})
	defer w.stop()
	id := w.workers(func(s *eventhose.Subscription) {
		s.Ordering = ordering
		s.Retry.Schedule = make([]eventhose.Duration, 40)
	})
	var mu sync.Mutex
	histories := map[eventhose.Sequence][]porcupine.Operation{}
	acked := map[eventhose.Sequence]int{}
	var deaths, restarts, expiries, given int
	note := func(worker int, seq eventhose.Sequence, h handed) {
		mu.Lock()
		defer mu.Unlock()
		histories[seq] = append(histories[seq], porcupine.Operation{ClientId: worker, Input: h, Call: h.call.UnixNano(), Return: h.end.UnixNano()})
	}
	finished := make(chan struct{})
	// here has a token for each that uses the server, and all are taken while it is away. A mutex would hold up virtual time.
	here := make(chan struct{}, 17)
	use, leave := func() { here <- struct{}{} }, func() { <-here }
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(worker)))
			for {
				select {
				case <-finished:
					return
				default:
				}
				use()
				call := time.Now()
				list, err := w.tryPull(context.Background(), id, eventhose.Pull{Max: 1 + random.IntN(4), Wait: 100 * time.Millisecond, Lease: 2 * time.Second})
				end := time.Now()
				leave()
				if err != nil {
					t.Error(err)
					return
				}
				for _, l := range list {
					note(worker, l.Event.Sequence, handed{lease: l.Lease, until: l.Until, call: call, end: end})
				}
				for _, l := range list {
					a := ack
					switch at := random.IntN(20); {
					case l.Event.Sequence == poison || at < 2:
						a = nack
					case at < 4: // the worker dies
						mu.Lock()
						deaths++
						mu.Unlock()
						continue
					case at < 6:
						<-time.After(3 * time.Second) // too late, perhaps
					default:
						<-time.After(time.Duration(random.IntN(100)) * time.Millisecond)
					}
					use()
					a.Leases = []string{l.Lease}
					call := time.Now()
					lost, err := w.eng.Answer(context.Background(), tenant, id, a)
					end := time.Now()
					leave()
					if err != nil {
						t.Error(err)
						return
					}
					note(worker, l.Event.Sequence, handed{verdict: a.Verdict, lease: l.Lease, call: call, end: end, lost: len(lost) > 0})
					mu.Lock()
					switch {
					case len(lost) > 0:
						expiries++
					case a.Verdict == eventhose.AnswerAck:
						acked[l.Event.Sequence]++
					default:
						given++
					}
					mu.Unlock()
				}
			}
		})
	}
	events := some(n, keys)
	for part := range slices.Chunk(events, 100) {
		use()
		w.append(part...)
		leave()
		pass(500 * time.Millisecond)
		for range cap(here) {
			use()
		}
		w.stop()
		w.start()
		for range cap(here) {
			leave()
		}
		restarts++
	}
	for range 10_000 {
		mu.Lock()
		done := len(acked) == n-1
		mu.Unlock()
		if st := w.status(id); done && st.Dead == 1 {
			break
		}
		pass(time.Second)
	}
	close(finished)
	all.Wait()
	for seq := eventhose.Sequence(1); seq <= n; seq++ {
		if want := 1; seq != poison && acked[seq] != want || seq == poison && acked[seq] != 0 {
			t.Errorf("seed %d: event %d was acknowledged %d times", seed, seq, acked[seq])
		}
		if !porcupine.CheckOperations(leaseModel, histories[seq]) {
			t.Errorf("seed %d: event %d was in two hands at once, or answered for by another: %v", seed, seq, histories[seq])
		}
	}
	if deaths == 0 || expiries == 0 || given == 0 || restarts == 0 {
		t.Errorf("seed %d: %d deaths, %d leases answered too late, %d given back, %d restarts: one kind did not happen", seed, deaths, expiries, given, restarts)
	}
	if st := w.status(id); st.Dead != 1 || st.Leased != 0 {
		t.Errorf("seed %d: %+v", seed, st)
	}
}

// The checker, on what must not be.
func TestLeaseModel(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	op := func(worker, call, end int, h handed) porcupine.Operation {
		h.call, h.end = at(call), at(end)
		return porcupine.Operation{ClientId: worker, Input: h, Call: h.call.UnixNano(), Return: h.end.UnixNano()}
	}
	first := op(0, 1, 2, handed{lease: "a", until: at(10)})
	for what, c := range map[string]struct {
		ok      bool
		history []porcupine.Operation
	}{
		"handed over, and acknowledged":          {true, []porcupine.Operation{first, op(0, 5, 6, handed{verdict: "ack", lease: "a"})}},
		"handed over again after its end":        {true, []porcupine.Operation{first, op(1, 9, 11, handed{lease: "b", until: at(20)})}},
		"handed over twice":                      {false, []porcupine.Operation{first, op(1, 5, 6, handed{lease: "b", until: at(20)})}},
		"handed over after it was done":          {false, []porcupine.Operation{first, op(0, 5, 6, handed{verdict: "ack", lease: "a"}), op(1, 15, 16, handed{lease: "b", until: at(20)})}},
		"acknowledged by who has it no more":     {false, []porcupine.Operation{first, op(1, 11, 12, handed{lease: "b", until: at(20)}), op(0, 13, 14, handed{verdict: "ack", lease: "a"})}},
		"acknowledged twice":                     {false, []porcupine.Operation{first, op(0, 5, 6, handed{verdict: "ack", lease: "a"}), op(0, 7, 8, handed{verdict: "ack", lease: "a"})}},
		"called lost while it is its worker's":   {false, []porcupine.Operation{first, op(0, 5, 6, handed{verdict: "ack", lease: "a", lost: true})}},
		"given back, and handed over right away": {true, []porcupine.Operation{first, op(0, 3, 4, handed{verdict: "nack", lease: "a"}), op(1, 5, 6, handed{lease: "b", until: at(20)})}},
	} {
		if porcupine.CheckOperations(leaseModel, c.history) != c.ok {
			t.Errorf("%s: judged wrongly", what)
		}
	}
}

// A dead event that holds its key goes on holding it when a replay hands it over and it dies again, also after a restart.
func TestReplayedWhileItHoldsItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deliver.Options{})
		id := w.workers(func(s *eventhose.Subscription) {
			s.Ordering, s.OnExhausted, s.Retry.Schedule = eventhose.OrderingKey, eventhose.OnExhaustedBlock, []eventhose.Duration{0}
		})
		w.append(some(2, 1)...)
		w.answer(id, nack, 0, w.pull(id, eventhose.Pull{Max: 10})...)
		if _, _, err := w.eng.Replay(t.Context(), tenant, id, eventhose.ReplaySpec{Status: "dead"}, false); err != nil {
			t.Fatal(err)
		}
		list := w.pull(id, eventhose.Pull{Max: 10, Lease: time.Hour})
		if got := leasedAt(list); !slices.Equal(got, []eventhose.Sequence{1}) {
			t.Fatalf("%v", got)
		}
		w.stop()
		w.start()
		defer w.stop()
		if got := leasedAt(w.pull(id, eventhose.Pull{Max: 10})); len(got) > 0 {
			t.Errorf("%v was handed over while a worker has what holds its key", got)
		}
		w.answer(id, nack, 0, list...)
		if got := leasedAt(w.pull(id, eventhose.Pull{Max: 10})); len(got) > 0 {
			t.Errorf("%v was handed over behind a dead event that holds its key", got)
		}
		if _, err := w.eng.Redrive(t.Context(), tenant, id, nil); err != nil {
			t.Fatal(err)
		}
		for want := eventhose.Sequence(1); want <= 2; want++ {
			list := w.pull(id, eventhose.Pull{Max: 10})
			if got := leasedAt(list); !slices.Equal(got, []eventhose.Sequence{want}) {
				t.Errorf("%v, and %d was next", got, want)
			}
			w.answer(id, ack, 0, list...)
		}
	})
}
