package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/listen"
)

// check is listen --ci.
func (p *program) check(ctx context.Context, l *listenFlags, args []string) error {
	if len(args) == 0 {
		return &usageError{what: "--ci needs a command after --", fix: "eventhose listen --ci --expect 'order.paid>=2' -- ./run-tests.sh"}
	}
	if l.timeout <= 0 {
		return &usageError{what: "--timeout must be more than 0"}
	}
	cl, err := p.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	forward := listen.NewForwarder()
	defer forward.Close()
	tenant := eventhose.TenantID(p.conn.tenant)
	c := &listen.Check{Tenant: cl.Tenant(tenant), TenantID: tenant, Forward: forward, Tell: &listenTeller{p: p, onStderr: true},
		Filter: eventhose.Filter{Types: l.types, Expression: l.filter}, ForwardTo: l.forwardTo, Secret: eventhose.Secret(l.secret), Timeout: l.timeout}
	for _, text := range l.expect {
		e, err := listen.ParseExpectation(text)
		if err != nil {
			return err
		}
		c.Expect = append(c.Expect, e)
	}
	if err := c.Validate(); err != nil {
		return err
	}
	c.Command = exec.Command(args[0], args[1:]...) //nolint:noctx // Run ends it, by a signal first
	c.Command.Stdin, c.Command.Stdout, c.Command.Stderr, c.Command.Env = p.in, p.err, p.err, os.Environ()
	report, err := c.Run(ctx)
	if report != nil {
		err = errors.Join(err, p.printReport(report, l.junit))
	}
	switch {
	case err != nil:
		return err
	case report.TimedOut:
		return &failure{exit: exitTimeout, code: string(eventhose.CodeTimeout), what: "the command was not done within " + l.timeout.String(), fix: "give it longer with --timeout 5m"}
	case report.Exit != 0:
		return &failure{exit: exitFailure, code: "command_failed", what: fmt.Sprintf("the command ended with %d", report.Exit)}
	case report.Behind:
		return &failure{exit: exitExpectation, code: "not_forwarded", what: listen.BehindText, fix: "see why the target does not take it, or give it longer with --timeout 5m"}
	case !report.Met():
		return &failure{exit: exitExpectation, code: "not_met", what: "not as expected: " + unmet(report)}
	}
	return nil
}

func unmet(r *listen.Report) string {
	var list []string
	for _, c := range r.Checked {
		if !c.Held {
			list = append(list, fmt.Sprintf("%s, and there were %d", c.Expect, c.Events))
		}
	}
	return strings.Join(list, "; ")
}

// printReport prints a report on stdout, and as JUnit's XML to a file or in its place.
func (p *program) printReport(r *listen.Report, junit string) error {
	if junit == "-" {
		return r.WriteJUnit(p.out)
	}
	if junit != "" {
		f, err := os.Create(junit)
		if err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		if err := errors.Join(r.WriteJUnit(f), f.Close()); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return p.print(r, func(w io.Writer) {
		result := "ended with " + fmt.Sprint(r.Exit)
		if r.TimedOut {
			result = "was not done in time"
		}
		fmt.Fprintf(w, "%s\tcommand\t%s\n", okOrNot(r.Exit == 0 && !r.TimedOut), result)
		if r.Behind {
			fmt.Fprintf(w, "%s\tforwarding\twas not done in time\n", okOrNot(false))
		}
		for _, c := range r.Checked {
			fmt.Fprintf(w, "%s\t%s\t%s\n", okOrNot(c.Held), c.Expect, plural(c.Events, "event"))
		}
	})
}

func okOrNot(ok bool) string {
	if ok {
		return "ok"
	}
	return "FAILED"
}
