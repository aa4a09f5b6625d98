package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

// document is as much of the served OpenAPI document as the test needs, read by a decoder that knows nothing of its making.
type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct {
		Version string `json:"version"`
	} `json:"info"`
	Paths map[string]map[string]struct {
		OperationID string                `json:"operationId"`
		Summary     string                `json:"summary"`
		Security    []map[string][]string `json:"security"`
		Queries     map[string]string     `json:"x-query-examples"`
		RequestBody struct {
			Content map[string]struct {
				Examples map[string]struct {
					Value json.RawMessage `json:"value"`
				} `json:"examples"`
			} `json:"content"`
		} `json:"requestBody"`
		Responses map[string]json.RawMessage `json:"responses"`
	} `json:"paths"`
}

// TestExamples runs every example of the document, and every operation that has none as it is, against the API, and
// checks the answers against the document's own schemas.
func TestExamples(t *testing.T) {
	served := newWorld(t, nil)
	var doc document
	if err := json.Unmarshal(served.want(200, served.call("", "GET", "/openapi.json", "")).body, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Version != "1.2.3" {
		t.Errorf("document %s of version %s", doc.OpenAPI, doc.Info.Version)
	}
	ran := 0
	for path, item := range doc.Paths {
		for method, op := range item {
			name := strings.ToUpper(method) + " " + path
			run := func(example, typ, query, body string) {
				ran++
				t.Run(name+"/"+example, func(t *testing.T) {
					w := newWorld(t, nil)
					ids := map[string]string{"subscription": w.subscribe("acme", ""), "event": w.append("acme", `{"type":"a.b","data":{}}`)}
					ids["key"], _ = w.key("acme", "read")
					var rejection string
					ids["source"], rejection = w.source("acme")
					ids["link"], _ = w.link("acme", `{}`)
					ids["session"], _ = w.signIn(rootKey)
					if rows[name].id == "inspector" {
						ids["inspector"] = w.inspector("acme")
					}
					var lease string
					if rows[name].id == "pull" {
						ids["pull"], lease = w.leased("acme")
					}
					body = strings.NewReplacer("LEASE", lease, "KEY", rootKey).Replace(body)
					attempt := w.tried("acme", ids["subscription"])
					target := strings.NewReplacer("{tenant}", "acme", "{id}", ids[rows[name].id], "{rejection}", rejection, "{attempt}", attempt).Replace(path)
					if query != "" {
						target += "?" + strings.NewReplacer("EVENT", ids["event"], " ", "%20", `"`, "%22").Replace(query)
					}
					r := w.root(strings.ToUpper(method), target, body, "Content-Type", typ)
					if r.StatusCode > 299 || op.Responses[fmt.Sprint(r.StatusCode)] == nil {
						t.Fatalf("%s %s: %d %s", r.what, body, r.StatusCode, r.body)
					}
					w.conforms(method, path, r)
				})
			}
			if op.Summary == "" || op.OperationID == "" || (op.Security == nil) != slices.Contains(open, name) {
				t.Errorf("%s: summary %q, id %q, security %v", name, op.Summary, op.OperationID, op.Security)
			}
			examples := 0
			for typ, media := range op.RequestBody.Content {
				for example, e := range media.Examples {
					examples++
					body := string(e.Value)
					if typ == "application/x-ndjson" {
						if err := json.Unmarshal(e.Value, &body); err != nil {
							t.Fatal(err)
						}
					}
					run(example, typ, "", body)
				}
				if len(media.Examples) == 0 {
					t.Errorf("%s has no example of %s", name, typ)
				}
			}
			for example, query := range op.Queries {
				run(example, "", query, "")
			}
			if examples == 0 {
				run("plain", "", "", "")
			}
		}
	}
	if ran < 40 {
		t.Errorf("only %d examples were run", ran)
	}
	t.Logf("%d examples", ran)
}

// conforms checks an answer against the schema that the document has for it.
func (w *world) conforms(method, path string, r reply) {
	w.t.Helper()
	doc := w.api.Document()
	item := doc.Paths[path]
	op := map[string]*huma.Operation{"get": item.Get, "put": item.Put, "post": item.Post, "patch": item.Patch, "delete": item.Delete}[method]
	media := op.Responses[fmt.Sprint(r.StatusCode)].Content["application/json"]
	if media == nil {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
			w.t.Errorf("%s: the document has no body for %s", r.what, r.body)
		}
		return
	}
	for _, fault := range conform(doc, media.Schema, r.body) {
		w.t.Errorf("%s: %v in %s", r.what, fault, r.body)
	}
}

func conform(doc *huma.OpenAPI, s *huma.Schema, body []byte) []error {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return []error{err}
	}
	var res huma.ValidateResult
	huma.Validate(doc.Components.Schemas, s, huma.NewPathBuffer([]byte{}, 0), huma.ModeReadFromServer, v, &res)
	return res.Errors
}

// The check itself, on planted faults.
func TestConform(t *testing.T) {
	w := newWorld(t, nil)
	doc := w.api.Document()
	schema := doc.Paths["/v1/tenants/{tenant}"].Get.Responses["200"].Content["application/json"].Schema
	for body, faults := range map[string]int{
		`{"id":"a","created":"2026-01-31T12:00:00Z","updated":"2026-01-31T12:00:00Z"}`:         0,
		`{"id":"a","created":"2026-01-31T12:00:00Z"}`:                                          1,
		`{"id":7,"created":"2026-01-31T12:00:00Z","updated":"now"}`:                            2,
		`{"id":"a","created":"2026-01-31T12:00:00Z","updated":"2026-01-31T12:00:00Z","new":1}`: 1,
	} {
		if got := conform(doc, schema, []byte(body)); len(got) != faults {
			t.Errorf("%s: %v, want %d faults", body, got, faults)
		}
	}
	names := slices.Sorted(maps.Keys(doc.Components.Schemas.Map()))
	if len(names) < 20 {
		t.Errorf("schemas %v", names)
	}
}
