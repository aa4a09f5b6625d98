package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// examples are requests that work, by operation and content type: bodies, or for the empty content type the query.
// Tests execute every one of them. EVENT, LEASE and KEY stand for what exists.
var examples = map[string]map[string]map[string]string{
	"putTenant": {typeJSON: {
		"plain":     `{}`,
		"retention": `{"retention": {"age": "720h", "bytes": 10737418240}}`,
	}},
	"createKey": {typeJSON: {
		"publisher": `{"tenant": "acme", "scopes": ["publish"]}`,
		"temporary": `{"name": "the shop's worker", "tenant": "acme", "scopes": ["read", "manage"], "expires": "2099-01-01T00:00:00Z"}`,
	}},
	"appendEvents": {
		typeJSON: {
			"one":    `{"type": "order.paid", "key": "order_17", "data": {"total": 12.50, "currency": "EUR"}}`,
			"id":     `{"id": "order_17_paid", "type": "order.paid", "time": "2026-01-31T12:00:00Z", "version": "2", "attributes": {"region": "eu"}, "data": {"total": 12.50}}`,
			"binary": `{"type": "label.printed", "content_type": "image/png", "data_base64": "iVBORw0KGgo="}`,
			"array":  `[{"type": "order.created", "key": "order_18", "data": {}}, {"type": "order.paid", "key": "order_18", "data": {}}]`,
		},
		typeLines: {
			"lines": "{\"type\": \"order.created\", \"data\": {\"id\": 19}}\n{\"type\": \"order.created\", \"data\": {\"id\": 20}}\n",
		},
		typeStructured: {
			"structured": `{"specversion": "1.0", "id": "A234-1234", "source": "/shop/1", "type": "order.paid", "subject": "order_17", "partitionkey": "order_17", "data": {"total": 12.50}}`,
		},
		typeBatch: {
			"batch": `[{"specversion": "1.0", "id": "A234-1235", "source": "/shop/1", "type": "order.paid", "data": {"total": 3}}]`,
		},
	},
	"readEvents": {"": {
		"beginning": "after=0&limit=10",
		"filter":    "types=order.*,refund.*&keys=order_17&wait=1ms",
		"cel":       "expression=" + `type.startsWith("order.")`,
	}},
	"searchEvents": {"": {
		"failed": "status=failed&types=order.*&limit=20",
		"hour":   "since=1h",
		"id":     "id=EVENT",
	}},
	"resendEvent":    {typeJSON: {"all": `{}`}},
	"searchAttempts": {"": {"failed": "outcome=failed&since=24h"}},
	"searchParked":   {"": {"dead": "state=dead"}},
	"createSubscription": {typeJSON: {
		"plain": `{"destination": {"type": "webhook", "url": "https://example.com/hook"}}`,
		"whole": `{"name": "Payments", "filter": {"types": ["order.*"], "expression": "key != ''"}, "ordering": "key", "on_exhausted": "block", "retry": {"schedule": ["0s", "5s", "5m"], "timeout": "10s"}, "from": "start", "max_in_flight": 8, "destination": {"type": "webhook", "url": "https://example.com/hook", "headers": {"X-Team": "payments"}}}`,
		"batch": `{"batch": {"max_events": 100, "max_wait": "2s"}, "destination": {"type": "webhook", "url": "https://example.com/hook", "format": "cloudevents", "compression": "gzip"}}`,
	}},
	"updateSubscription": {typeJSON: {
		"name":   `{"name": "Invoices"}`,
		"filter": `{"filter": {"types": ["invoice.*"]}}`,
		"batch":  `{"batch": {"max_events": 50, "max_bytes": 262144}}`,
	}},
	"rotateSecret": {typeJSON: {"overlap": `{"overlap": "1h"}`}},
	"listAttempts": {"": {"event": "event=EVENT", "page": "limit=10"}},
	"listBatches":  {"": {"page": "limit=10"}},
	"listParked":   {"": {"dead": "state=dead"}},
	"retryNow":     {typeJSON: {"all": `{}`}},
	"redrive":      {typeJSON: {"all": `{}`}},
	"discard":      {typeJSON: {"all": `{}`}},
	"replay": {typeJSON: {
		"dry": `{"from": 1, "types": ["order.*"], "dry_run": true}`,
	}},
	"pull": {typeJSON: {
		"wait": `{"max": 10, "wait": "1ms", "lease": "1m"}`,
	}},
	"ack":     {typeJSON: {"one": `{"leases": ["LEASE"]}`}},
	"nack":    {typeJSON: {"later": `{"leases": ["LEASE"], "delay": "30s", "message": "the shop is closed"}`}},
	"release": {typeJSON: {"one": `{"leases": ["LEASE"]}`}},
	"extend":  {typeJSON: {"minute": `{"leases": ["LEASE"], "lease": "1m"}`}},
	"streamEvents": {"": {
		"beginning": "after=0",
		"now":       "after=now&types=order.*,refund.*",
	}},
	"followEvents": {"": {
		"filter": "after=now&keys=order_17&expression=" + `type.startsWith("order.")`,
	}},
	"graphql": {typeJSON: {
		"page": `{"query": "query($after: String) { events(after: $after, types: [\"order.*\"], limit: 10) { events { id type data } cursor hasMore } }", "variables": {"after": "0"}}`,
	}},
	"createSource": {typeJSON: {
		"stripe":  `{"provider": "stripe", "secret": "whsec_9f2b7c4d1e8a6053"}`,
		"rotate":  `{"provider": "github", "name": "CI", "secrets": ["the-new-secret", "the-old-secret"], "type_prefix": "ci"}`,
		"generic": `{"provider": "generic", "secret": "a-shared-secret", "scheme": {"header": "X-Signature", "prefix": "sha256=", "hash": "sha256"}, "naming": {"id": ["json:id"], "type": ["json:kind"]}}`,
		"inspect": `{"provider": "inspect", "answer": {"status": 202, "body": "seen"}}`,
	}},
	"updateSource":      {typeJSON: {"secrets": `{"secrets": ["the-newer-secret", "the-new-secret"]}`}},
	"inbox":             {"": {"dead": "status=dead", "provider": "provider=github&limit=10"}},
	"listSubscriptions": {"": {"page": "limit=10", "status": "status=true&metrics=1h"}},
	"metricsOverTime": {"": {
		"hour": "from=1h",
		"day":  "from=2026-01-31T00:00:00Z&to=2026-02-01T00:00:00Z&step=15m",
	}},
	"platformMetrics": {"": {"week": "from=168h&step=1h"}},
	"createSession":   {typeJSON: {"key": `{"key": "KEY"}`}},
	"createPortalLink": {typeJSON: {
		"look": `{"capabilities": ["view", "data"]}`,
		"work": `{"name": "The shop", "capabilities": ["view", "data", "manage", "replay", "test"], "expires_in": "24h"}`,
	}},
	"listTenantAudit": {"": {"actor": "actor=admin&limit=10"}},
	"listAudit":       {"": {"action": "action=createSubscription", "target": "target=sub_01j9z3k4m5n6p7q8r9s0t1v2w3"}},
	"createInspector": {typeJSON: {
		"plain":  `{}`,
		"shaky":  `{"name": "Shaky", "delay": "50ms", "fail_rate": 0.5}`,
		"verify": `{"status": 202, "body": "seen", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}`,
	}},
	"updateInspector": {typeJSON: {"mend": `{"fail_rate": 0}`}},
	"listInspected":   {"": {"newest": "limit=1", "follow": "after=inr_0000000000000000&wait=1ms"}},
	"listTenants":     {"": {"page": "limit=2"}},
	"listKeys":        {"": {"tenant": "tenant=acme"}},
	"backup":          {typeJSON: {"named": `{"dir": "sunday"}`}},
}

// optional are the operations of what an API may be without.
var optional = map[string]bool{"backup": true, "graphql": true, "createSource": true, "updateSource": true, "inbox": true, "metricsOverTime": true, "platformMetrics": true,
	"createInspector": true, "updateInspector": true, "listInspected": true}

// describe puts the examples into the document and writes it, and the page made from it, once.
func (a *API) describe() error {
	doc := a.huma.OpenAPI()
	known := map[string]*huma.Operation{}
	for _, path := range doc.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Put, path.Post, path.Patch, path.Delete} {
			if op != nil {
				known[op.OperationID] = op
			}
		}
	}
	for id, types := range examples {
		op := known[id]
		if op == nil {
			if optional[id] {
				continue
			}
			return fmt.Errorf("openapi: an example is of the operation %s, which does not exist", id)
		}
		for typ, named := range types {
			if err := addExamples(op, typ, named); err != nil {
				return fmt.Errorf("openapi: %s: %w", id, err)
			}
		}
	}
	for _, op := range known {
		if ru, _ := op.Metadata[ruleKey].(rule); op.Method == http.MethodPost && ru.maxBody > 0 && !ru.stream && ru.guarded() {
			op.Parameters = append(op.Parameters, idempotencyParameter())
		}
	}
	var err error
	if a.spec, err = json.MarshalIndent(doc, "", "  "); err != nil {
		return fmt.Errorf("openapi: %w", err)
	}
	a.docs, err = renderDocs(doc)
	return err
}

func addExamples(op *huma.Operation, typ string, named map[string]string) error {
	if typ == "" {
		op.Extensions = map[string]any{"x-query-examples": named}
		return nil
	}
	media := op.RequestBody.Content[typ]
	media.Examples = map[string]*huma.Example{}
	for name, text := range named {
		var value any = text
		if typ != typeLines {
			value = json.RawMessage(text)
			if !json.Valid([]byte(text)) {
				return fmt.Errorf("the example %s is not JSON", name)
			}
		}
		media.Examples[name] = &huma.Example{Value: value}
	}
	return nil
}

func idempotencyParameter() *huma.Param {
	return &huma.Param{Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "The same request with the same key is done once; its answer is given again for 24 hours, that of a pull as long as its leases"}
}

func (a *API) jsonResponse(doc string, s *huma.Schema) *huma.Response {
	return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{typeJSON: {Schema: s}}}
}

func (a *API) problemResponse(status int) *huma.Response {
	return &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schemaOf[Problem](a)}}}
}

// schemaName names types in the document as Go does, lists by their elements.
func schemaName(t reflect.Type, hint string) string {
	return strings.ReplaceAll(huma.DefaultSchemaNamer(t, hint), "SubscriptionAnswer", "Subscription")
}
