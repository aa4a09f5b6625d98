package control

import "sync"

// cache keeps what was loaded from the store, at most limit values. Whoever changes a stored value calls forget once
// the change is committed; from then on get answers the new one, also to those whose load was under way. It is safe
// for concurrent use.
type cache[K comparable, V any] struct {
	limit int

	mu         sync.Mutex
	values     map[K]V
	generation uint64
}

func newCache[K comparable, V any](limit int) *cache[K, V] {
	return &cache[K, V]{limit: limit, values: map[K]V{}}
}

func (c *cache[K, V]) get(key K, load func() (V, error)) (V, error) {
	c.mu.Lock()
	v, ok := c.values[key]
	generation := c.generation
	c.mu.Unlock()
	if ok {
		return v, nil
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
	c.values[key] = v
	return v, nil
}

func (c *cache[K, V]) forget(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	delete(c.values, key)
}
