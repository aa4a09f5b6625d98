package httpapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

//go:embed docs.html
var docsTemplate string

//go:embed docs.css
var docsStyle string

// docsPolicy lets the page load nothing, and use no style but its own.
var docsPolicy = func() string {
	sum := sha256.Sum256([]byte(docsStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

type docsPage struct {
	Title, Version, Description string
	Style                       template.CSS
	Groups                      []docsGroup
	Codes                       []docsCode
	Schemas                     []docsSchema
}

type docsGroup struct {
	Name       string
	Operations []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Description, Scope, Portal string
	Parameters                                            []docsParameter
	Examples                                              []docsExample
	Responses                                             []string
}

type docsParameter struct{ Name, In, Doc string }

type docsExample struct{ Name, Type, Text string }

type docsCode struct {
	Code   eventhose.Code
	Status int
	Title  string
}

type docsSchema struct{ Name, Text string }

// prose shows what stands between backticks as code.
func prose(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			part = "<code>" + template.HTMLEscapeString(part) + "</code>"
		} else {
			part = template.HTMLEscapeString(part)
		}
		b.WriteString(part)
	}
	return template.HTML(b.String())
}

// renderDocs writes the document as one page that needs nothing else.
func renderDocs(doc *huma.OpenAPI) ([]byte, error) {
	page := docsPage{Title: doc.Info.Title, Version: doc.Info.Version, Description: doc.Info.Description, Style: template.CSS(docsStyle)}
	groups := map[string][]docsOperation{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete} {
			if op != nil {
				groups[op.Tags[0]] = append(groups[op.Tags[0]], docsOf(op))
			}
		}
	}
	for _, tag := range []string{"events", "streams", "graphql", "subscriptions", "workers", "deliveries", "metrics", "sources", "inspectors", "portal", "tenants", "keys", "sessions", "audit", "service"} {
		if len(groups[tag]) > 0 {
			page.Groups = append(page.Groups, docsGroup{tag, groups[tag]})
		}
		delete(groups, tag)
	}
	for _, tag := range slices.Sorted(maps.Keys(groups)) {
		return nil, fmt.Errorf("docs: operations with the tag %s have no place on the page", tag)
	}
	for _, code := range eventhose.Codes() {
		page.Codes = append(page.Codes, docsCode{code, kinds[code].status, kinds[code].title})
	}
	schemas := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		text, err := json.MarshalIndent(schemas[name], "", "  ")
		if err != nil {
			return nil, fmt.Errorf("docs: %w", err)
		}
		page.Schemas = append(page.Schemas, docsSchema{name, string(text)})
	}
	t, err := template.New("docs").Funcs(template.FuncMap{"prose": prose}).Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("docs: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, page); err != nil {
		return nil, fmt.Errorf("docs: %w", err)
	}
	return b.Bytes(), nil
}

func docsOf(op *huma.Operation) docsOperation {
	ru, _ := op.Metadata[ruleKey].(rule)
	d := docsOperation{ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, Description: op.Description, Scope: string(ru.scope), Portal: string(ru.portal)}
	for _, p := range op.Parameters {
		d.Parameters = append(d.Parameters, docsParameter{p.Name, p.In, p.Description})
	}
	for _, typ := range slices.Sorted(maps.Keys(examples[op.OperationID])) {
		named := examples[op.OperationID][typ]
		for _, name := range slices.Sorted(maps.Keys(named)) {
			text := named[name]
			if typ == "" {
				text = op.Path + "?" + text
			}
			d.Examples = append(d.Examples, docsExample{name, typ, text})
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		d.Responses = append(d.Responses, strings.TrimSpace(status+" "+op.Responses[status].Description))
	}
	return d
}
