package gateway

import (
	"strconv"
	"strings"
	"time"
)

// Unit is how a time is written.
type Unit string

// The units of times that are signed.
const (
	Seconds      Unit = "s"       // Unix seconds, digits only
	Milliseconds Unit = "ms"      // Unix milliseconds, digits only
	RFC3339      Unit = "rfc3339" // 2006-01-02T15:04:05Z
)

// read answers a signed time. It is stricter than strconv: no sign, at most 13 digits.
func (u Unit) read(s string) (time.Time, bool) {
	if u == RFC3339 {
		t, err := time.Parse(time.RFC3339, s)
		return t, err == nil && len(s) <= 40
	}
	if s == "" || len(s) > 13 || strings.Trim(s, "0123456789") != "" {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	if u == Milliseconds {
		return time.UnixMilli(n), true
	}
	return time.Unix(n, 0), true
}

func (u Unit) form() string {
	switch u {
	case Milliseconds:
		return "Unix milliseconds"
	case RFC3339:
		return "a time as in RFC 3339"
	}
	return "Unix seconds"
}

// checkClock judges a signed time. where names what holds it ("header X-Time"). A tolerance of 0 checks the form only.
func checkClock(where, s string, u Unit, now time.Time, tolerance time.Duration) *Rejection {
	at, ok := u.read(s)
	if !ok {
		return reject(ReasonHeaderMalformed, "%s is %s, and should be %s", where, quoted(s), u.form())
	}
	off := now.Sub(at).Round(time.Millisecond) // Sub stops at 292 years and does not overflow
	switch {
	case tolerance == 0:
		return nil
	case off > tolerance:
		return reject(ReasonClock, "clock %s s off: signed that long ago, and %s is allowed", seconds(off), tolerance)
	case off < -tolerance:
		return reject(ReasonClock, "clock %s s off: signed that far in the future, and %s is allowed", seconds(-off), tolerance)
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// anyTime reads a time as providers write them in bodies and headers: Unix seconds with or without a fraction, Unix
// milliseconds, RFC 3339 and its cousins.
func anyTime(s string) (time.Time, bool) {
	if len(s) > 64 {
		return time.Time{}, false
	}
	whole, fraction, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && n > 0 && strings.Trim(fraction, "0123456789") == "" {
		switch {
		case n < 1e11:
			part, _ := strconv.ParseFloat("0."+fraction+"0", 64)
			return time.Unix(n, int64(part*1e9)).UTC(), true
		case n < 1e14:
			return time.UnixMilli(n).UTC(), true
		}
		return time.Time{}, false
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700",
		"2006-01-02T15:04:05", "2006-01-02 15:04:05", time.RFC1123, time.RFC1123Z} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 1 && t.UTC().Year() >= 1 && t.UTC().Year() <= 9999 {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
