package webhook

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
)

// cloudSize is about how much longer a CloudEvent is than the same event in our own body.
const cloudSize = 200

// appendCloudEvents appends a batch in CloudEvents' JSON batch format.
func appendCloudEvents(body []byte, b *sink.Batch) []byte {
	body = append(body, '[')
	for i := range b.Items {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendCloudEvent(body, &b.Items[i], b.ID)
	}
	return append(body, ']')
}

// appendCloudEvent appends an event in CloudEvents 1.0's JSON format. source is the scope of the id, or of events that
// came without one their tenant. An inbound source is one below /sources/: its bare id is refused by logs, another server's
// among them, since it stands for having been verified there. The key is the extension partitionkey. sequence and previoussequence are of 20 digits,
// since CloudEvents' own extension sequence is a text whose order is that of its characters, and its integers have 32
// bits. batchid is left out for an event that travels alone.
func appendCloudEvent(b []byte, item *sink.Item, batch string) []byte {
	e := item.Event
	b = append(b, `{"specversion":"1.0","id":`...)
	b = appendString(b, e.ID)
	b = append(b, `,"source":`...)
	switch {
	case eventhose.ValidSourceID(e.Scope):
		b = appendString(b, "/sources/"+e.Scope)
	case e.Scope != "":
		b = appendString(b, e.Scope)
	default:
		b = appendString(b, "/tenants/"+string(e.Tenant))
	}
	b = append(b, `,"type":`...)
	b = appendString(b, e.Type)
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if e.Key != "" {
		b = append(b, `,"partitionkey":`...)
		b = appendString(b, e.Key)
	}
	if e.Sequence > 0 { // a test is not in the log and has no place there
		b = fmt.Appendf(b, `,"sequence":"%020d","previoussequence":"%020d"`, uint64(e.Sequence), uint64(item.Previous))
	}
	if batch != "" {
		b = append(b, `,"batchid":`...)
		b = appendString(b, batch)
	}
	return append(appendCloudData(b, e), '}')
}

func appendCloudData(b []byte, e *eventhose.Event) []byte {
	if e.Erased {
		return b
	}
	b = append(b, `,"datacontenttype":`...)
	switch {
	case !e.JSON():
		b = appendString(b, e.ContentType)
		b = append(b, `,"data_base64":"`...)
		return append(base64.StdEncoding.AppendEncode(b, e.Data), '"')
	case e.ContentType != "":
		b = appendString(b, e.ContentType)
	default:
		b = append(b, `"application/json"`...)
	}
	if len(e.Data) > 0 {
		b = append(b, `,"data":`...)
		b = append(b, e.Data...)
	}
	return b
}
