package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table writes a report for people.
func (r Report) Table(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %d MiB, %s %s, %s, %s\n\n", or(m.CPU, "unknown CPU"), m.Cores, m.Memory>>20, m.OS, m.Kernel, or(m.FileSystem, "unknown file system"), m.Durability)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tEVENTS/S\tRATIO\t(BOUNDS)\tTO\tP50\tP95\tP99\tMAX\tCPU/EVENT\tRSS\tLOST\tTWICE\tGOAL")
	for _, s := range r.Scenarios {
		ratio, bounds := "", ""
		if s.Baseline != "" {
			ratio, bounds = fmt.Sprintf("%.2f", s.Ratio), fmt.Sprintf("(%.2f–%.2f)", s.RatioLow, s.RatioHigh)
		}
		goal := ""
		if s.Met != nil {
			goal = "missed"
			if *s.Met {
				goal = "met"
			}
		}
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", s.Name, s.EventsPerS, ratio, bounds, s.Baseline,
			ms(s.P50), ms(s.P95), ms(s.P99), ms(s.Max), us(s.CPU), mib(s.PeakRSS), s.Lost, s.Duplicates, goal)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Scenarios {
		if err := s.details(w); err != nil {
			return err
		}
	}
	return nil
}

// details writes what a scenario has beside what all have.
func (s Result) details(w io.Writer) error {
	fmt.Fprintf(w, "\n%s", s.Name)
	if s.Goal != "" {
		fmt.Fprintf(w, "  (goal: %s)", s.Goal)
	}
	fmt.Fprintln(w)
	var parts []string
	if s.BaselinePerS > 0 {
		parts = append(parts, fmt.Sprintf("%s %.0f/s, p50 %s, p99 %s", s.Baseline, s.BaselinePerS, ms(s.BaselineP50), ms(s.BaselineP99)))
	}
	for _, name := range slices.Sorted(maps.Keys(s.CPUOf)) {
		parts = append(parts, fmt.Sprintf("%s %s an event", name, us(s.CPUOf[name])))
	}
	if s.Fsyncs > 0 {
		parts = append(parts, fmt.Sprintf("%d fsyncs", s.Fsyncs))
	}
	if s.FsyncP99 > 0 {
		parts = append(parts, fmt.Sprintf("an fsync p50 %s, p99 %s", ms(s.FsyncP50), ms(s.FsyncP99)))
	}
	for _, name := range slices.Sorted(maps.Keys(s.More)) {
		parts = append(parts, fmt.Sprintf("%s %.4g", strings.ReplaceAll(name, "_", " "), s.More[name]))
	}
	_, err := fmt.Fprintf(w, "  %s\n", strings.Join(parts, "\n  "))
	return err
}

func ms(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3g ms", v)
}

func us(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3g µs", v)
}

func mib(v int64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%d MiB", v>>20)
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
