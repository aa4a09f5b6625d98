package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
)

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// slowCommits makes some of the commits that append, or that an application's events are in, take longer: with all locks held, and nothing visible.
const slowCommits = `
CREATE SEQUENCE slow;
CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF random() < 0.01 THEN
		PERFORM nextval('public.slow'), pg_sleep(random() * 0.03);
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON eventhose.logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON eventhose.unplaced DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();`

// The numbers of TestOrderUnderDelay.
const (
	orderNodes        = 3
	appendersPerNode  = 2
	orderReaders      = 8
	orderApplications = 4
)

// orderTrial is one run of it.
type orderTrial struct {
	*testing.T
	h      *history
	nodes  []*postgres.Store
	logs   []*eventlog.Log
	target int
	url    string
	frozen atomic.Int64 // times that a process was frozen while it appended
	locked atomic.Int64 // times that a log was held by somebody else
	held   atomic.Int64 // transactions held open
}

// While commits are slow, stand still or wait, while nodes are frozen and transactions stay open, every log is read in order and without gap by
// everybody, what was acknowledged is at its place, and what applications committed is there once.
func TestOrderUnderDelay(t *testing.T) {
	if url := os.Getenv(nodeURLEnv); url != "" {
		beNode(t, url)
		return
	}
	seed := number(t, "EVENTHOSE_SEED", rand.Uint64())
	o := orderTrial{T: t, h: newHistory(), target: int(number(t, "EVENTHOSE_ORDER_APPENDS", 100_000))}
	t.Logf("EVENTHOSE_SEED=%d EVENTHOSE_ORDER_APPENDS=%d", seed, o.target)
	primary := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"log_min_messages": "fatal"}}) // nodes that place the same events fail by the dozen
	o.url = primary.URL("postgres")
	for range orderNodes {
		st, err := postgres.Open(t.Context(), o.url, postgres.Options{MaxConns: 12, Upkeep: -1})
		if err != nil {
			t.Fatal(err)
		}
		o.nodes = append(o.nodes, st)
		o.logs = append(o.logs, eventlog.New(st, tenants(everyLog), eventlog.Options{}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), max(2*time.Minute, time.Duration(o.target)*2*time.Millisecond))
	defer cancel()
	db := o.connect(ctx)
	if err := errors.Join(makeTenants(ctx, o.nodes[0], everyLog...), execute(ctx, db, slowCommits)); err != nil {
		t.Fatal(err)
	}

	child := startNode(t, o.url, seed, o.h)
	defer child.kill()
	appending, stopAppending := context.WithCancel(ctx)
	defer stopAppending()
	keeping, stopKeeping := context.WithCancel(ctx)
	defer stopKeeping()
	var appenders, keepers, readers sync.WaitGroup
	o.startAppenders(ctx, appending, &appenders, seed)
	for i, st := range o.nodes {
		keepers.Go(func() { o.logs[i].RunPlacing(keeping, st, 50*time.Millisecond) })
		keepers.Go(func() {
			st.Listen(keeping, func(h postgres.Hint) {
				if h.Kind == postgres.HintUnplaced {
					o.logs[i].Unplaced()
				}
			})
		})
	}
	var ends atomic.Pointer[map[eventhose.TenantID]eventhose.Sequence] // where the logs end, once nothing is appended any more
	for i := range orderReaders {
		readers.Go(func() { o.read(ctx, i, seed, &ends) })
	}
	appenders.Go(func() { o.freeze(appending, rand.New(rand.NewPCG(seed, 1)), child) })
	appenders.Go(func() { o.hold(appending, rand.New(rand.NewPCG(seed, 2)), o.connect(ctx)) })
	go func() {
		until(appending, func() bool { return o.h.count() >= o.target })
		stopAppending()
	}()
	<-appending.Done()
	<-appending.Done()
	child.kill() // in the middle of an append, most likely
	appenders.Wait()
	if !until(ctx, func() bool { return o.unplaced(ctx) == 0 }) {
		t.Errorf("%d events of applications never got their places", o.unplaced(ctx))
	}
	stopKeeping()
	keepers.Wait()
	o.finish(ctx, db, &ends, &readers)
}

func execute(ctx context.Context, db *pgx.Conn, sql string) error {
	_, err := db.Exec(ctx, sql)
	return err
}

func (o *orderTrial) connect(ctx context.Context) *pgx.Conn {
	o.Helper()
	db, err := pgx.Connect(ctx, o.url)
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() { db.Close(context.WithoutCancel(ctx)) })
	return db
}

// startAppenders starts those of this process, and the applications. They end what they have begun.
func (o *orderTrial) startAppenders(ctx, appending context.Context, all *sync.WaitGroup, seed uint64) {
	for i := range orderNodes * appendersPerNode {
		a := appender{number: 1 + i, rng: rand.New(rand.NewPCG(seed, uint64(100+i)))}
		all.Go(func() {
			for turn := i; appending.Err() == nil; turn++ { // a group may be repeated at another node
				if err := a.appendTo(ctx, o.nodes[turn%orderNodes], o.h); err != nil {
					o.h.fault("append: %v", err)
					return
				}
			}
		})
	}
	moved := func(_ context.Context, events int) {
		n := o.h.count() + events
		until(appending, func() bool { return o.h.count() >= n })
	}
	for i := range orderApplications {
		a := application{appender: appender{number: 500 + i, rng: rand.New(rand.NewPCG(seed, uint64(500+i)))}, conn: o.connect(ctx), held: &o.held}
		all.Go(func() {
			for appending.Err() == nil {
				if err := a.transact(ctx, o.h, moved); err != nil {
					o.h.fault("transaction: %v", err)
					return
				}
			}
		})
	}
}

// read is one reader, until it has read all.
func (o *orderTrial) read(ctx context.Context, number int, seed uint64, ends *atomic.Pointer[map[eventhose.TenantID]eventhose.Sequence]) {
	r := reader{rng: rand.New(rand.NewPCG(seed, uint64(900+number))), at: map[eventhose.TenantID]eventhose.Sequence{}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ends.Load()
		found, err := r.turn(ctx, o.nodes[number%orderNodes], o.h, everyLog)
		switch {
		case err != nil:
			o.h.fault("reader %d: %v", number, err)
			return
		case !found && last != nil:
			if !maps.Equal(r.at, *last) {
				o.h.fault("skipped: reader %d came to %v of %v", number, r.at, *last)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stillDeadline bounds how long a log may be held up by what must not hold it up.
const stillDeadline = 20 * time.Second

// grown waits until each of some logs was read beyond where it was, and reports whether that came.
func (o *orderTrial) grown(ctx context.Context, logs ...eventhose.TenantID) bool {
	before := o.h.lengths()
	within, cancel := context.WithTimeout(ctx, stillDeadline)
	defer cancel()
	ok := until(within, func() bool {
		now := o.h.lengths()
		return !slices.ContainsFunc(logs, func(t eventhose.TenantID) bool { return now[t] <= before[t] })
	})
	return ok || ctx.Err() != nil
}

// freeze freezes the child now and then, until every log has grown without it.
func (o *orderTrial) freeze(ctx context.Context, rng *rand.Rand, n *node) {
	for {
		acks := n.acks.Load() + 1 + rng.Int64N(20)
		if !until(ctx, func() bool { return n.acks.Load() >= acks }) {
			return
		}
		if err := n.freeze(); err != nil {
			o.h.fault("freeze: %v", err)
			return
		}
		ok := o.grown(ctx, everyLog...)
		if !ok {
			o.h.fault("a frozen node holds up the logs")
		}
		if n.appending.Load() && ok {
			o.frozen.Add(1)
		}
		if err := n.thaw(); err != nil || !ok {
			return
		}
	}
}

// hold locks the head of a log now and then, as no node would, until the others have grown.
func (o *orderTrial) hold(ctx context.Context, rng *rand.Rand, db *pgx.Conn) {
	for {
		n := o.h.count() + rng.IntN(4000)
		if !until(ctx, func() bool { return o.h.count() >= n }) {
			return
		}
		err := pgx.BeginFunc(context.WithoutCancel(ctx), db, func(tx pgx.Tx) error {
			tenant := orderTenants[1+rng.IntN(6)]
			tag, err := tx.Exec(ctx, "SELECT FROM eventhose.logs WHERE tenant = $1 FOR UPDATE", string(tenant))
			if err != nil || tag.RowsAffected() == 0 {
				return err
			}
			if !o.grown(ctx, orderHot) {
				return fmt.Errorf("while the log of %s is locked, that of %s stands still", tenant, orderHot)
			}
			o.locked.Add(1)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			o.h.fault("hold: %v", err)
			return
		}
	}
}

// unplaced answers how many logs have events without a place.
func (o *orderTrial) unplaced(ctx context.Context) int {
	all, err := o.nodes[0].UnplacedTenants(ctx, "", 1000)
	if err != nil {
		o.h.fault("look for events without a place: %v", err)
		return 0
	}
	return len(all)
}

// finish reads everything again and checks it.
func (o *orderTrial) finish(ctx context.Context, db *pgx.Conn, ends *atomic.Pointer[map[eventhose.TenantID]eventhose.Sequence], readers *sync.WaitGroup) {
	o.Helper()
	appended := time.Since(o.h.began)
	logs, err := readAll(ctx, o.nodes[1], everyLog)
	if err != nil {
		o.Fatal(err)
	}
	last, events := map[eventhose.TenantID]eventhose.Sequence{}, 0
	for _, tenant := range everyLog {
		head, err := o.nodes[2].Head(ctx, tenant)
		if err != nil {
			o.Fatal(err)
		}
		if last[tenant] = head.Last; int(head.Last) != len(logs[tenant]) {
			o.h.fault("gap: the log of %s reaches to %d and has %d events", tenant, head.Last, len(logs[tenant]))
		}
		events += len(logs[tenant])
	}
	ends.Store(&last)
	readers.Wait()
	for i, st := range o.nodes {
		if err := errors.Join(o.logs[i].Close(), st.Close()); err != nil {
			o.Error(err)
		}
	}
	var slow int64
	if err := db.QueryRow(ctx, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM slow").Scan(&slow); err != nil {
		o.Fatal(err)
	}
	ops := o.h.operations(logs, orderParents)
	for _, fault := range o.h.check(logs, orderParents) {
		o.Error(fault)
	}
	checked := time.Now()
	if err := checkModel(ops); err != nil {
		o.Error(err)
	}
	committed, rolledBack := 0, 0
	for _, x := range o.h.transactions {
		if x.committed {
			committed++
		} else {
			rolledBack++
		}
	}
	o.Logf("%d events in %v; %d transactions committed, %d rolled back, %d held open; frozen in an append %d times, a log held %d times, %d slow commits; %d operations modelled in %v",
		events, appended.Round(time.Millisecond), committed, rolledBack, o.held.Load(), o.frozen.Load(), o.locked.Load(), slow, len(ops), time.Since(checked).Round(time.Millisecond))
	for what, n := range map[string]int64{"a transaction that was committed": int64(committed), "one that was rolled back": int64(rolledBack), "one that was held open": o.held.Load(),
		"a node frozen in an append": o.frozen.Load(), "a log held by somebody else": o.locked.Load(), "a slow commit": slow} {
		if n < 3 {
			o.Errorf("there was hardly %s: %d", what, n)
		}
	}
}
