package embedded_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/store"
)

// Appends that are refused for want of room are told of in the log, once while that lasts and not for each.
func TestFullDiskIsTold(t *testing.T) {
	dir := t.TempDir()
	usage, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	s, err := embedded.Open(dir, embedded.Options{MinFree: int64(usage.AvailBytes) * 2, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := s.Append(t.Context(), []store.Append{{Tenant: "acme", Events: []store.NewEvent{{Event: eventhose.Event{Type: "a", Data: []byte("1")}}}}})
		if !errors.Is(err, store.ErrFull) {
			t.Errorf("an append without room: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(said.String(), "no room for more events"); n != 1 || !strings.Contains(said.String(), "level=WARN") {
		t.Errorf("told %d times:\n%s", n, said.String())
	}
}
