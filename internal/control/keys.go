package control

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// MaxKeys is how many keys a tenant has, and how many are for all tenants, revoked and expired ones of the last keptDead included.
	MaxKeys = 1000
	// keptDead is how long a key that has expired or was revoked is still listed.
	keptDead = 30 * 24 * time.Hour
)

// keyRecord is an API key as it is stored.
type keyRecord struct {
	Key eventhose.APIKey `json:"key"`
	// Digest is the SHA-256 of the whole text.
	Digest []byte `json:"digest"`
}

// Authenticate answers who holds a key: the admin key, one that CreateKey made, or the token of a portal link. Whatever is wrong
// with it, the answer is the same CodeUnauthenticated.
func (c *Control) Authenticate(ctx context.Context, key eventhose.Secret) (eventhose.Principal, error) {
	digest := sha256.Sum256([]byte(key))
	if c.adminKey != nil && subtle.ConstantTimeCompare(digest[:], c.adminKey[:]) == 1 {
		return operator(), nil
	}
	if id, ok := portalTokens.parse(key); ok {
		return c.visitor(ctx, id, func(digest []byte) bool { return isToken(key, digest) })
	}
	id, ok := keyTokens.parse(key)
	if !ok {
		return eventhose.Principal{}, refused()
	}
	r, err := c.liveKey(ctx, id)
	if err == nil && !isToken(key, r.Digest) {
		err = refused()
	}
	if err != nil {
		return eventhose.Principal{}, err
	}
	c.uses.note(id)
	return r.holder(), nil
}

// Holder answers who holds the credential with an id, as he would be answered who showed it: for those who were authenticated before. The
// id is a key's, a session's or a portal link's. CodeUnauthenticated if it is unknown, expired or revoked.
func (c *Control) Holder(ctx context.Context, id string) (eventhose.Principal, error) {
	switch {
	case id == adminKeyID:
		if c.adminKey == nil {
			return eventhose.Principal{}, refused()
		}
		return operator(), nil
	case strings.HasPrefix(id, sessionTokens.id):
		_, p, err := c.liveSession(ctx, id)
		return p, err
	case strings.HasPrefix(id, portalTokens.id):
		return c.visitor(ctx, id, func([]byte) bool { return true })
	}
	r, err := c.liveKey(ctx, id)
	if err != nil {
		return eventhose.Principal{}, err
	}
	return r.holder(), nil
}

// liveKey finds a key that is neither revoked nor expired. CodeUnauthenticated.
func (c *Control) liveKey(ctx context.Context, id string) (keyRecord, error) {
	r, err := c.keys.get(id, func() (keyRecord, error) {
		var r keyRecord
		_, err := c.load(ctx, "", kindKey, id, &r)
		return r, err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return r, refused()
	case err != nil:
		return r, err
	case !r.Key.Revoked.IsZero(), !r.Key.Expires.IsZero() && !time.Now().Before(r.Key.Expires):
		return r, refused()
	}
	return r, nil
}

func (r *keyRecord) holder() eventhose.Principal {
	return eventhose.Principal{KeyID: r.Key.ID, Kind: eventhose.PrincipalKey, Name: r.Key.Name, Tenant: r.Key.Tenant, Scopes: slices.Clone(r.Key.Scopes), Expires: r.Key.Expires}
}

// adminKeyID is the id of the key that the operator gives.
const adminKeyID = "admin"

func operator() eventhose.Principal {
	return eventhose.Principal{KeyID: adminKeyID, Kind: eventhose.PrincipalKey, Scopes: []eventhose.Scope{eventhose.ScopeAdmin}}
}

func refused() error {
	return &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: "the credential is unknown, expired or revoked"}
}

// CreateKey makes a key for k.Tenant ("" is all tenants), k.Name, k.Scopes and k.Expires; the rest of k is ignored. The secret
// is shown this once. CodeInvalid with the field, CodeNotFound (field "tenant"), CodeLimit.
func (c *Control) CreateKey(ctx context.Context, k eventhose.APIKey) (eventhose.APIKey, eventhose.Secret, error) {
	none := eventhose.APIKey{}
	if len(k.Scopes) == 0 {
		return none, "", eventhose.Invalid("scopes", "must name at least one of publish, read, manage, admin")
	}
	for i, s := range k.Scopes {
		if !slices.Contains(eventhose.Scopes(), s) {
			return none, "", eventhose.Invalid(fmt.Sprintf("scopes[%d]", i), "must be publish, read, manage or admin")
		}
	}
	if err := eventhose.ValidKeyName(k.Name); err != nil {
		return none, "", err
	}
	if k.Tenant != "" {
		if _, err := c.Tenant(ctx, k.Tenant); eventhose.CodeOf(err) == eventhose.CodeNotFound {
			return none, "", &eventhose.Error{Code: eventhose.CodeNotFound, Field: "tenant", Message: "no such tenant"}
		} else if err != nil {
			return none, "", err
		}
	}
	made := eventhose.APIKey{Name: k.Name, Tenant: k.Tenant, Created: now()}
	for _, s := range eventhose.Scopes() {
		if slices.Contains(k.Scopes, s) {
			made.Scopes = append(made.Scopes, s)
		}
	}
	var vanishes time.Time
	if !k.Expires.IsZero() {
		made.Expires = k.Expires.UTC().Truncate(time.Microsecond)
		if !made.Expires.After(made.Created) || made.Expires.Year() > 9999 {
			return none, "", eventhose.Invalid("expires", "must be in the future, before the year 10000")
		}
		vanishes = made.Expires.Add(keptDead)
	}
	if all, err := c.store.List(ctx, k.Tenant, kindKeyOf, "", MaxKeys); err != nil {
		return none, "", failed("list API keys", err)
	} else if len(all) >= MaxKeys {
		return none, "", &eventhose.Error{Code: eventhose.CodeLimit, Message: "there are 1000 keys already", Fix: "revoke some"}
	}
	id, secret, digest, err := keyTokens.make()
	if err != nil {
		return none, "", err
	}
	made.ID = id
	change, err := put(store.Record{Kind: kindKey, ID: made.ID, Expires: vanishes}, keyRecord{Key: made, Digest: digest})
	if err != nil {
		return none, "", err
	}
	changes := []store.RecordChange{change, {Record: store.Record{Tenant: k.Tenant, Kind: kindKeyOf, ID: made.ID, Expires: vanishes}}}
	if err := c.save(ctx, "save an API key", changes); err != nil {
		return none, "", err
	}
	made.Scopes = slices.Clone(made.Scopes)
	return made, secret, nil
}

// Keys lists those of one tenant, or with "" all, by id, those after one, at most limit and at most 1,001.
func (c *Control) Keys(ctx context.Context, tenant eventhose.TenantID, after string, limit int) ([]eventhose.APIKey, error) {
	kind := kindKey
	if tenant != "" {
		kind = kindKeyOf
	}
	records, err := c.store.List(ctx, tenant, kind, after, pageSize(limit))
	if err != nil {
		return nil, failed("list API keys", err)
	}
	keys := make([]eventhose.APIKey, 0, len(records))
	for _, r := range records {
		if tenant != "" {
			id := r.ID
			if r, err = c.store.Record(ctx, "", kindKey, id); errors.Is(err, store.ErrNotFound) {
				continue // it has expired since
			} else if err != nil {
				return nil, failed("read an API key", err)
			}
		}
		var k keyRecord
		if err := decode(r, &k); err != nil {
			return nil, err
		}
		keys = append(keys, k.Key)
	}
	return keys, c.tellUses(ctx, keys, tenant != "")
}

// RevokeKey ends a key of one tenant, or with "" of any, and the sessions that were begun with it; once it returns, this process refuses them. It is still
// listed for 30 days. Revoking again changes nothing. CodeNotFound.
func (c *Control) RevokeKey(ctx context.Context, tenant eventhose.TenantID, id string) (eventhose.APIKey, error) {
	var k keyRecord
	var ended []string
	err := again(func() error {
		k, ended = keyRecord{}, nil
		r, err := c.load(ctx, "", kindKey, id, &k)
		if errors.Is(err, store.ErrNotFound) || err == nil && tenant != "" && k.Key.Tenant != tenant {
			return eventhose.NotFound("API key")
		}
		if err != nil || !k.Key.Revoked.IsZero() {
			return err
		}
		k.Key.Revoked = now()
		vanishes := k.Key.Revoked.Add(keptDead)
		r.Expires = vanishes
		change, err := put(r, k)
		if err != nil {
			return err
		}
		of, err := c.store.Record(ctx, k.Key.Tenant, kindKeyOf, id)
		if err != nil {
			return failed("read an API key", err)
		}
		of.Expires = vanishes
		changes := []store.RecordChange{change, {Record: of}}
		use, err := c.store.Record(ctx, "", kindKeyUse, id)
		switch {
		case err == nil:
			use.Expires = vanishes
			changes = append(changes, store.RecordChange{Record: use})
		case !errors.Is(err, store.ErrNotFound):
			return failed("read an API key", err)
		}
		own, err := c.sessionsOf(ctx, id)
		if err != nil {
			return err
		}
		sessions, gone, err := c.ended(ctx, own)
		if err != nil {
			return err
		}
		ended = gone
		return c.save(ctx, "revoke an API key", append(changes, sessions...))
	})
	c.keys.forget(id)
	for _, session := range ended {
		c.sessions.forget(session)
	}
	if err != nil {
		return eventhose.APIKey{}, err
	}
	return k.Key, nil
}
