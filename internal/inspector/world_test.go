package inspector_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminKey = "an-admin-key-of-the-tests"

// world is a whole server on a real socket.
type world struct {
	t      *testing.T
	url    string
	client *client.Client
	tenant *client.Tenant
	http   *http.Client
}

// overBoth runs a test over both stores.
func overBoth(t *testing.T, test func(t *testing.T, node func() *world)) {
	t.Run("embedded", func(t *testing.T) {
		test(t, func() *world { return newEmbedded(t) })
	})
	t.Run("postgresql", func(t *testing.T) {
		url := pgtest.Database(t)
		test(t, func() *world { return newWorld(t, app.Options{DatabaseURL: url, SecretKey: make([]byte, 32)}) })
	})
}

func newEmbedded(t *testing.T) *world { return newWorld(t, app.Options{Data: t.TempDir()}) }

func newWorld(t *testing.T, o app.Options) *world {
	t.Helper()
	o.Listen, o.AdminKey = "127.0.0.1:0", adminKey
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, url: "http://" + a.Addr(), http: &http.Client{Transport: &http.Transport{MaxConnsPerHost: 100}}}
	w.client, err = client.New(w.url, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	w.tenant = w.client.Tenant("default")
	t.Cleanup(sync.OnceFunc(func() {
		w.client.Close()
		w.http.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	}))
	return w
}

// must fails the test unless err is nil.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) inspector(i eventhose.Inspector) client.Inspector {
	w.t.Helper()
	return must(w.tenant.CreateInspector(w.t.Context(), i))(w.t)
}

// requests are those later than one, at least one, newest first.
func (w *world) requests(id eventhose.InspectorID, after string) []eventhose.InspectedRequest {
	w.t.Helper()
	o := client.InspectedOptions{Wait: 20 * time.Second}
	o.After = after
	l := must(w.tenant.Inspected(w.t.Context(), id, o))(w.t)
	if len(l.Data) == 0 {
		w.t.Fatalf("nothing came after %q", after)
	}
	return l.Data
}

// send is one request to anywhere; headers are pairs.
func (w *world) send(method, url, body string, headers ...string) (status int, answer string, header http.Header) {
	w.t.Helper()
	req := must(http.NewRequestWithContext(w.t.Context(), method, url, strings.NewReader(body)))(w.t)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res := must(w.http.Do(req))(w.t)
	defer res.Body.Close()
	return res.StatusCode, string(must(io.ReadAll(res.Body))(w.t)), res.Header
}

// raw sends bytes as they are and answers the first line of what comes back.
func (w *world) raw(text string) string {
	w.t.Helper()
	conn := must(net.Dial("tcp", strings.TrimPrefix(w.url, "http://")))(w.t)
	defer conn.Close()
	if _, err := fmt.Fprint(conn, text); err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(must(bufio.NewReader(conn).ReadString('\n'))(w.t))
}

// subscribe delivers a tenant's events to an address.
func (w *world) subscribe(t *client.Tenant, to string, schedule ...eventhose.Duration) client.Subscription {
	w.t.Helper()
	return must(t.CreateSubscription(w.t.Context(), client.NewSubscription{Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: to},
		Retry: eventhose.Retry{Schedule: schedule}}))(w.t)
}

func (w *world) append(t *client.Tenant, data string) string {
	w.t.Helper()
	return must(t.Append(w.t.Context(), eventhose.Event{Type: "order.paid", Data: []byte(data)}))(w.t)[0].ID
}
