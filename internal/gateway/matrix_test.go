package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

// unsignedProviders verify nothing, and have no row in the matrix.
var unsignedProviders = []string{"inspect"}

const matrixBody = `{"id": "evt_1", "type": "order.created", "amount": 4200}`

// Everything that must be taken, and everything that must be refused, for every provider. A provider that is not among the
// senders fails.
func TestMatrix(t *testing.T) {
	all := senders()
	for _, p := range Providers() {
		s, ok := all[p.Name]
		if !ok {
			if !slices.Contains(unsignedProviders, p.Name) {
				t.Errorf("%s has no sender: every provider is tried by the whole matrix", p.Name)
			}
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			m := &matrix{t: t, name: p.Name, s: s, key: s.keyOf(0)}
			m.verifier = m.open(m.key)
			m.accepted()
			m.keys()
			m.body()
			m.headers()
			m.signature()
			m.clock()
			m.strangers(all)
		})
	}
	for name := range all {
		if _, ok := Find(name); !ok {
			t.Errorf("there is a sender for %s, and no provider", name)
		}
	}
}

type matrix struct {
	t        *testing.T
	name     string
	s        sender
	key      string
	verifier *Verifier
}

func (m *matrix) open(keys ...string) *Verifier {
	m.t.Helper()
	return m.with(m.s.settingsOf(keys...))
}

func (m *matrix) with(s Settings) *Verifier {
	m.t.Helper()
	v, err := New(m.name, s, m.s.around)
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

func (m *matrix) sent(body string) (*Request, string) {
	return m.s.send(message{key: m.key, body: []byte(body), at: testNow})
}

// clone answers a copy that may be changed.
func clone(r *Request) *Request {
	c := *r
	c.Header, c.Body = r.Header.Clone(), bytes.Clone(r.Body)
	return &c
}

// takes checks that a request is an event that the log would take.
func takes(t *testing.T, what string, v *Verifier, r *Request) *eventhose.Event {
	t.Helper()
	verdict := v.Verify(context.Background(), r)
	if verdict.Rejection != nil || verdict.Event == nil {
		t.Errorf("%s: %+v, want an event", what, verdict.Rejection)
		return &eventhose.Event{}
	}
	if err := verdict.Event.Validate(); err != nil {
		t.Errorf("%s: the event is not valid: %v", what, err)
	}
	if verdict.Answer.Status/100 != 2 {
		t.Errorf("%s: the answer is %d", what, verdict.Answer.Status)
	}
	return verdict.Event
}

// refuses checks that a request is rejected, for one of some reasons if any are given, in words that tell no secret.
func (m *matrix) refuses(what string, v *Verifier, r *Request, reasons ...Reason) {
	m.t.Helper()
	refuses(m.t, what, v, r, m.key, reasons...)
}

func refuses(t *testing.T, what string, v *Verifier, r *Request, key string, reasons ...Reason) {
	t.Helper()
	verdict := v.Verify(context.Background(), r)
	j := verdict.Rejection
	switch {
	case j == nil || verdict.Event != nil:
		t.Errorf("%s: it was taken", what)
	case !slices.Contains(Reasons(), j.Reason), len(reasons) > 0 && !slices.Contains(reasons, j.Reason):
		t.Errorf("%s: rejected because of %s, want %s", what, j, reasons)
	case j.Detail == "" || len(j.Detail) > 500 || !printable(j.Detail):
		t.Errorf("%s: the detail is %q", what, j.Detail)
	case len(key) > 8 && strings.Contains(j.Detail, key):
		t.Errorf("%s: the detail tells the secret: %q", what, j.Detail)
	case verdict.Answer.Status < 400 || len(verdict.Answer.Body)+len(verdict.Answer.Header) > 0:
		t.Errorf("%s: the sender is told %+v", what, verdict.Answer)
	}
}

func (m *matrix) accepted() {
	t := m.t
	r, _ := m.sent(matrixBody)
	before := clone(r)
	e := takes(t, "as it was sent", m.verifier, r)
	if !strings.HasPrefix(e.Type, m.name+".") || !bytes.Equal(e.Data, before.Body) || e.Attributes["provider"] != m.name {
		t.Errorf("the event is %+v", e)
	}
	if again := takes(t, "a second time", m.verifier, r); again.ID != e.ID {
		t.Errorf("a repeat is %s, and was %s", again.ID, e.ID)
	}
	if !bytes.Equal(r.Body, before.Body) || len(r.Header) != len(before.Header) {
		t.Error("verifying changed the request")
	}
	settings := m.s.settingsOf(m.key)
	settings.TypePrefix = "shop.in"
	if e := takes(t, "with a prefix", m.with(settings), r); !strings.HasPrefix(e.Type, "shop.in.") {
		t.Errorf("the type is %s", e.Type)
	}
}

func (m *matrix) keys() {
	t, s := m.t, m.s
	if s.fixed == "" {
		old, fresh, other := s.keyOf(0), s.keyOf(1), s.keyOf(2)
		both := m.open(old, fresh)
		for _, k := range []string{old, fresh} {
			r, _ := s.send(message{key: k, body: []byte(matrixBody), at: testNow})
			takes(t, "during a rotation", both, r)
		}
		r, _ := s.send(message{key: old, body: []byte(matrixBody), at: testNow})
		m.refuses("a retired key", m.open(fresh), r, ReasonNoMatch)
		r, _ = s.send(message{key: other, body: []byte(matrixBody), at: testNow})
		m.refuses("another's key", both, r, ReasonNoMatch)
		for _, bad := range []string{"", " ", "\t\n"} {
			if v, err := New(m.name, s.settingsOf(bad), s.around); err == nil || v != nil || eventhose.CodeOf(err) != eventhose.CodeInvalid || !strings.Contains(fieldOf(err), "[0]") {
				t.Errorf("with the key %q: %v", bad, err)
			}
			if _, err := New(m.name, s.settingsOf(old, bad), s.around); err == nil || !strings.Contains(fieldOf(err), "[1]") {
				t.Errorf("with the second key %q: %v", bad, err)
			}
		}
		bare := s.settingsOf()
		if _, err := New(m.name, bare, s.around); eventhose.CodeOf(err) != eventhose.CodeInvalid || fieldOf(err) == "" {
			t.Errorf("without a key: %v", err)
		}
	}
	if _, err := New(m.name, Settings{}, s.around); eventhose.CodeOf(err) != eventhose.CodeInvalid || fieldOf(err) == "" {
		t.Errorf("without settings: %v", err)
	}
	p, _ := Find(m.name)
	for _, need := range p.Needs {
		if need.Required && !strings.HasPrefix(need.Field, optionPrefix) {
			settings := s.settingsOf(m.key)
			switch need.Field {
			case fieldSecrets:
				settings.Secrets = nil
			case fieldPublicKeys:
				settings.PublicKeys = nil
			case fieldPublicURL:
				settings.PublicURL = ""
			case fieldVerifyToken:
				settings.VerifyToken = ""
			case fieldScheme:
				settings.Scheme = nil
			}
			if _, err := New(m.name, settings, s.around); fieldOf(err) != need.Field {
				t.Errorf("without %s: %v", need.Field, err)
			}
		}
	}
}

func fieldOf(err error) string {
	var e *eventhose.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Field
}

func (m *matrix) body() {
	t := m.t
	r, signature := m.sent(matrixBody)
	flip := func(i int) {
		t.Helper()
		changed := clone(r)
		changed.Body[i] ^= 1
		m.refuses("a bit of the body changed", m.verifier, changed)
	}
	switch {
	case m.s.covered != nil:
		for _, part := range m.s.covered {
			at := bytes.Index(r.Body, []byte(part))
			if at < 0 {
				t.Fatalf("the body does not hold %q: %s", part, r.Body)
			}
			for i := range len(part) {
				flip(at + i)
			}
		}
	case m.s.unsigned == "":
		for i := range r.Body {
			flip(i)
		}
		for _, change := range []func([]byte) []byte{
			func(b []byte) []byte { return append(b, ' ') }, func(b []byte) []byte { return append(b, '\n') }, func(b []byte) []byte { return b[:len(b)-1] },
			func(b []byte) []byte { return append([]byte("\ufeff"), b...) },
		} {
			changed := clone(r)
			changed.Body = change(changed.Body)
			m.refuses("something at an end of the body", m.verifier, changed)
		}
		compact := clone(r)
		compact.Body = bytes.ReplaceAll(compact.Body, []byte(" "), nil)
		m.refuses("JSON encoded again", m.verifier, compact, ReasonReencoded, ReasonNoMatch)
		if bytes.Contains(r.Body, []byte(signature)) {
			t.Error("the signature is in the body, and the whole body signed")
		}
	}

	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(r.Body)
	w.Close()
	for _, body := range [][]byte{r.Body, z.Bytes()} {
		compressed := clone(r)
		compressed.Body = body
		compressed.Header.Set("Content-Encoding", "gzip")
		m.refuses("with Content-Encoding", m.verifier, compressed, ReasonEncoded)
	}

	empty, _ := m.s.send(message{key: m.key, at: testNow})
	m.refuses("without a body", m.verifier, empty, ReasonBody)

	pad := func(n int) *Request {
		r, _ := m.sent(`{"id": "evt_1", "type": "order.created", "pad": "` + strings.Repeat("a", n) + `"}`)
		return r
	}
	most := MaxBody - len(pad(0).Body)
	if r := pad(most); len(r.Body) != MaxBody {
		t.Fatalf("the body has %d bytes", len(r.Body))
	}
	takes(t, "at the limit", m.verifier, pad(most))
	m.refuses("over the limit", m.verifier, pad(most+1), ReasonTooLarge)
	for _, method := range []string{"PUT", "PATCH", "DELETE", "CONNECT", ""} {
		changed := clone(r)
		changed.Method = method
		m.refuses("with another method", m.verifier, changed, ReasonMethod)
	}
}

func (m *matrix) headers() {
	r, _ := m.sent(matrixBody)
	for _, name := range m.s.needed {
		missing := clone(r)
		missing.Header.Del(name)
		m.refuses("without "+name, m.verifier, missing, ReasonHeaderMissing)
		if verdict := m.verifier.Verify(context.Background(), missing); verdict.Rejection != nil && !strings.Contains(strings.ToLower(verdict.Rejection.Detail), strings.ToLower(name)) {
			m.t.Errorf("without %s: the detail is %q", name, verdict.Rejection.Detail)
		}
		empty := clone(r)
		empty.Header.Set(name, "")
		m.refuses("with an empty "+name, m.verifier, empty, ReasonHeaderMissing)
		twice := clone(r)
		twice.Header.Add(name, r.Header.Get(name))
		m.refuses(name+" twice", m.verifier, twice, ReasonHeaderRepeated)
		other := clone(r)
		other.Header.Add(name, "other")
		m.refuses(name+" and another", m.verifier, other, ReasonHeaderRepeated)
	}
	for _, name := range m.s.signed {
		value := r.Header.Get(name)
		for i := range value {
			b := []byte(value)
			b[i] ^= 1
			changed := clone(r)
			changed.Header.Set(name, string(b))
			m.refuses("a bit of "+name+" changed", m.verifier, changed)
		}
	}
}

// replace puts other text in the place of the signature.
func replace(r *Request, signature, other string) *Request {
	changed := clone(r)
	for name, values := range changed.Header {
		for i := range values {
			changed.Header[name][i] = strings.ReplaceAll(values[i], signature, other)
		}
	}
	changed.Body = bytes.ReplaceAll(changed.Body, []byte(signature), []byte(other))
	return changed
}

func (m *matrix) signature() {
	r, s := m.sent(matrixBody)
	for i := range s {
		b := []byte(s)
		b[i] ^= 1
		m.refuses("a bit of the signature changed", m.verifier, replace(r, s, string(b)))
	}
	for name, values := range r.Header {
		if before, rest, found := strings.Cut(values[0], s); found && before+rest != "" && m.s.encoding != "" {
			for _, other := range []string{s, "x" + before + s + rest, strings.ToUpper(before) + s + rest, "sha512=" + s} {
				changed := clone(r)
				changed.Header.Set(name, other)
				if strings.ToUpper(before) != before || other != strings.ToUpper(before)+s+rest {
					m.refuses("with the header "+quoted(other), m.verifier, changed)
				}
			}
		}
	}
	wrong := []string{s[:len(s)-1], s[:len(s)/2], s[1:], s + "0", s + s, "0" + s, strings.Repeat("0", len(s)), strings.Repeat("A", len(s)), "null", s + "\x00", " " + s[:len(s)-1], strings.Repeat("9", 10_000)}
	switch m.s.encoding {
	case "hex":
		takes(m.t, "in upper case", m.verifier, replace(r, s, strings.ToUpper(s)))
		wrong = append(wrong, "0x"+s, s+"=")
	case "base64", "base64url":
		// One whose text is another in each of the alphabets, and has padding.
		for i := 0; !strings.Contains(s, "+") && !strings.Contains(s, "-") || m.s.encoding == "base64" && !strings.HasSuffix(s, "="); i++ {
			if r, s = m.sent(matrixBody + strings.Repeat(" ", i)); m.name == "adyen" && i == 50 || i == 2000 {
				break // its signature does not depend on all of the body
			}
		}
		other := strings.NewReplacer("+", "-", "/", "_", "-", "+", "_", "/").Replace(s)
		if other != s {
			wrong = append(wrong, other)
		}
		if bare := strings.TrimRight(s, "="); bare != s {
			wrong = append(wrong, bare)
		} else {
			wrong = append(wrong, s+"=")
		}
		if len(s) > 8 {
			wrong = append(wrong, s[:4]+"\n"+s[4:])
		}
	}
	for _, text := range wrong {
		if text == s {
			continue
		}
		m.refuses("with the signature "+quoted(text), m.verifier, replace(r, s, text))
	}
}

func (m *matrix) clock() {
	s := m.s
	if s.unit == "" {
		if p, _ := Find(m.name); p.Tolerance != 0 && p.Name != "linear" {
			m.t.Error("the sender signs no time, and the provider has a tolerance")
		}
		return
	}
	p, _ := Find(m.name)
	if p.Tolerance != s.tolerance && m.name != "generic" {
		m.t.Errorf("the tolerance is %s, want %s", p.Tolerance, s.tolerance)
	}
	verifier, tolerance := m.verifier, s.tolerance
	settings := s.settingsOf(m.key)
	for _, asked := range []time.Duration{0, 90 * time.Second} {
		if asked > 0 {
			settings.Tolerance = eventhose.Duration(asked)
			verifier, tolerance = m.with(settings), asked
		}
		if tolerance == 0 { // not checked unless the source asks for it
			old, _ := s.send(message{key: m.key, body: []byte(matrixBody), at: testNow.Add(-100 * time.Hour)})
			takes(m.t, "of long ago", verifier, old)
			continue
		}
		for _, c := range []struct {
			off   time.Duration
			taken bool
		}{{-tolerance - time.Second, false}, {-tolerance, true}, {tolerance, true}, {tolerance + time.Second, false}, {-1000 * time.Hour, false}, {1000 * time.Hour, false}} {
			r, _ := s.send(message{key: m.key, body: []byte(matrixBody), at: testNow.Add(c.off)})
			if c.taken {
				takes(m.t, "signed "+c.off.String()+" from now", verifier, r)
			} else {
				m.refuses("signed "+c.off.String()+" from now", verifier, r, ReasonClock)
			}
		}
	}
	now := message{at: testNow}.time(s.unit)
	for _, stamp := range []string{"now", "+" + now, "-" + now, "+1", "-1", strings.Repeat("1", 20), now + ".0", "0x" + now, now + "e0", " ", now + now, "١٧٠٠٠٠٠٠٠٠", "0", "1"} {
		r, _ := s.send(message{key: m.key, body: []byte(matrixBody), at: testNow, stamp: stamp})
		m.refuses("signed at "+quoted(stamp), verifier, r)
	}
	if settings.Tolerance = eventhose.Duration(time.Millisecond); true {
		if _, err := New(m.name, settings, s.around); fieldOf(err) != fieldTolerance {
			m.t.Errorf("a tolerance of a millisecond: %v", err)
		}
	}
}

// strangers tries what other providers sign, with the same key.
func (m *matrix) strangers(all map[string]sender) {
	if m.s.key != nil || m.s.fixed != "" {
		return
	}
	for name, other := range all {
		if name == m.name || other.key != nil || other.fixed != "" || other.like != "" && other.like == m.s.like {
			continue
		}
		r, _ := other.send(message{key: m.key, body: []byte(matrixBody), at: testNow})
		m.refuses("as "+name+" signs", m.verifier, r)
	}
}
