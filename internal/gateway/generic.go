package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/eventhose/eventhose"
)

// Scheme is an HMAC in a header, as data: what most providers do, each with its own names. Each row of rows.go has one,
// and so does a source of the provider "generic".
type Scheme struct {
	// Header holds the signature.
	Header string `json:"header"`
	// Prefix stands before the signature: "sha256=". It is part of the scheme; a signature without it is refused.
	Prefix string `json:"prefix,omitempty"`
	// Separator stands between several signatures, or between pairs; "" if there is one signature only.
	Separator string `json:"separator,omitempty"`
	// SignatureName and TimestampName make the header a list of pairs: "t=1700000000,v1=…" has "v1" and "t".
	SignatureName string `json:"signature_name,omitempty"`
	TimestampName string `json:"timestamp_name,omitempty"`
	// Content is what is signed, a template over {body}, {timestamp}, {id}, {url} and {method}; "" is "{body}".
	Content string `json:"content,omitempty"`
	// Hash is SHA256 if "".
	Hash Hash `json:"hash,omitempty"`
	// Encoding is how the signature is written; Hex if "".
	Encoding Encoding `json:"encoding,omitempty"`
	// Key is how the secret is written; Text if "". KeyPrefix is taken from its beginning first.
	Key       Encoding `json:"key,omitempty"`
	KeyPrefix string   `json:"key_prefix,omitempty"`
	// TimestampHeader holds {timestamp}, if it is not a pair; Unit is how it is written, Seconds if "".
	TimestampHeader string `json:"timestamp_header,omitempty"`
	Unit            Unit   `json:"timestamp_unit,omitempty"`
	// IDHeader holds {id}.
	IDHeader string `json:"id_header,omitempty"`
	// Challenge is a parameter of the query that is answered as it came when the provider tries the address with GET.
	Challenge string `json:"challenge,omitempty"`

	// also are headers that may hold a signature beside Header, or in its place.
	also []string
	// alsoEncoding is tried where Encoding does not fit.
	alsoEncoding Encoding
	// spaced allows spaces before a pair.
	spaced bool
	// urls answers the forms in which the URL may have been signed; nil is the one form.
	urls func(url string) []string
}

const maxTemplate = 256

// validate answers the first fault, with its field.
func (s *Scheme) validate() error {
	at := func(name, format string, args ...any) error {
		return eventhose.Invalid(fieldScheme+"."+name, format, args...)
	}
	for name, header := range map[string]string{"header": s.Header, "timestamp_header": s.TimestampHeader, "id_header": s.IDHeader} {
		if header != "" && (len(header) > 128 || !httpguts.ValidHeaderFieldName(header)) {
			return at(name, "is not the name of a header")
		}
	}
	for name, short := range map[string]string{"prefix": s.Prefix, "separator": s.Separator, "signature_name": s.SignatureName,
		"timestamp_name": s.TimestampName, "key_prefix": s.KeyPrefix, "challenge": s.Challenge} {
		if len(short) > 64 || !printable(short) {
			return at(name, "must be at most 64 bytes of printable UTF-8")
		}
	}
	switch {
	case s.Header == "":
		return at("header", "is required: the header that holds the signature")
	case (s.SignatureName == "") != (s.TimestampName == ""):
		return at("signature_name", "and timestamp_name come together")
	case s.SignatureName != "" && s.Separator == "":
		return at("separator", "is required between pairs")
	case s.SignatureName != "" && s.TimestampHeader != "":
		return at("timestamp_header", "cannot be beside timestamp_name")
	case s.Hash != "" && s.Hash != SHA1 && s.Hash != SHA256 && s.Hash != SHA512:
		return at("hash", "must be sha1, sha256 or sha512")
	case s.Encoding != "" && s.Encoding != Hex && s.Encoding != Base64 && s.Encoding != Base64URL:
		return at("encoding", "must be hex, base64 or base64url")
	case s.Key != "" && s.Key != Text && s.Key != Hex && s.Key != Base64 && s.Key != Base64URL:
		return at("key", "must be text, hex, base64 or base64url")
	case s.Unit != "" && s.Unit != Seconds && s.Unit != Milliseconds && s.Unit != RFC3339:
		return at("timestamp_unit", "must be s, ms or rfc3339")
	}
	t, err := parseTemplate(s.Content)
	if err != nil {
		return err
	}
	switch {
	case !t.has(partBody):
		return at("content", "must have {body}, or anything could be put in its place")
	case t.has(partTimestamp) && !s.timed():
		return at("timestamp_header", "is required, since {timestamp} is signed")
	case !t.has(partTimestamp) && s.timed():
		return at("content", "must have {timestamp}: a time that is not signed proves nothing")
	case t.has(partID) != (s.IDHeader != ""):
		return at("id_header", "and {id} come together")
	}
	return nil
}

func (s *Scheme) timed() bool { return s.TimestampHeader != "" || s.TimestampName != "" }

// open makes the verification of a source.
func (s Scheme) open(c *configuration, usual time.Duration) (scheme, error) {
	if err := s.validate(); err != nil {
		return scheme{}, err
	}
	t, err := parseTemplate(s.Content)
	if err != nil {
		return scheme{}, err
	}
	if t.has(partURL) && c.PublicURL == "" {
		return scheme{}, eventhose.Invalid(fieldPublicURL, "is required: it is part of what is signed")
	}
	if s.Key == "" {
		s.Key = Text
	}
	if s.Encoding == "" {
		s.Encoding = Hex
	}
	keys, err := c.keys(s.Key, s.KeyPrefix)
	if err != nil {
		return scheme{}, err
	}
	m, tolerance := newMACs(s.Hash, keys...), c.tolerance(usual)
	urlsOf := func(r *Request) []string {
		switch {
		case !t.has(partURL):
			return []string{""}
		case s.urls != nil:
			return s.urls(c.signedURL(r))
		}
		return []string{c.signedURL(r)}
	}
	var stamp func(*Request) [][]byte
	if t.has(partTimestamp) || t.has(partID) {
		stamp = func(r *Request) [][]byte {
			_, timestamp, rejection := s.read(r.Header)
			if rejection != nil {
				return nil // it was verified in another way
			}
			return t.fill(r, timestamp, r.Header.Get(s.IDHeader), urlsOf(r)[0])
		}
	}
	return scheme{stamp: stamp, check: func(_ context.Context, r *Request) *Rejection {
		texts, timestamp, rejection := s.read(r.Header)
		if rejection != nil {
			return rejection
		}
		if s.timed() {
			where := "header " + s.TimestampHeader
			if s.TimestampName != "" {
				where = s.TimestampName + " of header " + s.Header
			}
			if rejection := checkClock(where, timestamp, s.Unit, r.Received, tolerance); rejection != nil {
				return rejection
			}
		}
		var id string
		if s.IDHeader != "" {
			if id, rejection = one(r.Header, s.IDHeader); rejection != nil {
				return rejection
			}
		}
		signatures := s.decode(texts)
		if len(signatures) == 0 {
			return malformed(s.Header, texts[0], fmt.Sprintf("%s%s of %d bytes", s.Prefix, s.Encoding, m.size))
		}
		for _, url := range urlsOf(r) {
			if m.match(signatures, t.fill(r, timestamp, id, url)...) {
				return nil
			}
		}
		return noMatch(len(keys))
	}}, nil
}

// read answers the signatures as text, without what is around them, and the timestamp if there is one. There is at least
// one signature if it answers no rejection.
func (s *Scheme) read(h http.Header) (signatures []string, timestamp string, rejection *Rejection) {
	if s.SignatureName != "" {
		value, rejection := one(h, s.Header)
		if rejection != nil {
			return nil, "", rejection
		}
		timestamp, signatures, rejection = s.pairs(value)
		return signatures, timestamp, rejection
	}
	for _, name := range append([]string{s.Header}, s.also...) {
		value, rejection := one(h, name)
		if rejection != nil && rejection.Reason == ReasonHeaderMissing && len(s.also) > 0 {
			continue
		}
		if rejection != nil {
			return nil, "", rejection
		}
		list, rejection := split(name, value, s.Separator)
		if rejection != nil {
			return nil, "", rejection
		}
		signatures = append(signatures, list...)
	}
	if len(signatures) == 0 {
		return nil, "", reject(ReasonHeaderMissing, "header %s is missing, and so is %s", s.Header, s.also[0])
	}
	if s.TimestampHeader != "" {
		if timestamp, rejection = one(h, s.TimestampHeader); rejection != nil {
			return nil, "", rejection
		}
	}
	return signatures, timestamp, nil
}

// decode answers the bytes of those signatures that are of the right form.
func (s *Scheme) decode(texts []string) (signatures [][]byte) {
	for _, t := range texts {
		rest, ok := strings.CutPrefix(t, s.Prefix)
		if !ok {
			continue
		}
		for _, e := range []Encoding{s.Encoding, s.alsoEncoding} {
			if b, ok := e.decode(rest); e != "" && ok && len(b) == s.Hash.size() {
				signatures = append(signatures, b)
			}
		}
	}
	return signatures
}

// The variables of a template.
const (
	partBody      = "{body}"
	partTimestamp = "{timestamp}"
	partID        = "{id}"
	partURL       = "{url}"
	partMethod    = "{method}"
)

// template is what is signed: variables, and text between them.
type template []string

func parseTemplate(content string) (t template, err error) {
	if content == "" {
		content = partBody
	}
	if len(content) > maxTemplate || !printable(content) {
		return nil, eventhose.Invalid(fieldScheme+".content", "must be at most %d bytes of printable UTF-8", maxTemplate)
	}
	for content != "" {
		open := strings.IndexByte(content, '{')
		if open < 0 {
			return append(t, content), nil
		}
		if open > 0 {
			t = append(t, content[:open])
		}
		content = content[open:]
		end := strings.IndexByte(content, '}')
		if end < 0 {
			return nil, eventhose.Invalid(fieldScheme+".content", "has { without }")
		}
		switch name := content[:end+1]; name {
		case partBody, partTimestamp, partID, partURL, partMethod:
			t = append(t, name)
		default:
			return nil, eventhose.Invalid(fieldScheme+".content", "has %s, and may have {body}, {timestamp}, {id}, {url} and {method}", quoted(name))
		}
		content = content[end+1:]
	}
	return t, nil
}

func (t template) has(part string) bool {
	for _, p := range t {
		if p == part {
			return true
		}
	}
	return false
}

func (t template) fill(r *Request, timestamp, id, url string) [][]byte {
	content := make([][]byte, 0, len(t))
	for _, part := range t {
		switch part {
		case partBody:
			content = append(content, r.Body)
		case partTimestamp:
			content = append(content, []byte(timestamp))
		case partID:
			content = append(content, []byte(id))
		case partURL:
			content = append(content, []byte(url))
		case partMethod:
			content = append(content, []byte(r.Method))
		default:
			content = append(content, []byte(part))
		}
	}
	return content
}

// generic is whatever its settings say.
func generic() Provider {
	return Provider{
		Name: "generic", Title: "Generic HMAC", Source: "https://www.rfc-editor.org/rfc/rfc2104",
		Doc:     "An HMAC in a header, described by the source's scheme and naming",
		Repeats: "`json:id`, or what is signed if a time or an id is, or nothing",
		Needs:   []Need{needSecrets, {fieldScheme, true, "how requests are signed: header, content, hash, encoding"}},
		chosen:  true,
		naming:  Naming{ID: []string{"json:id"}, Type: []string{"json:type", "json:event"}, Time: []string{"json:timestamp", "json:created_at"}},
		open: func(c *configuration) (scheme, error) {
			sc, err := c.Scheme.open(c, defaultTolerance)
			sc.probe = challenge(c.Scheme.Challenge)
			return sc, err
		},
	}
}

// challenge answers GET with a parameter of the query, as text.
func challenge(parameter string) func(context.Context, *Request, *Verifier) Verdict {
	if parameter == "" {
		return nil
	}
	return func(_ context.Context, r *Request, _ *Verifier) Verdict {
		value, rejection := queried(r, parameter)
		if rejection != nil {
			return rejected(rejection)
		}
		return handshake(text(value))
	}
}
