package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/eventhose/eventhose"
)

// SearchOptions say what to search for. The zero value finds the newest events.
type SearchOptions struct {
	// Before is the Next of the page before, "" for the end of the log.
	Before string
	// Since and Until bound when events were appended, both included; zero is no bound.
	Since, Until time.Time
	// Types, Keys and Expression narrow, as in eventhose.Filter.
	Types      []string
	Keys       []string
	Expression string
	// ID finds at most one event. Scope is its CloudEvents source, "" if it has none.
	ID, Scope string
	// Status is "taken", "pending", "retrying", "waiting", "dead" or "failed" (retrying or dead), as at any subscription; "" is all.
	Status string
	// Limit is how many events at most, 0 the server's default.
	Limit int
}

// Found is one event that a search has found.
type Found struct {
	eventhose.Event
	// DataOmitted says that Event has none of its data: DataSize bytes, which are too many for a list, or with 0 what a portal link does not open.
	DataOmitted bool
	DataSize    int
	Deliveries  eventhose.DeliveryCounts
}

// SearchPage is one page of a search.
type SearchPage struct {
	// Found are by sequence, the greatest first.
	Found []Found
	// Next is Before of the next page, "" if nothing is left to be searched. A page may be empty and have a next one.
	Next string
	// SearchedTo is when the last event was appended that was looked at.
	SearchedTo time.Time
	// Head is the log's newest sequence.
	Head eventhose.Sequence
	// Partial says that the tenant has more subscriptions than Deliveries counts.
	Partial bool
}

// Search reads the log backwards, one page. A page looks at a bounded number of events, and tells how far it has come.
// CodeInvalid with the field, CodeCursorGone.
func (t *Tenant) Search(ctx context.Context, o SearchOptions) (SearchPage, error) {
	q := url.Values{}
	filterQuery(q, o.Types, o.Keys, o.Expression)
	timeQuery(q, o.Since, o.Until)
	for name, value := range map[string]string{"before": o.Before, "id": o.ID, "source": o.Scope, "status": o.Status} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if o.Limit != 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	var answer struct {
		Data []struct {
			wireEvent
			DataSize   int                      `json:"data_size"`
			Deliveries eventhose.DeliveryCounts `json:"deliveries"`
		} `json:"data"`
		Next       string             `json:"next"`
		SearchedTo time.Time          `json:"searched_to"`
		Head       eventhose.Sequence `json:"head"`
		Partial    bool               `json:"partial"`
	}
	if err := t.c.do(ctx, request{method: http.MethodGet, path: t.path("events", "search"), query: q, into: &answer}); err != nil {
		return SearchPage{}, err
	}
	page := SearchPage{Found: make([]Found, len(answer.Data)), Next: answer.Next, SearchedTo: answer.SearchedTo, Head: answer.Head, Partial: answer.Partial}
	for i := range answer.Data {
		d := &answer.Data[i]
		page.Found[i] = Found{d.event(t.id), d.DataOmitted, d.DataSize, d.Deliveries}
	}
	return page, nil
}

func timeQuery(q url.Values, since, until time.Time) {
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	if !until.IsZero() {
		q.Set("until", until.UTC().Format(time.RFC3339Nano))
	}
}

// SearchAttempts reads the attempts of all subscriptions, or of one, newest first, one page. A Limit of 0 is the server's
// default. A page looks at a bounded number of attempts: it may be short, or empty, and have a next one. CodeInvalid with the field.
func (t *Tenant) SearchAttempts(ctx context.Context, s eventhose.AttemptSearch) (eventhose.AttemptPage, error) {
	q := url.Values{}
	timeQuery(q, s.Since, s.Until)
	for name, value := range map[string]string{"before": s.Before, "subscription": string(s.Subscription), "outcome": string(s.Outcome), "reason": string(s.Reason)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if s.Limit != 0 {
		q.Set("limit", strconv.Itoa(s.Limit))
	}
	var answer struct {
		Data       []eventhose.Attempt `json:"data"`
		Next       string              `json:"next"`
		SearchedTo time.Time           `json:"searched_to"`
	}
	err := t.c.do(ctx, request{method: http.MethodGet, path: t.path("attempts"), query: q, into: &answer})
	return eventhose.AttemptPage{Attempts: answer.Data, Next: answer.Next, SearchedTo: answer.SearchedTo}, err
}

// Attempt answers one attempt: what was sent, what came back, and what that means. CodeNotFound.
func (t *Tenant) Attempt(ctx context.Context, id eventhose.SubscriptionID, attempt string) (eventhose.AttemptDetail, error) {
	var answer eventhose.AttemptDetail
	err := t.c.send(ctx, http.MethodGet, t.subscription(id, "attempts", attempt), nil, &answer)
	return answer, err
}

// SearchParked lists by sequence what all subscriptions have set aside in one state, or with "" in any; waiting events are
// listed by Parked. A page may be short, or empty, and have a next one.
func (t *Tenant) SearchParked(ctx context.Context, state eventhose.ParkedState, o ListOptions) (List[eventhose.Parked], error) {
	q := o.query()
	if state != "" {
		q.Set("state", string(state))
	}
	return list[eventhose.Parked](ctx, t.c, t.path("parked"), q)
}

// RetryNow has retrying events due at once: those with the given ids, or with none given all. It answers how many. CodeNotFound
// with the field if one is not retrying there.
func (t *Tenant) RetryNow(ctx context.Context, id eventhose.SubscriptionID, events ...string) (int, error) {
	return t.settle(ctx, id, "retry", chosen{Events: events})
}

// RetryNowAt is RetryNow for the events with the given sequences; with none given it does nothing.
func (t *Tenant) RetryNowAt(ctx context.Context, id eventhose.SubscriptionID, sequences ...eventhose.Sequence) (int, error) {
	return t.settleAt(ctx, id, "retry", sequences)
}

// Resend hands one event over once more, to the given subscriptions, or with none given to all that want it, and answers
// what was done for each. Scope is the event's, as in Event. CodeNotFound, CodeErased; CodeNotFound and CodeInvalid with the
// field ("subscriptions[2]").
func (t *Tenant) Resend(ctx context.Context, scope, event string, to ...eventhose.SubscriptionID) ([]eventhose.Resent, error) {
	body, err := jsonBody(struct {
		Subscriptions []eventhose.SubscriptionID `json:"subscriptions,omitempty"`
	}{to})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Replays []eventhose.Resent `json:"replays"`
	}
	err = t.c.do(ctx, request{method: http.MethodPost, path: t.path("events", event, "resend"), query: scopeQuery(scope), body: body, contentType: "application/json", into: &answer})
	return answer.Replays, err
}
