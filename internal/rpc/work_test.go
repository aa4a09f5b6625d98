package rpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/rpc"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
	"github.com/eventhose/eventhose/proto/eventhose/v1/eventhosev1connect"
)

// pullSubscription makes one of acme's that begins with the log.
func (w *world) pullSubscription() string {
	w.t.Helper()
	s, err := w.ctl.CreateSubscription(w.t.Context(), eventhose.Subscription{Tenant: "acme", Retry: eventhose.Retry{Schedule: []eventhose.Duration{0, 0, 0, 0, 0, 0, 0, 0}}}, "start")
	if err != nil {
		w.t.Fatal(err)
	}
	return string(s.ID)
}

// hand is a worker's end of a stream.
type hand struct {
	t testing.TB
	*worker
}

// begin opens a stream of work and sends its first message.
func (w *world) begin(ctx context.Context, c client, start *v1.StartWork) hand {
	w.t.Helper()
	s, err := open[v1.WorkRequest, v1.WorkResponse](ctx, c, eventhosev1connect.LogServiceWorkProcedure)
	if err != nil {
		w.t.Fatal(err)
	}
	h := hand{w.t, s}
	h.say(&v1.WorkRequest{Action: &v1.WorkRequest_Start{Start: start}})
	return h
}

// work is begin with a subscription of acme's that is ready.
func (w *world) work(c client, sub string) hand {
	w.t.Helper()
	h := w.begin(w.as(rootKey), c, &v1.StartWork{Tenant: "acme", Subscription: sub})
	if m := h.next(); m.GetReady() == nil {
		w.t.Fatalf("got %v first", m)
	}
	return h
}

func (h hand) say(m *v1.WorkRequest) {
	h.t.Helper()
	if err := h.Send(m); err != nil && !errors.Is(err, io.EOF) { // the stream has ended: Recv tells why
		h.t.Fatal(err)
	}
}

func (h hand) grant(n int32) {
	h.t.Helper()
	h.say(&v1.WorkRequest{Action: &v1.WorkRequest_Grant{Grant: &v1.Grant{Events: n}}})
}

// next is the next message that is more than a sign of life.
func (h hand) next() *v1.WorkResponse {
	h.t.Helper()
	for {
		m, err := h.Recv()
		if err != nil {
			h.t.Fatal(err)
		}
		if m.GetMessage() != nil {
			return m
		}
	}
}

// leases takes n of them.
func (h hand) leases(n int) (leases []*v1.Lease) {
	h.t.Helper()
	for len(leases) < n {
		leases = append(leases, h.next().GetLeases().GetLeases()...)
	}
	if len(leases) > n {
		h.t.Fatalf("got %d leases, granted %d", len(leases), n)
	}
	return leases
}

// end is the error that the stream ends with.
func (h hand) end() error {
	for {
		if _, err := h.Recv(); err != nil {
			return err
		}
	}
}

func names(leases ...*v1.Lease) (names []string) {
	for _, l := range leases {
		names = append(names, l.GetLease())
	}
	return names
}

func ack(leases ...*v1.Lease) *v1.WorkRequest {
	return &v1.WorkRequest{Action: &v1.WorkRequest_Ack{Ack: &v1.Ack{Leases: names(leases...)}}}
}

// Events come as they are granted and no more, and are answered; what is not answered is the next worker's when the stream ends.
func TestWork(t *testing.T) {
	w := newWorld(t, func(o *rpc.Options) { o.Heartbeat = 50 * time.Millisecond })
	c := w.dial()
	sub := w.pullSubscription()
	w.append("acme", 5)
	h := w.work(c, sub)
	h.grant(3)
	got := h.leases(3)
	for i, l := range got {
		if e := l.GetEvent(); e.GetSequence() != uint64(i+1) || l.GetPreviousSequence() != uint64(i) || l.GetDeliveries() != 1 || string(e.GetData()) != ` {"n": "é\u2028"}` || time.Until(l.GetUntil().AsTime()) > 31*time.Second {
			t.Errorf("%d: %v", i, l)
		}
	}
	if head := w.cursor("acme"); strings.Replace(head, "_5", "_3", 1) != got[2].GetEvent().GetCursor() {
		t.Errorf("cursor %s, want one of %s", got[2].GetEvent().GetCursor(), head)
	}
	h.say(ack(got[0], got[0]))
	if a := h.next().GetAnswered(); a.GetCount() != 1 || len(a.GetLost()) != 1 || a.GetLost()[0] != got[0].GetLease() {
		t.Errorf("acked: %v", a)
	}
	h.say(&v1.WorkRequest{Action: &v1.WorkRequest_Extend{Extend: &v1.Extend{Leases: names(got[1]), Lease: durationpb.New(time.Minute)}}})
	if a := h.next().GetAnswered(); a.GetCount() != 1 || len(a.GetLost()) != 0 {
		t.Errorf("extended: %v", a)
	}
	h.say(&v1.WorkRequest{Action: &v1.WorkRequest_Nack{Nack: &v1.Nack{Leases: names(got[2]), Delay: durationpb.New(0), Message: "no"}}})
	if a := h.next().GetAnswered(); a.GetCount() != 1 {
		t.Errorf("nacked: %v", a)
	}
	h.grant(1)
	again := h.leases(1)[0]
	if again.GetEvent().GetSequence() != 3 || again.GetDeliveries() != 2 {
		t.Errorf("after a nack: %v", again)
	}
	h.say(&v1.WorkRequest{Action: &v1.WorkRequest_Release{Release: &v1.Release{Leases: names(got[0], again)}}})
	if a := h.next().GetAnswered(); a.GetCount() != 1 || len(a.GetLost()) != 1 || a.GetLost()[0] != got[0].GetLease() {
		t.Errorf("released: %v", a)
	}
	// The second is still held. A client that has nothing more to say is done.
	if err := h.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := h.end(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	h = w.work(c, sub)
	h.grant(10)
	deliveries := map[uint64]int32{}
	for len(deliveries) < 4 {
		for _, l := range h.next().GetLeases().GetLeases() {
			deliveries[l.GetEvent().GetSequence()] = l.GetDeliveries()
		}
	}
	if deliveries[2] != 2 || deliveries[3] != 2 || deliveries[4] != 1 || deliveries[5] != 1 {
		t.Errorf("delivered %v", deliveries)
	}
	w.append("acme", 1)
	if l := h.leases(1); l[0].GetEvent().GetSequence() != 6 {
		t.Errorf("%v", l)
	}
}

// A worker that is gone without a word gives back what it holds.
func TestWorkerDies(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	sub := w.pullSubscription()
	w.append("acme", 250)
	ctx, cancel := context.WithCancel(w.as(rootKey))
	h := w.begin(ctx, c, &v1.StartWork{Tenant: "acme", Subscription: sub, Lease: durationpb.New(time.Hour)})
	h.next()
	h.grant(250)
	h.leases(250)
	cancel()
	if err := h.end(); status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
	next := w.work(c, sub)
	next.grant(250)
	for _, l := range next.leases(250) {
		if l.GetDeliveries() != 2 {
			t.Errorf("%v", l)
		}
	}
}

// headless is the log, whose head cannot be read while it is away.
type headless struct {
	rpc.Log
	away atomic.Bool
}

func (h *headless) Head(ctx context.Context, id eventhose.TenantID) (eventhose.Head, error) {
	if h.away.Load() {
		return eventhose.Head{}, errors.New("planted")
	}
	return h.Log.Head(ctx, id)
}

// next answers what the next worker gets of a subscription.
func (w *world) next(sub string) []eventhose.Leased {
	w.t.Helper()
	list, err := w.engine.Pull(w.t.Context(), "acme", eventhose.SubscriptionID(sub), eventhose.Pull{Max: 10, Wait: callTime, Lease: time.Minute})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// A worker whose stream ends before it got anything has taken nothing.
func TestWorkThatFailsTakesNothing(t *testing.T) {
	log := &headless{}
	w := newWorld(t, func(o *rpc.Options) { log.Log, o.Log = o.Log, log })
	sub := w.pullSubscription()
	w.append("acme", 1)
	h := w.work(w.dial(), sub)
	log.away.Store(true)
	h.grant(10)
	w.refused(h.end(), codes.Internal, eventhose.CodeInternal, "")
	if list := w.next(sub); len(list) != 1 || list[0].Deliveries != 1 {
		t.Errorf("%+v", list)
	}
}

// A worker whose stream ends by a fault of the server's is not charged for what it has in its hands.
func TestWorkThatFailsChargesNothing(t *testing.T) {
	log := &headless{}
	w := newWorld(t, func(o *rpc.Options) { log.Log, o.Log = o.Log, log })
	sub := w.pullSubscription()
	w.append("acme", 1)
	h := w.work(w.dial(), sub)
	h.grant(1)
	h.leases(1)
	log.away.Store(true)
	h.grant(1)
	w.refused(h.end(), codes.Internal, eventhose.CodeInternal, "")
	if list := w.next(sub); len(list) != 1 || list[0].Deliveries != 1 {
		t.Errorf("%+v", list)
	}
}

// A server that stops gives back what workers have in their hands before it is gone, and charges them nothing.
func TestWorkDrains(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.pullSubscription()
	w.append("acme", 3)
	h := w.work(w.dial(), sub)
	h.grant(10)
	got := h.leases(3)
	h.say(ack(got[0]))
	h.next()
	w.door.Drain()
	w.refused(h.end(), codes.Unavailable, eventhose.CodeUnavailable, "")
	if list := w.next(sub); len(list) != 2 || list[0].Deliveries != 1 || list[1].Deliveries != 1 {
		t.Errorf("%+v", list)
	}
}

// Large events come in messages that gRPC's clients take by default.
func TestWorkLarge(t *testing.T) {
	w := newWorld(t, nil)
	sub := w.pullSubscription()
	for range 8 {
		if _, err := w.log.Append(t.Context(), "acme", eventhose.Event{Type: "a", ContentType: "text/plain", Data: make([]byte, eventhose.MaxData)}); err != nil {
			t.Fatal(err)
		}
	}
	w.appendWide(100, 10<<10)
	h := w.work(w.dial(), sub)
	h.grant(8)
	h.leases(8)
	h.grant(100)
	h.leases(100)
}

func TestWorkRefuses(t *testing.T) {
	w := newWorld(t, func(o *rpc.Options) { o.Heartbeat = 50 * time.Millisecond })
	c := w.dial()
	sub := w.pullSubscription()
	start := func(s *v1.StartWork) *v1.WorkRequest {
		return &v1.WorkRequest{Action: &v1.WorkRequest_Start{Start: s}}
	}
	grant := func(n int32) *v1.WorkRequest {
		return &v1.WorkRequest{Action: &v1.WorkRequest_Grant{Grant: &v1.Grant{Events: n}}}
	}
	good := start(&v1.StartWork{Tenant: "acme", Subscription: sub})
	second := durationpb.New(time.Second)
	for name, tc := range map[string]struct {
		say    []*v1.WorkRequest
		code   codes.Code
		stable eventhose.Code
		field  string
	}{
		"nothing":         {nil, codes.InvalidArgument, eventhose.CodeInvalid, "start"},
		"no start":        {[]*v1.WorkRequest{grant(1)}, codes.InvalidArgument, eventhose.CodeInvalid, "start"},
		"twice":           {[]*v1.WorkRequest{good, good}, codes.InvalidArgument, eventhose.CodeInvalid, "start"},
		"no tenant":       {[]*v1.WorkRequest{start(&v1.StartWork{Subscription: sub})}, codes.InvalidArgument, eventhose.CodeInvalid, "tenant"},
		"absent":          {[]*v1.WorkRequest{start(&v1.StartWork{Tenant: "acme", Subscription: "sub_x"})}, codes.NotFound, eventhose.CodeNotFound, ""},
		"not its own":     {[]*v1.WorkRequest{start(&v1.StartWork{Tenant: "globex", Subscription: sub})}, codes.NotFound, eventhose.CodeNotFound, ""},
		"lease":           {[]*v1.WorkRequest{start(&v1.StartWork{Tenant: "acme", Subscription: sub, Lease: durationpb.New(1)})}, codes.InvalidArgument, eventhose.CodeInvalid, "start.lease"},
		"empty":           {[]*v1.WorkRequest{good, {}}, codes.InvalidArgument, eventhose.CodeInvalid, "action"},
		"grant nothing":   {[]*v1.WorkRequest{good, grant(0)}, codes.InvalidArgument, eventhose.CodeInvalid, "grant.events"},
		"grant too much":  {[]*v1.WorkRequest{good, grant(6000), grant(4001)}, codes.InvalidArgument, eventhose.CodeInvalid, "grant.events"},
		"ack nothing":     {[]*v1.WorkRequest{good, ack()}, codes.InvalidArgument, eventhose.CodeInvalid, "ack.leases"},
		"ack nonsense":    {[]*v1.WorkRequest{good, ack(&v1.Lease{Lease: "x"})}, codes.InvalidArgument, eventhose.CodeInvalid, "ack.leases[0]"},
		"nack's delay":    {[]*v1.WorkRequest{good, {Action: &v1.WorkRequest_Nack{Nack: &v1.Nack{Leases: []string{"x"}, Delay: durationpb.New(-1)}}}}, codes.InvalidArgument, eventhose.CodeInvalid, "nack.delay"},
		"release nothing": {[]*v1.WorkRequest{good, {Action: &v1.WorkRequest_Release{Release: &v1.Release{}}}}, codes.InvalidArgument, eventhose.CodeInvalid, "release.leases"},
		"extend's lease":  {[]*v1.WorkRequest{good, {Action: &v1.WorkRequest_Extend{Extend: &v1.Extend{Leases: []string{"x"}, Lease: durationpb.New(1)}}}}, codes.InvalidArgument, eventhose.CodeInvalid, "extend.lease"},
		"extend nonsense": {[]*v1.WorkRequest{good, {Action: &v1.WorkRequest_Extend{Extend: &v1.Extend{Leases: []string{"x"}, Lease: second}}}}, codes.InvalidArgument, eventhose.CodeInvalid, "extend.leases[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open[v1.WorkRequest, v1.WorkResponse](w.as(rootKey), c, eventhosev1connect.LogServiceWorkProcedure)
			if err != nil {
				t.Fatal(err)
			}
			h := hand{t, s}
			for _, m := range tc.say {
				h.say(m)
			}
			if tc.say == nil {
				if err := h.CloseSend(); err != nil {
					t.Fatal(err)
				}
			}
			w.refused(h.end(), tc.code, tc.stable, tc.field)
		})
	}
	// The subscription is deleted, the server stops.
	h := w.work(c, sub)
	h.grant(1)
	if err := w.ctl.DeleteSubscription(t.Context(), "acme", eventhose.SubscriptionID(sub)); err != nil {
		t.Fatal(err)
	}
	w.refused(h.end(), codes.NotFound, eventhose.CodeNotFound, "")
	h = w.work(c, w.pullSubscription())
	w.door.Drain()
	w.refused(h.end(), codes.Unavailable, eventhose.CodeUnavailable, "")
}
