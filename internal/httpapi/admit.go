package httpapi

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/overload"
)

// requestTime is how long a request may take beside waiting for events. Server's time for writing is longer than both.
const requestTime = 45 * time.Second

// admit puts before a route's handler what its rule asks for: who may do it comes before anything else of the request is
// read.
func (a *API) admit(op *huma.Operation, ru rule, next http.HandlerFunc) http.Handler {
	known := parametersOf(op)
	if op.Method != http.MethodGet && !ru.quiet && ru.guarded() {
		next = a.audited(op, next)
	}
	if ru.maxBody > 0 && !ru.stream && ru.guarded() {
		next = a.keyed(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := r.Context(), context.CancelFunc(func() {})
		if !ru.stream {
			ctx, cancel = context.WithTimeout(ctx, a.maxWait+requestTime)
		}
		defer cancel()
		r = r.WithContext(ctx)
		x := exchangeOf(ctx)
		x.route = op.Path
		x.tenant = eventhose.TenantID(r.PathValue("tenant"))
		if ru.tickets {
			// Nothing here goes by what a browser sends by itself, so any page may read what its ticket opens.
			w.Header().Set("Access-Control-Allow-Origin", "*")
		}
		if err := a.authorize(w, r, x, op, ru); err != nil {
			a.fail(w, r, err)
			return
		}
		var err error
		if x.query, err = readQuery(r.URL.RawQuery, known, ru.anyQuery); err != nil {
			a.fail(w, r, err)
			return
		}
		if ru.appends && a.overload.Refuses(x.tenant) {
			a.fail(w, r, overload.Refused())
			return
		}
		defer x.memory.give()
		if err := a.readBody(w, r, x, ru); err != nil {
			a.fail(w, r, err)
			return
		}
		if op.RequestBody == nil && len(x.body) > 0 && string(bytes.TrimSpace(x.body)) != "{}" {
			a.fail(w, r, &eventhose.Error{Code: eventhose.CodeInvalid, Message: "the route takes no body"})
			return
		}
		next(w, r)
	})
}

// authorize finds out who asks, and whether they may.
func (a *API) authorize(w http.ResponseWriter, r *http.Request, x *exchange, op *huma.Operation, ru rule) error {
	if ru.cookies {
		if err := a.ownPage(r); err != nil {
			return err
		}
	}
	if !ru.guarded() {
		return nil
	}
	x.wish = access.Wish{Scope: ru.scope, Known: ru.known, Capability: ru.portal, Platform: ru.platform, Creates: ru.creates}
	if r.PathValue("tenant") != "" {
		x.wish.Tenant = x.tenant
	}
	if err := a.identify(w, r, x, ru); err != nil {
		return err
	}
	if !validText(r.URL.Path) { // nothing has such a name, and not every store can be asked for one
		return eventhose.NotFound("route")
	}
	if x.principal.KeyID == "" {
		return nil
	}
	if err := access.Permit(r.Context(), a.control, x.principal, x.wish); err != nil {
		return err
	}
	if err := narrow(r, x.principal, op, ru); err != nil {
		return err
	}
	if a.admitter != nil {
		return a.admitter(r.Context(), x.principal, x.tenant)
	}
	return nil
}

// still answers why a request that was admitted, and has waited since, would not be by now.
func (a *API) still(ctx context.Context, x *exchange) error {
	return access.NewGuard(a.control, x.principal, x.wish, 0).Check(ctx)
}

// identify puts into x whom the request comes from, by its Authorization header, its ticket or its cookie, whichever is first. It may remain
// unknown where the rule lets it be told later.
func (a *API) identify(w http.ResponseWriter, r *http.Request, x *exchange, ru rule) error {
	ticket, err := ticketOf(r, ru)
	switch {
	case err != nil:
		return err
	case ticket != "":
		x.ticket = true
		x.principal, err = a.redeem(r.Context(), ticket)
		return err
	case len(r.Header["Authorization"]) > 0:
		var key eventhose.Secret
		if key, err = access.Bearer(r.Header["Authorization"]); err == nil {
			x.principal, err = a.control.Authenticate(r.Context(), key)
		}
		return err
	}
	token := sessionToken(r, x.secure)
	if token != "" {
		// What a browser sends by itself opens nothing to other pages than ours.
		w.Header().Del("Access-Control-Allow-Origin")
		if err = a.ownPage(r); err == nil {
			x.principal, err = a.control.Session(r.Context(), token)
		}
		if err == nil {
			return nil
		}
	}
	if ru.later { // a page of another origin may have a key to tell, beside the cookie that its browser has sent
		x.principal = eventhose.Principal{}
		return nil
	}
	if err == nil {
		_, err = access.Bearer(nil)
	}
	return err
}

// narrow keeps a portal link that is limited to some subscriptions from all that is not about them.
func narrow(r *http.Request, p eventhose.Principal, op *huma.Operation, ru rule) error {
	switch {
	case !p.Limited(), ru.narrows, ru.known:
		return nil
	case strings.Contains(op.Path, "/subscriptions/{id}"):
		if !p.Shows(eventhose.SubscriptionID(r.PathValue("id"))) {
			return eventhose.NotFound("subscription")
		}
		return nil
	}
	return &eventhose.Error{Code: eventhose.CodeForbidden, Message: "the portal link is limited to some subscriptions, and this is about the whole log"}
}

// parametersOf answers the query parameters that an operation describes; true for those that may be repeated.
func parametersOf(op *huma.Operation) map[string]bool {
	known := map[string]bool{}
	for _, p := range op.Parameters {
		if p.In == "query" {
			known[p.Name] = p.Schema != nil && p.Schema.Type == huma.TypeArray
		}
	}
	return known
}

// readQuery parses a query strictly: nothing unknown unless that is let pass, nothing twice, nothing that is no text.
func readQuery(raw string, known map[string]bool, pass bool) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the query is not well escaped"}
	}
	for name, values := range q {
		repeat, ok := known[name]
		switch {
		case !ok && !pass:
			return nil, eventhose.Invalid(clip(name), "is not a parameter that this route knows")
		case len(values) > 1 && !repeat:
			return nil, eventhose.Invalid(name, "is given more than once")
		}
		for _, v := range values {
			if !validText(v) {
				return nil, &eventhose.Error{Code: eventhose.CodeMalformed, Field: name, Message: "is not UTF-8, or holds a NUL"}
			}
		}
	}
	return q, nil
}
