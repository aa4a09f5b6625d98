package eventhosetest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/sign"
)

var handlers atomic.Int64

// Handle serves a handler, such as the one that is tested, and answers a URL that subscriptions may send to. It ends with the
// test.
func (s *Server) Handle(h http.Handler) (url string) {
	s.t.Helper()
	on, url := s.listen(fmt.Sprintf("receiver-%d.test", handlers.Add(1)))
	server := &http.Server{Handler: h, ReadTimeout: time.Minute, WriteTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(on) }) // ends with Close
	s.t.Cleanup(func() {
		server.Close()
		serving.Wait()
	})
	return url
}

// Receiver takes webhooks, or not, as it was told. It is safe for concurrent use.
type Receiver struct {
	URL string

	s         *Server
	mu        sync.Mutex
	verifiers []sign.Verifier // one for each subscription
	making    int             // subscriptions whose secrets are not known yet: meanwhile nothing is verified
	fails     []fail
	requests  []Request
}

// fail is how often to fail, below 0 for ever.
type fail struct{ n, status int }

// Request is one request that a Receiver got.
type Request struct {
	// ID is the webhook-id.
	ID     string
	At     time.Time
	Header http.Header
	Body   []byte
	// Status is what was answered.
	Status int
}

// maxBody bounds what a Receiver reads of a request.
const maxBody = 64 << 20

// Receiver starts one, which answers 200 unless told otherwise.
func (s *Server) Receiver() *Receiver {
	s.t.Helper()
	r := &Receiver{s: s}
	r.URL = s.Handle(r)
	return r
}

// Fail has the next n requests answered with a status, after those that earlier calls were for; below 0 all, until Recover.
func (r *Receiver) Fail(n, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n != 0 {
		r.fails = append(r.fails, fail{n, status})
	}
}

// Recover has all requests answered with 200 from now on.
func (r *Receiver) Recover() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = nil
}

// Requests answers what came so far, in order.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Taken answers the webhook-ids of the requests that were answered with 2xx, in order.
func (r *Receiver) Taken() (ids []string) {
	for _, q := range r.Requests() {
		if q.Status/100 == 2 {
			ids = append(ids, q.ID)
		}
	}
	return ids
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		return // the sender has gone, or sends what no webhook is
	}
	r.mu.Lock()
	status := http.StatusOK
	if len(r.fails) > 0 {
		f := &r.fails[0]
		if status = f.status; f.n > 0 {
			f.n--
		}
		if f.n == 0 {
			r.fails = r.fails[1:]
		}
	}
	var verifiers []sign.Verifier
	if r.making == 0 {
		verifiers = slices.Clone(r.verifiers)
	}
	r.mu.Unlock()
	if len(verifiers) > 0 && req.Header.Get("Content-Encoding") == "" {
		if err := sign.Verify(req.Header, body, time.Now(), sign.DefaultTolerance, verifiers...); err != nil {
			r.s.t.Errorf("eventhosetest: a webhook does not verify: %v", err)
			status = http.StatusUnauthorized
		}
	}
	r.mu.Lock()
	r.requests = append(r.requests, Request{ID: req.Header.Get(sign.HeaderID), At: time.Now(), Header: req.Header.Clone(), Body: body, Status: status})
	r.mu.Unlock()
	w.WriteHeader(status)
}

// Subscribe makes a subscription of the tenant "default" that sends to r, which from now on verifies what it gets: by the secret of
// any of its subscriptions, if it has several. What n says of the destination besides its URL stays; without a filter it is for all
// events.
func (s *Server) Subscribe(r *Receiver, n client.NewSubscription) client.Subscription {
	s.t.Helper()
	n.Destination.Type, n.Destination.URL = eventhose.DestinationWebhook, r.URL
	r.mu.Lock()
	r.making++
	r.mu.Unlock()
	sub, err := s.Tenant.CreateSubscription(context.Background(), n)
	if err != nil {
		s.t.Fatal(err)
	}
	secret := string(sub.Secret)
	if sub.PublicKey != "" {
		secret = sub.PublicKey
	}
	verifier, err := sign.ParseVerifier(secret)
	if err != nil {
		s.t.Fatal(err)
	}
	r.mu.Lock()
	r.making--
	r.verifiers = append(r.verifiers, verifier)
	r.mu.Unlock()
	return sub
}

// Append appends events to the log of the tenant "default" and answers their ids.
func (s *Server) Append(events ...eventhose.Event) (ids []string) {
	s.t.Helper()
	placed, err := s.Tenant.Append(context.Background(), events...)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range placed {
		ids = append(ids, p.ID)
	}
	return ids
}
