package app

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
)

// metrics are what this process counts beside its HTTP requests. They carry no tenant and no subscription: labels
// would grow with customers.
type metrics struct {
	registry *prometheus.Registry
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
	lag      prometheus.Histogram
}

func newMetrics(version string) (*prometheus.Registry, *metrics) {
	m := &metrics{registry: prometheus.NewRegistry(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "eventhose_delivery_attempts_total",
			Help: "Attempts to deliver, by transport and outcome."}, []string{"transport", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "eventhose_delivery_attempt_duration_seconds",
			Help: "How long attempts took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"transport"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "eventhose_delivery_lag_seconds",
			Help: "From append to the first time an event was taken.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 12)}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "eventhose_build_info", Help: "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}})
	info.Set(1)
	m.registry.MustRegister(m.attempts, m.duration, m.lag, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m.registry, m
}

func (m *metrics) attempt(a eventhose.Attempt, appended time.Time) {
	const transport = eventhose.DestinationWebhook
	m.attempts.WithLabelValues(transport, string(a.Outcome)).Inc()
	m.duration.WithLabelValues(transport).Observe(time.Duration(a.Duration).Seconds())
	if a.Outcome == eventhose.OutcomeTaken && a.Kind == eventhose.AttemptFirst {
		m.lag.Observe(a.Started.Add(time.Duration(a.Duration)).Sub(appended).Seconds())
	}
}

// watchEgress counts the connects that the guard has refused.
func (m *metrics) watchEgress(p *egress.Policy) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "eventhose_ssrf_blocked_total",
		Help: "Connects that were refused because of their address."}, func() float64 { return float64(p.Stats().Blocked) }))
}
