package gateway

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// fieldTree is the paths of a JSON document that are looked for, all in one pass. It does not change once it is read with.
type fieldTree struct {
	root  fieldNode
	count int
}

type fieldNode struct {
	children map[string]*fieldNode // by name, or index
	each     *fieldNode            // of any element of an array
	leaves   []int                 // the numbers of the paths that end here
}

// add answers the number of a path, whose elements are names, indexes, or "*".
func (t *fieldTree) add(path []string) int {
	n := &t.root
	for _, name := range path {
		next := n.children[name]
		if name == "*" {
			next = n.each
		}
		if next == nil {
			next = &fieldNode{}
			switch {
			case name == "*":
				n.each = next
			case n.children == nil:
				n.children = map[string]*fieldNode{name: next}
			default:
				n.children[name] = next
			}
		}
		n = next
	}
	n.leaves = append(n.leaves, t.count)
	t.count++
	return t.count - 1
}

// read answers the values at each path, and whether the body is one JSON value with no name twice in an object. Values
// are the content of strings, and numbers and booleans as they are written; null, objects and arrays are none.
func (t *fieldTree) read(body []byte) (values [][]string, valid bool) {
	return t.readWith(fieldReader{}, body)
}

// readVerified is read for a body that was verified: it must not lose its names to what only we are strict about, so valid
// says that it is JSON in UTF-8, by the grammar alone. Of a name that is given twice the last counts, as for most parsers.
// A string with half of a surrogate pair is no text: it is answered as it is written, behind a byte that is not UTF-8, so
// that it can be no id, yet never looks like another.
func (t *fieldTree) readVerified(body []byte) (values [][]string, valid bool) {
	if values, valid = t.read(body); valid || !utf8.Valid(body) {
		return values, valid
	}
	return t.readWith(fieldReader{lenient: true}, body, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

func (t *fieldTree) readWith(r fieldReader, body []byte, options ...jsontext.Options) (values [][]string, valid bool) {
	d := decoders.Get().(*jsontext.Decoder)
	d.Reset(bytes.NewBuffer(body), options...)
	defer func() {
		d.Reset(nothing) // it must hold no body
		decoders.Put(d)
	}()
	r.d, r.options, r.values = d, options, make([][]string, t.count)
	if r.value(&t.root) != nil {
		return make([][]string, t.count), false
	}
	if _, err := r.d.ReadToken(); !errors.Is(err, io.EOF) {
		return make([][]string, t.count), false
	}
	return r.values, true
}

// decoders are those that no body is read with.
var (
	decoders = sync.Pool{New: func() any { return jsontext.NewDecoder(nothing) }}
	nothing  = bytes.NewReader(nil)
)

type fieldReader struct {
	d       *jsontext.Decoder
	options []jsontext.Options
	lenient bool
	values  [][]string
}

func (r *fieldReader) value(n *fieldNode) error {
	switch kind := r.d.PeekKind(); {
	case kind == '{' && len(n.children) > 0:
		return r.object(n)
	case kind == '[' && (len(n.children) > 0 || n.each != nil):
		return r.array(n)
	case len(n.leaves) == 0 || kind == '{' || kind == '[' || kind == 'n':
		return r.d.SkipValue()
	}
	value, err := r.scalar()
	if err != nil {
		return err
	}
	for _, i := range n.leaves {
		r.values[i] = append(r.values[i], value)
	}
	return nil
}

// scalar reads a string, a number or a boolean.
func (r *fieldReader) scalar() (string, error) {
	if !r.lenient || r.d.PeekKind() != '"' {
		token, err := r.d.ReadToken()
		return token.String(), err
	}
	quoted, err := r.d.ReadValue()
	if err != nil {
		return "", err
	}
	text, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil {
		return "\xff" + string(quoted[1:len(quoted)-1]), nil //nolint:nilerr // half of a pair is what the body has, and no fault
	}
	return string(text), nil
}

// forget takes back what was read of a node since there were before values of each path.
func (r *fieldReader) forget(n *fieldNode, before []int) {
	for _, i := range n.leaves {
		r.values[i] = r.values[i][:before[i]]
	}
	for _, child := range n.children {
		r.forget(child, before)
	}
	if n.each != nil {
		r.forget(n.each, before)
	}
}

func (r *fieldReader) object(n *fieldNode) error {
	if _, err := r.d.ReadToken(); err != nil {
		return err
	}
	var before []int
	if r.lenient {
		for _, values := range r.values {
			before = append(before, len(values))
		}
	}
	for r.d.PeekKind() != '}' {
		raw, err := r.d.ReadValue()
		if err != nil {
			return err
		}
		name, text := raw[1:len(raw)-1], true
		if bytes.IndexByte(name, '\\') >= 0 {
			if name, err = jsontext.AppendUnquote(nil, raw); err != nil && !r.lenient {
				return err
			}
			text = err == nil
		}
		if child := n.children[string(name)]; child != nil && text {
			if r.lenient {
				r.forget(child, before) // of the same name, earlier in this object
			}
			err = r.value(child)
		} else {
			err = r.d.SkipValue()
		}
		if err != nil {
			return err
		}
	}
	_, err := r.d.ReadToken()
	return err
}

func (r *fieldReader) array(n *fieldNode) error {
	if _, err := r.d.ReadToken(); err != nil {
		return err
	}
	for i := 0; r.d.PeekKind() != ']'; i++ {
		var err error
		switch child := n.children[strconv.Itoa(i)]; {
		case child != nil && n.each != nil:
			err = r.both(child, n.each)
		case child != nil:
			err = r.value(child)
		case n.each != nil:
			err = r.value(n.each)
		default:
			err = r.d.SkipValue()
		}
		if err != nil {
			return err
		}
	}
	_, err := r.d.ReadToken()
	return err
}

// both reads one element for a path by its index and for one by "*".
func (r *fieldReader) both(nodes ...*fieldNode) error {
	element, err := r.d.ReadValue()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		again := fieldReader{jsontext.NewDecoder(bytes.NewReader(element), r.options...), r.options, r.lenient, r.values}
		if err := again.value(n); err != nil {
			return err
		}
	}
	return nil
}
