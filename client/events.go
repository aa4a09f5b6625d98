package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/eventhose/eventhose"
)

// Tenant is a tenant's log, as one client reaches it. It is safe for concurrent use.
type Tenant struct {
	c  *Client
	id eventhose.TenantID
}

// Tenant answers the calls that belong to one tenant. It asks nothing of the server.
func (c *Client) Tenant(id eventhose.TenantID) *Tenant { return &Tenant{c, id} }

func (t *Tenant) path(segments ...string) []string {
	return append([]string{"v1", "tenants", string(t.id)}, segments...)
}

// wireEvent is an event as the API writes and reads it. Data is spliced in by hand on the way out, since
// encoding/json would compact it, and signatures are over the bytes as they came.
type wireEvent struct {
	ID          string             `json:"id,omitempty"`
	Type        string             `json:"type"`
	Sequence    eventhose.Sequence `json:"sequence,omitempty"`
	Key         *string            `json:"key,omitempty"`
	Time        time.Time          `json:"time,omitzero"`
	Appended    time.Time          `json:"appended,omitzero"`
	Source      string             `json:"source,omitempty"`
	Version     string             `json:"version,omitempty"`
	Attributes  map[string]string  `json:"attributes,omitempty"`
	Origin      wireOrigin         `json:"origin,omitzero"`
	ContentType string             `json:"content_type,omitempty"`
	Data        json.RawMessage    `json:"data,omitempty"`
	DataBase64  []byte             `json:"data_base64,omitempty"`
	Erased      bool               `json:"erased,omitempty"`
	DataOmitted bool               `json:"data_omitted,omitempty"`
}

// wireOrigin is eventhose.Origin as the API writes it.
type wireOrigin struct {
	Tenant   eventhose.TenantID `json:"tenant"`
	Sequence eventhose.Sequence `json:"sequence"`
}

// MarshalEvent writes an event as the API does, but for its cursor, which an Event does not know. JSON data is written byte for
// byte. An event that came without data, such as to a portal link that does not open it, says data_omitted. CodeMalformed
// (field "data") if the data should be JSON and is not.
func MarshalEvent(e eventhose.Event) ([]byte, error) {
	inLog := e.Sequence != 0
	w := wireEvent{ID: e.ID, Type: e.Type, Sequence: e.Sequence, Source: e.Scope, Time: e.Time, Appended: e.Appended, Origin: wireOrigin(e.Origin),
		Version: e.Version, Attributes: e.Attributes, ContentType: e.ContentType, Erased: e.Erased}
	if e.Key != "" || inLog {
		w.Key = &e.Key
	}
	var data []byte
	switch {
	case e.Erased:
	case inLog && e.Data == nil:
		w.DataOmitted = true
	case !e.JSON():
		data = append(append([]byte(`,"data_base64":"`), base64.StdEncoding.EncodeToString(e.Data)...), '"')
	case !json.Valid(e.Data):
		return nil, &eventhose.Error{Code: eventhose.CodeMalformed, Field: "data", Message: "is not JSON", Fix: "set the content type of what is not JSON"}
	default:
		data = append([]byte(`,"data":`), e.Data...)
	}
	head, err := jsonBody(w)
	if err != nil {
		return nil, err
	}
	head = bytes.TrimSuffix(head, []byte("}\n"))
	return append(append(head, data...), '}'), nil
}

func (w *wireEvent) event(tenant eventhose.TenantID) eventhose.Event {
	e := eventhose.Event{ID: w.ID, Tenant: tenant, Sequence: w.Sequence, Scope: w.Source, Type: w.Type, Time: w.Time, Appended: w.Appended,
		Version: w.Version, Attributes: w.Attributes, ContentType: w.ContentType, Data: w.Data, Erased: w.Erased, Origin: eventhose.Origin(w.Origin)}
	if w.Key != nil {
		e.Key = *w.Key
	}
	if w.DataBase64 != nil {
		e.Data = w.DataBase64
	}
	return e
}

// Append puts events at the end of the log, all of them or none, and answers a placement for each, in order, once they
// are on disk. Of each event it sends ID, Type, Key, Time, Version, Attributes, ContentType and Data, which must be JSON
// unless ContentType says otherwise, and arrives byte for byte. Refusals: CodeMalformed, CodeInvalid and CodeTooLarge
// with the field ("events[3].type", or for one event "type"), CodeConflict for a known id with other content,
// CodeNotFound for the tenant, CodeStorageFull, CodeLimit, CodeUnavailable.
func (t *Tenant) Append(ctx context.Context, events ...eventhose.Event) ([]eventhose.Placement, error) {
	if len(events) == 0 {
		return nil, nil
	}
	var body bytes.Buffer
	if len(events) > 1 {
		body.WriteByte('[')
	}
	for i, e := range events {
		if i > 0 {
			body.WriteByte(',')
		}
		one, err := MarshalEvent(eventhose.Event{ID: e.ID, Type: e.Type, Key: e.Key, Time: e.Time, Version: e.Version,
			Attributes: e.Attributes, ContentType: e.ContentType, Data: e.Data})
		if err != nil {
			return nil, err
		}
		body.Write(one)
	}
	var answer struct {
		eventhose.Placement
		Events []eventhose.Placement `json:"events"`
	}
	if len(events) > 1 {
		body.WriteByte(']')
	}
	err := t.c.do(ctx, request{method: http.MethodPost, path: t.path("events"), body: body.Bytes(), contentType: "application/json", into: &answer})
	if err != nil {
		return nil, err
	}
	if len(events) == 1 {
		return []eventhose.Placement{answer.Placement}, nil
	}
	if len(answer.Events) != len(events) {
		return nil, fmt.Errorf("the server answered %d placements for %d events", len(answer.Events), len(events))
	}
	return answer.Events, nil
}

// ReadOptions say what to read. The zero value reads from the beginning.
type ReadOptions struct {
	After eventhose.Cursor
	// Now reads after the end of the log instead.
	Now bool
	// Limit is how many events at most, 0 the server's default.
	Limit int
	// Types, Keys and Expression narrow what is read, as in eventhose.Filter.
	Types      []string
	Keys       []string
	Expression string
	// Wait holds the answer until there is something, at most this long.
	Wait time.Duration
}

// Read reads one page. Go on with its Cursor. CodeCursorGone tells with First that retention has overtaken After.
func (t *Tenant) Read(ctx context.Context, o ReadOptions) (eventhose.Page, error) {
	q := url.Values{"after": {o.After.String()}}
	if o.Now {
		q.Set("after", "now")
	}
	if o.Limit != 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	filterQuery(q, o.Types, o.Keys, o.Expression)
	if o.Wait > 0 {
		q.Set("wait", o.Wait.String())
	}
	var answer struct {
		Data    []wireEvent      `json:"data"`
		Cursor  eventhose.Cursor `json:"cursor"`
		HasMore bool             `json:"has_more"`
	}
	err := t.c.do(ctx, request{method: http.MethodGet, path: t.path("events"), query: q, wait: o.Wait, into: &answer})
	if err != nil {
		return eventhose.Page{}, err
	}
	page := eventhose.Page{Events: make([]eventhose.Event, len(answer.Data)), Cursor: answer.Cursor, HasMore: answer.HasMore}
	for i := range answer.Data {
		page.Events[i] = answer.Data[i].event(t.id)
	}
	return page, nil
}

// Head answers the cursor at the end of the log.
func (t *Tenant) Head(ctx context.Context) (eventhose.Cursor, error) {
	page, err := t.Read(ctx, ReadOptions{Now: true, Limit: 1})
	return page.Cursor, err
}

// CursorAt answers the cursor after which come the events that were appended at a time or later, of those that are left. It
// finds it by halving, with a read for each step.
func (t *Tenant) CursorAt(ctx context.Context, at time.Time) (eventhose.Cursor, error) {
	head, err := t.Head(ctx)
	if err != nil {
		return eventhose.Cursor{}, err
	}
	place := func(seq eventhose.Sequence) eventhose.Cursor {
		return eventhose.Cursor{Incarnation: head.Incarnation, Sequence: seq}
	}
	low, high := eventhose.Sequence(0), head.Sequence // the answer lies in [low, high]
	for low < high {
		middle := low + (high-low)/2
		page, err := t.Read(ctx, ReadOptions{After: place(middle), Limit: 1, Types: []string{"*", eventhose.SystemPrefix + "*"}})
		var refused *eventhose.Error
		switch {
		case errors.As(err, &refused) && refused.Code == eventhose.CodeCursorGone && refused.First > middle+1:
			low = min(high, refused.First-1)
		case err != nil:
			return eventhose.Cursor{}, err
		case len(page.Events) > 0 && page.Events[0].Appended.Before(at):
			low = page.Events[0].Sequence
		default:
			high = middle
		}
	}
	return place(low), nil
}

// EventStatus is an event and what became of it at each subscription that it concerns.
type EventStatus struct {
	eventhose.Event
	Deliveries []eventhose.Delivery
}

// Event answers one event by its id, and by its scope if it has one (a CloudEvents source; else ""). CodeNotFound, and
// CodeErased if its data was erased.
func (t *Tenant) Event(ctx context.Context, scope, id string) (EventStatus, error) {
	var answer struct {
		wireEvent
		Deliveries []eventhose.Delivery `json:"deliveries"`
	}
	err := t.c.do(ctx, request{method: http.MethodGet, path: t.path("events", id), query: scopeQuery(scope), into: &answer})
	return EventStatus{answer.event(t.id), answer.Deliveries}, err
}

// EraseData removes an event's data for good; its place in the log stays. A connected tenant's event is erased in the parent's log
// too, and not the other way round. CodeNotFound.
func (t *Tenant) EraseData(ctx context.Context, scope, id string) error {
	return t.c.do(ctx, request{method: http.MethodDelete, path: t.path("events", id, "data"), query: scopeQuery(scope)})
}

func scopeQuery(scope string) url.Values {
	if scope == "" {
		return nil
	}
	return url.Values{"source": {scope}}
}
