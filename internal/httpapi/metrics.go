package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/errgroup"

	"github.com/eventhose/eventhose"
)

const (
	// maxTold is how many subscriptions a list tells more of.
	maxTold = 100
	// tellers is how many of them are looked at at once.
	tellers = 8
	// The times that a list tells of.
	minSpan = eventhose.SparkPoints * eventhose.MetricsStep
	maxSpan = 24 * time.Hour
)

// metricsSteps are the steps that are taken if none is asked for: the first that does not make too many points.
var metricsSteps = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}

// MetricsAnswer is what was counted over a time.
type MetricsAnswer struct {
	Step eventhose.Duration `json:"step" doc:"How long each step is"`
	// Data and Total are eventhose.MetricsSeries's.
	Data  []eventhose.MetricsPoint `json:"data" doc:"One for each step, also for those in which nothing was"`
	Total eventhose.Metrics        `json:"total" doc:"All steps together"`
}

// MetricsInput is what is asked of metrics.
type MetricsInput struct {
	From string `query:"from" doc:"Where it begins: an RFC 3339 time, or how long ago, such as 24h; 1h if left out"`
	To   string `query:"to" doc:"Where it ends, in the same way; now if left out"`
	Step string `query:"step" doc:"A multiple of 1m; if left out the least of 1m, 5m, 15m, 1h, 6h and 24h with which there are at most 1,500 steps"`
}

type (
	tenantMetricsInput struct {
		InTenant
		MetricsInput
		Subscription eventhose.SubscriptionID `query:"subscription" doc:"Only of this subscription"`
	}
	metricsOutput  struct{ Body MetricsAnswer }
	overviewOutput struct{ Body OverviewAnswer }
)

// OverviewAnswer is an overview as the API tells it.
type OverviewAnswer struct {
	eventhose.Overview
	Oldest *OldestOrNull `json:"oldest" doc:"What has waited longest for an active subscription; null if nothing waits"`
}

// OldestOrNull says in the document that there may be none.
type OldestOrNull eventhose.Oldest

// Schema describes it.
func (OldestOrNull) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[eventhose.Oldest](), false, "")
	s.Nullable = true
	return &s
}

func (a *API) addMetrics() {
	if a.counted == nil {
		return
	}
	tags := []string{"metrics"}
	const about = "Counted minute by minute, and kept for as long as the operator says. Nodes tell each other once a minute. Quantiles are right within a sixteenth."
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "metricsOverTime", Method: http.MethodGet, Path: "/v1/tenants/{tenant}/metrics", Tags: tags,
		Summary: "What was appended and delivered, over time", Description: about,
	}, func(ctx context.Context, in *tenantMetricsInput) (*metricsOutput, error) {
		if in.Subscription != "" {
			if _, err := a.control.Subscription(ctx, in.Tenant, in.Subscription); err != nil {
				return nil, err
			}
		}
		return a.metricsOf(ctx, in.MetricsInput, in.Tenant, in.Subscription)
	})
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true}, huma.Operation{
		OperationID: "platformMetrics", Method: http.MethodGet, Path: "/v1/metrics", Tags: tags,
		Summary: "What was appended and delivered of all tenants, over time", Description: about,
	}, func(ctx context.Context, in *MetricsInput) (*metricsOutput, error) {
		return a.metricsOf(ctx, *in, "", "")
	})
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "overview", Method: http.MethodGet, Path: "/v1/tenants/{tenant}/overview", Tags: tags,
		Summary:     "How a tenant is: its log, its rates, its subscriptions, what is set aside",
		Description: "Rates are of the last minute, lag and first tries of the last hour. At most 1,000 subscriptions are looked at, the first by id; `partial` says that there are more.",
	}, func(ctx context.Context, in *InTenant) (*overviewOutput, error) {
		o, err := a.overviewOf(ctx, in.Tenant)
		return &overviewOutput{OverviewAnswer{o, (*OldestOrNull)(o.Oldest)}}, err
	})
}

func (a *API) metricsOf(ctx context.Context, in MetricsInput, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (*metricsOutput, error) {
	q, err := metricsQuery(in, time.Now())
	if err != nil {
		return nil, err
	}
	q.Tenant, q.Subscription = tenant, sub
	s, err := a.counted.Series(ctx, q)
	return &metricsOutput{MetricsAnswer{Step: s.Step, Data: notNil(s.Points), Total: s.Total}}, err
}

// metricsQuery reads what is asked for. How long ago counts from the end of the last step, so that 1h is 60 minutes and not 61.
func metricsQuery(in MetricsInput, now time.Time) (q eventhose.MetricsQuery, err error) {
	if in.From == "" {
		in.From = "1h"
	}
	if in.To == "" {
		in.To = "0s"
	}
	to, end, err := timeOf("to", in.To, now)
	if err != nil {
		return q, err
	}
	from, ago, err := timeOf("from", in.From, now)
	if err != nil {
		return q, err
	}
	if !from.Before(to) {
		return q, eventhose.Invalid("from", "must be before to")
	}
	if in.Step != "" {
		if q.Step, err = time.ParseDuration(in.Step); err != nil || q.Step < eventhose.MetricsStep || q.Step%eventhose.MetricsStep != 0 {
			return q, eventhose.Invalid("step", "must be a multiple of 1m")
		}
	} else {
		for _, q.Step = range metricsSteps {
			if to.Sub(from) <= (eventhose.MaxMetricsPoints-1)*q.Step {
				break
			}
		}
	}
	q.From, q.To = from, to
	if end {
		q.To = up(to, q.Step)
		if ago {
			q.From = q.To.Add(from.Sub(to))
		}
	}
	return q, nil
}

// up moves a time to the end of its step.
func up(t time.Time, step time.Duration) time.Time {
	seconds := int64(step / time.Second)
	return time.Unix((t.Unix()/seconds+1)*seconds, 0).UTC()
}

// timeOf reads a time, or how long ago it was.
func timeOf(field, text string, now time.Time) (t time.Time, ago bool, err error) {
	if t, err = time.Parse(time.RFC3339Nano, text); err == nil {
		if t.Unix() < 0 {
			return t, false, eventhose.Invalid(field, "must be after 1970")
		}
		return t, false, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > eventhose.MaxMetricsRetention {
		return t, false, eventhose.Invalid(field, "must be an RFC 3339 time, or how long ago, such as 1h; at most 87600h")
	}
	return now.Add(-d), true, nil
}

// spanOf reads over how long a list is to tell of its subscriptions, 0 if it is not, and checks that it is short enough to.
func (a *API) spanOf(in *listSubscriptionsInput) (span time.Duration, err error) {
	if in.Metrics != "" {
		if span, err = time.ParseDuration(in.Metrics); err != nil || span < minSpan || span > maxSpan || a.counted == nil {
			return 0, eventhose.Invalid("metrics", "must be a duration from 30m to 24h")
		}
	}
	if (in.Status || span > 0) && in.Limit > maxTold {
		return 0, eventhose.Invalid("limit", "must be at most %d with status or metrics", maxTold)
	}
	return span, nil
}

// tellMore adds to subscriptions where their delivery stands, and how it went over a time that ends now.
func (a *API) tellMore(ctx context.Context, tenant eventhose.TenantID, list []SubscriptionAnswer, status bool, span time.Duration) error {
	if status {
		subs := make([]eventhose.Subscription, len(list))
		for i := range list {
			subs[i] = list[i].Subscription
		}
		statuses, err := a.delivery.Statuses(ctx, tenant, subs)
		if err != nil {
			return err
		}
		for i := range list {
			list[i].Status = statuses[i]
		}
	}
	if span == 0 {
		return nil
	}
	step := (span/eventhose.SparkPoints + eventhose.MetricsStep - 1).Truncate(eventhose.MetricsStep)
	to := up(time.Now(), step)
	tell, ctx := errgroup.WithContext(ctx)
	tell.SetLimit(tellers)
	for i := range list {
		tell.Go(func() error {
			s, err := a.counted.Series(ctx, eventhose.MetricsQuery{Tenant: tenant, Subscription: list[i].ID,
				From: to.Add(-eventhose.SparkPoints * step), To: to, Step: step})
			if err != nil {
				return err
			}
			m := &eventhose.SubscriptionMetrics{DeliveryMetrics: s.Total.DeliveryMetrics}
			for _, p := range s.Points {
				m.Spark = append(m.Spark, p.Attempts)
				m.SparkFailed = append(m.SparkFailed, p.Failed)
			}
			list[i].Metrics = m
			return nil
		})
	}
	return tell.Wait()
}

// overviewOf looks at a bounded number of a tenant's subscriptions.
func (a *API) overviewOf(ctx context.Context, tenant eventhose.TenantID) (eventhose.Overview, error) {
	o := eventhose.Overview{Tenant: tenant}
	head, err := a.log.Head(ctx, tenant)
	if err != nil {
		return o, err
	}
	o.Head = eventhose.OverviewHead{First: head.First, Last: head.Last, Cursor: head.Cursor(head.Last)}
	rates, err := a.counted.Rates(ctx, tenant)
	if err != nil {
		return o, err
	}
	o.EventsPerSecond, o.DeliveriesPerSecond = rates.Events, rates.Deliveries
	to := up(time.Now(), eventhose.MetricsStep)
	hour, err := a.counted.Series(ctx, eventhose.MetricsQuery{Tenant: tenant, From: to.Add(-time.Hour), To: to, Step: eventhose.MetricsStep})
	if err != nil {
		return o, err
	}
	o.Lag = hour.Total.Lag
	if hour.Total.First > 0 {
		share := float64(hour.Total.FirstTaken) / float64(hour.Total.First)
		o.FirstTry = &share
	}
	subs, err := a.control.Subscriptions(ctx, tenant, "", eventhose.MaxOverviewSubscriptions+1)
	if err != nil {
		return o, err
	}
	if len(subs) > eventhose.MaxOverviewSubscriptions {
		subs, o.Partial = subs[:eventhose.MaxOverviewSubscriptions], true
	}
	statuses, err := a.delivery.Statuses(ctx, tenant, subs)
	if err != nil {
		return o, err
	}
	for i, st := range statuses {
		if st == nil {
			continue // deleted meanwhile
		}
		n := &o.Subscriptions
		n.Total++
		switch {
		case subs[i].State == eventhose.StatePaused:
			n.Paused++
		case subs[i].State == eventhose.StateDisabled:
			n.Disabled++
		case st.Circuit == "open":
			n.Failing++
		default:
			n.Active++
		}
		o.Parked.Retrying += st.Retrying
		o.Parked.Waiting += st.Waiting
		o.Parked.Dead += st.Dead
	}
	oldest, appended, err := a.delivery.Oldest(ctx, tenant, subs, statuses)
	if err != nil {
		return o, err
	}
	if !appended.IsZero() {
		o.Oldest = &eventhose.Oldest{Age: eventhose.Duration(max(0, time.Since(appended))), Subscription: oldest}
	}
	if a.sources != nil {
		sources, err := a.sources.Sources(ctx, tenant, "", eventhose.MaxSources)
		if err != nil {
			return o, err
		}
		o.Sources = len(sources)
	}
	return o, nil
}
