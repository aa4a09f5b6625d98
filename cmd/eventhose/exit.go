package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// The exit codes are part of the surface: scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitAuth        = 3
	exitNotFound    = 4
	exitConflict    = 5
	exitNetwork     = 6
	exitExpectation = 7
	exitTimeout     = 124
	exitInterrupted = 130
)

// usageError is a command line that cannot be carried out.
type usageError struct{ what, fix string }

func (e *usageError) Error() string { return e.what }

// failure is an end with a given exit code and what to do about it.
type failure struct {
	exit      int
	code      string
	what, fix string
	err       error
}

func (e *failure) Error() string { return e.what }
func (e *failure) Unwrap() error { return e.err }

// What ends a context by a signal, SIGINT and SIGTERM.
var (
	errInterrupted = &failure{exit: exitInterrupted, code: "interrupted", what: "interrupted"}
	errTerminated  = &failure{exit: exitInterrupted, code: "interrupted", what: "terminated"}
)

// errEnded is the end of a command that goes on until a signal comes. Its exit code says that one came; what else there is to
// say the command has said, as its last words.
var errEnded = &failure{exit: exitInterrupted, code: "interrupted", what: "interrupted"}

// ended answers errEnded if a signal has ended ctx.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return errEnded
	}
	return nil
}

// report prints err on stderr, in the form that --output asks for, and answers its exit code.
func (p *program) report(err error) int {
	d := describe(err)
	if p.output == "json" || p.output == "jsonl" {
		// Nobody is left to tell if stderr is gone.
		_ = writeJSON(p.err, struct {
			Error diagnosis `json:"error"`
		}{d}, "")
		return d.exit
	}
	fmt.Fprintln(p.err, "error:", d.Message)
	if d.Fix != "" {
		fmt.Fprintln(p.err, "fix:", d.Fix)
	}
	return d.exit
}

// diagnosis is an error as the user sees it.
type diagnosis struct {
	exit      int
	Code      string `json:"code"`
	Message   string `json:"message"`
	Field     string `json:"field,omitempty"`
	Fix       string `json:"fix,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	First     uint64 `json:"first,omitempty"`
}

func describe(err error) diagnosis {
	var (
		usage   *usageError
		failed  *failure
		refused *client.Error
		ours    *eventhose.Error
		network *url.Error
	)
	switch {
	case errors.As(err, &usage):
		return diagnosis{exit: exitUsage, Code: "usage", Message: usage.what, Fix: usage.fix}
	case errors.As(err, &failed):
		return diagnosis{exit: failed.exit, Code: failed.code, Message: failed.what, Fix: failed.fix}
	case errors.As(err, &ours): // a time that was over may be behind it, and not that of --timeout
		d := diagnosis{exit: exitOf(ours.Code), Code: string(ours.Code), Message: ours.Error(), Field: ours.Field, Fix: ours.Fix, First: uint64(ours.First)}
		if errors.As(err, &refused) {
			d.RequestID = refused.RequestID
		}
		if d.Fix == "" || ours.Code == eventhose.CodeUnauthenticated { // the server's tells of a header
			d.Fix = fixOf(ours.Code)
		}
		return d
	case errors.Is(err, context.DeadlineExceeded):
		return diagnosis{exit: exitTimeout, Code: string(eventhose.CodeTimeout), Message: "no answer within --timeout", Fix: "give it longer with --timeout 5m"}
	case errors.As(err, &network):
		return diagnosis{exit: exitNetwork, Code: "network", Message: fmt.Sprintf("no answer from the server: %v", network.Err),
			Fix: "start one with eventhose dev or eventhose serve, or name it with --url"}
	}
	return diagnosis{exit: exitFailure, Code: "failure", Message: err.Error()}
}

func exitOf(code eventhose.Code) int {
	switch code {
	case eventhose.CodeMalformed, eventhose.CodeInvalid, eventhose.CodeTooLarge, eventhose.CodeUnsupported, eventhose.CodeMethod:
		return exitUsage
	case eventhose.CodeUnauthenticated, eventhose.CodeForbidden:
		return exitAuth
	case eventhose.CodeNotFound, eventhose.CodeErased, eventhose.CodeCursorGone:
		return exitNotFound
	case eventhose.CodeConflict, eventhose.CodeVersion, eventhose.CodeLimit, eventhose.CodeStorageFull:
		return exitConflict
	case eventhose.CodeUnavailable:
		return exitNetwork
	case eventhose.CodeTimeout:
		return exitTimeout
	}
	return exitFailure
}

func fixOf(code eventhose.Code) string {
	switch code {
	case eventhose.CodeUnauthenticated:
		return "set EVENTHOSE_API_KEY, or give --key"
	case eventhose.CodeForbidden:
		return "use a key with the scope for this: eventhose keys create --help"
	case eventhose.CodeNotFound:
		return "check the id, and that --tenant and the key are the right ones"
	}
	return ""
}
