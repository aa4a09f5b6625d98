package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/eventhose/eventhose"
)

// MetricsOptions say which time is asked for. Zero fields take the server's defaults: the last hour, by the minute.
type MetricsOptions struct {
	// From is a time in RFC 3339, or how long ago ("24h"); To likewise.
	From, To string
	// Step is a multiple of eventhose.MetricsStep.
	Step time.Duration
	// Subscription narrows to one of a tenant.
	Subscription eventhose.SubscriptionID
}

func (o MetricsOptions) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"from": o.From, "to": o.To, "subscription": string(o.Subscription)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if o.Step != 0 {
		q.Set("step", o.Step.String())
	}
	return q
}

// Metrics is what was counted over a time, in steps.
type Metrics struct {
	Step eventhose.Duration `json:"step"`
	// Data has one for every step, also for those in which nothing was; Total is all of them together.
	Data  []eventhose.MetricsPoint `json:"data"`
	Total eventhose.Metrics        `json:"total"`
}

// Metrics answers what was appended and delivered of all tenants, over time. It wants an admin key of the platform.
func (c *Client) Metrics(ctx context.Context, o MetricsOptions) (Metrics, error) {
	var answer Metrics
	err := c.do(ctx, request{method: http.MethodGet, path: []string{"v1", "metrics"}, query: o.query(), into: &answer})
	return answer, err
}

// Metrics answers what was appended and delivered, over time. CodeInvalid with the field, CodeNotFound (no such subscription).
func (t *Tenant) Metrics(ctx context.Context, o MetricsOptions) (Metrics, error) {
	var answer Metrics
	err := t.c.do(ctx, request{method: http.MethodGet, path: t.path("metrics"), query: o.query(), into: &answer})
	return answer, err
}

// Overview answers how the tenant is: its log, its rates, its subscriptions, what is set aside.
func (t *Tenant) Overview(ctx context.Context) (eventhose.Overview, error) {
	var answer eventhose.Overview
	err := t.c.do(ctx, request{method: http.MethodGet, path: t.path("overview"), into: &answer})
	return answer, err
}

// SubscriptionDetails lists subscriptions by id, each with where its delivery stands (Status) and, if over is not 0, how it went
// over so long (Metrics): 30 minutes to 24 hours. A page holds at most 100.
func (t *Tenant) SubscriptionDetails(ctx context.Context, o ListOptions, over time.Duration) (List[Subscription], error) {
	q := o.query()
	q.Set("status", "true")
	if over != 0 {
		q.Set("metrics", over.String())
	}
	return list[Subscription](ctx, t.c, t.path("subscriptions"), q)
}

// Health answers how the node is that takes the request, and what it works with. It wants an admin key of the platform.
func (c *Client) Health(ctx context.Context) (eventhose.Health, error) {
	var answer eventhose.Health
	err := c.do(ctx, request{method: http.MethodGet, path: []string{"v1", "health"}, into: &answer})
	return answer, err
}
