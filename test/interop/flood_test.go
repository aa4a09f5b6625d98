package interop_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

const (
	floodSecret  = "whsec_5a0e8c3f7b914d26"
	floodSenders = 16
	floodKeys    = 2 // of each sender
	// floodBody is what a large webhook of a payment has: 100,000 of them do not fit into floodMemory.
	floodBody   = 8 << 10
	floodMemory = 512 << 20
)

// flood is a provider that sends as fast as it is answered.
type flood struct {
	url    string
	client *http.Client

	mu      sync.Mutex
	answers map[int]int // by status, or 0 for none
	slowest time.Duration
}

// send sends the n-th webhook of a key, and answers whether it was taken.
func (f *flood) send(ctx context.Context, key string, n int) bool {
	body := fmt.Sprintf(`{"id":"evt_%s_%d","type":"charge.updated","data":{"object":{"id":%q,"n":%d}},"pad":"%s"}`, key, n, key, n, strings.Repeat("x", floodBody))
	now := time.Now()
	mac := hmac.New(sha256.New, []byte(floodSecret))
	fmt.Fprintf(mac, "%d.%s", now.Unix(), body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, strings.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Stripe-Signature", fmt.Sprintf("t=%d,v1=%s", now.Unix(), hex.EncodeToString(mac.Sum(nil))))
	status := 0
	if res, err := f.client.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		status = res.StatusCode
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[status]++
	f.slowest = max(f.slowest, time.Since(now))
	return status == http.StatusOK
}

// drained is what a worker saw of a flood.
type drained struct {
	mu       sync.Mutex
	next     map[string]int // by key
	busy     map[string]bool
	took     int
	disorder []string
	first    time.Time
	last     time.Time // when the server handed over the last one, by its clock
	all      chan struct{}
}

func (d *drained) work(lease time.Duration, want int) func(context.Context, eventhose.Event) error {
	return func(ctx context.Context, e eventhose.Event) error {
		var body struct {
			Data struct{ Object struct{ N int } }
		}
		if err := json.Unmarshal(e.Data, &body); err != nil {
			return err
		}
		handed, _ := client.Handed(ctx)
		d.mu.Lock()
		if d.busy[e.Key] {
			d.disorder = append(d.disorder, e.Key+": two are in hand at once")
		}
		d.busy[e.Key] = true
		d.mu.Unlock()
		if e.Sequence%37 == 0 { // some work takes longer than it takes until the key's next event is handed over, if it may be
			<-time.After(500 * time.Millisecond)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.busy[e.Key] = false
		switch n := body.Data.Object.N; {
		case n == d.next[e.Key]:
			d.next[e.Key]++
		case handed.Deliveries == 1: // what is handed over again may come late
			d.disorder = append(d.disorder, fmt.Sprintf("%s: %d came where %d was next", e.Key, n, d.next[e.Key]))
		default:
			return nil
		}
		at := handed.Until.Add(-lease)
		if d.first.IsZero() {
			d.first = at
		}
		if at.After(d.last) {
			d.last = at
		}
		if d.took++; d.took == want {
			close(d.all)
		}
		return nil
	}
}

// A flood of webhooks against a worker that is limited to a rate: every one is answered 200, what waits is the log and not
// memory, and the worker gets everything once, in order within a key, no faster than its rate. EVENTHOSE_FLOOD makes it
// long, against the binary as it is shipped, whose memory is looked at; the one with the race detector takes much whatever waits.
func TestFlood(t *testing.T) {
	total, rate, binary := 1280, 200, raced
	long := false
	if s := os.Getenv("EVENTHOSE_FLOOD"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		total, rate, binary, long = n, 200, filepath.Join(t.TempDir(), "eventhose"), true
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/eventhose/eventhose/cmd/eventhose").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	each := total / (floodSenders * floodKeys)
	total = each * floodSenders * floodKeys
	url := serveFrom(t, binary)
	tenant := url + "/v1/tenants/default"
	var source struct{ ID, URL, Subscription string }
	call(t, http.MethodPost, tenant+"/sources", `{"provider":"stripe","secret":"`+floodSecret+`"}`, &source)
	call(t, http.MethodPatch, tenant+"/subscriptions/"+source.Subscription, fmt.Sprintf(`{"max_rate":%d,"ordering":"key"}`, rate), nil)

	resting := resident(t, url)
	const lease = time.Minute
	c, err := client.New(url, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute+2*time.Duration(total/rate)*time.Second)
	defer stop()
	d := &drained{next: map[string]int{}, busy: map[string]bool{}, all: make(chan struct{})}
	working, rest := context.WithCancel(ctx)
	worked := make(chan error, 1)
	started := time.Now()
	go func() {
		worked <- c.Tenant("default").Work(working, eventhose.SubscriptionID(source.Subscription), 100, d.work(lease, total), client.WithLease(lease))
	}()

	f := &flood{url: source.URL, answers: map[int]int{}, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: floodSenders}}}
	defer f.client.CloseIdleConnections()
	var senders sync.WaitGroup
	for s := range floodSenders {
		senders.Go(func() {
			for i := range each * floodKeys {
				key, n := fmt.Sprintf("ch_%d_%d", s, i%floodKeys), i/floodKeys
				if !f.send(ctx, key, n) || i%10 == 0 && !f.send(ctx, key, n) { // a provider sends some again
					return
				}
			}
		})
	}
	senders.Wait()
	flooded := time.Since(started)
	d.mu.Lock()
	waiting := total - d.took
	d.mu.Unlock()
	full := resident(t, url)
	peak := full
	t.Logf("%d webhooks of %d bytes in %v (%.0f/s), answers %v, the slowest after %v; %d wait for the worker", total, floodBody, flooded.Round(time.Millisecond), float64(total)/flooded.Seconds(), f.answers,
		f.slowest.Round(time.Millisecond), waiting)
	if want := total + floodSenders*((each*floodKeys+9)/10); len(f.answers) != 1 || f.answers[http.StatusOK] != want {
		t.Errorf("answers by status: %v, want %d times 200", f.answers, want)
	}
	for again, tick := true, time.NewTicker(time.Second); again; {
		select {
		case <-d.all:
			again = false
			tick.Stop()
		case <-tick.C:
			peak = max(peak, resident(t, url))
		case <-ctx.Done():
			t.Errorf("%d of %d came to the worker", d.took, total)
			again = false
		}
	}
	if !f.send(ctx, "ch_last", 0) {
		t.Error("the source does not answer any more")
	}
	rest()
	if err := <-worked; err != nil {
		t.Error(err)
	}
	took := d.last.Sub(started)
	t.Logf("drained at %.1f/s, limited to %d/s; resident memory %d MiB at rest, %d when all had come, %d at most while it drained, %d at the end", float64(d.took-1)/d.last.Sub(d.first).Seconds(), rate,
		resting>>20, full>>20, peak>>20, resident(t, url)>>20)
	for _, wrong := range d.disorder[:min(10, len(d.disorder))] {
		t.Error(wrong)
	}
	if least := time.Duration(total-1)*time.Second/time.Duration(rate) - 50*time.Millisecond; took < least {
		t.Errorf("%d events were handed over within %v, at %d a second it takes %v", total, took, rate, least)
	}
	if long && peak > floodMemory {
		t.Errorf("the server took %d MiB", peak>>20)
	}
	var dead struct{ Data []any }
	if call(t, http.MethodGet, tenant+"/inbox?status=dead", "", &dead); len(dead.Data) != 0 {
		t.Errorf("%d are dead", len(dead.Data))
	}
}

// resident answers how much memory the server takes, in bytes.
func resident(t *testing.T, url string) int64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "process_resident_memory_bytes "); ok {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int64(n)
		}
	}
	t.Fatal("the metrics do not tell of memory")
	return 0
}
