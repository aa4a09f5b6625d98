package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// Audits is what the API needs of the record of who has changed what.
type Audits interface {
	// Audit writes an entry down; its ID and Time are made there.
	Audit(ctx context.Context, e eventhose.AuditEntry) error
	// AuditTrail answers entries newest first, and what q.After is for the next page, "" if there is none. With "" it is of all
	// tenants. CodeInvalid (field "after").
	AuditTrail(ctx context.Context, tenant eventhose.TenantID, q eventhose.AuditQuery) (entries []eventhose.AuditEntry, next string, err error)
}

const (
	// auditTime is how long the writing of an entry may take.
	auditTime = 5 * time.Second
	// maxChange bounds what is kept of one field, before or after, and maxChanges of all, in bytes of JSON.
	maxChange  = 2 << 10
	maxChanges = 32 << 10
)

// unchanged are members that every change changes, or none: what the entry tells by itself.
var unchanged = []string{"id", "tenant", "created", "updated", "version", "reason"}

// note tells the audit entry of a request what it has changed, nil for what was not there before or is not after.
func (x *exchange) note(target string, before, after any) {
	x.target, x.changes = target, changesOf(before, after)
}

// changesOf answers the members of two values that differ, each as it was and as it is. Secrets are "***" in both.
func changesOf(before, after any) map[string][]any {
	was, is := membersOf(before), membersOf(after)
	found := map[string][]any{}
	size := 0
	add := func(name string) {
		if slices.Contains(unchanged, name) || bytes.Equal(was[name], is[name]) {
			return
		}
		pair := []any{kept(was[name]), kept(is[name])}
		if size += len(was[name]) + len(is[name]); size > maxChanges {
			pair = []any{omitted, omitted}
		}
		found[name] = pair
	}
	for name := range was {
		add(name)
	}
	for name := range is {
		if _, both := was[name]; !both {
			add(name)
		}
	}
	return found
}

func membersOf(v any) map[string]json.RawMessage {
	var members map[string]json.RawMessage
	if v == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &members)
	}
	if err != nil {
		return nil // it is no object, and then the entry tells what was done and not how
	}
	return members
}

// omitted stands for what is too long to be kept.
const omitted = "… (too long to be kept)"

func kept(v json.RawMessage) any {
	switch {
	case v == nil:
		return nil
	case len(v) > maxChange:
		return omitted
	}
	return v
}

// audited writes down what a request has changed, once it has, and before it is answered.
func (a *API) audited(op *huma.Operation, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		held := &heldAnswer{header: w.Header()}
		next(held, r)
		if x := exchangeOf(r.Context()); held.status >= 200 && held.status <= 299 && !x.harmless {
			if x.target == "" {
				x.target = r.PathValue("id")
				if rejection := r.PathValue("rejection"); rejection != "" {
					x.target += "/" + rejection
				}
			}
			tenant := x.tenant
			if tenant == "" {
				tenant = x.principal.Tenant
			}
			a.audit(r.Context(), x, op.OperationID, tenant)
		}
		held.send(w)
	}
}

// auditing is whether entries can be written.
type auditing struct {
	failing atomic.Bool
	lost    atomic.Int64
}

// audit writes one entry. What cannot be written does not undo what was done: it is logged once, and again when it can be.
func (a *API) audit(ctx context.Context, x *exchange, action string, tenant eventhose.TenantID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	p := x.principal
	err := a.control.Audit(ctx, eventhose.AuditEntry{
		Actor:  eventhose.Actor{Kind: p.Kind, ID: p.KeyID, Name: p.Name, Tenant: p.Tenant},
		Action: action, Tenant: tenant, Target: x.target, Address: x.address, RequestID: x.id, Changes: x.changes})
	if err != nil {
		a.auditing.lost.Add(1)
		if !a.auditing.failing.Swap(true) {
			a.logger.LogAttrs(ctx, slog.LevelError, "http: the audit log cannot be written; requests go on", slog.String("request_id", x.id), slog.String("action", action), slog.String("error", err.Error()))
		}
		return
	}
	if a.auditing.failing.Load() && a.auditing.failing.Swap(false) {
		a.logger.LogAttrs(ctx, slog.LevelWarn, "http: the audit log can be written again", slog.Int64("lost", a.auditing.lost.Swap(0)))
	}
}

// AuditPage is what narrows a reading of the audit log, and what every page takes.
type AuditPage struct {
	PageInput
	Actor  string `query:"actor" doc:"Only what this actor did: the id or the name of a key, a session, a portal link"`
	Action string `query:"action" doc:"Only this, such as updateSubscription"`
	Target string `query:"target" doc:"Only what was done to this: the id of a subscription, a source, a key"`
}

type (
	tenantAuditInput struct {
		InTenant
		AuditPage
	}
	auditOutput struct{ Body List[eventhose.AuditEntry] }
)

func (a *API) addAudit() {
	const about = "A page looks at about 5,000 entries, so with a filter it may hold fewer than asked for, or none, and still have a next one."
	tags := []string{"audit"}
	page := func(ctx context.Context, tenant eventhose.TenantID, in AuditPage) (*auditOutput, error) {
		list, next, err := a.control.AuditTrail(ctx, tenant, eventhose.AuditQuery{After: in.After, Limit: in.Limit, Actor: in.Actor, Action: in.Action, Target: in.Target})
		if err != nil {
			return nil, err
		}
		if exchangeOf(ctx).principal.Tenant != "" {
			for i := range list {
				list[i] = toTenant(list[i])
			}
		}
		out := &auditOutput{List[eventhose.AuditEntry]{Data: notNil(list)}}
		if next != "" {
			out.Body.Next = &next
		}
		return out, nil
	}
	manage(a, reads(eventhose.ScopeAdmin), huma.Operation{
		OperationID: "listTenantAudit", Method: http.MethodGet, Path: "/v1/tenants/{tenant}/audit", Tags: tags,
		Summary: "Who has changed what of the tenant, newest first", Description: about,
	}, func(ctx context.Context, in *tenantAuditInput) (*auditOutput, error) {
		return page(ctx, in.Tenant, in.AuditPage)
	})
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true}, huma.Operation{
		OperationID: "listAudit", Method: http.MethodGet, Path: "/v1/audit", Tags: tags,
		Summary: "Who has changed what, newest first", Description: about,
	}, func(ctx context.Context, in *AuditPage) (*auditOutput, error) { return page(ctx, "", *in) })
}

// toTenant leaves out where the operator's people come from and what they are called. A filter on a name still tells those who
// know it already that they have it.
func toTenant(e eventhose.AuditEntry) eventhose.AuditEntry {
	if e.Actor.Tenant == "" {
		e.Address, e.Actor.Name = "", ""
	}
	return e
}
