package main

import (
	"context"
	"strconv"
	"strings"
	"time"
)

const (
	// maxPaced is how many events trigger appends with --rate, maxRate how many a second.
	maxPaced = 1_000_000
	maxRate  = 100_000
	// paceStep is how often something is sent at most; at higher rates more goes at once.
	paceStep = 10 * time.Millisecond
)

// parseRate reads how many a second: "10/s", "90/m", or "10".
func parseRate(text string) (perSecond float64, err error) {
	number, unit, _ := strings.Cut(text, "/")
	perSecond, err = strconv.ParseFloat(number, 64)
	switch {
	case unit == "m":
		perSecond /= 60
	case unit != "s" && unit != "" || strings.HasSuffix(text, "/"):
		perSecond = 0
	}
	if err != nil || !(perSecond > 0 && perSecond <= maxRate) { // which NaN is not
		return 0, &usageError{what: "--rate must be more than 0 and at most " + strconv.Itoa(maxRate) + " a second", fix: "--rate 10/s"}
	}
	return perSecond, nil
}

// paced has count things sent at a rate, the first at once: what is due in one call of send, at most most. Who sends slower than
// that gets more at a time, so that the rate is kept as long as it can be.
func paced(ctx context.Context, perSecond float64, count, most int, send func(n int) error) error {
	tick := time.NewTicker(max(paceStep, min(time.Duration(float64(time.Second)/perSecond), time.Hour)))
	defer tick.Stop()
	started := time.Now()
	for sent := 0; ; {
		due := min(count, 1+int(time.Since(started).Seconds()*perSecond))
		for sent < due {
			n := min(due-sent, most)
			if err := send(n); err != nil {
				return err
			}
			sent += n
		}
		if sent == count {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
