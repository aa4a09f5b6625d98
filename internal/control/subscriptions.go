package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/filter"
	"github.com/eventhose/eventhose/internal/store"
)

// MaxOverlap is how long a replaced signing secret goes on signing at most.
const MaxOverlap = time.Duration(eventhose.MaxOverlap)

// subscriptionRecord is a subscription as it is stored. In Subscription the values of headers read "***" and the
// signing secrets are left out; both are beside it, sealed.
type subscriptionRecord struct {
	Subscription eventhose.Subscription `json:"subscription"`
	Headers      map[string][]byte      `json:"headers,omitempty"`
	Secrets      []sealedSecret         `json:"secrets"`
}

type sealedSecret struct {
	Sealed []byte    `json:"sealed"`
	Until  time.Time `json:"until,omitzero"`
}

func secretPlace(s *eventhose.Subscription) place { return place{s.Tenant, string(s.ID), "secret"} }

func headerPlace(s *eventhose.Subscription, name string) place {
	return place{s.Tenant, string(s.ID), "header." + name}
}

// encode seals s and makes the change that stores it over version.
func (c *Control) encode(s eventhose.Subscription, version uint64) (store.RecordChange, error) {
	r := subscriptionRecord{Subscription: s}
	for name, value := range s.Destination.Headers {
		sealed, err := c.seal.seal([]byte(value), headerPlace(&s, name))
		if err != nil {
			return store.RecordChange{}, err
		}
		if r.Headers == nil {
			r.Headers = map[string][]byte{}
		}
		r.Headers[name] = sealed
	}
	for _, live := range s.Secrets {
		sealed, err := c.seal.seal([]byte(live.Secret), secretPlace(&s))
		if err != nil {
			return store.RecordChange{}, err
		}
		r.Secrets = append(r.Secrets, sealedSecret{sealed, live.Until})
	}
	return put(store.Record{Tenant: s.Tenant, Kind: kindSubscription, ID: string(s.ID), Version: version}, r)
}

// decodeSubscription opens what encode has sealed. Secrets whose overlap has ended are left out.
func (c *Control) decodeSubscription(r store.Record) (eventhose.Subscription, error) {
	var stored subscriptionRecord
	if err := decode(r, &stored); err != nil {
		return eventhose.Subscription{}, err
	}
	s := stored.Subscription
	// Where the row lies is what it must have been sealed for.
	s.Tenant, s.ID, s.Version = r.Tenant, eventhose.SubscriptionID(r.ID), r.Version
	for name, sealed := range stored.Headers {
		value, err := c.seal.open(sealed, headerPlace(&s, name))
		if err != nil {
			return eventhose.Subscription{}, err
		}
		s.Destination.Headers[name] = eventhose.Secret(value)
	}
	for _, live := range stored.Secrets {
		if !live.Until.IsZero() && !time.Now().Before(live.Until) {
			continue
		}
		secret, err := c.seal.open(live.Sealed, secretPlace(&s))
		if err != nil {
			return eventhose.Subscription{}, err
		}
		s.Secrets = append(s.Secrets, eventhose.LiveSecret{Secret: eventhose.Secret(secret), Until: live.Until})
	}
	return s, nil
}

// check judges everything about a subscription that can be judged without connecting anywhere.
func (c *Control) check(s eventhose.Subscription) error {
	if err := s.Validate(); err != nil {
		return err
	}
	for name, value := range s.Destination.Headers {
		if value == "***" {
			return eventhose.Invalid("destination.headers."+name, "is a placeholder and no value")
		}
		if len(value) > eventhose.MaxHeaderValue {
			return eventhose.Invalid("destination.headers."+name, "must be at most %d bytes", eventhose.MaxHeaderValue)
		}
	}
	if !s.Pull() {
		sink, ok := c.sinks[s.Destination.Type]
		if !ok {
			return eventhose.Invalid("destination.type", "is not supported by this server")
		}
		if err := sink.Check(s.Destination); err != nil {
			return err
		}
	}
	_, err := filter.Compile(s.Filter)
	return err
}

// CreateSubscription fills in the defaults, validates, and saves the subscription together with its lane. from is
// "now" (or ""), "start" or a cursor's text. ID, times, version and secrets of s are ignored; the answer holds the new
// ones, with the secret. CodeInvalid with the field, CodeNotFound (no such tenant), CodeLimit, CodeCursorGone.
func (c *Control) CreateSubscription(ctx context.Context, s eventhose.Subscription, from string) (eventhose.Subscription, error) {
	s.Source = ""
	s, change, lane, err := c.prepare(ctx, s, from)
	if err != nil {
		return eventhose.Subscription{}, err
	}
	if err = c.saveCounted(ctx, s.Tenant, 1, change, lane); mayBe(err) {
		c.changed(s.Tenant, s.ID)
	}
	if err != nil {
		return eventhose.Subscription{}, err
	}
	return owned(s), nil
}

// prepare makes a subscription and the changes that save it with its lane.
func (c *Control) prepare(ctx context.Context, s eventhose.Subscription, from string) (_ eventhose.Subscription, change store.RecordChange, lane store.LaneChange, err error) {
	fail := func(err error) (eventhose.Subscription, store.RecordChange, store.LaneChange, error) {
		return eventhose.Subscription{}, store.RecordChange{}, store.LaneChange{}, err
	}
	if _, err := c.Tenant(ctx, s.Tenant); err != nil {
		return fail(err)
	}
	s = s.WithDefaults()
	if s.State != eventhose.StateActive && s.State != eventhose.StatePaused {
		return fail(eventhose.Invalid("state", "must be active or paused"))
	}
	if err := c.check(s); err != nil {
		return fail(err)
	}
	cursor, err := c.begin(ctx, s.Tenant, from)
	if err != nil {
		return fail(err)
	}
	id, err := newID("sub_")
	if err != nil {
		return fail(err)
	}
	s.ID, s.Reason, s.Created, s.Version = eventhose.SubscriptionID(id), "", now(), 1
	s.Updated = s.Created
	secret, public := newSecret(s.Destination.Signature)
	s.Secrets, s.PublicKey = []eventhose.LiveSecret{{Secret: secret}}, public
	change, err = c.encode(s, 0)
	if err != nil {
		return fail(err)
	}
	lane = store.LaneChange{Create: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: s.Tenant, Subscription: s.ID}, Cursor: cursor, Began: cursor, Behind: true}}
	return s, change, lane, nil
}

// begin answers the sequence after which a new subscription begins.
func (c *Control) begin(ctx context.Context, tenant eventhose.TenantID, from string) (eventhose.Sequence, error) {
	head, err := c.store.Head(ctx, tenant)
	if err != nil {
		return 0, failed("read the head of the log", err)
	}
	switch from {
	case "", "now":
		return head.Last, nil
	case "start":
		return head.Resolve(eventhose.Cursor{})
	}
	cursor, err := eventhose.ParseCursor(from)
	if err != nil {
		return 0, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "from", Message: "must be now, start or a cursor"}
	}
	return head.Resolve(cursor)
}

// saveCounted saves the creation (by 1) or deletion (by -1) of a subscription together with the tenant's count of them.
func (c *Control) saveCounted(ctx context.Context, tenant eventhose.TenantID, by int, change store.RecordChange, lane store.LaneChange) error {
	defer c.lockCounts(tenant)()
	return again(func() error {
		count, err := c.count(ctx, tenant, kindSubscription, by, eventhose.MaxSubscriptions)
		if err != nil {
			return err
		}
		return c.save(ctx, "save a subscription", []store.RecordChange{change, count}, lane)
	})
}

// Subscription answers one subscription with its secrets. CodeNotFound.
func (c *Control) Subscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID) (eventhose.Subscription, error) {
	r, err := c.store.Record(ctx, tenant, kindSubscription, string(id))
	if errors.Is(err, store.ErrNotFound) {
		return eventhose.Subscription{}, eventhose.NotFound("subscription")
	} else if err != nil {
		return eventhose.Subscription{}, failed("read a subscription", err)
	}
	return c.decodeSubscription(r)
}

// Subscriptions lists by id those after one, at most limit and at most 1,001, with their secrets. CodeNotFound if
// there is no such tenant.
func (c *Control) Subscriptions(ctx context.Context, tenant eventhose.TenantID, after eventhose.SubscriptionID, limit int) ([]eventhose.Subscription, error) {
	if _, err := c.Tenant(ctx, tenant); err != nil {
		return nil, err
	}
	return c.page(ctx, tenant, after, pageSize(limit))
}

func (c *Control) page(ctx context.Context, tenant eventhose.TenantID, after eventhose.SubscriptionID, limit int) ([]eventhose.Subscription, error) {
	records, err := c.store.List(ctx, tenant, kindSubscription, string(after), limit)
	if err != nil {
		return nil, failed("list subscriptions", err)
	}
	subscriptions := make([]eventhose.Subscription, 0, len(records))
	for _, r := range records {
		s, err := c.decodeSubscription(r)
		if err != nil {
			return nil, err
		}
		subscriptions = append(subscriptions, s)
	}
	return subscriptions, nil
}

// All answers every subscription of a tenant, at most MaxSubscriptions, with their secrets, by id.
func (c *Control) All(ctx context.Context, tenant eventhose.TenantID) ([]eventhose.Subscription, error) {
	var all []eventhose.Subscription
	for after := eventhose.SubscriptionID(""); ; {
		page, err := c.page(ctx, tenant, after, maxPage)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < maxPage {
			return all, nil
		}
		after = page[len(page)-1].ID
	}
}

// UpdateSubscription changes what p names, and fills in the defaults again. A destination is replaced as a whole,
// except that "***" keeps a header's value and a left out signature stays. CodeInvalid with the field, CodeNotFound,
// CodeVersion when others change it all the time. judge, if it is not nil, is shown the subscription that p will change, and may refuse: it
// is asked again for each that others have made of it meanwhile.
func (c *Control) UpdateSubscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, p eventhose.SubscriptionPatch, judge func(before eventhose.Subscription) error) (eventhose.Subscription, error) {
	return c.update(ctx, tenant, id, func(s *eventhose.Subscription) (bool, error) {
		if judge != nil {
			if err := judge(*s); err != nil {
				return false, err
			}
		}
		if s.Source != "" && p.Filter != nil {
			return false, &eventhose.Error{Code: eventhose.CodeConflict, Field: "filter", Message: "is that of the source whose inbox this is", Fix: "create another subscription"}
		}
		if err := patch(s, p); err != nil {
			return false, err
		}
		*s = s.WithDefaults()
		return true, c.check(*s)
	})
}

func patch(s *eventhose.Subscription, p eventhose.SubscriptionPatch) error {
	if p.Name != nil {
		s.Name = *p.Name
	}
	if p.Filter != nil {
		s.Filter = *p.Filter
	}
	if p.Ordering != nil {
		s.Ordering = *p.Ordering
	}
	if p.OnExhausted != nil {
		s.OnExhausted = *p.OnExhausted
	}
	if p.Retry != nil {
		s.Retry = *p.Retry
	}
	if p.MaxInFlight != nil {
		s.MaxInFlight = *p.MaxInFlight
	}
	if p.MaxRate != nil {
		s.MaxRate = *p.MaxRate
	}
	if p.Batch != nil {
		s.Batch = *p.Batch
	}
	if p.Destination == nil {
		return nil
	}
	old, d := s.Destination, *p.Destination
	switch {
	case s.Pull():
		return &eventhose.Error{Code: eventhose.CodeConflict, Field: "destination", Message: "cannot be given to a pull subscription", Fix: "create another subscription"}
	case d.Type == "":
		return eventhose.Invalid("destination.type", "is required")
	}
	if d.Signature == "" {
		d.Signature = old.Signature
	} else if d.Signature != old.Signature {
		e := eventhose.Invalid("destination.signature", "cannot be changed")
		e.Fix = "create another subscription, whose receiver has its secret"
		return e
	}
	d.Headers = maps.Clone(d.Headers)
	for name, value := range d.Headers {
		if kept, ok := old.Headers[name]; ok && value == "***" {
			d.Headers[name] = kept
		}
	}
	s.Destination = d
	return nil
}

// update reads, changes and saves a subscription, again if somebody else was quicker, and announces it. Change answers
// whether there is anything to save; if not, that may be because nobody knew the time before, so it is announced too.
func (c *Control) update(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, change func(*eventhose.Subscription) (bool, error)) (eventhose.Subscription, error) {
	var s eventhose.Subscription
	err := again(func() (err error) {
		if s, err = c.Subscription(ctx, tenant, id); err != nil {
			return err
		}
		changes, err := change(&s)
		if err != nil || !changes {
			return err
		}
		s.Updated = now()
		record, err := c.encode(s, s.Version)
		if err != nil {
			return err
		}
		if err := c.save(ctx, "save a subscription", []store.RecordChange{record}); err != nil {
			return err
		}
		s.Version++
		return nil
	})
	if mayBe(err) {
		c.changed(tenant, id)
	}
	if err != nil {
		return eventhose.Subscription{}, err
	}
	return owned(s), nil
}

// DeleteSubscription removes a subscription with its lane and all that hangs on it. CodeNotFound; CodeConflict for the
// inbox of a source.
func (c *Control) DeleteSubscription(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID) error {
	err := again(func() error {
		r, err := c.store.Record(ctx, tenant, kindSubscription, string(id))
		if errors.Is(err, store.ErrNotFound) {
			return eventhose.NotFound("subscription")
		} else if err != nil {
			return failed("read a subscription", err)
		}
		var stored subscriptionRecord
		if err := decode(r, &stored); err != nil {
			return err
		}
		if stored.Subscription.Source != "" {
			return &eventhose.Error{Code: eventhose.CodeConflict, Message: "the subscription is the inbox of a source", Fix: "delete the source"}
		}
		lane := store.LaneChange{Delete: true, Lane: store.Lane{LaneRef: store.LaneRef{Tenant: tenant, Subscription: id}}}
		defer c.lockCounts(tenant)()
		count, err := c.count(ctx, tenant, kindSubscription, -1, eventhose.MaxSubscriptions)
		if err != nil {
			return err
		}
		return c.save(ctx, "delete a subscription", []store.RecordChange{{Record: r, Delete: true}, count}, lane)
	})
	if mayBe(err) {
		c.changed(tenant, id)
	}
	return err
}

// SetState pauses (StatePaused) or resumes (StateActive) a subscription, a disabled one too. CodeInvalid (field
// "state"), CodeNotFound.
func (c *Control) SetState(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, state eventhose.SubscriptionState) (eventhose.Subscription, error) {
	if state != eventhose.StateActive && state != eventhose.StatePaused {
		return eventhose.Subscription{}, eventhose.Invalid("state", "must be active or paused")
	}
	return c.update(ctx, tenant, id, func(s *eventhose.Subscription) (bool, error) {
		if s.State == state {
			return false, nil
		}
		s.State, s.Reason = state, ""
		if state == eventhose.StatePaused {
			s.Reason = "paused by request"
		}
		return true, nil
	})
}

// Disable holds an active or paused subscription for a reason of Eventhose's own, a sentence that its owner sees. One
// that is disabled already keeps its first reason. CodeNotFound.
func (c *Control) Disable(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, reason string) error {
	_, err := c.update(ctx, tenant, id, func(s *eventhose.Subscription) (bool, error) {
		if s.State == eventhose.StateDisabled {
			return false, nil
		}
		s.State, s.Reason = eventhose.StateDisabled, reason
		return true, nil
	})
	return err
}

// RotateSecret makes a new signing secret; the one it replaces goes on signing beside it for overlap (0: no more; at most
// 7 days). Beyond MaxLiveSecrets the oldest stop at once. CodeInvalid (field "overlap"), CodeNotFound.
func (c *Control) RotateSecret(ctx context.Context, tenant eventhose.TenantID, id eventhose.SubscriptionID, overlap time.Duration) (eventhose.Subscription, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return eventhose.Subscription{}, eventhose.Invalid("overlap", "must be between 0s and %s", eventhose.Duration(MaxOverlap))
	}
	return c.update(ctx, tenant, id, func(s *eventhose.Subscription) (bool, error) {
		for i := range s.Secrets {
			if s.Secrets[i].Until.IsZero() {
				s.Secrets[i].Until = now().Add(overlap)
			}
		}
		secret, public := newSecret(s.Destination.Signature)
		s.Secrets = slices.Insert(s.Secrets, 0, eventhose.LiveSecret{Secret: secret})
		s.Secrets = s.Secrets[:min(len(s.Secrets), eventhose.MaxLiveSecrets)]
		s.PublicKey = public
		return true, nil
	})
}

// owned answers s without anything that a caller of ours still holds.
func owned(s eventhose.Subscription) eventhose.Subscription {
	s.Filter.Types = slices.Clone(s.Filter.Types)
	s.Filter.Keys = slices.Clone(s.Filter.Keys)
	s.Filter.Attributes = maps.Clone(s.Filter.Attributes)
	s.Retry.Schedule = slices.Clone(s.Retry.Schedule)
	s.Destination.Headers = maps.Clone(s.Destination.Headers)
	return s
}
