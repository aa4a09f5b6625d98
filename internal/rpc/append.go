package rpc

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

// Append implements eventhosev1connect.LogServiceHandler.
func (s service) Append(ctx context.Context, r *connect.Request[v1.AppendRequest]) (*connect.Response[v1.AppendResponse], error) {
	c := callOf(ctx)
	if err := s.permit(ctx, c, r.Msg.GetTenant(), eventhose.ScopePublish); err != nil {
		return nil, err
	}
	placements, err := s.append(ctx, c.tenant, r.Msg.GetEvents())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.AppendResponse{Placements: placements}), nil
}

// append appends one batch, all of it or nothing.
func (s service) append(ctx context.Context, tenant eventhose.TenantID, list []*v1.NewEvent) ([]*v1.Placement, error) {
	done, err := s.overload.Take(tenant)
	if err != nil {
		return nil, err
	}
	var placed []eventhose.Placement
	defer func() { done(len(placed) > 0) }()
	events, err := eventsOf(list)
	if err != nil {
		return nil, err
	}
	if placed, err = s.log.Append(ctx, tenant, events...); err != nil {
		return nil, ofList(err, len(events))
	}
	placements := make([]*v1.Placement, len(placed))
	fresh := 0
	for i, p := range placed {
		placements[i] = &v1.Placement{Id: p.ID, Sequence: uint64(p.Sequence), Duplicate: p.Duplicate}
		if !p.Duplicate {
			fresh++
		}
	}
	s.metrics.ingested.Add(float64(fresh))
	return placements, nil
}

// ofList names the event of a list of one, which the log names only when there are several.
func ofList(err error, events int) error {
	var e *eventhose.Error
	if events != 1 || !errors.As(err, &e) || e.Field == "" {
		return err
	}
	moved := *e
	moved.Field = "events[0]." + e.Field
	return &moved
}

// AppendStream implements eventhosev1connect.LogServiceHandler. One batch is under way at a time, which keeps their order, bounds
// what a stream holds, and holds back a client that sends faster than the disk writes.
func (s service) AppendStream(ctx context.Context, stream *connect.BidiStream[v1.AppendStreamRequest, v1.AppendStreamResponse]) error {
	c := callOf(ctx)
	m, err := s.nextBatch(stream, c)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = s.permit(ctx, c, m.GetTenant(), eventhose.ScopePublish)
	}
	if err != nil {
		return err
	}
	going, leave, err := s.enter(ctx, c)
	if err != nil {
		return err
	}
	return leave(s.appendAll(going, c, stream, m))
}

func (s service) appendAll(ctx context.Context, c *call, stream *connect.BidiStream[v1.AppendStreamRequest, v1.AppendStreamResponse], m *v1.AppendStreamRequest) error {
	guard := s.guard(c, eventhose.ScopePublish)
	for {
		if t := m.GetTenant(); t != "" && t != string(c.tenant) {
			return eventhose.Invalid("tenant", "must be the first message's, or be left out")
		}
		if err := guard.Check(ctx); err != nil {
			return err
		}
		// A batch that is there when the server stops is appended and answered: its client need not wonder.
		appending, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
		placements, err := s.append(appending, c.tenant, m.GetEvents())
		cancel()
		if err != nil {
			return err
		}
		if err := stream.Send(&v1.AppendStreamResponse{Placements: placements}); err != nil {
			return errLeft
		}
		c.in.release()
		if m, err = s.nextBatch(stream, c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// nextBatch reads what comes next, or answers io.EOF if nothing does.
func (s service) nextBatch(stream *connect.BidiStream[v1.AppendStreamRequest, v1.AppendStreamResponse], c *call) (*v1.AppendStreamRequest, error) {
	if s.draining.Err() != nil {
		return nil, follow.Stopping()
	}
	c.out.expect(s.stall)
	c.out.renew(s.stall)
	m, err := stream.Receive()
	c.out.expect(0) // the time that the log takes is not the client's
	if err == nil {
		err = c.in.atLeast(proto.Size(m))
	}
	return m, received(err)
}
