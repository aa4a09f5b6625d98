package embedded_test

// Power cuts. Scripts work on a store whose disk is Pebble's crashable one. From inside the disk's own operations (so in the
// middle of commits, flushes, compactions, start and stop) a copy is taken of what a power cut at that moment could
// leave. Each copy is opened and must hold, for each script, everything that was answered or could be read before the
// cut, and of what was under way all or nothing. Then work goes on there, and some of it is cut again.
//
// EVENTHOSE_SEED repeats a run (as far as goroutines let it), EVENTHOSE_CUTS makes it longer.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/storetest"
)

const dataDir = "data"

// seed is EVENTHOSE_SEED or drawn, and printed when the test fails.
func seed(t *testing.T) uint64 {
	n := rand.Uint64() >> 1
	if s := os.Getenv("EVENTHOSE_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("EVENTHOSE_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("EVENTHOSE_SEED=%d", n)
		}
	})
	return n
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, or int) int {
	s := os.Getenv(name)
	if s == "" {
		return or
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// atWork runs job(0) to job(n-1), as many at once as there are processors, until one answers an error, and answers that.
func atWork(n int, job func(i int) error) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := job(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// powerCuts is one run: how large it is, and the faults that are planted in it.
type powerCuts struct {
	scripts int // side by side on one store
	ops     int // of all of them together, in the first life of the store
	cuts    int // of the first life
	percent int // chance of one at each operation of the disk; 0 is 100
	// appenders append to the log of all, ops times together, events with so much padding.
	appenders, padding int

	plantFS func(vfs.FS) vfs.FS
	plant   func(store.Store) store.Store

	tally  *tally
	enough int64 // cuts of all runs after which this one ends; 0 is no bound
}

// tally counts what really happened, over all runs.
type tally struct{ cuts, opened, inside, opening, again, settledNew, seenFirst, reused atomic.Int64 }

const maxDepth = 3 // lives of a store after the first

// run answers the first violation.
func (p powerCuts) run(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	var claims []claim
	for i := range p.scripts {
		claims = append(claims, claim{name: string(rune('a' + i)), model: storetest.NewModel()})
	}
	_, err := p.live(rng, vfs.NewCrashableMem(), claims, shared{padding: p.padding}, p.ops, p.cuts, 0)
	return err
}

// settled is what a disk turned out to hold: the last operation of each script, and how much of the shared log.
type settled struct {
	n      []int
	shared int
}

// within says whether what a disk is known to hold is what another cut that left the very same bytes must hold. If not,
// it is opened after all: an operation that changes nothing leaves the same bytes.
func (s settled) within(claims []claim, log *shared) bool {
	for i, c := range claims {
		if s.n[i] < c.n || s.n[i] > c.n+len(c.rest) {
			return false
		}
	}
	return log.whole(s.shared) == nil
}

// claim says what a disk must hold of one script: its model, and of rest the first ones, in order, up to any.
type claim struct {
	name  string
	model *storetest.Model
	n     int // the number of the model's last operation
	rest  []step
}

type step struct {
	op     storetest.Op
	answer storetest.Answer
}

// cut is a copy of the disk with what it must hold.
type cut struct {
	disk                 *vfs.MemFS
	percent              int
	opening              bool
	acked, seen, started []int64 // by script: numbers of operations
	sharedMin            int64
}

// line is one script in one life of the store.
type line struct {
	script               *storetest.Script
	base                 *storetest.Model
	first                int // number of the base's last operation
	steps                []step
	acked, seen, started atomic.Int64
}

// live opens a disk, checks that it holds what is claimed, works on, and opens every copy that was cut off meanwhile.
func (p powerCuts) live(rng *rand.Rand, mem *vfs.MemFS, claims []claim, log shared, ops, cuts, depth int) (held settled, err error) {
	c := &cutter{disk: &powerDisk{MemFS: mem, small: p.padding > 0}, rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), left: cuts, percent: 100, opening: true}
	switch {
	case depth > 0:
		c.percent = 4
	case p.percent > 0:
		c.percent = p.percent
	}
	before := log
	st, err := p.open(c)
	if err != nil {
		return held, fmt.Errorf("open: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lines := make([]*line, len(claims))
	for i, cl := range claims {
		if lines[i], err = p.settle(ctx, rng, st, cl); err != nil {
			return held, errors.Join(fmt.Errorf("script %s: %w", cl.name, err), st.Close())
		}
	}
	if err := log.settle(ctx, st); err != nil {
		return held, errors.Join(fmt.Errorf("shared log: %w", err), st.Close())
	}
	for _, l := range lines {
		held.n = append(held.n, l.first)
	}
	held.shared = len(log.events)
	err = p.work(ctx, rng, c, st, lines, &log, ops)
	if err == nil {
		err = log.finish(ctx, st)
	}
	if err == nil && (depth == 0 || rng.IntN(8) == 0) {
		for _, l := range lines {
			err = errors.Join(err, shallow(func() error { return l.script.Check(ctx, st, 1) }))
		}
	}
	if err := errors.Join(err, st.Close()); err != nil {
		return held, err
	}
	p.tally.reused.Add(c.disk.reused.Load())
	known := map[uint64]settled{} // by what is on the disk
	for _, cut := range c.stop() {
		if p.enough > 0 && p.tally.cuts.Load() >= p.enough {
			break
		}
		p.count(cut, depth)
		next := make([]claim, len(lines))
		for i, l := range lines {
			if next[i] = claims[i]; !cut.opening {
				next[i] = l.claim(claims[i].name, cut.acked[i], cut.seen[i], cut.started[i])
			}
		}
		log := log.after(cut)
		if cut.opening {
			log = before
		}
		sum := contents(cut.disk)
		if s, ok := known[sum]; ok && s.within(next, &log) {
			continue // the very same bytes; what differs is what they have to hold
		}
		p.tally.opened.Add(1)
		again := 0
		if depth < maxDepth && rng.IntN(5) == 0 {
			again = 1
		}
		if known[sum], err = p.live(rng, cut.disk, next, log, 3*rng.IntN(2), again, depth+1); err != nil {
			return held, fmt.Errorf("power cut %d deep with %d %% of unsynced data left (while opening: %v): %w", depth+1, cut.percent, cut.opening, err)
		}
	}
	return held, nil
}

func (p powerCuts) count(c cut, depth int) {
	p.tally.cuts.Add(1)
	if c.opening {
		p.tally.opening.Add(1)
	}
	if depth > 0 {
		p.tally.again.Add(1)
	}
	inside, seen := false, false
	for i := range c.started {
		inside = inside || c.started[i] > c.acked[i]
		seen = seen || c.seen[i] > c.acked[i]
	}
	if inside {
		p.tally.inside.Add(1)
	}
	if seen {
		p.tally.seenFirst.Add(1)
	}
}

func (p powerCuts) open(c *cutter) (store.Store, error) {
	var disk vfs.FS = c.disk
	if p.plantFS != nil {
		disk = p.plantFS(disk)
	}
	st, err := embedded.Open(dataDir, options(c.wrap(disk)))
	if err != nil {
		return nil, err
	}
	if p.plant != nil {
		return p.plant(st), nil
	}
	return st, nil
}

// settle finds out which of the states that a claim allows the store holds.
func (p powerCuts) settle(ctx context.Context, rng *rand.Rand, st store.Store, c claim) (*line, error) {
	model, n := c.model, c.n
	var violations []error
	for rest := c.rest; ; rest = rest[1:] {
		script := storetest.NewScript(rand.New(rand.NewPCG(rng.Uint64(), 2)), c.name, model.Clone(), n)
		lookups := 0
		if len(c.rest) > 0 {
			lookups = 1 // a sample cannot tell states apart
		}
		err := shallow(func() error { return script.Check(ctx, st, lookups) })
		if err == nil {
			if len(rest) < len(c.rest) {
				p.tally.settledNew.Add(1)
			}
			l := &line{script: script, base: model.Clone(), first: n}
			l.acked.Store(int64(n))
			l.started.Store(int64(n))
			return l, nil
		}
		violations = append(violations, fmt.Errorf("not the state after op %d: %w", n, err))
		if len(rest) == 0 {
			return nil, errors.Join(violations...)
		}
		model = model.Clone()
		if err := model.Apply(rest[0].op, rest[0].answer); err != nil {
			return nil, err
		}
		n = rest[0].op.N
	}
}

// shallow calls f on a stack of its own: under the race detector Pebble writes down the stack of every iterator, and that
// is most of what this test costs.
func shallow(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return <-done
}

// work runs operations of all scripts side by side, and a reader of what can be seen meanwhile.
func (p powerCuts) work(ctx context.Context, rng *rand.Rand, c *cutter, st store.Store, lines []*line, log *shared, ops int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	writing := c.work(lines, log)
	var workers, readers sync.WaitGroup
	for i, l := range lines {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 3))
		workers.Go(func() {
			for range (ops + len(lines) - 1) / len(lines) {
				err := l.step(ctx, st)
				if err == nil && rng.IntN(5) == 0 {
					err = log.append(ctx, st, rng, i)
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := range p.appenders {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 4))
		workers.Go(func() {
			for range ops / p.appenders {
				if err := log.append(ctx, st, rng, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	readers.Go(func() {
		turn := 0
		for range writing { // when the disk is about to write, that is with something under way
			turn++
			err := log.look(ctx, st)
			if i := turn % (len(lines) + 1); i > 0 {
				err = lines[i-1].look(ctx, st, turn/(len(lines)+1))
			}
			if err != nil {
				cancel(fmt.Errorf("reader: %w", err))
			}
		}
	})
	workers.Wait()
	c.quiet()
	readers.Wait()
	return context.Cause(ctx)
}

func (l *line) step(ctx context.Context, st store.Store) error {
	op := l.script.Next()
	l.started.Store(int64(op.N))
	answer := op.Do(ctx, st)
	if err := l.script.Model.Apply(op, answer); err != nil {
		return err
	}
	l.steps = append(l.steps, step{op, answer})
	l.acked.Store(int64(op.N))
	return nil
}

func (l *line) look(ctx context.Context, st store.Store, turn int) error {
	mark, err := l.script.MarkOf(ctx, st, turn)
	if err == nil && int64(mark) > l.seen.Load() {
		l.seen.Store(int64(mark))
	}
	return err
}

// claim moves the line's base, for good, to the least that a cut must hold. Cuts come in the order in which they were taken.
func (l *line) claim(name string, acked, seen, started int64) claim {
	for len(l.steps) > 0 && l.first < int(max(acked, seen)) {
		// It was applied without an error before.
		_ = l.base.Apply(l.steps[0].op, l.steps[0].answer)
		l.first, l.steps = l.steps[0].op.N, l.steps[1:]
	}
	n := 0
	for n < len(l.steps) && l.steps[n].op.N <= int(started) {
		n++
	}
	return claim{name: name, model: l.base.Clone(), n: l.first, rest: l.steps[:n:n]}
}

// shared is a log that all scripts append to at once, which nothing is removed from: after a cut it must be a beginning
// of what it became, no shorter than what was answered or read, and not in the middle of one append.
type shared struct {
	events  []*eventhose.Event // of earlier lives, then of this one
	min     int64              // how many at least there must be
	padding int                // of each event's data

	mu         *sync.Mutex
	inner      map[eventhose.Sequence]bool // lasts of appends that are not whole
	acked      *atomic.Int64
	remembered []string
	n          int
}

const sharedLog eventhose.TenantID = "shared"

func (s *shared) settle(ctx context.Context, st store.Store) error {
	got, err := s.read(ctx, st, 0)
	if err != nil {
		return err
	}
	if err := s.whole(len(got)); err != nil {
		return err
	}
	for i, e := range got {
		if err := storetest.SameEvent(e, s.events[i]); err != nil {
			return err
		}
	}
	s.events, s.min, s.remembered = got, int64(len(got)), nil
	s.mu, s.acked, s.inner = new(sync.Mutex), new(atomic.Int64), map[eventhose.Sequence]bool{}
	s.acked.Store(s.min)
	for _, e := range got {
		if e.Version == "named" {
			s.remembered = append(s.remembered, e.ID)
		}
	}
	return nil
}

// whole checks that the log may end after n events.
func (s *shared) whole(n int) error {
	if int64(n) < s.min || n > len(s.events) {
		return fmt.Errorf("shared log has %d events, want %d to %d", n, s.min, len(s.events))
	}
	if s.inner[eventhose.Sequence(n)] {
		return fmt.Errorf("shared log ends at %d, within one append", n)
	}
	return nil
}

func (s *shared) read(ctx context.Context, st store.Store, after eventhose.Sequence) (all []*eventhose.Event, err error) {
	for {
		page, err := st.Read(ctx, sharedLog, after, store.ReadLimit{Events: 1000, Bytes: 1 << 20})
		if err != nil || len(page) == 0 {
			return all, err
		}
		for _, e := range page {
			if after++; e.Sequence != after {
				return nil, fmt.Errorf("place %d where %d comes next", e.Sequence, after)
			}
		}
		all = append(all, page...)
	}
}

// append adds one to three events; some were appended before, by whoever it was, and are only answered.
func (s *shared) append(ctx context.Context, st store.Store, rng *rand.Rand, who int) error {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var events []store.NewEvent
	s.mu.Lock()
	for range 1 + rng.IntN(3) {
		s.n++
		e := eventhose.Event{Type: "shared", Version: "named", ID: fmt.Sprintf("%d-%d-%d", who, s.n, rng.Uint64()), Time: at, Appended: at}
		switch {
		case rng.IntN(4) == 0:
			e.ID, e.Version = "", ""
		case rng.IntN(4) == 0 && len(s.remembered) > 0:
			e.ID = s.remembered[rng.IntN(len(s.remembered))]
		}
		e.Data = append([]byte(e.ID), noise(rng, s.padding)...)
		s.remembered = append(s.remembered, e.ID)
		if e.ID == "" {
			s.remembered = s.remembered[:len(s.remembered)-1]
		}
		events = append(events, store.NewEvent{Event: e, Digest: [16]byte{15: 1}})
	}
	s.mu.Unlock()
	results, err := st.Append(ctx, []store.Append{{Tenant: sharedLog, Events: events}})
	if err != nil {
		return fmt.Errorf("shared log: %w", err)
	}
	if results[0].Err != nil {
		return fmt.Errorf("shared log: %w", results[0].Err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := eventhose.Sequence(0)
	for _, p := range results[0].Placements {
		if !p.Duplicate && last > 0 {
			s.inner[last] = true
		}
		if !p.Duplicate {
			last = p.Sequence
		}
		s.reached(int64(p.Sequence))
	}
	return nil
}

// reached takes note of a sequence that was answered or read. s.mu is held.
func (s *shared) reached(n int64) { s.acked.Store(max(s.acked.Load(), n)) }

func (s *shared) look(ctx context.Context, st store.Store) error {
	h, err := st.Head(ctx, sharedLog)
	if err != nil {
		return err
	}
	rest, err := s.read(ctx, st, max(h.Last, 1)-1)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached(int64(h.Last))
	for _, e := range rest {
		s.reached(int64(e.Sequence))
	}
	return nil
}

// finish reads the log at the end of a life.
func (s *shared) finish(ctx context.Context, st store.Store) (err error) {
	s.events, err = s.read(ctx, st, 0)
	if err == nil && int64(len(s.events)) < s.acked.Load() {
		err = fmt.Errorf("shared log has %d events, %d were answered or read", len(s.events), s.acked.Load())
	}
	return err
}

// after is what a cut must hold of the log.
func (s *shared) after(c cut) shared {
	return shared{events: slices.Clip(s.events), min: c.sharedMin, inner: s.inner, padding: s.padding}
}

// noise is what no compression makes smaller.
func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestPowerCut(t *testing.T) {
	seed := seed(t)
	want := int64(setting(t, "EVENTHOSE_CUTS", 5000))
	total := new(tally)
	start := time.Now()
	err := atWork(1<<30, func(i int) error {
		if total.cuts.Load() >= want {
			return errEnough
		}
		p := powerCuts{scripts: 1 + i%2, ops: 240, cuts: 500, tally: total, enough: want}
		if err := p.run(seed + uint64(i)); err != nil {
			return fmt.Errorf("run %d: %w", i, err)
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	t.Logf("%d power cuts in %v, %d different disks: %d with operations under way, %d of them readable before they were answered, %d held more than was answered, %d while opening, %d were cuts after cuts",
		total.cuts.Load(), time.Since(start).Round(time.Second), total.opened.Load(), total.inside.Load(), total.seenFirst.Load(), total.settledNew.Load(), total.opening.Load(), total.again.Load())
	for what, n := range map[string]int64{"inside operations": total.inside.Load(), "while opening": total.opening.Load(), "after a cut": total.again.Load(), "that kept what was not answered": total.settledNew.Load()} {
		if n == 0 {
			t.Errorf("no cut %s: the test has not seen what it is for", what)
		}
	}
}

// TestPowerCutInUsedLogs cuts the power while log files are written that hold older logs.
func TestPowerCutInUsedLogs(t *testing.T) {
	p := powerCuts{appenders: 4, padding: 20_000, ops: 400, cuts: 40, percent: 5, tally: new(tally)}
	if err := p.run(seed(t)); err != nil {
		t.Fatal(err)
	}
	if n := p.tally.reused.Load(); n == 0 {
		t.Error("no log file was written over: the test has not seen what it is for")
	}
	t.Logf("%d power cuts, %d log files written over", p.tally.cuts.Load(), p.tally.reused.Load())
}

// tooEarly writes over the log file before, whose rows are not in tables yet.
type tooEarly struct {
	vfs.FS
	last string
}

func (d *tooEarly) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if category != "pebble-wal" {
		return d.FS.Create(name, category)
	}
	last := d.last
	d.last = name
	if last != "" {
		if f, err := d.ReuseForWrite(last, name, category); err == nil {
			return f, nil
		}
	}
	return d.FS.Create(name, category) // it is the first, or the one before was just removed
}

// TestPowerCutInUsedLogsSees shows the checker red on a store that uses log files again too early.
func TestPowerCutInUsedLogsSees(t *testing.T) {
	for i := range uint64(5) {
		p := powerCuts{appenders: 4, padding: 20_000, ops: 200, cuts: 40, percent: 5, tally: new(tally),
			plantFS: func(fs vfs.FS) vfs.FS { return &tooEarly{FS: fs} }}
		if err := p.run(i); err != nil {
			t.Logf("seen: %v", err)
			return
		}
	}
	t.Fatal("logs that were written over too early went unnoticed")
}

var errEnough = errors.New("enough")
