package inspector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
	"github.com/eventhose/eventhose/internal/overload"
	"github.com/eventhose/eventhose/sign"
)

const (
	// bodyTime is how long a body may take to arrive, keepTime how long a request may take to be written down.
	bodyTime = 30 * time.Second
	keepTime = 10 * time.Second
)

// What became of requests, in metrics.
const (
	outcomeKept    = "kept"
	outcomeUnkept  = "unkept"  // answered as any other: more came than is kept, or it could not be
	outcomeUnknown = "unknown" // no such inspector
	outcomeRefused = "refused" // too many are under way, or the store is away: the sender is told to come again
	outcomeUnread  = "unread"  // the body did not arrive
)

// serve answers a request whose path, behind what led to the door, is "ins_…" or "ins_…/anything". At most limit bytes are read
// of its body.
func (d *Door) serve(w http.ResponseWriter, r *http.Request, path string, limit int64) {
	started := time.Now()
	if r.ContentLength != 0 {
		// Before anything is decided: net/http reads what is left of a refused request's body before it answers.
		_ = http.NewResponseController(w).SetReadDeadline(started.Add(bodyTime)) // a writer in a test may have none
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	// What an inspector answers is its tenant's, on the server's origin: it may run nothing there.
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
	id, rest, _ := strings.Cut(path, "/")
	i, err := d.find(r.Context(), eventhose.InspectorID(id))
	switch {
	case eventhose.CodeOf(err) == eventhose.CodeNotFound:
		d.refuse(w, outcomeUnknown, http.StatusNotFound, "there is no such inspector")
		return
	case err != nil, !d.underWay.Take(i.Tenant, 1):
		d.later(w)
		return
	}
	defer d.underWay.Give(i.Tenant, 1)
	body, give, err := d.read(r, i.Tenant, limit)
	defer give()
	if errors.Is(err, overload.ErrNoRoom) {
		d.later(w)
		return
	} else if err != nil {
		d.refuse(w, outcomeUnread, http.StatusBadRequest, "the body did not arrive")
		return
	}
	if int64(len(body)) <= limit { // of a longer one net/http reads what is left, and would wait for it for ever
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // or the connection would be given up while the answer is held
	}
	request := eventhose.InspectedRequest{Time: started.UTC().Truncate(time.Microsecond), Method: r.Method, Path: text("/" + rest),
		Query: text(r.URL.RawQuery), Headers: headersOf(r)}
	request.SetContent(body)
	signature, signed := d.verify(r.Context(), &i, r.Header, body, limit)
	request.Signature = signature
	a := answerOf(&i)
	d.hold(r.Context(), time.Duration(i.Delay))
	if request.Answered = a.status; r.Context().Err() != nil {
		request.Answered = 0
	}
	request.Took = eventhose.Duration(time.Since(started))
	d.keep(r.Context(), &i, request, signed)
	a.write(w)
}

func (d *Door) find(ctx context.Context, id eventhose.InspectorID) (eventhose.Inspector, error) {
	if !eventhose.ValidInspectorID(string(id)) {
		return eventhose.Inspector{}, eventhose.NotFound("inspector")
	}
	return d.inspectors.FindInspector(ctx, id)
}

// refuse answers what is no inspector's.
func (d *Door) refuse(w http.ResponseWriter, outcome string, status int, why string) {
	d.requests.WithLabelValues(outcome).Inc()
	http.Error(w, why, status)
}

// later tells the sender to come again.
func (d *Door) later(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	d.refuse(w, outcomeRefused, http.StatusServiceUnavailable, "too much comes at once, or the store is away: come again")
}

// read reads a body, or its first limit bytes and one more, which tells that it is longer. give must be called in any case.
func (d *Door) read(r *http.Request, tenant eventhose.TenantID, limit int64) (body []byte, give func(), err error) {
	declared := r.ContentLength
	if declared > limit {
		declared = limit + 1
	}
	return d.bodies.Read(io.LimitReader(r.Body, limit+1), declared, tenant)
}

// text is what came, as text: what is no UTF-8 is read as ISO 8859-1, which knows every byte.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// headersOf are the headers as they came but for our own cookies, with what net/http has put elsewhere.
func headersOf(r *http.Request) map[string][]string {
	h := maps.Clone(map[string][]string(access.WithoutCookies(r.Header)))
	if h == nil {
		h = map[string][]string{}
	}
	h["Host"] = []string{r.Host}
	if len(r.TransferEncoding) > 0 {
		h["Transfer-Encoding"] = r.TransferEncoding
	}
	for name, values := range h {
		values = slices.Clone(values)
		for i := range values {
			values[i] = text(values[i])
		}
		h[name] = values
	}
	return h
}

// verify says whether a request is signed with the inspector's secret, and answers the body as it was signed, which is before it
// was compressed; if it is not signed, as it came.
func (d *Door) verify(ctx context.Context, i *eventhose.Inspector, h http.Header, body []byte, limit int64) (signature string, signed []byte) {
	if i.Secret == "" {
		return eventhose.SignatureNone, body
	}
	key, err := sign.ParseVerifier(string(i.Secret))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("the body is longer than %d bytes, and was not read to its end", limit)
	}
	if err == nil {
		if h.Get("Content-Encoding") != "" { // what it decompresses to is counted nowhere else
			select {
			case d.unpacking <- struct{}{}:
				defer func() { <-d.unpacking }()
			case <-ctx.Done():
				return eventhose.SignatureFailed + "the sender left before it was its turn", body
			}
		}
		signed, err = sign.VerifyRequest(&http.Request{Header: h, Body: io.NopCloser(bytes.NewReader(body))}, limit, key)
	}
	if err != nil {
		return eventhose.SignatureFailed + text(strings.TrimPrefix(err.Error(), "sign: ")), body
	}
	return eventhose.SignatureVerified, signed
}

// answer is what a sender gets.
type answer struct {
	status int
	body   string
}

func answerOf(i *eventhose.Inspector) answer {
	if i.FailRate > 0 && rand.Float64() < i.FailRate {
		return answer{http.StatusInternalServerError, "failed on purpose: fail_rate is " + strconv.FormatFloat(i.FailRate, 'g', -1, 64) + "\n"}
	}
	return answer{i.Status, i.Body}
}

func (a *answer) write(w http.ResponseWriter) {
	h := w.Header()
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		w.WriteHeader(a.status)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if json.Valid([]byte(a.body)) {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body) // the sender has gone: nothing is left to tell it
}

// hold waits until it is time to answer, or nobody waits for that any more.
func (d *Door) hold(ctx context.Context, delay time.Duration) {
	if delay <= 0 {
		return
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-d.draining.Done():
	}
}

// keep writes a request down, if there is an allowance for it, and tells who waits for it.
func (d *Door) keep(ctx context.Context, i *eventhose.Inspector, r eventhose.InspectedRequest, signed []byte) {
	outcome := outcomeUnkept
	if now := time.Now(); d.pace.Allows(i.ID, now) && d.tenantPace.Allows(i.Tenant, now) {
		keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime) // also if the sender has gone
		kept, err := d.inspectors.KeepInspected(keeping, i.Tenant, i.ID, r)
		cancel()
		switch {
		case err == nil:
			r, outcome = kept, outcomeKept
			d.arrivals.tell(i.ID)
		case eventhose.CodeOf(err) != eventhose.CodeNotFound: // or it was removed a moment ago
			d.logger.LogAttrs(ctx, slog.LevelWarn, "inspector: a request is not kept", slog.String("tenant", string(i.Tenant)), slog.Any("error", err))
		}
	}
	d.requests.WithLabelValues(outcome).Inc()
	if d.observe != nil {
		d.observe(i.ID, r, signed)
	}
}
