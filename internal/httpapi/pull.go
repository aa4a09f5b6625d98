package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// PullRequest is the body of POST …/pull.
type PullRequest struct {
	Max   int                `json:"max,omitempty" doc:"How many events at most, 1 to 1000; 10 if left out. Fewer come when they are large"`
	Wait  eventhose.Duration `json:"wait,omitempty" doc:"How long the answer is held if there are none, with an Idempotency-Key at most 30s; not at all if left out"`
	Lease eventhose.Duration `json:"lease,omitempty" doc:"How long the events are this worker's, 1s to 12h; 30s if left out"`
}

// Leases is the answer of POST …/pull.
type Leases struct {
	Data []Lease `json:"data"`
}

// Lease is an event in a worker's hands.
type Lease struct {
	Lease      string `json:"lease" doc:"What ack, nack, release and extend take"`
	Deliveries int    `json:"deliveries" doc:"How often the event was handed over, this time included"`
	Until      string `json:"until" format:"date-time" doc:"When it is handed to another worker, unless this one has answered"`
	Previous   uint64 `json:"previous_sequence" doc:"The sequence that this subscription was due before this event; 0 if none"`
	Replay     string `json:"replay,omitempty" doc:"The replay that asked for it"`
	Event      Event  `json:"event"`
}

// AckRequest is the body of POST …/ack.
type AckRequest struct {
	Leases []string `json:"leases" doc:"At most 1000"`
}

// NackRequest is the body of POST …/nack.
type NackRequest struct {
	Leases  []string            `json:"leases" doc:"At most 1000"`
	Delay   *eventhose.Duration `json:"delay,omitempty" doc:"How long the events wait before they are handed over again, at most 24h; what retry.schedule says if left out"`
	Message string              `json:"message,omitempty" doc:"What went wrong, for the record of attempts; 1024 bytes of it are kept"`
}

// ReleaseRequest is the body of POST …/release.
type ReleaseRequest struct {
	Leases []string `json:"leases" doc:"At most 1000"`
}

// ExtendRequest is the body of POST …/extend.
type ExtendRequest struct {
	Leases []string           `json:"leases" doc:"At most 1000"`
	Lease  eventhose.Duration `json:"lease,omitempty" doc:"How long they last from now on, 1s to 12h; 30s if left out"`
}

// Answered is the answer of ack, nack, release and extend.
type Answered struct {
	Count int      `json:"count" doc:"How many leases it was done for"`
	Lost  []string `json:"lost" doc:"Leases that were this worker's no more: the event was handed to another, or the lease was answered before"`
}

type (
	ackInput struct {
		InSubscription
		Body AckRequest
	}
	nackInput struct {
		InSubscription
		Body NackRequest
	}
	releaseInput struct {
		InSubscription
		Body ReleaseRequest
	}
	extendInput struct {
		InSubscription
		Body ExtendRequest
	}
	answeredOutput struct{ Body Answered }
)

const defaultPull = 10

func (a *API) addPull() {
	const path = "/v1/tenants/{tenant}/subscriptions/{id}"
	tags := []string{"workers"}
	work := changes(eventhose.ScopeRead)
	work.quiet = true
	a.direct(work, huma.Operation{
		OperationID: "pull", Method: http.MethodPost, Path: path + "/pull", Tags: tags,
		Summary:     "Take events to work on",
		Description: "From a subscription without a destination. An answer has 4 MiB of data at most, so it has fewer events when they are large; the next pull gets the others. What is not acknowledged before its lease ends is handed over again, to any worker; after as many deliveries as `retry.schedule` has entries (5 if it was left out) the event is dead.",
		Parameters:  []*huma.Param{pathParameter("tenant", "The tenant"), pathParameter("id", "The subscription")},
		RequestBody: &huma.RequestBody{Content: map[string]*huma.MediaType{typeJSON: {Schema: schemaOf[PullRequest](a)}}},
		Responses:   map[string]*huma.Response{"200": a.jsonResponse("What there is; none after wait", schemaOf[Leases](a))},
	}, zipped(a.pull))
	manage(a, work, huma.Operation{
		OperationID: "ack", Method: http.MethodPost, Path: path + "/ack", Tags: tags, Summary: "The work is done",
	}, func(ctx context.Context, in *ackInput) (*answeredOutput, error) {
		return a.answer(ctx, in.InSubscription, eventhose.Answer{Verdict: eventhose.AnswerAck, Leases: in.Body.Leases})
	})
	manage(a, work, huma.Operation{
		OperationID: "nack", Method: http.MethodPost, Path: path + "/nack", Tags: tags, Summary: "The work failed: hand the events over again",
	}, func(ctx context.Context, in *nackInput) (*answeredOutput, error) {
		answer := eventhose.Answer{Verdict: eventhose.AnswerNack, Leases: in.Body.Leases, Delay: -1, Message: in.Body.Message}
		if in.Body.Delay != nil {
			if answer.Delay = time.Duration(*in.Body.Delay); answer.Delay < 0 {
				return nil, eventhose.Invalid("delay", "must not be negative")
			}
		}
		return a.answer(ctx, in.InSubscription, answer)
	})
	manage(a, work, huma.Operation{
		OperationID: "release", Method: http.MethodPost, Path: path + "/release", Tags: tags, Summary: "The worker stops: hand the events over again",
		Description: "At once, and the delivery does not count. For a worker that stops in the middle of its work; what failed is for nack.",
	}, func(ctx context.Context, in *releaseInput) (*answeredOutput, error) {
		return a.answer(ctx, in.InSubscription, eventhose.Answer{Verdict: eventhose.AnswerRelease, Leases: in.Body.Leases})
	})
	manage(a, work, huma.Operation{
		OperationID: "extend", Method: http.MethodPost, Path: path + "/extend", Tags: tags, Summary: "The work takes longer",
	}, func(ctx context.Context, in *extendInput) (*answeredOutput, error) {
		if in.Body.Lease == 0 {
			in.Body.Lease = eventhose.Duration(eventhose.DefaultLease)
		}
		return a.answer(ctx, in.InSubscription, eventhose.Answer{Verdict: eventhose.AnswerExtend, Leases: in.Body.Leases, Delay: time.Duration(in.Body.Lease)})
	})
}

func (a *API) answer(ctx context.Context, in InSubscription, answer eventhose.Answer) (*answeredOutput, error) {
	lost, err := a.delivery.Answer(ctx, in.Tenant, in.ID, answer)
	return &answeredOutput{Answered{Count: len(answer.Leases) - len(lost), Lost: notNil(lost)}}, err
}

// pull answers POST …/pull.
func (a *API) pull(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	in := PullRequest{Max: defaultPull, Lease: eventhose.Duration(eventhose.DefaultLease)}
	var err error
	if len(x.body) > 0 {
		err = unmarshal(x.body, &in)
	}
	var head eventhose.Head
	if err == nil { // before anything is leased, since what fails after that has taken a delivery
		head, err = a.log.Head(r.Context(), x.tenant)
	}
	var list []eventhose.Leased
	if err == nil {
		list, err = a.leases(r.Context(), x, eventhose.SubscriptionID(r.PathValue("id")), in)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	x.good = time.Duration(in.Lease)
	size := 64
	for i := range list {
		size += 640 + len(list[i].Event.Data)*4/3
	}
	body := append(make([]byte, 0, size), `{"data":[`...)
	for i := range list {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendLeased(body, &list[i], head)
	}
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(append(body, "]}"...))
}

// appendLeased writes a Lease.
func appendLeased(body []byte, l *eventhose.Leased, head eventhose.Head) []byte {
	body = appendHanding(append(body, '{'), l)
	return append(appendEvent(append(body, `,"event":`...), &l.Event, head.Cursor(l.Event.Sequence)), "}}"...)
}

// appendHanding writes the members of a Lease beside the event.
func appendHanding(b []byte, l *eventhose.Leased) []byte {
	b = quote(append(b, `"lease":`...), l.Lease)
	b = strconv.AppendInt(append(b, `,"deliveries":`...), int64(l.Deliveries), 10)
	b = quote(append(b, `,"until":`...), l.Until.UTC().Format(time.RFC3339Nano))
	b = strconv.AppendUint(append(b, `,"previous_sequence":`...), uint64(l.Previous), 10)
	if l.Replay != "" {
		b = quote(append(b, `,"replay":`...), l.Replay)
	}
	return b
}

// leases asks for work until there is some, or the wait is over, or the server drains. Who has no right to it any more takes none.
func (a *API) leases(ctx context.Context, x *exchange, sub eventhose.SubscriptionID, in PullRequest) ([]eventhose.Leased, error) {
	wait := time.Duration(in.Wait)
	if wait < 0 || wait > a.maxWait {
		return nil, eventhose.Invalid("wait", "must be a duration of at most %v, such as 30s", a.maxWait)
	}
	if x.keyed {
		wait = min(wait, keyedWait)
	}
	pulling, cancel := context.WithCancel(ctx)
	defer cancel()
	if wait > 0 {
		if !a.waiting.Take(x.tenant, 1) {
			return nil, busy("too many reads are waiting")
		}
		defer a.waiting.Give(x.tenant, 1)
		stop := context.AfterFunc(a.draining, cancel)
		defer stop()
	}
	list, err := a.delivery.Pull(pulling, x.tenant, sub, eventhose.Pull{Max: in.Max, Wait: wait, Lease: time.Duration(in.Lease)})
	if err != nil && ctx.Err() == nil && pulling.Err() != nil {
		return nil, nil
	}
	if wait == 0 || len(list) == 0 {
		return list, err
	}
	ended := a.still(ctx, x)
	if ended == nil {
		return list, err
	}
	back := eventhose.Answer{Verdict: eventhose.AnswerRelease}
	for i := range list {
		back.Leases = append(back.Leases, list[i].Lease)
	}
	_, err = a.delivery.Answer(ctx, x.tenant, sub, back)
	return nil, errors.Join(ended, err)
}
