package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

// until asks for a fact until it is there.
func until(t *testing.T, what string, fact func(ctx context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		there, err := fact(ctx)
		if there && err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within a minute: %v", what, err)
		}
	}
}

// sink is a receiver that is well, or not, and remembers who has arrived.
type sink struct {
	*httptest.Server
	mu   sync.Mutex
	well bool
	got  map[string]int
}

func newSink(t *testing.T) *sink {
	s := &sink{got: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if id := r.Header.Get("webhook-id"); s.well || !strings.HasPrefix(id, "bad") {
			s.got[id]++
		} else {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[id]
}

// A killed server's directory is copied by a program that is killed itself and run again, and a node on the database goes on where the
// server stopped: readers with their cursors, clients with their ids, subscriptions with what they have delivered and what not.
func TestCopyServesOn(t *testing.T) {
	database, data := pgtest.Database(t), filepath.Join(t.TempDir(), "data")
	env := []string{"EVENTHOSE_ADMIN_KEY=" + testKey, "EVENTHOSE_LISTEN=127.0.0.1:0", "EVENTHOSE_ALLOW_NETWORKS=127.0.0.0/8"}
	receiver := newSink(t)
	old := start(t, env, "serve", "--data", data)
	before := useServer(t, dial(t, old.line(t, "ready "), testKey), receiver)
	old.signal(t, syscall.SIGKILL)
	old.end(t)

	if err := exec.CommandContext(t.Context(), "eventhose", "migrate", "--database-url", database).Run(); err != nil {
		t.Fatal(err)
	}
	release := blockRecords(t, database)
	killed := start(t, nil, "copy", "--from", data, "--to", database)
	until(t, "the copy waits for the lock", func(ctx context.Context) (waits bool, err error) {
		err = askDatabase(ctx, database, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'eventhose.records'::regclass)", &waits)
		return waits, err
	})
	killed.signal(t, syscall.SIGKILL)
	killed.end(t)
	refused := start(t, append(env, "EVENTHOSE_SECRET_KEY_FILE="+filepath.Join(data, "secret.key")), "serve", "--database-url", database)
	if line := refused.line(t, "error: "); !strings.Contains(line, "a copy that is not finished") {
		t.Error(line)
	}
	if code := refused.end(t); code != exitConflict {
		t.Errorf("exit code %d, want %d", code, exitConflict)
	}
	release()

	keyFile := copyAgain(t, data, database)
	node := start(t, append(env, "EVENTHOSE_SECRET_KEY_FILE="+keyFile), "serve", "--database-url", database)
	goOnWithServer(t, dial(t, node.line(t, "ready "), testKey), receiver, before)
	node.signal(t, syscall.SIGTERM)
	if code := node.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// used is what a server's clients know of it.
type used struct {
	cursor, silent eventhose.Cursor
	sub            eventhose.SubscriptionID
	secret         eventhose.Secret
	attempts       int
}

const copiedEvents = 50

func useServer(t *testing.T, c *client.Client, receiver *sink) (u used) {
	t.Helper()
	log := c.Tenant("default")
	sub, err := log.CreateSubscription(t.Context(), client.NewSubscription{Retry: eventhose.Retry{Schedule: []eventhose.Duration{0}},
		Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: receiver.URL}})
	if err != nil {
		t.Fatal(err)
	}
	u.sub, u.secret = sub.ID, sub.Secret
	if _, err := c.PutTenant(t.Context(), eventhose.Tenant{ID: "silent"}); err != nil {
		t.Fatal(err)
	}
	events := []eventhose.Event{{Type: "a", ID: "bad-1", Data: []byte("1")}}
	for i := range copiedEvents - 1 {
		events = append(events, eventhose.Event{Type: "a", ID: fmt.Sprintf("good-%d", i), Key: "k", Data: fmt.Appendf(nil, "%d", i)})
	}
	if _, err := log.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	until(t, "one is parked, all others are delivered", func(ctx context.Context) (bool, error) {
		parked, err := log.Parked(ctx, u.sub, eventhose.ParkedDead, client.ListOptions{})
		if err != nil || len(parked.Data) != 1 {
			return false, err
		}
		all, err := log.Attempts(ctx, u.sub, client.ListOptions{Limit: 1000})
		u.attempts = len(all.Data)
		return u.attempts == copiedEvents, err
	})
	for tenant, cursor := range map[eventhose.TenantID]*eventhose.Cursor{"default": &u.cursor, "silent": &u.silent} {
		page, err := c.Tenant(tenant).Read(t.Context(), client.ReadOptions{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		*cursor = page.Cursor
	}
	return u
}

// blockRecords keeps everybody from writing records until it is released.
func blockRecords(t *testing.T, database string) (release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE eventhose.records IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	return func() { conn.Close(context.Background()) }
}

func askDatabase(ctx context.Context, database, sql string, into ...any) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, sql).Scan(into...)
}

// copyAgain runs the command to its end, and once more, and answers the key file that it names.
func copyAgain(t *testing.T, data, database string) (keyFile string) {
	t.Helper()
	var first app.Copied
	for round := range 2 {
		c := exec.CommandContext(t.Context(), "eventhose", "copy", "--from", data, "-o", "json")
		c.Env = append(c.Environ(), "GORACE="+raceOptions, "EVENTHOSE_COPY_TO="+database)
		var stderr strings.Builder
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		var done app.Copied
		if err := json.Unmarshal(out, &done); err != nil || done.Took <= 0 {
			t.Errorf("%s: %v", out, err)
		}
		done.Took = 0
		if want := (app.Copied{Logs: 1, Events: copiedEvents, Bytes: done.Bytes, Subscriptions: 1, Attempts: copiedEvents, Records: done.Records}); done != want || done.Records < 4 || done.Bytes < copiedEvents {
			t.Errorf("%+v, want %+v", done, want)
		}
		if round == 1 && (done != first || !strings.Contains(stderr.String(), `"finished before"`)) {
			t.Errorf("again: %+v, was %+v\n%s", done, first, stderr.String())
		}
		first = done
		for line := range strings.Lines(stderr.String()) {
			var said struct {
				File string `json:"secret_key_file"`
			}
			if json.Unmarshal([]byte(line), &said) == nil && said.File != "" {
				keyFile = said.File
			}
		}
	}
	if want := filepath.Join(data, "secret.key"); keyFile != want {
		t.Errorf("the key file is %q, want %q", keyFile, want)
	}
	return keyFile
}

func goOnWithServer(t *testing.T, c *client.Client, receiver *sink, before used) {
	t.Helper()
	log := c.Tenant("default")
	for tenant, cursor := range map[eventhose.TenantID]eventhose.Cursor{"default": before.cursor, "silent": before.silent} {
		page, err := c.Tenant(tenant).Read(t.Context(), client.ReadOptions{After: cursor})
		if err != nil || len(page.Events) > 0 {
			t.Errorf("a reader of %s goes on: %+v, %v", tenant, page, err)
		}
	}
	all, err := log.Read(t.Context(), client.ReadOptions{Limit: 100})
	if err != nil || len(all.Events) != copiedEvents || string(all.Events[copiedEvents-1].Data) != fmt.Sprint(copiedEvents-2) {
		t.Errorf("%d events, %v", len(all.Events), err)
	}
	placed, err := log.Append(t.Context(), eventhose.Event{Type: "a", ID: "good-0", Key: "k", Data: []byte("0")}, eventhose.Event{Type: "a", ID: "good-new", Data: []byte("1")})
	if err != nil || !placed[0].Duplicate || placed[0].Sequence != 2 || placed[1].Duplicate || placed[1].Sequence != copiedEvents+1 {
		t.Errorf("%+v, %v", placed, err)
	}
	var coded *eventhose.Error
	if _, err := log.Append(t.Context(), eventhose.Event{Type: "a", ID: "good-0", Key: "k", Data: []byte(`"other"`)}); !errors.As(err, &coded) || coded.Code != eventhose.CodeConflict {
		t.Errorf("the id of another event: %v", err)
	}
	if secrets, err := log.Secrets(t.Context(), before.sub); err != nil || len(secrets) != 1 || secrets[0].Secret != before.secret {
		t.Errorf("the secret of the subscription: %v", err)
	}
	if list, err := log.Attempts(t.Context(), before.sub, client.ListOptions{Limit: 1000}); err != nil || len(list.Data) < before.attempts {
		t.Errorf("%d attempts, %v, were %d", len(list.Data), err, before.attempts)
	}
	receiver.mu.Lock()
	receiver.well = true
	receiver.mu.Unlock()
	if n, err := log.Redrive(t.Context(), before.sub, "bad-1"); err != nil || n != 1 {
		t.Errorf("%d go again, %v", n, err)
	}
	until(t, "what was new and what was parked arrive", func(context.Context) (bool, error) {
		return receiver.times("good-new") == 1 && receiver.times("bad-1") == 1, nil
	})
	if n := receiver.times("good-1"); n != 1 {
		t.Errorf("what was delivered before the copy came %d times", n)
	}
}

// What cannot be copied is told with what to do, and with the exit code of its kind.
func TestCopyRefusals(t *testing.T) {
	data, nothing := filepath.Join(t.TempDir(), "data"), t.TempDir()
	running := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--data", data)
	running.line(t, "ready ")
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{exitUsage, "--from is missing", nil},
		{exitUsage, "--to is missing", []string{"--from", data}},
		{exitConflict, "--from: another process has " + data + " open", []string{"--from", data, "--to", "postgres://127.0.0.1:1/x"}},
		{exitUsage, "--from: " + nothing + " holds no store", []string{"--from", nothing, "--to", "postgres://127.0.0.1:1/x"}},
	} {
		p := start(t, nil, append([]string{"copy"}, c.args...)...)
		if line := p.line(t, "error: "); !strings.Contains(line, c.says) {
			t.Errorf("%s, want %s", line, c.says)
		}
		if p.line(t, "fix: ") == "" {
			t.Errorf("%s: nothing is said about what to do", c.says)
		}
		if code := p.end(t); code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.says, code, c.code)
		}
	}
	running.signal(t, syscall.SIGTERM)
	running.end(t)
	p := start(t, nil, "copy", "--from", data, "--to", "postgres://127.0.0.1:1/x?connect_timeout=1")
	if line := p.line(t, "error: "); !strings.Contains(line, "--to: the database cannot be reached now") {
		t.Error(line)
	}
	if code := p.end(t); code != exitNetwork {
		t.Errorf("exit code %d, want %d", code, exitNetwork)
	}
}

// The line says how much is done, how fast, and how long the rest takes.
func TestCopyLine(t *testing.T) {
	for _, c := range []struct {
		p     app.CopyProgress
		fresh int
		since time.Duration
		want  string
	}{
		{app.CopyProgress{Doing: "comparing", Of: 10}, 0, 0, "comparing       [                        ] 0 of 10 events"},
		{app.CopyProgress{Doing: "copying events", Events: 6000, Of: 12_000}, 1000, 2 * time.Second, "copying events  [============            ] 6000 of 12000 events  500/s  12s left"},
		{app.CopyProgress{Doing: "copying ids", Events: 0, Of: 0}, 0, time.Minute, "copying ids     [========================] 0 of 0 events"},
	} {
		if got := copyLine(c.p, c.fresh, c.since); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
