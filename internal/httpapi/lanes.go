package httpapi

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// Place is one end of a replay's range: a sequence (a JSON number), a cursor, or an RFC 3339 time (strings).
type Place struct {
	Sequence eventhose.Sequence
	Text     string
}

// placeWanted is what is said of everything that is no Place.
const placeWanted = "must be a sequence, a cursor or an RFC 3339 time"

// Schema describes a Place.
func (Place) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: "A sequence, a cursor, or an RFC 3339 time",
		AnyOf:       []*huma.Schema{{Type: huma.TypeInteger, Minimum: new(float64)}, {Type: huma.TypeString, MinLength: new(1)}},
	}
}

// UnmarshalJSONFrom reads a Place.
func (p *Place) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	t, err := d.ReadToken()
	if err != nil {
		return err
	}
	switch t.Kind() {
	case '0':
		n, err := strconv.ParseUint(t.String(), 10, 64)
		if err != nil {
			return eventhose.Invalid("", "must be a sequence")
		}
		p.Sequence = eventhose.Sequence(n)
	case '"':
		p.Text = t.String()
	default:
		return eventhose.Invalid("", placeWanted)
	}
	return nil
}

// ReplayRequest is the body of POST …/replay.
type ReplayRequest struct {
	From   Place    `json:"from,omitzero" doc:"Where it begins: this sequence, what follows this cursor, or what was appended from this time on; the first event left if left out"`
	To     Place    `json:"to,omitzero" doc:"Where it ends: with this sequence, at this cursor, or with what was appended until this time; the subscription's own cursor if left out"`
	Types  []string `json:"types,omitempty" doc:"Only these types, as in a filter"`
	Status string   `json:"status,omitempty" enum:"delivered,failed,dead" doc:"Only events of which this became"`
	DryRun bool     `json:"dry_run,omitempty" doc:"Only count"`
}

// ReplayAnswer says what was started, or would be.
type ReplayAnswer struct {
	Replay *eventhose.Replay `json:"replay,omitempty" doc:"What was started; absent after a dry run, and if delivery has not come to the range yet"`
	Count  *int              `json:"count,omitempty" doc:"How many events it concerns, if nothing was started"`
	// CountedTo is 0 if all of it was counted.
	CountedTo eventhose.Sequence `json:"counted_to,omitempty" doc:"Up to where a dry run has counted, if the range is too long for one answer: ask again from behind it for the rest"`
}

// Chosen is the body of retry, redrive and discard.
type Chosen struct {
	Events    []string             `json:"events,omitempty" maxItems:"1000" doc:"The ids of events in the state that this is for; an id that several sources have in use is the first of them. All events in the state if this and sequences are left out"`
	Sequences []eventhose.Sequence `json:"sequences,omitempty" maxItems:"1000" doc:"The sequences of events in the state that this is for, beside those in events"`
}

// Count is the answer of retry, redrive and discard.
type Count struct {
	Count int `json:"count" doc:"How many events it concerned"`
}

type (
	attemptsInput struct {
		InSubscription
		PageInput
		Event  string `query:"event" doc:"Only attempts of the event with this id, at most 100"`
		Source string `query:"source" doc:"The scope of event: a CloudEvents source"`
	}
	parkedInput struct {
		InSubscription
		PageInput
		State eventhose.ParkedState `query:"state" enum:"retrying,waiting,leased,dead" doc:"Only those in this state; all but waiting if left out"`
	}
	chosenInput struct {
		InSubscription
		Body *Chosen
	}
	replayInput struct {
		InSubscription
		Body *ReplayRequest
	}
	countOutput  struct{ Body Count }
	replayOutput struct {
		Status int
		Body   ReplayAnswer
	}
)

var attemptID = regexp.MustCompile(`^att_[0-9a-hjkmnp-tv-z]{26}$`)

func (a *API) addLanes() {
	const path = "/v1/tenants/{tenant}/subscriptions/{id}"
	tags := []string{"deliveries"}
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "listAttempts", Method: http.MethodGet, Path: path + "/attempts", Tags: tags,
		Summary:     "What was tried, newest first",
		Description: "A page ends at about 4 MB too.",
	}, func(ctx context.Context, in *attemptsInput) (*listOutput[eventhose.Attempt], error) {
		if _, err := a.control.Subscription(ctx, in.Tenant, in.ID); err != nil {
			return nil, err
		}
		if in.After != "" && !attemptID.MatchString(in.After) {
			return nil, eventhose.Invalid("after", "is not what this route gave out")
		}
		if in.Event != "" {
			return a.attemptsOf(ctx, in)
		}
		page := attemptsPage{limit: in.Limit, principal: exchangeOf(ctx).principal}
		for at := in.After; ; at = page.last() {
			wanted := min(in.Limit+1-len(page.list), attemptsStep)
			list, err := a.delivery.Attempts(ctx, in.Tenant, in.ID, at, wanted)
			if err != nil {
				return nil, err
			}
			if page.add(list) || len(list) < wanted {
				return page.output(), nil
			}
		}
	})
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "listParked", Method: http.MethodGet, Path: path + "/parked", Tags: tags,
		Summary:     "What is set aside, by sequence",
		Description: "Without a state, all but waiting events are listed: those lie in the log, and a page of them may be empty and yet have others behind it.",
	}, func(ctx context.Context, in *parkedInput) (*listOutput[eventhose.Parked], error) {
		if _, err := a.control.Subscription(ctx, in.Tenant, in.ID); err != nil {
			return nil, err
		}
		var after uint64
		if in.After != "" {
			var err error
			if after, err = strconv.ParseUint(in.After, 10, 64); err != nil {
				return nil, eventhose.Invalid("after", "is not what this route gave out")
			}
		}
		if in.State == eventhose.ParkedWaiting {
			out := &listOutput[eventhose.Parked]{}
			list, next, err := a.delivery.Waiting(ctx, in.Tenant, in.ID, eventhose.Sequence(after), in.Limit)
			if err != nil {
				return nil, err
			}
			if next > 0 {
				text := strconv.FormatUint(uint64(next), 10)
				out.Body.Next = &text
			}
			out.Body.Data = notNil(list)
			return out, nil
		}
		list, err := a.delivery.Parked(ctx, in.Tenant, in.ID, in.State, eventhose.Sequence(after), in.Limit+1)
		if err != nil {
			return nil, err
		}
		if !exchangeOf(ctx).principal.Can(eventhose.CapabilityData) {
			for i := range list {
				list[i].Message = ours(list[i].Reason, list[i].Message)
			}
		}
		return listed(list, in.Limit, func(p eventhose.Parked) string { return strconv.FormatUint(uint64(p.Sequence), 10) }), nil
	})
	settle := func(id, verb, summary, state string, do func(context.Context, eventhose.TenantID, eventhose.SubscriptionID, []string, ...eventhose.Sequence) (int, error)) {
		manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityReplay), huma.Operation{
			OperationID: id, Method: http.MethodPost, Path: path + "/parked/" + verb, Tags: tags, Summary: summary,
		}, func(ctx context.Context, in *chosenInput) (*countOutput, error) {
			if _, err := a.control.Subscription(ctx, in.Tenant, in.ID); err != nil {
				return nil, err
			}
			var chosen Chosen
			if in.Body != nil {
				chosen = *in.Body
			}
			const empty = "must not be empty; leave it out for all %s events"
			switch {
			case chosen.Events != nil && len(chosen.Events) == 0:
				return nil, eventhose.Invalid("events", empty, state)
			case chosen.Sequences != nil && len(chosen.Sequences) == 0:
				return nil, eventhose.Invalid("sequences", empty, state)
			}
			n, err := do(ctx, in.Tenant, in.ID, chosen.Events, chosen.Sequences...)
			return &countOutput{Count{n}}, err
		})
	}
	settle("retryNow", "retry", "Try retrying events at once; their schedule goes on from where it was", "retrying", a.delivery.Retry)
	settle("redrive", "redrive", "Try dead events again at once", "dead", a.delivery.Redrive)
	settle("discard", "discard", "Give up dead events", "dead", a.delivery.Discard)
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityReplay), huma.Operation{
		OperationID: "replay", Method: http.MethodPost, Path: path + "/replay", Tags: tags,
		Summary: "Send events once more, beside live order and marked by a header", DefaultStatus: http.StatusAccepted,
		Responses: map[string]*huma.Response{"200": a.jsonResponse("Counted, and nothing started", schemaOf[ReplayAnswer](a)), "410": a.problemResponse(http.StatusGone)},
	}, a.replay)
}

// attemptsOf lists the attempts of one event at one subscription.
func (a *API) attemptsOf(ctx context.Context, in *attemptsInput) (*listOutput[eventhose.Attempt], error) {
	e, err := a.log.Event(ctx, in.Tenant, in.Source, in.Event)
	if err != nil {
		return nil, err
	}
	list, err := a.delivery.AttemptsAt(ctx, in.Tenant, in.ID, e.Sequence, maxEventAttempts)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && exchangeOf(ctx).principal.Limited() { // whether there is such an event is not told either
		return nil, eventhose.NotFound("event")
	}
	if in.After != "" {
		list = slices.DeleteFunc(list, func(t eventhose.Attempt) bool { return t.ID >= in.After })
	}
	page := attemptsPage{limit: in.Limit, principal: exchangeOf(ctx).principal}
	page.add(list)
	return page.output(), nil
}

// attemptsStep is how many attempts are read at once for a list: each may have the ids of a thousand events, and an answer.
const attemptsStep = 100

// attemptsPage is a page of a list of attempts, which ends before its limit where they are large.
type attemptsPage struct {
	limit     int
	principal eventhose.Principal
	list      []eventhose.Attempt
	size      int
	more      bool
}

// add adds what there is room for, and reports whether something is left.
func (p *attemptsPage) add(list []eventhose.Attempt) (full bool) {
	for _, t := range list {
		if p.more = len(p.list) == p.limit || p.size >= eventhose.MaxPageBytes; p.more {
			break
		}
		p.size += t.Size()
		p.list = append(p.list, attemptShown(shownTo(p.principal, t)))
	}
	return p.more
}

// last is the id of the last one that it holds.
func (p *attemptsPage) last() string { return p.list[len(p.list)-1].ID }

func (p *attemptsPage) output() *listOutput[eventhose.Attempt] {
	out := &listOutput[eventhose.Attempt]{}
	if out.Body.Data = notNil(p.list); p.more {
		next := p.last()
		out.Body.Next = &next
	}
	return out
}

// maxEventAttempts is how many attempts at one event are listed.
const maxEventAttempts = 100

func (a *API) replay(ctx context.Context, in *replayInput) (*replayOutput, error) {
	if _, err := a.control.Subscription(ctx, in.Tenant, in.ID); err != nil {
		return nil, err
	}
	if in.Body == nil {
		in.Body = &ReplayRequest{}
	}
	spec := eventhose.ReplaySpec{Types: in.Body.Types, Status: in.Body.Status}
	var err error
	if spec.From, err = a.place(ctx, in.Tenant, in.Body.From, true); err == nil {
		spec.To, err = a.place(ctx, in.Tenant, in.Body.To, false)
	}
	if err != nil {
		return nil, err
	}
	if spec.From > spec.To && spec.To > 0 {
		return nil, eventhose.Invalid("to", "is before from")
	}
	replay, n, err := a.delivery.Replay(ctx, in.Tenant, in.ID, spec, in.Body.DryRun)
	if err != nil {
		return nil, err
	}
	if in.Body.DryRun || replay.ID == "" { // none was started if delivery has not come that far
		exchangeOf(ctx).harmless = true
		answer := ReplayAnswer{Count: &n}
		if in.Body.DryRun && replay.At < replay.To {
			answer.CountedTo = replay.At
		}
		return &replayOutput{Status: http.StatusOK, Body: answer}, nil
	}
	return &replayOutput{Status: http.StatusAccepted, Body: ReplayAnswer{Replay: &replay}}, nil
}

// place answers the sequence of one end of a range; from says which end it is.
func (a *API) place(ctx context.Context, tenant eventhose.TenantID, p Place, from bool) (eventhose.Sequence, error) {
	field := "to"
	if from {
		field = "from"
	}
	if p.Text == "" {
		return p.Sequence, nil
	}
	head, err := a.log.Head(ctx, tenant)
	if err != nil {
		return 0, err
	}
	if t, err := time.Parse(time.RFC3339Nano, p.Text); err == nil {
		return a.placeOf(ctx, tenant, head, t, from)
	}
	cursor, err := eventhose.ParseCursor(p.Text)
	if err != nil {
		return 0, eventhose.Invalid(field, placeWanted)
	}
	seq, err := head.Resolve(cursor)
	switch {
	case err != nil:
		var e *eventhose.Error
		if errors.As(err, &e) {
			e.Field = field
		}
		return 0, err
	case from:
		return seq + 1, nil
	case seq == 0:
		return 0, eventhose.Invalid(field, "is before the first event")
	}
	return seq, nil
}

// placeOf finds, by halving, the first event that was appended at or after a time, or for the end of a range the last
// one at or before it.
func (a *API) placeOf(ctx context.Context, tenant eventhose.TenantID, head eventhose.Head, t time.Time, from bool) (eventhose.Sequence, error) {
	if !from {
		t = t.Add(time.Microsecond) // the log's resolution
	}
	everything := eventhose.Filter{Types: []string{"*", eventhose.SystemPrefix + "*"}}
	low, high := head.First, head.Last+1 // the answer lies in [low, high]
	for low < high {
		middle := low + (high-low)/2
		page, err := a.log.Page(ctx, tenant, head.Cursor(middle-1), everything, eventhose.PageLimit{Events: 1})
		if err != nil {
			return 0, err
		}
		if len(page.Events) > 0 && page.Events[0].Appended.Before(t) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	switch {
	case from && low > head.Last:
		return 0, eventhose.Invalid("from", "nothing was appended since")
	case !from && low <= head.First:
		return 0, eventhose.Invalid("to", "nothing that is left was appended until then")
	case !from:
		return low - 1, nil
	}
	return low, nil
}

// attemptShown gives an attempt the lists that JSON should write as lists.
func attemptShown(t eventhose.Attempt) eventhose.Attempt {
	t.Events = notNil(t.Events)
	return t
}
