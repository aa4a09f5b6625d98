package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	webhook "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/listen"
)

// got is one webhook that a target got and took.
type got struct {
	id, sequence, previous, attempt, body string
}

// target takes webhooks that Standard Webhooks' own library verifies.
type target struct {
	*httptest.Server
	taken chan got
	// decide answers the status of the nth request, 200 if nil.
	decide func(n int, r *http.Request) int

	mu       sync.Mutex
	verify   *webhook.Webhook
	requests int
}

func newTarget(t *testing.T, decide func(n int, r *http.Request) int) *target {
	t.Helper()
	x := &target{taken: make(chan got, 1000), decide: decide}
	x.Server = httptest.NewServer(x)
	t.Cleanup(x.Close)
	return x
}

// expect has requests verified with a secret from now on.
func (x *target) expect(t *testing.T, secret string) {
	t.Helper()
	v, err := webhook.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.verify = v
}

func (x *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	x.mu.Lock()
	x.requests++
	n, verify := x.requests, x.verify
	x.mu.Unlock()
	status := http.StatusOK
	switch {
	case err != nil:
		return
	case verify != nil && verify.Verify(body, r.Header) != nil:
		status = http.StatusUnauthorized
	case x.decide != nil:
		status = x.decide(n, r)
	}
	if status == http.StatusOK {
		x.taken <- got{r.Header.Get("Webhook-Id"), r.Header.Get("Eventhose-Sequence"), r.Header.Get("Eventhose-Previous-Sequence"), r.Header.Get("Eventhose-Attempt"), string(body)}
	}
	w.WriteHeader(status)
}

// next answers the next n that were taken.
func (x *target) next(t *testing.T, n int) (list []got) {
	t.Helper()
	deadline := time.After(time.Minute)
	for len(list) < n {
		select {
		case g := <-x.taken:
			list = append(list, g)
		case <-deadline:
			t.Fatalf("%d of %d came within a minute: %v", len(list), n, list)
		}
	}
	return list
}

// network is a TCP proxy that can be cut: connections break and new ones are refused, or nothing goes through any more and
// nobody is told.
type network struct {
	listener net.Listener
	to       string
	all      sync.WaitGroup

	mu     sync.Mutex
	state  string // "", "cut" or "silent"
	change chan struct{}
	conns  map[net.Conn]bool
}

func newNetwork(t *testing.T, to string) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{listener: l, to: to, change: make(chan struct{}), conns: map[net.Conn]bool{}}
	n.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.all.Go(func() { n.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		n.become("cut")
		n.all.Wait()
	})
	return n
}

func (n *network) become(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = state
	close(n.change)
	n.change = make(chan struct{})
	if state == "cut" {
		for c := range n.conns {
			c.Close()
		}
	}
}

func (n *network) carry(c net.Conn) {
	defer c.Close()
	n.mu.Lock()
	cut := n.state == "cut"
	n.conns[c] = true
	n.mu.Unlock()
	if cut {
		return
	}
	out, err := net.Dial("tcp", n.to)
	if err != nil {
		return
	}
	defer out.Close()
	n.mu.Lock()
	n.conns[out] = true
	n.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() { n.copy(c, out) })
	n.copy(out, c)
	back.Wait()
	n.mu.Lock()
	delete(n.conns, c)
	delete(n.conns, out)
	n.mu.Unlock()
}

// copy carries bytes one way; while the network is silent it holds them.
func (n *network) copy(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		k, err := from.Read(buffer)
		for {
			n.mu.Lock()
			state, change := n.state, n.change
			n.mu.Unlock()
			if state != "silent" {
				break
			}
			<-change
		}
		if _, failed := to.Write(buffer[:k]); failed != nil || err != nil {
			return
		}
	}
}

// serverProcess is a server as a process of its own, on one address and data directory over its lives.
type serverProcess struct {
	*process
	address, data string
}

func startServer(t *testing.T) *serverProcess {
	t.Helper()
	s := &serverProcess{address: "127.0.0.1:0", data: filepath.Join(t.TempDir(), "data")}
	s.start(t)
	return s
}

func (s *serverProcess) start(t *testing.T) {
	t.Helper()
	s.process = start(t, []string{"EVENTHOSE_ADMIN_KEY=" + testKey}, "serve", "--listen", s.address, "--data", s.data, "--log-level", "error")
	s.address = strings.TrimPrefix(s.line(t, "ready "), "http://")
}

// listener is eventhose listen as a process of its own.
type listener struct {
	*process
	secret string
}

// startListener starts one and waits until it is ready. Its stdout goes to w.
func startListener(t *testing.T, url string, w io.Writer, args ...string) *listener {
	t.Helper()
	l := &listener{process: command(args...)}
	l.Env = append(l.Env, "EVENTHOSE_URL="+url, "EVENTHOSE_API_KEY="+testKey)
	l.Stdout = w
	l.begin(t)
	prefix := "ready: "
	if slices.Contains(args, "json") {
		prefix = `{"ready":`
	}
	ready := l.line(t, prefix)
	if _, secret, ok := strings.Cut(ready, "(secret "); ok {
		l.secret = strings.TrimSuffix(secret, ")")
	}
	return l
}

func appendEvents(t *testing.T, log *client.Tenant, n int) {
	t.Helper()
	for range n {
		if _, err := log.Append(t.Context(), eventhose.Event{Type: "order.paid", Data: []byte(`{"amount": 1.50}`)}); err != nil {
			t.Fatal(err)
		}
	}
}

// acknowledged waits until the server knows that everything was taken.
func acknowledged(t *testing.T, log *client.Tenant, list []got) []got {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all := func(eventhose.SubscriptionID) (bool, error) { return true, nil }
	for _, g := range list {
		if d, err := settled(ctx, log, g.id, all); err != nil || len(d) != 1 || d[0].State != eventhose.DeliveryDelivered {
			t.Fatalf("%s is %v, %v", g.id, d, err)
		}
	}
	return list
}

// A listener goes on where it was, through a killed server, a cut network, a silent one, and its own end.
func TestListenMissesNothing(t *testing.T) {
	server := startServer(t)
	direct := dial(t, "http://"+server.address, testKey).Tenant("default")
	network := newNetwork(t, server.address)
	target := newTarget(t, nil)
	args := []string{"listen", "--forward-to", target.URL + "/hooks", "--types", "order.*", "--print-secret"}
	through := "http://" + network.listener.Addr().String()
	// Only this one meets a silent network. On a busy machine a server may itself be silent for 2 s, and what is caught up is then counted anew.
	l := startListener(t, through, io.Discard, append(args, "--silence", "2s")...)
	target.expect(t, l.secret)
	l.line(t, "caught up 0 events")
	if _, err := direct.Append(t.Context(), eventhose.Event{Type: "mail.sent", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, direct, 3)
	all := acknowledged(t, direct, target.next(t, 3))

	server.signal(t, syscall.SIGKILL)
	l.line(t, "lost the server, trying again: ")
	server.end(t)
	server.start(t)
	appendEvents(t, direct, 2)
	l.line(t, "reconnected after ")
	l.line(t, "caught up ")
	all = append(all, acknowledged(t, direct, target.next(t, 2))...)

	for _, trouble := range []string{"cut", "silent"} {
		network.become(trouble)
		l.line(t, "lost the server, trying again: ")
		appendEvents(t, direct, 4)
		network.become("")
		l.line(t, "reconnected after ")
		l.line(t, "caught up 4 events")
		all = append(all, acknowledged(t, direct, target.next(t, 4))...)
	}

	l.signal(t, syscall.SIGTERM)
	if code := l.end(t); code != exitInterrupted {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	appendEvents(t, direct, 5)
	l = startListener(t, through, io.Discard, args...)
	l.line(t, "caught up 5 events")
	all = append(all, target.next(t, 5)...)

	if extra := len(target.taken); extra > 0 {
		t.Errorf("%d came more than once", extra)
	}
	previous := "0"
	for i, g := range all {
		if want := fmt.Sprint(i + 2); g.sequence != want || g.previous != previous {
			t.Errorf("webhook %d has sequence %s after %s, want %s after %s", i, g.sequence, g.previous, want, previous)
		}
		previous = g.sequence
	}

	// An earlier place is replayed; what is told to be a replay is.
	l.signal(t, os.Interrupt)
	if code := l.end(t); code != exitInterrupted {
		t.Errorf("exit code %d after SIGINT", code)
	}
	l = startListener(t, through, io.Discard, append(args, "--after", "0")...)
	l.line(t, fmt.Sprintf("caught up %d events", len(all)))
	for i, g := range target.next(t, len(all)) {
		if g.id != all[i].id || g.body != all[i].body {
			t.Errorf("the replay's webhook %d is %v, want %v", i, g, all[i])
		}
	}
}

// What is piped has no colour, and the same lines as on a terminal; a target that fails is tried again, and holds up the rest.
func TestListenShowsAttempts(t *testing.T) {
	server := startServer(t)
	log := dial(t, "http://"+server.address, testKey).Tenant("default")
	const lines = `--> TIME order.paid one #1
<-- 500 Internal Server Error N ms one next in 500ms: the receiver answered 500 Internal Server Error. The error is in the receiver: look into its log for this webhook-id
--> TIME order.paid one #1
<-- 500 Internal Server Error N ms one try 2 next in 1s: the receiver answered 500 Internal Server Error. The error is in the receiver: look into its log for this webhook-id
--> TIME order.paid one #1
<-- 200 OK N ms one try 3
--> TIME order.paid two #2
<-- 200 OK N ms two
`
	failing := func(n int, _ *http.Request) int {
		if n <= 2 {
			return 500
		}
		return 200
	}
	show := func(output string) string {
		target := newTarget(t, failing)
		var out bytes.Buffer
		l := startListener(t, "http://"+server.address, &out, "listen", "--forward-to", target.URL, "--after", "0", "-o", output, "--group", output)
		taken := target.next(t, 2)
		if taken[0].id != "one" || taken[0].attempt != "3" || taken[1].id != "two" || taken[1].attempt != "1" {
			t.Errorf("%s: it took %v", output, taken)
		}
		caughtUp := "caught up 2 events"
		if output == "json" {
			caughtUp = `{"caught_up":{"events":2,`
		}
		l.line(t, caughtUp)
		l.signal(t, os.Interrupt)
		if code := l.end(t); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
		return out.String()
	}
	for _, id := range []string{"one", "two"} {
		if _, err := log.Append(t.Context(), eventhose.Event{ID: id, Type: "order.paid", Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	text := show("text")
	text = regexp.MustCompile(`(?m)^--> \d\d:\d\d:\d\d`).ReplaceAllString(text, "--> TIME")
	text = regexp.MustCompile(` \d+ ms `).ReplaceAllString(text, " N ms ")
	if text != lines {
		t.Errorf("it printed\n%swant\n%s", text, lines)
	}
	var outcomes []string
	for d := json.NewDecoder(strings.NewReader(show("json"))); d.More(); {
		var a listen.Attempt
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, fmt.Sprint(a.Event, " #", a.Sequence, " ", a.Number, " ", a.Outcome, " ", a.Status, " ", a.Next.IsZero()))
	}
	if want := "one #1 1 failed 500 false,one #1 2 failed 500 false,one #1 3 taken 200 true,two #2 1 taken 200 true"; strings.Join(outcomes, ",") != want {
		t.Errorf("with -o json it printed %q", outcomes)
	}
}

// What was handed over as often as it may be, and was last in hand of a listener that is gone, another of its group takes.
func TestListenersTakeOver(t *testing.T) {
	server := startServer(t)
	url := "http://" + server.address
	log := dial(t, url, testKey).Tenant("default")
	args := func(to *target) []string {
		return []string{"listen", "--forward-to", to.URL, "--group", "team", "--silence", "2s"}
	}
	trying := make(chan struct{}, 1000)
	broken := newTarget(t, func(int, *http.Request) int { trying <- struct{}{}; return 503 })
	first := startListener(t, url, io.Discard, args(broken)...)
	first.signal(t, syscall.SIGTERM)
	first.end(t)
	subscriptions, err := log.Subscriptions(t.Context(), client.ListOptions{})
	if err != nil || len(subscriptions.Data) != 1 {
		t.Fatal(subscriptions, err)
	}
	sub := subscriptions.Data[0].ID
	appendEvents(t, log, 1)
	for range eventhose.MaxSchedule - 1 {
		leases, err := log.Pull(t.Context(), sub, eventhose.Pull{Wait: 10 * time.Second})
		if err != nil || len(leases) != 1 {
			t.Fatal(leases, err)
		}
		if _, err := log.Nack(t.Context(), sub, 0, "not yet", leases[0].Lease); err != nil {
			t.Fatal(err)
		}
	}
	first = startListener(t, url, io.Discard, args(broken)...)
	<-trying
	target := newTarget(t, nil)
	second := command(append(args(target), "--health-listen", "127.0.0.1:0")...)
	second.Env = append(second.Env, "EVENTHOSE_URL="+url, "EVENTHOSE_API_KEY="+testKey)
	second.begin(t)
	for health := second.line(t, "health "); statusOf(t, health) != http.StatusOK; { // until it has asked for work, and there was none
	}
	first.signal(t, syscall.SIGTERM)
	first.end(t)
	target.next(t, 1)
}

// A secret that is made anew while a listener runs signs what it sends from then on, and the old one no more when its time is over.
func TestListenerSecretIsRotated(t *testing.T) {
	server := startServer(t)
	log := dial(t, "http://"+server.address, testKey).Tenant("default")
	target := newTarget(t, nil)
	l := startListener(t, "http://"+server.address, io.Discard, "listen", "--forward-to", target.URL, "--silence", "2s", "--print-secret")
	target.expect(t, l.secret)
	appendEvents(t, log, 1)
	target.next(t, 1)
	subscriptions, err := log.Subscriptions(t.Context(), client.ListOptions{})
	if err != nil || len(subscriptions.Data) != 1 {
		t.Fatal(subscriptions, err)
	}
	rotated, err := log.RotateSecret(t.Context(), subscriptions.Data[0].ID, eventhose.Duration(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	target.expect(t, string(rotated.Secret))
	appendEvents(t, log, 1)
	target.next(t, 1)
}

// Two listeners of a group share the work, and each event is one listener's.
func TestListenersShare(t *testing.T) {
	server := startServer(t)
	log := dial(t, "http://"+server.address, testKey).Tenant("default")
	const n = 40
	// Each waits with its first event until the other has one too.
	var both sync.WaitGroup
	both.Add(2)
	wait := func(n int, r *http.Request) int {
		if n == 1 {
			both.Done()
		}
		both.Wait()
		return 200
	}
	var targets []*target
	for range 2 {
		target := newTarget(t, wait)
		targets = append(targets, target)
		l := startListener(t, "http://"+server.address, io.Discard, "listen", "--forward-to", target.URL, "--group", "team", "--ordering", "none")
		l.line(t, "caught up 0 events")
	}
	appendEvents(t, log, n)
	deadline := time.After(time.Minute)
	seen := map[string]int{}
	for len(seen) < n {
		select {
		case g := <-targets[0].taken:
			seen[g.sequence]++
		case g := <-targets[1].taken:
			seen[g.sequence]++
		case <-deadline:
			t.Fatalf("%d of %d came within a minute", len(seen), n)
		}
	}
	for sequence, times := range seen {
		if times != 1 {
			t.Errorf("event %s came %d times", sequence, times)
		}
	}
	subscriptions, err := log.Subscriptions(t.Context(), client.ListOptions{})
	if err != nil || len(subscriptions.Data) != 1 || subscriptions.Data[0].Name != "listen:team" {
		t.Errorf("they made %v, %v", subscriptions.Data, err)
	}
}

// An agent waits for a server that is not there yet, says when it is ready, and finishes what is in hand when it is stopped.
func TestAgent(t *testing.T) {
	server := startServer(t)
	network := newNetwork(t, server.address)
	network.become("cut")
	log := dial(t, "http://"+server.address, testKey).Tenant("default")
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	orders := newTarget(t, func(int, *http.Request) int {
		arrived <- struct{}{}
		<-release
		return 200
	})
	mails := newTarget(t, nil)
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	mails.expect(t, secret)
	config := filepath.Join(t.TempDir(), "agent.yaml")
	text := fmt.Sprintf("routes:\n- {group: orders, types: [order.*], forward_to: %q}\n- {group: mails, types: [mail.*], filter: data.n > 1, forward_to: %q, secret: %s, ordering: key}\n", orders.URL, mails.URL, secret)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := command("listen", "--config", config, "--health-listen", "127.0.0.1:0", "--silence", "2s")
	p.Env = append(p.Env, "EVENTHOSE_URL=http://"+network.listener.Addr().String(), "EVENTHOSE_API_KEY="+testKey)
	p.begin(t)
	health := p.line(t, "health ")
	if status := statusOf(t, health); status != 503 {
		t.Errorf("without a server readyz answers %d", status)
	}
	if status := statusOf(t, strings.TrimSuffix(health, "readyz")+"healthz"); status != 200 {
		t.Errorf("without a server healthz answers %d", status)
	}
	network.become("")
	caught := map[string]bool{}
	for len(caught) < 2 {
		caught[p.line(t, "[")] = true
		for line := range caught {
			if !strings.HasSuffix(line, "caught up 0 events") {
				delete(caught, line)
			}
		}
	}
	if status := statusOf(t, health); status != 200 {
		t.Errorf("readyz answers %d", status)
	}
	for i := range 3 {
		if _, err := log.Append(t.Context(), eventhose.Event{Type: "mail.sent", Data: fmt.Appendf(nil, `{"n": %d}`, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if g := mails.next(t, 1)[0]; g.sequence != "3" {
		t.Errorf("it took %v", g)
	}
	appendEvents(t, log, 1)
	<-arrived
	p.signal(t, syscall.SIGTERM)
	close(release)
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if g := orders.next(t, 1)[0]; g.sequence != "4" {
		t.Errorf("it took %v", g)
	}
	l, err := log.Subscriptions(t.Context(), client.ListOptions{})
	if err != nil || len(l.Data) != 2 {
		t.Fatalf("it made %v, %v", l.Data, err)
	}
	slices.SortFunc(l.Data, func(a, b client.Subscription) int { return strings.Compare(a.Name, b.Name) })
	s, err := log.Subscription(t.Context(), l.Data[1].ID)
	if err != nil || s.Name != "listen:orders" || s.Status.Leased+s.Status.Retrying+s.Status.Dead != 0 {
		t.Errorf("what was in hand at the end was not acknowledged: %+v %+v, %v", s, s.Status, err)
	}
}

func statusOf(t *testing.T, url string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

// tail goes on through a killed server and a cut network, and prints each event once.
func TestTailGoesOn(t *testing.T) {
	server := startServer(t)
	network := newNetwork(t, server.address)
	direct := dial(t, "http://"+server.address, testKey).Tenant("default")
	p := command("tail", "--limit", "9", "-o", "jsonl")
	p.Env = append(p.Env, "EVENTHOSE_URL=http://"+network.listener.Addr().String(), "EVENTHOSE_API_KEY="+testKey, "EVENTHOSE_OUTPUT=")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin(t)
	p.line(t, `{"ready":`)
	appendEvents(t, direct, 3)
	server.signal(t, syscall.SIGKILL)
	p.line(t, `{"lost":`)
	server.end(t)
	server.start(t)
	appendEvents(t, direct, 3)
	p.line(t, `{"reconnected":`)
	network.become("cut")
	p.line(t, `{"lost":`)
	appendEvents(t, direct, 3)
	network.become("")
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if !strings.Contains(line, fmt.Sprintf(`"sequence":%d,`, i+1)) {
			t.Errorf("line %d is %s", i, line)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 9 {
		t.Errorf("%d lines", n)
	}
}

// A check waits out a server that cannot be reached for a moment just when its command has ended.
func TestCheckGoesOn(t *testing.T) {
	server := startServer(t)
	through := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: server.address}) }}
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/stream") && asked.Add(1) == 3 { // the first two were where the log ends when the command begins, and its filter
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	check := command("listen", "--ci", "--expect", "order.paid", "--", "eventhose", "trigger", "order.paid", "--url", "http://"+server.address)
	check.Env = append(check.Env, "EVENTHOSE_URL="+proxy.URL, "EVENTHOSE_API_KEY="+testKey)
	check.begin(t)
	if code := check.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := asked.Load(); n < 4 {
		t.Errorf("the server was asked %d times", n)
	}
}
