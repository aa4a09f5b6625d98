package sink

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
)

func TestJudge(t *testing.T) {
	for status := range 1000 {
		outcome, reason, slow := Judge(status)
		want, wantReason, wantSlow := eventhose.OutcomeFailed, eventhose.ReasonStatus, false
		switch {
		case status/100 == 2:
			want, wantReason = eventhose.OutcomeTaken, eventhose.ReasonNone
		case status/100 == 3:
			wantReason = eventhose.ReasonRedirect
		case status == 410:
			want = eventhose.OutcomeGone
		case status == 429 || status == 502 || status == 503 || status == 504:
			wantSlow = true
		}
		if outcome != want || reason != wantReason || slow != wantSlow {
			t.Errorf("%d: %s %s %t", status, outcome, reason, slow)
		}
	}
}

var retryAfters = map[string]time.Duration{
	"": 0, " ": 0, "soon": 0, "-1": 0, "+5": 0, "1.5": 0, "0x10": 0, "1e3": 0, "5 s": 0, "１０": 0, "120, 60": 0, strings.Repeat("9", 65): 0,
	"0": time.Second, "1": time.Second, "00000000000000000060": time.Minute, " 120 ": 2 * time.Minute, "86400": 24 * time.Hour, "86401": 24 * time.Hour,
	"99999999999999999999999":        24 * time.Hour,
	"Sun, 22 Nov 2026 06:30:00 GMT":  30 * time.Minute,
	"Sunday, 22-Nov-26 06:30:00 GMT": 30 * time.Minute,
	"Sun Nov 22 06:30:00 2026":       30 * time.Minute,
	"Sun, 22 Nov 2026 05:00:00 GMT":  time.Second,
	"Fri, 31 Dec 9999 23:59:59 GMT":  24 * time.Hour,
	"Sun, 22 Nov 2026 25:00:00 GMT":  0,
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	for value, want := range retryAfters {
		if got := ParseRetryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for value := range retryAfters {
		f.Add(value, int64(1764000000))
	}
	f.Fuzz(func(t *testing.T, value string, now int64) {
		d := ParseRetryAfter(value, time.Unix(now, 0))
		if d != 0 && (d < MinRetryAfter || d > MaxRetryAfter) {
			t.Fatalf("%q: %s", value, d)
		}
		if d == 0 && len(value) <= 64 {
			if _, err := http.ParseTime(strings.TrimSpace(value)); err == nil {
				t.Fatalf("%q is a date", value)
			}
		}
	})
}

func TestRedactURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://user:pass@example.com:8443/a%2Fb/c?token=1#frag": "https://example.com:8443/a%2Fb/c",
		"https://example.com": "https://example.com", "http://[::1]:80/?": "http://[::1]:80/",
		"": "", "/path?secret": "", "https://": "", "https://exa mple/?secret": "", "mailto:a@b": "", "https://x/%zz?secret": "",
	} {
		if got := RedactURL(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func TestRedactor(t *testing.T) {
	r := NewRedactor("Bearer tok-123456789", "", "abc", `quo"ted/secret`, "Basic QUxBRERJTg==")
	for text, want := range map[string]string{
		"got Bearer tok-123456789.":              "got ***.",
		"got tok-123456789!":                     "got ***!",
		`{"h":"quo\"ted/secret"}`:                `{"h":"***"}`,
		`quo"ted/secret`:                         "***",
		"Bearer and Basic and abc are no secret": "Bearer and Basic and abc are no secret",
		"Authorization: QUxBRERJTg==":            "Authorization: ***",
	} {
		if got := r.Redact(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := (Redactor{}).Redact("same"); got != "same" {
		t.Errorf("the zero Redactor: %q", got)
	}
	if n := testing.AllocsPerRun(10, func() { r.Redact("Tue, 24 Nov 2026 13:00:00 GMT, as most that receivers answer") }); n != 0 {
		t.Errorf("%v allocations where there is nothing to redact", n)
	}
	if got := NewRedactor("secret", "secret-and-more").Redact("secret-and-more"); got != "***" {
		t.Errorf("the shorter of two: %q", got)
	}
}

func TestExplain(t *testing.T) {
	for _, reason := range []eventhose.Reason{eventhose.ReasonStatus, eventhose.ReasonRedirect, eventhose.ReasonTimeout, eventhose.ReasonDNS,
		eventhose.ReasonBlocked, eventhose.ReasonRefused, eventhose.ReasonReset, eventhose.ReasonTLS, eventhose.ReasonProtocol, eventhose.ReasonConfig,
		eventhose.ReasonPartly, eventhose.ReasonStopping} {
		what, fix, ok := strings.Cut(Explain(reason, ""), ". ")
		if !ok || what == "" || fix == "" {
			t.Errorf("%s: %q, %q", reason, what, fix)
		}
		if got := Explain(reason, "line\none \xff"+strings.Repeat("x", 1000)); !strings.HasPrefix(got, "line one \uFFFDxxx") || !strings.HasSuffix(got, ". "+fix) || len(got) > 600 {
			t.Errorf("%s: %q", reason, got)
		}
	}
	if got := Explain(eventhose.ReasonNone, "x"); got != "" {
		t.Errorf("nothing went wrong: %q", got)
	}
	// Tests, and what `listen` forwards, are answered 410 and 415 too, in any format.
	if got := ExplainStatus(410); strings.Contains(got, "the subscription is disabled") {
		t.Errorf("410: %q", got)
	}
	if got := ExplainStatus(415); strings.Contains(got, "take application/json") {
		t.Errorf("415: %q", got)
	}
	for status, says := range map[int]string{401: "401 Unauthorized. Check that the receiver verifies", 404: "path", 410: "disabled", 500: "look into its log", 599: "answered 599.", 418: "teapot. Look", 999: "receiver"} {
		if got := ExplainStatus(status); !strings.Contains(got, says) {
			t.Errorf("%d: %q does not say %q", status, got, says)
		}
	}
}

func FuzzCutUTF8(f *testing.F) {
	f.Add("héllo", 2)
	f.Add("\xff\xfe", 4)
	f.Add("日本語", 7)
	f.Fuzz(func(t *testing.T, text string, max int) {
		if max < 0 || max > 1<<20 {
			return
		}
		got := CutUTF8(text, max)
		if len(got) > max || !utf8.ValidString(got) {
			t.Fatalf("%q", got)
		}
		if utf8.ValidString(text) && (!strings.HasPrefix(text, got) || len(text) <= max && got != text || len(text) > max && len(got) < max-3) {
			t.Fatalf("%q of %q", got, text)
		}
		for _, r := range Printable(text, max) {
			if r < ' ' || r == 0x7f {
				t.Fatalf("%q", r)
			}
		}
	})
}
