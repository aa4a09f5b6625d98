package graphql

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/stall"
)

// graphql-transport-ws, the protocol of npm's graphql-ws. One goroutine reads what the client sends and does it before it
// reads on, one pings, and each operation has its own, which waits for the client to take what it sends. Nothing is queued.

const (
	subprotocol = "graphql-transport-ws"
	// maxFrame bounds what a client sends at once, in bytes: a document, its variables, and what is around them.
	maxFrame = 64 << 10
	// maxActive is how many operations a connection has under way.
	maxActive = 50
	// maxOperationID is in bytes.
	maxOperationID = 128
	// admitTime is how long it may take to find out who a client is.
	admitTime = 10 * time.Second
)

// closing ends a connection with a close code of the protocol.
type closing struct {
	code   websocket.StatusCode
	reason string
}

func (c closing) Error() string { return c.reason }

func malformed(format string, args ...any) error {
	return closing{4400, fmt.Sprintf(format, args...)}
}

// What the protocol itself closes connections for, beside 4400 and 4409.
var (
	errInitLate       = closing{4408, "Connection initialisation timeout"}
	errInitTwice      = closing{4429, "Too many initialisation requests"}
	errNotInitialised = closing{4401, "Unauthorized"}
	errSubprotocol    = closing{4406, "Subprotocol not acceptable"}
)

// closeCodes is what else ends connections; what is not here is 4500.
var closeCodes = map[eventhose.Code]websocket.StatusCode{
	eventhose.CodeUnauthenticated: 4401,
	eventhose.CodeForbidden:       4403,
	eventhose.CodeNotFound:        4404,
	eventhose.CodeLimit:           websocket.StatusTryAgainLater,
	eventhose.CodeUnavailable:     websocket.StatusTryAgainLater,
	eventhose.CodeTimeout:         websocket.StatusTryAgainLater,
}

// socket is one WebSocket of a client.
type socket struct {
	d    *Door
	c    Caller
	conn *websocket.Conn
	net  *stall.Conn
	// ctx ends with the first failure or goodbye, and its cause is why.
	ctx context.Context
	end context.CancelCauseFunc
	// release gives back what the connection was counted as; known says that the client has said who it is. Both are the receiver's.
	release func()
	known   bool
	late    *time.Timer
	// busy says that what the client has said last is being done, and nothing is read meanwhile; heard counts what was done.
	busy  atomic.Bool
	heard atomic.Int64

	operations sync.WaitGroup
	mu         sync.Mutex
	active     map[string]*running
	count      int // of goroutines, which may outlive their place in active
}

// running is an operation under way.
type running struct{ cancel context.CancelFunc }

// Connect answers a GET that begins a WebSocket. A caller who is not admitted yet must say who it is in connection_init. With
// an error nothing was written.
func (d *Door) Connect(w http.ResponseWriter, r *http.Request, c Caller) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	release, err := d.count(c)
	if err != nil {
		return err
	}
	taken := &stall.Hijacker{ResponseWriter: w, Limit: d.o.Stall}
	// No Origin is foreign: a browser sends no credential by itself, and whoever has a key or a ticket was given it.
	conn, err := websocket.Accept(taken, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}, InsecureSkipVerify: true,
		OnPingReceived: func(context.Context, []byte) bool { return !taken.Conn.Stuck() }})
	if err != nil {
		release()
		return nil // Accept has answered
	}
	conn.SetReadLimit(maxFrame)
	s := &socket{d: d, c: c, conn: conn, net: taken.Conn, release: release, active: map[string]*running{}}
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(r.Context()))
	s.serve()
	return nil
}

// count counts a connection: as one of the tenant's streams if it is known whose it is, else among those of strangers.
func (d *Door) count(c Caller) (release func(), err error) {
	if c.Admitted() {
		return c.Hold()
	}
	select {
	case d.strangers <- struct{}{}:
		return func() { <-d.strangers }, nil
	default:
		return nil, &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "too many connections wait for connection_init", Fix: "send the API key as a header, or come back", RetryAfter: time.Second}
	}
}

// serve has all of a socket's goroutines, and ends when they have.
func (s *socket) serve() {
	stop := context.AfterFunc(s.d.draining, func() {
		s.net.Hurry()
		s.end(stopping())
	})
	defer stop()
	s.late = time.AfterFunc(s.d.o.InitTime, func() { s.end(errInitLate) })
	defer s.late.Stop()
	if s.conn.Subprotocol() != subprotocol {
		s.end(errSubprotocol)
	}
	var crew sync.WaitGroup
	crew.Go(s.receive)
	crew.Go(func() { s.eachBeat(s.checked) })
	crew.Go(func() { s.eachBeat(s.ping) }) // apart: it may take long
	<-s.ctx.Done()
	why := context.Cause(s.ctx)
	s.close(why)
	crew.Wait()
	s.operations.Wait()
	s.release()
	s.c.Finish(s.net.Sent(), whyOf(why))
}

// whyOf is why a connection has ended, as others count it.
func whyOf(err error) error {
	var c closing
	if errors.As(err, &c) {
		return &eventhose.Error{Code: eventhose.CodeMalformed, Message: c.reason}
	}
	return err
}

// close says goodbye and closes the connection, in bounded time.
func (s *socket) close(why error) {
	s.net.Hurry()
	var c closing
	switch {
	case errors.Is(why, stall.ErrLeft):
		_ = s.conn.CloseNow() // it may be closed already
		return
	case errors.Is(why, stall.ErrSlow):
		c = closing{4408, "too slow"}
	case errors.As(why, &c):
	default:
		f := s.d.tell(s.ctx, why)[0]
		c = closing{4500, string(f.Extensions.Code) + ": " + f.Message}
		if code, ok := closeCodes[f.Extensions.Code]; ok {
			c.code = code
		}
		if s.d.draining.Err() != nil {
			c.code = websocket.StatusGoingAway
		}
	}
	if len(c.reason) > 120 { // of 123 that there are
		c.reason = c.reason[:120]
	}
	_ = s.conn.Close(c.code, c.reason) // an error means that the client has left without a word
}

// send writes one message. stall.ErrLeft.
func (s *socket) send(b []byte) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	// The context is not the socket's, since coder/websocket closes the connection when one ends: there may be a goodbye to say.
	if err := stall.Send(context.WithoutCancel(s.ctx), s.conn, b); err != nil {
		return stall.ErrLeft
	}
	return nil
}

// eachBeat does something at each heartbeat until the socket ends, which it does with the first error.
func (s *socket) eachBeat(do func() error) {
	tick := time.NewTicker(s.d.o.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		if err := do(); err != nil {
			s.end(err)
			return
		}
	}
}

// ping finds out whether somebody is there. stall.ErrSlow.
func (s *socket) ping() error {
	waiting, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.d.o.Stall) // as in send
	defer cancel()
	heard := s.heard.Load()
	// A ping that fails early could not be written, behind what the client does not take: that has its own deadline. So has an answer
	// that waits behind it, before which the pong is not read. Who says something else is there too.
	if err := s.conn.Ping(waiting); err != nil && waiting.Err() != nil && !s.busy.Load() && s.heard.Load() == heard {
		return stall.ErrSlow
	}
	return nil
}

// checked answers why a client that was admitted may not stay.
func (s *socket) checked() error {
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	if !known {
		return nil
	}
	return s.c.Check(s.ctx)
}

// receive does what the client says, until the connection ends.
func (s *socket) receive() {
	for {
		typ, b, err := s.conn.Read(context.WithoutCancel(s.ctx))
		if errors.Is(err, context.DeadlineExceeded) {
			continue // a pong found no room in time behind what the client takes slowly: that has its own deadline
		}
		if err != nil {
			s.end(stall.ErrLeft)
			return
		}
		if s.ctx.Err() != nil {
			continue // until the client has taken its leave too
		}
		s.busy.Store(true)
		if typ != websocket.MessageText {
			err = malformed("messages must be text")
		} else {
			err = s.obey(b)
		}
		s.heard.Add(1)
		s.busy.Store(false)
		if err != nil {
			s.end(err)
		}
	}
}

// message is what a client sends.
type message struct {
	Type    string         `json:"type"`
	ID      string         `json:"id"`
	Payload jsontext.Value `json:"payload"`
}

// object reports whether a payload is an object, or absent.
func (m *message) object() bool {
	return len(m.Payload) == 0 || m.Payload.Kind() == '{' || m.Payload.Kind() == 'n'
}

// obey does what one message says.
func (s *socket) obey(b []byte) error {
	var m message
	if err := readJSON(b, &m); err != nil {
		return malformed("Invalid message: %v", err)
	}
	switch m.Type {
	case "connection_init":
		return s.init(&m)
	case "ping":
		if !m.object() {
			return malformed("ping: payload must be an object")
		}
		b := []byte(`{"type":"pong"`)
		if len(m.Payload) > 0 {
			b = append(append(b, `,"payload":`...), m.Payload...)
		}
		return s.send(append(b, '}'))
	case "pong":
		return nil
	case "subscribe":
		return s.subscribe(&m)
	case "complete":
		if m.ID == "" {
			return malformed("complete: id is required")
		}
		s.complete(m.ID)
		return nil
	}
	return malformed("Invalid message: unknown type %q", clip(m.Type, 64))
}

// init lets the client in.
func (s *socket) init(m *message) error {
	if s.known {
		return errInitTwice
	}
	if !m.object() {
		return malformed("connection_init: payload must be an object")
	}
	if !s.c.Admitted() {
		if err := s.admit(m.Payload); err != nil {
			return err
		}
	}
	if !s.late.Stop() {
		return errInitLate
	}
	s.mu.Lock()
	s.known = true
	s.mu.Unlock()
	return s.send([]byte(`{"type":"connection_ack"}`))
}

// admit finds out who a client is that has not said so in its request.
func (s *socket) admit(payload jsontext.Value) error {
	var shown struct {
		Authorization eventhose.Secret `json:"authorization"`
	}
	if len(payload) > 0 {
		if err := readJSON(payload, &shown); err != nil {
			return malformed("connection_init: payload: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, admitTime)
	defer cancel()
	if err := s.c.Admit(ctx, string(shown.Authorization)); err != nil {
		return err
	}
	release, err := s.c.Hold()
	if err != nil {
		return err
	}
	s.release() // its place among strangers
	s.release = release
	return nil
}

// subscribe begins an operation.
func (s *socket) subscribe(m *message) error {
	switch {
	case !s.known:
		return errNotInitialised
	case m.ID == "" || len(m.ID) > maxOperationID:
		return malformed("subscribe: id must be 1 to %d bytes", maxOperationID)
	case m.Payload.Kind() != '{':
		return malformed("subscribe: payload must be an object")
	}
	q, err := readRequest(m.Payload)
	if err != nil {
		return malformed("subscribe: payload: %v", err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	op := &running{cancel}
	s.mu.Lock()
	_, twice := s.active[m.ID]
	full := s.count >= maxActive
	if !twice && !full {
		s.active[m.ID] = op
		s.count++
	}
	s.mu.Unlock()
	switch {
	case twice:
		cancel()
		return closing{4409, "Subscriber for " + clip(m.ID, 64) + " already exists"}
	case full:
		cancel()
		return s.send(envelope(m.ID, "error", marshal(faultsOf(&eventhose.Error{Code: eventhose.CodeLimit, Message: fmt.Sprintf("the connection has %d operations under way", maxActive), Fix: "complete some, or open another connection"}))))
	}
	s.operations.Go(func() {
		defer func() {
			s.remove(m.ID, op)
			cancel()
			s.mu.Lock()
			s.count--
			s.mu.Unlock()
		}()
		t := &messages{s: s, id: m.ID, op: op}
		if err := s.d.guarded(ctx, func() error { return s.run(ctx, q, t) }); err != nil {
			_ = t.refuse(s.d.tell(ctx, err)) // nobody is left to be told
		}
	})
	return nil
}

// run executes an operation, and answers what the client has still to be told of why it has ended.
func (s *socket) run(ctx context.Context, q request, to *messages) error {
	doc, wrong := s.d.prepare(q, s.c.StreamsOnly())
	var response []byte
	if wrong == nil && !doc.stream {
		response, wrong = s.d.query(ctx, s.c.Tenant(), doc)
	}
	switch {
	case wrong != nil:
		_ = to.refuse(wrong) // the connection has ended
		return nil
	case !doc.stream:
		if to.next(response) == nil {
			to.complete()
		}
		return nil
	}
	end, err := s.c.Open()
	if err != nil {
		return err
	}
	o := s.d.operation(s.c.Tenant())
	o.check = func(context.Context) error { return nil } // which the socket does for all operations
	o.sent = s.c.Sent
	why, told := o.stream(ctx, doc, to)
	end(why)
	if told || errors.Is(why, stall.ErrLeft) || s.ctx.Err() != nil {
		return nil //nolint:nilerr // nobody is there to be told, or has been
	}
	return why
}

// complete ends an operation that the client wants no more of.
func (s *socket) complete(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op := s.active[id]; op != nil {
		delete(s.active, id)
		op.cancel()
	}
}

// remove frees an operation's id; it answers whether the client still waited for it.
func (s *socket) remove(id string, op *running) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[id] != op {
		return false
	}
	delete(s.active, id)
	return true
}

func (s *socket) waited(id string, op *running) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[id] == op
}

// messages is where an operation's responses go.
type messages struct {
	s  *socket
	id string
	op *running
}

func (t *messages) next(response []byte) error {
	if !t.s.waited(t.id, t.op) {
		return stall.ErrLeft
	}
	return t.s.send(envelope(t.id, "next", response))
}

// refuse and complete free the id first: the client may use it again as soon as it has been told.
func (t *messages) refuse(list faults) error {
	if !t.s.remove(t.id, t.op) {
		return nil
	}
	return t.s.send(envelope(t.id, "error", marshal(list)))
}

func (t *messages) complete() {
	if t.s.remove(t.id, t.op) {
		_ = t.s.send(envelope(t.id, "complete", nil)) // nobody is left to be told
	}
}

func (t *messages) idle() error { return nil }

func envelope(id, typ string, payload []byte) []byte {
	b := append(make([]byte, 0, len(payload)+len(id)+48), `{"id":`...)
	b = append(append(append(append(b, marshal(id)...), `,"type":"`...), typ...), '"')
	if payload != nil {
		b = append(append(b, `,"payload":`...), payload...)
	}
	return append(b, '}')
}
