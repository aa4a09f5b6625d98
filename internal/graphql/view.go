package graphql

import (
	"context"
	"encoding/base64"
	"slices"

	engine "github.com/graph-gophers/graphql-go"

	"github.com/eventhose/eventhose"
)

// What resolvers answer. Methods are the fields of the schema's types, found by name.

// event is an event as clients see it.
type event struct {
	eventhose.Event
	cursor eventhose.Cursor
	o      *operation
	room   *room
}

func (e *event) ID() id                 { return id(e.Event.ID) }
func (e *event) Type() string           { return e.Event.Type }
func (e *event) Sequence() long         { return long(e.Event.Sequence) }
func (e *event) Key() string            { return e.Event.Key }
func (e *event) Time() engine.Time      { return engine.Time{Time: e.Event.Time} }
func (e *event) Appended() engine.Time  { return engine.Time{Time: e.Event.Appended} }
func (e *event) Cursor() string         { return e.cursor.String() }
func (e *event) Source() *string        { return some(e.Scope) }
func (e *event) Version() *string       { return some(e.Event.Version) }
func (e *event) Erased() bool           { return e.Event.Erased }
func (e *event) Attributes() *jsonValue { return object(e.Event.Attributes, e.room) }

func (e *event) ContentType() string {
	if e.Event.ContentType == "" {
		return "application/json"
	}
	return e.Event.ContentType
}

func (e *event) Origin() *origin {
	if e.Event.Origin.Tenant == "" {
		return nil
	}
	return &origin{e.Event.Origin}
}

func (e *event) Data() *jsonValue {
	switch {
	case e.Event.Erased || !e.JSON() || !e.room.take(len(e.Event.Data)):
		return nil
	case len(e.Event.Data) == 0:
		return &jsonValue{[]byte("null")}
	}
	return &jsonValue{e.o.verbatim.mark(e.Event.Data)}
}

func (e *event) DataBase64() *string {
	if e.Event.Erased || e.JSON() || !e.room.take(base64.StdEncoding.EncodedLen(len(e.Event.Data))) {
		return nil
	}
	text := base64.StdEncoding.EncodeToString(e.Event.Data)
	return &text
}

func (e *event) Deliveries(ctx context.Context) ([]*delivery, error) {
	list, err := e.o.door.o.Delivery.Deliveries(ctx, e.Event)
	if err != nil {
		return nil, err
	}
	out := make([]*delivery, len(list))
	for i, d := range list {
		out[i] = &delivery{d, e.o}
	}
	return out, nil
}

type origin struct{ eventhose.Origin }

func (o *origin) Tenant() id     { return id(o.Origin.Tenant) }
func (o *origin) Sequence() long { return long(o.Origin.Sequence) }

type delivery struct {
	eventhose.Delivery
	o *operation
}

func (d *delivery) Subscription() id     { return id(d.Delivery.Subscription) }
func (d *delivery) State() string        { return d.Delivery.State }
func (d *delivery) Attempts() []*attempt { return attemptsOf(d.Delivery.Attempts, d.o) }

// subscription is a subscription as clients see it: without secrets.
type subscription struct {
	eventhose.Subscription
	o *operation
}

func (s *subscription) ID() id               { return id(s.Subscription.ID) }
func (s *subscription) Name() string         { return s.Subscription.Name }
func (s *subscription) Filter() *filter      { return &filter{s.Subscription.Filter, s.o} }
func (s *subscription) Ordering() string     { return string(s.Subscription.Ordering) }
func (s *subscription) OnExhausted() string  { return string(s.Subscription.OnExhausted) }
func (s *subscription) Timeout() string      { return s.Retry.Timeout.String() }
func (s *subscription) MaxInFlight() int32   { return int32(s.Subscription.MaxInFlight) }
func (s *subscription) MaxRate() int32       { return int32(s.Subscription.MaxRate) }
func (s *subscription) BatchEvents() int32   { return int32(max(1, s.Batch.MaxEvents)) }
func (s *subscription) State() string        { return string(s.Subscription.State) }
func (s *subscription) Reason() *string      { return some(s.Subscription.Reason) }
func (s *subscription) Created() engine.Time { return engine.Time{Time: s.Subscription.Created} }
func (s *subscription) Updated() engine.Time { return engine.Time{Time: s.Subscription.Updated} }
func (s *subscription) PublicKey() *string   { return some(s.Subscription.PublicKey) }
func (s *subscription) Schedule() (l []string) {
	for _, d := range s.Retry.Schedule {
		l = append(l, d.String())
	}
	return l
}

func (s *subscription) Destination() *destination {
	if s.Pull() {
		return nil
	}
	return &destination{s.Subscription.Destination}
}

func (s *subscription) Status(ctx context.Context) (*status, error) {
	st, err := s.o.door.o.Delivery.Status(ctx, s.Subscription)
	if err != nil {
		return nil, err
	}
	return &status{st}, nil
}

func (s *subscription) Attempts(ctx context.Context, args listing) (*attemptPage, error) {
	return s.o.attempts(ctx, s.Subscription.ID, args)
}

type filter struct {
	eventhose.Filter
	o *operation
}

func (f *filter) Types() []string        { return f.Filter.Types }
func (f *filter) Keys() []string         { return f.Filter.Keys }
func (f *filter) Attributes() *jsonValue { return object(f.Filter.Attributes, f.o.room) }
func (f *filter) Expression() *string    { return large(f.Filter.Expression, f.o.room) }

type destination struct{ eventhose.Destination }

func (d *destination) Type() string         { return d.Destination.Type }
func (d *destination) URL() string          { return d.Destination.URL }
func (d *destination) Signature() string    { return d.Destination.Signature }
func (d *destination) Compression() *string { return some(d.Destination.Compression) }

func (d *destination) Headers() []string {
	var names []string
	for name := range d.Destination.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (d *destination) Format() string {
	if d.Destination.Format == "" {
		return eventhose.FormatStandard
	}
	return d.Destination.Format
}

type status struct{ eventhose.LaneStatus }

func (s *status) Cursor() string             { return s.LaneStatus.Cursor.String() }
func (s *status) Lag() long                  { return long(s.LaneStatus.Lag) }
func (s *status) InFlight() int32            { return int32(s.LaneStatus.InFlight) }
func (s *status) Retrying() int32            { return int32(s.LaneStatus.Retrying) }
func (s *status) Leased() int32              { return int32(s.LaneStatus.Leased) }
func (s *status) BlockedKeys() int32         { return int32(s.LaneStatus.BlockedKeys) }
func (s *status) Waiting() int32             { return int32(s.LaneStatus.Waiting) }
func (s *status) Dead() int32                { return int32(s.LaneStatus.Dead) }
func (s *status) Circuit() string            { return s.LaneStatus.Circuit }
func (s *status) FailingSince() *engine.Time { return moment(s.LaneStatus.FailingSince) }
func (s *status) LastSuccess() *engine.Time  { return moment(s.LaneStatus.LastSuccess) }
func (s *status) Next() *engine.Time         { return moment(s.LaneStatus.Next) }

type attemptPage struct {
	list []*attempt
	next *string
}

func (p *attemptPage) Attempts() []*attempt { return p.list }
func (p *attemptPage) Next() *string        { return p.next }

type attempt struct {
	eventhose.Attempt
	o *operation
}

func attemptsOf(list []eventhose.Attempt, o *operation) []*attempt {
	out := make([]*attempt, len(list))
	for i, a := range list {
		out[i] = &attempt{a, o}
	}
	return out
}

func (a *attempt) ID() id                      { return id(a.Attempt.ID) }
func (a *attempt) Subscription() id            { return id(a.Attempt.Subscription) }
func (a *attempt) Kind() string                { return string(a.Attempt.Kind) }
func (a *attempt) Batch() *id                  { return some(id(a.Attempt.Batch)) }
func (a *attempt) Number() int32               { return int32(a.Attempt.Number) }
func (a *attempt) Outcome() string             { return string(a.Attempt.Outcome) }
func (a *attempt) Reason() *string             { return some(string(a.Attempt.Reason)) }
func (a *attempt) Message() *string            { return large(a.Attempt.Message, a.o.room) }
func (a *attempt) Status() *int32              { return some(int32(a.Attempt.Status)) }
func (a *attempt) Started() engine.Time        { return engine.Time{Time: a.Attempt.Started} }
func (a *attempt) Duration() string            { return a.Attempt.Duration.String() }
func (a *attempt) Phases() *phases             { return &phases{a.Attempt.Phases} }
func (a *attempt) URL() *string                { return large(a.Attempt.URL, a.o.room) }
func (a *attempt) Address() *string            { return some(a.Attempt.Address) }
func (a *attempt) ResponseHeaders() *jsonValue { return object(a.Attempt.ResponseHeaders, a.o.room) }
func (a *attempt) ResponseBody() *string       { return large(a.Attempt.ResponseBody, a.o.room) }
func (a *attempt) Next() *engine.Time          { return moment(a.Attempt.Next) }
func (a *attempt) Replay() *id                 { return some(id(a.Attempt.Replay)) }

func (a *attempt) Events() []id {
	list := make([]id, len(a.Attempt.Events))
	for i, e := range a.Attempt.Events {
		list[i] = id(e)
		if !a.o.room.take(len(e)) {
			return nil
		}
	}
	return list
}

func (a *attempt) Sequences() []long {
	list := make([]long, len(a.Attempt.Sequences))
	for i, s := range a.Attempt.Sequences {
		list[i] = long(s)
	}
	if !a.o.room.take(20 * len(list)) {
		return nil
	}
	return list
}

type phases struct{ eventhose.Phases }

func (p *phases) DNS() *string     { return took(p.Phases.DNS) }
func (p *phases) Connect() *string { return took(p.Phases.Connect) }
func (p *phases) TLS() *string     { return took(p.Phases.TLS) }
func (p *phases) Wait() *string    { return took(p.Phases.Wait) }
