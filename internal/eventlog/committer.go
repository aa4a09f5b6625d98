package eventlog

// Group commit. While one group waits for its fsync the next one gathers, so that the cost of a sync is shared by all who
// came in the meantime. What has gathered does not wait for that fsync if there is so much of it that it is worth one of
// its own: then it is put together while the disk works. The group is filled tenant by tenant in turns, with a bound on
// what each may bring, so that a tenant that floods the queue delays the others by one turn and no more.
//
// A log may be held by somebody else: another node, or who keeps the store up. The store answers the requests that are for it at once, undone; they
// go back to the front of their tenant's queue, and that queue waits with others of its kind for flights of their own, of which there
// is one at a time. So a log that is held for long takes no flight from the others, and its requests keep their order.

import (
	"cmp"
	"context"
	"errors"
	"slices"
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

	// busyFor is how long a request lets the store find its log held by somebody else.
	busyFor = 10 * time.Second
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
	queued  uint64         // requests that ever were
	busy    []*tenantQueue // those whose logs somebody else holds, in the order of their turns; and those in the flight of such
	inVain  bool           // whose turn it was of these: of one that was waited for in vain, or of the others
	freed   sync.Cond      // signalled when there may be something to do for these
	workers sync.WaitGroup
}

type tenantQueue struct {
	id       eventhose.TenantID
	requests []*request
	size     int
	busy     bool // in the committer's list of them
	held     bool // the log was waited for in vain
}

type request struct {
	entry  store.Append
	size   int
	number uint64 // in the order in which they came
	since  time.Time
	// state goes from waiting to taken (by the committer) or left (by its caller). From taken it goes back to waiting if nothing
	// came of that, or to leaving if its caller would rather leave then.
	state  atomic.Int32
	result store.AppendResult
	err    error
	done   chan struct{}
}

const (
	waiting int32 = iota
	taken
	left
	leaving
)

// errLeft is what a request is answered whose caller was leaving.
var errLeft = errors.New("left")

func newCommitter(st store.Log, appended func(eventhose.TenantID)) *committer {
	c := &committer{store: st, appended: appended, tenants: map[eventhose.TenantID]*tenantQueue{}}
	c.moved.L, c.freed.L = &c.mu, &c.mu
	for range inFlight {
		c.workers.Go(c.run)
	}
	c.workers.Go(c.runBusy)
	return c
}

// append waits until the entry is durable. If ctx ends before the entry is taken into a group, or while somebody else holds its
// log, it is not appended; if it ends later nobody knows.
func (c *committer) append(ctx context.Context, entry store.Append, size int) (store.AppendResult, error) {
	entry.Skip = true
	r := &request{entry: entry, size: size, since: time.Now(), done: make(chan struct{})}
	if err := c.enqueue(r); err != nil {
		return store.AppendResult{}, err
	}
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
		for !r.state.CompareAndSwap(taken, leaving) {
			if r.state.CompareAndSwap(waiting, left) {
				return store.AppendResult{}, ctx.Err()
			}
		}
	}
	// It is being committed; that has an end of its own, and the answer is worth having.
	if <-r.done; errors.Is(r.err, errLeft) {
		return store.AppendResult{}, ctx.Err()
	}
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
	c.queued++
	r.number = c.queued
	q.requests = append(q.requests, r)
	q.size += r.size
	c.size += r.size
	if c.due() {
		c.moved.Signal()
	}
	return nil
}

func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.wake()
	c.mu.Unlock()
	c.workers.Wait()
}

// wake has every worker look again. c.mu is held.
func (c *committer) wake() {
	c.moved.Broadcast()
	c.freed.Broadcast()
}

// ended reports whether nothing will be to do any more: what flies may come back. c.mu is held.
func (c *committer) ended() bool {
	return c.closed && len(c.turn) == 0 && len(c.busy) == 0 && c.flying == 0
}

// ready is the size of what may go. c.mu is held.
func (c *committer) ready() int {
	size := c.size
	for _, q := range c.busy {
		size -= q.size
	}
	return size
}

// due reports whether a group is to go. c.mu is held.
func (c *committer) due() bool {
	return len(c.turn) > 0 && (c.flying == 0 || c.ready() >= aheadBytes)
}

// run takes groups into the store until the committer is closed and nothing waits.
func (c *committer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.due():
			group := c.gather()
			c.flying++
			c.mu.Unlock()
			busy := c.commit(group)
			c.mu.Lock()
			c.flying--
			c.putBack(group, busy)
		case c.ended():
			c.wake() // the others may wait for what is gone
			return
		default:
			c.moved.Wait()
		}
	}
}

// runBusy is run for those whose logs somebody else holds.
func (c *committer) runBusy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(c.busy) > 0:
			group, queues := c.gatherBusy()
			c.mu.Unlock()
			busy := c.commit(group)
			c.mu.Lock()
			c.settle(queues, busy)
			c.putBack(group, busy)
		case c.ended():
			c.wake()
			return
		default:
			c.freed.Wait()
		}
	}
}

// commit takes one group into the store and answers its requests, but for those whose logs somebody else holds: these it returns.
func (c *committer) commit(group []*request) (busy []*request) {
	if len(group) == 0 {
		return nil
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
		if errors.Is(r.result.Err, store.ErrBusy) {
			busy = append(busy, r)
			continue
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
	return busy
}

// putBack puts requests of a group back into their queues, whose logs somebody else holds, or answers them if that has been so for too long. The
// group's first log was waited for. c.mu is held.
func (c *committer) putBack(group, busy []*request) {
	for _, r := range busy {
		vain := busy[0] == group[0] && r.entry.Tenant == group[0].entry.Tenant
		if time.Since(r.since) >= busyFor || c.closed && vain {
			r.err = &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "somebody else holds this log", Fix: "try again", RetryAfter: time.Second, Err: store.ErrBusy}
			close(r.done)
			continue
		}
		r.result = store.AppendResult{}
		if !r.state.CompareAndSwap(taken, waiting) {
			r.err = errLeft
			close(r.done)
			continue
		}
		q := c.tenants[r.entry.Tenant]
		if q == nil {
			q = &tenantQueue{id: r.entry.Tenant}
			c.tenants[q.id] = q
		}
		if !q.busy {
			q.busy = true
			c.turn = slices.DeleteFunc(c.turn, func(other *tenantQueue) bool { return other == q })
			c.busy = append(c.busy, q)
		}
		q.held = q.held || vain
		i, _ := slices.BinarySearchFunc(q.requests, r.number, func(other *request, number uint64) int { return cmp.Compare(other.number, number) })
		q.requests = slices.Insert(q.requests, i, r)
		q.size += r.size
		c.size += r.size
	}
	if len(busy) > 0 || c.closed {
		c.wake()
	}
}

// gatherBusy takes requests whose logs somebody else holds: by turns those of one tenant whose log was waited for in vain, and those of all the
// other tenants together, since whoever lets go of one log has mostly held others. c.mu is held.
func (c *committer) gatherBusy() (group []*request, queues []*tenantQueue) {
	total := 0
	c.inVain = !c.inVain
	for range 2 {
		for _, q := range c.busy {
			if q.held == c.inVain && (len(queues) == 0 || !q.held && total < groupBytes) {
				group, total = c.take(q, group, total)
				queues = append(queues, q)
			}
		}
		if len(queues) > 0 {
			break
		}
		c.inVain = !c.inVain
	}
	return group, queues
}

// settle has queues that have flown go on: with the others if nothing of them comes back, and else behind those of their kind. c.mu is held.
func (c *committer) settle(queues []*tenantQueue, busy []*request) {
	for _, q := range queues {
		c.busy = slices.DeleteFunc(c.busy, func(other *tenantQueue) bool { return other == q })
		switch {
		case slices.ContainsFunc(busy, func(r *request) bool { return r.entry.Tenant == q.id }):
			c.busy = append(c.busy, q)
		case len(q.requests) > 0:
			q.busy, q.held = false, false
			c.turn = append(c.turn, q)
		default:
			delete(c.tenants, q.id)
		}
	}
	c.wake()
}

// gather takes requests in turns until the group is full or nothing waits. c.mu is held.
func (c *committer) gather() (group []*request) {
	for total := 0; len(c.turn) > 0 && total < groupBytes; {
		q := c.turn[0]
		c.turn = c.turn[1:]
		group, total = c.take(q, group, total)
		if len(q.requests) > 0 {
			c.turn = append(c.turn, q)
		} else {
			delete(c.tenants, q.id)
		}
	}
	return group
}

// take takes what a tenant may bring in one turn into a group, of total bytes so far. c.mu is held.
func (c *committer) take(q *tenantQueue, group []*request, total int) ([]*request, int) {
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
	return group, total
}
