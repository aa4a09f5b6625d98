package eventhosetest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	webhook "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/eventhosetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func order(id string) eventhose.Event {
	return eventhose.Event{ID: id, Type: "order.paid", Data: []byte(`{"amount":  4200}`)}
}

// sevenDays is a week of a receiver that takes nothing until the last of the ten tries that the schedule has.
func sevenDays(t *testing.T, s *eventhosetest.Server) (told []string) {
	r := s.Receiver()
	r.Fail(9, http.StatusServiceUnavailable)
	sub := s.Subscribe(r, client.NewSubscription{Filter: eventhose.Filter{Types: []string{"order.*"}}})
	began := s.Clock.Now()
	ids := s.Append(eventhose.Event{Type: "order.paid", Data: []byte(`{}`)})
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.Requests()); n != 1 {
		t.Errorf("%d requests before any time had passed", n)
	}
	s.Clock.Advance(7 * 24 * time.Hour)
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, q := range r.Requests() {
		told = append(told, fmt.Sprint(q.ID, " ", q.Header.Get("Eventhose-Attempt"), " ", q.Status, " after ", q.At.Sub(began)))
	}
	if taken := r.Taken(); len(taken) != 1 || taken[0] != ids[0] {
		t.Errorf("it took %v, want %v", taken, ids)
	}
	return append(told, string(sub.ID), s.Key.String(), fmt.Sprint(ids))
}

// A week of retries: as many as the schedule has, when it says, in a moment.
func TestSevenDays(t *testing.T) {
	began := time.Now()
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		start := time.Now()
		sevenDays(t, s)
		if passed := time.Since(start); passed < 7*24*time.Hour || passed > 7*24*time.Hour+time.Minute {
			t.Errorf("%v have passed", passed)
		}
	})
	took := time.Since(began)
	t.Logf("a week took %v", took)
	if limit := 20 * time.Second; took > limit { // it is 0.2 s without the race detector, on a machine that does nothing else
		t.Errorf("more than %v", limit)
	}
}

// The same seed gives the same ids and the same times, whatever was before it.
func TestSeed(t *testing.T) {
	run := func(seed uint64) (told []string) {
		eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) { told = append(sevenDays(t, s), string(s.Key)) }, eventhosetest.Seed(seed))
		return told
	}
	first, second, other := run(1), run(1), run(2)
	if fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("one seed gives\n%s\nand\n%s", strings.Join(first, "\n"), strings.Join(second, "\n"))
	}
	for i, line := range first {
		if i < len(other) && other[i] == line && !strings.Contains(line, "***") {
			t.Errorf("another seed gives %s too", line)
		}
	}
}

// A small bound, set over the API, is kept to within seconds, and tells a reader that it was overtaken.
func TestSmallRetention(t *testing.T) {
	for name, bound := range map[string]eventhose.Retention{"age": {Age: eventhose.Duration(time.Second)}, "bytes": {Bytes: 30}} {
		eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
			s.Append(order("o1"), order("o2"), order("o3"))
			read, err := s.Tenant.Read(t.Context(), client.ReadOptions{Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Client.PutTenant(t.Context(), eventhose.Tenant{ID: "default", Retention: bound}); err != nil {
				t.Fatal(err)
			}
			s.Clock.Advance(10 * time.Second)
			_, err = s.Tenant.Read(t.Context(), client.ReadOptions{After: read.Cursor})
			var e *eventhose.Error
			if !errors.As(err, &e) || e.Code != eventhose.CodeCursorGone || e.First != 3 {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// What is tested lives in the bubble: its handler verifies with Standard Webhooks' library by the same clock, and calls the API.
func TestOwnHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := eventhosetest.New(t, eventhosetest.Bubble())
		var verify *webhook.Webhook
		url := s.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = verify.Verify(body, r.Header)
			}
			var event struct{ ID, Type string }
			if err == nil {
				err = json.Unmarshal(body, &event)
			}
			if err == nil && event.Type == "order.paid" {
				_, err = s.Tenant.Append(r.Context(), eventhose.Event{ID: "mail-" + event.ID, Type: "mail.sent", Data: []byte("{}")})
			}
			if err != nil {
				t.Error(err)
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		sub, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{Destination: eventhose.Destination{Type: "webhook", URL: url}})
		if err != nil {
			t.Fatal(err)
		}
		if verify, err = webhook.NewWebhook(string(sub.Secret)); err != nil {
			t.Fatal(err)
		}
		s.Clock.Advance(30 * 24 * time.Hour)
		s.Append(order("o1"))
		if err := s.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		e, err := s.Tenant.Event(t.Context(), "", "mail-o1")
		if err != nil || len(e.Deliveries) != 1 || e.Deliveries[0].State != eventhose.DeliveryDelivered {
			t.Errorf("the second event: %+v, %v", e, err)
		}
		// The API without a client of ours.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/v1/tenants/default/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+string(s.Key))
		res, err := s.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || !strings.Contains(string(body), `{"amount":  4200}`) {
			t.Errorf("%d %s, %v", res.StatusCode, body, err)
		}
		// A name that is not of this test does not resolve.
		if _, err := s.HTTPClient().Get("http://example.com/"); err == nil || !strings.Contains(err.Error(), "no such host in this test") {
			t.Errorf("the network reaches further than the test: %v", err)
		}
	})
}

// Streams and workers live in the bubble too.
func TestFollowAndWork(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		sub, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{})
		if err != nil {
			t.Fatal(err)
		}
		followed, worked := make(chan string, 10), make(chan string, 10)
		ended := make(chan error, 2)
		go func() {
			for e, err := range s.Tenant.Follow(ctx, client.FollowOptions{}) {
				if err != nil {
					ended <- err
					return
				}
				followed <- e.ID
			}
			ended <- nil
		}()
		go func() {
			ended <- s.Tenant.Work(ctx, sub.ID, 2, func(_ context.Context, e eventhose.Event) error { worked <- e.ID; return nil })
		}()
		s.Clock.Advance(time.Hour) // a stream that is idle does not keep time from passing
		s.Append(order("o1"))
		if a, b := <-followed, <-worked; a != "o1" || b != "o1" {
			t.Errorf("followed %s, worked on %s", a, b)
		}
		if err := s.Drain(t.Context()); err != nil { // what workers have is not waited for
			t.Error(err)
		}
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

// What waits for its time, or for a person, is not due.
func TestDrain(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		strict, batched, open := s.Receiver(), s.Receiver(), s.Receiver()
		strict.Fail(2, 500)
		s.Subscribe(strict, client.NewSubscription{Ordering: eventhose.OrderingStrict, OnExhausted: eventhose.OnExhaustedBlock,
			Retry: eventhose.Retry{Schedule: []eventhose.Duration{0, eventhose.Duration(time.Hour)}}})
		s.Subscribe(batched, client.NewSubscription{Batch: eventhose.BatchPolicy{MaxEvents: 10, MaxWait: eventhose.Duration(20 * time.Second)}})
		open.Fail(-1, 503)
		s.Subscribe(open, client.NewSubscription{Ordering: eventhose.OrderingKey})
		var events []eventhose.Event
		for i := range 200 {
			events = append(events, order(fmt.Sprint("o", i)))
		}
		s.Append(events[:5]...)
		drain := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			if err := s.Drain(ctx); err != nil {
				t.Fatal(err)
			}
		}
		drain()
		if n := len(strict.Requests()); n != 1 {
			t.Errorf("%d requests where the first event holds up the rest", n)
		}
		if n := len(batched.Requests()); n != 1 {
			t.Errorf("%d batches of events that came at once", n)
		}
		s.Clock.Advance(2 * time.Hour)
		s.Append(events[5:]...)
		drain()
		if n := len(strict.Requests()); n != 2 {
			t.Errorf("%d requests where the first event is dead and blocks", n)
		}
		open.Recover()
		s.Clock.Advance(24 * time.Hour)
		drain()
		if n := len(open.Taken()); n != len(events) {
			t.Errorf("after the outage %d of %d were taken", n, len(events))
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Drain(over); err == nil {
			t.Error("Drain goes on after its context")
		}
	})
}

// A receiver may have several subscriptions, each with a secret of its own, and fails as often as it was told, which may be never.
func TestReceiverOfTwo(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		r := s.Receiver()
		r.Fail(0, http.StatusServiceUnavailable)
		r.Fail(1, http.StatusInternalServerError)
		for range 2 {
			s.Subscribe(r, client.NewSubscription{})
		}
		s.Subscribe(r, client.NewSubscription{Destination: eventhose.Destination{Signature: "v1a"}})
		s.Append(order("o1"))
		s.Clock.Advance(time.Hour)
		if taken := r.Taken(); len(taken) != 3 {
			t.Errorf("it took %v", taken)
		}
		var failed []int
		for _, q := range r.Requests() {
			if q.Status != http.StatusOK {
				failed = append(failed, q.Status)
			}
		}
		if fmt.Sprint(failed) != "[500]" {
			t.Errorf("it failed with %v", failed)
		}
	})
}

// A receiver outside the bubble, over a real socket: time stands while it answers.
func TestReceiverOutside(t *testing.T) {
	var n atomic.Int64
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer outside.Close()
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		if _, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{Destination: eventhose.Destination{Type: "webhook", URL: outside.URL}}); err != nil {
			t.Fatal(err)
		}
		s.Append(order("o1"))
		s.Clock.Advance(time.Hour)
		if got := n.Load(); got != 3 {
			t.Errorf("%d requests in an hour", got)
		}
	})
}

// New without a bubble is a server on a real socket, in real time.
func TestNew(t *testing.T) {
	s := eventhosetest.New(t)
	r := s.Receiver()
	r.Fail(1, 500)
	s.Subscribe(r, client.NewSubscription{Retry: eventhose.Retry{Schedule: []eventhose.Duration{0, 0}}, Destination: eventhose.Destination{Signature: "v1a"}})
	s.Append(order("o1"), order("o2"))
	for len(r.Taken()) < 2 {
		if err := s.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(s.URL, s.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if page, err := c.Tenant("default").Read(t.Context(), client.ReadOptions{}); err != nil || len(page.Events) != 2 {
		t.Errorf("read %v, %v", page, err)
	}
}
