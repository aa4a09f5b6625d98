package interop_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

const logService = "/eventhose.v1.LogService/"

func dialGRPC(t *testing.T, url string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func withKey(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+adminKey)
}

func openStream[Req, Res any](ctx context.Context, conn *grpc.ClientConn, method string) (*grpc.GenericClientStream[Req, Res], error) {
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, logService+method)
	return &grpc.GenericClientStream[Req, Res]{ClientStream: s}, err
}

// followGRPC follows the log with grpc-go and comes again with its last cursor when it is told that the server is not there.
func followGRPC(t *testing.T, ctx context.Context, s *restarted, got chan<- int) {
	conn := dialGRPC(t, s.url)
	cursor := ""
	follow := func() error {
		stream, err := openStream[v1.SubscribeRequest, v1.SubscribeResponse](withKey(ctx), conn, "Subscribe")
		if err == nil {
			err = errors.Join(stream.Send(&v1.SubscribeRequest{Tenant: "default", After: cursor}), stream.CloseSend())
		}
		if err != nil && !errors.Is(err, io.EOF) { // with EOF Recv tells why
			return err
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			for _, e := range m.GetEvents() {
				select {
				case got <- int(e.GetSequence()):
				case <-ctx.Done():
					return ctx.Err()
				}
				cursor = e.GetCursor()
			}
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := follow(); ctx.Err() == nil && status.Code(err) != codes.Unavailable {
			t.Errorf("it ended with %v", err)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// A worker of grpc-go works through a subscription while the server is killed and stopped: every event is worked on and acknowledged.
func TestGRPCWorker(t *testing.T) {
	s := newRestarted(t)
	var sub struct{ ID string }
	call(t, http.MethodPost, s.url+"/v1/tenants/default/subscriptions", `{"from": "start"}`, &sub)
	ctx, cancel := context.WithTimeout(withKey(t.Context()), time.Minute)
	defer cancel()
	conn := dialGRPC(t, s.url)
	const n = 120
	s.append(n)
	done := map[string]bool{} // acknowledged, and told so
	work := func() error {
		stream, err := openStream[v1.WorkRequest, v1.WorkResponse](ctx, conn, "Work")
		if err != nil {
			return err
		}
		say := func(m *v1.WorkRequest) { _ = stream.Send(m) } // Recv tells what is wrong
		say(&v1.WorkRequest{Action: &v1.WorkRequest_Start{Start: &v1.StartWork{Tenant: "default", Subscription: sub.ID, Lease: durationpb.New(2 * time.Second)}}})
		say(&v1.WorkRequest{Action: &v1.WorkRequest_Grant{Grant: &v1.Grant{Events: 10}}})
		var asked [][]*v1.Lease
		for len(done) < n {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			if leases := m.GetLeases().GetLeases(); len(leases) > 0 {
				ack := &v1.Ack{}
				for _, l := range leases {
					ack.Leases = append(ack.Leases, l.GetLease())
				}
				asked = append(asked, leases)
				say(&v1.WorkRequest{Action: &v1.WorkRequest_Ack{Ack: ack}})
			}
			if answered := m.GetAnswered(); answered != nil {
				lost := map[string]bool{}
				for _, l := range answered.GetLost() {
					lost[l] = true
				}
				was := len(done)
				for _, l := range asked[0] {
					done[l.GetEvent().GetId()] = done[l.GetEvent().GetId()] || !lost[l.GetLease()]
				}
				if was < 30 && len(done) >= 30 {
					s.stop(syscall.SIGKILL)
					s.start()
				}
				if was < 70 && len(done) >= 70 {
					s.stop(syscall.SIGTERM)
					s.start()
				}
				say(&v1.WorkRequest{Action: &v1.WorkRequest_Grant{Grant: &v1.Grant{Events: int32(len(asked[0]))}}})
				asked = asked[1:]
			}
		}
		return nil
	}
	for tick := time.NewTicker(50 * time.Millisecond); len(done) < n; <-tick.C {
		if err := work(); err != nil && status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	var status struct {
		Status struct {
			Lag, Leased, Retrying, Dead int
		}
	}
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C { // leases of what a kill left open end by themselves
		call(t, http.MethodGet, s.url+"/v1/tenants/default/subscriptions/"+sub.ID, "", &status)
		if st := status.Status; st.Lag == 0 && st.Leased == 0 && st.Retrying == 0 && st.Dead == 0 {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%+v is left", status)
		default:
		}
	}
}

// What a client knows by reflection alone is the service as it is: a call made of nothing else is understood.
func TestGRPCReflectionAndHealth(t *testing.T) {
	url := serve(t)
	conn := dialGRPC(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", r, err)
	}
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, name := range []string{"google/protobuf/timestamp.proto", "google/protobuf/duration.proto", "eventhose/v1/log.proto"} {
		if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileByFilename{FileByFilename: name}}); err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range r.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(b, file); err != nil {
				t.Fatal(err)
			}
			if file.GetName() == name {
				set.File = append(set.File, file)
			}
		}
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	found, err := files.FindDescriptorByName("eventhose.v1.LogService")
	if err != nil {
		t.Fatal(err)
	}
	method := found.(protoreflect.ServiceDescriptor).Methods().ByName("Append")
	in, out := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(`{"tenant": "default", "events": [{"type": "a", "data": "MQ=="}, {"type": "b", "data": "Mg=="}]}`), in); err != nil {
		t.Fatal(err)
	}
	if err := conn.Invoke(withKey(ctx), logService+"Append", in, out); err != nil {
		t.Fatal(err)
	}
	if got := out.Get(method.Output().Fields().ByName("placements")).List().Len(); got != 2 {
		t.Errorf("%d placements in %v", got, out)
	}
}

// gRPC-Web and Connect, by what curl sends and gets.
func TestRPCOverCurl(t *testing.T) {
	url := serve(t)
	curl := func(stdin []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--max-time", "20", "-H", "Authorization: Bearer " + adminKey, "--data-binary", "@-"}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("curl %v: %v\n%s", args, err, out)
		}
		return out
	}
	framed := func(m []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
	}
	// Connect, JSON.
	out := curl([]byte(`{"tenant": "default", "events": [{"type": "order.paid", "data": "eyJhIjoxfQ=="}]}`), url+logService+"Append", "-H", "Content-Type: application/json")
	var placed struct {
		Placements []struct{ Sequence string }
	}
	if err := json.Unmarshal(out, &placed); err != nil || len(placed.Placements) != 1 || placed.Placements[0].Sequence != "1" {
		t.Errorf("%v %s", err, out)
	}
	out = curl([]byte(`{"tenant": "nobody"}`), url+logService+"Read", "-H", "Content-Type: application/json", "-w", " %{http_code}")
	if !bytes.HasSuffix(out, []byte(" 404")) || !bytes.Contains(out, []byte(`"code":"not_found"`)) || !bytes.Contains(out, []byte("eventhose.v1.ErrorDetail")) {
		t.Errorf("%s", out)
	}
	// gRPC-Web: a message, then the trailers as a frame of the body.
	m, err := proto.Marshal(&v1.ReadRequest{Tenant: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
		out = curl(framed(m), version, url+logService+"Read", "-H", "Content-Type: application/grpc-web+proto")
		if len(out) < 5 {
			t.Fatalf("%s: %q", version, out)
		}
		size := binary.BigEndian.Uint32(out[1:])
		page := &v1.ReadResponse{}
		if err := proto.Unmarshal(out[5:5+size], page); err != nil || len(page.GetEvents()) != 1 || string(page.GetEvents()[0].GetData()) != `{"a":1}` {
			t.Errorf("%s: %v %v", version, err, page)
		}
		if trailers := string(out[5+size:]); trailers[0] != 0x80 || !strings.Contains(strings.ToLower(trailers), "grpc-status: 0") {
			t.Errorf("%s: trailers %q", version, trailers)
		}
	}
	// The HTTP API is there over HTTP/2 too.
	out = curl(nil, "--http2-prior-knowledge", "-X", "GET", url+"/v1/tenants/default/events", "-w", " %{http_version}")
	if !bytes.HasSuffix(out, []byte(" 2")) || !bytes.Contains(out, []byte(`"data":{"a":1}`)) {
		t.Errorf("%s", out)
	}
}
