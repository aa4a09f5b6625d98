package follow

import (
	"context"
	"slices"
	"sync"

	"github.com/eventhose/eventhose"
)

// turns is a lock that tenants get in turns, whatever each has waiting for it.
type turns struct {
	mu   sync.Mutex
	held bool
	line []eventhose.TenantID // that have somebody waiting, whose turn is next first
	of   map[eventhose.TenantID][]chan struct{}
}

func newTurns() *turns { return &turns{of: map[eventhose.TenantID][]chan struct{}{}} }

// take waits for a turn, which must be passed on, and answers false if ctx ends first.
func (t *turns) take(ctx context.Context, tenant eventhose.TenantID) bool {
	if ctx.Err() != nil {
		return false
	}
	t.mu.Lock()
	if !t.held {
		t.held = true
		t.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	t.add(tenant, append(t.of[tenant], mine))
	t.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-ctx.Done():
		t.leave(tenant, mine)
		return false
	}
}

// add says who of a tenant waits. t.mu is held.
func (t *turns) add(tenant eventhose.TenantID, waiting []chan struct{}) {
	if _, there := t.of[tenant]; !there {
		t.line = append(t.line, tenant)
	}
	t.of[tenant] = waiting
}

// leave gives up waiting, or passes on the turn that has come in the same moment.
func (t *turns) leave(tenant eventhose.TenantID, mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting := t.of[tenant]
	i := slices.Index(waiting, mine)
	switch {
	case i < 0:
		t.next()
	case len(waiting) == 1:
		delete(t.of, tenant)
		t.line = slices.DeleteFunc(t.line, func(other eventhose.TenantID) bool { return other == tenant })
	default:
		t.of[tenant] = slices.Delete(waiting, i, i+1)
	}
}

// pass gives the turn to the next.
func (t *turns) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

func (t *turns) next() {
	if len(t.line) == 0 {
		t.held = false
		return
	}
	tenant := t.line[0]
	t.line = t.line[1:]
	waiting := t.of[tenant]
	delete(t.of, tenant)
	if len(waiting) > 1 {
		t.add(tenant, waiting[1:])
	}
	close(waiting[0])
}
