package eventhose

import (
	"strings"
	"time"
)

// SourceID is "src_" and 26 characters. It is also the Scope of the source's events, whose ids are its provider's.
type SourceID string

// ValidSourceID reports whether s has the form of a SourceID.
func ValidSourceID(s string) bool {
	rest, ok := strings.CutPrefix(s, "src_")
	_, is := IDBytes(rest)
	return ok && is
}

// SourceAttribute is the attribute of an event that names the source it came through.
const SourceAttribute = "source"

// ProviderInspect is the provider that takes anything from anybody, to see what comes.
const ProviderInspect = "inspect"

// Limits of sources.
const (
	MaxSources = 1000 // of one tenant
	// MaxInspectDelay bounds the delay of an InspectAnswer, MaxInspectBody its body, in bytes.
	MaxInspectDelay = Duration(10 * time.Second)
	MaxInspectBody  = 16 << 10
)

// Source is an inbound door for one provider: it verifies what comes, names the event, and appends it. docs/providers.md
// says which settings a provider uses; others are refused.
type Source struct {
	ID     SourceID `json:"id"`
	Tenant TenantID `json:"tenant"`
	// Provider is who sends: "stripe". It cannot be changed.
	Provider string `json:"provider"`
	Name     string `json:"name,omitempty"`
	// Secrets are shared with the provider; any of them may verify a request. Encrypted at rest, and shown as "***".
	Secrets []Secret `json:"secrets,omitempty"`
	// PublicKeys are the provider's, where it signs with a private key.
	PublicKeys []string `json:"public_keys,omitempty"`
	// VerifyToken is what the provider shows when it tries the address. It is a secret too.
	VerifyToken Secret `json:"verify_token,omitempty"`
	// PublicURL is the URL that the provider was given, which some sign.
	PublicURL string `json:"public_url,omitempty"`
	// Tolerance is how far a signed time may be from the server's; 0 is the provider's usual one.
	Tolerance Duration `json:"tolerance,omitempty"`
	// Options are particular to a provider, and no secrets.
	Options map[string]string `json:"options,omitempty"`
	// TypePrefix begins the types of the source's events; "" is the provider's name.
	TypePrefix string `json:"type_prefix,omitempty"`
	// Scheme is how requests are signed, for the provider "generic".
	Scheme *SourceScheme `json:"scheme,omitempty"`
	// Naming is where the events' names stand, in place of what the provider has.
	Naming *SourceNaming `json:"naming,omitempty"`
	// Answer is what the provider "inspect" answers; nil is 200 at once.
	Answer *InspectAnswer `json:"answer,omitempty"`
	// Subscription is the pull subscription that was made with the source and is deleted with it: its inbox.
	Subscription SubscriptionID `json:"subscription"`
	Created      time.Time      `json:"created"`
	Updated      time.Time      `json:"updated"`
	// Version counts changes, for compare-and-set.
	Version uint64 `json:"version"`
}

// Provider is who sends to a source: what it signs, and which settings a source needs for it.
type Provider struct {
	// Name is what a source calls it, Title what it calls itself.
	Name  string `json:"name"`
	Title string `json:"title"`
	// Signs says in one line what it signs; Document is the URL of what says so.
	Signs    string         `json:"signs"`
	Document string         `json:"document"`
	Needs    []ProviderNeed `json:"needs"`
}

// ProviderNeed is a setting of a source, by the name that it has there ("secrets", "options.NAME").
type ProviderNeed struct {
	Setting  string `json:"setting"`
	Required bool   `json:"required"`
	// What it is, and where the provider shows it.
	What string `json:"what"`
}

// SourceScheme is an HMAC in a header, as data.
type SourceScheme struct {
	// Header holds the signature, behind Prefix.
	Header string `json:"header"`
	Prefix string `json:"prefix,omitempty"`
	// Separator stands between several signatures, or between pairs.
	Separator string `json:"separator,omitempty"`
	// SignatureName and TimestampName make the header a list of pairs.
	SignatureName string `json:"signature_name,omitempty"`
	TimestampName string `json:"timestamp_name,omitempty"`
	// Content is what is signed, a template over {body}, {timestamp}, {id}, {url} and {method}; "" is "{body}".
	Content string `json:"content,omitempty"`
	// Hash is sha1, sha256 (if "") or sha512.
	Hash string `json:"hash,omitempty"`
	// Encoding is how the signature is written: hex (if ""), base64 or base64url.
	Encoding string `json:"encoding,omitempty"`
	// Key is how the secret is written: text (if ""), hex, base64 or base64url. KeyPrefix is taken from its beginning first.
	Key       string `json:"key,omitempty"`
	KeyPrefix string `json:"key_prefix,omitempty"`
	// TimestampHeader holds {timestamp}, if it is not a pair; Unit is s (if ""), ms or rfc3339.
	TimestampHeader string `json:"timestamp_header,omitempty"`
	Unit            string `json:"timestamp_unit,omitempty"`
	// IDHeader holds {id}.
	IDHeader string `json:"id_header,omitempty"`
	// Challenge is a parameter of the query that is answered as it came when the address is tried with GET.
	Challenge string `json:"challenge,omitempty"`
}

// SourceNaming is where the names of an event stand in a request: lists of places, of which the first that holds something
// counts. A place is header:NAME, json:PATH, form:NAME, text:WORD or body:sha256, or several of them joined by +, which count only if each
// holds something.
type SourceNaming struct {
	// ID tells a repeat from another event. Where it holds nothing, what is signed does if a time or an id is among it; or else each request
	// is an event of its own.
	ID []string `json:"id,omitempty"`
	// Type is the topic, which follows the source's prefix.
	Type []string `json:"type,omitempty"`
	Key  []string `json:"key,omitempty"`
	Time []string `json:"time,omitempty"`
	// Keep are headers that become attributes, under their names in lower case.
	Keep []string `json:"keep,omitempty"`
}

// InspectAnswer is what a source of the provider "inspect" answers.
type InspectAnswer struct {
	// Status is 200 to 599; 0 is 200.
	Status int `json:"status,omitempty"`
	// Delay is how long the answer is held, at most MaxInspectDelay.
	Delay Duration `json:"delay,omitempty"`
	// ContentType of Body; "" is text/plain.
	ContentType string `json:"content_type,omitempty"`
	Body        string `json:"body,omitempty"`
}

// Validate checks what concerns all providers; what concerns one is the gateway's to know. Errors are CodeInvalid with the
// field named.
func (s *Source) Validate() error {
	switch {
	case s.Provider == "":
		return Invalid("provider", "is required")
	case len(s.Name) > MaxName || !printable(s.Name):
		return Invalid("name", "must be at most %d bytes of printable UTF-8", MaxName)
	case s.Answer == nil:
		return nil
	case s.Provider != ProviderInspect:
		return Invalid("answer", "is for the provider inspect only: others are answered 200 once the event is stored")
	}
	a := s.Answer
	switch {
	case a.Status != 0 && (a.Status < 200 || a.Status > 599):
		return Invalid("answer.status", "must be between 200 and 599")
	case a.Delay < 0 || a.Delay > MaxInspectDelay:
		return Invalid("answer.delay", "must be between 0s and %s", MaxInspectDelay)
	case len(a.Body) > MaxInspectBody:
		return Invalid("answer.body", "must be at most %d bytes", MaxInspectBody)
	case a.ContentType != "" && (len(a.ContentType) > 256 || !contentType.MatchString(a.ContentType)):
		return Invalid("answer.content_type", "is not a media type")
	case runs(a.ContentType):
		return Invalid("answer.content_type", "must not be a script or a style sheet: pages of this server's origin would take it for their own")
	}
	return nil
}

// runs reports whether browsers run or apply what comes as a media type: JavaScript under all the names that it has, or CSS.
func runs(contentType string) bool {
	name, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	switch name = strings.TrimSpace(name); name {
	case "text/css", "text/jscript", "text/livescript":
		return true
	}
	return strings.Contains(name, "javascript") || strings.Contains(name, "ecmascript")
}

// SourcePatch changes a source; nil fields stay as they are. Lists and maps are replaced as a whole; an empty Scheme, Naming
// or Answer takes away what the source has.
type SourcePatch struct {
	Name *string `json:"name,omitempty"`
	// Secrets replace those it has; "***" among them stands for all of those.
	Secrets     *[]Secret          `json:"secrets,omitempty"`
	PublicKeys  *[]string          `json:"public_keys,omitempty"`
	VerifyToken *Secret            `json:"verify_token,omitempty"`
	PublicURL   *string            `json:"public_url,omitempty"`
	Tolerance   *Duration          `json:"tolerance,omitempty"`
	Options     *map[string]string `json:"options,omitempty"`
	TypePrefix  *string            `json:"type_prefix,omitempty"`
	Scheme      *SourceScheme      `json:"scheme,omitempty"`
	Naming      *SourceNaming      `json:"naming,omitempty"`
	Answer      *InspectAnswer     `json:"answer,omitempty"`
}

// Apply changes s as p says.
func (p SourcePatch) Apply(s *Source) {
	set(&s.Name, p.Name)
	if p.Secrets != nil {
		var all []Secret
		for _, given := range *p.Secrets {
			if given == redacted {
				all = append(all, s.Secrets...)
			} else {
				all = append(all, given)
			}
		}
		s.Secrets = all
	}
	set(&s.PublicKeys, p.PublicKeys)
	set(&s.VerifyToken, p.VerifyToken)
	set(&s.PublicURL, p.PublicURL)
	set(&s.Tolerance, p.Tolerance)
	set(&s.Options, p.Options)
	set(&s.TypePrefix, p.TypePrefix)
	if p.Scheme != nil {
		if s.Scheme = p.Scheme; *p.Scheme == (SourceScheme{}) {
			s.Scheme = nil
		}
	}
	if p.Naming != nil {
		if s.Naming = p.Naming; len(p.Naming.ID)+len(p.Naming.Type)+len(p.Naming.Key)+len(p.Naming.Time)+len(p.Naming.Keep) == 0 {
			s.Naming = nil
		}
	}
	if p.Answer != nil {
		if s.Answer = p.Answer; *p.Answer == (InspectAnswer{}) {
			s.Answer = nil
		}
	}
}

func set[T any](to, value *T) {
	if value != nil {
		*to = *value
	}
}

// Limits of the rejected requests that are kept.
const (
	MaxRejections   = 100 // of one source
	MaxRejectedBody = 64 << 10
	RejectionsKept  = 24 * time.Hour
)

// ValidRejectionID reports whether s has the form of a Rejection's ID.
func ValidRejectionID(s string) bool {
	rest, ok := strings.CutPrefix(s, "rej_")
	_, is := IDBytes(rest)
	return ok && is
}

// Rejection is a request that a source did not take.
type Rejection struct {
	// ID is "rej_" and 26 characters; a later one of a source has a greater one.
	ID     string   `json:"id"`
	Source SourceID `json:"source"`
	// Received is when it came.
	Received time.Time `json:"received"`
	// Reason is a word that programs may switch on, Detail a sentence for people.
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Method string `json:"method"`
	// Size is that of the body, in bytes.
	Size int `json:"size"`
	// Request is what came. Lists leave it out.
	Request *RejectedRequest `json:"request,omitempty"`
}

// RejectedRequest is a request as it came. Doors show Header and Query without what may be a credential.
type RejectedRequest struct {
	Query  string              `json:"query,omitempty"`
	Header map[string][]string `json:"header"`
	// Body is its beginning, at most MaxRejectedBody bytes.
	Body []byte `json:"body"`
	// Truncated says that the body was longer, so that the request cannot be verified again.
	Truncated bool `json:"truncated,omitempty"`
}

// InboxStatus is what became of an event in the inbox of its source.
type InboxStatus string

const (
	// InboxPending: no worker has finished it, or one is at work on it.
	InboxPending InboxStatus = "pending"
	// InboxProcessed: a worker has acknowledged it, or it was discarded.
	InboxProcessed InboxStatus = "processed"
	// InboxFailed: a worker has given it up, and it will be handed over again.
	InboxFailed InboxStatus = "failed"
	// InboxDead: it was handed over as often as it may be, and needs a person.
	InboxDead InboxStatus = "dead"
)

// InboxQuery says which part of a tenant's inbox is wanted. Zero fields do not narrow it.
type InboxQuery struct {
	Provider string
	Source   SourceID
	Status   InboxStatus
	After    Cursor
	// Limit is 1 to 1,000.
	Limit int
}

// InboxItem is an event that came in through a source, and what became of it.
type InboxItem struct {
	// Event is the provider's id, unique within Source.
	Event    string   `json:"event"`
	Sequence Sequence `json:"sequence"`
	Source   SourceID `json:"source"`
	Provider string   `json:"provider"`
	// Topic is the event's type.
	Topic    string      `json:"topic"`
	Key      string      `json:"key,omitempty"`
	Status   InboxStatus `json:"status"`
	Received time.Time   `json:"received"`
	// Processed is when a worker acknowledged it; zero if that is not on record.
	Processed time.Time `json:"processed,omitzero"`
	Attempts  int       `json:"attempts"`
	LastError string    `json:"last_error,omitempty"`
}
