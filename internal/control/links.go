package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// linkRecord is a portal link as it is stored.
type linkRecord struct {
	Link eventhose.PortalLink `json:"link"`
	// Digest is the SHA-256 of the token.
	Digest []byte `json:"digest"`
}

// CreateLink makes a portal link for l.Tenant with l.Name, l.Capabilities and l.Subscriptions (nil: all), good for lifetime (0: an
// hour); the rest of l is ignored. The token is shown this once. CodeInvalid with the field, CodeNotFound (field "tenant"), CodeLimit.
func (c *Control) CreateLink(ctx context.Context, l eventhose.PortalLink, lifetime time.Duration) (eventhose.PortalLink, eventhose.Secret, error) {
	made, err := c.checkLink(ctx, l, lifetime)
	if err != nil {
		return made, "", err
	}
	if all, err := c.store.List(ctx, l.Tenant, kindLinkOf, "", eventhose.MaxPortalLinks); err != nil {
		return made, "", failed("list portal links", err)
	} else if len(all) >= eventhose.MaxPortalLinks {
		return made, "", &eventhose.Error{Code: eventhose.CodeLimit, Message: "there are 10000 portal links already", Fix: "let them expire sooner, or revoke some"}
	}
	id, token, digest, err := portalTokens.make()
	if err != nil {
		return made, "", err
	}
	made.ID = id
	change, err := put(store.Record{Kind: kindLink, ID: id, Expires: made.Expires}, linkRecord{made, digest})
	if err != nil {
		return made, "", err
	}
	of := store.RecordChange{Record: store.Record{Tenant: l.Tenant, Kind: kindLinkOf, ID: id, Expires: made.Expires}}
	if err := c.save(ctx, "save a portal link", []store.RecordChange{change, of}); err != nil {
		return eventhose.PortalLink{}, "", err
	}
	return made, token, nil
}

// checkLink answers the link that is asked for, without its id.
func (c *Control) checkLink(ctx context.Context, l eventhose.PortalLink, lifetime time.Duration) (eventhose.PortalLink, error) {
	none := eventhose.PortalLink{}
	for i, wanted := range l.Capabilities {
		if !slices.Contains(eventhose.Capabilities(), wanted) {
			return none, eventhose.Invalid(fmt.Sprintf("capabilities[%d]", i), "must be view, data, manage, secrets, replay or test")
		}
	}
	if err := eventhose.ValidKeyName(l.Name); err != nil {
		return none, err
	}
	if lifetime == 0 {
		lifetime = eventhose.DefaultLinkTime
	}
	if lifetime < eventhose.MinLinkTime || lifetime > eventhose.MaxLinkTime {
		return none, eventhose.Invalid("expires_in", "must be between 1m and 720h")
	}
	if _, err := c.Tenant(ctx, l.Tenant); eventhose.CodeOf(err) == eventhose.CodeNotFound {
		return none, &eventhose.Error{Code: eventhose.CodeNotFound, Field: "tenant", Message: "no such tenant"}
	} else if err != nil {
		return none, err
	}
	if l.Subscriptions != nil && len(l.Subscriptions) == 0 {
		return none, eventhose.Invalid("subscriptions", "must not be empty; leave it out for all")
	}
	if len(l.Subscriptions) > eventhose.MaxLinkSubscriptions {
		return none, eventhose.Invalid("subscriptions", "must be at most %d", eventhose.MaxLinkSubscriptions)
	}
	for i, id := range l.Subscriptions {
		if _, err := c.Subscription(ctx, l.Tenant, id); eventhose.CodeOf(err) == eventhose.CodeNotFound {
			return none, eventhose.Invalid(fmt.Sprintf("subscriptions[%d]", i), "is no subscription of this tenant")
		} else if err != nil {
			return none, err
		}
	}
	made := eventhose.PortalLink{Tenant: l.Tenant, Name: l.Name, Subscriptions: slices.Clone(l.Subscriptions), Created: now()}
	made.Expires = made.Created.Add(lifetime)
	for _, known := range eventhose.Capabilities() {
		if known == eventhose.CapabilityView || slices.Contains(l.Capabilities, known) {
			made.Capabilities = append(made.Capabilities, known)
		}
	}
	return made, nil
}

// Links lists those of a tenant by id, those after one that have not expired, at most limit and at most 1,000.
func (c *Control) Links(ctx context.Context, tenant eventhose.TenantID, after string, limit int) ([]eventhose.PortalLink, error) {
	records, err := c.store.List(ctx, tenant, kindLinkOf, after, pageSize(limit))
	if err != nil {
		return nil, failed("list portal links", err)
	}
	list := make([]eventhose.PortalLink, 0, len(records))
	for _, r := range records {
		var l linkRecord
		if _, err := c.load(ctx, "", kindLink, r.ID, &l); errors.Is(err, store.ErrNotFound) {
			continue // it has expired since
		} else if err != nil {
			return nil, err
		}
		list = append(list, l.Link)
	}
	return list, nil
}

// RevokeLink ends a link of a tenant; once it returns, this process refuses its token. CodeNotFound.
func (c *Control) RevokeLink(ctx context.Context, tenant eventhose.TenantID, id string) error {
	err := again(func() error {
		of, err := c.store.Record(ctx, tenant, kindLinkOf, id)
		var r store.Record
		if err == nil {
			r, err = c.store.Record(ctx, "", kindLink, id)
		}
		if errors.Is(err, store.ErrNotFound) {
			return eventhose.NotFound("portal link")
		} else if err != nil {
			return failed("read a portal link", err)
		}
		return c.save(ctx, "revoke a portal link", []store.RecordChange{{Record: r, Delete: true}, {Record: of, Delete: true}})
	})
	c.links.forget(id)
	return err
}

// visitor answers who has the link with an id, if its digest is good. CodeUnauthenticated.
func (c *Control) visitor(ctx context.Context, id string, good func(digest []byte) bool) (eventhose.Principal, error) {
	r, err := c.links.get(id, func() (linkRecord, error) {
		var r linkRecord
		_, err := c.load(ctx, "", kindLink, id, &r)
		return r, err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return eventhose.Principal{}, refused()
	case err != nil:
		return eventhose.Principal{}, err
	case !time.Now().Before(r.Link.Expires), !good(r.Digest):
		return eventhose.Principal{}, refused()
	}
	return eventhose.Principal{KeyID: r.Link.ID, Kind: eventhose.PrincipalPortal, Name: r.Link.Name, Tenant: r.Link.Tenant, Expires: r.Link.Expires,
		Capabilities: slices.Clone(r.Link.Capabilities), Subscriptions: slices.Clone(r.Link.Subscriptions)}, nil
}
