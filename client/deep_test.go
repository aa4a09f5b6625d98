package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/eventhosetest"
)

// What the log takes a client can read, however deep it is nested: an event that it could not would be in the way of all that come with it.
func TestDeepData(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		sub, err := s.Tenant.CreateSubscription(t.Context(), client.NewSubscription{})
		if err != nil {
			t.Fatal(err)
		}
		s.Append(eventhose.Event{Type: "a", Data: []byte(`{"text": "` + strings.Repeat(`[{\\\"`, 10_000) + `"}`)}) // not deep
		taken := 1
		for _, depth := range []int{100, 9_900, 9_901, 9_990, 9_999} {
			deep := eventhose.Event{Type: "a", Data: []byte(strings.Repeat(`{"]":[`, depth/2) + strings.Repeat("[", depth%2) + strings.Repeat("]", depth%2) + strings.Repeat("]}", depth/2))}
			_, err := s.Tenant.Append(t.Context(), deep)
			var refused *eventhose.Error
			switch {
			case err == nil:
				taken++
			case !errors.As(err, &refused) || refused.Code != eventhose.CodeMalformed || refused.Field != "data":
				t.Errorf("%d: %v", depth, err)
			}
		}
		if taken != 3 {
			t.Errorf("%d are taken", taken)
		}
		if page, err := s.Tenant.Read(t.Context(), client.ReadOptions{}); err != nil || len(page.Events) != taken {
			t.Errorf("%d are read: %v", len(page.Events), err)
		}
		if list, err := s.Tenant.Pull(t.Context(), sub.ID, eventhose.Pull{Max: 10}); err != nil || len(list) != taken {
			t.Errorf("%d are pulled: %v", len(list), err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		followed := 0
		for _, err := range s.Tenant.Follow(ctx, client.FollowOptions{Lost: func(err error) { t.Error(err); stop() }}) {
			if err != nil {
				t.Error(err)
			}
			if followed++; followed == taken {
				break
			}
		}
	})
}
