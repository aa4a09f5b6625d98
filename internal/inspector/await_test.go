package inspector

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
)

// counted is one inspector of which only the number of requests matters.
type counted struct {
	id       eventhose.InspectorID
	requests atomic.Uint64
}

func (c *counted) FindInspector(context.Context, eventhose.InspectorID) (eventhose.Inspector, error) {
	return eventhose.Inspector{ID: c.id, Status: 200, Requests: c.requests.Load()}, nil
}

func (c *counted) KeepInspected(_ context.Context, _ eventhose.TenantID, _ eventhose.InspectorID, r eventhose.InspectedRequest) (eventhose.InspectedRequest, error) {
	c.requests.Add(1)
	return r, nil
}

func (c *counted) Inspected(_ context.Context, _ eventhose.TenantID, _ eventhose.InspectorID, q eventhose.InspectedQuery) ([]eventhose.InspectedRequest, bool, error) {
	if fmt.Sprint(c.requests.Load()) == q.After {
		return nil, false, nil
	}
	return make([]eventhose.InspectedRequest, 1), false, nil
}

// Who waits is told at once of what comes in here, within a second of what comes in elsewhere, and leaves nothing behind.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inspectors := &counted{id: "ins_" + eventhose.InspectorID(eventhose.IDText([16]byte{}))}
		d, err := New(Options{Inspectors: inspectors})
		if err != nil {
			t.Fatal(err)
		}
		until := make(chan struct{})
		await := func(after string, do func()) (n int, took time.Duration) {
			started := time.Now()
			answered := make(chan int)
			go func() {
				list, _, err := d.Await(t.Context(), until, "", inspectors.id, eventhose.InspectedQuery{After: after})
				if err != nil {
					t.Error(err)
				}
				answered <- len(list)
			}()
			synctest.Wait()
			do()
			return <-answered, time.Since(started)
		}
		if n, took := await("0", func() {
			d.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", pathPrefix+string(inspectors.id), nil))
		}); n != 1 || took != 0 {
			t.Errorf("here: %d after %v", n, took)
		}
		if n, took := await("1", func() { inspectors.requests.Add(1) }); n != 1 || took > time.Second {
			t.Errorf("elsewhere: %d after %v", n, took)
		}
		if n, took := await("2", func() { <-time.After(10 * time.Second); close(until) }); n != 0 || took != 10*time.Second {
			t.Errorf("nothing: %d after %v", n, took)
		}
		if len(d.arrivals.of) != 0 {
			t.Errorf("%v is left", d.arrivals.of)
		}
	})
}
