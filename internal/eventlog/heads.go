package eventlog

import (
	"sync"

	"github.com/eventhose/eventhose"
)

// heads wakes those who wait for a log to grow. It holds an entry only for logs that somebody waits for, and says
// nothing but "read again".
type heads struct {
	mu      sync.Mutex
	waiting map[eventhose.TenantID]*watch
}

type watch struct {
	moved   chan struct{}
	readers int
}

// watch answers a channel that closes when the log grows after this call; done must be called once.
func (h *heads) watch(tenant eventhose.TenantID) (moved <-chan struct{}, done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting == nil {
		h.waiting = map[eventhose.TenantID]*watch{}
	}
	w := h.waiting[tenant]
	if w == nil {
		w = &watch{moved: make(chan struct{})}
		h.waiting[tenant] = w
	}
	w.readers++
	return w.moved, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if w.readers--; w.readers == 0 && h.waiting[tenant] == w {
			delete(h.waiting, tenant)
		}
	}
}

func (h *heads) wake(tenant eventhose.TenantID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.waiting[tenant]; w != nil {
		delete(h.waiting, tenant)
		close(w.moved)
	}
}

// wakeAll has everybody look again.
func (h *heads) wakeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.waiting {
		close(w.moved)
	}
	clear(h.waiting)
}
