package main

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) subscriptionsPull() *cobra.Command {
	o := eventhose.Pull{}
	c := &cobra.Command{
		Use:   "pull SUBSCRIPTION",
		Short: "Take events of a subscription without a destination, to work on",
		Long: `Take events of a subscription without a destination, to work on. Each comes with a lease, which ack, nack, release and extend take. What is not
acknowledged before its lease ends is handed over again.`,
		Example: `  eventhose subscriptions pull sub_01h455vb4pex5vsknk084sn02q
  eventhose subscriptions pull sub_01h455vb4pex5vsknk084sn02q --max 100 --wait 30s --lease 5m -o jsonl`,
		Args: args(1, 1),
	}
	c.Flags().IntVar(&o.Max, "max", 10, "how many at most, 1 to 1000; fewer when they are large, since one answer has 4 MiB of data at most")
	p.waitFlag(c.Flags(), "how long to wait if there are none")
	c.Flags().DurationVar(&o.Lease, "lease", eventhose.DefaultLease, "how long they are this worker's, 1s to 12h")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		o.Wait = p.conn.wait
		list, err := t.Pull(ctx, eventhose.SubscriptionID(args[0]), o)
		if err != nil {
			return err
		}
		type leased struct {
			Lease      string             `json:"lease"`
			Deliveries int                `json:"deliveries"`
			Until      time.Time          `json:"until"`
			Previous   eventhose.Sequence `json:"previous_sequence"`
			Replay     string             `json:"replay,omitempty"`
			Event      json.RawMessage    `json:"event"`
			event      *eventhose.Event
		}
		shown := client.List[leased]{}
		for i := range list {
			l := &list[i]
			b, err := client.MarshalEvent(l.Event)
			if err != nil {
				return err
			}
			shown.Data = append(shown.Data, leased{l.Lease, l.Deliveries, l.Until, l.Previous, l.Replay, b, &l.Event})
		}
		return printList(p, shown, "LEASE DELIVERIES UNTIL SEQUENCE TYPE KEY DATA", func(l leased) []string {
			return []string{l.Lease, strconv.Itoa(l.Deliveries), stamp(l.Until), strconv.FormatUint(uint64(l.event.Sequence), 10),
				oneLine(l.event.Type), oneLine(l.event.Key), oneLine(string(l.event.Data))}
		})
	})
}

func (p *program) subscriptionsAck() *cobra.Command {
	c := &cobra.Command{Use: "ack SUBSCRIPTION LEASE...", Short: "Say that the work is done",
		Example: "  eventhose subscriptions ack sub_01h455vb4pex5vsknk084sn02q lse_01h455vb4pex5vsknk084sn02q", Args: args(2, 1+eventhose.MaxPull)}
	return p.answers(c, func(ctx context.Context, t *client.Tenant, sub eventhose.SubscriptionID, leases []string) ([]string, error) {
		return t.Ack(ctx, sub, leases...)
	})
}

func (p *program) subscriptionsNack() *cobra.Command {
	var delay time.Duration
	var message string
	c := &cobra.Command{Use: "nack SUBSCRIPTION LEASE...", Short: "Say that the work failed: the events are handed over again",
		Example: "  eventhose subscriptions nack sub_01h455vb4pex5vsknk084sn02q lse_01h455vb4pex5vsknk084sn02q --delay 1m --message 'no stock'", Args: args(2, 1+eventhose.MaxPull)}
	c.Flags().DurationVar(&delay, "delay", -1, "how long they wait; what the retry schedule says if left out")
	c.Flags().StringVar(&message, "message", "", "what went wrong, for the record of attempts")
	return p.answers(c, func(ctx context.Context, t *client.Tenant, sub eventhose.SubscriptionID, leases []string) ([]string, error) {
		return t.Nack(ctx, sub, delay, message, leases...)
	})
}

func (p *program) subscriptionsRelease() *cobra.Command {
	c := &cobra.Command{Use: "release SUBSCRIPTION LEASE...", Short: "Say that the worker stops: the events are handed over again, and the delivery does not count",
		Example: "  eventhose subscriptions release sub_01h455vb4pex5vsknk084sn02q lse_01h455vb4pex5vsknk084sn02q", Args: args(2, 1+eventhose.MaxPull)}
	return p.answers(c, func(ctx context.Context, t *client.Tenant, sub eventhose.SubscriptionID, leases []string) ([]string, error) {
		return t.Release(ctx, sub, leases...)
	})
}

func (p *program) subscriptionsExtend() *cobra.Command {
	var lease time.Duration
	c := &cobra.Command{Use: "extend SUBSCRIPTION LEASE...", Short: "Say that the work takes longer",
		Example: "  eventhose subscriptions extend sub_01h455vb4pex5vsknk084sn02q lse_01h455vb4pex5vsknk084sn02q --lease 5m", Args: args(2, 1+eventhose.MaxPull)}
	c.Flags().DurationVar(&lease, "lease", eventhose.DefaultLease, "how long from now on, 1s to 12h")
	return p.answers(c, func(ctx context.Context, t *client.Tenant, sub eventhose.SubscriptionID, leases []string) ([]string, error) {
		return t.Extend(ctx, sub, lease, leases...)
	})
}

// answers is a command that says something of leases. Those that were lost exit with 5: the events are another worker's now.
func (p *program) answers(c *cobra.Command, say func(context.Context, *client.Tenant, eventhose.SubscriptionID, []string) ([]string, error)) *cobra.Command {
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		lost, err := say(ctx, t, eventhose.SubscriptionID(args[0]), args[1:])
		if err != nil {
			return err
		}
		if lost == nil {
			lost = []string{}
		}
		count := len(args) - 1 - len(lost)
		err = p.print(struct {
			Count int      `json:"count"`
			Lost  []string `json:"lost"`
		}{count, lost}, func(w io.Writer) {
			block(w, c.Name(), count)
			for _, lease := range lost {
				block(w, "lost", lease)
			}
		})
		if err == nil && len(lost) > 0 {
			return &failure{exit: exitConflict, code: "lease_lost", what: plural(len(lost), "lease") + " had ended or been answered before", fix: "pull again: the events are handed over again, or are another worker's"}
		}
		return err
	})
}
