package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) eventsCommand() *cobra.Command {
	return group("events", "What is in the log", "  eventhose events list --types 'order.*'", p.eventsList(), p.eventsSearch(), p.eventsGet(), p.eventsErase())
}

func (p *program) eventsList() *cobra.Command {
	var after string
	var o client.ReadOptions
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "Read the log",
		Long: `Read the log from the beginning, or after a cursor, on until there are --limit events or the log ends. The cursor to go on from is in the JSON,
and on stderr with -o text and jsonl; with text it says whether there is more.`,
		Example: `  eventhose events list --types 'order.*' --limit 10
  eventhose events list --all -o jsonl
  eventhose events list --after 1x2y3z_41 --wait 30s`,
		Args: args(0, 0),
	}
	f := c.Flags()
	f.StringVar(&after, "after", "0", "go on after this cursor; 0 is the beginning")
	f.IntVar(&o.Limit, "limit", 0, "how many at most, 100 if it is not given; with --all how many the server is asked for at once, at most 1000")
	f.StringSliceVar(&o.Types, "types", nil, "types or patterns such as order.*")
	f.StringArrayVar(&o.Keys, "event-key", nil, "only events with this ordering key, or one of these")
	f.StringVar(&o.Expression, "expression", "", "only events for which this CEL expression is true")
	p.waitFlag(f, "how long to wait for something to come")
	f.BoolVar(&all, "all", false, "read on to the end of the log")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		if o.Limit < 0 {
			return &usageError{what: "--limit must not be negative"}
		}
		cursor, err := eventhose.ParseCursor(after)
		if err != nil {
			return err
		}
		if all && p.output == "json" {
			return &usageError{what: "--all needs -o text or -o jsonl", fix: c.CommandPath() + " --all -o jsonl"}
		}
		o.After, o.Wait = cursor, p.conn.wait
		last, err := p.listEvents(ctx, t, o, all)
		switch {
		case p.output == "json" || err != nil && last.Cursor == (eventhose.Cursor{}):
		case p.output == "text" && last.HasMore:
			fmt.Fprintln(p.err, "cursor", last.Cursor, "(there is more)")
		case p.output == "text":
			fmt.Fprintln(p.err, "cursor", last.Cursor, "(the end of the log)")
		default:
			fmt.Fprintln(p.err, "cursor", last.Cursor)
		}
		return err
	})
}

const (
	// defaultEvents is how many events are listed at most if nothing is said.
	defaultEvents = 100
	// maxPage is how many a server answers at once.
	maxPage = 1000
)

// listEvents prints as many events as o.Limit says, or all, and answers the last page that it read. A page that looks at many
// events in vain is empty, or short, and is followed by others.
func (p *program) listEvents(ctx context.Context, t *client.Tenant, o client.ReadOptions, all bool) (last eventhose.Page, err error) {
	left := o.Limit
	if left == 0 {
		left = defaultEvents
	}
	var gathered []eventhose.Event // of a JSON object, which holds them all
	for first := true; ; {
		if !all {
			o.Limit = min(left, maxPage)
		}
		page, err := t.Read(ctx, o)
		if err != nil {
			return last, err
		}
		last, o.After = page, page.Cursor
		left -= len(page.Events)
		more := page.HasMore && (all || left > 0)
		switch {
		case p.output == "json":
			gathered = append(gathered, page.Events...)
			if page.Events = gathered; !more {
				err = p.printPage(page, first)
			}
		case len(page.Events) > 0 || !more:
			err = p.printPage(page, first)
			first = false
		}
		if err != nil || !more {
			return last, err
		}
		if len(page.Events) > 0 {
			o.Wait = 0
		}
	}
}

func (p *program) printPage(page eventhose.Page, first bool) error {
	if p.output == "text" {
		rows := make([][]string, len(page.Events))
		for i, e := range page.Events {
			rows[i] = []string{strconv.FormatUint(uint64(e.Sequence), 10), e.Type, oneLine(e.ID), oneLine(e.Key), stamp(e.Time)}
		}
		header := ""
		if first {
			header = "SEQUENCE TYPE ID KEY TIME"
		}
		return p.printTable(header, rows)
	}
	list := make([]json.RawMessage, len(page.Events))
	for i, e := range page.Events {
		b, err := client.MarshalEvent(e)
		if err != nil {
			return err
		}
		list[i] = b
	}
	if p.output == "json" {
		return p.printJSON(struct {
			Data    []json.RawMessage `json:"data"`
			Cursor  eventhose.Cursor  `json:"cursor"`
			HasMore bool              `json:"has_more"`
		}{list, page.Cursor, page.HasMore})
	}
	for _, e := range list {
		if err := p.printJSON(e); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) eventsGet() *cobra.Command {
	var raw bool
	var source string
	c := &cobra.Command{
		Use:   "get EVENT",
		Short: "Show an event, and what became of it at each subscription",
		Example: `  eventhose events get evt_000000000000a3s8ykq1v9xg2m
  eventhose events get order-4711 --raw > data.json`,
		Args: args(1, 1),
	}
	c.Flags().BoolVar(&raw, "raw", false, "print the data alone, byte for byte")
	sourceFlag(c, &source)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		e, err := t.Event(ctx, source, args[0])
		switch {
		case err != nil:
			return err
		case raw && e.Data == nil:
			return &failure{exit: exitAuth, code: string(eventhose.CodeForbidden), what: "the portal link does not open the data", fix: "make a link with the capability data"}
		case raw:
			_, err := p.out.Write(e.Data)
			return err
		case p.output != "text":
			b, err := client.MarshalEvent(e.Event)
			if err != nil {
				return err
			}
			d, err := json.Marshal(e.Deliveries)
			if err != nil {
				return fmt.Errorf("encoding the deliveries: %w", err)
			}
			b = append(append(append(b[:len(b)-1], `,"deliveries":`...), d...), '}')
			return p.printJSON(json.RawMessage(b))
		}
		return p.print(nil, func(w io.Writer) { eventText(w, e) })
	})
}

func eventText(w io.Writer, e client.EventStatus) {
	block(w, "id", e.ID, "type", e.Type, "sequence", e.Sequence, "source", e.Scope, "key", e.Key, "time", stamp(e.Time), "appended", stamp(e.Appended),
		"version", e.Version, "content type", e.ContentType)
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		block(w, "attribute "+name, e.Attributes[name])
	}
	for _, d := range e.Deliveries {
		block(w, "at "+string(d.Subscription), d.State)
		for _, a := range d.Attempts {
			block(w, "", stamp(a.Started)+" "+attemptText(a))
		}
	}
	if !e.JSON() {
		fmt.Fprintf(w, "\n(%s; --raw prints it)\n", size(int64(len(e.Data))))
		return
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, e.Data, "", "  ") != nil {
		fmt.Fprintf(w, "\n%s\n", printableText(e.Data))
		return
	}
	fmt.Fprintf(w, "\n%s\n", bytes.ToValidUTF8(printableJSON(pretty.Bytes()), []byte("?")))
}

// attemptText is how an attempt ended, in a line: "ok 200 41ms" or "failed 503 1.2s: …".
func attemptText(a eventhose.Attempt) string {
	s := "failed"
	if a.Outcome == eventhose.OutcomeTaken {
		s = "ok"
	}
	switch {
	case a.Status != 0:
		s += " " + strconv.Itoa(a.Status)
	case a.Reason != "":
		s += " " + string(a.Reason)
	}
	s += " " + took(time.Duration(a.Duration))
	if a.Message != "" {
		s += ": " + oneLine(a.Message)
	}
	return s
}

func (p *program) eventsErase() *cobra.Command {
	var source string
	c := &cobra.Command{
		Use:     "erase EVENT",
		Short:   "Erase an event's data for good; its place in the log stays",
		Example: "  eventhose events erase order-4711",
		Args:    args(1, 1),
	}
	sourceFlag(c, &source)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		if err := t.EraseData(ctx, source, args[0]); err != nil {
			return err
		}
		fmt.Fprintln(p.err, "erased the data of", oneLine(args[0]))
		return nil
	})
}

func sourceFlag(c *cobra.Command, source *string) {
	c.Flags().StringVar(source, "source", "", "the event's CloudEvents source, if it has one")
}

// size writes a number of bytes as people read it.
func size(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, i := float64(n)/1024, 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	return fmt.Sprintf("%.4g %ciB", f, units[i])
}
