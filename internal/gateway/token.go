package gateway

import (
	"context"
	"encoding/base64"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/eventhose/eventhose"
)

// optionHeader names the header that holds the token, for providers that let one choose it.
const optionHeader = optionPrefix + "header"

// tokenBased is a provider that signs nothing and shows a secret. Nothing says that the body is its own: only TLS does.
func tokenBased(p Provider, header string) Provider {
	p.chosen = true
	if len(p.Needs) == 0 {
		p.Needs = []Need{{fieldSecrets, true, "the value of the header; for Basic authentication, user:password"}}
	}
	p.open = func(c *configuration) (scheme, error) {
		name := c.option("header", header)
		if !httpguts.ValidHeaderFieldName(name) || len(name) > 128 {
			return scheme{}, eventhose.Invalid(optionHeader, "is not the name of a header")
		}
		return scheme{check: c.headerShows(name, c.Secrets)}, nil
	}
	return p
}

// shownPlaces are where requests show secrets of a source, which are shown to nobody in turn.
type shownPlaces struct{ headers, parameters []string }

// headerShows makes the comparison of what a header shows with secrets. Providers compare by it, and by parameterShows, so that no secret
// is shown in a place that is not known.
func (c *configuration) headerShows(name string, secrets []eventhose.Secret) func(context.Context, *Request) *Rejection {
	c.shown.headers = append(c.shown.headers, name)
	return func(_ context.Context, r *Request) *Rejection { return checkToken(r, name, secrets) }
}

// parameterShows makes the comparison of the values of a parameter of the query, which must be there once.
func (c *configuration) parameterShows(name string, secrets []eventhose.Secret) func(query url.Values) bool {
	c.shown.parameters = append(c.shown.parameters, name)
	return func(query url.Values) bool { return len(query[name]) == 1 && sameSecret(query[name][0], secrets) }
}

func checkToken(r *Request, header string, secrets []eventhose.Secret) *Rejection {
	value, rejection := one(r.Header, header)
	if rejection != nil {
		return rejection
	}
	if strings.EqualFold(header, "Authorization") {
		value = credential(value)
	}
	if !sameSecret(value, secrets) {
		return reject(ReasonNoMatch, "header %s does not hold the secret", header)
	}
	return nil
}

// credential answers what an Authorization header shows: user:password, a bearer's token, or all of it.
func credential(value string) string {
	kind, rest, ok := strings.Cut(value, " ")
	switch {
	case ok && strings.EqualFold(kind, "Bearer"):
		return rest
	case ok && strings.EqualFold(kind, "Basic"):
		if b, err := base64.StdEncoding.Strict().DecodeString(rest); err == nil {
			return string(b)
		}
	}
	return value
}
