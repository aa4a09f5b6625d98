package embedded

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

// Erase implements store.Log. The data is gone for every reader when it returns; the bytes in older files go with a
// compaction of that place in the background, which a restart takes up again. An event of a parent's log is a reference:
// erasing it there leaves the connected tenant's own event as it is; erasing that one erases both.
func (s *Store) Erase(ctx context.Context, tenant tenantID, seq sequence) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	e := erasing{laneWriter: s.newLaneWriter(s.db.NewBatch())}
	defer e.release()
	done, err := e.apply(tenant, seq)
	if err != nil {
		return err
	}
	if done.batch == nil {
		return errors.Join(s.settled(logs), s.settled(lanes))
	}
	if err := s.await(done); err != nil {
		return err
	}
	s.scrubber.add(s, e.places...)
	return nil
}

type erasing struct {
	*laneWriter
	places  [][]byte // keys whose old values are to leave the files
	changed []*batch // batches as they were
}

func (e *erasing) apply(tenant tenantID, seq sequence) (done pending, err error) {
	s := e.s
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	st, err := e.state(tenant)
	if err != nil {
		return done, err
	}
	first, last := s.span(st)
	bytes := st.bytes // changed under logMu only
	switch {
	case seq == 0 || seq > last:
		return done, store.ErrNotFound
	case seq < first:
		if err := e.kept(tenant, seq); err != nil {
			return done, err
		}
	default:
		b, err := s.batchOf(tenant, seq)
		if err != nil {
			return done, err
		}
		r := &b.records[seq-b.first]
		if !r.event.Erased {
			bytes -= int64(len(r.event.Data))
			e.rewrite(b, seq)
			_ = e.b.Set(tenantKey(spaceHead, tenant), encodeHead(st, first, st.applied, bytes), nil)
		}
		if err := e.copyOf(r); err != nil {
			return done, err
		}
	}
	if e.b.Empty() {
		return done, e.b.Close()
	}
	e.finish()
	done, err = s.apply(e.b, func() {
		e.applied()
		s.heads.mu.Lock()
		st.bytes = bytes
		s.heads.mu.Unlock()
	}, logs, lanes)
	if err == nil {
		for _, b := range e.changed {
			s.cache.forget(b.records[0].event.Tenant, b.first)
		}
	}
	return done, err
}

// rewrite writes a batch without the data of one event.
func (e *erasing) rewrite(b *batch, seq sequence) {
	records := slices.Clone(b.records)
	r := &records[seq-b.first]
	r.event.Data, r.event.Erased = nil, true
	e.put(batchKey(r.event.Tenant, b.last()), records)
	e.changed = append(e.changed, b)
}

// kept erases an event that is only kept, and its copy, and what is left of it in its batch, which stays for those behind it.
func (e *erasing) kept(tenant tenantID, seq sequence) error {
	r, err := e.s.keptRecord(tenant, seq)
	if err != nil {
		return err
	}
	if !r.event.Erased {
		if _, err := e.state(tenant); err != nil {
			return err
		}
		erased := *r
		erased.event.Data, erased.event.Erased = nil, true
		e.laneWriter.kept[tenant] -= int64(len(r.event.Data))
		e.put(seqKey(spaceKept, tenant, seq), []record{erased})
		if err := e.left(tenant, seq); err != nil {
			return err
		}
	}
	return e.copyOf(r)
}

// left erases what is left of an event in its batch, if that is still stored.
func (e *erasing) left(tenant tenantID, seq sequence) error {
	b, err := e.s.storedBatch(tenant, seq)
	switch {
	case errors.Is(err, errMissing):
		return nil
	case err != nil:
		return err
	}
	e.rewrite(b, seq)
	return nil
}

// copyOf erases the copy that the parent keeps of an event.
func (e *erasing) copyOf(r *record) error {
	if r.parentSeq == 0 {
		return nil
	}
	err := e.kept(r.parent, r.parentSeq)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// put writes a batch and marks its place for scrubbing.
func (e *erasing) put(key []byte, records []record) {
	_ = e.b.Set(key, encodeBatch(records), nil)
	_ = e.b.Set(append([]byte{spaceScrub}, key...), nil, nil)
	e.places = append(e.places, key)
}

// scrubber compacts the places of erased data, so that it leaves the files. It runs while there is something to do.
type scrubber struct {
	mu      sync.Mutex
	places  [][]byte
	running bool
	stopped bool
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// maxPlaces bounds the queue; what is beyond it waits for the next start.
const maxPlaces = 10_000

// unscrubbed answers what an earlier run has left.
func (s *Store) unscrubbed() (places [][]byte, err error) {
	err = s.scan([]byte{spaceScrub}, []byte{spaceScrub + 1}, func(key, _ []byte) (bool, error) {
		places = append(places, slices.Clone(key[1:]))
		return len(places) < maxPlaces, nil
	})
	return places, err
}

func (c *scrubber) start(s *Store, places [][]byte) {
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.add(s, places...)
}

func (c *scrubber) add(s *Store, places ...[]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || len(places) == 0 || len(c.places) >= maxPlaces {
		return
	}
	c.places = append(c.places, places...)
	if !c.running {
		c.running = true
		c.done.Add(1)
		go c.run(s)
	}
}

func (c *scrubber) run(s *Store) {
	defer c.done.Done()
	for {
		c.mu.Lock()
		if c.stopped || len(c.places) == 0 {
			c.running = false
			c.mu.Unlock()
			return
		}
		place := c.places[0]
		c.places = c.places[1:]
		c.mu.Unlock()
		if err := s.scrub(c.ctx, place); err != nil && c.ctx.Err() == nil {
			// The next start takes it up again.
			s.logger.Warn("erased data could not be compacted away yet", "error", err)
		}
	}
}

// scrub rewrites the files that hold a place, and has log files that held it removed.
func (s *Store) scrub(ctx context.Context, place []byte) error {
	if err := s.failure(); err != nil {
		return err
	}
	if err := s.fs.forget(); err != nil {
		return err
	}
	err := s.protect("compact", func() error { return s.db.Compact(ctx, place, append(slices.Clone(place), 0), false) })
	if err != nil {
		return err
	}
	if err := s.fs.forgotten(ctx, func() error { return s.protect("flush", s.flush) }); err != nil {
		return err
	}
	b := s.db.NewBatch()
	_ = b.Delete(append([]byte{spaceScrub}, place...), nil)
	return s.commit(b, nil)
}

// stop ends the work; after a failure of the store it waits a bounded time.
func (c *scrubber) stop(failed bool) {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	if c.cancel == nil {
		return
	}
	c.cancel()
	ended := make(chan struct{})
	go func() {
		c.done.Wait()
		close(ended)
	}()
	if !failed {
		<-ended
		return
	}
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}
