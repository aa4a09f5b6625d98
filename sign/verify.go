package sign

import (
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is how far webhook-timestamp may be from now, before or after.
const DefaultTolerance = 5 * time.Minute

// MaxSignatures is how many signatures of one message are looked at; a message with more is refused.
const MaxSignatures = 20

// Each error names the check that failed. What is returned wraps one of them and adds the particulars.
var (
	// ErrMissingHeader: one of the three headers is missing or empty.
	ErrMissingHeader = errors.New("sign: missing header")
	// ErrRepeatedHeader: one of the three headers came twice, so that others may have read another message than we.
	ErrRepeatedHeader = errors.New("sign: header came more than once")
	// ErrTimestamp: webhook-timestamp is not 1 to 13 digits.
	ErrTimestamp = errors.New("sign: webhook-timestamp is not a number of seconds")
	// ErrTooOld: webhook-timestamp is further back than the tolerance.
	ErrTooOld = errors.New("sign: message is too old")
	// ErrTooNew: webhook-timestamp is further ahead than the tolerance.
	ErrTooNew = errors.New("sign: message is from the future")
	// ErrTooManySignatures: there are more than MaxSignatures.
	ErrTooManySignatures = errors.New("sign: too many signatures")
	// ErrNoKnownVersion: no signature is of a version that the keys verify.
	ErrNoKnownVersion = errors.New("sign: no signature of a known version")
	// ErrNoMatch: there are signatures of the right version and none is right: another key, or another body.
	ErrNoMatch = errors.New("sign: no signature matches")
	// ErrBody: the request's body could not be read or is larger than the limit.
	ErrBody = errors.New("sign: body not read")
)

// Verifier is a key that verifies: Secret or PublicKey.
type Verifier interface {
	version() string
	usable() bool
	// matcher answers the check of one decoded signature over head and body. The key is usable.
	matcher(head, body []byte) func(signature []byte) bool
}

// Verify checks a message: the three headers, the time within tolerance of now in both directions (0 means
// DefaultTolerance), and that a signature matches a key. body is the body exactly as it was received. The error wraps
// one of this package's and says which check failed; it never shows a key or a right signature.
//
// Verify does not remember ids: whoever must not act twice on one message keeps webhook-id at least for the tolerance.
func Verify(h http.Header, body []byte, now time.Time, tolerance time.Duration, keys ...Verifier) error {
	if len(keys) == 0 || slices.ContainsFunc(keys, func(k Verifier) bool { return k == nil || !k.usable() }) {
		return ErrNoKey
	}
	var values [3]string
	for i, name := range [...]string{HeaderID, HeaderTimestamp, HeaderSignature} {
		values[i] = h.Get(name)
		switch {
		case len(h.Values(name)) > 1:
			return fmt.Errorf("%w: %s", ErrRepeatedHeader, name)
		case values[i] == "":
			return fmt.Errorf("%w: %s", ErrMissingHeader, name)
		}
	}
	id, timestamp, signatures := values[0], values[1], values[2]
	if err := checkTime(timestamp, now, tolerance); err != nil {
		return err
	}
	return checkSignatures(signatures, []byte(id+"."+timestamp+"."), body, keys)
}

func checkTime(timestamp string, now time.Time, tolerance time.Duration) error {
	if len(timestamp) > 13 || strings.Trim(timestamp, "0123456789") != "" {
		return ErrTimestamp
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return ErrTimestamp
	}
	if tolerance <= 0 {
		tolerance = DefaultTolerance
	}
	age := now.Sub(time.Unix(seconds, 0)) // of either sign; Sub does not overflow but stops at 292 years
	switch {
	case age > tolerance:
		return fmt.Errorf("%w: it was sent %s ago, and %s is allowed", ErrTooOld, age.Round(time.Millisecond), tolerance)
	case age < -tolerance && seconds > now.Unix()*100:
		return fmt.Errorf("%w: webhook-timestamp seems to be in milliseconds, and must be in seconds", ErrTooNew)
	case age < -tolerance:
		return fmt.Errorf("%w: it was sent %s ahead of this clock, and %s is allowed", ErrTooNew, age.Abs().Round(time.Millisecond), tolerance)
	}
	return nil
}

func checkSignatures(signatures string, head, body []byte, keys []Verifier) error {
	if n := strings.Count(signatures, " ") + 1; n > MaxSignatures {
		return fmt.Errorf("%w: %d, and %d are allowed", ErrTooManySignatures, n, MaxSignatures)
	}
	var found []string
	known := false
	for _, k := range keys {
		var matches func([]byte) bool
		for signature := range strings.SplitSeq(signatures, " ") {
			version, text, ok := strings.Cut(signature, ",")
			if !ok || version != k.version() {
				if ok && len(version) <= 8 && !slices.Contains(found, version) {
					found = append(found, version)
				}
				continue
			}
			known = true
			if matches == nil {
				matches = k.matcher(head, body)
			}
			b, err := base64.StdEncoding.Strict().DecodeString(text)
			if err == nil && !strings.ContainsAny(text, "\r\n") && matches(b) {
				return nil
			}
		}
	}
	if !known {
		return fmt.Errorf("%w: the keys verify %s, the message has %q", ErrNoKnownVersion, versions(keys), found)
	}
	return ErrNoMatch
}

func versions(keys []Verifier) string {
	var all []string
	for _, k := range keys {
		if !slices.Contains(all, k.version()) {
			all = append(all, k.version())
		}
	}
	return strings.Join(all, " and ")
}

// VerifyRequest reads a request's body, at most limit bytes of it, verifies it against the time now and DefaultTolerance,
// and answers it. A body with Content-Encoding gzip is decompressed first, since it was signed before it was compressed;
// limit is of what it decompresses to. The body is consumed. Errors are Verify's, and ErrBody; answer all of them with 401
// except ErrBody.
func VerifyRequest(r *http.Request, limit int64, keys ...Verifier) ([]byte, error) {
	limit = min(limit, math.MaxInt64/2) // more than this is not counted to
	// What decompresses to nothing could go on for ever; what does not compress grows by less than this.
	raw := &io.LimitedReader{R: r.Body, N: limit + limit/1024 + 1024}
	source := io.Reader(raw)
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBody, err)
		}
		source = z
	}
	body, err := io.ReadAll(io.LimitReader(source, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBody, err)
	}
	if int64(len(body)) > limit || raw.N == 0 {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrBody, limit)
	}
	if err := Verify(r.Header, body, time.Now(), DefaultTolerance, keys...); err != nil {
		return nil, err
	}
	return body, nil
}
