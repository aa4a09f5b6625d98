package gateway

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"

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
	d := decoders.Get().(*jsontext.Decoder)
	d.Reset(bytes.NewBuffer(body))
	defer func() {
		d.Reset(nothing) // it must hold no body
		decoders.Put(d)
	}()
	r := fieldReader{d, make([][]string, t.count)}
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
	d      *jsontext.Decoder
	values [][]string
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
	token, err := r.d.ReadToken()
	if err != nil {
		return err
	}
	value := token.String()
	for _, i := range n.leaves {
		r.values[i] = append(r.values[i], value)
	}
	return nil
}

func (r *fieldReader) object(n *fieldNode) error {
	if _, err := r.d.ReadToken(); err != nil {
		return err
	}
	for r.d.PeekKind() != '}' {
		raw, err := r.d.ReadValue()
		if err != nil {
			return err
		}
		name := raw[1 : len(raw)-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			if name, err = jsontext.AppendUnquote(nil, raw); err != nil {
				return err
			}
		}
		if child := n.children[string(name)]; child != nil {
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
		again := fieldReader{jsontext.NewDecoder(bytes.NewReader(element)), r.values}
		if err := again.value(n); err != nil {
			return err
		}
	}
	return nil
}
