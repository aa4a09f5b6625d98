package app_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// serving is a server that counts.
type serving struct {
	*client.Client
	t    *testing.T
	stop func()
}

func serve(t *testing.T, o app.Options) *serving {
	t.Helper()
	o.Listen, o.AdminKey, o.SecretKey = "127.0.0.1:0", adminKey, make([]byte, 32)
	o.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := client.New("http://"+a.Addr(), adminKey)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	s := &serving{Client: c, t: t, stop: func() {
		if stopped {
			return
		}
		stopped = true
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(s.stop)
	return s
}

// append appends n events, one by one.
func (s *serving) append(n int) {
	s.t.Helper()
	for range n {
		if _, err := s.Tenant("default").Append(s.t.Context(), eventhose.Event{Type: "a.b", Data: []byte("12345")}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *serving) total(sub eventhose.SubscriptionID) eventhose.Metrics {
	s.t.Helper()
	m, err := s.Tenant("default").Metrics(s.t.Context(), client.MetricsOptions{Subscription: sub})
	if err != nil {
		s.t.Fatal(err)
	}
	return m.Total
}

// delivered waits until so many attempts are counted at a server, which has made all of them.
func (s *serving) delivered(sub eventhose.SubscriptionID, n uint64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for s.total(sub).Taken != n {
		if ctx.Err() != nil {
			s.t.Fatalf("%+v, want %d taken", s.total(sub), n)
		}
	}
}

func (s *serving) subscribe(url string) eventhose.SubscriptionID {
	s.t.Helper()
	sub, err := s.Tenant("default").CreateSubscription(s.t.Context(), client.NewSubscription{Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: url}})
	if err != nil {
		s.t.Fatal(err)
	}
	return sub.ID
}

func newReceiver(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	return s.URL
}

// What was counted is there after a stop and a start, the minute under way too, and is counted on.
func TestMetricsSurviveAStop(t *testing.T) {
	receiver := newReceiver(t)
	o := app.Options{Data: filepath.Join(t.TempDir(), "data")}
	first := serve(t, o)
	sub := first.subscribe(receiver)
	first.append(3)
	first.delivered(sub, 3)
	first.stop()
	second := serve(t, o)
	if m := second.total(""); m.Events != 3 || m.Bytes != 15 || m.FirstTaken != 3 || m.Lag.P99 <= 0 {
		t.Errorf("after a start: %+v", m)
	}
	second.append(2)
	second.delivered(sub, 5)
	if m := second.total(""); m.Events != 5 || m.Taken != 5 {
		t.Errorf("counted on: %+v", m)
	}
	all, err := second.Metrics(t.Context(), client.MetricsOptions{From: "24h"})
	if err != nil || all.Total.Events != 5 {
		t.Errorf("the platform has %+v, %v", all.Total, err)
	}
}

// Nodes over one database add up, whichever is asked, and know of each other.
func TestMetricsOfNodes(t *testing.T) {
	receiver := newReceiver(t)
	url := pgtest.Database(t)
	one := serve(t, app.Options{DatabaseURL: url, Node: "one"})
	two := serve(t, app.Options{DatabaseURL: url, Node: "two"})
	sub := one.subscribe(receiver)
	one.append(3)
	two.append(4)
	// Each knows at least its own of the minute under way.
	if a, b := one.total("").Events, two.total("").Events; a < 3 || b < 4 {
		t.Errorf("the nodes have %d and %d", a, b)
	}
	h, err := two.Health(t.Context())
	if err != nil || h.Store != eventhose.StorePostgreSQL || h.Database == nil || h.Database.Version == "" || h.Database.Connections.Max == 0 || h.Disk != nil ||
		len(h.Nodes) != 2 || h.Nodes[0].Self == h.Nodes[1].Self || h.Nodes[0].Until.IsZero() || h.Leases.Total != 256 || h.Checks["database"] != "ok" {
		t.Errorf("%+v, %v", h, err)
	}
	one.stop() // and so writes what it has
	two.delivered(sub, 7)
	if m := two.total(""); m.Events != 7 || m.Taken != 7 || m.Delivered != 7 || m.FirstTaken != 7 {
		t.Errorf("together: %+v", m)
	}
	if m := two.total(sub); m.Taken != 7 {
		t.Errorf("of the subscription: %+v", m)
	}
}
