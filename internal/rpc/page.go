package rpc

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/follow"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

// The numbers of SubscribeResponse's fields.
const (
	fieldEvents protowire.Number = 1
	fieldCursor protowire.Number = 2
)

// page is a SubscribeResponse whose events are encoded already, for all that are sent the same. The codecs below know it.
type page struct {
	events []byte
	cursor string
}

// appendTo writes the page as the message that it is.
func (p *page) appendTo(b []byte) []byte {
	b = append(b, p.events...)
	b = protowire.AppendTag(b, fieldCursor, protowire.BytesType)
	return protowire.AppendString(b, p.cursor)
}

// encodePage encodes events as the field that holds them in SubscribeResponse.
func encodePage(events []eventhose.Event, incarnation eventhose.Incarnation) follow.Encoded[[]byte] {
	messages := messagesOf(events, incarnation)
	size := 0
	sizes := make([]int, len(messages))
	for i := range messages {
		sizes[i] = proto.Size(&messages[i])
		size += protowire.SizeTag(fieldEvents) + protowire.SizeBytes(sizes[i])
	}
	all := make([]byte, 0, size)
	for i := range messages {
		all = protowire.AppendTag(all, fieldEvents, protowire.BytesType)
		all = protowire.AppendVarint(all, uint64(sizes[i]))
		// Without required fields, and with text that is UTF-8 since it was appended, nothing can be wrong with a message.
		all, _ = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(all, &messages[i])
	}
	return follow.Encoded[[]byte]{All: all, Size: cap(all)}
}

// binary is protobuf's wire format.
type binary struct{}

// Name implements connect.Codec.
func (binary) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (c binary) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend appends to b what Marshal answers.
func (binary) MarshalAppend(b []byte, message any) ([]byte, error) {
	switch m := message.(type) {
	case *page:
		return m.appendTo(b), nil
	case proto.Message:
		return proto.MarshalOptions{}.MarshalAppend(b, m)
	}
	return nil, fmt.Errorf("%T is not a message", message)
}

// Unmarshal implements connect.Codec.
func (binary) Unmarshal(b []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a message", message)
	}
	return proto.Unmarshal(b, m)
}

// text is protobuf's JSON. What a client sends is read strictly: nothing unknown.
type text struct{ name string }

// Name implements connect.Codec.
func (c text) Name() string { return c.name }

// Marshal implements connect.Codec.
func (text) Marshal(message any) ([]byte, error) {
	switch m := message.(type) {
	case *page:
		whole := new(v1.SubscribeResponse)
		if err := proto.Unmarshal(m.appendTo(nil), whole); err != nil {
			return nil, err
		}
		return protojson.Marshal(whole)
	case proto.Message:
		return protojson.Marshal(m)
	}
	return nil, fmt.Errorf("%T is not a message", message)
}

// Unmarshal implements connect.Codec.
func (text) Unmarshal(b []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a message", message)
	}
	if len(b) == 0 {
		return fmt.Errorf("the message is empty, which is not JSON")
	}
	return protojson.Unmarshal(b, m)
}
