package httpapi

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// Bodies of events are read token by token and not into Go types, for one reason: data is cut out of the body where it
// stands, so that what is signed later is what the client sent, byte for byte. jsontext refuses names that are given
// twice, invalid UTF-8, and nesting deeper than 10,000, anywhere in the body. Half of a surrogate pair as an escape ("\ud800")
// is JSON by RFC 8259 and stays in data as it came; a field of ours is text, which it cannot be part of. Names that differ
// only in such halves count as the same: most who read them later put U+FFFD in their place.

// reader reads values out of one JSON text. Its errors name the path of what is wrong, from where the reader began.
type reader struct {
	body []byte
	d    *jsontext.Decoder
	// at is put before paths: "events[3].", or nothing for a body that is one event.
	at string
	// line says that the text is one line of several.
	line bool
}

func newReader(body []byte) *reader {
	// The option for halves of pairs lets bytes pass that are not UTF-8. Where there are such, the decoder says where.
	halves := jsontext.AllowInvalidUTF8(utf8.Valid(body))
	return &reader{body: body, d: jsontext.NewDecoder(bytes.NewBuffer(body), halves)}
}

func (r *reader) invalid(field, format string, args ...any) error {
	return eventhose.Invalid(r.at+field, format, args...)
}

// syntax turns the decoder's error into ours.
func (r *reader) syntax(err error) error {
	if errors.Is(err, io.EOF) {
		return &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the body is empty"}
	}
	fault := jsonError(err).fault
	if strings.HasPrefix(fault.Field, "[") {
		fault.Field = "events" + fault.Field // the decoder counts from the top of the text, where the array is
	} else if r.line {
		fault.Field = strings.TrimSuffix(r.at+fault.Field, ".")
	}
	return fault
}

// end checks that nothing follows.
func (r *reader) end() error {
	_, err := r.d.ReadToken()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return r.syntax(err)
	}
	return &eventhose.Error{Code: eventhose.CodeMalformed, Message: fmt.Sprintf("something follows the JSON value, at byte %d", r.d.InputOffset())}
}

// raw answers the next value as it stands in the body.
func (r *reader) raw() ([]byte, error) {
	v, err := r.d.ReadValue()
	if err != nil {
		return nil, r.syntax(err)
	}
	end := int(r.d.InputOffset())
	return r.body[end-len(v) : end : end], nil
}

// text reads a string.
func (r *reader) text(field string) (string, error) {
	if k := r.d.PeekKind(); k != '"' && k != 0 {
		return "", r.invalid(field, "must be a string")
	}
	quoted, err := r.d.ReadValue()
	if err != nil {
		return "", r.syntax(err)
	}
	text, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil {
		return "", &eventhose.Error{Code: eventhose.CodeMalformed, Field: r.at + field, Message: `is not text: it has half of a surrogate pair, such as \ud800 alone`}
	}
	return string(text), nil
}

// object calls member for each name of an object; member reads the value.
func (r *reader) object(field string, member func(name string) error) error {
	if k := r.d.PeekKind(); k != '{' && k != 0 {
		return eventhose.Invalid(strings.TrimSuffix(r.at+field, "."), "must be an object")
	}
	if _, err := r.d.ReadToken(); err != nil {
		return r.syntax(err)
	}
	for {
		t, err := r.d.ReadToken()
		if err != nil {
			return r.syntax(err)
		}
		if t.Kind() == '}' {
			return nil
		}
		if err := member(t.String()); err != nil {
			return err
		}
	}
}

// array calls element for each element of an array, which reads it; at most MaxAppend of them.
func (r *reader) array(element func() error) error {
	if _, err := r.d.ReadToken(); err != nil {
		return r.syntax(err)
	}
	for n := 0; ; n++ {
		if k := r.d.PeekKind(); k == ']' || k == 0 {
			if _, err := r.d.ReadToken(); err != nil {
				return r.syntax(err)
			}
			return nil
		}
		if n == eventhose.MaxAppend {
			return tooMany()
		}
		r.at = fmt.Sprintf("events[%d].", n)
		if err := element(); err != nil {
			return err
		}
	}
}

func tooMany() error {
	return &eventhose.Error{Code: eventhose.CodeTooLarge, Field: "events", Message: fmt.Sprintf("must be at most %d", eventhose.MaxAppend), Fix: "append in several requests"}
}

func (r *reader) time(field string) (time.Time, error) {
	s, err := r.text(field)
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, r.invalid(field, "must be an RFC 3339 time such as 2026-01-31T12:00:00Z")
	}
	return t, nil
}

func (r *reader) base64(field string) ([]byte, error) {
	s, err := r.text(field)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, r.invalid(field, "must be standard base64 with padding")
	}
	return b, nil
}

// decodeEvents reads application/json: one event, or an array. many says which it was.
func decodeEvents(body []byte) (events []eventhose.Event, many bool, err error) {
	if events, many, ok := scanEvents(body); ok {
		return events, many, nil
	}
	return readJSON(body)
}

// readJSON is decodeEvents without the short way.
func readJSON(body []byte) (events []eventhose.Event, many bool, err error) {
	r := newReader(body)
	if r.d.PeekKind() == '[' {
		many = true
		err = r.array(func() error {
			e, err := r.event()
			events = append(events, e)
			return err
		})
	} else {
		var e eventhose.Event
		e, err = r.event()
		events = []eventhose.Event{e}
	}
	if err == nil {
		err = r.end()
	}
	if err == nil && len(events) == 0 {
		err = eventhose.Invalid("events", "must not be empty")
	}
	if err != nil {
		return nil, many, err
	}
	return events, many, nil
}

// decodeLines reads application/x-ndjson: one event a line; empty lines do not count.
func decodeLines(body []byte) (events []eventhose.Event, err error) {
	var s scanner
	for line := range bytes.Lines(body) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if len(events) == eventhose.MaxAppend {
			return nil, tooMany()
		}
		if events == nil { // the other lines are likely as long
			events = make([]eventhose.Event, 0, min(len(body)/len(line)+1, eventhose.MaxAppend))
		}
		events = append(events, eventhose.Event{})
		e := &events[len(events)-1]
		if s.line(line, e) {
			continue
		}
		if *e, err = readLine(line, len(events)-1); err != nil {
			return nil, err
		}
	}
	if len(events) == 0 {
		return nil, eventhose.Invalid("events", "must not be empty")
	}
	return events, nil
}

// readLine reads an event that is all of a line, without the short way.
func readLine(line []byte, index int) (eventhose.Event, error) {
	r := newReader(line)
	r.at, r.line = fmt.Sprintf("events[%d].", index), true
	e, err := r.event()
	if err == nil {
		err = r.end()
	}
	return e, err
}

// event reads one event as clients write it and checks it whole.
func (r *reader) event() (e eventhose.Event, err error) {
	var plain, coded bool
	err = r.object("", func(name string) (err error) {
		switch name {
		case "type":
			e.Type, err = r.text(name)
		case "id":
			e.ID, err = r.text(name)
			if err == nil && e.ID == "" {
				err = r.invalid(name, "must not be empty; leave it out to get one")
			}
		case "key":
			e.Key, err = r.text(name)
		case "version":
			e.Version, err = r.text(name)
		case "time":
			e.Time, err = r.time(name)
		case "content_type":
			e.ContentType, err = r.text(name)
		case "attributes":
			e.Attributes, err = r.attributes()
		case "data":
			plain = true
			e.Data, err = r.raw()
		case "data_base64":
			coded = true
			e.Data, err = r.base64(name)
		default:
			err = r.invalid(clip(name), "is not a field of an event")
		}
		return err
	})
	if err != nil {
		return e, err
	}
	switch {
	case plain && coded:
		return e, r.invalid("data_base64", "must not be given together with data")
	case plain && !e.JSON():
		return e, r.invalid("content_type", "must be JSON's with data; give data_base64 for anything else")
	case coded && e.ContentType == "":
		return e, r.invalid("content_type", "is required with data_base64")
	case !plain && !coded:
		return e, r.invalid("data", "is required")
	}
	if coded && e.JSON() {
		if err := checkJSON(e.Data); err != nil {
			return e, r.invalid("data_base64", "must hold JSON, as content_type says")
		}
	}
	return e, r.check(&e)
}

// check is what every event must pass at this door, however it came.
func (r *reader) check(e *eventhose.Event) error {
	if e.ContentType == "application/json" {
		e.ContentType = "" // which means the same
	}
	err := e.Validate()
	if err == nil && e.Reserved() {
		err = eventhose.Invalid("type", "must not begin with %q, which is for system events", eventhose.SystemPrefix)
	}
	var fault *eventhose.Error
	if errors.As(err, &fault) {
		moved := *fault
		moved.Field = r.at + fault.Field
		return &moved
	}
	return err
}

func (r *reader) attributes() (map[string]string, error) {
	attributes := map[string]string{}
	err := r.object("attributes", func(name string) error {
		v, err := r.text("attributes." + clip(name))
		attributes[name] = v
		if err == nil && len(attributes) > eventhose.MaxAttributes {
			err = r.invalid("attributes", "must be at most %d", eventhose.MaxAttributes)
		}
		return err
	})
	if len(attributes) == 0 {
		return nil, err
	}
	return attributes, err
}

// checkJSON reports what is wrong with a text that should be one JSON value.
func checkJSON(text []byte) error {
	r := newReader(text)
	if _, err := r.raw(); err != nil {
		return err
	}
	return r.end()
}
