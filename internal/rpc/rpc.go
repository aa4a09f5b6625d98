// Package rpc is the door for gRPC, gRPC-Web and Connect: append, read, follow and work, as proto/eventhose/v1/log.proto says.
//
// What a call passes, in this order: its deadlines and the bounds of what it holds (connection.go); the credential, before any
// message is read; the access log, metrics and the one mapping of errors (call.go, fail.go); the method. Pages of events are
// encoded once for all that follow the log at one place, and pass to the wire as they are (page.go).
package rpc

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/overload"
	"github.com/eventhose/eventhose/proto/eventhose/v1/eventhosev1connect"
)

// Log is what the door needs of the event log. It is safe for concurrent use.
type Log interface {
	eventhose.Appender
	follow.Beginning
}

// Control is what the door needs of tenants, keys and subscriptions. It is safe for concurrent use.
type Control interface {
	access.Holders
	// Subscription: CodeNotFound.
	Subscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID) (eventhose.Subscription, error)
}

// Delivery is what the door needs of the delivery engine. It is safe for concurrent use.
type Delivery interface {
	// Pull hands events of a pull subscription to a worker, waiting for the first. CodeInvalid with the field, CodeConflict (it
	// has a destination), CodeNotFound, CodeUnavailable.
	Pull(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, p eventhose.Pull) ([]eventhose.Leased, error)
	// Answer does with leases what a worker says, and answers those that are its no more. Errors are Pull's.
	Answer(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, answer eventhose.Answer) (lost []string, err error)
}

// Options of a Door. Log, Control and Delivery are required.
type Options struct {
	Log      Log
	Control  Control
	Delivery Delivery
	// Logger gets a line per call and internal failures; nil discards them.
	Logger *slog.Logger
	// Registry takes the door's metrics; nil makes one. One registry serves one door.
	Registry *prometheus.Registry
	// Streams counts the streams of all doors, and Overload limits their appends; nil makes one for this door alone.
	Streams  *follow.Streams
	Overload *overload.Limit
	// MaxHeld bounds what the messages that clients send may take together, in bytes, in the parts of an overload.Room: a tenant's take a
	// quarter of it at most. Above it calls are told to come back. 264 MiB if 0.
	MaxHeld int64
	// MaxWait is the longest that a read waits, 60 s if 0.
	MaxWait time.Duration
	// MaxWaiting is how many reads may wait at once, in the parts of overload.Waiting; 10,000 if 0.
	MaxWaiting int64
	// Heartbeat is how often a stream that has nothing to say says that it lives, 15 s if 0.
	Heartbeat time.Duration
	// Stall is how long a stream's client may take nothing, or an append stream's send nothing, 90 s if 0.
	Stall time.Duration
}

// maxMessage bounds what a client sends at once, in bytes, packed and unpacked: an append of MaxAppendBytes of data fits.
const maxMessage = eventhose.MaxAppendBytes + 2<<20

// Door is an http.Handler. It is safe for concurrent use. Close must be called of it.
type Door struct {
	log      Log
	control  Control
	delivery Delivery
	logger   *slog.Logger
	metrics  *metrics
	overload *overload.Limit

	streams   *follow.Streams
	pages     *follow.Pages[[]byte]
	held      overload.Room
	waiting   overload.Waiting
	maxWait   time.Duration
	heartbeat time.Duration
	stall     time.Duration

	mux *http.ServeMux

	// draining ends when the server prepares to stop.
	draining context.Context
	drain    context.CancelFunc
}

// New makes a Door. Its errors are faults of a registry that has its metrics already.
func New(o Options) (*Door, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Streams == nil {
		o.Streams = follow.NewStreams(0, 0)
	}
	if o.Overload == nil {
		o.Overload = overload.New()
	}
	if o.MaxHeld == 0 {
		o.MaxHeld = 264 << 20
	}
	if o.MaxWait == 0 {
		o.MaxWait = time.Minute
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = 10_000
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.Stall == 0 {
		o.Stall = 90 * time.Second
	}
	m, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	d := &Door{
		log: o.Log, control: o.Control, delivery: o.Delivery, logger: o.Logger, metrics: m, overload: o.Overload,
		streams: o.Streams, pages: follow.New(o.Log, o.Streams, encodePage),
		maxWait: o.MaxWait, heartbeat: o.Heartbeat, stall: o.Stall, mux: http.NewServeMux(),
	}
	d.held.Set(o.MaxHeld)
	d.waiting.Set(o.MaxWaiting)
	d.draining, d.drain = context.WithCancel(context.Background())
	options := []connect.HandlerOption{
		connect.WithRequestGate(d.authenticate),
		connect.WithInterceptors(interceptor{d}),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithCompression("gzip", newUnpacker, newPacker),
		connect.WithCompressMinBytes(1 << 10),
		connect.WithCodec(binary{}), connect.WithCodec(text{"json"}), connect.WithCodec(text{"json; charset=utf-8"}),
	}
	d.mux.Handle(eventhosev1connect.NewLogServiceHandler(service{d}, options...))
	// Both tell what is public, like /healthz and /openapi.json, and are small.
	open := []connect.HandlerOption{connect.WithReadMaxBytes(64 << 10)}
	d.mux.Handle(grpchealth.NewHandler(health{d}, open...))
	reflector := grpcreflect.NewStaticReflector(eventhosev1connect.LogServiceName, grpchealth.HealthV1ServiceName)
	d.mux.Handle(grpcreflect.NewHandlerV1(reflector, open...))
	d.mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, open...))
	return d, nil
}

// Serves reports whether a path is this door's.
func Serves(path string) bool {
	return strings.HasPrefix(path, "/eventhose.v1.") || strings.HasPrefix(path, "/grpc.")
}

// Drain prepares for a stop: health tells it, reads that wait are answered with what there is, and streams are told to come again
// and end. It may be called more than once.
func (d *Door) Drain() { d.drain() }

// Close ends all streams. It is called after Drain, when the HTTP server has stopped.
func (d *Door) Close() {
	d.drain()
	d.pages.Close()
}

// Forget drops what is kept of logs for streams that come a little later: data was erased.
func (d *Door) Forget(tenants ...eventhose.TenantID) {
	for _, t := range tenants {
		d.pages.Forget(t)
	}
}

// service has the methods of the log's service; each is in the file that it is about.
type service struct{ *Door }

var _ eventhosev1connect.LogServiceHandler = service{}

// health answers the checks of load balancers.
type health struct{ *Door }

// Check implements grpchealth.Checker.
func (h health) Check(_ context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	switch {
	case r.Service != "" && r.Service != eventhosev1connect.LogServiceName:
		return nil, connect.NewError(connect.CodeNotFound, eventhose.NotFound("service"))
	case h.draining.Err() != nil:
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil //nolint:nilerr // that it drains is the answer
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
