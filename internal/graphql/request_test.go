package graphql

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
)

// fixed is a log of three events with one subscription.
type fixed struct{}

var (
	fixedHead = eventhose.Head{Incarnation: 7, First: 1, Last: 3}
	fixedSub  = eventhose.Subscription{ID: "sub_1", Name: "shop", Filter: eventhose.Filter{Types: []string{"*"}},
		Destination: eventhose.Destination{Type: "webhook", URL: "https://example.com", Headers: map[string]eventhose.Secret{"X-Team": "planted"}}}.WithDefaults()
	fixedAttempt = eventhose.Attempt{ID: "att_1", Subscription: "sub_1", Events: []string{"1"}, Sequences: []eventhose.Sequence{1}, Outcome: eventhose.OutcomeTaken, Number: 1}
)

func (fixed) event(seq eventhose.Sequence) eventhose.Event {
	return eventhose.Event{ID: fmt.Sprint(seq), Sequence: seq, Type: "a", Attributes: map[string]string{"a": "b"}, Data: []byte("{\n \"n\": 12345678901234567890}")}
}

func (f fixed) Page(_ context.Context, _ eventhose.TenantID, after eventhose.Cursor, _ eventhose.Filter, limit eventhose.PageLimit) (p eventhose.Page, err error) {
	at, err := fixedHead.Resolve(after)
	for at < fixedHead.Last && len(p.Events) < limit.Events && err == nil {
		at++
		p.Events = append(p.Events, f.event(at))
	}
	p.Cursor, p.HasMore = fixedHead.Cursor(at), at < fixedHead.Last
	return p, err
}

func (fixed) Wait(ctx context.Context, _ eventhose.TenantID, after eventhose.Sequence) error {
	if after < fixedHead.Last {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f fixed) Event(_ context.Context, _ eventhose.TenantID, _, id string) (eventhose.Event, error) {
	if id != "1" {
		return eventhose.Event{}, eventhose.NotFound("event")
	}
	return f.event(1), nil
}

func (fixed) Head(context.Context, eventhose.TenantID) (eventhose.Head, error) { return fixedHead, nil }

func (fixed) Subscription(_ context.Context, _ eventhose.TenantID, id eventhose.SubscriptionID) (eventhose.Subscription, error) {
	if id != fixedSub.ID {
		return eventhose.Subscription{}, eventhose.NotFound("subscription")
	}
	return fixedSub, nil
}

func (fixed) Subscriptions(context.Context, eventhose.TenantID, eventhose.SubscriptionID, int) ([]eventhose.Subscription, error) {
	return []eventhose.Subscription{fixedSub}, nil
}

func (fixed) Status(context.Context, eventhose.Subscription) (eventhose.LaneStatus, error) {
	return eventhose.LaneStatus{Circuit: "closed", Lag: 1 << 63}, nil
}

func (fixed) Attempts(context.Context, eventhose.TenantID, eventhose.SubscriptionID, string, int) ([]eventhose.Attempt, error) {
	return []eventhose.Attempt{fixedAttempt}, nil
}

func (fixed) Deliveries(context.Context, eventhose.Event) ([]eventhose.Delivery, error) {
	return []eventhose.Delivery{{Subscription: "sub_1", State: eventhose.DeliveryDelivered, Attempts: []eventhose.Attempt{fixedAttempt}}}, nil
}

// collected is where a stream's responses go, until enough has come.
type collected struct {
	t      testing.TB
	enough int
	got    [][]byte
	wait   time.Duration
	idled  int
}

func (c *collected) next(b []byte) error {
	if c.wait > 0 {
		<-time.After(c.wait)
	}
	if c.got = append(c.got, bytes.Clone(b)); len(c.got) == c.enough {
		return context.Canceled
	}
	return nil
}

func (c *collected) refuse(list faults) error {
	c.got = append(c.got, refusal(list))
	return nil
}

// idle gives up when there was nothing for a day of heartbeats.
func (c *collected) idle() error {
	if c.idled++; c.idled > 6000 {
		return errors.New("waited in vain")
	}
	return nil
}

func newFixed(t testing.TB) *Door {
	t.Helper()
	d, err := New(Options{Log: fixed{}, Subscriptions: fixed{}, Delivery: fixed{}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A reader may take an hour for each item and gets all of them: the engine drops none.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFixed(t)
		defer d.Close()
		doc, wrong := d.prepare(request{Query: `subscription { events { cursor } }`}, true)
		if wrong != nil {
			t.Fatal(wrong)
		}
		o := d.operation("acme")
		sent := 0
		o.check, o.sent = func(context.Context) error { return nil }, func(n int) { sent += n }
		c := &collected{t: t, enough: 3, wait: time.Hour}
		if why, told := o.stream(t.Context(), doc, c); why != context.Canceled || told || sent != 2 {
			t.Errorf("ended with %v, %v after %d", why, told, sent)
		}
		for i, b := range c.got {
			if want := fmt.Sprintf(`{"data":{"events":{"cursor":"7_%d"}}}`, i+1); string(b) != want {
				t.Errorf("got %s, want %s", b, want)
			}
		}
	})
}

// Whatever a client asks, the answer is JSON, within the limits, with codes of the closed set; nothing of ours is internal.
func FuzzRequest(f *testing.F) {
	for _, document := range []string{
		"{ __typename }",
		"query($n: Int = 3) { events(limit: $n) { events { ...e deliveries { attempts { id } } } cursor hasMore } } fragment e on Event { id data attributes dataBase64 origin { tenant } }",
		"{ subscriptions(first: 2) { subscriptions { id status { lag } attempts(first: 1) { attempts { responseHeaders } } destination { headers } schedule } } }",
		`{ a: event(id: 1) { data } b: event(id: "1") @include(if: false) { x: data } ... on Query { __type(name: "Event") { name } } }`,
		`subscription($a: String) { events(after: $a, types: ["a"]) { cursor event { data } } }`,
		"{ __schema { types { name fields(includeDeprecated: true) { name args { defaultValue } } } directives { name locations } } }",
		`{ events(after: """
			0""", types: "a", keys: []) { cursor } }`,
		"{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
		"query($v: [String!]! = [\"a\"], $w: Nope) { events(types: $v) { cursor } }",
		"mutation { x }", "{ events(limit: 9223372036854775808) { cursor } }", "\ufeff{a}", "{ events { events { \"data\" } } }", strings.Repeat("{a", 200),
	} {
		f.Add(document, `{"n": 2, "a": "0", "v": "a"}`)
	}
	f.Add("query a { __typename } query b { __typename }", `{"a": [[{}]]}, "operationName": "b", "extensions": null`)
	f.Add("query($n:Int,$i:ID!){events(limit:$n){cursor} event(id:$i){id}}", `{"n": 1e0, "i": 7}`)
	f.Add("{ a }", `{"n": 1, "n": 2}`)
	d := newFixed(f)
	f.Cleanup(d.Close)
	f.Fuzz(func(t *testing.T, document, variables string) {
		body := []byte(`{"query":` + string(marshal(document)) + `,"variables":` + variables + `}`)
		q, err := readRequest(body)
		if err != nil {
			if code := eventhose.CodeOf(err); code != eventhose.CodeMalformed && code != eventhose.CodeInvalid {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		doc, wrong := d.prepare(q, false)
		var got [][]byte
		switch {
		case wrong != nil:
			got = [][]byte{refusal(wrong)}
		case doc.stream:
			o := d.operation("acme")
			o.check, o.sent = func(context.Context) error { return nil }, func(int) {}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			c := &collected{t: t, enough: 1}
			o.stream(ctx, doc, c)
			cancel()
			got = c.got
		default:
			b, wrong := d.query(t.Context(), "acme", doc)
			if wrong != nil {
				b = refusal(wrong)
			}
			got = [][]byte{b}
		}
		for _, b := range got {
			var a struct {
				Data   any
				Errors []fault
			}
			if err := json.Unmarshal(b, &a); err != nil || len(a.Errors) > maxFaults {
				t.Fatalf("%q: %v: %s", body, err, b)
			}
			for _, e := range a.Errors {
				if code := e.Extensions.Code; code == eventhose.CodeInternal || !slices.Contains(eventhose.Codes(), code) || e.Message == "" {
					t.Errorf("%q: %+v", body, e)
				}
			}
			if bytes.Contains(b, []byte("planted")) {
				t.Errorf("%q: %s", body, b)
			}
		}
	})
}
