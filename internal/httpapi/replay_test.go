package httpapi_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// A dry run over a long range tells how far it has counted, and asked again from behind that comes to the end.
func TestLongDryRun(t *testing.T) {
	w := newWorld(t, nil)
	const n = eventhose.MaxExamined + 1000
	for range n / 1000 {
		batch := make([]eventhose.Event, 1000)
		for i := range batch {
			batch[i] = eventhose.Event{Type: "t", Data: []byte(`1`)}
		}
		if _, err := w.log.Append(t.Context(), "acme", batch...); err != nil {
			t.Fatal(err)
		}
	}
	path := "/v1/tenants/acme/subscriptions/" + w.subscribe("acme", "") // from now on, so that nothing is sent
	asked, count := 0, 0
	for from := 1; from > 0; asked++ {
		var a httpapi.ReplayAnswer
		r := w.want(200, w.root("POST", path+"/replay", fmt.Sprintf(`{"from": %d, "dry_run": true}`, from)))
		if err := json.Unmarshal(r.body, &a); err != nil || a.Count == nil || a.Replay != nil || a.CountedTo > 0 && int(a.CountedTo) < from {
			t.Fatalf("%s", r.body)
		}
		count += *a.Count
		if from = int(a.CountedTo) + 1; a.CountedTo == 0 {
			from = 0
		}
	}
	if asked < 2 || count != n {
		t.Errorf("%d of %d counted in %d answers", count, n, asked)
	}
}
