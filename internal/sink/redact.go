package sink

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// RedactURL answers a URL without user, password, query and fragment, any of which may hold a secret; "" if it is no
// absolute URL.
func RedactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

const redacted = "***"

// shortest is the length of the shortest text that is taken for a secret: shorter ones are in every answer by chance.
const shortest = 4

// Redactor replaces secrets in text that came from outside. The zero Redactor replaces nothing. It may be used
// concurrently.
type Redactor struct {
	secrets  []string // the longest first
	replacer *strings.Replacer
}

// NewRedactor makes a Redactor of secrets, each of which is also found as the words it consists of (of "Bearer abcd" also
// "abcd") and as JSON writes it.
func NewRedactor(secrets ...string) Redactor {
	var all []string
	add := func(s string) {
		if len(s) >= shortest && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	for _, s := range secrets {
		forms := append([]string{s}, strings.Fields(s)...)
		for _, form := range forms {
			if form != s && len(form) < 2*shortest { // "Basic" and "Bearer" are words, not secrets
				continue
			}
			add(form)
			if quoted, err := json.Marshal(form); err == nil {
				add(string(quoted[1 : len(quoted)-1]))
			}
		}
	}
	if len(all) == 0 {
		return Redactor{}
	}
	// The longest first, so that no part of a longer one is left over.
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(all))
	for _, s := range all {
		pairs = append(pairs, s, redacted)
	}
	return Redactor{all, strings.NewReplacer(pairs...)}
}

// Redact answers text with every secret replaced by "***".
func (r Redactor) Redact(text string) string {
	for _, s := range r.secrets {
		if strings.Contains(text, s) {
			return r.replacer.Replace(text) // which allocates also if there is nothing to replace
		}
	}
	return text
}
