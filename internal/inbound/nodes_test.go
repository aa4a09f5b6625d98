package inbound_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// Over one database every node takes what is sent to a source, an event is one at all of them, and what one changes the
// others go by.
func TestNodes(t *testing.T) {
	url := pgtest.Database(t)
	node := func(o *app.Options) { o.Data, o.DatabaseURL, o.SecretKey = "", url, make([]byte, 32) }
	a, b := newWorld(t, node), newWorld(t, node)
	s := a.source(`{"provider": "github", "secret": "the-old-secret"}`)
	deliver := func(w *world, secret, id string) int {
		body := fmt.Sprintf(`{"id":%q}`, id)
		return w.send("POST", w.url+"/in/"+s.ID, body, "X-Hub-Signature-256", github(secret, body), "X-GitHub-Delivery", id).StatusCode
	}
	for _, w := range []*world{b, a, b} {
		if got := deliver(w, "the-old-secret", "d-1"); got != 200 {
			t.Fatalf("%d", got)
		}
	}
	if n := len(a.events()); n != 1 {
		t.Errorf("%d events", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	until := func(what string, is func() bool) {
		t.Helper()
		for !is() {
			select {
			case <-ctx.Done():
				t.Fatalf("the other node never knows: %s", what)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	a.manage(200, "PATCH", "/sources/"+s.ID, `{"secrets": ["the-new-secret"]}`, nil)
	until("another secret", func() bool { return deliver(b, "the-new-secret", "d-2") == 200 })
	if got := deliver(b, "the-old-secret", "d-3"); got != 401 {
		t.Errorf("the old secret: %d", got)
	}
	var list struct{ Data []eventhose.Rejection }
	a.manage(200, "GET", "/sources/"+s.ID+"/rejections", "", &list)
	if len(list.Data) == 0 || list.Data[0].Reason != "no_match" {
		t.Errorf("%+v", list)
	}
	var page struct{ Data []eventhose.InboxItem }
	b.manage(200, "GET", "/inbox?status=pending", "", &page)
	if len(page.Data) != 2 {
		t.Errorf("%+v", page)
	}
	a.manage(204, "DELETE", "/sources/"+s.ID, "", nil)
	until("no source", func() bool { return deliver(b, "the-new-secret", "d-4") == 404 })
}
