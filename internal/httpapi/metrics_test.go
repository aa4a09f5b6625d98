package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// into reads an answer of 200.
func (w *world) into(v any, path string) {
	w.t.Helper()
	r := w.want(200, w.root("GET", path, ""))
	if err := json.Unmarshal(r.body, v); err != nil {
		w.t.Fatalf("%s: %v: %s", r.what, err, r.body)
	}
}

// until asks again until the answer is as is wanted.
func until[T any](w *world, path string, good func(T) bool) (v T) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for {
		v = *new(T)
		w.into(&v, path)
		if good(v) {
			return v
		}
		if ctx.Err() != nil {
			w.t.Fatalf("%s stays at %+v", path, v)
		}
	}
}

// What is counted is what was appended and tried: repeats, tests and other tenants left out.
func TestMetrics(t *testing.T) {
	w := newWorld(t, nil)
	sub, other := w.subscribe("acme", ""), w.subscribe("acme", `"filter": {"types": ["x.*"]}, `)
	w.want(200, w.root("POST", "/v1/tenants/acme/subscriptions/"+sub+"/test", ""))
	w.attempts(1)
	w.append("acme", `{"type": "a.b", "id": "one", "data": {"a":1}}`)
	w.append("acme", `{"type": "a.b", "id": "one", "data": {"a":1}}`) // again
	w.append("globex", `{"type": "a.b", "data": 12345}`)
	w.attempts(1)
	w.sink.answer(500)
	w.append("acme", `{"type": "a.b", "data": 7}`)
	w.attempts(1)

	total := func(path string) eventhose.Metrics {
		t.Helper()
		var m httpapi.MetricsAnswer
		w.into(&m, path)
		var sum uint64
		for _, p := range m.Data {
			sum += p.Events + p.Attempts
		}
		if sum != m.Total.Events+m.Total.Attempts {
			t.Errorf("%s: the steps have %d, their sum %+v", path, sum, m.Total)
		}
		return m.Total
	}
	of := func(m eventhose.Metrics) string {
		return fmt.Sprintf("%d events %d bytes; %d attempts %d taken %d failed %d delivered %d of %d at first", m.Events, m.Bytes, m.Attempts, m.Taken, m.Failed, m.Delivered, m.FirstTaken, m.First)
	}
	const path = "/v1/tenants/acme/metrics"
	for path, want := range map[string]string{
		path:                            "2 events 8 bytes; 2 attempts 1 taken 1 failed 1 delivered 1 of 2 at first",
		path + "?subscription=" + sub:   "0 events 0 bytes; 2 attempts 1 taken 1 failed 1 delivered 1 of 2 at first",
		path + "?subscription=" + other: "0 events 0 bytes; 0 attempts 0 taken 0 failed 0 delivered 0 of 0 at first",
		path + "?from=3h&to=2h":         "0 events 0 bytes; 0 attempts 0 taken 0 failed 0 delivered 0 of 0 at first",
		"/v1/tenants/globex/metrics":    "1 events 5 bytes; 0 attempts 0 taken 0 failed 0 delivered 0 of 0 at first",
		"/v1/metrics":                   "3 events 13 bytes; 2 attempts 1 taken 1 failed 1 delivered 1 of 2 at first",
	} {
		if got := of(total(path)); got != want {
			t.Errorf("%s: %s\nwant %s", path, got, want)
		}
	}
}

func TestMetricsQueries(t *testing.T) {
	w := newWorld(t, nil)
	const path = "/v1/tenants/acme/metrics?"
	now := time.Now().UTC()
	for query, want := range map[string]string{
		"":                 "60 of 1m0s",
		"from=24h":         "1440 of 1m0s",
		"from=25h":         "300 of 5m0s",
		"from=168h":        "672 of 15m0s",
		"from=7h&step=30m": "14 of 30m0s",
		"from=2026-01-01T00:00:00Z&to=2026-01-01T00:10:00.000000001Z&step=5m":                      "3 of 5m0s",
		"from=" + now.Add(time.Hour).Format(time.RFC3339) + "&to=2099-01-01T00:00:00Z&step=24000h": "",
	} {
		var m httpapi.MetricsAnswer
		w.into(&m, path+query)
		if got := fmt.Sprintf("%d of %v", len(m.Data), m.Step); want != "" && got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
		for i := 1; i < len(m.Data); i++ {
			if m.Data[i].Time.Sub(m.Data[i-1].Time) != time.Duration(m.Step) {
				t.Fatalf("%s: a step is missing after %v", query, m.Data[i-1].Time)
			}
		}
	}
	for query, field := range map[string]string{
		"from=banana":               "from",
		"from=-1h":                  "from",
		"from=87601h":               "from",
		"from=1960-01-01T00:00:00Z": "from",
		"from=1h&to=2h":             "from",
		"to=soon":                   "to",
		"step=90s":                  "step",
		"step=0s":                   "step",
		"step=-1m":                  "step",
		"from=168h&step=1m":         "step",
		"colour=red":                "colour",
	} {
		w.refused(eventhose.CodeInvalid, field, w.root("GET", path+query, ""))
	}
	w.refused(eventhose.CodeNotFound, "", w.root("GET", path+"subscription=sub_00000000000000000000000000", ""))
	foreign := w.subscribe("globex", "")
	w.refused(eventhose.CodeNotFound, "", w.root("GET", path+"subscription="+foreign, ""))
}

// A list tells of each subscription where it stands and how it went, if that is asked for.
func TestSubscriptionsOverTime(t *testing.T) {
	w := newWorld(t, nil)
	taken := w.subscribe("acme", `"name": "taken", `)
	w.append("acme", `{"type": "a.b", "data": 1}`)
	w.attempts(1)
	w.sink.answer(500)
	failed := w.subscribe("acme", `"retry": {"schedule": ["0s"]}, `)
	w.append("acme", `{"type": "a.b", "data": 1}`)
	w.attempts(2)
	const path = "/v1/tenants/acme/subscriptions"
	var list httpapi.List[httpapi.SubscriptionAnswer]
	w.into(&list, path)
	for _, s := range list.Data {
		if s.Status != nil || s.Metrics != nil {
			t.Errorf("%+v is told unasked", s)
		}
	}
	w.into(&list, path+"?status=true&metrics=1h&limit=100")
	if len(list.Data) != 2 || string(list.Data[0].ID) != taken || string(list.Data[1].ID) != failed {
		t.Fatalf("%+v", list)
	}
	for i, want := range []struct{ attempts, failed uint64 }{{2, 1}, {1, 1}} {
		s := list.Data[i]
		var sum, sumFailed uint64
		for j := range s.Metrics.Spark {
			sum += s.Metrics.Spark[j]
			sumFailed += s.Metrics.SparkFailed[j]
		}
		if len(s.Metrics.Spark) != 30 || len(s.Metrics.SparkFailed) != 30 || sum != want.attempts || sumFailed != want.failed || s.Metrics.Attempts != sum || s.Metrics.Failed != sumFailed {
			t.Errorf("%s: %+v", s.ID, s.Metrics)
		}
		var one httpapi.SubscriptionAnswer
		w.into(&one, path+"/"+string(s.ID))
		if s.Status == nil || s.Status.Dead != one.Status.Dead || s.Status.Circuit != one.Status.Circuit || s.Status.Retrying != one.Status.Retrying {
			t.Errorf("%s: %+v, and by itself %+v", s.ID, s.Status, one.Status)
		}
	}
	w.refused(eventhose.CodeInvalid, "limit", w.root("GET", path+"?status=true&limit=101", ""))
	w.refused(eventhose.CodeInvalid, "limit", w.root("GET", path+"?metrics=1h&limit=101", ""))
	for _, span := range []string{"29m", "25h", "x"} {
		w.refused(eventhose.CodeInvalid, "metrics", w.root("GET", path+"?metrics="+span, ""))
	}
}

func TestOverview(t *testing.T) {
	w := newWorld(t, nil)
	const path = "/v1/tenants/acme/overview"
	var o eventhose.Overview
	if w.into(&o, path); o.FirstTry != nil || o.Oldest != nil || o.Subscriptions.Total != 0 || o.Head.First != 1 || o.Partial {
		t.Errorf("of nothing: %+v", o)
	}
	w.sink.answer(500)
	dead := w.subscribe("acme", `"retry": {"schedule": ["0s"]}, `)
	retrying := w.subscribe("acme", `"retry": {"schedule": ["0s", "1h"]}, `)
	paused := w.subscribe("acme", "")
	w.want(200, w.root("POST", "/v1/tenants/acme/subscriptions/"+paused+"/pause", ""))
	w.append("acme", `{"type": "a.b", "data": 1}`)
	w.attempts(2)
	o = until(w, path, func(o eventhose.Overview) bool { return o.Oldest != nil && o.Parked.Dead == 1 })
	if o.Oldest.Subscription != eventhose.SubscriptionID(retrying) || o.Oldest.Age <= 0 || o.Parked != (eventhose.OverviewParked{Retrying: 1, Dead: 1}) ||
		o.FirstTry == nil || *o.FirstTry != 0 || o.EventsPerSecond <= 0 || o.DeliveriesPerSecond != 0 ||
		o.Subscriptions.Total != 3 || o.Subscriptions.Paused != 1 || o.Subscriptions.Active+o.Subscriptions.Failing != 2 {
		t.Errorf("of failures: %+v", o)
	}
	w.want(204, w.root("DELETE", "/v1/tenants/acme/subscriptions/"+dead, ""))
	w.sink.answer(200)
	w.append("acme", `{"type": "a.b", "data": 1}`)
	w.attempts(1)
	w.source("acme")
	w.into(&o, path)
	if *o.FirstTry != 1./3 || o.DeliveriesPerSecond <= 0 || o.Lag.P50 <= 0 || o.Parked.Dead != 0 || o.Sources != 1 || o.Head.Last != 2 || o.Head.Cursor.Sequence != 2 {
		t.Errorf("of a success: %+v", o)
	}
}

// A tenant with more subscriptions than are looked at is told so, and a list of them has a next page.
func TestManySubscriptions(t *testing.T) {
	w := newWorld(t, nil)
	for range eventhose.MaxOverviewSubscriptions + 1 {
		if _, err := w.ctl.CreateSubscription(t.Context(), eventhose.Subscription{Tenant: "acme"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	var o eventhose.Overview
	if w.into(&o, "/v1/tenants/acme/overview"); !o.Partial || o.Subscriptions.Total != eventhose.MaxOverviewSubscriptions || o.Subscriptions.Active != o.Subscriptions.Total {
		t.Errorf("%+v", o)
	}
	var list httpapi.List[httpapi.SubscriptionAnswer]
	if w.into(&list, "/v1/tenants/acme/subscriptions?limit=1000"); len(list.Data) != 1000 || list.Next == nil {
		t.Fatalf("a page of %d, next %v", len(list.Data), list.Next)
	}
	w.into(&list, "/v1/tenants/acme/subscriptions?limit=1000&after="+*list.Next)
	if len(list.Data) != 1 || list.Next != nil {
		t.Errorf("a page of %d, next %v", len(list.Data), list.Next)
	}
}

// How a node is is told as far as it is known: what is wrong is what is asked for.
func TestHealth(t *testing.T) {
	broken := errors.New("the database is away")
	w := newWorld(t, func(o *httpapi.Options) {
		o.Ready = func(context.Context) map[string]error {
			return map[string]error{"database": eventhose.Errorf(eventhose.CodeUnavailable, "it does not answer"), "draining": nil}
		}
		o.Health = func(context.Context) (eventhose.Health, error) {
			return eventhose.Health{Version: "1", Node: "n"}, broken
		}
	})
	var h eventhose.Health
	w.into(&h, "/v1/health")
	if h.Node != "n" || h.Checks["database"] != "it does not answer" || h.Checks["draining"] != "ok" || h.Checks["health"] == "" || h.Nodes == nil {
		t.Errorf("%+v", h)
	}
}
