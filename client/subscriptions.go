package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/eventhose/eventhose"
)

// NewSubscription is what a subscription is made of. What is left out gets the server's default.
type NewSubscription struct {
	Name        string
	Filter      eventhose.Filter
	Ordering    eventhose.Ordering
	OnExhausted eventhose.OnExhausted
	Retry       eventhose.Retry
	MaxInFlight int
	// MaxRate is how many events a second are sent or handed over at most; 0 is no limit.
	MaxRate int
	// Batch says how many events travel in one request; the zero policy sends each alone.
	Batch eventhose.BatchPolicy
	// Destination is where to send; without one it is a pull subscription.
	Destination eventhose.Destination
	// From is "now" (or ""), "start", or a cursor's text.
	From string
}

// wireDestination is an eventhose.Destination whose headers are written in clear: this is the one place where they
// travel to the server.
type wireDestination struct {
	Type        string            `json:"type"`
	URL         string            `json:"url"`
	Headers     map[string]string `json:"headers,omitempty"`
	Signature   string            `json:"signature,omitempty"`
	Format      string            `json:"format,omitempty"`
	Compression string            `json:"compression,omitempty"`
}

func wireOf(d eventhose.Destination) wireDestination {
	w := wireDestination{Type: d.Type, URL: d.URL, Signature: d.Signature, Format: d.Format, Compression: d.Compression}
	if d.Headers != nil {
		w.Headers = make(map[string]string, len(d.Headers))
	}
	for name, value := range d.Headers {
		w.Headers[name] = string(value)
	}
	return w
}

// Subscription is a subscription as the server tells it.
type Subscription struct {
	eventhose.Subscription
	// Secret is the signing secret in clear ("whsec_…"). Only the answers to CreateSubscription and RotateSecret have it.
	Secret eventhose.Secret `json:"secret,omitempty"`
	// Status is where its delivery stands. Only the answers to Subscription and SubscriptionDetails have it.
	Status *eventhose.LaneStatus `json:"status,omitempty"`
	// Metrics is how its delivery went. Only the answer to SubscriptionDetails has it.
	Metrics *eventhose.SubscriptionMetrics `json:"metrics,omitempty"`
}

func (t *Tenant) subscription(id eventhose.SubscriptionID, segments ...string) []string {
	return t.path(append([]string{"subscriptions", string(id)}, segments...)...)
}

// CreateSubscription makes a subscription. Its signing secret is in the answer, and nowhere else later. CodeInvalid with
// the field, CodeLimit.
func (t *Tenant) CreateSubscription(ctx context.Context, s NewSubscription) (Subscription, error) {
	body := struct {
		Name        string                `json:"name,omitempty"`
		Filter      eventhose.Filter      `json:"filter,omitzero"`
		Ordering    eventhose.Ordering    `json:"ordering,omitempty"`
		OnExhausted eventhose.OnExhausted `json:"on_exhausted,omitempty"`
		Retry       eventhose.Retry       `json:"retry,omitzero"`
		MaxInFlight int                   `json:"max_in_flight,omitempty"`
		MaxRate     int                   `json:"max_rate,omitempty"`
		Batch       eventhose.BatchPolicy `json:"batch,omitzero"`
		Destination *wireDestination      `json:"destination,omitempty"`
		From        string                `json:"from,omitempty"`
	}{s.Name, s.Filter, s.Ordering, s.OnExhausted, s.Retry, s.MaxInFlight, s.MaxRate, s.Batch, nil, s.From}
	if d := wireOf(s.Destination); d.Type != "" || d.URL != "" {
		body.Destination = &d
	}
	var answer Subscription
	err := t.c.send(ctx, http.MethodPost, t.path("subscriptions"), body, &answer)
	return answer, err
}

// Subscription answers one subscription and where its delivery stands. CodeNotFound.
func (t *Tenant) Subscription(ctx context.Context, id eventhose.SubscriptionID) (Subscription, error) {
	var answer Subscription
	err := t.c.send(ctx, http.MethodGet, t.subscription(id), nil, &answer)
	return answer, err
}

// Subscriptions lists by id.
func (t *Tenant) Subscriptions(ctx context.Context, o ListOptions) (List[Subscription], error) {
	return list[Subscription](ctx, t.c, t.path("subscriptions"), o.query())
}

// UpdateSubscription changes what p names. CodeNotFound, CodeInvalid, CodeVersion.
func (t *Tenant) UpdateSubscription(ctx context.Context, id eventhose.SubscriptionID, p eventhose.SubscriptionPatch) (Subscription, error) {
	body := struct {
		eventhose.SubscriptionPatch
		Destination *wireDestination `json:"destination,omitempty"` // shadows the redacted one
	}{SubscriptionPatch: p}
	if p.Destination != nil {
		d := wireOf(*p.Destination)
		body.Destination = &d
	}
	var answer Subscription
	err := t.c.send(ctx, http.MethodPatch, t.subscription(id), body, &answer)
	return answer, err
}

// DeleteSubscription removes a subscription with its state and its attempts. CodeNotFound.
func (t *Tenant) DeleteSubscription(ctx context.Context, id eventhose.SubscriptionID) error {
	return t.c.send(ctx, http.MethodDelete, t.subscription(id), nil, nil)
}

// Pause holds delivery; the cursor stands, so that nothing is lost.
func (t *Tenant) Pause(ctx context.Context, id eventhose.SubscriptionID) (Subscription, error) {
	var answer Subscription
	err := t.c.send(ctx, http.MethodPost, t.subscription(id, "pause"), nil, &answer)
	return answer, err
}

// Resume goes on from the cursor, after a pause as after being disabled.
func (t *Tenant) Resume(ctx context.Context, id eventhose.SubscriptionID) (Subscription, error) {
	var answer Subscription
	err := t.c.send(ctx, http.MethodPost, t.subscription(id, "resume"), nil, &answer)
	return answer, err
}

// Test sends a test event at once and answers what happened. It is not in the log.
func (t *Tenant) Test(ctx context.Context, id eventhose.SubscriptionID) (eventhose.Attempt, error) {
	var answer eventhose.Attempt
	err := t.c.send(ctx, http.MethodPost, t.subscription(id, "test"), nil, &answer)
	return answer, err
}

// RotateSecret makes a new signing secret, which is in the answer. The old one goes on signing beside it for overlap, 0
// being the server's default.
func (t *Tenant) RotateSecret(ctx context.Context, id eventhose.SubscriptionID, overlap eventhose.Duration) (Subscription, error) {
	var body any
	if overlap != 0 {
		body = struct {
			Overlap eventhose.Duration `json:"overlap"`
		}{overlap}
	}
	var answer Subscription
	err := t.c.send(ctx, http.MethodPost, t.subscription(id, "secret", "rotate"), body, &answer)
	return answer, err
}

// LiveSecret is a signing secret in clear.
type LiveSecret struct {
	Secret eventhose.Secret `json:"secret"`
	// Until is when it stops signing; zero for the current one.
	Until time.Time `json:"until,omitzero"`
}

// Secrets answers the signing secrets in clear, the current one first.
func (t *Tenant) Secrets(ctx context.Context, id eventhose.SubscriptionID) ([]LiveSecret, error) {
	var answer struct {
		Secrets []LiveSecret `json:"secrets"`
	}
	err := t.c.send(ctx, http.MethodGet, t.subscription(id, "secret"), nil, &answer)
	return answer.Secrets, err
}

// AttemptsOf lists what was tried for one event, newest first, at most 100. Scope is the event's, as in Event.
func (t *Tenant) AttemptsOf(ctx context.Context, id eventhose.SubscriptionID, scope, event string) ([]eventhose.Attempt, error) {
	q := url.Values{"event": {event}}
	if scope != "" {
		q.Set("source", scope)
	}
	l, err := list[eventhose.Attempt](ctx, t.c, t.subscription(id, "attempts"), q)
	return l.Data, err
}

// Attempts lists what was tried, newest first.
func (t *Tenant) Attempts(ctx context.Context, id eventhose.SubscriptionID, o ListOptions) (List[eventhose.Attempt], error) {
	return list[eventhose.Attempt](ctx, t.c, t.subscription(id, "attempts"), o.query())
}

// Batch is what became of one batch of a subscription.
type Batch struct {
	// ID is the webhook-id of its requests.
	ID            string             `json:"id"`
	Events        int                `json:"events"`
	FirstSequence eventhose.Sequence `json:"first_sequence"`
	LastSequence  eventhose.Sequence `json:"last_sequence"`
	// State is as its last attempt left it: "taken", "partly", "retrying", "dead" or "gone".
	State string `json:"state"`
	// Attempts are newest first, at most 100.
	Attempts []BatchAttempt `json:"attempts"`
}

// BatchAttempt is one try at a batch; Attempts tells more of it.
type BatchAttempt struct {
	ID       string                `json:"id"`
	Number   int                   `json:"number"`
	Kind     eventhose.AttemptKind `json:"kind"`
	Started  time.Time             `json:"started"`
	Duration eventhose.Duration    `json:"duration"`
	Status   int                   `json:"status,omitempty"`
	Outcome  eventhose.Outcome     `json:"outcome"`
	Reason   eventhose.Reason      `json:"reason,omitempty"`
	Message  string                `json:"message,omitempty"`
	Next     time.Time             `json:"next,omitzero"`
}

// Batches lists the batches that were sent, newest first. A page may hold fewer than asked for and still have a next one.
func (t *Tenant) Batches(ctx context.Context, id eventhose.SubscriptionID, o ListOptions) (List[Batch], error) {
	return list[Batch](ctx, t.c, t.subscription(id, "batches"), o.query())
}

// Parked lists by sequence what is set aside in one state, or with "" in any but waiting. A page of waiting
// events may be empty and yet have a next one.
func (t *Tenant) Parked(ctx context.Context, id eventhose.SubscriptionID, state eventhose.ParkedState, o ListOptions) (List[eventhose.Parked], error) {
	q := o.query()
	if state != "" {
		q.Set("state", string(state))
	}
	return list[eventhose.Parked](ctx, t.c, t.subscription(id, "parked"), q)
}

// Redrive tries dead events again at once: those with the given ids, or with none given all. It answers how many. An id that
// several sources have in use is the first dead event that has it; RedriveAt tells them apart. CodeNotFound with the field if
// one is not dead there.
func (t *Tenant) Redrive(ctx context.Context, id eventhose.SubscriptionID, events ...string) (int, error) {
	return t.settle(ctx, id, "redrive", chosen{Events: events})
}

// RedriveAt is Redrive for the events with the given sequences; with none given it does nothing.
func (t *Tenant) RedriveAt(ctx context.Context, id eventhose.SubscriptionID, sequences ...eventhose.Sequence) (int, error) {
	return t.settleAt(ctx, id, "redrive", sequences)
}

// Discard gives up dead events, in the same way.
func (t *Tenant) Discard(ctx context.Context, id eventhose.SubscriptionID, events ...string) (int, error) {
	return t.settle(ctx, id, "discard", chosen{Events: events})
}

// DiscardAt is Discard for the events with the given sequences; with none given it does nothing.
func (t *Tenant) DiscardAt(ctx context.Context, id eventhose.SubscriptionID, sequences ...eventhose.Sequence) (int, error) {
	return t.settleAt(ctx, id, "discard", sequences)
}

// chosen says which parked events something is about; all if it names none.
type chosen struct {
	Events    []string             `json:"events,omitempty"`
	Sequences []eventhose.Sequence `json:"sequences,omitempty"`
}

func (t *Tenant) settle(ctx context.Context, id eventhose.SubscriptionID, verb string, which chosen) (int, error) {
	var answer struct {
		Count int `json:"count"`
	}
	err := t.c.send(ctx, http.MethodPost, t.subscription(id, "parked", verb), which, &answer)
	return answer.Count, err
}

func (t *Tenant) settleAt(ctx context.Context, id eventhose.SubscriptionID, verb string, sequences []eventhose.Sequence) (int, error) {
	if len(sequences) == 0 { // naming none is all to the server
		return 0, nil
	}
	return t.settle(ctx, id, verb, chosen{Sequences: sequences})
}

// NewReplay asks for events of a subscription to be sent once more. From and To are a sequence in digits, a cursor, or an
// RFC 3339 time of append; "" is the first event left, and where delivery stands.
type NewReplay struct {
	From, To string
	// Types narrows to event types, as in eventhose.Filter. None means all.
	Types []string
	// Status is "" for all, "delivered", "failed" (the last attempt failed, or parked) or "dead".
	Status string
	// DryRun only counts.
	DryRun bool
}

// ReplayResult is what a replay is, or would be.
type ReplayResult struct {
	// Replay is nil after a dry run.
	Replay *eventhose.Replay `json:"replay"`
	// Count is how many events it concerns.
	Count int `json:"count"`
	// CountedTo is up to where a dry run has counted if the range is too long for one answer, else 0. Ask again from behind it for
	// the rest.
	CountedTo eventhose.Sequence `json:"counted_to,omitempty"`
}

// Replay sends a range of a subscription's events once more, beside live order and marked by a header. CodeLimit when
// eventhose.MaxReplays are running, CodeCursorGone, CodeInvalid with the field.
func (t *Tenant) Replay(ctx context.Context, id eventhose.SubscriptionID, r NewReplay) (ReplayResult, error) {
	body := struct {
		From   any      `json:"from,omitempty"`
		To     any      `json:"to,omitempty"`
		Types  []string `json:"types,omitempty"`
		Status string   `json:"status,omitempty"`
		DryRun bool     `json:"dry_run,omitempty"`
	}{place(r.From), place(r.To), r.Types, r.Status, r.DryRun}
	var answer ReplayResult
	err := t.c.send(ctx, http.MethodPost, t.subscription(id, "replay"), body, &answer)
	return answer, err
}

// place writes a sequence as a number, and the other ends of a range as text.
func place(s string) any {
	if s == "" {
		return nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n
	}
	return s
}
