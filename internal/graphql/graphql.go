// Package graphql is the GraphQL door: queries of a tenant's log and of what delivers it, and the log as a stream, over
// HTTP, over graphql-sse in its distinct connections mode, and over WebSocket as graphql-transport-ws.
//
// A document passes two libraries. gqlparser reads and validates it, and tells what it would cost before anything is done
// (document.go); graphql-go executes it with the resolvers of this package. Data of events does not pass either: it is put
// into the answer last, byte for byte (answer.go). Who may come in at all is not decided here: see Caller.
package graphql

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	engine "github.com/graph-gophers/graphql-go"
	qerrors "github.com/graph-gophers/graphql-go/errors"
	engineLog "github.com/graph-gophers/graphql-go/log"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
)

// SDL is the schema that clients see.
//
//go:embed schema.graphql
var SDL string

// Log is what the door needs of the event log. It is safe for concurrent use.
type Log interface {
	follow.Log
	// Event finds an event by its id within a scope. CodeNotFound. An erased one comes with Erased set.
	Event(ctx context.Context, tenant eventhose.TenantID, scope, id string) (eventhose.Event, error)
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
}

// Subscriptions is what the door needs of them. All answers are copies that the caller owns.
type Subscriptions interface {
	// Subscription: CodeNotFound.
	Subscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID) (eventhose.Subscription, error)
	// Subscriptions lists by id those after one.
	Subscriptions(ctx context.Context, tenant eventhose.TenantID, after eventhose.SubscriptionID, limit int) ([]eventhose.Subscription, error)
}

// Delivery is what the door needs of the delivery engine. The subscription is known to exist when these are called.
type Delivery interface {
	Status(ctx context.Context, s eventhose.Subscription) (eventhose.LaneStatus, error)
	// Attempts lists newest first, those before an attempt id ("" is the newest).
	Attempts(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, before string, limit int) ([]eventhose.Attempt, error)
	// Deliveries tells what became of an event at each subscription that it concerns.
	Deliveries(ctx context.Context, e eventhose.Event) ([]eventhose.Delivery, error)
}

// Caller is who asks, and what is counted of that. It is used by one goroutine at a time, but for Open and Sent.
type Caller interface {
	// Tenant is whose log the request is about.
	Tenant() eventhose.TenantID
	// Body is the request's, whole and bounded, until it is said to be Read.
	Body() []byte
	// Read says that the body is needed no more; others may have its memory.
	Read()
	// Admitted reports whether it is known that the caller may read the tenant. Only a WebSocket comes without.
	Admitted() bool
	// Admit lets in who shows the value of an Authorization header. Its errors are those of a request that had it.
	Admit(ctx context.Context, authorization string) error
	// StreamsOnly reports whether the caller may do nothing but follow the log.
	StreamsOnly() bool
	// Check looks now and then whether the caller may still read the tenant, and answers why not.
	Check(ctx context.Context) error
	// Hold counts a connection that stays; end must be called once. CodeLimit.
	Hold() (end func(), err error)
	// Open counts a stream of events; end must be called once, with why it has ended. CodeLimit.
	Open() (end func(why error), err error)
	// Sent counts events that a stream has handed over.
	Sent(events int)
	// Finish notes how many bytes a connection was sent that had left HTTP, and why it, or a stream, has ended.
	Finish(sent int64, why error)
}

// Options of a door. Log, Subscriptions and Delivery are required.
type Options struct {
	Log           Log
	Subscriptions Subscriptions
	Delivery      Delivery
	// Logger gets internal failures; nil discards them.
	Logger *slog.Logger
	// Streams are those of all doors; nil is none but this door's.
	Streams *follow.Streams
	// Heartbeat is how often a stream that has nothing to say says that it lives, 15 s if 0.
	Heartbeat time.Duration
	// Stall is how long a reader may take nothing, 90 s if 0.
	Stall time.Duration
	// InitTime is how long a WebSocket may take to say connection_init, 3 s if 0.
	InitTime time.Duration
}

const (
	// queryTime is how long a query may take.
	queryTime = 30 * time.Second
	// maxQueries is how many are executed at once, and maxTenantQueries of one tenant; others wait.
	maxQueries       = 64
	maxTenantQueries = maxQueries / 4
	// maxStrangers is how many WebSockets may be open whose client has not said yet who it is.
	maxStrangers = 1000
)

// Door answers GraphQL. It is safe for concurrent use. Close must be called of it.
type Door struct {
	o       Options
	logger  *slog.Logger
	schema  *ast.Schema
	rules   *rules.Rules
	engine  *engine.Schema
	pages   *follow.Pages[[]byte]
	queries *shares
	// strangers has a place for each that has not said who it is.
	strangers chan struct{}

	// draining ends when the server prepares to stop.
	draining context.Context
	drain    context.CancelFunc
	// sockets are those that the HTTP server does not wait for; mu guards that none comes once closed is set.
	sockets sync.WaitGroup
	mu      sync.Mutex
	closed  bool
}

// New makes a door. Its errors are faults of the schema.
func New(o Options) (*Door, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Streams == nil {
		o.Streams = follow.NewStreams(0, 0)
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.Stall == 0 {
		o.Stall = 90 * time.Second
	}
	if o.InitTime == 0 {
		o.InitTime = 3 * time.Second
	}
	d := &Door{o: o, logger: o.Logger, rules: rules.NewDefaultRules(),
		queries: newShares(maxQueries, maxTenantQueries), strangers: make(chan struct{}, maxStrangers)}
	var err error
	if d.schema, err = gqlparser.LoadSchema(&ast.Source{Name: "schema.graphql", Input: SDL}); err != nil {
		return nil, fmt.Errorf("graphql: the schema: %w", err)
	}
	if d.engine, err = engine.ParseSchema(SDL, root{},
		engine.UseStringDescriptions(), engine.DisableFieldSelections(),
		engine.MaxQueryLength(4*maxQuery), // of what alone writes
		engine.MaxSelections(maxSelections), engine.OverlapValidationLimit(maxOverlaps), engine.MaxParallelism(4),
		engine.SubscribeResolverTimeout(queryTime), // of one item of a stream
		engine.PanicHandler(panicked{}), engine.Logger(engineLog.LoggerFunc(d.panicked))); err != nil {
		return nil, fmt.Errorf("graphql: the resolvers: %w", err)
	}
	d.pages = follow.New[[]byte](o.Log, o.Streams, nil)
	d.draining, d.drain = context.WithCancel(context.Background())
	return d, nil
}

// Drain tells all streams to come again, and ends them. It may be called more than once.
func (d *Door) Drain() { d.drain() }

// Close ends all streams and waits for them, those over WebSocket included.
func (d *Door) Close() {
	d.drain()
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.sockets.Wait()
	d.pages.Close()
}

// Forget drops what is kept of logs for streams that come a little later: data was erased.
func (d *Door) Forget(tenants ...eventhose.TenantID) {
	for _, t := range tenants {
		d.pages.Forget(t)
	}
}

// enter counts one more socket that Close waits for; leave must be called once.
func (d *Door) enter() (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.draining.Err() != nil {
		return nil, stopping()
	}
	d.sockets.Add(1)
	return d.sockets.Done, nil
}

// panicked logs a panic of a resolver or of a library.
func (d *Door) panicked(ctx context.Context, value any) {
	d.logger.LogAttrs(ctx, slog.LevelError, "graphql: panic", slog.Any("panic", value), slog.String("stack", string(debug.Stack())))
}

// panicked makes what a client is told of a panic.
type panicked struct{}

func (panicked) MakePanicError(context.Context, any) *qerrors.QueryError {
	return &qerrors.QueryError{ResolverError: errPanic, Err: errPanic, Message: errPanic.Error()}
}

// errPanic stands for what panicked has logged.
var errPanic = &eventhose.Error{Code: eventhose.CodeInternal, Message: "a panic"}

func stopping() error {
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the server is stopping", Fix: "connect again, with the last cursor", RetryAfter: time.Second}
}
