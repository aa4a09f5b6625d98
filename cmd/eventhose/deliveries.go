package main

import (
	"context"
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

func (p *program) attemptsCommand() *cobra.Command {
	var o client.ListOptions
	var s eventhose.AttemptSearch
	var m moments
	var event, source string
	list := &cobra.Command{Use: "list [SUBSCRIPTION]", Short: "List attempts at all subscriptions or at one, newest first",
		Example: `  eventhose attempts list --outcome failed --since 1h
  eventhose attempts list sub_01h455vb4pex5vsknk084sn02q --limit 20`, Args: args(0, 1)}
	f := list.Flags()
	listFlags(list, &o)
	m.flags(list)
	f.StringVar((*string)(&s.Outcome), "outcome", "", "only taken, failed or gone")
	f.StringVar((*string)(&s.Reason), "reason", "", "only those that failed for this reason, such as timeout or tls")
	f.StringVar(&event, "event", "", "only those of this event, all of them, at one subscription")
	sourceFlag(list, &source)
	narrowing := []string{"since", "until", "outcome", "reason", "limit", "after"}
	p.inTenant(list, func(ctx context.Context, t *client.Tenant, args []string) error {
		if len(args) > 0 {
			s.Subscription = eventhose.SubscriptionID(args[0])
		}
		if event != "" && len(args) == 0 {
			return &usageError{what: "--event needs a subscription", fix: "eventhose events get " + event}
		}
		if event == "" && source != "" {
			return &usageError{what: "--source goes with --event, whose source it is"}
		}
		if i := slices.IndexFunc(narrowing, f.Changed); event != "" && i >= 0 {
			return &usageError{what: "--event and --" + narrowing[i] + " exclude each other: what was tried for one event is listed whole"}
		}
		var l client.List[eventhose.Attempt]
		var err error
		if event != "" {
			l.Data, err = t.AttemptsOf(ctx, s.Subscription, source, event)
		} else if s.Since, s.Until, err = m.times(); err == nil {
			s.Before, s.Limit = o.After, o.Limit
			var page eventhose.AttemptPage
			page, err = t.SearchAttempts(ctx, s)
			l = client.List[eventhose.Attempt]{Data: page.Attempts, Next: page.Next}
		}
		if err != nil {
			return err
		}
		if s.Subscription != "" {
			return printList(p, l, "TIME ATTEMPT EVENT KIND TRY RESULT", attemptRow)
		}
		return printList(p, l, "TIME SUBSCRIPTION ATTEMPT EVENT KIND TRY RESULT", func(a eventhose.Attempt) []string {
			return slices.Insert(attemptRow(a), 1, string(a.Subscription))
		})
	})
	return group("attempts", "What was tried, and what came back", "  eventhose attempts list --outcome failed", list, p.attemptsGet())
}

func attemptRow(a eventhose.Attempt) []string {
	return []string{stamp(a.Started), a.ID, eventsText(a), string(a.Kind), strconv.Itoa(a.Number), attemptText(a)}
}

// eventsText is the id of the event, or that of the batch and how many it holds.
func eventsText(a eventhose.Attempt) string {
	if a.Batch == "" {
		return oneLine(strings.Join(a.Events, ","))
	}
	return oneLine(a.Batch) + " (" + plural(len(a.Events), "event") + ")"
}

// attemptBlock shows one attempt whole.
func attemptBlock(w io.Writer, a eventhose.Attempt) {
	block(w, "attempt", a.ID, "events", eventsText(a), "kind", a.Kind, "result", attemptText(a), "url", a.URL, "address", a.Address,
		"started", stamp(a.Started), "dns", phase(a.Phases.DNS), "connect", phase(a.Phases.Connect), "tls", phase(a.Phases.TLS), "wait", phase(a.Phases.Wait),
		"next try", stamp(a.Next))
	for _, name := range slices.Sorted(maps.Keys(a.ResponseHeaders)) {
		block(w, "answer "+oneLine(name), a.ResponseHeaders[name])
	}
	block(w, "answer body", a.ResponseBody)
}

func phase(d eventhose.Duration) string {
	if d == 0 {
		return ""
	}
	return took(time.Duration(d))
}

func (p *program) subscriptionsBatches() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{Use: "batches SUBSCRIPTION", Short: "List the batches that were sent, newest first",
		Example: "  eventhose subscriptions batches sub_01h455vb4pex5vsknk084sn02q --limit 20", Args: args(1, 1)}
	listFlags(c, &o)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		l, err := t.Batches(ctx, eventhose.SubscriptionID(args[0]), o)
		if err != nil {
			return err
		}
		return printList(p, l, "TIME BATCH EVENTS SEQUENCES STATE TRIES LAST", func(b client.Batch) []string {
			at, last := "", ""
			if n := len(b.Attempts); n > 0 {
				a := b.Attempts[0]
				at = stamp(b.Attempts[n-1].Started)
				last = attemptText(eventhose.Attempt{Outcome: a.Outcome, Status: a.Status, Reason: a.Reason, Duration: a.Duration, Message: a.Message})
			}
			return []string{at, oneLine(b.ID), strconv.Itoa(b.Events), fmt.Sprintf("%d-%d", b.FirstSequence, b.LastSequence), b.State, strconv.Itoa(len(b.Attempts)), last}
		})
	})
}

func (p *program) subscriptionsParked() *cobra.Command {
	var o client.ListOptions
	var state string
	c := &cobra.Command{Use: "parked SUBSCRIPTION", Short: "List what is set aside: retrying, leased, waiting or dead",
		Example: "  eventhose subscriptions parked sub_01h455vb4pex5vsknk084sn02q --state dead", Args: args(1, 1)}
	listFlags(c, &o)
	c.Flags().StringVar(&state, "state", "", "retrying, leased, waiting or dead; none is all but waiting")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		l, err := t.Parked(ctx, eventhose.SubscriptionID(args[0]), eventhose.ParkedState(state), o)
		if err != nil {
			return err
		}
		return printList(p, l, "SEQUENCE EVENT TYPE KEY STATE TRIES DUE LAST", parkedRow)
	})
}

func parkedRow(e eventhose.Parked) []string {
	last := string(e.Reason)
	if e.Status != 0 {
		last = strconv.Itoa(e.Status)
	}
	return []string{strconv.FormatUint(uint64(e.Sequence), 10), oneLine(e.Event), e.Type, oneLine(e.Key), string(e.State), strconv.Itoa(e.Attempts), stamp(e.Due), last}
}

// subscriptionsSettle is a command about parked events, named by their ids or by their sequences.
func (p *program) subscriptionsSettle(verb, short, state string, settle func(*client.Tenant, context.Context, eventhose.SubscriptionID, ...string) (int, error),
	settleAt func(*client.Tenant, context.Context, eventhose.SubscriptionID, ...eventhose.Sequence) (int, error)) *cobra.Command {
	var all bool
	var sequences []uint
	const example = " sub_01h455vb4pex5vsknk084sn02q "
	c := &cobra.Command{Use: verb + " SUBSCRIPTION [EVENT...]", Short: short, Args: args(1, -1),
		Long: short + `. Events are named by their ids, or by their sequences: an id that several sources have in use is the first
of its events that is ` + state + `.`,
		Example: "  eventhose subscriptions " + verb + example + "order-4711\n  eventhose subscriptions " + verb + example + "--sequence 81204\n  eventhose subscriptions " + verb + example + "--all"}
	c.Flags().BoolVar(&all, "all", false, "all "+state+" events of the subscription")
	c.Flags().UintSliceVar(&sequences, "sequence", nil, "the event with this sequence, as subscriptions parked lists it; may be given several times")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		ways := 0
		for _, given := range []bool{all, len(args) > 1, len(sequences) > 0} {
			if given {
				ways++
			}
		}
		if ways != 1 {
			return &usageError{what: "name the events, or give --sequence or --all", fix: c.CommandPath() + " " + args[0] + " --all"}
		}
		var n int
		var err error
		if id := eventhose.SubscriptionID(args[0]); len(sequences) > 0 {
			at := make([]eventhose.Sequence, len(sequences))
			for i, s := range sequences {
				at[i] = eventhose.Sequence(s)
			}
			n, err = settleAt(t, ctx, id, at...)
		} else {
			n, err = settle(t, ctx, id, args[1:]...)
		}
		if err != nil {
			return err
		}
		return p.print(struct {
			Count int `json:"count"`
		}{n}, func(w io.Writer) { fmt.Fprintf(w, "%d\n", n) })
	})
}

func (p *program) replayCommand() *cobra.Command {
	var r client.NewReplay
	var since time.Duration
	c := &cobra.Command{
		Use:   "replay SUBSCRIPTION",
		Short: "Send a range of events once more, beside live order",
		Example: `  eventhose replay sub_01h455vb4pex5vsknk084sn02q --from 100 --to 200 --dry-run
  eventhose replay sub_01h455vb4pex5vsknk084sn02q --since 2h --status failed --types 'order.*'`,
		Args: args(1, 1),
	}
	f := c.Flags()
	f.StringVar(&r.From, "from", "", "the first: a sequence, a cursor or a time (RFC 3339); none is the first that is left")
	f.StringVar(&r.To, "to", "", "the last, in the same way; none is where delivery stands")
	f.DurationVar(&since, "since", 0, "from this long ago, instead of --from")
	f.StringSliceVar(&r.Types, "types", nil, "types or patterns such as order.*; none is all")
	f.StringVar(&r.Status, "status", "", "delivered, failed or dead; none is all")
	f.BoolVar(&r.DryRun, "dry-run", false, "only count")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		if since != 0 {
			if r.From != "" || since < 0 {
				return &usageError{what: "--since must be more than 0, and excludes --from"}
			}
			r.From = time.Now().Add(-since).UTC().Format(time.RFC3339Nano)
		}
		done, err := t.Replay(ctx, eventhose.SubscriptionID(args[0]), r)
		for err == nil && done.CountedTo > 0 { // a long range is counted piece by piece
			var more client.ReplayResult
			r.From = strconv.FormatUint(uint64(done.CountedTo)+1, 10)
			more, err = t.Replay(ctx, eventhose.SubscriptionID(args[0]), r)
			done.Count, done.CountedTo = done.Count+more.Count, more.CountedTo
		}
		if err != nil {
			return err
		}
		return p.print(done, func(w io.Writer) {
			switch {
			case r.DryRun:
				fmt.Fprintf(w, "would replay %s\n", plural(done.Count, "event"))
			case done.Replay == nil:
				fmt.Fprintln(w, "nothing to replay: delivery has not come to this range yet")
			default:
				fmt.Fprintf(w, "%s  from %d to %d\n", done.Replay.ID, done.Replay.From, done.Replay.To)
			}
		})
	})
}
