package rollup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/eventhose/eventhose/internal/store"
)

const (
	// saveRecords and saveBytes bound one write.
	saveRecords = 200
	saveBytes   = 1 << 20
	// saveTime is how long one write may take, flushTime all of one minute.
	saveTime  = 10 * time.Second
	flushTime = 45 * time.Second
	// closeTime is how long the last minute may take to be written at a stop.
	closeTime = 5 * time.Second
)

// hourOf names one hour of a series.
type hourOf struct {
	key
	hour int64 // since 1970
}

// hour is what this node has counted in it, as its record has it or is to have it. Bytes that are in value do not change.
type hour struct {
	id    string // of the record
	value []byte
	// saved is how much of value is written, version what the record then has.
	saved   int
	version uint64
}

// hourText sorts as hours do.
func hourText(hour int64) string { return time.Unix(hour*3600, 0).UTC().Format("2006010215") }

// Run writes each minute as soon as it is over, until ctx ends. What cannot be written is kept and tried again.
func (r *Rollups) Run(ctx context.Context) {
	timer := time.NewTimer(untilNext())
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		flushing, cancel := context.WithTimeout(ctx, flushTime)
		err := r.flush(flushing, minuteOf(time.Now()))
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			r.logger.Warn("metrics cannot be written, and are tried again each minute", "error", err)
		case err == nil && failing:
			r.logger.Info("metrics are written again")
		}
		failing = err != nil
		timer.Reset(untilNext())
	}
}

// untilNext is how long it is until the next minute begins.
func untilNext() time.Duration {
	now := time.Now()
	return now.Truncate(time.Minute).Add(time.Minute).Sub(now)
}

// Close writes what was counted, once nothing is counted any more and Run has returned; the minute under way too.
func (r *Rollups) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := r.flush(ctx, minuteOf(time.Now())+2); err != nil {
		return fmt.Errorf("write the last minute of metrics: %w", err)
	}
	return nil
}

// flush writes the minutes before one.
func (r *Rollups) flush(ctx context.Context, before int64) error {
	changes := r.gather(before)
	var err error
	for err == nil && len(changes) > 0 { // once the store is away, or full, the rest waits for the next minute
		n, bytes := 0, 0
		for n < len(changes) && n < saveRecords && (n == 0 || bytes+len(changes[n].Value) <= saveBytes) {
			bytes += len(changes[n].Value)
			n++
		}
		err = r.save(ctx, changes[:n])
		changes = changes[n:]
	}
	r.forget(before)
	return err
}

// gather takes the minutes before one out of the parts into their hours, and answers the records that are to be written.
func (r *Rollups) gather(before int64) []store.RecordChange {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before < r.before { // the clock was set back: records that are written and forgotten stay as they are
		r.node = newNode()
	}
	r.before = before
	whole := map[int64]*counts{} // the platform's, by minute
	for i := range r.parts {
		for _, m := range r.take(&r.parts[i], before) {
			for k, c := range m.series {
				r.put(k, m.at, c)
			}
			if whole[m.at] == nil {
				whole[m.at] = &counts{}
			}
			whole[m.at].merge(&m.platform)
		}
	}
	for at, c := range whole {
		if !c.empty() {
			r.put(platform, at, c)
		}
	}
	var changes []store.RecordChange
	for at, h := range r.hours {
		if h.saved < len(h.value) {
			changes = append(changes, store.RecordChange{Record: r.record(at, h)})
		}
	}
	return changes
}

// take takes the minutes before one out of a part.
func (r *Rollups) take(p *part, before int64) []minute {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now.at < before {
		p.turn(before)
	}
	over := p.over
	p.over = nil
	for _, m := range over {
		r.counting.Add(-int64(len(m.series)))
	}
	return over
}

// put adds a minute to its hour. r.mu is held.
func (r *Rollups) put(k key, at int64, c *counts) {
	of := hourOf{k, at / 60}
	h := r.hours[of]
	if h == nil {
		if k != platform && int64(len(r.hours)) >= 2*r.room(k) { // those of the hour before may be there, too
			r.left.Add(1)
			return
		}
		h = &hour{id: recordID(k, of.hour, r.node), value: []byte{form}}
		r.hours[of] = h
	}
	h.value = appendBlock(h.value, int(at%60), c)
}

func recordID(k key, hour int64, node string) string {
	return k.series + "/" + hourText(hour) + "/" + node
}

func (r *Rollups) record(at hourOf, h *hour) store.Record {
	end := time.Unix((at.hour+1)*3600, 0).UTC()
	return store.Record{Tenant: at.tenant, Kind: Kind, ID: h.id, Version: h.version, Value: h.value, Expires: end.Add(r.retention)}
}

// save writes some of the records. If it is not known what an earlier write has done it looks: the records are this node's.
func (r *Rollups) save(ctx context.Context, changes []store.RecordChange) error {
	ctx, cancel := context.WithTimeout(ctx, saveTime)
	defer cancel()
	err := r.store.Save(ctx, changes, nil)
	if errors.Is(err, store.ErrVersion) {
		for i := range changes {
			c := &changes[i]
			stored, err := r.store.Record(ctx, c.Tenant, c.Kind, c.ID)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			c.Version = stored.Version
		}
		err = r.store.Save(ctx, changes, nil)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range changes {
		if h := r.hours[hourOfRecord(&changes[i].Record)]; h != nil {
			h.saved, h.version = len(changes[i].Value), changes[i].Version+1
		}
	}
	return nil
}

// hourOfRecord is which hour a record is of.
func hourOfRecord(c *store.Record) hourOf {
	series, rest, _ := strings.Cut(c.ID, "/")
	return hourOf{key{c.Tenant, series}, hourAt(rest)}
}

// forget drops the hours that are over and written, once Rates no longer looks at their last minutes; and what has waited to be
// written for longer than it is to be kept.
func (r *Rollups) forget(before int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := time.Now().Add(-r.retention).Unix() / 3600
	for at, h := range r.hours {
		if at.hour < (before-2)/60 && h.saved == len(h.value) || at.hour+1 < oldest {
			delete(r.hours, at)
		}
	}
}

// hourAt is the hour that the text of one begins with, -1 if it does not.
func hourAt(text string) int64 {
	hour, _, _ := strings.Cut(text, "/")
	t, err := time.Parse("2006010215", hour)
	if err != nil {
		return -1
	}
	return t.Unix() / 3600
}
