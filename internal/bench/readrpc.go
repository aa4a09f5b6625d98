package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
	"github.com/eventhose/eventhose/proto/eventhose/v1/eventhosev1connect"
)

// connectStream subscribes by the Connect protocol, whose answer is read as it comes; of gRPC each stream would need a client.
func connectStream(ctx context.Context, o *readersOrder, after string) (net.Conn, []byte, error) {
	message, err := proto.Marshal(&v1.SubscribeRequest{Tenant: "default", After: after, Filter: &v1.Filter{Types: []string{o.Type}}})
	if err != nil {
		return nil, nil, err
	}
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return ask(ctx, asked{target: o.URL + eventhosev1connect.LogServiceSubscribeProcedure, version: "HTTP/1.1", body: append(body, message...),
		head: http.Header{"Authorization": {"Bearer " + o.Key}, "Content-Type": {"application/connect+proto"}, "Connect-Protocol-Version": {"1"}}, want: http.StatusOK})
}

// grpcReadBack reads with a gRPC client, whole messages.
func grpcReadBack(ctx context.Context, o *readersOrder, into *reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	request := connect.NewRequest(&v1.SubscribeRequest{Tenant: "default", After: "0", Filter: &v1.Filter{Types: []string{o.Type}}})
	request.Header().Set("Authorization", "Bearer "+o.Key)
	stream, err := eventhosev1connect.NewLogServiceClient(&http.Client{Transport: transport}, o.URL, connect.WithGRPC()).Subscribe(ctx, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	for into.events < o.Events && stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			into.take(e.GetData())
		}
	}
	return stream.Err()
}

// graphQL subscribes over Server-Sent Events. The first item is without an event: from then on nothing is missed.
func graphQL(ctx context.Context, o *readersOrder, after string) (net.Conn, []byte, error) {
	body, err := json.Marshal(map[string]any{"query": `subscription($after: String, $types: [String!]) { events(after: $after, types: $types) { cursor event { data } } }`,
		"variables": map[string]any{"after": after, "types": []string{o.Type}}})
	if err != nil {
		return nil, nil, err
	}
	until := ""
	if after == "now" {
		until = "data:"
	}
	return ask(ctx, asked{target: o.URL + "/v1/tenants/default/graphql", version: "HTTP/1.0", body: body, want: http.StatusOK, until: until,
		head: http.Header{"Authorization": {"Bearer " + o.Key}, "Content-Type": {"application/json"}, "Accept": {"text/event-stream"}}})
}
