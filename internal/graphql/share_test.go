package graphql_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/graphql"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// slow is a log in which pages of acme's are read until they are let go.
type slow struct {
	graphql.Log
	reading atomic.Int32
	letGo   chan struct{}
}

func (s *slow) Page(ctx context.Context, tenant eventhose.TenantID, after eventhose.Cursor, f eventhose.Filter, limit eventhose.PageLimit) (eventhose.Page, error) {
	if tenant == "acme" {
		s.reading.Add(1)
		select {
		case <-s.letGo:
		case <-ctx.Done():
			return eventhose.Page{}, ctx.Err()
		}
	}
	return s.Log.Page(ctx, tenant, after, f, limit)
}

// However many slow queries one tenant makes, another's are executed. What is more than its share waits, and is executed then.
func TestQueriesOfOneTenantLeaveRoom(t *testing.T) {
	s := &slow{letGo: make(chan struct{})}
	w := newWorld(t, func(o *graphql.Options, _ *httpapi.Options) { s.Log, o.Log = o.Log, s })
	const n = 80
	query := request(`{ events { cursor } }`)
	post := func(ctx context.Context, tenant string) (int, error) {
		req, err := http.NewRequestWithContext(ctx, "POST", w.server.URL+"/v1/tenants/"+tenant+"/graphql", strings.NewReader(query))
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+rootKey)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/graphql-response+json") // whose status tells whether it was executed
		res, err := w.server.Client().Do(req)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	type answer struct {
		status int
		err    error
	}
	answers := make(chan answer, n)
	for range n {
		go func() {
			status, err := post(t.Context(), "acme")
			answers <- answer{status, err}
		}()
	}
	eventually(t, "acme's queries are executed", func() bool { return s.reading.Load() >= 16 })
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), patience/3)
		if status, err := post(ctx, "globex"); err != nil || status != 200 {
			t.Errorf("beside %d of acme's queries one of globex's is answered %d, %v", s.reading.Load(), status, err)
		}
		cancel()
		if t.Failed() {
			break
		}
	}
	if r := s.reading.Load(); r > 32 {
		t.Errorf("%d of acme's queries are executed at once", r)
	}
	close(s.letGo)
	for range n {
		if a := <-answers; a.err != nil || a.status != 200 {
			t.Errorf("a query of acme's: %d, %v", a.status, a.err)
		}
	}
}
