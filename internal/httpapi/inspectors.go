package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// Inspectors is what the API needs of inspectors. All answers are copies that the caller owns.
type Inspectors interface {
	// CreateInspector validates and saves. CodeInvalid with the field, CodeLimit.
	CreateInspector(ctx context.Context, i eventhose.Inspector) (eventhose.Inspector, error)
	// Inspector: CodeNotFound.
	Inspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID) (eventhose.Inspector, error)
	// Inspectors lists by id those after one.
	Inspectors(ctx context.Context, tenant eventhose.TenantID, after eventhose.InspectorID, limit int) ([]eventhose.Inspector, error)
	UpdateInspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, p eventhose.InspectorPatch) (eventhose.Inspector, error)
	DeleteInspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID) error
	// Inspected answers requests, newest first, and whether there are more. CodeNotFound, CodeInvalid with the field.
	Inspected(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, q eventhose.InspectedQuery) ([]eventhose.InspectedRequest, bool, error)
	// Await is Inspected once there is one, or until is closed.
	Await(ctx context.Context, until <-chan struct{}, tenant eventhose.TenantID, id eventhose.InspectorID, q eventhose.InspectedQuery) ([]eventhose.InspectedRequest, bool, error)
	// ForgetInspected removes the requests that it has got so far. CodeNotFound.
	ForgetInspected(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID) error
}

// NewInspector is the body of POST …/inspectors.
type NewInspector struct {
	Name     string             `json:"name,omitempty"`
	Status   int                `json:"status,omitempty" doc:"What it answers, 200 to 599; 200 if left out"`
	Delay    eventhose.Duration `json:"delay,omitempty" doc:"How long it holds an answer, at most 10s"`
	FailRate float64            `json:"fail_rate,omitempty" doc:"The part of the requests, 0 to 1, that it answers 500 instead"`
	Body     string             `json:"body,omitempty" doc:"The body of its answers"`
	Secret   eventhose.Secret   `json:"secret,omitempty" doc:"Verifies what comes: a subscription's signing secret (whsec_…), or its public key (whpk_…). It does not change the answer"`
}

// InspectorAnswer is an inspector as the API tells it.
type InspectorAnswer struct {
	eventhose.Inspector
	URL         string `json:"url" doc:"Where anyone may send to"`
	Destination string `json:"destination" doc:"What a subscription's destination.url is to be: deliveries do not leave the server"`
}

// InInspector is part of inputs, like InTenant.
type InInspector struct {
	InTenant
	ID eventhose.InspectorID `path:"id" doc:"The inspector" example:"ins_01j9z3k4m5n6p7q8r9s0t1v2w3"`
}

type (
	createInspectorInput struct {
		InTenant
		Body *NewInspector
	}
	listInspectorsInput struct {
		InTenant
		PageInput
	}
	updateInspectorInput struct {
		InInspector
		Body eventhose.InspectorPatch
	}
	inspectedInput struct {
		InInspector
		After  string `query:"after" doc:"Only requests later than the one with this id"`
		Before string `query:"before" doc:"Only requests earlier than the one with this id: next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"100" doc:"At most this many"`
		Wait   string `query:"wait" doc:"How long to wait for a request if there is none, such as 30s" example:"1ms"`
	}
	inspectorOutput struct{ Body InspectorAnswer }
)

// addInspectors adds the routes of inspectors, if there are any.
func (a *API) addInspectors(inspectors Inspectors) {
	if inspectors == nil {
		return
	}
	const path = "/v1/tenants/{tenant}/inspectors"
	tags := []string{"inspectors"}
	tell := func(ctx context.Context, i eventhose.Inspector) InspectorAnswer {
		return InspectorAnswer{Inspector: i, URL: a.base(exchangeOf(ctx)) + "/play/" + string(i.ID), Destination: "http://" + eventhose.InspectorHost + "/" + string(i.ID)}
	}
	answer := func(ctx context.Context, i eventhose.Inspector, err error) (*inspectorOutput, error) {
		return &inspectorOutput{tell(ctx, i)}, err
	}
	manage(a, changes(eventhose.ScopeManage), huma.Operation{
		OperationID: "createInspector", Method: http.MethodPost, Path: path, Tags: tags,
		Summary: "Make a receiver that shows what it gets", DefaultStatus: http.StatusCreated,
		Description: "It answers as it is told to, keeps the last 100 requests, 20 a second, and goes a day after its last use.",
	}, func(ctx context.Context, in *createInspectorInput) (*inspectorOutput, error) {
		var b NewInspector
		if in.Body != nil {
			b = *in.Body
		}
		i, err := inspectors.CreateInspector(ctx, eventhose.Inspector{Tenant: in.Tenant, Name: b.Name, Status: b.Status, Delay: b.Delay, FailRate: b.FailRate,
			Body: b.Body, Secret: b.Secret}.WithDefaults())
		exchangeOf(ctx).note(string(i.ID), nil, i)
		return answer(ctx, i, err)
	})
	manage(a, reads(eventhose.ScopeRead), huma.Operation{
		OperationID: "listInspectors", Method: http.MethodGet, Path: path, Tags: tags, Summary: "The inspectors, by id",
	}, func(ctx context.Context, in *listInspectorsInput) (*listOutput[InspectorAnswer], error) {
		list, err := inspectors.Inspectors(ctx, in.Tenant, eventhose.InspectorID(in.After), in.Limit+1)
		if err != nil {
			return nil, err
		}
		answers := make([]InspectorAnswer, len(list))
		for i := range list {
			answers[i] = tell(ctx, list[i])
		}
		return listed(answers, in.Limit, func(i InspectorAnswer) string { return string(i.ID) }), nil
	})
	manage(a, reads(eventhose.ScopeRead), huma.Operation{
		OperationID: "getInspector", Method: http.MethodGet, Path: path + "/{id}", Tags: tags, Summary: "One inspector",
	}, func(ctx context.Context, in *InInspector) (*inspectorOutput, error) {
		i, err := inspectors.Inspector(ctx, in.Tenant, in.ID)
		return answer(ctx, i, err)
	})
	manage(a, changes(eventhose.ScopeManage), huma.Operation{
		OperationID: "updateInspector", Method: http.MethodPatch, Path: path + "/{id}", Tags: tags,
		Summary:     "Change what the body names, such as what it answers",
		Description: "`null` takes a member back to its default. Other nodes answer by it within a second.",
	}, func(ctx context.Context, in *updateInspectorInput) (*inspectorOutput, error) {
		p, err := inspectorDefaults(in.Body, exchangeOf(ctx).body)
		if err != nil {
			return nil, err
		}
		before, err := inspectors.Inspector(ctx, in.Tenant, in.ID)
		if err != nil {
			return nil, err
		}
		i, err := inspectors.UpdateInspector(ctx, in.Tenant, in.ID, p)
		exchangeOf(ctx).note(string(in.ID), before, i)
		return answer(ctx, i, err)
	})
	manage(a, reads(eventhose.ScopeManage), huma.Operation{
		OperationID: "deleteInspector", Method: http.MethodDelete, Path: path + "/{id}", Tags: tags,
		Summary: "Remove an inspector with its requests", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *InInspector) (*nothing, error) {
		return &nothing{}, inspectors.DeleteInspector(ctx, in.Tenant, in.ID)
	})
	// They hold whatever credentials the senders have sent, a subscription's own headers among them, so reading is not enough.
	manage(a, reads(eventhose.ScopeManage), huma.Operation{
		OperationID: "listInspected", Method: http.MethodGet, Path: path + "/{id}/requests", Tags: tags,
		Summary:     "What it got, as it came, newest first",
		Description: "To follow it, pass the id of the newest request that you have as `after`, and `wait`. A page ends at about 2 MB too; `next` then goes on as `before`.",
	}, func(ctx context.Context, in *inspectedInput) (*listOutput[eventhose.InspectedRequest], error) {
		list, more, err := a.inspected(ctx, inspectors, in)
		out := &listOutput[eventhose.InspectedRequest]{List[eventhose.InspectedRequest]{Data: notNil(list)}}
		if more {
			out.Body.Next = &list[len(list)-1].ID
		}
		return out, err
	})
	manage(a, reads(eventhose.ScopeManage), huma.Operation{
		OperationID: "forgetInspected", Method: http.MethodDelete, Path: path + "/{id}/requests", Tags: tags,
		Summary: "Remove the requests that it has got so far", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *InInspector) (*nothing, error) {
		return &nothing{}, inspectors.ForgetInspected(ctx, in.Tenant, in.ID)
	})
}

// inspected answers a page of requests, waiting for the first one if asked to.
func (a *API) inspected(ctx context.Context, inspectors Inspectors, in *inspectedInput) ([]eventhose.InspectedRequest, bool, error) {
	wait, err := a.waitOf(in.Wait)
	if err != nil {
		return nil, false, err
	}
	q := eventhose.InspectedQuery{After: in.After, Before: in.Before, Limit: in.Limit}
	if wait == 0 {
		return inspectors.Inspected(ctx, in.Tenant, in.ID, q)
	}
	if _, err := inspectors.Inspector(ctx, in.Tenant, in.ID); err != nil { // before it takes a place of those who wait
		return nil, false, err
	}
	if !a.waiting.Take(in.Tenant, 1) {
		return nil, false, busy("too many reads are waiting")
	}
	defer a.waiting.Give(in.Tenant, 1)
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	stop := context.AfterFunc(a.draining, cancel)
	defer stop()
	list, more, err := inspectors.Await(ctx, waiting.Done(), in.Tenant, in.ID, q)
	if err == nil && len(list) > 0 {
		err = a.still(ctx, exchangeOf(ctx))
	}
	return list, more, err
}

// inspectorDefaults is a patch in which each member that its text sets to null asks for the default (RFC 7396, section 2).
func inspectorDefaults(p eventhose.InspectorPatch, text []byte) (eventhose.InspectorPatch, error) {
	names, err := nulls(text)
	defaults := eventhose.Inspector{}.WithDefaults()
	for _, name := range names {
		switch name {
		case "name":
			p.Name = &defaults.Name
		case "status":
			p.Status = &defaults.Status
		case "delay":
			p.Delay = &defaults.Delay
		case "fail_rate":
			p.FailRate = &defaults.FailRate
		case "body":
			p.Body = &defaults.Body
		case "secret":
			p.Secret = &defaults.Secret
		}
	}
	return p, err
}
