package control

import (
	"context"
	"errors"
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

// lastUsed answers when a key was used last, zero if that is not known.
func (c *Control) lastUsed(ctx context.Context, id string) (time.Time, error) {
	var at time.Time
	if _, err := c.load(ctx, "", kindKeyUse, id, &at); err != nil && !errors.Is(err, store.ErrNotFound) {
		return at, err
	}
	if here := c.uses.of(id); here.After(at) {
		at = here.UTC().Truncate(time.Second)
	}
	return at, nil
}

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

// saveUses writes down what was gathered. Another node may have written the same key's: then the later time stays.
func (c *Control) saveUses(ctx context.Context) error {
	for id, at := range c.uses.take() {
		key, err := c.liveKey(ctx, id)
		if eventhose.CodeOf(err) == eventhose.CodeUnauthenticated {
			continue // nobody uses it any more
		} else if err != nil {
			return err
		}
		at = at.UTC().Truncate(time.Second)
		err = again(func() error {
			var had time.Time
			r, err := c.load(ctx, "", kindKeyUse, id, &had)
			if errors.Is(err, store.ErrNotFound) {
				r, err = store.Record{Kind: kindKeyUse, ID: id}, nil
			}
			if err != nil || !at.After(had) {
				return err
			}
			if !key.Key.Expires.IsZero() {
				r.Expires = key.Key.Expires.Add(keptDead)
			}
			change, err := put(r, at)
			if err != nil {
				return err
			}
			return c.save(ctx, "note that a key was used", []store.RecordChange{change})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
