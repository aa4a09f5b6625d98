package httpapi

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
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
	if ru.maxBody > 0 && !ru.stream {
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
		if ru.scope != "" {
			if err := a.authorize(r, x, ru); err != nil {
				a.fail(w, r, err)
				return
			}
		}
		var err error
		if x.query, err = readQuery(r.URL.RawQuery, known); err != nil {
			a.fail(w, r, err)
			return
		}
		if ru.appends && a.overload.Refuses(x.tenant) {
			a.fail(w, r, overload.Refused())
			return
		}
		give, err := a.readBody(w, r, x, ru)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		defer give()
		if op.RequestBody == nil && len(x.body) > 0 && string(bytes.TrimSpace(x.body)) != "{}" {
			a.fail(w, r, &eventhose.Error{Code: eventhose.CodeInvalid, Message: "the route takes no body"})
			return
		}
		next(w, r)
	})
}

func (a *API) authorize(r *http.Request, x *exchange, ru rule) error {
	wish := access.Wish{Scope: ru.scope, Platform: ru.platform, Creates: ru.creates}
	if r.PathValue("tenant") != "" {
		wish.Tenant = x.tenant
	}
	ticket, err := ticketOf(r, ru)
	if err == nil && ticket != "" {
		x.ticket = true
		if x.principal, err = a.redeem(r.Context(), ticket); err == nil {
			err = access.Permit(r.Context(), a.control, x.principal, wish)
		}
	} else if err == nil && ru.later && len(r.Header["Authorization"]) == 0 {
		return nil
	} else if err == nil {
		var key eventhose.Secret
		if key, err = access.Bearer(r.Header["Authorization"]); err == nil {
			x.principal, err = access.Allow(r.Context(), a.control, key, wish)
		}
	}
	if err != nil {
		return err
	}
	if a.admitter != nil {
		return a.admitter(r.Context(), x.principal, x.tenant)
	}
	return nil
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

// readQuery parses a query strictly: nothing unknown, nothing twice, nothing that is not UTF-8.
func readQuery(raw string, known map[string]bool) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the query is not well escaped"}
	}
	for name, values := range q {
		repeat, ok := known[name]
		switch {
		case !ok:
			return nil, eventhose.Invalid(clip(name), "is not a parameter that this route knows")
		case len(values) > 1 && !repeat:
			return nil, eventhose.Invalid(name, "is given more than once")
		}
		for _, v := range values {
			if !validText(v) {
				return nil, &eventhose.Error{Code: eventhose.CodeMalformed, Field: name, Message: "is not UTF-8"}
			}
		}
	}
	return q, nil
}
