package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// PageInput is what every list takes.
type PageInput struct {
	After string `query:"after" doc:"The next of the page before"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
}

// List is what every list answers.
type List[T any] struct {
	Data []T     `json:"data"`
	Next *string `json:"next" nullable:"true" doc:"What after is for the next page; null if this was the last"`
}

type listOutput[T any] struct{ Body List[T] }

// listed makes a page of what was fetched with one more than limit.
func listed[T any](items []T, limit int, id func(T) string) *listOutput[T] {
	out := &listOutput[T]{}
	if len(items) > limit {
		items = items[:limit]
		next := id(items[limit-1])
		out.Body.Next = &next
	}
	out.Body.Data = notNil(items)
	return out
}

// InTenant, InSubscription and PageInput are parts of inputs; huma sets only exported ones.
type InTenant struct {
	Tenant eventhose.TenantID `path:"tenant" doc:"The tenant" example:"acme"`
}

// NewTenant is the body of PUT /v1/tenants/{tenant}.
type NewTenant struct {
	Parent    eventhose.TenantID  `json:"parent,omitempty" doc:"The platform that the tenant is connected to. It is set once"`
	Retention eventhose.Retention `json:"retention,omitzero" doc:"What bounds the log; nothing if it is left out"`
}

type putTenantInput struct {
	InTenant
	Body *NewTenant
}

type tenantOutput struct {
	Status int
	Body   eventhose.Tenant
}

func (a *API) addTenants() {
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true, creates: true, maxBody: smallBody}, huma.Operation{
		OperationID: "putTenant", Method: http.MethodPut, Path: "/v1/tenants/{tenant}", Tags: []string{"tenants"},
		Summary: "Create a tenant, or update its retention", DefaultStatus: http.StatusOK,
		Responses: map[string]*huma.Response{"201": a.jsonResponse("Created", schemaOf[eventhose.Tenant](a))},
	}, func(ctx context.Context, in *putTenantInput) (*tenantOutput, error) {
		t := eventhose.Tenant{ID: in.Tenant}
		if in.Body != nil {
			t.Parent, t.Retention = in.Body.Parent, in.Body.Retention
		}
		if err := t.Validate(); err != nil {
			return nil, err
		}
		var before any
		if had, err := a.control.Tenant(ctx, t.ID); err == nil {
			before = had
		}
		t, created, err := a.control.PutTenant(ctx, t)
		if err != nil {
			return nil, err
		}
		exchangeOf(ctx).note(string(t.ID), before, t)
		out := &tenantOutput{Status: http.StatusOK, Body: t}
		if created {
			out.Status = http.StatusCreated
		}
		return out, nil
	})
	manage(a, reads(eventhose.ScopeRead), huma.Operation{
		OperationID: "getTenant", Method: http.MethodGet, Path: "/v1/tenants/{tenant}", Tags: []string{"tenants"},
		Summary: "One tenant",
	}, func(ctx context.Context, in *InTenant) (*tenantOutput, error) {
		t, err := a.control.Tenant(ctx, in.Tenant)
		return &tenantOutput{Status: http.StatusOK, Body: t}, err
	})
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true}, huma.Operation{
		OperationID: "listTenants", Method: http.MethodGet, Path: "/v1/tenants", Tags: []string{"tenants"},
		Summary: "The tenants, by id",
	}, func(ctx context.Context, in *PageInput) (*listOutput[eventhose.Tenant], error) {
		list, err := a.control.Tenants(ctx, eventhose.TenantID(in.After), in.Limit+1)
		if err != nil {
			return nil, err
		}
		return listed(list, in.Limit, func(t eventhose.Tenant) string { return string(t.ID) }), nil
	})
}
