package graphql

import (
	"errors"
	"fmt"
	"strings"
	"time"

	engine "github.com/graph-gophers/graphql-go"

	"github.com/eventhose/eventhose"
)

func took(d eventhose.Duration) *string {
	if d == 0 {
		return nil
	}
	return some(d.String())
}

func moment(t time.Time) *engine.Time {
	if t.IsZero() {
		return nil
	}
	return &engine.Time{Time: t}
}

// some answers nil for a zero value.
func some[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// large is some, of what must fit into an answer.
func large(s string, r *room) *string {
	if !r.take(len(s)) {
		return nil
	}
	return some(s)
}

// object writes texts by name.
func object(m map[string]string, r *room) *jsonValue {
	if len(m) == 0 {
		return nil
	}
	b := marshal(m)
	if !r.take(len(b)) {
		return nil
	}
	return &jsonValue{b}
}

// id, long and jsonValue are scalars. Only id is ever an argument.
type (
	id        string
	long      uint64
	jsonValue struct{ text []byte }
)

// ImplementsGraphQLType is what the engine asks of scalars.
func (id) ImplementsGraphQLType(name string) bool        { return name == "ID" }
func (long) ImplementsGraphQLType(name string) bool      { return name == "Long" }
func (jsonValue) ImplementsGraphQLType(name string) bool { return name == "JSON" }

// UnmarshalGraphQL reads an argument: a text, or a number as it is written.
func (i *id) UnmarshalGraphQL(input any) error {
	switch v := input.(type) {
	case string:
		*i = id(strings.ToValidUTF8(v, "�"))
	case int, int32, int64:
		*i = id(fmt.Sprint(v))
	default:
		return fmt.Errorf("an ID must be a text")
	}
	return nil
}

func (*long) UnmarshalGraphQL(any) error      { return errors.New("the type Long is no argument") }
func (*jsonValue) UnmarshalGraphQL(any) error { return errors.New("the type JSON is no argument") }

// MarshalJSON implements json.Marshaler.
func (v jsonValue) MarshalJSON() ([]byte, error) { return v.text, nil }
