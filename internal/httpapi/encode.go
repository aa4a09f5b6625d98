package httpapi

import (
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/eventhose/eventhose"
)

// appendEvent writes an event as readers get it, its data byte for byte. The closing brace is left to the caller, who may add to it.
func appendEvent(b []byte, e *eventhose.Event, cursor eventhose.Cursor) []byte {
	b = appendEnvelope(b, e, cursor)
	switch {
	case e.Erased:
		b = append(b, `,"erased":true`...)
	case !e.JSON():
		b = append(b, `,"data_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, e.Data)
		b = append(b, '"')
	case len(e.Data) == 0:
		b = append(b, `,"data":null`...)
	default:
		b = append(b, `,"data":`...)
		b = append(b, e.Data...)
	}
	return b
}

// appendFor is appendEvent for one who may not see data, perhaps.
func appendFor(p eventhose.Principal, b []byte, e *eventhose.Event, cursor eventhose.Cursor) []byte {
	if p.Can(eventhose.CapabilityData) || e.Erased {
		return appendEvent(b, e, cursor)
	}
	return append(appendEnvelope(b, e, cursor), `,"data_omitted":true`...)
}

// appendEnvelope writes all of an event but its data.
func appendEnvelope(b []byte, e *eventhose.Event, cursor eventhose.Cursor) []byte {
	text := func(name, value string) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = quote(b, value)
	}
	b = append(b, `{"id":`...)
	b = quote(b, e.ID)
	text("type", e.Type)
	b = append(b, `,"sequence":`...)
	b = strconv.AppendUint(b, uint64(e.Sequence), 10)
	text("key", e.Key)
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","appended":"`...)
	b = e.Appended.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	text("cursor", cursor.String())
	if e.Scope != "" {
		text("source", e.Scope)
	}
	if e.Version != "" {
		text("version", e.Version)
	}
	if len(e.Attributes) > 0 {
		b = append(b, `,"attributes":{`...)
		for i, name := range slices.Sorted(maps.Keys(e.Attributes)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(quote(b, name), ':')
			b = quote(b, e.Attributes[name])
		}
		b = append(b, '}')
	}
	if e.Origin.Tenant != "" {
		b = append(b, `,"origin":{"tenant":`...)
		b = quote(b, string(e.Origin.Tenant))
		b = append(b, `,"sequence":`...)
		b = append(strconv.AppendUint(b, uint64(e.Origin.Sequence), 10), '}')
	}
	if e.ContentType != "" {
		text("content_type", e.ContentType)
	}
	return b
}
