// Package gateway verifies the webhooks that other companies send: that they come from whom they claim, are whole, and
// are of now. It names what was sent (id, type, key, time) without changing a byte of it, and answers the handshakes by
// which providers try an address.
//
// Each provider is a file, or a row of rows.go, and turns a source's settings into a Verifier once. A Verifier keeps no
// state but certificates, so a request that was rejected can be verified again after its settings were mended. It
// connects to nothing but through the Fetcher that it is given.
//
// Signatures are of the bytes as they came. Nothing is decoded and encoded again before it is verified.
package gateway

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

// MaxBody is the longest body that is verified, in bytes: the longest data of an event.
const MaxBody = eventhose.MaxData

// Request is what a provider sent. Verifiers do not change it and keep nothing of it but what they answer.
type Request struct {
	// Method is as it came: "POST".
	Method string
	// Query is the raw query of the URL, without "?". The rest of the URL that providers sign is Settings.PublicURL: what
	// stands in the request itself is a proxy's word.
	Query string
	// Header is canonical, as net/http makes it, with every value that came.
	Header http.Header
	// Body is as it came, after transfer decoding. A request with a Content-Encoding is rejected: a door that decompresses
	// takes that header away.
	Body []byte
	// Received is when it came; timestamps are judged by it.
	Received time.Time
}

// Verdict is what to do with a request: append an event, answer a handshake, or reject.
type Verdict struct {
	// Event is to be appended, once per ID, and in any case if it has none; nil if the request is a handshake or rejected. Tenant
	// and Scope are the caller's to set; everything else passes Event.Validate. Data is Request.Body itself.
	Event *eventhose.Event
	// Answer is what the sender is told: a handshake at once, an event once it is stored. With a rejection it is empty but
	// for the status: a sender is not told why.
	Answer Answer
	// Rejection says why the request is not taken; nil if it is.
	Rejection *Rejection
}

// Answer is an HTTP response.
type Answer struct {
	Status int
	// Header is nil or has the few headers that matter.
	Header http.Header
	Body   []byte
}

func text(body string) Answer {
	return Answer{http.StatusOK, http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}}, []byte(body)}
}

func jsonAnswer(body []byte) Answer {
	return Answer{http.StatusOK, http.Header{"Content-Type": {"application/json"}, "X-Content-Type-Options": {"nosniff"}}, body}
}

// handshake is the verdict on a request that wants an answer and is no event.
func handshake(a Answer) Verdict { return Verdict{Answer: a} }

// Fetcher reaches what a provider's messages refer to: certificates, confirmations, a verification API. Egress is one.
// It may be used concurrently.
type Fetcher interface {
	// Fetch makes one exchange over https and answers the status and the body, of at most 64 KiB. It follows no redirect.
	// method is GET or POST.
	Fetch(ctx context.Context, method, url string, header http.Header, body []byte) (status int, answer []byte, err error)
}

// Surroundings are what verifiers use of the process. The zero value serves every provider that needs no network.
type Surroundings struct {
	Fetcher Fetcher
}

// Verifier verifies the requests of one source. It may be used concurrently.
type Verifier struct {
	scheme   scheme
	naming   *compiledNaming
	withheld shownPlaces
}

// scheme is what a provider makes of a source's settings.
type scheme struct {
	// check answers nil if the request is the provider's.
	check func(ctx context.Context, r *Request) *Rejection
	// probe is asked about every request that is not a POST; nil rejects them. Answering an event is allowed.
	probe func(ctx context.Context, r *Request, v *Verifier) Verdict
	// reply answers a verified POST that is a handshake, and nil if it is an event.
	reply func(r *Request) *Answer
	// asForm reports whether check has read a verified request as a form, so that it is named by that and nothing else is looked for
	// in it; nil if the bytes of the body are what is signed.
	asForm func(r *Request) bool
	// id is what is signed of a verified request that tells it from others, where not all that names it is signed. It is the event's
	// id whatever a Naming says, so that what was seen once is one event; nil leaves the id to the Naming.
	id func(r *Request) string
	// stamp answers what is signed of a verified request and in no other that the provider sends: a time or an id, and the body unless that is
	// enough. It tells a replay where a Naming finds no id. nil, or an answer of nil, says that nothing of the kind is signed.
	stamp func(r *Request) [][]byte
	// describe sets what a Naming cannot say; nil if there is nothing. prefix begins the type.
	describe func(e *eventhose.Event, prefix string, r *Request)
	// answer is for events that were stored; the zero value is 200 without a body.
	answer Answer
	// networked says that check may reach out, so that it is not tried with variants of the body.
	networked bool
	// anyBody takes empty and compressed bodies.
	anyBody bool
}

// New makes the verifier of a source of a provider. Errors are CodeInvalid and name the field: an unknown provider, a
// setting that is missing, empty, unusable, or that the provider does not use.
func New(provider string, s Settings, around Surroundings) (*Verifier, error) {
	p, ok := Find(provider)
	if !ok {
		return nil, eventhose.Invalid("provider", "%s is not known: docs/providers.md lists those that are, and generic describes any other", quoted(provider))
	}
	c := &configuration{Settings: s, Surroundings: around, provider: &p}
	if err := c.validate(); err != nil {
		return nil, err
	}
	sc, err := p.open(c)
	if err != nil {
		return nil, err
	}
	naming := p.naming
	if s.Naming != nil {
		naming = *s.Naming
	}
	prefix := s.TypePrefix
	if prefix == "" {
		prefix = p.Name
	}
	if sc.id != nil && len(naming.ID) > 0 {
		return nil, eventhose.Invalid("naming.id", "is not used by %s, which does not sign all that it sends: the id is made of what is signed", p.Name)
	}
	n, err := naming.compile(p.Name, prefix)
	if err != nil {
		return nil, err
	}
	return &Verifier{sc, n, c.shown}, nil
}

// Verify judges a request. It reaches out only for providers whose signatures need a certificate or a confirmation, within
// ctx and fetchTimeout.
func (v *Verifier) Verify(ctx context.Context, r *Request) Verdict {
	if len(r.Body) > MaxBody {
		return rejected(reject(ReasonTooLarge, "the body has %d bytes, and at most %d are taken", len(r.Body), MaxBody))
	}
	if r.Method != http.MethodPost {
		if v.scheme.probe == nil {
			return rejected(reject(ReasonMethod, "the method is %s, and webhooks of this provider are POST", quoted(r.Method)))
		}
		return v.scheme.probe(ctx, r, v)
	}
	if v.scheme.anyBody {
		return v.judge(ctx, r)
	}
	if encodings := r.Header.Values("Content-Encoding"); len(encodings) > 1 || len(encodings) == 1 && !strings.EqualFold(encodings[0], "identity") {
		return rejected(reject(ReasonEncoded, "the body came with Content-Encoding %s: what was signed cannot be known", quoted(strings.Join(encodings, ", "))))
	}
	if len(r.Body) == 0 {
		return rejected(reject(ReasonBody, "the body is empty"))
	}
	return v.judge(ctx, r)
}

// judge verifies a request that may be an event.
func (v *Verifier) judge(ctx context.Context, r *Request) Verdict {
	if rejection := v.scheme.check(ctx, r); rejection != nil {
		if rejection.Reason == ReasonNoMatch && !v.scheme.networked {
			if change, found := v.reencoded(ctx, r); found {
				rejection = reject(ReasonReencoded, "body re-encoded? The signature is right for the body %s", change)
			}
		}
		return rejected(rejection)
	}
	if v.scheme.reply != nil {
		if a := v.scheme.reply(r); a != nil {
			return handshake(*a)
		}
	}
	answer := v.scheme.answer
	if answer.Status == 0 {
		answer.Status = http.StatusOK
	}
	e := v.naming.event(r, v.scheme.asForm != nil && v.scheme.asForm(r))
	switch {
	case v.scheme.id != nil:
		e.ID = eventID([]string{v.scheme.id(r)})
	case e.ID == "" && v.scheme.stamp != nil:
		if stamp := v.scheme.stamp(r); stamp != nil {
			e.ID = digestID("signed-", stamp...)
		}
	}
	if v.scheme.describe != nil {
		v.scheme.describe(e, v.naming.prefix, r)
	}
	return Verdict{Event: e, Answer: answer}
}

// WithholdsHeader reports whether the provider shows a secret in a header, so that what is in it is shown to nobody else.
func (v *Verifier) WithholdsHeader(name string) bool {
	return slices.ContainsFunc(v.withheld.headers, func(header string) bool { return strings.EqualFold(header, name) })
}

// WithholdsParameter reports the same of a parameter of the query.
func (v *Verifier) WithholdsParameter(name string) bool {
	return slices.Contains(v.withheld.parameters, name)
}
