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
)

// maxKeyLength bounds what is looked up as a credential.
const maxKeyLength = 512

// requestTime is how long a request may take beside waiting for events. Server's time for writing is longer than both.
const requestTime = 45 * time.Second

// admit puts before a route's handler what its rule asks for. The order is the promise that a tenant sees its own: who
// asks, whether the tenant is within reach (if not, the answer is the one for an absent tenant), whether the scopes
// suffice, whether the tenant exists; only then is anything of the request read.
func (a *API) admit(op *huma.Operation, ru rule, next http.HandlerFunc) http.Handler {
	known := parametersOf(op)
	if ru.maxBody > 0 {
		next = a.keyed(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), a.maxWait+requestTime)
		defer cancel()
		r = r.WithContext(ctx)
		x := exchangeOf(ctx)
		x.route = op.Path
		x.tenant = eventhose.TenantID(r.PathValue("tenant"))
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
		if ru.appends && a.overload.refuses(x.tenant) {
			a.fail(w, r, overloaded())
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
	key, err := bearer(r.Header["Authorization"])
	if err != nil {
		return err
	}
	if x.principal, err = a.control.Authenticate(r.Context(), key); err != nil {
		return err
	}
	inPath := r.PathValue("tenant") != ""
	if inPath && !x.principal.May(x.tenant) {
		return eventhose.NotFound("tenant")
	}
	if !x.principal.Has(ru.scope) {
		return &eventhose.Error{Code: eventhose.CodeForbidden, Message: "the API key does not have the scope " + string(ru.scope), Fix: "use a key with the scope " + string(ru.scope)}
	}
	if ru.platform && x.principal.Tenant != "" {
		return &eventhose.Error{Code: eventhose.CodeForbidden, Message: "the API key is bound to one tenant", Fix: "use an admin key that is not"}
	}
	if inPath && !ru.creates {
		if _, err := a.control.Tenant(r.Context(), x.tenant); err != nil {
			if eventhose.CodeOf(err) == eventhose.CodeNotFound {
				return eventhose.NotFound("tenant")
			}
			return err
		}
	}
	if a.admitter != nil {
		return a.admitter(r.Context(), x.principal, x.tenant)
	}
	return nil
}

// bearer reads an Authorization header (RFC 6750, section 2.1).
func bearer(headers []string) (eventhose.Secret, error) {
	if len(headers) == 0 {
		return "", &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: "no API key was given", Fix: "send the header Authorization: Bearer KEY"}
	}
	scheme, key, ok := strings.Cut(headers[0], " ")
	key = strings.TrimSpace(key)
	if len(headers) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || key == "" || len(key) > maxKeyLength {
		return "", &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: "the Authorization header holds no API key", Fix: "send the header Authorization: Bearer KEY"}
	}
	return eventhose.Secret(key), nil
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
