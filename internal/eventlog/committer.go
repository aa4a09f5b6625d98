package eventlog

// Group commit. While one group waits for its fsync the next one gathers, so that the cost of a sync is shared by all who
// came in the meantime. What has gathered does not wait for that fsync if there is so much of it that it is worth one of
// its own: then it is put together while the disk works. The group is filled tenant by tenant in turns, with a bound on
// what each may bring, so that a tenant that floods the queue delays the others by one turn and no more.

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	groupBytes  = 4 << 20   // of one group
	aheadBytes  = 1 << 20   // of a group that does not wait for the one before
	inFlight    = 2         // groups at once
	turnBytes   = 512 << 10 // of one tenant in one turn
	queueBytes  = 64 << 20  // waiting in all
	tenantBytes = 32 << 20  // waiting of one tenant
	eventCost   = 256       // what an event costs beside its data
)

type committer struct {
	store    store.Log
	appended func(eventhose.TenantID)

	mu      sync.Mutex
	moved   sync.Cond // signalled when there may be something to do
	tenants map[eventhose.TenantID]*tenantQueue
	turn    []*tenantQueue // those with requests, in the order of their turns
	size    int
	flying  int // groups that the store has not answered
	closed  bool
	workers sync.WaitGroup
}

type tenantQueue struct {
	id       eventhose.TenantID
	requests []*request
	size     int
}

type request struct {
	entry store.Append
	size  int
	// state goes from waiting to taken (by the committer) or left (by its caller), once.
	state  atomic.Int32
	result store.AppendResult
	err    error
	done   chan struct{}
}

const (
	waiting int32 = iota
	taken
	left
)

func newCommitter(st store.Log, appended func(eventhose.TenantID)) *committer {
	c := &committer{store: st, appended: appended, tenants: map[eventhose.TenantID]*tenantQueue{}}
	c.moved.L = &c.mu
	for range inFlight {
		c.workers.Go(c.run)
	}
	return c
}

// append waits until the entry is durable. If ctx ends before the entry is taken into a group it is not appended; if it
// ends later nobody knows.
func (c *committer) append(ctx context.Context, entry store.Append, size int) (store.AppendResult, error) {
	r := &request{entry: entry, size: size + eventCost*len(entry.Events), done: make(chan struct{})}
	if err := c.enqueue(r); err != nil {
		return store.AppendResult{}, err
	}
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, left) {
			return store.AppendResult{}, ctx.Err()
		}
	}
	// It is being committed; that has an end of its own, and the answer is worth having.
	<-r.done
	return r.result, r.err
}

func (c *committer) enqueue(r *request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.tenants[r.entry.Tenant]
	switch {
	case c.closed:
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "this node is stopping", RetryAfter: time.Second}
	case c.size+r.size > queueBytes && c.size > 0, q != nil && q.size+r.size > tenantBytes:
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "too many appends are waiting", Fix: "try again, and append in batches", RetryAfter: time.Second}
	}
	if q == nil {
		q = &tenantQueue{id: r.entry.Tenant}
		c.tenants[q.id] = q
		c.turn = append(c.turn, q)
	}
	q.requests = append(q.requests, r)
	q.size += r.size
	c.size += r.size
	c.moved.Signal()
	return nil
}

func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.moved.Broadcast()
	c.mu.Unlock()
	c.workers.Wait()
}

// run takes groups into the store until the committer is closed and nothing waits.
func (c *committer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(c.turn) > 0 && (c.flying == 0 || c.size >= aheadBytes):
			group := c.gather()
			c.flying++
			c.mu.Unlock()
			c.commit(group)
			c.mu.Lock()
			c.flying--
		case c.closed && len(c.turn) == 0:
			c.moved.Broadcast() // the other may wait for what is gone
			return
		default:
			c.moved.Wait()
		}
	}
}

// commit takes one group into the store and answers its requests.
func (c *committer) commit(group []*request) {
	if len(group) == 0 {
		return
	}
	entries := make([]store.Append, len(group))
	for i, r := range group {
		entries[i] = r.entry
	}
	results, err := c.store.Append(context.Background(), entries)
	told := map[eventhose.TenantID]bool{}
	for i, r := range group {
		if r.err = err; err == nil {
			r.result = results[i]
		}
		close(r.done) // who appends goes first, then who waits to read
	}
	for _, r := range group {
		for _, tenant := range [...]eventhose.TenantID{r.entry.Tenant, r.entry.Parent} {
			if err == nil && tenant != "" && r.result.Err == nil && !told[tenant] {
				told[tenant] = true
				c.appended(tenant)
			}
		}
	}
}

// gather takes requests in turns until the group is full or nothing waits. c.mu is held.
func (c *committer) gather() []*request {
	var group []*request
	for total := 0; len(c.turn) > 0 && total < groupBytes; {
		q := c.turn[0]
		c.turn = c.turn[1:]
		n, bytes := 0, 0
		for n < len(q.requests) && (n == 0 || bytes+q.requests[n].size <= turnBytes) {
			bytes += q.requests[n].size
			n++
		}
		for _, r := range q.requests[:n] {
			if r.state.CompareAndSwap(waiting, taken) {
				group = append(group, r)
				total += r.size
			}
		}
		clear(q.requests[:n])
		q.requests = q.requests[n:]
		q.size -= bytes
		c.size -= bytes
		if len(q.requests) > 0 {
			c.turn = append(c.turn, q)
		} else {
			delete(c.tenants, q.id)
		}
	}
	return group
}
