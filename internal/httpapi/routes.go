package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/eventhose/eventhose"
)

// Route is one method and path that the API answers.
type Route struct {
	// Method and Path as http.ServeMux writes them ("/v1/tenants/{tenant}").
	Method, Path string
	// Scope is what a key must hold; empty for routes that are open to everyone.
	Scope eventhose.Scope
	// Platform says that the key must not be bound to a tenant.
	Platform bool
	// Known says that any good credential will do, without a scope.
	Known bool
	// Portal is the capability that opens the route to a portal link; none does if it is empty.
	Portal eventhose.Capability
}

// Routes lists every route, in the order of registration.
func (a *API) Routes() []Route { return slices.Clone(a.routes) }

// rule says who may use a route and what a request may carry.
type rule struct {
	scope    eventhose.Scope
	platform bool
	// known says that any good credential will do.
	known bool
	// portal is the capability that opens the route to a portal link; none does if it is empty.
	portal eventhose.Capability
	// narrows says that the route shows a link that is limited to some subscriptions nothing of the others. Routes of one
	// subscription do, and need not say it; all others are closed to such links.
	narrows bool
	// cookies says that the route gives or takes a cookie, so that pages of other sites may not use it, whatever they show.
	cookies bool
	// anyQuery says that others write the query, and may add to it.
	anyQuery bool
	// quiet says that a request which changes something leaves no audit entry: there are too many, or it changes nothing that
	// lasts.
	quiet bool
	// creates says that the tenant in the path need not exist.
	creates bool
	// maxBody bounds the body; 0 means that the route takes none.
	maxBody int64
	// anyType leaves the content type to the route; others take JSON.
	anyType bool
	// stream says that the answer goes on for as long as both sides want: its handler sets the deadlines.
	stream bool
	// tickets says that a ticket will do instead of a key, and that pages of any origin may read the answer.
	tickets bool
	// later says that who asks may be told on the connection that the request opens: the route admits a request without a
	// credential by itself.
	later bool
	// appends says that the route is refused when there is more to append than can be written.
	appends bool
}

// smallBody bounds the bodies of everything but appends.
const smallBody = 1 << 20

func reads(s eventhose.Scope) rule   { return rule{scope: s} }
func changes(s eventhose.Scope) rule { return rule{scope: s, maxBody: smallBody} }

// guarded reports whether the route asks for a credential.
func (r rule) guarded() bool { return r.scope != "" || r.known }

// to opens a rule to portal links that have a capability.
func (r rule) to(c eventhose.Capability) rule { r.portal = c; return r }

const ruleKey = "rule"

// adapter lets huma register its operations through API.handle.
type adapter struct{ a *API }

func (d adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	d.a.handle(op, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept") // there is nothing to choose from
		handler(humago.NewContext(op, r, w))
	})
}

func (d adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.a.ServeHTTP(w, r) }

// handle registers a route under the rule in its operation's metadata. It is the only way onto the mux.
func (a *API) handle(op *huma.Operation, h http.HandlerFunc) {
	ru, _ := op.Metadata[ruleKey].(rule)
	if ru.guarded() {
		op.Security = []map[string][]string{{"key": {}}, {"session": {}}}
	}
	a.routes = append(a.routes, Route{Method: op.Method, Path: op.Path, Scope: ru.scope, Platform: ru.platform, Known: ru.known, Portal: ru.portal})
	a.mux.Handle(op.Method+" "+op.Path, a.admit(op, ru, h))
}

// direct registers a route that is written by hand, and its description.
func (a *API) direct(ru rule, op huma.Operation, h http.HandlerFunc) {
	op.Metadata = map[string]any{ruleKey: ru}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	for _, status := range errorsOf(ru, &op) {
		op.Responses[statusText(status)] = a.problemResponse(status)
	}
	a.huma.OpenAPI().AddOperation(&op)
	a.handle(&op, h)
}

// manage registers a route whose input and output huma reads and writes from their types.
func manage[I, O any](a *API, ru rule, op huma.Operation, h func(ctx context.Context, in *I) (*O, error)) {
	op.Metadata = map[string]any{ruleKey: ru}
	op.MaxBodyBytes = -1 // bounded by body.go
	op.Errors = errorsOf(ru, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
}

// errorsOf lists the statuses that any route under a rule may answer, for its description.
func errorsOf(ru rule, op *huma.Operation) []int {
	s := []int{http.StatusBadRequest} // for its query
	if ru.guarded() {
		s = append(s, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests)
	}
	if strings.Contains(op.Path, "{") {
		s = append(s, http.StatusNotFound)
	}
	if ru.maxBody > 0 {
		s = append(s, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if op.Method != http.MethodGet {
		s = append(s, http.StatusConflict, http.StatusInsufficientStorage)
	}
	return append(s, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
}

// unmatched answers what no route takes: 405 if another method would be, else 404.
func (a *API) unmatched(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := a.mux.Handler(probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		a.fail(w, r, eventhose.NotFound("route"))
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	a.fail(w, r, &eventhose.Error{Code: eventhose.CodeMethod, Message: "the route does not take this method", Fix: "use " + strings.Join(allowed, " or ")})
}
