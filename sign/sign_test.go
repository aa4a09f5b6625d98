package sign_test

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/eventhose/eventhose/sign"
)

// vector is one of Standard Webhooks' own: testdata/vectors.json holds those of its libraries' tests.
type vector struct {
	Source    string `json:"source"`
	Secret    string `json:"secret"`
	SecretKey string `json:"secret_key"`
	PublicKey string `json:"public_key"`
	ID        string `json:"id"`
	Timestamp string `json:"timestamp"`
	Body      string `json:"body"`
	Signature string `json:"signature"`
}

func vectors(t testing.TB) (all []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func headers(id, timestamp, signature string) http.Header {
	h := http.Header{}
	h.Set(sign.HeaderID, id)
	h.Set(sign.HeaderTimestamp, timestamp)
	h.Set(sign.HeaderSignature, signature)
	return h
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestVectors(t *testing.T) {
	all := vectors(t)
	if len(all) != 2 {
		t.Fatalf("%d vectors, want 2", len(all))
	}
	for _, v := range all {
		t.Run(v.Source, func(t *testing.T) {
			seconds := must(strconv.ParseInt(v.Timestamp, 10, 64))
			signer := must(sign.ParseSigner(v.Secret + v.SecretKey))
			verifier := must(sign.ParseVerifier(v.Secret + v.PublicKey))
			got, err := sign.Sign(v.ID, time.Unix(seconds, 999), []byte(v.Body), signer)
			if err != nil || got != v.Signature {
				t.Errorf("signed %q, %v; want %q", got, err, v.Signature)
			}
			now := time.Unix(seconds+10, 0)
			if err := sign.Verify(headers(v.ID, v.Timestamp, v.Signature), []byte(v.Body), now, 0, verifier); err != nil {
				t.Error(err)
			}
			if err := sign.Verify(headers(v.ID, v.Timestamp, v.Signature), []byte(v.Body+" "), now, 0, verifier); !errors.Is(err, sign.ErrNoMatch) {
				t.Errorf("changed body: %v", err)
			}
			if key, ok := signer.(sign.SigningKey); ok && key.Public().String() != v.PublicKey {
				t.Errorf("public key %s, want %s", key.Public(), v.PublicKey)
			}
		})
	}
}

func TestVerifySaysWhichCheckFailed(t *testing.T) {
	secret, other, pair := sign.NewSecret(), sign.NewSecret(), sign.NewSigningKey()
	now := time.Unix(1764000000, 500)
	body := []byte(`{"n":1}`)
	at := func(seconds int64, keys ...sign.Signer) http.Header {
		at := time.Unix(now.Unix()+seconds, 0)
		return headers("msg_1", strconv.FormatInt(at.Unix(), 10), must(sign.Sign("msg_1", at, body, keys...)))
	}
	with := func(h http.Header, name, value string) http.Header { h.Set(name, value); return h }
	without := func(h http.Header, name string) http.Header { h.Del(name); return h }
	twice := func(h http.Header, name string) http.Header { h.Add(name, h.Get(name)); return h }
	good := func() http.Header { return at(0, secret) }
	signature := good().Get(sign.HeaderSignature)
	for _, c := range []struct {
		name string
		h    http.Header
		keys []sign.Verifier
		want error
		text string
	}{
		{"good", good(), nil, nil, ""},
		{"no id", without(good(), sign.HeaderID), nil, sign.ErrMissingHeader, "webhook-id"},
		{"no timestamp", without(good(), sign.HeaderTimestamp), nil, sign.ErrMissingHeader, "webhook-timestamp"},
		{"no signature", without(good(), sign.HeaderSignature), nil, sign.ErrMissingHeader, "webhook-signature"},
		{"empty signature", with(good(), sign.HeaderSignature, ""), nil, sign.ErrMissingHeader, "webhook-signature"},
		{"id twice", twice(good(), sign.HeaderID), nil, sign.ErrRepeatedHeader, "webhook-id"},
		{"timestamp twice", twice(good(), sign.HeaderTimestamp), nil, sign.ErrRepeatedHeader, "webhook-timestamp"},
		{"signature twice", twice(good(), sign.HeaderSignature), nil, sign.ErrRepeatedHeader, "webhook-signature"},
		{"timestamp with a sign", with(good(), sign.HeaderTimestamp, "+1764000000"), nil, sign.ErrTimestamp, ""},
		{"timestamp negative", with(good(), sign.HeaderTimestamp, "-1764000000"), nil, sign.ErrTimestamp, ""},
		{"timestamp with a fraction", with(good(), sign.HeaderTimestamp, "1764000000.5"), nil, sign.ErrTimestamp, ""},
		{"timestamp in hex", with(good(), sign.HeaderTimestamp, "0x69"), nil, sign.ErrTimestamp, ""},
		{"timestamp of 14 digits", with(good(), sign.HeaderTimestamp, "17640000000000"), nil, sign.ErrTimestamp, ""},
		{"timestamp in milliseconds", with(good(), sign.HeaderTimestamp, "1764000000000"), nil, sign.ErrTooNew, "milliseconds"},
		{"timestamp with leading zero", with(good(), sign.HeaderTimestamp, "01764000000"), nil, sign.ErrNoMatch, ""},
		{"as old as allowed", at(-299, secret), nil, nil, ""},
		{"too old", at(-300, secret), nil, sign.ErrTooOld, "5m0s ago"},
		{"as new as allowed", at(300, secret), nil, nil, ""},
		{"too new", at(301, secret), nil, sign.ErrTooNew, "5m1s ahead"},
		{"another key", at(0, other), nil, sign.ErrNoMatch, ""},
		{"third of four", with(good(), sign.HeaderSignature, "v1,AAAA v1a,AAAA "+signature+" v1,Zm9v"), nil, nil, ""},
		{"rotation: signed with both, known the new", at(0, other, secret), nil, nil, ""},
		{"rotation: signed with one, known both", at(0, other), []sign.Verifier{secret, other}, nil, ""},
		{"other version", with(good(), sign.HeaderSignature, strings.Replace(signature, "v1,", "v2,", 1)), nil, sign.ErrNoKnownVersion, `"v2"`},
		{"only v1a, key is v1", at(0, pair), nil, sign.ErrNoKnownVersion, `verify v1, the message has ["v1a"]`},
		{"only v1, key is v1a", good(), []sign.Verifier{pair.Public()}, sign.ErrNoKnownVersion, ""},
		{"v1a", at(0, pair), []sign.Verifier{pair.Public()}, nil, ""},
		{"v1a and v1", at(0, secret, pair), []sign.Verifier{pair.Public()}, nil, ""},
		{"v1a by another", at(0, sign.NewSigningKey()), []sign.Verifier{pair.Public()}, sign.ErrNoMatch, ""},
		{"v1 value called v1a", with(good(), sign.HeaderSignature, strings.Replace(signature, "v1,", "v1a,", 1)), []sign.Verifier{pair.Public()}, sign.ErrNoMatch, ""},
		{"empty value", with(good(), sign.HeaderSignature, "v1,"), nil, sign.ErrNoMatch, ""},
		{"no comma", with(good(), sign.HeaderSignature, "v1"), nil, sign.ErrNoKnownVersion, ""},
		{"truncated", with(good(), sign.HeaderSignature, signature[:len(signature)-4]), nil, sign.ErrNoMatch, ""},
		{"no padding", with(good(), sign.HeaderSignature, strings.TrimRight(signature, "=")), nil, sign.ErrNoMatch, ""},
		{"hex", with(good(), sign.HeaderSignature, "v1,"+strings.Repeat("ab", 32)), nil, sign.ErrNoMatch, ""},
		{"many", with(good(), sign.HeaderSignature, strings.Repeat("v1,AAAA ", 20)+signature), nil, sign.ErrTooManySignatures, "21"},
		{"no key", good(), []sign.Verifier{}, sign.ErrNoKey, ""},
		{"nil key", good(), []sign.Verifier{nil}, sign.ErrNoKey, ""},
		{"zero secret", good(), []sign.Verifier{sign.Secret{}}, sign.ErrNoKey, ""},
		{"zero public key", good(), []sign.Verifier{secret, sign.PublicKey{}}, sign.ErrNoKey, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.keys == nil {
				c.keys = []sign.Verifier{secret}
			}
			err := sign.Verify(c.h, body, now, 0, c.keys...)
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%q does not say %q", err, c.text)
			}
			if err != nil && strings.Contains(err.Error(), signature[3:20]) {
				t.Errorf("the error shows the right signature: %v", err)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	secret := sign.NewSecret()
	for id, want := range map[string]error{"": sign.ErrID, "a.b": sign.ErrID, "a b": sign.ErrID, "a\nb": sign.ErrID, "é": sign.ErrID,
		strings.Repeat("a", 257): sign.ErrID, strings.Repeat("a", 256): nil, "evt_1": nil} {
		if _, err := sign.Sign(id, time.Unix(1, 0), nil, secret); !errors.Is(err, want) {
			t.Errorf("id %q: %v, want %v", id, err, want)
		}
	}
	for at, want := range map[time.Time]error{time.Unix(-1, 0): sign.ErrTime, {}: sign.ErrTime, time.Unix(0, 0): nil,
		time.Unix(9_999_999_999_999, 0): nil, time.Unix(10_000_000_000_000, 0): sign.ErrTime} {
		if _, err := sign.Sign("a", at, nil, secret); !errors.Is(err, want) {
			t.Errorf("time %v: %v, want %v", at, err, want)
		}
	}
	for _, keys := range [][]sign.Signer{nil, {nil}, {sign.Secret{}}, {secret, sign.SigningKey{}}} {
		dst := []byte("before")
		got, err := sign.AppendSignatures(dst, "a", time.Unix(1, 0), nil, keys...)
		if !errors.Is(err, sign.ErrNoKey) || string(got) != "before" {
			t.Errorf("keys %v: %q, %v", keys, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n))) }
	public := sign.NewSigningKey().Public().String()
	for _, c := range []struct{ text, says string }{
		{"", "empty"}, {"whsec_", "empty"}, {"   ", "empty"}, {"\n", "empty"},
		{"whsec_" + b64(24) + "\n", "white space"}, {" whsec_" + b64(24), "white space"}, {"whsec_ " + b64(24), "white space"},
		{"whsec_not base64", "white space"}, {"whsec_not-base64", "base64"}, {"whsec_" + strings.TrimRight(b64(25), "="), "base64"},
		{"whsec_" + b64(15), "15 bytes"}, {"whsec_" + b64(65), "65 bytes"}, {"whsec_" + b64(1000), "too long"},
		{public, "whpk_"}, {sign.NewSigningKey().Reveal(), "whsk_"}, {"whsec_" + public, "base64"},
	} {
		k, err := sign.ParseSecret(c.text)
		if !errors.Is(err, sign.ErrKey) || !strings.Contains(err.Error(), c.says) || k != (sign.Secret{}) {
			t.Errorf("ParseSecret(%q): %v, want it to say %q", c.text, err, c.says)
		}
		if rest := strings.TrimPrefix(c.text, "whsec_"); len(rest) > 8 && strings.Contains(err.Error(), rest) {
			t.Errorf("the error shows the text: %v", err)
		}
	}
	for _, n := range []int{16, 24, 32, 64} {
		for _, prefix := range []string{"", "whsec_"} {
			if k, err := sign.ParseSecret(prefix + b64(n)); err != nil || k.Reveal() != "whsec_"+b64(n) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	}
	for _, text := range []string{"", "whsk_", b64(32), "whsk_" + b64(31), "whsk_" + b64(64), "whsec_" + b64(32), "whpk_" + b64(32), "whsk_" + b64(32) + " "} {
		if _, err := sign.ParseSigningKey(text); !errors.Is(err, sign.ErrKey) {
			t.Errorf("ParseSigningKey(%q): %v", text, err)
		}
	}
	for _, text := range []string{"", "whpk_", b64(32), "whpk_" + b64(31), "whsec_" + b64(32), "whsk_" + b64(32)} {
		if _, err := sign.ParsePublicKey(text); !errors.Is(err, sign.ErrKey) {
			t.Errorf("ParsePublicKey(%q): %v", text, err)
		}
	}
	if k, err := sign.ParseSigner(public); k != nil || !errors.Is(err, sign.ErrKey) {
		t.Errorf("a public key signs: %v", err)
	}
	if k, err := sign.ParseVerifier(sign.NewSigningKey().Reveal()); k != nil || !errors.Is(err, sign.ErrKey) {
		t.Errorf("a signing key verifies: %v", err)
	}
}

func TestKeysAreRedacted(t *testing.T) {
	secret, key := sign.NewSecret(), sign.NewSigningKey()
	type holder struct {
		Secret sign.Secret
		Key    sign.SigningKey
		hidden sign.Secret
	}
	h := holder{secret, key, secret}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "secret", secret, "key", key, "holder", h)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secret", secret, "key", key, "holder", h)
	asJSON := must(json.Marshal(h))
	text := fmt.Sprintf("%v %+v %#v %s %q %x %d|%v %+v %#v|%v %s", secret, secret, secret, secret, secret, secret, secret, h, h, h, &h, []sign.Signer{secret, key}) + logged.String() + string(asJSON)
	for _, k := range []string{secret.Reveal()[6:], key.Reveal()[5:]} {
		raw := must(base64.StdEncoding.DecodeString(k))
		for _, form := range []string{k, string(raw), fmt.Sprintf("%x", raw), fmt.Sprintf("%d", raw), strings.Trim(fmt.Sprintf("%#v", raw), "[]byte{}")} {
			if strings.Contains(text, form) {
				t.Errorf("shown: %s", text)
			}
		}
	}
	if secret.Reveal() == sign.NewSecret().Reveal() || len(must(base64.StdEncoding.DecodeString(secret.Reveal()[6:]))) != 32 {
		t.Error("a new secret is not 32 random bytes")
	}
	if again := must(sign.ParseSigningKey(key.Reveal())); again.Public().String() != key.Public().String() {
		t.Error("a signing key does not survive its text")
	}
}

// The third-party library takes what we sign, and we take what it signs; where the two differ we are the stricter.
func TestLibraryAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 16, 64).Draw(t, "secret")
		text := "whsec_" + base64.StdEncoding.EncodeToString(raw)
		ours, theirs := must(sign.ParseSecret(text)), must(standardwebhooks.NewWebhook(text))
		id := rapid.StringMatching(`[A-Za-z0-9_-]{1,40}`).Draw(t, "id")
		at := time.Unix(rapid.Int64Range(0, 9_999_999_999).Draw(t, "seconds"), 0)
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		timestamp := strconv.FormatInt(at.Unix(), 10)

		mine, yours := must(sign.Sign(id, at, body, ours)), must(theirs.Sign(id, at, body))
		if mine != yours {
			t.Fatalf("ours %s, theirs %s", mine, yours)
		}
		// Mutate what travels; the two must agree on what is left.
		signature := rapid.SampledFrom([]string{mine, "v2,x " + mine, mine + " v1,", " " + mine, mine[:len(mine)-1], "v1a" + mine[2:], mine + "x", mine + ",x"}).Draw(t, "signature")
		sentID := rapid.SampledFrom([]string{id, id + "x"}).Draw(t, "sent id")
		sent := append([]byte(nil), body...)
		if len(sent) > 0 && rapid.Bool().Draw(t, "flip") {
			sent[rapid.IntRange(0, len(sent)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		h := headers(sentID, timestamp, signature)
		we, they := sign.Verify(h, sent, at, 0, ours), theirs.VerifyIgnoringTimestamp(sent, h)
		// The library ignores what follows a second comma; we do not.
		if (we == nil) != (they == nil) && !(we != nil && strings.HasSuffix(signature, ",x")) {
			t.Fatalf("we say %v, they say %v", we, they)
		}
	})
}

func TestLibraryAgreesOnTime(t *testing.T) {
	secret := sign.NewSecret()
	theirs := must(standardwebhooks.NewWebhook(secret.Reveal()))
	for _, offset := range []int64{-10000, -400, -290, 0, 290, 400, 10000} {
		at := time.Now().Add(time.Duration(offset) * time.Second)
		h := headers("a", strconv.FormatInt(at.Unix(), 10), must(sign.Sign("a", at, nil, secret)))
		we, they := sign.Verify(h, nil, time.Now(), 0, secret), theirs.Verify(nil, h)
		if (we == nil) != (they == nil) {
			t.Errorf("%d s: we say %v, they say %v", offset, we, they)
		}
	}
}

func TestAppendSignaturesAllocatesNothing(t *testing.T) {
	keys := []sign.Signer{sign.NewSecret(), sign.NewSecret()}
	body := []byte(strings.Repeat("x", 1024))
	dst := make([]byte, 0, 256)
	now := time.Now()
	got := testing.AllocsPerRun(200, func() {
		if _, err := sign.AppendSignatures(dst, "evt_1", now, body, keys...); err != nil {
			t.Fatal(err)
		}
	})
	if got > allowedAllocations {
		t.Errorf("%v allocations, want at most %v", got, float64(allowedAllocations))
	}
}

func TestVerifyRequest(t *testing.T) {
	secret := sign.NewSecret()
	request := func(body string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		now := time.Now()
		r.Header = headers("a", strconv.FormatInt(now.Unix(), 10), must(sign.Sign("a", now, []byte(body), secret)))
		return r
	}
	if body, err := sign.VerifyRequest(request("hello"), 5, secret); err != nil || string(body) != "hello" {
		t.Errorf("%q, %v", body, err)
	}
	if body, err := sign.VerifyRequest(request("hello"), 4, secret); !errors.Is(err, sign.ErrBody) || body != nil {
		t.Errorf("%q, %v", body, err)
	}
	if body, err := sign.VerifyRequest(request("hello"), 5, sign.NewSecret()); !errors.Is(err, sign.ErrNoMatch) || body != nil {
		t.Errorf("%q, %v", body, err)
	}
	if body, err := sign.VerifyRequest(request("hello"), math.MaxInt64, secret); err != nil || string(body) != "hello" { // no limit
		t.Errorf("%q, %v", body, err)
	}
	compressed := func(body string, members ...string) *http.Request {
		r := request(body)
		r.Header.Set("Content-Encoding", "GZIP")
		var b bytes.Buffer
		for _, m := range members {
			w := gzip.NewWriter(&b)
			w.Write([]byte(m))
			w.Close()
		}
		r.Body = io.NopCloser(&b)
		return r
	}
	random := make([]byte, 100_000)
	rand.Read(random)
	for _, body := range []string{"hello", "", strings.Repeat("x", 100_000), string(random)} {
		if got, err := sign.VerifyRequest(compressed(body, body), int64(len(body)), secret); err != nil || string(got) != body {
			t.Errorf("%d bytes compressed: %d, %v", len(body), len(got), err)
		}
	}
	for name, r := range map[string]*http.Request{
		"a bomb":          compressed("x", strings.Repeat("x", 10<<20)),
		"endless nothing": compressed("", slices.Repeat([]string{""}, 1000)...),
		"not compressed":  compressed("hello"),
		"compressed in part": func() *http.Request {
			r := compressed("hello", "hello")
			r.Body = io.NopCloser(io.LimitReader(r.Body, 20))
			return r
		}(),
	} {
		if body, err := sign.VerifyRequest(r, 1000, secret); !errors.Is(err, sign.ErrBody) || body != nil {
			t.Errorf("%s: %d bytes, %v", name, len(body), err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.ID, v.Timestamp, v.Signature, []byte(v.Body))
	}
	f.Add("a", "0001", "v1, v1,= v1a,AA== ,", []byte{})
	f.Add("", "+1", "v1", []byte{0xff})
	v := vectors(f)
	secret, public := must(sign.ParseSecret(v[0].Secret)), must(sign.ParsePublicKey(v[1].PublicKey))
	theirs, raw := must(standardwebhooks.NewWebhook(v[0].Secret)), must(base64.StdEncoding.DecodeString(v[0].Secret[6:]))
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		h := headers(id, timestamp, signature)
		seconds, err := strconv.ParseInt(timestamp, 10, 64)
		if err != nil {
			seconds = 0
		}
		now := time.Unix(seconds, 0)
		err = sign.Verify(h, body, now, 0, secret)
		if err == nil && theirs.VerifyIgnoringTimestamp(body, h) != nil {
			t.Fatal("we take what the library refuses")
		}
		if err == nil {
			mac := hmac.New(sha256.New, raw)
			mac.Write([]byte(id + "." + timestamp + "."))
			mac.Write(body)
			if !strings.Contains(signature, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))) {
				t.Fatal("what was taken does not hold the right signature")
			}
		}
		sign.Verify(h, body, now, 0, public)
	})
}

func FuzzParseSecret(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Secret)
		f.Add(v.SecretKey)
		f.Add(v.PublicKey)
	}
	f.Add("whsec_ =")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := sign.ParseSecret(text); err == nil {
			again, err := sign.ParseSecret(k.Reveal())
			if err != nil || again.Reveal() != k.Reveal() {
				t.Fatalf("%q does not survive: %v", text, err)
			}
			if _, err := standardwebhooks.NewWebhook(text); err != nil {
				t.Fatalf("the library refuses %q: %v", text, err)
			}
		}
		for _, parse := range []func(string) error{
			func(s string) error { _, err := sign.ParseSigner(s); return err },
			func(s string) error { _, err := sign.ParseVerifier(s); return err },
		} {
			if err := parse(text); err != nil && !errors.Is(err, sign.ErrKey) {
				t.Fatalf("unnamed error %v", err)
			}
		}
	})
}
