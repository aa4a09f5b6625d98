package sinktest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
)

// naive is a small HTTP sink that passes what is tried below, with one fault planted by change.
type naive struct {
	client *http.Client
	change func(r *sink.Result, resp *http.Response, b *sink.Batch)
	before func(ctx context.Context) context.Context
	hasty  bool // does not ask whether it may still send
}

var errHeldBack = errors.New("held back")

func (n *naive) Check(eventhose.Destination) error { return nil }

func (n *naive) Send(ctx context.Context, b *sink.Batch) sink.Result {
	r := sink.Result{Started: time.Now(), URL: sink.RedactURL(b.Subscription.Destination.URL)}
	parent := ctx
	if n.before != nil {
		ctx = n.before(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(b.Subscription.Retry.Timeout))
	defer cancel()
	var resp *http.Response
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.Subscription.Destination.URL, strings.NewReader("{}"))
	if err == nil && !n.hasty && b.Still != nil && !b.Still() {
		err = errHeldBack
	}
	if err == nil {
		for name, value := range b.Subscription.Destination.Headers {
			request.Header.Set(name, string(value))
		}
		resp, err = n.client.Do(request)
	}
	switch {
	case err == nil:
		resp.Body.Close()
		var reason eventhose.Reason
		r.Outcome, reason, r.Slow = sink.Judge(resp.StatusCode)
		r.Reason, r.Status = reason, resp.StatusCode
		r.RetryAfter = sink.ParseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	case parent.Err() != nil, errors.Is(err, errHeldBack):
		r.Outcome, r.Reason = eventhose.OutcomeFailed, eventhose.ReasonStopping
	default:
		r.Outcome, r.Reason, r.Slow = eventhose.OutcomeFailed, eventhose.ReasonTimeout, true
	}
	r.Message = sink.Explain(r.Reason, "")
	if n.change != nil {
		n.change(&r, resp, b)
	}
	r.Duration = time.Since(r.Started)
	return r
}

func harness(n *naive) Harness {
	transport := &http.Transport{}
	n.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return Harness{
		Sink: n,
		Subscription: func(address string, secrets []string) *eventhose.Subscription {
			headers := map[string]eventhose.Secret{}
			for i, s := range secrets {
				headers["X-"+string(rune('A'+i))] = eventhose.Secret(s)
			}
			return &eventhose.Subscription{Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: "http://" + address + "/", Headers: headers}}
		},
		Scenarios: append(HTTP()[:1], httpStatuses()...),
		Idle:      transport.CloseIdleConnections,
	}
}

// silence is the scenario of a receiver that never answers, with a short time-out.
func silence() Scenario {
	return Scenario{Name: "silence", Serve: Silent(nil), Timeout: 100 * time.Millisecond,
		Want: Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{eventhose.ReasonTimeout}, Slow: true}}
}

// The checks are quiet about a sink without fault, and each says what is wrong with one that has it.
func TestChecksSeeRed(t *testing.T) {
	defer goleak.VerifyNone(t)
	status := func(code int) Scenario {
		all := httpStatuses()
		return all[slices.IndexFunc(all, func(s Scenario) bool { return s.Want.Status == code })]
	}
	for _, c := range []struct {
		name     string
		sink     *naive
		scenario Scenario
		says     string // "" is no fault
	}{
		{"good", &naive{}, status(200), ""},
		{"good failure", &naive{}, status(503), ""},
		{"good time-out", &naive{}, silence(), ""},
		{"redirect is taken", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) {
			*r = sink.Result{Outcome: eventhose.OutcomeTaken, Started: r.Started, URL: r.URL}
		}}, status(302), "the outcome is taken"},
		{"gone is failed", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.Outcome = eventhose.OutcomeFailed }}, status(410), "the outcome is failed"},
		{"429 is not slow", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.Slow = false }}, status(429), "slow is false"},
		{"wrong reason", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.Reason = eventhose.ReasonDNS }}, status(500), "the reason is dns"},
		{"status is lost", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.Status = 0 }}, status(404), "the status is 0"},
		{"no message", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.Message = "" }}, status(404), "no message"},
		{"no start", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.Started = time.Time{} }}, status(200), "when it started"},
		{"retry after out of bounds", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.RetryAfter = 48 * time.Hour }}, status(503), "out of bounds"},
		{"leak in the message", &naive{change: func(r *sink.Result, _ *http.Response, b *sink.Batch) {
			r.Message = string(b.Subscription.Destination.Headers["X-A"])
		}}, status(500), "shows the secret"},
		{"leak in a header, in JSON's spelling", &naive{change: func(r *sink.Result, _ *http.Response, b *sink.Batch) {
			r.ResponseHeaders = map[string]string{"x": string(b.Subscription.Destination.Headers["X-B"])}
		}}, status(200), "shows the secret"},
		{"body is not cut", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.ResponseBody = strings.Repeat("x", 2000) }}, status(200), "keeps 2000 bytes"},
		{"body is not UTF-8", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.ResponseBody = "\xff" }}, status(200), "valid UTF-8: false"},
		{"cookies are kept", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) {
			r.ResponseHeaders = map[string]string{"set-cookie": "a"}
		}}, status(200), "set-cookie"},
		{"time-out is not kept", &naive{change: func(*sink.Result, *http.Response, *sink.Batch) { wait(1200 * time.Millisecond) }}, silence(), "with a time-out of 100ms"},
		{"memory", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { io.Discard.Write(make([]byte, 8<<20)) }}, status(200), "allocated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := harness(c.sink)
			defer h.Idle()
			faults := strings.Join(Faults(h, c.scenario), "\n")
			if c.says == "" && faults != "" || !strings.Contains(faults, c.says) {
				t.Errorf("says %q, want %q", faults, c.says)
			}
		})
	}
	for _, c := range []struct {
		name string
		sink *naive
		says string
	}{
		{"good", &naive{}, ""},
		{"deaf to its context", &naive{before: late, change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) {
			r.Reason, r.Slow = eventhose.ReasonStopping, false
		}}, "after it was cancelled"},
		{"blames the receiver", &naive{change: func(r *sink.Result, _ *http.Response, _ *sink.Batch) { r.Reason = eventhose.ReasonReset }}, "the reason is reset"},
	} {
		t.Run("cancelled, "+c.name, func(t *testing.T) {
			h := harness(c.sink)
			defer h.Idle()
			faults := strings.Join(CancelFaults(h), "\n")
			if c.says == "" && faults != "" || !strings.Contains(faults, c.says) {
				t.Errorf("says %q, want %q", faults, c.says)
			}
		})
	}
}

// A sink that sends what is held back is seen.
func TestHeldBackSeesRed(t *testing.T) {
	for _, c := range []struct {
		sink *naive
		says string // "" is no fault
	}{{&naive{}, ""}, {&naive{hasty: true}, "did not ask"}, {&naive{hasty: true}, "the outcome is taken"}} {
		h := harness(c.sink)
		faults := strings.Join(HeldBackFaults(h), "\n")
		h.Idle()
		if c.says == "" && faults != "" || !strings.Contains(faults, c.says) {
			t.Errorf("says %q, want %q", faults, c.says)
		}
	}
}

// late answers a context that ends some time after it should.
func late(ctx context.Context) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), slack+500*time.Millisecond)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// wait waits for a timer, as a sink that works on after its deadline does.
func wait(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	<-ctx.Done()
}

func TestNaiveSinkPassesItsScenarios(t *testing.T) {
	Run(t, harness(&naive{}))
}
