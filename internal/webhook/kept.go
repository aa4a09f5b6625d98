package webhook

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/eventhose/eventhose/internal/sink"
)

// Limits of what is kept of an answer's headers.
const (
	maxKeptHeaders  = 32
	maxHeaderLength = 1 << 10
)

// keptHeaders answers the first headers by name, bounded, without cookies and redacted.
func (t *target) keptHeaders(h http.Header) map[string]string {
	if len(h) == 0 {
		return nil
	}
	kept := make(map[string]string, min(len(h), maxKeptHeaders))
	if len(h) <= maxKeptHeaders { // which come first matters not
		for name, values := range h {
			t.keepHeader(kept, name, values)
		}
		return kept
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if len(kept) == maxKeptHeaders {
			break
		}
		t.keepHeader(kept, name, h[name])
	}
	return kept
}

func (t *target) keepHeader(kept map[string]string, name string, values []string) {
	if name == "Set-Cookie" || name == "Set-Cookie2" || len(name) > maxHeaderLength {
		return
	}
	value := strings.Join(values, ", ")
	kept[t.redactor.Redact(sink.Printable(strings.ToLower(name), maxHeaderLength))] = sink.Printable(t.redactor.Redact(value), maxHeaderLength)
}
