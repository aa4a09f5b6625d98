package embedded

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
)

// cacheBytes bounds the decoded record batches that stay in memory, so that readers at the tail share them.
const cacheBytes = 32 << 20

// batchCache keeps decoded batches, those used longest ago leave first. A batch is immutable but for erasure; epoch keeps
// a reader that decoded the batch as it was before from putting it back afterwards.
type batchCache struct {
	mu    sync.Mutex
	logs  map[tenantID][]*list.Element // of each log, by first sequence; batches of a log do not overlap
	order *list.List                   // of *batch, newest first
	size  int
	epoch uint64
}

func (c *batchCache) init() {
	c.logs, c.order = map[tenantID][]*list.Element{}, list.New()
}

func cached(el *list.Element) *batch { return el.Value.(*batch) }

// place answers where among a log's batches the one that holds seq is, or would be put.
func (c *batchCache) place(tenant tenantID, seq sequence) (int, bool) {
	of := c.logs[tenant]
	i, found := slices.BinarySearchFunc(of, seq, func(el *list.Element, seq sequence) int { return cmp.Compare(cached(el).first, seq) })
	if !found && i > 0 && cached(of[i-1]).last() >= seq {
		return i - 1, true
	}
	return i, found
}

// get answers the batch that holds seq, or nil, and the epoch to put one with.
func (c *batchCache) get(tenant tenantID, seq sequence) (*batch, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, found := c.place(tenant, seq)
	if !found {
		return nil, c.epoch
	}
	el := c.logs[tenant][i]
	c.order.MoveToFront(el)
	return cached(el), c.epoch
}

// put keeps a batch that was read after get answered epoch.
func (c *batchCache) put(b *batch, epoch uint64) {
	tenant := b.records[0].event.Tenant
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch || b.size > cacheBytes/8 {
		return
	}
	i, found := c.place(tenant, b.first)
	if found {
		return // another reader was faster
	}
	c.logs[tenant] = slices.Insert(c.logs[tenant], i, c.order.PushFront(b))
	c.size += b.size
	for c.size > cacheBytes {
		c.drop(cached(c.order.Back()))
	}
}

// forget drops a batch that was changed, and whatever is being read right now.
func (c *batchCache) forget(tenant tenantID, first sequence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	if i, found := c.place(tenant, first); found {
		c.drop(cached(c.logs[tenant][i]))
	}
}

func (c *batchCache) drop(b *batch) {
	tenant := b.records[0].event.Tenant
	i, found := c.place(tenant, b.first)
	if !found {
		return
	}
	c.order.Remove(c.logs[tenant][i])
	if c.logs[tenant] = slices.Delete(c.logs[tenant], i, i+1); len(c.logs[tenant]) == 0 {
		delete(c.logs, tenant)
	}
	c.size -= b.size
}
