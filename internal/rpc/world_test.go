package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/httpapi"
	"github.com/eventhose/eventhose/internal/rpc"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
	"github.com/eventhose/eventhose/proto/eventhose/v1/eventhosev1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rootKey = "root-key-of-the-tests-0123456789"
	// callTime is how long a test waits for what must come.
	callTime = 20 * time.Second
)

// world is the real store, log, control and engine behind the door on a real socket.
type world struct {
	t      testing.TB
	ctl    *control.Control
	log    *eventlog.Log
	engine *deliver.Engine
	door   *rpc.Door
	server *httptest.Server
	logs   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld starts everything, with the tenants acme and globex.
func newWorld(t testing.TB, change func(*rpc.Options)) *world {
	t.Helper()
	return newWorldIn(t, "", change)
}

// newWorldIn keeps its log in a directory, or with "" in memory.
func newWorldIn(t testing.TB, dir string, change func(*rpc.Options)) *world {
	t.Helper()
	w := &world{t: t, logs: &lockedBuffer{}}
	options := embedded.Options{MinFree: -1}
	if dir == "" {
		dir, options.FS = "data", vfs.NewMem()
	}
	st, err := embedded.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	if w.ctl, err = control.New(st, control.Options{AdminKey: rootKey, SecretKey: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	w.log = eventlog.New(st, w.ctl, eventlog.Options{Appended: func(id eventhose.TenantID) { w.engine.Appended(id) },
		Erased: func(id eventhose.TenantID, _ eventhose.Sequence) { w.door.Forget(id) }})
	w.engine = deliver.New(st, w.ctl, w.log, nil, deliver.Options{Logger: slog.New(slog.DiscardHandler),
		Fatal: func(err error) { t.Errorf("the engine gave up: %v", err) }})
	w.ctl.Announce(w.engine.Changed)
	if err := w.engine.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	o := rpc.Options{Log: w.log, Control: w.ctl, Delivery: w.engine, Logger: slog.New(slog.NewTextHandler(w.logs, nil))}
	if change != nil {
		change(&o)
	}
	if w.door, err = rpc.New(o); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(nil)
	w.server.Config = httpapi.Server(w.door)
	if options.FS != nil {
		// Little fits between both ends, so that a client that does not read is felt.
		w.server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
			return ctx
		}
	}
	w.server.Start()
	t.Cleanup(func() {
		w.door.Drain()
		w.server.Client().CloseIdleConnections()
		w.server.Close()
		w.door.Close()
		if err := errors.Join(w.engine.Stop(context.Background()), w.log.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, id := range []eventhose.TenantID{"acme", "globex"} {
		if _, _, err := w.ctl.PutTenant(t.Context(), eventhose.Tenant{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// client calls with grpc-go, which we did not write.
type client struct{ *grpc.ClientConn }

func (w *world) dial(options ...grpc.DialOption) client {
	w.t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(w.server.URL, "http://"), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return client{conn}
}

func (c client) append(ctx context.Context, m *v1.AppendRequest, options ...grpc.CallOption) (*v1.AppendResponse, error) {
	answer := new(v1.AppendResponse)
	return answer, c.Invoke(ctx, eventhosev1connect.LogServiceAppendProcedure, m, answer, options...)
}

func (c client) read(ctx context.Context, m *v1.ReadRequest) (*v1.ReadResponse, error) {
	answer := new(v1.ReadResponse)
	return answer, c.Invoke(ctx, eventhosev1connect.LogServiceReadProcedure, m, answer)
}

type (
	appends    = grpc.GenericClientStream[v1.AppendStreamRequest, v1.AppendStreamResponse]
	subscriber = grpc.GenericClientStream[v1.SubscribeRequest, v1.SubscribeResponse]
	worker     = grpc.GenericClientStream[v1.WorkRequest, v1.WorkResponse]
)

func open[Req, Res any](ctx context.Context, c client, procedure string) (*grpc.GenericClientStream[Req, Res], error) {
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, procedure)
	return &grpc.GenericClientStream[Req, Res]{ClientStream: s}, err
}

func (c client) subscribe(ctx context.Context, m *v1.SubscribeRequest) (*subscriber, error) {
	s, err := open[v1.SubscribeRequest, v1.SubscribeResponse](ctx, c, eventhosev1connect.LogServiceSubscribeProcedure)
	if err == nil {
		err = errors.Join(s.Send(m), s.CloseSend())
	}
	return s, err
}

// as is a context with a key and a deadline.
func (w *world) as(key string) context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), callTime)
	w.t.Cleanup(cancel)
	if key == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
}

// key makes an API key and answers its id and itself.
func (w *world) key(tenant eventhose.TenantID, scopes ...eventhose.Scope) (id, key string) {
	w.t.Helper()
	k, secret, err := w.ctl.CreateKey(w.t.Context(), eventhose.APIKey{Tenant: tenant, Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return k.ID, string(secret)
}

// append adds n events of types t0, t1 and t2 in turn.
func (w *world) append(tenant eventhose.TenantID, n int) {
	w.t.Helper()
	events := make([]eventhose.Event, n)
	for i := range events {
		events[i] = eventhose.Event{Type: fmt.Sprintf("t%d", i%3), Data: []byte(` {"n": "é\u2028"}`)}
	}
	if _, err := w.log.Append(w.t.Context(), tenant, events...); err != nil {
		w.t.Fatal(err)
	}
}

// refused checks an error's code in gRPC, its stable code and its field, and answers the detail.
func (w *world) refused(err error, code codes.Code, stable eventhose.Code, field string) *v1.ErrorDetail {
	w.t.Helper()
	s := status.Convert(err)
	for _, d := range s.Details() {
		if detail, ok := d.(*v1.ErrorDetail); ok {
			if s.Code() != code || detail.GetCode() != string(stable) || detail.GetField() != field || s.Message() == "" {
				w.t.Errorf("got %v with %v, want %v, %s and field %q", err, detail, code, stable, field)
			}
			return detail
		}
	}
	w.t.Fatalf("got %v, which has no detail; want %v", err, code)
	return nil
}

func newStreams(each int) *follow.Streams { return follow.NewStreams(0, each) }
