package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

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
// JSON or not, refuses nothing. longer says that body is only the beginning of the answer; ended is false if the list goes on
// beyond it.
func refused(body []byte, longer bool) (list []refusal, ended bool) {
	body = bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 || body[0] != '{' {
		return nil, true
	}
	var answer struct {
		Failed []refusal `json:"failed"`
	}
	var kind *json.UnmarshalTypeError // it is JSON, and what fits is read
	if err := json.Unmarshal(body, &answer); err == nil || errors.As(err, &kind) {
		return answer.Failed, true
	}
	if longer {
		return beginning(body)
	}
	return nil, true
}

// beginning reads the list out of an object that is cut off somewhere.
func beginning(body []byte) (list []refusal, ended bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	if _, err := d.Token(); err != nil {
		return nil, true
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, true
		}
		if text, ok := name.(string); !ok || !strings.EqualFold(text, "failed") {
			var other json.RawMessage
			if d.Decode(&other) != nil {
				return nil, true
			}
			continue
		}
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			return nil, true
		}
		for d.More() {
			var r refusal
			var kind *json.UnmarshalTypeError
			if err := d.Decode(&r); err != nil && !errors.As(err, &kind) {
				return list, false
			}
			list = append(list, r)
		}
		_, err = d.Token()
		return list, err == nil
	}
	return nil, true
}

// maxRefusal bounds what is kept of what a receiver says about one event.
const maxRefusal = 300

// taken says what a 2xx with this body means. For a batch the receiver may tell in it what it did not take. A list that is
// cut off, since it is longer than what is read of an answer, counts for all events of the batch: nothing is lost by that.
func (t *target) taken(b *sink.Batch, body []byte) sink.Result {
	all := sink.Result{Outcome: eventhose.OutcomeTaken}
	if !b.Subscription.Batch.Batched() {
		return all
	}
	list, ended := refused(body, len(body) == egress.MaxBody)
	if len(list) == 0 && ended {
		return all
	}
	why := make(map[string]string, len(list))
	for i := range list {
		why[list[i].ID] = sink.Printable(t.redactor.Redact(list[i].text()), maxRefusal)
	}
	var failures []sink.Refused
	for i := range b.Items {
		id := b.Items[i].Event.ID
		if text, named := why[id]; named || !ended {
			failures = append(failures, sink.Refused{ID: id, Message: text})
		}
	}
	if len(failures) == 0 {
		return all
	}
	detail := fmt.Sprintf("the receiver did not take %d of the %d events", len(failures), len(b.Items))
	if !ended {
		detail = fmt.Sprintf("the receiver's list of failed events is longer than the %d KiB that are read, so that all count as failed", egress.MaxBody>>10)
	}
	result := failed(eventhose.ReasonPartly, detail)
	result.Failed = failures
	return result
}
