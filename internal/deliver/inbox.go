package deliver

import (
	"context"
	"errors"
	"slices"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// InboxStatus answers for each event, in order, what became of it at a pull subscription that it concerns. Events are by
// ascending sequence. CodeNotFound (no such subscription).
func (e *Engine) InboxStatus(ctx context.Context, tenant eventhose.TenantID, sub eventhose.SubscriptionID, events []eventhose.Event) ([]eventhose.InboxStatus, error) {
	if len(events) == 0 {
		return nil, nil
	}
	matched, err := e.matchedTo(ctx, tenant)
	if err != nil {
		return nil, err
	}
	// Where the lane stands is read first: what is parked later was not settled then. All is taken from the store, since in memory
	// a lane has passed an event whose parked row is not stored yet.
	row, keys, err := e.store.Lane(ctx, tenant, sub)
	if errors.Is(err, store.ErrNotFound) {
		err = eventhose.NotFound("subscription")
	}
	if err != nil {
		return nil, err
	}
	if !row.Behind {
		row.Cursor = max(row.Cursor, matched)
	}
	first, last := events[0].Sequence, events[len(events)-1].Sequence
	parked := map[eventhose.Sequence]store.Parked{}
	for after := first - 1; after < last; {
		page, err := e.store.Parked(ctx, tenant, sub, store.ParkedQuery{After: after, Limit: 1000})
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			parked[p.Sequence] = p
			after = p.Sequence
		}
		if len(page) < 1000 {
			break
		}
	}
	statuses := make([]eventhose.InboxStatus, len(events))
	for i := range events {
		ev := &events[i]
		p, aside := parked[ev.Sequence]
		waits := slices.ContainsFunc(keys, func(k store.BlockedKey) bool {
			return k.Key == ev.Key && ev.Key != "" && k.First > 0 && ev.Sequence >= k.First && ev.Sequence <= k.Last
		})
		_, settled := slices.BinarySearch(row.Settled, ev.Sequence)
		switch {
		case aside && p.State == eventhose.ParkedDead:
			statuses[i] = eventhose.InboxDead
		case aside && p.State == eventhose.ParkedRetrying && p.Attempts > 0:
			statuses[i] = eventhose.InboxFailed
		case aside || waits || ev.Sequence > row.Cursor && !settled:
			statuses[i] = eventhose.InboxPending
		default:
			statuses[i] = eventhose.InboxProcessed
		}
	}
	return statuses, nil
}
