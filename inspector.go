package eventhose

import (
	"strings"
	"time"
	"unicode/utf8"
)

// InspectorID is "ins_" and 26 characters, 128 bits of chance: whoever knows it may send to the inspector, and nobody guesses it.
type InspectorID string

// ValidInspectorID reports whether s has the form of an InspectorID.
func ValidInspectorID(s string) bool {
	rest, ok := strings.CutPrefix(s, "ins_")
	_, is := IDBytes(rest)
	return ok && is
}

// InspectorHost is the name under which destinations reach inspectors without leaving the process: http://InspectorHost/ins_….
// It is asked of no DNS, and nothing else is behind it.
const InspectorHost = "inspector.internal"

// Limits of inspectors.
const (
	MaxInspectors = 50 // of one tenant
	// InspectorKept is how long an inspector is kept after it was last used: sent to, looked at, or changed. Its requests are
	// kept as long after they came.
	InspectorKept = 24 * time.Hour
	// MaxInspected is how many requests of one inspector are kept, the newest; MaxInspectedRate how many a second.
	MaxInspected     = 100
	MaxInspectedRate = 20
	// MaxInspectedBody is how much is kept of a body, in bytes, and how much of one is read that comes from outside.
	MaxInspectedBody = 64 << 10
)

// Inspector is a built-in receiver: it answers as it is told to, and shows what it got.
type Inspector struct {
	ID     InspectorID `json:"id"`
	Tenant TenantID    `json:"tenant"`
	Name   string      `json:"name,omitempty"`
	// Status is what it answers, 200 to 599; 0 is 200.
	Status int `json:"status"`
	// Delay is how long it holds an answer, at most MaxInspectDelay.
	Delay Duration `json:"delay"`
	// FailRate is the part of the requests, 0 to 1, that it answers 500 instead.
	FailRate float64 `json:"fail_rate"`
	// Body is what it answers, at most MaxInspectBody bytes of UTF-8.
	Body string `json:"body,omitempty"`
	// Secret verifies what comes, "whsec_" or "whpk_" and base64. Encrypted at rest, and shown as "***". It does not change what is
	// answered.
	Secret Secret `json:"secret,omitempty"`
	// Requests counts those that were kept so far, those that have gone again among them.
	Requests uint64    `json:"requests"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
	// Expires is when it goes, unless it is used before.
	Expires time.Time `json:"expires"`
}

// WithDefaults answers i with what is left out filled in.
func (i Inspector) WithDefaults() Inspector {
	if i.Status == 0 {
		i.Status = 200
	}
	return i
}

// Validate checks an inspector, but for its secret, which is for package sign to read. Errors are CodeInvalid with the field named.
func (i *Inspector) Validate() error {
	switch {
	case len(i.Name) > MaxName || !printable(i.Name):
		return Invalid("name", "must be at most %d bytes of printable UTF-8", MaxName)
	case i.Status < 200 || i.Status > 599:
		return Invalid("status", "must be between 200 and 599")
	case i.Delay < 0 || i.Delay > MaxInspectDelay:
		return Invalid("delay", "must be between 0s and %s", MaxInspectDelay)
	case !(i.FailRate >= 0 && i.FailRate <= 1): // which NaN is not
		return Invalid("fail_rate", "must be between 0 and 1")
	case len(i.Body) > MaxInspectBody || !utf8.ValidString(i.Body):
		return Invalid("body", "must be at most %d bytes of UTF-8", MaxInspectBody)
	}
	return nil
}

// InspectorPatch changes an inspector; nil fields stay as they are.
type InspectorPatch struct {
	Name     *string   `json:"name,omitempty"`
	Status   *int      `json:"status,omitempty"`
	Delay    *Duration `json:"delay,omitempty"`
	FailRate *float64  `json:"fail_rate,omitempty"`
	Body     *string   `json:"body,omitempty"`
	// Secret "" takes away the one that the inspector has.
	Secret *Secret `json:"secret,omitempty"`
}

// Apply changes i as p says.
func (p InspectorPatch) Apply(i *Inspector) {
	set(&i.Name, p.Name)
	set(&i.Status, p.Status)
	set(&i.Delay, p.Delay)
	set(&i.FailRate, p.FailRate)
	set(&i.Body, p.Body)
	set(&i.Secret, p.Secret)
}

// InspectedRequest is a request that an inspector got, as it came. Text that is not UTF-8, outside of the body, is told as if it
// were ISO 8859-1: each byte is a character.
type InspectedRequest struct {
	// ID is "inr_" and 16 digits; a later one of an inspector has a greater one, and none is given twice.
	ID string `json:"id"`
	// Time is when it came.
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	// Path is what follows the inspector's address, at least "/", escaped as it was; Query is what follows the question mark.
	Path  string `json:"path"`
	Query string `json:"query,omitempty"`
	// Headers are by their canonical names, Host among them. The value of our own session cookie reads "***".
	Headers map[string][]string `json:"headers"`
	// Body is its beginning, at most MaxInspectedBody bytes, if it is UTF-8; BodyBase64 in JSON base64 if it is not.
	Body       string `json:"body"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
	// BodyTruncated says that the body was longer.
	BodyTruncated bool `json:"body_truncated,omitempty"`
	// Signature is "verified", "failed: " and the reason, or "none" if the inspector has no secret.
	Signature string `json:"signature"`
	// Answered is the status, 0 if the sender left before; Took is the time from the request's first byte to that.
	Answered int      `json:"answered"`
	Took     Duration `json:"took"`
}

// The outcomes of verifying a request; a failure has its reason behind SignatureFailed.
const (
	SignatureVerified = "verified"
	SignatureFailed   = "failed: "
	SignatureNone     = "none"
)

// Content is the body's bytes, in whichever field they are. They are the request's.
func (r *InspectedRequest) Content() []byte {
	if len(r.BodyBase64) > 0 {
		return r.BodyBase64
	}
	return []byte(r.Body)
}

// SetContent keeps b, or its beginning, as the body.
func (r *InspectedRequest) SetContent(b []byte) {
	r.Body, r.BodyBase64 = "", nil
	if len(b) > MaxInspectedBody {
		b, r.BodyTruncated = b[:MaxInspectedBody], true
		// A character that the bound has cut in two does not make a text something else.
		for cut := len(b); cut > len(b)-utf8.UTFMax; cut-- {
			if utf8.RuneStart(b[cut-1]) {
				if !utf8.FullRune(b[cut-1:]) {
					b = b[:cut-1]
				}
				break
			}
		}
	}
	if utf8.Valid(b) {
		r.Body = string(b)
		return
	}
	r.BodyBase64 = b
}

// InspectedQuery says which of the requests of an inspector are wanted. Zero fields do not narrow it.
type InspectedQuery struct {
	// After and Before are ids: only later, only earlier ones.
	After, Before string
	// Limit is 1 to MaxInspected.
	Limit int
}
