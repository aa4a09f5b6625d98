package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// moments are the flags that bound a search in time.
type moments struct{ since, until string }

func (m *moments) flags(c *cobra.Command) {
	c.Flags().StringVar(&m.since, "since", "", "only from this long ago on (1h), or from a time (RFC 3339)")
	c.Flags().StringVar(&m.until, "until", "", "only up to this long ago, or up to a time")
}

func (m *moments) times() (since, until time.Time, err error) {
	if since, err = momentOf("--since", m.since); err == nil {
		until, err = momentOf("--until", m.until)
	}
	return since, until, err
}

func momentOf(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, &usageError{what: flag + " must be a duration such as 1h, or a time such as 2026-01-31T12:00:00Z"}
	}
	return t, nil
}

func (p *program) eventsSearch() *cobra.Command {
	var o client.SearchOptions
	var m moments
	c := &cobra.Command{
		Use:   "search",
		Short: "Search the log backwards, newest first",
		Long: `Search the log backwards, newest first, and tell what became of each event. The server looks at a bounded number of events for
each answer; the search goes on until --limit are found, or the log or --since is reached. When it is interrupted or out of time it tells what it has
found, and how to go on.`,
		Example: `  eventhose events search --status failed --since 24h
  eventhose events search --types 'order.*' --event-key order-4711
  eventhose events search --expression 'data.amount > 1000' --limit 5`,
		Args: args(0, 0),
	}
	f := c.Flags()
	m.flags(c)
	f.StringVar(&o.Before, "after", "", "go on after this place, as the search before told it")
	f.IntVar(&o.Limit, "limit", 20, "how many at most")
	f.StringSliceVar(&o.Types, "types", nil, "types or patterns such as order.*")
	f.StringArrayVar(&o.Keys, "event-key", nil, "only events with this ordering key, or one of these")
	f.StringVar(&o.Expression, "expression", "", "only events for which this CEL expression is true")
	f.StringVar(&o.ID, "id", "", "only the event with this id")
	sourceFlag(c, &o.Scope)
	f.StringVar(&o.Status, "status", "", "taken, pending, retrying, waiting, dead or failed, as at any subscription")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		if o.Limit < 1 {
			return &usageError{what: "--limit must be at least 1"}
		}
		var err error
		if o.Since, o.Until, err = m.times(); err != nil {
			return err
		}
		left := o.Limit
		var all []client.Found
		var page client.SearchPage
		for {
			o.Limit = min(left, maxPage)
			next, err := t.Search(ctx, o)
			if err != nil && page.Next == "" { // nothing was searched
				return err
			} else if err != nil {
				return errors.Join(p.printFound(all, page), err)
			}
			page, all = next, append(all, next.Found...)
			left -= len(page.Found)
			if o.Before = page.Next; page.Next == "" || left <= 0 {
				return p.printFound(all, page)
			}
		}
	})
}

func (p *program) printFound(all []client.Found, last client.SearchPage) error {
	if p.output == "text" {
		rows := make([][]string, len(all))
		for i, e := range all {
			rows[i] = []string{strconv.FormatUint(uint64(e.Sequence), 10), e.Type, oneLine(e.ID), oneLine(e.Key), stamp(e.Time), becameText(e.Deliveries)}
		}
		if err := p.printTable("SEQUENCE TYPE ID KEY TIME DELIVERIES", rows); err != nil {
			return err
		}
	} else if err := p.printFoundJSON(all, last); err != nil {
		return err
	}
	if last.Next != "" {
		fmt.Fprintf(p.err, "searched back to %s; more: --after %s\n", stamp(last.SearchedTo), last.Next)
	}
	return nil
}

func (p *program) printFoundJSON(all []client.Found, last client.SearchPage) error {
	list := make([]json.RawMessage, len(all))
	for i, e := range all {
		b, err := client.MarshalEvent(e.Event)
		if err != nil {
			return err
		}
		more, err := json.Marshal(struct {
			DataSize   int                      `json:"data_size,omitempty"`
			Deliveries eventhose.DeliveryCounts `json:"deliveries"`
		}{e.DataSize, e.Deliveries})
		if err != nil {
			return fmt.Errorf("encoding the deliveries: %w", err)
		}
		list[i] = append(append(b[:len(b)-1], ','), more[1:]...)
	}
	if p.output == "json" {
		next := &last.Next
		if last.Next == "" {
			next = nil
		}
		return p.printJSON(struct {
			Data       []json.RawMessage `json:"data"`
			Next       *string           `json:"next"`
			SearchedTo time.Time         `json:"searched_to,omitzero"`
		}{list, next, last.SearchedTo})
	}
	for _, e := range list {
		if err := p.printJSON(e); err != nil {
			return err
		}
	}
	return nil
}

// becameText is what became of an event, "2 taken, 1 dead", or "-" if nobody wants it.
func becameText(c eventhose.DeliveryCounts) string {
	var parts []string
	for _, s := range []struct {
		n    int
		name string
	}{{c.Taken, "taken"}, {c.Pending, "pending"}, {c.Retrying, "retrying"}, {c.Waiting, "waiting"}, {c.Dead, "dead"}} {
		if s.n > 0 {
			parts = append(parts, strconv.Itoa(s.n)+" "+s.name)
		}
	}
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func (p *program) attemptsGet() *cobra.Command {
	c := &cobra.Command{
		Use:     "get SUBSCRIPTION ATTEMPT",
		Short:   "Show one attempt: what was sent, what came back, and what that means",
		Example: "  eventhose attempts get sub_01h455vb4pex5vsknk084sn02q att_0036anqsw80qh5dhmwrwkq5pjy",
		Args:    args(2, 2),
	}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		d, err := t.Attempt(ctx, eventhose.SubscriptionID(args[0]), args[1])
		if err != nil {
			return err
		}
		return p.print(d, func(w io.Writer) { detailText(w, d) })
	})
}

func detailText(w io.Writer, d eventhose.AttemptDetail) {
	attemptBlock(w, d.Attempt)
	if d.EventGone {
		block(w, "request", "cannot be told: an event is trimmed or erased")
	}
	if r := d.Request; r != nil {
		block(w, "request", r.Method+" "+r.URL)
		for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
			block(w, "request "+oneLine(strings.ToLower(name)), r.Headers[name])
		}
		block(w, "request body", r.Body)
		if r.Changed {
			block(w, "note", "the subscription was changed since: the request may have been formed in another way")
		}
	}
	if g := d.Diagnosis; g != nil {
		block(w, "diagnosis", g.Title, "", g.Detail, "fix", strings.ReplaceAll(string(g.Fix), "_", " "))
	}
}

func (p *program) parkedCommand() *cobra.Command {
	var o client.ListOptions
	var state string
	list := &cobra.Command{Use: "list", Short: "List what all subscriptions have set aside: retrying, leased or dead",
		Example: "  eventhose parked list --state dead", Args: args(0, 0)}
	listFlags(list, &o)
	list.Flags().StringVar(&state, "state", "", "retrying, leased or dead; none is all")
	p.inTenant(list, func(ctx context.Context, t *client.Tenant, _ []string) error {
		l, err := t.SearchParked(ctx, eventhose.ParkedState(state), o)
		if err != nil {
			return err
		}
		return printList(p, l, "SEQUENCE SUBSCRIPTION EVENT TYPE KEY STATE TRIES DUE LAST", func(e eventhose.Parked) []string {
			row := parkedRow(e)
			return slices.Insert(row, 1, string(e.Subscription))
		})
	})
	return group("parked", "What is set aside at any subscription", "  eventhose parked list --state dead", list)
}

func (p *program) resendCommand() *cobra.Command {
	var source string
	c := &cobra.Command{
		Use:   "resend EVENT [SUBSCRIPTION...]",
		Short: "Hand an event over once more, to all that want it or to some",
		Example: `  eventhose resend order-4711
  eventhose resend order-4711 sub_01h455vb4pex5vsknk084sn02q`,
		Args: args(1, -1),
	}
	sourceFlag(c, &source)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		to := make([]eventhose.SubscriptionID, len(args)-1)
		for i, id := range args[1:] {
			to[i] = eventhose.SubscriptionID(id)
		}
		done, err := t.Resend(ctx, source, args[0], to...)
		if err != nil {
			return err
		}
		return printList(p, client.List[eventhose.Resent]{Data: done}, "SUBSCRIPTION DID", func(r eventhose.Resent) []string {
			did := r.Did
			if r.Replay != nil {
				did += " " + r.Replay.ID
			}
			if r.Error != "" {
				did += ": " + oneLine(r.Error)
			}
			return []string{string(r.Subscription), did}
		})
	})
}
