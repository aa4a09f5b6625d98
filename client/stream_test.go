package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// streams answers the nth connection with the nth function, and the last for ever; connections end with their function.
func streams(t *testing.T, each ...func(w http.ResponseWriter, r *http.Request)) (c *client.Tenant, asked chan string) {
	t.Helper()
	asked = make(chan string, 100)
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Encode()
		w.Header().Set("Content-Type", "application/x-ndjson")
		each[min(int(n.Add(1)), len(each))-1](w, r)
	}))
	t.Cleanup(s.Close)
	made, err := client.New(s.URL, "ehk_test", client.WithSilence(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made.Tenant("acme"), asked
}

func say(lines ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, l := range lines {
			fmt.Fprint(w, l)
		}
		http.NewResponseController(w).Flush()
	}
}

func event(n int) string {
	return fmt.Sprintf(`{"id":"e%d","type":"t","sequence":%d,"time":"2026-01-02T03:04:05Z","cursor":"a_%d","data":{"n" : %d.0}}`+"\n", n, n, n, n)
}

const gone = `{"type":"/docs#cursor_gone","status":410,"code":"cursor_gone","detail":"overtaken","first":42}`

// Whatever ends a stream, it goes on after the last event that was handed out, and each comes once.
func TestFollowGoesOn(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		say(event(4))(w, r)
		<-r.Context().Done()
	}
	refuse := func(w http.ResponseWriter, r *http.Request) {
		answer(503, `{"code":"unavailable","detail":"stopping"}`)(w, r)
	}
	page := func(w http.ResponseWriter, r *http.Request) { answer(502, `<html>`, "Content-Type", "text/html")(w, r) }
	tenant, asked := streams(t,
		say(`{"cursor":"a_0"}`+"\n", event(1), event(2)[:40]), // broken in the middle of an event
		refuse, page,
		say(event(2), event(3), `{"error":{"code":"unavailable","detail":"the server is stopping"}}`+"\n"),
		hang, // silent
		say(`{"cursor":"a_9"}`+"\n"),
		say(`{"error":`+gone+"}\n"))
	var got []string
	var moved []eventhose.Cursor
	var lost, back []error
	var last error
	for e, err := range tenant.Follow(t.Context(), client.FollowOptions{Types: []string{"a.*", "b"}, Keys: []string{"k"}, Expression: "true",
		Moved: func(c eventhose.Cursor) { moved = append(moved, c) },
		Lost:  func(err error) { lost = append(lost, err) }, Reconnected: func(err error) { back = append(back, err) }}) {
		if last = err; err == nil {
			got = append(got, fmt.Sprint(e.Tenant, " ", e.ID, " ", e.Sequence, " ", string(e.Data)))
		}
	}
	if want := `[acme e1 1 {"n" : 1.0} acme e2 2 {"n" : 2.0} acme e3 3 {"n" : 3.0} acme e4 4 {"n" : 4.0}]`; fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
	var refused *eventhose.Error
	if !errors.As(last, &refused) || refused.Code != eventhose.CodeCursorGone || refused.First != 42 {
		t.Errorf("it ended with %v", last)
	}
	if fmt.Sprint(moved) != "[a_0 a_1 a_2 a_3 a_4 a_9]" {
		t.Errorf("the cursor was at %v", moved)
	}
	if len(lost) != 6 || len(back) != 4 || !strings.Contains(fmt.Sprint(lost[4]), "said nothing") || !strings.Contains(fmt.Sprint(back[1]), "502") && eventhose.CodeOf(back[0]) != eventhose.CodeUnavailable {
		t.Errorf("lost %v\nback %v", lost, back)
	}
	for i, after := range []string{"0", "a_1", "a_1", "a_1", "a_3", "a_4", "a_9"} {
		if q := <-asked; q != "after="+after+"&expression=true&keys=k&types=a.%2A%2Cb" {
			t.Errorf("connection %d asked for %s", i, q)
		}
	}
}

// What trying again does not mend ends it at once.
func TestFollowEnds(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(http.ResponseWriter, *http.Request)
		code  eventhose.Code
	}{
		"overtaken": {func(w http.ResponseWriter, r *http.Request) { answer(410, gone)(w, r) }, eventhose.CodeCursorGone},
		"revoked":   {say(`{"error":{"code":"unauthenticated","detail":"x"}}` + "\n"), eventhose.CodeUnauthenticated},
		"no tenant": {func(w http.ResponseWriter, r *http.Request) { answer(404, `{"code":"not_found"}`)(w, r) }, eventhose.CodeNotFound},
		"no filter": {func(w http.ResponseWriter, r *http.Request) {
			answer(422, `{"code":"invalid","field":"types[0]"}`)(w, r)
		}, eventhose.CodeInvalid},
		"no streams": {func(w http.ResponseWriter, r *http.Request) { answer(200, `{"data":[]}`)(w, r) }, eventhose.CodeUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			tenant, asked := streams(t, c.serve)
			n := 0
			for _, err := range tenant.Follow(t.Context(), client.FollowOptions{Now: true}) {
				if n++; eventhose.CodeOf(err) != c.code {
					t.Errorf("got %v", err)
				}
			}
			if q := <-asked; n != 1 || len(asked) != 0 || q != "after=now" {
				t.Errorf("%d errors, %d more connections, asked for %s", n, len(asked), q)
			}
		})
	}
}

// It ends with its context and with its caller, and says nothing more.
func TestFollowIsLeft(t *testing.T) {
	forever := func(w http.ResponseWriter, r *http.Request) {
		say(event(1), event(2))(w, r)
		<-r.Context().Done()
	}
	tenant, _ := streams(t, forever)
	for range tenant.Follow(t.Context(), client.FollowOptions{}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for _, err := range tenant.Follow(ctx, client.FollowOptions{}) {
		if n++; err != nil {
			t.Error(err)
		}
		if n == 2 {
			cancel()
		}
	}
	if n != 2 {
		t.Errorf("%d events", n)
	}
	// A line without an end is not kept.
	long, _ := streams(t, say(`{"id":"`, strings.Repeat("x", 5<<20)), say(`{"error":`+gone+"}\n"))
	var why error
	for range long.Follow(t.Context(), client.FollowOptions{Lost: func(err error) { why = err }}) {
	}
	if why == nil || !strings.Contains(why.Error(), "longer") {
		t.Errorf("a line of 5 MiB: %v", why)
	}
}
