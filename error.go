package eventhose

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Code names one kind of failure. The set is closed: doors map each code to their protocol, and clients may switch on it.
type Code string

const (
	// CodeMalformed: the input cannot be read at all (bad JSON, duplicate keys, invalid UTF-8).
	CodeMalformed Code = "malformed"
	// CodeInvalid: the input was read and one of its fields cannot be accepted; Error.Field names it.
	CodeInvalid Code = "invalid"
	// CodeTooLarge: a size limit was passed.
	CodeTooLarge Code = "too_large"
	// CodeUnsupported: a content type or encoding that this route does not take.
	CodeUnsupported Code = "unsupported_media_type"
	// CodeUnauthenticated: no credential, or one that is unknown, expired or revoked.
	CodeUnauthenticated Code = "unauthenticated"
	// CodeForbidden: the credential is good, and its scopes do not reach this far within its own tenant.
	CodeForbidden Code = "forbidden"
	// CodeNotFound: absent, or another tenant's; the two answer the same.
	CodeNotFound Code = "not_found"
	// CodeMethod: the route exists, the method does not.
	CodeMethod Code = "method_not_allowed"
	// CodeConflict: the same id with other content, or a state that does not allow the request.
	CodeConflict Code = "conflict"
	// CodeVersion: a compare-and-set lost against a concurrent change.
	CodeVersion Code = "version_conflict"
	// CodeErased: the event is there and its data was erased.
	CodeErased Code = "erased"
	// CodeCursorGone: retention or another incarnation overtook the cursor; Error.First is the first sequence left.
	CodeCursorGone Code = "cursor_gone"
	// CodeLimit: a count limit or a rate limit was reached; Error.RetryAfter says when to come back, if ever.
	CodeLimit Code = "limit"
	// CodeUnavailable: this node cannot answer now (stopping, overloaded, store away); try again.
	CodeUnavailable Code = "unavailable"
	// CodeStorageFull: there is no room on the disk for more events; reads and deliveries go on.
	CodeStorageFull Code = "storage_full"
	// CodeTimeout: the request's own deadline passed.
	CodeTimeout Code = "timeout"
	// CodeInternal: ours to mend. The message is never shown to a user.
	CodeInternal Code = "internal"
)

// Codes lists every code there is.
func Codes() []Code {
	return []Code{CodeMalformed, CodeInvalid, CodeTooLarge, CodeUnsupported, CodeUnauthenticated, CodeForbidden,
		CodeNotFound, CodeMethod, CodeConflict, CodeVersion, CodeErased, CodeCursorGone, CodeLimit, CodeUnavailable,
		CodeStorageFull, CodeTimeout, CodeInternal}
}

// Error is a failure that may be shown to a user: what is wrong, where, and what to do about it.
type Error struct {
	Code Code
	// Message says what is wrong, in a sentence without a full stop. It never holds a secret.
	Message string
	// Field is the path of the offending input ("events[3].type", "filter.expression"), empty if none.
	Field string
	// Fix says what to do, empty if that is obvious.
	Fix string
	// First is the first sequence left, with CodeCursorGone.
	First Sequence
	// RetryAfter is when another try makes sense, 0 if unknown.
	RetryAfter time.Duration
	// Err is the cause, for logs only.
	Err error
}

func (e *Error) Error() string {
	s := e.Message
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if _, told := e.Err.(silent); e.Err != nil && !told {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a code with a formatted message. A %w verb sets its cause, whose text then is in the message.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: hidden(errors.Unwrap(err))}
}

// hidden keeps a cause reachable for errors.Is and As when the message already tells its text.
func hidden(err error) error {
	if err == nil {
		return nil
	}
	return silent{err}
}

type silent struct{ error }

func (s silent) Unwrap() error { return s.error }

// Invalid makes a CodeInvalid error for one field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// NotFound is the one answer for what is absent and for what is another tenant's.
func NotFound(what string) *Error {
	return &Error{Code: CodeNotFound, Message: "no such " + what}
}

// CodeOf answers the code of the first Error in err's chain; a context's end is CodeTimeout or CodeUnavailable;
// everything else is CodeInternal. CodeOf(nil) is "".
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return CodeTimeout
	case errors.Is(err, context.Canceled):
		return CodeUnavailable
	}
	return CodeInternal
}
