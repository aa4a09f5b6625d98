package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// NewSubscription is the body of POST …/subscriptions.
type NewSubscription struct {
	Name        string                 `json:"name,omitempty"`
	Filter      eventhose.Filter       `json:"filter,omitzero" doc:"Which events; all if left out"`
	Ordering    eventhose.Ordering     `json:"ordering,omitempty" doc:"none, key or strict; none if left out"`
	OnExhausted eventhose.OnExhausted  `json:"on_exhausted,omitempty" doc:"park or block; park if left out"`
	Retry       eventhose.Retry        `json:"retry,omitzero"`
	MaxInFlight int                    `json:"max_in_flight,omitempty" doc:"1 to 64; 64 if left out"`
	MaxRate     int                    `json:"max_rate,omitempty" doc:"How many events a second are sent or handed over at most, tries included: 1 to 100000; no limit if left out or 0"`
	Batch       eventhose.BatchPolicy  `json:"batch,omitzero" doc:"How many events travel in one request: max_events 1 to 1000, max_bytes of data 1024 to 8388608 (1048576 if left out), max_wait for more events 0s to 60s. Each alone if left out"`
	Destination *eventhose.Destination `json:"destination,omitempty" doc:"Where events are sent. Without one it is a pull subscription: workers ask for them. Names of headers are of letters, digits, '-', '_' and '.'"`
	From        string                 `json:"from,omitempty" doc:"now (the default), start, or a cursor"`
}

// SubscriptionAnswer is a subscription as the API tells it.
type SubscriptionAnswer struct {
	eventhose.Subscription
	Secret  string                         `json:"secret,omitempty" doc:"The signing secret; only in the answers to create and rotate"`
	Status  *eventhose.LaneStatus          `json:"status,omitempty" doc:"Where delivery stands; in the answer to a request for one subscription, and in lists if asked for"`
	Metrics *eventhose.SubscriptionMetrics `json:"metrics,omitempty" doc:"How delivery went; only in lists, if asked for"`
}

// SecretAnswer is the answer of GET …/secret.
type SecretAnswer struct {
	Secret  string       `json:"secret" doc:"The current signing secret"`
	Secrets []LiveSecret `json:"secrets" doc:"All that sign, newest first"`
}

// LiveSecret is one signing secret in clear.
type LiveSecret struct {
	Secret string    `json:"secret"`
	Until  time.Time `json:"until,omitzero" doc:"When it stops signing; the current one does not"`
}

// Rotation is the body of POST …/secret/rotate.
type Rotation struct {
	Overlap *eventhose.Duration `json:"overlap,omitempty" doc:"How long the old secret goes on signing, at most 168h; 24h if left out, and with 0s no more"`
}

type InSubscription struct {
	InTenant
	ID eventhose.SubscriptionID `path:"id" doc:"The subscription" example:"sub_01j9z3k4m5n6p7q8r9s0t1v2w3"`
}

type (
	createSubscriptionInput struct {
		InTenant
		Body NewSubscription
	}
	listSubscriptionsInput struct {
		InTenant
		PageInput
		Status  bool   `query:"status" doc:"Tell where the delivery of each stands; limit is at most 100 then"`
		Metrics string `query:"metrics" doc:"Tell how the delivery of each went over this long, such as 1h: 30m to 24h, in 30 steps of whole minutes; limit is at most 100 then"`
	}
	updateSubscriptionInput struct {
		InSubscription
		Body eventhose.SubscriptionPatch
	}
	rotateInput struct {
		InSubscription
		Body *Rotation
	}
	subscriptionOutput struct{ Body SubscriptionAnswer }
	secretOutput       struct{ Body SecretAnswer }
	testOutput         struct{ Body eventhose.Attempt }
)

func (a *API) addSubscriptions() {
	const path = "/v1/tenants/{tenant}/subscriptions"
	tags := []string{"subscriptions"}
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityManage), huma.Operation{
		OperationID: "createSubscription", Method: http.MethodPost, Path: path, Tags: tags,
		Summary: "Subscribe a destination, or workers, to the log", DefaultStatus: http.StatusCreated,
		Responses: map[string]*huma.Response{"410": a.problemResponse(http.StatusGone)}, // for from
	}, func(ctx context.Context, in *createSubscriptionInput) (*subscriptionOutput, error) {
		b := in.Body
		var d eventhose.Destination
		if b.Destination != nil {
			if d = *b.Destination; d.Type == "" {
				return nil, eventhose.Invalid("destination.type", "is required")
			}
		}
		s, err := a.control.CreateSubscription(ctx, eventhose.Subscription{
			Tenant: in.Tenant, Name: b.Name, Filter: b.Filter, Ordering: b.Ordering, OnExhausted: b.OnExhausted, Retry: b.Retry,
			MaxInFlight: b.MaxInFlight, MaxRate: b.MaxRate, Batch: b.Batch, Destination: d,
		}, b.From)
		x := exchangeOf(ctx)
		x.note(string(s.ID), nil, s)
		if !x.principal.Can(eventhose.CapabilitySecrets) {
			return told(s, err)
		}
		return shown(s, err)
	})
	list := reads(eventhose.ScopeRead).to(eventhose.CapabilityView)
	list.narrows = true
	manage(a, list, huma.Operation{
		OperationID: "listSubscriptions", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "The subscriptions, by id",
	}, func(ctx context.Context, in *listSubscriptionsInput) (*listOutput[SubscriptionAnswer], error) {
		span, err := a.spanOf(in)
		if err != nil {
			return nil, err
		}
		all := a.control.Subscriptions
		if p := exchangeOf(ctx).principal; p.Limited() {
			all = func(ctx context.Context, tenant eventhose.TenantID, after eventhose.SubscriptionID, limit int) ([]eventhose.Subscription, error) {
				return a.subscriptionsFor(ctx, p, tenant, after, limit)
			}
		}
		list, err := all(ctx, in.Tenant, eventhose.SubscriptionID(in.After), in.Limit+1)
		if err != nil {
			return nil, err
		}
		answers := make([]SubscriptionAnswer, len(list))
		for i, s := range list {
			answers[i].Subscription = s
		}
		out := listed(answers, in.Limit, func(s SubscriptionAnswer) string { return string(s.ID) })
		return out, a.tellMore(ctx, in.Tenant, out.Body.Data, in.Status, span)
	})
	manage(a, reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "getSubscription", Method: http.MethodGet, Path: path + "/{id}", Tags: tags,
		Summary: "One subscription, and where its delivery stands",
	}, func(ctx context.Context, in *InSubscription) (*subscriptionOutput, error) {
		s, err := a.control.Subscription(ctx, in.Tenant, in.ID)
		if err != nil {
			return nil, err
		}
		status, err := a.delivery.Status(ctx, s)
		if err != nil {
			return nil, err
		}
		return &subscriptionOutput{SubscriptionAnswer{Subscription: s, Status: &status}}, nil
	})
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityManage), huma.Operation{
		OperationID: "updateSubscription", Method: http.MethodPatch, Path: path + "/{id}", Tags: tags,
		Summary:     "Change what the body names",
		Description: "`filter`, `retry`, `batch` and `destination` are replaced as a whole; a header of the destination whose value is `***` keeps the one it had. `null` takes a member back to its default; a destination has none.",
	}, func(ctx context.Context, in *updateSubscriptionInput) (*subscriptionOutput, error) {
		p, err := withDefaults(in.Body, exchangeOf(ctx).body)
		if err != nil {
			return nil, err
		}
		return a.changing(ctx, in.InSubscription, func() (eventhose.Subscription, error) {
			return a.control.UpdateSubscription(ctx, in.Tenant, in.ID, p, func(before eventhose.Subscription) error {
				return keepsSecrets(exchangeOf(ctx).principal, before, p)
			})
		})
	})
	manage(a, reads(eventhose.ScopeManage).to(eventhose.CapabilityManage), huma.Operation{
		OperationID: "deleteSubscription", Method: http.MethodDelete, Path: path + "/{id}", Tags: tags,
		Summary: "Remove a subscription with its state and its attempts", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *InSubscription) (*nothing, error) {
		before, err := a.control.Subscription(ctx, in.Tenant, in.ID)
		if err != nil {
			return nil, err
		}
		exchangeOf(ctx).note(string(in.ID), before, nil)
		return &nothing{}, a.control.DeleteSubscription(ctx, in.Tenant, in.ID)
	})
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityManage), huma.Operation{
		OperationID: "pauseSubscription", Method: http.MethodPost, Path: path + "/{id}/pause", Tags: tags,
		Summary: "Hold delivery; the cursor stands, so that nothing is lost",
	}, func(ctx context.Context, in *InSubscription) (*subscriptionOutput, error) {
		return a.changing(ctx, *in, func() (eventhose.Subscription, error) {
			return a.control.SetState(ctx, in.Tenant, in.ID, eventhose.StatePaused)
		})
	})
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityManage), huma.Operation{
		OperationID: "resumeSubscription", Method: http.MethodPost, Path: path + "/{id}/resume", Tags: tags,
		Summary: "Go on from the cursor, after a pause as after being disabled",
	}, func(ctx context.Context, in *InSubscription) (*subscriptionOutput, error) {
		return a.changing(ctx, *in, func() (eventhose.Subscription, error) {
			return a.control.SetState(ctx, in.Tenant, in.ID, eventhose.StateActive)
		})
	})
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilityTest), huma.Operation{
		OperationID: "testSubscription", Method: http.MethodPost, Path: path + "/{id}/test", Tags: tags,
		Summary: "Send a test event at once and tell what happened. It is not in the log",
	}, func(ctx context.Context, in *InSubscription) (*testOutput, error) {
		if _, err := a.control.Subscription(ctx, in.Tenant, in.ID); err != nil {
			return nil, err
		}
		attempt, err := a.delivery.Test(ctx, in.Tenant, in.ID)
		return &testOutput{attemptShown(shownTo(exchangeOf(ctx).principal, attempt))}, err
	})
	manage(a, reads(eventhose.ScopeManage).to(eventhose.CapabilitySecrets), huma.Operation{
		OperationID: "getSecret", Method: http.MethodGet, Path: path + "/{id}/secret", Tags: tags,
		Summary: "The signing secrets in clear",
	}, func(ctx context.Context, in *InSubscription) (*secretOutput, error) {
		s, err := a.control.Subscription(ctx, in.Tenant, in.ID)
		if err != nil {
			return nil, err
		}
		out := &secretOutput{SecretAnswer{Secret: current(s), Secrets: []LiveSecret{}}}
		for _, l := range s.Secrets {
			out.Body.Secrets = append(out.Body.Secrets, LiveSecret{string(l.Secret), l.Until})
		}
		return out, nil
	})
	manage(a, changes(eventhose.ScopeManage).to(eventhose.CapabilitySecrets), huma.Operation{
		OperationID: "rotateSecret", Method: http.MethodPost, Path: path + "/{id}/secret/rotate", Tags: tags,
		Summary:     "Make a new signing secret; the old one goes on signing beside it for a while",
		Description: "At most three secrets sign at once: a rotation beyond that ends the oldest before its time.",
	}, func(ctx context.Context, in *rotateInput) (*subscriptionOutput, error) {
		overlap := eventhose.DefaultOverlap
		if in.Body != nil && in.Body.Overlap != nil {
			overlap = *in.Body.Overlap
		}
		return shown(a.control.RotateSecret(ctx, in.Tenant, in.ID, time.Duration(overlap)))
	})
}

// withDefaults is a patch in which each member that its text sets to null asks for the default (RFC 7396, section 2).
func withDefaults(p eventhose.SubscriptionPatch, text []byte) (eventhose.SubscriptionPatch, error) {
	names, err := nulls(text)
	for _, name := range names {
		switch name {
		case "name":
			p.Name = new(string)
		case "filter":
			p.Filter = new(eventhose.Filter)
		case "ordering":
			p.Ordering = new(eventhose.Ordering)
		case "on_exhausted":
			p.OnExhausted = new(eventhose.OnExhausted)
		case "retry":
			p.Retry = new(eventhose.Retry)
		case "max_in_flight":
			p.MaxInFlight = new(int)
		case "max_rate":
			p.MaxRate = new(int)
		case "batch":
			p.Batch = new(eventhose.BatchPolicy)
		default:
			return p, eventhose.Invalid(name, "must not be null: it has no default")
		}
	}
	return p, err
}

// nulls names the members of an object that are null.
func nulls(text []byte) (names []string, err error) {
	var members map[string]jsontext.Value
	if err := jsonv2.Unmarshal(text, &members); err != nil {
		return nil, jsonError(err)
	}
	for name, value := range members {
		if value.Kind() == 'n' {
			names = append(names, name)
		}
	}
	return names, nil
}

// changing makes a change of a subscription, and notes what it was.
func (a *API) changing(ctx context.Context, in InSubscription, change func() (eventhose.Subscription, error)) (*subscriptionOutput, error) {
	before, err := a.control.Subscription(ctx, in.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	after, err := change()
	exchangeOf(ctx).note(string(in.ID), before, after)
	return told(after, err)
}

// keepsSecrets refuses a change that would send the headers of a destination, whose values are secrets and may be kept without being known, to
// another place, if who asks may not see secrets.
func keepsSecrets(p eventhose.Principal, before eventhose.Subscription, patch eventhose.SubscriptionPatch) error {
	d := patch.Destination
	if p.Can(eventhose.CapabilitySecrets) || d == nil || d.URL == before.Destination.URL {
		return nil
	}
	for name, value := range d.Headers {
		if string(value) == hiddenSecret {
			return eventhose.Invalid("destination.headers."+clip(name), "must be given anew with another URL")
		}
	}
	return nil
}

// hiddenSecret is what a secret reads wherever it is shown.
const hiddenSecret = "***"

// told answers a subscription without its secret, shown with it.
func told(s eventhose.Subscription, err error) (*subscriptionOutput, error) {
	return &subscriptionOutput{SubscriptionAnswer{Subscription: s}}, err
}

func shown(s eventhose.Subscription, err error) (*subscriptionOutput, error) {
	return &subscriptionOutput{SubscriptionAnswer{Subscription: s, Secret: current(s)}}, err
}

func current(s eventhose.Subscription) string {
	if len(s.Secrets) == 0 {
		return ""
	}
	return string(s.Secrets[0].Secret)
}
