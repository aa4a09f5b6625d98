package control

import (
	"context"
	"errors"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// tenantRecord is a tenant as it is stored.
type tenantRecord struct {
	Tenant eventhose.Tenant `json:"tenant"`
	// Platform says that other tenants are connected to it, or once were.
	Platform bool `json:"platform,omitempty"`
}

// PutTenant creates t, or replaces the retention of the tenant that is there; created says which. An empty Parent
// leaves the parent as it is; one can be set once, and neither may a parent have a parent nor a tenant with connected
// tenants get one. CodeInvalid with the field, CodeConflict, CodeNotFound (field "parent").
func (c *Control) PutTenant(ctx context.Context, t eventhose.Tenant) (tenant eventhose.Tenant, created bool, err error) {
	if err := t.Validate(); err != nil {
		return eventhose.Tenant{}, false, err
	}
	err = again(func() error {
		tenant, created, err = c.putTenant(ctx, t)
		return err
	})
	if mayBe(err) {
		c.tenantChanged(t.ID)
	}
	if err != nil {
		return eventhose.Tenant{}, false, err
	}
	return tenant, created, nil
}

func (c *Control) putTenant(ctx context.Context, t eventhose.Tenant) (eventhose.Tenant, bool, error) {
	none := eventhose.Tenant{}
	var old tenantRecord
	r, err := c.load(ctx, "", kindTenant, string(t.ID), &old)
	created := errors.Is(err, store.ErrNotFound)
	if err != nil && !created {
		return none, false, err
	}
	next := tenantRecord{Platform: old.Platform, Tenant: eventhose.Tenant{
		ID: t.ID, Parent: t.Parent, Retention: t.Retention, Created: old.Tenant.Created, Updated: now()}}
	if created {
		r = store.Record{Kind: kindTenant, ID: string(t.ID)}
		next.Tenant.Created = next.Tenant.Updated
	}
	var changes []store.RecordChange
	switch {
	case t.Parent == "" || t.Parent == old.Tenant.Parent:
		next.Tenant.Parent = old.Tenant.Parent
	case old.Tenant.Parent != "":
		return none, false, &eventhose.Error{Code: eventhose.CodeConflict, Field: "parent", Message: "is set already, to another tenant"}
	case old.Platform:
		return none, false, &eventhose.Error{Code: eventhose.CodeConflict, Field: "parent", Message: "cannot be set: other tenants are connected to this one"}
	default:
		if changes, err = c.connect(ctx, t.Parent); err != nil {
			return none, false, err
		}
	}
	change, err := put(r, next)
	if err != nil {
		return none, false, err
	}
	if err := c.save(ctx, "save a tenant", append(changes, change)); err != nil {
		return none, false, err
	}
	return next.Tenant, created, nil
}

// connect makes the change that marks a tenant as a parent, if it may be one. Two tenants that become each other's
// parents at once both change the other's record, so compare-and-set lets only one of them.
func (c *Control) connect(ctx context.Context, parent eventhose.TenantID) ([]store.RecordChange, error) {
	var p tenantRecord
	r, err := c.load(ctx, "", kindTenant, string(parent), &p)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, &eventhose.Error{Code: eventhose.CodeNotFound, Field: "parent", Message: "no such tenant", Fix: "create the parent first"}
	case err != nil:
		return nil, err
	case p.Tenant.Parent != "":
		return nil, &eventhose.Error{Code: eventhose.CodeConflict, Field: "parent", Message: "has a parent itself"}
	case p.Platform:
		return nil, nil
	}
	p.Platform = true
	change, err := put(r, p)
	return []store.RecordChange{change}, err
}

// EnsureTenant creates a tenant without limits if there is none.
func (c *Control) EnsureTenant(ctx context.Context, id eventhose.TenantID) error {
	_, err := c.Tenant(ctx, id)
	if eventhose.CodeOf(err) != eventhose.CodeNotFound {
		return err
	}
	_, _, err = c.PutTenant(ctx, eventhose.Tenant{ID: id})
	return err
}

// Tenant answers one tenant, from memory if it can. CodeNotFound.
func (c *Control) Tenant(ctx context.Context, id eventhose.TenantID) (eventhose.Tenant, error) {
	return c.tenants.get(id, func() (eventhose.Tenant, error) {
		var t tenantRecord
		_, err := c.load(ctx, "", kindTenant, string(id), &t)
		if errors.Is(err, store.ErrNotFound) {
			return eventhose.Tenant{}, eventhose.NotFound("tenant")
		}
		return t.Tenant, err
	})
}

// Tenants lists by id those after one, at most limit and at most 1,001.
func (c *Control) Tenants(ctx context.Context, after eventhose.TenantID, limit int) ([]eventhose.Tenant, error) {
	records, err := c.store.List(ctx, "", kindTenant, string(after), pageSize(limit))
	if err != nil {
		return nil, failed("list tenants", err)
	}
	tenants := make([]eventhose.Tenant, 0, len(records))
	for _, r := range records {
		var t tenantRecord
		if err := decode(r, &t); err != nil {
			return nil, err
		}
		tenants = append(tenants, t.Tenant)
	}
	return tenants, nil
}
