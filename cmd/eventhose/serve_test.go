package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// process is the program as a process of its own, with its stderr line by line.
type process struct {
	*exec.Cmd
	lines chan string
}

// start runs "eventhose args…". The process must have ended by the end of the test.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := command(args...)
	p.Env = append(p.Env, env...)
	p.begin(t)
	return p
}

// command is "eventhose args…" before it is started.
func command(args ...string) *process {
	p := &process{Cmd: exec.Command("eventhose", args...), lines: make(chan string, 1000)}
	p.Env = append(os.Environ(), "GORACE="+raceOptions)
	return p
}

func (p *process) begin(t *testing.T) {
	t.Helper()
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { _ = p.Process.Kill() })
}

// line waits for a line of stderr that begins in this way, and answers the rest of it.
func (p *process) line(t *testing.T, prefix string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("stderr ended without a line %q", prefix)
			}
			if rest, found := strings.CutPrefix(line, prefix); found {
				return rest
			}
			t.Log(line)
		case <-deadline:
			t.Fatalf("no line %q within a minute", prefix)
		}
	}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end waits for the process and answers its exit code.
func (p *process) end(t *testing.T) int {
	t.Helper()
	for line := range p.lines {
		t.Log(line)
	}
	_ = p.Wait() // what counts is the code
	return p.ProcessState.ExitCode()
}

func dial(t *testing.T, url string, key string) *client.Client {
	t.Helper()
	c, err := client.New(url, eventhose.Secret(key))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// The first start makes an admin key and shows it; the second does not, and the key still works.
func TestServeMakesTheFirstKeyOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--data", dir)
	key, _, _ := strings.Cut(p.line(t, "admin key: "), " ")
	c := dial(t, p.line(t, "ready "), key)
	if _, err := c.Tenant("default").Append(t.Context(), eventhose.Event{Type: "a", ID: "kept", Data: []byte("1")}); err != nil {
		t.Error(err)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the data directory: %v, %v", info, err)
	}

	p = start(t, nil, "serve", "--listen", "127.0.0.1:0", "--data", dir)
	var lines []string
	for line := range p.lines {
		lines = append(lines, line)
		if url, ready := strings.CutPrefix(line, "ready "); ready {
			if _, err := dial(t, url, key).Tenant("default").Event(t.Context(), "", "kept"); err != nil {
				t.Error(err)
			}
			p.signal(t, os.Interrupt)
		}
		if strings.Contains(line, "admin key") || strings.Contains(line, key) {
			t.Errorf("a key is shown again: %s", line)
		}
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d after %q", code, lines)
	}
}

// A start that fails shows no key, so the one after it makes one: nobody could get in otherwise.
func TestFirstKeyAfterAStartThatFailed(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--data", data, "--portal-origins", "nonsense")
	p.line(t, "error: --portal-origins: ")
	if code := p.end(t); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	p = start(t, nil, "serve", "--listen", "127.0.0.1:0", "--data", data)
	key, _, _ := strings.Cut(p.line(t, "admin key: "), " ")
	if _, err := dial(t, p.line(t, "ready "), key).Tenants(t.Context(), client.ListOptions{}); err != nil {
		t.Error(err)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// An admin key that no request could show is refused.
func TestLongestAdminKey(t *testing.T) {
	key := strings.Repeat("k", 512)
	p := start(t, []string{"EVENTHOSE_ADMIN_KEY=" + key}, "serve", "--listen", "127.0.0.1:0", "--data", t.TempDir())
	if _, err := dial(t, p.line(t, "ready "), key).Tenants(t.Context(), client.ListOptions{}); err != nil {
		t.Error(err)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	p = start(t, []string{"EVENTHOSE_ADMIN_KEY=" + key + "k"}, "serve", "--listen", "127.0.0.1:0", "--data", t.TempDir())
	p.line(t, "error: --admin-key: must be at most 512 bytes")
	if code := p.end(t); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}

// A data directory that cannot be used: what is wrong, and what to do.
func TestServeRefusals(t *testing.T) {
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	running := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--data", data)
	running.line(t, "ready ")
	refused := func(exit int, want string, args ...string) {
		t.Helper()
		p := start(t, nil, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
		p.line(t, want)
		p.line(t, "fix: ")
		if code := p.end(t); code != exit {
			t.Errorf("%s: exit code %d, want %d", want, code, exit)
		}
	}
	refused(5, "error: data: another process has "+data+" open", "--data", data)
	refused(2, "error: data: "+file+" is not a directory", "--data", file)
	refused(2, `error: --listen: "nonsense" is not`, "--data", data, "--listen", "nonsense")
	running.signal(t, syscall.SIGTERM)
	if code := running.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if err := os.Remove(filepath.Join(data, "secret.key")); err != nil {
		t.Fatal(err)
	}
	refused(2, "error: secret-key: "+filepath.Join(data, "secret.key")+" is missing", "--data", data)
}

// A delivery hangs: the first signal waits for it, the second does not.
func TestSecondSignalCutsShort(t *testing.T) {
	arrived := make(chan struct{}, 1)
	release := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-release
	}))
	defer receiver.Close()
	defer close(release)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(testKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"EVENTHOSE_ADMIN_KEY_FILE=" + file, "EVENTHOSE_LISTEN=127.0.0.1:0", "EVENTHOSE_DATA=" + t.TempDir(), "EVENTHOSE_ALLOW_NETWORKS=127.0.0.0/8", "EVENTHOSE_OUTPUT=json"}
	p := start(t, env, "serve")
	var ready struct{ Ready struct{ URL string } }
	if err := json.Unmarshal([]byte(`{"ready":`+p.line(t, `{"ready":`)), &ready); err != nil {
		t.Fatal(err)
	}
	c := dial(t, ready.Ready.URL, testKey)
	log := c.Tenant("default")
	if _, err := log.CreateSubscription(t.Context(), client.NewSubscription{Destination: eventhose.Destination{Type: "webhook", URL: receiver.URL}}); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(t.Context(), eventhose.Event{Type: "a", Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	<-arrived
	p.signal(t, syscall.SIGTERM)
	// Once the listener is gone the first signal has been heard, and the process waits for the delivery.
	refused(t, c)
	p.signal(t, syscall.SIGTERM)
	if code := p.end(t); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
}

// refused asks until the server answers no more, or answers that it stops.
func refused(t *testing.T, c *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for c.Ready(ctx) == nil {
	}
	if ctx.Err() != nil {
		t.Fatal("the server goes on after a signal")
	}
}

// Interrupted client commands end with 130.
func TestInterruptedReadEndsWith130(t *testing.T) {
	waiting := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(waiting)
		<-r.Context().Done()
	}))
	defer s.Close()
	p := start(t, nil, "events", "list", "--wait", "50s", "--url", s.URL)
	<-waiting
	p.signal(t, os.Interrupt)
	if code := p.end(t); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
}

// A command that goes on until a signal says by its exit code that one came, and has its own last words.
func TestInterruptedFollowersEndWith130(t *testing.T) {
	server := startServer(t)
	url := "http://" + server.address
	log := dial(t, url, testKey).Tenant("default")
	source, err := log.CreateSource(t.Context(), eventhose.Source{Provider: "inspect"})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"tail"}, {"sources", "inspect", string(source.ID)}} {
		for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			p := start(t, []string{"EVENTHOSE_URL=" + url, "EVENTHOSE_API_KEY=" + testKey}, args...)
			p.line(t, "ready: ")
			p.signal(t, s)
			var last string
			for line := range p.lines {
				last = line
			}
			if code := p.end(t); code != exitInterrupted || args[0] == "tail" && !strings.HasPrefix(last, "cursor ") || args[0] != "tail" && last != "" {
				t.Errorf("%v ended by %v with %d, after %q", args, s, code, last)
			}
		}
	}
}

// A database that does not answer, as behind a firewall, is one that cannot be reached.
func TestSilentDatabase(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	url := "postgres://" + silent.Addr().String() + "/x?sslmode=disable&connect_timeout=1"
	for _, args := range [][]string{{"migrate"}, {"serve", "--listen", "127.0.0.1:0", "--secret-key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}} {
		p := start(t, nil, append(args, "--database-url", url)...)
		p.line(t, "error: --database-url: the database cannot be reached now: ")
		if fix := p.line(t, "fix: "); strings.Contains(fix, "--timeout") {
			t.Errorf("fix: %s", fix)
		}
		if code := p.end(t); code != exitNetwork {
			t.Errorf("%s ends with %d, want %d", args[0], code, exitNetwork)
		}
	}
}

// A taken address is told with what to do about it, and dev without --listen takes another.
func TestTakenAddress(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	taken := s.Listener.Addr().String()
	p := start(t, nil, "serve", "--listen", taken, "--data", t.TempDir())
	p.line(t, "error: ")
	if fix := p.line(t, "fix: "); !strings.Contains(fix, "--listen") {
		t.Errorf("fix: %s", fix)
	}
	if code := p.end(t); code == 0 {
		t.Error("it started all the same")
	}
}
