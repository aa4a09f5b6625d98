// Package inbound is the door through which providers' webhooks come in: it finds the source, has the gateway verify what was
// sent, appends it, and answers 200 once it is on disk. What is not taken is kept for a while, with the reason, for the owner
// of the source. The inbox tells what became of each event.
//
// No request of a stranger costs more than its own reading: sources and their verifiers are kept in memory, few are looked up at once that
// are not, bodies are bounded alone and together, and rejected requests are kept at a bounded pace.
package inbound

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/gateway"
	"github.com/eventhose/eventhose/internal/overload"
)

// Log is what the door needs of the event log.
type Log interface {
	eventhose.Appender
	// Page reads matching events after a cursor, examining a bounded number. CodeCursorGone.
	Page(ctx context.Context, tenant eventhose.TenantID, after eventhose.Cursor, f eventhose.Filter, limit eventhose.PageLimit) (eventhose.Page, error)
	// Event finds an event by its id within a scope, also one that is kept since it is parked. CodeNotFound.
	Event(ctx context.Context, tenant eventhose.TenantID, scope, id string) (eventhose.Event, error)
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
}

// Sources is what the door needs of the sources and the requests that they rejected.
type Sources interface {
	// FindSource answers the source with an id with its secrets, from memory if it can. CodeNotFound, CodeUnavailable when too many are looked up
	// that are not in memory.
	FindSource(ctx context.Context, id eventhose.SourceID) (eventhose.Source, error)
	// Source is one of a tenant, as it is stored now. CodeNotFound.
	Source(ctx context.Context, tenant eventhose.TenantID, id eventhose.SourceID) (eventhose.Source, error)
	// Sources lists by id those after one.
	Sources(ctx context.Context, tenant eventhose.TenantID, after eventhose.SourceID, limit int) ([]eventhose.Source, error)
	KeepRejection(ctx context.Context, tenant eventhose.TenantID, r eventhose.Rejection) (eventhose.Rejection, error)
	// Rejection answers one with its request as it came. CodeNotFound.
	Rejection(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) (eventhose.Rejection, error)
	ForgetRejection(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) error
}

// Delivery is what the door needs to tell what became of events.
type Delivery interface {
	// InboxStatus answers for each event, in order, what became of it at a pull subscription that it concerns. Events are by
	// ascending sequence.
	InboxStatus(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []eventhose.Event) ([]eventhose.InboxStatus, error)
	// Parked lists by sequence those after one, of one state.
	Parked(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, state eventhose.ParkedState, after eventhose.Sequence, limit int) ([]eventhose.Parked, error)
	// AttemptsAt lists newest first those of the event at one place.
	AttemptsAt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, seq eventhose.Sequence, limit int) ([]eventhose.Attempt, error)
}

// Options of a Door. Log, Sources and Delivery are required.
type Options struct {
	Log      Log
	Sources  Sources
	Delivery Delivery
	Checker  *Checker
	// Logger gets a line for each request, without query, headers and body, those that were taken at debug; nil discards them.
	Logger *slog.Logger
	// Registry takes the door's metrics; nil makes one.
	Registry *prometheus.Registry
	// Overload limits the appends of all doors; nil makes one for this door alone.
	Overload *overload.Limit
}

// Checker makes verifiers of sources. It may be used concurrently.
type Checker struct {
	// Around is what verifiers use of the process.
	Around gateway.Surroundings
	// PublicURL is where the world reaches this server, without a slash at its end; "" if that is not known. Sources that have
	// no public URL of their own have it below this one.
	PublicURL string
}

// Check judges the settings of a source. CodeInvalid with the field.
func (c *Checker) Check(s eventhose.Source) error {
	_, err := c.verifier(&s)
	return err
}

func (c *Checker) verifier(s *eventhose.Source) (*gateway.Verifier, error) {
	settings := gateway.SettingsOf(s)
	if settings.PublicURL == "" && c.PublicURL != "" {
		settings.PublicURL = c.PublicURL + Path(s.ID)
	}
	return gateway.New(s.Provider, settings, c.Around)
}

// pathPrefix begins the paths of the door.
const pathPrefix = "/in/"

// Path is where a source takes requests.
func Path(id eventhose.SourceID) string { return pathPrefix + string(id) }

// Serves reports whether a request's path is the door's.
func Serves(path string) bool { return strings.HasPrefix(path, pathPrefix) }

const (
	// maxBodies is what the bodies of all requests under way may take together, in bytes, and maxTenantBodies those of one tenant:
	// who makes senders stall holds up nobody else's. keptBodies of it are for those tenants that have no more than firstBody, which is a
	// longest one as it comes.
	maxBodies       = 128 << 20
	maxTenantBodies = 32 << 20
	keptBodies      = 32 << 20
	firstBody       = 2 * gateway.MaxBody
	// maxHeld is how many answers of inspect may be held at once, maxTenantHeld of one tenant.
	maxHeld       = 1000
	maxTenantHeld = 100
	// maxKept is how many verifiers are kept.
	maxKept = 10_000
)

// Door is an http.Handler. It is safe for concurrent use, and starts no goroutine.
type Door struct {
	log      Log
	sources  Sources
	delivery Delivery
	checker  *Checker
	logger   *slog.Logger
	overload *overload.Limit
	metrics  *metrics

	bodies   overload.Shares
	held     overload.Shares
	kept     verifiers
	pace     overload.Pace[eventhose.SourceID]
	draining context.Context
	drain    context.CancelFunc
}

// New makes a door. Its errors are a registry's that has its metrics already.
func New(o Options) (*Door, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Overload == nil {
		o.Overload = overload.New()
	}
	if o.Checker == nil {
		o.Checker = &Checker{}
	}
	m, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	d := &Door{log: o.Log, sources: o.Sources, delivery: o.Delivery, checker: o.Checker, logger: o.Logger, overload: o.Overload, metrics: m}
	d.held.Set(maxHeld, maxTenantHeld)
	d.bodies.Set(maxBodies, maxTenantBodies)
	d.bodies.Keep(keptBodies, firstBody)
	d.pace.Set(burst, perSecond)
	d.draining, d.drain = context.WithCancel(context.Background())
	return d, nil
}

// Drain prepares for a stop: answers that are held are given at once. It may be called more than once.
func (d *Door) Drain() { d.drain() }

// verifiers keeps those that were made, each for one version of its source.
type verifiers struct {
	mu sync.Mutex
	of map[eventhose.SourceID]kept
}

type kept struct {
	version  uint64
	verifier *gateway.Verifier
}

// verifierOf answers the verifier of a source as it is now.
func (d *Door) verifierOf(s *eventhose.Source) (*gateway.Verifier, error) {
	d.kept.mu.Lock()
	had, ok := d.kept.of[s.ID]
	d.kept.mu.Unlock()
	if ok && had.version == s.Version {
		return had.verifier, nil
	}
	v, err := d.checker.verifier(s)
	if err != nil {
		return nil, fmt.Errorf("use the settings of source %s: %w", s.ID, err)
	}
	d.kept.mu.Lock()
	defer d.kept.mu.Unlock()
	if d.kept.of == nil {
		d.kept.of = map[eventhose.SourceID]kept{}
	}
	if _, ok := d.kept.of[s.ID]; !ok && len(d.kept.of) >= maxKept {
		for other := range d.kept.of {
			delete(d.kept.of, other)
			break
		}
	}
	d.kept.of[s.ID] = kept{s.Version, v}
	return v, nil
}

const (
	// burst is how many rejected requests of one source are kept at once, perSecond how many then.
	burst     = eventhose.MaxRejections
	perSecond = 1
)

// Providers lists by name all that a source can be for.
func (d *Door) Providers() []eventhose.Provider {
	var list []eventhose.Provider
	for _, p := range gateway.Providers() {
		told := eventhose.Provider{Name: p.Name, Title: p.Title, Signs: p.Doc, Document: p.Source, Needs: []eventhose.ProviderNeed{}}
		for _, n := range p.Needs {
			told.Needs = append(told.Needs, eventhose.ProviderNeed{Setting: n.Field, Required: n.Required, What: n.Doc})
		}
		list = append(list, told)
	}
	return list
}
