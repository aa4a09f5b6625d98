package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	maxRecord = 256 << 10
	// sweepRows is how many expired records a save removes beside its own work.
	sweepRows = 64
)

func encodeRecord(r *store.Record) []byte {
	w := row.Writer{B: make([]byte, 0, 32+len(r.Value))}
	w.Byte(row.Version)
	w.Uint(r.Version)
	w.Time(r.Expires)
	w.Bytes(r.Value)
	return w.B
}

func decodeRecord(tenant tenantID, kind, id string, value []byte) (store.Record, error) {
	r := row.Reader{B: value}
	r.Version()
	rec := store.Record{Tenant: tenant, Kind: kind, ID: id, Version: r.Uint(), Expires: r.Time(), Value: r.Bytes()}
	return rec, r.Done()
}

func expired(r *store.Record, now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

func expiryKey(expires time.Time, record []byte) []byte {
	// Seconds since year 1, so that they sort; within a second the order does not matter.
	return append(binary.BigEndian.AppendUint64([]byte{spaceExpiry}, uint64(expires.Unix()-(time.Time{}).Unix())), record...)
}

// record reads a stored record, also an expired one.
func (s *Store) record(tenant tenantID, kind, id string) (store.Record, error) {
	value, err := s.get(recordKey(tenant, kind, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, err
	}
	r, err := decodeRecord(tenant, kind, id, value)
	if err != nil {
		return r, corrupt(fmt.Sprintf("record %s %s of %q", kind, id, tenant), err)
	}
	return r, nil
}

// Record implements store.Records.
func (s *Store) Record(ctx context.Context, tenant tenantID, kind, id string) (store.Record, error) {
	if err := s.begin(ctx); err != nil {
		return store.Record{}, err
	}
	defer s.end()
	r, err := s.record(tenant, kind, id)
	if err == nil && expired(&r, time.Now()) {
		err = store.ErrNotFound
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Record{}, err
	}
	// That it is gone may also be of a write that is not durable yet.
	if failure := s.settled(records); failure != nil {
		return store.Record{}, failure
	}
	if err != nil {
		return store.Record{}, err
	}
	return r, nil
}

// List implements store.Records.
func (s *Store) List(ctx context.Context, tenant tenantID, kind, after string, limit int) ([]store.Record, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if limit <= 0 {
		return nil, nil
	}
	lower := kindPrefix(tenant, kind, 0)
	from := lower
	if after != "" {
		from = append(recordKey(tenant, kind, after), 0)
	}
	now := time.Now()
	var found []store.Record
	err := s.scan(from, end(lower), func(key, value []byte) (bool, error) {
		r, err := decodeRecord(tenant, kind, string(key[len(lower):]), value)
		if err != nil {
			return false, corrupt(fmt.Sprintf("record %s of %q", kind, tenant), err)
		}
		if !expired(&r, now) {
			found = append(found, r)
		}
		return len(found) < limit, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, s.settled(records)
}

// Save implements store.Records.
func (s *Store) Save(ctx context.Context, changes []store.RecordChange, laneChanges []store.LaneChange) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if err := s.space.room(needProgress); err != nil {
		return err
	}
	b := s.db.NewBatch()
	w := s.newLaneWriter(b)
	defer w.release()
	done, err := s.applySave(w, changes, laneChanges)
	if err != nil {
		return err
	}
	return s.await(done)
}

func (s *Store) applySave(w *laneWriter, changes []store.RecordChange, laneChanges []store.LaneChange) (done pending, err error) {
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	now := time.Now()
	saved := map[string]store.Record{} // by key, as this call leaves them
	for i := range changes {
		if err := s.saveRecord(w.b, &changes[i], saved, now); err != nil {
			return done, err
		}
	}
	for i := range laneChanges {
		if err := w.change(&laneChanges[i]); err != nil {
			return done, err
		}
	}
	if err := s.sweep(w.b, saved, now); err != nil {
		return done, err
	}
	w.finish()
	return s.apply(w.b, w.applied, records, lanes)
}

func (s *Store) saveRecord(b *pebble.Batch, c *store.RecordChange, saved map[string]store.Record, now time.Time) error {
	if len(c.Value) > maxRecord {
		return fmt.Errorf("record %s %s is larger than %d bytes", c.Kind, c.ID, maxRecord)
	}
	key := recordKey(c.Tenant, c.Kind, c.ID)
	old, here := saved[string(key)]
	if !here {
		var err error
		if old, err = s.record(c.Tenant, c.Kind, c.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	version := old.Version
	if expired(&old, now) {
		version = 0
	}
	if c.Version != version {
		return fmt.Errorf("%w: %s %s is at version %d, not %d", store.ErrVersion, c.Kind, c.ID, version, c.Version)
	}
	if !old.Expires.IsZero() {
		_ = b.Delete(expiryKey(old.Expires, key), nil)
	}
	if c.Delete {
		saved[string(key)] = store.Record{}
		return b.Delete(key, nil)
	}
	r := c.Record
	r.Version++
	saved[string(key)] = r
	if !r.Expires.IsZero() {
		_ = b.Set(expiryKey(r.Expires, key), nil, nil)
	}
	return b.Set(key, encodeRecord(&r), nil)
}

// sweep removes some of the records that have expired, but for those of this save.
func (s *Store) sweep(b *pebble.Batch, saved map[string]store.Record, now time.Time) error {
	rows := 0
	upper := expiryKey(now, nil)
	return s.scan([]byte{spaceExpiry}, upper, func(key, _ []byte) (bool, error) {
		record := key[9:]
		if _, here := saved[string(record)]; !here {
			_ = b.Delete(key, nil)
			_ = b.Delete(record, nil)
		}
		rows++
		return rows < sweepRows, nil
	})
}
