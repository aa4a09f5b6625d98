package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
)

// The bounds of a page.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// read answers GET …/events: a page, waiting for the first event if asked to.
func (a *API) read(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	after, f, limit, wait, err := a.readParameters(x, func() (eventhose.Head, error) { return a.log.Head(r.Context(), x.tenant) })
	var page eventhose.Page
	if err == nil {
		page, err = a.log.Page(r.Context(), x.tenant, after, f, eventhose.PageLimit{Events: limit})
	}
	if err == nil && wait > 0 && len(page.Events) == 0 && !page.HasMore {
		page, err = a.await(r.Context(), x, page, f, limit, wait)
	}
	if err != nil {
		a.fail(w, r, ofQuery(err))
		return
	}
	tag := a.tagOf(&page, x.principal.Can(eventhose.CapabilityData))
	w.Header().Set("ETag", tag)
	if had := tagged(r.Header["If-None-Match"], tag); had != "" {
		w.Header().Set("ETag", had)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	size := 64
	for i := range page.Events {
		size += 512 + len(page.Events[i].Data)*4/3
	}
	body := append(make([]byte, 0, size), `{"data":[`...)
	for i := range page.Events {
		if i > 0 {
			body = append(body, ',')
		}
		e := &page.Events[i]
		body = append(appendFor(x.principal, body, e, eventhose.Cursor{Incarnation: page.Cursor.Incarnation, Sequence: e.Sequence}), '}')
	}
	body = append(body, `],"cursor":`...)
	body = quote(body, page.Cursor.String())
	body = append(body, `,"has_more":`...)
	body = append(strconv.AppendBool(body, page.HasMore), '}')
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(body)
}

// tagOf is a page's ETag: the same address and the same tag are the same bytes. Events do not change but for being erased, so
// it is of the places that the page holds, of the erased ones among them, of where it ends, of whether it has data, and of the version of what writes it.
func (a *API) tagOf(page *eventhose.Page, data bool) string {
	sum := sha256.New()
	b := append(make([]byte, 0, 256), a.version...)
	b = strconv.AppendBool(b, data)
	b = strconv.AppendBool(append(b, page.Cursor.String()...), page.HasMore)
	for i := range page.Events {
		b = binary.BigEndian.AppendUint64(b, uint64(page.Events[i].Sequence))
		b = strconv.AppendBool(b, page.Events[i].Erased)
		if len(b) > 200 {
			sum.Write(b)
			b = b[:0]
		}
	}
	sum.Write(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:18]) + `"`
}

// tagged answers which tag of a page If-None-Match names, which may be the one that it has when it is compressed; "" if none.
func tagged(headers []string, tag string) string {
	zipped := strings.TrimSuffix(tag, `"`) + zippedTag + `"`
	for given := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		switch given = strings.TrimPrefix(strings.TrimSpace(given), "W/"); given {
		case tag, zipped:
			return given
		case "*":
			return tag
		}
	}
	return ""
}

// await reads on from an empty page until there is something, or wait is over, or the server drains; then it answers
// what there is. It ends with an error when the client leaves, and when it has no right to read any more.
func (a *API) await(ctx context.Context, x *exchange, page eventhose.Page, f eventhose.Filter, limit int, wait time.Duration) (eventhose.Page, error) {
	if !a.waiting.Take(x.tenant, 1) {
		return page, busy("too many reads are waiting")
	}
	defer a.waiting.Give(x.tenant, 1)
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	stop := context.AfterFunc(a.draining, cancel)
	defer stop()
	for len(page.Events) == 0 && !page.HasMore {
		if err := a.log.Wait(waiting, x.tenant, page.Cursor.Sequence); err != nil {
			if ctx.Err() == nil && waiting.Err() != nil {
				return page, nil
			}
			return page, err
		}
		err := a.still(ctx, x)
		if err != nil {
			return page, err
		}
		if page, err = a.log.Page(ctx, x.tenant, page.Cursor, f, eventhose.PageLimit{Events: limit}); err != nil {
			return page, err
		}
	}
	return page, nil
}

func (a *API) readParameters(x *exchange, head func() (eventhose.Head, error)) (after eventhose.Cursor, f eventhose.Filter, limit int, wait time.Duration, err error) {
	q := x.query
	if after, err = follow.After(q.Get("after"), "after", head); err != nil {
		return
	}
	if limit, err = limitOf(q.Get("limit")); err != nil {
		return
	}
	if wait, err = a.waitOf(q.Get("wait")); err != nil {
		return
	}
	f, err = filterOf(x)
	return after, f, limit, wait, err
}

// waitOf reads how long a request may wait; "" is not at all.
func (a *API) waitOf(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(s)
	if err != nil || wait < 0 || wait > a.maxWait {
		return 0, eventhose.Invalid("wait", "must be a duration of at most %v, such as 30s", a.maxWait)
	}
	return wait, nil
}

// filterOf reads what narrows a read.
func filterOf(x *exchange) (eventhose.Filter, error) {
	f := eventhose.Filter{Types: listOf(x.query["types"]), Keys: given(x.query["keys"]), Expression: x.query.Get("expression")}
	if f.Expression != "" && !x.principal.Can(eventhose.CapabilityData) {
		// Whether an expression holds of data tells what the data is.
		return f, &eventhose.Error{Code: eventhose.CodeForbidden, Field: "expression", Message: "the portal link does not open data, which an expression may ask about"}
	}
	return f, ofQuery(f.Validate())
}

func limitOf(s string) (int, error) {
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, eventhose.Invalid("limit", "must be a number from 1 to %d", maxLimit)
	}
	return n, nil
}

// listOf reads a parameter that is repeated, or separated by commas, or both.
func listOf(values []string) (list []string) {
	for _, v := range given(values) {
		list = append(list, strings.Split(v, ",")...)
	}
	return list
}

// given are the values of a list that hold something: a parameter that is there and empty is as good as left out, as with
// all others ("after=&limit=&types=").
func given(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
}

// ofQuery names a filter's field as the query does.
func ofQuery(err error) error {
	var e *eventhose.Error
	if !errors.As(err, &e) || !strings.HasPrefix(e.Field, "filter.") {
		return err
	}
	moved := *e
	moved.Field = strings.TrimPrefix(e.Field, "filter.")
	return &moved
}

// event answers GET …/events/{id}: the event and what became of it at each subscription.
func (a *API) event(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	e, err := a.log.Event(r.Context(), x.tenant, x.query.Get("source"), r.PathValue("id"))
	if err == nil && e.Erased && !x.principal.Limited() {
		err = erased()
	}
	var head eventhose.Head
	if err == nil {
		head, err = a.log.Head(r.Context(), x.tenant)
	}
	var deliveries []eventhose.Delivery
	if err == nil {
		deliveries, err = a.delivery.Deliveries(r.Context(), e)
	}
	if err == nil && x.principal.Limited() {
		// Of an event that does not concern what a link is limited to, it is told nothing at all.
		deliveries = slices.DeleteFunc(deliveries, func(d eventhose.Delivery) bool { return !x.principal.Shows(d.Subscription) })
		if len(deliveries) == 0 {
			err = eventhose.NotFound("event")
		}
	}
	if err == nil && e.Erased {
		err = erased()
	}
	for i := range deliveries {
		deliveries[i].Attempts = notNil(deliveries[i].Attempts)
		for j := range deliveries[i].Attempts {
			deliveries[i].Attempts[j] = shownTo(x.principal, deliveries[i].Attempts[j])
		}
	}
	var told []byte
	if err == nil {
		told, err = marshal(notNil(deliveries))
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	body := appendFor(x.principal, make([]byte, 0, 512+len(e.Data)+len(told)), &e, head.Cursor(e.Sequence))
	body = append(append(append(body, `,"deliveries":`...), bytes.TrimSpace(told)...), '}')
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(body)
}

func erased() error {
	return &eventhose.Error{Code: eventhose.CodeErased, Message: "the event is in the log and its data was erased"}
}

// erase answers DELETE …/events/{id}/data.
func (a *API) erase(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	if err := a.log.Erase(r.Context(), x.tenant, x.query.Get("source"), r.PathValue("id")); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// notNil makes a list that JSON writes as [].
func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
