package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// PortalLinks is what the API needs of portal links.
type PortalLinks interface {
	// CreateLink makes one for l.Tenant, and answers its token, which is shown this once. CodeInvalid, CodeLimit.
	CreateLink(ctx context.Context, l eventhose.PortalLink, lifetime time.Duration) (eventhose.PortalLink, eventhose.Secret, error)
	// Links lists by id those after one.
	Links(ctx context.Context, tenant eventhose.TenantID, after string, limit int) ([]eventhose.PortalLink, error)
	// RevokeLink: CodeNotFound.
	RevokeLink(ctx context.Context, tenant eventhose.TenantID, id string) error
}

// NewPortalLink is the body of POST …/portal-links.
type NewPortalLink struct {
	Name          string                     `json:"name,omitempty" doc:"For people, at most 100 bytes"`
	Capabilities  []eventhose.Capability     `json:"capabilities,omitempty" doc:"view, data, manage, secrets, replay, test; view is always among them"`
	ExpiresIn     eventhose.Duration         `json:"expires_in,omitempty" doc:"1m to 720h; 1h if left out"`
	Subscriptions []eventhose.SubscriptionID `json:"subscriptions,omitempty" doc:"The only ones that it shows, 1 to 100; all if left out. The log as a whole is closed then"`
}

// CreatedPortalLink is a new link with its token.
type CreatedPortalLink struct {
	eventhose.PortalLink
	URL   string `json:"url" doc:"The page, with the token where browsers send it to no server. Show it in an iframe, or hand it out"`
	Token string `json:"token" doc:"The link's credential, as an API key is one. It is shown this once"`
}

type (
	createLinkInput struct {
		InTenant
		Body *NewPortalLink
	}
	listLinksInput struct {
		InTenant
		PageInput
	}
	linkInput struct {
		InTenant
		ID string `path:"id" doc:"The link" example:"ptl_01j9z3k4m5n6p7q8r9s0t1v2w3"`
	}
	createdLinkOutput struct{ Body CreatedPortalLink }
)

func (a *API) addPortal() {
	const path = "/v1/tenants/{tenant}/portal-links"
	tags := []string{"portal"}
	manage(a, changes(eventhose.ScopeAdmin), huma.Operation{
		OperationID: "createPortalLink", Method: http.MethodPost, Path: path, Tags: tags,
		Summary: "Make a link to the portal: what one customer may see and do, for a while", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *createLinkInput) (*createdLinkOutput, error) {
		if in.Body == nil {
			in.Body = &NewPortalLink{}
		}
		b := in.Body
		if b.ExpiresIn < 0 {
			return nil, eventhose.Invalid("expires_in", "must be between 1m and 720h")
		}
		l, token, err := a.control.CreateLink(ctx, eventhose.PortalLink{Tenant: in.Tenant, Name: b.Name, Capabilities: b.Capabilities, Subscriptions: b.Subscriptions}, time.Duration(b.ExpiresIn))
		if err != nil {
			return nil, err
		}
		x := exchangeOf(ctx)
		x.note(l.ID, nil, l)
		return &createdLinkOutput{CreatedPortalLink{PortalLink: l, URL: a.base(x) + "/portal#token=" + string(token), Token: string(token)}}, nil
	})
	manage(a, reads(eventhose.ScopeAdmin), huma.Operation{
		OperationID: "listPortalLinks", Method: http.MethodGet, Path: path, Tags: tags, Summary: "The links that are good, by id",
	}, func(ctx context.Context, in *listLinksInput) (*listOutput[eventhose.PortalLink], error) {
		list, err := a.control.Links(ctx, in.Tenant, in.After, in.Limit+1)
		if err != nil {
			return nil, err
		}
		return listed(list, in.Limit, func(l eventhose.PortalLink) string { return l.ID }), nil
	})
	manage(a, reads(eventhose.ScopeAdmin), huma.Operation{
		OperationID: "revokePortalLink", Method: http.MethodDelete, Path: path + "/{id}", Tags: tags,
		Summary: "End a link at once", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *linkInput) (*nothing, error) {
		return &nothing{}, a.control.RevokeLink(ctx, in.Tenant, in.ID)
	})
}

// shownTo is an attempt as who asks may see it: without the capability data, nothing of what the receiver has said.
func shownTo(p eventhose.Principal, t eventhose.Attempt) eventhose.Attempt {
	if p.Can(eventhose.CapabilityData) {
		return t
	}
	t.ResponseHeaders, t.ResponseBody, t.Message = nil, "", ours(t.Reason, t.Message)
	return t
}

// ours leaves out a message that a receiver or a worker has written.
func ours(reason eventhose.Reason, message string) string {
	if reason == eventhose.ReasonPartly || reason == eventhose.ReasonNack {
		return ""
	}
	return message
}

// subscriptionsFor lists those of a link that is limited to some, by id, those after one.
func (a *API) subscriptionsFor(ctx context.Context, p eventhose.Principal, tenant eventhose.TenantID, after eventhose.SubscriptionID, limit int) ([]eventhose.Subscription, error) {
	var list []eventhose.Subscription
	ids := slices.Clone(p.Subscriptions)
	slices.SortFunc(ids, func(a, b eventhose.SubscriptionID) int { return strings.Compare(string(a), string(b)) })
	for _, id := range slices.Compact(ids) {
		if id <= after || len(list) == limit {
			continue
		}
		s, err := a.control.Subscription(ctx, tenant, id)
		if eventhose.CodeOf(err) == eventhose.CodeNotFound {
			continue // it was deleted since the link was made
		} else if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
