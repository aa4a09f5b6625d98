// Package store is the seam between the engines and the drivers that keep data: our verbs, not SQL and not key-value.
//
// A driver implements Store and passes internal/storetest. All methods are safe for concurrent use, honour their
// context before they start to write, and answer errors that wrap the sentinels below. What a method returned is
// durable: a power cut directly afterwards takes nothing of it back, and nothing can be read that a power cut could
// still take back. Drivers do not retry, do not log, and keep no reference to slices that callers pass in unless a
// method says so. What they return is shared with their caches: callers do not change it.
package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
)

var (
	// ErrNotFound: nothing is stored there.
	ErrNotFound = errors.New("not found")
	// ErrVersion: a compare-and-set met another version. Nothing was changed.
	ErrVersion = errors.New("changed by somebody else")
	// ErrDifferent: an id is remembered with another digest. Nothing of that append was stored.
	ErrDifferent = errors.New("same id, different event")
	// ErrTrimmed: the sequence asked for is before the first one left.
	ErrTrimmed = errors.New("trimmed")
	// ErrFull: there is no room for more. Reads and small progress commits still work; it heals when there is room.
	ErrFull = errors.New("storage is full")
	// ErrFenced: a lease that the commit relies on is no longer held. Nothing was changed.
	ErrFenced = errors.New("lease lost")
	// ErrCorrupt: stored data is damaged. The error names the file, and the offset where known. Nothing was deleted.
	ErrCorrupt = errors.New("stored data is damaged")
	// ErrFailed: the store met a failure after which its memory and its disk may differ (a failed fsync). It answers
	// this to everything from then on; the process must restart.
	ErrFailed = errors.New("the store has failed and must be opened again")
	// ErrUnavailable: the store cannot be reached now (a database that is away). Try again.
	ErrUnavailable = errors.New("the store is away")
	// ErrBusy: somebody else holds the log just now. Nothing of that append was stored; it can be given again.
	ErrBusy = fmt.Errorf("%w: somebody else holds the log", ErrUnavailable)
	// ErrNewer: the data was written by a newer version than this one reads.
	ErrNewer = errors.New("written by a newer version of eventhose")
	// ErrLocked: another process has the data directory open.
	ErrLocked = errors.New("in use by another process")
)

// Store is everything a driver keeps.
type Store interface {
	Log
	Lanes
	Leases
	Records
	// Close waits for calls under way and makes everything clean. It may be called more than once.
	Close() error
}

// Log keeps one log per tenant.
type Log interface {
	// Append commits a group in one atomic, durable write: for each entry, in order, all of its new events get the next
	// sequences of its tenant (and, by reference, of its parent's log) or, if any id is remembered with another digest,
	// none does and the entry's result is ErrDifferent. An id that is given twice in the group counts as remembered
	// from its first on. The method's own error means that nothing of the group is stored, except ErrFailed, after which nobody knows.
	Append(ctx context.Context, group []Append) ([]AppendResult, error)
	// Read answers the events directly after a sequence, in order and without gap, up to the durable head: at most
	// limit.Events, and with sizes of about limit.Bytes together, at least one if there is one. ErrTrimmed if after+1 is no longer there.
	Read(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence, limit ReadLimit) ([]*eventhose.Event, error)
	// Lookup finds one event by place or by id; kept events of parked sequences are found after they were trimmed, by
	// place and by id. ErrNotFound otherwise.
	Lookup(ctx context.Context, tenant eventhose.TenantID, ref Ref) (*eventhose.Event, error)
	// Head answers how far the log reaches; an unknown tenant has an empty log. Also that has its incarnation from then on, which no
	// other log has.
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
	// Trim removes the oldest events by age and size, together with what hangs on them: remembered ids, attempts.
	// It keeps the events of parked sequences aside; those that Keep has no room for it answers, and may end before all is
	// removed. They stay until Trim is called again to lose them. It never removes the newest event.
	Trim(ctx context.Context, tenant eventhose.TenantID, t Trim) (Trimmed, error)
	// Erase removes an event's data, also from the files as soon as the store can; place, id and everything else stay.
	// Erasing again is no error. ErrNotFound if there is no such event. A place in a parent's log is erased with the event that it
	// refers to, or alone: the event then stays as it is.
	Erase(ctx context.Context, tenant eventhose.TenantID, seq eventhose.Sequence) error
}

// Append is one request: events that are accepted together or not at all.
type Append struct {
	Tenant eventhose.TenantID
	// Parent, if set, gets a place for each new event in its own log, under the id "tenant/id". The place refers to the
	// event and counts no bytes there: once the event is erased or gone from its own log, the place reads as erased. One that
	// is kept since it is parked has the data, whatever goes from the event's log, until the event is erased.
	Parent eventhose.TenantID
	// Events have Type, Appended and so on set; Sequence and Tenant are the driver's. An empty ID is made by the driver
	// with eventhose.EventID and is not remembered in the index of ids.
	Events []NewEvent
	// Skip: if somebody else holds its log, or its parent's, the entry is answered ErrBusy and so holds up no other; so are
	// those after it of the same tenant. The logs of a group's first entry are waited for, for a moment. What is not
	// to be skipped is waited for, in a store of many nodes for seconds.
	Skip bool
}

// NewEvent is an event with the digest of what the client sent.
type NewEvent struct {
	Event  eventhose.Event
	Digest [16]byte
}

// AppendResult is the answer to one Append.
type AppendResult struct {
	// Placements has one for each event, in order, unless Err is set.
	Placements []eventhose.Placement
	// Err is nil, ErrDifferent, of which Index says which event, or ErrBusy.
	Err   error
	Index int
}

// ReadLimit bounds a page.
type ReadLimit struct {
	Events int
	Bytes  int
}

// Ref names an event by its place, or if Sequence is 0 by scope and id.
type Ref struct {
	Sequence eventhose.Sequence
	Scope    string
	ID       string
}

// Trim says what may stay.
type Trim struct {
	// Before removes events appended before it, and with them those before them that a clock has stamped which was ahead of the present; zero removes
	// none by age.
	Before time.Time
	// Bytes is how much data may stay; 0 is no bound.
	Bytes int64
	// Keep is how many bytes of parked events are to be kept aside.
	Keep int64
	// Lose are parked events that are not kept aside any longer: those that were Over, once that was told.
	Lose []LostParked
}

// Trimmed says what Trim did.
type Trimmed struct {
	// First is the first sequence left.
	First eventhose.Sequence
	// Removed events and their bytes of data.
	Removed int
	Bytes   int64
	// Over are the parked events that Keep has no room for, oldest first.
	Over []LostParked
	// Lost are those of Lose that were there. A lane that has lost some has something to do, from LongDue on if its row has no
	// other Due time: what they held up goes on, and a hint of that may be lost.
	Lost []LostParked
}

// LongDue is a time that is long over.
var LongDue = time.Unix(0, 0).UTC()

// LostParked is a parked event whose data retention takes. Its parked row goes too, and the lane counts one less in
// Retrying or Dead. As JSON it is what the system event that tells of it says.
type LostParked struct {
	Subscription eventhose.SubscriptionID `json:"subscription"`
	Sequence     eventhose.Sequence       `json:"sequence"`
}

// Lanes keeps what each subscription's delivery stores, all of it bounded by the engine.
type Lanes interface {
	// Lane answers the lane's row and its blocked keys. ErrNotFound if there is none. The matcher is one more reader of a
	// log: the empty subscription answers a row whose Cursor is how far the log is matched (0 if not at all, never an error).
	Lane(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (Lane, []BlockedKey, error)
	// Parked lists parked rows by sequence, those after a sequence, of one state or "" for all. The empty subscription is all
	// of the tenant's: the rows then have a Subscription, and are by sequence and subscription.
	Parked(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, q ParkedQuery) ([]Parked, error)
	// Attempts lists attempts newest first. Those of all subscriptions may have attempts without a Subscription among them,
	// which have nothing but an id and stand for some that are gone: the caller passes over them.
	Attempts(ctx context.Context, tenant eventhose.TenantID, q AttemptQuery) ([]eventhose.Attempt, error)
	// Commit writes progress atomically and durably. ErrFenced if a lease of p.Fence is not held, and then nobody who takes
	// one of them can see a part of it later. After ErrUnavailable nobody knows whether it was written: it is committed again
	// as it was, which then changes nothing more. A lane that was deleted is left alone.
	Commit(ctx context.Context, p Progress) error
	// Work lists the lanes that have something to do (Behind, or a Due time), those after a tenant and subscription,
	// ordered by tenant and subscription.
	Work(ctx context.Context, after LaneRef, limit int) ([]Lane, error)
	// Tails lists the logs whose durable head is beyond what was matched, by tenant, those after one.
	Tails(ctx context.Context, after eventhose.TenantID, limit int) ([]Tail, error)
}

// LaneRef names a lane.
type LaneRef struct {
	Tenant       eventhose.TenantID
	Subscription eventhose.SubscriptionID
}

// Tail is a log's matching position. Matched 0 means that nothing was matched yet.
type Tail struct {
	Tenant  eventhose.TenantID
	Matched eventhose.Sequence
	Last    eventhose.Sequence
}

// Lane is one lane's row.
type Lane struct {
	LaneRef
	// Cursor: all due events up to it are settled, that is delivered or parked. A lane that is not Behind has also
	// settled everything up to its log's Matched.
	Cursor eventhose.Sequence
	// Previous is the last due sequence up to Cursor, 0 if there was none.
	Previous eventhose.Sequence
	// Began is the Cursor that the lane was made with: it is due nothing up to there. It does not change.
	Began eventhose.Sequence
	// Settled are the settled due sequences above Cursor, ascending, at most 1,024.
	Settled []eventhose.Sequence
	// Behind: there may be due events after Cursor that are not settled.
	Behind bool
	// Due is when the earliest retry or probe is due; zero if there is none.
	Due time.Time
	// Retrying and Dead count the parked rows; Waiting the events behind blocked keys.
	Retrying, Dead, Waiting int
	// FailingSince began the present run of failures, Run counts them. Open is the circuit, Probes counts its probes.
	FailingSince time.Time
	Run          int
	Open         bool
	Probes       int
	LastSuccess  time.Time
	Replays      []eventhose.Replay
}

// Parked is one parked row.
type Parked struct {
	eventhose.Parked
	// Previous is the due sequence before this one.
	Previous eventhose.Sequence
	// Tries counts every attempt at it, charged or not, in whatever batch.
	Tries int
	// Replay is the replay that sent it, "" for live.
	Replay string
	// Redriven says that a person asked for the next try.
	Redriven bool
}

// BlockedKey stands for all events of one key that wait behind a parked one.
type BlockedKey struct {
	Key string
	// Head is the parked sequence that holds the key, of several the last; 0 while what waited is being caught up.
	Head eventhose.Sequence
	// First is the first sequence that waits, Last the last, Count how many; First 0 if none does yet.
	First, Last eventhose.Sequence
	Count       int
	// Previous is the last due sequence before First.
	Previous eventhose.Sequence
}

// ParkedQuery pages through parked rows.
type ParkedQuery struct {
	State eventhose.ParkedState
	After eventhose.Sequence
	// AfterSubscription, in a list of all subscriptions, is which of them were listed of the sequence After; "" is all.
	AfterSubscription eventhose.SubscriptionID
	Limit             int
}

// AttemptQuery pages through attempts: of one subscription, or of one event (Sequence), or of one event at one subscription,
// or with neither of all subscriptions.
type AttemptQuery struct {
	Subscription eventhose.SubscriptionID
	Sequence     eventhose.Sequence
	// Through, if it is above Sequence, asks for the attempts at all events from that up to this one, each once.
	Through eventhose.Sequence
	// Before is the id of the last one of the previous page.
	Before string
	Limit  int
}

// About reports whether attempts at events at these places are asked for by their sequence.
func (q *AttemptQuery) About(places []eventhose.Sequence) bool {
	return slices.ContainsFunc(places, func(seq eventhose.Sequence) bool { return seq >= q.Sequence && seq <= max(q.Sequence, q.Through) })
}

// Progress is one atomic write of the delivery engine.
type Progress struct {
	// Fence are the leases it relies on; none in a store of one process.
	Fence []Lease
	// Matched moves logs' matching positions forward; a lower one is ignored.
	Matched []Tail
	Lanes   []LaneChange
}

// LaneChange replaces a lane's row and changes what hangs on it.
type LaneChange struct {
	Lane Lane
	// Park adds or replaces parked rows by sequence, Unpark removes them (and the event kept aside for them).
	Park   []Parked
	Unpark []eventhose.Sequence
	// Block adds or replaces blocked keys, Unblock removes them.
	Block   []BlockedKey
	Unblock []string
	// Attempts have ids greater than those of all attempts that the lane has.
	Attempts []eventhose.Attempt
	// Create makes a lane that does not exist yet; without it, a change to a lane that does not exist is left out.
	Create bool
	// Delete removes the lane and everything that hangs on it.
	Delete bool
}

// Shards is how many parts the subscriptions are spread over.
const Shards = 256

// ShardOf is the shard of a tenant, and so of all of its subscriptions: one matcher reads a log for all of them. It is
// FNV-1a of the id in 32 bits, folded to 8, and never changes: nodes of different versions must agree.
func ShardOf(tenant eventhose.TenantID) uint8 {
	h := uint32(2166136261)
	for i := range len(tenant) {
		h = (h ^ uint32(tenant[i])) * 16777619
	}
	h ^= h >> 16
	return uint8(h ^ h>>8)
}

// Lease is a node's hold on one shard. Epoch grows with each change of hands, also when a node takes a lease again that
// another could have had in between: one that had expired, or that it gave back.
type Lease struct {
	Shard uint8
	Epoch uint64
	// Until is when it ends unless it is claimed again, by the clock of the caller of Claim and rather too early than too
	// late: the time before that call, and ttl.
	Until time.Time
}

// Leases spread the lanes over nodes.
type Leases interface {
	// Claim keeps the leases that node holds for ttl more, but for those of give: these it gives back, and others can take
	// them at once; what node does not hold is passed over. It takes free and expired leases up to the node's fair share,
	// Shards by the number of live nodes, rounded up; a node is live for ttl after its claim. ttl 0 gives everything back
	// and leaves the set of nodes. With an error it is not known which of this was done.
	//
	// A store of one process grants every lease to whoever asks, and takes it from whoever had it.
	Claim(ctx context.Context, node string, give []uint8, ttl time.Duration) (Claimed, error)
}

// Claimed is what a node holds after a claim.
type Claimed struct {
	// Leases are all that it holds, by shard.
	Leases []Lease
	// Surplus is how many of these are more than its share. The caller is expected to finish what is under way on so many
	// shards and to give them in a later call.
	Surplus int
	// Shared says whether other nodes may have the store open at all.
	Shared bool
	// Changed says whether the set of live nodes is another than at this node's last call.
	Changed bool
}

// Records keeps small versioned documents: tenants, keys, subscriptions, secrets, idempotency answers.
type Records interface {
	// Record answers one record. ErrNotFound.
	Record(ctx context.Context, tenant eventhose.TenantID, kind, id string) (Record, error)
	// List pages through the records of a kind by id, those after one. Expired records are left out.
	List(ctx context.Context, tenant eventhose.TenantID, kind, after string, limit int) ([]Record, error)
	// Save writes records and lanes in one atomic, durable commit. Each record's Version must be the stored one's (0:
	// there is none, or it has expired), else ErrVersion; it is stored with the next. Lanes may be created and deleted along.
	Save(ctx context.Context, records []RecordChange, lanes []LaneChange) error
}

// Record is a document of at most 256 KiB. Tenant is "" for what belongs to none.
type Record struct {
	Tenant  eventhose.TenantID
	Kind    string // [a-z]+
	ID      string
	Version uint64
	Value   []byte
	// Expires, if set, is when the record may vanish by itself.
	Expires time.Time
}

// RecordChange stores a record, or deletes it.
type RecordChange struct {
	Record
	Delete bool
}
