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
	"github.com/spf13/pflag"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) subscriptionsCommand() *cobra.Command {
	return group("subscriptions", "Who gets which events, and how", "  eventhose subscriptions list",
		p.subscriptionsCreate(), p.subscriptionsList(), p.subscriptionsGet(), p.subscriptionsUpdate(), p.subscriptionsDelete(),
		p.subscriptionsState("pause", "Hold delivery; nothing is lost, the log is the backlog", (*client.Tenant).Pause),
		p.subscriptionsState("resume", "Go on after a pause or after being disabled", (*client.Tenant).Resume),
		p.subscriptionsPull(), p.subscriptionsAck(), p.subscriptionsNack(), p.subscriptionsRelease(), p.subscriptionsExtend(),
		p.subscriptionsTest(), p.subscriptionsSecret(), p.subscriptionsRotate(), p.subscriptionsBatches(), p.subscriptionsParked(),
		p.subscriptionsSettle("retry", "Try retrying events at once", "retrying", (*client.Tenant).RetryNow, (*client.Tenant).RetryNowAt),
		p.subscriptionsSettle("redrive", "Try dead events again at once", "dead", (*client.Tenant).Redrive, (*client.Tenant).RedriveAt),
		p.subscriptionsSettle("discard", "Give up dead events", "dead", (*client.Tenant).Discard, (*client.Tenant).DiscardAt))
}

// subscriptionFlags are what create and update share.
type subscriptionFlags struct {
	name, to, expression, ordering, onExhausted, signature string
	types, keys, headers                                   []string
	attributes                                             map[string]string
	schedule                                               []string
	attemptTimeout, disableAfter                           time.Duration
	maxInFlight, maxRate                                   int
	batchMaxEvents, batchMaxBytes                          int
	batchMaxWait                                           time.Duration
	format, compression                                    string
}

func (s *subscriptionFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.name, "name", "", "a name for people")
	f.StringVar(&s.to, "to", "", "the URL that gets the webhooks; none is for workers, which pull")
	f.StringSliceVar(&s.types, "types", nil, "types or patterns such as order.*; none is all")
	f.StringSliceVar(&s.keys, "keys", nil, "only events with one of these ordering keys")
	f.StringToStringVar(&s.attributes, "attributes", nil, "only events with these attributes (a=1,b=2)")
	f.StringVar(&s.expression, "expression", "", "only events for which this CEL expression is true")
	f.StringVar(&s.ordering, "ordering", "", "none, key or strict")
	f.StringVar(&s.onExhausted, "on-exhausted", "", "park or block, when the last retry failed")
	f.StringArrayVar(&s.headers, "header", nil, "a header to send along, as \"name: value\" or @file; its value is kept secret")
	f.StringVar(&s.signature, "signature", "", "v1 (HMAC) or v1a (Ed25519)")
	f.StringSliceVar(&s.schedule, "retry-schedule", nil, "the wait before each attempt (0s,5s,5m,…)")
	f.DurationVar(&s.attemptTimeout, "attempt-timeout", 0, "how long one attempt may take")
	f.DurationVar(&s.disableAfter, "disable-after", 0, "how long nothing but failure disables it; -1s is never")
	f.IntVar(&s.maxInFlight, "max-in-flight", 0, "how many attempts at once")
	f.IntVar(&s.maxRate, "max-rate", 0, "how many events a second are sent or handed over at most, tries included; 0 is no limit")
	f.IntVar(&s.batchMaxEvents, "batch-max-events", 0, "how many events travel in one request; 1 sends each alone")
	f.IntVar(&s.batchMaxBytes, "batch-max-bytes", 0, "how many bytes of data travel in one request")
	f.DurationVar(&s.batchMaxWait, "batch-max-wait", 0, "how long a batch that is not full waits for more events")
	f.StringVar(&s.format, "format", "", "standard or cloudevents")
	f.StringVar(&s.compression, "compression", "", "gzip, or none")
}

func (s *subscriptionFlags) batch() eventhose.BatchPolicy {
	return eventhose.BatchPolicy{MaxEvents: s.batchMaxEvents, MaxBytes: s.batchMaxBytes, MaxWait: eventhose.Duration(s.batchMaxWait)}
}

func (s *subscriptionFlags) filter() eventhose.Filter {
	return eventhose.Filter{Types: s.types, Keys: s.keys, Attributes: s.attributes, Expression: s.expression}
}

func (s *subscriptionFlags) retry() (eventhose.Retry, error) {
	r := eventhose.Retry{Timeout: eventhose.Duration(s.attemptTimeout), DisableAfter: eventhose.Duration(s.disableAfter)}
	for _, text := range s.schedule {
		var d eventhose.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil {
			return r, &usageError{what: "--retry-schedule: " + err.Error(), fix: "--retry-schedule 0s,5s,5m,30m"}
		}
		r.Schedule = append(r.Schedule, d)
	}
	return r, nil
}

func (s *subscriptionFlags) destination(p *program) (eventhose.Destination, error) {
	d := eventhose.Destination{Type: eventhose.DestinationWebhook, URL: s.to, Signature: s.signature, Format: s.format, Compression: s.compression}
	if d.Compression == "none" {
		d.Compression = ""
	}
	for _, h := range s.headers {
		b, err := p.input("header", h, maxFileValue)
		if err != nil {
			return d, err
		}
		name, value, ok := strings.Cut(strings.TrimRight(string(b), "\r\n"), ":")
		if !ok {
			return d, &usageError{what: "--header is not \"name: value\"", fix: "--header 'X-Token: abc'"}
		}
		if d.Headers == nil {
			d.Headers = map[string]eventhose.Secret{}
		}
		d.Headers[strings.TrimSpace(name)] = eventhose.Secret(strings.TrimSpace(value))
	}
	return d, nil
}

func (p *program) subscriptionsCreate() *cobra.Command {
	var s subscriptionFlags
	var from string
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a subscription and print its signing secret; without --to, one that workers pull from",
		Example: `  eventhose subscriptions create --to https://example.com/hooks --types 'order.*'
  eventhose subscriptions create --to https://example.com/hooks --ordering key --from start -o json
  eventhose subscriptions create --types 'order.*' --ordering key --name 'order workers'
  eventhose subscriptions create --to https://example.com/hooks --batch-max-events 100 --batch-max-wait 2s --compression gzip`,
		Args: args(0, 0),
	}
	s.add(c.Flags())
	c.Flags().StringVar(&from, "from", "", "where to begin: now, start, or a cursor")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		retry, err := s.retry()
		if err != nil {
			return err
		}
		var d eventhose.Destination
		switch ofDestination := []string{"header", "signature", "format", "compression"}; {
		case s.to != "":
			d, err = s.destination(p)
		case slices.ContainsFunc(ofDestination, c.Flags().Changed):
			err = &usageError{what: "--to is missing, where to send to", fix: c.CommandPath() + " --to https://example.com/hooks"}
		}
		if err != nil {
			return err
		}
		made, err := t.CreateSubscription(ctx, client.NewSubscription{Name: s.name, Filter: s.filter(), Ordering: eventhose.Ordering(s.ordering),
			OnExhausted: eventhose.OnExhausted(s.onExhausted), Retry: retry, MaxInFlight: s.maxInFlight, MaxRate: s.maxRate, Batch: s.batch(), Destination: d, From: from})
		if err != nil {
			return err
		}
		return p.printSubscription(made)
	})
}

func (p *program) subscriptionsUpdate() *cobra.Command {
	var s subscriptionFlags
	c := &cobra.Command{
		Use:   "update SUBSCRIPTION",
		Short: "Change what is named; the rest stays",
		Long: `Change what is named; the rest stays. The flags of the filter replace the whole filter, those of retry the whole retry rule, and those
of batches the whole policy: --batch-max-events 1 sends each event alone again.
Headers are kept unless --header gives new ones, which replace them all.`,
		Example: "  eventhose subscriptions update sub_01h455vb4pex5vsknk084sn02q --types 'order.*' --types refund.made",
		Args:    args(1, 1),
	}
	s.add(c.Flags())
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		id := eventhose.SubscriptionID(args[0])
		changed := func(names ...string) bool { return slices.ContainsFunc(names, c.Flags().Changed) }
		var patch eventhose.SubscriptionPatch
		if changed("name") {
			patch.Name = &s.name
		}
		if changed("types", "keys", "attributes", "expression") {
			f := s.filter()
			patch.Filter = &f
		}
		if changed("ordering") {
			patch.Ordering = (*eventhose.Ordering)(&s.ordering)
		}
		if changed("on-exhausted") {
			patch.OnExhausted = (*eventhose.OnExhausted)(&s.onExhausted)
		}
		if changed("retry-schedule", "attempt-timeout", "disable-after") {
			r, err := s.retry()
			if err != nil {
				return err
			}
			patch.Retry = &r
		}
		if changed("max-in-flight") {
			patch.MaxInFlight = &s.maxInFlight
		}
		if changed("max-rate") {
			patch.MaxRate = &s.maxRate
		}
		if changed("batch-max-events", "batch-max-bytes", "batch-max-wait") {
			b := s.batch()
			patch.Batch = &b
		}
		if changed("to", "header", "signature", "format", "compression") {
			d, err := s.destination(p)
			if err != nil {
				return err
			}
			now, err := t.Subscription(ctx, id)
			if err != nil {
				return err
			}
			if d.URL == "" {
				d.URL = now.Destination.URL
			}
			if d.Signature == "" {
				d.Signature = now.Destination.Signature
			}
			if d.Headers == nil {
				d.Headers = now.Destination.Headers // shown as "***", which the server takes for the value it has
			}
			if !changed("format") {
				d.Format = now.Destination.Format
			}
			if !changed("compression") {
				d.Compression = now.Destination.Compression
			}
			patch.Destination = &d
		}
		if patch == (eventhose.SubscriptionPatch{}) {
			return &usageError{what: "nothing to change was named", fix: c.CommandPath() + " --help"}
		}
		after, err := t.UpdateSubscription(ctx, id, patch)
		if err != nil {
			return err
		}
		return p.printSubscription(after)
	})
}

func (p *program) subscriptionsList() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{Use: "list", Short: "List subscriptions", Example: "  eventhose subscriptions list", Args: args(0, 0)}
	listFlags(c, &o)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		l, err := t.Subscriptions(ctx, o)
		if err != nil {
			return err
		}
		return printList(p, l, "ID STATE TYPES ORDERING URL NAME", func(s client.Subscription) []string {
			return []string{string(s.ID), string(s.State), types(s.Filter), string(s.Ordering), oneLine(s.Destination.URL), oneLine(s.Name)}
		})
	})
}

func (p *program) subscriptionsGet() *cobra.Command {
	c := &cobra.Command{Use: "get SUBSCRIPTION", Short: "Show a subscription and where its delivery stands",
		Example: "  eventhose subscriptions get sub_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		s, err := t.Subscription(ctx, eventhose.SubscriptionID(args[0]))
		if err != nil {
			return err
		}
		return p.printSubscription(s)
	})
}

func (p *program) subscriptionsDelete() *cobra.Command {
	c := &cobra.Command{Use: "delete SUBSCRIPTION", Short: "Remove a subscription with its state and its attempts",
		Example: "  eventhose subscriptions delete sub_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		if err := t.DeleteSubscription(ctx, eventhose.SubscriptionID(args[0])); err != nil {
			return err
		}
		fmt.Fprintln(p.err, "deleted", oneLine(args[0]))
		return nil
	})
}

func (p *program) subscriptionsState(verb, short string, set func(*client.Tenant, context.Context, eventhose.SubscriptionID) (client.Subscription, error)) *cobra.Command {
	c := &cobra.Command{Use: verb + " SUBSCRIPTION", Short: short,
		Example: "  eventhose subscriptions " + verb + " sub_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		s, err := set(t, ctx, eventhose.SubscriptionID(args[0]))
		if err != nil {
			return err
		}
		return p.printSubscription(s)
	})
}

func (p *program) subscriptionsRotate() *cobra.Command {
	var overlap time.Duration
	c := &cobra.Command{Use: "rotate-secret SUBSCRIPTION", Short: "Make a new signing secret; the old one goes on signing beside it for a while",
		Example: "  eventhose subscriptions rotate-secret sub_01h455vb4pex5vsknk084sn02q --overlap 48h", Args: args(1, 1)}
	c.Flags().DurationVar(&overlap, "overlap", 0, "how long both sign; 0 is the server's default of a day")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		s, err := t.RotateSecret(ctx, eventhose.SubscriptionID(args[0]), eventhose.Duration(overlap))
		if err != nil {
			return err
		}
		return p.printSubscription(s)
	})
}

func (p *program) subscriptionsSecret() *cobra.Command {
	c := &cobra.Command{Use: "secret SUBSCRIPTION", Short: "Print the signing secret, which webhooks are verified with",
		Example: "  eventhose subscriptions secret sub_01h455vb4pex5vsknk084sn02q > secret.txt", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		secrets, err := t.Secrets(ctx, eventhose.SubscriptionID(args[0]))
		if err != nil {
			return err
		}
		type shown struct {
			Secret string    `json:"secret"`
			Until  time.Time `json:"until,omitzero"`
		}
		list := make([]shown, len(secrets))
		for i, s := range secrets {
			list[i] = shown{string(s.Secret), s.Until}
		}
		return p.print(struct {
			Secrets []shown `json:"secrets"`
		}{list}, func(w io.Writer) {
			for _, s := range list {
				note := ""
				if !s.Until.IsZero() {
					note = "\tuntil " + stamp(s.Until)
				}
				fmt.Fprintf(w, "%s%s\n", s.Secret, note)
			}
		})
	})
}

func (p *program) subscriptionsTest() *cobra.Command {
	c := &cobra.Command{Use: "test SUBSCRIPTION", Short: "Send a test event at once and show what happened; exits with 7 if it was not taken",
		Example: "  eventhose subscriptions test sub_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		a, err := t.Test(ctx, eventhose.SubscriptionID(args[0]))
		if err != nil {
			return err
		}
		if err := p.print(a, func(w io.Writer) { attemptBlock(w, a) }); err != nil {
			return err
		}
		if a.Outcome != eventhose.OutcomeTaken {
			return &failure{exit: exitExpectation, code: "not_taken", what: "the destination did not take the test event", fix: a.Message}
		}
		return nil
	})
}

// printSubscription prints one, with its secret if this is an answer that has it.
func (p *program) printSubscription(s client.Subscription) error {
	shown := struct {
		eventhose.Subscription
		Secret string                `json:"secret,omitempty"`
		Status *eventhose.LaneStatus `json:"status,omitempty"`
	}{s.Subscription, string(s.Secret), s.Status}
	return p.print(shown, func(w io.Writer) {
		block(w, "id", s.ID, "secret", shown.Secret, "public key", s.PublicKey, "name", s.Name, "state", s.State, "reason", s.Reason,
			"url", s.Destination.URL, "types", types(s.Filter), "keys", strings.Join(s.Filter.Keys, ","))
		for _, name := range slices.Sorted(maps.Keys(s.Filter.Attributes)) {
			block(w, "attribute "+name, s.Filter.Attributes[name])
		}
		block(w, "expression", s.Filter.Expression, "ordering", s.Ordering, "on exhausted", s.OnExhausted, "signature", s.Destination.Signature,
			"format", s.Destination.Format, "compression", s.Destination.Compression, "batch", batchText(s.Batch), "max rate", rateText(s.MaxRate))
		for _, name := range slices.Sorted(maps.Keys(s.Destination.Headers)) {
			block(w, "header "+name, s.Destination.Headers[name])
		}
		if l := s.Status; l != nil {
			block(w, "lag", l.Lag, "in flight", l.InFlight, "leased", l.Leased, "retrying", l.Retrying, "waiting", l.Waiting, "dead", l.Dead, "circuit", l.Circuit,
				"failing since", stamp(l.FailingSince), "last success", stamp(l.LastSuccess), "next try", stamp(l.Next))
			for _, r := range l.Replays {
				block(w, "replay "+r.ID, "at "+strconv.FormatUint(uint64(r.At), 10)+" of "+strconv.FormatUint(uint64(r.To), 10)+", sent "+strconv.Itoa(r.Sent))
			}
		}
	})
}

func rateText(perSecond int) string {
	if perSecond == 0 {
		return ""
	}
	return plural(perSecond, "event") + " a second"
}

// batchText tells a policy, "" if each event travels alone.
func batchText(p eventhose.BatchPolicy) string {
	if p == (eventhose.BatchPolicy{}) {
		return ""
	}
	s := "at most " + plural(p.MaxEvents, "event") + " and " + strconv.Itoa(p.MaxBytes) + " bytes"
	if p.MaxWait > 0 {
		s += ", after " + p.MaxWait.String()
	}
	return s
}

func types(f eventhose.Filter) string {
	if len(f.Types) == 0 {
		return "*"
	}
	return strings.Join(f.Types, ",")
}
