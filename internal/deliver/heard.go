package deliver

import (
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// Tells reports whether other nodes have to know of changes of a kind of records: they call Heard then.
func Tells(kind string) bool { return kind == kindOrder }

// Heard takes in that another node has saved a record.
func (e *Engine) Heard(kind, id string) {
	if kind == kindOrder {
		e.Ordered()
		e.OrderDone(id)
	}
}

// Owns reports whether this node delivers for a tenant.
func (e *Engine) Owns(tenant eventhose.TenantID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.shared {
		return true
	}
	m := e.leases.held[store.ShardOf(tenant)]
	return m != nil && m.lasts(time.Now())
}

// Node is what this engine is called among those that have the store open.
func (e *Engine) Node() string { return e.leases.node }

// Leases answers how many of the store's shards this node holds; all of them if it has the store for itself.
func (e *Engine) Leases() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.shared {
		return store.Shards
	}
	n, now := 0, time.Now()
	for _, m := range e.leases.held {
		if m != nil && m.lasts(now) {
			n++
		}
	}
	return n
}
