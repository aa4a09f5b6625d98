package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
)

// opened is a verifier of each provider, with the sender's first key.
func opened(t testing.TB) map[string]*Verifier {
	t.Helper()
	all := map[string]*Verifier{}
	for name, s := range senders() {
		v, err := New(name, s.settingsOf(s.keyOf(0)), s.around)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = v
	}
	v, err := New("inspect", Settings{}, Surroundings{})
	if err != nil {
		t.Fatal(err)
	}
	all["inspect"] = v
	return all
}

// headerText writes headers as lines, as FuzzVerify takes them.
func headerText(h http.Header) string {
	var b strings.Builder
	for name, values := range h {
		for _, v := range values {
			b.WriteString(name + ": " + v + "\n")
		}
	}
	return b.String()
}

// Whatever comes, a verifier answers an event that the log would take, a handshake, or a rejection in words; it changes
// nothing and never panics.
func FuzzVerify(f *testing.F) {
	verifiers := opened(f)
	names := make([]string, 0, len(verifiers))
	for name := range verifiers {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if s, ok := senders()[name]; ok {
			r, _ := s.send(message{key: s.keyOf(0), body: []byte(matrixBody), at: testNow})
			f.Add(uint8(i), "POST", r.Query, headerText(r.Header), r.Body)
		}
		f.Add(uint8(i), "GET", "hub.mode=subscribe&hub.verify_token=verify-token-1&hub.challenge=1&crc_token=a&challenge=b", "X-Okta-Verification-Challenge: a", []byte(nil))
		f.Add(uint8(i), "POST", "", "Authorization: test_secret_0123456789abcdef_0", []byte(`{"a":1,"a":"\ud800"}`)) // JSON, though not to be strict about
		f.Add(uint8(i), "OPTIONS", "", "WebHook-Request-Origin: a\nWebHook-Request-Rate: 1", []byte(nil))
	}
	f.Fuzz(func(t *testing.T, which uint8, method, query, headers string, body []byte) {
		name := names[int(which)%len(names)]
		r := &Request{Method: method, Query: query, Header: http.Header{}, Body: bytes.Clone(body), Received: testNow}
		for line := range strings.SplitSeq(headers, "\n") {
			if key, value, ok := strings.Cut(line, ": "); ok {
				r.Header.Add(key, value)
			}
		}
		v := verifiers[name].Verify(context.Background(), r)
		switch {
		case !bytes.Equal(r.Body, body):
			t.Errorf("%s changed the body", name)
		case v.Answer.Status < 200 || v.Answer.Status > 599:
			t.Errorf("%s answers %d", name, v.Answer.Status)
		case v.Rejection != nil && (v.Event != nil || !slices.Contains(Reasons(), v.Rejection.Reason) || !printable(v.Rejection.Detail) || len(v.Rejection.Detail) > 1000):
			t.Errorf("%s rejects with %+v", name, v.Rejection)
		case v.Rejection == nil && v.Answer.Status >= 300:
			t.Errorf("%s takes and answers %d", name, v.Answer.Status)
		}
		if v.Event != nil {
			if err := v.Event.Validate(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if v.Event.JSON() && !(json.Valid(v.Event.Data) && utf8.Valid(v.Event.Data)) {
				t.Errorf("%s says that %q is JSON", name, v.Event.Data)
			}
		}
	})
}

// Whatever a source's settings are, they are refused with the field named, or make a verifier that verifies.
func FuzzGenericScheme(f *testing.F) {
	f.Add("X-Sig", "v1=", ",", "{timestamp}.{body}", "hex", "text", "X-Time", "s", "json:id+header:X", "0123456789", []byte("{}"))
	f.Add("X-Sig", "", "", "{body}", "base64url", "hex", "", "", "form:a", "00ff00ff00ff", []byte("a=1"))
	f.Fuzz(func(t *testing.T, header, prefix, separator, content, encoding, key, timestamp, unit, place, secret string, body []byte) {
		s := Settings{Secrets: []eventhose.Secret{eventhose.Secret(secret)}, PublicURL: testURL, Naming: &Naming{ID: []string{place}, Type: []string{place}, Key: []string{place}, Time: []string{place}},
			Scheme: &Scheme{Header: header, Prefix: prefix, Separator: separator, Content: content, Encoding: Encoding(encoding), Key: Encoding(key), TimestampHeader: timestamp, Unit: Unit(unit)}}
		v, err := New("generic", s, Surroundings{})
		if err != nil {
			var e *eventhose.Error
			if !errors.As(err, &e) || e.Code != eventhose.CodeInvalid || e.Field == "" {
				t.Errorf("%v", err)
			}
			return
		}
		r := post(body)
		r.Header.Set(header, prefix+"00")
		if timestamp != "" {
			r.Header.Set(timestamp, time.Unix(1_700_000_000, 0).UTC().Format(time.RFC3339))
		}
		if verdict := v.Verify(context.Background(), r); verdict.Rejection == nil {
			t.Errorf("it takes two digits for a signature: %+v", s.Scheme)
		}
		if e := v.naming.event(r, false); e.Validate() != nil {
			t.Errorf("%v", e.Validate())
		}
	})
}

// A JSON body is read without its depth or its repeated names doing harm, and only if it is one whole value.
func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"a":[{"b":1},{"b":"x"}]}`), "a.*.b")
	f.Add([]byte(`[[1,2],[3]]`), "0.1")
	f.Add([]byte(`{"a":1,"a":2}`), "a")
	f.Add([]byte(`[{"a":1,"a":[{"b":"\ud800"}]}]`), "*.a.0.b")
	f.Fuzz(func(t *testing.T, body []byte, path string) {
		if len(path) > maxPlace {
			return
		}
		tree := &fieldTree{}
		tree.add(strings.Split(path, "."))
		tree.add(strings.Split(path, "."))
		tree.add([]string{"0", "a"})
		values, valid := tree.read(body)
		if !slices.Equal(values[0], values[1]) || !valid && len(values[0]) > 0 {
			t.Errorf("%q and %q", values[0], values[1])
		}
		if _, again := (&fieldTree{}).read(body); again != valid {
			t.Errorf("whether it is JSON depends on what is looked for: %v and %v", valid, again)
		}
		verified, grammar := tree.readVerified(body)
		if grammar != (json.Valid(body) && utf8.Valid(body)) || valid && !reflect.DeepEqual(verified, values) || !slices.Equal(verified[0], verified[1]) {
			t.Errorf("verified it is %q (%v), and else %q (%v)", verified, grammar, values, valid)
		}
	})
}
