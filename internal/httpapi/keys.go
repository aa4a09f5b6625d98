package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// NewKey is the body of POST /v1/keys.
type NewKey struct {
	Name    string             `json:"name,omitempty" doc:"For people, at most 100 bytes"`
	Tenant  eventhose.TenantID `json:"tenant,omitempty" doc:"The only tenant that the key may touch; if left out, the reach of the key that asks"`
	Scopes  []eventhose.Scope  `json:"scopes" doc:"publish, read, manage, admin"`
	Expires time.Time          `json:"expires,omitzero" doc:"Never if left out"`
}

// CreatedKey is a new key with its secret.
type CreatedKey struct {
	eventhose.APIKey
	Key string `json:"key" doc:"The key itself. It is shown this once"`
}

type createKeyInput struct{ Body NewKey }

type createdKeyOutput struct{ Body CreatedKey }

type listKeysInput struct {
	PageInput
	Tenant eventhose.TenantID `query:"tenant" doc:"Only the keys of this tenant"`
}

type keyInput struct {
	ID string `path:"id" doc:"The key's id, not the key"`
}

type nothing struct{}

func (a *API) addKeys() {
	manage(a, changes(eventhose.ScopeAdmin), huma.Operation{
		OperationID: "createKey", Method: http.MethodPost, Path: "/v1/keys", Tags: []string{"keys"},
		Summary: "Make an API key", DefaultStatus: http.StatusCreated,
		Responses: map[string]*huma.Response{"404": a.problemResponse(http.StatusNotFound)},
	}, func(ctx context.Context, in *createKeyInput) (*createdKeyOutput, error) {
		tenant, err := a.keysOf(ctx, in.Body.Tenant)
		if err != nil {
			return nil, err
		}
		k, secret, err := a.control.CreateKey(ctx, eventhose.APIKey{Name: in.Body.Name, Tenant: tenant, Scopes: in.Body.Scopes, Expires: in.Body.Expires})
		if err != nil {
			return nil, err
		}
		exchangeOf(ctx).tenant = tenant
		exchangeOf(ctx).note(k.ID, nil, k)
		return &createdKeyOutput{CreatedKey{APIKey: k, Key: string(secret)}}, nil
	})
	manage(a, reads(eventhose.ScopeAdmin), huma.Operation{
		OperationID: "listKeys", Method: http.MethodGet, Path: "/v1/keys", Tags: []string{"keys"},
		Summary:   "The API keys within reach, by id",
		Responses: map[string]*huma.Response{"404": a.problemResponse(http.StatusNotFound)},
	}, func(ctx context.Context, in *listKeysInput) (*listOutput[eventhose.APIKey], error) {
		tenant, err := a.keysOf(ctx, in.Tenant)
		if err != nil {
			return nil, err
		}
		list, err := a.control.Keys(ctx, tenant, in.After, in.Limit+1)
		if err != nil {
			return nil, err
		}
		return listed(list, in.Limit, func(k eventhose.APIKey) string { return k.ID }), nil
	})
	manage(a, reads(eventhose.ScopeAdmin), huma.Operation{
		OperationID: "revokeKey", Method: http.MethodDelete, Path: "/v1/keys/{id}", Tags: []string{"keys"},
		Summary: "End an API key", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *keyInput) (*nothing, error) {
		x := exchangeOf(ctx)
		k, err := a.control.RevokeKey(ctx, x.principal.Tenant, in.ID)
		if err == nil {
			x.tenant = k.Tenant
		}
		return &nothing{}, err
	})
}

// keysOf answers whose keys a request is about: the tenant it names, which must exist and be within reach, else the
// reach of its credential ("" is all).
func (a *API) keysOf(ctx context.Context, named eventhose.TenantID) (eventhose.TenantID, error) {
	p := exchangeOf(ctx).principal
	if named == "" {
		return p.Tenant, nil
	}
	if !p.May(named) {
		return "", eventhose.NotFound("tenant")
	}
	if _, err := a.control.Tenant(ctx, named); err != nil {
		if eventhose.CodeOf(err) == eventhose.CodeNotFound {
			return "", eventhose.NotFound("tenant")
		}
		return "", err
	}
	return named, nil
}
