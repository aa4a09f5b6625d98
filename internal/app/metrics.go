package app

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/rollup"
)

// metrics are what this process counts beside its HTTP requests. They carry no tenant and no subscription: labels
// would grow with customers.
type metrics struct {
	registry *prometheus.Registry
	attempts map[eventhose.Outcome]prometheus.Counter
	duration prometheus.Observer
	lag      prometheus.Histogram
	fsyncs   prometheus.Histogram
}

func newMetrics(version string) (*prometheus.Registry, *metrics) {
	const transport = eventhose.DestinationWebhook
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "eventhose_delivery_attempts_total",
		Help: "Attempts to deliver, by transport and outcome."}, []string{"transport", "outcome"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "eventhose_delivery_attempt_duration_seconds",
		Help: "How long attempts took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"transport"})
	m := &metrics{registry: prometheus.NewRegistry(), attempts: map[eventhose.Outcome]prometheus.Counter{}, duration: duration.WithLabelValues(transport),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "eventhose_delivery_lag_seconds",
			Help: "From append to the first time an event was taken.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 12)}),
	}
	m.fsyncs = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "eventhose_fsync_duration_seconds",
		Help: "How long the store's log took to reach the disk.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)})
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "eventhose_build_info", Help: "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}})
	info.Set(1)
	for _, outcome := range []eventhose.Outcome{eventhose.OutcomeTaken, eventhose.OutcomeFailed, eventhose.OutcomeGone} {
		m.attempts[outcome] = attempts.WithLabelValues(transport, string(outcome))
	}
	m.registry.MustRegister(attempts, duration, m.lag, m.fsyncs, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m.registry, m
}

func (m *metrics) attempt(a eventhose.Attempt, appended time.Time) {
	m.attempts[a.Outcome].Inc()
	m.duration.Observe(time.Duration(a.Duration).Seconds())
	if a.Outcome == eventhose.OutcomeTaken && a.Kind == eventhose.AttemptFirst {
		m.lag.Observe(a.Started.Add(time.Duration(a.Duration)).Sub(appended).Seconds())
	}
}

// fsync is told of each sync of the store's write-ahead log.
func (m *metrics) fsync(took time.Duration, _ int64) { m.fsyncs.Observe(took.Seconds()) }

// deliveries shows what the engine holds, looked at when it is scraped.
type deliveries struct {
	engine                                     *deliver.Engine
	pending, oldest, inFlight, subject, leases *prometheus.Desc
}

func newDeliveries(e *deliver.Engine) *deliveries {
	return &deliveries{e,
		prometheus.NewDesc("eventhose_pending_deliveries", "Places of logs that lanes of active subscriptions have still to look at or deliver, retrying and waiting events.", nil, nil),
		prometheus.NewDesc("eventhose_oldest_pending_age_seconds", "Age of the oldest event that is due to an active subscription and not delivered, those with tries to come among them; 0 if there is none.", nil, nil),
		prometheus.NewDesc("eventhose_in_flight_deliveries", "Attempts under way or not yet recorded.", nil, nil),
		prometheus.NewDesc("eventhose_subscriptions", "Subscriptions of tenants that have or had something to do lately, by state; failing ones have an open circuit.", []string{"state"}, nil),
		prometheus.NewDesc("eventhose_leases", "Shards of tenants that this node delivers for, of 256.", nil, nil)}
}

func (d *deliveries) Describe(c chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{d.pending, d.oldest, d.inFlight, d.subject, d.leases} {
		c <- desc
	}
}

func (d *deliveries) Collect(c chan<- prometheus.Metric) {
	st := d.engine.Stats()
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	gauge(d.pending, float64(st.Pending))
	age := 0.0
	if !st.Oldest.IsZero() {
		age = max(0, time.Since(st.Oldest).Seconds())
	}
	gauge(d.oldest, age)
	gauge(d.inFlight, float64(st.InFlight))
	gauge(d.leases, float64(d.engine.Leases()))
	for _, state := range deliver.States() {
		gauge(d.subject, float64(st.Subscriptions[state]), state)
	}
}

// watchStore shows how much the store's files take, and how much room there is.
func (m *metrics) watchStore(st *embedded.Store) {
	m.gauge("eventhose_log_bytes", "Bytes of the store's files.", func() float64 { return float64(st.DiskUsage()) })
	if _, _, ok := st.Disk(); !ok {
		return
	}
	m.gauge("eventhose_disk_free_bytes", "Bytes that are free on the disk of the data directory.", func() float64 { free, _, _ := st.Disk(); return float64(free) })
	m.gauge("eventhose_disk_total_bytes", "Size of the disk of the data directory in bytes.", func() float64 { _, total, _ := st.Disk(); return float64(total) })
}

// gauge shows what value answers when it is asked.
func (m *metrics) gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// readyTime is how long a scrape waits for the checks of readiness.
const readyTime = 3 * time.Second

// watchReady shows what /readyz answers.
func (m *metrics) watchReady(ready func(context.Context) map[string]error) {
	m.gauge("eventhose_ready", "1 if this node takes requests, as /readyz says; else 0.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), readyTime)
		defer cancel()
		for _, err := range ready(ctx) {
			if err != nil {
				return 0
			}
		}
		return 1
	})
}

// watchRollups counts what metrics over time leave out.
func (m *metrics) watchRollups(r *rollup.Rollups) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "eventhose_rollup_series_left_out_total",
		Help: "Counts that metrics over time have without a series of their subscription or tenant, since there are too many."}, func() float64 { return float64(r.Left()) }))
}

// watchDatabase shows the connections to the database.
func (m *metrics) watchDatabase(st *postgres.Store) {
	for _, g := range []struct {
		name, help string
		value      func(postgres.Connections) float64
	}{
		{"eventhose_database_connections", "Connections to the database.", func(c postgres.Connections) float64 { return float64(c.Open) }},
		{"eventhose_database_connections_in_use", "Connections that are in use.", func(c postgres.Connections) float64 { return float64(c.InUse) }},
		{"eventhose_database_connections_max", "The most connections that this node makes.", func(c postgres.Connections) float64 { return float64(c.Max) }},
	} {
		m.gauge(g.name, g.help, func() float64 { return g.value(st.Connections()) })
	}
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "eventhose_database_wait_seconds_total",
		Help: "How long calls have waited for a connection to become free."}, func() float64 { return st.Connections().Waited.Seconds() }))
}

// watchEgress counts the connects that the guard has refused.
func (m *metrics) watchEgress(p *egress.Policy) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "eventhose_ssrf_blocked_total",
		Help: "Connects that were refused because of their address."}, func() float64 { return float64(p.Stats().Blocked) }))
}
