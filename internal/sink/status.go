package sink

import (
	"net/http"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

// Judge says what an HTTP status means for an attempt, after Standard Webhooks 1.0.0: 2xx is taken, a redirect is a
// failure and never followed, 410 asks for nothing more, 429, 502, 503 and 504 ask for less at once, everything else failed.
func Judge(status int) (outcome eventhose.Outcome, reason eventhose.Reason, slow bool) {
	switch {
	case status >= 200 && status <= 299:
		return eventhose.OutcomeTaken, eventhose.ReasonNone, false
	case status >= 300 && status <= 399:
		return eventhose.OutcomeFailed, eventhose.ReasonRedirect, false
	case status == http.StatusGone:
		return eventhose.OutcomeGone, eventhose.ReasonStatus, false
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		slow = true
	}
	return eventhose.OutcomeFailed, eventhose.ReasonStatus, slow
}

// The bounds of what a receiver may ask for with Retry-After.
const (
	MinRetryAfter = time.Second
	MaxRetryAfter = 24 * time.Hour
)

// ParseRetryAfter reads a Retry-After header (RFC 9110, section 10.2.3): a number of seconds, or a date in one of HTTP's
// three forms, seen from now. It answers a time within [MinRetryAfter, MaxRetryAfter], and 0 for everything else.
func ParseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" || len(value) > 64 {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		value = strings.TrimLeft(value, "0")
		if len(value) > 5 { // a day has 86400 seconds
			return MaxRetryAfter
		}
		seconds := 0
		for _, digit := range value {
			seconds = seconds*10 + int(digit-'0')
		}
		return clamp(time.Duration(seconds) * time.Second)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return clamp(at.Sub(now))
}

func clamp(d time.Duration) time.Duration {
	return min(max(d, MinRetryAfter), MaxRetryAfter)
}
