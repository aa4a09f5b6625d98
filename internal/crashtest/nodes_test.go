package crashtest

// Many nodes over one PostgreSQL: nodes are killed, frozen, stopped and started under load, and the database fails over or goes away. What is
// promised is the same as of one node.

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// seconds reads a duration of the tests here, which are longer under CI and longer still in make soak.
func seconds(t *testing.T, name string, ci, otherwise uint64) time.Duration {
	t.Helper()
	if os.Getenv("CI") != "" {
		otherwise = ci
	}
	return time.Duration(number(t, name, otherwise)) * time.Second
}

// fleet is several nodes over one database, with writers and receivers for several tenants.
type fleet struct {
	t         *testing.T
	database  string
	nodes     []*server
	clients   []*client.Client
	journals  []*journal
	troubles  atomic.Int64 // how often a node was killed or frozen
	receivers map[string]*receiver
	subs      []subscribed
}

type subscribed struct {
	name   string
	tenant eventhose.TenantID
	id     eventhose.SubscriptionID
}

func newFleet(ctx context.Context, t *testing.T, database string, nodes, tenants int) *fleet {
	t.Helper()
	f := &fleet{t: t, database: database, receivers: map[string]*receiver{}}
	for range nodes {
		s := &server{t: t, database: database, addr: freeAddr(t)}
		c, err := client.New("http://"+s.addr, adminKey)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		s.start()
		t.Cleanup(func() {
			_ = s.cmd.Process.Signal(syscall.SIGCONT)
			_ = s.cmd.Process.Kill()
			<-s.exited
		})
		f.nodes, f.clients = append(f.nodes, s), append(f.clients, c)
	}
	for i, s := range f.nodes {
		s.up(ctx, f.clients[i])
	}
	schedule := []eventhose.Duration{0}
	for range eventhose.MaxSchedule - 1 {
		schedule = append(schedule, eventhose.Duration(50*time.Millisecond))
	}
	for i := range tenants {
		tenant := eventhose.TenantID(fmt.Sprintf("tenant-%d", i))
		if _, err := f.clients[0].PutTenant(ctx, eventhose.Tenant{ID: tenant}); err != nil {
			t.Fatal(err)
		}
		f.journals = append(f.journals, newJournal(tenant))
		for kind, act := range behaviours() {
			name := fmt.Sprintf("%s of %s", kind, tenant)
			r := newReceiver(t, &f.troubles, act)
			sub, err := f.clients[0].Tenant(tenant).CreateSubscription(ctx, client.NewSubscription{Name: name, Ordering: eventhose.OrderingKey,
				Retry:       eventhose.Retry{Schedule: schedule, Timeout: eventhose.Duration(5 * time.Second)},
				Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: r.url}})
			if err != nil {
				t.Fatal(err)
			}
			if r.verify, err = standardwebhooks.NewWebhook(string(sub.Secret)); err != nil {
				t.Fatal(err)
			}
			f.receivers[name] = r
			f.subs = append(f.subs, subscribed{name, tenant, sub.ID})
		}
	}
	return f
}

// shared waits until each node delivers for its share of the tenants.
func (f *fleet) shared(ctx context.Context) {
	f.t.Helper()
	for i := 0; i < len(f.clients); {
		h, err := f.clients[i].Health(ctx)
		if err == nil && h.Leases.Held == h.Leases.Total/len(f.clients) {
			i++
			continue
		}
		select {
		case <-ctx.Done():
			f.t.Fatalf("node %d does not get its share: %+v, %v", i, h.Leases, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// write has two writers for each tenant append through any node until ctx ends, and waits for them.
func (f *fleet) write(ctx context.Context) (wait func()) {
	var writing sync.WaitGroup
	for i, j := range f.journals {
		for w := range 2 {
			writing.Go(func() { j.write(ctx, f.t, 10*i+w, f.clients...) })
		}
	}
	return writing.Wait
}

// settle lets every receiver be well, waits until nothing is left to do, and checks all that arrived. repeats bounds how many
// requests each trouble may repeat.
func (f *fleet) settle(ctx context.Context) {
	f.t.Helper()
	defer func() {
		if f.t.Failed() {
			for i, s := range f.nodes {
				f.t.Logf("node %d:\n%s", i, s.out)
			}
		}
	}()
	for _, r := range f.receivers {
		r.well.Store(true)
	}
	for i, s := range f.nodes {
		s.up(ctx, f.clients[i])
	}
	for _, s := range f.subs {
		drain(ctx, f.t, f.clients[0], s.tenant, s.name, s.id)
	}
	sent, acked, repeats := 0, 0, 0
	for _, j := range f.journals {
		log := readLog(ctx, f.t, f.clients[rand.IntN(len(f.clients))], j)
		sent, acked = sent+len(j.sent), acked+len(j.acked)
		for _, s := range f.subs {
			if s.tenant != j.tenant {
				continue
			}
			r := f.receivers[s.name]
			r.mu.Lock()
			// Which trouble a repeat is of cannot be told: a frozen node's shards are taken over later, and other nodes may be in trouble by then.
			for _, wrong := range audit(r.arrivals, r.forged, log, true, int(f.troubles.Load())*inFlight) {
				f.t.Errorf("%s: %s", s.name, wrong)
			}
			repeats += repeated(r.arrivals)
			r.mu.Unlock()
		}
	}
	f.t.Logf("%d troubles, %d events sent, %d acknowledged, %d requests repeated", f.troubles.Load(), sent, acked, repeats)
	if most := int(f.troubles.Load()) * inFlight; repeats > most {
		f.t.Errorf("%d requests were repeated, more than the %d that can have been in flight in %d troubles", repeats, most, f.troubles.Load())
	}
	if acked < 100 {
		f.t.Errorf("only %d appends were acknowledged: the load is too light to prove anything", acked)
	}
}

// repeated counts requests that were answered well and came again.
func repeated(arrivals []arrival) int {
	taken, again := map[uint64]bool{}, map[uint64]int{}
	for _, a := range arrivals {
		if taken[a.sequence] {
			again[a.sequence]++
		}
		taken[a.sequence] = taken[a.sequence] || a.taken
	}
	n := 0
	for _, times := range again {
		n += times
	}
	return n
}

// watchCursors looks at every lane's stored cursor again and again: one that goes back was written by a node that had no right to.
func (f *fleet) watchCursors(ctx context.Context) (stop func()) {
	conn, err := pgx.Connect(ctx, f.database)
	if err != nil {
		f.t.Fatal(err)
	}
	watching, cancel := context.WithCancel(ctx)
	var looks int
	var done sync.WaitGroup
	done.Go(func() {
		defer conn.Close(context.WithoutCancel(ctx))
		before := map[string]int64{}
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-watching.Done():
				return
			case <-tick.C:
			}
			rows, err := conn.Query(ctx, "SELECT subscription, cursor FROM eventhose.lanes")
			if err != nil {
				f.t.Error(err)
				return
			}
			looks++
			var sub string
			var cursor int64
			if _, err := pgx.ForEachRow(rows, []any{&sub, &cursor}, func() error {
				if cursor < before[sub] {
					f.t.Errorf("the cursor of %s went back from %d to %d", sub, before[sub], cursor)
				}
				before[sub] = cursor
				return nil
			}); err != nil {
				f.t.Error(err)
				return
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
		if looks == 0 {
			f.t.Error("no cursor was looked at")
		}
	}
}

// gaps watches how long at most each tenant's good receiver goes without anything new while its writers are answered.
func (f *fleet) gaps(ctx context.Context) (longest func() time.Duration) {
	var mu sync.Mutex
	var worst time.Duration
	for _, s := range f.subs {
		if !strings.HasPrefix(s.name, "good") {
			continue
		}
		r := f.receivers[s.name]
		go func() {
			last, n := time.Now(), 0
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				r.mu.Lock()
				arrived := len(r.arrivals)
				r.mu.Unlock()
				if arrived > n {
					n, last = arrived, time.Now()
				}
				mu.Lock()
				worst = max(worst, time.Since(last))
				mu.Unlock()
			}
		}()
	}
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return worst
	}
}

// TestNodes: three nodes are killed, frozen for up to half a minute, stopped and started, one or two at a time.
func TestNodes(t *testing.T) {
	t.Parallel()
	length := seconds(t, "EVENTHOSE_NODES_SECONDS", 120, 30)
	seed := number(t, "EVENTHOSE_SEED", rand.Uint64())
	t.Logf("EVENTHOSE_SEED=%d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), length+4*time.Minute)
	defer cancel()
	f := newFleet(ctx, t, pgtest.Database(t), 3, 6)
	stopWatching := f.watchCursors(ctx)
	writing, stopWriting := context.WithTimeout(ctx, length)
	defer stopWriting()
	wait := f.write(writing)
	longest := f.gaps(writing)

	f.acknowledged(ctx, 50)
	f.troubles.Add(1)
	f.nodes[0].kill()
	died := time.Now()
	f.delivered(ctx)
	t.Logf("every tenant's events are delivered again %v after a node's death", time.Since(died).Round(time.Millisecond))
	f.nodes[0].start()

	var mu sync.Mutex
	seen := map[string]int{}
	troubled := make(chan struct{}, len(f.nodes)-1) // one is always well
	var nemesis sync.WaitGroup
	for i, s := range f.nodes {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		nemesis.Go(func() {
			pause := func(most time.Duration) {
				select {
				case <-writing.Done():
				case <-time.After(time.Duration(rng.Int64N(int64(most)))):
				}
			}
			for pause(8 * time.Second); writing.Err() == nil; pause(12 * time.Second) {
				troubled <- struct{}{}
				what := []string{"killed", "frozen", "frozen for long", "stopped"}[rng.IntN(4)]
				f.troubles.Add(1)
				switch what {
				case "killed":
					s.kill()
					pause(4 * time.Second)
					s.start()
				case "stopped":
					s.interrupt()
					pause(2 * time.Second)
					s.start()
				default:
					if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
						t.Error(err)
					}
					most := 3 * time.Second
					if what == "frozen for long" {
						most = 30 * time.Second
					}
					pause(time.Second + most)
					f.troubles.Add(1) // what it had in flight may arrive now
					if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				seen[what]++
				mu.Unlock()
				<-troubled
			}
		})
	}
	nemesis.Wait()
	wait()
	worst := longest()
	f.settle(ctx)
	stopWatching()
	t.Logf("troubles: %v; longest time without a delivery to a tenant's good receiver: %v", seen, worst.Round(time.Millisecond))
	if len(seen) < 3 && length > time.Minute {
		t.Errorf("only %v happened", seen)
	}
}

// delivered waits until each tenant's good receiver has got an event that was appended after this call.
func (f *fleet) delivered(ctx context.Context) {
	f.t.Helper()
	began := time.Now()
	for _, j := range f.journals {
		for fresh := func() (found bool) {
			j.mu.Lock()
			defer j.mu.Unlock()
			for id, at := range j.when {
				if at.After(began) && f.got(j.tenant, j.acked[id]) {
					return true
				}
			}
			return false
		}; !fresh(); {
			select {
			case <-ctx.Done():
				f.t.Fatalf("nothing is delivered for %s", j.tenant)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// got reports whether a tenant's good receiver has an event.
func (f *fleet) got(tenant eventhose.TenantID, seq uint64) bool {
	r := f.receivers["good of "+string(tenant)]
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.arrivals {
		if a.sequence == seq {
			return true
		}
	}
	return false
}

// interrupt ends the process as an operator would, and waits for it.
func (s *server) interrupt() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Error(err)
	}
	<-s.exited
	if out := s.out.String(); strings.Contains(out, "DATA RACE") {
		s.t.Errorf("data race in the server:\n%s", out)
	}
}

// TestFailover: the primary dies, its synchronous standby is promoted, and the nodes go on by themselves.
func TestFailover(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	primary := pgtest.Start(t, pgtest.Options{})
	standby := primary.Standby(t, pgtest.Options{Synchronous: true})
	f := newFleet(ctx, t, both(t, primary, standby), 2, 3)
	f.shared(ctx) // so that each of them delivers for a tenant, and has something to lose, when the primary dies
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	wait := f.write(writing)
	f.acknowledged(ctx, 200)

	f.troubles.Add(2) // both nodes lose what they had not recorded
	primary.Kill()
	died := time.Now()
	standby.Promote()
	promoted := time.Now()
	f.acknowledged(ctx, 20)
	t.Logf("appends are answered again %v after the promotion and %v after the primary's death", time.Since(promoted).Round(time.Millisecond), time.Since(died).Round(time.Millisecond))
	f.acknowledged(ctx, 200)
	stopWriting()
	wait()
	f.settle(ctx)
	for _, s := range f.nodes {
		select {
		case <-s.exited:
			t.Errorf("a node ended:\n%s", s.out)
		default:
		}
	}
}

// both is a URL that names two servers, of which the one that takes writes is meant.
func both(t *testing.T, a, b *pgtest.Cluster) string {
	t.Helper()
	first, err := url.Parse(a.TCPURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := url.Parse(b.TCPURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	first.Host += "," + second.Host
	q := first.Query()
	maps.DeleteFunc(q, func(name string, _ []string) bool { return name == "host" || name == "port" })
	q.Set("target_session_attrs", "read-write")
	first.RawQuery = q.Encode()
	return first.String()
}

// acknowledged waits until so many more appends were.
func (f *fleet) acknowledged(ctx context.Context, more int) {
	f.t.Helper()
	count := func() (n int) {
		for _, j := range f.journals {
			j.mu.Lock()
			n += len(j.acked)
			j.mu.Unlock()
		}
		return n
	}
	for want := count() + more; count() < want; {
		select {
		case <-ctx.Done():
			f.t.Fatalf("%d of %d appends were acknowledged", count(), want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestDatabaseAway: PostgreSQL is stopped for a minute; appends are refused with a time to come back, nothing ends, and all goes on by itself.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	away := seconds(t, "EVENTHOSE_AWAY_SECONDS", 60, 10)
	ctx, cancel := context.WithTimeout(t.Context(), away+4*time.Minute)
	defer cancel()
	cluster := pgtest.Start(t, pgtest.Options{})
	f := newFleet(ctx, t, cluster.URL("postgres"), 2, 2)
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	wait := f.write(writing)
	f.acknowledged(ctx, 100)

	f.troubles.Add(2)
	cluster.Stop()
	refused := 0
	for end := time.Now().Add(away); time.Now().Before(end); {
		for _, s := range f.nodes {
			status, retry, body := f.post(ctx, s, "/v1/tenants/tenant-0/events", `{"type":"order.paid","key":"k0","data":{}}`)
			if status != http.StatusServiceUnavailable || retry == "" {
				t.Fatalf("an append without a database is answered %d, Retry-After %q: %s", status, retry, body)
			}
			refused++
			if status, _, body := f.post(ctx, s, "/readyz", ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "database") {
				t.Fatalf("/readyz answers %d: %s", status, body)
			}
			select {
			case <-s.exited:
				t.Fatalf("a node ended:\n%s", s.out)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	cluster.Start()
	back := time.Now()
	f.acknowledged(ctx, 1)
	t.Logf("%d appends were refused in %v; the first was answered %v after the database was back", refused, away, time.Since(back).Round(time.Millisecond))
	f.acknowledged(ctx, 100)
	stopWriting()
	wait()
	f.settle(ctx)
}

// post sends a request, or without a body gets a page.
func (f *fleet) post(ctx context.Context, s *server, path, body string) (status int, retryAfter, answer string) {
	f.t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatalf("%s: %v\n%s", path, err, s.out)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Retry-After"), string(text)
}
