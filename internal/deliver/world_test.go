package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

const tenant = eventhose.TenantID("acme")

// world is the real store, log, control and engine around a scripted sink.
type world struct {
	t     *testing.T
	fs    vfs.FS
	dir   string
	opts  deliver.Options
	store *embedded.Store
	wrap  func(deliver.Store) deliver.Store // what the engine gets in place of the store, if set
	// system is the same of the log that takes the engine's events.
	system func(deliver.SystemLog) deliver.SystemLog
	fatal  func(error) // called when the engine gives up; if nil that is an error
	ctl    *control.Control
	log    *eventlog.Log
	eng    *deliver.Engine
	sink   *script
}

func newWorld(t *testing.T, opts deliver.Options) *world {
	w := &world{t: t, fs: vfs.NewMem(), dir: "data", opts: opts, sink: &script{}}
	w.start()
	if _, _, err := w.ctl.PutTenant(t.Context(), eventhose.Tenant{ID: tenant}); err != nil {
		t.Fatal(err)
	}
	return w
}

// start opens everything on the world's file system.
func (w *world) start() {
	w.t.Helper()
	var err error
	if w.store, err = embedded.Open(w.dir, embedded.Options{FS: w.fs, MinFree: -1}); err != nil {
		w.t.Fatal(err)
	}
	sinks := map[string]sink.Sink{eventhose.DestinationWebhook: w.sink}
	if w.ctl, err = control.New(w.store, control.Options{SecretKey: make([]byte, 32), Sinks: sinks}); err != nil {
		w.t.Fatal(err)
	}
	w.log = eventlog.New(w.store, w.ctl, eventlog.Options{Appended: func(id eventhose.TenantID) { w.eng.Appended(id) },
		Erased: func(id eventhose.TenantID, seq eventhose.Sequence) { w.eng.Erased(id, seq) },
		Lost:   func(id eventhose.TenantID, lost []store.LostParked) { w.eng.Lost(id, lost) }})
	opts := w.opts
	if opts.Fatal = w.fatal; opts.Fatal == nil {
		opts.Fatal = func(err error) { w.t.Errorf("the engine gave up: %v", err) }
	}
	opts.Logger = slog.New(slog.DiscardHandler)
	engineStore := deliver.Store(w.store)
	if w.wrap != nil {
		engineStore = w.wrap(engineStore)
	}
	system := deliver.SystemLog(w.log)
	if w.system != nil {
		system = w.system(system)
	}
	w.eng = deliver.New(engineStore, w.ctl, system, sinks, opts)
	w.ctl.Announce(w.eng.Changed)
	if err := w.eng.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// stop ends everything, letting attempts under way finish.
func (w *world) stop() {
	w.t.Helper()
	if err := errors.Join(w.eng.Stop(context.Background()), w.log.Close(), w.store.Close()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) subscribe(change func(*eventhose.Subscription)) eventhose.SubscriptionID {
	w.t.Helper()
	s := eventhose.Subscription{Tenant: tenant, Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook"}}
	if change != nil {
		change(&s)
	}
	s, err := w.ctl.CreateSubscription(context.Background(), s, "now")
	if err != nil {
		w.t.Fatal(err)
	}
	return s.ID
}

func (w *world) append(events ...eventhose.Event) []eventhose.Placement {
	w.t.Helper()
	var all []eventhose.Placement
	for chunk := range slices.Chunk(events, 1000) {
		placed, err := w.log.Append(context.Background(), tenant, chunk...)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, placed...)
	}
	return all
}

// some makes n events; keys > 0 spreads them over so many keys.
func some(n, keys int) []eventhose.Event {
	events := make([]eventhose.Event, n)
	for i := range events {
		events[i] = eventhose.Event{Type: "order.paid", Data: fmt.Appendf(nil, `{"n":%d}`, i)}
		if keys > 0 {
			events[i].Key = fmt.Sprintf("k%d", i%keys)
		}
	}
	return events
}

func (w *world) status(id eventhose.SubscriptionID) eventhose.LaneStatus {
	w.t.Helper()
	s, err := w.ctl.Subscription(context.Background(), tenant, id)
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := w.eng.Status(context.Background(), s)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// pass lets virtual time pass, and everything that is due in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// drained waits in virtual time until a lane has nothing left to do.
func (w *world) drained(id eventhose.SubscriptionID) {
	w.t.Helper()
	for range 100_000 {
		synctest.Wait()
		st := w.status(id)
		if st.Lag == 0 && st.InFlight == 0 && st.Retrying == 0 && st.Waiting == 0 && st.BlockedKeys == 0 && len(st.Replays) == 0 {
			return
		}
		pass(time.Second)
	}
	w.t.Fatalf("never drained: %+v", w.status(id))
}

// script is a sink whose answers a test decides.
type script struct {
	mu     sync.Mutex
	answer func(context.Context, *sink.Batch) sink.Result
	sent   []delivery
	busy   int
	most   int // under way at once
	forget bool
	count  int
}

// delivery is one try at one event as the receiver saw it.
type delivery struct {
	at        time.Time
	sub       eventhose.SubscriptionID
	seq, prev eventhose.Sequence
	key       string
	id        string // of the event
	batch     string // that it came in, "" if it came alone
	request   int64  // that it came with
	number    int
	kind      eventhose.AttemptKind
	replay    string
	taken     bool
}

// requests counts them over all sinks.
var requests atomic.Int64

// seen answers what a request brings, event by event.
func seen(b *sink.Batch) []delivery {
	request, all := requests.Add(1), make([]delivery, len(b.Items))
	for i, item := range b.Items {
		e := item.Event
		all[i] = delivery{at: time.Now(), sub: b.Subscription.ID, seq: e.Sequence, prev: item.Previous, key: e.Key, id: b.ID, request: request, number: b.Number, kind: b.Kind, replay: b.Replay}
		if b.Subscription.Batch.Batched() {
			all[i].id, all[i].batch = e.WebhookID(), b.ID
		}
	}
	return all
}

// answered notes what the receiver took.
func answered(all []delivery, b *sink.Batch, r sink.Result) {
	for i, item := range b.Items {
		named := slices.ContainsFunc(r.Failed, func(f sink.Refused) bool { return f.ID == item.Event.ID })
		all[i].taken = r.Outcome == eventhose.OutcomeTaken || r.Reason == eventhose.ReasonPartly && !named
	}
}

func (s *script) Check(eventhose.Destination) error { return nil }

func (s *script) Send(ctx context.Context, b *sink.Batch) sink.Result {
	all := seen(b)
	s.mu.Lock()
	s.busy++
	s.most = max(s.most, s.busy)
	answer := s.answer
	s.mu.Unlock()
	r := taken()
	if answer != nil {
		r = answer(ctx, b)
	}
	r.Started = all[0].at
	r.Duration = time.Since(r.Started)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	s.count++
	answered(all, b, r)
	if !s.forget {
		s.sent = append(s.sent, all...)
	}
	return r
}

func (s *script) set(answer func(context.Context, *sink.Batch) sink.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// all answers the tries so far, in the order in which they ended.
func (s *script) all() []delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

// firsts answers the first time that each sequence was taken, in order.
func (s *script) firsts() []delivery {
	seen := map[eventhose.Sequence]bool{}
	var firsts []delivery
	for _, d := range s.all() {
		if d.taken && !seen[d.seq] {
			seen[d.seq] = true
			firsts = append(firsts, d)
		}
	}
	return firsts
}

func taken() sink.Result { return sink.Result{Outcome: eventhose.OutcomeTaken, Status: 200} }

func failed(status int) sink.Result {
	return sink.Result{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStatus, Status: status, Message: fmt.Sprintf("the receiver answered %d", status)}
}

// partly refuses the events of a batch for which bad answers true, or takes it all if there is none.
func partly(b *sink.Batch, bad func(*eventhose.Event) bool) sink.Result {
	r := sink.Result{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonPartly, Status: 200, Message: "the receiver did not take some"}
	for _, item := range b.Items {
		if bad(item.Event) {
			r.Failed = append(r.Failed, sink.Refused{ID: item.Event.ID, Message: fmt.Sprintf("no %d", item.Event.Sequence)})
		}
	}
	if r.Failed == nil {
		return taken()
	}
	return r
}

// always answers everything in one way.
func always(r sink.Result) func(context.Context, *sink.Batch) sink.Result {
	return func(context.Context, *sink.Batch) sink.Result { return r }
}
