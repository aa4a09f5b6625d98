package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

var update = flag.Bool("update", false, "write docs/cli.md and the golden parts of testdata")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"eventhose": main})
}

// raceOptions keeps the race detector from waiting a second at the end of each process.
const raceOptions = "atexit_sleep_ms=0"

const testKey = "ehk_test_0123456789abcdef"

// The command line as its users drive it: each script runs the program as a process of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", raceOptions)
			e.Setenv("CSI", "\u009b") // what terminals take for the beginning of a command
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"server":   server,
			"receiver": receive,
			"capture":  capture,
			"post":     post,
		},
	})
}

// exits CODE COMMAND…: the command ends with exactly this code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// server [DIR]: a server of its own for this script, on a data directory, which the environment then names.
func server(ts *testscript.TestScript, _ bool, args []string) {
	data := append(args, "server-data")[0]
	a, err := app.New(app.Options{Listen: "127.0.0.1:0", Data: ts.MkAbs(data), BackupDir: ts.MkAbs("server-backups"), AdminKey: testKey,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	ts.Check(err)
	ts.Check(a.Start(context.Background()))
	ts.Defer(func() {
		if err := a.Stop(context.Background()); err != nil {
			ts.Logf("stop: %v", err)
		}
	})
	ts.Setenv("EVENTHOSE_URL", "http://"+a.Addr())
	ts.Setenv("EVENTHOSE_API_KEY", testKey)
}

// receiver NAME STATUS…: a receiver whose URL is in $NAME; it answers with each status in turn, and then with the last.
func receive(ts *testscript.TestScript, _ bool, args []string) {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		status, _ := strconv.Atoi(args[min(int(n.Add(1)), len(args)-1)])
		w.WriteHeader(status)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// post STATUS URL SECRET BODY: a webhook signed as GitHub does it, which is answered with this status.
func post(ts *testscript.TestScript, _ bool, args []string) {
	mac := hmac.New(sha256.New, []byte(args[2]))
	mac.Write([]byte(args[3]))
	req, err := http.NewRequest(http.MethodPost, args[1], strings.NewReader(args[3]))
	ts.Check(err)
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	res.Body.Close()
	if got := strconv.Itoa(res.StatusCode); got != args[0] {
		ts.Fatalf("status %s, want %s", got, args[0])
	}
}

// capture NAME MEMBER: a member of the JSON object on stdout, in $NAME.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	var v map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	switch v := v[args[1]].(type) {
	case string:
		ts.Setenv(args[0], v)
	case float64:
		ts.Setenv(args[0], strconv.FormatFloat(v, 'f', -1, 64))
	default:
		ts.Fatalf("no member %q that is text or a number", args[1])
	}
}

func everyCommand(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		everyCommand(sub, visit)
	}
}

func TestEveryCommandIsExplained(t *testing.T) {
	p := &program{out: io.Discard, err: io.Discard, env: os.LookupEnv}
	variables := map[string]string{}
	everyCommand(p.root(), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example, or no line of help", path)
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(line, "eventhose ") {
				t.Errorf("%s: example %q is not an indented command", path, line)
			}
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: %q ends with a full stop", path, c.Short)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no help", path, f.Name)
			}
			// One variable may mean one thing only.
			name := environment(c, f)
			if other, taken := variables[name]; taken && other != f.Name {
				t.Errorf("%s means --%s and --%s", name, other, f.Name)
			}
			variables[name] = f.Name
		})
	})
	for _, name := range []string{"EVENTHOSE_LISTEN", "EVENTHOSE_DATA", "EVENTHOSE_ADMIN_KEY", "EVENTHOSE_ALLOW_NETWORKS", "EVENTHOSE_SECRET_KEY",
		"EVENTHOSE_LOG_LEVEL", "EVENTHOSE_URL", "EVENTHOSE_API_KEY", "EVENTHOSE_TENANT"} {
		if variables[name] == "" {
			t.Errorf("no flag reads %s", name)
		}
	}
}

func TestEveryCodeHasAnExitCode(t *testing.T) {
	for _, code := range eventhose.Codes() {
		got := describe(&client.Error{Err: &eventhose.Error{Code: code}}).exit
		if (got == exitFailure) != (code == eventhose.CodeInternal) {
			t.Errorf("%s exits with %d", code, got)
		}
	}
}

// docs/cli.md is written from the commands themselves.
func TestReferencePage(t *testing.T) {
	p := &program{out: io.Discard, err: io.Discard, env: os.LookupEnv}
	var b bytes.Buffer
	b.WriteString("# The command line\n\nWritten by `go test ./cmd/eventhose -run TestReferencePage -update`.\n")
	everyCommand(p.root(), func(c *cobra.Command) {
		fmt.Fprintf(&b, "\n## %s\n\n", c.CommandPath())
		long := c.Long
		if long == "" {
			long = c.Short + "."
		}
		fmt.Fprintf(&b, "%s\n\n```\n%s\n```\n", long, c.UseLine())
		fmt.Fprintf(&b, "\nFor example:\n\n```sh\n%s\n```\n", strings.TrimPrefix(strings.ReplaceAll("\n"+c.Example, "\n  ", "\n"), "\n"))
		var flags []*pflag.Flag
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				flags = append(flags, f)
			}
		})
		if len(flags) > 0 {
			b.WriteString("\n| flag | environment | default | |\n|---|---|---|---|\n")
		}
		for _, f := range flags {
			value := f.DefValue
			if slices.Contains([]string{"", "[]", "0", "0s", "false"}, value) {
				value = ""
			} else {
				value = "`" + value + "`"
			}
			usage, _, _ := strings.Cut(f.Usage, " [$")
			fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", f.Name, environment(c, f), value, strings.ReplaceAll(usage, "|", `\|`))
		}
	})
	file := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Error("docs/cli.md is not what the commands say; run this test with -update")
	}
}
