package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/follow"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

const (
	// defaultLimit and maxLimit are of a page's events.
	defaultLimit = 100
	maxLimit     = 1000
	// maxPage is what the events of a page take, in bytes: with what is around it, it stays below the 4 MiB that gRPC's clients take.
	maxPage = 2 << 20
)

// Read implements eventhosev1connect.LogServiceHandler.
func (s service) Read(ctx context.Context, r *connect.Request[v1.ReadRequest]) (*connect.Response[v1.ReadResponse], error) {
	c, m := callOf(ctx), r.Msg
	if err := s.permit(ctx, c, m.GetTenant(), eventhose.ScopeRead); err != nil {
		return nil, err
	}
	limit := eventhose.PageLimit{Events: int(m.GetLimit()), Bytes: maxPage}
	if limit.Events == 0 {
		limit.Events = defaultLimit
	}
	if limit.Events < 1 || limit.Events > maxLimit {
		return nil, eventhose.Invalid("limit", "must be a number from 1 to %d", maxLimit)
	}
	wait, err := durationOf(m.GetWait(), "wait", 0, 0, s.maxWait)
	if err != nil {
		return nil, err
	}
	filter, err := filterOf(m.GetFilter())
	if err != nil {
		return nil, err
	}
	after, err := follow.After(m.GetAfter(), "after", func() (eventhose.Head, error) { return s.log.Head(ctx, c.tenant) })
	if err != nil {
		return nil, err
	}
	page, err := s.log.Page(ctx, c.tenant, after, filter, limit)
	if err == nil && wait > 0 && len(page.Events) == 0 && !page.HasMore {
		page, err = s.await(ctx, c, page, filter, limit, wait)
	}
	if err != nil {
		return nil, err
	}
	messages := messagesOf(page.Events, page.Cursor.Incarnation)
	answer := &v1.ReadResponse{Events: make([]*v1.Event, len(messages)), Cursor: page.Cursor.String(), HasMore: page.HasMore}
	for i := range messages {
		answer.Events[i] = &messages[i]
	}
	return connect.NewResponse(answer), nil
}

// await reads on from an empty page until there is something, or wait is over, or the server drains; then it answers what there
// is. Who has no right to read any more is answered why.
func (d *Door) await(ctx context.Context, c *call, page eventhose.Page, f eventhose.Filter, limit eventhose.PageLimit, wait time.Duration) (eventhose.Page, error) {
	if !d.waiting.Take(c.tenant, 1) {
		return page, busy("too many reads are waiting")
	}
	defer d.waiting.Give(c.tenant, 1)
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	stop := context.AfterFunc(d.draining, cancel)
	defer stop()
	for len(page.Events) == 0 && !page.HasMore {
		if err := d.log.Wait(waiting, c.tenant, page.Cursor.Sequence); err != nil {
			if ctx.Err() == nil && waiting.Err() != nil {
				return page, nil
			}
			return page, err
		}
		err := access.NewGuard(d.control, c.principal, access.Wish{Tenant: c.tenant, Scope: eventhose.ScopeRead}, 0).Check(ctx)
		if err != nil {
			return page, err
		}
		if page, err = d.log.Page(ctx, c.tenant, page.Cursor, f, limit); err != nil {
			return page, err
		}
	}
	return page, nil
}

// Subscribe implements eventhosev1connect.LogServiceHandler. A slow client holds the page in its hands, and the log is its backlog.
func (s service) Subscribe(ctx context.Context, r *connect.Request[v1.SubscribeRequest], stream *connect.ServerStream[v1.SubscribeResponse]) error {
	c, m := callOf(ctx), r.Msg
	c.out.expect(0)
	if err := s.permit(ctx, c, m.GetTenant(), eventhose.ScopeRead); err != nil {
		return err
	}
	filter, err := filterOf(m.GetFilter())
	if err != nil {
		return err
	}
	after, err := follow.Begin(ctx, s.log, c.tenant, m.GetAfter(), "after", filter)
	if err != nil {
		return err
	}
	// What was asked is not held for as long as the stream lasts.
	proto.Reset(m)
	c.in.release()
	going, leave, err := s.enter(ctx, c)
	if err != nil {
		return err
	}
	return leave(s.follow(going, c, stream.Conn(), after, filter))
}

func (s service) follow(ctx context.Context, c *call, conn connect.StreamingHandlerConn, after eventhose.Cursor, f eventhose.Filter) error {
	if err := conn.Send(&page{cursor: after.String()}); err != nil {
		return errLeft
	}
	guard := s.guard(c, eventhose.ScopeRead)
	pages := s.pages.Open(c.tenant, after, f)
	for {
		next, err := pages.Next(ctx, follow.Limit.Events, s.heartbeat)
		if err == nil {
			err = guard.Check(ctx)
		}
		if err != nil {
			return err
		}
		if err := conn.Send(&page{events: next.All, cursor: next.Cursor.String()}); err != nil {
			return errLeft
		}
		s.metrics.streams.Sent(c.protocol, next.Events)
	}
}
