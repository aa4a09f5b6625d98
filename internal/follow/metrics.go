package follow

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count a door's streams, by transport. Doors with one registry count together. It is safe for concurrent use.
type Metrics struct {
	subscribers *prometheus.GaugeVec
	events      *prometheus.CounterVec
	ended       *prometheus.CounterVec
}

// NewMetrics registers what is counted, or counts with those that did before. Its errors are faults of the registry.
func NewMetrics(r prometheus.Registerer) (m *Metrics, err error) {
	m = &Metrics{}
	if m.subscribers, err = shared(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "eventhose_stream_subscribers", Help: "Streams that are open.",
	}, []string{"transport"})); err != nil {
		return nil, err
	}
	if m.events, err = shared(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eventhose_stream_events_total", Help: "Events that streams were sent.",
	}, []string{"transport"})); err != nil {
		return nil, err
	}
	m.ended, err = shared(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eventhose_streams_ended_total", Help: "Streams that have ended, by why: left and slow are the reader's doing, the rest are error codes.",
	}, []string{"transport", "why"}))
	return m, err
}

// shared registers a collector, or answers the one that is registered under its name.
func shared[C prometheus.Collector](r prometheus.Registerer, c C) (C, error) {
	err := r.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if had, same := there.ExistingCollector.(C); same {
			return had, nil
		}
	}
	if err != nil {
		err = fmt.Errorf("registering the metrics of streams: %w", err)
	}
	return c, err
}

// Open counts a stream until the answered function is called.
func (m *Metrics) Open(transport string) (end func()) {
	g := m.subscribers.WithLabelValues(transport)
	g.Inc()
	return g.Dec
}

// Sent counts events that a stream was sent.
func (m *Metrics) Sent(transport string, events int) {
	m.events.WithLabelValues(transport).Add(float64(events))
}

// Ended notes why a stream has ended: "left" or "slow" if that is the reader's doing, else an error's code.
func (m *Metrics) Ended(transport, why string) {
	m.ended.WithLabelValues(transport, why).Inc()
}
