package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// searched reads a page of a search.
func (w *world) searched(query string) (p httpapi.FoundEvents) {
	w.t.Helper()
	r := w.want(200, w.root("GET", events+"/search?"+query, ""))
	w.conforms("get", "/v1/tenants/{tenant}/events/search", r)
	if err := json.Unmarshal(r.body, &p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// searchedAll reads all pages and answers the ids.
func (w *world) searchedAll(query string) (ids []string) {
	w.t.Helper()
	for before := ""; ; {
		p := w.searched(query + before)
		for _, e := range p.Data {
			ids = append(ids, e.ID)
		}
		if p.Next == nil {
			return ids
		}
		before = "&before=" + *p.Next
	}
}

func TestSearchEvents(t *testing.T) {
	w := newWorld(t, nil)
	fine, dead := w.subscribe("acme", `"filter": {"types": ["order.*"]},`), w.subscribe("acme", `"filter": {"keys": ["bad"]}, "retry": {"schedule": ["0s"]},`)
	large := strings.Repeat("x", 3000)
	w.append("acme", `{"id": "e1", "type": "order.paid", "key": "good", "data": {"n":  1}}`)
	w.append("acme", `{"id": "e2", "type": "mail.sent", "data": "`+large+`"}`)
	w.attempts(1)
	w.sink.answer(500)
	w.append("acme", `{"id": "e3", "type": "mail.sent", "key": "bad", "data": 3}`)
	w.attempts(1)
	w.sink.answer(200)
	w.append("acme", `{"id": "e4", "type": "order.sent", "data_base64": "AAEC", "content_type": "x/y"}`)
	w.attempts(1)
	w.settled("acme", fine, dead)

	p := w.searched("limit=3&types=&keys=&before=&status=")
	if len(p.Data) != 3 || p.Next == nil || p.Head != 4 || p.SearchedTo.IsZero() || p.Partial {
		t.Fatalf("%+v", p)
	}
	if e := p.Data[0]; e.ID != "e4" || e.Deliveries != (eventhose.DeliveryCounts{Taken: 1}) || e.DataOmitted || string(e.DataBase64) != "\x00\x01\x02" {
		t.Errorf("%+v", e)
	}
	if e := p.Data[1]; e.ID != "e3" || e.Deliveries != (eventhose.DeliveryCounts{Dead: 1}) || e.Data != 3.0 {
		t.Errorf("%+v", e)
	}
	if e := p.Data[2]; e.ID != "e2" || e.Deliveries != (eventhose.DeliveryCounts{}) || !e.DataOmitted || e.DataSize != 3002 || e.Data != nil {
		t.Errorf("%+v", e)
	}
	if raw := w.want(200, w.root("GET", events+"/search?id=e1", "")); !strings.Contains(string(raw.body), `"data":{"n":  1}`) {
		t.Errorf("not byte for byte: %s", raw.body)
	}
	for query, want := range map[string]string{
		"":                         "e4 e3 e2 e1",
		"limit=1":                  "e4 e3 e2 e1",
		"types=order.*":            "e4 e1",
		"types=mail.sent&keys=bad": "e3",
		"expression=" + url.QueryEscape("type.startsWith('mail') && key == ''"): "e2",
		"status=dead":                 "e3",
		"status=failed&limit=1":       "e3",
		"status=taken":                "e4 e1",
		"status=retrying":             "",
		"status=pending":              "",
		"id=e2":                       "e2",
		"id=e2&types=order.*":         "",
		"id=e3&status=dead":           "e3",
		"id=e3&status=taken":          "",
		"id=absent":                   "",
		"since=1h":                    "e4 e3 e2 e1",
		"until=1h":                    "",
		"since=2000-01-01T00:00:00Z":  "e4 e3 e2 e1",
		"until=2000-01-01T00:00:00Z":  "",
		"since=2h&until=1h&types=a.*": "",
	} {
		if got := strings.Join(w.searchedAll(query+"&"), " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for query, field := range map[string]string{"before=x": "before", "before=0": "before", "before=4": "before", "since=soon": "since", "until=-1h": "until", "since=1h&until=2h": "until",
		"types=a..b": "types[0]", "expression=%28": "expression", "status=fine": "status", "limit=0": "limit", "limit=1001": "limit", "other=1": "other"} {
		w.refused(eventhose.CodeInvalid, field, w.root("GET", events+"/search?"+query, ""))
	}
	w.refused(eventhose.CodeCursorGone, "", w.root("GET", events+"/search?before=zzz_3", ""))
}

// settled waits until lanes have nothing left to do but what is dead.
func (w *world) settled(tenant string, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		for deadline := time.Now().Add(20 * time.Second); ; {
			st := w.want(200, w.root("GET", "/v1/tenants/"+tenant+"/subscriptions/"+id, "")).json(w.t)["status"].(map[string]any)
			if st["lag"] == 0.0 && st["in_flight"] == 0.0 && st["retrying"] == 0.0 {
				break
			}
			if time.Now().After(deadline) {
				w.t.Fatalf("%s: %v", id, st)
			}
		}
	}
}

func TestSearchAttempts(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.subscribe("acme", ""), w.subscribe("acme", `"retry": {"schedule": ["0s"]},`)
	for range 5 {
		w.append("acme", `{"type": "a.b", "data": 1}`)
	}
	w.attempts(10)
	w.sink.answer(503)
	w.want(200, w.root("POST", subscriptions+"/"+b+"/test", ""))
	w.want(200, w.root("POST", subscriptions+"/"+a+"/test", ""))
	w.settled("acme", a, b)
	list := func(query string) (all []eventhose.Attempt) {
		t.Helper()
		for before := ""; ; {
			r := w.want(200, w.root("GET", "/v1/tenants/acme/attempts?"+query+before, ""))
			w.conforms("get", "/v1/tenants/{tenant}/attempts", r)
			var p httpapi.FoundAttempts
			if err := json.Unmarshal(r.body, &p); err != nil {
				t.Fatal(err)
			}
			if all = append(all, p.Data...); p.Next == nil {
				return all
			}
			before = "&before=" + *p.Next
		}
	}
	all := list("limit=3")
	if len(all) != 12 || !slices.IsSortedFunc(all, func(x, y eventhose.Attempt) int { return strings.Compare(y.ID, x.ID) }) {
		t.Fatalf("%d attempts, or not newest first", len(all))
	}
	middle := all[5]
	at, _ := eventhose.AttemptIDTime(middle.ID)
	for query, want := range map[string]int{"limit=100": 12, "outcome=taken&limit=2": 10, "outcome=failed": 2, "outcome=gone": 0, "reason=status": 2, "reason=dns": 0, "subscription=" + a: 6,
		"subscription=" + b + "&outcome=failed": 1, "since=1h": 12, "until=1h": 0, "since=" + at.Format(time.RFC3339Nano): 6, "until=" + at.Format(time.RFC3339Nano): 7,
		"since=" + at.Format(time.RFC3339Nano) + "&until=" + at.Format(time.RFC3339Nano): 1} {
		if got := list(query); len(got) != want {
			t.Errorf("%s: %d attempts, want %d", query, len(got), want)
		}
	}
	for query, field := range map[string]string{"before=x": "before", "outcome=fine": "outcome", "reason=why": "reason", "since=x": "since", "limit=0": "limit"} {
		w.refused(eventhose.CodeInvalid, field, w.root("GET", "/v1/tenants/acme/attempts?"+query, ""))
	}
	w.refused(eventhose.CodeNotFound, "", w.root("GET", "/v1/tenants/acme/attempts?subscription=sub_absent", ""))

	one := func(id string) (d eventhose.AttemptDetail) {
		t.Helper()
		r := w.want(200, w.root("GET", subscriptions+"/"+a+"/attempts/"+id, ""))
		w.conforms("get", "/v1/tenants/{tenant}/subscriptions/{id}/attempts/{attempt}", r)
		if err := json.Unmarshal(r.body, &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, x := range list("subscription=" + a) {
		d := one(x.ID)
		if d.ID != x.ID || d.Request == nil || d.EventGone || (d.Diagnosis != nil) != (d.Outcome == eventhose.OutcomeFailed) || d.Request.Headers["Webhook-Id"] != x.Events[0] {
			t.Errorf("%+v", d)
		}
	}
	w.refused(eventhose.CodeNotFound, "", w.root("GET", subscriptions+"/"+b+"/attempts/"+list("subscription=" + a)[0].ID, ""))
	w.refused(eventhose.CodeNotFound, "", w.root("GET", subscriptions+"/"+a+"/attempts/att_00000000000000000000000000", ""))
	w.refused(eventhose.CodeNotFound, "", w.root("GET", subscriptions+"/"+a+"/attempts/x", ""))
	event := list("subscription=" + a + "&outcome=taken")[0]
	w.want(204, w.root("DELETE", events+"/"+event.Events[0]+"/data", ""))
	if d := one(event.ID); !d.EventGone || d.Request != nil {
		t.Errorf("of an erased event: %+v", d)
	}
}

func TestParkedEverywhere(t *testing.T) {
	w := newWorld(t, nil)
	w.sink.answer(400)
	dead, retrying := w.subscribe("acme", `"retry": {"schedule": ["0s"]},`), w.subscribe("acme", `"retry": {"schedule": ["0s", "1h"]},`)
	for range 3 {
		w.append("acme", `{"type": "a.b", "data": 1}`)
	}
	w.attempts(6)
	list := func(query string) (got []string) {
		t.Helper()
		for after := ""; ; {
			r := w.want(200, w.root("GET", "/v1/tenants/acme/parked?"+query+after, ""))
			w.conforms("get", "/v1/tenants/{tenant}/parked", r)
			var p httpapi.List[eventhose.Parked]
			if err := json.Unmarshal(r.body, &p); err != nil {
				t.Fatal(err)
			}
			for _, row := range p.Data {
				got = append(got, fmt.Sprintf("%d %s %s", row.Sequence, row.Subscription, row.State))
			}
			if p.Next == nil {
				return got
			}
			after = "&after=" + *p.Next
		}
	}
	for deadline := time.Now().Add(20 * time.Second); len(list("")) < 6 && time.Now().Before(deadline); {
	}
	subs := []string{dead, retrying} // ids grow with time, within a millisecond by chance
	slices.Sort(subs)
	var want []string
	for seq := 1; seq <= 3; seq++ {
		for _, id := range subs {
			want = append(want, fmt.Sprintf("%d %s %s", seq, id, map[string]string{dead: "dead", retrying: "retrying"}[id]))
		}
	}
	for _, limit := range []string{"limit=1", "limit=4", ""} {
		if got := list(limit); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", limit, got, want)
		}
		if got := list("state=dead&" + limit); len(got) != 3 {
			t.Errorf("%s dead: %v", limit, got)
		}
	}
	for query, field := range map[string]string{"after=1": "after", "after=0.sub_0": "after", "after=99999999999999999999." + dead: "after", "state=waiting": "state", "limit=0": "limit"} {
		w.refused(eventhose.CodeInvalid, field, w.root("GET", "/v1/tenants/acme/parked?"+query, ""))
	}

	w.sink.answer(200)
	retry := subscriptions + "/" + retrying + "/parked/retry"
	w.refused(eventhose.CodeInvalid, "events", w.root("POST", retry, `{"events": []}`))
	w.refused(eventhose.CodeNotFound, "events[0]", w.root("POST", retry, `{"events": ["absent"]}`))
	if n := w.want(200, w.root("POST", retry, "")).json(t)["count"]; n != 3.0 {
		t.Errorf("%v are due", n)
	}
	w.attempts(3)
	w.settled("acme", retrying)
	id := w.searched("limit=1").Data[0].ID
	resend := events + "/" + id + "/resend"
	w.refused(eventhose.CodeInvalid, "subscriptions", w.root("POST", resend, `{"subscriptions": []}`))
	w.refused(eventhose.CodeNotFound, "subscriptions[1]", w.root("POST", resend, `{"subscriptions": ["`+dead+`", "sub_absent"]}`))
	w.refused(eventhose.CodeNotFound, "", w.root("POST", events+"/absent/resend", ""))
	r := w.want(200, w.root("POST", resend, ""))
	w.conforms("post", "/v1/tenants/{tenant}/events/{id}/resend", r)
	var answer httpapi.Resends
	if err := json.Unmarshal(r.body, &answer); err != nil || len(answer.Replays) != 2 {
		t.Fatalf("%v: %s", err, r.body)
	}
	for _, s := range answer.Replays {
		if want := map[eventhose.SubscriptionID]string{eventhose.SubscriptionID(dead): "redrive", eventhose.SubscriptionID(retrying): "replay"}[s.Subscription]; s.Did != want || (s.Replay != nil) != (want == "replay") {
			t.Errorf("%+v", s)
		}
	}
	w.attempts(2)
	w.want(204, w.root("DELETE", events+"/"+id+"/data", ""))
	w.refused(eventhose.CodeErased, "", w.root("POST", resend, ""))
}
