// Package diagnose says what a failed attempt means, as a colleague would who has seen it before: what happened, why it
// mostly happens, and what mends it.
package diagnose

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/eventhose/eventhose"
)

// cause is one row of the table. What is empty fits everything; the first row that fits counts.
type cause struct {
	reason eventhose.Reason
	kind   eventhose.AttemptKind
	// from and to bound the status, both included; 0, 0 is any.
	from, to int
	// says is a part of the attempt's message.
	says   string
	title  string
	detail string // {what}, {host} and {status} stand for what the attempt says
	fix    eventhose.Fix
}

// Attempt answers what an attempt's failure means; nil if it did not fail.
func Attempt(a *eventhose.Attempt) *eventhose.Diagnosis {
	if a.Outcome == eventhose.OutcomeTaken {
		return nil
	}
	for i := range causes {
		if c := &causes[i]; c.fits(a) {
			return c.tell(a)
		}
	}
	return other.tell(a)
}

func (c *cause) fits(a *eventhose.Attempt) bool {
	return (c.reason == "" || c.reason == a.Reason) && (c.kind == "" || c.kind == a.Kind) && (c.to == 0 || a.Status >= c.from && a.Status <= c.to) && strings.Contains(a.Message, c.says)
}

func (c *cause) tell(a *eventhose.Attempt) *eventhose.Diagnosis {
	what, _, _ := strings.Cut(a.Message, ". ")
	if what != "" {
		what = strings.ToUpper(what[:1]) + what[1:]
	}
	host := "the receiver"
	if u, err := url.Parse(a.URL); err == nil && u.Host != "" {
		host = u.Host
	}
	status := strconv.Itoa(a.Status)
	if name := http.StatusText(a.Status); name != "" {
		status += " " + name
	}
	fill := strings.NewReplacer("{what}", what, "{host}", host, "{status}", status)
	d := &eventhose.Diagnosis{Title: fill.Replace(c.title), Detail: fill.Replace(c.detail), Fix: c.fix}
	last := a.Next.IsZero() && a.Kind != eventhose.AttemptTest && a.Outcome == eventhose.OutcomeFailed && a.Reason != eventhose.ReasonStopping
	switch {
	case a.Kind == eventhose.AttemptTest:
		d.Detail += " This was a test: nothing is waiting, send another one when it is mended."
	case !a.Next.IsZero():
		d.Detail += " It is tried again by itself."
	case last:
		d.Detail += " There is no further try by itself: redrive it when this is mended."
	}
	if last && c.fix == eventhose.FixWait {
		d.Fix = eventhose.FixRedrive
	}
	return d
}

// other is what is said when nothing else fits.
var other = cause{title: "The delivery failed", detail: "{what}. Look into the log of {host} at the time of this attempt.", fix: eventhose.FixReceiver}
