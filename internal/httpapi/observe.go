package httpapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
)

// exchange is what is known of one request; it travels in the request's context.
type exchange struct {
	id        string
	host      string // as the client calls this server
	secure    bool   // the client has called it by https
	address   string // the client's, or its proxy's
	route     string
	principal eventhose.Principal
	// wish is what the route asks of the principal.
	wish access.Wish
	// ticket says that a ticket stands for the principal.
	ticket bool
	tenant eventhose.TenantID
	query  url.Values
	// body is the request's, whole and unpacked, and memory what it is in.
	body   []byte
	memory memory
	// keyed says that the request has an Idempotency-Key.
	keyed bool
	// good is how long the answer means anything, if that is not for good.
	good time.Duration
	// harmless says that the request has changed nothing after all.
	harmless bool
	// target is what the request has changed, if its path does not say so, and changes how.
	target  string
	changes map[string][]any
	// streamed is how many bytes a hijacked connection was sent, and ended why a stream has ended.
	streamed int64
	ended    string
}

type exchangeKey struct{}

// exchangeOf answers a request's exchange, an empty one outside of requests.
func exchangeOf(ctx context.Context) *exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return &exchange{}
}

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	ingested prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventhose_http_requests_total", Help: "Requests of the HTTP API, by route, method and class of status.",
		}, []string{"route", "method", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "eventhose_http_request_duration_seconds", Help: "How long requests of the HTTP API took, reads that wait included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route", "method"}),
		ingested: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventhose_events_ingested_total", Help: "Events that were appended over the HTTP API, repeats left out.",
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.ingested} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of the HTTP API: %w", err)
		}
	}
	return m, nil
}

// observe gives each request an id, counts and logs it, and turns a panic into a 500. The log has no query, no header and no body.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		hurry(w, r)
		x := &exchange{id: requestID(r), host: r.Host, secure: a.secure(r), address: clientAddress(r), route: "unmatched"}
		ctx := context.WithValue(r.Context(), exchangeKey{}, x)
		r = r.WithContext(ctx)
		out := &answer{ResponseWriter: w}
		h := w.Header()
		h.Set("X-Request-Id", x.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		defer func() {
			if fault := recover(); fault != nil {
				a.logger.LogAttrs(ctx, slog.LevelError, "http: panic", slog.String("request_id", x.id),
					slog.String("route", x.route), slog.Any("panic", fault), slog.String("stack", string(debug.Stack())))
				if out.status == 0 {
					a.fail(out, r, problemOf(eventhose.CodeInternal, nil))
				}
			}
			took := time.Since(start)
			method := knownMethod(r.Method)
			a.metrics.requests.WithLabelValues(x.route, method, strconv.Itoa(out.status/100)+"xx").Inc()
			if x.ended == "" { // a stream's length tells nothing of how quick an answer is
				a.metrics.duration.WithLabelValues(x.route, method).Observe(took.Seconds())
			}
			level := slog.LevelInfo
			if !strings.HasPrefix(x.route, "/v1/") {
				level = slog.LevelDebug
			}
			attrs := []slog.Attr{slog.String("request_id", x.id), slog.String("method", method), slog.String("route", x.route),
				slog.String("tenant", string(x.tenant)), slog.String("key", x.principal.KeyID), slog.Int("status", out.status),
				slog.Int64("bytes", out.bytes+x.streamed), slog.Duration("duration", took), slog.String("remote", r.RemoteAddr)}
			if x.ended != "" {
				attrs = append(attrs, slog.String("ended", x.ended))
			}
			a.logger.LogAttrs(ctx, level, "http", attrs...)
		}()
		next.ServeHTTP(out, r)
		if out.status == 0 {
			out.WriteHeader(http.StatusOK)
		}
	})
}

// requestID takes a sane id from the client, or makes one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id != "" && len(id) <= 64 && strings.IndexFunc(id, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '-' || c == '_' || c == '.')
	}) < 0 {
		return id
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return "req_" + eventhose.IDText(b)
}

// knownMethod keeps what clients make up out of the metrics' labels.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// answer remembers what was written.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *answer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
