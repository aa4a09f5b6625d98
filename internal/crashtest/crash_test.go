// Package crashtest kills the real server again and again under load and checks what it promised: nothing that was
// acknowledged is lost, everything is delivered, in order within a key, with valid signatures and the same bytes, and
// no more is repeated than was in flight.
package crashtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	_ "github.com/eventhose/eventhose/internal/app" // what the binary is made of: when it changes, a remembered result is no more good
)

const (
	adminKey = "crashtest-admin-key-0123456789"
	inFlight = 64
	writers  = 8
	keys     = 40
	tenant   = eventhose.TenantID("default")
	// secretKey is that of all nodes over one database: base64 of 32 bytes.
	secretKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
)

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

// server is the built binary on one data directory, or database, and one address.
type server struct {
	t        *testing.T
	data     string
	database string
	addr     string
	cmd      *exec.Cmd
	exited   chan struct{}
	out      *output
}

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// binary is the real one, with the race detector.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "eventhose-crashtest-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "eventhose")
		if out, err := exec.Command("go", "build", "-race", "-ldflags=-w", "-o", binary, "../../cmd/eventhose").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) start() {
	s.t.Helper()
	s.out = &output{}
	s.cmd = exec.Command(binary, "serve", "--listen", s.addr, "--allow-networks", "127.0.0.0/8",
		"--max-in-flight", strconv.Itoa(inFlight), "--log-level", "warn")
	s.cmd.Env = append(os.Environ(), "EVENTHOSE_ADMIN_KEY="+adminKey)
	if s.database != "" {
		s.cmd.Env = append(s.cmd.Env, "EVENTHOSE_DATABASE_URL="+s.database, "EVENTHOSE_SECRET_KEY="+secretKey)
	} else {
		s.cmd.Args = append(s.cmd.Args, "--data", s.data)
	}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { cmd.Wait(); close(exited) }(s.cmd, s.exited)
}

// kill ends the process as a power switch would, and waits for it.
func (s *server) kill() {
	s.t.Helper()
	select {
	case <-s.exited:
		s.t.Fatalf("the server ended by itself:\n%s", s.out)
	default:
	}
	s.cmd.Process.Kill()
	<-s.exited
	if strings.Contains(s.out.String(), "DATA RACE") {
		s.t.Fatalf("data race in the server:\n%s", s.out)
	}
}

// up waits until the server answers.
func (s *server) up(ctx context.Context, c *client.Client) {
	s.t.Helper()
	for {
		if err := c.Ready(ctx); err == nil {
			return
		}
		select {
		case <-s.exited:
			s.t.Fatalf("the server does not start:\n%s", s.out)
		case <-ctx.Done():
			s.t.Fatalf("the server does not answer:\n%s", s.out)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// journal is what the writers of one tenant know of its events.
type journal struct {
	tenant eventhose.TenantID
	mu     sync.Mutex
	sent   map[string][32]byte  // id to data
	acked  map[string]uint64    // id to sequence
	when   map[string]time.Time // id to when it was acknowledged
}

func newJournal(tenant eventhose.TenantID) *journal {
	return &journal{tenant: tenant, sent: map[string][32]byte{}, acked: map[string]uint64{}, when: map[string]time.Time{}}
}

// write appends events with ids of their own, one after another, until ctx ends. What is not acknowledged is tried again
// under the same id half of the time, and left half of the time. Each try is at any of the servers.
func (j *journal) write(ctx context.Context, t *testing.T, writer int, servers ...*client.Client) {
	r := rand.New(rand.NewPCG(uint64(writer), rand.Uint64()))
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("w%d-%d", writer, n)
		data := fmt.Appendf(nil, `{"writer":%d, "n":%d,"pad":"%0*d"}`, writer, n, 1+r.IntN(600), n)
		e := eventhose.Event{ID: id, Type: "order.paid", Key: fmt.Sprintf("k%d", r.IntN(keys)), Data: data}
		j.mu.Lock()
		j.sent[id] = sha256.Sum256(data)
		j.mu.Unlock()
		for tries := 0; ctx.Err() == nil; tries++ {
			trying, cancel := context.WithTimeout(ctx, 3*time.Second)
			placed, err := servers[r.IntN(len(servers))].Tenant(j.tenant).Append(trying, e)
			cancel()
			if err == nil {
				j.mu.Lock()
				j.acked[id] = uint64(placed[0].Sequence)
				j.when[id] = time.Now()
				j.mu.Unlock()
				break
			}
			if code := eventhose.CodeOf(err); code == eventhose.CodeConflict || code == eventhose.CodeInvalid {
				t.Errorf("append %s: %v", id, err)
			}
			if tries%2 == 1 {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel() // the tests of many nodes wait for most of their time
	kills := int(number(t, "EVENTHOSE_KILLS", 200))
	seed := number(t, "EVENTHOSE_SEED", rand.Uint64())
	t.Logf("EVENTHOSE_SEED=%d EVENTHOSE_KILLS=%d", seed, kills)
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(kills)*3*time.Second)
	defer cancel()

	s := &server{t: t, data: filepath.Join(t.TempDir(), "data"), addr: freeAddr(t)}
	c, err := client.New("http://"+s.addr, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.start()
	defer func() { s.cmd.Process.Kill(); <-s.exited }()
	s.up(ctx, c)

	var killed atomic.Int64
	receivers := map[string]*receiver{}
	subs := map[string]eventhose.SubscriptionID{}
	schedule := []eventhose.Duration{0}
	for range eventhose.MaxSchedule - 1 {
		schedule = append(schedule, eventhose.Duration(50*time.Millisecond))
	}
	subscribe := func(name string, act behaviour, batch eventhose.BatchPolicy) *receiver {
		r := newReceiver(t, &killed, act)
		sub, err := c.Tenant(tenant).CreateSubscription(ctx, client.NewSubscription{Name: name, Ordering: eventhose.OrderingKey, Batch: batch,
			Retry:       eventhose.Retry{Schedule: schedule, Timeout: eventhose.Duration(5 * time.Second)},
			Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: r.url}})
		if err != nil {
			t.Fatal(err)
		}
		if r.verify, err = standardwebhooks.NewWebhook(string(sub.Secret)); err != nil {
			t.Fatal(err)
		}
		receivers[name], subs[name] = r, sub.ID
		return r
	}
	for name, act := range behaviours() {
		subscribe(name, act, eventhose.BatchPolicy{})
	}
	for name, batch := range map[string]eventhose.BatchPolicy{"good": {MaxEvents: 20}, "failing": {MaxEvents: 7, MaxWait: eventhose.Duration(20 * time.Millisecond)}, "resetting": {MaxEvents: 1000, MaxBytes: 4096}} {
		subscribe(name+" in batches", behaviours()[name], batch)
	}
	subscribe(picky+" in batches", behaviours()["good"], eventhose.BatchPolicy{MaxEvents: 20}).picky = true

	j := newJournal(tenant)
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() { j.write(writing, t, w, c) })
	}
	for killed.Load() < int64(kills) {
		// One in four is killed while it recovers.
		if rng.IntN(4) > 0 {
			s.up(ctx, c)
		}
		<-time.After(time.Duration(5+rng.IntN(250)) * time.Millisecond)
		s.kill()
		killed.Add(1)
		s.start()
	}
	stopWriting()
	wg.Wait()
	for _, r := range receivers {
		r.well.Store(true)
	}
	s.up(ctx, c)
	for name, id := range subs {
		drain(ctx, t, c, tenant, name, id)
	}

	log := readLog(ctx, t, c, j)
	for name, r := range receivers {
		r.mu.Lock()
		for _, wrong := range audit(r.arrivals, r.forged, log, true, inFlight) {
			t.Errorf("%s: %s", name, wrong)
		}
		t.Logf("%s: %d arrivals of %d events", name, len(r.arrivals), len(log))
		r.mu.Unlock()
	}
	t.Logf("%d kills, %d events sent, %d acknowledged, %d in the log", killed.Load(), len(j.sent), len(j.acked), len(log))
	if len(j.acked) < kills {
		t.Errorf("only %d appends were acknowledged: the load is too light to prove anything", len(j.acked))
	}
}

// drain waits until a subscription has nothing left to do.
func drain(ctx context.Context, t *testing.T, c *client.Client, tenant eventhose.TenantID, name string, id eventhose.SubscriptionID) {
	t.Helper()
	for {
		s, err := c.Tenant(tenant).Subscription(ctx, id)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		st := s.Status
		if st.Dead > 0 {
			t.Fatalf("%s: %d dead", name, st.Dead)
		}
		if st.Lag == 0 && st.InFlight == 0 && st.Retrying == 0 && st.Waiting == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: never drained: %+v", name, st)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// readLog reads the whole log and checks it against the writers' journal.
func readLog(ctx context.Context, t *testing.T, c *client.Client, j *journal) map[uint64][32]byte {
	t.Helper()
	log, byID := map[uint64][32]byte{}, map[string]uint64{}
	next := uint64(1)
	for after := (eventhose.Cursor{}); ; {
		page, err := c.Tenant(j.tenant).Read(ctx, client.ReadOptions{After: after, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if uint64(e.Sequence) != next {
				t.Fatalf("sequence %d comes after %d", e.Sequence, next-1)
			}
			next++
			sum := sha256.Sum256(e.Data)
			log[uint64(e.Sequence)] = sum
			if j.sent[e.ID] != sum {
				t.Errorf("event %s has other data than was sent", e.ID)
			}
			if twice := byID[e.ID]; twice != 0 {
				t.Errorf("event %s stands at %d and at %d", e.ID, twice, e.Sequence)
			}
			byID[e.ID] = uint64(e.Sequence)
		}
		if after = page.Cursor; !page.HasMore {
			break
		}
	}
	for id, seq := range j.acked {
		if byID[id] != seq {
			t.Errorf("event %s was acknowledged at %d and stands at %d", id, seq, byID[id])
		}
	}
	return log
}

// The checker is seen red on each fault that it is there for.
func TestAuditSeesFaults(t *testing.T) {
	sum := sha256.Sum256([]byte("x"))
	log := map[uint64][32]byte{1: sum, 2: sum, 3: sum}
	request := int64(0)
	at := func(seq uint64, kill int64, taken bool) arrival {
		request++
		return arrival{id: fmt.Sprint("e", seq), sequence: seq, key: "k", sum: sum, kill: kill, taken: taken, request: request}
	}
	good := []arrival{at(1, 0, false), at(1, 0, true), at(2, 1, true), at(2, 2, true), at(3, 2, true)}
	if wrong := audit(good, nil, log, true, 1); len(wrong) > 0 {
		t.Fatalf("good deliveries are found wrong: %q", wrong)
	}
	other := at(2, 1, true)
	other.sum = sha256.Sum256([]byte("y"))
	renamed := at(2, 2, true)
	renamed.id = "e9"
	for name, arrivals := range map[string][]arrival{
		"never delivered":      good[:4],
		"never taken":          {at(1, 0, false), at(2, 0, true), at(3, 0, true)},
		"out of order":         {at(2, 0, true), at(1, 0, true), at(3, 0, true)},
		"other data":           {at(1, 0, true), other, at(3, 1, true)},
		"other id":             {at(1, 0, true), at(2, 1, true), renamed, at(3, 2, true)},
		"not in the log":       append([]arrival{at(4, 0, true)}, good...),
		"repeat without kill":  {at(1, 0, true), at(1, 0, true), at(2, 0, true), at(3, 0, true)},
		"repeats beyond bound": {at(1, 0, true), at(2, 0, true), at(1, 1, true), at(2, 1, true), at(3, 1, true)},
	} {
		if wrong := audit(arrivals, nil, log, true, 1); len(wrong) == 0 {
			t.Errorf("%s is not seen", name)
		}
	}
	// One request that a kill repeats is one, however many events it holds.
	batch := []arrival{at(1, 0, true), at(2, 0, true), at(1, 1, true), at(2, 1, true), at(3, 1, true)}
	batch[1].request = batch[0].request
	if wrong := audit(batch, nil, log, true, 1); len(wrong) > 0 {
		t.Errorf("a batch that a kill has repeated is found wrong: %q", wrong)
	}
	if len(audit(good, []string{"no signature"}, log, true, 1)) == 0 {
		t.Error("a forged request is not seen")
	}
	// Many faults of one kind hide none of another.
	forged := slices.Repeat([]string{"no signature"}, 100)
	if wrong := audit(good[:4], forged, log, true, 1); !slices.Contains(wrong, "1 of 3 events were never taken") || !slices.Contains(wrong, `and 90 more like "bad request: %s"`) || len(wrong) > 20 {
		t.Errorf("of a hundred forged requests and an event that was never taken: %q", wrong)
	}
}
