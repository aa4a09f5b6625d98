package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/eventhose/eventhose/sign"
)

// receiver is what dev delivers to: it verifies each request with the public package sign, as a customer would, and
// answers 200, or 401 with what is wrong.
type receiver struct {
	server *http.Server
	url    string
	done   sync.WaitGroup

	mu       sync.Mutex
	key      sign.Verifier
	verified map[string]bool // by webhook-id, and of batches by event too, the newest maxVerified
	order    []string
	arrived  chan struct{} // closed and replaced with each verified request
}

const maxVerified = 10_000

func startReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{url: "http://" + l.Addr().String() + "/webhooks", verified: map[string]bool{}, arrived: make(chan struct{})}
	r.server = &http.Server{Handler: r, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 64 << 10}
	r.done.Go(func() {
		if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return // deliveries then fail, and dev shows that
		}
	})
	return r, nil
}

// expect sets the key that requests are verified with.
func (r *receiver) expect(key sign.Verifier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key = key
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	key := r.key
	r.mu.Unlock()
	if key == nil {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	body, err := sign.VerifyRequest(req, maxBody, key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	ids := []string{req.Header.Get(sign.HeaderID)}
	var batch struct{ Events []struct{ ID string } } // a webhook of one event has none
	if json.Unmarshal(body, &batch) == nil {
		for _, e := range batch.Events {
			ids = append(ids, e.ID)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if !r.verified[id] {
			r.verified[id] = true
			if r.order = append(r.order, id); len(r.order) > maxVerified {
				delete(r.verified, r.order[0])
				r.order = r.order[1:]
			}
		}
	}
	close(r.arrived)
	r.arrived = make(chan struct{})
	w.WriteHeader(http.StatusOK)
}

// saw reports whether a request with this webhook-id, or with this event in a batch, was verified.
func (r *receiver) saw(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.verified[id]
}

// wait returns once saw(id), at the latest when ctx ends, with its error.
func (r *receiver) wait(ctx context.Context, id string) error {
	for {
		r.mu.Lock()
		seen, arrived := r.verified[id], r.arrived
		r.mu.Unlock()
		if seen {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *receiver) stop(ctx context.Context) {
	if r.server.Shutdown(ctx) != nil {
		r.server.Close()
	}
	r.done.Wait()
}
