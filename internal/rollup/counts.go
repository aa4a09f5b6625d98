package rollup

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/eventhose/eventhose"
)

// counts is what one series has in one minute, or in several that were added up.
type counts struct {
	events, bytes              uint64
	attempts, taken, delivered uint64
	first, firstTaken          uint64
	duration, lag              histogram
}

func (c *counts) append(events, bytes int) {
	c.events += uint64(events)
	c.bytes += uint64(bytes)
}

// attempt counts one; lag is below 0 where there is none.
func (c *counts) attempt(a *eventhose.Attempt, lag time.Duration) {
	c.attempts++
	if a.Kind == eventhose.AttemptFirst {
		c.first++
	}
	switch {
	case a.Outcome == eventhose.OutcomeTaken:
		c.taken++
		c.delivered += uint64(len(a.Events))
		if a.Kind == eventhose.AttemptFirst {
			c.firstTaken++
		}
	case a.Reason == eventhose.ReasonPartly:
		c.delivered += uint64(max(0, len(a.Events)-len(a.Failed)))
	}
	c.duration.add(time.Duration(a.Duration))
	if lag >= 0 {
		c.lag.add(lag)
	}
}

func (c *counts) empty() bool { return c.events+c.attempts == 0 }

func (c *counts) merge(o *counts) {
	c.events += o.events
	c.bytes += o.bytes
	c.attempts += o.attempts
	c.taken += o.taken
	c.delivered += o.delivered
	c.first += o.first
	c.firstTaken += o.firstTaken
	c.duration.merge(o.duration)
	c.lag.merge(o.lag)
}

func (c *counts) metrics() eventhose.Metrics {
	return eventhose.Metrics{Events: c.events, Bytes: c.bytes, DeliveryMetrics: eventhose.DeliveryMetrics{
		Attempts: c.attempts, Taken: c.taken, Failed: c.attempts - c.taken, Delivered: c.delivered, First: c.first, FirstTaken: c.firstTaken,
		Duration: c.duration.quantiles(), Lag: c.lag.quantiles()}}
}

// A record's value is a byte for the version of its form and then a block for each minute of the hour, in the order in
// which they were counted; a minute may have several, which are added up. A block is the minute and numbers, as uvarints:
// the fields of counts, then for each histogram the number of its buckets, and for each how far it is from the one before
// and its count.
const form = 1

func appendBlock(b []byte, minute int, c *counts) []byte {
	b = append(b, byte(minute))
	for _, n := range [...]uint64{c.events, c.bytes, c.attempts, c.taken, c.delivered, c.first, c.firstTaken} {
		b = binary.AppendUvarint(b, n)
	}
	for _, h := range [...]histogram{c.duration, c.lag} {
		b = binary.AppendUvarint(b, uint64(len(h)))
		last := uint16(0)
		for _, k := range h {
			b = binary.AppendUvarint(b, uint64(k.bucket-last))
			b = binary.AppendUvarint(b, k.n)
			last = k.bucket
		}
	}
	return b
}

var errForm = errors.New("it is not in the form of a rollup")

// blocks calls take with each minute of a record's value.
func blocks(value []byte, take func(minute int, c *counts)) error {
	if len(value) == 0 || value[0] != form {
		return errForm
	}
	b, bad := value[1:], false
	next := func() uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			bad = true
			b = nil
			return 0
		}
		b = b[size:]
		return n
	}
	for len(b) > 0 && !bad {
		minute := int(b[0])
		b = b[1:]
		var c counts
		for _, field := range [...]*uint64{&c.events, &c.bytes, &c.attempts, &c.taken, &c.delivered, &c.first, &c.firstTaken} {
			*field = next()
		}
		for _, h := range [...]*histogram{&c.duration, &c.lag} {
			n := next()
			at := uint64(0)
			for range min(n, buckets) {
				at += next()
				count := next()
				if at >= buckets || bad {
					return errForm
				}
				*h = append(*h, counted{uint16(at), count})
			}
			bad = bad || n > buckets
		}
		if bad || minute >= 60 || c.taken > c.attempts {
			return errForm
		}
		take(minute, &c)
	}
	return nil
}
