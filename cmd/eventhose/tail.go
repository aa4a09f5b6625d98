package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// place is where in a log to begin, as --since and --after say; neither is the end of the log.
type place struct {
	after string
	since time.Duration
}

func (b *place) add(c *cobra.Command) {
	c.Flags().StringVar(&b.after, "after", "", "begin after this cursor; 0 is the beginning of the log")
	c.Flags().DurationVar(&b.since, "since", 0, "begin with what was appended this long ago")
}

// check answers the cursor of --after, nil if there is none, and the time of --since.
func (b *place) check() (after *eventhose.Cursor, since time.Time, err error) {
	switch {
	case b.after != "" && b.since != 0:
		return nil, since, &usageError{what: "--since and --after exclude each other"}
	case b.since < 0:
		return nil, since, &usageError{what: "--since must be how long ago, such as 1h"}
	case b.since > 0:
		return nil, time.Now().Add(-b.since), nil
	case b.after == "":
		return nil, since, nil
	}
	c, err := eventhose.ParseCursor(b.after)
	return &c, since, err
}

// cursor answers where to begin, which is the end of the log if nothing was said.
func (b *place) cursor(ctx context.Context, t *client.Tenant) (eventhose.Cursor, error) {
	after, since, err := b.check()
	switch {
	case err != nil:
		return eventhose.Cursor{}, err
	case after != nil:
		return *after, nil
	case !since.IsZero():
		return t.CursorAt(ctx, since)
	}
	return t.Head(ctx)
}

func (p *program) tailCommand() *cobra.Command {
	var o client.FollowOptions
	var from place
	var limit int
	c := &cobra.Command{
		Use:   "tail",
		Short: "Print events as they come",
		Long: `Print events as they come, from the end of the log on unless --since or --after says otherwise. When the connection ends it is
made again, for as long as it takes, and nothing is left out. It ends when it is interrupted, with 130, and then says on stderr after
which cursor to go on.`,
		Example: `  eventhose tail --types 'order.*'
  eventhose tail --since 1h -o jsonl | jq .data
  eventhose tail --after 1x2y3z_41 --filter 'data.amount > 1000'`,
		Args: args(0, 0),
	}
	f := c.Flags()
	f.StringSliceVar(&o.Types, "types", nil, "types or patterns such as order.*")
	f.StringArrayVar(&o.Keys, "event-key", nil, "only events with this ordering key, or one of these")
	f.StringVar(&o.Expression, "filter", "", "only events for which this CEL expression is true")
	f.IntVar(&limit, "limit", 0, "end after this many")
	from.add(c)
	return p.inTenantFor(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		if limit < 0 {
			return &usageError{what: "--limit must not be negative"}
		}
		var err error
		if o.After, err = from.cursor(ctx, t); err != nil {
			return err
		}
		// What the server refuses ends the command before it says that it is ready; a server that is away is waited for.
		if _, err := t.Read(ctx, client.ReadOptions{After: o.After, Limit: 1, Types: o.Types, Keys: o.Keys, Expression: o.Expression}); err != nil && !client.Passing(err) {
			return err
		}
		return p.tail(ctx, t, o, limit)
	})
}

func (p *program) tail(ctx context.Context, t *client.Tenant, o client.FollowOptions, limit int) error {
	cursor := o.After
	var lost time.Time
	o.Moved = func(c eventhose.Cursor) { cursor = c }
	o.Lost = func(err error) {
		if lost.IsZero() {
			lost = time.Now()
			p.tellLost("", err)
		}
	}
	o.Reconnected = func(error) {
		p.tellBack("", time.Since(lost))
		lost = time.Time{}
	}
	p.tell("ready: events of tenant "+p.conn.tenant+" after "+cursor.String(), map[string]any{"ready": map[string]string{"tenant": p.conn.tenant, "after": cursor.String()}})
	defer func() { p.tell("cursor "+cursor.String(), map[string]string{"cursor": cursor.String()}) }()
	n := 0
	for e, err := range t.Follow(ctx, o) {
		if err == nil {
			err = p.printEvent(e)
		}
		if err != nil {
			return err
		}
		if n++; n == limit {
			cursor.Sequence = e.Sequence
			if cursor.Incarnation == 0 {
				cursor, err = t.Head(ctx)
				cursor.Sequence = e.Sequence
			}
			return err
		}
	}
	return ended(ctx)
}

// printEvent prints an event as a line.
func (p *program) printEvent(e eventhose.Event) error {
	if p.output == "text" {
		line := fmt.Sprintf("%s %s %s #%d", clock(e.Appended), e.Type, oneLine(e.ID), e.Sequence)
		if e.Key != "" {
			line += " key " + oneLine(e.Key)
		}
		_, err := fmt.Fprintln(p.out, line)
		return err
	}
	b, err := client.MarshalEvent(e)
	if err != nil {
		return err
	}
	return writeJSON(p.out, json.RawMessage(b), "")
}

// tellLost and tellBack say that the server cannot be reached, and that it can be again.
func (p *program) tellLost(route string, err error) {
	d := describe(err)
	p.tell(inRoute(route)+"lost the server, trying again: "+d.Message, map[string]any{"lost": map[string]string{"route": route, "error": d.Message}})
}

func (p *program) tellBack(route string, after time.Duration) {
	p.tell(inRoute(route)+"reconnected after "+took(after), map[string]any{"reconnected": map[string]any{"route": route, "after": eventhose.Duration(after)}})
}

// inRoute begins a line that is about one of several routes.
func inRoute(route string) string {
	if route == "" {
		return ""
	}
	return "[" + oneLine(route) + "] "
}
