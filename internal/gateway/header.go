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
	list := strings.Split(value, separator)
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list, nil
}

// pairs reads "t=1,v1=abc,v1=def": the one value named timestamp, and each value named signature. Pairs of other names
// are passed over; one without a name, or a second time, makes the header malformed.
func pairs(name, value, separator, timestamp, signature string) (time string, signatures []string, rejection *Rejection) {
	list, rejection := split(name, value, separator)
	if rejection != nil {
		return "", nil, rejection
	}
	form := timestamp + "=…" + separator + signature + "=…"
	for _, pair := range list {
		key, content, ok := strings.Cut(pair, "=")
		switch {
		case !ok || key == "" || strings.Contains(strings.TrimRight(content, "="), "="):
			return "", nil, malformed(name, value, form)
		case key == timestamp && time != "":
			return "", nil, reject(ReasonHeaderMalformed, "header %s has %s twice", name, timestamp)
		case key == timestamp:
			time = content
		case key == signature:
			signatures = append(signatures, content)
		}
	}
	if time == "" || len(signatures) == 0 {
		return "", nil, malformed(name, value, form)
	}
	return time, signatures, nil
}
