package egress

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// maxConnsPerHost bounds the connections to one place, in use or idle, unless a client may have more; who wants one more waits for
	// one to come free. It is as many as there are attempts at once: with fewer, what hangs at one path of a host would hold up its
	// other paths.
	maxConnsPerHost = 1024
	// maxIdleConns bounds the idle ones to all places. There is no smaller bound for one place: with as many attempts
	// under way as there are connections, it would close what is wanted again at once.
	maxIdleConns = 2048
	// idleTimeout is below the 5 s after which common servers close: a request that meets a closing connection has failed,
	// and is a failed attempt.
	idleTimeout = 4 * time.Second
)

// pool keeps connections between exchanges. The one that was used last is taken first, so that those which are not needed
// grow old and are closed.
type pool struct {
	most int // connections to one place

	mu     sync.Mutex
	hosts  map[place]*host
	closed bool

	// Idle connections in the order in which they were put back.
	oldest, newest *conn
	idle           int

	expiring bool // timer is set, and closing counts it
	timer    *time.Timer
	closing  sync.WaitGroup
}

// host is the connections to one place.
type host struct {
	place   place
	conns   int     // in use or idle
	idle    []*conn // the one that was used last at the end
	waiting []chan *conn
}

// take answers a connection to a place: a kept one, or a conn to be opened. It is given back by put or drop.
func (p *pool) take(ctx context.Context, to place, deadline time.Time) (*conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	h := p.hosts[to]
	if h == nil {
		if p.hosts == nil {
			p.hosts = make(map[place]*host)
		}
		h = &host{place: to}
		p.hosts[to] = h
	}
	if last := len(h.idle) - 1; last >= 0 {
		c := h.idle[last]
		p.unlink(c, last)
		p.mu.Unlock()
		return c.fresh(), nil
	}
	if h.conns < p.most {
		h.conns++
		p.mu.Unlock()
		return &conn{host: h}, nil
	}
	turn := make(chan *conn, 1)
	h.waiting = append(h.waiting, turn)
	p.mu.Unlock()

	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	var err error
	select {
	case c := <-turn:
		return c.fresh(), nil
	case <-timer.C:
		err = os.ErrDeadlineExceeded
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	i := slices.Index(h.waiting, turn)
	if i >= 0 {
		h.waiting = slices.Delete(h.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 {
		p.put(<-turn) // it came at the last moment
	}
	return nil, err
}

// fresh closes a kept connection that the other side has closed, or has sent something on that nobody asked for; then it
// is to be opened.
func (c *conn) fresh() *conn {
	if c.raw != nil && !c.silent() {
		c.close()
	}
	return c
}

// put gives back a connection after an exchange: to who waits for one, else to be kept.
func (p *pool) put(c *conn) {
	if !c.clean {
		p.drop(c)
		return
	}
	p.mu.Lock()
	h := c.host
	c.since = time.Now()
	switch {
	case p.closed:
		p.mu.Unlock()
		p.drop(c)
		return
	case len(h.waiting) > 0:
		h.next() <- c
		p.mu.Unlock()
		return
	}
	h.idle = append(h.idle, c)
	c.older = p.newest
	if p.newest != nil {
		p.newest.newer = c
	} else {
		p.oldest = c
	}
	p.newest = c
	p.idle++
	var evicted *conn
	if p.idle > maxIdleConns {
		evicted = p.oldest
		p.unlink(evicted, 0)
		p.leave(evicted.host)
	}
	p.expireLater()
	p.mu.Unlock()
	if evicted != nil {
		evicted.close()
	}
}

// drop closes a connection that is in use. Its place goes to who waits for one.
func (p *pool) drop(c *conn) {
	c.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := c.host; len(h.waiting) > 0 {
		h.next() <- c
	} else {
		p.leave(h)
	}
}

// next answers whose turn it is. Its channel has room.
func (h *host) next() chan *conn {
	turn := h.waiting[0]
	h.waiting = slices.Delete(h.waiting, 0, 1)
	return turn
}

// unlink takes an idle connection, which stands at i of its host's, out of what is idle.
func (p *pool) unlink(c *conn, i int) {
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.newer = nil, nil
	p.idle--
	c.host.idle = slices.Delete(c.host.idle, i, i+1)
}

// leave counts down a host's connections, and forgets it with the last.
func (p *pool) leave(h *host) {
	if h.conns--; h.conns == 0 {
		delete(p.hosts, h.place)
	}
}

// expireLater has expire called when the oldest idle connection is due.
func (p *pool) expireLater() {
	if p.expiring || p.closed || p.oldest == nil {
		return
	}
	p.expiring = true
	p.closing.Add(1)
	p.timer = time.AfterFunc(time.Until(p.oldest.since.Add(idleTimeout)), p.expire)
}

func (p *pool) expire() {
	defer p.closing.Done()
	p.mu.Lock()
	p.expiring = false
	due := p.takeIdle(func(c *conn) bool { return time.Since(c.since) >= idleTimeout })
	p.expireLater()
	p.mu.Unlock()
	for _, c := range due {
		c.close()
	}
}

// takeIdle takes out idle connections, the oldest first, for as long as want says so.
func (p *pool) takeIdle(want func(*conn) bool) (all []*conn) {
	for c := p.oldest; c != nil && want(c); c = p.oldest {
		p.unlink(c, 0) // the oldest of all is the oldest of its host
		p.leave(c.host)
		all = append(all, c)
	}
	return all
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.expiring && p.timer.Stop() {
		p.expiring = false
		p.closing.Done()
	}
	all := p.takeIdle(func(*conn) bool { return true })
	p.mu.Unlock()
	for _, c := range all {
		c.close()
	}
	p.closing.Wait()
}
