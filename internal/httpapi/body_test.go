package httpapi_test

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// slow is an append whose body is being sent. The answer's status comes once body is closed, or before.
type slow struct {
	body   *io.PipeWriter
	status chan int
	asked  chan struct{} // for the body
}

// slowly begins an append of a declared length, or -1. Its bytes are sent once the server asks for them.
func (w *world) slowly(key string, declared int64, headers ...string) *slow {
	w.t.Helper()
	body, out := io.Pipe()
	s := &slow{out, make(chan int, 1), make(chan struct{})}
	trace := httptrace.WithClientTrace(w.t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(s.asked) }})
	req, err := http.NewRequestWithContext(trace, "POST", w.server.URL+events, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.ContentLength = declared
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Expect", "100-continue")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	transport := w.server.Client().Transport.(*http.Transport).Clone()
	transport.ExpectContinueTimeout = time.Minute
	w.t.Cleanup(func() {
		out.CloseWithError(io.ErrUnexpectedEOF)
		transport.CloseIdleConnections()
	})
	go func() {
		res, err := transport.RoundTrip(req)
		if err != nil {
			s.status <- 0
			return
		}
		res.Body.Close()
		s.status <- res.StatusCode
	}()
	return s
}

// What is only declared takes no room: neither bodies of any size of which nothing comes, nor such as are to be unpacked.
func TestStalledBodies(t *testing.T) {
	for _, tc := range []struct {
		name     string
		declared int64
		headers  []string
	}{
		{"declared", 8 << 20, nil},
		{"without a length", -1, nil},
		{"packed", -1, []string{"Content-Encoding", "gzip"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			_, acme := w.key("acme", eventhose.ScopePublish)
			for range 40 {
				s := w.slowly(acme, tc.declared, tc.headers...)
				select {
				case <-s.asked:
				case status := <-s.status:
					t.Fatalf("%d without a look at its body", status)
				}
			}
			w.want(202, w.root("POST", events, `{"type":"t","data":1}`))
			w.want(202, w.call(acme, "POST", events, `{"type":"t","data":1}`))
		})
	}
}

// What one's bodies hold leaves others their room: each tenant, and who is bound to none.
func TestBodiesAreBounded(t *testing.T) {
	const stalled = 16 // take a part whole, before any of them has come
	w := newWorld(t, func(o *httpapi.Options) { o.MaxBody, o.MaxBodies = 1<<20, 4*stalled<<14 })
	_, acme := w.key("acme", eventhose.ScopePublish)
	_, globex := w.key("globex", eventhose.ScopePublish)
	good := `{"type":"t","data":1}`
	appends := map[string]func() reply{
		"acme":   func() reply { return w.call(acme, "POST", events, good) },
		"globex": func() reply { return w.call(globex, "POST", "/v1/tenants/globex/events", good) },
		"nobody": func() reply { return w.root("POST", events, good) },
	}
	for _, tc := range []struct {
		who, key string
		declared int64
	}{{"acme", acme, 10_000}, {"acme", acme, -1}, {"nobody", rootKey, -1}} {
		var all []*slow
		for range stalled {
			s := w.slowly(tc.key, tc.declared)
			select {
			case <-s.asked:
			case status := <-s.status:
				t.Fatalf("%d without a look at its body", status)
			}
			all = append(all, s)
		}
		r := appends[tc.who]()
		w.refused(eventhose.CodeUnavailable, "", r)
		if r.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q", r.Header.Get("Retry-After"))
		}
		for who, append := range appends {
			if who != tc.who {
				w.want(202, append())
			}
		}
		w.want(401, w.call("", "POST", "/v1/sessions", `{"key": "nobody's"}`)) // a stranger has room, too
		for _, s := range all {
			io.WriteString(s.body, good+strings.Repeat(" ", 10_000-len(good)))
			s.body.Close()
			if status := <-s.status; status != 202 {
				t.Errorf("a slow request got %d", status)
			}
		}
		w.want(202, appends[tc.who]())
	}
}
