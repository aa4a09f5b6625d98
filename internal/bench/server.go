package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// server is the server that is measured: a child, or one that was running.
type server struct {
	url    string
	key    eventhose.Secret
	client *client.Client
	b      *bench
	dir    string
	cmd    *exec.Cmd
	log    string
	ended  chan error
	peak   int64 // of resident memory that was seen
	// database, if set, has the data; node names the server among several then.
	database *database
	node     string
}

// startServer starts a server over a data directory, or answers the one that is running.
func (b *bench) startServer(ctx context.Context, dir string, d *database) (*server, error) {
	s := &server{url: b.URL, key: b.Key, b: b, dir: dir, database: d, node: "first"}
	if s.url == "" {
		s.key = eventhose.Secret("ehk_bench_" + strings.ToLower(rand.Text()))
		if err := s.start(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	s.client, err = client.New(s.url, s.key, client.WithUserAgent("eventhose-bench"))
	return s, err
}

// start starts the child and waits until it says where it listens.
func (s *server) start(ctx context.Context) error {
	s.log = filepath.Join(s.dir, "server-"+s.node+".log")
	if err := os.Remove(s.log); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	listen := "127.0.0.1:0"
	if s.url != "" { // the same place again
		listen = strings.TrimPrefix(s.url, "http://")
	}
	c := s.b.Command
	s.cmd = exec.Command(c[0], append(c[1:len(c):len(c)], "serve", "--listen", listen, "--allow-networks", "127.0.0.0/8")...)
	if s.database == nil {
		s.cmd.Args = append(s.cmd.Args, "--data", filepath.Join(s.dir, "data"))
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EVENTHOSE_") {
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	s.cmd.Env = append(s.cmd.Env, "EVENTHOSE_ADMIN_KEY="+string(s.key))
	if s.database != nil {
		s.cmd.Env = append(s.cmd.Env, "EVENTHOSE_DATABASE_URL="+s.database.url, "EVENTHOSE_SECRET_KEY="+s.database.secretKey)
	}
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; {
		if s.url, err = s.ready(); err != nil || s.url != "" {
			return err
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("the server has ended: %w %s", err, s.lastWords())
		default:
		}
		if time.Now().After(deadline) || !pause(ctx, time.Millisecond) {
			return errors.Join(errors.New("the server does not say that it is ready"), ctx.Err(), s.kill())
		}
	}
}

// ready reads the line that says where the server listens, "" if there is none yet.
func (s *server) ready() (string, error) {
	f, err := os.Open(s.log)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if at, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			return at, nil
		}
	}
	return "", nil
}

func (s *server) lastWords() string {
	text, _ := os.ReadFile(s.log)
	return string(text[max(0, len(text)-2048):])
}

// kill ends the server as a crash does.
func (s *server) kill() error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Kill()
	err := <-s.ended
	s.ended <- err
	return nil
}

// stop ends the server in order.
func (s *server) stop() error {
	if s.client != nil {
		s.client.Close()
	}
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(os.Interrupt)
	select {
	case <-s.ended: // it says that it was interrupted
		return nil
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the server did not stop"), s.kill())
	}
}

// gauges are what the server says of itself.
type gauges struct {
	cpu        time.Duration
	rss        int64
	goroutines int64
	fsyncs     int64
	pending    int64
	inFlight   int64
}

func (s *server) gauges(ctx context.Context) (g gauges, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/metrics", nil)
	if err != nil {
		return g, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return g, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return g, err
	}
	value := func(name string) float64 {
		for line := range bytes.Lines(text) {
			if rest, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
				v, _ := strconv.ParseFloat(strings.TrimSpace(string(rest)), 64)
				return v
			}
		}
		return 0
	}
	g = gauges{cpu: time.Duration(value("process_cpu_seconds_total") * 1e9), rss: int64(value("process_resident_memory_bytes")), goroutines: int64(value("go_goroutines")),
		fsyncs: int64(value("eventhose_fsync_duration_seconds_count")), pending: int64(value("eventhose_pending_deliveries")), inFlight: int64(value("eventhose_in_flight_deliveries"))}
	s.peak = max(s.peak, g.rss)
	return g, nil
}

// quiet waits until the server has nothing to do, for at most a while, and answers what it then says of itself: what it
// does after an event was delivered belongs to that event's cost.
func (s *server) quiet(ctx context.Context, atMost time.Duration) (gauges, error) {
	for deadline := time.Now().Add(atMost); ; {
		before, err := s.gauges(ctx)
		if err != nil || !pause(ctx, 200*time.Millisecond) {
			return before, errors.Join(err, ctx.Err())
		}
		after, err := s.gauges(ctx)
		if err != nil || after.cpu-before.cpu <= 20*time.Millisecond || time.Now().After(deadline) {
			return after, err
		}
	}
}

// blackHole is an address that answers nothing: its queue of connections is full and nobody takes any out of it.
type blackHole struct {
	listener net.Listener
	filling  []net.Conn
}

func newBlackHole() (*blackHole, error) {
	l, err := listenFull()
	if err != nil {
		return nil, err
	}
	h := &blackHole{listener: l}
	for range 16 {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 200*time.Millisecond)
		if err != nil {
			return h, nil //nolint:nilerr // it is full, which was wanted
		}
		h.filling = append(h.filling, c)
	}
	return nil, errors.Join(errors.New("the system takes connections that nobody accepts"), h.close())
}

func (h *blackHole) close() error {
	for _, c := range h.filling {
		c.Close()
	}
	return h.listener.Close()
}

// endpoint is the URL of a group at the receiver.
func endpoint(receiver string, group int) string {
	return receiver + "/r/" + strconv.Itoa(group)
}

// host is the address in a URL.
func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}
