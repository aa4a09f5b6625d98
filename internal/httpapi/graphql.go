package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
)

// GraphQL is a door that is served as a route of this API: who may come in, what is counted and what is logged is decided here.
type GraphQL interface {
	// Answer answers a POST of one who may read the tenant. With an error nothing was written, and the API answers.
	Answer(w http.ResponseWriter, r *http.Request, c *Caller) error
	// Connect answers a GET that begins a WebSocket, of one who is not admitted yet if the request has no credential.
	Connect(w http.ResponseWriter, r *http.Request, c *Caller) error
}

// transportGraphQL names this transport in metrics.
const transportGraphQL = "graphql"

// graphQLBody bounds a request of GraphQL, in bytes.
const graphQLBody = 64 << 10

// Caller is who asks at a door that is served here. It is used by one goroutine at a time, but for Open and Sent.
type Caller struct {
	a     *API
	x     *exchange
	guard *access.Guard
}

// Tenant is whose log the request is about.
func (c *Caller) Tenant() eventhose.TenantID { return c.x.tenant }

// Body is the request's, whole and unpacked, until it is said to be Read.
func (c *Caller) Body() []byte { return c.x.body }

// Read says that the body is needed no more; others may have its memory.
func (c *Caller) Read() {
	c.x.body = nil
	c.x.memory.give()
}

// Admitted reports whether it is known that the caller may read the tenant.
func (c *Caller) Admitted() bool { return c.guard != nil }

// Admit lets in who shows the value of an Authorization header. CodeUnauthenticated, CodeNotFound, CodeForbidden.
func (c *Caller) Admit(ctx context.Context, authorization string) error {
	var headers []string
	if authorization != "" {
		headers = []string{authorization}
	}
	key, err := access.Bearer(headers)
	if err != nil {
		return err
	}
	p, err := access.Allow(ctx, c.a.control, key, c.x.wish)
	if err == nil && c.a.admitter != nil {
		err = c.a.admitter(ctx, p, c.x.tenant)
	}
	if err != nil {
		return err
	}
	c.x.principal = p
	c.guard = c.a.guardOf(c.x)
	return nil
}

// StreamsOnly reports whether the caller may do nothing but follow the log: a ticket opens nothing else.
func (c *Caller) StreamsOnly() bool { return c.x.ticket }

// Check looks now and then whether the caller may still read the tenant, and answers why not. It is for who is admitted.
func (c *Caller) Check(ctx context.Context) error { return c.guard.Check(ctx) }

// Hold counts a connection that stays; end must be called once. CodeLimit.
func (c *Caller) Hold() (end func(), err error) { return c.a.streams.counts.Open(c.x.tenant) }

// Open counts a stream of events; end must be called once, with why it has ended. CodeLimit.
func (c *Caller) Open() (end func(why error), err error) {
	release, err := c.Hold()
	if err != nil {
		return nil, err
	}
	m := c.a.streams.metrics
	shut := m.Open(transportGraphQL)
	return func(why error) {
		m.Ended(transportGraphQL, ending(why))
		shut()
		release()
	}, nil
}

// Sent counts events that a stream has handed over.
func (c *Caller) Sent(events int) { c.a.streams.metrics.Sent(transportGraphQL, events) }

// Finish notes for the log how many bytes a hijacked connection was sent, and why it, or a stream, has ended.
func (c *Caller) Finish(sent int64, why error) { c.x.streamed, c.x.ended = sent, ending(why) }

func (a *API) addGraphQL(door GraphQL) {
	if door == nil {
		return
	}
	const path = "/v1/tenants/{tenant}/graphql"
	tags := []string{"graphql"}
	parameters := []*huma.Param{pathParameter("tenant", "The tenant"),
		queryParameter("ticket", "Instead of an Authorization header, which browsers cannot set for a WebSocket: see createTicket", huma.Schema{Type: huma.TypeString})}
	handler := func(do func(http.ResponseWriter, *http.Request, *Caller) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c := &Caller{a: a, x: exchangeOf(r.Context())}
			if c.x.principal.KeyID != "" {
				c.guard = a.guardOf(c.x)
			}
			if err := do(w, r, c); err != nil {
				a.fail(w, r, err)
			}
		}
	}
	text := &huma.Schema{Type: huma.TypeString}
	result := func(doc string) *huma.MediaType {
		return &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Description: doc}}
	}
	answer := handler(door.Answer)
	small := zipped(answer)
	a.direct(rule{scope: eventhose.ScopeRead, maxBody: graphQLBody, stream: true, tickets: true, quiet: true}, huma.Operation{
		OperationID: "graphql", Method: http.MethodPost, Path: path, Tags: tags,
		Summary:     "Ask with GraphQL, or follow the log as Server-Sent Events",
		Description: "A query is answered at once. With `Accept: text/event-stream` any operation is answered as graphql-sse has it in its distinct connections mode: `next` events, and `complete` after the last.",
		Parameters:  parameters,
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{typeJSON: {Schema: schemaOf[GraphQLRequest](a)}}},
		Responses: map[string]*huma.Response{"200": {Description: "What was asked for, and what went wrong, by GraphQL's rules", Content: map[string]*huma.MediaType{
			typeJSON: result("data and errors"), "application/graphql-response+json": result("data and errors"), typeSSE: {Schema: text}}}},
	}, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(strings.Join(r.Header["Accept"], ","), typeSSE) {
			answer(w, r)
			return
		}
		small(w, r)
	})
	connect := handler(door.Connect)
	a.direct(rule{scope: eventhose.ScopeRead, stream: true, tickets: true, later: true}, huma.Operation{
		OperationID: "graphqlSocket", Method: http.MethodGet, Path: path, Tags: tags,
		Summary:     "GraphQL over WebSocket",
		Description: "The subprotocol `graphql-transport-ws`. A client that sends no credential with its request sends `{\"authorization\": \"Bearer KEY\"}` as the payload of `connection_init`.",
		Parameters:  parameters,
		Responses: map[string]*huma.Response{
			"101": {Description: "The connection is a WebSocket"},
			"400": a.problemResponse(http.StatusBadRequest),
		},
	}, func(w http.ResponseWriter, r *http.Request) {
		if err := checkHandshake(r); err != nil {
			a.fail(w, r, err)
			return
		}
		connect(w, r)
	})
}

// GraphQLRequest is the body of POST …/graphql.
type GraphQLRequest struct {
	Query         string         `json:"query" doc:"The document, at most 16 KiB" example:"{ events(limit: 10) { events { id type data } cursor hasMore } }"`
	OperationName string         `json:"operationName,omitempty" doc:"Which of the document's operations"`
	Variables     map[string]any `json:"variables,omitempty"`
	Extensions    map[string]any `json:"extensions,omitempty" doc:"Ignored"`
}
