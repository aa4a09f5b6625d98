// Package webhook hands events over as signed HTTP requests (Standard Webhooks 1.0.0).
//
// The receiver is taken for hostile: it may answer never, slowly, endlessly, or with garbage, and it may echo what it was
// sent. So a try ends by its deadline, reads at most 64 KiB of an answer's body, decompresses and follows nothing, and
// what it keeps of an answer is bounded, valid UTF-8, and without the secrets that were sent along.
package webhook

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/sign"
)

// Limits of what is read and kept of an answer.
const (
	maxBody         = 64 << 10 // read
	maxKeptHeaders  = 32
	maxHeaderLength = 1 << 10
)

// UserAgent is sent with each request unless the subscription has its own.
const UserAgent = "Eventhose/1 (+webhooks)"

// Sink is the HTTP sink. A batch holds one event unless its subscription asks for batches.
type Sink struct {
	policy  *egress.Policy
	do      func(*http.Request) (*http.Response, error)
	targets targets
}

var _ sink.Sink = (*Sink)(nil)

// New makes a Sink that sends through client to what policy allows; client is one of that policy. The caller closes the client
// after the last Send.
func New(policy *egress.Policy, client *egress.Client) *Sink {
	return &Sink{policy: policy, do: client.Do}
}

// Check implements sink.Sink: whether the URL could ever be sent to, and the headers may be set.
func (s *Sink) Check(d eventhose.Destination) error {
	if d.Type != eventhose.DestinationWebhook {
		return eventhose.Invalid("destination.type", "must be webhook")
	}
	if _, err := s.policy.ParseURL("destination.url", d.URL); err != nil {
		return err
	}
	return checkHeaders(d.Headers)
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

func (s *Sink) send(parent context.Context, b *sink.Batch, now time.Time) sink.Result {
	if parent.Err() != nil {
		return failed(eventhose.ReasonStopping, "")
	}
	if n := len(b.Items); n == 0 || n > 1 && !b.Subscription.Batch.Batched() {
		return failed(eventhose.ReasonConfig, "a webhook carries one event, and this batch has "+strconv.Itoa(n))
	}
	t, result := s.target(b.Subscription)
	if t == nil {
		return result
	}
	body := encode(b)
	signature, err := sign.AppendSignatures(make([]byte, 0, 192), b.ID, now, body, t.live(now)...)
	if err != nil {
		result = failed(eventhose.ReasonConfig, "the request cannot be signed: "+strings.TrimPrefix(err.Error(), "sign: "))
		result.URL = t.shown
		return result
	}

	ctx, cancel := context.WithTimeout(parent, t.timeout)
	defer cancel()
	var trace trace
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace.hooks()), http.MethodPost, t.url, bytes.NewReader(t.compressed(body)))
	if err != nil {
		result = failed(eventhose.ReasonConfig, "the URL cannot be used")
		result.URL = t.shown
		return result
	}
	r.Header = header(t.header, b, string(signature), now)
	result = s.exchange(r, parent, t, b, &trace)
	result.URL = t.shown
	result.Phases, result.Address = trace.outcome()
	if result.Reason == eventhose.ReasonBlocked {
		result.Address = ""
	}
	return result
}

func failed(reason eventhose.Reason, detail string) sink.Result {
	return sink.Result{Outcome: eventhose.OutcomeFailed, Reason: reason, Message: sink.Explain(reason, detail)}
}

// header answers what is sent with one try: the subscription's own, which every try shares, and ours.
func header(shared http.Header, b *sink.Batch, signature string, now time.Time) http.Header {
	h := make(http.Header, len(shared)+8)
	maps.Copy(h, shared)
	h["Webhook-Id"] = []string{b.ID}
	h["Webhook-Timestamp"] = []string{strconv.FormatInt(now.Unix(), 10)}
	h["Webhook-Signature"] = []string{signature}
	h["Eventhose-Attempt"] = []string{strconv.Itoa(b.Number)}
	if b.Kind == eventhose.AttemptTest {
		h["Eventhose-Test"] = []string{"true"}
		return h // a test is not in the log and has no place there
	}
	h["Eventhose-Sequence"] = []string{strconv.FormatUint(uint64(b.Items[len(b.Items)-1].Event.Sequence), 10)}
	h["Eventhose-Previous-Sequence"] = []string{strconv.FormatUint(uint64(b.Items[0].Previous), 10)}
	if b.Replay != "" {
		h["Eventhose-Replay"] = []string{b.Replay}
	}
	return h
}

// exchange sends the request and judges what comes back.
func (s *Sink) exchange(r *http.Request, parent context.Context, t *target, b *sink.Batch, trace *trace) sink.Result {
	resp, err := s.do(r)
	if err != nil {
		return t.failure(err, parent, r.Context(), trace)
	}
	defer resp.Body.Close() // without draining: what was not read by now is not wanted
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	now := time.Now()

	var result sink.Result
	outcome, reason, slow := sink.Judge(resp.StatusCode)
	switch {
	case outcome == eventhose.OutcomeTaken && err != nil:
		trace.reached(stageRead)
		result = t.failure(err, parent, r.Context(), trace)
	case outcome == eventhose.OutcomeTaken:
		result = t.taken(b, body)
	case reason == eventhose.ReasonRedirect:
		result = failed(reason, redirected(resp))
		result.Message = t.redactor.Redact(result.Message)
	default:
		result = sink.Result{Outcome: outcome, Reason: reason, Slow: slow, Message: sink.ExplainStatus(resp.StatusCode)}
	}
	keep := eventhose.MaxKeptBody
	if result.Outcome == eventhose.OutcomeTaken {
		keep = eventhose.MaxKeptTaken
	} else {
		result.RetryAfter = sink.ParseRetryAfter(resp.Header.Get("Retry-After"), now)
	}
	result.Status = resp.StatusCode
	result.ResponseHeaders = t.keptHeaders(resp.Header)
	result.ResponseBody = sink.CutUTF8(t.redactor.Redact(string(body)), keep)
	return result
}

func redirected(resp *http.Response) string {
	detail := "the receiver answered " + strconv.Itoa(resp.StatusCode)
	if to, err := resp.Location(); err == nil {
		detail += ", a redirect to " + sink.Printable(sink.RedactURL(to.String()), 200)
	}
	return detail
}

// keptHeaders answers the first headers by name, bounded, without cookies and redacted.
func (t *target) keptHeaders(h http.Header) map[string]string {
	if len(h) == 0 {
		return nil
	}
	kept := make(map[string]string, min(len(h), maxKeptHeaders))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if len(kept) == maxKeptHeaders {
			break
		}
		if name == "Set-Cookie" || name == "Set-Cookie2" || len(name) > maxHeaderLength {
			continue
		}
		value := t.redactor.Redact(strings.Join(h[name], ", "))
		kept[t.redactor.Redact(sink.Printable(strings.ToLower(name), maxHeaderLength))] = sink.Printable(value, maxHeaderLength)
	}
	return kept
}
