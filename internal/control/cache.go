package control

import (
	"sync"
	"time"
)

// cache keeps what was loaded from the store, at most limit values, each for at most keep if that is set. Whoever changes a stored value calls forget once
// the change is committed, or may be; from then on get answers the new one, also to those whose load was under way. It is safe
// for concurrent use.
type cache[K comparable, V any] struct {
	limit int
	keep  time.Duration

	mu         sync.Mutex
	values     map[K]cached[V]
	generation uint64
}

type cached[V any] struct {
	value V
	until time.Time // zero: for ever
}

func newCache[K comparable, V any](limit int, keep time.Duration) *cache[K, V] {
	return &cache[K, V]{limit: limit, keep: keep, values: map[K]cached[V]{}}
}

func (c *cache[K, V]) get(key K, load func() (V, error)) (V, error) {
	c.mu.Lock()
	had, ok := c.values[key]
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
	if c.generation != generation { // it may have been read before the change
		return v, nil
	}
	if len(c.values) >= c.limit {
		for other := range c.values {
			delete(c.values, other)
			break
		}
	}
	c.values[key] = cached[V]{v, until}
	return v, nil
}

func (c *cache[K, V]) forget(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	delete(c.values, key)
}

func (c *cache[K, V]) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	clear(c.values)
}
