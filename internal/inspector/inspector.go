// Package inspector is a built-in receiver of webhooks, to see what comes: it answers as its owner told it to, and keeps what it
// got for a while. Strangers reach it below /play/, and deliveries under a name of its own, over connections that do not leave
// the process (Within), behind which there is nothing else.
//
// Whoever knows an inspector's address may send to it as fast as they can, so nothing here grows with what comes: a request
// takes its share of what its tenant may hold, few a second are written down, and those push out the oldest.
package inspector

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/overload"
	"github.com/eventhose/eventhose/sign"
)

// Inspectors is what the door needs of the inspectors and of what they got.
type Inspectors interface {
	// FindInspector answers the inspector with an id, whosever it is, with its secret, as it was at most a second ago and after
	// the last change by this node. CodeNotFound, CodeUnavailable when too many are looked up that are not in memory.
	FindInspector(ctx context.Context, id eventhose.InspectorID) (eventhose.Inspector, error)
	// KeepInspected keeps a request and counts it, and drops the oldest beyond MaxInspected. CodeNotFound.
	KeepInspected(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, r eventhose.InspectedRequest) (eventhose.InspectedRequest, error)
	// Inspected answers requests, newest first, and whether there are more. CodeNotFound, CodeInvalid.
	Inspected(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, q eventhose.InspectedQuery) (requests []eventhose.InspectedRequest, more bool, err error)
}

// Options of a Door. Inspectors is required.
type Options struct {
	Inspectors Inspectors
	// Logger gets what could not be kept; nil discards it.
	Logger *slog.Logger
	// Registry takes the door's metrics; nil makes one.
	Registry *prometheus.Registry
	// Observe is called with each request before it is answered, also with those that are not kept, and with its body as it was
	// read, decompressed if it is verified, which it must not keep. It must not block.
	Observe func(id eventhose.InspectorID, r eventhose.InspectedRequest, body []byte)
}

const (
	// maxBodies is what the bodies under way may take together, in bytes, and maxTenantBodies those of one tenant.
	maxBodies       = 128 << 20
	maxTenantBodies = 32 << 20
	// maxRequests is how many requests are under way at once, and maxTenantRequests of one tenant. Most of them are held.
	maxRequests       = 4096
	maxTenantRequests = 256
	// maxDelivered is how much is read of a body that a delivery of ours has, in bytes: a batch of the most data that there is,
	// with what is around it.
	maxDelivered = 2 * eventhose.MaxAppendBytes
	// maxUnpacking is how many bodies are decompressed at once.
	maxUnpacking = 4
	// maxTenantRate is how many requests a second are kept of all inspectors of a tenant.
	maxTenantRate = 5 * eventhose.MaxInspectedRate
)

// pathPrefix begins the paths of the door.
const pathPrefix = "/play/"

// Serves reports whether a request's path is the door's.
func Serves(path string) bool { return strings.HasPrefix(path, pathPrefix) }

// Check judges the secret of an inspector. CodeInvalid with the field.
func Check(i eventhose.Inspector) error {
	if i.Secret == "" {
		return nil
	}
	if _, err := sign.ParseVerifier(string(i.Secret)); err != nil {
		return eventhose.Invalid("secret", "must be a secret to verify with, whsec_ or whpk_ and base64")
	}
	return nil
}

// Door is an http.Handler for what comes from outside. It is safe for concurrent use, and starts no goroutine.
type Door struct {
	inspectors Inspectors
	logger     *slog.Logger
	requests   *prometheus.CounterVec
	observe    func(eventhose.InspectorID, eventhose.InspectedRequest, []byte)

	bodies, underWay overload.Shares
	pace             overload.Pace[eventhose.InspectorID]
	tenantPace       overload.Pace[eventhose.TenantID]
	// unpacking has room for those that decompress a body to verify it.
	unpacking chan struct{}
	arrivals  arrivals
	draining  context.Context
	drain     context.CancelFunc
}

// New makes a door. Its errors are a registry's that has its metrics already.
func New(o Options) (*Door, error) {
	d := &Door{inspectors: o.Inspectors, logger: o.Logger, observe: o.Observe, unpacking: make(chan struct{}, maxUnpacking),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventhose_inspector_requests_total", Help: "Requests to inspectors, by what became of them.",
		}, []string{"outcome"})}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if err := o.Registry.Register(d.requests); err != nil {
		return nil, fmt.Errorf("registering the metrics of inspectors: %w", err)
	}
	d.bodies.Set(maxBodies, maxTenantBodies)
	d.underWay.Set(maxRequests, maxTenantRequests)
	d.pace.Set(eventhose.MaxInspectedRate, eventhose.MaxInspectedRate)
	d.tenantPace.Set(maxTenantRate, maxTenantRate)
	d.draining, d.drain = context.WithCancel(context.Background())
	return d, nil
}

// Drain prepares for a stop: answers that are held are given at once. It may be called more than once.
func (d *Door) Drain() { d.drain() }

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.serve(w, r, strings.TrimPrefix(r.URL.EscapedPath(), pathPrefix), eventhose.MaxInspectedBody)
}

// Within is the handler of what InspectorHost stands for.
func (d *Door) Within() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.serve(w, r, strings.TrimPrefix(r.URL.EscapedPath(), "/"), maxDelivered)
	})
}

// arrivals tells who waits for requests of an inspector that one has come.
type arrivals struct {
	mu sync.Mutex
	of map[eventhose.InspectorID]*arrival
}

type arrival struct {
	waiting int
	come    chan struct{}
}

// expect answers what is closed with the next request that is kept here. done must be called.
func (a *arrivals) expect(id eventhose.InspectorID) (come <-chan struct{}, done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[eventhose.InspectorID]*arrival{}
	}
	of := a.of[id]
	if of == nil {
		of = &arrival{come: make(chan struct{})}
		a.of[id] = of
	}
	of.waiting++
	return of.come, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if of.waiting--; of.waiting == 0 && a.of[id] == of {
			delete(a.of, id)
		}
	}
}

func (a *arrivals) tell(id eventhose.InspectorID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if of := a.of[id]; of != nil {
		close(of.come)
		delete(a.of, id)
	}
}

// otherNodes is how often it is looked for requests that came in elsewhere: as long as an answer of FindInspector lasts.
const otherNodes = time.Second

// Await answers requests as Inspected does, once there is one; none if until is closed before. CodeNotFound, also when the
// inspector goes meanwhile; CodeInvalid.
func (d *Door) Await(ctx context.Context, until <-chan struct{}, tenant eventhose.TenantID, id eventhose.InspectorID, q eventhose.InspectedQuery) ([]eventhose.InspectedRequest, bool, error) {
	tick := time.NewTicker(otherNodes)
	defer tick.Stop()
	for {
		come, done := d.arrivals.expect(id)
		known, err := d.inspectors.FindInspector(ctx, id) // before the look: what comes after it is news
		var requests []eventhose.InspectedRequest
		var more bool
		if err == nil {
			requests, more, err = d.inspectors.Inspected(ctx, tenant, id, q)
		}
		ended := false
		if err == nil && len(requests) == 0 {
			ended, err = d.another(ctx, until, tick.C, come, known)
		}
		done()
		if err != nil || ended || len(requests) > 0 {
			return requests, more, err
		}
	}
}

// another returns when an inspector may have got another request than those it is known to have, or with ended when until is closed.
func (d *Door) another(ctx context.Context, until <-chan struct{}, tick <-chan time.Time, come <-chan struct{}, known eventhose.Inspector) (ended bool, err error) {
	for {
		select {
		case <-come:
			return false, nil
		case <-until:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick:
		}
		if now, err := d.inspectors.FindInspector(ctx, known.ID); err != nil || now.Requests != known.Requests {
			return false, err
		}
	}
}
