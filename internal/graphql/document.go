package graphql

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator"

	"github.com/eventhose/eventhose"
)

// The limits of a document. What counts with its fragments spread out counts so in all of its operations together.
const (
	maxQuery      = 16 << 10 // bytes
	maxTokens     = 2000
	maxOperations = 10
	maxFragments  = 50
	maxSelections = 500 // fields and fragments, spread out
	maxDepth      = 15
	maxAliases    = 30
	maxOverlaps   = 100_000 // pairs of fields that the engine compares
	// maxCost bounds what a query costs: a field is 1, what is below a list counts as often as the list may be long, and what
	// reads the store has a price. maxStreamCost is for each event of a stream.
	maxCost       = 20_000
	maxStreamCost = 90
)

// request is what a client asks.
type request struct {
	Query         string         `json:"query"`
	OperationName string         `json:"operationName"`
	Variables     map[string]any `json:"variables"`
	// Extensions may be there, and mean nothing here.
	Extensions map[string]any `json:"extensions"`
}

// readRequest reads a request's JSON. CodeMalformed, CodeInvalid with the field.
func readRequest(b []byte) (q request, err error) {
	if len(b) == 0 {
		return q, &eventhose.Error{Code: eventhose.CodeMalformed, Message: "the body is empty", Fix: `send {"query": "{ events { cursor } }"}`}
	}
	if err := readJSON(b, &q); err != nil {
		return q, err
	}
	if q.Query == "" {
		return q, eventhose.Invalid("query", "is required")
	}
	return q, nil
}

// readJSON reads one JSON value strictly: no name twice, no unknown name, nothing behind it. CodeMalformed, CodeInvalid.
func readJSON(b []byte, v any) error {
	err := jsonv2.Unmarshal(b, v, jsonv2.RejectUnknownMembers(true))
	var syntax *jsontext.SyntacticError
	var semantic *jsonv2.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return &eventhose.Error{Code: eventhose.CodeMalformed, Message: fmt.Sprintf("it is not JSON: %v at byte %d", syntax.Err, syntax.ByteOffset)}
	case !errors.As(err, &semantic):
		return &eventhose.Error{Code: eventhose.CodeMalformed, Message: "it is not JSON: the text ends too early"}
	}
	field := clip(semantic.JSONPointer.LastToken(), 64)
	if errors.Is(semantic.Err, jsonv2.ErrUnknownName) {
		return eventhose.Invalid(field, "is not a field that is known here")
	}
	return eventhose.Invalid(field, "has a value of the wrong kind")
}

// document is a request that was found good.
type document struct {
	query, name string
	stream      bool
	variables   map[string]any
	// form is the same for streams that have the same answer for an event, wherever they began and whatever they read.
	form string
}

// prepare reads, validates and prices a request, and does nothing of it.
func (d *Door) prepare(q request, streamsOnly bool) (*document, faults) {
	if len(q.Query) > maxQuery {
		return nil, tooMuch("is longer than %d bytes", maxQuery)
	}
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: q.Query}, maxTokens)
	if err != nil {
		if strings.Contains(err.Error(), "token limit") {
			return nil, tooMuch("has more than %d tokens", maxTokens)
		}
		return nil, faultsOfParser(eventhose.CodeMalformed, err)
	}
	if len(doc.Operations) > maxOperations || len(doc.Fragments) > maxFragments {
		return nil, tooMuch("has more than %d operations or %d fragments", maxOperations, maxFragments)
	}
	m := measure{doc: doc}
	for _, op := range doc.Operations {
		m.walk(op.SelectionSet, 1)
	}
	if m.over != nil {
		return nil, m.over
	}
	if list := validator.ValidateWithRules(d.schema, doc, d.rules); len(list) > 0 {
		return nil, faultsOfParser(eventhose.CodeInvalid, list)
	}
	op := doc.Operations.ForName(q.OperationName)
	if op == nil {
		return nil, faultsOf(eventhose.Invalid("operationName", "must name one of the document's operations"))
	}
	variables, err := validator.VariableValues(d.schema, op, q.Variables)
	if err != nil {
		return nil, faultsOfParser(eventhose.CodeInvalid, err)
	}
	for name, v := range variables {
		variables[name] = listed(v)
	}
	// The engine reads and validates again, for a stream with each of its pages. Only this operation was priced, and of literals the engine
	// knows but one way to write them.
	q.Query, q.OperationName = alone(op), op.Name
	out := &document{query: q.Query, name: q.OperationName, variables: variables, stream: op.Operation == ast.Subscription}
	if streamsOnly && !out.stream {
		return nil, faultsOf(&eventhose.Error{Code: eventhose.CodeForbidden, Message: "a ticket opens streams only", Fix: "use an API key for queries"})
	}
	most := int64(maxCost)
	if out.stream {
		if most = maxStreamCost; !plainRoot(op) {
			return nil, faultsOf(eventhose.Invalid("query", "a subscription must have one field, events, without fragments and directives around it"))
		}
	}
	if cost := costOf(op.SelectionSet, variables); cost > most {
		return nil, tooMuch("would cost %d, more than %d: ask for fewer fields, shorter lists, or deliveries of fewer events", cost, most)
	}
	if out.stream {
		out.form = formOf(op.SelectionSet[0].(*ast.Field), out)
	}
	return out, nil
}

// alone writes an operation with the fragments that it uses, and nothing else.
func alone(op *ast.OperationDefinition) string {
	doc := &ast.QueryDocument{Operations: ast.OperationList{op}}
	var add func(set ast.SelectionSet)
	add = func(set ast.SelectionSet) {
		for _, s := range set {
			switch s := s.(type) {
			case *ast.Field:
				add(s.SelectionSet)
			case *ast.InlineFragment:
				add(s.SelectionSet)
			case *ast.FragmentSpread:
				if doc.Fragments.ForName(s.Name) == nil {
					doc.Fragments = append(doc.Fragments, s.Definition)
					add(s.Definition.SelectionSet)
				}
			}
		}
	}
	add(op.SelectionSet)
	var text strings.Builder
	formatter.NewFormatter(&text, formatter.WithoutDescription()).FormatQueryDocument(doc)
	return text.String()
}

// formOf answers the form of a stream's document: its text, and those of its variables that stand below its one field.
func formOf(root *ast.Field, doc *document) string {
	below := map[string]any{}
	variablesOf(root.SelectionSet, func(name string) { below[name] = doc.variables[name] })
	sum := sha256.Sum256(marshal([]any{doc.query, doc.name, below}))
	return string(sum[:])
}

// variablesOf names the variables that a validated selection uses.
func variablesOf(set ast.SelectionSet, name func(string)) {
	var in func(v *ast.Value)
	in = func(v *ast.Value) {
		if v.Kind == ast.Variable {
			name(v.Raw)
		}
		for _, c := range v.Children {
			in(c.Value)
		}
	}
	of := func(arguments ast.ArgumentList, directives ast.DirectiveList) {
		for _, d := range directives {
			arguments = append(arguments[:len(arguments):len(arguments)], d.Arguments...)
		}
		for _, a := range arguments {
			in(a.Value)
		}
	}
	for _, s := range set {
		switch s := s.(type) {
		case *ast.InlineFragment:
			of(nil, s.Directives)
			variablesOf(s.SelectionSet, name)
		case *ast.FragmentSpread:
			of(nil, s.Directives)
			variablesOf(s.Definition.SelectionSet, name)
		case *ast.Field:
			of(s.Arguments, s.Directives)
			variablesOf(s.SelectionSet, name)
		}
	}
}

// listed makes a list as the engine takes it of what one value was turned into, which may stand for a list of itself.
func listed(v any) any {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice || r.Type() == reflect.TypeFor[[]any]() {
		return v
	}
	list := make([]any, r.Len())
	for i := range list {
		list[i] = r.Index(i).Interface()
	}
	return list
}

// plainRoot reports whether a subscription is one field and nothing else: the engine takes the first that it finds.
func plainRoot(op *ast.OperationDefinition) bool {
	if len(op.SelectionSet) != 1 {
		return false
	}
	f, ok := op.SelectionSet[0].(*ast.Field)
	return ok && f.Name == "events" && len(f.Directives) == 0
}

// measure walks a document that is not validated yet, with its fragments spread out.
type measure struct {
	doc                 *ast.QueryDocument
	selections, aliases int
	over                faults
}

func (m *measure) walk(set ast.SelectionSet, depth int) {
	for _, s := range set {
		if m.selections++; m.selections > maxSelections {
			m.over = tooMuch("selects more than %d fields, with its fragments spread out", maxSelections)
		}
		if depth > maxDepth {
			m.over = tooMuch("is nested deeper than %d", maxDepth)
		}
		if m.over != nil {
			return
		}
		switch s := s.(type) {
		case *ast.Field:
			if s.Alias != s.Name {
				if m.aliases++; m.aliases > maxAliases {
					m.over = tooMuch("has more than %d aliases", maxAliases)
				}
			}
			m.walk(s.SelectionSet, depth+1)
		case *ast.InlineFragment:
			m.walk(s.SelectionSet, depth)
		case *ast.FragmentSpread:
			if f := m.doc.Fragments.ForName(s.Name); f != nil {
				m.walk(f.SelectionSet, depth)
			}
		}
	}
}

// prices of fields that read the store, beside what is below them. Lists whose length nobody says count for a typical one.
var prices = map[string]struct {
	each int64
	list string // the argument that says how long it may be
	long int64  // how long a list is if nothing says so
}{
	"Query.events":          {each: 1000, list: "limit", long: defaultLimit},
	"Query.event":           {each: 20},
	"Query.subscriptions":   {each: 100, list: "first", long: defaultLimit},
	"Query.subscription":    {each: 10},
	"Query.attempts":        {each: 100, list: "first", long: defaultLimit},
	"Subscription.status":   {each: 10},
	"Subscription.attempts": {each: 50, list: "first", long: defaultLimit},
	"Event.deliveries":      {each: 250, long: 10},
	"Delivery.attempts":     {long: 5},
}

// costOf answers what a validated selection costs. It ends early once that is too much.
func costOf(set ast.SelectionSet, variables map[string]any) (cost int64) {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.InlineFragment:
			cost += costOf(s.SelectionSet, variables)
		case *ast.FragmentSpread:
			cost += costOf(s.Definition.SelectionSet, variables)
		case *ast.Field:
			length, below := int64(1), costOf(s.SelectionSet, variables)
			if s.ObjectDefinition != nil {
				p := prices[s.ObjectDefinition.Name+"."+s.Name]
				cost += p.each
				length = max(length, lengthOf(s.Arguments.ForName(p.list), p.long, variables))
			}
			cost += 1 + length*below
		}
	}
	return cost
}

// lengthOf answers how long a list may be that an argument bounds. What is beyond the limits is refused later.
func lengthOf(a *ast.Argument, otherwise int64, variables map[string]any) int64 {
	if a == nil {
		return otherwise
	}
	v, err := a.Value.Value(variables)
	if err != nil {
		return maxLimit
	}
	switch n := v.(type) {
	case int64:
		return min(n, maxLimit)
	case float64:
		return int64(min(n, maxLimit))
	case nil:
		return otherwise
	}
	return maxLimit
}

func tooMuch(format string, args ...any) faults {
	e := eventhose.Invalid("query", format, args...)
	e.Code = eventhose.CodeTooLarge
	return faultsOf(e)
}

// faultsOfParser tells what gqlparser has found.
func faultsOfParser(code eventhose.Code, err error) (list faults) {
	var several gqlerror.List
	var one *gqlerror.Error
	switch {
	case errors.As(err, &several):
	case errors.As(err, &one):
		several = gqlerror.List{one}
	default:
		return faultsOf(&eventhose.Error{Code: code, Field: "query", Message: "cannot be read"})
	}
	for _, e := range several[:min(len(several), maxFaults)] {
		f := fault{Message: clip(e.Message, maxMessage), Extensions: extensions{Code: code, Field: "query"}}
		if len(e.Path) > 1 && e.Path[0] == ast.PathName("variable") {
			f.Extensions.Field = "variables." + e.Path[1:].String()
		}
		for _, l := range e.Locations {
			f.Locations = append(f.Locations, location{l.Line, l.Column})
		}
		list = append(list, f)
	}
	return list
}
