package graphql

import (
	"context"
	"errors"
	"iter"

	engine "github.com/graph-gophers/graphql-go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/stall"
)

// operation is one operation of a client while it is executed, or a part of a stream. Resolvers find it in their context.
type operation struct {
	door     *Door
	tenant   eventhose.TenantID
	verbatim *verbatim
	// room is a query's; each item of a stream has its own.
	room *room

	// A stream begins by having its arguments read: from is where, refused why not. Later it is executed page by page, for items.
	items   []*item
	from    place
	refused error

	// check answers why a stream must end, if it must; sent counts what it has handed over.
	check func(context.Context) error
	sent  func(events int)
}

type operationKey struct{}

func operationOf(ctx context.Context) *operation {
	o, _ := ctx.Value(operationKey{}).(*operation)
	return o
}

func (d *Door) operation(tenant eventhose.TenantID) *operation {
	return &operation{door: d, tenant: tenant, verbatim: newVerbatim(), room: newRoom()}
}

// query executes a document and answers its response, or why nothing was done.
func (d *Door) query(ctx context.Context, tenant eventhose.TenantID, doc *document) (response []byte, wrong faults) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	give, err := d.queries.take(ctx, tenant)
	if err != nil {
		return nil, faultsOf(err)
	}
	defer give()
	o := d.operation(tenant)
	return o.response(ctx, d.engine.Exec(context.WithValue(ctx, operationKey{}, o), doc.query, doc.name, doc.variables), o.room)
}

// sink is where the responses of a stream go. Its errors end the stream.
type sink interface {
	// next takes the response of an item, and as long as the client does.
	next(response []byte) error
	// refuse takes why nothing was done: there is nothing else then.
	refuse(list faults) error
	// idle is called when there was no item for a heartbeat.
	idle() error
}

// stream executes a subscription until ctx or the stream ends, and answers why; told says that the client knows.
func (o *operation) stream(ctx context.Context, doc *document, to sink) (why error, told bool) {
	if list := o.begin(ctx, doc); list != nil {
		if ctx.Err() != nil {
			return o.why(ctx, nil), false
		}
		return o.why(ctx, o.refused), to.refuse(list) == nil
	}
	if o.from.now {
		if err := to.next(o.moved(doc, o.from.after)); err != nil {
			return err, false
		}
	}
	stream := o.door.pages.Open(o.tenant, o.from.after, o.from.filter).As(doc.form, func(events []eventhose.Event, incarnation eventhose.Incarnation) follow.Encoded[[]byte] {
		return o.door.encode(doc, events, incarnation)
	})
	for {
		before := stream.Cursor()
		page, err := stream.Next(ctx, follow.Limit.Events, o.door.o.Heartbeat)
		if err == nil {
			err = o.check(ctx)
		}
		if err != nil {
			return o.why(ctx, err), false
		}
		for _, response := range page.Each[:page.Events] {
			if err := to.next(response); err != nil {
				return err, false
			}
			o.sent(1)
		}
		switch {
		case page.Events > 0:
		case page.Cursor != before:
			err = to.next(o.moved(doc, page.Cursor))
		default:
			err = to.idle()
		}
		if err != nil {
			return err, false
		}
	}
}

// begin reads a stream's arguments into from, or answers what is wrong with them.
func (o *operation) begin(ctx context.Context, doc *document) (wrong faults) {
	for response := range o.door.responses(ctx, o, doc) {
		_, wrong = o.response(ctx, response, o.room)
	}
	if o.refused != nil && wrong == nil {
		wrong = o.door.tell(ctx, o.refused)
	}
	return wrong
}

// responses executes a subscription, and answers what the engine does.
func (d *Door) responses(ctx context.Context, o *operation, doc *document) iter.Seq[*engine.Response] {
	return func(yield func(*engine.Response) bool) {
		ctx, cancel := context.WithCancel(context.WithValue(ctx, operationKey{}, o))
		defer cancel()
		all, err := d.engine.Subscribe(ctx, doc.query, doc.name, doc.variables)
		if err != nil { // a schema without subscriptions
			panic(err) //nolint:forbidigo // it is ours, and a test reads it
		}
		more := true
		for r := range all { // to its end; what it still executes then touches memory only
			if response, _ := r.(*engine.Response); more && response != nil {
				if more = yield(response); !more {
					cancel()
				}
			}
		}
	}
}

// why answers what has ended a stream.
func (o *operation) why(ctx context.Context, err error) error {
	switch {
	case o.door.draining.Err() != nil:
		return stopping()
	case ctx.Err() == nil && err != nil:
		return err
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.Canceled):
		return context.Cause(ctx)
	}
	return stall.ErrLeft
}

// moved is the response that tells where a stream stands.
func (o *operation) moved(doc *document, at eventhose.Cursor) []byte {
	return o.door.show(doc, []*item{{cursor: at, room: newRoom()}})[0]
}

// encode executes a document for events. Nothing else decides what it answers for them, so all streams of a document share that.
func (d *Door) encode(doc *document, events []eventhose.Event, incarnation eventhose.Incarnation) follow.Encoded[[]byte] {
	items := make([]*item, len(events))
	for i, e := range events {
		it := &item{cursor: eventhose.Cursor{Incarnation: incarnation, Sequence: e.Sequence}, room: newRoom()}
		it.event = &event{Event: e, cursor: it.cursor, room: it.room}
		items[i] = it
	}
	out := follow.Encoded[[]byte]{Each: d.show(doc, items)}
	for _, response := range out.Each {
		out.Size += 24 + cap(response)
	}
	return out
}

// show answers the responses of items, at least one; not of all if they are large.
func (d *Door) show(doc *document, items []*item) (out [][]byte) {
	ctx := context.Background() // it reads nothing and is soon done, for whoever waits for it then
	err := d.guarded(ctx, func() error {
		o := &operation{door: d, verbatim: newVerbatim(), items: items}
		for _, it := range items {
			if it.event != nil {
				it.event.o = o
			}
		}
		size := 0
		for response := range d.responses(ctx, o, doc) {
			b, wrong := o.response(ctx, response, items[len(out)].room)
			if wrong != nil {
				b = refusal(wrong)
			}
			out = append(out, b)
			if size += len(b); size >= follow.Limit.Bytes {
				break
			}
		}
		return nil
	})
	if len(out) == 0 {
		out = [][]byte{refusal(faultsOf(err))}
	}
	return out
}

// guarded calls do, and logs a panic of it instead of ending the process.
func (d *Door) guarded(ctx context.Context, do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			d.panicked(ctx, v)
			err = errPanic
		}
	}()
	return do()
}
