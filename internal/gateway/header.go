package gateway

import (
	"net/http"
	"strings"
)

// maxSignatures is how many signatures of one request are looked at.
const maxSignatures = 20

// one answers the value of a header that must be there exactly once.
func one(h http.Header, name string) (string, *Rejection) {
	values := h.Values(name)
	switch {
	case len(values) > 1:
		return "", reject(ReasonHeaderRepeated, "header %s came %d times", name, len(values))
	case len(values) == 0 || values[0] == "":
		return "", reject(ReasonHeaderMissing, "header %s is missing", name)
	}
	return values[0], nil
}

func malformed(name, value, form string) *Rejection {
	return reject(ReasonHeaderMalformed, "header %s is %s, and should be %s", name, quoted(value), form)
}

// split answers the elements of a list in a header, of which there may be maxSignatures. "" separates nothing.
func split(name, value, separator string) ([]string, *Rejection) {
	if separator == "" {
		return []string{value}, nil
	}
	if n := strings.Count(value, separator) + 1; n > maxSignatures {
		return nil, reject(ReasonHeaderMalformed, "header %s has %d elements, and at most %d are looked at", name, n, maxSignatures)
	}
	return strings.Split(value, separator), nil
}

// pairs reads "t=1,v1=abc,v1=def": the one value named s.TimestampName, and each value named s.SignatureName. Pairs of
// other names are passed over; one without a name, or a second time, makes the header malformed.
func (s *Scheme) pairs(value string) (time string, signatures []string, rejection *Rejection) {
	list, rejection := split(s.Header, value, s.Separator)
	if rejection != nil {
		return "", nil, rejection
	}
	form := s.TimestampName + "=…" + s.Separator + s.SignatureName + "=…"
	for _, pair := range list {
		if s.spaced {
			pair = strings.TrimLeft(pair, " ")
		}
		key, content, ok := strings.Cut(pair, "=")
		if s.Encoding == Base64 {
			ok = ok && !strings.Contains(strings.TrimRight(content, "="), "=")
		} else {
			ok = ok && !strings.Contains(content, "=")
		}
		switch {
		case !ok || key == "":
			return "", nil, malformed(s.Header, value, form)
		case key == s.TimestampName && time != "":
			return "", nil, reject(ReasonHeaderMalformed, "header %s has %s twice", s.Header, key)
		case key == s.TimestampName:
			time = content
		case key == s.SignatureName:
			signatures = append(signatures, content)
		}
	}
	if time == "" || len(signatures) == 0 {
		return "", nil, malformed(s.Header, value, form)
	}
	return time, signatures, nil
}
