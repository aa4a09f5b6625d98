package graphql

import (
	"context"
	"errors"
	"sync"
	"time"

	engine "github.com/graph-gophers/graphql-go"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/stall"
)

// operation is one operation of a client while it is executed. Resolvers find it in their context.
type operation struct {
	door     *Door
	tenant   eventhose.TenantID
	verbatim *verbatim
	// room is a query's; each item of a stream has its own.
	room *room
	// check answers why a stream must end, if it must; sent counts what it has handed over.
	check func(context.Context) error
	sent  func(events int)

	// items come from the log to the engine, and from the engine to the client, one by one.
	producer sync.WaitGroup
	mu       sync.Mutex
	handed   []*item // on their way through the engine
	ended    error   // why the stream's items have ended
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
	select {
	case d.queries <- struct{}{}:
		defer func() { <-d.queries }()
	case <-ctx.Done():
		return nil, faultsOf(ctx.Err())
	}
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
	ctx, cancel := context.WithCancel(ctx)
	defer o.producer.Wait()
	defer cancel() // before the producer is waited for
	responses, err := o.door.engine.Subscribe(context.WithValue(ctx, operationKey{}, o), doc.query, doc.name, doc.variables)
	if err != nil {
		return err, false
	}
	tick := time.NewTicker(o.door.o.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case r, more := <-responses:
			response, _ := r.(*engine.Response)
			if !more || response == nil || ctx.Err() != nil {
				return o.why(ctx), false
			}
			it := o.taken()
			if it == nil { // the arguments were refused
				_, list := o.response(ctx, response, o.room)
				return o.why(ctx), to.refuse(list) == nil
			}
			b, wrong := o.response(ctx, response, it.room)
			if wrong != nil {
				b = refusal(wrong)
			}
			if err := to.next(b); err != nil {
				return err, false
			}
			if it.event != nil {
				o.sent(1)
			}
		case <-tick.C:
			if err := to.idle(); err != nil {
				return err, false
			}
		}
	}
}

// why answers what has ended the items.
func (o *operation) why(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.door.draining.Err() != nil:
		return stopping()
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.Canceled):
		return context.Cause(ctx)
	case ctx.Err() == nil && o.ended != nil:
		return o.ended
	}
	return stall.ErrLeft
}

// taken answers the item whose response has come, nil if it is of none.
func (o *operation) taken() *item {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.handed) == 0 {
		return nil
	}
	it := o.handed[0]
	o.handed = o.handed[1:]
	return it
}

// encode keeps events as they are: what clients want of them differs.
func encode(events []eventhose.Event, _ eventhose.Incarnation) follow.Encoded[eventhose.Event] {
	size := 0
	for i := range events {
		size += 512 + len(events[i].Data)
	}
	return follow.Encoded[eventhose.Event]{Each: events, Size: size}
}

// produce reads the log from a place on and hands items over, until ctx ends or the log cannot be read on.
func (o *operation) produce(ctx context.Context, from place, items chan<- *item) {
	defer close(items)
	defer func() {
		if v := recover(); v != nil {
			o.door.panicked(ctx, v)
			o.end(errPanic)
		}
	}()
	o.end(o.follow(ctx, from, items))
}

func (o *operation) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended == nil {
		o.ended = err
	}
}

// follow is the loop of a stream. It ends with an error.
func (o *operation) follow(ctx context.Context, from place, items chan<- *item) error {
	if from.now {
		if err := o.hand(ctx, o.item(from.after), items); err != nil {
			return err
		}
	}
	stream := o.door.pages.Open(o.tenant, from.after, from.filter)
	for {
		before := stream.Cursor()
		page, err := stream.Next(ctx, follow.Limit.Events, o.door.o.Heartbeat)
		if err == nil {
			err = o.check(ctx)
		}
		if err != nil {
			return err
		}
		for i := range page.Events {
			it := o.item(eventhose.Cursor{Incarnation: page.Cursor.Incarnation, Sequence: page.Each[i].Sequence})
			it.event = &event{Event: page.Each[i], cursor: it.cursor, o: o, room: it.room}
			if err := o.hand(ctx, it, items); err != nil {
				return err
			}
		}
		if page.Events == 0 && page.Cursor != before {
			if err := o.hand(ctx, o.item(page.Cursor), items); err != nil {
				return err
			}
		}
	}
}

func (o *operation) item(c eventhose.Cursor) *item { return &item{cursor: c, room: newRoom()} }

// hand gives an item to the engine, which takes the next one when the client has taken this.
func (o *operation) hand(ctx context.Context, it *item, items chan<- *item) error {
	o.mu.Lock()
	o.handed = append(o.handed, it)
	o.mu.Unlock()
	select {
	case items <- it:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
