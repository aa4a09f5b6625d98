package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// Every write is one Pebble batch with a number, the counter, in it. It is applied under a lock, in the order of the
// counter, and then its fsync is awaited without the lock, so that writes that come meanwhile share the next one.
//
// Pebble shows a batch to readers before its fsync. So events are read only up to their log's durable head, and whoever
// reads something else waits until the last applied write of that kind is durable (settled).

// kind says what a write touches that is read without a head.
type kind uint8

const (
	logs kind = iota // read up to the durable head: nobody waits
	lanes
	records
	kinds
)

// commits is the state of the commit path.
type commits struct {
	apply   sync.Mutex // held while a batch is applied
	counter uint64     // of the last applied batch; guarded by apply
	of      [kinds]atomic.Uint64

	mu      sync.Mutex
	moved   sync.Cond
	durable uint64
	err     error // why the store has failed
	failed  atomic.Bool
	told    chan struct{} // closed when OnFatal was told
}

// pending is an applied batch whose fsync is under way.
type pending struct {
	batch   *pebble.Batch
	counter uint64
}

// fail makes the store answer ErrFailed from now on. The first cause is kept. It may be called with Pebble's locks held.
func (s *Store) fail(cause error) {
	c := &s.commits
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = fmt.Errorf("%w: %w", store.ErrFailed, cause)
		c.failed.Store(true)
		s.fs.dead.Store(true)
		c.moved.Broadcast()
	}
	c.mu.Unlock()
	if !first {
		return
	}
	if s.onFatal != nil {
		s.onFatal(cause)
	}
	close(c.told)
}

// failure answers why the store has failed, or nil. Nobody learns it before OnFatal does.
func (s *Store) failure() error {
	c := &s.commits
	if !c.failed.Load() {
		return nil
	}
	<-c.told
	return c.err
}

// apply makes a batch visible to Pebble's readers and starts its fsync. Under the lock, before that, it calls last, which
// may add to the batch and take note of what is now applied. The caller calls await, once.
func (s *Store) apply(b *pebble.Batch, last func(), of ...kind) (p pending, err error) {
	c := &s.commits
	c.apply.Lock()
	defer c.apply.Unlock()
	if err := s.failure(); err != nil {
		return p, err
	}
	for _, k := range of { // before it can be read
		c.of[k].Store(c.counter + 1)
	}
	if last != nil {
		last()
	}
	c.counter++
	err = s.protect("commit", func() error {
		err := b.Set(keyCounter, binary.BigEndian.AppendUint64(nil, c.counter), nil)
		if err == nil {
			err = s.db.ApplyNoSyncWait(b, pebble.Sync)
		}
		if err != nil {
			s.fail(fmt.Errorf("commit: %w", err))
		}
		return err
	})
	if err != nil {
		return p, err
	}
	return pending{b, c.counter}, nil
}

// protect calls into Pebble where a failing log makes it panic; that fails the store.
func (s *Store) protect(what string, do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.fail(fmt.Errorf("%s: %v", what, r))
		}
		if failure := s.failure(); failure != nil {
			err = failure
		}
	}()
	return do()
}

// await returns when the batch is durable.
func (s *Store) await(p pending) error {
	if err := p.batch.SyncWait(); err != nil {
		s.fail(fmt.Errorf("commit: %w", err))
	}
	if err := s.failure(); err != nil {
		return err
	}
	c := &s.commits
	c.mu.Lock()
	if p.counter > c.durable {
		c.durable = p.counter
		c.moved.Broadcast()
	}
	c.mu.Unlock()
	_ = p.batch.Close()
	s.attestLater()
	return nil
}

// commit applies a batch and waits until it is durable.
func (s *Store) commit(b *pebble.Batch, last func(), of ...kind) error {
	p, err := s.apply(b, last, of...)
	if err != nil {
		return err
	}
	return s.await(p)
}

// settled waits until what was read of a kind is durable: call it after the read.
func (s *Store) settled(k kind) error {
	c := &s.commits
	want := c.of[k].Load()
	c.mu.Lock()
	for c.durable < want && c.err == nil {
		c.moved.Wait()
	}
	c.mu.Unlock()
	return s.failure()
}

// begin takes part in the store being open; end ends it.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.open.RLock()
	if s.closed {
		s.open.RUnlock()
		return fmt.Errorf("%w: the store is closed", store.ErrUnavailable)
	}
	if err := s.failure(); err != nil {
		s.open.RUnlock()
		return err
	}
	return nil
}

func (s *Store) end() { s.open.RUnlock() }

// get answers a copy of a value; pebble.ErrNotFound if there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	value, closer, err := s.db.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, pebble.ErrNotFound
		}
		return nil, s.readError(err)
	}
	defer func() { _ = closer.Close() }() // the value is copied
	return append([]byte(nil), value...), nil
}

// getSequence answers a number, 0 if there is none.
func (s *Store) getSequence(key []byte) (sequence, error) {
	value, err := s.get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(value) != 8:
		return 0, corrupt(fmt.Sprintf("row %x", key), row.ErrMalformed)
	}
	return sequence(binary.BigEndian.Uint64(value)), nil
}

func encodeSequence(seq sequence) []byte { return binary.BigEndian.AppendUint64(nil, uint64(seq)) }

// scan calls each for the rows from lower to upper until it answers false. Keys and values are only good within each.
func (s *Store) scan(lower, upper []byte, each func(key, value []byte) (bool, error)) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return s.readError(err)
	}
	return s.drain(it, it.First(), each)
}

// drain calls each for the row that an iterator is at, if ok, and those behind it, and closes it.
func (s *Store) drain(it *pebble.Iterator, ok bool, each func(key, value []byte) (bool, error)) error {
	for ; ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			_ = it.Close()
			return s.readError(err)
		}
		if more, err := each(it.Key(), value); err != nil || !more {
			_ = it.Close()
			return err
		}
	}
	if err := it.Close(); err != nil {
		return s.readError(err)
	}
	return nil
}

// corrupt says where stored data does not decode.
func corrupt(where string, err error) error {
	return fmt.Errorf("%w: %s: %w", store.ErrCorrupt, where, err)
}

// readError turns an error of Pebble's reading into ours.
func (s *Store) readError(err error) error {
	if failure := s.failure(); failure != nil {
		return failure // what Pebble answers after that is its consequence
	}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return fmt.Errorf("%w: %s: %w", store.ErrCorrupt, info.Path, err)
	}
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return fmt.Errorf("read: %w", err)
}
