package rpc

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eventhose/eventhose"
	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

// eventsOf reads what a client appends and checks it whole. CodeInvalid and CodeTooLarge with the field.
func eventsOf(list []*v1.NewEvent) ([]eventhose.Event, error) {
	switch {
	case len(list) == 0:
		return nil, eventhose.Invalid("events", "must not be empty")
	case len(list) > eventhose.MaxAppend:
		return nil, &eventhose.Error{Code: eventhose.CodeTooLarge, Field: "events", Message: fmt.Sprintf("must be at most %d", eventhose.MaxAppend), Fix: "append in several calls"}
	}
	events := make([]eventhose.Event, len(list))
	for i, n := range list {
		e := &events[i]
		*e = eventhose.Event{ID: n.GetId(), Type: n.GetType(), Key: n.GetKey(), Version: n.GetVersion(), Attributes: n.GetAttributes(), ContentType: n.GetContentType(), Data: n.GetData()}
		if err := check(n, e); err != nil {
			var fault *eventhose.Error
			if errors.As(err, &fault) {
				moved := *fault
				moved.Field = fmt.Sprintf("events[%d].%s", i, fault.Field)
				err = &moved
			}
			return nil, err
		}
	}
	return events, nil
}

func check(n *v1.NewEvent, e *eventhose.Event) error {
	if t := n.GetTime(); t != nil {
		if t.CheckValid() != nil {
			return eventhose.Invalid("time", "must be between the years 1 and 9999 in UTC")
		}
		e.Time = t.AsTime()
	}
	if e.ContentType == "application/json" {
		e.ContentType = "" // which means the same
	}
	if err := e.Validate(); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(e.Type, eventhose.SystemPrefix):
		return eventhose.Invalid("type", "must not begin with %q, which is for system events", eventhose.SystemPrefix)
	case e.JSON() && len(e.Data) == 0:
		return eventhose.Invalid("data", "is required")
	case e.JSON() && !(utf8.Valid(e.Data) && jsontext.Value(e.Data).IsValid(jsontext.AllowInvalidUTF8(true))): // which is for halves of surrogate pairs as escapes
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "data", Message: "must be JSON, as content_type says", Fix: "give the content_type of data that is not JSON"}
	}
	return nil
}

// messagesOf writes events, one behind the other in memory. They share the events' slices and maps.
func messagesOf(events []eventhose.Event, incarnation eventhose.Incarnation) []v1.Event {
	messages := make([]v1.Event, len(events))
	times := make([]timestamppb.Timestamp, 2*len(events))
	for i := range events {
		e, m := &events[i], &messages[i]
		at, appended := &times[2*i], &times[2*i+1]
		setTime(at, e.Time)
		setTime(appended, e.Appended)
		m.Id, m.Sequence, m.Type, m.Key = e.ID, uint64(e.Sequence), e.Type, e.Key
		m.Time, m.Appended = at, appended
		m.Cursor = eventhose.Cursor{Incarnation: incarnation, Sequence: e.Sequence}.String()
		m.Version, m.Attributes, m.ContentType, m.Data, m.Erased, m.Source = e.Version, e.Attributes, e.ContentType, e.Data, e.Erased, e.Scope
		if e.Origin != (eventhose.Origin{}) {
			m.Origin = &v1.Origin{Tenant: string(e.Origin.Tenant), Sequence: uint64(e.Origin.Sequence)}
		}
	}
	return messages
}

func setTime(m *timestamppb.Timestamp, t time.Time) {
	m.Seconds, m.Nanos = t.Unix(), int32(t.Nanosecond())
}

// filterOf reads what narrows a read. CodeInvalid with a field "filter.…".
func filterOf(m *v1.Filter) (eventhose.Filter, error) {
	f := eventhose.Filter{Types: m.GetTypes(), Keys: m.GetKeys(), Expression: m.GetExpression()}
	return f, f.Validate()
}

// durationOf reads a duration between two bounds, or answers what is meant if it is left out. CodeInvalid with the field.
func durationOf(m *durationpb.Duration, field string, absent, least, most time.Duration) (time.Duration, error) {
	if m == nil {
		return absent, nil
	}
	// AsDuration stays within what a time.Duration can be, which is more than any bound.
	if d := m.AsDuration(); m.CheckValid() == nil && d >= least && d <= most {
		return d, nil
	}
	return 0, eventhose.Invalid(field, "must be between %v and %v", least, most)
}
