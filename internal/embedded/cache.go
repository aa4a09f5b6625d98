package embedded

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
)

// cacheBytes bounds the record batches that stay in memory, so that readers at the tail share them.
const cacheBytes = 32 << 20

// batchCache keeps batches, those used longest ago leave first: what was read, and what was just appended, which is what
// readers at the tail want next. Readers never ask for what is not durable yet. A batch is immutable but for erasure;
// epoch keeps a reader that decoded the batch as it was before from putting it back afterwards.
type batchCache struct {
	mu    sync.Mutex
	logs  map[tenantID][]*list.Element // of each log, by first sequence; batches of a log do not overlap
	order *list.List                   // of *cachedBatch, newest first
	size  int
	epoch uint64
}

// cachedBatch is one batch. One that was just appended is a body until somebody reads it.
type cachedBatch struct {
	tenant      tenantID
	first, last sequence
	size        int
	decode      sync.Once
	body        []byte
	batch       *batch
}

// read answers the batch, nil if it cannot be decoded: then what is stored will say why.
func (e *cachedBatch) read() *batch {
	e.decode.Do(func() {
		if e.batch == nil {
			e.batch, _ = decodeBody(e.tenant, e.body)
			e.body = nil
		}
	})
	return e.batch
}

func (c *batchCache) init() {
	c.logs, c.order = map[tenantID][]*list.Element{}, list.New()
}

func cached(el *list.Element) *cachedBatch { return el.Value.(*cachedBatch) }

// place answers where among a log's batches the one that holds seq is, or would be put.
func (c *batchCache) place(tenant tenantID, seq sequence) (int, bool) {
	of := c.logs[tenant]
	i, found := slices.BinarySearchFunc(of, seq, func(el *list.Element, seq sequence) int { return cmp.Compare(cached(el).first, seq) })
	if !found && i > 0 && cached(of[i-1]).last >= seq {
		return i - 1, true
	}
	return i, found
}

// get answers the batch that holds seq, or nil, and the epoch to put one with.
func (c *batchCache) get(tenant tenantID, seq sequence) (*batch, uint64) {
	c.mu.Lock()
	i, found := c.place(tenant, seq)
	epoch := c.epoch
	if !found {
		c.mu.Unlock()
		return nil, epoch
	}
	el := c.logs[tenant][i]
	c.order.MoveToFront(el)
	c.mu.Unlock()
	return cached(el).read(), epoch
}

// put keeps a batch that was read after get answered epoch.
func (c *batchCache) put(b *batch, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch == c.epoch {
		c.insert(&cachedBatch{tenant: b.records[0].event.Tenant, first: b.first, last: b.last(), size: b.size, batch: b})
	}
}

// append keeps batches that were applied. The caller sees to it that nothing has changed them since.
func (c *batchCache) append(fresh []*cachedBatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range fresh {
		c.insert(e)
	}
}

func (c *batchCache) insert(e *cachedBatch) {
	if e.size > cacheBytes/8 {
		return
	}
	i, found := c.place(e.tenant, e.first)
	if found {
		return // another reader was faster
	}
	c.logs[e.tenant] = slices.Insert(c.logs[e.tenant], i, c.order.PushFront(e))
	c.size += e.size
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

func (c *batchCache) drop(e *cachedBatch) {
	i, found := c.place(e.tenant, e.first)
	if !found {
		return
	}
	c.order.Remove(c.logs[e.tenant][i])
	if c.logs[e.tenant] = slices.Delete(c.logs[e.tenant], i, i+1); len(c.logs[e.tenant]) == 0 {
		delete(c.logs, e.tenant)
	}
	c.size -= e.size
}
