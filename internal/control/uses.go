package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// When a key was used last is gathered in memory, so that no request pays for it, and written down each minute and at a
// stop. What a crash takes away is a minute of it. It lies beside the key's record, which everybody has cached.

const (
	// usesGrain is how exactly uses are gathered.
	usesGrain = 30 * time.Second
	// maxUses is how many keys are remembered between two writes; the uses of others are noted when there is room again.
	maxUses = 10_000
	// usesAtOnce is how many are written down at once.
	usesAtOnce = 200
)

// uses is when keys were used last, as far as it is not written down. It is safe for concurrent use.
type uses struct {
	mu   sync.RWMutex
	keys map[string]time.Time
}

func (u *uses) note(id string) {
	now := time.Now()
	u.mu.RLock()
	last, known := u.keys[id]
	u.mu.RUnlock()
	if known && now.Sub(last) < usesGrain {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keys == nil {
		u.keys = map[string]time.Time{}
	}
	if known || len(u.keys) < maxUses {
		u.keys[id] = now
	}
}

func (u *uses) of(id string) time.Time {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.keys[id]
}

func (u *uses) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.keys
	u.keys = nil
	return taken
}

// keep takes back what take gave, unless the key was used again or there is no room.
func (u *uses) keep(id string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keys == nil {
		u.keys = map[string]time.Time{}
	}
	if _, known := u.keys[id]; !known && len(u.keys) < maxUses {
		u.keys[id] = at
	}
}

// tellUses fills in when keys were used last, as far as that is known. They are sorted by id, and few others lie between them, or many: then
// they are looked up one by one.
func (c *Control) tellUses(ctx context.Context, keys []eventhose.APIKey, many bool) error {
	step := maxPage
	if many {
		step = 1
	}
	for i := range keys {
		if here := c.uses.of(keys[i].ID); !here.IsZero() {
			keys[i].LastUsed = here.UTC().Truncate(time.Second)
		}
	}
	for len(keys) > 0 {
		// Uses are sorted as keys are: what comes after the key before the first is about the first, or about later ones.
		records, err := c.store.List(ctx, "", kindKeyUse, before(keys[0].ID), step)
		if err != nil {
			return failed("read when keys were used", err)
		}
		for _, r := range records {
			for len(keys) > 0 && keys[0].ID < r.ID {
				keys = keys[1:] // which nobody has used
			}
			if len(keys) == 0 {
				return nil
			}
			var at time.Time
			if err := decode(r, &at); err != nil {
				return err
			}
			if keys[0].ID == r.ID && at.After(keys[0].LastUsed) {
				keys[0].LastUsed = at
			}
		}
		if len(records) < step {
			return nil
		}
		for len(keys) > 0 && keys[0].ID <= records[len(records)-1].ID {
			keys = keys[1:]
		}
	}
	return nil
}

// before answers what sorts right before an id, among ids of its sort.
func before(id string) string { return id[:len(id)-1] }

// RunUses writes down now and then when keys were used last, and once more when ctx ends; then it returns. told gets what went wrong.
func (c *Control) RunUses(ctx context.Context, every time.Duration, told func(error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		if err := c.saveUses(saving); err != nil {
			told(err)
		}
		cancel()
	}
}

// saveUses writes down what was gathered, many at once. What cannot be written is kept for the next time; the answer is the first reason.
func (c *Control) saveUses(ctx context.Context) (first error) {
	gathered := c.uses.take()
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(gathered)), usesAtOnce) {
		unwritten, err := c.saveUsesOf(ctx, ids, gathered)
		for _, id := range unwritten {
			c.uses.keep(id, gathered[id])
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// saveUsesOf writes down the uses of some keys, and answers the ids of those of which it could not, and why.
func (c *Control) saveUsesOf(ctx context.Context, ids []string, gathered map[string]time.Time) (unwritten []string, first error) {
	err := again(func() error {
		var changes []store.RecordChange
		unwritten, first = nil, nil
		for _, id := range ids {
			change, newer, err := c.useOf(ctx, id, gathered[id].UTC().Truncate(time.Second))
			switch {
			case err != nil:
				unwritten = append(unwritten, id)
				if first == nil {
					first = err
				}
			case newer:
				changes = append(changes, change)
			}
		}
		if len(changes) == 0 {
			return nil
		}
		return c.save(ctx, "note when keys were used", changes)
	})
	if err != nil {
		return ids, err
	}
	return unwritten, first
}

// useOf makes the change that says that a key was used, unless the key is gone, or another node has written a later use.
func (c *Control) useOf(ctx context.Context, id string, at time.Time) (change store.RecordChange, newer bool, err error) {
	key, err := c.liveKey(ctx, id)
	if eventhose.CodeOf(err) == eventhose.CodeUnauthenticated {
		return change, false, nil
	} else if err != nil {
		return change, false, err
	}
	var had time.Time
	r, err := c.load(ctx, "", kindKeyUse, id, &had)
	if errors.Is(err, store.ErrNotFound) {
		r, err = store.Record{Kind: kindKeyUse, ID: id}, nil
	}
	if err != nil || !at.After(had) {
		return change, false, err
	}
	if !key.Key.Expires.IsZero() {
		r.Expires = key.Key.Expires.Add(keptDead)
	}
	change, err = put(r, at)
	return change, err == nil, err
}
