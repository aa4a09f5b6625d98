package eventhose

import "time"

// What one page of a search looks at before it answers what it has found, with a place to go on from: about so long, and so
// many events or attempts. A rare filter so never turns a request into a scan.
const (
	MaxExamined = 10_000
	SearchTime  = 50 * time.Millisecond
)

// Search asks for a log's events backwards, newest first.
type Search struct {
	// Before is where it begins: below this sequence. 0 is the end of the log.
	Before Sequence
	// Since and Until bound when events were appended, both included; zero is no bound.
	Since, Until time.Time
	Filter       Filter
	// Limit is how many events a page holds at most, at least 1.
	Limit int
	// MaxData is for how much data: an event that has more is answered without it.
	MaxData int
}

// Found is one event that a search has found. Size is how much data it has, in bytes, whether Data is there or not.
type Found struct {
	Event Event
	Size  int
}

// SearchPage is one page of a search.
type SearchPage struct {
	// Found are by sequence, the greatest first.
	Found []Found
	// Next is Before of the next page, 0 if nothing is left to be searched.
	Next Sequence
	// SearchedTo is when the last event was appended that was looked at; zero if none was.
	SearchedTo time.Time
	// Examined is how many were.
	Examined int
}

// DeliveryCounts is, for one event, at how many subscriptions which of these became of it. Events in workers' hands are
// pending; what a person has discarded counts as taken.
type DeliveryCounts struct {
	Taken    int `json:"taken"`
	Pending  int `json:"pending"`
	Retrying int `json:"retrying"`
	Waiting  int `json:"waiting"`
	Dead     int `json:"dead"`
}

// Has reports whether a state is the event's at any subscription: one of the members' names, or "failed", which is
// retrying or dead.
func (c DeliveryCounts) Has(state string) bool {
	switch state {
	case "taken":
		return c.Taken > 0
	case "pending":
		return c.Pending > 0
	case "retrying":
		return c.Retrying > 0
	case "waiting":
		return c.Waiting > 0
	case "dead":
		return c.Dead > 0
	case "failed":
		return c.Retrying+c.Dead > 0
	}
	return false
}

// AttemptSearch asks for attempts newest first, of all of a tenant's subscriptions or of one.
type AttemptSearch struct {
	Subscription SubscriptionID
	// Before is the Next of the page before, "" for the newest.
	Before string
	// Outcome and Reason narrow, if they are set.
	Outcome Outcome
	Reason  Reason
	// Since and Until bound when attempts ended, both included; zero is no bound.
	Since, Until time.Time
	// Limit is how many a page holds at most, at least 1.
	Limit int
}

// AttemptPage is one page of such a search.
type AttemptPage struct {
	Attempts []Attempt
	// Next is Before of the next page, "" if nothing is left to be searched.
	Next string
	// SearchedTo is when the last attempt ended that was looked at; zero if none was.
	SearchedTo time.Time
}

// ParkedPlace is a place in a list of what all of a tenant's subscriptions have parked. The zero place is its beginning.
type ParkedPlace struct {
	Sequence     Sequence
	Subscription SubscriptionID
}

// AttemptDetail is one attempt with what was sent and what its outcome means.
type AttemptDetail struct {
	Attempt
	// Request is what was sent. It is nil if that cannot be told: an event is gone, or the attempt was a worker's.
	Request *SentRequest `json:"request,omitempty"`
	// EventGone says that an event is trimmed or erased.
	EventGone bool `json:"event_gone,omitempty"`
	// Diagnosis is nil if the attempt did not fail.
	Diagnosis *Diagnosis `json:"diagnosis,omitempty"`
}

// SentRequest is an attempt's request, made once more from the log and the subscription.
type SentRequest struct {
	Method string `json:"method"`
	// URL is without what may be secret: user, password, query.
	URL string `json:"url"`
	// Headers are all that are sent. Values that the subscription sets are "***". The signature is among them if it is
	// certain that the secrets of then are those of now.
	Headers map[string]string `json:"headers"`
	// Body is before it is compressed, at most MaxShownBody bytes of it.
	Body          string `json:"body"`
	BodyTruncated bool   `json:"body_truncated,omitempty"`
	// Changed says that the subscription was changed since: what was sent may have been formed in another way.
	Changed bool `json:"subscription_changed,omitempty"`
}

// MaxShownBody is how much of a request's body is shown, in bytes.
const MaxShownBody = 64 << 10

// Diagnosis says in plain words what an attempt's failure means, and what mends it.
type Diagnosis struct {
	// Title is a line without a full stop, Detail a few sentences.
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Fix    Fix    `json:"fix"`
}

// Fix names what mends a failure. The set is closed.
type Fix string

const (
	FixReceiver     Fix = "fix_receiver"  // look into the receiver's own log
	FixCertificate  Fix = "certificate"   // give the receiver another certificate
	FixSecret       Fix = "rotate_secret" // compare the signing secret, rotate it if need be
	FixHeaders      Fix = "edit_headers"  // the credentials that the subscription sends
	FixTimeout      Fix = "raise_timeout"
	FixNetwork      Fix = "allow_network" // the operator's to do
	FixURL          Fix = "edit_url"
	FixSlowDown     Fix = "slow_down" // set max_rate or max_in_flight
	FixBatch        Fix = "smaller_batches"
	FixResume       Fix = "resume"  // once the receiver wants events again
	FixRedrive      Fix = "redrive" // there is no try to come by itself
	FixWait         Fix = "wait"    // it is tried again by itself
	FixSubscription Fix = "edit_subscription"
	FixWorker       Fix = "fix_worker" // look at the worker that had the event
)

// Resent is what was done to hand an event over to one subscription once more.
type Resent struct {
	Subscription SubscriptionID `json:"subscription"`
	// Replay is the replay that sends it; nil if none was needed.
	Replay *Replay `json:"replay,omitempty"`
	// Did is "replay", or what else sends it: "redrive" of a dead event, "retry" at once of one that is retrying, "pending"
	// if it is to come anyway, "failed" if none of it could be done.
	Did string `json:"did"`
	// Error says why it failed.
	Error string `json:"error,omitempty"`
}
