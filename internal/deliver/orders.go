package deliver

// Orders. What a person asks of a node that does not deliver for the tenant is handed to the one that does through the
// store, since every node reaches that and nodes need not reach each other. An order is a record that whoever was asked
// stores, waits for, and deletes. The node that delivers takes it by compare-and-set, so that it is carried out at most
// once, and stores in it what came of it. Both are told by hints, and look by themselves too.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	kindOrder = "order"
	// orderExpires is when an order vanishes that nobody came back for.
	orderExpires = time.Minute
	// orderWait is how long who was asked waits, and within which an order is carried out.
	orderWait = 30 * time.Second
	// askPoll and orderPoll are how often what came of an order, and orders, are looked for without a hint.
	askPoll   = 200 * time.Millisecond
	orderPoll = time.Second
	// maxOrders is how many are carried out at once.
	maxOrders = 16
)

// What may be ordered.
const (
	opRedrive = "redrive"
	opDiscard = "discard"
	opRetry   = "retry"
	opReplay  = "replay"
	opResend  = "resend"
	opRecord  = "record"
	opPull    = "pull"
	opAnswer  = "answer"
)

// order is what is stored, of no tenant, under an id that begins with the shard.
type order struct {
	Op           string                   `json:"op"`
	Tenant       eventhose.TenantID       `json:"tenant"`
	Subscription eventhose.SubscriptionID `json:"subscription"`
	Args         json.RawMessage          `json:"args"`
	At           time.Time                `json:"at"`
	By           string                   `json:"by"` // the node that was asked
	// Taken is the node that carries it out, "" before one does. Done says that it has: then there is a result or an error.
	Taken  string          `json:"taken,omitempty"`
	Done   bool            `json:"done,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *orderError     `json:"error,omitempty"`
}

// orderError is an eventhose.Error without its cause.
type orderError struct {
	Code       eventhose.Code     `json:"code"`
	Message    string             `json:"message"`
	Field      string             `json:"field,omitempty"`
	Fix        string             `json:"fix,omitempty"`
	First      eventhose.Sequence `json:"first,omitempty"`
	RetryAfter time.Duration      `json:"retry_after,omitempty"`
}

// orders is what the engine has to do with them.
type orders struct {
	there   chan struct{} // there may be new ones
	slots   chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex
	asked map[string]chan struct{} // by id, closed when what came of it is there
}

// Ordered hints that another node has stored an order. It does not block.
func (e *Engine) Ordered() { signal(e.orders.there) }

// OrderDone hints that another node has carried out an order of this one. It does not block.
func (e *Engine) OrderDone(id string) {
	e.orders.mu.Lock()
	defer e.orders.mu.Unlock()
	if done := e.orders.asked[id]; done != nil {
		delete(e.orders.asked, id)
		close(done)
	}
}

// ask has the node that delivers for a tenant carry something out, and takes in the result. CodeUnavailable if that did
// not come to an end in time.
func (e *Engine) ask(ctx context.Context, op string, tenant eventhose.TenantID, sub eventhose.SubscriptionID, args, result any) error {
	now := time.Now().UTC()
	o := order{Op: op, Tenant: tenant, Subscription: sub, At: now, By: e.leases.node}
	var err error
	if o.Args, err = json.Marshal(args); err != nil {
		return err
	}
	r := store.Record{Kind: kindOrder, ID: fmt.Sprintf("%02x.%s", store.ShardOf(tenant), idAt(uint64(now.UnixMicro()), e.opts.Random())), Expires: now.Add(orderExpires)}
	if err := e.saveOrder(ctx, &r, o); err != nil {
		return orderFailed(err)
	}
	done := make(chan struct{})
	e.orders.mu.Lock()
	e.orders.asked[r.ID] = done
	e.orders.mu.Unlock()
	defer e.OrderDone(r.ID)
	e.opts.Ordered()

	waiting, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	e.awaitOrder(waiting, r.ID, done)
	// What is there in the end counts, also if it came at the last moment; the order is withdrawn in any case.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	o, err = e.withdraw(last, r.ID)
	switch {
	case o.Done && o.Error != nil:
		return &eventhose.Error{Code: o.Error.Code, Message: o.Error.Message, Field: o.Error.Field, Fix: o.Error.Fix, First: o.Error.First, RetryAfter: o.Error.RetryAfter}
	case o.Done:
		return json.Unmarshal(o.Result, result)
	case err == nil && o.Taken == "":
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "no node delivers for this tenant at this moment; nothing was done", RetryAfter: time.Second}
	}
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the node that delivers for this tenant did not say what came of it, and nobody knows", RetryAfter: time.Second,
		Fix: "see whether it was done before you ask again", Err: err}
}

// awaitOrder waits until an order is carried out, or until ctx or the engine ends.
func (e *Engine) awaitOrder(ctx context.Context, id string, done <-chan struct{}) {
	tick := time.NewTicker(askPoll)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-e.reading.Done():
			return
		}
		if _, o, err := e.order(ctx, id); o.Done || errors.Is(err, store.ErrNotFound) {
			return
		}
	}
}

func (e *Engine) order(ctx context.Context, id string) (store.Record, order, error) {
	r, err := e.store.Record(ctx, "", kindOrder, id)
	if err != nil {
		return r, order{}, err
	}
	o, err := decodeOrder(r)
	return r, o, err
}

func decodeOrder(r store.Record) (o order, err error) {
	if err := json.Unmarshal(r.Value, &o); err != nil {
		return o, fmt.Errorf("order %s: %w", r.ID, err)
	}
	return o, nil
}

// withdraw deletes an order and answers how it stood then.
func (e *Engine) withdraw(ctx context.Context, id string) (order, error) {
	for {
		r, o, err := e.order(ctx, id)
		if err == nil {
			err = e.store.Save(ctx, []store.RecordChange{{Record: r, Delete: true}}, nil)
		}
		if o.Done || !errors.Is(err, store.ErrVersion) {
			return o, err
		}
	}
}

// saveOrder stores an order over the version that was read.
func (e *Engine) saveOrder(ctx context.Context, r *store.Record, o order) (err error) {
	if r.Value, err = json.Marshal(o); err != nil {
		return err
	}
	if err = e.store.Save(ctx, []store.RecordChange{{Record: *r}}, nil); err == nil {
		r.Version++
	}
	return err
}

func orderFailed(err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the store is away", RetryAfter: time.Second, Err: err}
	}
	return err
}

// orderLoop carries out what other nodes were asked.
func (e *Engine) orderLoop() {
	timer := time.NewTimer(orderPoll)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-e.orders.there:
		case <-e.reading.Done():
			return
		}
		if err := e.takeOrders(e.reading); err != nil && e.reading.Err() == nil {
			e.logger.Error("cannot look for what other nodes were asked, trying again", "error", err)
		}
		timer.Reset(orderPoll)
	}
}

// takeOrders takes the orders of tenants that this node delivers for.
func (e *Engine) takeOrders(ctx context.Context) error {
	for after := ""; ; {
		page, err := e.store.List(ctx, "", kindOrder, after, 100)
		if err != nil {
			return err
		}
		for _, r := range page {
			after = r.ID
			o, err := decodeOrder(r)
			if err != nil {
				e.logger.Error("cannot read what another node was asked", "error", err)
				continue
			}
			if o.Taken != "" || e.elsewhere(o.Tenant) {
				continue
			}
			select {
			case e.orders.slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			o.Taken = e.leases.node
			if err := e.saveOrder(ctx, &r, o); err != nil {
				<-e.orders.slots
				if errors.Is(err, store.ErrVersion) {
					continue // it was withdrawn, or another node has the shard and was quicker
				}
				return err
			}
			e.orders.running.Go(func() {
				defer func() { <-e.orders.slots }()
				e.carryOut(r, o)
			})
		}
		if len(page) < 100 {
			return nil
		}
	}
}

// carryOut does what was ordered and stores what came of it.
func (e *Engine) carryOut(r store.Record, o order) {
	ctx, cancel := context.WithTimeout(context.Background(), orderWait)
	defer cancel()
	result, err := e.obey(ctx, o)
	o.Done = true
	if err == nil {
		o.Result, err = json.Marshal(result)
	}
	if err != nil {
		o.Error = toOrderError(err)
		if o.Error.Code == eventhose.CodeInternal {
			e.logger.Error("cannot carry out what another node was asked", "op", o.Op, "tenant", o.Tenant, "subscription", o.Subscription, "error", err)
		}
	}
	for first, wait := true, 50*time.Millisecond; ; first, wait = false, 2*wait {
		err := e.saveOrder(ctx, &r, o)
		if !errors.Is(err, store.ErrUnavailable) {
			// ErrVersion: who asked waits no more, unless a try before has stored it after all.
			if list, pulled := result.([]handing); pulled && first && errors.Is(err, store.ErrVersion) {
				e.untold(o.Tenant, o.Subscription, list)
			}
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
		case <-e.committed:
		}
		timer.Stop()
		break
	}
	e.opts.OrderDone(r.ID)
}

func (e *Engine) obey(ctx context.Context, o order) (any, error) {
	switch o.Op {
	case opRedrive, opDiscard, opRetry:
		var named []eventhose.Sequence
		if err := json.Unmarshal(o.Args, &named); err != nil {
			return nil, err
		}
		return e.decideNamed(ctx, o.Op, o.Tenant, o.Subscription, named)
	case opReplay:
		var spec eventhose.Replay
		if err := json.Unmarshal(o.Args, &spec); err != nil {
			return nil, err
		}
		return e.replayHere(ctx, o.Tenant, o.Subscription, spec)
	case opResend:
		var seq eventhose.Sequence
		if err := json.Unmarshal(o.Args, &seq); err != nil {
			return nil, err
		}
		return e.resendAt(ctx, o.Tenant, o.Subscription, seq)
	case opRecord:
		var a eventhose.Attempt
		if err := json.Unmarshal(o.Args, &a); err != nil {
			return nil, err
		}
		return e.recordHere(ctx, o.Tenant, o.Subscription, a)
	case opPull:
		var p eventhose.Pull
		if err := json.Unmarshal(o.Args, &p); err != nil {
			return nil, err
		}
		return e.pullHere(ctx, o.Tenant, o.Subscription, p)
	case opAnswer:
		var a eventhose.Answer
		if err := json.Unmarshal(o.Args, &a); err != nil {
			return nil, err
		}
		return e.answerHere(ctx, o.Tenant, o.Subscription, a)
	}
	return nil, &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the node that delivers for this tenant is of another version"}
}

// toOrderError keeps of an error what may be shown to a user.
func toOrderError(err error) *orderError {
	var e *eventhose.Error
	if errors.As(err, &e) {
		return &orderError{Code: e.Code, Message: e.Message, Field: e.Field, Fix: e.Fix, First: e.First, RetryAfter: e.RetryAfter}
	}
	return &orderError{Code: eventhose.CodeOf(err), Message: "the node that delivers for this tenant could not do it"}
}
