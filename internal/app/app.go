// Package app puts the server together: the readable lists of stores, sinks and doors. Everything that starts is
// started here, and stopped here in the opposite order.
package app

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/dashboard"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/gateway"
	"github.com/eventhose/eventhose/internal/graphql"
	"github.com/eventhose/eventhose/internal/httpapi"
	"github.com/eventhose/eventhose/internal/inbound"
	"github.com/eventhose/eventhose/internal/ingress"
	"github.com/eventhose/eventhose/internal/inspector"
	"github.com/eventhose/eventhose/internal/overload"
	"github.com/eventhose/eventhose/internal/rollup"
	"github.com/eventhose/eventhose/internal/rpc"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/internal/store"
	"github.com/eventhose/eventhose/internal/webhook"
)

// Options of a server. Zero fields take the defaults.
type Options struct {
	// Listen is the TCP address to serve on; port 0 takes a free one.
	Listen string
	// Data is the data directory; it is made if it does not exist.
	Data string
	// PublicURL is where the world reaches this server, such as "https://hooks.example.com"; if "" it is where requests come.
	PublicURL string
	// DatabaseURL names a PostgreSQL in which any number of nodes keep everything, instead of Data. SecretKey must be given then.
	DatabaseURL string
	// AdminKey is accepted beside the stored API keys, if set.
	AdminKey eventhose.Secret
	// AllowNetworks are the addresses that destinations may reach beside the public internet, over http as well.
	AllowNetworks []netip.Prefix
	// SecretKey, 32 bytes, encrypts stored secrets; if nil, it is read from or made in the data directory.
	SecretKey []byte
	// BackupDir is where backups that are asked for over HTTP are made; "" is "backups" in the data directory's parent.
	BackupDir string
	// MaxInFlight bounds the attempts under way over all subscriptions.
	MaxInFlight int
	// MinFree is how many bytes on the disk stay free of new events; 0 is the store's default.
	MinFree int64
	// PortalOrigins are the origins whose pages may show the portal within themselves.
	PortalOrigins []string
	// MetricsRetention is how long metrics over time are kept; 0 is eventhose.DefaultMetricsRetention.
	MetricsRetention time.Duration
	// AuditRetention is how long it is kept who has changed what; 0 is eventhose.AuditKept.
	AuditRetention time.Duration
	// OIDC is an identity provider that operators may sign in with; none if it has no Issuer.
	OIDC OIDC
	// Node is what this server is called among those over one store.
	Node    string
	Logger  *slog.Logger
	Version string
	// Observe is called with each attempt; it must not block.
	Observe func(eventhose.Attempt)
	// Inspected is called with each request to an inspector before it is answered, also with those that are not kept, and with its
	// body as it was read, decompressed if it is verified, which it must not keep. It must not block.
	Inspected func(id eventhose.InspectorID, r eventhose.InspectedRequest, body []byte)

	// What follows is for tests, which have no disk, network or chance. Memory keeps everything in memory, in place of Data;
	// SecretKey must be given then.
	Memory bool
	// Listener is served on, in place of Listen.
	Listener net.Listener
	// Resolver and Connect are how destinations are reached; what they lead to must be allowed all the same.
	Resolver egress.Resolver
	Connect  func(ctx context.Context, address netip.AddrPort) (net.Conn, error)
	// Random draws what jitter and the ids of attempts are made of, for several goroutines at once.
	Random func() uint64
}

// defaultTenant is there from the first start on.
const defaultTenant = eventhose.TenantID("default")

// retentionInterval is how often logs are trimmed.
const retentionInterval = time.Minute

// App is one server. Start and Stop are called once each.
type App struct {
	opts     Options
	logger   *slog.Logger
	listener net.Listener
	firstKey eventhose.Secret
	log      *eventlog.Log

	draining chan struct{}
	failed   chan struct{}
	failOnce sync.Once
	failure  error

	// cleanups are run last in, first out.
	cleanups []cleanup
}

type cleanup struct {
	name string
	run  func(context.Context) error
}

// New makes a server that Start starts.
func New(o Options) (*App, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:8080"
	}
	if o.Data == "" && o.DatabaseURL == "" && !o.Memory {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--data", Message: "is required", Fix: "name a directory for the data, such as --data ./eventhose-data, or a database with --database-url"}
	}
	if len(o.AdminKey) > access.MaxKeyLength {
		return nil, eventhose.Invalid("--admin-key", "must be at most %d bytes", access.MaxKeyLength)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BackupDir == "" {
		o.BackupDir = filepath.Join(filepath.Dir(filepath.Clean(o.Data)), "backups")
	}
	if dir, err := filepath.Abs(o.BackupDir); err == nil { // whoever asks for one is told where it is
		o.BackupDir = dir
	}
	return &App{opts: o, logger: o.Logger, draining: make(chan struct{}), failed: make(chan struct{})}, nil
}

// Addr is the address that is served on, once Start has returned.
func (a *App) Addr() string { return a.listener.Addr().String() }

// Appender appends without HTTP, once Start has returned; whoever has it may append to every tenant's log.
func (a *App) Appender() eventhose.Appender { return a.log }

// Reader reads without HTTP, once Start has returned, every tenant's log.
func (a *App) Reader() eventhose.Reader { return a.log }

// Done is closed when the server cannot go on by itself; Err then says why.
func (a *App) Done() <-chan struct{} { return a.failed }

// Err answers why Done is closed.
func (a *App) Err() error {
	select {
	case <-a.failed:
		return a.failure
	default:
		return nil
	}
}

// FirstKey answers the admin key that Start made because there was none, once in the life of a data directory.
func (a *App) FirstKey() (eventhose.Secret, bool) { return a.firstKey, a.firstKey != "" }

func (a *App) fail(err error) {
	a.failOnce.Do(func() {
		a.failure = err
		close(a.failed)
	})
}

func (a *App) onStop(name string, run func(context.Context) error) {
	a.cleanups = append(a.cleanups, cleanup{name, run})
}

// Start opens the store, goes on with what was left, and serves. If it fails nothing is left running.
func (a *App) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop(ctx))
		}
	}()
	a.listener = a.opts.Listener
	if a.listener == nil {
		a.listener, err = net.Listen("tcp", a.opts.Listen)
	}
	if err != nil {
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "cannot listen on " + a.opts.Listen, Fix: "stop what listens there, or choose another address with --listen", Err: err}
	}
	a.onStop("listener", func(context.Context) error { a.listener.Close(); return nil })

	started := time.Now().UTC()
	registry, metrics := newMetrics(a.opts.Version)
	st, err := a.open(ctx, metrics)
	if err != nil {
		return err
	}

	inspected := inspector.NewListener()
	policy := egress.New(egress.Options{Allow: a.opts.AllowNetworks, Resolver: a.opts.Resolver, Connect: a.opts.Connect,
		Within: map[string]func(context.Context) (net.Conn, error){eventhose.InspectorHost: inspected.Dial}})
	if listening, err := netip.ParseAddrPort(a.Addr()); err == nil {
		policy.RefuseListener(listening)
	}
	client := egress.NewClient(policy, egress.ClientOptions{MaxConnsPerHost: a.opts.MaxInFlight})
	a.onStop("connections", func(context.Context) error { client.Close(); return nil })
	sinks := map[string]sink.Sink{
		eventhose.DestinationWebhook: webhook.New(policy, client),
	}
	metrics.watchEgress(policy)

	checker := &inbound.Checker{Around: gateway.Surroundings{Fetcher: gateway.NewFetcher(policy, client)}, PublicURL: a.opts.PublicURL}
	var ctl *control.Control
	provider, rules, err := a.identityProvider(st.secretKey, policy, client, func(ctx context.Context, id string, until time.Time) (bool, error) { return ctl.Once(ctx, id, until) })
	if err != nil {
		return err
	}
	ctl, err = control.New(st, control.Options{AdminKey: a.opts.AdminKey, SecretKey: st.secretKey, Sinks: sinks, CheckSource: checker.Check, CheckInspector: inspector.Check, Cached: st.cached,
		SignIns: rules, AuditKept: a.opts.AuditRetention})
	if err != nil {
		return err
	}
	if err := ctl.EnsureTenant(ctx, defaultTenant); err != nil {
		return fmt.Errorf("make the default tenant: %w", err)
	}

	ready := a.ready(st)
	metrics.watchReady(ready)
	inspect, err := inspector.New(inspector.Options{Inspectors: ctl, Logger: a.logger, Registry: registry, Observe: a.opts.Inspected})
	if err != nil {
		return err
	}
	a.serveWithin(inspected, inspect)

	var engine *deliver.Engine
	var api *httpapi.API
	var door *rpc.Door
	var graph *graphql.Door
	forgetAt := func(t eventhose.TenantID) { forget(ctl, t, api.Forget, door.Forget, graph.Forget) }
	rollups := a.startRollups(st, metrics)
	log := eventlog.New(st, ctl, eventlog.Options{Logger: a.logger, Counted: rollups.Appended, Appended: func(t eventhose.TenantID) { engine.Appended(t) },
		Owns: func(t eventhose.TenantID) bool { return engine.Owns(t) },
		Erased: func(t eventhose.TenantID, seq eventhose.Sequence) {
			engine.Erased(t, seq)
			forgetAt(t)
		},
		Lost: func(t eventhose.TenantID, lost []store.LostParked) { engine.Lost(t, lost) }})
	a.log = log
	a.onStop("log", func(context.Context) error { return log.Close() })
	engine = deliver.New(st, ctl, log, sinks, deliver.Options{Logger: a.logger, Node: a.opts.Node, MaxInFlight: a.opts.MaxInFlight, Fatal: a.fail, Random: a.opts.Random,
		Observe: func(at eventhose.Attempt, appended time.Time) {
			metrics.attempt(at, appended)
			rollups.Attempted(&at, appended)
			if a.opts.Observe != nil {
				a.opts.Observe(at)
			}
		},
		Worked: func(at eventhose.Attempt) { rollups.Attempted(&at, time.Time{}) }})
	ctl.Announce(engine.Changed)
	registry.MustRegister(newDeliveries(engine))
	if err := engine.Start(ctx); err != nil {
		return fmt.Errorf("go on with deliveries: %w", err)
	}
	a.onStop("deliveries", engine.Stop)

	retaining, stopRetaining := context.WithCancel(context.Background())
	var retention sync.WaitGroup
	ctl.AnnounceTenants(log.Bounded)
	retention.Go(func() { log.RunRetention(retaining, retentionInterval) })
	a.onStop("retention", func(context.Context) error { stopRetaining(); retention.Wait(); return nil })
	a.noteUses(ctl)

	ticketKey, err := hkdf.Key(sha256.New, st.secretKey, nil, "eventhose: tickets for streams", sha256.Size)
	if err != nil {
		return fmt.Errorf("derive the key of tickets: %w", err)
	}
	streams, limit := follow.NewStreams(0, 0), overload.New()
	graph, err = graphql.New(graphql.Options{Log: log, Subscriptions: ctl, Delivery: engine, Logger: a.logger, Streams: streams})
	if err != nil {
		return err
	}
	in, err := inbound.New(inbound.Options{Log: log, Sources: ctl, Delivery: engine, Checker: checker, Logger: a.logger, Registry: registry, Overload: limit})
	if err != nil {
		return err
	}
	api, err = httpapi.New(httpapi.Options{Log: log, Control: ctl, Delivery: engine, Logger: a.logger, Registry: registry,
		Version: a.opts.Version, Ready: ready, Metrics: rollups, Health: a.health(st, engine, streams, started),
		Backup: st.backups, Streams: streams, Overload: limit, TicketKey: eventhose.Secret(ticketKey), GraphQL: graphQL{graph},
		Sources: sources{ctl, in}, Inspectors: inspectors{ctl, inspect}, PublicURL: a.opts.PublicURL, OIDC: provider})
	if err != nil {
		return err
	}
	door, err = rpc.New(rpc.Options{Log: log, Control: ctl, Delivery: engine, Logger: a.logger, Registry: registry, Streams: streams, Overload: limit})
	if err != nil {
		return err
	}
	if st.database != nil {
		a.follow(st.database, ctl, log, engine, forgetAt)
	}
	pages, err := dashboard.New(dashboard.Options{PortalOrigins: a.opts.PortalOrigins})
	if err != nil {
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--portal-origins", Message: err.Error()}
	}
	if err := a.makeFirstKey(ctx, ctl); err != nil {
		return err
	}
	a.serve(api, door, graph, in, inspect, pages)
	return nil
}

// startRollups begins to count over time. What is counted until everything that counts has stopped is written.
func (a *App) startRollups(st *opened, m *metrics) *rollup.Rollups {
	rollups := rollup.New(st, rollup.Options{Retention: a.opts.MetricsRetention, Logger: a.logger})
	m.watchRollups(rollups)
	counting, stop := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	writing.Go(func() { rollups.Run(counting) })
	a.onStop("metrics over time", func(context.Context) error {
		stop()
		writing.Wait()
		if err := rollups.Close(); err != nil {
			// It is no reason for a stop to fail: nothing that was accepted is lost.
			a.logger.Warn("the last minute of metrics is lost", "error", err)
		}
		return nil
	})
	return rollups
}

// graphQL is the GraphQL door as a route of the HTTP API, which says who may come in.
type graphQL struct{ door *graphql.Door }

func (g graphQL) Answer(w http.ResponseWriter, r *http.Request, c *httpapi.Caller) error {
	return g.door.Answer(w, r, c)
}

func (g graphQL) Connect(w http.ResponseWriter, r *http.Request, c *httpapi.Caller) error {
	return g.door.Connect(w, r, c)
}

// sources is what the HTTP API manages of inbound sources: control keeps them, and the door knows their requests.
type sources struct {
	*control.Control
	*inbound.Door
}

// inspectors is what the HTTP API manages of inspectors: control keeps them, and the door knows when they get something.
type inspectors struct {
	*control.Control
	*inspector.Door
}

// serveWithin starts the HTTP server that deliveries to inspectors reach within the process, until they have stopped.
func (a *App) serveWithin(l net.Listener, inspect *inspector.Door) {
	server := httpapi.Server(inspect.Within())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.fail(fmt.Errorf("serve inspectors: %w", err))
		}
	})
	a.onStop("inspectors", func(ctx context.Context) error {
		inspect.Drain()
		err := server.Shutdown(ctx)
		if err != nil {
			server.Close()
		}
		serving.Wait()
		return err
	})
}

// serve starts the HTTP server on the listener.
func (a *App) serve(api *httpapi.API, door *rpc.Door, graph *graphql.Door, in *inbound.Door, inspect *inspector.Door, pages *dashboard.Handler) {
	server := ingress.New(httpapi.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rpc.Serves(r.URL.Path) {
			door.ServeHTTP(w, r)
			return
		}
		if inbound.Serves(r.URL.Path) {
			in.ServeHTTP(w, r)
			return
		}
		if dashboard.Serves(r.URL.Path) {
			pages.ServeHTTP(w, r)
			return
		}
		if inspector.Serves(r.URL.Path) {
			inspect.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})), func(path string) bool { return inbound.Serves(path) || httpapi.Appends(path) }, a.logger)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			a.fail(fmt.Errorf("serve HTTP: %w", err))
		}
	})
	a.onStop("http", func(ctx context.Context) error {
		close(a.draining)
		api.Drain()
		door.Drain()
		graph.Drain()
		in.Drain()
		inspect.Drain()
		err := server.Shutdown(ctx)
		if err != nil {
			server.Close()
		}
		serving.Wait()
		graph.Close()
		api.Close()
		door.Close()
		return err
	})
}

// forget has what is kept of a tenant's log for streams forgotten, and of its parent's, where the same events stand.
func forget(ctl *control.Control, tenant eventhose.TenantID, do ...func(...eventhose.TenantID)) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all := func(t eventhose.TenantID) {
		for _, f := range do {
			f(t)
		}
	}
	all(tenant)
	if t, err := ctl.Tenant(ctx, tenant); err == nil && t.Parent != "" {
		all(t.Parent)
	}
}

// makeFirstKey makes an admin key if nobody could get in otherwise. It is the last that may fail of a start: of one that fails nobody is
// shown the key, and the next makes no other.
func (a *App) makeFirstKey(ctx context.Context, ctl *control.Control) error {
	if a.opts.AdminKey != "" {
		return nil
	}
	keys, err := ctl.Keys(ctx, "", "", 1)
	if err != nil || len(keys) > 0 {
		return err
	}
	_, a.firstKey, err = ctl.CreateKey(ctx, eventhose.APIKey{Scopes: []eventhose.Scope{eventhose.ScopeAdmin}})
	return err
}

// ready names what has to be well for this node to take requests.
func (a *App) ready(st *opened) func(context.Context) map[string]error {
	return func(ctx context.Context) map[string]error {
		checks := map[string]error{st.name: st.ready(ctx), "draining": nil}
		select {
		case <-a.draining:
			checks["draining"] = errors.New("this node is stopping")
		default:
		}
		return checks
	}
}

// Stop takes no more requests, finishes what is under way until ctx ends, records it, and closes the store. It joins
// the errors of all parts.
func (a *App) Stop(ctx context.Context) error {
	var errs []error
	for i := len(a.cleanups) - 1; i >= 0; i-- {
		if err := a.cleanups[i].run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", a.cleanups[i].name, err))
		}
	}
	a.cleanups = nil
	return errors.Join(errs...)
}

// Restore makes a data directory of a backup. The logs in it begin a new incarnation.
func Restore(backup, dir string) error { return embedded.Restore(backup, dir, embedded.Options{}) }

// backups makes online backups below one directory.
type backups struct {
	store *embedded.Store
	dir   string
}

// Backup makes a backup under a name that is not taken and answers where it is.
func (b backups) Backup(ctx context.Context, name string) (string, error) {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return "", eventhose.Invalid("dir", "must be a plain directory name")
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return "", fmt.Errorf("make the backup directory: %w", err)
	}
	dir := filepath.Join(b.dir, name)
	if _, err := os.Stat(dir); err == nil {
		return "", &eventhose.Error{Code: eventhose.CodeConflict, Field: "dir", Message: "a backup of this name exists", Fix: "choose another name"}
	}
	return dir, b.store.Backup(ctx, dir)
}
