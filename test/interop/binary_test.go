// Package interop_test looks at the built binary from outside: other people's code verifies what it sends, and the
// commands of the documents do what the documents say.
package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/eventhose/eventhose/internal/app" // what the binary is made of: when it changes, a remembered result is no more good
)

// raced is the binary, built with the race detector: that build is shared with the other tests.
var raced string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "eventhose-interop-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		raced = filepath.Join(dir, "eventhose")
		args := []string{"build", "-race", "-ldflags=-w", "-o", raced, "github.com/eventhose/eventhose/cmd/eventhose"}
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %s: %v\n%s", strings.Join(args, " "), err, out)
			return 1
		}
		return m.Run()
	}())
}

// raceOptions keeps the race detector from waiting a second at the end of each process.
const raceOptions = "GORACE=atexit_sleep_ms=0"

const adminKey = "ehk_test_0123456789abcdef"

// serve starts the raced binary's server and answers its URL. The server ends with the test, and must end well.
func serve(t *testing.T, args ...string) (url string) {
	t.Helper()
	return serveFrom(t, raced, args...)
}

// serveFrom is serve from another binary.
func serveFrom(t *testing.T, binary string, args ...string) (url string) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"serve", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--allow-networks", "127.0.0.0/8",
		"--log-level", "warn", "-o", "jsonl"}, args...)...)
	cmd.Env = append(os.Environ(), "EVENTHOSE_ADMIN_KEY="+adminKey, raceOptions)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line struct{ Ready struct{ URL string } }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Ready.URL != "" {
				ready <- line.Ready.URL
				continue
			}
			t.Log("server: ", lines.Text())
		}
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	select {
	case url = <-ready:
	case <-read:
		t.Fatal("the server ended before it was ready")
	case <-time.After(time.Minute):
		t.Fatal("the server was not ready within a minute")
	}
	return url
}

// The promise of the first minute: a signed event, delivered and verified, within three seconds of the start of the
// built binary. Other packages' tests share the machine, so the best of three starts counts.
func TestDevDeliversWithinThreeSeconds(t *testing.T) {
	best := time.Hour
	for range 3 {
		took := devStart(t)
		t.Logf("first delivered event after %v", took)
		if best = min(best, took); best <= 3*time.Second {
			return
		}
	}
	t.Errorf("the best of three took %v", best)
}

func devStart(t *testing.T) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	cmd := exec.CommandContext(ctx, raced, "dev", "--listen", "127.0.0.1:0")
	var out strings.Builder
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "ready") && took == 0 {
			took = time.Since(began)
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
			continue
		}
		t.Log("dev: ", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("dev: %v\n%s", err, out.String())
	}
	for _, want := range []string{"API key    ehk_dev_", "curl http://127.0.0.1:", "--> order.paid  evt_", "1 event, "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("dev did not print %q:\n%s", want, out.String())
		}
	}
	if took == 0 {
		t.Fatalf("dev never delivered:\n%s", out.String())
	}
	return took
}
