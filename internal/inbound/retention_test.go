package inbound_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// What needs a person is in the inbox, with everything that is told of it, also when retention has taken its place in the
// log, and it can be worked on after all.
func TestInboxAfterRetention(t *testing.T) {
	for name, where := range map[string]func(t *testing.T, o *app.Options){
		"embedded": func(*testing.T, *app.Options) {},
		"database": func(t *testing.T, o *app.Options) {
			o.Data, o.DatabaseURL, o.SecretKey = "", pgtest.Database(t), make([]byte, 32)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var o app.Options
			o.Data = t.TempDir()
			where(t, &o)
			placed := func(to *app.Options) { to.Data, to.DatabaseURL, to.SecretKey = o.Data, o.DatabaseURL, o.SecretKey }
			w := newWorld(t, placed)
			s := w.source(`{"provider": "github", "secret": "long-enough"}`)
			sub := eventhose.SubscriptionID(s.Subscription)
			began := time.Now().Add(-time.Second) // clocks of a database may be coarser
			for i := range 3 {
				body := fmt.Sprintf(`{"action":"opened","repository":{"full_name":"acme/shop"},"n":%d}`, i)
				w.want(200, w.send("POST", s.URL, body, "X-Hub-Signature-256", github("long-enough", body), "X-GitHub-Delivery", fmt.Sprint("d-", i), "X-GitHub-Event", "issues"))
			}
			// d-1 is dead, the others are done.
			for deliveries := 0; deliveries < 5; {
				leased, err := w.tenant.Pull(t.Context(), sub, eventhose.Pull{Max: 10, Wait: 20 * time.Second})
				if err != nil || len(leased) == 0 {
					t.Fatalf("%v, %v", leased, err)
				}
				for _, l := range leased {
					if l.Event.ID != "d-1" {
						_, err = w.tenant.Ack(t.Context(), sub, l.Lease)
					} else {
						deliveries = l.Deliveries
						_, err = w.tenant.Nack(t.Context(), sub, 0, "no such repository", l.Lease)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			dead := func() eventhose.InboxItem {
				t.Helper()
				var page struct{ Data []eventhose.InboxItem }
				w.manage(200, "GET", "/inbox?status=dead", "", &page)
				if len(page.Data) != 1 {
					t.Fatalf("%+v", page)
				}
				return page.Data[0]
			}
			before := dead()
			if before.Event != "d-1" || before.Sequence != 2 || string(before.Source) != s.ID || before.Provider != "github" || before.Topic != "github.issues" || before.Key != "acme/shop" ||
				before.Status != eventhose.InboxDead || before.Received.Before(began) || !before.Processed.IsZero() || before.Attempts != 5 || before.LastError != "no such repository" {
				t.Errorf("%+v", before)
			}
			// More comes than is kept, and a server that starts removes what is too much.
			w.manage(200, "PUT", "", `{"retention": {"bytes": 1048576}}`, nil)
			for range 3 {
				w.manage(202, "POST", "/events", `{"type": "order.paid", "data": "`+strings.Repeat("x", 700<<10)+`"}`, nil)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for w.events()[0].Sequence <= 3 {
				if ctx.Err() != nil {
					t.Fatal("nothing is removed")
				}
				w.stop()
				w = newWorld(t, placed)
			}
			// The log has nothing of the source any more.
			var all struct{ Data []eventhose.InboxItem }
			w.manage(200, "GET", "/inbox?source="+s.ID, "", &all)
			if len(all.Data) != 0 {
				t.Errorf("%+v", all)
			}
			if after := dead(); after != before {
				t.Errorf("%+v, and before the log was trimmed %+v", after, before)
			}
			if _, err := w.tenant.Redrive(t.Context(), sub, "d-1"); err != nil {
				t.Fatal(err)
			}
			leased, err := w.tenant.Pull(t.Context(), sub, eventhose.Pull{Max: 10, Wait: 20 * time.Second})
			if err != nil || len(leased) != 1 || string(leased[0].Event.Data) != `{"action":"opened","repository":{"full_name":"acme/shop"},"n":1}` {
				t.Fatalf("%v, %v", leased, err)
			}
		})
	}
}
