package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// watch prints a line for each event of a log and each attempt, an event before its attempts. Only run's goroutine
// prints.
type watch struct {
	p        *program
	colour   bool
	attempts chan eventhose.Attempt
	unseen   atomic.Int64 // attempts that came faster than they were printed

	last                               eventhose.Sequence // of the printed events
	early                              []eventhose.Attempt
	events, tried, delivered, notTaken int
}

// maxEarly bounds the attempts that wait for the line of their event.
const maxEarly = 1000

func newWatch(p *program) *watch {
	return &watch{p: p, attempts: make(chan eventhose.Attempt, 4096), colour: p.coloured()}
}

// coloured reports whether stdout is a terminal whose user wants colour (https://no-color.org).
func (p *program) coloured() bool {
	noColour, _ := p.env("NO_COLOR")
	f, file := p.out.(*os.File)
	return noColour == "" && file && term.IsTerminal(int(f.Fd()))
}

// observe takes an attempt from the delivery engine. It does not block.
func (w *watch) observe(a eventhose.Attempt) {
	select {
	case w.attempts <- a:
	default:
		w.unseen.Add(1)
	}
}

// run prints until ctx ends, then the totals. The first event must come round to the receiver within firstDelivery.
func (w *watch) run(ctx context.Context, log *client.Tenant, from eventhose.Cursor, r *receiver, first string, failed <-chan struct{}) error {
	reading, stop := context.WithCancel(ctx)
	pages := make(chan eventhose.Page)
	broken := make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() { broken <- follow(reading, log, from, pages) })
	defer func() { stop(); reader.Wait() }()
	verified := make(chan error, 1)
	reader.Go(func() {
		waiting, cancel := context.WithTimeout(reading, firstDelivery)
		defer cancel()
		verified <- r.wait(waiting, first)
	})
	w.last = from.Sequence
	arrived := false
	for {
		if arrived && w.events > 0 && w.delivered > 0 { // what is said to be there has its lines above
			arrived = false
			w.p.tell("ready: the first event was delivered, signed and verified  (^C to stop)", map[string]any{"ready": map[string]string{"event": first}})
		}
		select {
		case page := <-pages:
			for _, e := range page.Events {
				w.event(e)
			}
			w.last = page.Cursor.Sequence
			w.flush(r)
		case a := <-w.attempts:
			w.early = append(w.early, a)
			w.flush(r)
		case err := <-verified:
			verified = nil
			switch {
			case ctx.Err() != nil:
			case err != nil:
				return &failure{exit: exitFailure, code: "not_delivered", what: "the first event was not delivered within " + firstDelivery.String(),
					fix: "eventhose doctor", err: err}
			default:
				arrived = true
			}
		case err := <-broken:
			if ctx.Err() == nil {
				return fmt.Errorf("follow the log: %w", err)
			}
		case <-failed:
			return nil // whoever stops the server has its error
		case <-ctx.Done():
			w.totals()
			return nil
		}
	}
}

// follow reads a log to its end and on, until ctx ends.
func follow(ctx context.Context, log *client.Tenant, after eventhose.Cursor, pages chan<- eventhose.Page) error {
	for {
		page, err := log.Read(ctx, client.ReadOptions{After: after, Wait: 20 * time.Second})
		if err != nil {
			return err
		}
		after = page.Cursor
		if len(page.Events) == 0 {
			continue
		}
		select {
		case pages <- page:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watch) event(e eventhose.Event) {
	w.events++
	if w.p.output != "text" {
		if b, err := client.MarshalEvent(e); err == nil {
			w.line(map[string]json.RawMessage{"event": b})
		}
		return
	}
	fmt.Fprintf(w.p.out, "%s --> %s  %s\n", clock(e.Appended), e.Type, oneLine(e.ID))
}

// flush prints the attempts whose events are printed; those of other tenants and of tests have nothing to wait for.
func (w *watch) flush(r *receiver) {
	kept := w.early[:0]
	for i, a := range w.early {
		waits := a.Tenant == "default" && len(a.Sequences) > 0 && a.Sequences[len(a.Sequences)-1] > w.last
		if waits && len(w.early)-i <= maxEarly {
			kept = append(kept, a)
			continue
		}
		w.attempt(a, r)
	}
	w.early = kept
}

func (w *watch) attempt(a eventhose.Attempt, r *receiver) {
	w.tried++
	verified := false
	if a.Outcome == eventhose.OutcomeTaken {
		w.delivered++
		id := a.Events[0]
		if a.Batch != "" {
			id = a.Batch
		}
		verified = a.URL == r.destination && r.saw(id)
	} else {
		w.notTaken++
	}
	if w.p.output != "text" {
		w.line(map[string]any{"attempt": struct {
			eventhose.Attempt
			Verified bool `json:"verified,omitempty"`
		}{a, verified}})
		return
	}
	result := strconv.Itoa(a.Status)
	if a.Status == 0 {
		result = string(a.Reason)
	}
	line := fmt.Sprintf("%s <-- %s %s  POST %s  %s", clock(a.Started.Add(time.Duration(a.Duration))), w.painted(result, a.Outcome), took(time.Duration(a.Duration)),
		oneLine(a.URL), eventsText(a))
	if verified {
		line += "  signature verified"
	}
	if a.Kind != eventhose.AttemptFirst {
		line += "  " + string(a.Kind)
	}
	if a.Message != "" && a.Outcome != eventhose.OutcomeTaken {
		line += "  " + oneLine(a.Message)
	}
	if !a.Next.IsZero() {
		line += "  next try " + clock(a.Next)
	}
	fmt.Fprintln(w.p.out, line)
}

// line writes one JSON object. That stdout is gone shows with the next write, which ends the process by SIGPIPE.
func (w *watch) line(v any) { _ = writeJSON(w.p.out, v, "") }

func (w *watch) painted(s string, o eventhose.Outcome) string {
	return paint(w.colour, o == eventhose.OutcomeTaken, s)
}

// paint has text green if it is good news, and else red.
func paint(colour, good bool, s string) string {
	switch {
	case !colour:
		return s
	case good:
		return "\x1b[32m" + s + "\x1b[0m"
	}
	return "\x1b[31m" + s + "\x1b[0m"
}

func (w *watch) totals() {
	unseen := int(w.unseen.Load())
	if w.p.output != "text" {
		w.line(map[string]map[string]int{"totals": {"events": w.events, "attempts": w.tried, "delivered": w.delivered, "failed": w.notTaken, "not_shown": unseen}})
		return
	}
	fmt.Fprintf(w.p.out, "\n%s, %s: %d delivered, %d failed\n", plural(w.events, "event"), plural(w.tried, "attempt"), w.delivered, w.notTaken)
	if unseen > 0 {
		fmt.Fprintf(w.p.out, "%d attempts more came too fast to be shown\n", unseen)
	}
}

func clock(t time.Time) string { return t.Local().Format("15:04:05") }
