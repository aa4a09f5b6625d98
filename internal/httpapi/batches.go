package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// Batch is what became of one batch of a subscription.
type Batch struct {
	ID     string `json:"id" doc:"The webhook-id of its requests"`
	Events int    `json:"events" doc:"How many it holds"`
	// FirstSequence and LastSequence are of its events; others of the log may lie between.
	FirstSequence eventhose.Sequence `json:"first_sequence"`
	LastSequence  eventhose.Sequence `json:"last_sequence"`
	State         string             `json:"state" enum:"taken,partly,retrying,dead,gone" doc:"As its last attempt left it: taken; partly, and what was not taken goes on as a batch of its own; retrying; dead, with no attempt to come; gone, if the receiver answered that it wants no more"`
	Attempts      []BatchAttempt     `json:"attempts" doc:"Newest first, at most 100"`
}

// BatchAttempt is one try at a batch. GET …/attempts tells more of it.
type BatchAttempt struct {
	ID       string                `json:"id"`
	Number   int                   `json:"number"`
	Kind     eventhose.AttemptKind `json:"kind"`
	Started  time.Time             `json:"started"`
	Duration eventhose.Duration    `json:"duration"`
	Status   int                   `json:"status,omitempty"`
	Outcome  eventhose.Outcome     `json:"outcome"`
	Reason   eventhose.Reason      `json:"reason,omitempty"`
	Message  string                `json:"message,omitempty"`
	Next     time.Time             `json:"next,omitzero"`
}

type batchesInput struct {
	InSubscription
	PageInput
}

func (a *API) addBatches() {
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "listBatches", Method: http.MethodGet, Path: "/v1/tenants/{tenant}/subscriptions/{id}/batches", Tags: []string{"deliveries"},
		Summary:     "The batches that were sent, newest first, each with its attempts",
		Description: "A batch is listed where it was tried first; one that was sent once more by a replay is listed where that began. Tests, and events that travelled alone, are not batches. A page may be short, or empty, and yet have others behind it.",
	}, a.batches)
}

// maxBatchAttempts bounds the attempts that one page looks at, beside the time: it may hold fewer batches than asked for, and go on.
const maxBatchAttempts = eventhose.MaxExamined

func (a *API) batches(ctx context.Context, in *batchesInput) (*listOutput[Batch], error) {
	s, err := a.control.Subscription(ctx, in.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	if in.After != "" && !attemptID.MatchString(in.After) {
		return nil, eventhose.Invalid("after", "is not what this route gave out")
	}
	out := &listOutput[Batch]{}
	out.Body.Data = []Batch{}
	at, until, begun := in.After, time.Now().Add(eventhose.SearchTime), map[string]string{}
	for looked := 0; ; {
		page, err := a.delivery.Attempts(ctx, in.Tenant, in.ID, at, 100)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if looked++; len(out.Body.Data) == in.Limit || looked > maxBatchAttempts || looked > 1 && !time.Now().Before(until) {
				out.Body.Next = &at
				return out, nil
			}
			b, begins, err := a.batch(ctx, s, page[i], begun)
			if err != nil {
				return nil, err
			}
			if at = page[i].ID; begins {
				out.Body.Data = append(out.Body.Data, b)
			}
		}
		if len(page) < 100 {
			return out, nil
		}
	}
}

// batch answers the batch that an attempt began. Each batch began once, and once more by each replay that sent it again; it is
// listed with the newest of these attempts. begun are the ids of those that are known; "" if one was too long ago to be found.
func (a *API) batch(ctx context.Context, s eventhose.Subscription, first eventhose.Attempt, begun map[string]string) (b Batch, begins bool, err error) {
	if first.Batch == "" || len(first.Sequences) == 0 {
		return b, false, nil
	}
	if id, known := begun[first.Batch]; known && id != first.ID && (id != "" || first.Number > 1) {
		return b, false, nil
	}
	tries, err := a.delivery.AttemptsAt(ctx, s.Tenant, s.ID, first.Sequences[0], 100)
	if err != nil {
		return b, false, err
	}
	all := len(tries) < 100
	tries = slices.DeleteFunc(tries, func(t eventhose.Attempt) bool { return t.Batch != first.Batch })
	began := beginning(tries)
	if !all && began.Number > 1 {
		began.ID = ""
	}
	if begun[first.Batch] = began.ID; began.ID != first.ID && (began.ID != "" || first.Number > 1) {
		return b, false, nil
	}
	if len(tries) == 0 {
		tries = []eventhose.Attempt{first}
	}
	b = Batch{ID: first.Batch, Events: len(first.Events), FirstSequence: first.Sequences[0], LastSequence: first.Sequences[len(first.Sequences)-1], State: stateAfter(tries[0])}
	for _, t := range tries {
		b.Attempts = append(b.Attempts, BatchAttempt{ID: t.ID, Number: t.Number, Kind: t.Kind, Started: t.Started, Duration: t.Duration, Status: t.Status,
			Outcome: t.Outcome, Reason: t.Reason, Message: shownTo(exchangeOf(ctx).principal, t).Message, Next: t.Next})
	}
	return b, true, nil
}

// beginning is the attempt that began a batch, of its attempts, newest first: the newest one with no earlier of the same replay, or
// of none.
func beginning(tries []eventhose.Attempt) (began eventhose.Attempt) {
	seen := map[string]bool{}
	for _, t := range slices.Backward(tries) {
		if !seen[t.Replay] {
			seen[t.Replay] = true
			began = t
		}
	}
	return began
}

// stateAfter is where an attempt left its batch.
func stateAfter(t eventhose.Attempt) string {
	switch {
	case t.Outcome != eventhose.OutcomeFailed:
		return string(t.Outcome) // taken or gone
	case t.Reason == eventhose.ReasonPartly && len(t.Failed) < len(t.Events):
		return string(t.Reason)
	case t.Next.IsZero():
		return string(eventhose.ParkedDead)
	}
	return string(eventhose.ParkedRetrying)
}
