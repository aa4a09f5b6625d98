package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// An inspector and its requests are records that vanish by themselves. The inspector's own counts its requests and is changed
// with each, so that they have one order at all nodes, and so that the one that is too many is known by its number. A request is
// sealed, since it may hold the credentials of whoever sent it.
//
// Whose an inspector is stands in it; what a tenant has is told by records without content, which do not vanish but make room
// for new ones.

const (
	// inspectorSeen is how old an inspector may be that FindInspector answers: what other nodes change reaches this one by that.
	inspectorSeen = time.Second
	// inspectorTouched is how often at most it is written down that an inspector was looked at.
	inspectorTouched = 10 * time.Minute

	cachedInspectors = 10_000
)

// inspectorRecord is an inspector as it is stored. In Inspector the secret reads "***"; it is beside it, sealed.
type inspectorRecord struct {
	Inspector eventhose.Inspector `json:"inspector"`
	Secret    []byte              `json:"secret,omitempty"`
	// Forgotten is the number of the last request that somebody has removed, with all before it.
	Forgotten uint64 `json:"forgotten,omitempty"`

	version uint64
}

func inspectorPlace(i *eventhose.Inspector) place { return place{i.Tenant, string(i.ID), "secret"} }

// encodeInspector makes the change that stores an inspector, which is in use now, over the version that was read.
func (c *Control) encodeInspector(r *inspectorRecord) (store.RecordChange, error) {
	r.Inspector.Expires = now().Add(eventhose.InspectorKept)
	return put(store.Record{Kind: kindInspector, ID: string(r.Inspector.ID), Version: r.version, Expires: r.Inspector.Expires}, r)
}

// setInspectorSecret seals what the inspector has for a secret into the record.
func (c *Control) setInspectorSecret(r *inspectorRecord) (err error) {
	r.Secret = nil
	if r.Inspector.Secret != "" {
		r.Secret, err = c.seal.seal([]byte(r.Inspector.Secret), inspectorPlace(&r.Inspector))
	}
	return err
}

// inspector reads the record of an inspector, with its secret opened. CodeNotFound, also if it is another tenant's; "" is any.
func (c *Control) inspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID) (inspectorRecord, error) {
	var r inspectorRecord
	if !eventhose.ValidInspectorID(string(id)) {
		return r, eventhose.NotFound("inspector")
	}
	stored, err := c.load(ctx, "", kindInspector, string(id), &r)
	if errors.Is(err, store.ErrNotFound) || err == nil && tenant != "" && r.Inspector.Tenant != tenant {
		return inspectorRecord{}, eventhose.NotFound("inspector")
	} else if err != nil {
		return r, err
	}
	r.version, r.Inspector.Secret = stored.Version, ""
	if len(r.Secret) > 0 {
		secret, err := c.seal.open(r.Secret, inspectorPlace(&r.Inspector))
		if err != nil {
			return r, err
		}
		r.Inspector.Secret = eventhose.Secret(secret)
	}
	return r, nil
}

func (c *Control) judgeInspector(i *eventhose.Inspector) error {
	if err := i.Validate(); err != nil {
		return err
	}
	return c.checkInspector(*i)
}

// CreateInspector validates and saves an inspector. ID, Requests and times of i are ignored. CodeInvalid with the field,
// CodeNotFound (no such tenant), CodeLimit.
func (c *Control) CreateInspector(ctx context.Context, i eventhose.Inspector) (eventhose.Inspector, error) {
	none := eventhose.Inspector{}
	if _, err := c.Tenant(ctx, i.Tenant); err != nil {
		return none, err
	}
	var id [16]byte
	rand.Read(id[:])
	i.ID, i.Requests, i.Created = eventhose.InspectorID("ins_"+eventhose.IDText(id)), 0, now()
	i.Updated = i.Created
	if err := c.judgeInspector(&i); err != nil {
		return none, err
	}
	r := inspectorRecord{Inspector: i}
	if err := c.setInspectorSecret(&r); err != nil {
		return none, err
	}
	change, err := c.encodeInspector(&r)
	if err != nil {
		return none, err
	}
	owned := store.RecordChange{Record: store.Record{Tenant: i.Tenant, Kind: kindInspectorOf, ID: string(i.ID)}}
	defer c.lockCounts(i.Tenant)()
	err = again(func() error {
		live, gone, err := c.ownedInspectors(ctx, i.Tenant)
		if err != nil {
			return err
		}
		if live >= eventhose.MaxInspectors {
			return eventhose.Errorf(eventhose.CodeLimit, "a tenant has at most %d inspectors", eventhose.MaxInspectors)
		}
		count, err := c.countInspectors(ctx, i.Tenant, live+1)
		if err != nil {
			return err
		}
		return c.save(ctx, "save an inspector", append(gone, change, owned, count))
	})
	return r.Inspector, err
}

// ownedInspectors counts a tenant's inspectors, and makes the changes that forget those that have vanished.
func (c *Control) ownedInspectors(ctx context.Context, tenant eventhose.TenantID) (live int, gone []store.RecordChange, err error) {
	owned, err := c.store.List(ctx, tenant, kindInspectorOf, "", maxPage)
	if err != nil {
		return 0, nil, failed("list inspectors", err)
	}
	for _, of := range owned {
		switch _, err := c.inspector(ctx, tenant, eventhose.InspectorID(of.ID)); {
		case eventhose.CodeOf(err) == eventhose.CodeNotFound:
			gone = append(gone, store.RecordChange{Record: of, Delete: true})
		case err != nil:
			return 0, nil, err
		default:
			live++
		}
	}
	return live, gone, nil
}

// countInspectors makes the change that says how many a tenant has. Nobody reads it: it has one of two meet the other that add an
// inspector at the same time.
func (c *Control) countInspectors(ctx context.Context, tenant eventhose.TenantID, n int) (store.RecordChange, error) {
	r, err := c.store.Record(ctx, tenant, kindCount, kindInspector)
	if errors.Is(err, store.ErrNotFound) {
		r, err = store.Record{Tenant: tenant, Kind: kindCount, ID: kindInspector}, nil
	}
	if err != nil {
		return store.RecordChange{}, failed("count inspectors", err)
	}
	return put(r, n)
}

// Inspector answers one inspector of a tenant with its secret. CodeNotFound.
func (c *Control) Inspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID) (eventhose.Inspector, error) {
	r, err := c.inspector(ctx, tenant, id)
	return r.Inspector, err
}

// FindInspector answers the inspector with an id, whosever it is, with its secret, as it was at most a second ago, or later than
// the last change by this node. CodeNotFound, CodeUnavailable when too many ids are looked up that are not in memory.
func (c *Control) FindInspector(ctx context.Context, id eventhose.InspectorID) (eventhose.Inspector, error) {
	return c.inspectors.find(ctx, id, func() (eventhose.Inspector, error) {
		r, err := c.inspector(ctx, "", id)
		return r.Inspector, err
	})
}

// Inspectors lists by id those after one, at most limit, with their secrets. CodeNotFound if there is no such tenant.
func (c *Control) Inspectors(ctx context.Context, tenant eventhose.TenantID, after eventhose.InspectorID, limit int) ([]eventhose.Inspector, error) {
	if _, err := c.Tenant(ctx, tenant); err != nil {
		return nil, err
	}
	// Those that have vanished may stand between the others, and there are few.
	owned, err := c.store.List(ctx, tenant, kindInspectorOf, string(after), maxPage)
	if err != nil {
		return nil, failed("list inspectors", err)
	}
	var list []eventhose.Inspector
	for _, of := range owned {
		if len(list) == pageSize(limit) {
			break
		}
		i, err := c.Inspector(ctx, tenant, eventhose.InspectorID(of.ID))
		switch {
		case eventhose.CodeOf(err) == eventhose.CodeNotFound:
		case err != nil:
			return nil, err
		default:
			list = append(list, i)
		}
	}
	return list, nil
}

// changeInspector saves what change makes of an inspector, together with the changes that it answers. It is tried again while
// others change the inspector too. CodeNotFound, CodeVersion.
func (c *Control) changeInspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, change func(*inspectorRecord) ([]store.RecordChange, error)) (eventhose.Inspector, error) {
	if !eventhose.ValidInspectorID(string(id)) {
		return eventhose.Inspector{}, eventhose.NotFound("inspector")
	}
	digest := sha256.Sum256([]byte(tenant))
	turn := c.inspecting[int(digest[0])%len(c.inspecting)]
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return eventhose.Inspector{}, failed("save an inspector", ctx.Err())
	}
	var r inspectorRecord
	err := again(func() (err error) {
		if r, err = c.inspector(ctx, tenant, id); err != nil {
			return err
		}
		changes, err := change(&r)
		if err != nil {
			return err
		}
		own, err := c.encodeInspector(&r)
		if err != nil {
			return err
		}
		return c.save(ctx, "save an inspector", append(changes, own))
	})
	c.inspectors.forget(id)
	if err != nil {
		return eventhose.Inspector{}, err
	}
	return r.Inspector, nil
}

// UpdateInspector changes what p names. CodeInvalid with the field, CodeNotFound, CodeVersion when others change it all the time.
func (c *Control) UpdateInspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID, p eventhose.InspectorPatch) (eventhose.Inspector, error) {
	return c.changeInspector(ctx, tenant, id, func(r *inspectorRecord) ([]store.RecordChange, error) {
		p.Apply(&r.Inspector)
		if err := c.judgeInspector(&r.Inspector); err != nil {
			return nil, err
		}
		r.Inspector.Updated = now()
		return nil, c.setInspectorSecret(r)
	})
}

// DeleteInspector removes an inspector with its requests. CodeNotFound.
func (c *Control) DeleteInspector(ctx context.Context, tenant eventhose.TenantID, id eventhose.InspectorID) error {
	err := again(func() error {
		r, err := c.inspector(ctx, tenant, id)
		if err != nil {
			return err
		}
		changes := []store.RecordChange{{Record: store.Record{Kind: kindInspector, ID: string(id), Version: r.version}, Delete: true}}
		owned, err := c.store.Record(ctx, tenant, kindInspectorOf, string(id))
		if err == nil {
			changes = append(changes, store.RecordChange{Record: owned, Delete: true})
		} else if !errors.Is(err, store.ErrNotFound) {
			return failed("read whose an inspector is", err)
		}
		requests, err := c.inspectedBetween(ctx, tenant, id, 0, r.Inspector.Requests)
		if err != nil {
			return err
		}
		return c.save(ctx, "remove an inspector", append(changes, removed(requests)...))
	})
	c.inspectors.forget(id)
	return err
}

func removed(records []store.Record) []store.RecordChange {
	changes := make([]store.RecordChange, len(records))
	for i := range records {
		changes[i] = store.RecordChange{Record: records[i], Delete: true}
	}
	return changes
}
