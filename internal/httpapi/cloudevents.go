package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// CloudEvents 1.0 in its three HTTP modes (HTTP binding 1.0.2, JSON format 1.0.2). source is the scope of the id,
// the extension partitionkey is the key, and every other attribute but type, time and datacontenttype is kept as an
// attribute under its own name, except for what tells of a delivery. An event without data gets the JSON value null.

// binaryMode says whether a request is an event in binary mode: its attributes are in ce- headers.
func binaryMode(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Ce-") {
			return true
		}
	}
	return false
}

// cloud gathers a CloudEvent's attributes.
type cloud struct {
	r     *reader
	event eventhose.Event
	// prefix is put before attribute names in errors: "ce-" in binary mode.
	prefix string
	spec   string
}

// set takes one context attribute.
func (c *cloud) set(name, value string) error {
	if value == "" {
		return c.r.invalid(c.prefix+clip(name), "must not be empty")
	}
	switch name {
	case "specversion":
		c.spec = value
	case "id":
		c.event.ID = value
	case "source":
		c.event.Scope = value
	case "type":
		c.event.Type = value
	case "datacontenttype":
		c.event.ContentType = value
	case "partitionkey":
		c.event.Key = value
	case "time":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return c.r.invalid(c.prefix+name, "must be an RFC 3339 time such as 2026-01-31T12:00:00Z")
		}
		c.event.Time = t
	case "data":
		return c.r.invalid(c.prefix+name, "is not an attribute")
	default:
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || name == "" {
			return c.r.invalid(c.prefix+clip(name), "is not an attribute name: only lower-case letters and digits are")
		}
		if c.event.Attributes == nil {
			c.event.Attributes = map[string]string{}
		}
		c.event.Attributes[name] = value
	}
	return nil
}

// done checks the event when everything was taken.
func (c *cloud) done() (eventhose.Event, error) {
	for _, a := range []struct{ name, value string }{{"specversion", c.spec}, {"id", c.event.ID}, {"source", c.event.Scope}, {"type", c.event.Type}} {
		if a.value == "" {
			return c.event, c.r.invalid(c.prefix+a.name, "is required")
		}
	}
	if c.spec != "1.0" {
		return c.event, c.r.invalid(c.prefix+"specversion", "must be 1.0")
	}
	if c.event.Data == nil {
		c.event.Data, c.event.ContentType = []byte("null"), ""
	}
	c.delivered()
	return c.event, c.r.check(&c.event)
}

// delivered takes off what a subscription of a server such as this one tells of its delivery. It is not the event's own: sent
// once more, in another batch or by another subscription, the event would not be the same.
func (c *cloud) delivered() {
	if a := c.event.Attributes; place(a["sequence"]) && place(a["previoussequence"]) {
		delete(a, "sequence")
		delete(a, "previoussequence")
		delete(a, "batchid")
	}
}

// place reports whether s is a sequence as CloudEvents of ours have it.
func place(s string) bool { return len(s) == 20 && strings.Trim(s, "0123456789") == "" }

// decodeBinary reads binary mode: attributes from ce- headers, data is the body as it is.
func decodeBinary(h http.Header, body []byte) (eventhose.Event, error) {
	c := &cloud{r: newReader(body), prefix: "ce-"}
	for header, values := range h {
		name, ok := strings.CutPrefix(header, "Ce-")
		if !ok {
			continue
		}
		name = strings.ToLower(name)
		if len(values) > 1 {
			return c.event, c.r.invalid("ce-"+clip(name), "is given more than once")
		}
		if name == "datacontenttype" {
			return c.event, c.r.invalid("ce-"+name, "must be the Content-Type header in binary mode")
		}
		value, err := headerText(values[0])
		if err != nil {
			return c.event, c.r.invalid("ce-"+clip(name), "is not a percent-encoded header value")
		}
		if err := c.set(name, value); err != nil {
			return c.event, err
		}
	}
	if types := h["Content-Type"]; len(types) > 1 {
		return c.event, &eventhose.Error{Code: eventhose.CodeUnsupported, Field: "Content-Type", Message: "is given more than once"}
	} else if len(types) == 1 {
		c.event.ContentType = types[0]
	}
	if len(body) > 0 {
		c.event.Data = body
		if c.event.JSON() {
			if err := checkJSON(body); err != nil {
				return c.event, err
			}
		}
	}
	return c.done()
}

// headerText decodes a header's value (HTTP binding, section 3.1.3.2): percent-encoded, double quotes taken off.
func headerText(s string) (string, error) {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		var b strings.Builder
		for i := 1; i < len(s)-1; i++ {
			if s[i] == '\\' && i+1 < len(s)-1 {
				i++
			}
			b.WriteByte(s[i])
		}
		s = b.String()
	}
	s, err := url.PathUnescape(s)
	if err != nil || !validText(s) {
		return "", fmt.Errorf("decoding a header: %w", err)
	}
	return s, nil
}

// decodeStructured reads application/cloudevents+json.
func decodeStructured(body []byte) (eventhose.Event, error) {
	r := newReader(body)
	e, err := r.cloudEvent()
	if err == nil {
		err = r.end()
	}
	return e, err
}

// decodeBatch reads application/cloudevents-batch+json. An empty batch is one (JSON format, section 4).
func decodeBatch(body []byte) (events []eventhose.Event, err error) {
	r := newReader(body)
	if k := r.d.PeekKind(); k != '[' && k != 0 {
		return nil, eventhose.Invalid("events", "must be an array of CloudEvents")
	}
	err = r.array(func() error {
		e, err := r.cloudEvent()
		events = append(events, e)
		return err
	})
	if err == nil {
		err = r.end()
	}
	return events, err
}

// cloudEvent reads one event of the JSON format.
func (r *reader) cloudEvent() (eventhose.Event, error) {
	c := &cloud{r: r}
	var plain, coded []byte
	err := r.object("", func(name string) (err error) {
		switch name {
		case "data":
			plain, err = r.raw()
			return err
		case "data_base64":
			coded, err = r.base64(name)
			return err
		}
		value, present, err := r.attribute(name)
		if err != nil || !present {
			return err
		}
		return c.set(name, value)
	})
	if err != nil {
		return c.event, err
	}
	switch {
	case plain != nil && coded != nil:
		return c.event, r.invalid("data_base64", "must not be given together with data")
	case coded != nil:
		c.event.Data = coded
		if c.event.JSON() && checkJSON(coded) != nil {
			return c.event, r.invalid("data_base64", "must hold JSON, as datacontenttype says")
		}
	case plain != nil && c.event.JSON():
		c.event.Data = plain
	case plain != nil:
		// Data that is not JSON travels as a JSON string (JSON format, section 3.1.1).
		text, err := jsontext.AppendUnquote(nil, plain)
		if err != nil || plain[0] != '"' {
			return c.event, r.invalid("data", "must be a string of whole characters, or data_base64, since datacontenttype is not JSON")
		}
		c.event.Data = text
	}
	return c.done()
}

// attribute reads a context attribute: a string, a boolean or an integer (JSON format, section 2.2). null is absence.
func (r *reader) attribute(name string) (value string, present bool, err error) {
	kind := r.d.PeekKind()
	switch kind {
	case '{', '[':
		return "", false, r.invalid(clip(name), "must be a string, a boolean or an integer")
	case '"':
		value, err = r.text(clip(name))
		return value, err == nil, err
	}
	t, err := r.d.ReadToken()
	if err != nil {
		return "", false, r.syntax(err)
	}
	switch kind {
	case 'n':
		return "", false, nil
	case 't', 'f':
		return t.String(), true, nil
	case '0':
		if strings.ContainsAny(t.String(), ".eE") {
			return "", false, r.invalid(clip(name), "must be a string, a boolean or an integer")
		}
	}
	return t.String(), true, nil
}
