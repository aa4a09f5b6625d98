package main

import (
	"context"
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

// statsRows is how many steps are shown at most if none is asked for.
const statsRows = 24

func (p *program) statsCommand() *cobra.Command {
	var since time.Duration
	var o client.MetricsOptions
	var subscription string
	var everything bool
	c := &cobra.Command{
		Use:   "stats",
		Short: "Show what was appended and delivered, over time",
		Long: `Show what was appended and delivered, over time, and the sum. Times are in milliseconds: how long attempts took, and lag, from the
append of an event to when it was taken at the first try. Columns are separated by spaces, so that other programs can read them.`,
		Example: `  eventhose stats --since 6h
  eventhose stats --subscription sub_01h455vb4pex5vsknk084sn02q --since 30m --step 5m`,
		Args: args(0, 0),
	}
	f := c.Flags()
	f.DurationVar(&since, "since", time.Hour, "from this long ago")
	f.DurationVar(&o.Step, "step", 0, "a multiple of 1m; none is what makes at most 24 rows")
	f.StringVar(&subscription, "subscription", "", "only what was delivered to this one")
	f.BoolVar(&everything, "all-tenants", false, "of all tenants together, with an admin key that is bound to none")
	return p.connected(c, func(ctx context.Context, cl *client.Client, _ []string) error {
		if since < eventhose.MetricsStep || o.Step < 0 {
			return &usageError{what: "--since must be at least 1m, and --step not below 0", fix: "eventhose stats --since 1h"}
		}
		if everything && subscription != "" {
			return &usageError{what: "--all-tenants excludes --subscription"}
		}
		if o.Step == 0 {
			o.Step = statsStep(since)
		}
		o.From, o.Subscription = since.String(), eventhose.SubscriptionID(subscription)
		ask := cl.Tenant(eventhose.TenantID(p.conn.tenant)).Metrics
		if everything {
			ask = cl.Metrics
		}
		m, err := ask(ctx, o)
		if err != nil {
			return err
		}
		switch p.output {
		case "json":
			return p.printJSON(m)
		case "jsonl":
			for _, point := range m.Data {
				if err := p.printJSON(point); err != nil {
					return err
				}
			}
			return nil
		}
		var rows [][]string
		for _, point := range m.Data {
			rows = append(rows, append([]string{point.Time.UTC().Format("2006-01-02T15:04Z")}, statsRow(point.Metrics)...))
		}
		rows = append(rows, append([]string{"all"}, statsRow(m.Total)...))
		return p.printTable("TIME EVENTS BYTES ATTEMPTS TAKEN FAILED TOOK-P50 TOOK-P95 TOOK-P99 LAG-P50 LAG-P99", rows)
	})
}

// statsStep is the least of the usual steps that makes no more than statsRows.
func statsStep(since time.Duration) time.Duration {
	for _, step := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour} {
		if since <= statsRows*step {
			return step
		}
	}
	return 7 * 24 * time.Hour
}

func statsRow(m eventhose.Metrics) []string {
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	ms := func(v float64, measured bool) string {
		if !measured {
			return "-"
		}
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	took, lag := m.Attempts > 0, m.Lag != eventhose.Quantiles{}
	return []string{count(m.Events), count(m.Bytes), count(m.Attempts), count(m.Taken), count(m.Failed),
		ms(m.Duration.P50, took), ms(m.Duration.P95, took), ms(m.Duration.P99, took), ms(m.Lag.P50, lag), ms(m.Lag.P99, lag)}
}

func (p *program) healthCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "health",
		Short: "Show how a running server is, with its disk or database and the other nodes",
		Long: `Show how a running server is, with its disk or database and the other nodes. It wants an admin key that is bound to no tenant, and
exits with 1 if one of the server's checks fails.`,
		Example: "  eventhose health\n  eventhose health -o json --url https://events.internal",
		Args:    args(0, 0),
	}
	return p.connected(c, func(ctx context.Context, cl *client.Client, _ []string) error {
		h, err := cl.Health(ctx)
		if err != nil {
			return err
		}
		if err := p.print(h, func(w io.Writer) { healthBlock(w, h) }); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(h.Checks)) {
			if h.Checks[name] != "ok" {
				return &failure{exit: exitFailure, code: "not_ready", what: "the check " + oneLine(name) + " fails: " + oneLine(h.Checks[name]), fix: "eventhose doctor, and the server's log"}
			}
		}
		return nil
	})
}

func healthBlock(w io.Writer, h eventhose.Health) {
	block(w, "version", h.Version, "node", h.Node, "started", stamp(h.Started), "store", h.Store)
	for _, name := range slices.Sorted(maps.Keys(h.Checks)) {
		block(w, "check "+oneLine(name), h.Checks[name])
	}
	if d := h.Disk; d != nil {
		block(w, "data", size(d.Data), "disk", size(d.Free)+" free of "+size(d.Total))
	}
	if d := h.Database; d != nil {
		block(w, "database", "PostgreSQL "+d.Version, "connections", fmt.Sprintf("%d in use, %d open, %d at most", d.Connections.InUse, d.Connections.Open, d.Connections.Max))
	}
	block(w, "streams", h.Streams, "leases", fmt.Sprintf("%d of %d", h.Leases.Held, h.Leases.Total), "metrics kept", h.RetentionOfMetrics)
	for _, n := range h.Nodes {
		self := ""
		if n.Self {
			self = ", this one"
		}
		block(w, "node "+oneLine(n.ID), plural(n.Leases, "lease")+self)
	}
}
