package eventhosetest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/eventhosetest"
)

// A receiver that is down for three tries has the event after a week, of which the test sees nothing.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestOrdersArrive(t *testing.T)
		eventhosetest.Run(t, func(t *testing.T, s *eventhosetest.Server) {
			r := s.Receiver()
			s.Subscribe(r, client.NewSubscription{Filter: eventhose.Filter{Types: []string{"order.*"}}})
			r.Fail(3, http.StatusServiceUnavailable)

			s.Append(eventhose.Event{ID: "order-1", Type: "order.paid", Data: []byte(`{"amount": 4200}`)})
			s.Clock.Advance(7 * 24 * time.Hour)

			if err := s.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if taken := r.Taken(); len(taken) != 1 || taken[0] != "order-1" {
				t.Errorf("it took %v", taken)
			}
			if n := len(r.Requests()); n != 4 {
				t.Errorf("%d requests", n)
			}
		}, eventhosetest.Seed(1))
	}
}
