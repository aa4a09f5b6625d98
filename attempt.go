package eventhose

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// Outcome is how an attempt ended.
type Outcome string

const (
	// OutcomeTaken: the receiver took it.
	OutcomeTaken Outcome = "taken"
	// OutcomeFailed: it did not; there may be another try.
	OutcomeFailed Outcome = "failed"
	// OutcomeGone: the receiver wants nothing more (HTTP 410).
	OutcomeGone Outcome = "gone"
)

// Reason names why an attempt failed. The set is closed.
type Reason string

const (
	ReasonNone     Reason = ""
	ReasonStatus   Reason = "status"    // an answer, and not a 2xx
	ReasonRedirect Reason = "redirect"  // a 3xx, which is never followed
	ReasonTimeout  Reason = "timeout"   // no whole answer within the time-out
	ReasonDNS      Reason = "dns"       // the name does not resolve
	ReasonBlocked  Reason = "blocked"   // the address is not one that the operator allows
	ReasonRefused  Reason = "refused"   // nobody listens there
	ReasonReset    Reason = "reset"     // the connection broke
	ReasonTLS      Reason = "tls"       // handshake or certificate
	ReasonProtocol Reason = "protocol"  // what came back is not HTTP, or passes a limit
	ReasonConfig   Reason = "config"    // the subscription itself cannot be used (a secret that does not parse)
	ReasonPartly   Reason = "partly"    // the receiver took some of a batch
	ReasonStopping Reason = "cancelled" // this node stopped first; not charged
	ReasonNack     Reason = "nack"      // a worker gave it back
	ReasonExpired  Reason = "expired"   // a worker did not answer before its lease ended
)

// AttemptKind is why an attempt was made.
type AttemptKind string

const (
	AttemptFirst   AttemptKind = "first"
	AttemptRetry   AttemptKind = "retry"
	AttemptProbe   AttemptKind = "probe"   // while the circuit is open; not charged to the event's schedule
	AttemptReplay  AttemptKind = "replay"  // asked for by a replay
	AttemptRedrive AttemptKind = "redrive" // asked for by a redrive of a dead event
	AttemptTest    AttemptKind = "test"    // the test button; not in the log
)

// Phases are how long each part of an attempt took; zero where there was none (a reused connection has no DNS, Connect
// and TLS).
type Phases struct {
	DNS     Duration `json:"dns,omitempty"`
	Connect Duration `json:"connect,omitempty"`
	TLS     Duration `json:"tls,omitempty"`
	// Wait is from the request's last byte to the answer's first.
	Wait Duration `json:"wait,omitempty"`
}

// Attempt is one try at one batch: what was sent where, what came back, how long each phase took.
type Attempt struct {
	// ID is "att_" and 26 characters; a later attempt of a subscription has a greater one.
	ID           string         `json:"id"`
	Tenant       TenantID       `json:"tenant"`
	Subscription SubscriptionID `json:"subscription"`
	// Events are the ids of what was sent, Sequences their places, in the same order. A test has an id and no sequence.
	Events    []string    `json:"events"`
	Sequences []Sequence  `json:"sequences,omitempty"`
	Kind      AttemptKind `json:"kind"`
	// Batch is the id of a batch, derived from which events it holds: "" if the subscription sends them alone.
	Batch string `json:"batch,omitempty"`
	// Number counts the tries at the event, from 1; of several events, at the one that was tried most often.
	Number  int     `json:"number"`
	Outcome Outcome `json:"outcome"`
	Reason  Reason  `json:"reason,omitempty"`
	// Message says in plain words what went wrong and what to do about it.
	Message string `json:"message,omitempty"`
	// Status is the HTTP status, 0 if there was no answer.
	Status   int       `json:"status,omitempty"`
	Started  time.Time `json:"started"`
	Duration Duration  `json:"duration"`
	Phases   Phases    `json:"phases,omitzero"`
	URL      string    `json:"url,omitempty"`
	// Address is the remote address that was connected to.
	Address string `json:"address,omitempty"`
	// ResponseHeaders are the answer's, bounded. ResponseBody is the beginning of the answer's body: at most
	// MaxKeptBody bytes of a failure, MaxKeptTaken of a success.
	ResponseHeaders map[string]string `json:"response_headers,omitempty"`
	ResponseBody    string            `json:"response_body,omitempty"`
	// Next is when the next try is due; zero if there is none.
	Next time.Time `json:"next,omitzero"`
	// Replay is the replay that asked for it.
	Replay string `json:"replay,omitempty"`
	// Failed are the places of those events that the receiver did not take, with ReasonPartly.
	Failed []Sequence `json:"failed,omitempty"`
	// Previous are, for each of Sequences, the place that this subscription was due before it, 0 if there was none: what
	// the request said. Attempts by workers have none.
	Previous []Sequence `json:"previous,omitempty"`
}

const attemptPrefix = "att_"

// AttemptIDAt answers the least id that an attempt recorded at a time can have.
func AttemptIDAt(t time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(t.UnixMicro()))
	return attemptPrefix + IDText(b)
}

// AttemptIDTime answers when the attempt with an id was recorded, to the microsecond; false if it is no such id.
func AttemptIDTime(id string) (time.Time, bool) {
	text, is := strings.CutPrefix(id, attemptPrefix)
	b, ok := IDBytes(text)
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b[:8]))).UTC(), is && ok
}

// Took reports whether the receiver took the event at a place, which is one of a.Sequences.
func (a *Attempt) Took(seq Sequence) bool {
	return a.Outcome == OutcomeTaken || a.Reason == ReasonPartly && !slices.Contains(a.Failed, seq)
}

// attemptSize is about what an attempt takes beside its texts and its events.
const attemptSize = 512

// Size is about how many bytes the attempt takes in memory and in an answer.
func (a *Attempt) Size() int {
	n := attemptSize + len(a.Message) + len(a.URL) + len(a.ResponseBody) + 8*(len(a.Sequences)+len(a.Failed)+len(a.Previous))
	for _, id := range a.Events {
		n += 16 + len(id)
	}
	for name, value := range a.ResponseHeaders {
		n += len(name) + len(value)
	}
	return n
}

// How much of an answer's body an attempt keeps, in bytes.
const (
	MaxKeptBody  = 16 << 10
	MaxKeptTaken = 1 << 10
)

// ParkedState is why an event is set aside.
type ParkedState string

const (
	// ParkedRetrying: it has a due time.
	ParkedRetrying ParkedState = "retrying"
	// ParkedWaiting: behind a parked event of its key.
	ParkedWaiting ParkedState = "waiting"
	// ParkedLeased: in a worker's hands.
	ParkedLeased ParkedState = "leased"
	// ParkedDead: needs a person.
	ParkedDead ParkedState = "dead"
)

// Parked is an event set aside so that the cursor can move on.
type Parked struct {
	// Subscription is who has set it aside, in lists of all subscriptions.
	Subscription SubscriptionID `json:"subscription,omitempty"`

	Event    string      `json:"event"`
	Sequence Sequence    `json:"sequence"`
	Type     string      `json:"type"`
	Key      string      `json:"key,omitempty"`
	State    ParkedState `json:"state"`
	// Attempts that were charged so far.
	Attempts int `json:"attempts"`
	// Since is when it was parked, Due when it is tried next.
	Since time.Time `json:"since"`
	Due   time.Time `json:"due,omitzero"`
	// Status, Reason and Message are the last attempt's.
	Status  int    `json:"status,omitempty"`
	Reason  Reason `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Blocks says that it holds its key, or with OrderingStrict its lane.
	Blocks bool `json:"blocks,omitempty"`
	// Batch is the batch that it is tried in next, or was tried in last.
	Batch string `json:"batch,omitempty"`
}

// Delivery is what became of one event at one subscription.
type Delivery struct {
	Subscription SubscriptionID `json:"subscription"`
	// State is "pending", "delivered", or a ParkedState.
	State string `json:"state"`
	// Attempts are those still on record, newest first, at most 100. Where those of all subscriptions are very large the oldest are
	// left out, and of the newest what was answered.
	Attempts []Attempt `json:"attempts"`
}

const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
)

// LaneStatus is where one subscription's delivery stands.
type LaneStatus struct {
	// Cursor: every event up to it that concerns this subscription is delivered or parked.
	Cursor Cursor `json:"cursor"`
	// Lag is how many places of the log lie beyond Cursor.
	Lag      uint64 `json:"lag"`
	InFlight int    `json:"in_flight"`
	Retrying int    `json:"retrying"`
	// Leased is how many events are in workers' hands, of a pull subscription.
	Leased int `json:"leased,omitempty"`
	// BlockedKeys is how many keys have events waiting, Waiting how many events those are.
	BlockedKeys int `json:"blocked_keys"`
	Waiting     int `json:"waiting"`
	Dead        int `json:"dead"`
	// Circuit is "closed" or "open".
	Circuit string `json:"circuit"`
	// FailingSince is when the present run of nothing but failures began.
	FailingSince time.Time `json:"failing_since,omitzero"`
	LastSuccess  time.Time `json:"last_success,omitzero"`
	// Next is when the next try is due, if the lane waits.
	Next    time.Time `json:"next,omitzero"`
	Replays []Replay  `json:"replays,omitempty"`
}

// ReplaySpec asks for events of a subscription to be sent once more.
type ReplaySpec struct {
	// From is the first sequence and To the last, both included; 0 means the first left and the cursor.
	From, To Sequence
	// Types narrows to event types, as in Filter.Types. None means all.
	Types []string
	// Status is "" for all, "delivered", "failed" (the last attempt failed, or parked) or "dead".
	Status string
}

// Replay is a second, bounded cursor beside live order.
type Replay struct {
	ID     string   `json:"id"`
	From   Sequence `json:"from"`
	To     Sequence `json:"to"`
	Types  []string `json:"types,omitempty"`
	Status string   `json:"status,omitempty"`
	// At is how far it has come, Sent how many events it has sent.
	At      Sequence  `json:"at"`
	Sent    int       `json:"sent"`
	Created time.Time `json:"created"`
}

// MaxReplays is how many replays one subscription runs at once.
const MaxReplays = 8

// Leased is an event in a worker's hands: it is the worker's alone until the lease ends, is answered, or is given back.
type Leased struct {
	// Lease names this handing over: what is answered is the lease, not the event.
	Lease string
	Event Event
	// Deliveries counts how often the event was handed over since it was due, or redriven, this time included.
	Deliveries int
	// Until is when the lease ends.
	Until time.Time
	// Previous is the sequence that this subscription was due before this one; 0 if none.
	Previous Sequence
	// Replay is the replay that asked for it, "" for live.
	Replay string
}

// Pull asks for work.
type Pull struct {
	// Max is how many events are wanted at most, 1 to MaxPull. Fewer come of large ones: together they have at most MaxPageBytes
	// of data, unless the first alone has more.
	Max int
	// Wait is how long the answer is held if there are none.
	Wait time.Duration
	// Lease is how long the events are this worker's, MinLease to MaxLease.
	Lease time.Duration
}

// Answer is what a worker says of leases.
type Answer struct {
	// Verdict is AnswerAck, AnswerNack, AnswerExtend or AnswerRelease.
	Verdict Verdict
	// Leases are at most MaxPull.
	Leases []string
	// Delay is, with AnswerNack, how long the events wait before they are handed over again: below 0 is what the
	// subscription's schedule says. With AnswerExtend it is how long the leases last from now on.
	Delay time.Duration
	// Message says, with AnswerNack, what went wrong; at most MaxKeptTaken bytes of it are kept.
	Message string
}

// Verdict is what becomes of a lease.
type Verdict string

const (
	// AnswerAck: the work is done.
	AnswerAck Verdict = "ack"
	// AnswerNack: it is not, and the event is to be handed over again.
	AnswerNack Verdict = "nack"
	// AnswerExtend: it takes longer.
	AnswerExtend Verdict = "extend"
	// AnswerRelease: no worker has begun, or it stops, or it cannot be told that it may go on. The event is handed over again
	// at once, and the delivery does not count.
	AnswerRelease Verdict = "release"
)

// Limits of pull subscriptions.
const (
	MaxPull      = 1000
	DefaultLease = 30 * time.Second
	MinLease     = time.Second
	MaxLease     = 12 * time.Hour
	MaxNackDelay = 24 * time.Hour
)
