package app_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

// A subscription that sends CloudEvents to the append route of another server relays into its log: id, key, type, time and data
// are kept, what came through a source is taken, and what is sent again, in a batch or alone, is there once. A test event is taken too.
func TestRelayIntoAnotherServer(t *testing.T) {
	tried := make(chan eventhose.Attempt, 100)
	const key = "admin-key-of-this-test"
	serve := func() (tenant *client.Tenant, url string) {
		server, err := app.New(app.Options{Listen: "127.0.0.1:0", Memory: true, SecretKey: make([]byte, 32), AdminKey: key,
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Observe: func(a eventhose.Attempt) { tried <- a }})
		if err == nil {
			err = server.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		c, err := client.New("http://"+server.Addr(), key)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c.Tenant("default"), "http://" + server.Addr()
	}
	from, _ := serve()
	to, url := serve()
	taken := func(events int) {
		t.Helper()
		limit := time.After(30 * time.Second)
		for events > 0 {
			select {
			case a := <-tried:
				if a.Outcome != eventhose.OutcomeTaken {
					t.Fatalf("answered %d: %s", a.Status, a.ResponseBody)
				}
				events -= len(a.Events)
			case <-limit:
				t.Fatalf("%d events were not sent", events)
			}
		}
	}
	relay := func(name string, batch eventhose.BatchPolicy) client.Subscription {
		t.Helper()
		s, err := from.CreateSubscription(t.Context(), client.NewSubscription{Name: name, From: "start", Batch: batch, Retry: eventhose.Retry{Schedule: []eventhose.Duration{0}},
			Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: url + "/v1/tenants/default/events", Format: eventhose.FormatCloudEvents,
				Headers: map[string]eventhose.Secret{"authorization": eventhose.Secret("Bearer " + key)}}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	source, err := from.CreateSource(t.Context(), eventhose.Source{Provider: "inspect", TypePrefix: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(source.URL, "application/json", strings.NewReader(`{"n": 1.0}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if _, err := from.Append(t.Context(), eventhose.Event{ID: "order-1", Type: "order.paid", Key: "ann", Data: []byte(`{"amount":  4200}`)},
		eventhose.Event{Type: "order.sent", ContentType: "image/png", Data: []byte{0, 255}}); err != nil {
		t.Fatal(err)
	}
	alone := relay("alone", eventhose.BatchPolicy{})
	taken(3)
	relay("in batches", eventhose.BatchPolicy{MaxEvents: 2})
	taken(3)
	if r, err := from.Replay(t.Context(), alone.ID, client.NewReplay{From: "2", To: "3"}); err != nil || r.Replay == nil {
		t.Fatal(r, err)
	}
	taken(2)

	said := func(e eventhose.Event, scope string) string {
		return fmt.Sprint(e.ID, scope, e.Type, e.Key, e.Time.UTC(), strings.TrimPrefix(e.ContentType, "application/json"), string(e.Data)) // which is what is meant without one
	}
	sent, err := from.Read(t.Context(), client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, e := range sent.Events {
		scope := "/tenants/default"
		if e.Scope != "" {
			scope = "/sources/" + e.Scope
		}
		want = append(want, said(e, scope))
	}
	there, err := to.Read(t.Context(), client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range there.Events {
		got = append(got, said(e, e.Scope))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the log has\n%q\nwant\n%q", got, want)
	}

	if a, err := from.Test(t.Context(), alone.ID); err != nil || a.Outcome != eventhose.OutcomeTaken {
		t.Errorf("a test is answered %d: %s, %v", a.Status, a.ResponseBody, err)
	}
}
