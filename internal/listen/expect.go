package listen

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

// Expectation is how many events of a type there should be.
type Expectation struct {
	// Text is as it was written, Types a pattern as in eventhose.Filter.
	Text, Types string
	op          string
	n           int
}

// operators, those first that others begin with.
var operators = []string{">=", "<=", "==", "=", ">", "<"}

// ParseExpectation reads "TYPES", which means at least one, or "TYPES OP N" with or without spaces, where TYPES is an event
// type, a prefix with ".*", or "*", and OP one of >=, <=, ==, =, >, <. CodeInvalid with the field "expect".
func ParseExpectation(s string) (Expectation, error) {
	e := Expectation{Types: strings.TrimSpace(s), op: ">=", n: 1}
	e.Text = e.Types
	if at := strings.IndexAny(s, "<>="); at >= 0 {
		rest := s[at:]
		e.Types = strings.TrimSpace(s[:at])
		for _, e.op = range operators {
			if strings.HasPrefix(rest, e.op) {
				break
			}
		}
		var err error
		text := strings.TrimSpace(rest[len(e.op):])
		if e.n, err = strconv.Atoi(text); err != nil || strings.Trim(text, "0123456789") != "" {
			return e, wrongExpectation(s, "must have a number after "+e.op)
		}
		if e.op == "=" {
			e.op = "=="
		}
		e.Text = e.Types + e.op + text
	}
	if !eventhose.ValidTypePattern(e.Types) {
		return e, wrongExpectation(s, `must begin with an event type, a prefix such as "order.*", or "*"`)
	}
	if e.op == "<" && e.n == 0 {
		return e, wrongExpectation(s, "can never hold")
	}
	return e, nil
}

func wrongExpectation(s, why string) error {
	return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "expect", Message: fmt.Sprintf("%q %s", s, why), Fix: "--expect 'order.paid>=2'"}
}

// Matches reports whether an event of a type is counted. System events are counted only where they are named.
func (e *Expectation) Matches(typ string) bool {
	if strings.HasPrefix(typ, eventhose.SystemPrefix) && !strings.HasPrefix(e.Types, eventhose.SystemPrefix) {
		return false
	}
	if prefix, ok := strings.CutSuffix(e.Types, "*"); ok {
		return strings.HasPrefix(typ, prefix)
	}
	return typ == e.Types
}

// Holds reports whether n events are as expected.
func (e *Expectation) Holds(n int) bool {
	switch e.op {
	case ">=":
		return n >= e.n
	case "<=":
		return n <= e.n
	case ">":
		return n > e.n
	case "<":
		return n < e.n
	}
	return n == e.n
}

// Passed reports whether n events are too many, so that none to come can mend it.
func (e *Expectation) Passed(n int) bool {
	return !e.Holds(n) && (e.op == "<=" || e.op == "<" || e.op == "==" && n > e.n)
}

// Checked is what became of an expectation.
type Checked struct {
	Expect string `json:"expect"`
	Events int    `json:"events"`
	Held   bool   `json:"held"`
}

// Report is what came of a run.
type Report struct {
	// Passed: the command ended with 0, all that it left in the log was forwarded, and all that was expected held.
	Passed bool `json:"passed"`
	// Exit is the command's exit code, -1 if a signal ended it, and TimedOut that it was not done in time.
	Exit     int  `json:"exit"`
	TimedOut bool `json:"timed_out"`
	// Behind: time was up before everything that the command left in the log was forwarded, so that what was expected says little.
	Behind   bool               `json:"behind"`
	Duration eventhose.Duration `json:"duration"`
	Checked  []Checked          `json:"expectations"`
	// Events are all that were counted, Attempts the tries at them, the first MaxReported.
	Events   int       `json:"events"`
	Attempts []Attempt `json:"attempts"`
}

// BehindText says what Report.Behind does.
const BehindText = "time was up before everything in the log was forwarded"

// MaxReported bounds the attempts that a report tells one by one.
const MaxReported = 1000

// Met reports whether all that was expected held.
func (r *Report) Met() bool {
	for _, c := range r.Checked {
		if !c.Held {
			return false
		}
	}
	return true
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

// WriteJUnit writes the report as JUnit's XML: the command is a test, and each expectation.
func (r *Report) WriteJUnit(w io.Writer) error {
	seconds := strconv.FormatFloat(time.Duration(r.Duration).Seconds(), 'f', 3, 64)
	command := junitCase{Class: "eventhose.listen", Name: "command", Time: seconds}
	switch {
	case r.TimedOut:
		command.Failure = &junitFailure{Message: "the command did not end in time"}
	case r.Exit != 0:
		command.Failure = &junitFailure{Message: "the command ended with " + strconv.Itoa(r.Exit)}
	}
	s := junitSuite{Name: "eventhose listen", Time: seconds, Cases: []junitCase{command}}
	if r.Behind {
		s.Cases = append(s.Cases, junitCase{Class: "eventhose.listen", Name: "forwarding", Time: "0.000", Failure: &junitFailure{Message: BehindText, Text: r.missed()}})
	}
	for _, c := range r.Checked {
		test := junitCase{Class: "eventhose.expect", Name: c.Expect, Time: "0.000"}
		if !c.Held {
			test.Failure = &junitFailure{Message: fmt.Sprintf("%s: there were %d", c.Expect, c.Events), Text: r.missed()}
		}
		s.Cases = append(s.Cases, test)
	}
	for _, c := range s.Cases {
		s.Tests++
		if c.Failure != nil {
			s.Failures++
		}
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(struct {
		XMLName xml.Name   `xml:"testsuites"`
		Suite   junitSuite `xml:"testsuite"`
	}{Suite: s}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// missed tells of the attempts that failed.
func (r *Report) missed() string {
	var b strings.Builder
	for i := range r.Attempts {
		if a := &r.Attempts[i]; !a.Taken() {
			fmt.Fprintf(&b, "%s %s #%d: %s: %s\n", a.Type, a.Event, a.Sequence, a.Answer(), a.Message)
		}
	}
	return b.String()
}
