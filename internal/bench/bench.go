// Package bench measures Eventhose: the real server in a process of its own, a receiver in another, the load in a third,
// and beside each figure a baseline that does the least that anybody would have to do, in the same run.
//
// Two cores of a shared machine give other absolute numbers every minute, so what counts is the ratio. A scenario runs in
// rounds, each of them the baseline and the scenario one after the other; each round has a ratio, and the median of
// them is reported with the interval in which the true median lies.
//
// The parts (receiver.go, load.go, plain.go, barefile.go, inprocess.go) are this same program, started again as a child;
// a part takes one JSON document a line on stdin and answers one on stdout.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

// Options of a run.
type Options struct {
	// Scenarios to run, by name; none means all.
	Scenarios []string
	// Seconds is how long each side of a scenario is measured, over all rounds. Figures of less than 30 s are not worth telling.
	Seconds int
	// Rounds is over how many interleaved pairs the seconds are spread.
	Rounds int
	// Preload is how many events the log holds before anything is measured.
	Preload int
	// Subscriptions is how many idle ones the scenario idle-million makes, IDs how many remembered ids append-batch-ids has,
	// Pending how many events recover-million leaves behind.
	Subscriptions, IDs, Pending int
	// Streams is how many the scenario streams holds open.
	Streams int
	// URL and Key name a running server to measure instead of one that is started here. Its operator must allow
	// deliveries to 127.0.0.0/8 of the machine that the benchmark runs on.
	URL string
	Key eventhose.Secret
	// DatabaseURL, if set, has the servers that are started here keep their data in databases that are made for them on that
	// PostgreSQL, and are dropped in the end; its role must be allowed to make databases.
	DatabaseURL string
	// Dir is where servers that are started here keep their data; it must not be in memory.
	Dir string
	// Command starts this program again; the name of a part, or a command line of the server, is appended.
	Command []string
	// Progress is told what is going on; it may be nil.
	Progress func(scenario, doing string, done, total int)
	Logger   *slog.Logger
}

// Report is what a run found.
type Report struct {
	Machine   Machine  `json:"machine"`
	Scenarios []Result `json:"scenarios"`
}

// Result is one scenario. Times are milliseconds, rates are of events.
type Result struct {
	Name     string `json:"name"`
	Baseline string `json:"baseline,omitempty"`
	// EventsPerS and BaselinePerS are medians over the rounds, Ratio is the median of the rounds' ratios, and RatioLow and
	// RatioHigh bound it (median.go).
	EventsPerS   float64 `json:"events_per_s"`
	BaselinePerS float64 `json:"baseline_per_s,omitempty"`
	Ratio        float64 `json:"ratio"`
	RatioLow     float64 `json:"ratio_low,omitempty"`
	RatioHigh    float64 `json:"ratio_high,omitempty"`
	P50          float64 `json:"p50_ms"`
	P95          float64 `json:"p95_ms"`
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
	BaselineP50  float64 `json:"baseline_p50_ms,omitempty"`
	BaselineP99  float64 `json:"baseline_p99_ms,omitempty"`
	// CPU is the server's, user and system, per event; CPUOf has it by process, the baseline's included.
	CPU     float64            `json:"cpu_us_per_event"`
	CPUOf   map[string]float64 `json:"cpu_us_by_process,omitempty"`
	PeakRSS int64              `json:"peak_rss_bytes,omitempty"`
	// Fsyncs of the server's log, and how long one took beside it.
	Fsyncs     int64   `json:"fsyncs,omitempty"`
	FsyncP50   float64 `json:"fsync_p50_ms,omitempty"`
	FsyncP99   float64 `json:"fsync_p99_ms,omitempty"`
	Lost       int64   `json:"lost"`
	Duplicates int64   `json:"duplicates"`
	Rounds     int     `json:"rounds,omitempty"`
	// More are figures of this scenario alone; their names end with the unit.
	More map[string]float64 `json:"more,omitempty"`
	// Goal says in words what is aimed at, and Met whether it was; a scenario without a goal has neither.
	Goal string `json:"goal,omitempty"`
	Met  *bool  `json:"met,omitempty"`
}

func (r *Result) more(name string, value float64) {
	if r.More == nil {
		r.More = map[string]float64{}
	}
	r.More[name] = value
}

func (r *Result) goal(words string, met bool) { r.Goal, r.Met = words, &met }

// scenario is one entry of the list.
type scenario struct {
	name string
	// alone says that it starts a server of its own, database that it can be measured on a database.
	alone, database bool
	run             func(b *bench, ctx context.Context, r *Result) error
}

// scenarios is the list, in the order in which they run.
func scenarios() []scenario {
	return []scenario{
		{"plain-loop", false, true, (*bench).plainLoop},
		{"append-batch", false, true, (*bench).appendBatch},
		{"append-batch-embedded", true, false, (*bench).appendEmbedded},
		{"append-batch-ids", true, false, (*bench).appendIDs},
		{"append-single", false, true, (*bench).appendSingle},
		{"deliver", false, true, (*bench).deliver},
		{"deliver-thousand", false, true, (*bench).deliverThousand},
		{"deliver-single", false, true, (*bench).deliverSingle},
		{"deliver-batch", false, true, (*bench).deliverBatch},
		{"latency", false, true, (*bench).latency},
		{"hang-one", false, true, (*bench).hangOne},
		{"dead-thousand", true, false, (*bench).deadThousand},
		{"noisy-tenant", false, true, (*bench).noisyTenant},
		{"overload", true, false, (*bench).overload},
		{"idle-million", true, false, (*bench).idleMillion},
		{"recover-million", true, false, (*bench).recoverMillion},
		{"streams", false, true, (*bench).streams},
		{"inbound", false, true, (*bench).inbound},
		{"read-back", true, false, (*bench).readBack},
		{"two-nodes", true, true, (*bench).twoNodes},
	}
}

// Names lists the scenarios.
func Names() []string {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return names
}

// bench is one run.
type bench struct {
	Options
	report   Report
	scenario string
	step     int
	shared   *rig // the server and the parts that scenarios share
}

// Run measures. A scenario that fails ends the run; what was measured before is in the report.
func Run(ctx context.Context, o Options) (Report, error) {
	b := &bench{Options: o}
	if err := b.check(); err != nil {
		return Report{}, err
	}
	b.report.Machine = machine(b.Dir)
	err := b.run(ctx)
	if b.shared != nil {
		err = errors.Join(err, b.shared.close())
	}
	return b.report, err
}

func (b *bench) check() error {
	for _, name := range b.Scenarios {
		if !slices.Contains(Names(), name) {
			return eventhose.Invalid("--scenario", "must be one of %s", strings.Join(Names(), ", "))
		}
	}
	switch {
	case b.Seconds < 1:
		return eventhose.Invalid("--seconds", "must be at least 1")
	case b.Rounds < 1:
		return eventhose.Invalid("--rounds", "must be at least 1")
	case b.Preload < 0 || b.Subscriptions < 1 || b.IDs < 1 || b.Pending < 1 || b.Streams < 1:
		return eventhose.Invalid("--preload", "and the other counts must not be negative")
	}
	if b.Progress == nil {
		b.Progress = func(string, string, int, int) {}
	}
	if b.Logger == nil {
		b.Logger = slog.New(slog.DiscardHandler)
	}
	if b.URL != "" && b.DatabaseURL != "" {
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--database-url", Message: "is for servers that are started here", Fix: "leave out --url"}
	}
	if b.URL != "" {
		return nil
	}
	if b.DatabaseURL == "" && inMemory(b.Dir) {
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--dir", Message: b.Dir + " is in memory, where an fsync costs nothing", Fix: "name a directory on a disk"}
	}
	return nil
}

func (b *bench) run(ctx context.Context) error {
	for _, s := range scenarios() {
		if len(b.Scenarios) > 0 && !slices.Contains(b.Scenarios, s.name) {
			continue
		}
		if s.alone && b.URL != "" {
			if len(b.Scenarios) > 0 {
				return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--scenario", Message: s.name + " stops and starts its server, so it needs one of its own", Fix: "leave out --url"}
			}
			continue
		}
		if b.DatabaseURL != "" && !s.database {
			if len(b.Scenarios) > 0 {
				return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--scenario", Message: s.name + " is not measured on a database", Fix: "leave out --database-url"}
			}
			continue
		}
		if b.DatabaseURL == "" && s.name == "two-nodes" && len(b.Scenarios) == 0 {
			continue
		}
		b.scenario, b.step = s.name, 0
		r := Result{Name: s.name}
		if err := s.run(b, ctx, &r); err != nil {
			return fmt.Errorf("scenario %s: %w", s.name, err)
		}
		b.report.Scenarios = append(b.report.Scenarios, r)
	}
	b.Progress("", "", 0, 0)
	return nil
}

// tell says what the scenario is doing, and how far it is.
func (b *bench) tell(doing string, done, total int) { b.Progress(b.scenario, doing, done, total) }

// round is how long one side of one round is measured.
func (b *bench) round() time.Duration {
	return time.Duration(b.Seconds) * time.Second / time.Duration(b.Rounds)
}

// Part runs one of the parts that Options.Command starts, until in ends. name is the part's.
func Part(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	run := map[string]func(context.Context, *orders) error{
		partReceiver: receive, partLoad: load, partPlain: plain, partBareFile: bareFile, partInProcess: inProcess, partPgxLoop: pgxLoop, partReaders: read,
	}[name]
	if run == nil {
		return eventhose.Invalid("part", "is not a part of the benchmark")
	}
	return run(ctx, newOrders(in, out))
}

// temporary makes a directory for a server's data.
func (b *bench) temporary() (string, error) {
	dir, err := os.MkdirTemp(b.Dir, "eventhose-bench-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the data: %w", err)
	}
	return dir, nil
}
