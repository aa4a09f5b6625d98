package rpc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/rpc"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
	"github.com/eventhose/eventhose/proto/eventhose/v1/eventhosev1connect"
)

// take reads events from a stream until there are n, or an error.
func take(s *subscriber, n int) (events []*v1.Event, last *v1.SubscribeResponse, err error) {
	for len(events) < n {
		m, err := s.Recv()
		if err != nil {
			return events, last, err
		}
		events, last = append(events, m.GetEvents()...), m
	}
	return events, last, nil
}

// A stream holds nothing of what was asked for as long as it lasts.
func TestStreamsHoldNothing(t *testing.T) {
	const part = 64 << 10
	w := newWorld(t, func(o *rpc.Options) { o.MaxHeld = 4 * part })
	c := w.dial()
	_, key := w.key("acme", eventhose.ScopeRead)
	m := &v1.SubscribeRequest{Tenant: "acme"}
	unknown := protowire.AppendTag(nil, 1000, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(unknown, make([]byte, part*3/4)))
	for range 3 {
		s, err := c.subscribe(w.as(key), m)
		if err == nil {
			_, err = s.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A subscriber gets what a reader gets, whatever page a read has, and goes on after every event's cursor.
func TestSubscribe(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	const n = 1300
	w.append("acme", n)
	var want []*v1.Event
	for after := ""; len(want) < n; {
		page, err := c.read(w.as(rootKey), &v1.ReadRequest{Tenant: "acme", After: after, Limit: 333})
		if err != nil || len(page.GetEvents()) == 0 || page.GetHasMore() != (len(want)+len(page.GetEvents()) < n) {
			t.Fatalf("%d events, then %v", len(want), err)
		}
		want, after = append(want, page.GetEvents()...), page.GetCursor()
	}
	same := func(got, want []*v1.Event) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("got %d events, want %d", len(got), len(want))
		}
		for i := range got {
			if !proto.Equal(got[i], want[i]) {
				t.Fatalf("got  %v\nwant %v", got[i], want[i])
			}
		}
	}
	for _, from := range []int{0, 1, 499, 500, 501, 1299} {
		after := "0"
		if from > 0 {
			after = want[from-1].GetCursor()
		}
		s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme", After: after})
		if err != nil {
			t.Fatal(err)
		}
		got, last, err := take(s, n-from)
		if err != nil || last.GetCursor() != want[n-1].GetCursor() {
			t.Fatalf("%v, %v", last.GetCursor(), err)
		}
		same(got, want[from:])
	}
	s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme", After: "now", Filter: &v1.Filter{Types: []string{"t1", "x.*"}, Expression: `data.n == "é\u2028"`}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Recv()
	if err != nil || len(first.GetEvents()) != 0 || first.GetCursor() != want[n-1].GetCursor() {
		t.Fatalf("%v %v", first, err)
	}
	w.append("acme", 9)
	got, _, err := take(s, 3)
	if err != nil || got[0].GetSequence() != n+2 || got[1].GetSequence() != n+5 || got[2].GetSequence() != n+8 {
		t.Errorf("%v %v", got, err)
	}
}

// appendWide adds n events of some data and as many attributes as there may be.
func (w *world) appendWide(n, data int) {
	w.t.Helper()
	attributes := map[string]string{}
	for i := range eventhose.MaxAttributes {
		attributes[fmt.Sprintf("%064d", i)] = strings.Repeat("v", eventhose.MaxAttribute)
	}
	for range n {
		if _, err := w.log.Append(w.t.Context(), "acme", eventhose.Event{Type: "wide", Attributes: attributes, ContentType: "text/plain", Data: make([]byte, data)}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// What events have beside their data makes no message larger than clients take, which is 4 MiB.
func TestWideEventsFitIntoMessages(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	const n = 300
	w.appendWide(n, 1)
	s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := take(s, n); err != nil {
		t.Errorf("subscribed: %d events, then %v", len(got), err)
	}
	read := 0
	for after := ""; read < n; {
		page, err := c.read(w.as(rootKey), &v1.ReadRequest{Tenant: "acme", After: after, Limit: 1000})
		if err != nil {
			t.Fatalf("read: %d events, then %v", read, err)
		}
		read, after = read+len(page.GetEvents()), page.GetCursor()
	}
}

// Data that was erased is not sent to those who come later.
func TestSubscribeErased(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	if _, err := w.log.Append(t.Context(), "acme", eventhose.Event{Type: "a", ID: "1", Data: []byte(`"secret"`)}); err != nil {
		t.Fatal(err)
	}
	for _, erased := range []bool{false, true} {
		s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := take(s, 1)
		if err != nil || got[0].GetErased() != erased || (len(got[0].GetData()) == 0) != erased {
			t.Fatalf("%v %v", got, err)
		}
		if err := w.log.Erase(t.Context(), "acme", "", "1"); err != nil {
			t.Fatal(err)
		}
	}
}

// A read that waits is answered by the first event, when its time is over, and when the server stops.
func TestReadWaits(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	wait := func(d time.Duration) (*v1.ReadResponse, error) {
		return c.read(w.as(rootKey), &v1.ReadRequest{Tenant: "acme", After: "now", Wait: durationpb.New(d)})
	}
	if page, err := wait(10 * time.Millisecond); err != nil || len(page.GetEvents()) != 0 || page.GetHasMore() {
		t.Errorf("%v %v", page, err)
	}
	answers := make(chan error, 1)
	go func() {
		page, err := wait(30 * time.Second)
		if err == nil && len(page.GetEvents()) == 0 {
			err = fmt.Errorf("an empty page")
		}
		answers <- err
	}()
	for done := false; !done; {
		w.append("acme", 1) // the read may begin after the first
		select {
		case err := <-answers:
			if done = true; err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
	go func() {
		_, err := wait(30 * time.Second)
		answers <- err
	}()
	w.door.Drain()
	if err := <-answers; err != nil {
		t.Error(err)
	}
}

// watched is the log, and tells when a read begins to wait.
type watched struct {
	rpc.Log
	begun chan struct{}
}

func (l *watched) Wait(ctx context.Context, tenant eventhose.TenantID, after eventhose.Sequence) error {
	select {
	case l.begun <- struct{}{}:
	default:
	}
	return l.Log.Wait(ctx, tenant, after)
}

// A key that is revoked while a read waits gets nothing of what comes then.
func TestReadEndsWithItsKey(t *testing.T) {
	log := &watched{begun: make(chan struct{}, 1)}
	w := newWorld(t, func(o *rpc.Options) { log.Log, o.Log = o.Log, log })
	id, key := w.key("acme", eventhose.ScopeRead)
	c, answers := w.dial(), make(chan error)
	go func() {
		_, err := c.read(w.as(key), &v1.ReadRequest{Tenant: "acme", After: "now", Wait: durationpb.New(30 * time.Second)})
		answers <- err
	}()
	<-log.begun
	if _, err := w.ctl.RevokeKey(t.Context(), "", id); err != nil {
		t.Fatal(err)
	}
	w.append("acme", 1)
	w.refused(<-answers, codes.Unauthenticated, eventhose.CodeUnauthenticated, "")
}

func TestReadRefuses(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	w.append("acme", 3)
	for name, tc := range map[string]struct {
		m     *v1.ReadRequest
		field string
	}{
		"limit":      {&v1.ReadRequest{Limit: 1001}, "limit"},
		"low":        {&v1.ReadRequest{Limit: -1}, "limit"},
		"wait":       {&v1.ReadRequest{Wait: durationpb.New(61 * time.Second)}, "wait"},
		"negative":   {&v1.ReadRequest{Wait: durationpb.New(-1)}, "wait"},
		"nonsense":   {&v1.ReadRequest{Wait: &durationpb.Duration{Seconds: 1, Nanos: -1}}, "wait"},
		"cursor":     {&v1.ReadRequest{After: "x"}, "after"},
		"types":      {&v1.ReadRequest{Filter: &v1.Filter{Types: []string{"*", "a.*.b"}}}, "filter.types[1]"},
		"expression": {&v1.ReadRequest{Filter: &v1.Filter{Expression: "nonsense("}}, "filter.expression"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.m.Tenant = "acme"
			_, err := c.read(w.as(rootKey), tc.m)
			w.refused(err, codes.InvalidArgument, eventhose.CodeInvalid, tc.field)
			if tc.field == "limit" || tc.field == "wait" {
				return
			}
			s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme", After: tc.m.GetAfter(), Filter: tc.m.GetFilter()})
			if err == nil {
				_, err = s.Recv()
			}
			w.refused(err, codes.InvalidArgument, eventhose.CodeInvalid, tc.field)
		})
	}
	for _, after := range []string{"1_1", strings.Replace(w.cursor("acme"), "_3", "_4", 1)} {
		_, err := c.read(w.as(rootKey), &v1.ReadRequest{Tenant: "acme", After: after})
		if d := w.refused(err, codes.OutOfRange, eventhose.CodeCursorGone, ""); d.GetFirst() != 1 || d.GetFix() == "" {
			t.Errorf("%v", d)
		}
		s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme", After: after})
		if err == nil {
			_, err = s.Recv()
		}
		if d := w.refused(err, codes.OutOfRange, eventhose.CodeCursorGone, ""); d.GetFirst() != 1 {
			t.Errorf("%v", d)
		}
	}
}

// The library's own clients follow the log by all three protocols; one that packs what it sends is sent packed pages.
func TestConnectClients(t *testing.T) {
	w := newWorld(t, nil)
	w.append("acme", 700)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	h2 := &http.Client{Transport: transport}
	sizes := map[string]int{}
	for name, tc := range map[string]struct {
		http    *http.Client
		options []connect.ClientOption
	}{
		"gRPC":                {h2, []connect.ClientOption{connect.WithGRPC()}},
		"gRPC, packed":        {h2, []connect.ClientOption{connect.WithGRPC(), connect.WithSendGzip()}},
		"gRPC-Web":            {w.server.Client(), []connect.ClientOption{connect.WithGRPCWeb()}},
		"Connect":             {w.server.Client(), nil},
		"Connect, packed":     {w.server.Client(), []connect.ClientOption{connect.WithSendGzip()}},
		"Connect, JSON on h2": {h2, []connect.ClientOption{connect.WithProtoJSON()}},
	} {
		counted := &counter{Client: tc.http}
		log := eventhosev1connect.NewLogServiceClient(counted, w.server.URL, tc.options...)
		request := connect.NewRequest(&v1.SubscribeRequest{Tenant: "acme"})
		request.Header().Set("Authorization", "Bearer "+rootKey)
		ctx, cancel := context.WithCancel(w.as(""))
		stream, err := log.Subscribe(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for got < 700 && stream.Receive() {
			for _, e := range stream.Msg().GetEvents() {
				if got++; e.GetSequence() != uint64(got) {
					t.Fatalf("%s: sequence %d at %d", name, e.GetSequence(), got)
				}
			}
		}
		if got != 700 {
			t.Errorf("%s: %d events, then %v", name, got, stream.Err())
		}
		sizes[name] = counted.n
		cancel()
		_ = stream.Close() // which it was
	}
	if sizes["gRPC, packed"] > sizes["gRPC"]/2 || sizes["Connect, packed"] > sizes["Connect"]/2 {
		t.Errorf("they were sent %v bytes", sizes)
	}
}

// counter counts what answers have.
type counter struct {
	*http.Client
	n int
}

func (c *counter) Do(r *http.Request) (*http.Response, error) {
	res, err := c.Client.Do(r)
	if err == nil {
		res.Body = &counted{res.Body, c}
	}
	return res, err
}

type counted struct {
	io.ReadCloser
	c *counter
}

func (b *counted) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.c.n += n
	return n, err
}

// What is no message is refused as such, in a stream too.
func TestMalformed(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	for procedure, streams := range map[string]bool{eventhosev1connect.LogServiceReadProcedure: false, eventhosev1connect.LogServiceSubscribeProcedure: true,
		eventhosev1connect.LogServiceWorkProcedure: true, eventhosev1connect.LogServiceAppendStreamProcedure: true} {
		s, err := c.NewStream(w.as(rootKey), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, procedure, grpc.ForceCodecV2(garbage{}))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.SendMsg(0), s.CloseSend()); err != nil {
			t.Fatal(err)
		}
		err = s.RecvMsg(nil)
		if streams {
			w.refused(err, codes.InvalidArgument, eventhose.CodeMalformed, "")
		} else if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", procedure, err)
		}
	}
}

// garbage sends what is no message.
type garbage struct{}

func (garbage) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer("\xff\xff\xff")}, nil
}
func (garbage) Unmarshal(mem.BufferSlice, any) error { return nil }
func (garbage) Name() string                         { return "proto" }

// cursor is where a log ends.
func (w *world) cursor(tenant eventhose.TenantID) string {
	w.t.Helper()
	head, err := w.log.Head(w.t.Context(), tenant)
	if err != nil {
		w.t.Fatal(err)
	}
	return head.Cursor(head.Last).String()
}

// A stream says that it lives, tells where it stands when the filter wants nothing, and ends when its key is revoked and when the
// server stops.
func TestSubscribeEnds(t *testing.T) {
	w := newWorld(t, func(o *rpc.Options) { o.Heartbeat = 50 * time.Millisecond })
	c := w.dial()
	id, key := w.key("acme", eventhose.ScopeRead)
	s, err := c.subscribe(w.as(key), &v1.SubscribeRequest{Tenant: "acme", Filter: &v1.Filter{Types: []string{"other"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.append("acme", 5)
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.GetEvents()) == 0 && m.GetCursor() == w.cursor("acme") {
			break
		}
	}
	if _, err := w.ctl.RevokeKey(t.Context(), "", id); err != nil {
		t.Fatal(err)
	}
	_, _, err = take(s, 1)
	w.refused(err, codes.Unauthenticated, eventhose.CodeUnauthenticated, "")

	s, err = c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := take(s, 5); err != nil {
		t.Fatal(err)
	}
	w.door.Drain()
	_, _, err = take(s, 1)
	if d := w.refused(err, codes.Unavailable, eventhose.CodeUnavailable, ""); d.GetFix() == "" || d.GetRetryAfter().AsDuration() != time.Second {
		t.Errorf("%v", d)
	}
	s, err = c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
	if err == nil {
		_, err = s.Recv()
	}
	w.refused(err, codes.Unavailable, eventhose.CodeUnavailable, "")
}

// One that takes nothing is cut off in time, holds up nobody, and goes on where it stood.
func TestSubscriberStalls(t *testing.T) {
	w := newWorld(t, func(o *rpc.Options) { o.Heartbeat, o.Stall = 50*time.Millisecond, 500*time.Millisecond })
	data := []byte(`"` + strings.Repeat("x", 64<<10) + `"`)
	const n = 200
	for range n {
		if _, err := w.log.Append(t.Context(), "acme", eventhose.Event{Type: "a", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	stalled := w.dial(grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	s, err := stalled.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	quick, err := w.dial().subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := take(quick, n); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(callTime)
	for tick := time.NewTicker(20 * time.Millisecond); !strings.Contains(w.logs.String(), "ended=left"); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it was not cut off: %s", w.logs.String())
		}
	}
	got, last, err := take(s, n)
	if status.Code(err) == codes.OK || len(got) >= n {
		t.Fatalf("%d events and %v", len(got), err)
	}
	after := "0"
	if last != nil {
		after = last.GetCursor()
	}
	again, err := w.dial().subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme", After: after})
	if err != nil {
		t.Fatal(err)
	}
	rest, _, err := take(again, n-len(got))
	if err != nil || rest[len(rest)-1].GetSequence() != n {
		t.Errorf("%v", err)
	}
}

// The streams of one tenant are bounded.
func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t, func(o *rpc.Options) { o.Streams = newStreams(2) })
	c := w.dial()
	for range 2 {
		s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
		if err == nil {
			_, err = s.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.subscribe(w.as(rootKey), &v1.SubscribeRequest{Tenant: "acme"})
	if err == nil {
		_, err = s.Recv()
	}
	w.refused(err, codes.ResourceExhausted, eventhose.CodeLimit, "")
}

// Connect's JSON over HTTP/1: what is shared among streams is written for it too, unknown fields are refused, and the stream's last
// words are heard when the server stops.
func TestConnectJSON(t *testing.T) {
	w := newWorld(t, nil)
	w.append("acme", 2)
	post := func(ctx context.Context, procedure, typ, body string) *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.server.URL+procedure, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+rootKey)
		req.Header.Set("Content-Type", typ)
		res, err := w.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	res := post(w.as(""), eventhosev1connect.LogServiceReadProcedure, "application/json", `{"tenant": "acme", "limit": 1}`)
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"data":"IHsibiI6ICLDqVx1MjAyOCJ9"`) {
		t.Errorf("%d %s %v", res.StatusCode, body, err)
	}
	res = post(w.as(""), eventhosev1connect.LogServiceReadProcedure, "application/json", `{"tenant": "acme", "limits": 1}`)
	body, _ = io.ReadAll(res.Body)
	if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "limits") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	m := `{"tenant": "acme"}`
	res = post(w.as(""), eventhosev1connect.LogServiceSubscribeProcedure, "application/connect+json", string([]byte{0, 0, 0, 0, byte(len(m))})+m)
	in := bufio.NewReader(res.Body)
	frame := func() (byte, string) {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, int(head[1])<<24|int(head[2])<<16|int(head[3])<<8|int(head[4]))
		if _, err := io.ReadFull(in, b); err != nil {
			t.Fatal(err)
		}
		return head[0], string(b)
	}
	if flags, b := frame(); flags != 0 || !strings.Contains(b, `"cursor"`) {
		t.Errorf("%d %s", flags, b)
	}
	if flags, b := frame(); flags != 0 || strings.Count(b, `"IHsibiI6ICLDqVx1MjAyOCJ9"`) != 2 {
		t.Errorf("%d %s", flags, b)
	}
	w.door.Drain()
	if flags, b := frame(); flags != 2 || !strings.Contains(b, "unavailable") || !strings.Contains(b, "eventhose.v1.ErrorDetail") {
		t.Errorf("%d %s", flags, b)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
