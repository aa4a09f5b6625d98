package httpapi

import (
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// Document is the OpenAPI document as the API has it in memory.
func (a *API) Document() *huma.OpenAPI { return a.huma.OpenAPI() }

// WriteTicket makes a ticket as the API does, but for any key, tenant and time.
func (a *API) WriteTicket(keyID string, tenant eventhose.TenantID, expires time.Time) string {
	return string(a.tickets.write(ticket{keyID, tenant, expires}))
}

// Beginning is where a batch is listed.
var Beginning = beginning
