package browser_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// cloudEvent appends one of a source to acme's log and answers its sequence.
func (s *server) cloudEvent(source, id string) int {
	s.t.Helper()
	body := fmt.Sprintf(`{"specversion": "1.0", "type": "order.paid", "source": %s, "id": %s, "data": {"from": %s}}`, quoted(source), quoted(id), quoted(source))
	r, err := http.NewRequestWithContext(s.t.Context(), "POST", s.url+"/v1/tenants/acme/events", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminKey)
	r.Header.Set("Content-Type", "application/cloudevents+json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		s.t.Fatalf("the append was answered %d", resp.StatusCode)
	}
	path := "/v1/tenants/acme/events/" + id + "?source=" + source
	return int(s.call("GET", path, nil)["sequence"].(float64))
}

// Sources have ids of their own, so that several events may have one: a button is about the event that it stands beside, wherever it is.
func TestOneIDOfSeveralSources(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	dead := s.subscribe("dead", "/mended", object{"ordering": "none", "retry": object{"schedule": []string{"0s"}}})
	later := s.subscribe("later", "/mended", object{"ordering": "none", "retry": object{"schedule": []string{"0s", "24h"}}})
	var at []int
	for i := range 7 {
		at = append(at, s.cloudEvent(fmt.Sprintf("/shop/%d", i), "1"))
	}
	is := func(sub, state string, want ...int) {
		t.Helper()
		var places []int
		for _, i := range want {
			places = append(places, at[i])
		}
		s.await("/v1/tenants/acme/subscriptions/"+sub+"/parked?state="+state, fmt.Sprint(state, " at ", places), func(o object) bool {
			var got []int
			list, _ := o["data"].([]any)
			for _, row := range list {
				got = append(got, int(row.(map[string]any)["sequence"].(float64)))
			}
			return fmt.Sprint(got) == fmt.Sprint(places)
		})
	}
	is(dead, "dead", 0, 1, 2, 3, 4, 5, 6)
	is(later, "retrying", 0, 1, 2, 3, 4, 5, 6)
	b := open(t)
	s.enter(b, "")
	row := func(i int) string { return fmt.Sprintf(`main tbody tr:has(a[href$="sequence=%d"])`, at[i]) }
	b.visit(s.url + "/ui/acme/parked")
	b.press(row(2), "Discard")
	is(dead, "dead", 0, 1, 3, 4, 5, 6)
	s.mended.Store(true)
	b.visit(s.url + "/ui/acme/subscriptions/" + dead + "?tab=parked")
	b.press(row(3), "Redrive")
	is(dead, "dead", 0, 1, 4, 5, 6)
	b.visit(s.url + "/ui/acme/subscriptions/" + later + "?tab=parked")
	b.press(row(3), "Try now")
	is(later, "retrying", 0, 1, 2, 4, 5, 6)

	event := func(i int) { b.visit(fmt.Sprintf("%s/ui/acme/events/1?sequence=%d", s.url, at[i])) }
	lane := func(name string) string { return fmt.Sprintf(`main .lane1:has(a[href$="%s"])`, name) }
	event(4)
	b.press(lane(dead), "Redrive")
	is(dead, "dead", 0, 1, 5, 6)
	b.press(lane(later), "Try now")
	is(later, "retrying", 0, 1, 2, 5, 6)
	event(5)
	b.press(lane(dead), "Discard")
	is(dead, "dead", 0, 1, 6)
	event(6)
	b.press("main header", "Send again…")
	b.press("dialog", "Send to 2")
	is(dead, "dead", 0, 1)
	is(later, "retrying", 0, 1, 2, 5)
}

// From one try to the next, also of an event that came from a source.
func TestTriesOfASource(t *testing.T) {
	s := start(t, "embedded")
	s.call("PUT", "/v1/tenants/acme", object{})
	sub := s.subscribe("twice", "/mended", object{"retry": object{"schedule": []string{"0s", "0s"}}})
	s.cloudEvent("/shop/1", "1")
	path := "/v1/tenants/acme/subscriptions/" + sub + "/attempts"
	s.await(path, "two attempts", func(o object) bool {
		list, _ := o["data"].([]any)
		return len(list) == 2
	})
	last := s.call("GET", path, nil)["data"].([]any)[0].(object)["id"].(string)
	b := open(t)
	s.enter(b, "/ui/acme/subscriptions/"+sub+"/attempts/"+last)
	b.press("main header", "Earlier try")
	b.press("main header", "Later try")
	b.until(fmt.Sprintf(`location.pathname.endsWith(%s)`, quoted(last)))
}
