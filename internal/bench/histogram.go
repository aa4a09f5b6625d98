package bench

import (
	"encoding/json"
	"math/bits"
	"time"
)

// histogram counts durations in buckets of at most 1/32 of their size. It is not safe for concurrent use.
type histogram struct {
	counts [buckets]int64
	total  int64
	most   time.Duration
}

// A bucket is a power of two of microseconds, in 32 parts; the last one ends after about 19 hours.
const (
	parts   = 32
	buckets = 32 * parts
)

func bucketOf(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	if us < parts {
		return int(us)
	}
	shift := bits.Len64(us) - 6 // us>>shift is in [32, 64)
	return min(shift*parts+int(us>>shift), buckets-1)
}

// upper is the largest duration of a bucket.
func upper(bucket int) time.Duration {
	if bucket < parts {
		return time.Duration(bucket+1) * time.Microsecond
	}
	shift, part := bucket/parts-1, bucket%parts+parts
	return time.Duration(uint64(part+1)<<shift) * time.Microsecond
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.total++
	h.most = max(h.most, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.most = max(h.most, o.most)
}

// quantile answers a duration that q of all are not above, 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	want := int64(q * float64(h.total))
	for i, n := range h.counts {
		if want -= n; want < 0 {
			return min(upper(i), h.most)
		}
	}
	return h.most
}

// wireHistogram is how parts tell of one: the buckets that are not empty.
type wireHistogram struct {
	Buckets [][2]int64 `json:"buckets,omitempty"`
	Most    int64      `json:"most_ns,omitempty"`
}

func (h *histogram) MarshalJSON() ([]byte, error) {
	w := wireHistogram{Most: int64(h.most)}
	for i, n := range h.counts {
		if n > 0 {
			w.Buckets = append(w.Buckets, [2]int64{int64(i), n})
		}
	}
	return json.Marshal(w)
}

func (h *histogram) UnmarshalJSON(b []byte) error {
	var w wireHistogram
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*h = histogram{most: time.Duration(w.Most)}
	for _, p := range w.Buckets {
		if p[0] >= 0 && p[0] < buckets {
			h.counts[p[0]] += p[1]
			h.total += p[1]
		}
	}
	return nil
}

// into writes the quantiles that every result has.
func (h *histogram) into(r *Result) {
	r.P50, r.P95, r.P99, r.Max = milliseconds(h.quantile(.5)), milliseconds(h.quantile(.95)), milliseconds(h.quantile(.99)), milliseconds(h.most)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
