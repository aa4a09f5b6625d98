package webhook

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"github.com/eventhose/eventhose"
)

// bodySize answers about how long appendEvent's output is, and rarely less.
func bodySize(e *eventhose.Event) int {
	const names = 160 // with timestamp and sequence
	n := names + len(e.Type) + len(e.ID) + len(e.Key) + len(e.Data)
	if !e.JSON() {
		n += len(e.Data)/3 + len(e.ContentType)
	}
	return n
}

// appendEvent appends the body of a webhook of one event:
//
//	{"type":"order.paid","timestamp":"2026-11-22T05:33:00.5Z","data":{"n":1},"id":"evt_1","sequence":7,"key":"o1"}
//
// data is the event's bytes as they came. It is JSON, which whoever appended the event has checked. Data of another
// content type goes as "data_base64" and "content_type" in place of "data"; erased data as null with "erased":true.
// "key" is left out if there is none.
func appendEvent(b []byte, e *eventhose.Event) []byte {
	return append(appendMembers(b, e), '}')
}

// appendMembers is appendEvent without the final brace.
func appendMembers(b []byte, e *eventhose.Event) []byte {
	b = append(b, `{"type":`...)
	b = appendString(b, e.Type)
	b = append(b, `,"timestamp":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	switch {
	case e.Erased:
		b = append(b, `","data":null,"erased":true`...)
	case !e.JSON():
		b = append(b, `","data_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, e.Data)
		b = append(b, `","content_type":`...)
		b = appendString(b, e.ContentType)
	case len(e.Data) == 0:
		b = append(b, `","data":null`...)
	default:
		b = append(b, `","data":`...)
		b = append(b, e.Data...)
	}
	b = append(b, `,"id":`...)
	b = appendString(b, e.ID)
	b = append(b, `,"sequence":`...)
	b = strconv.AppendUint(b, uint64(e.Sequence), 10)
	if e.Key != "" {
		b = append(b, `,"key":`...)
		b = appendString(b, e.Key)
	}
	return b
}

// appendString appends a JSON string. Nearly all of ours are plain ASCII.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
