package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/sign"
)

// receiver is what dev knows of the inspector that it delivers to: which requests it verified. The inspector itself keeps only some of
// a flood.
type receiver struct {
	// destination is where deliveries to the inspector go.
	destination string

	mu       sync.Mutex
	id       eventhose.InspectorID
	verified map[string]bool // by webhook-id, and of batches by event too, the newest maxVerified
	order    []string
	arrived  chan struct{} // closed and replaced with each verified request
}

const maxVerified = 10_000

func newReceiver() *receiver {
	return &receiver{verified: map[string]bool{}, arrived: make(chan struct{})}
}

// expect sets the inspector whose requests count. It is called before what is waited for is sent.
func (r *receiver) expect(id eventhose.InspectorID, destination string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.id, r.destination = id, destination
}

// observe takes a request from the server, which calls it before the request is answered.
func (r *receiver) observe(id eventhose.InspectorID, got eventhose.InspectedRequest, body []byte) {
	if got.Signature != eventhose.SignatureVerified {
		return
	}
	ids := slices.Clone(got.Headers[http.CanonicalHeaderKey(sign.HeaderID)])
	var batch struct{ Events []struct{ ID string } } // a webhook of one event has none
	if json.Unmarshal(body, &batch) == nil {
		for _, e := range batch.Events {
			ids = append(ids, e.ID)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != r.id {
		return
	}
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
