package rpc

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/eventhose/eventhose"
)

// A code that is not in the mapping would be shown as internal.
func TestCodes(t *testing.T) {
	for _, code := range eventhose.Codes() {
		if _, known := kinds[code]; !known {
			t.Errorf("%s has no code in gRPC", code)
		}
	}
	if len(kinds) != len(eventhose.Codes()) {
		t.Errorf("%d codes are mapped, of %d", len(kinds), len(eventhose.Codes()))
	}
}

// A page's size is what it takes, so that pages that are kept are bounded by what they take.
func TestPageSize(t *testing.T) {
	events := []eventhose.Event{{ID: "1", Sequence: 1, Type: "a", Attributes: map[string]string{"a": "b", "c": "d"}, Data: make([]byte, 1000)}, {ID: "2", Sequence: 2}}
	p := encodePage(events, 7)
	size := 0
	messages := messagesOf(events, 7)
	for i := range messages {
		n := proto.Size(&messages[i])
		size += n + 1 + len(protoVarint(n))
	}
	if len(p.All) != size || p.Size != size {
		t.Errorf("%d bytes that say they are %d, want %d", len(p.All), p.Size, size)
	}
}

func protoVarint(n int) []byte {
	var b []byte
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
