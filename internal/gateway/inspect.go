package gateway

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
)

// inspect takes anything from anybody, to see what comes. Each request is an event of its own.
func inspect() Provider {
	return Provider{
		Name: "inspect", Title: "Inspect", Source: "https://github.com/eventhose/eventhose",
		Doc:    "Verifies nothing: takes every method and every body, and keeps method, query and headers as attributes",
		naming: Naming{},
		open: func(*configuration) (scheme, error) {
			return scheme{
				anyBody: true, describe: inspected,
				check: func(context.Context, *Request) *Rejection { return nil },
				probe: func(ctx context.Context, r *Request, v *Verifier) Verdict { return v.judge(ctx, r) },
			}, nil
		},
	}
}

// inspected names a request that was not verified: no id, so that repeats are seen, and what came around the body.
func inspected(e *eventhose.Event, prefix string, r *Request) {
	e.ID, e.Type = "", prefix+"."+topicOf([]string{strings.ToLower(r.Method)})
	keep := func(name, value string) {
		if name != "" && name != eventhose.SourceAttribute && len(e.Attributes) < eventhose.MaxAttributes-2 { // the door adds two
			e.Attributes[name] = AttributeText(value)
		}
	}
	keep("method", r.Method)
	keep("query", r.Query)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		keep(attributeName("header."+name), strings.Join(r.Header[name], ", "))
	}
}

// visible replaces what cannot stand in an attribute.
func visible(r rune) rune {
	if r == utf8.RuneError || !printable(string(r)) {
		return '?'
	}
	return r
}

// AttributeText is text as the value of an attribute: what cannot stand in one is replaced, and what is too long is cut.
func AttributeText(s string) string {
	return strings.Map(visible, cut(s, eventhose.MaxAttribute/2))
}
