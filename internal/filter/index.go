package filter

import (
	"strings"
	"sync/atomic"

	"github.com/eventhose/eventhose"
)

// Index finds, among many filters, those that an event matches, looking only at the few that can: it knows each
// filter by its types, its keys and one of its attributes together. Match may run concurrently with Match; Add and
// Remove must run alone.
type Index struct {
	filters map[eventhose.SubscriptionID]entry
	// types leads from a type term to the filters with it.
	types map[string]*keyed
	// holders counts the filters that ask for an attribute, so that each is known by its rarest.
	holders   map[attribute]int
	evaluated atomic.Uint64
}

type entry struct {
	filter *Filter
	by     path
}

// path is how a filter is found: through each of terms, then each of keys ("" is any), then the attribute (the zero
// one is any). No event reaches a filter twice: its terms exclude each other, and so do its keys.
type path struct {
	terms     []string
	keys      []string
	attribute attribute
}

type keyed struct {
	keys  map[string]attributed
	count int
}

type attributed map[attribute]map[eventhose.SubscriptionID]*Filter

// Terms: a type, a prefix with "." at its end, or one of these, which cannot be types.
const (
	termAll  = "*" // every event but system events
	termEach = ""  // every event: a filter with so many patterns and keys that it is found without its types
)

// maxPaths bounds the places of one filter.
const maxPaths = 200

// NewIndex makes an empty index.
func NewIndex() *Index {
	return &Index{
		filters: map[eventhose.SubscriptionID]entry{},
		types:   map[string]*keyed{},
		holders: map[attribute]int{},
	}
}

// Len is how many filters there are.
func (x *Index) Len() int { return len(x.filters) }

// Evaluated counts the filters that Match has looked at so far.
func (x *Index) Evaluated() uint64 { return x.evaluated.Load() }

// Add puts a filter in, in the place of the one with the same id if there is one.
func (x *Index) Add(id eventhose.SubscriptionID, f *Filter) {
	x.Remove(id)
	by := x.path(f)
	x.filters[id] = entry{f, by}
	for _, a := range f.attributes {
		x.holders[a]++
	}
	for _, term := range by.terms {
		node := x.types[term]
		if node == nil {
			node = &keyed{keys: map[string]attributed{}}
			x.types[term] = node
		}
		for _, key := range by.keys {
			leaf := node.keys[key]
			if leaf == nil {
				leaf = attributed{}
				node.keys[key] = leaf
			}
			if leaf[by.attribute] == nil {
				leaf[by.attribute] = map[eventhose.SubscriptionID]*Filter{}
			}
			leaf[by.attribute][id] = f
			node.count++
		}
	}
}

// Remove takes a filter out, if it is there.
func (x *Index) Remove(id eventhose.SubscriptionID) {
	e, ok := x.filters[id]
	if !ok {
		return
	}
	delete(x.filters, id)
	for _, a := range e.filter.attributes {
		if x.holders[a]--; x.holders[a] == 0 {
			delete(x.holders, a)
		}
	}
	for _, term := range e.by.terms {
		node := x.types[term]
		for _, key := range e.by.keys {
			leaf := node.keys[key]
			delete(leaf[e.by.attribute], id)
			if len(leaf[e.by.attribute]) == 0 {
				delete(leaf, e.by.attribute)
			}
			if len(leaf) == 0 {
				delete(node.keys, key)
			}
			node.count--
		}
		if node.count == 0 {
			delete(x.types, term)
		}
	}
}

func (x *Index) path(f *Filter) path {
	by := path{keys: f.keys}
	if len(by.keys) == 0 {
		by.keys = []string{""}
	}
	for i, a := range f.attributes {
		if i == 0 || x.holders[a] < x.holders[by.attribute] {
			by.attribute = a
		}
	}
	if f.all {
		by.terms = append(by.terms, termAll)
	}
	by.terms = append(by.terms, f.exact...)
	by.terms = append(by.terms, f.prefixes...)
	if len(by.terms)*len(by.keys) > maxPaths {
		by.terms = []string{termEach}
	}
	return by
}

// Match calls yield once, in no order, for each filter that matches the event, with a nil error, and for each that
// could not be decided, with MatchView's error.
func (x *Index) Match(v *View, yield func(id eventhose.SubscriptionID, err error)) {
	x.matchTerm(termEach, v, yield)
	if !v.system {
		x.matchTerm(termAll, v, yield)
	}
	t := v.event.Type
	x.matchTerm(t, v, yield)
	for i := 0; i < len(t); i++ {
		next := strings.IndexByte(t[i:], '.')
		if next < 0 {
			break
		}
		i += next
		x.matchTerm(t[:i+1], v, yield)
	}
}

func (x *Index) matchTerm(term string, v *View, yield func(eventhose.SubscriptionID, error)) {
	node := x.types[term]
	if node == nil {
		return
	}
	x.matchLeaf(node.keys[""], v, yield)
	if v.event.Key != "" {
		x.matchLeaf(node.keys[v.event.Key], v, yield)
	}
}

func (x *Index) matchLeaf(leaf attributed, v *View, yield func(eventhose.SubscriptionID, error)) {
	if leaf == nil {
		return
	}
	x.evaluate(leaf[attribute{}], v, yield)
	for name, value := range v.event.Attributes {
		x.evaluate(leaf[attribute{name, value}], v, yield)
	}
}

func (x *Index) evaluate(candidates map[eventhose.SubscriptionID]*Filter, v *View, yield func(eventhose.SubscriptionID, error)) {
	if len(candidates) == 0 {
		return
	}
	x.evaluated.Add(uint64(len(candidates)))
	for id, f := range candidates {
		matches, err := f.MatchView(v)
		if matches || err != nil {
			yield(id, err)
		}
	}
}
