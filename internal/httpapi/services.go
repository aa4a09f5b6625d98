package httpapi

import (
	"context"
	"time"

	"github.com/eventhose/eventhose"
)

// Log is what the API needs of the event log.
type Log interface {
	eventhose.Appender
	eventhose.Reader
	// Page reads matching events after a cursor, examining at most 10,000.
	// CodeCursorGone, CodeInvalid (field "filter.…").
	Page(ctx context.Context, tenant eventhose.TenantID, after eventhose.Cursor, f eventhose.Filter, limit eventhose.PageLimit) (eventhose.Page, error)
	// Event finds an event by its id within a scope. CodeNotFound. An erased one comes with Erased set.
	Event(ctx context.Context, tenant eventhose.TenantID, scope, id string) (eventhose.Event, error)
	// Erase removes an event's data. CodeNotFound.
	Erase(ctx context.Context, tenant eventhose.TenantID, scope, id string) error
	Head(ctx context.Context, tenant eventhose.TenantID) (eventhose.Head, error)
	// Search reads backwards, a bounded page. keep says which of some matches are answered. CodeInvalid (field "filter.…").
	Search(ctx context.Context, tenant eventhose.TenantID, q eventhose.Search, keep func(context.Context, []eventhose.Event) ([]bool, error)) (eventhose.SearchPage, error)
}

// Metrics is what the API needs of what was counted over time.
type Metrics interface {
	// Series answers what was counted in each step. CodeInvalid with the field (from, to, step), CodeLimit.
	Series(ctx context.Context, q eventhose.MetricsQuery) (eventhose.MetricsSeries, error)
	// Rates answers how much there is in each second at present.
	Rates(ctx context.Context, tenant eventhose.TenantID) (eventhose.MetricsRates, error)
}

// Control is what the API needs of tenants, keys and subscriptions. All answers are copies that the caller owns.
type Control interface {
	Sessions
	PortalLinks
	Audits
	// Authenticate answers who holds a key or a portal link. CodeUnauthenticated if it is unknown, expired or revoked.
	Authenticate(ctx context.Context, key eventhose.Secret) (eventhose.Principal, error)
	// Holder answers who holds the key, the session or the portal link with an id, as he would be answered who showed it.
	Holder(ctx context.Context, id string) (eventhose.Principal, error)

	// PutTenant creates a tenant or updates its retention; created says which. CodeInvalid, CodeConflict (another
	// parent than before), CodeNotFound (field "parent").
	PutTenant(ctx context.Context, t eventhose.Tenant) (tenant eventhose.Tenant, created bool, err error)
	// Tenant: CodeNotFound.
	Tenant(ctx context.Context, id eventhose.TenantID) (eventhose.Tenant, error)
	// Tenants lists by id those after one.
	Tenants(ctx context.Context, after eventhose.TenantID, limit int) ([]eventhose.Tenant, error)

	// CreateKey makes a key for k.Tenant ("" is all tenants), k.Name, k.Scopes and k.Expires. The secret is shown this once.
	CreateKey(ctx context.Context, k eventhose.APIKey) (eventhose.APIKey, eventhose.Secret, error)
	// Keys lists those of one tenant, or with "" all, by id, those after one.
	Keys(ctx context.Context, tenant eventhose.TenantID, after string, limit int) ([]eventhose.APIKey, error)
	// RevokeKey ends a key of one tenant, or with "" of any, and answers it. CodeNotFound.
	RevokeKey(ctx context.Context, tenant eventhose.TenantID, id string) (eventhose.APIKey, error)

	// CreateSubscription validates and saves; from is "now" (or ""), "start" or a cursor's text. The answer holds the new secret.
	CreateSubscription(ctx context.Context, s eventhose.Subscription, from string) (eventhose.Subscription, error)
	// Subscription: CodeNotFound.
	Subscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID) (eventhose.Subscription, error)
	// Subscriptions lists by id those after one.
	Subscriptions(ctx context.Context, tenant eventhose.TenantID, after eventhose.SubscriptionID, limit int) ([]eventhose.Subscription, error)
	UpdateSubscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, p eventhose.SubscriptionPatch, judge func(before eventhose.Subscription) error) (eventhose.Subscription, error)
	DeleteSubscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID) error
	// SetState pauses (StatePaused) or resumes (StateActive) a subscription.
	SetState(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, state eventhose.SubscriptionState) (eventhose.Subscription, error)
	// RotateSecret makes a new signing secret; the old one goes on signing beside it for overlap.
	RotateSecret(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, overlap time.Duration) (eventhose.Subscription, error)

	// ReserveAnswer claims an Idempotency-Key for a request. If the key was used before it answers the stored answer, or
	// CodeConflict while the first request is under way, or CodeInvalid (field "Idempotency-Key") if the request's digest differs.
	// A nil answer and a nil error mean: go on, then call SaveAnswer, or with nil to give the key back.
	ReserveAnswer(ctx context.Context, tenant eventhose.TenantID, key string, digest [32]byte) (*eventhose.StoredAnswer, error)
	SaveAnswer(ctx context.Context, tenant eventhose.TenantID, key string, digest [32]byte, a *eventhose.StoredAnswer) error
}

// Delivery is what the API needs of the delivery engine. The subscription is known to exist when these are called.
type Delivery interface {
	Status(ctx context.Context, s eventhose.Subscription) (eventhose.LaneStatus, error)
	// Statuses is Status of several subscriptions of one tenant, in their order; nil for one that is there no more.
	Statuses(ctx context.Context, tenant eventhose.TenantID, subs []eventhose.Subscription) ([]*eventhose.LaneStatus, error)
	// Oldest finds which active one of them waits longest for an event, and when that was appended; zero if nothing waits.
	Oldest(ctx context.Context, tenant eventhose.TenantID, subs []eventhose.Subscription, statuses []*eventhose.LaneStatus) (eventhose.SubscriptionID, time.Time, error)
	// Attempts lists newest first, those before an attempt id ("" is the newest).
	Attempts(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, before string, limit int) ([]eventhose.Attempt, error)
	// AttemptsAt lists newest first those of the event at one place.
	AttemptsAt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, seq eventhose.Sequence, limit int) ([]eventhose.Attempt, error)
	// Waiting lists the waiting events by sequence, those after one; next is the place to go on from, 0 if nothing is left.
	Waiting(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, after eventhose.Sequence, limit int) (list []eventhose.Parked, next eventhose.Sequence, err error)
	// Parked lists by sequence those after one that are not waiting, in one state or with "" in any.
	Parked(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, state eventhose.ParkedState, after eventhose.Sequence, limit int) ([]eventhose.Parked, error)
	// Redrive tries dead events again at once: those with the given ids and those at the given places, or all with neither. It
	// answers how many. CodeNotFound with the field ("events[2]", "sequences[0]") if one is not dead there.
	Redrive(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at ...eventhose.Sequence) (int, error)
	// Discard gives up dead events, in the same way.
	Discard(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at ...eventhose.Sequence) (int, error)
	// Retry has retrying events due at once, in the same way.
	Retry(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []string, at ...eventhose.Sequence) (int, error)
	// Resend hands one event over once more, to some subscriptions or with none given to all that want it. CodeErased, CodeLimit,
	// CodeNotFound and CodeInvalid with the field ("subscriptions[2]"), CodeCursorGone.
	Resend(ctx context.Context, event eventhose.Event, to []eventhose.SubscriptionID) ([]eventhose.Resent, error)
	// Attempt answers one attempt whole. CodeNotFound.
	Attempt(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, id string) (eventhose.AttemptDetail, error)
	// SearchAttempts reads a bounded page of attempts, newest first.
	SearchAttempts(ctx context.Context, tenant eventhose.TenantID, q eventhose.AttemptSearch) (eventhose.AttemptPage, error)
	// SearchParked reads a bounded page of what all subscriptions have parked; more says that there may be others behind next.
	SearchParked(ctx context.Context, tenant eventhose.TenantID, state eventhose.ParkedState, after eventhose.ParkedPlace, limit int) (list []eventhose.Parked, next eventhose.ParkedPlace, more bool, err error)
	// Outlook answers what counts the subscriptions by what became of events, for one answer; whole says that none is left out.
	Outlook(ctx context.Context, tenant eventhose.TenantID) (count func(context.Context, []eventhose.Event) ([]eventhose.DeliveryCounts, error), whole bool, err error)
	// Replay sends a range once more; dry only counts. CodeLimit when MaxReplays are running, CodeCursorGone.
	Replay(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, r eventhose.ReplaySpec, dry bool) (replay eventhose.Replay, count int, err error)
	// Test sends a test event at once and answers what happened. It is not in the log.
	Test(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID) (eventhose.Attempt, error)
	// Pull hands events of a pull subscription to a worker, waiting for the first. CodeInvalid with the field, CodeConflict (it
	// has a destination), CodeNotFound, CodeUnavailable.
	Pull(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, p eventhose.Pull) ([]eventhose.Leased, error)
	// Answer does with leases what a worker says, and answers those that are its no more. Errors are Pull's.
	Answer(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, answer eventhose.Answer) (lost []string, err error)
	// Deliveries tells what became of an event at each subscription that it concerns.
	Deliveries(ctx context.Context, e eventhose.Event) ([]eventhose.Delivery, error)
}
