// Package sink is the seam between the delivery engine and what hands events over: a Sink decides whether a batch was
// taken and how the failure looked; whether and when to try again is the engine's.
//
// Every sink passes internal/sinktest.
package sink

import (
	"context"
	"time"

	"github.com/eventhose/eventhose"
)

// Sink hands batches over to one kind of destination. It is safe for concurrent use.
type Sink interface {
	// Check says whether a destination could ever be used, without connecting to it: CodeInvalid with the field named
	// ("destination.url", "destination.headers.X-Foo").
	Check(d eventhose.Destination) error
	// Send tries once. It ends by the subscription's time-out, or when ctx ends, whichever is first, and leaves nothing
	// running. It never panics on what a receiver does, keeps nothing of b, and puts no secret into the result.
	Send(ctx context.Context, b *Batch) Result
}

// Renderer is a Sink that can tell what it would send. It is safe for concurrent use.
type Renderer interface {
	// Render answers what Send would send of a batch at a time, byte for byte but for two things: what the subscription sets
	// of headers is "***", and without signed there is no signature. It answers false if nothing would be sent. It connects
	// to nothing, and puts no secret into the request.
	Render(b *Batch, at time.Time, signed bool) (Request, bool)
}

// Request is an HTTP request. URL is without user, password and query; Body is before it is compressed.
type Request struct {
	Method, URL string
	Headers     map[string]string
	Body        []byte
}

// Batch is the events that travel in one request, with everything needed to send them.
type Batch struct {
	// ID is stable over all tries of this batch. With Subscription.Batch.Batched it names the batch, else its one event.
	ID           string
	Subscription *eventhose.Subscription
	// Items are in the order of their sequences.
	Items []Item
	Kind  eventhose.AttemptKind
	// Number counts the tries at the event, from 1; of several events, at the one that was tried most often.
	Number int
	// Replay is the id of the replay that asked for it, "" for live.
	Replay string
	// Still, if set, is asked when all is ready, right before the first byte of the request goes out. If it answers false
	// none goes, and the result has ReasonStopping: another node may be sending the batch by now. It does not block.
	Still func() bool
}

// Item is one event of a batch.
type Item struct {
	Event *eventhose.Event
	// Previous is the sequence that this subscription was due before this one; 0 if none.
	Previous eventhose.Sequence
}

// Result is what came of a try.
type Result struct {
	Outcome eventhose.Outcome
	Reason  eventhose.Reason
	// Message says in plain words what went wrong and what to do. It is shown to the tenant.
	Message string
	Status  int
	// RetryAfter is what the receiver asked for, within [1 s, 24 h]; 0 if nothing.
	RetryAfter time.Duration
	// Slow asks the engine to send less at once: time-outs, 429, 502, 503, 504.
	Slow     bool
	Started  time.Time
	Duration time.Duration
	Phases   eventhose.Phases
	// URL is where it went, without user, password and query.
	URL             string
	Address         string
	ResponseHeaders map[string]string
	ResponseBody    string
	// Failed are the events of a batch that the receiver says it did not take, with OutcomeFailed and ReasonPartly. It took
	// all others.
	Failed []Refused
}

// Refused is one event that a receiver did not take.
type Refused struct {
	ID string
	// Message is what the receiver says about it, bounded and without secrets; "" if it says nothing.
	Message string
}
