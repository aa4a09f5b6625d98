package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// sourceRecord is a source as it is stored. In Source the secrets read "***"; they are beside it, sealed.
type sourceRecord struct {
	Source      eventhose.Source `json:"source"`
	Secrets     [][]byte         `json:"secrets,omitempty"`
	VerifyToken []byte           `json:"verify_token,omitempty"`
}

// sourceOfRecord says whose a source is.
type sourceOfRecord struct {
	Tenant eventhose.TenantID `json:"tenant"`
}

func sourcePlace(s *eventhose.Source, field string) place {
	return place{s.Tenant, string(s.ID), field}
}

// encodeSource seals s and makes the change that stores it over version.
func (c *Control) encodeSource(s eventhose.Source, version uint64) (store.RecordChange, error) {
	r := sourceRecord{Source: s}
	for i, secret := range s.Secrets {
		sealed, err := c.seal.seal([]byte(secret), sourcePlace(&s, fmt.Sprintf("secrets[%d]", i)))
		if err != nil {
			return store.RecordChange{}, err
		}
		r.Secrets = append(r.Secrets, sealed)
	}
	if s.VerifyToken != "" {
		var err error
		if r.VerifyToken, err = c.seal.seal([]byte(s.VerifyToken), sourcePlace(&s, "verify_token")); err != nil {
			return store.RecordChange{}, err
		}
	}
	return put(store.Record{Tenant: s.Tenant, Kind: kindSource, ID: string(s.ID), Version: version}, r)
}

// decodeSource opens what encodeSource has sealed.
func (c *Control) decodeSource(r store.Record) (eventhose.Source, error) {
	var stored sourceRecord
	if err := decode(r, &stored); err != nil {
		return eventhose.Source{}, err
	}
	s := stored.Source
	s.Tenant, s.ID, s.Version, s.Secrets, s.VerifyToken = r.Tenant, eventhose.SourceID(r.ID), r.Version, nil, ""
	for i, sealed := range stored.Secrets {
		secret, err := c.seal.open(sealed, sourcePlace(&s, fmt.Sprintf("secrets[%d]", i)))
		if err != nil {
			return eventhose.Source{}, err
		}
		s.Secrets = append(s.Secrets, eventhose.Secret(secret))
	}
	if len(stored.VerifyToken) > 0 {
		token, err := c.seal.open(stored.VerifyToken, sourcePlace(&s, "verify_token"))
		if err != nil {
			return eventhose.Source{}, err
		}
		s.VerifyToken = eventhose.Secret(token)
	}
	return s, nil
}

// CreateSource validates and saves a source together with its inbox, a pull subscription to its events. ID,
// subscription, times and version of s are ignored. CodeInvalid with the field, CodeNotFound (no such tenant), CodeLimit.
func (c *Control) CreateSource(ctx context.Context, s eventhose.Source) (eventhose.Source, error) {
	none := eventhose.Source{}
	if _, err := c.Tenant(ctx, s.Tenant); err != nil {
		return none, err
	}
	id, err := newID("src_")
	if err != nil {
		return none, err
	}
	s = ownedSource(s)
	s.ID, s.Created = eventhose.SourceID(id), now()
	s.Updated, s.Version = s.Created, 1
	if err := c.judgeSource(s); err != nil {
		return none, err
	}
	inbox, inboxChange, lane, err := c.prepare(ctx, eventhose.Subscription{Tenant: s.Tenant, Source: s.ID, Name: "inbox of " + id,
		Filter: eventhose.Filter{Attributes: map[string]string{eventhose.SourceAttribute: id}}}, "now")
	if err != nil {
		return none, err
	}
	s.Subscription = inbox.ID
	change, err := c.encodeSource(s, 0)
	if err != nil {
		return none, err
	}
	whose, err := put(store.Record{Kind: kindSourceOf, ID: id}, sourceOfRecord{s.Tenant})
	if err != nil {
		return none, err
	}
	err = again(func() error {
		return c.saveSourceCounted(ctx, s.Tenant, 1, []store.RecordChange{change, whose, inboxChange}, lane)
	})
	if mayBe(err) {
		c.changed(s.Tenant, s.Subscription)
	}
	if err != nil {
		return none, err
	}
	return s, nil
}

func (c *Control) judgeSource(s eventhose.Source) error {
	if err := s.Validate(); err != nil {
		return err
	}
	return c.checkSource(s)
}

// saveSourceCounted saves the creation (by 1) or deletion (by -1) of a source and its inbox together with the tenant's counts. An error
// that is ErrVersion stays one: what of it was changed by others, the caller has to read again.
func (c *Control) saveSourceCounted(ctx context.Context, tenant eventhose.TenantID, by int, changes []store.RecordChange, lane store.LaneChange) error {
	defer c.lockCounts(tenant)()
	sources, err := c.count(ctx, tenant, kindSource, by, eventhose.MaxSources)
	if err != nil {
		return err
	}
	subscriptions, err := c.count(ctx, tenant, kindSubscription, by, eventhose.MaxSubscriptions)
	if err != nil {
		return err
	}
	return c.save(ctx, "save a source", append(slices.Clone(changes), sources, subscriptions), lane)
}

// Source answers one source of a tenant with its secrets. CodeNotFound.
func (c *Control) Source(ctx context.Context, tenant eventhose.TenantID, id eventhose.SourceID) (eventhose.Source, error) {
	r, err := c.store.Record(ctx, tenant, kindSource, string(id))
	if errors.Is(err, store.ErrNotFound) {
		return eventhose.Source{}, eventhose.NotFound("source")
	} else if err != nil {
		return eventhose.Source{}, failed("read a source", err)
	}
	return c.decodeSource(r)
}

// FindSource answers the source with an id, whosever it is, with its secrets, from memory if it can. The answer is shared:
// do not change it. CodeNotFound, CodeUnavailable when too many ids are looked up that are not in memory.
func (c *Control) FindSource(ctx context.Context, id eventhose.SourceID) (eventhose.Source, error) {
	return c.sources.find(ctx, id, func() (eventhose.Source, error) {
		var whose sourceOfRecord
		_, err := c.load(ctx, "", kindSourceOf, string(id), &whose)
		if errors.Is(err, store.ErrNotFound) {
			return eventhose.Source{}, eventhose.NotFound("source")
		} else if err != nil {
			return eventhose.Source{}, err
		}
		return c.Source(ctx, whose.Tenant, id)
	})
}

// Sources lists by id those after one, at most limit and at most 1,001, with their secrets. CodeNotFound if there is no
// such tenant.
func (c *Control) Sources(ctx context.Context, tenant eventhose.TenantID, after eventhose.SourceID, limit int) ([]eventhose.Source, error) {
	if _, err := c.Tenant(ctx, tenant); err != nil {
		return nil, err
	}
	records, err := c.store.List(ctx, tenant, kindSource, string(after), pageSize(limit))
	if err != nil {
		return nil, failed("list sources", err)
	}
	sources := make([]eventhose.Source, 0, len(records))
	for _, r := range records {
		s, err := c.decodeSource(r)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// UpdateSource changes what p names. CodeInvalid with the field, CodeNotFound, CodeVersion when others change it all the
// time.
func (c *Control) UpdateSource(ctx context.Context, tenant eventhose.TenantID, id eventhose.SourceID, p eventhose.SourcePatch) (eventhose.Source, error) {
	var s eventhose.Source
	err := again(func() (err error) {
		if s, err = c.Source(ctx, tenant, id); err != nil {
			return err
		}
		p.Apply(&s)
		if err := c.judgeSource(s); err != nil {
			return err
		}
		s.Updated = now()
		change, err := c.encodeSource(s, s.Version)
		if err != nil {
			return err
		}
		if err := c.save(ctx, "save a source", []store.RecordChange{change}); err != nil {
			return err
		}
		s.Version++
		return nil
	})
	c.sources.forget(id)
	if err != nil {
		return eventhose.Source{}, err
	}
	return ownedSource(s), nil
}

// DeleteSource removes a source with its inbox and the requests that it has rejected. Its events stay in the log.
// CodeNotFound, CodeVersion when others change it all the time.
func (c *Control) DeleteSource(ctx context.Context, tenant eventhose.TenantID, id eventhose.SourceID) error {
	var s eventhose.Source
	err := again(func() (err error) {
		r, err := c.store.Record(ctx, tenant, kindSource, string(id))
		if errors.Is(err, store.ErrNotFound) {
			return eventhose.NotFound("source")
		} else if err != nil {
			return failed("read a source", err)
		}
		if s, err = c.decodeSource(r); err != nil {
			return err
		}
		changes := []store.RecordChange{{Record: r, Delete: true}}
		for _, at := range []store.Record{{Kind: kindSourceOf, ID: string(id)}, {Tenant: tenant, Kind: kindSubscription, ID: string(s.Subscription)}} {
			found, err := c.store.Record(ctx, at.Tenant, at.Kind, at.ID)
			if errors.Is(err, store.ErrNotFound) {
				continue // gone with the source a moment ago, which the save finds
			} else if err != nil {
				return failed("read what belongs to a source", err)
			}
			changes = append(changes, store.RecordChange{Record: found, Delete: true})
		}
		lane := store.LaneChange{Delete: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: s.Subscription}}}
		return c.saveSourceCounted(ctx, tenant, -1, changes, lane)
	})
	c.sources.forget(id)
	if mayBe(err) && s.Subscription != "" {
		c.changed(tenant, s.Subscription)
	}
	if err != nil {
		return err
	}
	_ = c.forgetRejections(ctx, tenant, id) // the source is gone; what is left vanishes by itself, and nobody gets at it
	return nil
}

// ownedSource answers s without anything that a caller of ours still holds.
func ownedSource(s eventhose.Source) eventhose.Source {
	s.Secrets, s.PublicKeys, s.Options = slices.Clone(s.Secrets), slices.Clone(s.PublicKeys), maps.Clone(s.Options)
	if s.Scheme != nil {
		scheme := *s.Scheme
		s.Scheme = &scheme
	}
	if s.Naming != nil {
		n := *s.Naming
		n.ID, n.Type, n.Key, n.Time, n.Keep = slices.Clone(n.ID), slices.Clone(n.Type), slices.Clone(n.Key), slices.Clone(n.Time), slices.Clone(n.Keep)
		s.Naming = &n
	}
	if s.Answer != nil {
		answer := *s.Answer
		s.Answer = &answer
	}
	return s
}
