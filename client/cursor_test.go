package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/eventhosetest"
)

// CursorAt finds every time of append, those before retention's too, and Head the end.
func TestCursorAt(t *testing.T) {
	eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
		const n = 37
		var at []time.Time
		for i := range n {
			s.Clock.Advance(time.Minute)
			at = append(at, s.Clock.Now())
			s.Append(eventhose.Event{ID: fmt.Sprint(i), Type: "t", Data: []byte("1")}, eventhose.Event{ID: fmt.Sprint(i, "b"), Type: "t", Data: []byte("1")})
		}
		check := func(at time.Time, want eventhose.Sequence) {
			t.Helper()
			c, err := s.Tenant.CursorAt(t.Context(), at)
			if err != nil || c.Sequence != want {
				t.Errorf("at %v it is %v, %v, want sequence %d", at, c, err, want)
			}
			if page, err := s.Tenant.Read(t.Context(), client.ReadOptions{After: c}); err != nil || len(page.Events) != 2*n-int(want) {
				t.Errorf("after %v come %d events, %v", c, len(page.Events), err)
			}
		}
		for i := range at {
			check(at[i].Add(-time.Second), eventhose.Sequence(2*i))
			check(at[i], eventhose.Sequence(2*i))
			check(at[i].Add(time.Second), eventhose.Sequence(2*i+2))
		}
		if head, err := s.Tenant.Head(t.Context()); err != nil || head.Sequence != 2*n {
			t.Errorf("the end is %v, %v", head, err)
		}
		// Of a log whose beginning retention has removed, it is what is left.
		age := eventhose.Duration(10 * time.Minute)
		if _, err := s.Client.PutTenant(t.Context(), eventhose.Tenant{ID: "default", Retention: eventhose.Retention{Age: age}}); err != nil {
			t.Fatal(err)
		}
		s.Clock.Advance(3 * time.Minute)
		page, err := s.Tenant.Read(t.Context(), client.ReadOptions{})
		if err != nil || len(page.Events) == 0 || page.Events[0].Sequence == 1 {
			t.Fatalf("retention has left %d events, %v", len(page.Events), err)
		}
		check(at[0], page.Events[0].Sequence-1)
	})
}
