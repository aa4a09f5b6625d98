package rollup_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/rollup"
	"github.com/eventhose/eventhose/internal/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func openStore(t testing.TB, fs vfs.FS) *embedded.Store {
	t.Helper()
	st, err := embedded.Open("data", embedded.Options{FS: fs, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// node is Rollups that run.
type node struct {
	*rollup.Rollups
	stop context.CancelFunc
	runs sync.WaitGroup
}

func start(st store.Records, o rollup.Options) *node {
	n := &node{Rollups: rollup.New(st, o)}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.runs.Go(func() { n.Run(ctx) })
	return n
}

// die leaves what is not written.
func (n *node) die() {
	n.stop()
	n.runs.Wait()
}

func (n *node) close(t testing.TB) {
	t.Helper()
	n.die()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// closeUntil closes again and again while the store is away.
func (n *node) closeUntil(t testing.TB) {
	t.Helper()
	for range 100 {
		if n.Close() == nil {
			return
		}
	}
	t.Fatal("it cannot be closed")
}

// happening is what the oracle knows: each thing that was counted, as it was.
type happening struct {
	at       time.Time
	tenant   eventhose.TenantID
	parent   eventhose.TenantID
	sub      eventhose.SubscriptionID // "" for an append
	events   int
	bytes    int
	outcome  eventhose.Outcome
	refused  int // of the events, with ReasonPartly; 0 without
	kind     eventhose.AttemptKind
	duration time.Duration
	lag      time.Duration
}

func (h *happening) count(r *rollup.Rollups) {
	if h.sub == "" {
		r.Appended(h.tenant, h.parent, h.events, h.bytes)
		return
	}
	a := eventhose.Attempt{Tenant: h.tenant, Subscription: h.sub, Kind: h.kind, Outcome: h.outcome, Duration: eventhose.Duration(h.duration),
		Started: h.at.Add(-h.duration), Events: make([]string, h.events)}
	if h.refused > 0 {
		a.Reason, a.Failed = eventhose.ReasonPartly, make([]eventhose.Sequence, h.refused)
	}
	r.Attempted(&a, h.at.Add(-h.lag))
}

func random(rng *rand.Rand, at time.Time) happening {
	h := happening{at: at, tenant: eventhose.TenantID(fmt.Sprint("t", rng.IntN(3))), events: 1 + rng.IntN(5)}
	if rng.IntN(2) == 0 {
		if h.bytes = rng.IntN(1000); rng.IntN(3) == 0 {
			h.parent = "platform"
		}
		return h
	}
	h.sub = eventhose.SubscriptionID(fmt.Sprint("sub_", rng.IntN(3)))
	h.kind = []eventhose.AttemptKind{eventhose.AttemptFirst, eventhose.AttemptFirst, eventhose.AttemptRetry, eventhose.AttemptProbe, eventhose.AttemptTest}[rng.IntN(5)]
	h.outcome = []eventhose.Outcome{eventhose.OutcomeTaken, eventhose.OutcomeTaken, eventhose.OutcomeFailed, eventhose.OutcomeGone}[rng.IntN(4)]
	if h.outcome == eventhose.OutcomeFailed && rng.IntN(2) == 0 {
		h.refused = 1 + rng.IntN(h.events)
	}
	h.duration = time.Duration(math.Exp(rng.Float64() * math.Log(30e9)))
	h.lag = h.duration + time.Duration(math.Exp(rng.Float64()*math.Log(200e12)))
	return h
}

// exact is what the metrics of a step must be, found the plain way.
func exact(all []happening, tenant eventhose.TenantID, sub eventhose.SubscriptionID, from, to time.Time) (m eventhose.Metrics, durations, lags []time.Duration) {
	for _, h := range all {
		mine := tenant == "" || h.tenant == tenant
		if h.at.Before(from) || !h.at.Before(to) || h.kind == eventhose.AttemptTest || sub != "" && h.sub != sub {
			continue
		}
		if h.sub == "" {
			if mine || h.parent == tenant {
				m.Events += uint64(h.events)
				m.Bytes += uint64(h.bytes)
			}
			continue
		}
		if !mine {
			continue
		}
		m.Attempts++
		first, taken := h.kind == eventhose.AttemptFirst, h.outcome == eventhose.OutcomeTaken
		if first {
			m.First++
		}
		if taken {
			m.Taken++
			m.Delivered += uint64(h.events)
		} else {
			m.Failed++
		}
		if h.refused > 0 {
			m.Delivered += uint64(h.events - h.refused)
		}
		durations = append(durations, h.duration)
		if first && taken {
			m.FirstTaken++
			lags = append(lags, h.lag)
		}
	}
	return m, durations, lags
}

// near checks quantiles against the sorted durations: within a sixteenth, and a microsecond for what is cut off; what lies
// beyond the last bucket is told as its beginning at least.
func near(got eventhose.Quantiles, all []time.Duration) error {
	slices.Sort(all)
	for _, c := range []struct {
		q   float64
		got float64
	}{{.5, got.P50}, {.95, got.P95}, {.99, got.P99}} {
		want := 0.0
		if len(all) > 0 {
			want = float64(all[max(1, int(math.Ceil(c.q*float64(len(all)))))-1]) / 1e6
		}
		if math.Abs(c.got-want) > want/16+.001 {
			return fmt.Errorf("quantile %v is %v, want %v", c.q, c.got, want)
		}
	}
	return nil
}

// check compares a series of one node's with the oracle.
func check(r *rollup.Rollups, all []happening, q eventhose.MetricsQuery) error {
	got, err := r.Series(context.Background(), q)
	if err != nil {
		return err
	}
	begin := q.From.Add(-time.Duration(q.From.UnixNano() % int64(q.Step)))
	compare := func(got, want eventhose.Metrics, durations, lags []time.Duration) error {
		err := errors.Join(near(got.Duration, durations), near(got.Lag, lags))
		got.Duration, got.Lag = eventhose.Quantiles{}, eventhose.Quantiles{}
		if got != want {
			err = errors.Join(err, fmt.Errorf("got %+v\nwant %+v", got, want))
		}
		return err
	}
	for i, p := range got.Points {
		at := begin.Add(time.Duration(i) * q.Step)
		if !p.Time.Equal(at) {
			return fmt.Errorf("step %d is at %v, want %v", i, p.Time, at)
		}
		want, durations, lags := exact(all, q.Tenant, q.Subscription, at, at.Add(q.Step))
		if err := compare(p.Metrics, want, durations, lags); err != nil {
			return fmt.Errorf("%s %s at %v: %w", q.Tenant, q.Subscription, at, err)
		}
	}
	end := begin.Add(time.Duration(len(got.Points)) * q.Step)
	if end.Before(q.To) || !end.Add(-q.Step).Before(q.To) {
		return fmt.Errorf("the series ends at %v, want %v", end, q.To)
	}
	want, durations, lags := exact(all, q.Tenant, q.Subscription, begin, end)
	return compare(got.Total, want, durations, lags)
}

// faulty is a store that now and then is away, before or after it has written.
type faulty struct {
	store.Records
	rng *rand.Rand
	mu  sync.Mutex
}

func (f *faulty) Save(ctx context.Context, records []store.RecordChange, lanes []store.LaneChange) error {
	f.mu.Lock()
	dice := f.rng.IntN(6)
	f.mu.Unlock()
	if dice == 0 {
		return store.ErrUnavailable
	}
	err := f.Records.Save(ctx, records, lanes)
	if dice == 1 {
		return store.ErrUnavailable
	}
	return err
}

// Two nodes that stop and start again over a store that is away now and then count what a list of everything that happened counts,
// in any steps, for the platform, tenants and subscriptions.
func TestAddsUp(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				st := openStore(t, vfs.NewMem())
				defer st.Close()
				broken := &faulty{Records: st, rng: rand.New(rand.NewPCG(seed, 2))}
				nodes := []*node{start(broken, rollup.Options{}), start(broken, rollup.Options{})}
				began := time.Now()
				var all []happening
				for range 120 {
					for range rng.IntN(20) {
						h := random(rng, time.Now())
						h.count(nodes[rng.IntN(2)].Rollups)
						all = append(all, h)
						time.Sleep(time.Duration(rng.IntN(10_000)) * time.Millisecond) // sleep: needed, because the time of the bubble is the subject
					}
					if i := rng.IntN(20); i < 2 {
						nodes[i].die()
						nodes[i].closeUntil(t)
						nodes[i] = start(broken, rollup.Options{})
					}
				}
				// Until each has written what is over, and the store was there.
				for i := range nodes {
					nodes[i].die()
					nodes[i].closeUntil(t)
				}
				nodes[0], nodes[1] = start(st, rollup.Options{}), start(st, rollup.Options{})
				defer nodes[1].close(t)
				defer nodes[0].close(t)
				h := random(rng, time.Now())
				h.count(nodes[0].Rollups) // the minute under way is in memory
				all = append(all, h)
				for range 100 {
					step := time.Duration(1+rng.IntN(90)) * time.Minute
					q := eventhose.MetricsQuery{From: began.Add(time.Duration(rng.Int64N(int64(3*time.Hour))) - time.Hour), Step: step}
					q.To = q.From.Add(1 + time.Duration(rng.Int64N(int64(4*time.Hour))))
					if rng.IntN(4) > 0 {
						q.Tenant = []eventhose.TenantID{"t0", "t1", "t2", "platform", "nobody"}[rng.IntN(5)]
						q.Subscription = []eventhose.SubscriptionID{"", "sub_0", "sub_1"}[rng.IntN(3)]
					}
					if err := check(nodes[0].Rollups, all, q); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// A crash takes the minute under way with it, and nothing of those before.
func TestCrash(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			disk := vfs.NewCrashableMem()
			st := openStore(t, disk)
			n := start(st, rollup.Options{})
			began := time.Now()
			var all []happening
			for time.Since(began) < 5*time.Minute {
				h := random(rng, time.Now())
				h.count(n.Rollups)
				all = append(all, h)
				time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond) // sleep: needed, because the time of the bubble is the subject
				synctest.Wait()
			}
			now := time.Now()
			after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			n.die()
			st.Close()

			again := openStore(t, after)
			defer again.Close()
			survivor := rollup.New(again, rollup.Options{})
			q := eventhose.MetricsQuery{From: began, To: now.Truncate(time.Minute), Step: time.Minute}
			if err := check(survivor, all, q); err != nil {
				t.Error(err)
			}
			last, err := survivor.Series(t.Context(), eventhose.MetricsQuery{From: q.To, To: q.To.Add(time.Minute), Step: time.Minute})
			if err != nil || last.Total != (eventhose.Metrics{}) {
				t.Errorf("the minute under way was written: %+v, %v", last, err)
			}
		})
	}
}

// What is older than it is to be kept is gone, from the store too.
func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t, vfs.NewMem())
		defer st.Close()
		n := start(st, rollup.Options{Retention: 2 * time.Hour})
		defer n.close(t)
		count := func() {
			n.Appended("t", "", 1, 1)
			time.Sleep(time.Minute) // sleep: needed, because the time of the bubble is the subject
			synctest.Wait()
		}
		list := func() int {
			records, err := st.List(t.Context(), "t", rollup.Kind, "", 100)
			if err != nil {
				t.Fatal(err)
			}
			return len(records)
		}
		began := time.Now()
		count()
		if list() != 1 {
			t.Fatalf("%d records", list())
		}
		time.Sleep(3*time.Hour - time.Since(began.Truncate(time.Hour)) - time.Second) // sleep: needed, because the time of the bubble is the subject
		if list() != 1 {
			t.Error("it is gone too early")
		}
		time.Sleep(2 * time.Second) // sleep: needed, because the time of the bubble is the subject
		count()
		if n := list(); n != 1 {
			t.Errorf("%d records are left", n)
		}
		s, err := n.Series(t.Context(), eventhose.MetricsQuery{Tenant: "t", From: began, To: time.Now(), Step: time.Hour})
		if err != nil || s.Total.Events != 1 {
			t.Errorf("%+v, %v", s.Total, err)
		}
	})
}

// Beyond the bound of series, subscriptions are counted for their tenant, and tenants for the platform; a minute later there
// is room again.
func TestBoundedSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t, vfs.NewMem())
		defer st.Close()
		n := start(st, rollup.Options{MaxSeries: 8})
		defer n.close(t)
		attempt := func(tenant, sub string) {
			n.Attempted(&eventhose.Attempt{Tenant: eventhose.TenantID(tenant), Subscription: eventhose.SubscriptionID(sub), Kind: eventhose.AttemptFirst, Outcome: eventhose.OutcomeTaken}, time.Time{})
		}
		total := func(tenant, sub string) uint64 {
			s, err := n.Series(t.Context(), eventhose.MetricsQuery{Tenant: eventhose.TenantID(tenant), Subscription: eventhose.SubscriptionID(sub),
				From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Minute), Step: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			return s.Total.Attempts
		}
		for i := range 20 {
			attempt("t", fmt.Sprint("sub_", i))
		}
		for i := range 20 {
			attempt(fmt.Sprint("other-", i), "sub")
		}
		own, tenants := uint64(0), uint64(0)
		for i := range 20 {
			own += total("t", fmt.Sprint("sub_", i))
			tenants += total(fmt.Sprint("other-", i), "")
		}
		if all := total("t", ""); all != 20 || total("", "") != 40 || own != 5 || tenants != 2 {
			t.Errorf("the tenant has %d, the platform %d, subscriptions %d, other tenants %d", all, total("", ""), own, tenants)
		}
		if n.Left() != 15+20+18 {
			t.Errorf("%d were left out", n.Left())
		}
		time.Sleep(time.Hour) // sleep: needed, because the time of the bubble is the subject
		synctest.Wait()
		attempt("new", "sub")
		if total("new", "sub") != 1 {
			t.Error("there is no room an hour later")
		}
	})
}

// Rates are of the last minute, whatever its part that is under way.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t, vfs.NewMem())
		defer st.Close()
		here, there := start(st, rollup.Options{}), start(st, rollup.Options{})
		defer here.close(t)
		defer there.close(t)
		for range 150 { // ten in a second at each, for two minutes and a half
			here.Appended("t", "", 10, 0)
			there.Appended("t", "", 10, 0)
			here.Attempted(&eventhose.Attempt{Tenant: "t", Subscription: "s", Outcome: eventhose.OutcomeTaken, Events: make([]string, 5)}, time.Time{})
			time.Sleep(time.Second) // sleep: needed, because the time of the bubble is the subject
		}
		synctest.Wait()
		got, err := here.Rates(t.Context(), "t")
		if err != nil || math.Abs(got.Events-20) > .01 || math.Abs(got.Deliveries-5) > .01 {
			t.Errorf("%+v, %v", got, err)
		}
		time.Sleep(3 * time.Minute) // sleep: needed, because the time of the bubble is the subject
		if got, err := here.Rates(t.Context(), "t"); err != nil || got != (eventhose.MetricsRates{}) {
			t.Errorf("after it has ended: %+v, %v", got, err)
		}
	})
}

// In the first minutes of an hour the minutes of the hour before are this node's own, and count once.
func TestRatesAfterTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t, vfs.NewMem())
		defer st.Close()
		n := start(st, rollup.Options{})
		defer n.close(t)
		<-time.After(time.Until(time.Now().Truncate(time.Hour).Add(58 * time.Minute)))
		for i := range 5 * 60 { // one in a second, up to three minutes after the hour
			n.Appended("t", "", 1, 0)
			<-time.After(time.Second)
			if synctest.Wait(); i < 90 {
				continue
			}
			if got, err := n.Rates(t.Context(), "t"); err != nil || math.Abs(got.Events-1) > .02 {
				t.Errorf("%s: %+v, %v", time.Now().Format(time.TimeOnly), got, err)
			}
		}
	})
}

// slowList is a store whose lists take a while.
type slowList struct {
	store.Records
	took time.Duration
}

func (s slowList) List(ctx context.Context, tenant eventhose.TenantID, kind, after string, limit int) ([]store.Record, error) {
	<-time.After(s.took)
	return s.Records.List(ctx, tenant, kind, after, limit)
}

// The first minute of an hour that is written while somebody reads counts once.
func TestWrittenWhileRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t, vfs.NewMem())
		defer st.Close()
		n := start(slowList{st, 2 * time.Second}, rollup.Options{})
		defer n.close(t)
		began := time.Now().Truncate(time.Hour).Add(time.Hour)
		<-time.After(time.Until(began.Add(59 * time.Second)))
		n.Appended("t", "", 1, 0)
		s, err := n.Series(t.Context(), eventhose.MetricsQuery{Tenant: "t", From: began, To: began.Add(time.Hour), Step: time.Hour})
		if err != nil || s.Total.Events != 1 {
			t.Errorf("%d events, %v", s.Total.Events, err)
		}
		if records, err := st.List(t.Context(), "t", rollup.Kind, "", 10); err != nil || len(records) != 1 {
			t.Errorf("%d records, %v: it does not try what it is for", len(records), err)
		}
	})
}

func TestRefusedQueries(t *testing.T) {
	st := openStore(t, vfs.NewMem())
	defer st.Close()
	r := rollup.New(st, rollup.Options{})
	now := time.Now()
	for field, q := range map[string]eventhose.MetricsQuery{
		"step": {From: now, To: now.Add(time.Hour), Step: 90 * time.Second},
		"to":   {From: now, To: now, Step: time.Minute},
		"from": {From: time.Time{}, To: now, Step: time.Minute},
	} {
		var e *eventhose.Error
		if _, err := r.Series(t.Context(), q); !errors.As(err, &e) || e.Field != field || e.Code != eventhose.CodeInvalid {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := r.Series(t.Context(), eventhose.MetricsQuery{From: now.Truncate(time.Minute), To: now.Truncate(time.Minute).Add(1500 * time.Minute), Step: time.Minute}); err != nil {
		t.Error(err)
	}
	if _, err := r.Series(t.Context(), eventhose.MetricsQuery{From: now.Truncate(time.Minute), To: now.Truncate(time.Minute).Add(1500*time.Minute + 1), Step: time.Minute}); eventhose.CodeOf(err) != eventhose.CodeInvalid {
		t.Error(err)
	}
}

// Damage is named, and nothing is made up in its place.
func TestDamaged(t *testing.T) {
	st := openStore(t, vfs.NewMem())
	defer st.Close()
	r := rollup.New(st, rollup.Options{})
	now := time.Now()
	r.Attempted(&eventhose.Attempt{Tenant: "t", Subscription: "sub_1", Kind: eventhose.AttemptFirst, Outcome: eventhose.OutcomeTaken, Duration: 5e6}, now)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	list, err := st.List(t.Context(), "t", rollup.Kind, "", 10)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	good := list[0]
	q := eventhose.MetricsQuery{Tenant: "t", From: now.Add(-time.Hour), To: now.Add(time.Hour), Step: time.Minute}
	refused := 0
	for cut := range len(good.Value) {
		damaged := good
		damaged.Value = slices.Clone(good.Value[:cut])
		if err := st.Save(t.Context(), []store.RecordChange{{Record: damaged}}, nil); err != nil {
			t.Fatal(err)
		}
		good.Version++
		s, err := rollup.New(st, rollup.Options{}).Series(t.Context(), q)
		switch {
		case errors.Is(err, store.ErrCorrupt):
			refused++
		case err != nil || cut != 1 || s.Total.Attempts != 0: // an hour without a minute
			t.Errorf("cut at %d: %+v, %v", cut, s.Total, err)
		}
	}
	if refused != len(good.Value)-1 {
		t.Errorf("%d of %d were refused", refused, len(good.Value))
	}
}

// Nodes over a database add up, and what one has written another counts at once.
func TestNodesOverPostgres(t *testing.T) {
	url := pgtest.Database(t)
	var stores []*postgres.Store
	for range 2 {
		st, err := postgres.Open(t.Context(), url, postgres.Options{Upkeep: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		stores = append(stores, st)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	began := time.Now()
	var all []happening
	for life := range 4 {
		r := rollup.New(stores[life%2], rollup.Options{})
		for range 100 {
			h := random(rng, time.Now())
			h.count(r)
			all = append(all, h)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// The clock was looked at a moment later than here, so a step may be the next one.
	q := eventhose.MetricsQuery{From: began.Truncate(24 * time.Hour).Add(-24 * time.Hour), To: began.Truncate(24 * time.Hour).Add(48 * time.Hour), Step: 24 * time.Hour}
	r := rollup.New(stores[0], rollup.Options{})
	for _, tenant := range []eventhose.TenantID{"", "t0", "t1", "platform"} {
		for _, sub := range []eventhose.SubscriptionID{"", "sub_1"} {
			if q.Tenant, q.Subscription = tenant, sub; tenant == "" {
				q.Subscription = ""
			}
			got, err := r.Series(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			want, durations, lags := exact(all, q.Tenant, q.Subscription, q.From, q.To)
			if err := errors.Join(near(got.Total.Duration, durations), near(got.Total.Lag, lags)); err != nil {
				t.Error(err)
			}
			got.Total.Duration, got.Total.Lag = eventhose.Quantiles{}, eventhose.Quantiles{}
			if !reflect.DeepEqual(got.Total, want) {
				t.Errorf("%q %q: %+v, want %+v", tenant, sub, got.Total, want)
			}
		}
	}
}

// Nothing is lost when everybody counts at once, and minutes are taken out meanwhile.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openStore(t, vfs.NewMem())
		defer st.Close()
		n := start(st, rollup.Options{})
		defer n.close(t)
		began := time.Now()
		var counting sync.WaitGroup
		for w := range 8 {
			counting.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 5))
				for range 500 {
					n.Appended("t", "", 1, 2)
					n.Attempted(&eventhose.Attempt{Tenant: "t", Subscription: "s", Duration: eventhose.Duration(rng.IntN(1e9))}, time.Time{})
					time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond) // sleep: needed, because the time of the bubble is the subject
				}
			})
		}
		counting.Wait()
		s, err := n.Series(t.Context(), eventhose.MetricsQuery{Tenant: "t", From: began, To: time.Now(), Step: time.Minute})
		if err != nil || s.Total.Events != 4000 || s.Total.Bytes != 8000 || s.Total.Attempts != 4000 {
			t.Errorf("%+v, %v", s.Total, err)
		}
		if busiest := slices.MaxFunc(s.Points, func(a, b eventhose.MetricsPoint) int { return cmp.Compare(a.Events, b.Events) }); busiest.Events > 1200 {
			t.Errorf("a minute has %d", busiest.Events)
		}
	})
}

// Counting makes no garbage once a series has begun.
func TestCountingAllocatesNothing(t *testing.T) {
	st := openStore(t, vfs.NewMem())
	defer st.Close()
	r := rollup.New(st, rollup.Options{})
	a := eventhose.Attempt{Tenant: "t", Subscription: "sub_1", Kind: eventhose.AttemptFirst, Outcome: eventhose.OutcomeTaken, Duration: 5e6, Started: time.Now(), Events: []string{"e"}}
	appended := a.Started.Add(-time.Millisecond)
	if n := testing.AllocsPerRun(1000, func() {
		r.Appended("t", "parent", 1, 100)
		r.Attempted(&a, appended)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
