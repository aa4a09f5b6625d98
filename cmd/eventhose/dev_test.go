package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

// dev in this process: it takes a free port when nobody named one, goes on with a kept directory, and a receiver with a
// new address and the old secret verifies what comes.
func TestDevGoesOnWithItsData(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	data := t.TempDir()
	receivers := map[string]bool{}
	for round := 1; round <= 2; round++ {
		out, notes, got := devUntilReady(t, &serverFlags{listen: s.Listener.Addr().String(), data: data, logLevel: "warn", drain: time.Minute, metricsRetention: eventhose.DefaultMetricsRetention})
		if !strings.Contains(notes, "is taken; using a free port") {
			t.Errorf("stderr %s", notes)
		}
		if strings.Count(out, "--> order.paid") != 1 || strings.Count(out, "<-- 200") != 1 || !strings.Contains(out, "signature verified") ||
			!strings.Contains(out, "\n1 event, 1 attempt: 1 delivered, 0 failed\n") {
			t.Errorf("round %d: stdout %s", round, out)
		}
		// The receiver is an inspector, which shows what it got, and is the same one the next time.
		if n := len(got); n != round || got[0].Signature != eventhose.SignatureVerified || !strings.Contains(got[0].Body, "order-1") {
			t.Errorf("round %d: the inspector has %+v", round, got)
		}
		receivers[devReceiver.FindStringSubmatch(out)[2]] = true
		if strings.Contains(out, "removed at the end") {
			t.Error("it would remove a directory that the user named")
		}
	}
	if len(receivers) != 1 {
		t.Errorf("receivers %v", receivers)
	}
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
}

// A receiver that was told to fail, and a subscription that was disabled by that, do not keep dev from starting again.
func TestDevMendsItsReceiver(t *testing.T) {
	data := t.TempDir()
	flags := func() *serverFlags {
		return &serverFlags{listen: "127.0.0.1:0", data: data, adminKey: testKey, logLevel: "warn", drain: time.Minute, metricsRetention: eventhose.DefaultMetricsRetention}
	}
	devUntilReady(t, flags())
	tried := make(chan eventhose.Attempt, 1)
	a, err := app.New(app.Options{Listen: "127.0.0.1:0", Data: data, AdminKey: testKey, Observe: func(at eventhose.Attempt) { tried <- at }})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	log := dial(t, "http://"+a.Addr(), testKey).Tenant("default")
	receivers, err := log.Inspectors(t.Context(), client.ListOptions{})
	if err != nil || len(receivers.Data) != 1 {
		t.Fatal(receivers, err)
	}
	if _, err := log.UpdateInspector(t.Context(), receivers.Data[0].ID, eventhose.InspectorPatch{Status: new(http.StatusGone)}); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(t.Context(), eventhose.Event{Type: "a", Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if at := <-tried; at.Outcome != eventhose.OutcomeGone {
		t.Errorf("%+v", at)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := devUntilReady(t, flags()); !strings.Contains(out, "<-- 200") || !strings.Contains(out, "signature verified") {
		t.Errorf("stdout %s", out)
	}
}

// The key that the dashboard's address holds is the one that was given, whatever is in it.
func TestDevShowsItsKey(t *testing.T) {
	const key = "a+key/with%41&others=#and'quotes"
	out, _, _ := devUntilReady(t, &serverFlags{listen: "127.0.0.1:0", adminKey: key, logLevel: "warn", drain: time.Minute, metricsRetention: eventhose.DefaultMetricsRetention})
	_, fragment, _ := strings.Cut(regexp.MustCompile(`Dashboard +(\S+)`).FindStringSubmatch(out)[1], "#")
	if given, err := url.ParseQuery(fragment); err != nil || given.Get("key") != key { // as the page reads it
		t.Errorf("%q holds %v, %v", fragment, given, err)
	}
	line := regexp.MustCompile(`  (curl .*)`).FindStringSubmatch(out)[1]
	if words, err := exec.Command("sh", "-c", strings.Replace(line, "curl", `printf '%s\n'`, 1)).Output(); err != nil || !strings.Contains(string(words), "\nAuthorization: Bearer "+key+"\n") {
		t.Errorf("a shell reads %q of %s, %v", words, line, err)
	}
}

var devReceiver = regexp.MustCompile(`API key +(\S+)(?s:.*)Receiver +\S+/play/(ins_\w+)`)

// devUntilReady runs dev until its first event came round and its attempt was printed, and answers what it wrote and what its
// receiver shows.
func devUntilReady(t *testing.T, flags *serverFlags) (out, notes string, got []eventhose.InspectedRequest) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errInterrupted)
	defer cancel()
	stdout, printed := io.Pipe()
	var stderr bytes.Buffer
	p := &program{out: printed, err: &stderr, env: func(string) (string, bool) { return "", false }, cut: make(chan struct{}), output: "text", version: "test"}
	ended := make(chan error, 1)
	go func() {
		ended <- p.dev(ctx, flags, false)
		printed.Close()
	}()
	var text strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "<-- ") {
			got = inspectedBy(t, text.String())
			cancel()
		}
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	return text.String(), stderr.String(), got
}

// inspectedBy is what the receiver of a dev shows that has printed out.
func inspectedBy(t *testing.T, out string) []eventhose.InspectedRequest {
	t.Helper()
	named := devReceiver.FindStringSubmatch(out)
	if named == nil {
		t.Errorf("no receiver in %s", out)
		return nil
	}
	c := dial(t, regexp.MustCompile(`API +(http\S+)`).FindStringSubmatch(out)[1], named[1])
	l, err := c.Tenant("default").Inspected(t.Context(), eventhose.InspectorID(named[2]), client.InspectedOptions{})
	if err != nil {
		t.Error(err)
	}
	return l.Data
}
