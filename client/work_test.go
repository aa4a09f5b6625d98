package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
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
