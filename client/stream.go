package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	typeLines = "application/x-ndjson"
	// silence is how long a stream may say nothing: the server says something every 15 s.
	silence = 45 * time.Second
	// maxLine bounds one line of a stream, in bytes: an event with all that it may hold.
	maxLine = 4 << 20
)

// FollowOptions say what to follow. The zero value follows everything from the beginning.
type FollowOptions struct {
	// After is where to begin.
	After eventhose.Cursor
	// Now begins at the end of the log instead.
	Now bool
	// Types, Keys and Expression narrow what is read, as in eventhose.Filter.
	Types      []string
	Keys       []string
	Expression string
	// Moved is called with the cursor when the caller is done with an event and wants the next, and when it has moved over
	// events that are not wanted: whoever keeps it and goes on from there misses nothing.
	Moved func(eventhose.Cursor)
	// Lost is called with what ended a stream, or kept it from beginning, before it is tried again.
	Lost func(error)
	// Reconnected is called when there is a stream again, with what had ended the one before.
	Reconnected func(error)
}

// Follow hands out the events of the log as they come, in order, each once. It goes on from the last cursor by itself when
// the connection ends, breaks or says nothing for 45 s, also while the server restarts, for as long as it takes. It ends
// with an *eventhose.Error that trying again does not mend: CodeCursorGone with First, CodeUnauthenticated, CodeForbidden,
// CodeNotFound, CodeInvalid with the field. It ends without an error when ctx does. Callbacks are called by the caller's
// goroutine. While the caller works on an event nothing is read, and nothing is lost if that takes long.
func (t *Tenant) Follow(ctx context.Context, o FollowOptions) iter.Seq2[eventhose.Event, error] {
	return func(yield func(eventhose.Event, error) bool) {
		f := &follower{tenant: t, options: o, after: o.After.String(), yield: yield}
		if o.Now {
			f.after = "now"
		}
		if err := f.run(ctx); err != nil {
			yield(eventhose.Event{}, err)
		}
	}
}

// follower is one use of Follow.
type follower struct {
	tenant  *Tenant
	options FollowOptions
	yield   func(eventhose.Event, error) bool
	// after is a cursor's text, or "now" until there is one.
	after string
	// lost is why there is no stream, nil at first.
	lost error
	// backoff is how long to wait before the next try. It begins anew with each line that arrives.
	backoff time.Duration
}

// errEnough ends a follower whose caller wants no more.
var errEnough = errors.New("no more is wanted")

func (f *follower) run(ctx context.Context) error {
	f.backoff = minBackoff
	for {
		err := f.stream(ctx)
		switch {
		case errors.Is(err, errEnough), over(ctx):
			return nil
		case !Passing(err):
			return err
		}
		f.lost = err
		if f.options.Lost != nil {
			f.options.Lost(err)
		}
		wait := f.backoff/2 + rand.N(f.backoff)
		var refused *eventhose.Error
		if errors.As(err, &refused) {
			wait = max(wait, min(refused.RetryAfter, maxBackoff))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		f.backoff = min(2*f.backoff, maxBackoff)
	}
}

// over reports whether ctx has ended.
func over(ctx context.Context) bool { return ctx.Err() != nil }

// stream reads one stream until it ends, which is always with an error.
func (f *follower) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(f.tenant.c.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	body, err := f.open(ctx)
	if err != nil {
		return told(ctx, err)
	}
	defer body.Close()
	if f.lost != nil && f.options.Reconnected != nil {
		f.options.Reconnected(f.lost)
	}
	f.lost = nil
	heard := func() { watchdog.Reset(f.tenant.c.silence) }
	for lines := bufio.NewReaderSize(&listening{body, heard}, 64<<10); ; {
		heard()
		line, err := readLine(lines)
		watchdog.Stop()
		if err != nil {
			return told(ctx, err)
		}
		if err := f.take(line); err != nil {
			return err
		}
	}
}

// listening calls heard with all that arrives: a long line over a slow network is no silence.
type listening struct {
	r     io.Reader
	heard func()
}

func (l *listening) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if n > 0 {
		l.heard()
	}
	return n, err
}

// told answers why a stream was ended from here, if it was.
func told(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// errSilent and errEnded have no code: they are like a network that fails.
var (
	errSilent = errors.New("the server has said nothing for too long")
	errEnded  = errors.New("the server ended the stream")
	errLine   = errors.New("a line of the stream is longer than any event can be")
)

// open asks for a stream.
func (f *follower) open(ctx context.Context) (io.ReadCloser, error) {
	c := f.tenant.c
	q := url.Values{"after": {f.after}}
	filterQuery(q, f.options.Types, f.options.Keys, f.options.Expression)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(f.tenant.path("events", "stream"), q), nil)
	if err != nil {
		return nil, err
	}
	c.sign(req)
	req.Header.Set("Accept", typeLines)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, refusal(res)
	}
	if media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); media != typeLines {
		res.Body.Close()
		return nil, &eventhose.Error{Code: eventhose.CodeUnsupported, Message: "the server did not answer with a stream", Fix: "check that the URL is an Eventhose server's"}
	}
	return res.Body, nil
}

// readLine answers the next line without its end; the bytes are the reader's.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, ended(err)
	}
	long := append(make([]byte, 0, 4*len(line)), line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > maxLine {
			return nil, errLine
		}
		line, err = r.ReadSlice('\n')
		long = append(long, line...)
	}
	if err != nil {
		return nil, ended(err)
	}
	return long[:len(long)-1], nil
}

// ended says of a body that is read to its end that the server ended it.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errEnded
	}
	return err
}

// take handles one line: an event, a cursor, or why the server ends the stream.
func (f *follower) take(line []byte) error {
	var said struct {
		wireEvent
		Cursor *eventhose.Cursor `json:"cursor"`
		Error  *problem          `json:"error"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "a line of the stream is not what this client knows", Err: err}
	}
	if p := said.Error; p != nil {
		return &eventhose.Error{Code: p.Code, Message: p.Detail, Field: p.Field, Fix: p.Fix, First: p.First, RetryAfter: time.Duration(p.RetryAfter) * time.Second}
	}
	f.backoff = minBackoff
	if said.Sequence != 0 && !f.yield(said.event(f.tenant.id), nil) {
		return errEnough
	}
	if said.Cursor != nil {
		f.after = said.Cursor.String()
		if f.options.Moved != nil {
			f.options.Moved(*said.Cursor)
		}
	}
	return nil
}

// filterQuery adds what narrows a read to its query.
func filterQuery(q url.Values, types, keys []string, expression string) {
	if len(types) > 0 {
		q.Set("types", strings.Join(types, ","))
	}
	if len(keys) > 0 {
		q["keys"] = keys
	}
	if expression != "" {
		q.Set("expression", expression)
	}
}
