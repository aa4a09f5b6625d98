// Package listen forwards a tenant's events, as the signed webhooks that production sends, to where whoever runs it says. All
// connections go out: to the server for work, and to the target. How far it has come is kept by the server, so that it
// survives this process, that one and the network between them.
package listen

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/webhook"
)

// attemptTimeout bounds an attempt, from connect to the end of the answer.
const attemptTimeout = eventhose.MaxTimeout

// Forwarder sends webhooks, and is the way by which production does, but for what it may connect to: a tenant's URL is
// guarded against, the URL of who runs this process is his own. It is safe for concurrent use.
type Forwarder struct {
	client *egress.Client
	sink   *webhook.Sink
}

// NewForwarder makes a Forwarder, which Close ends.
func NewForwarder() *Forwarder {
	policy := egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}})
	client := egress.NewClient(policy, egress.ClientOptions{})
	return &Forwarder{client, webhook.New(policy, client)}
}

// Close closes idle connections. Attempts under way go on.
func (f *Forwarder) Close() { f.client.Close() }

// Target is where a route's webhooks go, and what they are signed with.
type Target struct {
	subscription eventhose.Subscription
}

// Target makes a target of a URL, which without a scheme is http, and of signing secrets, each of which signs as long as it lives. CodeInvalid with
// the field "forward_to".
func (f *Forwarder) Target(tenant eventhose.TenantID, url string, secrets ...eventhose.LiveSecret) (*Target, error) {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	t := &Target{eventhose.Subscription{Tenant: tenant, Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: url},
		Retry: eventhose.Retry{Timeout: attemptTimeout}}.WithDefaults()}
	if err := f.sink.Check(t.subscription.Destination); err != nil {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "forward_to", Message: strings.TrimPrefix(err.Error(), "destination.url: "),
			Fix: "name a URL such as http://localhost:3000/webhooks"}
	}
	t.subscription.Secrets = secrets
	return t, nil
}

// URL is the whole URL.
func (t *Target) URL() string { return t.subscription.Destination.URL }

// String is the URL without what may be secret.
func (t *Target) String() string { return sink.RedactURL(t.subscription.Destination.URL) }

// Attempt is one try at one event.
type Attempt struct {
	Route    string             `json:"route,omitempty"`
	Event    string             `json:"event"`
	Type     string             `json:"type"`
	Sequence eventhose.Sequence `json:"sequence"`
	Key      string             `json:"key,omitempty"`
	// Number counts the tries of this event, from 1.
	Number   int                `json:"number"`
	Outcome  eventhose.Outcome  `json:"outcome"`
	Reason   eventhose.Reason   `json:"reason,omitempty"`
	Message  string             `json:"message,omitempty"`
	Status   int                `json:"status,omitempty"`
	Started  time.Time          `json:"started"`
	Duration eventhose.Duration `json:"duration"`
	URL      string             `json:"url"`
	// Next is when the next try is due; zero if it was taken.
	Next time.Time `json:"next,omitzero"`
}

// Taken reports whether the target took the event.
func (a *Attempt) Taken() bool { return a.Outcome == eventhose.OutcomeTaken }

// Answer is what came back in a few words: "200 OK", or why nothing did.
func (a *Attempt) Answer() string {
	if a.Status == 0 {
		return string(a.Reason)
	}
	return strings.TrimSpace(strconv.Itoa(a.Status) + " " + http.StatusText(a.Status))
}

// Send makes the numbered try at one event. wait is how long to wait before the next one, 0 if it was taken.
func (f *Forwarder) Send(ctx context.Context, to *Target, l *eventhose.Leased, number int) (a Attempt, wait time.Duration) {
	kind := eventhose.AttemptFirst
	switch {
	case number > 1:
		kind = eventhose.AttemptRetry
	case l.Replay != "":
		kind = eventhose.AttemptReplay
	}
	e := &l.Event
	r := f.sink.Send(ctx, &sink.Batch{ID: e.WebhookID(), Subscription: &to.subscription, Items: []sink.Item{{Event: e, Previous: l.Previous}},
		Kind: kind, Number: number, Replay: l.Replay})
	a = Attempt{Event: e.ID, Type: e.Type, Sequence: e.Sequence, Key: e.Key, Number: number, Outcome: r.Outcome, Reason: r.Reason, Message: r.Message,
		Status: r.Status, Started: r.Started, Duration: eventhose.Duration(r.Duration), URL: to.String()}
	if a.Taken() {
		a.Message = ""
		return a, 0
	}
	wait = max(backoff(number), min(r.RetryAfter, longestWait))
	a.Next = r.Started.Add(r.Duration + wait)
	return a, wait
}

// The waits before a target is tried again: doubling from the first, up to the longest. Who fixes his program should not have
// to wait for it to be tried.
const (
	firstWait   = 500 * time.Millisecond
	longestWait = 30 * time.Second
)

func backoff(number int) time.Duration {
	return min(firstWait<<min(max(number-1, 0), 10), longestWait)
}
