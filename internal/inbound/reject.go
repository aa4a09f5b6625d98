package inbound

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/gateway"
)

const (
	// keepTime is how long the keeping of a rejected request may hold up its answer.
	keepTime = 2 * time.Second
	// maxOthers is how many other sources of a tenant are tried for the owner of a signature.
	maxOthers = 20
)

// reject keeps a rejected request for the owner of the source.
func (d *Door) reject(ctx context.Context, x *exchange, r *gateway.Request, why *gateway.Rejection) {
	x.why = string(why.Reason)
	if !d.pace.Allows(x.source.ID, r.Received) {
		d.metrics.dropped.Inc()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	why = d.owned(ctx, &x.source, r, why)
	x.why = string(why.Reason)
	_, err := d.sources.KeepRejection(ctx, x.source.Tenant, eventhose.Rejection{
		Source: x.source.ID, Received: r.Received.UTC(), Reason: string(why.Reason), Detail: why.Detail, Method: r.Method, Size: len(r.Body),
		Request: &eventhose.RejectedRequest{Query: r.Query, Header: r.Header, Body: r.Body, Truncated: why.Reason == gateway.ReasonTooLarge},
	})
	if err != nil {
		d.metrics.dropped.Inc()
		d.logger.LogAttrs(ctx, slog.LevelWarn, "inbound: a rejected request could not be kept", slog.String("source", string(x.source.ID)), slog.String("error", err.Error()))
	}
}

// owned says so if the signature is right for another source of the same provider and tenant.
func (d *Door) owned(ctx context.Context, s *eventhose.Source, r *gateway.Request, why *gateway.Rejection) *gateway.Rejection {
	if why.Reason != gateway.ReasonNoMatch {
		return why
	}
	list, err := d.sources.Sources(ctx, s.Tenant, "", maxOthers*5)
	if err != nil {
		return why // it is only help
	}
	others := map[string]*gateway.Verifier{}
	for i := range list {
		if o := &list[i]; o.ID != s.ID && o.Provider == s.Provider && len(others) < maxOthers {
			if v, err := d.verifierOf(o); err == nil {
				others[string(o.ID)] = v
			}
		}
	}
	if name, found := gateway.Owner(ctx, r, others); found {
		return &gateway.Rejection{Reason: gateway.ReasonOtherSource, Detail: "secret of another source: the signature is right for " + name}
	}
	return why
}

// Retry verifies a rejected request again, as of when it came and with the settings that its source has now, appends
// it, and forgets the rejection. CodeNotFound; CodeConflict, and the rejection stays, if it is rejected again, if it was a handshake, which nobody
// waits for any more, if its body was too long to be kept, or if an event with its id and other content is in the log.
func (d *Door) Retry(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) (eventhose.Placement, error) {
	none := eventhose.Placement{}
	s, err := d.sources.Source(ctx, tenant, source)
	if err != nil {
		return none, err
	}
	rejection, err := d.sources.Rejection(ctx, tenant, source, id)
	if err != nil {
		return none, err
	}
	q := rejection.Request
	if q.Truncated {
		return none, &eventhose.Error{Code: eventhose.CodeConflict, Message: "the body was too long to be kept", Fix: "have the provider send it again"}
	}
	verifier, err := d.verifierOf(&s)
	if err != nil {
		return none, err
	}
	verdict := verifier.Verify(ctx, &gateway.Request{Method: rejection.Method, Query: q.Query, Header: q.Header, Body: q.Body, Received: rejection.Received})
	switch {
	case verdict.Rejection != nil:
		return none, &eventhose.Error{Code: eventhose.CodeConflict, Message: "it is rejected again: " + verdict.Rejection.Detail, Fix: "mend the settings of the source, then retry"}
	case verdict.Event == nil:
		return none, &eventhose.Error{Code: eventhose.CodeConflict, Message: "it was a handshake, which has to be answered at once", Fix: "have the provider try the address again"}
	}
	if verdict.Event.ID == "" {
		verdict.Event.ID = id // it is taken once, also if it is asked for twice
	}
	placed, o, err := d.place(ctx, &s, "", verdict.Event)
	switch {
	case err != nil:
		return none, err
	case o == different: // nobody is to be answered 200 here, and the rejection is all that there is of it
		return none, &eventhose.Error{Code: eventhose.CodeConflict, Message: fmt.Sprintf("an event with the id %q and other content is in the log", placed.ID), Fix: "compare the two: what is in the log stays, and so does this until it expires"}
	}
	return placed, d.sources.ForgetRejection(ctx, tenant, source, id)
}

// withheld is shown in place of what may be a credential.
const withheld = "***"

// ShownRejection answers a rejected request for its owner to look at: where the source's provider shows a secret, and where there may be another
// credential, it reads "***". CodeNotFound.
func (d *Door) ShownRejection(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) (eventhose.Rejection, error) {
	s, err := d.sources.Source(ctx, tenant, source)
	if err != nil {
		return eventhose.Rejection{}, err
	}
	r, err := d.sources.Rejection(ctx, tenant, source, id)
	if err != nil {
		return eventhose.Rejection{}, err
	}
	verifier, err := d.verifierOf(&s)
	if err != nil {
		return eventhose.Rejection{}, err
	}
	r.Request = shown(r.Request, verifier)
	return r, nil
}

// shown is q without what is a credential of the verifier's source, or may be another. It does not change q.
func shown(q *eventhose.RejectedRequest, v *gateway.Verifier) *eventhose.RejectedRequest {
	s := *q
	s.Header = map[string][]string{}
	for name, values := range q.Header {
		if credential(name) || v.WithholdsHeader(name) {
			values = slices.Repeat([]string{withheld}, len(values))
		}
		s.Header[name] = values
	}
	var pairs []string
	for pair := range strings.SplitSeq(q.Query, "&") {
		name, _, valued := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		if valued && (err != nil || credential(plain) || v.WithholdsParameter(plain)) {
			pair = name + "=" + withheld
		}
		pairs = append(pairs, pair)
	}
	s.Query = strings.Join(pairs, "&")
	return &s
}

// credential reports whether a header or parameter may hold a secret that is none of the source's, by its name. Signatures are none.
func credential(name string) bool {
	switch name = strings.ToLower(http.CanonicalHeaderKey(name)); name {
	case "authorization", "proxy-authorization", "cookie":
		return true
	}
	return slices.ContainsFunc([]string{"token", "secret", "password", "api-key", "apikey"}, func(word string) bool { return strings.Contains(name, word) })
}
