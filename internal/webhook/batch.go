package webhook

import (
	"bytes"
	"slices"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/sink"
)

// contentType is that of a subscription's requests.
func contentType(sub *eventhose.Subscription) string {
	switch {
	case sub.Destination.Format != eventhose.FormatCloudEvents:
		return "application/json"
	case sub.Batch.Batched():
		return "application/cloudevents-batch+json"
	}
	return "application/cloudevents+json"
}

// appendBody appends the body that is signed, and sent unless it is compressed.
func appendBody(body []byte, b *sink.Batch) []byte {
	size := 64
	for i := range b.Items {
		size += bodySize(b.Items[i].Event) + 64
	}
	batched, cloud := b.Subscription.Batch.Batched(), b.Subscription.Destination.Format == eventhose.FormatCloudEvents
	if cloud {
		size += cloudSize * len(b.Items)
	}
	body = slices.Grow(body, size)
	switch {
	case !batched && !cloud:
		return appendEvent(body, b.Items[0].Event)
	case !batched:
		return appendCloudEvent(body, &b.Items[0], "")
	case cloud:
		return appendCloudEvents(body, b)
	}
	return appendBatch(body, b)
}

// appendBatch appends the body of a batch: each event as it would be alone, with the sequence that was due before it.
//
//	{"batch_id":"bat_1","events":[{"type":"order.paid", … ,"id":"evt_1","sequence":7,"key":"o1","previous_sequence":5}]}
func appendBatch(body []byte, b *sink.Batch) []byte {
	body = append(body, `{"batch_id":`...)
	body = appendString(body, b.ID)
	body = append(body, `,"events":[`...)
	for i := range b.Items {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendMembers(body, b.Items[i].Event)
		body = append(body, `,"previous_sequence":`...)
		body = append(strconv.AppendUint(body, uint64(b.Items[i].Previous), 10), '}')
	}
	return append(body, "]}"...)
}

// gzips are writers that are free. The fastest level: bandwidth is saved nearly as well, and time much less spent.
var gzips = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // fails for levels that there are not
	return w
}}

// compressed answers what travels: body, or body compressed if the destination asks for that.
func (t *target) compressed(body []byte) []byte {
	if !t.gzip {
		return body
	}
	w := gzips.Get().(*gzip.Writer)
	defer gzips.Put(w)
	small := bytes.NewBuffer(make([]byte, 0, len(body)/4+64))
	w.Reset(small)
	_, _ = w.Write(body) // into memory
	_ = w.Close()
	return small.Bytes()
}
