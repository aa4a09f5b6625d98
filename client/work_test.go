package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/eventhosetest"
)

// given works once on an event that is given back with an error, and answers it as it is parked then, and what Work met.
func given(t *testing.T, s *eventhosetest.Server, why error) (parked []eventhose.Parked, trouble error) {
	t.Helper()
	sub, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{})
	if err != nil {
		t.Fatal(err)
	}
	s.Append(eventhose.Event{Type: "job", Data: []byte("1")})
	ctx, stop := context.WithCancel(t.Context())
	worked, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() {
		ended <- s.Tenant.Work(ctx, sub.ID, 1, func(context.Context, eventhose.Event) error {
			worked <- struct{}{}
			return why
		}, client.WithTrouble(func(err error) { trouble = err }))
	}()
	<-worked
	s.Clock.Advance(time.Second)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	list, err := s.Tenant.Parked(t.Context(), sub.ID, "", client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Data, trouble
}

// An event whose worker wants it back later than it can come comes back as late as it can. It was handed over until it was dead.
func TestWorkRetriesAsLateAsItCan(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		began := time.Now()
		list, trouble := given(t, s, client.RetryAfter(48*time.Hour, errors.New("on Monday")))
		if len(list) != 1 || list[0].State != eventhose.ParkedRetrying || list[0].Due.Sub(began).Round(time.Minute) != eventhose.MaxNackDelay || trouble != nil {
			t.Errorf("%+v, %v", list, trouble)
		}
	})
}

// However long an error is, its event is given back.
func TestWorkTellsLongErrors(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		list, trouble := given(t, s, client.RetryAfter(time.Hour, errors.New(strings.Repeat("é", 1<<20))))
		if len(list) != 1 || list[0].State != eventhose.ParkedRetrying || !strings.HasPrefix(list[0].Message, "éé") || trouble != nil {
			t.Errorf("%.200v, %v", list, trouble)
		}
	})
}

var errFault = errors.New("a fault of the event's")

// A worker that is stopped in the middle of its work, as by a deploy, costs the event nothing, however often.
func TestWorkStops(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		sub, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{Retry: eventhose.Retry{Schedule: []eventhose.Duration{0, 0, 0}}})
		if err != nil {
			t.Fatal(err)
		}
		s.Append(eventhose.Event{Type: "job", Data: []byte("1")})
		// stopped answers how often the event had been handed over to a worker that is stopped, and whose call ends with err then.
		stopped := func(err error) int {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			deliveries := 0
			work := s.Tenant.Work(ctx, sub.ID, 1, func(ctx context.Context, _ eventhose.Event) error {
				handed, _ := client.Handed(ctx)
				deliveries = handed.Deliveries
				stop()
				<-ctx.Done()
				if errors.Is(err, errFault) {
					panic(err)
				}
				return err
			})
			if work != nil {
				t.Error(work)
			}
			s.Clock.Advance(time.Second) // what it said is stored
			return deliveries
		}
		for range 5 {
			if n := stopped(context.Canceled); n != 1 {
				t.Fatalf("%d deliveries, though none was the event's fault", n)
			}
		}
		if n := stopped(errFault); n != 1 {
			t.Errorf("%d deliveries", n)
		}
		later := client.RetryAfter(time.Minute, errors.New("not now"))
		if n := stopped(later); n != 2 {
			t.Errorf("%d deliveries", n)
		}
		list, err := s.Tenant.Parked(t.Context(), sub.ID, "", client.ListOptions{})
		if err != nil || len(list.Data) != 1 || time.Until(list.Data[0].Due).Round(time.Minute) != time.Minute || list.Data[0].Message != "not now" {
			t.Errorf("what a call wants back later, though its worker stops: %+v, %v", list.Data, err)
		}
		s.Clock.Advance(time.Minute)
		if n := stopped(nil); n != 3 {
			t.Errorf("%d deliveries after two that failed", n)
		}
		if list, err := s.Tenant.Parked(t.Context(), sub.ID, "", client.ListOptions{}); err != nil || len(list.Data) != 0 {
			t.Errorf("what is done, though its worker stops: %+v, %v", list.Data, err)
		}
	})
}

// slowAcks brings the answer of an ack when it may, unless the request is given up before.
type slowAcks struct {
	http.RoundTripper
	answered, may chan struct{}
}

func (s *slowAcks) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.RoundTripper.RoundTrip(r)
	if err != nil || !strings.HasSuffix(r.URL.Path, "/ack") {
		return res, err
	}
	s.answered <- struct{}{}
	select {
	case <-s.may:
		return res, nil
	case <-r.Context().Done():
		res.Body.Close()
		return nil, r.Context().Err()
	}
}

// What a worker is saying when it is to stop is said once: said again, it would be of a lease that is answered.
func TestWorkStopsWhileItAnswers(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		sub, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{})
		if err != nil {
			t.Fatal(err)
		}
		s.Append(eventhose.Event{Type: "job", Data: []byte("1")})
		slow := &slowAcks{s.HTTPClient().Transport, make(chan struct{}, 10), make(chan struct{})}
		through, err := client.New(s.URL, s.Key, client.WithHTTPClient(&http.Client{Transport: slow}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- through.Tenant("default").Work(ctx, sub.ID, 1, func(context.Context, eventhose.Event) error { return nil },
				client.WithTrouble(func(err error) { t.Error(err) }))
		}()
		<-slow.answered
		stop()
		synctest.Wait()
		close(slow.may)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
