package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/follow"
)

// requestTime is how long a call may take beside waiting for events.
const requestTime = 45 * time.Second

// call is what is known of one call; it travels in the call's context.
type call struct {
	id        string
	procedure string
	protocol  string
	principal eventhose.Principal
	tenant    eventhose.TenantID
	// code is what it was answered, "ok" or an error's code, and ended why a stream has ended.
	code  string
	ended string
	kind  connect.StreamType

	in  *request
	out *response
}

type callKey struct{}

// callOf answers a call's own, an empty one outside of calls.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	ingested prometheus.Counter
	streams  *follow.Metrics
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	streams, err := follow.NewMetrics(r)
	if err != nil {
		return nil, err
	}
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventhose_rpc_calls_total", Help: "Calls over gRPC, gRPC-Web and Connect, by procedure and code.",
		}, []string{"procedure", "protocol", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "eventhose_rpc_call_duration_seconds", Help: "How long calls over gRPC, gRPC-Web and Connect took, reads that wait included and streams left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"procedure"}),
		ingested: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventhose_rpc_events_ingested_total", Help: "Events that were appended over gRPC, gRPC-Web and Connect, repeats left out.",
		}),
		streams: streams,
	}
	for _, c := range []prometheus.Collector{m.calls, m.duration, m.ingested} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of gRPC: %w", err)
		}
	}
	return m, nil
}

// ServeHTTP implements http.Handler: it bounds what a call holds and how long it stands still, and notes what became of it.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	control := http.NewResponseController(w)
	c := &call{
		id: "req_" + eventhose.IDText(b), procedure: "unmatched", code: "refused", // what no method has seen is refused by the library
		in:  &request{ReadCloser: r.Body, share: d.held.Of(eventhose.Principal{})},
		out: &response{ResponseWriter: w, control: control, stall: d.stall},
	}
	h := w.Header()
	h.Set("X-Request-Id", c.id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	packLike(r.Header)
	c.out.expect(arriveTime)
	ctx := context.WithValue(r.Context(), callKey{}, c)
	r = r.WithContext(ctx)
	r.Body = c.in
	defer func() {
		c.in.release()
		c.out.done()
		took := time.Since(began)
		d.metrics.calls.WithLabelValues(c.procedure, c.protocol, c.code).Inc()
		if c.kind == connect.StreamTypeUnary {
			d.metrics.duration.WithLabelValues(c.procedure).Observe(took.Seconds())
		}
		level := slog.LevelInfo
		if c.protocol == "" { // health and reflection, and what is no call
			level = slog.LevelDebug
		}
		attrs := []slog.Attr{slog.String("request_id", c.id), slog.String("procedure", c.procedure), slog.String("protocol", c.protocol),
			slog.String("tenant", string(c.tenant)), slog.String("key", c.principal.KeyID), slog.String("code", c.code),
			slog.Int64("bytes", c.out.written.Load()), slog.Duration("duration", took), slog.String("remote", r.RemoteAddr)}
		if c.ended != "" {
			attrs = append(attrs, slog.String("ended", c.ended))
		}
		d.logger.LogAttrs(ctx, level, "rpc", attrs...)
	}()
	d.mux.ServeHTTP(c.out, r)
}

// packLike has messages packed for clients that pack their own, as other gRPC servers do. Many say that they could unpack, and are
// served several times faster without.
func packLike(h http.Header) {
	for sent, accepted := range map[string]string{"Grpc-Encoding": "Grpc-Accept-Encoding", "Connect-Content-Encoding": "Connect-Accept-Encoding"} {
		if e := h.Get(sent); e == "" || e == "identity" {
			h.Del(accepted)
		}
	}
}

// authenticate is who asks, before any message is read.
func (d *Door) authenticate(ctx context.Context, spec connect.Spec, peer connect.Peer, header http.Header) (context.Context, error) {
	c := callOf(ctx)
	c.procedure, c.protocol, c.kind = spec.Procedure, peer.Protocol, spec.StreamType
	key, err := access.Bearer(header["Authorization"])
	if err == nil {
		c.principal, err = d.control.Authenticate(ctx, key)
	}
	if err != nil {
		shown := d.fail(ctx, err)
		c.code = codeOf(err)
		return ctx, shown
	}
	c.in.share = d.held.Of(c.principal) // nothing of it was read yet
	return ctx, nil
}

// permit answers whether the call may touch a tenant.
func (d *Door) permit(ctx context.Context, c *call, tenant string, scope eventhose.Scope) error {
	if tenant == "" { // which access takes for what belongs to no tenant
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "tenant", Message: "is required", Fix: `name the tenant, such as "default"`}
	}
	id := eventhose.TenantID(tenant)
	if id.Validate() != nil { // nor is it written into the access log
		return eventhose.NotFound("tenant")
	}
	c.tenant = id
	return access.Permit(ctx, d.control, c.principal, access.Wish{Tenant: id, Scope: scope})
}

// guard looks now and then whether the key and the tenant of a stream are still good.
func (d *Door) guard(c *call, scope eventhose.Scope) *access.Guard {
	return access.NewGuard(d.control, c.principal, access.Wish{Tenant: c.tenant, Scope: scope}, d.heartbeat)
}

// errLeft ends a stream whose client has left or stood still for too long.
var errLeft = errors.New("the client has left")

// codeOf names how a call or a stream has ended.
func codeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errLeft):
		return "left"
	}
	return string(eventhose.CodeOf(err))
}

// enter counts a stream and ends it when the server stops: the answered context is the stream's. leave must be called once, with why it
// has ended, and answers what its client is told.
func (d *Door) enter(ctx context.Context, c *call) (stream context.Context, leave func(error) error, err error) {
	if d.draining.Err() != nil {
		return nil, nil, follow.Stopping()
	}
	end, err := d.streams.Open(c.tenant)
	if err != nil {
		return nil, nil, err
	}
	closed := d.metrics.streams.Open(c.protocol)
	stream, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.draining, func() {
		c.out.hurry()
		if c.kind == connect.StreamTypeBidi {
			c.out.hangUp()
		}
		cancel()
	})
	return stream, func(err error) error {
		stop()
		cancel()
		closed()
		end()
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			err = ctx.Err()
		case ctx.Err() != nil:
			err = errLeft
		case err != nil && d.draining.Err() != nil:
			err = follow.Stopping()
		}
		c.ended = codeOf(err)
		d.metrics.streams.Ended(c.protocol, c.ended)
		return err
	}, nil
}

// interceptor is what each call of a method passes.
type interceptor struct{ *Door }

// WrapUnary implements connect.Interceptor.
func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (answer connect.AnyResponse, err error) {
		ctx, cancel := context.WithTimeout(ctx, i.maxWait+requestTime)
		defer cancel()
		err = i.around(ctx, func() error {
			c := callOf(ctx)
			c.out.expect(0)
			if m, ok := r.Any().(proto.Message); ok {
				if err := c.in.atLeast(proto.Size(m)); err != nil {
					return received(err)
				}
			}
			var err error
			answer, err = next(ctx, r)
			return err
		})
		return answer, err
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return i.around(ctx, func() error { return next(ctx, conn) })
	}
}

// WrapStreamingClient implements connect.Interceptor; there are no clients here.
func (interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// around notes a call's code, and turns errors and a panic into what is shown.
func (i interceptor) around(ctx context.Context, method func() error) (err error) {
	c := callOf(ctx)
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("panic: %v\n%s", fault, debug.Stack())
		}
		var refused *connect.Error
		if errors.As(err, &refused) { // before the method was called
			err = received(err)
		}
		switch c.code = codeOf(err); {
		case errors.Is(err, errLeft):
			err = connect.NewError(connect.CodeCanceled, errLeft)
		case err != nil:
			err = i.fail(ctx, err)
		}
	}()
	return method()
}
