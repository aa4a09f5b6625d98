package eventhose

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of one event, in bytes unless said otherwise.
const (
	MaxData       = 1 << 20
	MaxType       = 256
	MaxKey        = 256
	MaxEventID    = 256
	MaxVersion    = 64
	MaxAttributes = 32 // entries
	MaxAttribute  = 1024
	// MaxAppend is how many events one append takes.
	MaxAppend = 10_000
	// MaxAppendBytes bounds the data of one append.
	MaxAppendBytes = 8 << 20
	// MaxNesting is how deep JSON in Data may be nested: an answer that holds it stays within the 10,000 levels that encoding/json reads.
	MaxNesting = 9_900
)

// SystemPrefix begins the types of events that Eventhose itself appends. Clients may not append them, and "*" does
// not match them.
const SystemPrefix = "eventhose."

// TestType is the type of test events. No log holds them but that of a server to which another sends them as CloudEvents.
const TestType = SystemPrefix + "test"

// Event is an immutable record in a log. Maps and slices of an Event handed out by this module are shared: do not change them.
type Event struct {
	// ID is unique within (Tenant, Scope). An append without one gets one.
	ID       string
	Tenant   TenantID
	Sequence Sequence
	// Scope is the namespace of ID: "" for the API, a CloudEvents source, an inbound source.
	Scope string
	// Type is full-stop-delimited ("order.paid").
	Type string
	// Key is the optional ordering key.
	Key string
	// Time is when it happened, as the client says; the time of append if it does not.
	Time time.Time
	// Appended is when the log took it, in UTC with microseconds.
	Appended   time.Time
	Version    string
	Attributes map[string]string
	// ContentType of Data; "" is application/json.
	ContentType string
	// Data is the payload, byte for byte as it came.
	Data []byte
	// Erased says that Data was removed on request and is empty.
	Erased bool
	// Origin is where an event in a parent's log comes from, else zero.
	Origin Origin
}

// Origin is the place in a connected tenant's log that an event of the parent's log refers to.
type Origin struct {
	Tenant   TenantID
	Sequence Sequence
}

// Placement is the log's answer for one appended event.
type Placement struct {
	ID       string   `json:"id"`
	Sequence Sequence `json:"sequence"`
	// Duplicate says that the same event was already there; ID and Sequence are the first one's.
	Duplicate bool `json:"duplicate"`
}

var (
	contentType = regexp.MustCompile(`^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}( *; *[A-Za-z0-9!#$&^_.+-]+=("[ -!#-~]*"|[A-Za-z0-9!#$&^_.+-]+))*$`)
)

// ValidType reports whether s can be the type of an event: parts of [A-Za-z0-9_/:-] joined by full stops, MaxType bytes at most.
func ValidType(s string) bool {
	if s == "" || len(s) > MaxType || s[len(s)-1] == '.' {
		return false
	}
	dot := true // at the beginning of a part
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && dot:
			return false
		case c == '.':
			dot = true
			continue
		case !wordByte(c) && c != '/' && c != ':':
			return false
		}
		dot = false
	}
	return true
}

// ValidEventID reports whether s can be the id of an event: MaxEventID bytes at most, printable, and nothing that in a path
// ("/v1/tenants/acme/events/" and the id) leads elsewhere: the names of other routes, and what clients resolve before they ask.
func ValidEventID(s string) bool {
	switch s {
	case "", "/", ".", "..", "search", "stream", "ws":
		return false
	}
	return len(s) <= MaxEventID && printable(s)
}

// wordByte reports whether c is a letter, a digit, _ or -.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// attributeName reports whether s is 1 to 64 of [A-Za-z0-9_.-].
func attributeName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !wordByte(c) && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// Reserved reports whether the type is one that clients may not append: a system event's, but for a CloudEvent that is a test.
func (e *Event) Reserved() bool {
	return strings.HasPrefix(e.Type, SystemPrefix) && (e.Type != TestType || e.Scope == "")
}

// Validate checks what a client may set. Errors are CodeInvalid or CodeTooLarge with the field named. It does not look
// into Data: whether JSON data is JSON is the door's to know, since it has parsed it.
func (e *Event) Validate() error {
	switch {
	case e.Type == "":
		return Invalid("type", "is required")
	case !ValidType(e.Type):
		return Invalid("type", "must be parts of letters, digits, _ - / : joined by full stops, at most %d bytes", MaxType)
	case e.ID != "" && !ValidEventID(e.ID):
		return Invalid("id", "must be at most %d bytes of printable UTF-8, and none of / . .. search stream ws, which the paths of the API have for something else", MaxEventID)
	case len(e.Scope) > MaxEventID || !printable(e.Scope):
		return Invalid("source", "must be at most %d bytes of printable UTF-8", MaxEventID)
	case len(e.Key) > MaxKey || !printable(e.Key):
		return Invalid("key", "must be at most %d bytes of printable UTF-8", MaxKey)
	case len(e.Version) > MaxVersion || !printable(e.Version):
		return Invalid("version", "must be at most %d bytes of printable UTF-8", MaxVersion)
	case len(e.Attributes) > MaxAttributes:
		return Invalid("attributes", "must be at most %d", MaxAttributes)
	case e.ContentType != "" && e.ContentType != "application/json" && (len(e.ContentType) > 256 || !contentType.MatchString(e.ContentType)):
		return Invalid("content_type", "is not a media type")
	case e.Time.UTC().Year() < 1 || e.Time.UTC().Year() > 9999: // it is kept in UTC, and RFC 3339 has no other years
		return Invalid("time", "must be between the years 1 and 9999 in UTC")
	case len(e.Data) > MaxData:
		return &Error{Code: CodeTooLarge, Field: "data", Message: "is larger than 1 MiB", Fix: "store large payloads elsewhere and send a link"}
	case e.JSON() && TooDeep(e.Data):
		return &Error{Code: CodeMalformed, Field: "data", Message: fmt.Sprintf("is nested deeper than %d", MaxNesting)}
	}
	for name, value := range e.Attributes {
		if !attributeName(name) {
			return Invalid("attributes", "names must be 1 to 64 letters, digits, _ . or -")
		}
		if len(value) > MaxAttribute || !printable(value) {
			return Invalid("attributes."+name, "must be at most %d bytes of printable UTF-8", MaxAttribute)
		}
	}
	return nil
}

// eventSize is about what an event takes beside its texts and its data: numbers, times, the names of fields.
const eventSize = 256

// Size is about how many bytes the event takes in memory and in an answer: all that it holds, and something for the rest.
func (e *Event) Size() int {
	n := eventSize + len(e.ID) + len(e.Scope) + len(e.Type) + len(e.Key) + len(e.Version) + len(e.ContentType) + len(e.Origin.Tenant) + len(e.Data)
	for name, value := range e.Attributes {
		n += len(name) + len(value)
	}
	return n
}

// JSON reports whether Data is JSON, by its content type.
func (e *Event) JSON() bool {
	if e.ContentType == "" {
		return true
	}
	media, _, _ := strings.Cut(e.ContentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// TooDeep reports whether JSON is nested deeper than MaxNesting.
func TooDeep(data []byte) bool {
	if len(data) <= MaxNesting || bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'}) <= MaxNesting {
		return false
	}
	depth, text := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '[', c == '{':
			if depth++; depth > MaxNesting {
				return true
			}
		case c == ']', c == '}':
			depth--
		}
	}
	return false
}

// WebhookID is what every delivery of this event carries as webhook-id: the same for each repeat, unique in its tenant,
// and safe to sign (no full stop: Standard Webhooks 1.0.0, "webhook-id"). It is the event's own id where that is safe
// and else derived from it.
func (e *Event) WebhookID() string {
	if e.Scope == "" && e.ID != "" && strings.IndexFunc(e.ID, unsafeInID) < 0 && !strings.HasPrefix(e.ID, "evx_") {
		return e.ID
	}
	h := sha256.New()
	h.Write([]byte(e.Scope))
	h.Write([]byte{0})
	h.Write([]byte(e.ID))
	return "evx_" + IDText(([16]byte)(h.Sum(nil)[:16]))
}

func unsafeInID(r rune) bool {
	return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '_' || r == '-')
}

var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// IDText writes 16 bytes as the 26 characters of Crockford base 32 that end our ids.
func IDText(b [16]byte) string { return crockford.EncodeToString(b[:]) }

// IDBytes reads what IDText wrote and nothing else.
func IDBytes(text string) (b [16]byte, ok bool) {
	if len(text) != 26 {
		return b, false
	}
	read, err := crockford.DecodeString(text)
	if err != nil || len(read) != 16 || IDText([16]byte(read)) != text { // the decoder passes over line breaks
		return b, false
	}
	return [16]byte(read), true
}

// EventID makes the id of an event that came without one: it carries its sequence, so that a lookup needs no index.
func EventID(seq Sequence, random uint64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(seq))
	binary.BigEndian.PutUint64(b[8:], random)
	id := [30]byte{'e', 'v', 't', '_'}
	crockford.Encode(id[4:], b[:])
	return string(id[:])
}

// EventIDSequence answers where an id made by EventID would stand. That id may still be a client's: believe it only if
// the event stored there has it.
func EventIDSequence(id string) (Sequence, bool) {
	rest, ok := strings.CutPrefix(id, "evt_")
	b, is := IDBytes(rest)
	if !ok || !is {
		return 0, false
	}
	return Sequence(binary.BigEndian.Uint64(b[:])), true
}

// EventIDRandom answers what is random in an id made by EventID. As with EventIDSequence, it may be a client's.
func EventIDRandom(id string) (uint64, bool) {
	rest, ok := strings.CutPrefix(id, "evt_")
	b, is := IDBytes(rest)
	if !ok || !is {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[8:]), true
}

// printable reports whether s is valid UTF-8 without control characters.
func printable(s string) bool {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return true
	}
	if !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, unicode.IsControl) < 0
}
