package listen

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// maxDeliveries is how often the server hands an event over before it sets it aside. The last time a listener keeps it in hand.
const maxDeliveries = eventhose.MaxSchedule

// Begin says where a listener begins. The zero Begin goes on where it left off, or if it is new at the end of the log.
type Begin struct {
	// Since is the time of append of the first event.
	Since time.Time
	// After is the cursor before the first event. Not nil excludes Since.
	After *eventhose.Cursor
}

func (b Begin) zero() bool { return b.Since.IsZero() && b.After == nil }

// cursor finds the pull subscription that keeps a route's cursor, or makes it, and sees to it that it is as the route says.
// CodeConflict if it is paused, or is not a listener's.
func (l *Listener) cursor(ctx context.Context) error {
	found, err := l.find(ctx)
	if err != nil {
		return err
	}
	if found == nil {
		if found, err = l.create(ctx); err != nil {
			return err
		}
		l.sub = found.ID
		return nil
	}
	l.sub = found.ID
	switch {
	case !found.Pull():
		return &eventhose.Error{Code: eventhose.CodeConflict, Field: "group", Message: fmt.Sprintf("the subscription %q has a destination, which it sends to", found.Name), Fix: "choose another group"}
	case found.State != eventhose.StateActive:
		return &eventhose.Error{Code: eventhose.CodeConflict, Field: "group", Message: fmt.Sprintf("the subscription %q is %s", found.Name, found.State), Fix: "eventhose subscriptions resume " + string(found.ID)}
	}
	if err := l.update(ctx, found); err != nil {
		return err
	}
	return l.rewind(ctx)
}

// find answers the oldest subscription of the route's name, nil if there is none.
func (l *Listener) find(ctx context.Context) (oldest *client.Subscription, err error) {
	for o := (client.ListOptions{Limit: 1000}); ; {
		page, err := l.tenant.Subscriptions(ctx, o)
		if err != nil {
			return nil, err
		}
		for i := range page.Data {
			if s := &page.Data[i]; s.Name == l.route.name() && (oldest == nil || older(s, oldest)) {
				oldest = s
			}
		}
		if o.After = page.Next; o.After == "" {
			return oldest, nil
		}
	}
}

func older(a, b *client.Subscription) bool {
	return a.Created.Before(b.Created) || a.Created.Equal(b.Created) && a.ID < b.ID
}

// create makes the subscription. Of two that are made at once the older one counts, and the other is removed by who made it.
func (l *Listener) create(ctx context.Context) (*client.Subscription, error) {
	from, err := l.from(ctx)
	if err != nil {
		return nil, err
	}
	s := client.NewSubscription{Name: l.route.name(), Filter: l.route.Filter, Ordering: l.route.ordering(), OnExhausted: onExhausted(l.route.ordering()), From: from,
		Retry: eventhose.Retry{Schedule: make([]eventhose.Duration, maxDeliveries), DisableAfter: -1}}
	made, err := l.tenant.CreateSubscription(ctx, s)
	if err != nil {
		return nil, err
	}
	oldest, err := l.find(ctx)
	if err != nil {
		return nil, err
	}
	if oldest == nil || oldest.ID == made.ID {
		return &made, nil
	}
	return oldest, l.tenant.DeleteSubscription(ctx, made.ID)
}

func onExhausted(o eventhose.Ordering) eventhose.OnExhausted {
	if o == eventhose.OrderingNone {
		return eventhose.OnExhaustedPark
	}
	return eventhose.OnExhaustedBlock
}

// from is where a new subscription begins.
func (l *Listener) from(ctx context.Context) (string, error) {
	switch b := l.route.Begin; {
	case b.After != nil && *b.After == eventhose.Cursor{}:
		return "start", nil
	case b.After != nil:
		return b.After.String(), nil
	case !b.Since.IsZero():
		c, err := l.tenant.CursorAt(ctx, b.Since)
		if err == nil && c.Sequence == 0 {
			return "start", nil
		}
		return c.String(), err
	}
	return "now", nil
}

// update changes what is not as the route says.
func (l *Listener) update(ctx context.Context, s *client.Subscription) error {
	var patch eventhose.SubscriptionPatch
	if !reflect.DeepEqual(s.Filter, l.route.Filter) {
		patch.Filter = &l.route.Filter
	}
	if o := l.route.ordering(); o != s.Ordering {
		exhausted := onExhausted(o)
		patch.Ordering, patch.OnExhausted = &o, &exhausted
	}
	if patch == (eventhose.SubscriptionPatch{}) {
		return nil
	}
	_, err := l.tenant.UpdateSubscription(ctx, s.ID, patch)
	return err
}

// rewind has the events from where the route says up to the subscription's cursor handed over once more, marked as a replay.
func (l *Listener) rewind(ctx context.Context) error {
	b := l.route.Begin
	if b.zero() {
		return nil
	}
	from := b.Since.UTC().Format(time.RFC3339Nano)
	if b.After != nil {
		if from = b.After.String(); *b.After == (eventhose.Cursor{}) {
			from = ""
		}
	}
	_, err := l.tenant.Replay(ctx, l.sub, client.NewReplay{From: from})
	var refused *eventhose.Error
	if errors.As(err, &refused) && refused.Code == eventhose.CodeInvalid && (refused.Field == "from" || refused.Field == "to") && b.After == nil {
		return nil // nothing was appended since
	}
	return err
}

// secrets answers what signs: the route's secret, or else the subscription's, the current one first.
func (l *Listener) secrets(ctx context.Context) ([]eventhose.LiveSecret, error) {
	if l.route.Secret != "" {
		return []eventhose.LiveSecret{{Secret: l.route.Secret}}, nil
	}
	live, err := l.tenant.Secrets(ctx, l.sub)
	if err != nil {
		return nil, err
	}
	secrets := make([]eventhose.LiveSecret, len(live))
	for i := range live {
		secrets[i] = eventhose.LiveSecret(live[i])
	}
	return secrets, nil
}

// retarget has what is sent from now on signed with the secrets that there are now.
func (l *Listener) retarget(ctx context.Context) ([]eventhose.LiveSecret, error) {
	secrets, err := l.secrets(ctx)
	if err != nil {
		return nil, err
	}
	target, err := l.Forward.Target(l.TenantID, l.route.ForwardTo, secrets...)
	if err == nil {
		l.target.Store(target)
	}
	return secrets, err
}
