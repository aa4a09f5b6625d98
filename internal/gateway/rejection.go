package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Reason is why a request was rejected. The set is closed.
type Reason string

const (
	// ReasonMethod: not a method that this provider sends.
	ReasonMethod Reason = "method"
	// ReasonTooLarge: the body is longer than MaxBody.
	ReasonTooLarge Reason = "too_large"
	// ReasonEncoded: the body is compressed.
	ReasonEncoded Reason = "encoded"
	// ReasonHeaderMissing: a header that the scheme needs is missing or empty.
	ReasonHeaderMissing Reason = "header_missing"
	// ReasonHeaderRepeated: such a header came more than once, so that others may have read another request than we.
	ReasonHeaderRepeated Reason = "header_repeated"
	// ReasonHeaderMalformed: such a header is not of the form that the provider writes.
	ReasonHeaderMalformed Reason = "header_malformed"
	// ReasonBody: the body is empty, or has not, or has twice, what the scheme needs of it.
	ReasonBody Reason = "body"
	// ReasonClock: the signed time is further from ours than the tolerance.
	ReasonClock Reason = "clock"
	// ReasonNoMatch: no signature is right for any of the source's secrets.
	ReasonNoMatch Reason = "no_match"
	// ReasonReencoded: no signature is right, and one would be if something on the way had not changed the body.
	ReasonReencoded Reason = "reencoded"
	// ReasonOtherSource: another source's secret is the right one. See Owner.
	ReasonOtherSource Reason = "other_source"
	// ReasonCertificate: the certificate, or where it is to come from, is not the provider's.
	ReasonCertificate Reason = "certificate"
	// ReasonNotAllowed: verified, and of a topic or an origin that the source's settings do not list.
	ReasonNotAllowed Reason = "not_allowed"
	// ReasonUnavailable: what is needed to verify cannot be reached now. The sender is told to come again.
	ReasonUnavailable Reason = "unavailable"
)

// Reasons lists every reason there is.
func Reasons() []Reason {
	return []Reason{ReasonMethod, ReasonTooLarge, ReasonEncoded, ReasonHeaderMissing, ReasonHeaderRepeated, ReasonHeaderMalformed,
		ReasonBody, ReasonClock, ReasonNoMatch, ReasonReencoded, ReasonOtherSource, ReasonCertificate, ReasonNotAllowed, ReasonUnavailable}
}

// Rejection says why a request is not taken, to the owner of the source and never to the sender.
type Rejection struct {
	Reason Reason
	// Detail is a sentence without a full stop. It holds nothing of the source's secrets, and is printable. What came in a
	// header may stand in it.
	Detail string
}

func (r *Rejection) Error() string { return string(r.Reason) + ": " + r.Detail }

// Status is what the sender is answered.
func (r *Rejection) Status() int {
	switch r.Reason {
	case ReasonMethod:
		return http.StatusMethodNotAllowed
	case ReasonTooLarge:
		return http.StatusRequestEntityTooLarge
	case ReasonEncoded:
		return http.StatusUnsupportedMediaType
	case ReasonUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusUnauthorized
}

func reject(reason Reason, format string, args ...any) *Rejection {
	return &Rejection{reason, fmt.Sprintf(format, args...)}
}

func rejected(r *Rejection) Verdict {
	return Verdict{Rejection: r, Answer: Answer{Status: r.Status()}}
}

// noMatch is the rejection of a signature of the right form.
func noMatch(secrets int) *Rejection {
	if secrets == 1 {
		return reject(ReasonNoMatch, "the secret does not match: it is another one's, or the body was changed on the way")
	}
	return reject(ReasonNoMatch, "none of the %d secrets matches: they are others', or the body was changed on the way", secrets)
}

// quoted shows what came from outside: printable, and short.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%+q", s)
}

// maxReencoded bounds the bodies for which variants are tried, since a stranger can make us try them.
const maxReencoded = 64 << 10

// reencoded looks for the change of the body that would make its signature right, and says what it is. Whoever put a
// parser or a proxy in front of us sees then what is wrong; the request stays rejected.
func (v *Verifier) reencoded(ctx context.Context, r *Request) (change string, found bool) {
	if len(r.Body) > maxReencoded {
		return "", false
	}
	for _, variant := range []struct {
		change string
		body   func([]byte) []byte
	}{
		{"with a line break at its end", func(b []byte) []byte { return append(bytes.Clone(b), '\n') }},
		{"without white space at its ends", bytes.TrimSpace},
		{"with line breaks as CR LF", func(b []byte) []byte {
			return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		}},
		{"with line breaks as LF", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }},
		{"without spaces between JSON tokens", func(b []byte) []byte {
			value := jsontext.Value(bytes.Clone(b))
			if value.Compact() != nil {
				return nil
			}
			return value
		}},
		{"with a space after each colon and comma", func(b []byte) []byte {
			value := jsontext.Value(bytes.Clone(b))
			if value.Format(jsontext.SpaceAfterColon(true), jsontext.SpaceAfterComma(true), jsontext.PreserveRawStrings(true)) != nil {
				return nil
			}
			return value
		}},
	} {
		body := variant.body(r.Body)
		if len(body) == 0 || bytes.Equal(body, r.Body) {
			continue
		}
		changed := *r
		changed.Body = body
		if v.scheme.check(ctx, &changed) == nil {
			return variant.change, true
		}
	}
	return "", false
}

// Owner answers which of a tenant's other sources verifies a request that this one rejected with ReasonNoMatch, by the
// name that others has for it. The caller bounds how many there are. Sources that reach out are passed over.
func Owner(ctx context.Context, r *Request, others map[string]*Verifier) (name string, found bool) {
	for name, v := range others {
		if !v.scheme.networked && !v.scheme.anyBody && v.scheme.check(ctx, r) == nil {
			return name, true
		}
	}
	return "", false
}
