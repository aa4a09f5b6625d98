package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// twilio signs the URL, query included, and of a form every parameter; of a JSON body it signs a digest in the query.
func twilio() Provider {
	return Provider{
		Name: "twilio", Title: "Twilio", Source: "https://www.twilio.com/docs/usage/security#validating-requests",
		Doc:   "X-Twilio-Signature: base64 of HMAC-SHA1 over {url} and the sorted parameters, or {url} with bodySHA256",
		Needs: []Need{{fieldSecrets, true, "the account's auth token"}, needPublicURL},
		naming: Naming{
			ID: []string{"header:I-Twilio-Idempotency-Token", "form:MessageSid+form:MessageStatus", "form:CallSid+form:CallStatus+form:SequenceNumber", "form:MessageSid+form:SmsStatus",
				"json:0.id", "json:id"},
			Type: []string{"form:MessageStatus", "form:SmsStatus", "form:CallStatus", "form:EventType", "json:*.type"},
			Key:  []string{"form:MessageSid", "form:CallSid"}, Keep: []string{"I-Twilio-Idempotency-Token"},
		},
		open: func(c *configuration) (scheme, error) {
			m := &macs{hash: SHA1.make()}
			for _, s := range c.Secrets {
				m.keys = append(m.keys, []byte(s))
			}
			check := func(_ context.Context, r *Request) *Rejection { return checkTwilio(c, m, r) }
			return scheme{check: check, probe: func(ctx context.Context, r *Request, v *Verifier) Verdict {
				if r.Method != http.MethodGet || len(r.Body) > 0 {
					return rejected(reject(ReasonMethod, "the method is %s, and should be POST, or GET without a body", quoted(r.Method)))
				}
				return v.judge(ctx, r)
			}}, nil
		},
	}
}

func checkTwilio(c *configuration, m *macs, r *Request) *Rejection {
	const header = "X-Twilio-Signature"
	value, rejection := one(r.Header, header)
	if rejection != nil {
		return rejection
	}
	signature, ok := Base64.decode(value)
	if !ok || len(signature) != m.hash().Size() {
		return malformed(header, value, "base64 of 20 bytes")
	}
	contents, rejection := twilioParameters(r)
	if rejection != nil {
		return rejection
	}
	for _, u := range withAndWithoutPort(c.signedURL(r)) {
		for _, content := range contents {
			if m.match([][]byte{signature}, []byte(u), []byte(content)) {
				return nil
			}
		}
	}
	return reject(ReasonNoMatch, "the secret does not match: it is another account's, public_url is not the URL that Twilio was given, or the request was changed on the way")
}

// twilioParameters answers what may have been signed behind the URL.
func twilioParameters(r *Request) ([]string, *Rejection) {
	if r.Method == http.MethodGet {
		return []string{""}, nil
	}
	query, rejection := parseForm(r.Query)
	if rejection != nil {
		return nil, rejection
	}
	if digests := query.values["bodySHA256"]; len(digests) > 0 {
		sum := sha256.Sum256(r.Body)
		digest, ok := Hex.decode(digests[0])
		if len(digests) > 1 || !ok || subtle.ConstantTimeCompare(digest, sum[:]) != 1 {
			return nil, reject(ReasonNoMatch, "the digest in the URL (bodySHA256) is not the body's: the body was changed on the way")
		}
		return []string{""}, nil
	}
	f, rejection := readForm(r)
	if rejection != nil {
		return nil, rejection
	}
	var every, first strings.Builder
	for _, name := range sortedNames(f.values) {
		values := slices.Clone(f.values[name])
		first.WriteString(name + values[0])
		slices.Sort(values)
		for _, value := range slices.Compact(values) {
			every.WriteString(name + value)
		}
	}
	if every.String() == first.String() {
		return []string{every.String()}, nil
	}
	// A name that comes several times: Twilio's library for Node signs each value, sorted; the one for Go the first.
	return []string{every.String(), first.String()}, nil
}

func sortedNames(values url.Values) []string {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// withAndWithoutPort answers a URL as it is, without its port, and with the usual one: as Twilio's libraries try them.
func withAndWithoutPort(raw string) []string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return []string{raw}
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host, path := rest[:end], rest[end:]
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		host = host[:colon]
	}
	port := ":443"
	if scheme == "http" {
		port = ":80"
	}
	return []string{raw, scheme + "://" + host + path, scheme + "://" + host + port + path}
}
