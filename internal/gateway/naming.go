package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
)

// Naming is where the names of an event stand in a request. Each is a list of places, of which the first that holds
// something counts:
//
//	header:X-Event-Id        a header
//	json:data.object.id      a string, number or boolean of a JSON body; * is each element of an array, 0 the first
//	form:MessageSid          a parameter of a form
//	text:order               the word itself
//	body:sha256              a digest of the body, for bodies that no two events share
//
// Places joined by + count together, and only if each holds something. A body is JSON or else a form, and never both. What stands
// in headers is seldom signed, which is the provider's choice.
type Naming struct {
	// ID tells a repeat from another event. Where it holds nothing, the ID is a digest of what is signed if a time or an id is: the same
	// signed request twice is one event. Or else each request is one, since events may be told in the same bytes.
	ID []string `json:"id,omitempty"`
	// Type is the topic, which follows the source's prefix. Several that differ are "batch", none is "event".
	Type []string `json:"type,omitempty"`
	// Key is the ordering key; several that differ are none.
	Key []string `json:"key,omitempty"`
	// Time is when it happened, by the provider's clock.
	Time []string `json:"time,omitempty"`
	// Keep are headers that become attributes, under their names in lower case.
	Keep []string `json:"keep,omitempty"`
}

const (
	maxPlaces = 8
	maxPlace  = 256
	maxKeep   = 24
	maxPrefix = 64
)

// bodyDigest is the one digest that a place may ask for.
const bodyDigest = "sha256"

// compiledNaming is a Naming, read, for one source.
type compiledNaming struct {
	provider, prefix string
	id, topic        []places
	key, time        []places
	keep             []string
	fields           *fieldTree
	form             bool
}

// places count together.
type places []place

type place struct {
	header, form, word string
	body               bool
	field              int // of the JSON body, -1 if it is none
}

func (n *Naming) compile(provider, prefix string) (*compiledNaming, error) {
	c := &compiledNaming{provider: provider, prefix: prefix, fields: &fieldTree{}}
	for _, list := range []struct {
		field string
		texts []string
		to    *[]places
	}{{"id", n.ID, &c.id}, {"type", n.Type, &c.topic}, {"key", n.Key, &c.key}, {"time", n.Time, &c.time}} {
		if len(list.texts) > maxPlaces {
			return nil, eventhose.Invalid("naming."+list.field, "must be at most %d places", maxPlaces)
		}
		for i, t := range list.texts {
			p, err := c.parse(element("naming."+list.field, i), t)
			if err != nil {
				return nil, err
			}
			*list.to = append(*list.to, p)
		}
	}
	if len(n.Keep) > maxKeep {
		return nil, eventhose.Invalid("naming.keep", "must be at most %d headers", maxKeep)
	}
	for i, name := range n.Keep {
		if attributeName(name) == "" {
			return nil, eventhose.Invalid(element("naming.keep", i), "is not the name of a header that can be an attribute")
		}
		c.keep = append(c.keep, name)
	}
	return c, nil
}

func (c *compiledNaming) parse(field, text string) (together places, err error) {
	if len(text) > maxPlace || !printable(text) {
		return nil, eventhose.Invalid(field, "must be at most %d bytes of printable UTF-8", maxPlace)
	}
	for part := range strings.SplitSeq(text, "+") {
		kind, name, _ := strings.Cut(part, ":")
		if name == "" || len(together) == 4 {
			return nil, eventhose.Invalid(field, "must be one to four of header:NAME, json:PATH, form:NAME, text:WORD, body:sha256, joined by +")
		}
		p := place{field: -1}
		switch kind {
		case "header":
			p.header = name
		case "form":
			p.form, c.form = name, true
		case "text":
			p.word = name
		case "body":
			if name != bodyDigest {
				return nil, eventhose.Invalid(field, "must be body:%s, if it begins with body:", bodyDigest)
			}
			p.body = true
		case "json":
			p.field = c.fields.add(strings.Split(name, "."))
		default:
			return nil, eventhose.Invalid(field, "must begin with header:, json:, form:, text: or body:")
		}
		together = append(together, p)
	}
	return together, nil
}

// event names what is in a request, which was verified as a form if asForm. What it answers passes Event.Validate.
func (c *compiledNaming) event(r *Request, asForm bool) *eventhose.Event {
	found, isJSON := content{r: r, fields: make([][]string, c.fields.count)}, false
	if !asForm {
		found.fields, isJSON = c.fields.readVerified(r.Body)
	}
	switch {
	case !c.form || isJSON:
	case asForm:
		found.form, _ = readForm(r) // as check did
	default:
		found.form = formOf(r)
	}
	id, topic, key, at := found.first(c.id), found.first(c.topic), found.first(c.key), found.first(c.time)
	data, contentType := r.Body, contentTypeOf(r, isJSON)
	if r.Method == http.MethodGet && len(data) == 0 && r.Query != "" {
		data, contentType = []byte(r.Query), formType
	}
	e := &eventhose.Event{
		ID:          eventID(id),
		Type:        c.prefix + "." + topicOf(topic),
		Attributes:  map[string]string{"provider": c.provider},
		ContentType: contentType,
		Data:        data,
	}
	if same(key) && len(key[0]) <= eventhose.MaxKey && printable(key[0]) {
		e.Key = key[0]
	}
	if len(at) > 0 {
		e.Time, _ = anyTime(at[0])
	}
	for _, name := range c.keep {
		attribute := attributeName(name)
		if value := r.Header.Get(name); value != "" && printable(value) {
			e.Attributes[attribute] = cut(value, eventhose.MaxAttribute)
		}
	}
	return e
}

// content is a request with its parts read.
type content struct {
	r      *Request
	fields [][]string
	form   form
}

// first answers the values of the first places that hold some: one value, or one for each element of an array.
func (c *content) first(of []places) []string {
	for _, together := range of {
		if values := c.together(together); len(values) > 0 {
			return values
		}
	}
	return nil
}

// together joins the values of several places, element by element, with full stops.
func (c *content) together(of places) (joined []string) {
	for i, p := range of {
		values := c.at(p)
		switch {
		case len(values) == 0:
			return nil
		case i == 0:
			joined = slices.Clone(values)
			continue
		case len(values) == 1:
			for j := range joined {
				joined[j] += "." + values[0]
			}
			continue
		case len(joined) == 1:
			joined = slices.Repeat(joined, len(values))
		case len(joined) != len(values):
			return nil // they do not belong to each other
		}
		for j := range joined {
			joined[j] += "." + values[j]
		}
	}
	return joined
}

func (c *content) at(p place) []string {
	value := p.word
	switch {
	case p.field >= 0:
		return c.fields[p.field]
	case p.header != "":
		value = c.r.Header.Get(p.header)
	case p.form != "":
		value = c.form.get(p.form)
	case p.body:
		value = digestID("body-", c.r.Body)
	}
	if value == "" {
		return nil
	}
	return []string{value}
}

func same(values []string) bool {
	return len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return v != values[0] })
}

// eventID is the one id there is, a digest of several, or "" if there is none.
func eventID(ids []string) string {
	switch {
	case len(ids) == 0:
		return ""
	case len(ids) == 1 && (ids[0] == "" || eventhose.ValidEventID(ids[0])):
		return ids[0]
	}
	return digestID("ids-", []byte(strings.Join(ids, "\x00")+"\x00"))
}

// digestID is an id of what has none of its own.
func digestID(prefix string, content ...[]byte) string {
	h := sha256.New()
	for _, part := range content {
		h.Write(part)
	}
	return prefix + hex.EncodeToString(h.Sum(nil))
}

// topicOf makes a topic of what the provider says, as near to it as the type of an event can be.
func topicOf(topics []string) string {
	switch {
	case len(topics) == 0:
		return "event"
	case !same(topics):
		return "batch"
	}
	b := []byte(topics[0])
	for i, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_-/:.", c) >= 0) {
			b[i] = '_'
		}
	}
	parts := strings.FieldsFunc(string(b), func(r rune) bool { return r == '.' })
	topic := strings.Join(parts, ".")
	if most := eventhose.MaxType - maxPrefix - 1; len(topic) > most {
		topic = strings.TrimRight(topic[:most], ".")
	}
	if topic == "" {
		return "event"
	}
	return topic
}

// contentTypeOf is the one that came, if the body is what it says, it is well formed, and an event may have it.
func contentTypeOf(r *Request, isJSON bool) string {
	if isJSON && !eventhose.TooDeep(r.Body) {
		return "application/json"
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media == "application/json" || strings.HasSuffix(media, "+json") {
		return "application/octet-stream"
	}
	e := eventhose.Event{Type: "x", ContentType: mime.FormatMediaType(media, params)}
	if e.ContentType == "" || e.Validate() != nil {
		return "application/octet-stream"
	}
	return e.ContentType
}

// attributeName answers a header's name as that of an attribute, or "" if it cannot be one.
func attributeName(header string) string {
	name := strings.ToLower(header)
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
		return ""
	}
	return name
}

// cut answers at most max bytes of valid UTF-8, cut between characters.
func cut(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return strings.ToValidUTF8(s[:max], "")
}

// bodyFields answers the values at some paths of a JSON body, of which each must be there at most once. Half of a surrogate pair is as in
// readVerified.
func bodyFields(body []byte, paths ...string) (values []string, rejection *Rejection) {
	tree := &fieldTree{}
	for _, p := range paths {
		tree.add(strings.Split(p, "."))
	}
	fields, ok := tree.read(body)
	if !ok && utf8.Valid(body) {
		fields, ok = tree.readWith(fieldReader{lenient: true}, body, jsontext.AllowInvalidUTF8(true))
	}
	if !ok {
		return nil, reject(ReasonBody, "the body is not JSON, or a name is given twice in it")
	}
	for i := range paths {
		value := ""
		if len(fields[i]) > 0 {
			value = fields[i][0]
		}
		values = append(values, value)
	}
	return values, nil
}
