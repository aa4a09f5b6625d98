package control

import (
	"context"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
)

const (
	// unknownAtOnce is how many values of a cache are looked up at once by keys that it does not know, unknownTurn how long it is waited to be
	// one of them.
	unknownAtOnce = 4
	unknownTurn   = time.Second
)

// cache keeps what was loaded from the store, at most limit values, each for at most keep if that is set. Whoever changes a stored value calls forget once
// the change is committed, or may be; from then on get answers the new one, also to those whose load was under way. It is safe
// for concurrent use.
type cache[K comparable, V any] struct {
	limit int
	keep  time.Duration
	// unknown has room for those who look up a key that is not known.
	unknown chan struct{}

	mu         sync.Mutex
	values     map[K]cached[V]
	generation uint64
}

type cached[V any] struct {
	value     V
	until     time.Time // zero: for ever
	forgotten bool      // without a value: that there was one is all that is known
}

func newCache[K comparable, V any](limit int, keep time.Duration) *cache[K, V] {
	return &cache[K, V]{limit: limit, keep: keep, unknown: make(chan struct{}, unknownAtOnce), values: map[K]cached[V]{}}
}

// find is get for keys that anybody may make up. Those of which there was a value before are found as ever; of all others few are looked up at once,
// so that a flood of them leaves the store to what is known. It loads what is not kept, so a new value is found at once. What load finds
// missing (CodeNotFound) is not known any more. CodeUnavailable when too many are looked up.
func (c *cache[K, V]) find(ctx context.Context, key K, load func() (V, error)) (V, error) {
	if !c.knows(key) {
		if err := c.turn(ctx); err != nil {
			var none V
			return none, err
		}
		defer func() { <-c.unknown }()
	}
	v, err := c.get(key, load)
	if eventhose.CodeOf(err) == eventhose.CodeNotFound {
		c.mu.Lock()
		delete(c.values, key)
		c.mu.Unlock()
	}
	return v, err
}

func (c *cache[K, V]) knows(key K) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.values[key]
	return ok
}

// turn waits to be one of those who look up an unknown key.
func (c *cache[K, V]) turn(ctx context.Context) error {
	select {
	case c.unknown <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(unknownTurn)
	defer timer.Stop()
	select {
	case c.unknown <- struct{}{}:
		return nil
	case <-timer.C:
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "too much is looked up at once that is not known", Fix: "try again", RetryAfter: time.Second}
	case <-ctx.Done():
		return failed("look it up", ctx.Err())
	}
}

func (c *cache[K, V]) get(key K, load func() (V, error)) (V, error) {
	c.mu.Lock()
	had, ok := c.values[key]
	ok = ok && !had.forgotten
	generation := c.generation
	c.mu.Unlock()
	var until time.Time
	if c.keep > 0 {
		now := time.Now()
		if ok && !now.Before(had.until) {
			ok = false
		}
		until = now.Add(c.keep)
	}
	if ok {
		return had.value, nil
	}
	v, err := load()
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, there := c.values[key]
	late := c.generation != generation // it may have been read before the change
	if late && there {
		return v, nil
	}
	if !there && len(c.values) >= c.limit {
		for other := range c.values {
			delete(c.values, other)
			break
		}
	}
	c.values[key] = cached[V]{value: v, until: until}
	if late {
		c.drop(key)
	}
	return v, nil
}

func (c *cache[K, V]) forget(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.drop(key)
}

// drop keeps of a value that it was there. c.mu is held.
func (c *cache[K, V]) drop(key K) {
	if _, there := c.values[key]; there {
		c.values[key] = cached[V]{forgotten: true}
	}
}

func (c *cache[K, V]) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for key := range c.values {
		c.drop(key)
	}
}
