package follow

import (
	"context"
	"errors"

	"github.com/eventhose/eventhose"
)

// After reads where a reader begins: a cursor, "" or "0" for the beginning, or "now", which is the end of the log. The field is
// what names it in a CodeInvalid.
func After(text, field string, head func() (eventhose.Head, error)) (eventhose.Cursor, error) {
	if text == "now" {
		h, err := head()
		return h.Cursor(h.Last), err
	}
	c, err := eventhose.ParseCursor(text)
	var e *eventhose.Error
	if errors.As(err, &e) {
		moved := *e
		moved.Field = field
		err = &moved
	}
	return c, err
}

// Beginning is what Begin asks of a log.
type Beginning interface {
	Log
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
}

// Begin answers the cursor that a stream begins after, as After reads it, or what would end the stream at once: CodeCursorGone,
// CodeInvalid (also of a field "filter.…"). The cursor has the log's incarnation, also if it was the beginning.
func Begin(ctx context.Context, log Beginning, tenant eventhose.TenantID, text, field string, f eventhose.Filter) (eventhose.Cursor, error) {
	head, err := log.Head(ctx, tenant)
	if err != nil {
		return eventhose.Cursor{}, err
	}
	after, err := After(text, field, func() (eventhose.Head, error) { return head, nil })
	if err != nil {
		return after, err
	}
	at, err := head.Resolve(after)
	if err != nil {
		return after, err
	}
	if f.Expression != "" { // only a read compiles it
		_, err = log.Page(ctx, tenant, head.Cursor(head.Last), f, eventhose.PageLimit{Events: 1})
	}
	return head.Cursor(at), err
}
