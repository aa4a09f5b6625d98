package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// The signature's header, and the one that names its hash where a shared key signs in place of the auth token. What it says
// is not signed, and need not be: another hash is another signature.
const (
	twilioSignature = "X-Twilio-Signature"
	twilioSettings  = "X-Twilio-Webhooks-Signature-Settings"
)

// twilio signs the URL, query included, and of a form every parameter; of a JSON body it signs a digest in the query. What
// its document leaves open is as in its libraries for Python 9.13 and Node 6.3.
func twilio() Provider {
	return Provider{
		Name: "twilio", Title: "Twilio", Source: "https://www.twilio.com/docs/usage/security#validating-requests",
		Checked: "PyPI twilio 9.13.0, npm twilio 6.3.1, Go twilio-go 1.31.0, all Twilio's own",
		Doc:     twilioSignature + ": base64 of HMAC-SHA1 over {url} and the sorted parameters, or {url} with bodySHA256; HMAC-SHA256 with a shared key",
		Needs:   []Need{{fieldSecrets, true, "the account's auth token, or the shared key's secret"}, needPublicURL},
		naming: Naming{
			// The token is not signed, and stands for what has no id that is: what a call asks for, which may be the same twice.
			ID: []string{"form:MessageSid+form:MessageStatus", "form:MessageSid+form:SmsStatus", "form:CallSid+form:CallStatus+form:SequenceNumber+form:CallbackSource",
				"json:0.id", "json:id", "header:I-Twilio-Idempotency-Token", "form:CallSid+form:CallStatus+form:SequenceNumber"},
			Type: []string{"form:MessageStatus", "form:SmsStatus", "form:CallStatus", "form:EventType", "json:*.type"},
			Key:  []string{"form:MessageSid", "form:CallSid"}, Keep: []string{"I-Twilio-Idempotency-Token"},
		},
		open: func(c *configuration) (scheme, error) {
			keys, err := c.keys(Text, "")
			if err != nil {
				return scheme{}, err
			}
			m := map[Hash]*macs{SHA1: newMACs(SHA1, keys...), SHA256: newMACs(SHA256, keys...)}
			check := func(_ context.Context, r *Request) *Rejection { return checkTwilio(c, m, r) }
			return scheme{check: check, asForm: twilioForm, probe: func(ctx context.Context, r *Request, v *Verifier) Verdict {
				if r.Method != http.MethodGet || len(r.Body) > 0 {
					return rejected(reject(ReasonMethod, "the method is %s, and should be POST, or GET without a body", quoted(r.Method)))
				}
				return v.judge(ctx, r)
			}}, nil
		},
	}
}

func checkTwilio(c *configuration, of map[Hash]*macs, r *Request) *Rejection {
	value, rejection := one(r.Header, twilioSignature)
	if rejection != nil {
		return rejection
	}
	hash, rejection := twilioHash(r)
	if rejection != nil {
		return rejection
	}
	m := of[hash]
	signature, ok := Base64.decode(value)
	if !ok || len(signature) != m.size {
		return malformed(twilioSignature, value, fmt.Sprintf("base64 of %d bytes", m.size))
	}
	content, rejection := twilioParameters(r)
	if rejection != nil {
		return rejection
	}
	for _, u := range withAndWithoutPort(c.signedURL(r)) {
		if m.match([][]byte{signature}, []byte(u), []byte(content)) {
			return nil
		}
	}
	return reject(ReasonNoMatch, "the secret does not match: it is another account's, public_url is not the URL that Twilio was given, or the request was changed on the way")
}

// twilioHash is what the signature is made with: "key=…,algorithm=HMAC_SHA256" says so, and SHA-1 if nothing does.
func twilioHash(r *Request) (Hash, *Rejection) {
	if len(r.Header.Values(twilioSettings)) == 0 {
		return SHA1, nil
	}
	value, rejection := one(r.Header, twilioSettings)
	if rejection != nil {
		return "", rejection
	}
	parts, rejection := split(twilioSettings, value, ",")
	if rejection != nil {
		return "", rejection
	}
	for _, part := range parts {
		name, algorithm, _ := strings.Cut(part, "=")
		if strings.TrimSpace(name) != "algorithm" {
			continue
		}
		switch strings.TrimSpace(algorithm) {
		case "HMAC_SHA1":
			return SHA1, nil
		case "HMAC_SHA256":
			return SHA256, nil
		}
		return "", malformed(twilioSettings, value, "key=…,algorithm=HMAC_SHA1 or HMAC_SHA256")
	}
	return SHA1, nil
}

// twilioForm reports whether the parameters are what is signed, and not the digest of a body.
func twilioForm(r *Request) bool {
	query, rejection := parseForm(r.Query)
	return r.Method == http.MethodGet || rejection == nil && len(query.values["bodySHA256"]) == 0
}

// twilioParameters answers what is signed behind the URL. A name that comes several times stands there with each of its
// values, sorted, and one that comes again once: nothing is left that could be added to a signed request.
func twilioParameters(r *Request) (string, *Rejection) {
	if r.Method == http.MethodGet {
		return "", nil
	}
	query, rejection := parseForm(r.Query)
	if rejection != nil {
		return "", rejection
	}
	if digests := query.values["bodySHA256"]; len(digests) > 0 {
		sum := sha256.Sum256(r.Body)
		digest, ok := Hex.decode(digests[0])
		if len(digests) > 1 || !ok || subtle.ConstantTimeCompare(digest, sum[:]) != 1 {
			return "", reject(ReasonNoMatch, "the digest in the URL (bodySHA256) is not the body's: the body was changed on the way")
		}
		return "", nil
	}
	f, rejection := readForm(r)
	if rejection != nil {
		return "", rejection
	}
	var content strings.Builder
	for _, name := range sortedNames(f.values) {
		for _, value := range slices.Compact(slices.Sorted(slices.Values(f.values[name]))) {
			content.WriteString(name + value)
		}
	}
	return content.String(), nil
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
