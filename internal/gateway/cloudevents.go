package gateway

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/eventhose/eventhose"
)

// cloudEvents is CloudEvents over HTTP webhooks: a token on each request, and consent to an origin before the first.
func cloudEvents() Provider {
	const origins, rate = "origins", "rate"
	return Provider{
		Name: "cloudevents", Title: "CloudEvents", Source: "https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md", chosen: true,
		Doc: "No signature: a bearer token, or the parameter access_token; OPTIONS asks for consent",
		Needs: []Need{{fieldSecrets, true, "the token"}, {optionPrefix + origins, false, "the origins, separated by commas, that may ask for consent"},
			{optionPrefix + rate, false, "how many requests in a minute an origin may send, 1 to 1000000; any number if not given"}},
		naming: Naming{ID: []string{"header:ce-source+header:ce-id", "json:source+json:id", "json:*.source+json:*.id"}, Type: []string{"header:ce-type", "json:type", "json:*.type"},
			Key: []string{"header:ce-partitionkey", "json:partitionkey", "header:ce-subject", "json:subject"}, Time: []string{"header:ce-time", "json:time"},
			Keep: []string{"ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time", "ce-dataschema"}},
		open: func(c *configuration) (scheme, error) {
			allowed := c.list(origins)
			limit := c.option(rate, "*")
			if n, err := strconv.Atoi(limit); limit != "*" && (err != nil || n < 1 || n > 1_000_000 || strconv.Itoa(n) != limit) {
				return scheme{}, eventhose.Invalid(optionPrefix+rate, "must be a whole number from 1 to 1000000")
			}
			return scheme{
				check: accessToken(c),
				probe: func(_ context.Context, r *Request, _ *Verifier) Verdict { return consent(r, allowed, limit) },
			}, nil
		},
	}
}

// accessToken makes the check of a token in a header or, without that, in the query.
func accessToken(c *configuration) func(context.Context, *Request) *Rejection {
	const header, parameter = "Authorization", "access_token"
	inHeader, inQuery := c.headerShows(header, c.Secrets), c.parameterShows(parameter, c.Secrets)
	return func(ctx context.Context, r *Request) *Rejection {
		query, err := url.ParseQuery(r.Query)
		switch {
		case len(r.Header.Values(header)) > 0 || err != nil || len(query[parameter]) == 0:
			return inHeader(ctx, r)
		case !inQuery(query):
			return reject(ReasonNoMatch, "the parameter %s is not the secret", parameter)
		}
		return nil
	}
}

// consent answers OPTIONS: an origin that the source lists may send, as often as the source says.
func consent(r *Request, allowed []string, limit string) Verdict {
	const header, rate = "WebHook-Request-Origin", "WebHook-Request-Rate"
	if r.Method != http.MethodOptions {
		return rejected(reject(ReasonMethod, "the method is %s, and should be POST, or OPTIONS to ask for consent", quoted(r.Method)))
	}
	origin, rejection := one(r.Header, header)
	if rejection != nil {
		return rejected(rejection)
	}
	if !slices.Contains(allowed, origin) {
		return rejected(reject(ReasonNotAllowed, "the origin %s is not in options.origins", quoted(origin)))
	}
	answer := Answer{Status: http.StatusOK, Header: http.Header{"Webhook-Allowed-Origin": {origin}, "Allow": {"POST, OPTIONS"}}}
	if len(r.Header.Values(rate)) > 0 || limit != "*" {
		answer.Header.Set("WebHook-Allowed-Rate", limit)
	}
	return handshake(answer)
}
