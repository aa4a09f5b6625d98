package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// Head implements store.Log.
func (s *Store) Head(ctx context.Context, tenant tenantID) (eventhose.Head, error) {
	if err := s.begin(ctx); err != nil {
		return eventhose.Head{}, err
	}
	defer s.end()
	st, err := s.state(tenant)
	if err != nil {
		return eventhose.Head{}, err
	}
	defer s.release(st)
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	return eventhose.Head{Incarnation: st.inc, First: st.first, Last: st.durable, Forks: st.forks}, nil
}

// Read implements store.Log. The events belong to batches that all readers share.
func (s *Store) Read(ctx context.Context, tenant tenantID, after sequence, limit store.ReadLimit) ([]*eventhose.Event, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	st, err := s.state(tenant)
	if err != nil {
		return nil, err
	}
	defer s.release(st)
	first, last := s.span(st)
	if after+1 < first {
		return nil, fmt.Errorf("%w: log %s begins at %d", store.ErrTrimmed, tenant, first)
	}
	if after >= last {
		return nil, nil
	}
	p := page{s: s, tenant: tenant, limit: limit, next: after + 1, last: last}
	defer p.close()
	for !p.full && p.next <= p.last {
		if err := ctx.Err(); err != nil && len(p.events) == 0 {
			return nil, err
		} else if err != nil {
			break
		}
		b, err := p.batch()
		if err != nil {
			// What is missing may have been trimmed meanwhile.
			if now, _ := s.span(st); p.next < now && errors.Is(err, errMissing) {
				if len(p.events) > 0 {
					break
				}
				return nil, fmt.Errorf("%w: log %s begins at %d", store.ErrTrimmed, tenant, now)
			}
			return nil, err
		}
		if err := p.add(b); err != nil {
			return nil, err
		}
	}
	return p.events, nil
}

// errMissing: a sequence between first and last is in no batch.
var errMissing = errors.New("no record batch holds it")

// page is one call of Read.
type page struct {
	s      *Store
	tenant tenantID
	limit  store.ReadLimit
	next   sequence
	last   sequence
	events []*eventhose.Event
	bytes  int
	full   bool
	it     *pebble.Iterator
	epoch  uint64 // of the cache, when it was made
}

func (p *page) close() {
	if p.it != nil {
		_ = p.it.Close()
	}
}

// batch answers the record batch that holds next.
func (p *page) batch() (*batch, error) {
	b, epoch := p.s.cache.get(p.tenant, p.next)
	if b != nil {
		return b, nil
	}
	if p.it == nil {
		p.epoch = epoch // it shows what there is now, of batches that are read later too
		var err error
		if p.it, err = p.s.db.NewIter(&pebble.IterOptions{LowerBound: batchKey(p.tenant, p.next), UpperBound: end(prefix(spaceBatch, p.tenant, 0))}); err != nil {
			return nil, p.s.readError(err)
		}
	}
	return p.s.batchAt(p.it, p.tenant, p.next, p.epoch)
}

// batchAt reads the record batch that holds seq and keeps it in the cache.
func (s *Store) batchAt(it *pebble.Iterator, tenant tenantID, seq sequence, epoch uint64) (*batch, error) {
	b, err := s.readBatch(it, tenant, seq)
	if err == nil {
		s.cache.put(b, epoch)
	}
	return b, err
}

// readBatch reads the record batch that holds seq.
func (s *Store) readBatch(it *pebble.Iterator, tenant tenantID, seq sequence) (*batch, error) {
	where := func() string { return fmt.Sprintf("log %s, sequence %d", tenant, seq) }
	if !it.SeekGE(batchKey(tenant, seq)) {
		if err := it.Error(); err != nil {
			return nil, s.readError(err)
		}
		return nil, corrupt(where(), errMissing)
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return nil, s.readError(err)
	}
	b, err := decodeBatch(tenant, value)
	if err != nil {
		return nil, corrupt(where(), err)
	}
	if last, _ := seqAt(it.Key(), len(it.Key())-8); b.last() != last {
		return nil, corrupt(where(), row.ErrMalformed)
	}
	if b.first > seq {
		return nil, corrupt(where(), errMissing)
	}
	return b, nil
}

// add takes the events of a batch into the page.
func (p *page) add(b *batch) error {
	for i := int(p.next - b.first); i < len(b.records) && p.next <= p.last; i++ {
		e := &b.records[i].event
		if e.Origin != (eventhose.Origin{}) && !e.Erased {
			resolved, err := p.s.resolve(e)
			if err != nil {
				return err
			}
			e = resolved
		}
		if len(p.events) > 0 && (len(p.events) >= p.limit.Events || p.bytes+e.Size() > p.limit.Bytes) {
			p.full = true
			return nil
		}
		p.events = append(p.events, e)
		p.bytes += e.Size()
		p.next++
	}
	p.full = len(p.events) >= p.limit.Events
	return nil
}

// resolve answers a copy of a reference with the data of the event that it refers to, erased if that is gone.
func (s *Store) resolve(e *eventhose.Event) (*eventhose.Event, error) {
	c := *e
	r, err := s.recordAt(e.Origin.Tenant, e.Origin.Sequence)
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.Erased = true
	case err != nil:
		return nil, err
	default:
		c.Data, c.Erased = r.event.Data, r.event.Erased
	}
	return &c, nil
}

// recordAt answers what stands at a place, also when it is only kept. ErrNotFound beyond the durable head.
func (s *Store) recordAt(tenant tenantID, seq sequence) (*record, error) {
	st, err := s.state(tenant)
	if err != nil {
		return nil, err
	}
	defer s.release(st)
	s.heads.mu.Lock()
	first, last := st.first, st.durable
	if st.trimming > 0 {
		first = st.trimming // what it keeps aside cannot be read before it is written
	}
	s.heads.mu.Unlock()
	switch {
	case seq == 0 || seq > last:
		return nil, store.ErrNotFound
	case seq < first:
		return s.keptAt(tenant, seq)
	}
	b, err := s.batchOf(tenant, seq)
	if err == nil {
		return &b.records[seq-b.first], nil
	}
	if now, _ := s.span(st); seq < now && errors.Is(err, errMissing) {
		return s.keptAt(tenant, seq) // retention has taken it meanwhile
	}
	return nil, err
}

// batchOf answers the record batch that holds a sequence.
func (s *Store) batchOf(tenant tenantID, seq sequence) (*batch, error) {
	b, epoch := s.cache.get(tenant, seq)
	if b != nil {
		return b, nil
	}
	b, err := s.storedBatch(tenant, seq)
	if err == nil {
		s.cache.put(b, epoch)
	}
	return b, err
}

// storedBatch is batchOf without the cache, which may still have what retention has removed.
func (s *Store) storedBatch(tenant tenantID, seq sequence) (*batch, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: batchKey(tenant, seq), UpperBound: end(prefix(spaceBatch, tenant, 0))})
	if err != nil {
		return nil, s.readError(err)
	}
	defer func() { _ = it.Close() }() // what it has met it has told when it was read
	return s.readBatch(it, tenant, seq)
}

// keptAt answers the copy of a parked event that the log no longer holds.
func (s *Store) keptAt(tenant tenantID, seq sequence) (*record, error) {
	r, err := s.keptRecord(tenant, seq)
	if err != nil {
		return nil, err
	}
	return r, s.settled(lanes)
}

func (s *Store) keptRecord(tenant tenantID, seq sequence) (*record, error) {
	value, err := s.get(seqKey(spaceKept, tenant, seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return decodeKept(tenant, seq, value)
}

func decodeKept(tenant tenantID, seq sequence, value []byte) (*record, error) {
	b, err := decodeBatch(tenant, value)
	if err != nil || b.first != seq || len(b.records) != 1 {
		return nil, corrupt(fmt.Sprintf("kept event of log %s, sequence %d", tenant, seq), errors.Join(row.ErrMalformed, err))
	}
	b.records[0].aside = true
	return &b.records[0], nil
}

// Lookup implements store.Log.
func (s *Store) Lookup(ctx context.Context, tenant tenantID, ref store.Ref) (*eventhose.Event, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	r, err := s.lookup(tenant, ref)
	if err != nil {
		return nil, err
	}
	if r.event.Origin != (eventhose.Origin{}) && !r.event.Erased && !r.aside {
		return s.resolve(&r.event)
	}
	return &r.event, nil
}

func (s *Store) lookup(tenant tenantID, ref store.Ref) (*record, error) {
	if ref.Sequence != 0 {
		return s.recordAt(tenant, ref.Sequence)
	}
	is := func(seq sequence) (*record, error) {
		r, err := s.recordAt(tenant, seq)
		if err == nil && (r.event.ID != ref.ID || r.event.Scope != ref.Scope) {
			return nil, store.ErrNotFound
		}
		return r, err
	}
	if seq, ok := eventhose.EventIDSequence(ref.ID); ok {
		if r, err := is(seq); !errors.Is(err, store.ErrNotFound) {
			return r, err
		}
	}
	value, err := s.get(idKey(tenant, ref.Scope, ref.ID))
	if err == nil {
		var known remembered
		if known, err = decodeRemembered(value); err != nil {
			return nil, corrupt("id in log "+string(tenant), err)
		}
		if r, err := is(known.seq); !errors.Is(err, store.ErrNotFound) {
			return r, err
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return nil, err
	}
	return s.lookupFurther(tenant, ref, is)
}

// lookupFurther finds references and kept events, the newest one of that id that there is.
func (s *Store) lookupFurther(tenant tenantID, ref store.Ref, is func(sequence) (*record, error)) (*record, error) {
	lower := furtherPrefix(tenant, ref.Scope, ref.ID)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: end(lower)})
	if err != nil {
		return nil, s.readError(err)
	}
	defer func() { _ = it.Close() }() // what it has met it has told when it was read
	for ok := it.Last(); ok; ok = it.Prev() {
		if len(it.Key()) != len(lower)+8 {
			continue
		}
		if r, err := is(sequence(binary.BigEndian.Uint64(it.Key()[len(lower):]))); !errors.Is(err, store.ErrNotFound) {
			return r, err
		}
	}
	if err := it.Error(); err != nil {
		return nil, s.readError(err)
	}
	return nil, store.ErrNotFound
}
