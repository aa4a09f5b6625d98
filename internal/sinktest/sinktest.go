// Package sinktest is what every sink must pass: it judges answers as agreed, ends by its deadline whatever the receiver
// does, keeps no secret and no memory, and leaves nothing running.
//
// The checks answer faults as text rather than fail a test, so that they can themselves be tried on faulty sinks.
package sinktest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
)

// Harness is a sink under test and the way to lead it to a receiver.
type Harness struct {
	// Sink may reach 127.0.0.1.
	Sink sink.Sink
	// Subscription answers one whose destination is the receiver at "127.0.0.1:port", with each of the secrets planted
	// where the sink is given secrets: credentials, the query of a URL.
	Subscription func(address string, secrets []string) *eventhose.Subscription
	// Scenarios are what receivers of the sink's kind do; HTTP has those of HTTP.
	Scenarios []Scenario
	// Idle closes the connections that the sink keeps.
	Idle func()
}

// Scenario is one way for a receiver to behave, and what a sink must make of it.
type Scenario struct {
	Name string
	// Serve starts the receiver. stop ends it and waits for all of it.
	Serve func() (address string, stop func(), err error)
	// Timeout is the subscription's; 10 s if 0.
	Timeout time.Duration
	Want    Want
}

// Want is what the result must say.
type Want struct {
	Outcome eventhose.Outcome
	// Reasons are those that are right; none means ReasonNone.
	Reasons    []eventhose.Reason
	Status     int
	Slow       bool
	RetryAfter time.Duration
}

const (
	// slack is how much longer than its time-out a try may take.
	slack = time.Second
	// maxAllocated bounds what one try allocates, receiver included.
	maxAllocated = 4 << 20
)

// secrets are planted in the subscription and may be found in no result.
var secrets = []string{"planted-secret-Kq7Zx2Lw9v", "planted/secret+two=\"quoted\""}

// Run runs every check. It must not run in parallel with other tests of its process, since it counts goroutines and
// memory.
func Run(t *testing.T, h Harness) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	for _, s := range h.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			report(t, Faults(h, s))
		})
	}
	t.Run("cancelled", func(t *testing.T) { report(t, CancelFaults(h)) })
	t.Run("held back", func(t *testing.T) { report(t, HeldBackFaults(h)) })
	t.Run("concurrent", func(t *testing.T) { report(t, ConcurrencyFaults(h)) })
	h.Idle()
	if err := goleak.Find(before); err != nil {
		t.Errorf("goroutines are left: %v", err)
	}
}

func report(t *testing.T, faults []string) {
	t.Helper()
	for _, f := range faults {
		t.Error(f)
	}
}

// Batch answers a batch of one event for a subscription.
func Batch(sub *eventhose.Subscription) *sink.Batch {
	return &sink.Batch{
		ID: "evt_sinktest", Subscription: sub, Kind: eventhose.AttemptFirst, Number: 1,
		Items: []sink.Item{{Event: &eventhose.Event{
			ID: "evt_sinktest", Tenant: sub.Tenant, Sequence: 7, Type: "order.paid", Time: time.Unix(1764000000, 0),
			Data: []byte(`{"amount":  12.50}`),
		}}},
	}
}

// Faults sends one batch in a scenario and answers what is wrong with the result, a sentence each.
func Faults(h Harness, s Scenario) (faults []string) {
	address, stop, err := s.Serve()
	if err != nil {
		return []string{"the receiver does not start: " + err.Error()}
	}
	defer stop()
	sub := h.Subscription(address, secrets)
	sub.Retry.Timeout = eventhose.Duration(s.Timeout)
	if s.Timeout == 0 {
		sub.Retry.Timeout = eventhose.Duration(10 * time.Second)
	}
	b := Batch(sub)
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	start := time.Now()
	r := h.Sink.Send(context.Background(), b)
	took := time.Since(start)
	runtime.ReadMemStats(&m1)
	scribble(b)

	faults = append(faults, resultFaults(r)...)
	faults = append(faults, wantFaults(r, s.Want)...)
	if limit := time.Duration(sub.Retry.Timeout) + slack; took > limit {
		faults = append(faults, fmt.Sprintf("it took %s, with a time-out of %s", took, sub.Retry.Timeout))
	}
	if d := m1.TotalAlloc - m0.TotalAlloc; d > maxAllocated {
		faults = append(faults, fmt.Sprintf("it allocated %d bytes, and %d are allowed", d, maxAllocated))
	}
	return faults
}

// scribble changes what Send may not have kept; the race detector tells if something still reads it.
func scribble(b *sink.Batch) {
	for _, item := range b.Items {
		clear(item.Event.Data)
		item.Event.Type = "scribbled"
	}
}

func wantFaults(r sink.Result, want Want) (faults []string) {
	fault := func(what string, got, want any) {
		faults = append(faults, fmt.Sprintf("%s is %v, want %v (message: %s)", what, got, want, r.Message))
	}
	if r.Outcome != want.Outcome {
		fault("the outcome", r.Outcome, want.Outcome)
	}
	if reasons := want.Reasons; !slices.Contains(reasons, r.Reason) && !(len(reasons) == 0 && r.Reason == eventhose.ReasonNone) {
		fault("the reason", r.Reason, reasons)
	}
	if want.Status != 0 && r.Status != want.Status {
		fault("the status", r.Status, want.Status)
	}
	if r.Slow != want.Slow {
		fault("slow", r.Slow, want.Slow)
	}
	if r.RetryAfter != want.RetryAfter {
		fault("retry after", r.RetryAfter, want.RetryAfter)
	}
	return faults
}

// resultFaults answers what no result may be.
func resultFaults(r sink.Result) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	taken := r.Outcome == eventhose.OutcomeTaken
	switch {
	case taken && (r.Reason != "" || r.Message != "" || r.Slow):
		fault("a taken batch has a reason, a message or is slow: %q, %q", r.Reason, r.Message)
	case !taken && (r.Reason == "" || r.Message == ""):
		fault("a failure has no reason or no message")
	case r.Outcome != eventhose.OutcomeTaken && r.Outcome != eventhose.OutcomeFailed && r.Outcome != eventhose.OutcomeGone:
		fault("outcome %q is none of the three", r.Outcome)
	}
	if r.Started.IsZero() || r.Duration <= 0 {
		fault("it does not say when it started (%s) or how long it took (%s)", r.Started, r.Duration)
	}
	if r.URL == "" {
		fault("it does not say where it went")
	}
	if r.RetryAfter != 0 && (r.RetryAfter < sink.MinRetryAfter || r.RetryAfter > sink.MaxRetryAfter) {
		fault("retry after %s is out of bounds", r.RetryAfter)
	}
	kept := eventhose.MaxKeptBody
	if taken {
		kept = eventhose.MaxKeptTaken
	}
	if len(r.ResponseBody) > kept || !utf8.ValidString(r.ResponseBody) {
		fault("it keeps %d bytes of body, valid UTF-8: %t", len(r.ResponseBody), utf8.ValidString(r.ResponseBody))
	}
	if len(r.Message) > 1000 || !utf8.ValidString(r.Message) {
		fault("the message has %d bytes", len(r.Message))
	}
	if len(r.ResponseHeaders) > 32 {
		fault("it keeps %d headers", len(r.ResponseHeaders))
	}
	for name, value := range r.ResponseHeaders {
		if len(name) > 1024 || len(value) > 1024 || name == "set-cookie" {
			fault("it keeps the header %.40q with %d bytes", name, len(value))
		}
	}
	return append(faults, leaks(r)...)
}

// leaks answers which planted secrets a result shows: as they are, in hex, in base64, or as JSON writes them.
func leaks(r sink.Result) (faults []string) {
	asJSON, err := json.Marshal(r)
	if err != nil {
		return []string{"the result does not marshal: " + err.Error()}
	}
	text := append(fmt.Appendf(nil, "%+v", r), asJSON...)
	for _, s := range secrets {
		quoted, _ := json.Marshal(s)
		for _, form := range []string{s, string(quoted[1 : len(quoted)-1]), hex.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte(s))} {
			if bytes.Contains(text, []byte(form)) {
				faults = append(faults, fmt.Sprintf("the result shows the secret %q", form))
			}
		}
	}
	return faults
}

// CancelFaults cancels a try that waits for a silent receiver.
func CancelFaults(h Harness) (faults []string) {
	arrived := make(chan struct{}, 1)
	address, stop, err := Silent(func() {
		select {
		case arrived <- struct{}{}:
		default:
		}
	})()
	if err != nil {
		return []string{"the receiver does not start: " + err.Error()}
	}
	defer stop()
	sub := h.Subscription(address, secrets)
	sub.Retry.Timeout = eventhose.MaxTimeout
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var (
		cancelled time.Time
		ended     = make(chan struct{})
		wg        sync.WaitGroup
	)
	wg.Go(func() {
		select {
		case <-arrived:
			cancelled = time.Now()
			cancel()
		case <-ended:
		}
	})
	r := h.Sink.Send(ctx, Batch(sub))
	close(ended)
	wg.Wait()
	if cancelled.IsZero() {
		return []string{"it ended before it was cancelled: " + r.Message}
	}
	if took := time.Since(cancelled); took > slack {
		faults = append(faults, fmt.Sprintf("it ended %s after it was cancelled", took))
	}
	faults = append(faults, resultFaults(r)...)
	return append(faults, wantFaults(r, Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{eventhose.ReasonStopping}})...)
}

// HeldBackFaults holds a try back at the last moment, on a fresh connection and, where the sink keeps some, on a kept one.
func HeldBackFaults(h Harness) (faults []string) {
	var mu sync.Mutex
	var received []byte
	address, stop, err := Listen(func(c net.Conn) {
		b := make([]byte, 4<<10)
		for n, err := 0, error(nil); err == nil; n, err = c.Read(b) {
			mu.Lock()
			received = append(received, b[:n]...)
			mu.Unlock()
		}
	})()
	if err != nil {
		return []string{"the receiver does not start: " + err.Error()}
	}
	faults = append(faults, heldBack(h, address)...)
	stop()
	if bytes.Contains(received, []byte("evt_sinktest")) {
		faults = append(faults, "what was held back was sent")
	}

	address, stop, err = h.Scenarios[0].Serve()
	if err != nil {
		return append(faults, "the receiver does not start: "+err.Error())
	}
	defer stop()
	sub := h.Subscription(address, secrets)
	sub.Retry.Timeout = eventhose.Duration(10 * time.Second)
	asked := 0
	b := Batch(sub)
	b.Still = func() bool { asked++; return true }
	faults = append(faults, wantFaults(h.Sink.Send(context.Background(), b), h.Scenarios[0].Want)...)
	if asked == 0 {
		faults = append(faults, "it did not ask whether it may still be sent")
	}
	return append(faults, heldBack(h, address)...)
}

func heldBack(h Harness, address string) []string {
	sub := h.Subscription(address, secrets)
	sub.Retry.Timeout = eventhose.Duration(time.Second)
	b := Batch(sub)
	b.Still = func() bool { return false }
	r := h.Sink.Send(context.Background(), b)
	return append(resultFaults(r), wantFaults(r, Want{Outcome: eventhose.OutcomeFailed, Reasons: []eventhose.Reason{eventhose.ReasonStopping}})...)
}

// ConcurrencyFaults sends from many goroutines to one receiver that takes everything.
func ConcurrencyFaults(h Harness) (faults []string) {
	address, stop, err := h.Scenarios[0].Serve()
	if err != nil {
		return []string{"the receiver does not start: " + err.Error()}
	}
	defer stop()
	sub := h.Subscription(address, secrets)
	sub.Retry.Timeout = eventhose.MaxTimeout
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for range 32 {
		wg.Go(func() {
			for range 4 {
				r := h.Sink.Send(context.Background(), Batch(sub))
				mu.Lock()
				faults = append(faults, wantFaults(r, h.Scenarios[0].Want)...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return faults
}
