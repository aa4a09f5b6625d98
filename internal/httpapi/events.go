package httpapi

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/klauspost/compress/gzhttp"

	"github.com/eventhose/eventhose"
)

// The types below describe bodies that are read and written by hand; eventjson.go and encode.go are what counts.

// NewEvent is an event as clients append it.
type NewEvent struct {
	Type        string            `json:"type" doc:"Parts joined by full stops" example:"order.paid"`
	Data        any               `json:"data,omitempty" doc:"Any JSON value. It is kept byte for byte"`
	DataBase64  []byte            `json:"data_base64,omitempty" doc:"Data that is not JSON, with content_type"`
	ContentType string            `json:"content_type,omitempty"`
	ID          string            `json:"id,omitempty" doc:"Unique in the tenant. The same event twice is one event. None of / . .. search stream ws"`
	Key         string            `json:"key,omitempty" doc:"Events with one key keep their order"`
	Time        string            `json:"time,omitempty" format:"date-time"`
	Version     string            `json:"version,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
}

// CloudEvent is an event of CloudEvents 1.0 in its JSON format.
type CloudEvent struct {
	SpecVersion     string   `json:"specversion" enum:"1.0"`
	ID              string   `json:"id"`
	Source          string   `json:"source" doc:"The scope in which id is unique. It must not be the id of an inbound source"`
	Type            string   `json:"type"`
	Subject         string   `json:"subject,omitempty"`
	Time            string   `json:"time,omitempty" format:"date-time"`
	DataContentType string   `json:"datacontenttype,omitempty"`
	DataSchema      string   `json:"dataschema,omitempty"`
	PartitionKey    string   `json:"partitionkey,omitempty" doc:"Becomes the key"`
	Data            any      `json:"data,omitempty"`
	DataBase64      []byte   `json:"data_base64,omitempty"`
	_               struct{} `additionalProperties:"true"`
}

// Placements answers an append of several.
type Placements struct {
	Events []eventhose.Placement `json:"events" doc:"In the order of the request"`
}

// Event is an event as readers get it.
type Event struct {
	ID          string             `json:"id"`
	Type        string             `json:"type"`
	Sequence    eventhose.Sequence `json:"sequence"`
	Key         string             `json:"key" doc:"Empty if it has none"`
	Time        string             `json:"time" format:"date-time"`
	Appended    string             `json:"appended" format:"date-time"`
	Cursor      string             `json:"cursor" doc:"Reading after it goes on behind this event"`
	Source      string             `json:"source,omitempty" doc:"The scope of id: a CloudEvents source"`
	Version     string             `json:"version,omitempty"`
	Attributes  map[string]string  `json:"attributes,omitempty"`
	Origin      *Origin            `json:"origin,omitempty" doc:"Where an event of a connected tenant comes from"`
	ContentType string             `json:"content_type,omitempty" doc:"JSON if left out"`
	Data        any                `json:"data,omitempty"`
	DataBase64  []byte             `json:"data_base64,omitempty" doc:"Data that is not JSON"`
	Erased      bool               `json:"erased,omitempty" doc:"The data was erased"`
	DataOmitted bool               `json:"data_omitted,omitempty" doc:"There is data, and it is not told: to a portal link without the capability data"`
}

// Origin is a place in a connected tenant's log.
type Origin struct {
	Tenant   eventhose.TenantID `json:"tenant"`
	Sequence eventhose.Sequence `json:"sequence"`
}

// EventStatus is one event and what became of it.
type EventStatus struct {
	Event
	Deliveries []eventhose.Delivery `json:"deliveries"`
}

// Events is a page of the log.
type Events struct {
	Data    []Event `json:"data"`
	Cursor  string  `json:"cursor" doc:"What after is for the next page, whether this one was empty or not"`
	HasMore bool    `json:"has_more" doc:"The log goes on after cursor"`
}

// expressionHelp is what is said of the parameter expression.
const expressionHelp = "CEL over type, key, attributes and data; an event on which it costs too much to be decided is handed out"

func (a *API) addEvents() {
	const path = "/v1/tenants/{tenant}/events"
	tags := []string{"events"}
	tenant := pathParameter("tenant", "The tenant")
	id := pathParameter("id", "The event's id")
	source := queryParameter("source", "The scope of the id: a CloudEvents source", huma.Schema{Type: huma.TypeString})

	a.direct(rule{scope: eventhose.ScopePublish, maxBody: a.maxBody, anyType: true, appends: true, quiet: true}, huma.Operation{
		OperationID: "appendEvents", Method: http.MethodPost, Path: path, Tags: tags,
		Summary:     "Append events: all of them or none",
		Description: "Takes one event, an array of at most 10,000, NDJSON, or CloudEvents 1.0 in binary (`ce-` headers), structured or batched mode.",
		Parameters:  []*huma.Param{tenant},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			typeJSON: {Schema: &huma.Schema{OneOf: []*huma.Schema{
				schemaOf[NewEvent](a), {Type: huma.TypeArray, Items: schemaOf[NewEvent](a)}}}},
			typeLines:      {Schema: &huma.Schema{Type: huma.TypeString, Description: "An event a line"}},
			typeStructured: {Schema: schemaOf[CloudEvent](a)},
			typeBatch:      {Schema: &huma.Schema{Type: huma.TypeArray, Items: schemaOf[CloudEvent](a)}},
		}},
		Responses: map[string]*huma.Response{
			"202": a.jsonResponse("On disk", &huma.Schema{OneOf: []*huma.Schema{schemaOf[eventhose.Placement](a), schemaOf[Placements](a)}}),
		},
	}, a.append)

	texts := huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
	a.direct(reads(eventhose.ScopeRead).to(eventhose.CapabilityView), huma.Operation{
		OperationID: "readEvents", Method: http.MethodGet, Path: path, Tags: tags,
		Summary:     "Read the log after a cursor",
		Description: "A page may be empty and yet have more behind it: a read examines at most 10,000 events, and takes about 50 ms if it finds nothing or has an expression. Read on with `cursor`.",
		Parameters: []*huma.Param{tenant,
			queryParameter("after", "A cursor; 0 is the beginning, now the end of the log", huma.Schema{Type: huma.TypeString, Default: "0"}),
			queryParameter("limit", "How many events at most", huma.Schema{Type: huma.TypeInteger, Minimum: number(1), Maximum: number(maxLimit), Default: defaultLimit}),
			queryParameter("types", "Types, prefixes such as order.*, or *; repeated or separated by commas", texts),
			queryParameter("keys", "Ordering keys; repeated", texts),
			queryParameter("expression", expressionHelp, huma.Schema{Type: huma.TypeString}),
			queryParameter("wait", "Hold the answer until there is something, at most this long (60s)", huma.Schema{Type: huma.TypeString}),
			{Name: "If-None-Match", In: "header", Description: "ETags of answers that the client has", Schema: &huma.Schema{Type: huma.TypeString}},
		},
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("A page, with an ETag", schemaOf[Events](a)),
			"304": {Description: "The page is one that the client has"},
			"410": a.problemResponse(http.StatusGone),
		},
	}, zipped(a.read))

	one := reads(eventhose.ScopeRead).to(eventhose.CapabilityView)
	one.narrows = true
	a.direct(one, huma.Operation{
		OperationID: "getEvent", Method: http.MethodGet, Path: path + "/{id}", Tags: tags,
		Summary:    "One event, and what became of it at each subscription",
		Parameters: []*huma.Param{tenant, id, source},
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("The event", schemaOf[EventStatus](a)),
			"410": a.problemResponse(http.StatusGone),
		},
	}, zipped(a.event))

	a.direct(reads(eventhose.ScopeManage), huma.Operation{
		OperationID: "eraseData", Method: http.MethodDelete, Path: path + "/{id}/data", Tags: tags,
		Summary: "Erase an event's data; its place in the log stays",
		Description: "The data of a connected tenant's event goes from the parent's log as well. Of one that is erased in the parent's log, by the id `tenant/id`, " +
			"the connected tenant keeps its own.",
		Parameters: []*huma.Param{tenant, id, source},
		Responses:  map[string]*huma.Response{"204": {Description: "Erased"}},
	}, a.erase)
}

// zippedTag is behind the ETag of an answer that is compressed: other bytes, another tag.
const zippedTag = "-gzip"

// zipped compresses answers of more than a kilobyte for clients that ask for it.
func zipped(h http.HandlerFunc) http.HandlerFunc {
	wrap, err := gzhttp.NewWrapper(gzhttp.SuffixETag(zippedTag))
	if err != nil { // it refuses impossible levels and sizes, of which there are none
		return h
	}
	return wrap(h)
}

func schemaOf[T any](a *API) *huma.Schema {
	return a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}

func number(n float64) *float64 { return &n }

func pathParameter(name, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}

func queryParameter(name, doc string, s huma.Schema) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: &s}
}
