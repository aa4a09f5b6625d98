package crashtest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// arrival is one webhook as its receiver saw it.
type arrival struct {
	id       string // webhook-id
	sequence uint64
	key      string
	sum      [32]byte // of the data
	kill     int64    // how many kills there had been
	taken    bool     // answered 2xx
}

// receiver records everything that comes to one subscription.
type receiver struct {
	url    string
	server *httptest.Server
	kills  *atomic.Int64
	well   atomic.Bool // answers everything at once

	mu       sync.Mutex
	verify   *standardwebhooks.Webhook
	arrivals []arrival
	forged   []string
}

// behaviour answers a request in place of 200; it reports whether it did.
type behaviour func(w http.ResponseWriter) bool

// behaviours are the ways in which receivers misbehave until they are well.
func behaviours() map[string]behaviour {
	return map[string]behaviour{
		"good": func(http.ResponseWriter) bool { return false },
		"failing": func(w http.ResponseWriter) bool {
			if rand.N(10) < 3 {
				w.WriteHeader([]int{500, 502, 400, 404, 302}[rand.N(5)])
				return true
			}
			return false
		},
		"slow": func(http.ResponseWriter) bool {
			<-time.After(time.Duration(rand.N(120)) * time.Millisecond)
			return false
		},
		"resetting": func(w http.ResponseWriter) bool {
			if rand.N(10) > 2 {
				return false
			}
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
			c.Close()
			return true
		},
	}
}

func newReceiver(t *testing.T, kills *atomic.Int64, act behaviour) *receiver {
	r := &receiver{kills: kills}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(io.LimitReader(q.Body, 2<<20))
		if err != nil {
			return // the sender was killed in the middle of it
		}
		a, why := r.read(q.Header, body)
		acted := !r.well.Load() && act(w)
		a.taken = !acted
		r.mu.Lock()
		if why != "" {
			r.forged = append(r.forged, why)
		}
		r.arrivals = append(r.arrivals, a)
		r.mu.Unlock()
	}))
	t.Cleanup(r.server.Close)
	r.url = r.server.URL + "/hook"
	return r
}

// read checks a request with the reference library of Standard Webhooks.
func (r *receiver) read(h http.Header, body []byte) (arrival, string) {
	var hook struct {
		ID       string          `json:"id"`
		Sequence uint64          `json:"sequence"`
		Key      string          `json:"key"`
		Data     json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &hook); err != nil {
		return arrival{}, fmt.Sprintf("the body is not JSON: %v", err)
	}
	a := arrival{id: h.Get("webhook-id"), sequence: hook.Sequence, key: hook.Key, sum: sha256.Sum256(hook.Data), kill: r.kills.Load()}
	r.mu.Lock()
	verify := r.verify
	r.mu.Unlock()
	if err := verify.Verify(body, h); err != nil {
		return a, fmt.Sprintf("sequence %d: %v", hook.Sequence, err)
	}
	if a.id != hook.ID || h.Get("eventhose-sequence") != fmt.Sprint(hook.Sequence) {
		return a, fmt.Sprintf("headers and body tell different things: %v %s", h, body)
	}
	return a, ""
}

// audit answers what is wrong with what one receiver got, given the data of every event in the log by sequence. inFlight
// bounds the repeats of each kill.
func audit(arrivals []arrival, forged []string, log map[uint64][32]byte, ordered bool, inFlight int) []string {
	var wrong []string
	fault := func(format string, args ...any) {
		if len(wrong) < 20 {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	for _, f := range forged {
		fault("bad request: %s", f)
	}
	type history struct{ arrived, taken int }
	seen := map[uint64]*history{}
	ids := map[uint64]string{}
	lastOfKey := map[string]uint64{}
	repeats := map[int64]int{}
	for _, a := range arrivals {
		sum, known := log[a.sequence]
		if !known {
			fault("sequence %d was delivered and is not in the log", a.sequence)
			continue
		}
		if sum != a.sum {
			fault("sequence %d came with other data", a.sequence)
		}
		h := seen[a.sequence]
		if h == nil {
			h = &history{}
			seen[a.sequence] = h
			ids[a.sequence] = a.id
			if ordered && a.sequence < lastOfKey[a.key] {
				fault("key %s: sequence %d came after %d", a.key, a.sequence, lastOfKey[a.key])
			}
			lastOfKey[a.key] = max(lastOfKey[a.key], a.sequence)
		}
		if ids[a.sequence] != a.id {
			fault("sequence %d came under the ids %s and %s", a.sequence, ids[a.sequence], a.id)
		}
		if h.taken > 0 {
			repeats[a.kill]++
		}
		if h.arrived++; a.taken {
			h.taken++
		}
	}
	missing := 0
	for seq := range log {
		if h := seen[seq]; h == nil || h.taken == 0 {
			missing++
		}
	}
	if missing > 0 {
		fault("%d of %d events were never taken", missing, len(log))
	}
	for kill, n := range repeats {
		if kill == 0 {
			fault("%d repeats before the first kill", n)
		} else if n > inFlight {
			fault("%d repeats after kill %d, more than the %d in flight", n, kill, inFlight)
		}
	}
	return wrong
}
