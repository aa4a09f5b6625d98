package graphql

import (
	"context"
	"regexp"
	"strings"

	"github.com/eventhose/eventhose"
)

// The bounds of lists.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// root has the fields of Query. Its fields and those of what it answers are found by the engine, by name.
type root struct{}

// Subscription has the fields of Stream: the engine asks for it by this name.
func (root) Subscription() *stream { return &stream{} }

// Query has the fields of Query.
func (root) Query() *query { return &query{} }

type (
	query  struct{}
	stream struct{}
)

// reading are the arguments of everything that reads the log.
type reading struct {
	After      *string
	Types      *[]string
	Keys       *[]string
	Expression *string
}

func (r *reading) filter() eventhose.Filter {
	f := eventhose.Filter{Expression: value(r.Expression)}
	if r.Types != nil {
		f.Types = *r.Types
	}
	if r.Keys != nil {
		f.Keys = *r.Keys
	}
	return f
}

// cursor reads where to begin. CodeInvalid with field "after".
func (r *reading) cursor(head func() (eventhose.Head, error)) (eventhose.Cursor, error) {
	text := value(r.After)
	if text == "now" {
		h, err := head()
		return h.Cursor(h.Last), err
	}
	c, err := eventhose.ParseCursor(text)
	if err != nil {
		return c, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "after", Message: "is not a cursor", Fix: "use a cursor that this server gave out, 0 for the beginning, or now"}
	}
	return c, nil
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// bounded reads how long a list may be.
func bounded(n *int32, field string) (int, error) {
	if n == nil {
		return defaultLimit, nil
	}
	if *n < 1 || *n > maxLimit {
		return 0, eventhose.Invalid(field, "must be a number from 1 to %d", maxLimit)
	}
	return int(*n), nil
}

// place is where a stream begins.
type place struct {
	after  eventhose.Cursor
	filter eventhose.Filter
	// now says that it is the end of the log as it was.
	now bool
}

// Events answers the items of a part of a stream; when a stream begins, only where it does.
func (stream) Events(ctx context.Context, args reading) (<-chan *item, error) {
	o := operationOf(ctx)
	if o.items == nil {
		if o.from, o.refused = o.place(ctx, &args); o.refused != nil {
			return nil, o.refused
		}
	}
	items := make(chan *item, len(o.items))
	for _, it := range o.items {
		items <- it
	}
	close(items)
	return items, nil
}

func (o *operation) place(ctx context.Context, args *reading) (p place, err error) {
	p.filter, p.now = args.filter(), value(args.After) == "now"
	if err := p.filter.Validate(); err != nil {
		return p, err
	}
	head, err := o.door.o.Log.Head(ctx, o.tenant)
	if err != nil {
		return p, err
	}
	if p.after, err = args.cursor(func() (eventhose.Head, error) { return head, nil }); err != nil {
		return p, err
	}
	at, err := head.Resolve(p.after)
	if err != nil {
		return p, err
	}
	p.after = head.Cursor(at)
	if p.filter.Expression != "" { // only a read compiles it
		_, err = o.door.o.Log.Page(ctx, o.tenant, head.Cursor(head.Last), p.filter, eventhose.PageLimit{Events: 1})
	}
	return p, err
}

// item is what a stream hands over.
type item struct {
	cursor eventhose.Cursor
	event  *event
	room   *room
}

func (i *item) Cursor() string { return i.cursor.String() }
func (i *item) Event() *event  { return i.event }

// Events reads a page.
func (query) Events(ctx context.Context, args struct {
	reading
	Limit *int32
}) (*eventPage, error) {
	o := operationOf(ctx)
	limit, err := bounded(args.Limit, "limit")
	if err != nil {
		return nil, err
	}
	f := args.filter()
	if err := f.Validate(); err != nil {
		return nil, err
	}
	after, err := args.cursor(func() (eventhose.Head, error) { return o.door.o.Log.Head(ctx, o.tenant) })
	if err != nil {
		return nil, err
	}
	page, err := o.door.o.Log.Page(ctx, o.tenant, after, f, eventhose.PageLimit{Events: limit})
	if err != nil {
		return nil, err
	}
	return &eventPage{page, o}, nil
}

type eventPage struct {
	page eventhose.Page
	o    *operation
}

func (p *eventPage) Cursor() string { return p.page.Cursor.String() }
func (p *eventPage) HasMore() bool  { return p.page.HasMore }
func (p *eventPage) Events() []*event {
	list := make([]*event, len(p.page.Events))
	for i, e := range p.page.Events {
		list[i] = &event{Event: e, cursor: eventhose.Cursor{Incarnation: p.page.Cursor.Incarnation, Sequence: e.Sequence}, o: p.o, room: p.o.room}
	}
	return list
}

// Event finds one event.
func (query) Event(ctx context.Context, args struct {
	ID     id
	Source *string
}) (*event, error) {
	o := operationOf(ctx)
	e, err := o.door.o.Log.Event(ctx, o.tenant, value(args.Source), string(args.ID))
	if err != nil {
		return nil, err
	}
	head, err := o.door.o.Log.Head(ctx, o.tenant)
	if err != nil {
		return nil, err
	}
	return &event{Event: e, cursor: head.Cursor(e.Sequence), o: o, room: o.room}, nil
}

// notGivenOut is what is said of places in a list that no answer had.
const notGivenOut = "is not what this field gave out"

// listing are the arguments of lists.
type listing struct {
	First *int32
	After *string
}

// Subscriptions lists them.
func (query) Subscriptions(ctx context.Context, args listing) (*subscriptionPage, error) {
	o := operationOf(ctx)
	first, err := bounded(args.First, "first")
	if err != nil {
		return nil, err
	}
	after := value(args.After)
	if strings.IndexByte(after, 0) >= 0 { // not every store can be asked for it
		return nil, eventhose.Invalid("after", notGivenOut)
	}
	list, err := o.door.o.Subscriptions.Subscriptions(ctx, o.tenant, eventhose.SubscriptionID(after), first+1)
	if err != nil {
		return nil, err
	}
	p := &subscriptionPage{}
	if len(list) > first {
		list = list[:first]
		p.next = some(string(list[first-1].ID))
	}
	for _, s := range list {
		p.list = append(p.list, &subscription{s, o})
	}
	return p, nil
}

type subscriptionPage struct {
	list []*subscription
	next *string
}

func (p *subscriptionPage) Subscriptions() []*subscription { return p.list }
func (p *subscriptionPage) Next() *string                  { return p.next }

// Subscription finds one.
func (query) Subscription(ctx context.Context, args struct{ ID id }) (*subscription, error) {
	o := operationOf(ctx)
	s, err := o.door.o.Subscriptions.Subscription(ctx, o.tenant, eventhose.SubscriptionID(args.ID))
	if err != nil {
		return nil, err
	}
	return &subscription{s, o}, nil
}

// Attempts lists those of a subscription, or of one event there.
func (query) Attempts(ctx context.Context, args struct {
	listing
	Subscription id
	Event        *id
	Source       *string
}) (*attemptPage, error) {
	o := operationOf(ctx)
	sub := eventhose.SubscriptionID(args.Subscription)
	if _, err := o.door.o.Subscriptions.Subscription(ctx, o.tenant, sub); err != nil {
		return nil, err
	}
	if args.Event == nil {
		if args.Source != nil {
			return nil, eventhose.Invalid("source", "must not be given without event")
		}
		return o.attempts(ctx, sub, args.listing)
	}
	if args.After != nil {
		return nil, eventhose.Invalid("after", "must not be given with event")
	}
	first, err := bounded(args.First, "first")
	if err != nil {
		return nil, err
	}
	e, err := o.door.o.Log.Event(ctx, o.tenant, value(args.Source), string(*args.Event))
	if err != nil {
		return nil, err
	}
	deliveries, err := o.door.o.Delivery.Deliveries(ctx, e)
	if err != nil {
		return nil, err
	}
	for _, d := range deliveries {
		if d.Subscription == sub {
			return &attemptPage{list: attemptsOf(d.Attempts[:min(first, len(d.Attempts))], o)}, nil
		}
	}
	return &attemptPage{}, nil
}

var attemptID = regexp.MustCompile(`^att_[0-9a-hjkmnp-tv-z]{26}$`)

func (o *operation) attempts(ctx context.Context, sub eventhose.SubscriptionID, args listing) (*attemptPage, error) {
	first, err := bounded(args.First, "first")
	if err != nil {
		return nil, err
	}
	after := value(args.After)
	if after != "" && !attemptID.MatchString(after) {
		return nil, eventhose.Invalid("after", notGivenOut)
	}
	list, err := o.door.o.Delivery.Attempts(ctx, o.tenant, sub, after, first+1)
	if err != nil {
		return nil, err
	}
	p := &attemptPage{}
	if len(list) > first {
		list = list[:first]
		p.next = some(list[first-1].ID)
	}
	p.list = attemptsOf(list, o)
	return p, nil
}
