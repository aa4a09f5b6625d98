package rpc_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	"github.com/eventhose/eventhose"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
	"github.com/eventhose/eventhose/proto/eventhose/v1/eventhosev1connect"
)

// methods calls each of the service's methods about a tenant, and answers the error.
func methods(c client, sub string) map[string]func(ctx context.Context, tenant string) error {
	return map[string]func(ctx context.Context, tenant string) error{
		"Append": func(ctx context.Context, tenant string) error {
			_, err := c.append(ctx, &v1.AppendRequest{Tenant: tenant, Events: []*v1.NewEvent{{Type: "a", Data: []byte("1")}}})
			return err
		},
		"AppendStream": func(ctx context.Context, tenant string) error {
			return first(open[v1.AppendStreamRequest, v1.AppendStreamResponse](ctx, c, eventhosev1connect.LogServiceAppendStreamProcedure))(batch(tenant, 1))
		},
		"Read": func(ctx context.Context, tenant string) error {
			_, err := c.read(ctx, &v1.ReadRequest{Tenant: tenant})
			return err
		},
		"Subscribe": func(ctx context.Context, tenant string) error {
			return first(open[v1.SubscribeRequest, v1.SubscribeResponse](ctx, c, eventhosev1connect.LogServiceSubscribeProcedure))(&v1.SubscribeRequest{Tenant: tenant})
		},
		"Work": func(ctx context.Context, tenant string) error {
			return first(open[v1.WorkRequest, v1.WorkResponse](ctx, c, eventhosev1connect.LogServiceWorkProcedure))(&v1.WorkRequest{Action: &v1.WorkRequest_Start{Start: &v1.StartWork{Tenant: tenant, Subscription: sub}}})
		},
	}
}

// first sends a stream's only message and answers what comes first, if that is an error.
func first[Req, Res any](s interface {
	Send(*Req) error
	CloseSend() error
	Recv() (*Res, error)
}, err error) func(*Req) error {
	return func(m *Req) error {
		if err != nil {
			return err
		}
		if err := errors.Join(s.Send(m), s.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err := s.Recv()
		return err
	}
}

// Who may do what: each method with each kind of credential. What is absent and what is another tenant's are answered the same.
func TestAccess(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	sub := w.pullSubscription()
	_, reads := w.key("acme", eventhose.ScopeRead)
	_, publishes := w.key("acme", eventhose.ScopePublish)
	_, others := w.key("globex", eventhose.ScopeAdmin)
	revoked, gone := w.key("acme", eventhose.ScopeAdmin)
	if _, err := w.ctl.RevokeKey(t.Context(), "", revoked); err != nil {
		t.Fatal(err)
	}
	_, portal, err := w.ctl.CreateLink(t.Context(), eventhose.PortalLink{Tenant: "acme", Capabilities: eventhose.Capabilities()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, session, err := w.ctl.SignIn(t.Context(), rootKey, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range methods(c, sub) {
		t.Run(name+"/portal link", func(t *testing.T) {
			w.refused(call(w.as(string(portal)), "acme"), codes.PermissionDenied, eventhose.CodeForbidden, "")
		})
		t.Run(name+"/session", func(t *testing.T) { // which is a cookie's, and there are none here
			w.refused(call(w.as(string(session)), "acme"), codes.Unauthenticated, eventhose.CodeUnauthenticated, "")
		})
		appends := strings.HasPrefix(name, "Append")
		right, wrong := reads, publishes
		if appends {
			right, wrong = wrong, right
		}
		for what, key := range map[string]string{"none": "", "unknown": "ehk_nonsense", "revoked": gone, "long": strings.Repeat("x", 600)} {
			t.Run(name+"/"+what, func(t *testing.T) {
				w.refused(call(w.as(key), "acme"), codes.Unauthenticated, eventhose.CodeUnauthenticated, "")
			})
		}
		for what, header := range map[string]string{"scheme": "Basic " + right, "bare": right} {
			t.Run(name+"/"+what, func(t *testing.T) {
				w.refused(call(metadata.AppendToOutgoingContext(w.as(""), "authorization", header), "acme"), codes.Unauthenticated, eventhose.CodeUnauthenticated, "")
			})
		}
		t.Run(name+"/two keys", func(t *testing.T) {
			w.refused(call(metadata.AppendToOutgoingContext(w.as(right), "authorization", "Bearer "+right), "acme"), codes.Unauthenticated, eventhose.CodeUnauthenticated, "")
		})
		t.Run(name, func(t *testing.T) {
			w.refused(call(w.as(wrong), "acme"), codes.PermissionDenied, eventhose.CodeForbidden, "")
			w.refused(call(w.as(right), ""), codes.InvalidArgument, eventhose.CodeInvalid, "tenant")
			if err := call(w.as(right), "acme"); err != nil {
				t.Error(err)
			}
			want := ""
			for _, tc := range []struct{ key, tenant string }{{others, "acme"}, {others, "absent"}, {right, "globex"}, {rootKey, "absent"}, {rootKey, "a/b"}, {right, "../acme"}} {
				err := call(w.as(tc.key), tc.tenant)
				w.refused(err, codes.NotFound, eventhose.CodeNotFound, "")
				if want == "" {
					want = err.Error()
				} else if err.Error() != want {
					t.Errorf("of %s: %v, want %s", tc.tenant, err, want)
				}
			}
		})
	}
	for _, secret := range []string{reads, publishes, others, rootKey, gone} {
		if strings.Contains(w.logs.String(), secret) {
			t.Error("a key is in the log")
		}
	}
}

// A credential is judged before anything is read of what it came with.
func TestAccessBeforeMessage(t *testing.T) {
	w := newWorld(t, nil)
	body, release := io.Pipe()
	defer release.Close()
	req, err := http.NewRequestWithContext(w.as(""), http.MethodPost, w.server.URL+eventhosev1connect.LogServiceAppendProcedure, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer wrong")
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols} // over HTTP/1 a refused body is read, for a while, before the answer
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req) // whose body never comes
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("%d", res.StatusCode)
	}
}

// Health and reflection need no key, and tell nothing of tenants.
func TestHealthAndReflection(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial()
	health := grpc_health_v1.NewHealthClient(c)
	check := func(service string) (grpc_health_v1.HealthCheckResponse_ServingStatus, error) {
		r, err := health.Check(w.as(""), &grpc_health_v1.HealthCheckRequest{Service: service})
		return r.GetStatus(), err
	}
	for _, service := range []string{"", eventhosev1connect.LogServiceName} {
		if s, err := check(service); err != nil || s != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, s, err)
		}
	}
	if _, err := check("other"); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	stream, err := grpc_reflection_v1.NewServerReflectionClient(c).ServerReflectionInfo(w.as(""))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: eventhosev1connect.LogServiceName}}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || len(r.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("%v %v", r, err)
	}
	older, err := grpc_reflection_v1alpha.NewServerReflectionClient(c).ServerReflectionInfo(w.as(""))
	if err != nil {
		t.Fatal(err)
	}
	if err := older.Send(&grpc_reflection_v1alpha.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1alpha.ServerReflectionRequest_ListServices{}}); err != nil { //nolint:staticcheck // older clients ask by it
		t.Fatal(err)
	}
	r, err := older.Recv()
	if err != nil || len(r.GetListServicesResponse().GetService()) != 2 { //nolint:staticcheck // older clients ask by it
		t.Errorf("%v %v", r, err)
	}
	if err := c.Invoke(w.as(""), "/eventhose.v1.LogService/Nothing", &v1.ReadRequest{}, &v1.ReadResponse{}); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	w.door.Drain()
	if s, err := check(""); err != nil || s != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v, %v", s, err)
	}
}
