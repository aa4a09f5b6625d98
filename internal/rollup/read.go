package rollup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

const (
	// readPage is how many records are listed at once.
	readPage = 64
	// readBytes bounds what one question reads.
	readBytes = 64 << 20
)

// Series answers what was counted in each step of a time, by all nodes: by this one up to now, by others up to a minute
// ago. CodeInvalid with the field (from, to, step), CodeLimit if the time holds more than is read at once.
func (r *Rollups) Series(ctx context.Context, q eventhose.MetricsQuery) (eventhose.MetricsSeries, error) {
	step := int64(q.Step / time.Minute)
	switch {
	case q.Step < eventhose.MetricsStep || q.Step%eventhose.MetricsStep != 0:
		return eventhose.MetricsSeries{}, eventhose.Invalid("step", "must be a multiple of 1m")
	case q.From.Before(time.Unix(0, 0)) || q.From.Year() > 9999:
		return eventhose.MetricsSeries{}, eventhose.Invalid("from", "must be after 1970")
	case !q.From.Before(q.To) || q.To.Year() > 9999:
		return eventhose.MetricsSeries{}, eventhose.Invalid("to", "must be after from")
	}
	from := minuteOf(q.From) / step * step
	end := q.To.Unix()
	if q.To.Nanosecond() > 0 {
		end++
	}
	n := (end - from*60 + step*60 - 1) / (step * 60)
	if n > eventhose.MaxMetricsPoints {
		return eventhose.MetricsSeries{}, eventhose.Invalid("step", "is too short: there would be %d steps, and may be %d", n, eventhose.MaxMetricsPoints)
	}
	steps := make([]counts, n)
	err := r.visit(ctx, keyOf(q.Tenant, q.Subscription), from, from+n*step, func(_ bool, _ string, at int64, c *counts) {
		steps[(at-from)/step].merge(c)
	})
	if err != nil {
		return eventhose.MetricsSeries{}, err
	}
	series := eventhose.MetricsSeries{Step: eventhose.Duration(q.Step), Points: make([]eventhose.MetricsPoint, n)}
	var total counts
	for i := range steps {
		series.Points[i] = eventhose.MetricsPoint{Time: time.Unix((from+int64(i)*step)*60, 0).UTC(), Metrics: steps[i].metrics()}
		total.merge(&steps[i])
	}
	series.Total = total.metrics()
	return series, nil
}

// Rates answers how much there is in each second at present: at this node in the last minute, at others in the last one
// that they have written.
func (r *Rollups) Rates(ctx context.Context, tenant eventhose.TenantID) (eventhose.MetricsRates, error) {
	now := time.Now()
	present := minuteOf(now)
	left := 1 - float64(now.Sub(time.Unix(present*60, 0)))/float64(time.Minute) // of the minute before
	var rates eventhose.MetricsRates
	add := func(c *counts, share float64) {
		rates.Events += float64(c.events) * share / 60
		rates.Deliveries += float64(c.delivered) * share / 60
	}
	others := map[string]map[int64]*counts{}
	err := r.visit(ctx, keyOf(tenant, ""), present-2, present+2, func(own bool, id string, at int64, c *counts) {
		switch {
		case own && at >= present:
			add(c, 1)
		case own && at == present-1:
			add(c, left)
		case !own:
			_, node, _ := strings.Cut(strings.TrimPrefix(id, all+"/"), "/")
			if others[node] == nil {
				others[node] = map[int64]*counts{}
			}
			if others[node][at] == nil {
				others[node][at] = &counts{}
			}
			others[node][at].merge(c)
		}
	})
	for _, minutes := range others {
		if c := minutes[present-1]; c != nil {
			add(c, 1)
		} else if c := minutes[present-2]; c != nil {
			add(c, 1)
		}
	}
	return rates, err
}

func keyOf(tenant eventhose.TenantID, sub eventhose.SubscriptionID) key {
	if sub == "" {
		return key{tenant, all}
	}
	return key{tenant, string(sub)}
}

// visit calls take with every minute of a series from one minute to before another, of all nodes, in no order. own says
// that it is of this node's memory, id is else that of the record.
func (r *Rollups) visit(ctx context.Context, k key, from, to int64, take func(own bool, id string, at int64, c *counts)) error {
	// What is in memory is looked at first: it stays there until it is written.
	ours, err := r.visitMemory(k, from, to, take)
	if err != nil {
		return err
	}
	last := k.series + "/" + hourText((to-1)/60) + "0"
	read := 0
	for after := k.series + "/" + hourText(from/60); ; {
		page, err := r.store.List(ctx, k.tenant, Kind, after, readPage)
		if err != nil {
			return failed(err)
		}
		for i := range page {
			c := &page[i]
			after = c.ID
			hour := hourOfRecord(c)
			if c.ID > last || hour.series != k.series {
				return nil
			}
			if read += len(c.Value); read > readBytes {
				return &eventhose.Error{Code: eventhose.CodeLimit, Message: "this time holds more than is read at once", Fix: "ask for a shorter time"}
			}
			if ours[c.ID] {
				continue
			}
			err := blocks(c.Value, func(minute int, b *counts) {
				if at := hour.hour*60 + int64(minute); at >= from && at < to {
					take(false, c.ID, at, b)
				}
			})
			if err != nil || hour.hour < 0 {
				return fmt.Errorf("read the metrics %q of %q: %w: %w", c.ID, c.Tenant, store.ErrCorrupt, errors.Join(err, errForm))
			}
		}
		if len(page) < readPage {
			return nil
		}
	}
}

// visitMemory is visit for what is in memory, and answers the ids of the records that it makes up for.
func (r *Rollups) visitMemory(k key, from, to int64, take func(own bool, id string, at int64, c *counts)) (map[string]bool, error) {
	type piece struct {
		at int64
		counts
	}
	var pieces []piece
	values := map[int64][]byte{} // by hour
	ours := map[string]bool{}
	copyOf := func(m *minute) {
		c := m.series[k]
		if k == platform {
			c = &m.platform
		}
		if c == nil || m.at < from || m.at >= to {
			return
		}
		p := piece{at: m.at}
		p.merge(c)
		pieces = append(pieces, p)
	}
	r.mu.Lock()
	for at, h := range r.hours {
		if at.key == k && at.hour >= from/60 && at.hour <= (to-1)/60 {
			values[at.hour], ours[h.id] = h.value, true
		}
	}
	for i := range r.parts {
		if k != platform && i != int(store.ShardOf(k.tenant)%shards) {
			continue
		}
		p := &r.parts[i]
		p.mu.Lock()
		for i := range p.over {
			copyOf(&p.over[i])
		}
		copyOf(&p.now)
		p.mu.Unlock()
	}
	for i := range pieces {
		if hour := pieces[i].at / 60; values[hour] == nil { // it may be written before the records are read
			ours[recordID(k, hour, r.node)] = true
		}
	}
	r.mu.Unlock()
	for i := range pieces {
		take(true, "", pieces[i].at, &pieces[i].counts)
	}
	for hour, value := range values {
		err := blocks(value, func(minute int, c *counts) {
			if at := hour*60 + int64(minute); at >= from && at < to {
				take(true, "", at, c)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return ours, nil
}

// failed gives a store's error the code that a client can act on.
func failed(err error) error {
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFailed) {
		return &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the store cannot be reached now", RetryAfter: time.Second, Err: err}
	}
	return fmt.Errorf("read metrics: %w", err)
}
