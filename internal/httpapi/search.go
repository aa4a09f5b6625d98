package httpapi

// Searching back: what happened lately, newest first, over a whole log and all of its subscriptions. No page looks at more than
// eventhose.MaxExamined things or much longer than eventhose.SearchTime; it then says how far it has come.

import (
	"bytes"
	"context"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// maxListedData is how much data an event has that a list shows with it, in bytes.
const maxListedData = 2 << 10

// FoundEvent is an event as a search answers it.
type FoundEvent struct {
	Event
	DataOmitted bool                     `json:"data_omitted,omitempty" doc:"The data is larger than 2 KiB and left out"`
	DataSize    int                      `json:"data_size,omitempty" doc:"How many bytes of data were left out"`
	Deliveries  eventhose.DeliveryCounts `json:"deliveries" doc:"At how many subscriptions which of these became of it. What a person has discarded counts as taken"`
}

// FoundEvents is one page of a search.
type FoundEvents struct {
	Data       []FoundEvent       `json:"data" doc:"By sequence, the greatest first"`
	Next       *string            `json:"next" nullable:"true" doc:"What before is for the next page; null if nothing is left to be searched"`
	SearchedTo time.Time          `json:"searched_to,omitzero" doc:"When the last event was appended that was looked at"`
	Head       eventhose.Sequence `json:"head" doc:"The log's newest sequence"`
	Partial    bool               `json:"partial,omitempty" doc:"The tenant has more than 1,000 subscriptions, and deliveries counts the first of them by id"`
}

// FoundAttempts is one page of a search of attempts.
type FoundAttempts struct {
	Data       []eventhose.Attempt `json:"data" doc:"Newest first"`
	Next       *string             `json:"next" nullable:"true" doc:"What before is for the next page; null if nothing is left to be searched"`
	SearchedTo time.Time           `json:"searched_to,omitzero" doc:"When the last attempt ended that was looked at"`
}

// Resending is the body of POST …/resend.
type Resending struct {
	Subscriptions []eventhose.SubscriptionID `json:"subscriptions,omitempty" maxItems:"1000" doc:"To whom, each once; to all whose filters want the event if left out"`
}

// Resends is its answer.
type Resends struct {
	Replays []eventhose.Resent `json:"replays"`
}

type (
	searchAttemptsInput struct {
		InTenant
		Before       string                   `query:"before" doc:"The next of the page before"`
		Subscription eventhose.SubscriptionID `query:"subscription" doc:"Only those of this subscription"`
		Outcome      eventhose.Outcome        `query:"outcome" enum:"taken,failed,gone" doc:"Only those that ended so"`
		Reason       eventhose.Reason         `query:"reason" enum:"status,redirect,timeout,dns,blocked,refused,reset,tls,protocol,config,partly,cancelled,nack,expired" doc:"Only those that failed for this reason"`
		Since        string                   `query:"since" doc:"Only those that ended at this time or later: RFC 3339, or a duration back from now such as 1h"`
		Until        string                   `query:"until" doc:"Only those that ended at this time or before"`
		Limit        int                      `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	}
	attemptInput struct {
		InSubscription
		Attempt string `path:"attempt" doc:"The attempt" example:"att_01j9z3k4m5n6p7q8r9s0t1v2w3"`
	}
	allParkedInput struct {
		InTenant
		PageInput
		State eventhose.ParkedState `query:"state" enum:"retrying,leased,dead" doc:"Only those in this state"`
	}
	resendInput struct {
		InTenant
		ID     string `path:"id" doc:"The event's id"`
		Source string `query:"source" doc:"The scope of the id: a CloudEvents source"`
		Body   *Resending
	}
	foundAttemptsOutput struct{ Body FoundAttempts }
	attemptOutput       struct{ Body eventhose.AttemptDetail }
	resendOutput        struct{ Body Resends }
)

func (a *API) addSearch() {
	const path = "/v1/tenants/{tenant}"
	tags := []string{"events"}
	texts := huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
	text := huma.Schema{Type: huma.TypeString}
	a.direct(reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "searchEvents", Method: http.MethodGet, Path: path + "/events/search", Tags: tags,
		Summary:     "Search the log backwards, newest first",
		Description: "A page examines at most 10,000 events and takes about 50 ms, then answers what it has found, how far back it has come, and `next` to go on with: it may be empty and yet have others behind it.",
		Parameters: []*huma.Param{pathParameter("tenant", "The tenant"),
			queryParameter("before", "The next of the page before", text),
			queryParameter("since", "Only what was appended at this time or later: RFC 3339, or a duration back from now such as 1h", text),
			queryParameter("until", "Only what was appended at this time or before", text),
			queryParameter("types", "Types, prefixes such as order.*, or *; repeated or separated by commas", texts),
			queryParameter("keys", "Ordering keys; repeated", texts),
			queryParameter("expression", expressionHelp, text),
			queryParameter("id", "Only the event with this id", text),
			queryParameter("source", "The scope of id: a CloudEvents source", text),
			queryParameter("status", "Only what any subscription has so; failed is retrying or dead", huma.Schema{Type: huma.TypeString, Enum: []any{"taken", "pending", "retrying", "waiting", "dead", "failed"}}),
			queryParameter("limit", "How many events at most", huma.Schema{Type: huma.TypeInteger, Minimum: number(1), Maximum: number(maxLimit), Default: defaultLimit}),
		},
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("A page", schemaOf[FoundEvents](a)),
			"410": a.problemResponse(http.StatusGone),
		},
	}, zipped(a.search))
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityReplay), huma.Operation{
		OperationID: "resendEvent", Method: http.MethodPost, Path: path + "/events/{id}/resend", Tags: tags,
		Summary:     "Hand an event over once more",
		Description: "What is settled is sent by a replay, what is dead is redriven, what is retrying is due at once, and what is to come anyway is left alone.",
		Responses:   map[string]*huma.Response{"410": a.problemResponse(http.StatusGone)},
	}, func(ctx context.Context, in *resendInput) (*resendOutput, error) {
		var to []eventhose.SubscriptionID
		if in.Body != nil {
			if to = in.Body.Subscriptions; to != nil && len(to) == 0 {
				return nil, eventhose.Invalid("subscriptions", "must not be empty; leave it out for all that want the event")
			}
		}
		e, err := a.log.Event(ctx, in.Tenant, in.Source, in.ID)
		if err != nil {
			return nil, err
		}
		list, err := a.delivery.Resend(ctx, e, to)
		return &resendOutput{Resends{notNil(list)}}, err
	})

	tags = []string{"deliveries"}
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "searchAttempts", Method: http.MethodGet, Path: path + "/attempts", Tags: tags,
		Summary:     "What was tried at all subscriptions, newest first",
		Description: "A page examines at most 10,000 attempts and takes about 50 ms, then answers what it has found, how far back it has come, and `next` to go on with. It ends at about 4 MB too.",
	}, a.searchAttempts)
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "getAttempt", Method: http.MethodGet, Path: path + "/subscriptions/{id}/attempts/{attempt}", Tags: tags,
		Summary:     "One attempt: what was sent, what came back, and what that means",
		Description: "The request is made once more, from the log and the subscription, by what sends it. Values of headers that the subscription sets are `***`.",
	}, func(ctx context.Context, in *attemptInput) (*attemptOutput, error) {
		if _, err := a.control.Subscription(ctx, in.Tenant, in.ID); err != nil {
			return nil, err
		}
		if !attemptID.MatchString(in.Attempt) {
			return nil, eventhose.NotFound("attempt")
		}
		d, err := a.delivery.Attempt(ctx, in.Tenant, in.ID, in.Attempt)
		if p := exchangeOf(ctx).principal; !p.Can(eventhose.CapabilityData) {
			d.Attempt, d.Request = shownTo(p, d.Attempt), nil
		}
		d.Attempt = attemptShown(d.Attempt)
		return &attemptOutput{d}, err
	})
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "searchParked", Method: http.MethodGet, Path: path + "/parked", Tags: tags,
		Summary:     "What all subscriptions have set aside, by sequence",
		Description: "Waiting events are listed at their subscription. A page may be empty and yet have others behind it.",
	}, a.searchParked)
}

// search answers GET …/events/search.
func (a *API) search(w http.ResponseWriter, r *http.Request) {
	body, err := a.searchPage(r.Context(), exchangeOf(r.Context()))
	if err != nil {
		a.fail(w, r, ofQuery(err))
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(body)
}

func (a *API) searchPage(ctx context.Context, x *exchange) ([]byte, error) {
	head, err := a.log.Head(ctx, x.tenant)
	if err != nil {
		return nil, err
	}
	q, err := a.searchQuery(x, head)
	if err != nil {
		return nil, err
	}
	status := x.query.Get("status")
	if status != "" && !(eventhose.DeliveryCounts{Taken: 1, Pending: 1, Retrying: 1, Waiting: 1, Dead: 1}).Has(status) {
		return nil, eventhose.Invalid("status", "must be one of taken, pending, retrying, waiting, dead, failed")
	}
	became := &becoming{api: a, tenant: x.tenant, status: status, of: map[eventhose.Sequence]eventhose.DeliveryCounts{}, whole: true}
	var page eventhose.SearchPage
	if id := x.query.Get("id"); id != "" {
		page, err = a.searchOne(ctx, x, q, id, became.keep)
	} else {
		page, err = a.log.Search(ctx, x.tenant, q, became.keep)
	}
	if err != nil {
		return nil, err
	}
	return appendFound(x.principal, &page, head, became), nil
}

func (a *API) searchQuery(x *exchange, head eventhose.Head) (q eventhose.Search, err error) {
	q.MaxData = maxListedData
	if q.Limit, err = limitOf(x.query.Get("limit")); err != nil {
		return q, err
	}
	if q.Filter, err = filterOf(x); err != nil {
		return q, err
	}
	if q.Since, q.Until, err = timesOf(x.query.Get("since"), x.query.Get("until")); err != nil {
		return q, err
	}
	before := x.query.Get("before")
	if before == "" {
		return q, nil
	}
	c, err := eventhose.ParseCursor(before)
	if err != nil || c == (eventhose.Cursor{}) {
		return q, eventhose.Invalid("before", "is not what this route gave out")
	}
	if c.Incarnation != head.Incarnation {
		if _, err = head.Resolve(c); err != nil {
			return q, err
		}
	}
	if q.Before = c.Sequence; q.Before == 0 {
		return q, eventhose.Invalid("before", "is not what this route gave out")
	}
	return q, nil
}

// searchOne finds one event, which must be what is searched for in every other way too.
func (a *API) searchOne(ctx context.Context, x *exchange, q eventhose.Search, id string, keep func(context.Context, []eventhose.Event) ([]bool, error)) (eventhose.SearchPage, error) {
	e, err := a.log.Event(ctx, x.tenant, x.query.Get("source"), id)
	if eventhose.CodeOf(err) == eventhose.CodeNotFound {
		return eventhose.SearchPage{}, nil
	}
	if err != nil {
		return eventhose.SearchPage{}, err
	}
	if q.Before > 0 && e.Sequence >= q.Before {
		return eventhose.SearchPage{}, nil
	}
	q.Before, q.Limit = e.Sequence+1, 1
	page, err := a.log.Search(ctx, x.tenant, q, func(ctx context.Context, group []eventhose.Event) ([]bool, error) {
		kept, err := keep(ctx, group)
		for i := range kept {
			kept[i] = kept[i] && group[i].Sequence == e.Sequence
		}
		return kept, err
	})
	page.Next = 0
	return page, err
}

// becoming tells what became of the events of one page, and keeps those of a status.
type becoming struct {
	api    *API
	tenant eventhose.TenantID
	status string
	of     map[eventhose.Sequence]eventhose.DeliveryCounts
	count  func(context.Context, []eventhose.Event) ([]eventhose.DeliveryCounts, error)
	whole  bool
}

func (b *becoming) keep(ctx context.Context, events []eventhose.Event) (kept []bool, err error) {
	if b.count == nil {
		if b.count, b.whole, err = b.api.delivery.Outlook(ctx, b.tenant); err != nil {
			return nil, err
		}
	}
	counts, err := b.count(ctx, events)
	if err != nil {
		return nil, err
	}
	kept = make([]bool, len(events))
	for i := range events {
		if kept[i] = b.status == "" || counts[i].Has(b.status); kept[i] {
			b.of[events[i].Sequence] = counts[i]
		}
	}
	return kept, nil
}

func appendFound(p eventhose.Principal, page *eventhose.SearchPage, head eventhose.Head, b *becoming) []byte {
	body := append(make([]byte, 0, 128+1024*len(page.Found)), `{"data":[`...)
	for i := range page.Found {
		if i > 0 {
			body = append(body, ',')
		}
		f := &page.Found[i]
		cursor := head.Cursor(f.Event.Sequence)
		if f.Size > len(f.Event.Data) {
			body = append(appendEnvelope(body, &f.Event, cursor), `,"data_omitted":true,"data_size":`...)
			body = strconv.AppendInt(body, int64(f.Size), 10)
		} else {
			body = appendFor(p, body, &f.Event, cursor)
		}
		counts, _ := marshal(b.of[f.Event.Sequence]) // numbers always marshal
		body = append(append(append(body, `,"deliveries":`...), bytes.TrimSpace(counts)...), '}')
	}
	body = append(body, `],"next":`...)
	if page.Next > 0 {
		body = quote(body, head.Cursor(page.Next).String())
	} else {
		body = append(body, "null"...)
	}
	if !page.SearchedTo.IsZero() {
		body = append(body, `,"searched_to":"`...)
		body = append(page.SearchedTo.AppendFormat(body, time.RFC3339Nano), '"')
	}
	body = append(body, `,"head":`...)
	body = strconv.AppendUint(body, uint64(head.Last), 10)
	if !b.whole {
		body = append(body, `,"partial":true`...)
	}
	return append(body, '}')
}

// timesOf reads what bounds a search in time.
func timesOf(since, until string) (from, to time.Time, err error) {
	now := time.Now()
	if since != "" {
		if from, _, err = timeOf("since", since, now); err != nil {
			return from, to, err
		}
	}
	if until != "" {
		if to, _, err = timeOf("until", until, now); err != nil {
			return from, to, err
		}
	}
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		return from, to, eventhose.Invalid("until", "is before since")
	}
	return from, to, nil
}

func (a *API) searchAttempts(ctx context.Context, in *searchAttemptsInput) (*foundAttemptsOutput, error) {
	q := eventhose.AttemptSearch{Subscription: in.Subscription, Before: in.Before, Outcome: in.Outcome, Reason: in.Reason, Limit: in.Limit}
	var err error
	if q.Since, q.Until, err = timesOf(in.Since, in.Until); err != nil {
		return nil, err
	}
	if in.Before != "" && !attemptID.MatchString(in.Before) {
		return nil, eventhose.Invalid("before", "is not what this route gave out")
	}
	if in.Subscription != "" {
		if _, err := a.control.Subscription(ctx, in.Tenant, in.Subscription); err != nil {
			return nil, err
		}
	}
	page, err := a.delivery.SearchAttempts(ctx, in.Tenant, q)
	if err != nil {
		return nil, err
	}
	out := &foundAttemptsOutput{FoundAttempts{Data: notNil(page.Attempts), SearchedTo: page.SearchedTo}}
	for i := range page.Attempts {
		page.Attempts[i] = attemptShown(shownTo(exchangeOf(ctx).principal, page.Attempts[i]))
	}
	if page.Next != "" {
		out.Body.Next = &page.Next
	}
	return out, nil
}

var parkedPlace = regexp.MustCompile(`^([1-9][0-9]{0,19})\.(sub_[0-9a-hjkmnp-tv-z]{26})$`)

func (a *API) searchParked(ctx context.Context, in *allParkedInput) (*listOutput[eventhose.Parked], error) {
	var after eventhose.ParkedPlace
	if in.After != "" {
		parts := parkedPlace.FindStringSubmatch(in.After)
		if parts == nil {
			return nil, eventhose.Invalid("after", "is not what this route gave out")
		}
		seq, err := strconv.ParseUint(parts[1], 10, 64)
		if err != nil {
			return nil, eventhose.Invalid("after", "is not what this route gave out")
		}
		after = eventhose.ParkedPlace{Sequence: eventhose.Sequence(seq), Subscription: eventhose.SubscriptionID(parts[2])}
	}
	list, next, more, err := a.delivery.SearchParked(ctx, in.Tenant, in.State, after, in.Limit)
	if err != nil {
		return nil, err
	}
	if !exchangeOf(ctx).principal.Can(eventhose.CapabilityData) {
		for i := range list {
			list[i].Message = ours(list[i].Reason, list[i].Message)
		}
	}
	out := &listOutput[eventhose.Parked]{}
	if out.Body.Data = notNil(list); more {
		place := strconv.FormatUint(uint64(next.Sequence), 10) + "." + string(next.Subscription)
		out.Body.Next = &place
	}
	return out, nil
}
