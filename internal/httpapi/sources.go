package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// Sources is what the API needs of inbound sources. All answers are copies that the caller owns.
type Sources interface {
	// Providers lists by name all that a source can be for.
	Providers() []eventhose.Provider
	// CreateSource validates and saves a source with its inbox. CodeInvalid with the field, CodeLimit.
	CreateSource(ctx context.Context, s eventhose.Source) (eventhose.Source, error)
	// Source: CodeNotFound.
	Source(ctx context.Context, tenant eventhose.TenantID, id eventhose.SourceID) (eventhose.Source, error)
	// Sources lists by id those after one.
	Sources(ctx context.Context, tenant eventhose.TenantID, after eventhose.SourceID, limit int) ([]eventhose.Source, error)
	UpdateSource(ctx context.Context, tenant eventhose.TenantID, id eventhose.SourceID, p eventhose.SourcePatch) (eventhose.Source, error)
	DeleteSource(ctx context.Context, tenant eventhose.TenantID, id eventhose.SourceID) error
	// Rejections lists the rejected requests that are kept, newest first, without the requests. CodeNotFound.
	Rejections(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID) ([]eventhose.Rejection, error)
	// ShownRejection answers one with its request, without what may be a credential. CodeNotFound.
	ShownRejection(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) (eventhose.Rejection, error)
	// Retry verifies a rejected request again and appends it. CodeNotFound, CodeConflict.
	Retry(ctx context.Context, tenant eventhose.TenantID, source eventhose.SourceID, id string) (eventhose.Placement, error)
	// Inbox answers what came in and what became of it, oldest first, and the cursor to go on from.
	Inbox(ctx context.Context, tenant eventhose.TenantID, q eventhose.InboxQuery) (items []eventhose.InboxItem, next eventhose.Cursor, more bool, err error)
}

// NewSource is the body of POST …/sources.
type NewSource struct {
	Provider    string                   `json:"provider" doc:"Who sends: stripe, github, … (docs/providers.md)" example:"stripe"`
	Name        string                   `json:"name,omitempty"`
	Secret      eventhose.Secret         `json:"secret,omitempty" doc:"What the provider signs with, if it is one"`
	Secrets     []eventhose.Secret       `json:"secrets,omitempty" doc:"Several during a rotation"`
	PublicKey   string                   `json:"public_key,omitempty" doc:"The provider's key, if it is one"`
	PublicKeys  []string                 `json:"public_keys,omitempty"`
	VerifyToken eventhose.Secret         `json:"verify_token,omitempty" doc:"What the provider shows when it tries the address"`
	PublicURL   string                   `json:"public_url,omitempty" doc:"The URL that the provider was given, for those that sign it"`
	Tolerance   eventhose.Duration       `json:"tolerance,omitempty" doc:"How far a signed time may be off; the provider's usual one if left out"`
	Options     map[string]string        `json:"options,omitempty" doc:"Particular to a provider"`
	TypePrefix  string                   `json:"type_prefix,omitempty" doc:"Begins the types of the events; the provider's name if left out"`
	Scheme      *eventhose.SourceScheme  `json:"scheme,omitempty" doc:"How requests are signed, for the provider generic"`
	Naming      *eventhose.SourceNaming  `json:"naming,omitempty" doc:"Where id, type, key and time stand, in place of what the provider has"`
	Answer      *eventhose.InspectAnswer `json:"answer,omitempty" doc:"What the provider inspect answers"`
}

// SourceAnswer is a source as the API tells it.
type SourceAnswer struct {
	eventhose.Source
	URL string `json:"url" doc:"Where the provider sends to"`
}

// InSource is part of inputs, like InTenant.
type InSource struct {
	InTenant
	ID eventhose.SourceID `path:"id" doc:"The source" example:"src_01j9z3k4m5n6p7q8r9s0t1v2w3"`
}

// InRejection is part of inputs, like InTenant.
type InRejection struct {
	InSource
	Rejection string `path:"rejection" doc:"The rejected request" example:"rej_01j9z3k4m5n6p7q8r9s0t1v2w3"`
}

type (
	createSourceInput struct {
		InTenant
		Body NewSource
	}
	listSourcesInput struct {
		InTenant
		PageInput
	}
	updateSourceInput struct {
		InSource
		Body eventhose.SourcePatch
	}
	inboxInput struct {
		InTenant
		PageInput
		Provider string                `query:"provider" doc:"Only events of this provider"`
		Source   eventhose.SourceID    `query:"source" doc:"Only events of this source"`
		Status   eventhose.InboxStatus `query:"status" enum:"pending,processed,failed,dead" doc:"Only those of which this became"`
	}
	sourceOutput    struct{ Body SourceAnswer }
	rejectionOutput struct{ Body eventhose.Rejection }
	placementOutput struct{ Body eventhose.Placement }
)

// addSources adds the routes of sources, if there are any.
func (a *API) addSources(sources Sources) {
	if sources == nil {
		return
	}
	const path = "/v1/tenants/{tenant}/sources"
	tags := []string{"sources"}
	tell := func(ctx context.Context, s eventhose.Source) SourceAnswer {
		return SourceAnswer{Source: s, URL: a.base(exchangeOf(ctx)) + "/in/" + string(s.ID)}
	}
	answer := func(ctx context.Context, s eventhose.Source, err error) (*sourceOutput, error) {
		return &sourceOutput{tell(ctx, s)}, err
	}
	manage(a, rule{known: true}, huma.Operation{
		OperationID: "listProviders", Method: http.MethodGet, Path: "/v1/providers", Tags: tags,
		Summary: "Whose webhooks can be received, and what a source needs for it",
	}, func(context.Context, *struct{}) (*listOutput[eventhose.Provider], error) {
		all := sources.Providers()
		return listed(all, len(all), nil), nil
	})
	manage(a, changes(eventhose.ScopeManage), huma.Operation{
		OperationID: "createSource", Method: http.MethodPost, Path: path, Tags: tags,
		Summary: "Make an address for a provider's webhooks, and an inbox for them", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *createSourceInput) (*sourceOutput, error) {
		s, err := in.Body.source(in.Tenant)
		if err != nil {
			return nil, err
		}
		s, err = sources.CreateSource(ctx, s)
		exchangeOf(ctx).note(string(s.ID), nil, s)
		return answer(ctx, s, err)
	})
	manage(a, reads(eventhose.ScopeRead), huma.Operation{
		OperationID: "listSources", Method: http.MethodGet, Path: path, Tags: tags, Summary: "The sources, by id",
	}, func(ctx context.Context, in *listSourcesInput) (*listOutput[SourceAnswer], error) {
		list, err := sources.Sources(ctx, in.Tenant, eventhose.SourceID(in.After), in.Limit+1)
		if err != nil {
			return nil, err
		}
		answers := make([]SourceAnswer, len(list))
		for i := range list {
			answers[i] = tell(ctx, list[i])
		}
		return listed(answers, in.Limit, func(s SourceAnswer) string { return string(s.ID) }), nil
	})
	manage(a, reads(eventhose.ScopeRead), huma.Operation{
		OperationID: "getSource", Method: http.MethodGet, Path: path + "/{id}", Tags: tags, Summary: "One source",
	}, func(ctx context.Context, in *InSource) (*sourceOutput, error) {
		s, err := sources.Source(ctx, in.Tenant, in.ID)
		return answer(ctx, s, err)
	})
	manage(a, changes(eventhose.ScopeManage), huma.Operation{
		OperationID: "updateSource", Method: http.MethodPatch, Path: path + "/{id}", Tags: tags,
		Summary:     "Change what the body names, such as the secrets",
		Description: "Lists and maps are replaced as a whole; `***` among `secrets` stands for all that it has. `null` takes a member back to its default.",
	}, func(ctx context.Context, in *updateSourceInput) (*sourceOutput, error) {
		p, err := sourceDefaults(in.Body, exchangeOf(ctx).body)
		if err != nil {
			return nil, err
		}
		before, err := sources.Source(ctx, in.Tenant, in.ID)
		if err != nil {
			return nil, err
		}
		s, err := sources.UpdateSource(ctx, in.Tenant, in.ID, p)
		exchangeOf(ctx).note(string(in.ID), before, s)
		return answer(ctx, s, err)
	})
	manage(a, reads(eventhose.ScopeManage), huma.Operation{
		OperationID: "deleteSource", Method: http.MethodDelete, Path: path + "/{id}", Tags: tags,
		Summary: "Remove a source with its inbox; its events stay in the log", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *InSource) (*nothing, error) {
		before, err := sources.Source(ctx, in.Tenant, in.ID)
		if err != nil {
			return nil, err
		}
		exchangeOf(ctx).note(string(in.ID), before, nil)
		return &nothing{}, sources.DeleteSource(ctx, in.Tenant, in.ID)
	})
	manage(a, reads(eventhose.ScopeRead), huma.Operation{
		OperationID: "listRejections", Method: http.MethodGet, Path: path + "/{id}/rejections", Tags: tags,
		Summary: "Requests that the source did not take, newest first: the last 100 of a day",
	}, func(ctx context.Context, in *InSource) (*listOutput[eventhose.Rejection], error) {
		list, err := sources.Rejections(ctx, in.Tenant, in.ID)
		return listed(list, eventhose.MaxRejections, func(r eventhose.Rejection) string { return r.ID }), err
	})
	manage(a, reads(eventhose.ScopeManage), huma.Operation{
		OperationID: "getRejection", Method: http.MethodGet, Path: path + "/{id}/rejections/{rejection}", Tags: tags,
		Summary: "One of them with headers and body; what may be a credential reads ***",
	}, func(ctx context.Context, in *InRejection) (*rejectionOutput, error) {
		r, err := sources.ShownRejection(ctx, in.Tenant, in.ID, in.Rejection)
		return &rejectionOutput{r}, err
	})
	manage(a, changes(eventhose.ScopeManage), huma.Operation{
		OperationID: "retryRejection", Method: http.MethodPost, Path: path + "/{id}/rejections/{rejection}/retry", Tags: tags,
		Summary:     "Verify it again, as of when it came, with the settings that the source has now, and append it",
		Description: "It is kept no longer then. 409 if it is rejected again, or if an event with its id and other content is in the log: then it stays.",
	}, func(ctx context.Context, in *InRejection) (*placementOutput, error) {
		p, err := sources.Retry(ctx, in.Tenant, in.ID, in.Rejection)
		return &placementOutput{p}, err
	})
	manage(a, reads(eventhose.ScopeRead), huma.Operation{
		OperationID: "inbox", Method: http.MethodGet, Path: "/v1/tenants/{tenant}/inbox", Tags: tags,
		Summary:     "What came in through sources, and what became of it, oldest first",
		Description: "A page looks at about 10,000 places of the log, so it may hold fewer than asked for, or none, and still have a next one.",
		Responses:   map[string]*huma.Response{"410": a.problemResponse(http.StatusGone)},
	}, func(ctx context.Context, in *inboxInput) (*listOutput[eventhose.InboxItem], error) {
		after, err := eventhose.ParseCursor(in.After)
		if err != nil {
			return nil, eventhose.Invalid("after", "is not what this route gave out")
		}
		items, next, more, err := sources.Inbox(ctx, in.Tenant, eventhose.InboxQuery{Provider: in.Provider, Source: in.Source, Status: in.Status, After: after, Limit: in.Limit})
		out := &listOutput[eventhose.InboxItem]{List[eventhose.InboxItem]{Data: notNil(items)}}
		if more {
			text := next.String()
			out.Body.Next = &text
		}
		return out, err
	})
}

// source is what the body asks for.
func (n *NewSource) source(tenant eventhose.TenantID) (eventhose.Source, error) {
	s := eventhose.Source{Tenant: tenant, Provider: n.Provider, Name: n.Name, Secrets: n.Secrets, PublicKeys: n.PublicKeys, VerifyToken: n.VerifyToken,
		PublicURL: n.PublicURL, Tolerance: n.Tolerance, Options: n.Options, TypePrefix: n.TypePrefix, Scheme: n.Scheme, Naming: n.Naming, Answer: n.Answer}
	if n.Secret != "" {
		if len(n.Secrets) > 0 {
			return s, eventhose.Invalid("secret", "cannot be beside secrets")
		}
		s.Secrets = []eventhose.Secret{n.Secret}
	}
	if n.PublicKey != "" {
		if len(n.PublicKeys) > 0 {
			return s, eventhose.Invalid("public_key", "cannot be beside public_keys")
		}
		s.PublicKeys = []string{n.PublicKey}
	}
	return s, nil
}

// sourceDefaults is a patch in which each member that its text sets to null asks for the default (RFC 7396, section 2).
func sourceDefaults(p eventhose.SourcePatch, text []byte) (eventhose.SourcePatch, error) {
	names, err := nulls(text)
	for _, name := range names {
		switch name {
		case "name":
			p.Name = new(string)
		case "secrets":
			p.Secrets = new([]eventhose.Secret)
		case "public_keys":
			p.PublicKeys = new([]string)
		case "verify_token":
			p.VerifyToken = new(eventhose.Secret)
		case "public_url":
			p.PublicURL = new(string)
		case "tolerance":
			p.Tolerance = new(eventhose.Duration)
		case "options":
			p.Options = new(map[string]string)
		case "type_prefix":
			p.TypePrefix = new(string)
		case "scheme":
			p.Scheme = new(eventhose.SourceScheme)
		case "naming":
			p.Naming = new(eventhose.SourceNaming)
		case "answer":
			p.Answer = new(eventhose.InspectAnswer)
		}
	}
	return p, err
}
