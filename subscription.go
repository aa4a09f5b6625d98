package eventhose

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Filter says which events a reader wants. The zero Filter wants all but system events.
type Filter struct {
	// Types are patterns, any of which may match: an exact type, "prefix.*", or "*" for all. None means "*".
	// System events are matched only by patterns that begin with "eventhose.".
	Types []string `json:"types,omitempty"`
	// Keys are ordering keys, any of which may match exactly. None means any.
	Keys []string `json:"keys,omitempty"`
	// Attributes must all be equal.
	Attributes map[string]string `json:"attributes,omitempty"`
	// Expression is CEL over type, key, attributes and data, and must yield a boolean. What an evaluation costs is bounded: an event
	// on which it costs more matches, so that nobody waits for it in vain.
	Expression string `json:"expression,omitempty"`
}

// Limits of a filter.
const (
	MaxFilterTypes = 100
	MaxFilterKeys  = 100
	MaxExpression  = 4096 // bytes
)

// Validate checks all but whether Expression type-checks, which internal/filter does. Errors are CodeInvalid and name
// the field below "filter".
func (f Filter) Validate() error {
	if len(f.Types) > MaxFilterTypes {
		return Invalid("filter.types", "must be at most %d", MaxFilterTypes)
	}
	for i, t := range f.Types {
		if !ValidTypePattern(t) {
			return Invalid(fmt.Sprintf("filter.types[%d]", i), `must be an event type, a prefix such as "order.*", or "*"`)
		}
	}
	if len(f.Keys) > MaxFilterKeys {
		return Invalid("filter.keys", "must be at most %d", MaxFilterKeys)
	}
	for i, k := range f.Keys {
		if k == "" || len(k) > MaxKey || !printable(k) {
			return Invalid(fmt.Sprintf("filter.keys[%d]", i), "must be 1 to %d bytes of printable UTF-8", MaxKey)
		}
	}
	if len(f.Attributes) > MaxAttributes {
		return Invalid("filter.attributes", "must be at most %d", MaxAttributes)
	}
	for name, value := range f.Attributes {
		if !attributeName(name) {
			return Invalid("filter.attributes", "names must be 1 to 64 letters, digits, _ . or -")
		}
		if len(value) > MaxAttribute || !printable(value) {
			return Invalid("filter.attributes."+name, "must be at most %d bytes of printable UTF-8", MaxAttribute)
		}
	}
	if len(f.Expression) > MaxExpression {
		return Invalid("filter.expression", "must be at most %d bytes", MaxExpression)
	}
	return nil
}

// ValidTypePattern reports whether s is an event type, a type prefix followed by ".*", or "*".
func ValidTypePattern(s string) bool {
	if s == "*" {
		return true
	}
	return ValidType(strings.TrimSuffix(s, ".*"))
}

// SubscriptionID is "sub_" and 26 characters.
type SubscriptionID string

// Ordering says what a subscription waits for before it hands over an event.
type Ordering string

const (
	// OrderingNone: nothing; a failed event is tried again on its own.
	OrderingNone Ordering = "none"
	// OrderingKey: the earlier events of the same key. Events without a key wait for nothing.
	OrderingKey Ordering = "key"
	// OrderingStrict: every earlier event.
	OrderingStrict Ordering = "strict"
)

// OnExhausted says what becomes of an event whose retry schedule ended.
type OnExhausted string

const (
	// OnExhaustedPark sets it aside as dead and goes on.
	OnExhaustedPark OnExhausted = "park"
	// OnExhaustedBlock holds its key (OrderingKey) or the lane (OrderingStrict) until a person redrives or discards it.
	OnExhaustedBlock OnExhausted = "block"
)

// SubscriptionState is whether a subscription delivers.
type SubscriptionState string

const (
	StateActive SubscriptionState = "active"
	// StatePaused: held by a person. The cursor stands.
	StatePaused SubscriptionState = "paused"
	// StateDisabled: held by Eventhose (410 from the receiver, or days of nothing but failure). The cursor stands.
	StateDisabled SubscriptionState = "disabled"
)

// DefaultSchedule is the waits before each attempt: Standard Webhooks' example, 75 h 35 min 5 s in sum.
func DefaultSchedule() []Duration {
	const s, m, h = Duration(time.Second), Duration(time.Minute), Duration(time.Hour)
	return []Duration{0, 5 * s, 5 * m, 30 * m, 2 * h, 5 * h, 10 * h, 14 * h, 20 * h, 24 * h}
}

// DefaultPullSchedule lets an event be handed to workers five times, at once each time unless a worker asks for a delay.
func DefaultPullSchedule() []Duration { return make([]Duration, 5) }

// Defaults and limits of a subscription.
const (
	DefaultTimeout      = Duration(15 * time.Second)
	DefaultDisableAfter = Duration(5 * 24 * time.Hour)
	MaxTimeout          = Duration(30 * time.Second)
	MaxSchedule         = 50                            // attempts
	MaxScheduleSum      = Duration(30 * 24 * time.Hour) // in sum
	MaxInFlight         = 64                            // attempts of one lane at once
	MaxRate             = 100_000                       // events a second that a lane may be limited to
	MaxParked           = 10_000                        // parked events of one lane
	MaxHeaders          = 32
	MaxHeaderValue      = 4096
	MaxName             = 256
	MaxBatchEvents      = 1000    // of one batch
	DefaultBatchBytes   = 1 << 20 // of data of one batch
	MinBatchBytes       = 1 << 10
	MaxBatchBytes       = 8 << 20
	MaxBatchWait        = Duration(time.Minute)
	MaxSubscriptions    = 20_000 // of one tenant
	MaxLiveSecrets      = 3
	DefaultOverlap      = Duration(24 * time.Hour)     // that a replaced secret goes on signing
	MaxOverlap          = Duration(7 * 24 * time.Hour) // of it
)

// Retry says when a failed event is tried again.
type Retry struct {
	// Schedule is the wait before each attempt, the first one's included. Jitter of up to a tenth is added, never taken away.
	Schedule []Duration `json:"schedule,omitempty"`
	// Timeout is an attempt's deadline, from connect to the end of the answer.
	Timeout Duration `json:"timeout,omitempty"`
	// DisableAfter is how long nothing but failure disables the subscription. -1ns or less means never.
	DisableAfter Duration `json:"disable_after,omitempty"`
}

// BatchPolicy says how many events travel in one request. The zero BatchPolicy sends each event alone.
type BatchPolicy struct {
	// MaxEvents is 1 to MaxBatchEvents. 1 sends each event alone, in the body of one event; above it every request has
	// the body of a batch, even if it carries a single event.
	MaxEvents int `json:"max_events,omitempty"`
	// MaxBytes bounds the data of a batch; an event that is larger travels alone.
	MaxBytes int `json:"max_bytes,omitempty"`
	// MaxWait is how long a batch that is not full waits, from when its first event was appended. 0 sends at once what there is.
	MaxWait Duration `json:"max_wait,omitempty"`
}

// Batched reports whether requests have the body of a batch.
func (p BatchPolicy) Batched() bool { return p.MaxEvents > 1 }

func (p BatchPolicy) validate() error {
	switch {
	case p == BatchPolicy{}:
		return nil
	case p.MaxEvents < 1 || p.MaxEvents > MaxBatchEvents:
		return Invalid("batch.max_events", "must be between 1 and %d", MaxBatchEvents)
	case p.MaxBytes < MinBatchBytes || p.MaxBytes > MaxBatchBytes:
		return Invalid("batch.max_bytes", "must be between %d and %d", MinBatchBytes, MaxBatchBytes)
	case p.MaxWait < 0 || p.MaxWait > MaxBatchWait:
		return Invalid("batch.max_wait", "must be between 0s and 60s")
	}
	return nil
}

// Destination is where a push subscription sends.
type Destination struct {
	// Type is "webhook".
	Type string `json:"type"`
	URL  string `json:"url"`
	// Headers are sent with each request. Names are of letters, digits, "-", "_" and ".". Values are secrets: encrypted at rest,
	// and shown as "***".
	Headers map[string]Secret `json:"headers,omitempty"`
	// Signature is "v1" (HMAC-SHA256, the default) or "v1a" (Ed25519), as in Standard Webhooks.
	Signature string `json:"signature,omitempty"`
	// Format is "" for our own body ("standard" asks for it too), or FormatCloudEvents.
	Format string `json:"format,omitempty"`
	// Compression of the body is "" for none, or CompressionGzip. The signature is over the body before it is compressed.
	Compression string `json:"compression,omitempty"`
}

// Formats and compressions of a Destination.
const (
	FormatStandard = "standard"
	// FormatCloudEvents is CloudEvents 1.0 in JSON: structured mode, or for batches its batched mode.
	FormatCloudEvents = "cloudevents"
	CompressionGzip   = "gzip"
)

// DestinationWebhook is the Type of signed HTTP requests.
const DestinationWebhook = "webhook"

// Subscription is a filter and a cursor over one log, and a rule for handing events over.
type Subscription struct {
	ID          SubscriptionID `json:"id"`
	Tenant      TenantID       `json:"tenant"`
	Name        string         `json:"name,omitempty"`
	Filter      Filter         `json:"filter"`
	Ordering    Ordering       `json:"ordering"`
	OnExhausted OnExhausted    `json:"on_exhausted"`
	Retry       Retry          `json:"retry"`
	MaxInFlight int            `json:"max_in_flight"`
	// MaxRate is how many events a second are sent or handed over at most, tries included; 0 is no limit.
	MaxRate int         `json:"max_rate,omitempty"`
	Batch   BatchPolicy `json:"batch,omitzero"`
	// Destination is where it sends; a subscription without one is a pull subscription, whose events workers ask for.
	Destination Destination `json:"destination,omitzero"`
	// Source is set of the inbox of a source, which is made and deleted with it.
	Source SourceID          `json:"source,omitempty"`
	State  SubscriptionState `json:"state"`
	// Reason says why State is not active, in a sentence.
	Reason  string    `json:"reason,omitempty"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	// PublicKey is the "whpk_" key that receivers verify v1a signatures with.
	PublicKey string `json:"public_key,omitempty"`
	// Secrets are the live signing secrets, newest first ("whsec_" or "whsk_"). Only those whose overlap has not ended
	// are listed. JSON never shows them.
	Secrets []LiveSecret `json:"-"`
	// Version counts changes, for compare-and-set.
	Version uint64 `json:"version"`
}

// LiveSecret is one signing secret.
type LiveSecret struct {
	Secret Secret
	// Until is when it stops signing; zero means it is the current one.
	Until time.Time
}

// Pull reports whether workers ask for the events, instead of being sent them.
func (s *Subscription) Pull() bool { return s.Destination.Type == "" && s.Destination.URL == "" }

// WithDefaults answers s with every field that may be left out filled in.
func (s Subscription) WithDefaults() Subscription {
	if s.Ordering == "" {
		s.Ordering = OrderingNone
	}
	if s.OnExhausted == "" {
		s.OnExhausted = OnExhaustedPark
	}
	if len(s.Retry.Schedule) == 0 {
		s.Retry.Schedule = DefaultSchedule()
		if s.Pull() {
			s.Retry.Schedule = DefaultPullSchedule()
		}
	}
	if s.Retry.Timeout == 0 {
		s.Retry.Timeout = DefaultTimeout
	}
	if s.Retry.DisableAfter == 0 {
		s.Retry.DisableAfter = DefaultDisableAfter
	}
	if s.MaxInFlight == 0 {
		s.MaxInFlight = MaxInFlight
	}
	if s.State == "" {
		s.State = StateActive
	}
	if s.Batch != (BatchPolicy{}) && s.Batch.MaxBytes == 0 {
		s.Batch.MaxBytes = DefaultBatchBytes
	}
	if s.Destination.Signature == "" && !s.Pull() {
		s.Destination.Signature = "v1"
	}
	if s.Destination.Format == FormatStandard {
		s.Destination.Format = ""
	}
	return s
}

// Validate checks a subscription with its defaults filled in. Errors are CodeInvalid with the field named. Whether the
// URL may be reached is the sink's to say, whether the expression type-checks internal/filter's.
func (s Subscription) Validate() error {
	if len(s.Name) > MaxName || !printable(s.Name) {
		return Invalid("name", "must be at most %d bytes of printable UTF-8", MaxName)
	}
	if err := s.Filter.Validate(); err != nil {
		return err
	}
	switch s.Ordering {
	case OrderingNone, OrderingKey, OrderingStrict:
	default:
		return Invalid("ordering", "must be none, key or strict")
	}
	switch {
	case s.OnExhausted != OnExhaustedPark && s.OnExhausted != OnExhaustedBlock:
		return Invalid("on_exhausted", "must be park or block")
	case s.OnExhausted == OnExhaustedBlock && s.Ordering == OrderingNone:
		return Invalid("on_exhausted", "block needs ordering key or strict: without order there is nothing to hold")
	case s.MaxInFlight < 1 || s.MaxInFlight > MaxInFlight:
		return Invalid("max_in_flight", "must be between 1 and %d", MaxInFlight)
	case s.MaxRate < 0 || s.MaxRate > MaxRate:
		return Invalid("max_rate", "must be between 1 and %d events a second, or 0 for no limit", MaxRate)
	}
	if err := s.Retry.validate(); err != nil {
		return err
	}
	if err := s.Batch.validate(); err != nil {
		return err
	}
	if s.Pull() {
		return s.validatePull()
	}
	return s.Destination.validate()
}

func (s *Subscription) validatePull() error {
	d := s.Destination
	if d.Format != "" || d.Compression != "" || d.Signature != "" || len(d.Headers) > 0 {
		return Invalid("destination.type", "is required")
	}
	if s.Batch.Batched() {
		return Invalid("batch", "is for destinations: who pulls says how many events at once")
	}
	return nil
}

func (r Retry) validate() error {
	if len(r.Schedule) > MaxSchedule {
		return Invalid("retry.schedule", "must be at most %d attempts", MaxSchedule)
	}
	var sum Duration
	for i, d := range r.Schedule {
		if d < 0 || d > MaxScheduleSum {
			return Invalid(fmt.Sprintf("retry.schedule[%d]", i), "must be between 0s and 720h")
		}
		sum += d
	}
	switch {
	case sum > MaxScheduleSum:
		return Invalid("retry.schedule", "must be at most 720h in sum")
	case r.Timeout < Duration(100*time.Millisecond) || r.Timeout > MaxTimeout:
		return Invalid("retry.timeout", "must be between 100ms and 30s")
	case r.DisableAfter > 0 && r.DisableAfter < Duration(time.Hour):
		return Invalid("retry.disable_after", "must be at least 1h, or negative for never")
	}
	return nil
}

func (d Destination) validate() error {
	switch {
	case d.Type == "":
		return Invalid("destination.type", "is required")
	case d.Type != DestinationWebhook:
		return Invalid("destination.type", "must be webhook")
	case d.URL == "":
		return Invalid("destination.url", "is required")
	case len(d.URL) > 2048:
		return Invalid("destination.url", "must be at most 2048 bytes")
	case d.Signature != "v1" && d.Signature != "v1a":
		return Invalid("destination.signature", "must be v1 or v1a")
	case d.Format != "" && d.Format != FormatStandard && d.Format != FormatCloudEvents:
		return Invalid("destination.format", "must be standard or cloudevents")
	case d.Compression != "" && d.Compression != CompressionGzip:
		return Invalid("destination.compression", "must be gzip, or left out")
	case len(d.Headers) > MaxHeaders:
		return Invalid("destination.headers", "must be at most %d", MaxHeaders)
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return Invalid("destination.url", "must be an absolute https URL")
	}
	return nil
}

// Secret is text that must not be shown by accident: it prints, logs and marshals as "***".
// Convert it to string where, and only where, its content is needed.
type Secret string

const redacted = "***"

func (s Secret) String() string   { return redacted }
func (s Secret) GoString() string { return redacted }

// Format redacts for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

func (s Secret) MarshalText() ([]byte, error)     { return []byte(redacted), nil }
func (s *Secret) UnmarshalText(text []byte) error { *s = Secret(text); return nil }

// SubscriptionPatch changes a subscription; nil fields stay as they are.
type SubscriptionPatch struct {
	Name        *string      `json:"name,omitempty"`
	Filter      *Filter      `json:"filter,omitempty"`
	Ordering    *Ordering    `json:"ordering,omitempty"`
	OnExhausted *OnExhausted `json:"on_exhausted,omitempty"`
	Retry       *Retry       `json:"retry,omitempty"`
	MaxInFlight *int         `json:"max_in_flight,omitempty"`
	MaxRate     *int         `json:"max_rate,omitempty"`
	Batch       *BatchPolicy `json:"batch,omitempty"`
	// Destination is replaced as a whole, except that a header whose value is "***" keeps the one it had.
	Destination *Destination `json:"destination,omitempty"`
}
