package client_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// tripper is an http.RoundTripper.
type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// What the server is asked to wait comes on top of the time that a call has: the longest wait there is has its answer.
func TestWaitComesOnTop(t *testing.T) {
	var left time.Duration
	c, err := client.New("http://eventhose.test", "ehk_test", client.WithHTTPClient(&http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
		until, ok := r.Context().Deadline()
		if left = time.Until(until); !ok {
			t.Errorf("%s has no deadline", r.URL)
		}
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"data":[]}`)), Request: r}, nil
	})}))
	if err != nil {
		t.Fatal(err)
	}
	log, wait := c.Tenant("acme"), time.Minute
	for name, call := range map[string]func(context.Context) error{
		"Read": func(ctx context.Context) error { _, err := log.Read(ctx, client.ReadOptions{Wait: wait}); return err },
		"Pull": func(ctx context.Context) error {
			_, err := log.Pull(ctx, "sub_1", eventhose.Pull{Wait: wait})
			return err
		},
		"Inspected": func(ctx context.Context) error {
			_, err := log.Inspected(ctx, "ins_1", client.InspectedOptions{Wait: wait})
			return err
		},
	} {
		if err := call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left <= client.DefaultTimeout {
			t.Errorf("%s that waits for %v has %v", name, wait, left)
		}
	}
}
