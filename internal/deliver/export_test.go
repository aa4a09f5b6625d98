package deliver

import "github.com/eventhose/eventhose"

// Evaluated counts the filters that matching has looked at for a tenant.
func (e *Engine) Evaluated(id eventhose.TenantID) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tenant(id).index.Evaluated()
}

// InMemory counts a tenant's lanes in memory.
func (e *Engine) InMemory(id eventhose.TenantID) int {
	e.mu.Lock()
	t := e.tenant(id)
	e.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.lanes)
}
