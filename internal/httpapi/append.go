package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// The content types of an append.
const (
	typeJSON       = "application/json"
	typeLines      = "application/x-ndjson"
	typeStructured = "application/cloudevents+json"
	typeBatch      = "application/cloudevents-batch+json"
)

// Appends reports whether a POST of a path may be one that appends. Its handler neither flushes nor takes the connection over.
func Appends(path string) bool {
	rest, ok := strings.CutPrefix(path, "/v1/tenants/")
	_, rest, _ = strings.Cut(rest, "/")
	return ok && rest == "events"
}

// append answers POST …/events: all of the body's events are on disk before it says 202, or none is in the log.
func (a *API) append(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	done, err := a.overload.Take(x.tenant)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var placed []eventhose.Placement
	defer func() { done(len(placed) > 0) }()
	events, many, err := readEvents(r.Header, x.body)
	if err == nil && x.keyed {
		err = keepable(events)
	}
	if err == nil && len(events) > 0 {
		placed, err = a.log.Append(r.Context(), x.tenant, events...)
	}
	if err != nil {
		a.fail(w, r, indexed(err, many && len(events) == 1))
		return
	}
	body := make([]byte, 0, 32+len(placed)*80)
	if many {
		body = append(body, `{"events":[`...)
	}
	fresh := 0
	for i, p := range placed {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendPlacement(body, p)
		if !p.Duplicate {
			fresh++
		}
	}
	if many {
		body = append(body, `]}`...)
	}
	a.metrics.ingested.Add(float64(fresh))
	w.Header().Set("Content-Type", typeJSON)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(body)
}

// keepable refuses an append whose answer is too large to be stored with its Idempotency-Key.
func keepable(events []eventhose.Event) error {
	size := 0
	for i := range events {
		size += 96 + 2*len(events[i].ID)
	}
	if size <= maxKeyedAppend {
		return nil
	}
	return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "Idempotency-Key", Message: "does not work for so many events with ids of their own",
		Fix: "leave it out: the same event with the same id is appended once"}
}

// readEvents reads a body in whichever form it has; many says that the answer is a list.
func readEvents(h http.Header, body []byte) (events []eventhose.Event, many bool, err error) {
	media, err := jsonType(h, typeJSON, typeLines, typeStructured, typeBatch)
	switch {
	case media == typeStructured:
		e, err := decodeStructured(body)
		return []eventhose.Event{e}, false, err
	case media == typeBatch:
		events, err = decodeBatch(body)
		return events, true, err
	case binaryMode(h):
		e, err := decodeBinary(h, body)
		return []eventhose.Event{e}, false, err
	case err != nil:
		return nil, false, err
	case media == typeLines:
		events, err = decodeLines(body)
		return events, true, err
	}
	return decodeEvents(body)
}

// indexed names the event of a list of one, which the log names only when there are several.
func indexed(err error, one bool) error {
	var e *eventhose.Error
	if !one || !errors.As(err, &e) || e.Field == "" || strings.HasPrefix(e.Field, "events") {
		return err
	}
	moved := *e
	moved.Field = "events[0]." + e.Field
	return &moved
}

func appendPlacement(b []byte, p eventhose.Placement) []byte {
	b = append(b, `{"id":`...)
	b = quote(b, p.ID)
	b = append(b, `,"sequence":`...)
	b = strconv.AppendUint(b, uint64(p.Sequence), 10)
	b = append(b, `,"duplicate":`...)
	b = strconv.AppendBool(b, p.Duplicate)
	return append(b, '}')
}

// quote writes a JSON string. What is not UTF-8, which the log does not hold, comes out with replacement characters.
func quote(b []byte, s string) []byte {
	out, err := jsontext.AppendQuote(b, s)
	if err != nil {
		out, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "�"))
	}
	return out
}
