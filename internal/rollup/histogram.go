package rollup

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
)

// A bucket holds the durations of one eighth of a power of two of microseconds, so its middle is within a sixteenth of
// all that it counts. The last one begins at 71 hours and has no end.
const (
	parts   = 8
	buckets = 36 * parts
)

func bucketOf(d time.Duration) uint16 {
	us := uint64(max(0, d.Microseconds()))
	if us < parts {
		return uint16(us)
	}
	shift := bits.Len64(us) - 4 // us>>shift is in [8, 16)
	return uint16(min(shift*parts+int(us>>shift), buckets-1))
}

// middle is what a bucket's durations are taken for, in microseconds.
func middle(bucket uint16) float64 {
	if bucket < parts {
		return float64(bucket)
	}
	shift, part := bucket/parts-1, uint64(bucket%parts+parts)
	return float64(part<<shift) + float64(uint64(1)<<shift-1)/2
}

// histogram has the buckets that are not empty, in order. A minute of a receiver has a dozen or two.
type histogram []counted

type counted struct {
	bucket uint16
	n      uint64
}

func (h *histogram) add(d time.Duration) { h.count(bucketOf(d), 1) }

func (h *histogram) count(bucket uint16, n uint64) {
	i, there := slices.BinarySearchFunc(*h, bucket, func(c counted, b uint16) int { return int(c.bucket) - int(b) })
	if there {
		(*h)[i].n += n
		return
	}
	*h = slices.Insert(*h, i, counted{bucket, n})
}

func (h *histogram) merge(o histogram) {
	if len(*h) == 0 {
		*h = slices.Clone(o)
		return
	}
	for _, c := range o {
		h.count(c.bucket, c.n)
	}
}

// quantiles are by the nearest rank.
func (h histogram) quantiles() eventhose.Quantiles {
	total := uint64(0)
	for _, c := range h {
		total += c.n
	}
	if total == 0 {
		return eventhose.Quantiles{}
	}
	at := func(q float64) float64 {
		rank := max(1, uint64(math.Ceil(q*float64(total))))
		for _, c := range h {
			if c.n >= rank {
				return math.Round(middle(c.bucket)) / 1000
			}
			rank -= c.n
		}
		return 0
	}
	return eventhose.Quantiles{P50: at(.5), P95: at(.95), P99: at(.99)}
}
