package interop_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The benchmark runs, loses nothing and delivers nothing twice. What it measures here says nothing: it runs for a moment, with
// the race detector. Left out are the scenarios that are others with more of the same, and take long.
func TestBench(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(".", "bench-") // the usual directory may be in memory, which the benchmark refuses
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	scenarios := []string{"plain-loop", "append-batch", "append-batch-embedded", "append-batch-ids", "deliver", "deliver-batch", "latency", "hang-one", "overload",
		"idle-million", "recover-million", "streams", "read-back"}
	cmd := exec.Command(raced, "bench", "--scenario", strings.Join(scenarios, ","), "--seconds", "1", "--rounds", "1", "--preload", "2000", "--subscriptions", "300", "--ids", "2000", "--pending", "2000", "--streams", "30", "--dir", dir, "--json")
	cmd.Env = append(os.Environ(), raceOptions)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	var report struct {
		Scenarios []struct {
			Name             string
			Baseline         string
			EventsPerS       float64 `json:"events_per_s"`
			Ratio            float64
			P50              float64 `json:"p50_ms"`
			CPU              float64 `json:"cpu_us_per_event"`
			Lost, Duplicates int
		}
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	seen := map[string]bool{}
	for _, s := range report.Scenarios {
		seen[s.Name] = true
		if s.Lost != 0 || s.Duplicates != 0 && s.Name != "recover-million" || s.EventsPerS <= 0 || s.Baseline != "" && s.Ratio <= 0 {
			t.Errorf("%+v", s)
		}
	}
	for _, name := range scenarios {
		if !seen[name] {
			t.Errorf("%s was not measured", name)
		}
	}
}
