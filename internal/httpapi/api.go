// Package httpapi is the REST door: tenants, keys, the log, subscriptions and what hangs on them.
//
// Every route is registered in one place (API.handle), with the rule that says who may use it, and described in the
// OpenAPI document that the API serves about itself. What a request passes, in this order: a request id, the access log
// and metrics (observe.go); the credential (a key, a portal link, a ticket, or a cookie from a page of this origin), the tenant's reach,
// the scope or the link's capability (admit.go, cookies.go); query and body, bounded and unpacked (body.go); an Idempotency-Key
// (idempotency.go); the route, and if it has changed something the audit log (audit.go). Appends and reads of events are written by hand,
// since data must pass byte for byte; everything else goes through huma, which checks bodies against the Go types that the
// document is made from.
package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/overload"
)

// Options of an API. Log, Control and Delivery are required.
type Options struct {
	Log      Log
	Control  Control
	Delivery Delivery
	// Logger gets the access log and internal failures; nil discards them.
	Logger *slog.Logger
	// Registry takes the API's own metrics and is what /metrics shows; nil makes one. One registry serves one API.
	Registry *prometheus.Registry
	// Ready answers the named checks of /readyz, nil errors for what is well. It must end with its context.
	Ready func(ctx context.Context) map[string]error
	// Version is shown in the OpenAPI document.
	Version string
	// MaxBody bounds a request's body in bytes, before and after gunzip: 8 MiB and a quarter if 0, which has room for
	// MaxAppendBytes of data. Bodies other than appends are bounded at 1 MiB.
	MaxBody int64
	// MaxBodies bounds what the bodies of all requests under way may take together, in the parts of an overload.Room: a tenant's take a
	// quarter of it at most. Above it requests are told to come back. 32 times MaxBody if 0.
	MaxBodies int64
	// MaxWait is the longest that a read waits, 60 s if 0.
	MaxWait time.Duration
	// MaxWaiting is how many reads may wait at once, in the parts of overload.Waiting; 10,000 if 0.
	MaxWaiting int64
	// Admit, if set, is asked after the credential and before the body is read; its error is the answer. This is the
	// place for rate and overload limits.
	Admit func(ctx context.Context, p eventhose.Principal, tenant eventhose.TenantID) error
	// Metrics, if set, is behind …/metrics and …/overview, and what lists tell of subscriptions over time.
	Metrics Metrics
	// Health, if set, is behind GET /v1/health. It answers all but the checks, which are Ready's, and must end with its context.
	Health func(ctx context.Context) (eventhose.Health, error)
	// Backup, if set, is behind POST /v1/backup.
	Backup Backups
	// Overload limits the appends of all doors; nil makes one for this door alone.
	Overload *overload.Limit
	// Streams counts the streams of all doors; nil makes one for this door alone.
	Streams *follow.Streams
	// TicketKey makes tickets good at every node that has the same one, at least 32 bytes; nil makes one for this API alone.
	TicketKey eventhose.Secret
	// Sources, if set, is behind …/sources and …/inbox.
	Sources Sources
	// Inspectors, if set, is behind …/inspectors.
	Inspectors Inspectors
	// PublicURL is where the world reaches this server, without a slash at its end; if "" it is where a request came.
	PublicURL string
	// OIDC, if set, is an identity provider that people may sign in with.
	OIDC OIDC
	// GraphQL, if set, answers …/graphql.
	GraphQL GraphQL
	// Heartbeat is how often a stream that has nothing to say says that it lives, 15 s if 0.
	Heartbeat time.Duration
	// Stall is how long a stream's reader may take nothing, 90 s if 0.
	Stall time.Duration
}

// Backups makes online backups on the server's own machine.
type Backups interface {
	// Backup writes one into a new directory of that name, below the one that the operator gave, and answers its path.
	// CodeInvalid for a name that cannot be, CodeConflict for one that is taken.
	Backup(ctx context.Context, name string) (path string, err error)
}

// API is an http.Handler. It is safe for concurrent use. Close must be called of it.
type API struct {
	log      Log
	control  Control
	delivery Delivery
	logger   *slog.Logger
	ready    func(ctx context.Context) map[string]error
	admitter func(ctx context.Context, p eventhose.Principal, tenant eventhose.TenantID) error
	backup   Backups
	counted  Metrics
	sources  Sources
	version  string
	tickets  ticketOffice
	streams  *streaming
	// public is where the world reaches this server; nil if that is where requests come.
	public   *url.URL
	cross    *http.CrossOriginProtection
	visitors visitors
	auditing auditing

	maxBody int64
	maxWait time.Duration
	bodies  overload.Room
	waiting overload.Waiting
	// overload limits the appends under way.
	overload *overload.Limit

	mux     *http.ServeMux
	routes  []Route
	huma    huma.API
	metrics *metrics
	outer   http.Handler

	spec []byte
	docs []byte

	// draining ends when the server prepares to stop; reads that wait end with it.
	draining context.Context
	drain    context.CancelFunc
}

// New makes an API and describes it. Its errors are faults of its own description, or of a registry that has its metrics already.
func New(o Options) (*API, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.MaxBody == 0 {
		o.MaxBody = eventhose.MaxAppendBytes + 256<<10
	}
	if o.MaxBodies == 0 {
		o.MaxBodies = 32 * o.MaxBody
	}
	if o.MaxWait == 0 {
		o.MaxWait = time.Minute
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = 10_000
	}
	if o.Overload == nil {
		o.Overload = overload.New()
	}
	m, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	a := &API{
		log: o.Log, control: o.Control, delivery: o.Delivery, logger: o.Logger, ready: o.Ready, admitter: o.Admit, backup: o.Backup,
		counted: o.Metrics, sources: o.Sources,
		version: o.Version, maxBody: o.MaxBody, maxWait: o.MaxWait,
		mux: http.NewServeMux(), metrics: m, overload: o.Overload,
	}
	if a.tickets, err = newTicketOffice(o.TicketKey); err != nil {
		return nil, err
	}
	if o.PublicURL != "" {
		if a.public, err = url.Parse(o.PublicURL); err != nil {
			return nil, fmt.Errorf("read the public URL: %w", err)
		}
	}
	if a.cross, err = newCrossOrigin(a.public); err != nil {
		return nil, fmt.Errorf("read the public URL: %w", err)
	}
	if err := a.newStreaming(o); err != nil {
		return nil, err
	}
	a.draining, a.drain = context.WithCancel(context.Background())
	a.bodies.Set(o.MaxBodies)
	a.waiting.Set(o.MaxWaiting)
	a.huma = newHuma(a, o.Version)

	a.mux.HandleFunc("/", a.unmatched)
	a.addService(promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	a.addTenants()
	a.addKeys()
	a.addEvents()
	a.addSubscriptions()
	a.addLanes()
	a.addSearch()
	a.addBatches()
	a.addPull()
	a.addStreams()
	a.addGraphQL(o.GraphQL)
	a.addSources(o.Sources)
	a.addInspectors(o.Inspectors)
	a.addMetrics()
	a.addHealth(o.Health)
	a.addSessions(o.OIDC)
	a.addPortal()
	a.addAudit()
	if err := a.describe(); err != nil {
		return nil, err
	}
	a.outer = a.observe(a.mux)
	return a, nil
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.outer.ServeHTTP(w, r) }

// Drain prepares for a stop: /readyz fails from now on, reads that wait are answered with what there is, and streams are told
// to come again and end. It may be called more than once.
func (a *API) Drain() { a.drain() }

// Server makes the http.Server for a handler of this module, with the limits that keep slow and hostile clients from
// holding it up. It speaks HTTP/1 and, for those that begin with it, HTTP/2 without TLS. The time for a body is set while it is
// read, since a waiting read must outlive any read time-out.
func Server(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     1 << 20,
			// A client that is gone without a word is found by pings, one that takes nothing by writes.
			SendPingTimeout:  30 * time.Second,
			PingTimeout:      15 * time.Second,
			WriteByteTimeout: stallTime,
		},
	}
}

// newHuma makes the part that describes routes and reads their bodies. It registers its operations with the API's own
// mux, through handle.
func newHuma(a *API, version string) huma.API {
	hookHuma()
	format := huma.Format{
		Marshal: func(w io.Writer, v any) error {
			b, err := marshal(v)
			if err != nil {
				return err
			}
			_, _ = w.Write(b) // the client has gone: nothing is left to tell it
			return nil
		},
		Unmarshal: unmarshal,
	}
	return huma.NewAPI(huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Eventhose", Version: version,
				Description: "One durable, ordered event log per tenant, with signed webhooks out. Errors are `application/problem+json` with a stable `code`.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"key":     {Type: "http", Scheme: "bearer", Description: "An API key, or the token of a portal link: `Authorization: Bearer KEY`."},
					"session": {Type: "apiKey", In: "cookie", Name: access.SessionCookie, Description: "What POST /v1/sessions has set; over https its name begins with `__Host-`."},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
	}, adapter{a})
}

// marshal writes what the API answers: JSON as encoding/json has it, without escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// unmarshal reads a body strictly: no name twice, no invalid UTF-8, nothing behind the value, no unknown name.
func unmarshal(data []byte, v any) error {
	if err := jsonv2.Unmarshal(data, v, jsonv2.RejectUnknownMembers(true)); err != nil {
		return jsonError(err)
	}
	return nil
}
