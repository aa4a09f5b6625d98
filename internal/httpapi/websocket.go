package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/stall"
)

// A WebSocket is one goroutine that sends events, one that reads what the client sends and answers it, and one that pings.
// Nothing is queued between them: the sender takes what was granted, the reader does what it is told before it reads on, and
// a client that takes nothing stops both.

// transportWS names this transport in metrics.
const transportWS = "websocket"

// socket is one WebSocket of a client.
type socket struct {
	a    *API
	x    *exchange
	conn *websocket.Conn
	net  *stall.Conn
	// ctx ends with the first failure or goodbye, and its cause is why.
	ctx context.Context
	end context.CancelCauseFunc
	// credit is how many events the client has granted and not got; granted is told when there is some.
	mu      sync.Mutex
	credit  int
	granted chan struct{}
	// work is set for one that works on a subscription.
	work *work
	// busy says that what the client has said last is being done, and nothing is read meanwhile; heard counts what was done.
	busy  atomic.Bool
	heard atomic.Int64
}

// websocket answers GET …/events/ws.
func (a *API) websocket(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	err := checkHandshake(r)
	var where start
	var job *work
	if err == nil {
		if x.query.Has("subscription") {
			job, err = a.workOf(r.Context(), x)
		} else if x.query.Has("lease") {
			err = eventhose.Invalid("lease", "must not be given without subscription")
		} else {
			where, err = a.startOf(r.Context(), x, x.query.Get("after"), "after")
		}
	}
	if err == nil && a.draining.Err() != nil {
		err = follow.Stopping()
	}
	var end func()
	if err == nil {
		end, err = a.streams.counts.Open(x.tenant)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	defer end()
	leave, err := a.streams.enter()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	defer leave()
	taken := &stall.Hijacker{ResponseWriter: w, Limit: a.streams.stall}
	// The Origin of who comes by cookie was judged on admission (ownPage); to who shows a key or a ticket none is foreign.
	conn, err := websocket.Accept(taken, r, &websocket.AcceptOptions{InsecureSkipVerify: true, OnPingReceived: func(context.Context, []byte) bool { return !taken.Conn.Stuck() }})
	if err != nil {
		return // Accept has answered
	}
	conn.SetReadLimit(maxFrame)
	defer a.streams.metrics.Open(transportWS)()
	s := &socket{a: a, x: x, conn: conn, net: taken.Conn, granted: make(chan struct{}, 1), work: job}
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(r.Context()))
	s.serve(where)
	x.streamed = taken.Conn.Sent()
}

// checkHandshake answers what is wrong with a request that should become a WebSocket.
func checkHandshake(r *http.Request) error {
	h := r.Header
	has := func(name, token string) bool {
		for part := range strings.SplitSeq(strings.Join(h[name], ","), ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
		return false
	}
	if r.ProtoMajor == 1 && r.Method == http.MethodGet && has("Connection", "upgrade") && has("Upgrade", "websocket") && h.Get("Sec-WebSocket-Version") == "13" && len(h["Sec-Websocket-Key"]) == 1 {
		return nil
	}
	return &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the request does not begin a WebSocket", Fix: "connect with a WebSocket client over HTTP/1.1, or read GET …/events/stream"}
}

// serve has all of a socket's goroutines, and ends when they have.
func (s *socket) serve(where start) {
	stop := context.AfterFunc(s.a.draining, func() {
		s.net.Hurry()
		s.end(follow.Stopping())
	})
	defer stop()
	var crew sync.WaitGroup
	crew.Go(s.receive)
	crew.Go(s.ping)
	if s.work != nil {
		s.fail(s.sendWork())
	} else {
		s.fail(s.sendEvents(where))
	}
	err := context.Cause(s.ctx)
	s.a.ended(s.x, transportWS, err)
	s.close(err)
	crew.Wait()
	if s.work != nil {
		s.giveBack()
	}
}

// fail ends the socket, unless it has been ended before.
func (s *socket) fail(err error) {
	if err != nil {
		s.end(err)
	}
}

// close says goodbye and closes the connection, in bounded time.
func (s *socket) close(err error) {
	s.net.Hurry()
	if errors.Is(err, stall.ErrLeft) {
		_ = s.conn.CloseNow() // it may be closed already
		return
	}
	if errors.Is(err, stall.ErrSlow) {
		_ = s.conn.Close(closeTooSlow, "too slow")
		return
	}
	problem := s.a.problem(s.ctx, err)
	if body, fault := marshal(errorFrame{"error", problem}); fault == nil {
		_ = s.conn.Write(context.WithoutCancel(s.ctx), websocket.MessageText, body)
	}
	code := closeCode(err)
	if s.a.draining.Err() != nil {
		code = websocket.StatusGoingAway
	}
	_ = s.conn.Close(code, string(problem.Code)) // an error means that the client has left without a word
}

// send writes one frame. stall.ErrLeft.
func (s *socket) send(b []byte) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	// The context is not the socket's, since coder/websocket closes the connection when one ends: there may be a goodbye to say.
	if err := stall.Send(context.WithoutCancel(s.ctx), s.conn, b); err != nil {
		return stall.ErrLeft
	}
	return nil
}

// sendEvents is the loop of a stream, held back by what was granted.
func (s *socket) sendEvents(where start) error {
	if err := s.send(cursorFrame("ready", where.after)); err != nil {
		return err
	}
	guard := s.a.guardOf(s.x)
	stream := s.a.streams.frames.Open(s.x.tenant, where.after, where.filter)
	for {
		credit := s.await()
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := guard.Check(s.ctx); err != nil || credit == 0 {
			if err != nil {
				return err
			}
			continue
		}
		before := stream.Cursor()
		page, err := stream.Next(s.ctx, min(credit, follow.Limit.Events), s.a.streams.heartbeat)
		if err != nil {
			return err
		}
		s.spend(page.Events) // before the client sees them, and grants as many again
		for _, event := range page.Each {
			if err := s.send(event); err != nil {
				return err
			}
		}
		if page.Events == 0 && page.Cursor != before {
			if err := s.send(cursorFrame("cursor", page.Cursor)); err != nil {
				return err
			}
		}
		s.a.streams.metrics.Sent(transportWS, page.Events)
	}
}

// await answers what the client has granted, 0 if that is nothing for as long as a heartbeat.
func (s *socket) await() int {
	timer := time.NewTimer(s.a.streams.heartbeat)
	defer timer.Stop()
	for {
		s.mu.Lock()
		credit := s.credit
		s.mu.Unlock()
		if credit > 0 {
			return credit
		}
		select {
		case <-s.granted:
		case <-timer.C:
			return 0
		case <-s.ctx.Done():
			return 0
		}
	}
}

func (s *socket) spend(events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit -= events
}

// grant adds to the credit. CodeInvalid.
func (s *socket) grant(events int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit+events > maxCredit-s.heldBeside(s.credit+events) {
		return eventhose.Invalid("events", "grants more than %d together that are not yet sent", maxCredit)
	}
	s.credit += events
	select {
	case s.granted <- struct{}{}:
	default:
	}
	return nil
}

// receive does what the client says, until the connection ends.
func (s *socket) receive() {
	for {
		typ, b, err := s.conn.Read(context.WithoutCancel(s.ctx))
		if errors.Is(err, context.DeadlineExceeded) {
			continue // a pong found no room in time behind what the client takes slowly: that has its own deadline
		}
		if err != nil {
			s.fail(stall.ErrLeft)
			return
		}
		if s.ctx.Err() != nil {
			continue // until the client has taken its leave too
		}
		s.busy.Store(true)
		if typ != websocket.MessageText {
			err = &eventhose.Error{Code: eventhose.CodeMalformed, Message: "frames must be text"}
		} else {
			err = s.obey(b)
		}
		s.heard.Add(1)
		s.busy.Store(false)
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// obey does what one frame says.
func (s *socket) obey(b []byte) error {
	f, err := parseFrame(b, s.work != nil)
	if err != nil {
		return err
	}
	if f.Type == frameGrant {
		return s.grant(f.Events)
	}
	return s.answer(&f)
}

// ping finds out whether somebody is there, until the socket ends.
func (s *socket) ping() {
	tick := time.NewTicker(s.a.streams.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		heard := s.heard.Load()
		waiting, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.a.streams.stall) // as in send
		err := s.conn.Ping(waiting)
		late := waiting.Err() != nil
		cancel()
		// A ping that fails early could not be written, behind an event that the client does not take: that has its own deadline. So has
		// an answer that waits behind one, before which the pong is not read. Who says something else is there too.
		if err != nil && late && !s.busy.Load() && s.heard.Load() == heard {
			s.fail(stall.ErrSlow)
			return
		}
	}
}
