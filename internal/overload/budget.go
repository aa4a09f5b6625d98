package overload

import "sync/atomic"

// Budget is a bound that requests take parts of: bytes that are held, or requests that wait. It is safe for concurrent use;
// without Set nothing is to be had of it.
type Budget struct{ free atomic.Int64 }

// Set says how much there is. It is called before the first Take.
func (b *Budget) Set(n int64) { b.free.Store(n) }

// Take answers whether there was room; what was taken must be given back.
func (b *Budget) Take(n int64) bool {
	if b.free.Add(-n) >= 0 {
		return true
	}
	b.free.Add(n)
	return false
}

// Give gives back what was taken.
func (b *Budget) Give(n int64) { b.free.Add(n) }
