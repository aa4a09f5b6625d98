package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/eventhose/eventhose"
)

// Inspector is a built-in receiver as the server tells it: its secret reads "***".
type Inspector struct {
	eventhose.Inspector
	// URL is where anyone may send to, Destination where a subscription is to: its deliveries do not leave the server.
	URL         string `json:"url"`
	Destination string `json:"destination"`
}

// InspectedOptions say which of the requests of an inspector are wanted. Zero fields do not narrow it.
type InspectedOptions struct {
	eventhose.InspectedQuery
	// Wait is how long to wait for a request if there is none, at most the server's own limit.
	Wait time.Duration
}

func (t *Tenant) inspector(id eventhose.InspectorID, segments ...string) []string {
	return t.path(append([]string{"inspectors", string(id)}, segments...)...)
}

// CreateInspector makes a receiver that shows what it gets. Of i the ID, tenant, Requests and times are ignored. CodeInvalid with the
// field, CodeLimit.
func (t *Tenant) CreateInspector(ctx context.Context, i eventhose.Inspector) (Inspector, error) {
	body := struct {
		Name     string             `json:"name,omitempty"`
		Status   int                `json:"status,omitempty"`
		Delay    eventhose.Duration `json:"delay,omitempty"`
		FailRate float64            `json:"fail_rate,omitempty"`
		Body     string             `json:"body,omitempty"`
		Secret   string             `json:"secret,omitempty"`
	}{i.Name, i.Status, i.Delay, i.FailRate, i.Body, string(i.Secret)}
	var answer Inspector
	err := t.c.send(ctx, http.MethodPost, t.path("inspectors"), body, &answer)
	return answer, err
}

// Inspector answers one inspector. CodeNotFound.
func (t *Tenant) Inspector(ctx context.Context, id eventhose.InspectorID) (Inspector, error) {
	var answer Inspector
	err := t.c.send(ctx, http.MethodGet, t.inspector(id), nil, &answer)
	return answer, err
}

// Inspectors lists by id.
func (t *Tenant) Inspectors(ctx context.Context, o ListOptions) (List[Inspector], error) {
	return list[Inspector](ctx, t.c, t.path("inspectors"), o.query())
}

// UpdateInspector changes what p names. Other nodes answer by it within a second. CodeNotFound, CodeInvalid with the field,
// CodeVersion.
func (t *Tenant) UpdateInspector(ctx context.Context, id eventhose.InspectorID, p eventhose.InspectorPatch) (Inspector, error) {
	body := struct {
		eventhose.InspectorPatch
		Secret *string `json:"secret,omitempty"` // this shadows the redacted one
	}{p, (*string)(p.Secret)}
	var answer Inspector
	err := t.c.send(ctx, http.MethodPatch, t.inspector(id), body, &answer)
	return answer, err
}

// DeleteInspector removes an inspector with its requests. CodeNotFound.
func (t *Tenant) DeleteInspector(ctx context.Context, id eventhose.InspectorID) error {
	return t.c.send(ctx, http.MethodDelete, t.inspector(id), nil, nil)
}

// Inspected lists the requests of an inspector that are kept, newest first. Next is for Before. CodeNotFound, CodeInvalid with the field.
func (t *Tenant) Inspected(ctx context.Context, id eventhose.InspectorID, o InspectedOptions) (List[eventhose.InspectedRequest], error) {
	values := url.Values{}
	for name, value := range map[string]string{"after": o.After, "before": o.Before} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if o.Limit != 0 {
		values.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Wait != 0 {
		values.Set("wait", o.Wait.String())
	}
	var l List[eventhose.InspectedRequest]
	err := t.c.do(ctx, request{method: http.MethodGet, path: t.inspector(id, "requests"), query: values, wait: o.Wait, into: &l})
	return l, err
}

// ForgetInspected removes the requests that an inspector has got so far. CodeNotFound.
func (t *Tenant) ForgetInspected(ctx context.Context, id eventhose.InspectorID) error {
	return t.c.send(ctx, http.MethodDelete, t.inspector(id, "requests"), nil, nil)
}
