package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// MaxSessionsOf is how many sessions one key or one person has; one more ends the oldest.
	MaxSessionsOf = 20
	// sessionGrain is how exactly it is known when a session was used last.
	sessionGrain = time.Minute
)

// sessionRecord is a session as it is stored. What it may do is not in it but in its key, or in the rule that let it in.
type sessionRecord struct {
	Session eventhose.Session `json:"session"`
	// Digest is the SHA-256 of the cookie's token.
	Digest []byte `json:"digest"`
	// Key is the id of the key that was shown, and Mark which admin key that was.
	Key  string `json:"key,omitempty"`
	Mark []byte `json:"mark,omitempty"`
	// Rule is what let in a person whom an identity provider vouches for.
	Rule string `json:"rule,omitempty"`
	// Owner is whose session it is, in the ids of kindSessionOf.
	Owner string `json:"owner"`
}

// SignIn begins a session of who holds a key. The token is the cookie's, and is shown this once. CodeUnauthenticated if the key is
// unknown, expired or revoked, or if it is a portal link's.
func (c *Control) SignIn(ctx context.Context, key eventhose.Secret, address string) (eventhose.Session, eventhose.Secret, error) {
	p, err := c.Authenticate(ctx, key)
	if err == nil && p.Kind != eventhose.PrincipalKey {
		err = refused()
	}
	if err != nil {
		return eventhose.Session{}, "", err
	}
	r := sessionRecord{Session: eventhose.Session{Subject: p.KeyID, Name: p.Name, Address: address}, Key: p.KeyID, Owner: p.KeyID}
	if p.KeyID == adminKeyID {
		r.Mark = c.adminMark
	}
	return c.beginSession(ctx, r)
}

// SignInAs begins a session of an operator whom an identity provider calls subject, and whom a rule of Options.SignIns lets in.
func (c *Control) SignInAs(ctx context.Context, subject, rule, address string) (eventhose.Session, eventhose.Secret, error) {
	sum := sha256.Sum256([]byte(subject))
	r := sessionRecord{Session: eventhose.Session{Subject: subject, OIDC: true, Address: address}, Rule: rule, Owner: "oidc_" + hex.EncodeToString(sum[:16])}
	return c.beginSession(ctx, r)
}

// beginSession saves a session that holds all but its id and times.
func (c *Control) beginSession(ctx context.Context, r sessionRecord) (eventhose.Session, eventhose.Secret, error) {
	id, token, digest, err := sessionTokens.make()
	if err != nil {
		return eventhose.Session{}, "", err
	}
	at := now()
	r.Session.ID, r.Digest = id, digest
	r.Session.Created, r.Session.Used, r.Session.Expires = at, at, at.Add(eventhose.SessionIdle)
	p, err := c.sessionHolder(ctx, r)
	if err != nil {
		return eventhose.Session{}, "", err
	}
	r.Session.Tenant, r.Session.Scopes = p.Tenant, p.Scopes
	change, err := put(store.Record{Kind: kindSession, ID: id, Expires: r.Session.Expires}, r)
	if err != nil {
		return eventhose.Session{}, "", err
	}
	of := store.RecordChange{Record: store.Record{Kind: kindSessionOf, ID: r.Owner + "." + id, Expires: at.Add(eventhose.SessionTime)}}
	var ended []string
	err = again(func() error {
		own, err := c.sessionsOf(ctx, r.Owner)
		if err != nil {
			return err
		}
		over, live, err := c.sortSessions(ctx, own)
		if err != nil {
			return err
		}
		surplus := live[:max(0, len(live)-MaxSessionsOf+1)]
		changes, gone, err := c.ended(ctx, append(over, surplus...))
		if err != nil {
			return err
		}
		ended = gone
		return c.save(ctx, "begin a session", append(changes, change, of))
	})
	for _, id := range ended {
		c.sessions.forget(id)
	}
	if err != nil {
		return eventhose.Session{}, "", err
	}
	return r.Session, token, nil
}

// Session answers who has signed in with a cookie's token, and notes that the session was used. CodeUnauthenticated if it is unknown or over,
// or if its key or rule is no longer good.
func (c *Control) Session(ctx context.Context, token eventhose.Secret) (eventhose.Principal, error) {
	id, ok := sessionTokens.parse(token)
	if !ok {
		return eventhose.Principal{}, refused()
	}
	r, p, err := c.liveSession(ctx, id)
	if err == nil && !isToken(token, r.Digest) {
		err = refused()
	}
	if err != nil {
		return eventhose.Principal{}, err
	}
	if now().Sub(r.Session.Used) >= sessionGrain {
		c.used(ctx, id)
		if _, extended, err := c.liveSession(ctx, id); err == nil { // its key may end before it
			p.Expires = extended.Expires
		}
	}
	return p, nil
}

// liveSession finds a session that is not over. CodeUnauthenticated.
func (c *Control) liveSession(ctx context.Context, id string) (sessionRecord, eventhose.Principal, error) {
	r, err := c.sessions.get(id, func() (sessionRecord, error) {
		var r sessionRecord
		_, err := c.load(ctx, "", kindSession, id, &r)
		return r, err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return r, eventhose.Principal{}, refused()
	case err != nil:
		return r, eventhose.Principal{}, err
	case !time.Now().Before(r.Session.Expires):
		return r, eventhose.Principal{}, refused()
	}
	p, err := c.sessionHolder(ctx, r)
	return r, p, err
}

// sessionHolder answers who has a session, as its key or its rule stands now. CodeUnauthenticated.
func (c *Control) sessionHolder(ctx context.Context, r sessionRecord) (eventhose.Principal, error) {
	s := r.Session
	p := eventhose.Principal{KeyID: s.ID, Kind: eventhose.PrincipalSession, Name: s.Subject, Expires: s.Expires, OIDC: s.OIDC}
	if s.Name != "" {
		p.Name = s.Name
	}
	if s.OIDC {
		if !slices.Contains(c.signIns, r.Rule) {
			return eventhose.Principal{}, refused()
		}
		p.Scopes = operator().Scopes
		return p, nil
	}
	if r.Key == adminKeyID && !bytes.Equal(r.Mark, c.adminMark) {
		return eventhose.Principal{}, refused() // the operator has another admin key by now
	}
	holder, err := c.Holder(ctx, r.Key)
	if err != nil {
		return eventhose.Principal{}, err
	}
	p.Tenant, p.Scopes = holder.Tenant, holder.Scopes
	if !holder.Expires.IsZero() && holder.Expires.Before(p.Expires) {
		p.Expires = holder.Expires
	}
	return p, nil
}

// used extends a session, which may be under way for others too: one of them is enough, and nobody waits or fails for it.
func (c *Control) used(ctx context.Context, id string) {
	if _, busy := c.extending.LoadOrStore(id, true); busy {
		return
	}
	defer c.extending.Delete(id)
	var s sessionRecord
	r, err := c.load(ctx, "", kindSession, id, &s)
	at := now()
	if err != nil || at.Sub(s.Session.Used) < sessionGrain {
		return
	}
	s.Session.Used = at
	s.Session.Expires = at.Add(eventhose.SessionIdle)
	if end := s.Session.Created.Add(eventhose.SessionTime); s.Session.Expires.After(end) {
		s.Session.Expires = end
	}
	r.Expires = s.Session.Expires
	change, err := put(r, s)
	if err == nil {
		err = c.save(ctx, "note that a session was used", []store.RecordChange{change})
	}
	if err == nil {
		c.sessions.forget(id)
	}
}

// Sessions lists by id those after one that are not over, at most limit and at most 1,000.
func (c *Control) Sessions(ctx context.Context, after string, limit int) ([]eventhose.Session, error) {
	records, err := c.store.List(ctx, "", kindSession, after, pageSize(limit))
	if err != nil {
		return nil, failed("list sessions", err)
	}
	list := make([]eventhose.Session, len(records))
	for i, record := range records {
		var r sessionRecord
		if err := decode(record, &r); err != nil {
			return nil, err
		}
		list[i] = r.Session
	}
	return list, nil
}

// EndSession ends one; once it returns, this process refuses its token. CodeNotFound.
func (c *Control) EndSession(ctx context.Context, id string) error {
	err := again(func() error {
		var r sessionRecord
		_, err := c.load(ctx, "", kindSession, id, &r)
		if errors.Is(err, store.ErrNotFound) {
			return eventhose.NotFound("session")
		} else if err != nil {
			return err
		}
		changes, _, err := c.ended(ctx, []string{r.Owner + "." + id})
		if err != nil {
			return err
		}
		return c.save(ctx, "end a session", changes)
	})
	c.sessions.forget(id)
	return err
}

// sessionsOf answers the ids in kindSessionOf of one owner, oldest first. Some of them may be over.
func (c *Control) sessionsOf(ctx context.Context, owner string) ([]string, error) {
	records, err := c.store.List(ctx, "", kindSessionOf, owner+".", 2*MaxSessionsOf)
	if err != nil {
		return nil, failed("list sessions", err)
	}
	var ids []string
	for _, r := range records {
		if !strings.HasPrefix(r.ID, owner+".") {
			break
		}
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// sortSessions tells those that are over, and have vanished by themselves, from those that live. All are ids in kindSessionOf.
func (c *Control) sortSessions(ctx context.Context, of []string) (over, live []string, err error) {
	for _, name := range of {
		_, id, _ := strings.Cut(name, ".")
		switch _, err := c.store.Record(ctx, "", kindSession, id); {
		case errors.Is(err, store.ErrNotFound):
			over = append(over, name)
		case err != nil:
			return nil, nil, failed("read a session", err)
		default:
			live = append(live, name)
		}
	}
	return over, live, nil
}

// ended makes the changes that remove sessions, given by their ids in kindSessionOf, and answers their own ids.
func (c *Control) ended(ctx context.Context, of []string) (changes []store.RecordChange, ids []string, err error) {
	for _, name := range of {
		_, id, _ := strings.Cut(name, ".")
		ids = append(ids, id)
		for _, r := range []store.Record{{Kind: kindSession, ID: id}, {Kind: kindSessionOf, ID: name}} {
			had, err := c.store.Record(ctx, "", r.Kind, r.ID)
			if errors.Is(err, store.ErrNotFound) {
				continue // it is over, and has vanished by itself
			} else if err != nil {
				return nil, nil, failed("read a session", err)
			}
			changes = append(changes, store.RecordChange{Record: had, Delete: true})
		}
	}
	return changes, ids, nil
}

// Once answers whether it is asked this for the first time, until a time. Of several at once, at any node, one is.
func (c *Control) Once(ctx context.Context, id string, until time.Time) (bool, error) {
	sum := sha256.Sum256([]byte(id))
	err := c.save(ctx, "use what may be used once", []store.RecordChange{{Record: store.Record{Kind: kindOnce, ID: hex.EncodeToString(sum[:]), Expires: until}}})
	if errors.Is(err, store.ErrVersion) {
		return false, nil
	}
	return err == nil, err
}
