package eventhose_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
)

// A reader's cursor goes on where it stood, and is told when that is no longer possible.
func TestResolve(t *testing.T) {
	h := eventhose.Head{Incarnation: 30, First: 11, Last: 100, Forks: []eventhose.Fork{{Incarnation: 10, At: 50}, {Incarnation: 20, At: 80}}}
	for _, tc := range []struct {
		cursor eventhose.Cursor
		after  eventhose.Sequence
		first  eventhose.Sequence // of cursor_gone, 0 if it resolves
	}{
		{eventhose.Cursor{}, 10, 0},
		{h.Cursor(100), 100, 0},
		{h.Cursor(10), 10, 0},
		{h.Cursor(9), 0, 11},
		{h.Cursor(101), 0, 11},
		{eventhose.Cursor{Incarnation: 20, Sequence: 80}, 80, 0},
		{eventhose.Cursor{Incarnation: 20, Sequence: 81}, 0, 81},
		{eventhose.Cursor{Incarnation: 10, Sequence: 50}, 50, 0},
		{eventhose.Cursor{Incarnation: 10, Sequence: 51}, 0, 51},
		{eventhose.Cursor{Incarnation: 10, Sequence: 9}, 0, 11},
		{eventhose.Cursor{Incarnation: 7, Sequence: 50}, 0, 11},
	} {
		after, err := h.Resolve(tc.cursor)
		var e *eventhose.Error
		if tc.first == 0 && (err != nil || after != tc.after) {
			t.Errorf("%v: %d, %v, want %d", tc.cursor, after, err, tc.after)
		}
		if tc.first != 0 && (!errors.As(err, &e) || e.Code != eventhose.CodeCursorGone || e.First != tc.first) {
			t.Errorf("%v: %v, want cursor_gone with first %d", tc.cursor, err, tc.first)
		}
	}
	// A later fork at an earlier place takes away what an older incarnation had beyond it.
	h.Forks = []eventhose.Fork{{Incarnation: 10, At: 50}, {Incarnation: 20, At: 30}}
	if _, err := h.Resolve(eventhose.Cursor{Incarnation: 10, Sequence: 40}); eventhose.CodeOf(err) != eventhose.CodeCursorGone {
		t.Errorf("beyond the second fork: %v", err)
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"", "0", "1_0", "zz_18446744073709551615", "1z141z3_9", "0_1", "1_01", "_", "-1_2", "1_+2", "1Z_2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := eventhose.ParseCursor(s)
		if err != nil {
			if eventhose.CodeOf(err) != eventhose.CodeInvalid {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if s != "" && c.String() != s {
			t.Errorf("%q is read as %v", s, c)
		}
	})
}

func FuzzEventIDSequence(f *testing.F) {
	f.Add(eventhose.EventID(1, 2))
	f.Add("evt_00000000000000000000000000")
	f.Add("evt_zzzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, s string) {
		if _, ok := eventhose.EventIDSequence(s); ok && (len(s) != 30 || !strings.HasPrefix(s, "evt_")) {
			t.Errorf("%q is taken for an id of ours", s)
		}
	})
}

func TestEventID(t *testing.T) {
	for _, seq := range []eventhose.Sequence{1, 255, 1 << 40} {
		id := eventhose.EventID(seq, 42)
		if got, ok := eventhose.EventIDSequence(id); !ok || got != seq {
			t.Errorf("%s stands at %d, %v", id, got, ok)
		}
	}
	if a, b := eventhose.EventID(1, 9), eventhose.EventID(2, 0); a >= b {
		t.Errorf("%s does not sort before %s", a, b)
	}
}

// webhook-id is signed in front of a full stop, so it holds none, and is another for another event.
func TestWebhookID(t *testing.T) {
	seen := map[string]string{}
	for _, e := range []eventhose.Event{{ID: "evt_1"}, {ID: "order.1"}, {ID: "order 1"}, {ID: "a", Scope: "b"}, {ID: "b", Scope: "a"}, {ID: "é"},
		{ID: "acme/evt_1"}, {ID: (&eventhose.Event{ID: "order.1"}).WebhookID()}} {
		id := e.WebhookID()
		if strings.ContainsAny(id, ". \n/") || id != e.WebhookID() {
			t.Errorf("%+v has %q", e, id)
		}
		if other, twice := seen[id]; twice {
			t.Errorf("%s and %s share %s", e.ID, other, id)
		}
		seen[id] = e.ID
	}
	if id := (&eventhose.Event{ID: "evt_1"}).WebhookID(); id != "evt_1" {
		t.Errorf("a safe id becomes %s", id)
	}
}

func TestEventValidate(t *testing.T) {
	good := eventhose.Event{Type: "order.paid", ID: "1", Key: "k", Attributes: map[string]string{"a": "b"}, ContentType: "text/plain; charset=utf-8", Data: []byte("x")}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"/", ".", "..", "search", "stream", "ws"} {
		e := good
		e.ID = id
		var got *eventhose.Error
		if err := e.Validate(); !errors.As(err, &got) || got.Code != eventhose.CodeInvalid || got.Field != "id" {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []string{"", "...", "Stream", "ws1", "a/ws", "//", strings.Repeat("x", eventhose.MaxEventID)} {
		e := good
		e.ID = id
		if err := e.Validate(); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for field, change := range map[string]func(*eventhose.Event){
		"type":         func(e *eventhose.Event) { e.Type = "order..paid" },
		"id":           func(e *eventhose.Event) { e.ID = "a\nb" },
		"source":       func(e *eventhose.Event) { e.Scope = strings.Repeat("x", 300) },
		"key":          func(e *eventhose.Event) { e.Key = "\xff" },
		"version":      func(e *eventhose.Event) { e.Version = strings.Repeat("1", 65) },
		"attributes":   func(e *eventhose.Event) { e.Attributes = map[string]string{"a b": ""} },
		"attributes.a": func(e *eventhose.Event) { e.Attributes = map[string]string{"a": "\x00"} },
		"content_type": func(e *eventhose.Event) { e.ContentType = "text\r\nX: y" },
		"time":         func(e *eventhose.Event) { e.Time = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"data":         func(e *eventhose.Event) { e.Data = make([]byte, eventhose.MaxData+1) },
	} {
		e := good
		change(&e)
		var got *eventhose.Error
		if err := e.Validate(); !errors.As(err, &got) || got.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// What an inspecting source answers is on the origin of the server's pages, whose policy lets them run scripts and use style sheets of it.
func TestSourceAnswersNoScript(t *testing.T) {
	for contentType, good := range map[string]bool{
		"": true, "text/plain; charset=utf-8": true, "application/json": true, "text/html": true, `text/plain; a="text/javascript"`: true,
		"text/javascript": false, "Text/JavaScript;charset=utf-8": false, "application/javascript ; a=b": false, "application/x-javascript": false, "text/javascript1.5": false,
		"text/ecmascript": false, "application/x-ecmascript": false, "text/jscript": false, "text/livescript": false, "text/css": false, "TEXT/CSS; charset=utf-8": false,
	} {
		s := eventhose.Source{Provider: eventhose.ProviderInspect, Answer: &eventhose.InspectAnswer{ContentType: contentType, Body: "x"}}
		var got *eventhose.Error
		if err := s.Validate(); (err == nil) != good || err != nil && (!errors.As(err, &got) || got.Code != eventhose.CodeInvalid || got.Field != "answer.content_type") {
			t.Errorf("%q: %v", contentType, err)
		}
	}
}

func TestSubscriptionValidate(t *testing.T) {
	base := eventhose.Subscription{Destination: eventhose.Destination{Type: "webhook", URL: "https://example.com/"}}
	if err := base.WithDefaults().Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*eventhose.Subscription){
		"name":                    func(s *eventhose.Subscription) { s.Name = "\x01" },
		"filter.types[1]":         func(s *eventhose.Subscription) { s.Filter.Types = []string{"*", "a.*.b"} },
		"filter.keys[0]":          func(s *eventhose.Subscription) { s.Filter.Keys = []string{""} },
		"filter.expression":       func(s *eventhose.Subscription) { s.Filter.Expression = strings.Repeat("x", 5000) },
		"ordering":                func(s *eventhose.Subscription) { s.Ordering = "some" },
		"on_exhausted":            func(s *eventhose.Subscription) { s.OnExhausted = eventhose.OnExhaustedBlock },
		"max_in_flight":           func(s *eventhose.Subscription) { s.MaxInFlight = 65 },
		"retry.schedule":          func(s *eventhose.Subscription) { s.Retry.Schedule = make([]eventhose.Duration, 51) },
		"retry.schedule[0]":       func(s *eventhose.Subscription) { s.Retry.Schedule = []eventhose.Duration{-1} },
		"retry.timeout":           func(s *eventhose.Subscription) { s.Retry.Timeout = 1 },
		"retry.disable_after":     func(s *eventhose.Subscription) { s.Retry.DisableAfter = 1 },
		"destination.type":        func(s *eventhose.Subscription) { s.Destination.Type = "pigeon" },
		"destination.url":         func(s *eventhose.Subscription) { s.Destination.URL = "/relative" },
		"batch.max_events":        func(s *eventhose.Subscription) { s.Batch.MaxWait = 1 },
		"batch.max_bytes":         func(s *eventhose.Subscription) { s.Batch = eventhose.BatchPolicy{MaxEvents: 2, MaxBytes: 1023} },
		"batch.max_wait":          func(s *eventhose.Subscription) { s.Batch = eventhose.BatchPolicy{MaxEvents: 2, MaxWait: 61e9} },
		"destination.format":      func(s *eventhose.Subscription) { s.Destination.Format = "xml" },
		"destination.compression": func(s *eventhose.Subscription) { s.Destination.Compression = "zip" },
		"destination.signature":   func(s *eventhose.Subscription) { s.Destination.Signature = "v2" },
	} {
		s := base
		change(&s)
		var got *eventhose.Error
		if err := s.WithDefaults().Validate(); !errors.As(err, &got) || got.Field != field || got.Code != eventhose.CodeInvalid {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// What a receiver took of a batch in part is told event by event.
func TestTook(t *testing.T) {
	for _, tc := range []struct {
		attempt eventhose.Attempt
		want    bool
	}{
		{eventhose.Attempt{Outcome: eventhose.OutcomeTaken}, true},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonStatus}, false},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonPartly, Failed: []eventhose.Sequence{7}}, false},
		{eventhose.Attempt{Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonPartly, Failed: []eventhose.Sequence{6, 8}}, true},
		{eventhose.Attempt{Outcome: eventhose.OutcomeGone}, false},
	} {
		if got := tc.attempt.Took(7); got != tc.want {
			t.Errorf("%+v took 7: %v", tc.attempt, got)
		}
	}
}

// A secret shows itself in no way of printing.
func TestSecretIsRedacted(t *testing.T) {
	const planted = "planted-0badc0de"
	d := eventhose.Destination{URL: "https://example.com", Headers: map[string]eventhose.Secret{"Authorization": planted}}
	body, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", eventhose.Secret(planted), "destination", d)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", eventhose.Secret(planted), "destination", d)
	for _, shown := range []string{string(body), log.String(), fmt.Sprintf("%v %+v %#v %s %q %x", d, d, d, d.Headers, d.Headers, d.Headers)} {
		if strings.Contains(shown, planted) || strings.Contains(shown, fmt.Sprintf("%x", planted)) || !strings.Contains(shown, "***") {
			t.Errorf("shown as %s", shown)
		}
	}
}

// Every error has a code, and wrapping keeps the cause without telling it twice.
func TestCodeOf(t *testing.T) {
	cause := errors.New("cause")
	wrapped := eventhose.Errorf(eventhose.CodeConflict, "doing: %w", cause)
	for _, tc := range []struct {
		err  error
		want eventhose.Code
	}{
		{nil, ""}, {cause, eventhose.CodeInternal}, {context.Canceled, eventhose.CodeUnavailable}, {fmt.Errorf("x: %w", context.DeadlineExceeded), eventhose.CodeTimeout},
		{wrapped, eventhose.CodeConflict}, {fmt.Errorf("x: %w", eventhose.NotFound("event")), eventhose.CodeNotFound},
	} {
		if got := eventhose.CodeOf(tc.err); got != tc.want {
			t.Errorf("%v is %s, want %s", tc.err, got, tc.want)
		}
	}
	if !errors.Is(wrapped, cause) || wrapped.Error() != "doing: cause" {
		t.Errorf("wrapped: %q", wrapped)
	}
	if e := (&eventhose.Error{Code: eventhose.CodeInternal, Field: "f", Message: "m", Err: cause}); e.Error() != "f: m: cause" {
		t.Errorf("%q", e)
	}
}

// What may be a type or an attribute's name is judged byte by byte; the expressions say the same and are what was promised.
func FuzzWords(f *testing.F) {
	typ := regexp.MustCompile(`^[A-Za-z0-9_/:-]+(\.[A-Za-z0-9_/:-]+)*$`)
	name := regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	for _, s := range []string{"", ".", "a", "a.b", "a..b", ".a", "a.", "a/b:c-d_E0", "a b", "a\n", "é", "a\xff", "\x7f", "a\u0085", strings.Repeat("a", 64), strings.Repeat("a.", 40), strings.Repeat("a", 257), "eventhose.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := eventhose.ValidType(s), len(s) <= eventhose.MaxType && typ.MatchString(s); got != want {
			t.Errorf("type %q: %v, want %v", s, got, want)
		}
		e := eventhose.Event{Type: "t", Attributes: map[string]string{s: ""}}
		if got, want := e.Validate() == nil, name.MatchString(s); got != want {
			t.Errorf("attribute %q: %v, want %v", s, got, want)
		}
		e = eventhose.Event{Type: "t", Key: s}
		if got, want := e.Validate() == nil, len(s) <= eventhose.MaxKey && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0; got != want {
			t.Errorf("text %q: %v, want %v", s, got, want)
		}
	})
}
