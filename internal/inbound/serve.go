package inbound

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/gateway"
	"github.com/eventhose/eventhose/internal/overload"
)

const (
	// bodyTime is how long a body may take to arrive, requestTime what follows.
	bodyTime    = 30 * time.Second
	requestTime = 30 * time.Second
)

// outcome is what became of a request, in metrics and logs.
type outcome string

const (
	appended    outcome = "appended"
	repeated    outcome = "repeated"  // the same event again
	different   outcome = "different" // an id that is in the log with other content
	shook       outcome = "handshake"
	refused     outcome = "rejected"
	unknown     outcome = "unknown"     // no such source
	unavailable outcome = "unavailable" // the sender is told to come again
	unread      outcome = "unread"      // the body did not arrive
	failure     outcome = "failed"
)

type metrics struct {
	requests *prometheus.CounterVec
	duration prometheus.Histogram
	dropped  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventhose_inbound_requests_total", Help: "Requests of providers, by provider and what became of them.",
		}, []string{"provider", "outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "eventhose_inbound_duration_seconds", Help: "How long requests of providers took from the first byte to the answer.",
			Buckets: []float64{.001, .0025, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventhose_inbound_rejections_dropped_total", Help: "Rejected requests that were not kept, because there were too many.",
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.dropped} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of the inbound door: %w", err)
		}
	}
	return m, nil
}

// exchange is one request on its way through the door.
type exchange struct {
	source  eventhose.Source
	rest    string      // of the path, behind the source
	header  http.Header // without our own cookies
	outcome outcome
	status  int
	why     string // for the log, nothing of the request's in it
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if r.ContentLength != 0 {
		// Before anything is decided: net/http reads what is left of a refused request's body before it answers.
		_ = http.NewResponseController(w).SetReadDeadline(start.Add(bodyTime)) // a writer in a test may have none
	}
	ctx, cancel := context.WithTimeout(r.Context(), bodyTime+requestTime+time.Duration(eventhose.MaxInspectDelay))
	defer cancel()
	x := &exchange{}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	defer func() {
		if fault := recover(); fault != nil {
			d.logger.LogAttrs(ctx, slog.LevelError, "inbound: panic", slog.String("source", string(x.source.ID)), slog.Any("panic", fault), slog.String("stack", string(debug.Stack())))
			if x.status == 0 {
				x.answer(w, failure, gateway.Answer{Status: http.StatusInternalServerError})
			}
		}
		provider := x.source.Provider
		if provider == "" {
			provider = "none"
		}
		took := time.Since(start)
		d.metrics.requests.WithLabelValues(provider, string(x.outcome)).Inc()
		if x.source.Answer == nil {
			d.metrics.duration.Observe(took.Seconds())
		}
		level := slog.LevelInfo
		if x.outcome == appended || x.outcome == repeated || x.source.ID == "" { // what was taken is in the log of events, and who makes ids up fills none
			level = slog.LevelDebug
		}
		if d.logger.Enabled(ctx, level) {
			d.logger.LogAttrs(ctx, level, "inbound", slog.String("source", string(x.source.ID)), slog.String("tenant", string(x.source.Tenant)),
				slog.String("provider", provider), slog.String("outcome", string(x.outcome)), slog.String("why", x.why), slog.Int("status", x.status), slog.Duration("duration", took))
		}
	}()
	d.take(ctx, w, r, x)
}

// answer writes the response, once.
func (x *exchange) answer(w http.ResponseWriter, o outcome, a gateway.Answer) {
	x.outcome, x.status = o, a.Status
	h := w.Header()
	for name, values := range a.Header {
		h[name] = values
	}
	h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	if a.Status == http.StatusNoContent || a.Status == http.StatusNotModified {
		h.Del("Content-Length")
	}
	w.WriteHeader(a.Status)
	if len(a.Body) > 0 {
		_, _ = w.Write(a.Body) // the sender has gone: nothing is left to tell it
	}
}

// again tells the sender to come again.
func (x *exchange) again(w http.ResponseWriter, after time.Duration) {
	seconds := max(1, int(math.Ceil(after.Seconds())))
	x.answer(w, unavailable, gateway.Answer{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {strconv.Itoa(seconds)}}})
}

// take does with a request what is to be done, and answers it.
func (d *Door) take(ctx context.Context, w http.ResponseWriter, r *http.Request, x *exchange) {
	id, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, pathPrefix), "/")
	err := error(eventhose.NotFound("source"))
	if eventhose.ValidSourceID(id) {
		x.source, err = d.sources.FindSource(ctx, eventhose.SourceID(id))
	}
	if err == nil && rest != "" && x.source.Provider != eventhose.ProviderInspect {
		x.source, err = eventhose.Source{}, eventhose.NotFound("source")
	}
	if err != nil {
		d.fail(ctx, w, x, err)
		return
	}
	x.rest, x.header = rest, access.WithoutCookies(r.Header)
	if d.overload.Refuses(x.source.Tenant) {
		x.again(w, time.Second)
		return
	}
	verifier, err := d.verifierOf(&x.source)
	if err != nil {
		d.fail(ctx, w, x, err)
		return
	}
	o, answer, ok := d.receive(ctx, w, r, x, verifier)
	if !ok {
		return
	}
	if taken := o == appended || o == repeated || o == different; taken && x.source.Answer != nil {
		answer = d.hold(ctx, x.source.Tenant, x.source.Answer)
	}
	x.answer(w, o, answer)
}

// receive reads a body and does with it what is to be done. If it cannot, it has answered. When it returns nothing of the body is held: who waits
// for an answer takes none of the room of others.
func (d *Door) receive(ctx context.Context, w http.ResponseWriter, r *http.Request, x *exchange, verifier *gateway.Verifier) (o outcome, answer gateway.Answer, ok bool) {
	body, give, ok := d.read(ctx, w, r, x)
	if !ok {
		return "", answer, false
	}
	defer give()
	request := &gateway.Request{Method: r.Method, Query: r.URL.RawQuery, Header: x.header, Body: body, Received: time.Now()}
	verdict := verifier.Verify(ctx, request)
	switch {
	case verdict.Rejection != nil:
		d.reject(ctx, x, request, verdict.Rejection)
		if verdict.Rejection.Reason == gateway.ReasonUnavailable {
			x.again(w, 5*time.Second)
			return "", answer, false
		}
		return refused, verdict.Answer, true
	case verdict.Event == nil:
		return shook, verdict.Answer, true
	}
	o, err := d.append(ctx, x, verdict.Event)
	if err != nil {
		d.fail(ctx, w, x, err)
		return "", answer, false
	}
	return o, verdict.Answer, true
}

// read reads the body whole. If it cannot, it has answered. give must be called once the body is done with.
func (d *Door) read(ctx context.Context, w http.ResponseWriter, r *http.Request, x *exchange) (body []byte, give func(), ok bool) {
	err := error(&http.MaxBytesError{Limit: gateway.MaxBody})
	give = func() {}
	if r.ContentLength <= gateway.MaxBody {
		body, give, err = d.bodies.Read(http.MaxBytesReader(w, r.Body, gateway.MaxBody), r.ContentLength, x.source.Tenant)
	}
	var large *http.MaxBytesError
	var late interface{ Timeout() bool }
	switch {
	case err == nil:
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a writer in a test may have none
		return body, give, true
	case errors.As(err, &large):
		d.reject(ctx, x, &gateway.Request{Method: r.Method, Query: r.URL.RawQuery, Header: x.header, Received: time.Now()},
			&gateway.Rejection{Reason: gateway.ReasonTooLarge, Detail: fmt.Sprintf("the body has more than %d bytes", gateway.MaxBody)})
		x.answer(w, refused, gateway.Answer{Status: http.StatusRequestEntityTooLarge})
	case errors.Is(err, overload.ErrNoRoom):
		x.again(w, time.Second)
	case errors.As(err, &late) && late.Timeout():
		x.answer(w, unread, gateway.Answer{Status: http.StatusRequestTimeout})
	default:
		x.answer(w, unread, gateway.Answer{Status: http.StatusBadRequest})
	}
	give()
	return nil, nil, false
}

// append puts a verified event into the log, on disk.
func (d *Door) append(ctx context.Context, x *exchange, e *eventhose.Event) (outcome, error) {
	done, err := d.overload.Take(x.source.Tenant)
	if err != nil {
		return failure, err
	}
	written := false
	defer func() { done(written) }()
	_, o, err := d.place(ctx, &x.source, x.rest, e)
	written = err == nil
	if o == different {
		// Providers redeliver with small changes, so it is no error of theirs; the first is what counts.
		x.why = "an event with this id and other content is in the log; the first one stays"
	}
	return o, err
}

// place appends an event of a source.
func (d *Door) place(ctx context.Context, s *eventhose.Source, rest string, e *eventhose.Event) (eventhose.Placement, outcome, error) {
	e.Tenant, e.Scope = s.Tenant, string(s.ID)
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes[eventhose.SourceAttribute] = string(s.ID)
	if s.Provider == eventhose.ProviderInspect {
		e.Attributes["path"] = gateway.AttributeText("/" + rest)
	}
	placed, err := d.log.Append(ctx, s.Tenant, *e)
	switch {
	case eventhose.CodeOf(err) == eventhose.CodeConflict:
		return eventhose.Placement{ID: e.ID, Duplicate: true}, different, nil
	case err != nil:
		return eventhose.Placement{}, failure, err
	case placed[0].Duplicate:
		return placed[0], repeated, nil
	}
	return placed[0], appended, nil
}

// hold answers what an inspected sender is told, after its delay, or at once if too many of the tenant's are held.
func (d *Door) hold(ctx context.Context, tenant eventhose.TenantID, a *eventhose.InspectAnswer) gateway.Answer {
	if a.Delay > 0 && d.held.Take(tenant, 1) {
		timer := time.NewTimer(time.Duration(a.Delay))
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-d.draining.Done():
		}
		timer.Stop()
		d.held.Give(tenant, 1)
	}
	answer := gateway.Answer{Status: a.Status, Body: []byte(a.Body)}
	if answer.Status == 0 {
		answer.Status = http.StatusOK
	}
	if answer.Status == http.StatusNoContent || answer.Status == http.StatusNotModified {
		answer.Body = nil
	}
	if len(answer.Body) > 0 {
		typ := a.ContentType
		if typ == "" {
			typ = "text/plain; charset=utf-8"
		}
		// The page is the tenant's, on the server's origin: it may run nothing there.
		answer.Header = http.Header{"Content-Type": {typ}, "Content-Security-Policy": {"sandbox; default-src 'none'"}}
	}
	return answer
}

// fail answers what is no fault of the request's signature.
func (d *Door) fail(ctx context.Context, w http.ResponseWriter, x *exchange, err error) {
	code := eventhose.CodeOf(err)
	switch code {
	case eventhose.CodeNotFound:
		x.answer(w, unknown, gateway.Answer{Status: http.StatusNotFound})
		return
	case eventhose.CodeUnavailable, eventhose.CodeStorageFull, eventhose.CodeLimit, eventhose.CodeTimeout, eventhose.CodeVersion:
		x.why = string(code)
		var e *eventhose.Error
		errors.As(err, &e)
		after := time.Second
		if e != nil && e.RetryAfter > 0 {
			after = e.RetryAfter
		}
		x.again(w, after)
		return
	}
	d.logger.LogAttrs(ctx, slog.LevelError, "inbound: internal error", slog.String("source", string(x.source.ID)), slog.String("error", err.Error()))
	x.answer(w, failure, gateway.Answer{Status: http.StatusInternalServerError})
}
