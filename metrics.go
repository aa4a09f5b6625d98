package eventhose

import "time"

// Metrics is what was counted in a span of time.
type Metrics struct {
	// Events and Bytes of data were appended, repeats left out; 0 for a single subscription.
	Events uint64 `json:"events"`
	Bytes  uint64 `json:"bytes"`
	DeliveryMetrics
}

// DeliveryMetrics is how delivery went in a span of time. Test events are not counted.
type DeliveryMetrics struct {
	// Attempts ended, Taken of them with OutcomeTaken, Failed with another.
	Attempts uint64 `json:"attempts"`
	Taken    uint64 `json:"taken"`
	Failed   uint64 `json:"failed"`
	// Delivered is how many events were taken: those of the attempts that were, and of batches that were taken in part.
	Delivered uint64 `json:"delivered"`
	// First is how many of Attempts were first tries (AttemptFirst), FirstTaken how many of these were taken.
	First      uint64 `json:"first"`
	FirstTaken uint64 `json:"first_taken"`
	// Duration is how long attempts took. Lag is from the append of an event to when it was taken at the first try, of
	// push subscriptions.
	Duration Quantiles `json:"duration"`
	Lag      Quantiles `json:"lag"`
}

// Quantiles of durations, in milliseconds: as many percent were not longer. Each is right within a sixteenth. 0 if
// nothing was measured.
type Quantiles struct {
	P50 float64 `json:"p50_ms"`
	P95 float64 `json:"p95_ms"`
	P99 float64 `json:"p99_ms"`
}

// MetricsPoint is what was counted in one step of time, which begins at Time.
type MetricsPoint struct {
	Time time.Time `json:"time"`
	Metrics
}

// MetricsQuery asks for what was counted in steps of time.
type MetricsQuery struct {
	// Tenant is whose; "" is everything.
	Tenant TenantID
	// Subscription narrows to one of the tenant.
	Subscription SubscriptionID
	// From and To bound the time; From is moved down and To up to a whole step, counted from 1970 in UTC.
	From, To time.Time
	// Step is a multiple of MetricsStep. There are at most MaxMetricsPoints of them.
	Step time.Duration
}

// SubscriptionMetrics is how delivery of one subscription went, in all and in SparkPoints equal steps.
type SubscriptionMetrics struct {
	DeliveryMetrics
	// Spark counts the attempts of each step, SparkFailed those that failed.
	Spark       []uint64 `json:"spark"`
	SparkFailed []uint64 `json:"spark_failed"`
}

// SparkPoints is how many steps SubscriptionMetrics has.
const SparkPoints = 30

// Limits of metrics.
const (
	// MetricsStep is the least step.
	MetricsStep      = time.Minute
	MaxMetricsPoints = 1500
	// DefaultMetricsRetention is how long metrics are kept if nothing else is asked for.
	DefaultMetricsRetention = 7 * 24 * time.Hour
	MinMetricsRetention     = time.Hour
	MaxMetricsRetention     = 10 * 365 * 24 * time.Hour
)

// MetricsSeries is what was counted over a time, step by step.
type MetricsSeries struct {
	Step Duration
	// Points has one for every step, also for those in which nothing was.
	Points []MetricsPoint
	// Total is all of them together.
	Total Metrics
}

// MetricsRates are how much there was in each second of the last minute.
type MetricsRates struct {
	Events     float64
	Deliveries float64
}

// Overview is how one tenant is.
type Overview struct {
	Tenant TenantID     `json:"tenant"`
	Head   OverviewHead `json:"head"`
	// EventsPerSecond and DeliveriesPerSecond are of the last minute: events appended, events delivered.
	EventsPerSecond     float64 `json:"events_per_s"`
	DeliveriesPerSecond float64 `json:"deliveries_per_s"`
	// FirstTry is the share of first tries in the last hour that were taken, 0 to 1; nil if there was none.
	FirstTry *float64 `json:"first_try"`
	// Lag is of the last hour.
	Lag Quantiles `json:"lag"`
	// Oldest is what has waited longest for an active subscription, nil if nothing waits.
	Oldest        *Oldest               `json:"oldest"`
	Subscriptions OverviewSubscriptions `json:"subscriptions"`
	Parked        OverviewParked        `json:"parked"`
	Sources       int                   `json:"sources"`
	// Partial says that there are more subscriptions than MaxOverviewSubscriptions: Oldest, Subscriptions and Parked are of the first by id.
	Partial bool `json:"partial,omitempty"`
}

// MaxOverviewSubscriptions is how many subscriptions an Overview looks at.
const MaxOverviewSubscriptions = 1000

// OverviewHead is how far a log reaches.
type OverviewHead struct {
	// First is the first sequence that is left, Last the newest; Cursor stands at Last.
	First  Sequence `json:"first"`
	Last   Sequence `json:"last"`
	Cursor Cursor   `json:"cursor"`
}

// Oldest is an event that an active subscription has not been handed yet, and how long ago it was appended.
type Oldest struct {
	Age          Duration       `json:"age"`
	Subscription SubscriptionID `json:"subscription"`
}

// OverviewSubscriptions counts subscriptions; each is in one of the states. Failing ones are active with an open circuit.
type OverviewSubscriptions struct {
	Total    int `json:"total"`
	Active   int `json:"active"`
	Paused   int `json:"paused"`
	Disabled int `json:"disabled"`
	Failing  int `json:"failing"`
}

// OverviewParked counts what is set aside over all subscriptions.
type OverviewParked struct {
	Retrying int `json:"retrying"`
	Waiting  int `json:"waiting"`
	Dead     int `json:"dead"`
}
