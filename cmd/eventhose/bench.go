package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/bench"
)

func (p *program) benchCommand() *cobra.Command {
	var o bench.Options
	var key string
	var asJSON bool
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: durable appends and deliveries against a plain loop and a bare file",
		Long: `Measure this machine. The real server, a receiver and the load run in processes of their own; each scenario is measured in turns
with a baseline that does the least that anybody would have to do, and the ratio is what counts. docs/performance.md says how.

Scenarios: ` + strings.Join(bench.Names(), ", ") + `.

Data goes to a directory below --dir, which must be on a disk, and is removed in the end. Ending it early is fine.`,
		Example: `  eventhose bench --scenario deliver
  eventhose bench --scenario deliver --scenario latency --seconds 60 --json
  eventhose bench --database-url postgres://postgres@localhost/postgres --scenario deliver --scenario two-nodes
  eventhose bench --url http://127.0.0.1:8080 --key $EVENTHOSE_API_KEY --scenario append-batch`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o.Command, o.Key = []string{self}, eventhose.Secret(key)
			if o.URL != "" && key == "" {
				return &usageError{what: "--url needs --key", fix: "give the server's admin key"}
			}
			progress := newProgress(p)
			o.Progress = progress.show
			report, err := bench.Run(c.Context(), o)
			progress.clear()
			if len(report.Scenarios) == 0 {
				return err
			}
			if asJSON || p.output != "text" {
				return errors.Join(err, p.printJSON(report))
			}
			return errors.Join(err, report.Table(p.out))
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Scenarios, "scenario", nil, "which to run, by name; may be repeated; all if not given")
	f.IntVar(&o.Seconds, "seconds", 30, "how long each side of a scenario is measured, over all rounds")
	f.IntVar(&o.Rounds, "rounds", 5, "over how many interleaved pairs the seconds are spread")
	f.IntVar(&o.Preload, "preload", 1_000_000, "how many events the log holds before anything is measured")
	f.IntVar(&o.Subscriptions, "subscriptions", 1_000_000, "how many subscriptions idle-million makes")
	f.IntVar(&o.IDs, "ids", 10_000_000, "how many remembered ids append-batch-ids has in the end")
	f.IntVar(&o.Pending, "pending", 1_000_000, "how many events recover-million leaves to be delivered")
	f.IntVar(&o.Streams, "streams", 1000, "how many streams the scenario streams holds open")
	f.StringVar(&o.Dir, "dir", os.TempDir(), "where the data is kept meanwhile; on a disk")
	f.StringVar(&o.URL, "url", "", "a running server to measure instead of one started for it; it must allow deliveries to this machine")
	f.StringVar(&o.DatabaseURL, "database-url", "", "a PostgreSQL on which databases are made to measure many nodes, instead of a directory; they are dropped in the end")
	f.StringVar(&key, "key", "", "its API key, of an admin")
	f.BoolVar(&asJSON, "json", false, "print JSON, as -o json does")
	variable(f, "key", "EVENTHOSE_API_KEY")
	variable(f, "database-url", "EVENTHOSE_DATABASE_URL")
	c.AddCommand(p.benchPartCommand())
	return c
}

// benchPartCommand is one of the processes that bench starts.
func (p *program) benchPartCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "part NAME",
		Short:   "One of the processes that bench starts",
		Example: "  eventhose bench part receiver",
		Hidden:  true,
		Args:    args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return bench.Part(c.Context(), args[0], p.in, p.out)
		},
	}
}

// progress is one line on a terminal's stderr that says how far a run is.
type progress struct {
	p        *program
	terminal bool
	began    time.Time
	scenario string
	width    int
}

func newProgress(p *program) *progress {
	f, ok := p.err.(*os.File)
	return &progress{p: p, terminal: ok && term.IsTerminal(int(f.Fd())), began: time.Now()}
}

// show is called from one goroutine at a time, or from several that may each miss a step.
func (g *progress) show(scenario, doing string, done, total int) {
	if scenario == "" {
		return
	}
	if !g.terminal {
		if scenario != g.scenario {
			g.scenario = scenario
			fmt.Fprintln(g.p.err, scenario)
		}
		return
	}
	const bar = 24
	line := fmt.Sprintf("%-16s ", scenario)
	if total > 0 {
		filled := min(bar, bar*done/total)
		line += "[" + strings.Repeat("=", filled) + strings.Repeat(" ", bar-filled) + "] "
	}
	line += fmt.Sprintf("%s  %s", doing, time.Since(g.began).Round(time.Second))
	g.write(line)
}

func (g *progress) write(line string) {
	pad := max(0, g.width-len(line))
	g.width = len(line)
	fmt.Fprint(g.p.err, "\r", line, strings.Repeat(" ", pad))
}

// clear takes the line away.
func (g *progress) clear() {
	if g.terminal && g.width > 0 {
		g.write("")
		fmt.Fprint(g.p.err, "\r")
	}
}
