package crashtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// arrival is one event as its receiver saw it.
type arrival struct {
	id       string // of the event; of one that came alone the webhook-id
	sequence uint64
	key      string
	sum      [32]byte // of the data
	kill     int64    // how many kills there had been
	taken    bool     // about to be answered 2xx, and not named as failed
	request  int64
}

// receiver records everything that comes to one subscription.
type receiver struct {
	url    string
	server *httptest.Server
	kills  *atomic.Int64
	well   atomic.Bool // answers everything at once
	picky  bool

	mu       sync.Mutex
	verify   *standardwebhooks.Webhook
	arrivals []arrival
	forged   []string
	requests int64
	batches  map[string]string // by webhook-id, the sequences
}

// behaviour answers a request in place of 200; it reports whether it did.
type behaviour func(w http.ResponseWriter) bool

// picky does not take one event in ten of a batch.
const picky = "picky"

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
	r := &receiver{kills: kills, batches: map[string]string{}}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(io.LimitReader(q.Body, 2<<20))
		if err != nil {
			return // the sender was killed in the middle of it
		}
		came, why := r.read(q.Header, body)
		var answer struct {
			Failed []struct {
				ID    string `json:"id"`
				Error string `json:"error"`
			} `json:"failed"`
		}
		r.mu.Lock()
		if why != "" {
			r.forged = append(r.forged, why)
		}
		r.requests++
		for i := range came {
			came[i].request = r.requests
		}
		at := len(r.arrivals)
		r.arrivals = append(r.arrivals, came...)
		r.mu.Unlock()
		acted := !r.well.Load() && act(w) // after the note: a sender whose connection is reset may come again before we go on
		r.mu.Lock()
		for i := range came {
			a := &r.arrivals[at+i]
			a.taken = !acted
			if r.picky && !acted && !r.well.Load() && rand.N(10) == 0 {
				a.taken = false
				answer.Failed = append(answer.Failed, struct {
					ID    string `json:"id"`
					Error string `json:"error"`
				}{a.id, "not now"})
			}
		}
		r.mu.Unlock()
		if len(answer.Failed) > 0 {
			_ = json.NewEncoder(w).Encode(answer)
		}
	}))
	t.Cleanup(r.server.Close)
	r.url = r.server.URL + "/hook"
	return r
}

// read checks a request, of one event or of a batch, with the reference library of Standard Webhooks.
func (r *receiver) read(h http.Header, body []byte) ([]arrival, string) {
	type event struct {
		ID       string          `json:"id"`
		Sequence uint64          `json:"sequence"`
		Previous uint64          `json:"previous_sequence"`
		Key      string          `json:"key"`
		Data     json.RawMessage `json:"data"`
	}
	var hook struct {
		event
		BatchID string  `json:"batch_id"`
		Events  []event `json:"events"`
	}
	if err := json.Unmarshal(body, &hook); err != nil {
		return nil, fmt.Sprintf("the body is not JSON: %v", err)
	}
	if hook.BatchID == "" {
		hook.Events, hook.BatchID = []event{hook.event}, hook.ID
	}
	id := h.Get("webhook-id")
	var came []arrival
	sequences := ""
	for _, e := range hook.Events {
		came = append(came, arrival{id: e.ID, sequence: e.Sequence, key: e.Key, sum: sha256.Sum256(e.Data), kill: r.kills.Load()})
		sequences += fmt.Sprint(e.Sequence, " ")
	}
	r.mu.Lock()
	verify, before := r.verify, r.batches[id]
	r.batches[id] = sequences
	r.mu.Unlock()
	if err := verify.Verify(body, h); err != nil {
		return came, fmt.Sprintf("sequences %s: %v", sequences, err)
	}
	if before != "" && before != sequences {
		return came, fmt.Sprintf("the id %s is that of the events %s, and of %s", id, before, sequences)
	}
	last := hook.Events[len(hook.Events)-1].Sequence
	first := hook.Events[0]
	if id != hook.BatchID || h.Get("eventhose-sequence") != fmt.Sprint(last) || hook.event.ID == "" && h.Get("eventhose-previous-sequence") != fmt.Sprint(first.Previous) {
		return came, fmt.Sprintf("headers and body tell different things: %v %s", h, body)
	}
	return came, ""
}

// audit answers what is wrong with what one receiver got, given the data of every event in the log by sequence. inFlight
// bounds the requests that each kill repeats.
func audit(arrivals []arrival, forged []string, log map[uint64][32]byte, ordered bool, inFlight int) []string {
	var wrong []string
	kinds := map[string]int{}
	fault := func(format string, args ...any) {
		if kinds[format]++; kinds[format] <= mostTold {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	for _, f := range forged {
		fault("bad request: %s", f)
	}
	type history struct {
		arrived, taken int
		last           int64 // request that took it
	}
	seen := map[uint64]*history{}
	ids := map[uint64]string{}
	lastOfKey := map[string]uint64{}
	repeats := map[int64]map[int64]bool{} // by kill, the requests of which something came again
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
			if repeats[a.kill] == nil {
				repeats[a.kill] = map[int64]bool{}
			}
			repeats[a.kill][h.last] = true
		}
		if h.arrived++; a.taken {
			h.taken++
			h.last = a.request
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
	for kill, again := range repeats {
		n := len(again)
		if kill == 0 {
			fault("%d repeats before the first kill", n)
		} else if n > inFlight {
			fault("%d repeats after kill %d, more than the %d in flight", n, kill, inFlight)
		}
	}
	for format, n := range kinds {
		if n > mostTold {
			wrong = append(wrong, fmt.Sprintf("and %d more like %q", n-mostTold, format))
		}
	}
	return wrong
}

// mostTold is how many faults of a kind are told one by one, so that many of one kind hide none of another.
const mostTold = 10

// A receiver notes what comes before it answers, or resets the connection: the sender may be quicker with its retry than the
// receiver with its note, and what was not taken would look like a repeat of what was.
func TestReceiversNoteWhatComesFirst(t *testing.T) {
	reset := behaviours()["resetting"]
	again := make(chan struct{}) // closed when the retry was taken
	var came atomic.Int64
	r := newReceiver(t, new(atomic.Int64), func(w http.ResponseWriter) bool {
		if came.Add(1) > 1 {
			return false
		}
		for !reset(w) {
		}
		<-again
		return true
	})
	hook, err := standardwebhooks.NewWebhook("whsec_" + secretKey)
	if err != nil {
		t.Fatal(err)
	}
	r.verify = hook
	body := []byte(`{"id":"e1","sequence":1,"key":"k","data":{}}`)
	send := func() error {
		now := time.Now()
		signature, err := hook.Sign("e1", now, body)
		if err != nil {
			t.Fatal(err)
		}
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"webhook-id": "e1", "webhook-timestamp": strconv.FormatInt(now.Unix(), 10), "webhook-signature": signature,
			"eventhose-sequence": "1", "eventhose-previous-sequence": "0"} {
			q.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(q)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	if err := send(); err == nil {
		t.Fatal("the connection was not reset")
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	close(again)
	r.mu.Lock()
	defer r.mu.Unlock()
	log := map[uint64][32]byte{1: sha256.Sum256([]byte(`{}`))}
	for _, wrong := range audit(r.arrivals, r.forged, log, true, 1) {
		t.Error(wrong)
	}
	if len(r.arrivals) != 2 || r.arrivals[0].taken || !r.arrivals[1].taken {
		t.Errorf("what came: %+v", r.arrivals)
	}
}
