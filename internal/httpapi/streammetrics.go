package httpapi

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// streamMetrics count this door's streams. Other doors count theirs under the same names, in the same registry.
type streamMetrics struct {
	subscribers *prometheus.GaugeVec
	events      *prometheus.CounterVec
	ended       *prometheus.CounterVec
}

func newStreamMetrics(r prometheus.Registerer) (m *streamMetrics, err error) {
	m = &streamMetrics{}
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

// open counts a stream until the answered function is called.
func (m *streamMetrics) open(transport string) (end func()) {
	g := m.subscribers.WithLabelValues(transport)
	g.Inc()
	return g.Dec
}

func (m *streamMetrics) sent(transport string, events int) {
	m.events.WithLabelValues(transport).Add(float64(events))
}

// ended notes why a stream has ended.
func (a *API) ended(x *exchange, transport string, err error) {
	x.ended = ending(err)
	a.streams.metrics.ended.WithLabelValues(transport, x.ended).Inc()
}
