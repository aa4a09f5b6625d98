package filter

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/eventhose/eventhose"
)

// View is one event as filters see it. Its data is parsed at most once, and only if an expression asks for it, so one
// View serves any number of filters. It is safe for concurrent use and holds on to the event.
type View struct {
	event  *eventhose.Event
	system bool
	parse  sync.Once
	data   ref.Val
}

// NewView makes the view of e, which must not change while the view is in use.
func NewView(e *eventhose.Event) *View {
	v := newView(e)
	return &v
}

func newView(e *eventhose.Event) View {
	return View{event: e, system: strings.HasPrefix(e.Type, eventhose.SystemPrefix)}
}

// Event answers what NewView was given.
func (v *View) Event() *eventhose.Event { return v.event }

// ResolveName makes a View the activation of a CEL program.
func (v *View) ResolveName(name string) (any, bool) {
	switch name {
	case "type":
		return v.event.Type, true
	case "key":
		return v.event.Key, true
	case "id":
		return v.event.ID, true
	case "time":
		return v.event.Time, true
	case "version":
		return v.event.Version, true
	case "attributes":
		return v.event.Attributes, true
	case "data":
		v.parse.Do(func() { v.data = parseData(v.event) })
		return v.data, true
	}
	return nil, false
}

// Parent ends the search for names.
func (v *View) Parent() cel.Activation { return nil }

// parseData answers null for what is erased and for what is not JSON.
func parseData(e *eventhose.Event) ref.Val {
	if e.Erased || !e.JSON() {
		return types.NullValue
	}
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.UseNumber()
	var parsed any
	if d.Decode(&parsed) != nil {
		return types.NullValue
	}
	if _, err := d.Token(); err != io.EOF {
		return types.NullValue
	}
	return celValue(parsed)
}

// celValue turns what encoding/json made into CEL's values. Whole numbers become integers, so that they are exact.
// The depth is bounded by encoding/json's own limit of 10,000.
func celValue(v any) ref.Val {
	switch v := v.(type) {
	case nil:
		return types.NullValue
	case bool:
		return types.Bool(v)
	case string:
		return types.String(v)
	case json.Number:
		return celNumber(string(v))
	case []any:
		list := make([]ref.Val, len(v))
		for i := range v {
			list[i] = celValue(v[i])
		}
		return types.NewRefValList(types.DefaultTypeAdapter, list)
	case map[string]any:
		for name := range v {
			v[name] = celValue(v[name])
		}
		return types.NewStringInterfaceMap(types.DefaultTypeAdapter, v)
	}
	return types.NullValue
}

func celNumber(text string) ref.Val {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return types.Int(i)
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return types.Uint(u)
	}
	f, _ := strconv.ParseFloat(text, 64) // beyond the range it is an infinity, which compares as it should
	return types.Double(f)
}
