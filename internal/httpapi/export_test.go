package httpapi

import "github.com/danielgtaylor/huma/v2"

// Document is the OpenAPI document as the API has it in memory.
func (a *API) Document() *huma.OpenAPI { return a.huma.OpenAPI() }
