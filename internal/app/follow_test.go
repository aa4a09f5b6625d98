package app_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

// Follow goes on over restarts of the server at the cursor where it was, and ends with what cannot be mended.
func TestFollowOverRestarts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	options := app.Options{Listen: address, Data: t.TempDir(), AdminKey: "admin-key-of-this-test"}
	start := func() *app.App {
		a, err := app.New(options)
		if err == nil {
			err = a.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	server := start()
	defer func() { server.Stop(context.Background()) }()
	c, err := client.New("http://"+address, "admin-key-of-this-test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	admin := c.Tenant("default")
	key, err := c.CreateKey(t.Context(), client.NewKey{Tenant: "default", Scopes: []eventhose.Scope{eventhose.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	reading, err := client.New("http://"+address, key.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()

	n := 0
	add := func() {
		var events []eventhose.Event
		for range 1000 {
			n++
			events = append(events, eventhose.Event{Type: "t", Data: fmt.Appendf(nil, "{\n \"n\" : %d.0}", n)})
		}
		if _, err := admin.Append(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}
	add()
	got, lost, back := 0, 0, 0
	var cursor eventhose.Cursor
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last error
	for e, err := range reading.Tenant("default").Follow(ctx, client.FollowOptions{
		Moved: func(c eventhose.Cursor) { cursor = c },
		Lost:  func(error) { lost++ }, Reconnected: func(error) { back++ },
	}) {
		if err != nil {
			last = err
			break
		}
		got++
		if int(e.Sequence) != got || string(e.Data) != fmt.Sprintf("{ \"n\" : %d.0}", got) {
			t.Fatalf("event %d is %s at %d", got, e.Data, e.Sequence)
		}
		switch got {
		case 500, 1000, 2500:
			if err := server.Stop(ctx); err != nil {
				t.Fatal(err)
			}
			server = start()
			add()
		case 4000:
			if err := c.RevokeKey(ctx, key.ID); err != nil {
				t.Fatal(err)
			}
			server.Stop(ctx)
			server = start()
		}
	}
	var refused *eventhose.Error
	if !errors.As(last, &refused) || refused.Code != eventhose.CodeUnauthenticated {
		t.Errorf("it ended with %v", last)
	}
	if got != 4000 || cursor.Sequence != 4000 || lost < 2 || back < 2 {
		t.Errorf("%d events, the cursor at %v, %d lost, %d back", got, cursor, lost, back)
	}
}
