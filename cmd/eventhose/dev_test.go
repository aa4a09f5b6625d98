package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// dev in this process: it takes a free port when nobody named one, goes on with a kept directory, and a receiver with a
// new address and the old secret verifies what comes.
func TestDevGoesOnWithItsData(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	data := t.TempDir()
	for round := 1; round <= 2; round++ {
		out, notes := devUntilReady(t, &serverFlags{listen: s.Listener.Addr().String(), data: data, logLevel: "warn", drain: time.Minute})
		if !strings.Contains(notes, "is taken; using a free port") {
			t.Errorf("stderr %s", notes)
		}
		if strings.Count(out, "--> order.paid") != 1 || strings.Count(out, "<-- 200") != 1 || !strings.Contains(out, "signature verified") ||
			!strings.Contains(out, "\n1 event, 1 attempt: 1 delivered, 0 failed\n") {
			t.Errorf("round %d: stdout %s", round, out)
		}
		if strings.Contains(out, "removed at the end") {
			t.Error("it would remove a directory that the user named")
		}
	}
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
}

// devUntilReady runs dev until its first event came round and its attempt was printed, and answers what it wrote.
func devUntilReady(t *testing.T, flags *serverFlags) (out, notes string) {
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
			cancel()
		}
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	return text.String(), stderr.String()
}
