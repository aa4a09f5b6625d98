// Package webhook hands events over as signed HTTP requests (Standard Webhooks 1.0.0).
//
// The receiver is taken for hostile: it may answer never, slowly, endlessly, or with garbage, and it may echo what it was
// sent. So a try ends by its deadline, reads at most 64 KiB of an answer's body, packed or unpacked, follows nothing, and
// what it keeps of an answer is bounded, valid UTF-8, and without the secrets that were sent along.
package webhook

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/sign"
)

// UserAgent is sent with each request unless the subscription has its own.
const UserAgent = "Eventhose/1 (+webhooks)"

// Sink is the HTTP sink. A batch holds one event unless its subscription asks for batches.
type Sink struct {
	policy  *egress.Policy
	client  *egress.Client
	targets targets
}

var _ sink.Sink = (*Sink)(nil)

// New makes a Sink that sends through client to what policy allows; client is one of that policy. The caller closes the client
// after the last Send.
func New(policy *egress.Policy, client *egress.Client) *Sink {
	return &Sink{policy: policy, client: client}
}

// Check implements sink.Sink: whether the URL could ever be sent to, and the headers may be set.
func (s *Sink) Check(d eventhose.Destination) error {
	if d.Type != eventhose.DestinationWebhook {
		return eventhose.Invalid("destination.type", "must be webhook")
	}
	if _, err := s.policy.ParseURL("destination.url", d.URL); err != nil {
		return err
	}
	if err := checkHeaders(d.Headers); err != nil {
		return err
	}
	return checkNames(d.Headers)
}

// Send implements sink.Sink. A 2xx counts once its body has been read, to its end or to 64 KiB. Failures that are the
// subscription's own (a secret that does not parse, a URL that is not allowed any more) have ReasonConfig or ReasonBlocked
// and nothing was sent.
func (s *Sink) Send(ctx context.Context, b *sink.Batch) sink.Result {
	started := time.Now()
	r := s.send(ctx, b, started)
	r.Started = started
	r.Duration = time.Since(started)
	return r
}

func (s *Sink) send(ctx context.Context, b *sink.Batch, now time.Time) sink.Result {
	if ctx.Err() != nil {
		return failed(eventhose.ReasonStopping, "")
	}
	if n := len(b.Items); n == 0 || n > 1 && !b.Subscription.Batch.Batched() {
		return failed(eventhose.ReasonConfig, "a webhook carries one event, and this batch has "+strconv.Itoa(n))
	}
	t, result := s.target(b.Subscription)
	if t == nil {
		return result
	}
	w := works.Get().(*work)
	defer w.giveBack()
	w.body = appendBody(w.body[:0], b)
	if result, ok := w.sign(t, b, w.body, now); !ok {
		return result
	}
	w.header = appendHeader(w.header[:0], b, w.signature, now)
	return s.exchange(ctx, t, b, w)
}

// work is what one try needs and the next can use again.
type work struct {
	body, signature, header []byte // of the request
	answer                  egress.Answer
}

var works = sync.Pool{New: func() any { return new(work) }}

// maxKeptBody is the size of a request's body above which its buffer is not used again.
const maxKeptBody = 64 << 10

func (w *work) giveBack() {
	if cap(w.body) > maxKeptBody {
		w.body = nil
	}
	w.answer.Forget()
	works.Put(w)
}

// sign signs a body; if that cannot be done, it answers what to answer.
func (w *work) sign(t *target, b *sink.Batch, body []byte, now time.Time) (result sink.Result, ok bool) {
	var err error
	if w.signature, err = sign.AppendSignatures(w.signature[:0], b.ID, now, body, t.live(now)...); err != nil {
		result = failed(eventhose.ReasonConfig, "the request cannot be signed: "+strings.TrimPrefix(err.Error(), "sign: "))
		result.URL = t.shown
	}
	return result, err == nil
}

func failed(reason eventhose.Reason, detail string) sink.Result {
	return sink.Result{Outcome: eventhose.OutcomeFailed, Reason: reason, Message: sink.Explain(reason, detail)}
}

// appendHeader appends the header lines of one try, beside those that every try of its subscription has.
func appendHeader(h []byte, b *sink.Batch, signature []byte, now time.Time) []byte {
	var digits [20]byte
	h = egress.AppendHeader(h, "Webhook-Id", b.ID)
	h = egress.AppendHeader(h, "Webhook-Timestamp", strconv.AppendInt(digits[:0], now.Unix(), 10))
	h = egress.AppendHeader(h, "Webhook-Signature", signature)
	h = egress.AppendHeader(h, "Eventhose-Attempt", strconv.AppendInt(digits[:0], int64(b.Number), 10))
	if b.Kind == eventhose.AttemptTest {
		return egress.AppendHeader(h, "Eventhose-Test", "true") // a test is not in the log and has no place there
	}
	h = egress.AppendHeader(h, "Eventhose-Sequence", strconv.AppendUint(digits[:0], uint64(b.Items[len(b.Items)-1].Event.Sequence), 10))
	h = egress.AppendHeader(h, "Eventhose-Previous-Sequence", strconv.AppendUint(digits[:0], uint64(b.Items[0].Previous), 10))
	if b.Replay != "" {
		h = egress.AppendHeader(h, "Eventhose-Replay", b.Replay)
	}
	return h
}

// exchange sends the request and judges what comes back.
func (s *Sink) exchange(ctx context.Context, t *target, b *sink.Batch, w *work) sink.Result {
	a := &w.answer
	err := s.client.Do(ctx, &egress.Request{Target: t.out, Header: w.header, Body: t.compressed(w.body), Timeout: t.timeout, Still: b.Still}, a)
	result := t.judge(ctx, err, b, a)
	result.URL, result.Address = t.shown, a.Address
	result.Phases = eventhose.Phases{DNS: eventhose.Duration(a.DNS), Connect: eventhose.Duration(a.Connect), TLS: eventhose.Duration(a.TLS), Wait: eventhose.Duration(a.Wait)}
	if result.Reason == eventhose.ReasonBlocked {
		result.Address, result.Phases.Connect = "", 0
	}
	return result
}

// judge says what an exchange means. ctx is the engine's.
func (t *target) judge(ctx context.Context, err error, b *sink.Batch, a *egress.Answer) (result sink.Result) {
	if a.Status == 0 {
		return t.failure(ctx, err, a)
	}
	outcome, reason, slow := sink.Judge(a.Status)
	switch {
	case outcome == eventhose.OutcomeTaken && err != nil:
		result = t.failure(ctx, err, a)
	case outcome == eventhose.OutcomeTaken:
		result = t.taken(b, a)
	case reason == eventhose.ReasonRedirect:
		result = failed(reason, t.redirected(a))
		result.Message = t.redactor.Redact(result.Message)
	default:
		result = sink.Result{Outcome: outcome, Reason: reason, Slow: slow, Message: sink.ExplainStatus(a.Status)}
	}
	keep := eventhose.MaxKeptBody
	if result.Outcome == eventhose.OutcomeTaken {
		keep = eventhose.MaxKeptTaken
	} else {
		result.RetryAfter = sink.ParseRetryAfter(a.Header.Get("Retry-After"), time.Now())
	}
	result.Status = a.Status
	result.ResponseHeaders = t.keptHeaders(a.Header)
	if len(a.Body) > 0 {
		result.ResponseBody = sink.CutUTF8(t.redactor.Redact(string(a.Body)), keep)
	}
	return result
}

func (t *target) redirected(a *egress.Answer) string {
	detail := "the receiver answered " + strconv.Itoa(a.Status)
	if location := a.Header.Get("Location"); location != "" {
		if to, err := t.url.Parse(location); err == nil {
			detail += ", a redirect to " + sink.Printable(sink.RedactURL(to.String()), 200)
		}
	}
	return detail
}
