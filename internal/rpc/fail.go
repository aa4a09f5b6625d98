package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eventhose/eventhose"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

// kinds is the one mapping from codes to gRPC's.
var kinds = map[eventhose.Code]connect.Code{
	eventhose.CodeMalformed:       connect.CodeInvalidArgument,
	eventhose.CodeInvalid:         connect.CodeInvalidArgument,
	eventhose.CodeTooLarge:        connect.CodeResourceExhausted,
	eventhose.CodeUnsupported:     connect.CodeUnimplemented,
	eventhose.CodeUnauthenticated: connect.CodeUnauthenticated,
	eventhose.CodeForbidden:       connect.CodePermissionDenied,
	eventhose.CodeNotFound:        connect.CodeNotFound,
	eventhose.CodeMethod:          connect.CodeUnimplemented,
	eventhose.CodeConflict:        connect.CodeFailedPrecondition,
	eventhose.CodeVersion:         connect.CodeAborted,
	eventhose.CodeErased:          connect.CodeFailedPrecondition,
	eventhose.CodeCursorGone:      connect.CodeOutOfRange,
	eventhose.CodeLimit:           connect.CodeResourceExhausted,
	eventhose.CodeUnavailable:     connect.CodeUnavailable,
	eventhose.CodeStorageFull:     connect.CodeResourceExhausted,
	eventhose.CodeTimeout:         connect.CodeDeadlineExceeded,
	eventhose.CodeInternal:        connect.CodeInternal,
}

// misread is what the library's refusals of what a client sends are called here.
var misread = map[connect.Code]eventhose.Code{
	connect.CodeInvalidArgument:   eventhose.CodeMalformed,
	connect.CodeResourceExhausted: eventhose.CodeTooLarge,
	connect.CodeUnimplemented:     eventhose.CodeUnsupported,
	connect.CodeDeadlineExceeded:  eventhose.CodeTimeout,
	connect.CodeCanceled:          eventhose.CodeUnavailable,
	connect.CodeUnavailable:       eventhose.CodeUnavailable,
}

// received turns what the library says of a message that could not be read into ours; io.EOF stays.
func received(err error) error {
	var refused *connect.Error
	var ours *eventhose.Error
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.As(err, &ours):
		return err
	case !errors.As(err, &refused):
		return &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the stream broke off within a message", Err: err}
	}
	code, known := misread[refused.Code()]
	if !known {
		code = eventhose.CodeMalformed
	}
	return &eventhose.Error{Code: code, Message: refused.Message(), Err: err}
}

// fail turns any error into the one that is shown. What is ours to mend is logged here, once, and shown as nothing but a generic
// sentence.
func (d *Door) fail(ctx context.Context, err error) *connect.Error {
	code := eventhose.CodeOf(err)
	kind, known := kinds[code]
	if !known {
		code, kind = eventhose.CodeInternal, connect.CodeInternal
	}
	detail := &v1.ErrorDetail{Code: string(code)}
	var e *eventhose.Error
	errors.As(err, &e)
	var message string
	var after time.Duration
	switch {
	case code == eventhose.CodeInternal:
		c := callOf(ctx)
		d.logger.LogAttrs(ctx, slog.LevelError, "rpc: internal error", slog.String("request_id", c.id), slog.String("procedure", c.procedure), slog.String("error", err.Error()))
		message, detail.Fix = "the server met an error of its own", "try again; tell the operator the x-request-id if it stays"
	case e == nil && code == eventhose.CodeTimeout:
		message, after = "the call's time ran out", time.Second
	case e == nil:
		message, after = "the server cannot answer now", time.Second
	default:
		message, after = e.Message, e.RetryAfter
		detail.Field, detail.Fix, detail.First = e.Field, e.Fix, uint64(e.First)
		if e.Field != "" {
			message = e.Field + ": " + message
		}
		if after == 0 && code == eventhose.CodeUnavailable {
			after = time.Second
		}
	}
	if after > 0 {
		detail.RetryAfter = durationpb.New(after)
	}
	shown := connect.NewError(kind, errors.New(message))
	if told, fault := connect.NewErrorDetail(detail); fault == nil { // it is a message of ours, which can be encoded
		shown.AddDetail(told)
	}
	return shown
}

// busy asks the client to come back.
func busy(message string) error {
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: message, RetryAfter: time.Second}
}
