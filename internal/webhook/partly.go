package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
)

// refusal is one event of a batch that the receiver did not take, as it says so.
type refusal struct {
	ID    string          `json:"id"`
	Error json.RawMessage `json:"error"`
}

// text is the error as a text, whatever JSON it is.
func (r *refusal) text() string {
	var s string
	switch {
	case len(r.Error) == 0, string(r.Error) == "null":
		return ""
	case json.Unmarshal(r.Error, &s) == nil:
		return s
	}
	return string(r.Error)
}

// refused reads the body of a 2xx answer to a batch: {"failed":[{"id":"evt_1","error":"no such order"}]}. Everything else,
// JSON or not, refuses nothing, but for what says in another form that something failed: that has a refusal without an id. longer
// says that body is only the beginning of the answer; ended is false if what failed goes on beyond it.
func refused(body []byte, longer bool) (list []refusal, ended bool) {
	body = bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\ufeff")), " \t\r\n") // RFC 8259, section 8.1: a byte order mark may be passed over
	if len(body) == 0 || body[0] != '{' || !longer && !json.Valid(body) {
		return nil, true
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if _, err := d.Token(); err != nil {
		return nil, true
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return list, true
		}
		if text, ok := name.(string); !ok || !strings.EqualFold(text, "failed") {
			var other json.RawMessage
			if d.Decode(&other) != nil {
				return list, true
			}
			continue
		}
		more, ended := failures(d)
		if list = append(list, more...); !ended {
			return list, false
		}
	}
	return list, true
}

// failures reads the value of "failed".
func failures(d *json.Decoder) (list []refusal, ended bool) {
	value, err := d.Token()
	if err != nil {
		return nil, false
	}
	switch value {
	case nil, false, 0.0, "":
		return nil, true
	case json.Delim('['):
		for d.More() {
			var r refusal
			var kind *json.UnmarshalTypeError // it is JSON, and what fits is read
			if err := d.Decode(&r); err != nil && !errors.As(err, &kind) {
				return list, false
			}
			list = append(list, r)
		}
	case json.Delim('{'):
		for d.More() {
			var member json.RawMessage
			if _, err := d.Token(); err != nil || d.Decode(&member) != nil {
				return list, false
			}
			list = []refusal{{}}
		}
	default:
		return []refusal{{}}, true
	}
	_, err = d.Token()
	return list, err == nil
}

// unpacked answers the body of an answer, decompressed if it is gzip, which a receiver may choose though nobody asked for it. At most
// egress.MaxBody comes of it; longer says that it is only the beginning.
func unpacked(a *egress.Answer) (body []byte, longer bool) {
	longer = len(a.Body) == egress.MaxBody
	if !strings.EqualFold(a.Header.Get("Content-Encoding"), "gzip") {
		return a.Body, longer
	}
	z, err := gzip.NewReader(bytes.NewReader(a.Body))
	if err != nil {
		return a.Body, longer
	}
	body, err = io.ReadAll(io.LimitReader(z, egress.MaxBody))
	return body, err != nil || len(body) == egress.MaxBody
}

// maxRefusal bounds what is kept of what a receiver says about one event.
const maxRefusal = 300

// taken says what a 2xx with this body means. For a batch the receiver may tell in it what it did not take. What it says of
// failed events counts for all events of the batch if it is longer than what is read of an answer, or does not name events of
// this batch: nothing is lost by that.
func (t *target) taken(b *sink.Batch, a *egress.Answer) sink.Result {
	if !b.Subscription.Batch.Batched() {
		return sink.Result{Outcome: eventhose.OutcomeTaken}
	}
	list, ended := refused(unpacked(a))
	if len(list) == 0 && ended {
		return sink.Result{Outcome: eventhose.OutcomeTaken}
	}
	why := make(map[string]string, len(list))
	for i := range list {
		why[list[i].ID] = sink.Printable(t.redactor.Redact(list[i].text()), maxRefusal)
	}
	named := make(map[string]bool, len(why))
	for i := range b.Items {
		if _, is := why[b.Items[i].Event.ID]; is {
			named[b.Items[i].Event.ID] = true
		}
	}
	all := !ended || len(named) < len(why)
	var failures []sink.Refused
	for i := range b.Items {
		if id := b.Items[i].Event.ID; all || named[id] {
			failures = append(failures, sink.Refused{ID: id, Message: why[id]})
		}
	}
	detail := fmt.Sprintf("the receiver did not take %d of the %d events", len(failures), len(b.Items))
	switch {
	case !ended:
		detail = fmt.Sprintf("the receiver's list of failed events is longer than the %d KiB that are read, so that all count as failed", egress.MaxBody>>10)
	case all:
		detail = `the receiver's answer says that events failed and does not name each by its id, {"failed": [{"id": …}]}, so that all count as failed`
	}
	result := failed(eventhose.ReasonPartly, detail)
	result.Failed = failures
	return result
}
