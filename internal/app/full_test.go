package app_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

const adminKey = eventhose.Secret("an-admin-key-for-tests")

// start runs a server on a directory until stop is called.
func start(t *testing.T, dir string, minFree int64) (c *client.Client, stop func()) {
	t.Helper()
	a, err := app.New(app.Options{Listen: "127.0.0.1:0", Data: dir, AdminKey: adminKey, MinFree: minFree, SecretKey: make([]byte, 32),
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err = client.New("http://"+a.Addr(), adminKey); err != nil {
		t.Fatal(err)
	}
	return c, func() {
		t.Helper()
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
}

// A full disk refuses new events with 507; reads and deliveries of what is there go on, and with room again so do appends.
func TestDiskFull(t *testing.T) {
	var well atomic.Bool
	var taken atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		taken.Add(1)
	}))
	defer receiver.Close()
	dir := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	c, stop := start(t, dir, -1)
	s, err := c.Tenant("default").CreateSubscription(ctx, client.NewSubscription{
		Retry:       eventhose.Retry{Schedule: []eventhose.Duration{0, eventhose.Duration(time.Second), eventhose.Duration(time.Second), eventhose.Duration(time.Second)}},
		Destination: eventhose.Destination{Type: "webhook", URL: receiver.URL}})
	if err != nil {
		t.Fatal(err)
	}
	event := eventhose.Event{Type: "order.paid", Data: []byte(`{}`)}
	if _, err := c.Tenant("default").Append(ctx, event, event, event); err != nil {
		t.Fatal(err)
	}
	stop()

	usage, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, stop = start(t, dir, 2*int64(usage.AvailBytes)) // more than there is
	_, err = c.Tenant("default").Append(ctx, event)
	var refused *client.Error
	var e *eventhose.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusInsufficientStorage || !errors.As(err, &e) || e.Code != eventhose.CodeStorageFull || e.Fix == "" {
		t.Errorf("an append to a full disk is answered with %v", err)
	}
	if page, err := c.Tenant("default").Read(ctx, client.ReadOptions{}); err != nil || len(page.Events) != 3 {
		t.Errorf("reading: %d events, %v", len(page.Events), err)
	}
	well.Store(true)
	for {
		got, err := c.Tenant("default").Subscription(ctx, s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if st := got.Status; st.Lag == 0 && st.Retrying == 0 && st.InFlight == 0 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("deliveries do not go on: %+v", got.Status)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if n := taken.Load(); n != 3 {
		t.Errorf("%d taken, want 3", n)
	}
	stop()

	c, stop = start(t, dir, -1)
	defer stop()
	if placed, err := c.Tenant("default").Append(ctx, event); err != nil || placed[0].Sequence != 4 {
		t.Errorf("with room again: %+v, %v", placed, err)
	}
}

// A backup that is made while the server runs opens as a data directory of its own, in a new incarnation: what is there
// is whole, and a cursor from beyond it is told so.
func TestBackupAndRestore(t *testing.T) {
	root := t.TempDir()
	ctx := t.Context()
	c, stop := start(t, filepath.Join(root, "data"), -1)
	tenant := c.Tenant("default")
	event := eventhose.Event{Type: "order.paid", Data: []byte(`{"a": 1}`)}
	if _, err := tenant.Append(ctx, event, event); err != nil {
		t.Fatal(err)
	}
	path, err := c.Backup(ctx, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Backup(ctx, "nightly"); eventhose.CodeOf(err) != eventhose.CodeConflict {
		t.Errorf("the same name twice: %v", err)
	}
	if _, err := c.Backup(ctx, "../out"); eventhose.CodeOf(err) != eventhose.CodeInvalid {
		t.Errorf("a path as a name: %v", err)
	}
	if _, err := tenant.Append(ctx, event); err != nil {
		t.Fatal(err)
	}
	page, err := tenant.Read(ctx, client.ReadOptions{})
	if err != nil || len(page.Events) != 3 {
		t.Fatalf("%d events, %v", len(page.Events), err)
	}
	early, err := tenant.Read(ctx, client.ReadOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	stop()

	restored := filepath.Join(root, "restored")
	if err := app.Restore(path, restored); err != nil {
		t.Fatal(err)
	}
	c, stop = start(t, restored, -1)
	defer stop()
	tenant = c.Tenant("default")
	again, err := tenant.Read(ctx, client.ReadOptions{After: early.Cursor})
	if err != nil || len(again.Events) != 1 || again.Events[0].Sequence != 2 {
		t.Errorf("from before the fork: %+v, %v", again, err)
	}
	_, err = tenant.Read(ctx, client.ReadOptions{After: page.Cursor})
	var e *eventhose.Error
	if !errors.As(err, &e) || e.Code != eventhose.CodeCursorGone || e.First != 3 {
		t.Errorf("from beyond the fork: %+v", err)
	}
	if placed, err := tenant.Append(ctx, event); err != nil || placed[0].Sequence != 3 {
		t.Errorf("%+v, %v", placed, err)
	}
}
