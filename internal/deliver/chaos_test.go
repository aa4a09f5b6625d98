package deliver_test

// A random life of an engine: several subscriptions, receivers of changing moods, everything that an operator can do,
// restarts and power cuts. What the receivers saw is then held against what was promised (audit_test.go).

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
)

// slotsInAll bounds the attempts under way in a random life.
const slotsInAll = 24

// disk can be copied from inside its own operations; some take the lock that CrashClone waits for twice.
type disk struct {
	*vfs.MemFS
	twice sync.RWMutex
}

func (d *disk) Link(oldname, newname string) error {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.Link(oldname, newname)
}

func (d *disk) Lock(name string) (io.Closer, error) {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.Lock(name)
}

func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.ReuseForWrite(oldname, newname, category)
}

// watched is what the test knows of a subscription.
type watched struct {
	id       eventhose.SubscriptionID
	ordering eventhose.Ordering
	blocks   bool // on_exhausted
	inFlight int  // requests
	begin    eventhose.Sequence
	due      func(*eventhose.Event) bool // nil: its filter changes, or it may be deleted
	deleted  bool

	redriven  map[eventhose.Sequence]bool
	discarded map[eventhose.Sequence]bool
}

// arrival is an event that a receiver took, or refused while it took others of its batch, and in which life.
type arrival struct {
	delivery
	life int
}

// chaos is the state of one random life.
type chaos struct {
	t   *testing.T
	w   *world
	rng *rand.Rand

	subs    []*watched
	events  map[eventhose.Sequence]*eventhose.Event
	acked   map[string]eventhose.Sequence
	erased  map[eventhose.Sequence]bool
	trimmed eventhose.Sequence // the first left
	n       int
	fixed   int  // subscriptions that are never deleted
	bursts  bool // more events at once than a window holds, which takes long
	wrong   []string
	past    []string // what retention did, and when lives ended

	mu        sync.Mutex
	disk      *disk
	cuts      *rand.Rand
	countdown int           // write operations until the power is cut, 0 is never
	left      *vfs.MemFS    // what the cut has left
	after     []bool        // by life: whether a cut ended it
	life      int           // of the present engine
	under     map[*try]bool // of the present engine
	took      []arrival
	moods     map[eventhose.SubscriptionID]mood
	first     map[place]int                 // the life in which an event came for the first time, taken or not
	lose      func(*sink.Batch) *sink.Batch // planted: what arrives of what is sent
	misread   func(sink.Result) sink.Result // planted: what is made of an answer
}

// place is an event at a subscription.
type place struct {
	sub eventhose.SubscriptionID
	seq eventhose.Sequence
}

// try is a request under way.
type try struct{ all []delivery }

type mood struct {
	name    string
	one     int // fails one in so many
	slow    time.Duration
	healthy bool
}

func newChaos(t *testing.T, seed uint64, wrap func(*chaos, deliver.Store) deliver.Store) *chaos {
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, 1)), cuts: rand.New(rand.NewPCG(seed, 2)), disk: &disk{MemFS: vfs.NewCrashableMem()},
		events: map[eventhose.Sequence]*eventhose.Event{}, acked: map[string]eventhose.Sequence{}, erased: map[eventhose.Sequence]bool{},
		bursts: seed%8 == 0, after: []bool{false}, under: map[*try]bool{}, moods: map[eventhose.SubscriptionID]mood{}, first: map[place]int{}, trimmed: 1}
	c.w = &world{t: t, dir: "data", opts: deliver.Options{MaxInFlight: slotsInAll}}
	if wrap != nil {
		c.w.wrap = func(s deliver.Store) deliver.Store { return wrap(c, s) }
	}
	c.open()
	if _, _, err := c.w.ctl.PutTenant(context.Background(), eventhose.Tenant{ID: tenant}); err != nil {
		t.Fatal(err)
	}
	return c
}

// open starts a life on the present disk.
func (c *chaos) open() {
	c.w.fs = errorfs.Wrap(c.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpFilePreallocate {
			c.mu.Lock()
			if c.countdown > 0 {
				if c.countdown--; c.countdown == 0 {
					c.cut()
				}
			}
			c.mu.Unlock()
		}
		return nil
	}))
	c.w.sink = &script{forget: true}
	life := c.life
	c.w.sink.set(func(ctx context.Context, b *sink.Batch) sink.Result { return c.receive(ctx, b, life) })
	c.w.start()
}

// cut takes what a power cut leaves of the disk; from here on the present life counts no more. c.mu is held.
func (c *chaos) cut() {
	if c.left != nil {
		return
	}
	c.disk.twice.Lock()
	c.left = c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 0, c.cuts.IntN(101), 100}[c.cuts.IntN(4)], RNG: c.cuts})
	c.disk.twice.Unlock()
	for t := range c.under { // the receiver may have taken what was on its way
		if c.cuts.IntN(2) == 0 {
			for i := range t.all {
				t.all[i].taken = true
			}
			c.take(t)
		}
	}
	c.endLife(true)
}

// endLife has what the present engine does count for nothing from here on. c.mu is held.
func (c *chaos) endLife(cut bool) {
	c.after[c.life] = cut
	clear(c.under)
	c.life++
	c.after = append(c.after, false)
}

// receive is every receiver.
func (c *chaos) receive(ctx context.Context, b *sink.Batch, life int) sink.Result {
	if c.lose != nil {
		b = c.lose(b)
	}
	t := &try{seen(b)}
	c.mu.Lock()
	m := c.moods[b.Subscription.ID]
	c.checkBatch(b)
	if life == c.life {
		c.under[t] = true
		for _, d := range t.all {
			if at := (place{d.sub, d.seq}); c.first[at] == 0 {
				c.first[at] = life + 1
			}
		}
	}
	chance := c.cuts.IntN(1 << 20)
	c.mu.Unlock()
	r := taken()
	wait := m.slow
	switch {
	case m.healthy:
	case m.one > 0 && chance%m.one == 0:
		r = failed(500)
	case m.name == "poison" && b.Subscription.Batch.Batched():
		r = partly(b, func(e *eventhose.Event) bool { return e.Sequence%7 == 0 })
	case m.name == "poison" && b.Items[0].Event.Sequence%7 == 0:
		r = failed(422)
	case m.name == "picky" && b.Subscription.Batch.Batched():
		r = partly(b, func(e *eventhose.Event) bool { return (int(e.Sequence)+chance)%3 == 0 })
	case m.name == "busy" && chance%3 > 0:
		r = failed(429)
		r.RetryAfter, r.Slow = time.Duration(1+chance%15)*time.Second, true
	case m.name == "gone" && chance%20 == 0:
		r = sink.Result{Outcome: eventhose.OutcomeGone, Status: 410}
	case m.name == "hangs" && chance%3 == 0:
		wait = time.Duration(b.Subscription.Retry.Timeout)
		r = sink.Result{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonTimeout, Slow: true}
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			r = sink.Result{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStopping}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.under, t)
	answered(t.all, b, r)
	if life == c.life {
		c.take(t)
	}
	if c.misread != nil {
		r = c.misread(r)
	}
	return r
}

// take notes what a receiver took, and of a batch that it took in part also what it had before it and did not take. c.mu is
// held.
func (c *chaos) take(t *try) {
	some := slices.ContainsFunc(t.all, func(d delivery) bool { return d.taken })
	for _, d := range t.all {
		if some && d.seq > 0 {
			c.took = append(c.took, arrival{d, c.life})
		}
	}
}

// checkBatch holds a request against what a batch may be. c.mu is held.
func (c *chaos) checkBatch(b *sink.Batch) {
	policy, id, data := b.Subscription.Batch, b.Items[0].Event.WebhookID(), 0
	for i, item := range b.Items {
		if data += len(item.Event.Data); i > 0 && item.Event.Sequence <= b.Items[i-1].Event.Sequence {
			c.bad("%s: %d comes after %d in one batch", b.Subscription.ID, item.Event.Sequence, b.Items[i-1].Event.Sequence)
		}
	}
	if policy.Batched() && b.Kind != eventhose.AttemptTest {
		id = batchID(b)
	}
	if n := len(b.Items); n > max(1, policy.MaxEvents) || n > 1 && data > policy.MaxBytes || b.ID != id && b.Kind != eventhose.AttemptTest {
		c.bad("%s: a batch of %d events with %d bytes has the id %s, with a policy of %+v and what should be %s", b.Subscription.ID, n, data, b.ID, policy, id)
	}
}

// batchID is how a batch is named, written once more.
func batchID(b *sink.Batch) string {
	text := []byte(string(b.Subscription.ID) + "\x00")
	for _, item := range b.Items {
		e := item.Event
		text = binary.BigEndian.AppendUint64(text, uint64(e.Sequence))
		for _, s := range []string{e.Scope, e.ID} {
			text = append(binary.AppendUvarint(text, uint64(len(s))), s...)
		}
	}
	sum := sha256.Sum256(text)
	return "bat_" + eventhose.IDText([16]byte(sum[:16]))
}

func (c *chaos) bad(format string, args ...any) {
	if len(c.wrong) < 20 {
		c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
	}
}

// dead reports whether the present engine's power was cut; what it answers then counts for nothing.
func (c *chaos) dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left != nil
}

// answered reports whether an answer of the engine counts and is no error.
func (c *chaos) answered(what string, err error) bool {
	if c.dead() {
		return false
	}
	if err != nil {
		switch eventhose.CodeOf(err) {
		case eventhose.CodeNotFound, eventhose.CodeCursorGone, eventhose.CodeLimit:
		default:
			c.bad("%s: %v", what, err)
		}
	}
	return err == nil
}

func (c *chaos) subscribe(begin string, due func(*eventhose.Event) bool, change func(*eventhose.Subscription)) *watched {
	s := eventhose.Subscription{Tenant: tenant, Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "https://example.com/hook"}, MaxInFlight: 1 + c.rng.IntN(8)}
	s.Retry = eventhose.Retry{Timeout: eventhose.Duration(2 * time.Second), Schedule: []eventhose.Duration{0, eventhose.Duration(time.Second), eventhose.Duration(4 * time.Second), eventhose.Duration(20 * time.Second)}}
	if change != nil {
		change(&s)
	}
	head, err := c.w.store.Head(context.Background(), tenant)
	if err != nil {
		c.t.Fatal(err)
	}
	after := head.Last
	if begin == "start" {
		after = head.First - 1
	}
	s, err = c.w.ctl.CreateSubscription(context.Background(), s, begin)
	if !c.answered("subscribe", err) {
		return nil
	}
	sub := &watched{id: s.ID, ordering: s.Ordering, blocks: s.OnExhausted == eventhose.OnExhaustedBlock, inFlight: s.MaxInFlight, begin: after, due: due,
		redriven: map[eventhose.Sequence]bool{}, discarded: map[eventhose.Sequence]bool{}}
	c.subs = append(c.subs, sub)
	return sub
}

// populate makes the subscriptions of each life.
func (c *chaos) populate() {
	all := func(*eventhose.Event) bool { return true }
	paid := func(e *eventhose.Event) bool { return e.Type == "order.paid" }
	order := func(o eventhose.Ordering) func(*eventhose.Subscription) {
		return func(s *eventhose.Subscription) { s.Ordering = o }
	}
	c.subscribe("now", all, nil)
	c.subscribe("now", all, order(eventhose.OrderingKey))
	c.subscribe("now", all, order(eventhose.OrderingStrict))
	c.subscribe("now", paid, func(s *eventhose.Subscription) {
		s.Ordering, s.OnExhausted, s.Filter.Types = eventhose.OrderingKey, eventhose.OnExhaustedBlock, []string{"order.paid"}
	})
	c.subscribe("now", func(e *eventhose.Event) bool { return e.Key == "k1" || e.Key == "k2" }, func(s *eventhose.Subscription) {
		s.Ordering, s.OnExhausted, s.Filter.Keys = eventhose.OrderingStrict, eventhose.OnExhaustedBlock, []string{"k1", "k2"}
	})
	c.subscribe("now", func(e *eventhose.Event) bool { return e.Key == "k1" || paid(e) }, func(s *eventhose.Subscription) {
		s.Ordering, s.Filter.Expression = eventhose.OrderingKey, `key == "k1" || type == "order.paid"`
	})
	c.subscribe("now", all, func(s *eventhose.Subscription) {
		s.Ordering, s.Retry.Schedule[0] = eventhose.OrderingStrict, eventhose.Duration(2*time.Second)
	})
	c.subscribe("now", nil, order(eventhose.OrderingKey)) // its filter, ordering and batches change
	batch := func(o eventhose.Ordering, x eventhose.OnExhausted) func(*eventhose.Subscription) {
		return func(s *eventhose.Subscription) {
			if s.Ordering, s.OnExhausted, s.Batch = o, x, c.policy(); x == eventhose.OnExhaustedBlock {
				s.Retry.Schedule = s.Retry.Schedule[:2] // so that much is dead
			}
		}
	}
	c.subscribe("now", all, batch(eventhose.OrderingNone, ""))
	c.subscribe("now", all, batch(eventhose.OrderingKey, ""))
	c.subscribe("now", all, batch(eventhose.OrderingStrict, ""))
	c.subscribe("now", all, batch(eventhose.OrderingKey, eventhose.OnExhaustedBlock))
	c.subscribe("now", all, batch(eventhose.OrderingStrict, eventhose.OnExhaustedBlock))
	c.fixed = len(c.subs)
}

// policy is a random one for batches.
func (c *chaos) policy() eventhose.BatchPolicy {
	return eventhose.BatchPolicy{MaxEvents: []int{2, 3, 10, 100, 1000}[c.rng.IntN(5)], MaxBytes: []int{1024, 4096, 1 << 20}[c.rng.IntN(3)],
		MaxWait: eventhose.Duration([]time.Duration{0, 0, 100 * time.Millisecond, 5 * time.Second}[c.rng.IntN(4)])}
}

func (c *chaos) append(n int) {
	events := make([]eventhose.Event, n)
	for i := range events {
		c.n++
		events[i] = eventhose.Event{ID: fmt.Sprintf("e%d", c.n), Type: []string{"order.paid", "order.sent", "mail"}[c.rng.IntN(3)], Data: []byte(`{}`)}
		if c.rng.IntN(4) == 0 {
			events[i].Data = fmt.Appendf(nil, `"%0*d"`, c.rng.IntN(1500), 0)
		}
		if k := c.rng.IntN(5); k > 0 {
			events[i].Key = fmt.Sprintf("k%d", k)
		}
	}
	placed, err := c.w.log.Append(context.Background(), tenant, events...)
	if c.answered("append", err) {
		for _, p := range placed {
			c.acked[p.ID] = p.Sequence
		}
	}
}

// learn reads what is new in the log.
func (c *chaos) learn() {
	after := eventhose.Sequence(len(c.events))
	for {
		page, err := c.w.store.Read(context.Background(), tenant, after, store.ReadLimit{Events: 1000, Bytes: 1 << 20})
		if err != nil {
			c.t.Fatal(err)
		}
		if len(page) == 0 || c.dead() {
			return
		}
		for _, e := range page {
			after = e.Sequence
			c.events[after] = e
		}
	}
}

// step does one random thing.
func (c *chaos) step() {
	ctx := context.Background()
	s := c.subs[c.rng.IntN(len(c.subs))]
	switch n := c.rng.IntN(100); {
	case n < 30:
		if c.bursts && n == 0 && c.rng.IntN(3) == 0 && c.n < 3000 {
			c.append(1300) // more than a window
		}
		c.append(1 + c.rng.IntN(12))
	case n < 52:
		pass([]time.Duration{0, 3 * time.Millisecond, time.Second, 3 * time.Second, time.Duration(c.rng.IntN(10_000)) * time.Millisecond, time.Minute}[c.rng.IntN(6)])
	case n < 53:
		pass(3 * time.Hour)
	case n < 66:
		m := []mood{{}, {}, {one: 2}, {one: 1}, {one: 8, slow: 20 * time.Millisecond}, {slow: time.Duration(c.rng.IntN(1500)) * time.Millisecond},
			{name: "poison"}, {name: "busy"}, {name: "gone"}, {name: "hangs"}, {name: "picky"}}[c.rng.IntN(11)]
		c.mu.Lock()
		c.moods[s.id] = m
		c.mu.Unlock()
	case n < 71:
		state := []eventhose.SubscriptionState{eventhose.StatePaused, eventhose.StateActive, eventhose.StateActive}[c.rng.IntN(3)]
		_, err := c.w.ctl.SetState(ctx, tenant, s.id, state)
		c.answered("set the state", err)
	case n < 74:
		if s.due == nil && !s.deleted {
			o := []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey, eventhose.OrderingStrict}[c.rng.IntN(3)]
			f := []eventhose.Filter{{}, {Types: []string{"order.*"}}, {Keys: []string{"k1", "k3"}}, {Expression: `type == "mail"`}}[c.rng.IntN(4)]
			p := []eventhose.BatchPolicy{{}, c.policy()}[c.rng.IntN(2)]
			_, err := c.w.ctl.UpdateSubscription(ctx, tenant, s.id, eventhose.SubscriptionPatch{Ordering: &o, Filter: &f, Batch: &p}, nil)
			c.answered("change a filter", err)
		} else if !s.deleted {
			p := c.policy()
			_, err := c.w.ctl.UpdateSubscription(ctx, tenant, s.id, eventhose.SubscriptionPatch{Batch: &p}, nil)
			c.answered("change a policy", err)
		}
	case n < 77:
		c.decide(true)
	case n < 79:
		c.decide(false)
	case n < 82:
		spec := eventhose.ReplaySpec{Status: []string{"", "delivered", "failed", "dead"}[c.rng.IntN(4)]}
		if last := len(c.acked); last > 0 && c.rng.IntN(2) == 0 {
			spec.From = eventhose.Sequence(1 + c.rng.IntN(last))
			spec.To = spec.From + eventhose.Sequence(c.rng.IntN(30))
		}
		_, _, err := c.w.eng.Replay(ctx, tenant, s.id, spec, c.rng.IntN(4) == 0)
		c.answered("replay", err)
	case n < 83:
		_, err := c.w.eng.Test(ctx, tenant, s.id)
		c.answered("test", err)
	case n < 85:
		if len(c.subs) < c.fixed+6 {
			begin := []string{"now", "start"}[c.rng.IntN(2)]
			c.subscribe(begin, func(*eventhose.Event) bool { return true }, func(s *eventhose.Subscription) {
				s.Ordering = []eventhose.Ordering{eventhose.OrderingNone, eventhose.OrderingKey, eventhose.OrderingStrict}[c.rng.IntN(3)]
				s.Batch = []eventhose.BatchPolicy{{}, c.policy()}[c.rng.IntN(2)]
			})
		} else if s = c.subs[c.fixed+c.rng.IntN(len(c.subs)-c.fixed)]; !s.deleted {
			s.due, s.deleted = nil, true
			c.answered("delete", c.w.ctl.DeleteSubscription(ctx, tenant, s.id))
		}
	case n < 88:
		if c.n > 0 {
			id := fmt.Sprintf("e%d", 1+c.rng.IntN(c.n))
			if seq := c.acked[id]; seq > 0 {
				c.erased[seq] = true
				c.answered("erase", c.w.log.Erase(ctx, tenant, "", id))
			}
		}
	case n < 89:
		c.mu.Lock()
		c.countdown = 0 // not between retention and its telling what it took, which are two commits
		c.mu.Unlock()
		if c.learn(); c.dead() {
			return
		}
		keep := []int64{0, 8, 1 << 20}[c.rng.IntN(3)]
		if _, _, err := c.w.ctl.PutTenant(ctx, eventhose.Tenant{ID: tenant, Retention: eventhose.Retention{Age: eventhose.Duration(time.Minute + time.Duration(c.rng.IntN(30))*time.Minute), DeadBytes: max(1, keep)}}); err == nil {
			c.answered("trim", c.w.log.Retain(ctx))
		}
		head, err := c.w.store.Head(ctx, tenant)
		if err != nil {
			c.t.Fatal(err)
		}
		c.past = append(c.past, fmt.Sprintf("%s life %d: kept %d and left %d to %d", time.Now().Format("15:04:05.000"), c.life, keep, head.First, head.Last))
		c.trimmed = max(c.trimmed, head.First) // a cut may take it back; then more is there than is asked for
	case n < 92:
		c.restart()
	case n < 95:
		c.crash()
	case n < 98:
		c.arm(300) // in whatever comes next
	default:
		synctest.Wait()
		c.bounds()
	}
}

// decide redrives or discards half of what is dead at one of the subscriptions that have any.
func (c *chaos) decide(redrive bool) {
	ctx := context.Background()
	var s *watched
	var rows []store.Parked
	for _, at := range c.rng.Perm(len(c.subs)) {
		var err error
		s = c.subs[at]
		if rows, err = c.w.store.Parked(ctx, tenant, s.id, store.ParkedQuery{State: eventhose.ParkedDead, Limit: eventhose.MaxParked}); err != nil {
			c.t.Fatal(err)
		}
		if len(rows) > 0 {
			break
		}
	}
	act, note := c.w.eng.Discard, s.discarded
	if redrive {
		act, note = c.w.eng.Redrive, s.redriven
	}
	var ids []string
	for _, p := range rows {
		if c.rng.IntN(2) == 0 {
			ids = append(ids, p.Event)
			note[p.Sequence] = true
		}
	}
	if len(ids) > 0 {
		_, err := act(ctx, tenant, s.id, ids)
		c.answered("decide", err)
	}
}

func (c *chaos) bounds() {
	for _, s := range c.subs {
		row, keys, err := c.w.store.Lane(context.Background(), tenant, s.id)
		if err == nil && (len(row.Settled) > 1024 || row.Retrying+row.Dead > eventhose.MaxParked || len(keys) > eventhose.MaxParked || len(row.Replays) > eventhose.MaxReplays) {
			c.bad("%s: %d settled, %d retrying, %d dead, %d keys, %d replays", s.id, len(row.Settled), row.Retrying, row.Dead, len(keys), len(row.Replays))
		}
	}
}

// restart stops cleanly, in its own time or cutting off what is under way, and starts again.
func (c *chaos) restart() {
	c.stop([]time.Duration{0, 100 * time.Millisecond, time.Minute}[c.rng.IntN(3)])
	c.mu.Lock()
	if c.left == nil {
		c.endLife(false)
	}
	c.mu.Unlock()
	c.reopen()
}

func (c *chaos) stop(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := c.w.eng.Stop(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		c.t.Fatal(err)
	}
	if err := errors.Join(c.w.log.Close(), c.w.store.Close()); err != nil {
		c.t.Fatal(err)
	}
}

// reopen goes on with the disk, or with what a cut has left of it.
func (c *chaos) reopen() {
	c.mu.Lock()
	c.countdown = 0
	if c.left != nil {
		c.disk, c.left = &disk{MemFS: c.left}, nil
		c.past = append(c.past, fmt.Sprintf("%s cut", time.Now().Format("15:04:05.000")))
	}
	c.mu.Unlock()
	c.open()
}

// crash cuts the power while events come in, and goes on with what is left.
func (c *chaos) crash() {
	c.arm(40)
	for i := range 6 {
		c.append(1 + c.rng.IntN(6))
		if c.dead() {
			break
		}
		pass(time.Duration(c.rng.IntN(300*i+1)) * time.Millisecond)
	}
	c.mu.Lock()
	c.cut()
	c.mu.Unlock()
}

// arm has the power cut within so many write operations.
func (c *chaos) arm(within int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.countdown = 1 + c.rng.IntN(within)
}

// revive goes on after a cut, if there was one.
func (c *chaos) revive() {
	if c.dead() {
		c.stop(0)
		c.reopen()
	}
}
