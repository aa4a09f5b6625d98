package webhook

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
	"github.com/eventhose/eventhose/sign"
)

// target is what a subscription's tries have in common, worked out once for each version of the subscription.
type target struct {
	url      *url.URL
	shown    string // the URL without what may be secret
	host     string
	out      *egress.Target
	keys     []liveKey
	always   []sign.Signer // the keys, if none of them ends
	redactor sink.Redactor
	timeout  time.Duration
	gzip     bool
}

type liveKey struct {
	sign.Signer
	until time.Time
}

// live answers the keys that sign at a time.
func (t *target) live(now time.Time) []sign.Signer {
	if t.always != nil {
		return t.always
	}
	keys := make([]sign.Signer, 0, len(t.keys))
	for _, k := range t.keys {
		if k.until.IsZero() || k.until.After(now) {
			keys = append(keys, k.Signer)
		}
	}
	return keys
}

// targets keeps the targets of subscriptions that were sent to lately.
type targets struct {
	mu sync.RWMutex
	of map[targetKey]keptTarget
}

type targetKey struct {
	tenant       eventhose.TenantID
	subscription eventhose.SubscriptionID
}

type keptTarget struct {
	version uint64
	*target
}

// maxTargets bounds the cache; each takes about 2 KB.
const maxTargets = 8192

// target answers a subscription's target, or nil and what to answer instead. A subscription without a version is worked
// out each time.
func (s *Sink) target(sub *eventhose.Subscription) (*target, sink.Result) {
	key := targetKey{sub.Tenant, sub.ID}
	s.targets.mu.RLock()
	kept, ok := s.targets.of[key]
	s.targets.mu.RUnlock()
	if ok && kept.version == sub.Version {
		return kept.target, sink.Result{}
	}
	t, result := s.prepare(sub)
	if t == nil || sub.Version == 0 {
		return t, result
	}
	s.targets.mu.Lock()
	defer s.targets.mu.Unlock()
	if s.targets.of == nil {
		s.targets.of = make(map[targetKey]keptTarget)
	}
	if _, ok := s.targets.of[key]; !ok && len(s.targets.of) >= maxTargets {
		for any := range s.targets.of { // whichever comes first: working it out again is cheap
			delete(s.targets.of, any)
			break
		}
	}
	s.targets.of[key] = keptTarget{sub.Version, t}
	return t, sink.Result{}
}

func (s *Sink) prepare(sub *eventhose.Subscription) (*target, sink.Result) {
	d := sub.Destination
	shown := sink.RedactURL(d.URL)
	refuse := func(reason eventhose.Reason, detail string) (*target, sink.Result) {
		r := failed(reason, detail)
		r.URL = shown
		return nil, r
	}
	u, err := s.policy.ParseURL("destination.url", d.URL)
	if err != nil {
		if errors.Is(err, egress.ErrBlocked) {
			return refuse(eventhose.ReasonBlocked, "")
		}
		return refuse(eventhose.ReasonConfig, err.Error())
	}
	if err := checkHeaders(d.Headers); err != nil {
		return refuse(eventhose.ReasonConfig, err.Error())
	}
	t := &target{url: u, shown: sink.RedactURL(u.String()), host: u.Hostname(), timeout: time.Duration(sub.Retry.Timeout)}
	if t.timeout <= 0 {
		t.timeout = time.Duration(eventhose.DefaultTimeout)
	}
	t.timeout = min(t.timeout, time.Duration(eventhose.MaxTimeout))

	header := http.Header{"Content-Type": {contentType(sub)}, "User-Agent": {UserAgent}}
	if t.gzip = d.Compression == eventhose.CompressionGzip; t.gzip {
		header["Content-Encoding"] = []string{"gzip"}
	}
	var secrets []string
	for name, value := range d.Headers {
		header[http.CanonicalHeaderKey(name)] = []string{string(value)}
		secrets = append(secrets, string(value))
	}
	if t.out, err = egress.NewTarget(http.MethodPost, u, header); err != nil {
		return refuse(eventhose.ReasonConfig, "the URL cannot be used")
	}
	if u.RawQuery != "" {
		secrets = append(secrets, u.RawQuery)
		for _, values := range u.Query() {
			secrets = append(secrets, values...)
		}
	}
	for _, live := range sub.Secrets {
		key, err := sign.ParseSigner(string(live.Secret))
		if err != nil {
			return refuse(eventhose.ReasonConfig, "a signing secret cannot be used: "+strings.TrimPrefix(err.Error(), "sign: "))
		}
		t.keys = append(t.keys, liveKey{key, live.Until})
		secrets = append(secrets, string(live.Secret), strings.TrimPrefix(string(live.Secret), "whsec_"))
	}
	if !slices.ContainsFunc(t.keys, func(k liveKey) bool { return !k.until.IsZero() }) {
		t.always = t.live(time.Time{})
	}
	t.redactor = sink.NewRedactor(secrets...)
	return t, sink.Result{}
}

// ours are the headers that a subscription may not set: those that make up the request, and those that we set. A final
// "-" forbids all names that begin so.
var ours = []string{
	"connection", "content-encoding", "content-length", "content-type", "eventhose-", "expect", "host", "keep-alive",
	"proxy-", "svix-", "te", "trailer", "transfer-encoding", "upgrade", "webhook-",
}

// checkHeaders answers CodeInvalid for the first header, by name, that may not be sent.
func checkHeaders(headers map[string]eventhose.Secret) error {
	if len(headers) > eventhose.MaxHeaders {
		return eventhose.Invalid("destination.headers", "must be at most %d", eventhose.MaxHeaders)
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		lower := strings.ToLower(name)
		field := "destination.headers." + sink.Printable(name, 100)
		value := string(headers[name])
		switch {
		case len(name) > 256 || !httpguts.ValidHeaderFieldName(name):
			return eventhose.Invalid(field, "is not a header name")
		case slices.ContainsFunc(ours, func(o string) bool {
			return lower == o || strings.HasSuffix(o, "-") && strings.HasPrefix(lower, o)
		}):
			return eventhose.Invalid(field, "is a header that Eventhose sets itself or that shapes the request")
		case seen[lower]:
			return eventhose.Invalid(field, "is given twice, in upper and lower case")
		case len(value) > eventhose.MaxHeaderValue:
			return eventhose.Invalid(field, "must be at most %d bytes", eventhose.MaxHeaderValue)
		case !httpguts.ValidHeaderFieldValue(value):
			return eventhose.Invalid(field, "must be one line without control characters")
		}
		seen[lower] = true
	}
	return nil
}

// plainName is what the name of a header is made of. HTTP allows more, ' | ` $ and & among it, and people paste what was sent into
// shells.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// checkNames answers CodeInvalid for the first header, by name, that may not be set. Those that were set before there was this rule are
// still sent.
func checkNames(headers map[string]eventhose.Secret) error {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if !plainName.MatchString(name) {
			return eventhose.Invalid("destination.headers."+sink.Printable(name, 100), "must be a name of letters, digits, '-', '_' and '.'")
		}
	}
	return nil
}
