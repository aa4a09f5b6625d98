package store

import "time"

// What RFC 3339, and so JSON, can write down in UTC.
var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
)

// EventTime answers the time of a stored event, or the nearest one that can be written down: an event that cannot be would end
// everybody who reads the log. Validate refuses such times, older versions took some.
func EventTime(t time.Time) time.Time {
	switch {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	return t
}
