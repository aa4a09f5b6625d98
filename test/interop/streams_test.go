package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
)

// restarted is a server that can be killed and come back, with its data and its address.
type restarted struct {
	t    *testing.T
	url  string
	args []string
	cmd  *exec.Cmd
}

func newRestarted(t *testing.T) *restarted {
	t.Helper()
	address := freeAddress(t)
	s := &restarted{t: t, url: "http://" + address, args: []string{"serve", "--listen", address, "--data", t.TempDir(), "--log-level", "warn"}}
	s.start()
	t.Cleanup(func() { s.stop(syscall.SIGTERM) })
	return s
}

func (s *restarted) start() {
	s.t.Helper()
	s.cmd = exec.Command(raced, s.args...)
	s.cmd.Env = append(os.Environ(), "EVENTHOSE_ADMIN_KEY="+adminKey, raceOptions)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/readyz", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		<-tick.C
	}
	s.t.Fatal("the server is not ready")
}

func (s *restarted) stop(how os.Signal) {
	if err := s.cmd.Process.Signal(how); err != nil {
		s.t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil && how == syscall.SIGTERM {
		s.t.Errorf("the server ended with %v", err)
	}
}

func (s *restarted) append(n int) {
	s.t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"type\":\"t%d\",\"data\":{\"text\":\"line\\nline\\r\\u2028 é\"}}\n", i%3)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/v1/tenants/default/events", strings.NewReader(b.String()))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		body, _ := io.ReadAll(res.Body)
		s.t.Fatalf("%s %s", res.Status, body)
	}
}

// Other people's clients follow the log through a kill and a restart of the server, and get every event once and in order:
// go-sse, grpc-go, and from npm eventsource and ws, which come with a ticket instead of a key, and graphql-ws and graphql-sse.
func TestStreamClientsResume(t *testing.T) {
	for name, client := range map[string]func(t *testing.T, ctx context.Context, s *restarted, got chan<- int){
		"go-sse":  followGoSSE,
		"grpc-go": followGRPC,
		"eventsource": func(t *testing.T, ctx context.Context, s *restarted, got chan<- int) {
			followNode(t, ctx, s, "eventsource", got)
		},
		"ws": func(t *testing.T, ctx context.Context, s *restarted, got chan<- int) {
			followNode(t, ctx, s, "ws", got)
		},
		"graphql-ws": func(t *testing.T, ctx context.Context, s *restarted, got chan<- int) {
			followGraphQL(t, ctx, s, "graphql-ws", got)
		},
		"graphql-sse": func(t *testing.T, ctx context.Context, s *restarted, got chan<- int) {
			followGraphQL(t, ctx, s, "graphql-sse", got)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRestarted(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			got := make(chan int)
			done := make(chan struct{})
			s.append(100)
			go func() {
				defer close(done)
				client(t, ctx, s, got)
			}()
			defer func() { cancel(); <-done }()
			for want := 1; want <= 400; want++ {
				select {
				case seq := <-got:
					if seq != want {
						t.Fatalf("event %d came where %d should", seq, want)
					}
				case <-ctx.Done():
					t.Fatalf("event %d did not come", want)
				}
				switch want {
				case 50:
					s.append(100)
				case 150:
					s.stop(syscall.SIGKILL)
					s.start()
					s.append(100)
				case 250:
					s.stop(syscall.SIGTERM)
					s.start()
				case 300:
					s.append(100)
				}
			}
		})
	}
}

func followGoSSE(t *testing.T, ctx context.Context, s *restarted, got chan<- int) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/tenants/default/events/stream", nil)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	client := sse.Client{Backoff: sse.Backoff{InitialInterval: 50 * time.Millisecond}}
	conn := client.NewConnection(req)
	conn.SubscribeMessages(func(e sse.Event) {
		var event struct {
			Sequence int
			Cursor   string
		}
		if err := json.Unmarshal([]byte(e.Data), &event); err != nil || event.Cursor != e.LastEventID {
			t.Errorf("%v: %+v", err, e)
		}
		select {
		case got <- event.Sequence:
		case <-ctx.Done():
		}
	})
	if err := conn.Connect(); ctx.Err() == nil {
		t.Errorf("it gave up: %v", err)
	}
}

func followNode(t *testing.T, ctx context.Context, s *restarted, kind string, got chan<- int) {
	var ticket struct{ Ticket string }
	call(t, http.MethodPost, s.url+"/v1/tenants/default/tickets", "", &ticket)
	route := map[string]string{"eventsource": "stream", "ws": "ws"}[kind]
	printed(t, ctx, exec.CommandContext(ctx, "node", "stream.mjs", kind, s.url+"/v1/tenants/default/events/"+route+"?ticket="+ticket.Ticket), got)
}

func followGraphQL(t *testing.T, ctx context.Context, s *restarted, kind string, got chan<- int) {
	printed(t, ctx, graphqlNode(ctx, kind, s.url+"/v1/tenants/default/graphql"), got)
}

// printed hands on the sequences that a program prints.
func printed(t *testing.T, ctx context.Context, node *exec.Cmd, got chan<- int) {
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.StdoutPipe()
	if err == nil {
		err = node.Start()
	}
	if err != nil {
		t.Errorf("node: %v (test/needs installs what it needs)", err)
		return
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var event struct{ Sequence int }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Errorf("node: %v: %s", err, lines.Text())
		}
		select {
		case got <- event.Sequence:
		case <-ctx.Done():
		}
	}
	if err := node.Wait(); ctx.Err() == nil {
		t.Errorf("node: %v", err)
	}
	t.Logf("%s", stderr.String())
}

// curl reads a stream, and goes on where it was.
func TestCurlFollows(t *testing.T) {
	s := newRestarted(t)
	s.append(30)
	stream := s.url + "/v1/tenants/default/events/stream"
	curl := func(lines int, args ...string) []string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "curl", append([]string{"-sSN", "-H", "Authorization: Bearer " + adminKey}, args...)...)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for scan := bufio.NewScanner(out); len(got) < lines && scan.Scan(); {
			got = append(got, scan.Text())
		}
		cancel()
		_ = cmd.Wait()
		return got
	}
	// Blocks of id, data and an empty line.
	got := curl(2+3*10, stream)
	if len(got) != 32 || got[0] != "retry: 1000" || got[1] != ":" {
		t.Fatalf("curl got %q", got)
	}
	cursor := ""
	for i := range 10 {
		id, data := got[2+3*i], got[3+3*i]
		if !strings.HasPrefix(id, "id: ") || !strings.HasPrefix(data, `data: {"id":"evt_`) || !strings.Contains(data, fmt.Sprintf(`"sequence":%d,`, i+1)) {
			t.Errorf("block %d is %s %s", i, id, data)
		}
		cursor = strings.TrimPrefix(id, "id: ")
	}
	got = curl(5, "-H", "Last-Event-ID: "+cursor, stream)
	if !strings.Contains(got[3], `"sequence":11,`) {
		t.Errorf("after the tenth: %q", got)
	}
	got = curl(21, "-H", "Accept: application/x-ndjson", stream+"?after="+cursor)
	if got[0] != `{"cursor":"`+cursor+`"}` || !strings.Contains(got[20], `"sequence":30,`) {
		t.Errorf("as NDJSON: %q", got)
	}
}
