package interop_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// The examples of workers do every event's work once: one dies within its transaction, another after it and before it can
// say so, since the server has died. Whatever they had comes again, and what was done is passed over.
func TestExampleWorkersDoItOnce(t *testing.T) {
	for name, command := range exampleWorkers(t) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			w := newBooks(ctx, t, command)
			const charges, customers = 40, 3
			want := map[string]int{}
			for i := range charges {
				customer, amount := fmt.Sprint("cus_", i%customers), 1+i*i
				want[customer] += amount
				w.charge(i, customer, amount)
			}

			// Within the transaction.
			lock := w.lock()
			first := w.start()
			w.until("a worker waits for the lock", "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'accounts'::regclass AND NOT granted")
			first.kill()
			w.free(lock)
			w.until("the dead worker's connections are gone", "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()")
			if n := w.done(); n != 0 {
				t.Errorf("%d are done by a worker that died within its transaction", n)
			}

			// After the transaction, before the server knows.
			lock = w.lock()
			second := w.start()
			w.until("a worker waits for the lock", "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'accounts'::regclass AND NOT granted")
			w.server.stop(syscall.SIGKILL)
			w.free(lock)
			w.until("something is done", "SELECT count(*) > 0 FROM done")
			second.kill()
			unsaid := w.done()

			w.server.start()
			others := []*workerProcess{w.start(), w.start()}
			w.until("everything is done", fmt.Sprintf("SELECT count(*) = %d FROM done", charges))
			w.processed(charges)
			passed := 0
			for _, o := range others {
				o.kill()
				passed += strings.Count(o.stderr.String(), "was done before")
			}
			if passed < unsaid {
				t.Errorf("%d were done and not acknowledged, and %d were seen to be done before", unsaid, passed)
			}
			rows, err := w.db.Query(ctx, "SELECT customer, balance FROM accounts")
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			var customer string
			var balance int
			if _, err := pgx.ForEachRow(rows, []any{&customer, &balance}, func() error { got[customer] = balance; return nil }); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the accounts have %v, want %v", got, want)
			}
			t.Logf("%d charges, %d done by a worker that could not say so, %d passed over", charges, unsaid, passed)
		})
	}
}

// A worker whose database is away keeps what it has in hand until the database is back, and what it does not work on it has
// not: an outage makes no event dead, and charges none that has not been begun.
func TestExampleWorkersOutliveTheirDatabase(t *testing.T) {
	inHand := map[string]int{"Go": 8, "Python": 1}
	for name, command := range exampleWorkers(t) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			w := newBooks(ctx, t, command)
			const charges = 12
			for i := range charges {
				w.charge(i, "cus", 1)
			}
			w.lock()
			worker := w.start()
			w.until("a worker waits for the lock", "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'accounts'::regclass AND NOT granted")
			if n := w.parked(eventhose.ParkedLeased); n > inHand[name] {
				t.Errorf("%d events are leased, %d are worked on", n, inHand[name])
			}
			back := w.takeAway()
			for strings.Count(worker.stderr.String(), "not currently accepting connections") < 5 {
				if n := w.parked(eventhose.ParkedDead); n > 0 {
					t.Fatalf("%d events are dead since the database is away", n)
				}
				if ctx.Err() != nil {
					t.Fatal("the worker does not ask for the database again")
				}
				<-time.After(20 * time.Millisecond)
			}
			back()
			w.until("everything is done", fmt.Sprintf("SELECT count(*) = %d FROM done", charges))
			w.processed(charges)
			again := 0
			for _, item := range w.inbox() {
				if item.Attempts > 1 {
					again++
				}
			}
			if again > inHand[name] {
				t.Errorf("%d events were charged for the outage, %d were in hand", again, inHand[name])
			}
		})
	}
}

// A worker goes on after an answer that breaks off.
func TestExampleWorkersOutliveABrokenAnswer(t *testing.T) {
	for name, command := range exampleWorkers(t) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var asked atomic.Int64
			cut := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 1 {
					cancel()
				}
				rw.Header().Set("Content-Type", "application/json")
				rw.Header().Set("Content-Length", "100")
				fmt.Fprint(rw, `{"data":[`)
			}))
			defer cut.Close()
			w := &books{t: t, ctx: ctx, command: command, database: pgtest.Database(t), server: &restarted{url: cut.URL}}
			w.source.Subscription = "sub_01h455vb4pex5vsknk084sn02q"
			p := w.start()
			if err := p.cmd.Wait(); ctx.Err() == nil || asked.Load() < 2 {
				t.Errorf("it ended with %v after %d requests: %s", err, asked.Load(), p.stderr)
			}
		})
	}
}

// exampleWorkers are the commands that run them.
func exampleWorkers(t *testing.T) map[string][]string {
	t.Helper()
	goWorker := filepath.Join(t.TempDir(), "worker")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-race", "-ldflags=-w", "-o", goWorker, "github.com/eventhose/eventhose/examples/worker").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return map[string][]string{"Go": {goWorker}, "Python": {python, "../../examples/worker/worker.py"}}
}

// books is a database, a server whose source has Stripe's charges, and what starts workers on them.
type books struct {
	t        *testing.T
	ctx      context.Context
	db       *pgx.Conn
	database string
	server   *restarted
	source   struct{ URL, Subscription string }
	command  []string
}

func newBooks(ctx context.Context, t *testing.T, command []string) *books {
	t.Helper()
	w := &books{t: t, ctx: ctx, command: command, database: pgtest.Database(t)}
	w.db = w.connect()
	schema, err := os.ReadFile("../../examples/worker/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Exec(ctx, string(schema)); err != nil {
		t.Fatal(err)
	}
	w.server = newRestarted(t)
	call(t, http.MethodPost, w.server.url+"/v1/tenants/default/sources", `{"provider":"stripe","secret":"`+floodSecret+`"}`, &w.source)
	return w
}

func (w *books) connect() *pgx.Conn {
	w.t.Helper()
	db, err := pgx.Connect(w.ctx, w.database)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { db.Close(context.WithoutCancel(w.ctx)) })
	return db
}

// charge sends what Stripe would.
func (w *books) charge(n int, customer string, amount int) {
	w.t.Helper()
	body := fmt.Sprintf(`{"id":"evt_%d","type":"charge.succeeded","data":{"object":{"id":"ch_%d","customer":%q,"amount":%d}}}`, n, n, customer, amount)
	now := time.Now().Unix()
	mac := hmac.New(sha256.New, []byte(floodSecret))
	fmt.Fprintf(mac, "%d.%s", now, body)
	req, err := http.NewRequestWithContext(w.ctx, http.MethodPost, w.source.URL, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Stripe-Signature", fmt.Sprintf("t=%d,v1=%s", now, hex.EncodeToString(mac.Sum(nil))))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		w.t.Fatalf("%s", res.Status)
	}
}

// lock keeps workers from booking until it is freed.
func (w *books) lock() *pgx.Conn {
	w.t.Helper()
	db := w.connect()
	if _, err := db.Exec(w.ctx, "BEGIN; LOCK TABLE accounts IN EXCLUSIVE MODE"); err != nil {
		w.t.Fatal(err)
	}
	return db
}

// takeAway cuts all connections to the database and has it take no others until it is back.
func (w *books) takeAway() (back func()) {
	w.t.Helper()
	elsewhere, err := pgx.Connect(w.ctx, pgtest.Database(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { elsewhere.Close(context.WithoutCancel(w.ctx)) })
	name := w.db.Config().Database
	execute := func(query string) {
		w.t.Helper()
		if _, err := elsewhere.Exec(w.ctx, query); err != nil {
			w.t.Fatal(err)
		}
	}
	execute("ALTER DATABASE " + name + " ALLOW_CONNECTIONS false")
	execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'")
	return func() {
		execute("ALTER DATABASE " + name + " ALLOW_CONNECTIONS true")
		w.db = w.connect()
	}
}

func (w *books) free(lock *pgx.Conn) {
	w.t.Helper()
	if err := lock.Close(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// until waits for what a query says.
func (w *books) until(what, query string) {
	w.t.Helper()
	for is := false; ; {
		if err := w.db.QueryRow(w.ctx, query).Scan(&is); err != nil {
			w.t.Fatalf("waiting until %s: %v", what, err)
		}
		if is {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (w *books) done() (n int) {
	w.t.Helper()
	if err := w.db.QueryRow(w.ctx, "SELECT count(*) FROM done").Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// received is what the inbox says of an event.
type received struct {
	Status   string
	Attempts int
}

func (w *books) inbox() []received {
	w.t.Helper()
	var page struct{ Data []received }
	call(w.t, http.MethodGet, w.server.url+"/v1/tenants/default/inbox?limit=100", "", &page)
	return page.Data
}

// parked is how many events of the source are in this state.
func (w *books) parked(state eventhose.ParkedState) int {
	w.t.Helper()
	var page struct{ Data []struct{} }
	call(w.t, http.MethodGet, w.server.url+"/v1/tenants/default/subscriptions/"+w.source.Subscription+"/parked?state="+string(state), "", &page)
	return len(page.Data)
}

// processed waits until the inbox has all as processed.
func (w *books) processed(want int) {
	w.t.Helper()
	for w.ctx.Err() == nil {
		n := 0
		for _, item := range w.inbox() {
			if item.Status == "processed" {
				n++
			}
		}
		if n == want {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	w.t.Fatal("not everything is acknowledged")
}

// transcript is what a process has said so far.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// workerProcess is a worker at work.
type workerProcess struct {
	cmd    *exec.Cmd
	stderr *transcript
	kill   func()
}

func (w *books) start() *workerProcess {
	w.t.Helper()
	p := &workerProcess{cmd: exec.CommandContext(w.ctx, w.command[0], append(w.command[1:], w.source.Subscription)...), stderr: &transcript{}}
	p.cmd.Env = append(os.Environ(), "DATABASE_URL="+w.database, "EVENTHOSE_URL="+w.server.url, "EVENTHOSE_API_KEY="+adminKey, raceOptions)
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	p.kill = sync.OnceFunc(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if w.t.Failed() || strings.Contains(p.stderr.String(), "DATA RACE") {
			w.t.Errorf("a worker said: %s", p.stderr)
		}
	})
	w.t.Cleanup(p.kill)
	return p
}
