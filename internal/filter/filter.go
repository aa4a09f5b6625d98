// Package filter decides which events concern a reader: type patterns, keys, equality of attributes and a CEL
// expression over type, key, id, time, version, attributes and data. A Filter answers for itself; an Index answers
// for many filters while looking only at those that can match.
package filter

import (
	"maps"
	"slices"
	"strings"

	"github.com/eventhose/eventhose"
)

// Filter is a compiled eventhose.Filter. It is immutable and safe for concurrent use.
type Filter struct {
	// all says that "*" is among the patterns, or that there are none.
	all bool
	// exact and prefixes (each with its full stop at the end) cover no type twice, and none that all covers.
	exact    []string
	prefixes []string
	keys     []string
	// attributes are sorted by name.
	attributes []attribute
	expression *expression
}

type attribute struct{ name, value string }

// Compile validates and type-checks f. Errors are CodeInvalid and name the field ("filter.types[0]",
// "filter.expression"); what is wrong with an expression is said with its line and column.
func Compile(f eventhose.Filter) (*Filter, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	c := &Filter{}
	c.setTypes(f.Types)
	c.keys = slices.Clone(f.Keys)
	slices.Sort(c.keys)
	c.keys = slices.Compact(c.keys)
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		c.attributes = append(c.attributes, attribute{name, f.Attributes[name]})
	}
	if strings.TrimSpace(f.Expression) != "" {
		x, err := compileExpression(f.Expression)
		if err != nil {
			return nil, err
		}
		c.expression = x
	}
	return c, nil
}

// setTypes keeps of the patterns those that no other covers.
func (f *Filter) setTypes(patterns []string) {
	f.all = len(patterns) == 0 || slices.Contains(patterns, "*")
	sorted := slices.Clone(patterns)
	slices.SortFunc(sorted, func(a, b string) int { return len(a) - len(b) }) // what covers is shorter
	for _, p := range sorted {
		prefix, isPrefix := strings.CutSuffix(p, "*")
		covered := p == "*" || f.all && !strings.HasPrefix(p, eventhose.SystemPrefix)
		for _, q := range f.prefixes {
			covered = covered || strings.HasPrefix(prefix, q)
		}
		switch {
		case covered:
		case isPrefix:
			f.prefixes = append(f.prefixes, prefix)
		case !slices.Contains(f.exact, p):
			f.exact = append(f.exact, p)
		}
	}
	slices.Sort(f.exact)
	f.exact = slices.DeleteFunc(f.exact, func(t string) bool {
		return slices.ContainsFunc(f.prefixes, func(q string) bool { return strings.HasPrefix(t, q) })
	})
}

// Match reports whether e concerns the reader. It is MatchView of a View for this one filter.
func (f *Filter) Match(e *eventhose.Event) (bool, error) {
	if f.expression == nil { // most have none: no view to allocate
		v := newView(e)
		return f.matchesFields(&v), nil
	}
	return f.MatchView(NewView(e))
}

// MatchView reports whether the event concerns the reader. An expression that cannot be applied to the event (a
// field is missing, a type is another) does not match it. The error is CodeLimit when the expression cost too much on
// this event; it neither matches then nor can be said not to.
func (f *Filter) MatchView(v *View) (bool, error) {
	if !f.matchesFields(v) {
		return false, nil
	}
	if f.expression == nil {
		return true, nil
	}
	return f.expression.holds(v)
}

// matchesFields decides everything but the expression.
func (f *Filter) matchesFields(v *View) bool {
	if !f.matchesType(v) {
		return false
	}
	if len(f.keys) > 0 {
		if _, ok := slices.BinarySearch(f.keys, v.event.Key); !ok {
			return false
		}
	}
	for _, a := range f.attributes {
		if value, ok := v.event.Attributes[a.name]; !ok || value != a.value {
			return false
		}
	}
	return true
}

func (f *Filter) matchesType(v *View) bool {
	if f.all && !v.system {
		return true
	}
	if _, ok := slices.BinarySearch(f.exact, v.event.Type); ok {
		return true
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(v.event.Type, p) {
			return true
		}
	}
	return false
}
