package embedded

import (
	"container/list"
	"sync"
)

// cacheBytes bounds the decoded record batches that stay in memory, so that readers at the tail share them.
const cacheBytes = 16 << 20

type cacheKey struct {
	tenant tenantID
	first  sequence
}

// batchCache keeps decoded batches by their first sequence, those used longest ago leave first. A batch is immutable
// but for erasure; epoch keeps a reader that decoded the batch as it was before from putting it back afterwards.
type batchCache struct {
	mu    sync.Mutex
	byKey map[cacheKey]*list.Element
	order *list.List // of *cacheEntry, newest first
	size  int
	epoch uint64
}

type cacheEntry struct {
	key   cacheKey
	batch *batch
}

func (c *batchCache) init() {
	c.byKey, c.order = map[cacheKey]*list.Element{}, list.New()
}

// get answers the batch that begins at first, or nil, and the epoch to put one with.
func (c *batchCache) get(tenant tenantID, first sequence) (*batch, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.byKey[cacheKey{tenant, first}]
	if el == nil {
		return nil, c.epoch
	}
	c.order.MoveToFront(el)
	return el.Value.(*cacheEntry).batch, c.epoch
}

// put keeps a batch that was read after get answered epoch.
func (c *batchCache) put(b *batch, epoch uint64) {
	key := cacheKey{b.records[0].event.Tenant, b.first}
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch || b.size > cacheBytes/8 {
		return
	}
	if el := c.byKey[key]; el != nil {
		c.drop(el)
	}
	c.byKey[key] = c.order.PushFront(&cacheEntry{key, b})
	c.size += b.size
	for c.size > cacheBytes {
		c.drop(c.order.Back())
	}
}

// forget drops a batch that was changed, and whatever is being read right now.
func (c *batchCache) forget(tenant tenantID, first sequence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	if el := c.byKey[cacheKey{tenant, first}]; el != nil {
		c.drop(el)
	}
}

func (c *batchCache) drop(el *list.Element) {
	e := c.order.Remove(el).(*cacheEntry)
	delete(c.byKey, e.key)
	c.size -= e.batch.size
}
