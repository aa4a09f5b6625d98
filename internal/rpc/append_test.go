package rpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/rpc"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
	"github.com/eventhose/eventhose/proto/eventhose/v1/eventhosev1connect"
)

func TestAppend(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	at := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	full := &v1.NewEvent{Type: "order.paid", Data: []byte("{\"a\" :\t1,\n \"b\":\"\\u00e9é\\ud800\" } "), Id: "order-1", Key: "k", Time: timestamppb.New(at), Version: "2", Attributes: map[string]string{"region": "eu"}}
	raw := &v1.NewEvent{Type: "file", Data: []byte{0, 1, 0xff, '\n'}, ContentType: "application/octet-stream"}
	empty := &v1.NewEvent{Type: "file", ContentType: "text/plain"}
	for _, packed := range []bool{false, true} {
		var options []grpc.CallOption
		if packed {
			options = append(options, grpc.UseCompressor("gzip"))
		}
		got, err := c.append(w.as(rootKey), &v1.AppendRequest{Tenant: "acme", Events: []*v1.NewEvent{full, raw, empty}}, options...)
		if err != nil || len(got.GetPlacements()) != 3 {
			t.Fatalf("%v %v", got, err)
		}
		if first := got.GetPlacements()[0]; first.GetId() != "order-1" || first.GetSequence() != 1 || first.GetDuplicate() != packed {
			t.Errorf("the first is at %v", first)
		}
	}
	page, err := c.read(w.as(rootKey), &v1.ReadRequest{Tenant: "acme"})
	if err != nil || len(page.GetEvents()) != 5 || page.GetHasMore() || page.GetCursor() != page.GetEvents()[4].GetCursor() {
		t.Fatalf("%v %v", page, err)
	}
	e := page.GetEvents()[0]
	want := &v1.Event{Id: "order-1", Sequence: 1, Type: "order.paid", Key: "k", Time: full.GetTime(), Appended: e.GetAppended(), Cursor: e.GetCursor(), Version: "2", Attributes: full.GetAttributes(), Data: full.GetData()}
	if !proto.Equal(e, want) || time.Since(e.GetAppended().AsTime()) > time.Minute {
		t.Errorf("got  %v\nwant %v", e, want)
	}
	if e := page.GetEvents()[1]; !bytes.Equal(e.GetData(), raw.GetData()) || e.GetContentType() != raw.GetContentType() {
		t.Errorf("bytes came back as %v", e)
	}
	other := proto.Clone(full).(*v1.NewEvent)
	other.Data = []byte("2")
	_, err = c.append(w.as(rootKey), &v1.AppendRequest{Tenant: "acme", Events: []*v1.NewEvent{other}})
	w.refused(err, codes.FailedPrecondition, eventhose.CodeConflict, "events[0].id")
}

// Bad input is refused with the field, and nothing of its batch is in the log.
func TestAppendRefuses(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	good := &v1.NewEvent{Type: "a", Data: []byte("1")}
	for _, tc := range []struct {
		name   string
		change func(*v1.NewEvent)
		code   codes.Code
		stable eventhose.Code
		field  string
	}{
		{"no type", func(e *v1.NewEvent) { e.Type = "" }, codes.InvalidArgument, eventhose.CodeInvalid, "type"},
		{"system type", func(e *v1.NewEvent) { e.Type = "eventhose.x" }, codes.InvalidArgument, eventhose.CodeInvalid, "type"},
		{"no data", func(e *v1.NewEvent) { e.Data = nil }, codes.InvalidArgument, eventhose.CodeInvalid, "data"},
		{"not JSON", func(e *v1.NewEvent) { e.Data = []byte(`{"a": 1, "a": 2}`) }, codes.InvalidArgument, eventhose.CodeInvalid, "data"},
		{"two values", func(e *v1.NewEvent) { e.Data = []byte(`1 2`) }, codes.InvalidArgument, eventhose.CodeInvalid, "data"},
		{"not UTF-8", func(e *v1.NewEvent) { e.Data = []byte("\"\xff\"") }, codes.InvalidArgument, eventhose.CodeInvalid, "data"},
		{"large", func(e *v1.NewEvent) { e.Data = bytes.Repeat([]byte("1"), eventhose.MaxData+1) }, codes.ResourceExhausted, eventhose.CodeTooLarge, "data"},
		{"an id that leads elsewhere", func(e *v1.NewEvent) { e.Id = "stream" }, codes.InvalidArgument, eventhose.CodeInvalid, "id"},
		{"key", func(e *v1.NewEvent) { e.Key = "a\nb" }, codes.InvalidArgument, eventhose.CodeInvalid, "key"},
		{"time", func(e *v1.NewEvent) { e.Time = &timestamppb.Timestamp{Nanos: -1} }, codes.InvalidArgument, eventhose.CodeInvalid, "time"},
		{"attribute", func(e *v1.NewEvent) { e.Attributes = map[string]string{"a b": ""} }, codes.InvalidArgument, eventhose.CodeInvalid, "attributes"},
		{"another's source", func(e *v1.NewEvent) { e.Attributes = map[string]string{"source": "src_01j9z3k4m5n6p7q8r9s0t1v2w0"} }, codes.InvalidArgument, eventhose.CodeInvalid, "attributes.source"},
		{"content type", func(e *v1.NewEvent) { e.ContentType = "x" }, codes.InvalidArgument, eventhose.CodeInvalid, "content_type"},
	} {
		bad := proto.Clone(good).(*v1.NewEvent)
		tc.change(bad)
		_, err := c.append(w.as(rootKey), &v1.AppendRequest{Tenant: "acme", Events: []*v1.NewEvent{good, bad}})
		w.refused(err, tc.code, tc.stable, "events[1]."+tc.field)
	}
	_, err := c.append(w.as(rootKey), &v1.AppendRequest{Tenant: "acme"})
	w.refused(err, codes.InvalidArgument, eventhose.CodeInvalid, "events")
	_, err = c.append(w.as(rootKey), &v1.AppendRequest{Events: []*v1.NewEvent{good}})
	w.refused(err, codes.InvalidArgument, eventhose.CodeInvalid, "tenant")
	many := make([]*v1.NewEvent, eventhose.MaxAppend+1)
	for i := range many {
		many[i] = good
	}
	_, err = c.append(w.as(rootKey), &v1.AppendRequest{Tenant: "acme", Events: many})
	w.refused(err, codes.ResourceExhausted, eventhose.CodeTooLarge, "events")
	if head, err := w.log.Head(t.Context(), "acme"); err != nil || head.Last != 0 {
		t.Errorf("the log reaches %d, %v", head.Last, err)
	}
}

// What is larger than a message may be is refused, packed or not, before it is unpacked whole.
func TestMessageLimits(t *testing.T) {
	w := newWorld(t, func(o *rpc.Options) { o.MaxHeld = 64 << 20 })
	c := w.dial()
	large := &v1.AppendRequest{Tenant: "acme", Events: []*v1.NewEvent{{Type: "a", Data: make([]byte, 11<<20)}}}
	if _, err := c.append(w.as(rootKey), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("11 MiB: %v", err)
	}
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	for range 12 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	z.Close()
	req, _ := http.NewRequestWithContext(w.as(""), http.MethodPost, w.server.URL+eventhosev1connect.LogServiceAppendProcedure, &bomb)
	req.Header.Set("Authorization", "Bearer "+rootKey)
	req.Header.Set("Content-Type", "application/proto")
	req.Header.Set("Content-Encoding", "gzip")
	res, err := w.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(body), "resource_exhausted") || !strings.Contains(string(body), "no more of it is unpacked") {
		t.Errorf("a bomb is answered %d %s", res.StatusCode, body)
	}
	// All that was held has been given back: the most that fits is taken again and again.
	for range 3 {
		fits := make([]*v1.NewEvent, 7)
		for i := range fits {
			fits[i] = &v1.NewEvent{Type: "a", ContentType: "text/plain", Data: make([]byte, 1<<20)}
		}
		if _, err := c.append(w.as(rootKey), &v1.AppendRequest{Tenant: "acme", Events: fits}); err != nil {
			t.Fatal(err)
		}
	}
}

// heldLog holds one append until release.
type heldLog struct {
	rpc.Log
	hold           atomic.Bool
	began, release chan struct{}
}

func (l *heldLog) Append(ctx context.Context, tenant eventhose.TenantID, events ...eventhose.Event) ([]eventhose.Placement, error) {
	if l.hold.CompareAndSwap(true, false) {
		close(l.began)
		<-l.release
	}
	return l.Log.Append(ctx, tenant, events...)
}

// What the clients of one send together is bounded, and takes no room of others.
func TestHeldIsBounded(t *testing.T) {
	const part = 64 << 10
	log := &heldLog{began: make(chan struct{}), release: make(chan struct{})}
	w := newWorld(t, func(o *rpc.Options) { log.Log, o.Log, o.MaxHeld = o.Log, log, 4*part })
	c := w.dial()
	_, acme := w.key("acme", eventhose.ScopePublish)
	_, globex := w.key("globex", eventhose.ScopePublish)
	appends := func(key, tenant string, size int, options ...grpc.CallOption) error {
		_, err := c.append(w.as(key), &v1.AppendRequest{Tenant: tenant, Events: []*v1.NewEvent{{Type: "a", Data: bytes.Repeat([]byte("1"), size)}}}, options...)
		return err
	}
	const fits, tooLarge = part - part/4, part + part/4
	for _, key := range []string{rootKey, acme} {
		if err := appends(key, "acme", tooLarge); status.Code(err) != codes.Unavailable {
			t.Errorf("more than there is room for: %v", err)
		}
		w.refused(appends(key, "acme", tooLarge, grpc.UseCompressor("gzip")), codes.Unavailable, eventhose.CodeUnavailable, "")
		if err := appends(key, "acme", fits); err != nil {
			t.Error(err)
		}
	}
	log.hold.Store(true)
	held := make(chan error, 1)
	go func() { held <- appends(acme, "acme", fits) }()
	<-log.began
	if err := appends(acme, "acme", fits); status.Code(err) != codes.Unavailable {
		t.Errorf("acme has twice its part: %v", err)
	}
	for key, tenant := range map[string]string{globex: "globex", rootKey: "acme"} {
		if err := appends(key, tenant, fits); err != nil {
			t.Errorf("what acme holds is in the way of one of %s: %v", tenant, err)
		}
	}
	close(log.release)
	if err := <-held; err != nil {
		t.Error(err)
	}
	if err := appends(acme, "acme", fits); err != nil {
		t.Error(err)
	}
}

func (c client) appends(w *world, key string) *appends {
	w.t.Helper()
	s, err := open[v1.AppendStreamRequest, v1.AppendStreamResponse](w.as(key), c, eventhosev1connect.LogServiceAppendStreamProcedure)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func batch(tenant string, n int) *v1.AppendStreamRequest {
	m := &v1.AppendStreamRequest{Tenant: tenant}
	for i := range n {
		m.Events = append(m.Events, &v1.NewEvent{Type: "a", Data: fmt.Append(nil, i)})
	}
	return m
}

// Batches are appended in their order, each answered once it is there, also if the client sends all before it reads.
func TestAppendStream(t *testing.T) {
	w := newWorld(t, nil)
	s := w.dial().appends(w, rootKey)
	for i := range 100 {
		m := batch("", i%7+1)
		if i == 0 {
			m.Tenant = "acme"
		}
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for i := range 100 {
		m, err := s.Recv()
		if err != nil || len(m.GetPlacements()) != i%7+1 {
			t.Fatalf("answer %d: %v %v", i, m, err)
		}
		for _, p := range m.GetPlacements() {
			if p.GetSequence() != next {
				t.Fatalf("answer %d: %v, want sequence %d", i, p, next)
			}
			next++
		}
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if head, err := w.log.Head(t.Context(), "acme"); err != nil || uint64(head.Last) != next-1 {
		t.Errorf("the log reaches %d, %v; want %d", head.Last, err, next-1)
	}
}

// The first bad batch ends the stream: what came before is in the log, nothing after it.
func TestAppendStreamEnds(t *testing.T) {
	w := newWorld(t, func(o *rpc.Options) { o.Heartbeat, o.Stall = 50*time.Millisecond, 700*time.Millisecond })
	c := w.dial()
	answered := func(s *appends) error {
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	}
	s := c.appends(w, rootKey)
	bad := batch("acme", 3)
	bad.Events[2].Type = ""
	for _, m := range []*v1.AppendStreamRequest{batch("acme", 2), bad, batch("acme", 5)} {
		if err := s.Send(m); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	w.refused(answered(s), codes.InvalidArgument, eventhose.CodeInvalid, "events[2].type")
	if head, err := w.log.Head(t.Context(), "acme"); err != nil || head.Last != 2 {
		t.Errorf("the log reaches %d, %v", head.Last, err)
	}

	s = c.appends(w, rootKey)
	if err := errors.Join(s.Send(batch("acme", 1)), s.Send(batch("globex", 1))); err != nil {
		t.Fatal(err)
	}
	w.refused(answered(s), codes.InvalidArgument, eventhose.CodeInvalid, "tenant")

	s = c.appends(w, rootKey)
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := answered(s); !errors.Is(err, io.EOF) {
		t.Errorf("nothing at all: %v", err)
	}

	// One on which nothing comes is ended.
	s = c.appends(w, rootKey)
	if err := s.Send(batch("acme", 1)); err != nil {
		t.Fatal(err)
	}
	w.refused(answered(s), codes.DeadlineExceeded, eventhose.CodeTimeout, "")

	// A key that was revoked ends it with the next batch that comes after a while.
	id, key := w.key("acme", eventhose.ScopePublish)
	s = c.appends(w, key)
	if err := s.Send(batch("acme", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ctl.RevokeKey(t.Context(), "", id); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		if err = s.Send(batch("acme", 1)); err == nil || errors.Is(err, io.EOF) {
			_, err = s.Recv()
		}
	}
	w.refused(err, codes.Unauthenticated, eventhose.CodeUnauthenticated, "")

	// The server stops.
	s = c.appends(w, rootKey)
	if err := s.Send(batch("acme", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	w.door.Drain()
	w.refused(answered(s), codes.Unavailable, eventhose.CodeUnavailable, "")
}

// What the log takes to append a batch is no silence of the client: the stream goes on, however long that was.
func TestAppendStreamWaitsForTheLog(t *testing.T) {
	const stall = time.Second
	log := &heldLog{began: make(chan struct{}), release: make(chan struct{})}
	w := newWorld(t, func(o *rpc.Options) { log.Log, o.Log, o.Stall = o.Log, log, stall })
	log.hold.Store(true)
	s := w.dial().appends(w, rootKey)
	if err := s.Send(batch("acme", 1)); err != nil {
		t.Fatal(err)
	}
	<-log.began
	<-time.After(stall * 3 / 2) // longer than a client may be silent
	close(log.release)
	for i := range uint64(2) {
		m, err := s.Recv()
		if err != nil || len(m.GetPlacements()) != 1 || m.GetPlacements()[0].GetSequence() != i+1 {
			t.Fatalf("answer %d: %v %v", i, m, err)
		}
		if err := s.Send(batch("", 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// Who begins a stream while the server stops is told to come again.
func TestAppendStreamWhileDraining(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	w.door.Drain()
	s := c.appends(w, rootKey)
	if err := s.Send(batch("acme", 1)); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	_, err := s.Recv()
	w.refused(err, codes.Unavailable, eventhose.CodeUnavailable, "")
}
